// tables: see tables.h.
#include "tables.h"

#include <math.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "analysis.h"
#include "kernels/base.h"

// ---- making one ----
static char *format_new(const char *fmt, va_list args) {
    va_list again;
    va_copy(again, args);
    const int length = vsnprintf(NULL, 0, fmt, args);
    char *text = xmalloc((size_t)length + 1, 1);
    vsnprintf(text, (size_t)length + 1, fmt, again);
    va_end(again);
    return text;
}

Table *table_new(const char *name, const char *title, const char *corner, bool has_runs) {
    Table *table = xcalloc(1, sizeof *table);
    *table = (Table){.name = xstrdup(name),
                     .title = xstrdup(title),
                     .note = xstrdup(""),
                     .corner = xstrdup(corner),
                     .has_runs = has_runs};
    return table;
}

void table_free(Table *table) {
    if (!table) {
        return;
    }
    for (int i = 0; i < table->row_count * table->column_count; i++) {
        free(table->cells[i].text);
    }
    for (int c = 0; c < table->column_count; c++) {
        free(table->columns[c]);
    }
    for (int r = 0; r < table->row_count; r++) {
        free(table->rows[r]);
    }
    free(table->columns);
    free(table->rows);
    free(table->formats);
    free(table->cells);
    free(table->name);
    free(table->title);
    free(table->note);
    free(table->corner);
    free(table);
}

void table_note(Table *table, const char *fmt, ...) {
    va_list args;
    va_start(args, fmt);
    free(table->note);
    table->note = format_new(fmt, args);
    va_end(args);
}

int table_add_column(Table *table, Format format, const char *fmt, ...) {
    CHECK(table->row_count == 0, "table '%s' has rows already", table->name);
    const size_t count = (size_t)table->column_count + 1;
    table->columns = xrealloc(table->columns, count, sizeof *table->columns);
    table->formats = xrealloc(table->formats, count, sizeof *table->formats);
    table->formats[table->column_count] = format;
    va_list args;
    va_start(args, fmt);
    table->columns[table->column_count] = format_new(fmt, args);
    va_end(args);
    return table->column_count++;
}

int table_add_row(Table *table, const char *fmt, ...) {
    const size_t rows = (size_t)table->row_count + 1, columns = (size_t)table->column_count;
    table->rows = xrealloc(table->rows, rows, sizeof *table->rows);
    table->cells = xrealloc(table->cells, rows * columns, sizeof *table->cells);
    memset(table->cells + (rows - 1) * columns, 0, columns * sizeof *table->cells);
    va_list args;
    va_start(args, fmt);
    table->rows[table->row_count] = format_new(fmt, args);
    va_end(args);
    return table->row_count++;
}

Cell *table_cell(const Table *table, int row, int column) {
    CHECK(row >= 0 && row < table->row_count && column >= 0 && column < table->column_count,
          "table '%s': row %d, column %d", table->name, row, column);
    return &table->cells[(size_t)row * table->column_count + column];
}

static int find(char *const *names, int count, const char *name) {
    for (int i = 0; i < count; i++) {
        if (strcmp(names[i], name) == 0) {
            return i;
        }
    }
    return -1;
}

int table_column(const Table *table, const char *name) {
    return find(table->columns, table->column_count, name);
}

int table_row(const Table *table, const char *name) {
    return find(table->rows, table->row_count, name);
}

void table_set_mean(Table *table, int row, int column, const double *values, const bool *is_present,
                    int runs) {
    Cell *cell = table_cell(table, row, column);
    double *used = xmalloc((size_t)runs + 1, sizeof *used);
    cell->kind = CELL_MEAN;
    cell->runs = runs;
    cell->n = cell->missing = 0;
    for (int i = 0; i < runs; i++) {
        cell->missing += !is_present[i];
        if (is_present[i] && !isnan(values[i])) {
            used[cell->n++] = values[i];
        }
    }
    analysis_mean_sd(&cell->mean, &cell->sd, used, cell->n);
    free(used);
}

