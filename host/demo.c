// demo: see demo.h.
#include "demo.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "demo_stages.h"

const char *demo_system_name(DemoSystem system) {
    static const char *const names[DEMO_SYSTEMS] = {
        "closed book", "random passages", "RAG, frozen retriever", "joint",
        "joint + reader refit", "control: permuted scores"};
    return names[system];
}

// ---- what was retrieved ----
static int by_descending_int(const void *a, const void *b) {
    const int x = *(const int *)a, y = *(const int *)b;
    return (x < y) - (x > y);
}

static void describe_retrieval(DemoResult *result, const Demo *demo, DemoSystem system) {
    const Evaluation *e = result->system[system];
    const int n = demo->corpus.ds->n;
    int devices = 0;
    for (int side = 0; side < INDEX_SIDES; side++) {
        int *used = xcalloc((size_t)n, sizeof *used), names = 0;
        for (int q = 0; q < e->Q; q++) {
            for (int p = 0; p < e->k; p++) {
                const int passage = e->passages[q * e->P + side * e->k + p];
                const DemoCase *found = &demo->corpus.cases[passage], *query = &demo->test.cases[q];
                used[passage]++;
                devices += found->device == query->device;
                names += found->named_finding == query->finding;
            }
        }
        qsort(used, (size_t)n, sizeof *used, by_descending_int);
        int top = 0;
        for (int i = 0; i < n; i++) {
            result->distinct[system][side] += used[i] > 0;
            top += i < 20 ? used[i] : 0;
        }
        result->names_right[system][side] = (double)names / (e->Q * e->k);
        result->top20[system][side] = (double)top / (e->Q * e->k);
        free(used);
    }
    result->device_match[system] = (double)devices / (e->Q * e->P);
}

// Four distinct rows per query: the same two for both heads would halve the oracle of chance.
static int32_t *random_passages_new(const Demo *demo, int Q, int P) {
    int32_t *out = xmalloc((size_t)Q * P, sizeof *out);
    for (int q = 0; q < Q; q++) {
        Rng rng = rng_new((uint64_t)demo->seed, RNG_BASELINE, 0xffffffffu, (uint32_t)q);
        for (int p = 0; p < P; p++) {
            bool is_new;
            do {
                out[q * P + p] = (int32_t)rng_below(&rng, (uint32_t)demo->corpus.ds->n);
                is_new = true;
                for (int i = 0; i < p; i++) {
                    is_new = is_new && out[q * P + i] != out[q * P + p];
                }
            } while (!is_new);
        }
    }
    return out;
}

// Answers of the system whose heads are given (NULL: the frozen tower) to a set's queries.
static Evaluation *answer(Demo *demo, const DemoSet *set, const float *fixed, Head *const head[INDEX_SIDES]) {
    FusionConfig fusion = fusion_default();
    fusion.is_max_norm = demo->config->exact.max_norm;
    float *query[INDEX_SIDES];
    for (int side = 0; side < INDEX_SIDES; side++) {
        query[side] = demo_queries_new(demo, set, fixed, head[side]);
    }
    Evaluation *e = evaluation_new(&demo->scorer, demo->index, set->ds, demo->corpus.ds,
                                   query[INDEX_IMAGE], query[INDEX_TEXT], demo->recipe.k, &fusion);
    free(query[INDEX_IMAGE]);
    free(query[INDEX_TEXT]);
    return e;
}

static void train_heads(Demo *demo, DemoResult *result, Head *head[INDEX_SIDES], bool is_permuted) {
    Head *search = NULL;
    double hit_rate[INDEX_SIDES], distinct[INDEX_SIDES];
    static const IndexSide order[] = {INDEX_TEXT, INDEX_IMAGE}; // stage 2, then stage 3
    for (int i = 0; i < INDEX_SIDES; i++) {
        const IndexSide side = order[i];
        const char *const stages[2][2] = {{"2 text head", "3 image head"},
                                          {"2 permuted text", "3 permuted image"}};
        if (!demo->config->exact.stale_search_head && search) {
            head_free(search);
            search = NULL;
        }
        head[side] = demo_train_head(demo, side, is_permuted, stages[is_permuted][i], &search,
                                     &hit_rate[side], &distinct[side]);
    }
    head_free(search);
    if (!is_permuted) {
        memcpy(result->hit_rate, hit_rate, sizeof hit_rate);
        memcpy(result->distinct_per_query, distinct, sizeof distinct);
    }
}

