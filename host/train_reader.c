// train_reader: see train_reader.h.
#include "train_reader.h"

#include <stdlib.h>

#include "encode.h"

ReaderTrainer reader_trainer_new(Device *dev, Reader *reader, PromptMaker *prompts,
                                 const OptimConfig *optim, bool recomputes) {
    return (ReaderTrainer){.dev = dev, .reader = reader, .prompts = prompts,
                           .optim = optim_new(&reader->tensors, optim),
                           .batch = reader_batch_new(), .recomputes = recomputes};
}

void reader_trainer_free(ReaderTrainer *trainer) {
    optim_free(&trainer->optim);
    arena_free(&trainer->arena);
    reader_batch_free(&trainer->batch);
}

// The pass itself, over an arena with or without memory. targets: (R) ids on the host.
static double pass(ReaderTrainer *trainer, Run *run, const int32_t *targets) {
    Reader *reader = trainer->reader;
    const int R = trainer->batch.R, V = reader->config.V;
    ReaderState state;
    void *logits = run_take(run, (size_t)R, (size_t)V);
    float *loss = run_take_f32(run, (size_t)R), *lse = run_take_f32(run, (size_t)R);
    float *dloss = run_take_f32(run, (size_t)R);
    int32_t *target = run_take_ids(run, targets, (size_t)R);
    float *host = xmalloc((size_t)R, sizeof *host);
    for (int r = 0; r < R; r++) {
        host[r] = 1.0f / (float)R;
    }
    if (!run->is_planning) {
        device_copy_in(trainer->dev, dloss, host, (size_t)R * sizeof *host);
    }
    reader_fwd(run, reader, &state, logits, &trainer->batch);
    RUN(run, cross_entropy_fwd, loss, lse, logits, target, R, V);
    RUN(run, cross_entropy_bwd, logits, dloss, logits, lse, target, R, V);
    reader_bwd(run, reader, &state, logits);
    double sum = 0;
    if (!run->is_planning) {
        device_copy_out(trainer->dev, host, loss, (size_t)R * sizeof *host);
        for (int r = 0; r < R; r++) {
            sum += host[r];
        }
    }
    free(host);
    return sum / R;
}

double reader_trainer_step(ReaderTrainer *trainer, const ReaderExample *examples, int B,
                           double lr) {
    int32_t *targets = NULL;
    int count = 0;
    reader_batch_clear(&trainer->batch);
    for (int b = 0; b < B; b++) {
        const ReaderExample *example = &examples[b];
        CHECK(example->answer_count >= 1, "example %d has no answer", b);
        prompt_add(trainer->prompts, &trainer->batch, &example->prompt, example->answer,
                   example->answer_count);
        targets = xrealloc(targets, (size_t)(count + example->answer_count), sizeof *targets);
        for (int i = 0; i < example->answer_count; i++) {
            targets[count++] = example->answer[i];
        }
    }
    CHECK(count == trainer->batch.R, "%d targets for %d rows", count, trainer->batch.R);
    Run run = run_new(trainer->dev, trainer->reader->tensors.t, &trainer->arena, true);
    run.recomputes = trainer->recomputes;
    Arena plan = arena_plan();
    Run planning = run_planning(&run, &plan);
    pass(trainer, &planning, targets);
    arena_reserve(&trainer->arena, trainer->dev, "reader training", plan.peak);
    const double loss = pass(trainer, &run, targets);
    optim_step(&trainer->optim, lr);
    free(targets);
    return loss;
}

// ---- records ----
static ReaderExample example_of(const ReaderTrainer *trainer, const ReaderTask *task, int record,
                                bool is_closed) {
    const VisionConfig *vision = &trainer->reader->config.vision;
    const int q = record / task->P;
    const Record *query = &task->queries->records[q];
    const LabelSet *labels = task->labels;
    CHECK(query->label >= 0 && query->label < labels->C, "query %d has label %d of %d", q,
          query->label, labels->C);
    ReaderExample example = {.prompt = {.caption = "", .question = query->question},
                             .answer = labels->tokens + query->label * labels->max_tokens,
                             .answer_count = labels->counts[query->label]};
    example.prompt.query_image =
        reader_image_of_row(trainer->dev, task->processor, vision, task->queries, q);
    if (!is_closed) {
        const int passage = task->passages[record];
        example.prompt.passage_image =
            reader_image_of_row(trainer->dev, task->processor, vision, task->corpus, passage);
        example.prompt.caption = task->corpus->records[passage].text;
    }
    return example;
}

void reader_example_free(ReaderExample *example) {
    free((void *)example->prompt.passage_image.pixels);
    free((void *)example->prompt.query_image.pixels);
}

double reader_task_step(ReaderTrainer *trainer, const ReaderTask *task, int64_t step, int B,
                        double lr) {
    ReaderExample *examples = xmalloc((size_t)B, sizeof *examples);
    for (int i = 0; i < B; i++) {
        Rng rng = rng_new(task->seed, RNG_TRAIN, (uint32_t)step, (uint32_t)i);
        const bool is_closed = rng_uniform(&rng) < task->closed_book_share;
        examples[i] = example_of(trainer, task, sampler_item(task->sampler, step * B + i),
                                 is_closed);
    }
    const double loss = reader_trainer_step(trainer, examples, B, lr);
    for (int i = 0; i < B; i++) {
        reader_example_free(&examples[i]);
    }
    free(examples);
    return loss;
}