void table_set_number(Table *table, int row, int column, double value) {
    const bool is_present = true;
    table_set_mean(table, row, column, &value, &is_present, 1);
}

void table_set_text(Table *table, int row, int column, const char *fmt, ...) {
    Cell *cell = table_cell(table, row, column);
    va_list args;
    va_start(args, fmt);
    free(cell->text);
    cell->text = format_new(fmt, args);
    va_end(args);
    cell->kind = CELL_TEXT;
}

// ---- numbers ----
enum { NUMBER_ROOM = 64 };

static void number_text(char out[NUMBER_ROOM], Format format, double value) {
    switch (format) {
    case FORMAT_PERCENT: snprintf(out, NUMBER_ROOM, "%.1f", 100 * value); break;
    case FORMAT_POINTS: snprintf(out, NUMBER_ROOM, "%+.1f", 100 * value); break;
    case FORMAT_COUNT: snprintf(out, NUMBER_ROOM, "%.0f", value); break;
    case FORMAT_P: snprintf(out, NUMBER_ROOM, "%.2g", value); break;
    case FORMAT_NUMBER:
        snprintf(out, NUMBER_ROOM, fabs(value) >= 1000 && fabs(value) < 1e15 ? "%.0f" : "%.4g",
                 value);
        break;
    }
}

static void sd_text(char out[NUMBER_ROOM], Format format, double sd) {
    if (format == FORMAT_NUMBER && sd < 100) {
        snprintf(out, NUMBER_ROOM, "%.2g", sd);
    } else {
        number_text(out, format == FORMAT_POINTS ? FORMAT_PERCENT : format, sd);
    }
}

// A cell in parts, so that each form can join them in its own way.
typedef struct {
    const char *word; // instead of a number; else NULL
    bool is_text;     // word is somebody else's text, to be escaped
    char mean[NUMBER_ROOM], sd[NUMBER_ROOM], share[NUMBER_ROOM]; // sd, share: may be empty
} Shown;

static Shown show(const Table *table, int row, int column) {
    const Cell *cell = table_cell(table, row, column);
    const Format format = table->formats[column];
    Shown shown = {0};
    if (cell->kind == CELL_BLANK) {
        shown.word = "-";
    } else if (cell->kind == CELL_TEXT) {
        shown.word = cell->text;
        shown.is_text = true;
    } else if (cell->n == 0) {
        shown.word = cell->runs > 0 && cell->missing == cell->runs ? "missing" : "n/a";
    } else {
        number_text(shown.mean, format, cell->mean);
        if (cell->n > 1) {
            sd_text(shown.sd, format, cell->sd);
        }
        if (cell->n < cell->runs) {
            snprintf(shown.share, NUMBER_ROOM, "(%d/%d)", cell->n, cell->runs);
        }
    }
    return shown;
}

// The cell on one line; caller frees.
static char *line_new(const Table *table, int row, int column, const char *plus_minus) {
    const Shown s = show(table, row, column);
    return s.word ? xstrdup(s.word)
                  : xformat_new("%s%s%s%s%s%s%s", s.mean, s.sd[0] ? " " : "",
                                s.sd[0] ? plus_minus : "", s.sd[0] ? " " : "", s.sd,
                                s.share[0] ? " " : "", s.share);
}

// ---- terminal text ----
// Columns of a terminal: one per character that starts in UTF-8.
static int width_of(const char *text) {
    int width = 0;
    for (; *text; text++) {
        width += ((unsigned char)*text & 0xc0) != 0x80;
    }
    return width;
}

// Control characters, which could move the cursor, become '?'.
static void put_plain(FILE *out, const char *text) {
    for (; *text; text++) {
        fputc((unsigned char)*text < 0x20 || *text == 0x7f ? '?' : *text, out);
    }
}

