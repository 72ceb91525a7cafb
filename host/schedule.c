// schedule: see schedule.h.
#include "schedule.h"

#include <math.h>

double schedule_rate(Schedule schedule, double top, int warmup, int total, int step) {
    if (step < warmup) {
        return top * step / warmup;
    }
    if (schedule == SCHEDULE_CONSTANT) {
        return top;
    }
    if (step >= total) {
        return 0;
    }
    const double x = (double)(step - warmup) / (total - warmup);
    return schedule == SCHEDULE_LINEAR ? top * (1 - x)
                                       : top * 0.5 * (1 + cos(3.14159265358979323846 * x));
}
