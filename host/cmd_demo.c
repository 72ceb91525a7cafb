// cmd_demo: jomed demo: the embedded benchmark over several seeds, its table and its verdict.
#define _POSIX_C_SOURCE 200809L
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "demo.h"
#include "verbs.h"

int cmd_demo(const Config *config) {
    DemoResult *r = demo_run_new(config, config->seed, "runs/demo");
    printf("seed %d, %.1f s, probe %.1f, forwards %llu\n", r->seed, r->seconds, 100 * r->probe,
           (unsigned long long)r->forwards);
    for (int s = 0; s < DEMO_SYSTEMS; s++) {
        const Evaluation *e = r->system[s];
        int *gold = xmalloc((size_t)e->Q, sizeof *gold);
        for (int q = 0; q < e->Q; q++) {
            gold[q] = r->test->records[q].label;
        }
        printf("%-26s", demo_system_name((DemoSystem)s));
        for (int a = 0; a < ANSWER_COUNT; a++) {
            printf(" %5.1f/%5.1f", 100 * evaluation_accuracy(e, r->test, (Answer)a, NULL),
                   100 * evaluation_accuracy(e, r->test, (Answer)a, r->inconsistent));
        }
        printf("  oracle %5.1f  device %5.1f right %5.1f %5.1f\n",
               100 * analysis_oracle(e->predicted, gold, NULL, e->Q, e->P, e->P),
               100 * r->device_match[s], 100 * r->names_right[s][0], 100 * r->names_right[s][1]);
        free(gold);
    }
    demo_result_free(r);
    return 0;
}
