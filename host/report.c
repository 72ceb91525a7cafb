// report: see report.h.
#define _POSIX_C_SOURCE 200809L
#include "report.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "file.h"
#include "loss_log.h"
#include "report_plot.h"
#include "version.h"

// ---- style ----
// size: a style sheet, not code
static const char style[] =
    ":root{color-scheme:light "
    "dark;--page:#fff;--ink:#1b1f24;--dim:#5f6873;--line:#d8dde3;--card:#f5f7f9;"
    "--heat:#0b6fb8;--good:#10783f;--bad:#b3261e;--c0:#0b6fb8;--c1:#c4570c;--c2:#0a8a66;--c3:#"
    "a3397f;"
    "--c4:#8a6d00;--c5:#4b53bf;--c6:#5f6873}\n"
    "@media(prefers-color-scheme:dark){:root{--page:#14171b;--ink:#e6e9ed;--dim:#9aa4af;--line:#"
    "343a42;"
    "--card:#1c2127;--heat:#4aa8ea;--good:#5ccf8e;--bad:#ff8a80;--c0:#4aa8ea;--c1:#f0954f;--c2:#"
    "45c9a1;"
    "--c3:#e085c2;--c4:#dcbf4a;--c5:#9aa1f5;--c6:#9aa4af}}\n"
    "body{font:15px/1.5 system-ui,sans-serif;color:var(--ink);background:var(--page);margin:0 auto;"
    "max-width:1120px;padding:24px}\n"
    "h1{font-size:26px;margin:0 0 4px}h2{font-size:19px;margin:36px 0 10px;border-bottom:1px solid "
    "var(--line);"
    "padding-bottom:4px}\n"
    "dl.meta{display:grid;grid-template-columns:max-content 1fr;gap:2px 16px;margin:12px "
    "0;color:var(--dim)}"
    "dl.meta dd{margin:0;color:var(--ink)}\n"
    ".verdict{border-left:5px solid var(--c4);background:var(--card);padding:10px 16px;margin:18px "
    "0;"
    "white-space:pre-line}.good{border-color:var(--good)}.bad{border-color:var(--bad)}\n"
    ".warning{border-left:5px solid var(--c4);background:var(--card);padding:10px 16px;margin:18px "
    "0}\n"
    "figure{margin:14px 0}figcaption{font-weight:600;margin-bottom:6px}.scroll{overflow-x:auto}\n"
    "table{border-collapse:collapse;font-variant-numeric:tabular-nums;font-size:13.5px}"
    "th,td{padding:4px 10px;border-bottom:1px solid var(--line);text-align:right}td small,tbody "
    "th,td.text{white-space:nowrap}"
    "thead th{border-bottom:2px solid var(--line);vertical-align:bottom;min-width:52px}"
    "th:first-child{text-align:left;min-width:150px}tbody th{font-weight:500}"
    "tbody tr:hover{background:var(--card)}small,.none{color:var(--dim)}td small{font-size:12px}\n"
    ".note{color:var(--dim);font-size:13px;max-width:860px;margin:6px 0}\n"
    ".row{display:flex;flex-wrap:wrap;gap:16px}svg{max-width:100%;height:auto;overflow:visible;"
    "font:12px system-ui,sans-serif}svg text{fill:var(--ink)}svg "
    ".tick{fill:var(--dim);font-size:11px}"
    "svg .title{font-weight:600;font-size:13px}svg .name{font-size:13px}\n"
    ".grid{stroke:var(--line);stroke-width:1}.axis{stroke:var(--dim);stroke-width:1}"
    "path{fill:none;stroke:currentColor}.raw{stroke-opacity:.28;stroke-width:1}.smooth{stroke-"
    "width:2}\n"
    ".s0{color:var(--c0)}.s1{color:var(--c1)}.s2{color:var(--c2)}.s3{color:var(--c3)}.s4{color:var("
    "--c4)}"
    ".s5{color:var(--c5)}.s6{color:var(--c6)}.key{font-weight:700}\n"
    ".reached{fill:var(--c0)}.gap{fill:var(--c0);fill-opacity:.25}.whisker{stroke:var(--ink);"
    "stroke-width:1.5}"
    ".floor{stroke:var(--c1);stroke-width:2.5}.interval{stroke:var(--c0);stroke-width:2}.point{"
    "fill:var(--c0)}\n"
    ".cell{fill:var(--heat);stroke:var(--line)}.cell.right{fill:var(--good)}"
    "svg .count{font-size:11px}svg .strong{fill:var(--page)}\n"
    ".case{border:1px solid var(--line);border-radius:6px;padding:12px;margin:12px "
    "0;display:flex;gap:20px;"
    "flex-wrap:wrap;background:var(--card)}.case>div>b{display:block;margin-bottom:6px;font-size:"
    "13px}\n"
    ".shot{width:102px;font-size:12px;line-height:1.35}.shot img,.blank{width:90px;height:90px;"
    "image-rendering:pixelated;border:3px solid "
    "var(--line);display:block}.blank{background:var(--line)}"
    ".shot.yes img,.shot.yes .blank{border-color:var(--good)}.shot.no img,.shot.no "
    ".blank{border-color:var(--bad);"
    "border-style:dashed}.shots{display:flex;gap:8px;flex-wrap:wrap}.shot .said{font-weight:600}"
    ".yes .said{color:var(--good)}.no .said{color:var(--bad)}.caption{color:var(--dim)}\n";

