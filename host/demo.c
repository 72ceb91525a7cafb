// demo: see demo.h.
#include "demo.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "demo_stages.h"
#include "results.h"
#include "settings.h"

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

// Facts that accuracy alone hides: whether hits come from the query's device, name its finding, and
// whether a few hubs serve everybody.
static void describe_retrieval(SystemResult *system, const Evaluation *e, const Demo *demo) {
    const int n = demo->corpus.ds->n;
    int devices = 0;
    for (int side = 0; side < INDEX_SIDES; side++) {
        int *used = xcalloc((size_t)n, sizeof *used), names = 0, distinct = 0, top = 0;
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
        for (int i = 0; i < n; i++) {
            distinct += used[i] > 0;
            top += i < 20 ? used[i] : 0;
        }
        const char *name = index_side_name((IndexSide)side);
        facts_add(&system->facts, (double)names / (e->Q * e->k), "%s hits that name the finding",
                  name);
        facts_add(&system->facts, distinct, "%s passages retrieved at all", name);
        facts_add(&system->facts, (double)top / (e->Q * e->k), "%s places held by the 20 most used",
                  name);
        free(used);
    }
    facts_add(&system->facts, (double)devices / (e->Q * e->P), "hits from the query's device");
}

// Answers of the system whose heads are given (NULL: the frozen tower) to a set's queries.
static Evaluation *answer(Demo *demo, const DemoSet *set, const float *fixed,
                          Head *const head[INDEX_SIDES]) {
    const FusionConfig fusion = fusion_settings(demo->config);
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

static void train_heads(Demo *demo, RunResult *result, Head *head[INDEX_SIDES], bool is_permuted) {
    Head *search = NULL;
    static const IndexSide order[] = {INDEX_TEXT, INDEX_IMAGE}; // stage 2, then stage 3
    for (int i = 0; i < INDEX_SIDES; i++) {
        const IndexSide side = order[i];
        const char *const stages[2][2] = {{"2 text head", "3 image head"},
                                          {"2 permuted text", "3 permuted image"}};
        double hit_rate, distinct;
        if (!demo->config->exact.stale_search_head && search) {
            head_free(search);
            search = NULL;
        }
        head[side] = demo_train_head(demo, side, is_permuted, stages[is_permuted][i], &search,
                                     &hit_rate, &distinct);
        if (!is_permuted) {
            const char *name = index_side_name(side);
            facts_add(&result->facts, hit_rate, "score store hit rate, %s head", name);
            facts_add(&result->facts, distinct, "distinct passages per query, %s head", name);
        }
    }
    head_free(search);
}

// ---- the run ----
static void open_demo(Demo *demo, const char *dir) {
    error_die(dir, file_make_directories(dir));
    char *losses = file_join_new(dir, "losses.jsonl");
    error_die(losses, file_remove_tree(losses));
    error_die(losses, file_log_open(&demo->losses, losses));
    free(losses);
}

// Stages 0 and 1: everything before a query head is trained.
static void prepare(Demo *demo, RunResult **result) {
    demo_draw(demo);
    *result = run_result_new("demo", demo->seed, demo->recipe.k, demo->test.ds);
    demo_pretrain_towers(demo);
    demo_build_index(demo);
    facts_add(&(*result)->facts, demo_probe(demo), "linear probe of the finding");
    demo_pretrain_reader(demo);
    // The adapter learns on what the frozen retriever finds for the training queries.
    const float *const vectors[INDEX_SIDES] = {demo->fixed_train, demo->fixed_train};
    int32_t *found = retrieve_new(demo->index, demo->train.ds, vectors, demo->recipe.k, NULL);
    demo_train_adapter(demo, found, "1 adapter", demo->recipe.lora_steps, demo->recipe.lora_batch,
                       demo->recipe.lora_lr, demo->recipe.lora_warmup, false);
    free(found);
    demo_open_scorer(demo);
}

static void write_result(Demo *demo, RunResult *result, Evaluation *const *system,
                         UtilityModel *const *utility, const char *dir) {
    run_result_fix_subset(result, system[DEMO_RAG]);
    for (int s = 0; s < DEMO_SYSTEMS; s++) {
        SystemResult *added = run_result_add(result, demo_system_name((DemoSystem)s), system[s],
                                             utility[s]);
        if (s != DEMO_CLOSED_BOOK) {
            describe_retrieval(added, system[s], demo);
        }
    }
    const char *const names[] = {demo_system_name(DEMO_RAG), demo_system_name(DEMO_JOINT)};
    const Evaluation *const shown[] = {system[DEMO_RAG], system[DEMO_JOINT]};
    for (int q = 0; q < 8 && q < demo->test.ds->n; q++) {
        run_result_picture(result, demo->test.ds, demo->corpus.ds, q, names, shown, 2);
    }
    char *path = file_join_new(dir, "results.json");
    error_die(path, run_result_write(result, path));
    free(path);
}

// Answers that need no query head.
static void answer_baselines(Demo *demo, Evaluation *system[DEMO_SYSTEMS]) {
    const FusionConfig fusion = fusion_settings(demo->config);
    // Four distinct rows per query: the same two for both heads would halve the oracle of chance.
    int32_t *passages = random_passages_new(demo->test.ds, demo->corpus.ds, 2 * demo->recipe.k,
                                            (uint64_t)demo->seed);
    system[DEMO_CLOSED_BOOK] = evaluation_of_passages_new(&demo->scorer, demo->test.ds,
                                                          demo->corpus.ds, NULL, NULL, 0, &fusion);
    system[DEMO_RANDOM] = evaluation_of_passages_new(&demo->scorer, demo->test.ds, demo->corpus.ds,
                                                     passages, NULL, demo->recipe.k, &fusion);
    free(passages);
}

static UtilityModel *utility_new(const Evaluation *found, const Demo *demo) {
    UtilityModel *utility = xmalloc(1, sizeof *utility);
    *utility = evaluation_fit_utility(found, demo->train.ds);
    return utility;
}

// The utility reranker of a system, from its answers to the training queries.
static UtilityModel *utility_of_heads_new(Demo *demo, Head *const head[INDEX_SIDES]) {
    Evaluation *found = answer(demo, &demo->train, demo->fixed_train, head);
    UtilityModel *utility = utility_new(found, demo);
    evaluation_free(found);
    return utility;
}

static void free_systems(Evaluation **system, UtilityModel **utility) {
    for (int s = 0; s < DEMO_SYSTEMS; s++) {
        evaluation_free(system[s]);
        free(utility[s]);
    }
}

void demo_run(const Config *config, int seed, const char *dir) {
    const double start = seconds_now();
    Demo demo = {.config = config, .recipe = demo_recipe(config), .seed = seed, .dir = dir,
                 .dev = device_of_keys(config, 1)};
    RunResult *result;
    Head *const none[INDEX_SIDES] = {NULL, NULL};
    open_demo(&demo, dir);
    prepare(&demo, &result);
    Evaluation *system[DEMO_SYSTEMS];
    UtilityModel *utility[DEMO_SYSTEMS] = {NULL};
    answer_baselines(&demo, system);
    system[DEMO_RAG] = answer(&demo, &demo.test, demo.fixed_test, none);
    // Stages 2 and 3, and their control.
    Head *heads[INDEX_SIDES], *permuted[INDEX_SIDES];
    train_heads(&demo, result, heads, false);
    system[DEMO_JOINT] = answer(&demo, &demo.test, demo.fixed_test, heads);
    train_heads(&demo, result, permuted, true);
    system[DEMO_PERMUTED] = answer(&demo, &demo.test, demo.fixed_test, permuted);
    facts_add(&result->facts, (double)demo.scorer.forwards, "reader forwards before the refit");
    utility[DEMO_RAG] = utility_of_heads_new(&demo, none);
    utility[DEMO_PERMUTED] = utility_of_heads_new(&demo, permuted);
    // Stage 4.
    Evaluation *found = answer(&demo, &demo.train, demo.fixed_train, heads);
    utility[DEMO_JOINT] = utility_new(found, &demo);
    demo_train_adapter(&demo, found->passages, "4 refit", demo.recipe.refit_steps,
                       demo.recipe.refit_batch, demo.recipe.refit_lr, demo.recipe.refit_warmup,
                       true);
    evaluation_free(found);
    demo_open_scorer(&demo);
    system[DEMO_REFIT] = answer(&demo, &demo.test, demo.fixed_test, heads);
    utility[DEMO_REFIT] = utility_of_heads_new(&demo, heads);
    LOG(INFO, "seed %d: %.0f s", seed,
        seconds_now() - start); // not a fact: equal runs give equal files
    write_result(&demo, result, system, utility, dir);
    free_systems(system, utility);
    for (int side = 0; side < INDEX_SIDES; side++) {
        head_free(heads[side]);
        head_free(permuted[side]);
    }
    Device *dev = demo.dev;
    demo_close(&demo);
    device_free(dev);
    run_result_free(result);
}
