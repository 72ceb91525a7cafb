// report_plot: see report_plot.h.
#include "report_plot.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/base.h"

enum {
    MOST_POINTS = 600
}; // of a raw curve; longer ones keep the least and the largest of each bin

// ---- axes ----
// A linear map of values to pixels, with steps between ticks of 1, 2 or 5 times a power of ten.
typedef struct {
    double low, high, tick; // values
    double from, to;        // pixels
} Axis;

static Axis axis_of(double low, double high, double from, double to, int ticks) {
    if (!(high > low)) { // a flat curve, or none
        low -= 0.5;
        high = low + 1;
    }
    const double raw = (high - low) / ticks, power = pow(10, floor(log10(raw)));
    const double tick = power * (raw / power > 5   ? 10
                                 : raw / power > 2 ? 5
                                 : raw / power > 1 ? 2
                                                   : 1);
    return (Axis){floor(low / tick) * tick, ceil(high / tick) * tick, tick, from, to};
}

static double place(const Axis *axis, double value) {
    return axis->from + (axis->to - axis->from) * (value - axis->low) / (axis->high - axis->low);
}

static int tick_count(const Axis *axis) {
    return (int)lround((axis->high - axis->low) / axis->tick);
}

// Value of a tick; zero exactly, where rounding would leave a trace of it.
static double tick_value(const Axis *axis, int i) {
    const double value = axis->low + i * axis->tick;
    return fabs(value) < axis->tick * 1e-6 ? 0 : value;
}

static void open_svg(FILE *out, int width, int height, const char *label) {
    fprintf(out, "<svg viewBox=\"0 0 %d %d\" width=\"%d\" height=\"%d\" role=\"img\" aria-label=\"",
            width, height, width, height);
    html_write_text(out, label);
    fputs("\">\n", out);
}

static void put_label(FILE *out, double x, double y, const char *anchor, const char *kind,
                      const char *text) {
    fprintf(out, "<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"%s\" class=\"%s\">", x, y, anchor,
            kind);
    html_write_text(out, text);
    fputs("</text>", out);
}

static void put_line(FILE *out, const char *kind, double x1, double y1, double x2, double y2) {
    fprintf(out, "<line class=\"%s\" x1=\"%.1f\" y1=\"%.1f\" x2=\"%.1f\" y2=\"%.1f\"/>\n", kind, x1,
            y1, x2, y2);
}

// Ticks and grid of an x axis whose baseline lies at y.
static void put_x_axis(FILE *out, const Axis *x, double top, double bottom, const char *suffix) {
    for (int i = 0; i <= tick_count(x); i++) {
        const double value = tick_value(x, i), at = place(x, value);
        char text[40];
        snprintf(text, sizeof text, "%.4g%s", value, suffix);
        put_line(out, value == 0 ? "axis" : "grid", at, top, at, bottom);
        put_label(out, at, bottom + 14, "middle", "tick", text);
    }
}

// ---- loss curves ----
int plot_window(int n) { return n >= 50 ? n / 25 | 1 : 1; }

// Points (x, y) as one path, which breaks where y is not finite.
static void put_path(FILE *out, const char *kind, int series, const Axis *x, const Axis *y,
                     const double *step, const double *loss, int n) {
    bool is_down = false;
    fprintf(out, "<path class=\"%s s%d\" d=\"", kind, series % PLOT_SERIES);
    for (int i = 0; i < n; i++) {
        if (isfinite(loss[i]) && isfinite(step[i])) {
            fprintf(out, "%c%.1f %.1f", is_down ? 'L' : 'M', place(x, step[i]), place(y, loss[i]));
        }
        is_down = isfinite(loss[i]) && isfinite(step[i]);
    }
    fputs("\"/>\n", out);
}

