#!/usr/bin/env python3
"""Test vectors of the method: every formula once more, in plain Python floats.

Writes tests/data/vectors_method.json. Needs nothing but Python. Written from the paper's equations
and the description of the original code, not from the C sources; tests/test_method.c compares the
two. Inputs are rounded to f32 where the engine stores f32. The only randomness is a seeded
generator for inputs and Philox for the sampler, itself checked here against the published known
answer.
"""
import json
import math
import random
import struct
from pathlib import Path


def f32(x):
    return struct.unpack("f", struct.pack("f", x))[0]


def softmax(x, temperature=1.0):
    e = [math.exp(v / temperature) for v in x]
    return [v / sum(e) for v in e]


def log_softmax(x, temperature=1.0):
    return [math.log(p) for p in softmax(x, temperature)]


# ---- evidence ----
def gold_double_softmax(logits, y):
    pi = softmax(logits)
    return pi[y] - math.log(sum(math.exp(p) for p in pi))


def gold_fixed(logprobs, y):
    return math.log(softmax(logprobs)[y])


def evidence():
    rng = random.Random(1)
    cases = []
    for C in (2, 6, 7):
        for y in (0, C - 1):
            raw = [f32(rng.gauss(0, 2)) for _ in range(C)]
            # The reader's vocabulary holds more than the labels: log-probabilities are not
            # normalised over the label set.
            logprob = [f32(v - 9.25) for v in raw]
            cases.append(dict(C=C, y=y, raw=raw, logprob=logprob,
                              double_softmax=gold_double_softmax(raw, y),
                              fixed=gold_fixed(logprob, y)))
    # The window: one rival with everything, uniform, gold with everything.
    for C in (2, 5, 6, 7, 15):
        for name, raw in (("min", [0.0, 60.0] + [0.0] * (C - 2)), ("uniform", [0.0] * C),
                          ("max", [60.0] + [0.0] * (C - 1))):
            cases.append(dict(C=C, y=0, raw=raw, logprob=[v - 70 for v in raw], window=name,
                              double_softmax=gold_double_softmax(raw, 0),
                              fixed=gold_fixed([v - 70 for v in raw], 0)))
    six = [f32(v) for v in (1.5, 0.25, -0.75, 2.0, 0.5, 1.0)]
    retina6 = dict(raw=six, y=3, five_double=gold_double_softmax(six[:5], 3),
                   six_double=gold_double_softmax(six, 3), five_fixed=gold_fixed(six[:5], 3),
                   six_fixed=gold_fixed(six, 3))
    tokens = dict(logprob=[f32(v) for v in (-3.0, -4.5, -1.25)])
    tokens["mean"] = sum(tokens["logprob"]) / 3
    return dict(cases=cases, retina6=retina6, tokens=tokens)


# ---- marginal ----
def kl(r, p):
    return sum(a * math.log(a / b) for a, b in zip(r, p) if a > 0)


def marginal_row(mode, s, g, Ts, Tg, F, prior_t1):
    """One query: minimised loss, likelihood loss, posterior, gradient of the minimised loss."""
    K = len(s)
    p = softmax(s, Ts)
    if mode == "emdr2":  # g[d][t]
        n = len(g[0])
        loss, r = 0.0, [0.0] * K
        for t in range(n):
            joint = [p[d] * math.exp(g[d][t]) for d in range(K)]
            loss -= math.log(sum(joint)) / n
            r = [a + j / sum(joint) / n for a, j in zip(r, joint)]
        likelihood = -math.log(sum(a * math.exp(sum(l)) for a, l in zip(p, g)))
        return loss, likelihood, r, [(a - b) / Ts for a, b in zip(p, r)]
    joint = [a * math.exp(b) for a, b in zip(p, g)]
    likelihood = -math.log(sum(joint))
    if mode == "marginal":
        r = [j / sum(joint) for j in joint]
        loss = likelihood
    elif mode in ("jomed", "legacy_iii"):
        prior = log_softmax(s, 1.0 if prior_t1 else Ts)
        r = softmax([a + b for a, b in zip(log_softmax(g), prior)], Tg)
        loss = kl(r, p)
    elif mode == "pdist":
        r = softmax(g, Tg)
        loss = kl(r, p)
    elif mode == "legacy_i":
        m = [a - (F - (b - min(g)) / (max(g) - min(g)) * F) for a, b in zip(s, g)]
        r = softmax(m, Tg)
        loss = kl(r, p)
    elif mode == "legacy_ii":
        r = [j / sum(joint) for j in joint]
        loss = sum(-b for b in g) / K
        return loss, likelihood, r, [-b / (K * a) for a, b in zip(s, g)]
    return loss, likelihood, r, [(a - b) / Ts for a, b in zip(p, r)]


