// Tests of results.json, of the tables computed from it (numbers worked out by hand beside the
// data), of the report page and of the verb report.
#define _POSIX_C_SOURCE 200809L
#include "host/report.h"

#include <ctype.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "check.h"
#include "host/file.h"
#include "host/gain.h"
#include "host/loss_log.h"
#include "host/report_plot.h"

#define BASELINE "RAG, frozen retriever"

// ---- a run small enough for the head ----
// Four queries, gold no yes yes no, one passage per head. Arrays are by query, image head first.
enum { Q = 4, P = 2, C = 2 };

static void *copy(const void *from, size_t size) {
    void *to = xmalloc(size, 1);
    memcpy(to, from, size);
    return to;
}

static SystemResult *add_system(RunResult *run, const char *name, int passages,
                                const int predicted[], const int answers[ANSWER_COUNT][Q],
                                const double yes[Q]) {
    SystemResult *system = run_result_append(run);
    *system = (SystemResult){.name = xstrdup(name), .P = passages};
    for (int a = 0; a < ANSWER_COUNT; a++) {
        system->answers[a] = copy(answers[a], Q * sizeof(int));
    }
    system->predicted = copy(predicted, (size_t)Q * passages * sizeof(int));
    system->passages = xcalloc((size_t)Q * passages, sizeof(int32_t));
    system->probability = xmalloc(Q * C, sizeof(double));
    for (int q = 0; q < Q; q++) {
        system->probability[q * C] = 1 - yes[q];
        system->probability[q * C + 1] = yes[q];
    }
    return system;
}

// The joint system answers query 2 right only in runs with is_better.
static RunResult *toy_run(int seed, bool is_better) {
    static const int gold[Q] = {0, 1, 1, 0};
    static const bool split[Q] = {false, true, false, true};
    static const int closed[ANSWER_COUNT][Q] = {
        {0, 0, 1, 1}, {0, 0, 1, 1}, {0, 0, 1, 1}, {0, 0, 1, 1}};
    static const int rag_predicted[Q * P] = {0, 0, 0, 1, 0, 0, 1, 0};
    static const int rag[ANSWER_COUNT][Q] = {
        {0, 0, 0, 0}, {0, 1, 0, 1}, {0, 0, 0, 1}, {0, 1, 0, 0}};
    static const double rag_yes[Q] = {0.1, 0.4, 0.2, 0.3};
    static const double each[Q * P * C] = {0.9, 0.1, 0.6, 0.4, 0.7, 0.3, 0.45, 0.55,
                                           0.8, 0.2, 0.6, 0.4, 0.1, 0.9, 0.6,  0.4};
    static const float scores[2 * Q * P] = {0.9f,  0.05f, 0.2f,  0.05f, 0.5f,  0.05f, 0.1f,  0.05f,
                                            0.95f, 0.1f,  0.95f, 0.8f,  0.95f, 0.6f,  0.95f, 0.7f};
    static const int lengths[Q * P] = {3, 5, 2, 9, 1, 1, 7, 4};
    static const int joint_predicted[Q * P] = {0, 0, 1, 1, 1, 0, 0, 0};
    const int joint[ANSWER_COUNT][Q] = {
        {0, 1, is_better, 0}, {0, 1, 0, 0}, {0, 1, 1, 0}, {0, 1, 0, 0}};
    RunResult *run = xcalloc(1, sizeof *run);
    *run = (RunResult){
        .task = xstrdup("toy"), .commit = xstrdup("abc"), .seed = seed, .k = 1, .Q = Q, .C = C};
    run->classes = xcalloc(C, sizeof *run->classes);
    run->classes[0] = xstrdup("no");
    run->classes[1] = xstrdup("yes");
    run->gold = copy(gold, sizeof gold);
    run->inconsistent = copy(split, sizeof split);
    add_system(run, "closed book", 1, closed[0], closed, rag_yes);
    SystemResult *system = add_system(run, BASELINE, P, rag_predicted, rag, rag_yes);
    system->passage_probability = copy(each, sizeof each);
    system->scores = copy(scores, sizeof scores);
    system->caption_length = copy(lengths, sizeof lengths);
    const UtilityModel longest = {.scale = {1, 1, 1, 1}, .weight = {0, 0, 0, 1}};
    system->utility = copy(&longest, sizeof longest);
    facts_add(&system->facts, 0.25, "share of something");
    add_system(run, "joint", P, joint_predicted, joint, rag_yes);
    facts_add(&run->facts, 12, "seconds");
    facts_add(&run->facts, NAN, "never measured");
    run->pictures = xcalloc(1, sizeof *run->pictures);
    run->picture_count = 1;
    run->pictures[0] = (Picture){.query = xstrdup("iVBORw0KGgo="),
                                 .gold = xstrdup("no"),
                                 .count = 1,
                                 .systems = xcalloc(1, sizeof(ShownSystem))};
    run->pictures[0].systems[0] =
        (ShownSystem){xstrdup("joint"), xcalloc(1, sizeof(ShownPassage)), 1};
    run->pictures[0].systems[0].passages[0] = (ShownPassage){
        xstrdup("\"><script>alert(1)</script>"), xstrdup("a <b> caption"), xstrdup("yes")};
    return run;
}