// The least and the largest finite loss of every bin, in their order, so that no spike is lost.
static int thin(double *step, double *loss, const LossStage *stage) {
    const int bins = MOST_POINTS / 2;
    int used = 0;
    for (int b = 0; b < bins; b++) {
        const int first = (int)((int64_t)stage->n * b / bins),
                  last = (int)((int64_t)stage->n * (b + 1) / bins);
        int least = -1, largest = -1;
        for (int i = first; i < last; i++) {
            if (isfinite(stage->loss[i])) {
                least = least < 0 || stage->loss[i] < stage->loss[least] ? i : least;
                largest = largest < 0 || stage->loss[i] > stage->loss[largest] ? i : largest;
            }
        }
        const int pair[2] = {least < largest ? least : largest, least < largest ? largest : least};
        for (int j = 0; j < 2 && pair[j] >= 0; j++) {
            step[used] = stage->step[pair[j]];
            loss[used++] = stage->loss[pair[j]];
        }
    }
    return used;
}

// Mean of the finite losses within half a window of each step.
static void smooth(double *out, const LossStage *stage) {
    const int half = plot_window(stage->n) / 2;
    for (int i = 0; i < stage->n; i++) {
        double sum = 0;
        int count = 0;
        for (int j = i - half; j <= i + half; j++) {
            if (j >= 0 && j < stage->n && isfinite(stage->loss[j])) {
                sum += stage->loss[j];
                count++;
            }
        }
        out[i] = count && isfinite(stage->loss[i]) ? sum / count : NAN;
    }
}

static void put_curve(FILE *out, const LossStage *stage, int series, const Axis *x, const Axis *y) {
    const size_t room = (size_t)(stage->n > MOST_POINTS ? stage->n : MOST_POINTS);
    double *step = xmalloc(room, sizeof *step), *loss = xmalloc(room, sizeof *loss);
    const bool is_long = stage->n > MOST_POINTS;
    const int n = is_long ? thin(step, loss, stage) : stage->n;
    put_path(out, "raw", series, x, y, is_long ? step : stage->step, is_long ? loss : stage->loss,
             n);
    smooth(loss, stage);
    // The smooth curve needs no more points than there are pixels.
    const int stride = is_long ? stage->n / (MOST_POINTS / 2) : 1;
    int used = 0;
    for (int i = 0; i < stage->n; i += stride) {
        step[used] = stage->step[i];
        loss[used++] = loss[i];
    }
    put_path(out, "smooth", series, x, y, step, loss, used);
    free(step);
    free(loss);
}

void plot_losses(FILE *out, const char *title, const LossStage *const *stages, int count) {
    enum { WIDTH = 330, HEIGHT = 220, LEFT = 48, RIGHT = 14, TOP = 26, BOTTOM = 40 };
    double low = INFINITY, high = -INFINITY, first = INFINITY, last = -INFINITY;
    for (int s = 0; s < count; s++) {
        for (int i = 0; stages[s] && i < stages[s]->n; i++) {
            if (isfinite(stages[s]->loss[i])) {
                low = fmin(low, stages[s]->loss[i]);
                high = fmax(high, stages[s]->loss[i]);
                first = fmin(first, stages[s]->step[i]);
                last = fmax(last, stages[s]->step[i]);
            }
        }
    }
    open_svg(out, WIDTH, HEIGHT, title);
    put_label(out, LEFT, 16, "start", "title", title);
    if (!isfinite(low)) {
        put_label(out, WIDTH / 2.0, HEIGHT / 2.0, "middle", "tick", "no finite loss");
    } else {
        const Axis x = axis_of(first, last, LEFT, WIDTH - RIGHT, 5);
        const Axis y = axis_of(low, high, HEIGHT - BOTTOM, TOP, 4);
        for (int i = 0; i <= tick_count(&y); i++) {
            char text[40];
            snprintf(text, sizeof text, "%.4g", tick_value(&y, i));
            put_line(out, i ? "grid" : "axis", LEFT, place(&y, tick_value(&y, i)), WIDTH - RIGHT,
                     place(&y, tick_value(&y, i)));
            put_label(out, LEFT - 6, place(&y, tick_value(&y, i)) + 4, "end", "tick", text);
        }
        for (int i = 0; i <= tick_count(&x); i++) {
            char text[40];
            snprintf(text, sizeof text, "%.6g", tick_value(&x, i));
            put_label(out, place(&x, tick_value(&x, i)), HEIGHT - BOTTOM + 16, "middle", "tick",
                      text);
        }
        put_label(out, (LEFT + WIDTH - RIGHT) / 2.0, HEIGHT - 6, "middle", "tick", "step");
        for (int s = 0; s < count; s++) {
            if (stages[s]) {
                put_curve(out, stages[s], s, &x, &y);
            }
        }
    }
    fputs("</svg>\n", out);
}

