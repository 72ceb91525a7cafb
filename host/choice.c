// choice: see choice.h.
#include "choice.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "hub.h"

ChoiceConfig choice_greedy(void) {
    return (ChoiceConfig){.temperature = 1, .top_p = 1, .penalty = 1};
}

// ---- generation_config.json ----
// eos_token_id: a number, or several.
static Error read_ends(ChoiceConfig *out, const json_t *config) {
    const json_t *ends = json_object_get(config, "eos_token_id");
    if (!ends || json_is_null(ends)) {
        return error_none();
    }
    const size_t count = json_is_array(ends) ? json_array_size(ends) : 1;
    if (count > CHOICE_ENDS) {
        return error_at(EXIT_BAD_DATA, ERROR_NOWHERE, "member 'eos_token_id' has %zu ids; at most "
                        "%d are supported", count, CHOICE_ENDS);
    }
    for (size_t i = 0; i < count; i++) {
        const json_t *end = json_is_array(ends) ? json_array_get(ends, i) : ends;
        const json_int_t id = json_integer_value(end);
        if (!json_is_integer(end) || id < 0 || id > INT32_MAX) {
            return error_at(EXIT_BAD_DATA, ERROR_NOWHERE,
                            "member 'eos_token_id' wants token ids, got %s", json_type_name(end));
        }
        out->ends[i] = (int32_t)id;
    }
    out->end_count = (int)count;
    return error_none();
}

static Error expect_range(const char *name, double value, double above, double most) {
    return value > above && value <= most
               ? error_none()
               : error_at(EXIT_BAD_DATA, ERROR_NOWHERE, "member '%s' is %g; it wants more than %g, "
                          "at most %g", name, value, above, most);
}

Error choice_config_read(ChoiceConfig *out, const json_t *config) {
    static const HubFixed fixed[] = {
        {"num_beams", "1"}, {"typical_p", "1"}, {"epsilon_cutoff", "0"}, {"eta_cutoff", "0"},
        {"min_p", "null"}, {"no_repeat_ngram_size", "0"}, {"encoder_repetition_penalty", "1"},
        {"min_length", "0"}, {"min_new_tokens", "null 0"}, {"penalty_alpha", "null 0"},
        {"bad_words_ids", "null"}, {"sequence_bias", "null"}, {"suppress_tokens", "null"},
        {"begin_suppress_tokens", "null"}, {"forced_bos_token_id", "null"},
        {"forced_eos_token_id", "null"}, {"guidance_scale", "null 1"}};
    if (!json_is_object(config)) {
        return error_at(EXIT_BAD_DATA, ERROR_NOWHERE, "wants an object, got %s",
                        json_type_name(config));
    }
    int64_t top_k = out->top_k;
    Error error = hub_expect(config, fixed, (int)(sizeof fixed / sizeof *fixed));
    if (!error.code) {
        error = json_member_bool(config, "do_sample", false, &out->is_sampled);
    }
    static const char *const names[] = {"temperature", "top_p", "repetition_penalty"};
    double *const values[] = {&out->temperature, &out->top_p, &out->penalty};
    const double most[] = {1e6, 1, 1e6};
    for (int i = 0; !error.code && i < 3; i++) {
        error = json_member_number(config, names[i], false, values[i]);
        if (!error.code) {
            error = expect_range(names[i], *values[i], 0, most[i]);
        }
    }
    if (!error.code) {
        error = json_member_int(config, "top_k", false, 0, INT32_MAX, &top_k);
    }
    out->top_k = (int)top_k;
    return error.code ? error : read_ends(out, config);
}

bool choice_is_end(const ChoiceConfig *config, int32_t id) {
    for (int i = 0; i < config->end_count; i++) {
        if (config->ends[i] == id) {
            return true;
        }
    }
    return false;
}

// ---- scores ----
void choice_penalize(float *scores, int V, const int32_t *seen, int n, double penalty) {
    if (penalty == 1) {
        return;
    }
    const float p = (float)penalty;
    bool *is_seen = xcalloc((size_t)V, sizeof *is_seen);
    for (int i = 0; i < n; i++) {
        CHECK(seen[i] >= 0 && seen[i] < V, "id %d of %d", seen[i], V);
        if (!is_seen[seen[i]]) {
            float *score = &scores[seen[i]];
            *score = *score < 0 ? *score * p : *score / p;
            is_seen[seen[i]] = true;
        }
    }
    free(is_seen);
}

// Largest first, of equals the larger id: who stands behind leaves first.
typedef struct {
    float score;
    int32_t id;
} Ranked;
static int by_rank(const void *a, const void *b) {
    const Ranked *x = a, *y = b;
    return x->score != y->score ? (x->score < y->score ? 1 : -1)
                                : (x->id < y->id) - (x->id > y->id);
}

// Everything below the k-th largest goes.
static void keep_top_k(float *scores, int V, const Ranked *ranked, int k) {
    const float least = ranked[k - 1].score;
    for (int v = 0; v < V; v++) {
        scores[v] = scores[v] < least ? -INFINITY : scores[v];
    }
}

// Goes: who, with all that rank below, has at most 1 - top_p of the probability; the first stays.
static void keep_top_p(float *scores, const Ranked *ranked, int count, double top_p) {
    double total = 0, below = 0;
    for (int i = 0; i < count; i++) {
        total += exp((double)ranked[i].score - ranked[0].score);
    }
    for (int i = count - 1; i > 0; i--) {
        below += exp((double)ranked[i].score - ranked[0].score) / total;
        if (below > 1 - top_p) {
            break;
        }
        scores[ranked[i].id] = -INFINITY;
    }
}

void choice_warp(float *scores, int V, const ChoiceConfig *config) {
    if (config->temperature != 1) {
        for (int v = 0; v < V; v++) {
            scores[v] /= (float)config->temperature;
        }
    }
    const bool wants_k = config->top_k > 0 && config->top_k < V, wants_p = config->top_p < 1;
    if (!wants_k && !wants_p) {
        return;
    }
    Ranked *ranked = xmalloc((size_t)V, sizeof *ranked);
    int count = 0;
    for (int v = 0; v < V; v++) {
        if (scores[v] > -INFINITY) { // and no NaN
            ranked[count++] = (Ranked){scores[v], v};
        }
    }
    qsort(ranked, (size_t)count, sizeof *ranked, by_rank);
    if (wants_k && config->top_k < count) {
        keep_top_k(scores, V, ranked, config->top_k);
        const float least = ranked[config->top_k - 1].score;
        for (count = config->top_k; ranked[count].score == least; count++) {
        }
    }
    if (wants_p && count > 0) {
        keep_top_p(scores, ranked, count, config->top_p);
    }
    free(ranked);
}

int32_t choice_largest(const float *scores, int V) {
    int32_t best = -1;
    for (int v = 0; v < V; v++) {
        if (isnan(scores[v])) {
            return -1;
        }
        if (scores[v] > (best < 0 ? -INFINITY : scores[best])) {
            best = v;
        }
    }
    return best;
}

int32_t choice_draw(const float *scores, int V, double u) {
    const int32_t largest = choice_largest(scores, V);
    if (largest < 0 || isinf(scores[largest])) {
        return largest;
    }
    double total = 0, passed = 0;
    for (int v = 0; v < V; v++) {
        total += exp((double)scores[v] - scores[largest]);
    }
    int32_t last = largest; // where rounding leaves nothing behind u
    for (int v = 0; v < V; v++) {
        const double part = exp((double)scores[v] - scores[largest]);
        passed += part;
        last = part > 0 ? v : last;
        if (part > 0 && passed > u * total) {
            return v;
        }
    }
    return last;
}