// ---- header ----
static void put_meta(FILE *out, const char *name, const char *text) {
    fprintf(out, "<dt>%s</dt><dd>", name);
    html_write_text(out, text);
    fputs("</dd>\n", out);
}

static void put_runs(FILE *out, const RunList *runs) {
    char *seeds = xstrdup(""), *commits = xstrdup("");
    for (int i = 0; i < runs->count; i++) {
        const RunResult *run = runs->items[i].result;
        if (run) {
            const char *commit = run->commit[0] ? run->commit : "not recorded";
            char *longer = xformat_new("%s%s%d", seeds, seeds[0] ? ", " : "", run->seed);
            char *more = strstr(commits, commit)
                             ? xstrdup(commits)
                             : xformat_new("%s%s%s", commits, commits[0] ? ", " : "", commit);
            free(seeds);
            free(commits);
            seeds = longer;
            commits = more;
        }
    }
    put_meta(out, "seeds", seeds);
    put_meta(out, "runs made by commit", commits);
    free(seeds);
    free(commits);
}

static void put_header(FILE *out, const Report *report) {
    const RunList *runs = report->runs;
    const RunResult *first = run_list_first(runs);
    char date[40], text[160];
    const time_t now = time(NULL);
    struct tm utc;
    gmtime_r(&now, &utc);
    strftime(date, sizeof date, "%Y-%m-%d %H:%M UTC", &utc);
    fputs("<h1>", out);
    html_write_text(out, first->task);
    fputs("</h1>\n<dl class=\"meta\">\n", out);
    put_runs(out, runs);
    snprintf(text, sizeof text, "%d, %d classes, %d passages per head", first->Q, first->C,
             first->k);
    put_meta(out, "queries per run", text);
    snprintf(text, sizeof text, "%s by jomed %s, commit %s", date, version_text, version_commit);
    put_meta(out, "written", text);
    put_meta(out, "build", version_build);
    fputs("</dl>\n", out);
    if (report->verdict) {
        fprintf(out, "<p class=\"verdict %s\">", report->tone);
        html_write_text(out, report->verdict);
        fputs("</p>\n", out);
    }
    for (int i = 0; i < runs->count; i++) {
        if (!runs->items[i].result) {
            fputs("<p class=\"warning\">missing: ", out);
            html_write_text(out, runs->items[i].dir);
            fputs(": ", out);
            html_write_text(out, runs->items[i].error.text);
            fputs("</p>\n", out);
        }
    }
}

// ---- sections ----
static void open_section(FILE *out, const char *title) {
    fprintf(out, "<section><h2>%s</h2>\n", title);
}

static void close_section(FILE *out) { fputs("</section>\n", out); }

static void put_table(FILE *out, const Report *report, const char *name) {
    const Table *table = table_list_find(report->tables, name);
    if (table) {
        table_write_html(out, table);
    }
}

static void put_section(FILE *out, const Report *report, const char *title, const char *name) {
    if (table_list_find(report->tables, name)) {
        open_section(out, title);
        put_table(out, report, name);
        close_section(out);
    }
}

static void put_main(FILE *out, const Report *report) {
    open_section(out, "Results");
    put_table(out, report, "main");
    const Table *gain = table_list_find(report->tables, "gain");
    if (gain) {
        fprintf(out, "<figure><figcaption>Gain in accuracy over the baseline, points, with 95%% "
                     "intervals</figcaption>");
        plot_gains(out, gain);
        fputs("</figure>\n", out);
        table_write_html(out, gain);
        put_table(out, report, "gain-inconsistent");
    }
    close_section(out);
    open_section(out, "Oracle gap");
    fputs("<figure><figcaption>Accuracy reached, and what a perfect choice among the retrieved "
          "passages would "
          "reach</figcaption>",
          out);
    plot_oracle_gap(out, table_list_find(report->tables, "main"),
                    table_list_find(report->tables, "oracle"));
    fputs("<p class=\"note\">Full: the mixture (line: sample sd over runs). Pale: the gap up to "
          "the oracle. Upright "
          "mark: the floor, a blind choice of one passage. Percent of all queries.</p></figure>\n",
          out);
    put_table(out, report, "oracle");
    close_section(out);
}