DemoResult *demo_run_new(const Config *config, int seed, const char *dir) {
    const double start = seconds_now();
    Demo demo = {.config = config, .recipe = demo_recipe(config), .seed = seed, .dir = dir,
                 .dev = device_new((DeviceKind)config->device, 0, 1)};
    DemoResult *result = xcalloc(1, sizeof *result);
    result->seed = seed;
    error_die(dir, file_make_directories(dir));
    char *losses = file_join_new(dir, "losses.jsonl");
    error_die(losses, file_remove_tree(losses));
    error_die(losses, file_log_open(&demo.losses, losses));
    free(losses);
    demo_draw(&demo);
    demo_pretrain_towers(&demo);
    demo_build_index(&demo);
    result->probe = demo_probe(&demo);
    demo_pretrain_reader(&demo);
    // Stage 1: the adapter learns on what the frozen retriever finds for the training queries. The scores
    // of an untrained adapter are not needed, only its passages; they come along.
    Head *none[INDEX_SIDES] = {NULL, NULL};
    demo_open_scorer(&demo);
    Evaluation *found = answer(&demo, &demo.train, demo.fixed_train, none);
    demo_train_adapter(&demo, found, "1 adapter", demo.recipe.lora_steps, demo.recipe.lora_batch,
                       demo.recipe.lora_lr, demo.recipe.lora_warmup, false);
    evaluation_free(found);
    demo_open_scorer(&demo);
    const FusionConfig fusion = fusion_default();
    const int Q = demo.test.ds->n, P = 2 * demo.recipe.k;
    int32_t *passages = random_passages_new(&demo, Q, P);
    result->system[DEMO_CLOSED_BOOK] = evaluation_of_passages_new(
        &demo.scorer, demo.test.ds, demo.corpus.ds, NULL, NULL, 0, &fusion);
    result->system[DEMO_RANDOM] = evaluation_of_passages_new(
        &demo.scorer, demo.test.ds, demo.corpus.ds, passages, NULL, demo.recipe.k, &fusion);
    free(passages);
    result->system[DEMO_RAG] = answer(&demo, &demo.test, demo.fixed_test, none);
    // Stages 2 and 3, and their control.
    Head *heads[INDEX_SIDES], *permuted[INDEX_SIDES];
    train_heads(&demo, result, heads, false);
    result->system[DEMO_JOINT] = answer(&demo, &demo.test, demo.fixed_test, heads);
    train_heads(&demo, result, permuted, true);
    result->system[DEMO_PERMUTED] = answer(&demo, &demo.test, demo.fixed_test, permuted);
    // Stage 4.
    found = answer(&demo, &demo.train, demo.fixed_train, heads);
    result->forwards = demo.scorer.forwards;
    demo_train_adapter(&demo, found, "4 refit", demo.recipe.refit_steps, demo.recipe.refit_batch,
                       demo.recipe.refit_lr, demo.recipe.refit_warmup, true);
    evaluation_free(found);
    demo_open_scorer(&demo);
    result->system[DEMO_REFIT] = answer(&demo, &demo.test, demo.fixed_test, heads);
    const Evaluation *rag = result->system[DEMO_RAG];
    result->inconsistent = xmalloc((size_t)Q, sizeof *result->inconsistent);
    analysis_inconsistent(result->inconsistent, rag->predicted, Q, rag->P);
    for (int s = DEMO_RANDOM; s < DEMO_SYSTEMS; s++) {
        describe_retrieval(result, &demo, (DemoSystem)s);
    }
    for (int side = 0; side < INDEX_SIDES; side++) {
        head_free(heads[side]);
        head_free(permuted[side]);
    }
    result->corpus = demo.corpus.ds;
    result->test = demo.test.ds;
    demo_close(&demo);
    device_free(demo.dev);
    result->seconds = seconds_now() - start;
    return result;
}

void demo_result_free(DemoResult *result) {
    for (int s = 0; s < DEMO_SYSTEMS; s++) {
        evaluation_free(result->system[s]);
    }
    free(result->inconsistent);
    dataset_free(result->corpus);
    dataset_free(result->test);
    free(result);
}