// Writes a run below the test's directory and returns where; freed with the test.
static char *written(RunResult *run, const char *name) {
    char *dir = file_join_new(check_tmpdir(), name), *path = file_join_new(dir, "results.json");
    error_die(dir, file_make_directories(dir));
    error_die(path, run_result_write(run, path));
    free(path);
    run_result_free(run);
    return dir;
}

// Seeds 1 and 2, and a third run that is not there when with_missing.
static RunList *runs_of_test(bool with_missing) {
    char *dirs[3] = {written(toy_run(1, false), "seed-1"), written(toy_run(2, true), "seed-2"),
                     file_join_new(check_tmpdir(), "seed-3")};
    log_set_level(LOG_ERROR);
    RunList *runs = run_list_new(dirs, with_missing ? 3 : 2);
    for (int i = 0; i < 3; i++) {
        free(dirs[i]);
    }
    return runs;
}

static char *page_new(const RunList *runs, const char *verdict);

// ---- the file ----
static char *content_new(const char *path, size_t *size) {
    FileBytes bytes;
    error_die(path, file_read_new(&bytes, path, 1 << 24));
    char *text = copy(bytes.data, bytes.size + 1);
    *size = bytes.size;
    file_bytes_free(&bytes);
    return text;
}

TEST(report_results_round_trip) {
    char *dir = written(toy_run(7, true), "once"), *path = file_join_new(dir, "results.json");
    RunResult *back;
    error_die(path, run_result_read_new(&back, path));
    EXPECT(back->seed == 7 && back->k == 1 && back->Q == Q && back->C == C &&
               back->system_count == 3,
           "seed=%d k=%d Q=%d C=%d systems=%d", back->seed, back->k, back->Q, back->C,
           back->system_count);
    const SystemResult *system = run_result_find(back, BASELINE);
    EXPECT(system && system->utility && system->utility->weight[3] == 1, "no utility");
    EXPECT(fabs(facts_get(&back->facts, "seconds") - 12) == 0, "no fact");
    EXPECT(isnan(facts_get(&back->facts, "never measured")), "a number");
    size_t size, again;
    char *first = content_new(path, &size);
    error_die(path, run_result_write(back, path));
    char *second = content_new(path, &again);
    EXPECT(size == again && memcmp(first, second, size) == 0, "%s\n%s", first, second);
    run_result_free(back);
    free(first), free(second), free(path), free(dir);
}

static void put_bytes(const char *path, const char *bytes, size_t size) {
    FILE *out = fopen(path, "wb");
    CHECK(out && fwrite(bytes, 1, size, out) == size && fclose(out) == 0, "%s", path);
}

// What can be read must also be fit for tables, and for the page, which takes longer.
static bool survives(const char *bytes, size_t size, bool with_page) {
    LoadedRun item = {.dir = (char *)"run", .error = error_none()};
    char *exact = copy(bytes, size ? size : 1); // so that a sanitizer sees a read behind the end
    const Error error = run_result_parse_new(&item.result, exact, size);
    const RunList runs = {&item, 1, 1};
    free(exact);
    EXPECT((error.code == EXIT_OK) == (item.result != NULL), "code %d", (int)error.code);
    if (item.result) {
        table_free(summary_main_new(&runs));
        table_free(summary_runs_new(&runs));
        free(with_page ? page_new(&runs, NULL) : NULL);
    }
    run_result_free(item.result);
    return error.code == EXIT_OK;
}