static void put_padded(FILE *out, const char *text, int width, bool is_left) {
    const int space = width - width_of(text);
    for (int i = 0; i < space && !is_left; i++) {
        fputc(' ', out);
    }
    put_plain(out, text);
    for (int i = 0; i < space && is_left; i++) {
        fputc(' ', out);
    }
}

static void write_panel(FILE *out, const Table *table, int first, int last, int names,
                        const int *widths) {
    put_padded(out, table->corner, names, true);
    for (int c = first; c < last; c++) {
        fputs("  ", out);
        put_padded(out, table->columns[c], widths[c], false);
    }
    fputc('\n', out);
    for (int r = 0; r < table->row_count; r++) {
        put_padded(out, table->rows[r], names, true);
        for (int c = first; c < last; c++) {
            char *text = line_new(table, r, c, "+-");
            fputs("  ", out);
            put_padded(out, text, widths[c], false);
            free(text);
        }
        fputc('\n', out);
    }
}

// Where the panel that starts at column `first` ends: what fits, at least one column, at most
// `most`.
static int panel_end(const Table *table, int first, int most, int names, const int *widths,
                     int width) {
    int last = first, used = names;
    while (last < table->column_count && last - first < most &&
           (last == first || used + 2 + widths[last] <= width)) {
        used += 2 + widths[last++];
    }
    return last;
}

// A note in lines of at most width columns, broken at blanks.
static void put_wrapped(FILE *out, const char *text, int width) {
    int used = 0;
    while (*text) {
        const int length = (int)strcspn(text, " ");
        char *word = xformat_new("%.*s", length, text);
        const bool is_new_line = used > 0 && used + 1 + width_of(word) > width;
        fputs(used == 0 ? "" : is_new_line ? "\n" : " ", out);
        used = (used == 0 || is_new_line ? 0 : used + 1) + width_of(word);
        put_plain(out, word);
        free(word);
        text += length + (text[length] == ' ');
    }
    fputs(used ? "\n" : "", out);
}

void table_write_text(FILE *out, const Table *table, int width) {
    int names = width_of(table->corner), first = 0;
    for (int r = 0; r < table->row_count; r++) {
        const int mine = width_of(table->rows[r]);
        names = mine > names ? mine : names;
    }
    int *widths = xmalloc((size_t)table->column_count + 1, sizeof *widths);
    for (int c = 0; c < table->column_count; c++) {
        widths[c] = width_of(table->columns[c]);
        for (int r = 0; r < table->row_count; r++) {
            char *text = line_new(table, r, c, "+-");
            widths[c] = width_of(text) > widths[c] ? width_of(text) : widths[c];
            free(text);
        }
    }
    put_plain(out, table->title);
    fputc('\n', out);
    int panels = 0;
    for (int last = 0; last < table->column_count; panels++) {
        last = panel_end(table, last, table->column_count, names, widths, width);
    }
    // As many panels as are needed, and then about as many columns in each.
    const int most = panels ? (table->column_count + panels - 1) / panels : 0;
    do {
        const int last = panel_end(table, first, most, names, widths, width);
        fputs(first ? "\n" : "", out);
        write_panel(out, table, first, last, names, widths);
        first = last;
    } while (first < table->column_count);
    put_wrapped(out, table->note, width);
    free(widths);
}

// ---- CSV ----
static void put_csv(FILE *out, const char *text) {
    if (!strpbrk(text, ",\"\r\n")) {
        fputs(text, out);
        return;
    }
    fputc('"', out);
    for (; *text; text++) {
        fputs(*text == '"' ? "\"\"" : (char[]){*text, '\0'}, out);
    }
    fputc('"', out);
}

static void put_csv_heading(FILE *out, const Table *table, int column, const char *what) {
    const Format format = table->formats[column];
    char *text =
        xformat_new("%s%s%s", table->columns[column],
                    format == FORMAT_PERCENT || format == FORMAT_POINTS ? " (%)" : "", what);
    fputc(',', out);
    put_csv(out, text);
    free(text);
}

