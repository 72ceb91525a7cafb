// Tests of host/tables: what a cell shows, escaping in every form, folding, and a small table whose
// five forms are written out here by hand.
#define _POSIX_C_SOURCE 200809L
#include "host/tables.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "check.h"

typedef void writer_fn(FILE *out, const Table *table);

static void write_narrow(FILE *out, const Table *table) { table_write_text(out, table, 30); }
static void write_wide(FILE *out, const Table *table) { table_write_text(out, table, 200); }

static char *written_new(const Table *table, writer_fn *writer) {
    char *text;
    size_t size;
    FILE *out = open_memstream(&text, &size);
    CHECK(out, "size %d", 0);
    writer(out, table);
    fclose(out);
    return text;
}

static void expect_text(const char *what, const Table *table, writer_fn *writer, const char *want) {
    char *got = written_new(table, writer);
    EXPECT(strcmp(got, want) == 0, "%s is:\n%s\nwanted:\n%s", what, got, want);
    free(got);
}

static void expect_has(const Table *table, writer_fn *writer, const char *part) {
    char *got = written_new(table, writer);
    EXPECT(strstr(got, part), "no '%s' in:\n%s", part, got);
    free(got);
}

// Three runs, one of them missing; 0.5 and 0.6 have mean 0.55 and sample sd sqrt(0.005) = 0.0707.
static Table *small_new(void) {
    Table *table = table_new("small", "Title & more", "system", true);
    table_add_column(table, FORMAT_PERCENT, "accuracy");
    table_add_column(table, FORMAT_P, "p_value");
    table_add_column(table, FORMAT_COUNT, "n");
    table_add_row(table, "a,b");
    table_add_row(table, "second");
    const double shares[] = {0.5, NAN, 0.6}, one[] = {0.25}, undefined[] = {NAN};
    const bool there[] = {true, false, true}, yes[] = {true}, no[] = {false};
    table_set_mean(table, 0, 0, shares, there, 3);
    table_set_number(table, 0, 1, 1.25e-7);
    table_set_mean(table, 0, 2, undefined, yes, 1);
    table_set_mean(table, 1, 0, one, yes, 1);
    table_set_mean(table, 1, 1, one, no, 1);
    table_note(table, "A note.");
    return table;
}

TEST(tables_golden) {
    Table *table = small_new();
    if (CASE("text")) {
        expect_text("text", table, write_wide,
                    "Title & more\n"
                    "system           accuracy  p_value    n\n"
                    "a,b     55.0 +- 7.1 (2/3)  1.2e-07  n/a\n"
                    "second               25.0  missing    -\n"
                    "A note.\n");
    }
    if (CASE("csv")) {
        expect_text("csv", table, table_write_csv,
                    "system,accuracy (%),accuracy (%) sd,accuracy (%) n,p_value,p_value sd,p_value "
                    "n,n,n sd,n n\n"
                    "\"a,b\",55,7.07107,2,1.25e-07,n/a,1,n/a,n/a,0\n"
                    "second,25,n/a,1,missing,n/a,0,-,-,-\n");
    }
    if (CASE("markdown")) {
        expect_text("markdown", table, table_write_markdown,
                    "**Title \\& more**\n\n"
                    "| system | accuracy | p\\_value | n |\n"
                    "|:---|---:|---:|---:|\n"
                    "| a,b | 55.0 ± 7.1 (2/3) | 1.2e-07 | n/a |\n"
                    "| second | 25.0 | missing | - |\n"
                    "\nA note.\n");
    }
    if (CASE("latex")) {
        expect_text(
            "latex", table, table_write_latex,
            "\\begin{table}\n\\centering\n\\caption{Title \\& more. A note.}\n\\label{tab:small}\n"
            "\\begin{tabular}{lrrr}\n\\hline\n"
            "system & accuracy & p\\_value & n \\\\\n\\hline\n"
            "a,b & $55.0 \\pm 7.1$ (2/3) & $1.2 \\times 10^{-7}$ & n/a \\\\\n"
            "second & $25.0$ & missing & -- \\\\\n"
            "\\hline\n\\end{tabular}\n\\end{table}\n");
    }
    if (CASE("html")) {
        expect_text(
            "html", table, table_write_html,
            "<figure class=\"table\" id=\"table-small\"><figcaption>Title &amp; more</figcaption>"
            "<div "
            "class=\"scroll\"><table><thead><tr><th>system</th><th>accuracy</th><th>p_value</th>"
            "<th>n</th></tr></thead>\n"
            "<tbody><tr><th>a,b</th><td>55.0<small> ± 7.1</small><small> (2/3)</small></td>"
            "<td>1.2e-07</td><td class=\"none\">n/a</td></tr>\n"
            "<tr><th>second</th><td>25.0</td><td class=\"none\">missing</td><td "
            "class=\"none\">-</td></tr>\n"
            "</tbody></table></div><p class=\"note\">A note.</p></figure>\n");
    }
    table_free(table);
}