TEST(report_results_corrupt) {
    char *dir = written(toy_run(1, false), "bad"), *path = file_join_new(dir, "results.json");
    size_t size, read = 0, refused = 0;
    char *bytes = content_new(path, &size);
    log_set_level(LOG_ERROR);
    if (CASE("cut short")) {
        for (size_t n = 0; n < size; n++) {
            EXPECT(!survives(bytes, n, false), "%zu of %zu bytes were read", n, size);
        }
    }
    if (CASE("one byte changed")) {
        for (size_t n = 0; n < size; n++) {
            const char was = bytes[n];
            Rng rng = check_rng((uint32_t)n);
            bytes[n] = (char)(was ^ (1 << rng_below(&rng, 8)));
            *(survives(bytes, size, n % 16 == 0) ? &read : &refused) += 1;
            bytes[n] = was;
        }
        EXPECT(refused > size / 4, "%zu read, %zu refused", read, refused);
    }
    if (CASE("wrong in content")) {
        static const char *const edits[][2] = {
            {"\"version\":1", "\"version\":2"},
            {"\"k\":1", "\"k\":0"},
            {"\"k\":1", "\"k\":-5"},
            {"\"gold\":[0", "\"gold\":[2"},
            {"\"gold\":[0,", "\"gold\":["},
            {"\"passages_per_query\":2", "\"passages_per_query\":3"},
            {"\"passages_per_query\":1", "\"passages_per_query\":0"},
            {"\"joint\"", "\"closed book\""},
            {"\"scale\":[1.0", "\"scale\":[0.0"},
            {"\"caption_length\":[3", "\"caption_length\":[-3"},
            {"\"scores\":[0.9", "\"scores\":[null"},
            {"[\"no\",\"yes\"]", "[]"}};
        for (size_t i = 0; i < sizeof edits / sizeof *edits; i++) {
            char *at = strstr(bytes, edits[i][0]);
            CHECK(at, "no %s in %s", edits[i][0], bytes);
            char *text = xformat_new("%.*s%s%s", (int)(at - bytes), bytes, edits[i][1],
                                     at + strlen(edits[i][0]));
            EXPECT(!survives(text, strlen(text), false), "read with %s", edits[i][1]);
            free(text);
        }
        EXPECT(survives(bytes, size, true), "the sound file is refused");
    }
    free(bytes), free(path), free(dir);
}

// ---- tables against numbers worked out by hand ----
static void expect_cell(const Table *table, const char *row, const char *column, double mean,
                        double sd) {
    const int r = table_row(table, row), c = table_column(table, column);
    CHECK(r >= 0 && c >= 0, "no '%s', '%s' in '%s'", row, column, table->name);
    const Cell *cell = table_cell(table, r, c);
    EXPECT(cell->kind == CELL_MEAN && fabs(cell->mean - mean) < 1e-12,
           "%s: %s, %s is %g, wanted %g", table->name, row, column, cell->mean, mean);
    EXPECT(isnan(sd) ? isnan(cell->sd) : fabs(cell->sd - sd) < 1e-12,
           "%s: %s, %s has sd %g, wanted %g", table->name, row, column, cell->sd, sd);
}

