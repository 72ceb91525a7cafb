# bench_bars.awk: the tables of bench_bars.sh, from one record; after bench_value.awk. A key is a
# bench and its shape.
function is_time(text) { return text ~ /^[0-9]+(\.[0-9]+)?$/ && text + 0 > 0 }
function add_peer(key, name, us) {
    if (!is_time(us)) { return }
    peers[key] = peers[key] (((key, name) in peer) ? "" : name "\n")
    if (!((key, name) in peer) || us + 0 < peer[key, name]) { peer[key, name] = us + 0 }
    if (us + 0 > peer_most[key, name]) { peer_most[key, name] = us + 0 }
}

# Fastest peer of a row whose name fits; its name in best_name, 0 where there is none.
function best_peer(key, fits,    names, n, i, best) {
    n = split(peers[key], names, "\n"); best = 0; best_name = ""
    for (i = 1; i < n; i++) {
        if (names[i] ~ fits && (!best || peer[key, names[i]] < best)) {
            best = peer[key, names[i]]; best_name = names[i]
        }
    }
    return best
}

# ---- bars ----
function bar(text, measured, is_met) {
    print "| " text " | " measured " | " (measured == "not measured" ? "" : \
          is_met ? "reached" : "**not reached**") " |"
}

# Worst over rows of a bench and shape of what `kind` says: the peer over ours, or the share of the
# copy. Fewer rows than wanted, or one without a value, leave the bar unmeasured.
function worst(text, benches, shape, wanted, kind, limit, fits,    list, n, i, k, key, found, x,
               low, where) {
    n = split(benches, list, " "); low = 1e30
    for (i = 1; i <= n; i++) {
        for (k = 1; k <= rows; k++) {
            if (bench[k] != list[i] || shapes[k] !~ shape) { continue }
            key = key_of[k]; best_name = ""
            x = kind == "peer" ? best_peer(key, fits) / ours[key] \
                               : copy > 0 ? bytes[key] / ours[key] / copy : 0
            found++
            if (x < low) {
                low = x; where = bench[k] " " shapes[k] (best_name ? ", " best_name : "")
            }
        }
    }
    bar(text, found >= wanted && low > 0 ? sprintf("%.0f %% at least (%s)", 100 * low, where) \
                                         : "not measured", low >= limit)
}

# The time of a row, in milliseconds at most.
function at_most(text, name, shape, milliseconds,    k) {
    for (k = 1; k <= rows; k++) {
        if (bench[k] == name && shapes[k] ~ shape) {
            bar(text, sprintf("%.4g ms (%s %s)", ours[key_of[k]] / 1e3, name, shapes[k]),
                ours[key_of[k]] <= 1e3 * milliseconds)
            return
        }
    }
    bar(text, "not measured", 0)
}

function bars(    attention, search, model) {
    print "| bar | measured | |\n|---|---|---|"
    worst("matmul: 90 % of cuBLAS on our own shapes",
          "matmul_fwd matmul_bwd_input matmul_bwd_weight",
          "^(ViT M=50432|Jina M=65536|Qwen M=(1050|8400|35000)) .*bf16$", 48, "peer", 0.9,
          "^(cuBLASLt|torch)")
    attention = "^ViT B=256 T=(197|256) .*bf16$"
    worst("attention forward: cuDNN at T <= 256", "attention_fwd", attention, 2, "peer", 1, "cuDNN")
    worst("attention backward: cuDNN at T <= 256", "attention_bwd", attention, 2, "peer", 1,
          "cuDNN")
    worst("norms: 85 % of the copy", "layernorm_fwd layernorm_bwd rmsnorm_fwd rmsnorm_bwd",
          "^N=(50432 C=768|35000 C=3584) bf16$", 4, "copy", 0.85, "")
    worst("AdamW: 85 % of the copy", "adamw", "^n=(86567656|137368320) bf16$", 2, "copy", 0.85, "")
    search = "^Q=256 M=1600000 E=768 K=50 f16$"
    at_most("top-50 of 256 queries over 1.6M x 768 f16: 1.1 ms", "topk", search, 1.1)
    worst("the same: 1.8 times as fast as matmul + topk", "topk", search, 1, "peer", 1.8,
          "^matmul.topk")
    model = "^B=256 fwd bf16$"
    at_most("ViT-B/16, batch 256, forward: 16 ms", "vit_b16", model, 16)
    worst("the same: 1.1 times as fast as timm", "vit_b16", model, 1, "peer", 1.1, "^timm")
    at_most("ViT-B/16, batch 256, forward and backward: 50 ms", "vit_b16", "^B=256 fwd.bwd bf16$",
            50)
    model = "^prompts=100 T=350 bf16$"
    at_most("100 prompts of 350 tokens, Qwen2-VL-7B: 1.0 s", "qwen2vl_7b_score", model, 1000)
    worst("the same: 1.5 times as fast as transformers", "qwen2vl_7b_score", model, 1, "peer", 1.5,
          "^transformers$")
    model = "^prompts=3 T=350 rank=8 bf16$"
    at_most("LoRA micro-step, 3 x 350 tokens: 60 ms", "qwen2vl_7b_lora", model, 60)
    worst("the same: 1.5 times as fast as PEFT as LLaMA-Factory sets it", "qwen2vl_7b_lora", model,
          1, "peer", 1.5, "^PEFT$")
    worst("the same: 1.1 times as fast as PEFT at its best", "qwen2vl_7b_lora", model, 1, "peer",
          1.1, "^PEFT best")
}

