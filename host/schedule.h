// schedule: the learning rate of a step.
#ifndef JOMED_HOST_SCHEDULE_H
#define JOMED_HOST_SCHEDULE_H

typedef enum { SCHEDULE_COSINE, SCHEDULE_LINEAR, SCHEDULE_CONSTANT } Schedule;

// Rate of step s (0 for the first update): top * s / warmup while s < warmup, so that the first
// update has rate 0; then, with x = (s - warmup) / (total - warmup),
//   cosine top (1 + cos(pi x)) / 2     linear top (1 - x)     constant top
// and 0 from total on (cosine, linear). Source: the transformers library's schedules.
double schedule_rate(Schedule schedule, double top, int warmup, int total, int step);

#endif