// ---- loss curves ----
static void read_losses(LossLog *log, const char *dir) {
    static const char *const names[] = {"losses.jsonl", "trainer_log.jsonl"};
    for (int i = 0; i < 2 && log->count == 0; i++) {
        char *path = file_join_new(dir, names[i]);
        const Error error = loss_log_read_new(log, path);
        if (error.code && error.code != EXIT_NO_INPUT) {
            LOG(WARN, "%s: %s; its curves are left out", path, error.text);
        }
        free(path);
    }
}

// Stages of all runs, in order of appearance, each drawn once.
static int put_stages(FILE *out, const LossLog *logs, int count) {
    const LossStage **same = xmalloc((size_t)count, sizeof *same);
    int panels = 0;
    for (int i = 0; i < count; i++) {
        for (int s = 0; s < logs[i].count; s++) {
            const char *stage = logs[i].items[s].stage;
            bool is_new = true;
            for (int j = 0; j < count; j++) {
                same[j] = loss_log_find(&logs[j], stage);
                is_new = is_new && !(j < i && same[j]);
            }
            if (is_new) {
                plot_losses(out, stage, same, count);
                panels++;
            }
        }
    }
    free(same);
    return panels;
}

static void put_losses(FILE *out, const Report *report) {
    const RunList *runs = report->runs;
    LossLog *logs = xcalloc((size_t)runs->count, sizeof *logs);
    open_section(out, "Losses");
    fputs("<p class=\"note\">", out);
    for (int i = 0; i < runs->count; i++) {
        read_losses(&logs[i], runs->items[i].dir);
        const RunResult *run = runs->items[i].result;
        fprintf(out, "<span class=\"key s%d\">", i % PLOT_SERIES);
        html_write_text(out, runs->items[i].dir);
        if (run) {
            fprintf(out, " (seed %d)", run->seed);
        }
        fprintf(out, "</span>%s ", logs[i].count ? "" : ": no losses");
    }
    fputs("<br>Faint: the loss of every step. Strong: its mean over a centred window of about a "
          "25th of the "
          "stage's steps.</p>\n<div class=\"row\">\n",
          out);
    if (put_stages(out, logs, runs->count) == 0) {
        fputs("<p class=\"none\">missing</p>", out);
    }
    fputs("</div>\n", out);
    close_section(out);
    for (int i = 0; i < runs->count; i++) {
        loss_log_free(&logs[i]);
    }
    free(logs);
}

// ---- confusion ----
static void put_confusion(FILE *out, const Report *report) {
    bool is_open = false;
    for (int i = 0; i < report->tables->count; i++) {
        const Table *table = report->tables->items[i];
        if (strncmp(table->name, "confusion-", 10) == 0) {
            if (!is_open) {
                open_section(out, "Confusion");
                fputs("<div class=\"row\">\n", out);
            }
            is_open = true;
            fputs("<figure><figcaption>", out);
            html_write_text(out, table->title);
            fputs("</figcaption>", out);
            plot_confusion(out, table);
            fputs("</figure>\n", out);
        }
    }
    if (is_open) {
        fputs("</div><p class=\"note\">Counts; the shade is the share of the row. Green: right "
              "answers.</p>\n",
              out);
        close_section(out);
    }
}

// ---- pictures ----
// Only what is a PNG in base64 goes into the page: the text comes from a file.
static bool is_picture(const char *text) {
    static const char digits[] =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/=";
    return strncmp(text, "iVBORw0KGgo", 11) == 0 && text[strspn(text, digits)] == '\0';
}

static void put_picture(FILE *out, const char *image, const char *what) {
    if (is_picture(image)) {
        fprintf(out, "<img alt=\"%s\" src=\"data:image/png;base64,%s\">", what, image);
    } else {
        fprintf(out, "<span class=\"blank\" role=\"img\" aria-label=\"no %s\"></span>", what);
    }
}