// ---- cells ----
TEST(tables_mean_of_runs) {
    Table *table = table_new("t", "t", "r", true);
    table_add_column(table, FORMAT_NUMBER, "c");
    table_add_row(table, "r");
    const double values[] = {1, NAN, 4, 100};
    const bool is_present[] = {true, true, true, false};
    table_set_mean(table, 0, 0, values, is_present, 4);
    const Cell *cell = table_cell(table, 0, 0);
    const double got[] = {cell->mean, cell->sd}, want[] = {2.5, sqrt(4.5)};
    expect_within("mean and sd", got, want, 2, 1e-15);
    EXPECT(cell->n == 2 && cell->missing == 1 && cell->runs == 4, "n=%d missing=%d runs=%d",
           cell->n, cell->missing, cell->runs);
    table_free(table);
}

// What one value of a format looks like, as CSV and as text.
static void expect_number(Format format, double value, const char *text, const char *csv) {
    Table *table = table_new("t", "t", "r", false);
    table_add_column(table, format, "c");
    table_add_row(table, "x");
    table_set_number(table, 0, 0, value);
    char *line = xformat_new("| x | %s |\n", text), *row = xformat_new("\nx,%s\n", csv);
    expect_has(table, table_write_markdown, line);
    expect_has(table, table_write_csv, row);
    free(line), free(row);
    table_free(table);
}

TEST(tables_numbers) {
    expect_number(FORMAT_PERCENT, 0.71849, "71.8", "71.849");
    expect_number(FORMAT_PERCENT, 0, "0.0", "0");
    expect_number(FORMAT_POINTS, 0.2914, "+29.1", "29.14");
    expect_number(FORMAT_POINTS, -0.2914, "-29.1", "-29.14");
    expect_number(FORMAT_NUMBER, 24123, "24123", "24123");
    expect_number(FORMAT_NUMBER, 0.123456789, "0.1235", "0.123457");
    expect_number(FORMAT_COUNT, 7, "7", "7");
    expect_number(FORMAT_P, 0.00021234, "0.00021", "0.00021234");
    expect_number(FORMAT_NUMBER, NAN, "n/a", "n/a");
}

// ---- hostile text ----
static Table *hostile_new(const char *text) {
    Table *table = table_new("t", text, text, false);
    table_add_column(table, FORMAT_COUNT, "%s", text);
    table_add_row(table, "%s", text);
    table_set_text(table, 0, 0, "%s", text);
    table_note(table, "%s", text);
    return table;
}

TEST(tables_escaping) {
    Table *table = hostile_new("a\"b,c\nd");
    expect_text("csv", table, table_write_csv,
                "\"a\"\"b,c\nd\",\"a\"\"b,c\nd\"\n\"a\"\"b,c\nd\",\"a\"\"b,c\nd\"\n");
    expect_has(table, write_wide, "a\"b,c?d");
    table_free(table);
    table = hostile_new("<script>&'\"\x01");
    char *html = written_new(table, table_write_html);
    EXPECT(!strstr(html, "<script"), "script in '%s'", html);
    EXPECT(strstr(html, "&lt;script&gt;&amp;&#39;&quot;\xef\xbf\xbd"), "escapes in '%s'", html);
    free(html);
    table_free(table);
    table = hostile_new("\\{}$&#%_^~<|\"");
    expect_has(
        table, table_write_latex,
        "\\textbackslash{}\\{\\}\\$\\&\\#\\%\\_\\textasciicircum{}\\textasciitilde{}$<$$|$''");
    table_free(table);
    table = hostile_new("a|b*c_d\n<e>");
    expect_has(table, table_write_markdown, "| a\\|b\\*c\\_d \\<e\\> |");
    table_free(table);
}

// ---- folding ----
TEST(tables_fold) {
    Table *table = table_new("t", "t", "row", false);
    for (int c = 0; c < 6; c++) {
        table_add_column(table, FORMAT_COUNT, "column %d", c);
    }
    table_add_row(table, "é");
    for (int c = 0; c < 6; c++) {
        table_set_number(table, 0, c, c);
    }
    table_note(table, "words that do not fit into one line of thirty");
    expect_text("panels", table, write_narrow,
                "t\n"
                "row  column 0  column 1\né           0         1\n\n"
                "row  column 2  column 3\né           2         3\n\n"
                "row  column 4  column 5\né           4         5\n"
                "words that do not fit into one\nline of thirty\n");
    table_free(table);
}