TEST(report_tables) {
    RunList *runs = runs_of_test(true);
    TableList tables = summary_tables_new(runs, BASELINE, "joint");
    const Table *table = table_list_find(&tables, "main");
    if (CASE("main")) {
        expect_cell(table, "closed book", "mixture", 0.5, 0);
        expect_cell(table, BASELINE, "mixture", 0.5, 0);       // 0 0 0 0
        expect_cell(table, BASELINE, "logit fusion", 0.5, 0);  // 0 1 0 1
        expect_cell(table, BASELINE, "image head", 0.25, 0);   // 0 0 0 1
        expect_cell(table, BASELINE, "text head", 0.75, 0);    // 0 1 0 0
        expect_cell(table, BASELINE, "oracle", 0.75, 0);       // all but query 2
        expect_cell(table, BASELINE, "mixture, inc.", 0.5, 0); // of queries 1 and 3, the latter
        expect_cell(table, BASELINE, "oracle, inc.", 1, 0);
        expect_cell(table, "joint", "mixture", 0.875, sqrt(0.03125)); // 3/4 and 4/4
        expect_cell(table, "joint", "mixture, inc.", 1, 0);
        const Cell *blank = table_cell(table, 0, table_column(table, "text head"));
        EXPECT(blank->kind == CELL_BLANK, "closed book has a text head: %d", (int)blank->kind);
        const Cell *cell = table_cell(table, 1, 0);
        EXPECT(cell->n == 2 && cell->missing == 1, "n=%d missing=%d", cell->n, cell->missing);
    }
    if (CASE("metrics")) {
        table = table_list_find(&tables, "metrics");
        expect_cell(table, BASELINE, "macro F1", 1.0 / 3, 0);     // 2/3 and 0
        expect_cell(table, BASELINE, "macro precision", 0.25, 0); // 2/4 and 0/0
        expect_cell(table, BASELINE, "macro recall", 0.5, 0);
        expect_cell(table, BASELINE, "MedMNIST AUC", 0.75, 0); // .4 and .2 against .1 and .3
        expect_cell(table, BASELINE, "MedMNIST ACC", 0.5, 0);  // none above one half
    }
    if (CASE("oracle")) {
        table = table_list_find(&tables, "oracle");
        expect_cell(table, BASELINE, "oracle@1", 0.75, 0);
        expect_cell(table, BASELINE, "floor", 0.5, 0); // 2 + 1 + 0 + 1 of 8
        expect_cell(table, BASELINE, "floor, inc.", 0.5, 0);
        expect_cell(table, "joint", "floor", 0.875, 0);
    }
    table_list_free(&tables);
    run_list_free(runs);
}

TEST(report_tables_analysis) {
    RunList *runs = runs_of_test(true);
    TableList tables = summary_tables_new(runs, BASELINE, "joint");
    const Table *table;
    if (CASE("inconsistency")) {
        table = table_list_find(&tables, "inconsistency");
        expect_cell(table, BASELINE, "inconsistent", 0.5, 0);
        expect_cell(table, "joint", "inconsistent", 0.25, 0); // query 2
        expect_cell(table, "joint", "own: on inconsistent", 0.5, sqrt(0.5));
        expect_cell(table, "joint", "own: on consistent", 1, 0);
        expect_cell(table, BASELINE, "fixed: on consistent", 0.5, 0);
    }
    if (CASE("rerankers")) {
        table = table_list_find(&tables, "rerankers");
        expect_cell(table, "retriever score", BASELINE, 0.75, 0);        // image, text, text, text
        expect_cell(table, "reader max probability", BASELINE, 0.25, 0); // the image's, always
        expect_cell(table, "reader margin", BASELINE, 0.25, 0);
        expect_cell(table, "agreement", BASELINE, 0.75, 0); // ties of queries 1 and 3 by score
        expect_cell(table, "predicted utility", BASELINE, 0.5, 0); // the longest caption
        EXPECT(table_column(table, "joint") < 0, "joint has no passage probabilities%s", "");
    }
    if (CASE("facts")) {
        expect_cell(table_list_find(&tables, "facts"), "seconds", "value", 12, 0);
        table = table_list_find(&tables, "facts");
        const Cell *cell = table_cell(table, table_row(table, "never measured"), 0);
        EXPECT(cell->n == 0 && cell->missing == 1, "n=%d missing=%d", cell->n, cell->missing);
        expect_cell(table_list_find(&tables, "system-facts"), "share of something", BASELINE, 0.25,
                    0);
    }
    if (CASE("confusion")) {
        table = table_list_find(&tables, "confusion-joint");
        expect_cell(table, "no", "no", 4, NAN);
        expect_cell(table, "yes", "no", 1, NAN);
        expect_cell(table, "yes", "yes", 3, NAN);
    }
    table_list_free(&tables);
    run_list_free(runs);
}