static void put_shown(FILE *out, const ShownSystem *shown, const char *gold, int k) {
    fputs("<div><b>", out);
    html_write_text(out, shown->system);
    fputs("</b><div class=\"shots\">", out);
    for (int p = 0; p < shown->count; p++) {
        const ShownPassage *passage = &shown->passages[p];
        const bool is_right = strcmp(passage->answer, gold) == 0;
        fprintf(out, "<div class=\"shot %s\">", is_right ? "yes" : "no");
        put_picture(out, passage->image, "retrieved image");
        fprintf(out, "<span class=\"said\">%s ", is_right ? "✓" : "✗");
        html_write_text(out, passage->answer);
        fprintf(out, "</span><br>%s %d<br><span class=\"caption\">",
                shown->count != 2 * k ? "passage"
                : p < k               ? "image"
                                      : "text",
                shown->count == 2 * k ? p % k + 1 : p + 1);
        html_write_text(out, passage->caption);
        fputs("</span></div>", out);
    }
    fputs("</div></div>\n", out);
}

// The pictures of the first run that has any.
static void put_pictures(FILE *out, const Report *report) {
    const RunList *runs = report->runs;
    const RunResult *run = NULL;
    for (int i = 0; i < runs->count && !run; i++) {
        const RunResult *candidate = runs->items[i].result;
        run = candidate && candidate->picture_count > 0 ? candidate : NULL;
    }
    if (!run) {
        return;
    }
    open_section(out, "Queries and what is retrieved for them");
    fprintf(out,
            "<p class=\"note\">%d queries of seed %d. Under each retrieved image: the "
            "reader's answer with this passage (✓ right, ✗ wrong), the index and rank it was "
            "found at, its caption.</p>\n",
            run->picture_count, run->seed);
    for (int i = 0; i < run->picture_count; i++) {
        const Picture *picture = &run->pictures[i];
        fputs("<div class=\"case\"><div><b>query</b><div class=\"shot\">", out);
        put_picture(out, picture->query, "query image");
        fputs("<span class=\"said\">", out);
        html_write_text(out, picture->gold);
        fputs("</span><br>gold answer</div></div>\n", out);
        for (int s = 0; s < picture->count; s++) {
            put_shown(out, &picture->systems[s], picture->gold, run->k);
        }
        fputs("</div>\n", out);
    }
    close_section(out);
}

// ---- the page ----
void report_page(FILE *out, const Report *report) {
    const RunResult *first = run_list_first(report->runs);
    CHECK(first, "%d runs, none there", report->runs->count);
    fputs(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
        "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<title>jomed: ",
        out);
    html_write_text(out, first->task);
    fprintf(out, "</title>\n<style>\n%s</style>\n</head>\n<body>\n", style);
    put_header(out, report);
    put_main(out, report);
    put_losses(out, report);
    put_pictures(out, report);
    put_confusion(out, report);
    put_section(out, report, "Metrics", "metrics");
    put_section(out, report, "Inconsistent retrieval predictions", "inconsistency");
    put_section(out, report, "Rerankers", "rerankers");
    put_section(out, report, "Facts", "facts");
    put_section(out, report, "Facts of the systems", "system-facts");
    put_section(out, report, "Runs", "runs");
    fputs("<p class=\"note\">The tables are beside this page as CSV, Markdown and LaTeX, in "
          "tables/.</p>\n"
          "</body>\n</html>\n",
          out);
}

// ---- files ----
typedef void table_writer_fn(FILE *out, const Table *table);

// What a writer prints becomes the file's content, whole or not at all.
static void write_file(const char *path, const Report *report, const Table *table,
                       table_writer_fn *writer) {
    char *text = NULL;
    size_t size = 0;
    FILE *out = open_memstream(&text, &size);
    if (!out) {
        die(EXIT_RESOURCE, "%s: no memory for it", path);
    }
    if (table) {
        writer(out, table);
    } else {
        report_page(out, report);
    }
    const bool is_whole = !ferror(out);
    if (fclose(out) != 0 || !is_whole) {
        die(EXIT_RESOURCE, "%s: no memory for it", path);
    }
    error_die(path, file_replace(path, text, size));
    free(text);
}

void report_write(const Report *report) {
    static const struct {
        const char *suffix;
        table_writer_fn *write;
    } forms[] = {
        {"csv", table_write_csv}, {"md", table_write_markdown}, {"tex", table_write_latex}};
    char *tables = file_join_new(report->dir, "tables"),
         *page = file_join_new(report->dir, "report.html");
    error_die(tables, file_make_directories(tables));
    for (int i = 0; i < report->tables->count; i++) {
        const Table *table = report->tables->items[i];
        for (size_t f = 0; f < sizeof forms / sizeof *forms; f++) {
            char *path = xformat_new("%s/%s.%s", tables, table->name, forms[f].suffix);
            write_file(path, report, table, forms[f].write);
            free(path);
        }
    }
    write_file(page, report, NULL, NULL);
    free(tables);
    free(page);
}