static void put_csv_number(FILE *out, Format format, double value) {
    fprintf(out, "%.6g", format == FORMAT_PERCENT || format == FORMAT_POINTS ? 100 * value : value);
}

static void put_csv_cell(FILE *out, const Table *table, int row, int column) {
    const Cell *cell = table_cell(table, row, column);
    const Shown shown = show(table, row, column);
    fputc(',', out);
    if (shown.word) {
        put_csv(out, shown.word);
    } else {
        put_csv_number(out, table->formats[column], cell->mean);
    }
    if (table->has_runs) {
        fputc(',', out);
        if (cell->kind == CELL_MEAN && cell->n > 1) {
            put_csv_number(out, table->formats[column], cell->sd);
        } else {
            fputs(cell->kind == CELL_MEAN ? "n/a" : "-", out);
        }
        cell->kind == CELL_MEAN ? fprintf(out, ",%d", cell->n) : fputs(",-", out);
    }
}

void table_write_csv(FILE *out, const Table *table) {
    put_csv(out, table->corner);
    for (int c = 0; c < table->column_count; c++) {
        put_csv_heading(out, table, c, "");
        if (table->has_runs) {
            put_csv_heading(out, table, c, " sd");
            put_csv_heading(out, table, c, " n");
        }
    }
    for (int r = 0; r < table->row_count; r++) {
        fputc('\n', out);
        put_csv(out, table->rows[r]);
        for (int c = 0; c < table->column_count; c++) {
            put_csv_cell(out, table, r, c);
        }
    }
    fputc('\n', out);
}

// ---- Markdown ----
static void put_markdown(FILE *out, const char *text) {
    for (; *text; text++) {
        if (*text == '\n' || *text == '\r') {
            fputc(' ', out);
        } else {
            fputs(strchr("\\`*_[]<>|#~&", *text) ? "\\" : "", out);
            fputc(*text, out);
        }
    }
}

void table_write_markdown(FILE *out, const Table *table) {
    fputs("**", out);
    put_markdown(out, table->title);
    fputs("**\n\n| ", out);
    put_markdown(out, table->corner);
    for (int c = 0; c < table->column_count; c++) {
        fputs(" | ", out);
        put_markdown(out, table->columns[c]);
    }
    fputs(" |\n|:---|", out);
    for (int c = 0; c < table->column_count; c++) {
        fputs("---:|", out);
    }
    for (int r = 0; r < table->row_count; r++) {
        fputs("\n| ", out);
        put_markdown(out, table->rows[r]);
        for (int c = 0; c < table->column_count; c++) {
            char *text = line_new(table, r, c, "±");
            fputs(" | ", out);
            put_markdown(out, text);
            free(text);
        }
        fputs(" |", out);
    }
    fputc('\n', out);
    if (table->note[0]) {
        fputc('\n', out);
        put_markdown(out, table->note);
        fputc('\n', out);
    }
}

// ---- LaTeX ----
static void put_latex(FILE *out, const char *text) {
    for (; *text; text++) {
        switch (*text) {
        case '\\': fputs("\\textbackslash{}", out); break;
        case '^': fputs("\\textasciicircum{}", out); break;
        case '~': fputs("\\textasciitilde{}", out); break;
        case '<': fputs("$<$", out); break;
        case '>': fputs("$>$", out); break;
        case '|': fputs("$|$", out); break;
        case '"': fputs("''", out); break;
        case '\n':
        case '\r':
        case '\t': fputc(' ', out); break;
        case '{':
        case '}':
        case '$':
        case '&':
        case '#':
        case '%':
        case '_':
            fputc('\\', out);
            fputc(*text, out);
            break;
        default: fputc(*text, out);
        }
    }
}

// 1.3e-60 becomes 1.3 \times 10^{-60}.
static void put_latex_number(FILE *out, const char *text) {
    const char *e = strchr(text, 'e');
    if (e) {
        fprintf(out, "%.*s \\times 10^{%d}", (int)(e - text), text, atoi(e + 1));
    } else {
        fputs(text, out);
    }
}