# ---- a row ----
/"versions":/ { versions = value("versions") }
/"origin":/ && origin == "" { origin = value("origin") }
/"bench":/ {
    key = value("bench") " " value("shape")
    if (value("side") == "peer") {
        us = value("median_us")
        add_peer(key, value("peer"), us)
        if (is_time(us) && value("launch_us") > 0.9 * us) { bound[key, value("peer")] = 1 }
        if (value("failed") != "") {
            failed[key, value("peer")] = value("failed")
            tried[key] = tried[key] value("peer") "\n"
        }
        next
    }
    if (value("backend") != "cuda" || !is_time(value("median_us"))) { next }
    us = value("median_us") + 0
    if (value("bench") == "ceiling") {
        if (value("bytes") > 0 && value("bytes") / us > copy) { copy = value("bytes") / us }
        if (value("flops") > 0 && value("flops") / us > product) { product = value("flops") / us }
        next
    }
    if (!(key in ours)) {
        key_of[++rows] = key; bench[rows] = value("bench"); shapes[rows] = value("shape")
    }
    if (us > ours[key]) { ours[key] = us }
    if (!(key in least) || us < least[key]) { least[key] = us }
    flops[key] = value("flops") + 0; bytes[key] = value("bytes") + 0
    share[key] = value("peak_share")
    if (value("peer") != "") { add_peer(key, value("peer"), value("peer_median_us")) }
}

# ---- the page ----
function cell(format, x) { return x > 0 ? sprintf(format, x) : "" }
# Peers of a row without a time in any round, and why.
function missing(key, name,    names, n, i) {
    n = split(tried[key], names, "\n")
    for (i = 1; i < n; i++) {
        if (!((key, names[i]) in peer) && (key, names[i]) in failed) {
            print "- " key ", " names[i] ": " failed[key, names[i]]
            delete failed[key, names[i]]
        }
    }
}
END {
    bars()
    if (!rows) { exit }
    print "\nFirst rows: " origin "."
    if (versions != "") { print "Peers: " versions "." }
    rate = cell("%.0f TFLOP/s", product / 1e6)
    printf("The ceilings of that machine: a copy of %.2f TB/s, read and written; ", copy / 1e6)
    printf("cuBLASLt 8192^3 in bf16 %s.\n\n", rate ? rate : "not measured")
    print "| bench | shape | ours, us | TFLOP/s | TB/s | of the ceiling | fastest peer | us " \
          "| peer / ours |"
    print "|---|---|--:|--:|--:|--:|---|--:|--:|"
    for (k = 1; k <= rows; k++) {
        key = key_of[k]; us = ours[key]; best = best_peer(key, ".")
        most = peer_most[key, best_name]
        if ((key, best_name) in bound) { best_name = best_name " (bound by launches)" }
        printf("| %s | %s | %.1f (%.1f) | %s | %s | %s | %s | %s | %s |\n", bench[k], shapes[k],
               us, least[key], cell("%.1f", flops[key] / us / 1e6),
               cell("%.2f", bytes[key] / us / 1e6), cell("%.0f %%", 100 * share[key]), best_name,
               best ? sprintf("%.1f (%.1f)", best, most) : "", cell("%.2f", best / us))
    }
    print "\nPeers that gave no time:\n"
    for (k = 1; k <= rows; k++) { missing(key_of[k]) }
}
