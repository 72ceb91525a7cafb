// tables: tables of results as data, and their forms: terminal text, CSV, Markdown, LaTeX, HTML.
//
// A cell is the mean over runs of one value, with its sample standard deviation when there are two
// or more. What no run has is "missing", what is not defined is "n/a", what does not apply is "-";
// none of these is ever shown as a number. A mean of fewer runs than there are says "(2/3)".
// Left out: spanning cells, footnotes per cell, highlighting of the best.
#ifndef JOMED_HOST_TABLES_H
#define JOMED_HOST_TABLES_H

#include <stdbool.h>
#include <stdio.h>

// How the numbers of a column are shown. CSV has the same units, six significant digits, no sign.
typedef enum {
    FORMAT_PERCENT, // 0.718 is 71.8
    FORMAT_POINTS,  // 0.291 is +29.1
    FORMAT_NUMBER,  // four significant digits
    FORMAT_COUNT,   // a whole number
    FORMAT_P,       // a probability of a test: two significant digits
} Format;

typedef enum { CELL_BLANK, CELL_TEXT, CELL_MEAN } CellKind;
typedef struct {
    CellKind kind;
    double mean, sd; // NaN: not defined
    int n, missing, runs; // mean of n values; so many of the runs have none at all
    char *text;      // of CELL_TEXT
} Cell;

typedef struct {
    char *name;   // of its files: letters, digits and dashes
    char *title, *note;
    char *corner; // heading of the row names
    char **columns, **rows;
    Format *formats; // (column_count)
    Cell *cells;     // (row_count, column_count)
    int column_count, row_count;
    bool has_runs;   // cells are means over runs: CSV has columns for sd and n
} Table;

// An empty table; all cells are blank.
Table *table_new(const char *name, const char *title, const char *corner, bool has_runs);
void table_free(Table *table);
void table_note(Table *table, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
// Columns come first, then rows. Returns the new column's or row's number.
int table_add_column(Table *table, Format format, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
int table_add_row(Table *table, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
Cell *table_cell(const Table *table, int row, int column);
int table_column(const Table *table, const char *name); // -1 when absent
int table_row(const Table *table, const char *name);
// The mean over runs of values[i], NaN: not defined in run i; only those with is_present[i].
void table_set_mean(Table *table, int row, int column, const double *values, const bool *is_present,
                    int runs);
void table_set_number(Table *table, int row, int column, double value); // NaN: n/a
void table_set_text(Table *table, int row, int column, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));

// ---- forms ----
// Folded into panels at most width columns wide, row names repeated.
void table_write_text(FILE *out, const Table *table, int width);
void table_write_csv(FILE *out, const Table *table); // RFC 4180, lines end with a single newline
void table_write_markdown(FILE *out, const Table *table);
void table_write_latex(FILE *out, const Table *table); // a table environment; needs no package
void table_write_html(FILE *out, const Table *table);  // a figure element
// Text with what HTML reserves escaped, for content and quoted attributes; control characters
// become U+FFFD. text is UTF-8.
void html_write_text(FILE *out, const char *text);

#endif