def marginal():
    rng = random.Random(2)
    B, K, T = 2, 4, 3
    s = [[f32(rng.uniform(0.2, 0.9)) for _ in range(K)] for _ in range(B)]
    g = [[f32(-rng.expovariate(0.7)) for _ in range(K)] for _ in range(B)]
    tokens = [[[f32(-rng.expovariate(1)) for _ in range(T)] for _ in range(K)] for _ in range(B)]
    lengths = [3, 2]
    predicted = [[1, 1, 1, 1], [0, 1, 1, 1]]
    weight = [1.0, 0.25]
    out = []
    for mode in ("marginal", "jomed", "pdist", "emdr2", "legacy_i", "legacy_ii", "legacy_iii"):
        for Ts, Tg in ((1.0, 1.0), (0.125, 0.5)):
            for prior_t1 in (False, True):
                for kl_mean in (False, True):
                    case = dict(mode=mode, Ts=Ts, Tg=Tg, F=0.5, prior_t1=prior_t1,
                                kl_mean=kl_mean, loss=[], r=[], ds=[])
                    for b in range(B):
                        row = [l[:lengths[b]] for l in tokens[b]] if mode == "emdr2" else g[b]
                        loss, likelihood, r, ds = marginal_row(mode, s[b], row, Ts, Tg, 0.5,
                                                               prior_t1)
                        scale = weight[b] * (1000 / (B * K) if kl_mean else 1 / B)
                        if mode == "legacy_iii" and len(set(predicted[b])) == 1:
                            scale = 0.0
                        case["loss"] += [loss, likelihood]
                        case["r"] += r
                        case["ds"] += [scale * v for v in ds]
                    out.append(case)
    return dict(B=B, K=K, T=T, s=sum(s, []), g=sum(g, []), tokens=sum(sum(tokens, []), []),
                lengths=lengths, predicted=sum(predicted, []), weight=weight, cases=out)


# ---- optimiser ----
def adamw():
    """exact.wd1: three steps on five numbers, the first with rate 0 (warm-up of 20)."""
    rng = random.Random(3)
    beta1, beta2, eps, wd = f32(0.9), f32(0.999), f32(1e-8), 1.0
    lrs = [f32(1e-2 * k / 20) for k in range(3)]
    w0 = [f32(rng.gauss(0, 1)) for _ in range(5)]
    grads = [[f32(rng.gauss(0, 1)) for _ in range(5)] for _ in range(3)]
    w, m, v, steps = w0[:], [0.0] * 5, [0.0] * 5, []
    for step, (lr, grad) in enumerate(zip(lrs, grads), start=1):
        for i in range(5):
            w[i] *= 1 - lr * wd
            m[i] = beta1 * m[i] + (1 - beta1) * grad[i]
            v[i] = beta2 * v[i] + (1 - beta2) * grad[i] ** 2
            m_hat, v_hat = m[i] / (1 - beta1 ** step), v[i] / (1 - beta2 ** step)
            w[i] -= lr * m_hat / (math.sqrt(v_hat) + eps)
        steps.append(w[:])
    return dict(w0=w0, lrs=lrs, grads=sum(grads, []), wd=wd, w=sum(steps, []))


def clip():
    """Clipping after backward scales the gradient; before it there is only an empty gradient."""
    grad = [3.0, -4.0, 12.0]
    norm = math.sqrt(sum(x * x for x in grad))
    return dict(grad=grad, max_norm=1.0, norm=norm, factor=min(1.0, 1.0 / (norm + 1e-6)),
                empty_norm=0.0, empty_factor=min(1.0, 1.0 / (0.0 + 1e-6)))


def schedule():
    def cosine(step, lr=1e-4, warmup=20, total=50000):
        if step < warmup:
            return lr * step / warmup
        return lr * (1 + math.cos(math.pi * (step - warmup) / (total - warmup))) / 2

    def linear(step, lr=5e-4, warmup=15, total=100):
        if step < warmup:
            return lr * step / warmup
        return lr * (total - step) / (total - warmup)

    steps = [0, 19, 20, 25010, 50000]
    linear_steps = [0, 14, 15, 57, 99, 100]
    return dict(steps=steps, lr=[cosine(s) for s in steps], linear_steps=linear_steps,
                linear=[linear(s) for s in linear_steps])