// Two passages per head: oracle@1 takes the best of each head, passages 0 and 2, not the first two.
TEST(report_oracle_at) {
    int gold[] = {1, 1}, answers[] = {0, 0}, predicted[] = {0, 1, 0, 0, 0, 0, 0, 1};
    bool split[] = {true, true};
    int32_t passages[8] = {0};
    double probability[] = {0.5, 0.5, 0.5, 0.5};
    char *classes[] = {(char *)"no", (char *)"yes"};
    SystemResult system = {.name = (char *)"s", .P = 4, .predicted = predicted,
                           .passages = passages, .probability = probability,
                           .answers = {answers, answers, answers, answers}};
    RunResult run = {.task = (char *)"toy", .commit = (char *)"", .seed = 1, .k = 2, .Q = 2, .C = 2,
                     .classes = classes, .gold = gold, .inconsistent = split, .systems = &system,
                     .system_count = 1};
    LoadedRun item = {.dir = (char *)"run", .result = &run};
    const RunList runs = {&item, 1, 1};
    TableList tables = summary_tables_new(&runs, "s", "s");
    const Table *table = table_list_find(&tables, "oracle");
    expect_cell(table, "s", "oracle@1", 0, NAN);
    expect_cell(table, "s", "oracle@2", 1, NAN);
    expect_cell(table, "s", "floor", 0.25, NAN);
    expect_cell(table_list_find(&tables, "main"), "s", "oracle", 1, NAN);
    table_list_free(&tables);
}

TEST(report_gain) {
    RunList *runs = runs_of_test(true);
    const Gain gain = gain_of(runs, "joint", BASELINE, SUBSET_ALL, true);
    EXPECT(gain.runs == 2 && gain.queries == 8 && gain.won == 3 && gain.lost == 0,
           "runs=%d queries=%d %d %d", gain.runs, gain.queries, gain.won, gain.lost);
    // Runs weigh the same: (1/4 + 2/4) / 2. Macro F1: 11/15 and 1, each against 1/3.
    const double got[] = {gain.accuracy.mean, gain.f1.mean, gain.mcnemar};
    const double want[] = {0.375, (11.0 / 15 + 1) / 2 - 1.0 / 3, 0.25};
    expect_within("gain, F1 gain, McNemar", got, want, 3, 1e-12);
    EXPECT(gain.accuracy.low >= 0 && gain.accuracy.low <= 0.375 && gain.accuracy.high >= 0.375,
           "interval %g to %g", gain.accuracy.low, gain.accuracy.high);
    const Gain inc = gain_of(runs, "joint", BASELINE, SUBSET_INCONSISTENT, false);
    EXPECT(inc.queries == 4 && inc.won == 2 && isnan(inc.f1.mean), "queries=%d won=%d", inc.queries,
           inc.won);
    const Gain none = gain_of(runs, "unheard of", BASELINE, SUBSET_ALL, true);
    EXPECT(none.runs == 0 && isnan(none.accuracy.mean) && isnan(none.mcnemar), "runs=%d",
           none.runs);
    run_list_free(runs);
}

// ---- the page ----
static char *page_new(const RunList *runs, const char *verdict) {
    char *text;
    size_t size;
    TableList tables = summary_tables_new(runs, BASELINE, "joint");
    const Report report = {check_tmpdir(), runs, &tables, BASELINE, "joint", verdict, "bad"};
    FILE *out = open_memstream(&text, &size);
    CHECK(out, "size %d", 0);
    report_page(out, &report);
    fclose(out);
    table_list_free(&tables);
    return text;
}

// Every tag that opens closes in its order; returns where it does not, or NULL.
static const char *unbalanced(const char *html) {
    static const char *const alone[] = {"meta", "img", "br", "!DOCTYPE"};
    char open[64][16];
    int depth = 0;
    for (const char *at = html; (at = strchr(at, '<')); at++) {
        const bool closes = at[1] == '/';
        const char *name = at + 1 + closes, *end = strchr(at, '>');
        int length = 0;
        while (isalnum((unsigned char)name[length]) || name[length] == '!') {
            length++;
        }
        if (!end || length == 0 || length > 15) {
            return at;
        }
        bool is_alone = end[-1] == '/';
        for (int i = 0; i < 4; i++) {
            is_alone =
                is_alone || (strncmp(name, alone[i], (size_t)length) == 0 && !alone[i][length]);
        }
        if (closes && (depth == 0 || strncmp(open[--depth], name, (size_t)length) != 0 ||
                       open[depth][length])) {
            return at;
        }
        if (!closes && !is_alone) {
            if (depth == 64) {
                return at;
            }
            snprintf(open[depth++], 16, "%.*s", length, name);
        }
    }
    return depth ? html : NULL;
}