static void put_latex_cell(FILE *out, const Shown *shown) {
    if (shown->word) {
        put_latex(out, strcmp(shown->word, "-") == 0 && !shown->is_text ? "--" : shown->word);
        return;
    }
    fputc('$', out);
    put_latex_number(out, shown->mean);
    if (shown->sd[0]) {
        fputs(" \\pm ", out);
        put_latex_number(out, shown->sd);
    }
    fprintf(out, "$%s%s", shown->share[0] ? " " : "", shown->share);
}

void table_write_latex(FILE *out, const Table *table) {
    fputs("\\begin{table}\n\\centering\n\\caption{", out);
    put_latex(out, table->title);
    fputs(table->note[0] ? ". " : "", out);
    put_latex(out, table->note);
    fprintf(out, "}\n\\label{tab:%s}\n\\begin{tabular}{l", table->name);
    for (int c = 0; c < table->column_count; c++) {
        fputc('r', out);
    }
    fputs("}\n\\hline\n", out);
    put_latex(out, table->corner);
    for (int c = 0; c < table->column_count; c++) {
        fputs(" & ", out);
        put_latex(out, table->columns[c]);
    }
    fputs(" \\\\\n\\hline\n", out);
    for (int r = 0; r < table->row_count; r++) {
        put_latex(out, table->rows[r]);
        for (int c = 0; c < table->column_count; c++) {
            const Shown shown = show(table, r, c);
            fputs(" & ", out);
            put_latex_cell(out, &shown);
        }
        fputs(" \\\\\n", out);
    }
    fputs("\\hline\n\\end{tabular}\n\\end{table}\n", out);
}

// ---- HTML ----
void html_write_text(FILE *out, const char *text) {
    for (; *text; text++) {
        const unsigned char c = (unsigned char)*text;
        if (c == '&') {
            fputs("&amp;", out);
        } else if (c == '<' || c == '>') {
            fputs(c == '<' ? "&lt;" : "&gt;", out);
        } else if (c == '"' || c == '\'') {
            fputs(c == '"' ? "&quot;" : "&#39;", out);
        } else if ((c < 0x20 && c != '\n' && c != '\t') || c == 0x7f) {
            fputs("\xef\xbf\xbd", out);
        } else {
            fputc(c, out);
        }
    }
}

static void put_html_cell(FILE *out, const Shown *shown) {
    if (shown->word) {
        fprintf(out, "<td class=\"%s\">", shown->is_text ? "text" : "none");
        html_write_text(out, shown->word);
    } else {
        fprintf(out, "<td>%s", shown->mean);
        if (shown->sd[0]) {
            fprintf(out, "<small> ± %s</small>", shown->sd);
        }
        if (shown->share[0]) {
            fprintf(out, "<small> %s</small>", shown->share);
        }
    }
    fputs("</td>", out);
}

void table_write_html(FILE *out, const Table *table) {
    fprintf(out, "<figure class=\"table\" id=\"table-%s\"><figcaption>", table->name);
    html_write_text(out, table->title);
    fputs("</figcaption><div class=\"scroll\"><table><thead><tr><th>", out);
    html_write_text(out, table->corner);
    for (int c = 0; c < table->column_count; c++) {
        fputs("</th><th>", out);
        html_write_text(out, table->columns[c]);
    }
    fputs("</th></tr></thead>\n<tbody>", out);
    for (int r = 0; r < table->row_count; r++) {
        fputs("<tr><th>", out);
        html_write_text(out, table->rows[r]);
        fputs("</th>", out);
        for (int c = 0; c < table->column_count; c++) {
            const Shown shown = show(table, r, c);
            put_html_cell(out, &shown);
        }
        fputs("</tr>\n", out);
    }
    fputs("</tbody></table></div>", out);
    if (table->note[0]) {
        fputs("<p class=\"note\">", out);
        html_write_text(out, table->note);
        fputs("</p>", out);
    }
    fputs("</figure>\n", out);
}