# ---- fusion ----
def fusion():
    """Four passages, three labels: two of the image head, two of the text head."""
    logits = [[2.0, 0.5, -1.0], [0.25, 1.5, 0.0], [-0.5, 1.0, 1.25], [0.0, 0.75, 2.5]]
    cases = []
    for name, s in (("cosines", [0.8, 0.6, 0.5, 0.3]), ("zero maximum", [0.0, -0.25, 0.5, 0.25]),
                    ("negative maximum", [-0.5, -1.0, 0.75, 0.25]),
                    ("large", [40.0, 20.0, 5.0, 4.0])):
        s = [f32(x) for x in s]
        for max_norm in (False, True):
            heads = [s[:2], s[2:]]
            scaled = []
            for head in heads:
                top = max(head)
                scaled += [x / top for x in head] if max_norm and top != 0 else head
            w = softmax(scaled)
            fused = [sum(w[d] * logits[d][c] for d in range(4)) for c in range(3)]
            mix = [0.5 * x for head in heads for x in softmax(head, 0.25)]
            pi = [softmax(row) for row in logits]
            mixture = [sum(mix[d] * pi[d][c] for d in range(4)) for c in range(3)]
            cases.append(dict(name=name, s=s, max_norm=max_norm, fused=fused,
                              token=fused.index(max(fused)), mixture=mixture,
                              label=mixture.index(max(mixture))))
    return dict(logits=sum(logits, []), temperature=0.25, cases=cases)


# ---- answers in the reader's own words ----
def own_words():
    rng = random.Random(5)
    P, rows, V = 4, 5, 13
    penalty, seen = 1.3, [4, 0, 4, 12]
    raw = [[[f32(rng.gauss(0, 2)) for _ in range(V)] for _ in range(rows)] for _ in range(P)]
    # What transformers calls scores: every id of the prompt made less likely, sampling or not.
    row = raw[0][0]
    penalized = [f32(f32(x) * f32(penalty)) if v in seen and x < 0 else
                 f32(x / f32(penalty)) if v in seen else x for v, x in enumerate(row)]
    labels = [[3], [7, 2], [1, 5, 9], [12, 12]]
    logits = [[sum(s[t][token] for t, token in enumerate(label)) / len(label) for label in labels]
              for s in raw]
    saved = [[sum(s[t][label[0]] for t in range(rows)) for label in labels] for s in raw]
    scores = [f32(x) for x in (0.8, 0.6, 0.5, 0.3)]
    fused = []
    for max_norm in (False, True):
        scaled = scores
        if max_norm:
            scaled = [x / max(scores[:2]) for x in scores[:2]] + [x / max(scores[2:])
                                                                   for x in scores[2:]]
        w = softmax(scaled)
        mixed = [[sum(w[d] * raw[d][t][v] for d in range(P)) for v in range(V)]
                 for t in range(rows)]
        fused.append([max(range(V), key=softmax(m).__getitem__) for m in mixed])
    prompt, answer = list(range(100, 112)), [7, 8, 9]
    tails = [dict(prompt=prompt[:T], answer=answer[:n], want=(prompt[:T] + answer[:n])[-8:])
             for T in (1, 4, 5, 12) for n in (1, 3)]
    return dict(P=P, rows=rows, V=V, raw=sum(sum(raw, []), []), penalty=penalty, seen=seen,
                penalized=penalized, labels=labels, logits=logits, saved=saved, scores=scores,
                fused=fused, tails=tails, parsed=parsed())


def parsed():
    def breast(text):
        return 0 if "No" in text else 1 if "Ye" in text else -1

    def digits(text, count):
        return next((c for c in range(count) if str(c) in text), -1)

    def yes_no(text):
        low = text.lower()
        return "no" if "no" in low else "yes" if "yes" in low else None

    texts = ["No", "Yes", "yes", "no", "Yes, not No", "Nothing", "normal", "YES", "It is known", "",
             "2 ... 0", "grade 3", "7", "10", "class 6 of 7", " 4", "Yeah"]
    out = []
    for text in texts:
        out.append(dict(classes=["No", "Yes"], text=text, want=breast(text)))
        out.append(dict(classes=[str(c) for c in range(5)], text=text, want=digits(text, 5)))
        out.append(dict(classes=[str(c) for c in range(7)], text=text, want=digits(text, 7)))
        for classes in (["yes", "no"], ["no", "yes"]):
            said = yes_no(text)
            out.append(dict(classes=classes, text=text,
                            want=-1 if said is None else classes.index(said)))
    return out


# ---- sampler ----
def philox(key, counter):
    """Philox4x32-10, Salmon et al. 2011."""
    mask = 0xFFFFFFFF
    k0, k1 = key & mask, key >> 32
    c = list(counter)
    for _ in range(10):
        a, b = 0xD2511F53 * c[0], 0xCD9E8D57 * c[2]
        c = [(b >> 32) ^ c[1] ^ k0, b & mask, (a >> 32) ^ c[3] ^ k1, a & mask]
        k0, k1 = (k0 + 0x9E3779B9) & mask, (k1 + 0xBB67AE85) & mask
    return c


# Known answer of the authors' Random123 package (kat_vectors): philox4x32 10, all ones.
ONES = 0xFFFFFFFF
assert philox(ONES << 32 | ONES, [ONES] * 4) == [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]


