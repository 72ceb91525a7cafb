// report: what runs found, as one HTML page that needs nothing else, and its tables as files.
//
//   report.html         style, figures (SVG), pictures (PNG) inside; no script, no address outside
//   tables/NAME.csv     and .md, .tex: every table of the page
#ifndef JOMED_HOST_REPORT_H
#define JOMED_HOST_REPORT_H

#include "summary.h"

typedef struct {
    const char *dir; // where the files go
    const RunList *runs; // at least one is there
    const TableList *tables;
    const char *baseline, *system; // in front: confusion and pictures, before and after training
    const char *verdict; // text above everything, or NULL
    const char *tone;    // of the verdict: "good", "bad" or "open"
} Report;
// Dies when a file cannot be written.
void report_write(const Report *report);
// The page alone.
void report_page(FILE *out, const Report *report);

#endif
