// determinism: the same bits whatever the number of threads.
//
// The demo gives each seed a process of its own, so its case shows that seeds do not touch each
// other; the verbs share their products among threads, and show that no sum depends on how.
#define _POSIX_C_SOURCE 200809L
#include <stdio.h>
#include <stdlib.h>

#include "program.h"

static void demo_with(int threads) {
    char *output;
    // A claim that fails (code 1) is what so few steps give; every other code is a fault.
    const int code =
        program_run(&output,
                    "demo threads=%d run.dir=demo%d 'demo.seeds=[4, 5]' "
                    "demo.corpus=256 demo.queries=16 demo.reader_steps=2 "
                    "demo.refit_steps=2 pretrain.steps=2 pretrain.batch=8 reader.steps=2 "
                    "retriever.steps=4 retriever.refresh=3 retriever.k=4 retriever.batch=2",
                    threads, threads);
    EXPECT(code <= 1, "threads=%d: code %d: %s", threads, code, output);
    free(output);
}

TEST(determinism) {
    if (CASE("demo, threads 1 2 3")) {
        world();
        for (int threads = 1; threads <= 3; threads++) {
            demo_with(threads);
        }
        for (int seed = 4; seed <= 5; seed++) {
            static const char *const files[] = {"losses.jsonl", "results.json"};
            for (int f = 0; f < 2; f++) {
                char name[3][64];
                for (int threads = 1; threads <= 3; threads++) {
                    snprintf(name[threads - 1], sizeof *name, "demo%d/seed-%d/%s", threads, seed,
                             files[f]);
                }
                expect_same_file(name[0], name[1]);
                expect_same_file(name[0], name[2]);
            }
        }
    }
    const struct {
        const char *name, *arguments, *result;
    } verbs[] = {
        {"pretrain", "pretrain c.yaml", "retriever.safetensors"},
        {"train-reader, adapter", "train-reader c.yaml " TOWERS,
         "adapter/adapter_model.safetensors"},
        {"train-reader, all weights", "train-reader c.yaml reader.all_weights=true " TOWERS,
         "reader.safetensors"},
        {"train-retriever, text", "train-retriever c.yaml " TOWERS, "head.safetensors"},
        {"train-retriever, image", "train-retriever c.yaml retriever.head=image " TOWERS,
         "head.safetensors"},
        {"evaluate", "evaluate c.yaml " TOWERS, "results.json"},
    };
    for (size_t i = 0; i < sizeof verbs / sizeof *verbs; i++) {
        if (CASE("%s, threads 1 3", verbs[i].name)) {
            char a[64], b[64];
            world_with_index();
            program_must_run("%s threads=1 run.dir=one%zu", verbs[i].arguments, i);
            program_must_run("%s threads=3 run.dir=three%zu", verbs[i].arguments, i);
            snprintf(a, sizeof a, "one%zu/%s", i, verbs[i].result);
            snprintf(b, sizeof b, "three%zu/%s", i, verbs[i].result);
            expect_same_file(a, b);
            if (i + 1 < sizeof verbs / sizeof *verbs) { // evaluate has no steps
                snprintf(a, sizeof a, "one%zu/losses.jsonl", i);
                snprintf(b, sizeof b, "three%zu/losses.jsonl", i);
                expect_same_file(a, b);
            }
        }
    }
    if (CASE("index build, threads 1 3")) {
        world_with_index();
        program_must_run("index build c.yaml index.dir=three threads=3 " TOWERS);
        expect_same_file("index/image.00000.shard", "three/image.00000.shard");
        expect_same_file("index/text.00000.shard", "three/text.00000.shard");
    }
}