class Stream:
    def __init__(self, seed, stream, step, sample):
        self.seed, self.head, self.index, self.words = seed, (stream, step, sample), 0, []

    def below(self, n):
        while True:
            if not self.words:
                self.words = philox(self.seed, [*self.head, self.index])
                self.index += 1
            word = self.words.pop(0)
            if word < 0xFFFFFFFF - 0xFFFFFFFF % n:
                return word % n


ORDER, BALANCE = 3, 4  # streams of base.h


def shuffled(x, stream):
    x = list(x)
    for i in range(len(x) - 1, 0, -1):
        j = stream.below(i + 1)
        x[i], x[j] = x[j], x[i]
    return x


def sampler():
    seed, labels = 10, [0, 2, 2, 0, 2, 1, 2, 2, 0, 2, 2, 1, 2]
    n, classes = len(labels), sorted(set(labels))
    members = [[i for i in range(n) if labels[i] == c] for c in classes]
    plain, balanced, turns = [], [], []
    for epoch in range(3):
        plain.append(shuffled(range(n), Stream(seed, ORDER, epoch, 0)))
        mixed = [shuffled(own, Stream(seed, BALANCE, epoch, c)) for c, own in enumerate(members)]
        # Places are dealt to the classes in turn; a class that is used up starts over.
        k = len(classes)
        balanced.append([mixed[p % k][p // k % len(mixed[p % k])] for p in range(n)])
        turns.append([own[i] for i in range(min(map(len, members))) for own in mixed])
    return dict(seed=seed, labels=labels, plain=plain, balanced=balanced, min_class=turns)


# ---- exact switches of the fine-tuning ----
def reseed():
    """Orders of the original's classes: Python's generator itself, seeded before every epoch."""
    labels = [0, 2, 2, 0, 2, 1, 2, 2, 0, 2, 2, 1, 2] * 3
    members = [[i for i, c in enumerate(labels) if c == k] for k in range(3)]
    draws, limits = [], (1, 2, 3, 10, 1000, 2 ** 31 + 1)
    for seed in (0, 10, 1000, 2 ** 40 + 3):
        rng = random.Random(seed)
        draws.append(dict(seed=seed, bits=[rng.getrandbits(32) for _ in range(3)],
                          below=[rng.randrange(n) for n in limits * 150][-6:]))
    random.seed(10)
    for own in members:
        random.shuffle(own)
    rarest = min(map(len, members))
    return dict(seed=10, labels=labels, draws=draws,
                min_class=[own[i] for i in range(rarest) for own in members],
                balanced=[members[p % 3][p // 3 % len(members[p % 3])] for p in range(len(labels))])


def sft_caps():
    """Sizes of pictures on their way into the fine-tuning, up to the model's own resize."""
    def shrink(w, h):
        if max(w, h) > 512:
            factor = 512 / max(w, h)
            w, h = int(w * factor), int(h * factor)
        return w, h

    def qwen(w, h):
        w, h = shrink(w, h)
        if min(w, h) < 28:
            w, h = max(w, 28), max(h, 28)
        if w / h > 200:
            w = h * 180
        if h / w > 200:
            h = w * 180
        area = lambda a, b: (max(28, round(a / 28) * 28), max(28, round(b / 28) * 28))
        grid = area(w, h)
        if grid[0] * grid[1] < 56 * 56:
            beta = math.sqrt(56 * 56 / (w * h))
            grid = math.ceil(w * beta / 28) * 28, math.ceil(h * beta / 28) * 28
        return grid

    def pixtral(w, h):
        w, h = shrink(w, h)
        return -(-w // 16) * 16, -(-h // 16) * 16

    sizes = [(224, 224), (512, 512), (513, 512), (700, 491), (1024, 768), (3000, 40), (20, 20),
             (20, 6000), (347, 1300), (4096, 4095), (27, 29), (512, 14)]
    return dict(sizes=[dict(size=s, qwen2vl=qwen(*s), pixtral=pixtral(*s)) for s in sizes])


def literal():
    questions = ["is there a mass?", "  what\n is shown? \t", "", "a <image> of what"]
    return [dict(question=q, want=f"<image>Question: {q.strip()} Answer:") for q in questions]


def main():
    vectors = dict(evidence=evidence(), marginal=marginal(), adamw=adamw(), clip=clip(),
                   schedule=schedule(), fusion=fusion(), own_words=own_words(),
                   sampler=sampler(),
                   reseed=reseed(), sft_caps=sft_caps(), literal=literal())
    target = Path(__file__).resolve().parent.parent / "tests" / "data" / "vectors_method.json"
    target.write_text(json.dumps(vectors) + "\n")


if __name__ == "__main__":
    main()