TEST(report_page) {
    RunList *runs = runs_of_test(true);
    char *page = page_new(runs, "a <verdict>");
    if (CASE("needs nothing else")) {
        static const char *const foreign[] = {"http:", "https:",  "//",      "<script",
                                              "<link", "<iframe", "@import", "url("};
        for (size_t i = 0; i < sizeof foreign / sizeof *foreign; i++) {
            EXPECT(!strstr(page, foreign[i]), "'%s': %.60s", foreign[i], strstr(page, foreign[i]));
        }
        EXPECT(strstr(page, "src=\"data:image/png;base64,iVBORw0KGgo=\""), "no picture%s", "");
    }
    if (CASE("tags balance")) {
        const char *at = unbalanced(page);
        EXPECT(!at, "at: %.200s", at);
        EXPECT(unbalanced("<p><b></p></b>") && unbalanced("<p>") && !unbalanced("<p><br><i/></p>"),
               "the check itself%s", "");
    }
    if (CASE("says what is missing")) {
        EXPECT(strstr(page, "missing: "), "no warning%s", "");
        EXPECT(strstr(page, "seed-3"), "no name%s", "");
        EXPECT(strstr(page, "<td class=\"none\">missing</td>"), "no cell%s", "");
        EXPECT(strstr(page, "(2/3)"), "no share%s", "");
    }
    if (CASE("escapes")) {
        EXPECT(strstr(page, "a &lt;verdict&gt;") && strstr(page, "a &lt;b&gt; caption"),
               "raw text%s", "");
        EXPECT(strstr(page, "aria-label=\"no retrieved image\""), "bad picture shown%s", "");
    }
    if (CASE("no numbers that are none")) {
        EXPECT(!strstr(page, ">nan") && !strstr(page, "\"nan") && !strstr(page, ">inf") &&
                   !strstr(page, "-nan"),
               "NaN on the page%s", "");
    }
    free(page);
    run_list_free(runs);
}

TEST(report_page_hostile_names) {
    RunResult *run = toy_run(1, false);
    static const char evil[] = "</title><script>alert('x')</script>\"&\x02";
    char **const texts[] = {&run->task,
                            &run->commit,
                            &run->classes[0],
                            &run->systems[2].name,
                            &run->facts.items[0].name,
                            &run->pictures[0].gold,
                            &run->pictures[0].systems[0].system};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        free(*texts[i]);
        *texts[i] = xstrdup(evil);
    }
    char *dir = written(run, "<i>evil&");
    RunList *runs = run_list_new(&dir, 1);
    char *page = page_new(runs, NULL);
    EXPECT(!strstr(page, "<script") && !strstr(page, "<i>evil"), "script%s", "");
    EXPECT(!unbalanced(page), "at: %.200s", unbalanced(page));
    free(page), free(dir);
    run_list_free(runs);
}

// ---- losses ----
TEST(report_losses) {
    char *path = file_join_new(check_tmpdir(), "losses.jsonl");
    static const char lines[] =
        "{\"stage\":\"a\",\"step\":0,\"loss\":3.5,\"lr\":0}\n"
        "{\"stage\": \"b\", \"current_steps\": 7, \"loss\": null, \"lr\": 0.1}\n"
        "{\"stage\":\"a\",\"step\":1,\"loss\":2.5,\"lr\":0}\n"
        "{\"evaluation\": 1}\n"
        "{\"stage\":\"a\",\"st";
    put_bytes(path, lines, sizeof lines - 1);
    log_set_level(LOG_ERROR);
    LossLog log;
    error_die(path, loss_log_read_new(&log, path));
    const LossStage *a = loss_log_find(&log, "a"), *b = loss_log_find(&log, "b");
    EXPECT(log.count == 2 && a && b && a->n == 2 && b->n == 1, "%d stages", log.count);
    EXPECT(a->step[1] == 1 && a->loss[1] == 2.5 && b->step[0] == 7 && isnan(b->loss[0]), "b: %g",
           b->loss[0]);
    loss_log_free(&log);
    char *absent = file_join_new(check_tmpdir(), "absent.jsonl");
    EXPECT(loss_log_read_new(&log, absent).code == EXIT_NO_INPUT, "absent%s", "");
    free(absent), free(path);
}