// ---- bars and intervals ----
enum { ROW = 30, NAMES = 190, PLOT = 640, FOOT = 26 };

// Mean of a cell, NaN when there is none.
static double value_of(const Table *table, int row, int column) {
    const Cell *cell = row >= 0 && column >= 0 ? table_cell(table, row, column) : NULL;
    return cell && cell->kind == CELL_MEAN && cell->n > 0 ? cell->mean : NAN;
}

static double sd_of(const Table *table, int row, int column) {
    const Cell *cell = row >= 0 && column >= 0 ? table_cell(table, row, column) : NULL;
    return cell && cell->kind == CELL_MEAN && cell->n > 1 ? cell->sd : NAN;
}

static void put_bar(FILE *out, const char *kind, const Axis *x, double from, double to, double y,
                    double height) {
    fprintf(out, "<rect class=\"%s\" x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" height=\"%.1f\"/>\n",
            kind, place(x, from), y, fmax(0, place(x, to) - place(x, from)), height);
}

void plot_oracle_gap(FILE *out, const Table *main, const Table *oracle) {
    const int rows = main->row_count, mixture = table_column(main, "mixture"),
              top = table_column(main, "oracle");
    const Axis x = {0, 100, 20, NAMES + 10, PLOT - 60};
    open_svg(out, PLOT, rows * ROW + FOOT + 6, "accuracy of the mixture and of the oracle");
    put_x_axis(out, &x, 4, rows * ROW + 6, "%");
    for (int r = 0; r < rows; r++) {
        const double y = r * ROW + 6, reached = 100 * value_of(main, r, mixture);
        const double best = 100 * value_of(main, r, top), sd = 100 * sd_of(main, r, mixture);
        put_label(out, NAMES, y + 17, "end", "name", main->rows[r]);
        if (isnan(reached)) {
            put_label(out, x.from + 6, y + 17, "start", "tick", "missing");
            continue;
        }
        char text[40];
        snprintf(text, sizeof text, isnan(best) ? "%.1f" : "%.1f / %.1f", reached, best);
        put_bar(out, "gap", &x, reached, fmax(reached, best), y + 4, ROW - 10);
        put_bar(out, "reached", &x, 0, reached, y + 4, ROW - 10);
        if (!isnan(sd)) {
            put_line(out, "whisker", place(&x, fmax(0, reached - sd)), y + 14,
                     place(&x, fmin(100, reached + sd)), y + 14);
        }
        const double floor_at = oracle ? 100 * value_of(oracle, table_row(oracle, main->rows[r]),
                                                        table_column(oracle, "floor"))
                                       : NAN;
        if (!isnan(floor_at)) {
            put_line(out, "floor", place(&x, floor_at), y + 1, place(&x, floor_at), y + ROW - 3);
        }
        // Behind whatever reaches farthest; fmax passes over what is not known.
        const double end = fmax(fmax(reached, best), fmax(floor_at, fmin(100, reached + sd)));
        put_label(out, place(&x, end) + 6, y + 18, "start", "tick", text);
    }
    fputs("</svg>\n", out);
}

