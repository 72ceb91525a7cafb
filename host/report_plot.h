// report_plot: figures of a report as inline SVG. Colours and fonts come from the page's style
// sheet: classes s0..s6 are series, axis and grid the frame, so that a dark page works too.
#ifndef JOMED_HOST_REPORT_PLOT_H
#define JOMED_HOST_REPORT_PLOT_H

#include <stdio.h>

#include "loss_log.h"
#include "tables.h"

enum { PLOT_SERIES = 7 }; // colours; more series begin again with the first

// One stage: raw losses faintly, and over them their mean over a centred window. Not finite: a gap.
// stages[i] may be NULL, its colour stays free.
void plot_losses(FILE *out, const char *title, const LossStage *const *stages, int count);
// Steps of the window of a curve of n steps: about a 25th, odd.
int plot_window(int n);

// Bars of the main table: what the mixture reaches, what the oracle would, and the floor (a mark)
// of the oracle table, which may be NULL.
void plot_oracle_gap(FILE *out, const Table *main, const Table *oracle);
// Gain over the baseline with its interval, one line per system of the gain table.
void plot_gains(FILE *out, const Table *gain);
// Rows of a confusion table as heat, each row relative to its own sum.
void plot_confusion(FILE *out, const Table *confusion);

#endif