// The curves of a long stage keep its largest loss, and gaps break the line.
TEST(report_plot_losses) {
    enum { N = 5000 };
    LossStage stage = {.stage = (char *)"s",
                       .n = N,
                       .step = xmalloc(N, sizeof(double)),
                       .loss = xmalloc(N, sizeof(double))};
    for (int i = 0; i < N; i++) {
        stage.step[i] = i;
        stage.loss[i] = i == 3777 ? 9.0 : i == 100 ? NAN : 1.0;
    }
    const LossStage *const stages[] = {NULL, &stage};
    char *svg;
    size_t size;
    FILE *out = open_memstream(&svg, &size);
    plot_losses(out, "s < t", stages, 2);
    fclose(out);
    // The axis goes from 0 to 10 over the 154 pixels from 180 up to 26: 9 lies at 41.4.
    EXPECT(strstr(svg, " 41.4"), "the spike is lost in %.400s", svg);
    EXPECT(strstr(svg, "class=\"smooth s1\"") && !strstr(svg, "nan") && strstr(svg, "s &lt; t"),
           "%.400s", svg);
    EXPECT(!unbalanced(svg), "at: %.100s", unbalanced(svg));
    EXPECT(plot_window(30) == 1 && plot_window(100) == 5 && plot_window(1000) == 41, "%d %d %d",
           plot_window(30), plot_window(100), plot_window(1000));
    free(svg), free(stage.step), free(stage.loss);
}

// ---- the verb ----
// Exit code and output of `jomed report` with these arguments.
static void expect_verb(int code, const char *want, const char *arguments) {
    char *output;
    const int got = check_run(&output, "%s report %s", check_program(), arguments);
    EXPECT(got == code && strstr(output, want), "report %s: code %d, wanted %d and '%s':\n%s",
           arguments, got, code, want, output);
    free(output);
}

TEST(report_verb) {
    const char *tmp = check_tmpdir();
    char *first = written(toy_run(1, false), "runs/seed-1"),
         *second = written(toy_run(2, true), "runs/seed-2");
    char *below = xformat_new("run.dir=%s/runs", tmp);
    char *missing = xformat_new("'run.dirs=[%s, %s/none]' report.dir=%s/out", first, tmp, tmp);
    char *twice = xformat_new("'run.dirs=[%s, %s]' report.dir=%s/out", first, first, tmp);
    char *nothing = xformat_new("'run.dirs=[%s/none]' report.dir=%s/out", tmp, tmp);
    char *empty = xformat_new("run.dir=%s", tmp),
         *alone = xformat_new("run.dir=%s report.dir=%s/out", second, tmp);
    expect_verb(EXIT_OK, "report.html", below);
    static const char *const files[] = {"report.html", "tables/main.csv", "tables/gain.tex",
                                        "tables/metrics.md"};
    for (int i = 0; i < 4; i++) {
        char *path = xformat_new("%s/runs/%s", tmp, files[i]);
        EXPECT(file_exists(path), "%s", path);
        free(path);
    }
    expect_verb(EXIT_OK, "shown as missing", missing);
    expect_verb(EXIT_OK, "100.0", alone);
    expect_verb(EXIT_NO_INPUT, "none of 1 runs has results", nothing);
    expect_verb(EXIT_NO_INPUT, "no directory seed-*", empty);
    expect_verb(EXIT_BAD_DATA, "the same seed as", twice);
    char *bad = file_join_new(tmp, "runs/seed-3"), *path = file_join_new(bad, "results.json");
    error_die(bad, file_make_directories(bad));
    put_bytes(path, "{", 1);
    expect_verb(EXIT_BAD_DATA, "report.html", below); // written all the same, without the bad run
    free(first), free(second), free(below), free(missing), free(twice), free(nothing), free(empty);
    free(alone), free(bad), free(path);
}