void plot_gains(FILE *out, const Table *gain) {
    const int rows = gain->row_count;
    double low = 0, high = 0;
    for (int r = 0; r < rows; r++) {
        low =
            fmin(low, 100 * value_of(gain, r, table_column(gain, "from"))); // fmin passes NaN over
        high = fmax(high, 100 * value_of(gain, r, table_column(gain, "to")));
    }
    const Axis x = axis_of(low, high, NAMES + 10, PLOT - 60, 6);
    open_svg(out, PLOT, rows * ROW + FOOT + 6, "gain over the baseline with its interval");
    put_x_axis(out, &x, 4, rows * ROW + 6, "");
    for (int r = 0; r < rows; r++) {
        const double y = r * ROW + 20, mean = 100 * value_of(gain, r, table_column(gain, "gain"));
        const double from = 100 * value_of(gain, r, table_column(gain, "from"));
        const double to = 100 * value_of(gain, r, table_column(gain, "to"));
        put_label(out, NAMES, y + 4, "end", "name", gain->rows[r]);
        if (isnan(mean)) {
            put_label(out, place(&x, 0) + 6, y + 4, "start", "tick", "missing");
            continue;
        }
        char text[40];
        snprintf(text, sizeof text, "%+.1f", mean);
        put_line(out, "interval", place(&x, from), y, place(&x, to), y);
        put_line(out, "interval", place(&x, from), y - 5, place(&x, from), y + 5);
        put_line(out, "interval", place(&x, to), y - 5, place(&x, to), y + 5);
        fprintf(out, "<circle class=\"point\" cx=\"%.1f\" cy=\"%.1f\" r=\"5\"/>\n", place(&x, mean),
                y);
        put_label(out, place(&x, to) + 8, y + 4, "start", "tick", text);
    }
    fputs("</svg>\n", out);
}

// ---- confusion ----
void plot_confusion(FILE *out, const Table *confusion) {
    const int C = confusion->row_count, side = C > 20 ? 20 : 30, extent = C * side;
    size_t longest = 12; // of the corner's text
    for (int c = 0; c < C; c++) {
        const size_t length = strlen(confusion->columns[c]);
        longest = length > longest ? length : longest;
    }
    const int room = longest < 30 ? 6 * (int)longest : 180, left = room + 18,
              top = room * 7 / 8 + 14;
    open_svg(out, left + extent + 8, top + extent + 8, confusion->title);
    put_label(out, left - 6, top - 8, "end", "tick", "gold \\ answer");
    for (int c = 0; c < C; c++) {
        fprintf(out, "<text class=\"tick\" transform=\"translate(%d %d) rotate(-60)\">",
                left + c * side + side / 2 + 4, top - 6);
        html_write_text(out, confusion->columns[c]);
        fputs("</text>", out);
    }
    for (int r = 0; r < C; r++) {
        double sum = 0;
        for (int c = 0; c < C; c++) {
            sum += value_of(confusion, r, c);
        }
        put_label(out, left - 6, top + r * side + side / 2.0 + 4, "end", "tick",
                  confusion->rows[r]);
        for (int c = 0; c < C; c++) {
            const double count = value_of(confusion, r, c), share = sum > 0 ? count / sum : 0;
            fprintf(out,
                    "<rect class=\"cell%s\" x=\"%d\" y=\"%d\" width=\"%d\" height=\"%d\" "
                    "fill-opacity=\"%.3f\"/>",
                    r == c ? " right" : "", left + c * side, top + r * side, side - 1, side - 1,
                    share);
            char text[24];
            snprintf(text, sizeof text, "%.0f", count);
            if (count > 0) {
                put_label(out, left + c * side + (side - 1) / 2.0, top + r * side + side / 2.0 + 4,
                          "middle", share > 0.55 ? "count strong" : "count", text);
            }
        }
        fputc('\n', out);
    }
    fputs("</svg>\n", out);
}
