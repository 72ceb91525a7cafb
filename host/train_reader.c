// train_reader: see train_reader.h.
#include "train_reader.h"

#include <stdlib.h>
#include <string.h>

#include "encode.h"

ReaderTrainer reader_trainer_new(Device *dev, Reader *reader, PromptMaker *prompts,
                                 const OptimConfig *optim, const ReaderTrainConfig *config) {
    return (ReaderTrainer){.dev = dev, .reader = reader, .prompts = prompts,
                           .optim = optim_new(&reader->tensors, optim),
                           .batch = reader_batch_new(), .config = *config};
}

void reader_trainer_free(ReaderTrainer *trainer) {
    picture_feed_free(trainer->feed);
    optim_free(&trainer->optim);
    arena_free(&trainer->arena);
    arena_free(&trainer->losses);
    reader_batch_free(&trainer->batch);
}

// The head and the loss of all R rows, piece by piece; gradients take the place of the logits.
static void head_pass(Run *run, const Reader *reader, void *dhidden, float *loss,
                      const void *hidden, const float *dloss, const int32_t *target, int R) {
    const int V = reader->config.V;
    const size_t C = (size_t)reader->config.block.C, mark = arena_mark(run->arena);
    float *lse = run_take_f32(run, (size_t)R);
    void *logits = run_take(run, (size_t)reader_head_rows(run, reader, R), (size_t)V);
    for (int first = 0, rows; first < R; first += rows) {
        rows = reader_head_rows(run, reader, R - first);
        const void *from = run_at(run, hidden, (size_t)first * C);
        reader_head_fwd(run, reader, logits, from, rows);
        RUN(run, cross_entropy_fwd, loss + first, lse + first, logits, target + first, rows, V);
        RUN(run, cross_entropy_bwd, logits, dloss + first, logits, lse + first, target + first,
            rows, V);
        reader_head_bwd(run, reader, run_at(run, dhidden, (size_t)first * C), logits, from, rows);
    }
    arena_release(run->arena, mark);
}

// The pass itself, over an arena with or without memory. targets: (R) ids on the host; each counts
// 1 / count. loss: (R) on the device.
static void pass(ReaderTrainer *trainer, Run *run, float *loss, const int32_t *targets, int count) {
    Reader *reader = trainer->reader;
    const size_t R = (size_t)trainer->batch.R, C = (size_t)reader->config.block.C;
    ReaderState state;
    void *hidden = run_take(run, R, C), *dhidden = run_take(run, R, C);
    float *dloss = run_take_f32(run, R), *host = xmalloc(R, sizeof *host);
    int32_t *target = run_take_ids(run, targets, R);
    for (size_t r = 0; r < R; r++) {
        host[r] = 1.0f / (float)count;
    }
    if (!run->is_planning) {
        device_copy_in(trainer->dev, dloss, host, R * sizeof *host);
    }
    reader_hidden_fwd(run, reader, &state, hidden, &trainer->batch);
    head_pass(run, reader, dhidden, loss, hidden, dloss, target, (int)R);
    reader_hidden_bwd(run, reader, &state, dhidden);
    free(host);
}

// Tokens that example asks for: its answer's, and the one that ends an answer.
static int target_count(const ReaderTrainer *trainer, const ReaderExample *example) {
    CHECK(example->answer_count >= 1, "an example has no answer");
    return example->answer_count + (trainer->prompts->answer_end >= 0);
}

// Puts B prompts into the batch, and their targets behind each other. Returns how many.
static int fill_batch(ReaderTrainer *trainer, const ReaderExample *examples, int B,
                      int32_t *targets) {
    int count = 0;
    reader_batch_clear(&trainer->batch);
    for (int b = 0; b < B; b++) {
        const ReaderExample *example = &examples[b];
        const int n = target_count(trainer, example);
        memcpy(targets + count, example->answer, (size_t)example->answer_count * sizeof *targets);
        if (n > example->answer_count) {
            targets[count + n - 1] = trainer->prompts->answer_end;
        }
        prompt_add(trainer->prompts, &trainer->batch, &example->prompt, targets + count, n);
        count += n;
    }
    CHECK(count == trainer->batch.R, "%d targets for %d rows", count, trainer->batch.R);
    return count;
}

// What each of the R targets of a pass is divided by.
static int share_of(const ReaderTrainer *trainer, int passes, int R, int all) {
    return trainer->config.is_micro_mean ? passes * R : all;
}

// The step's loss, from those of its passes, R[p] rows each, which now come back all at once.
static double sum_losses(ReaderTrainer *trainer, const float *losses, const int *R, int passes,
                         int all) {
    float *host = xmalloc((size_t)all, sizeof *host);
    device_copy_out(trainer->dev, host, losses, (size_t)all * sizeof *host);
    double loss = 0;
    for (int p = 0, row = 0; p < passes; p++) {
        double sum = 0;
        for (const int end = row + R[p]; row < end; row++) {
            sum += host[row];
        }
        loss += sum / share_of(trainer, passes, R[p], all);
    }
    free(host);
    return loss;
}

// Device memory of a pass over the batch, whatever its targets are.
static Arena plan_pass(ReaderTrainer *trainer, const int32_t *targets) {
    Run run = run_new(trainer->dev, trainer->reader->tensors.t, &trainer->arena, true);
    run.recomputes = trainer->config.recomputes;
    Arena plan = arena_plan();
    Run planning = run_planning(&run, &plan);
    pass(trainer, &planning, NULL, targets, 1);
    return plan;
}

double reader_trainer_step(ReaderTrainer *trainer, const ReaderExample *examples, int B,
                           double lr) {
    const int each = trainer->config.micro_batch ? trainer->config.micro_batch : B;
    const int passes = (B + each - 1) / each;
    int all = 0, done = 0;
    for (int b = 0; b < B; b++) {
        all += target_count(trainer, &examples[b]);
    }
    int32_t *targets = xmalloc((size_t)all, sizeof *targets);
    int *R = xmalloc((size_t)passes, sizeof *R);
    Arena losses_plan = arena_plan();
    arena_take(&losses_plan, (size_t)all, sizeof(float));
    arena_reserve(&trainer->losses, trainer->dev, "losses", losses_plan.peak);
    float *losses = arena_take(&trainer->losses, (size_t)all, sizeof *losses);
    for (int p = 0; p < passes; p++) {
        const int first = p * each, n = B - first < each ? B - first : each;
        R[p] = fill_batch(trainer, examples + first, n, targets);
        const int share = share_of(trainer, passes, R[p], all);
        Run run = run_new(trainer->dev, trainer->reader->tensors.t, &trainer->arena, true);
        run.recomputes = trainer->config.recomputes;
        arena_reserve(&trainer->arena, trainer->dev, "reader training",
                      plan_pass(trainer, targets).peak);
        pass(trainer, &run, losses + done, targets, share);
        done += R[p];
    }
    optim_step(&trainer->optim, lr);
    const double loss = sum_losses(trainer, losses, R, passes, all);
    free(targets);
    free(R);
    return loss;
}

// ---- records ----
// Record i of a step, and whether it is shown without its passage.
static int record_of(const ReaderTask *task, int64_t step, int B, int i, bool *is_closed) {
    Rng rng = rng_new(task->seed, RNG_TRAIN, (uint32_t)step, (uint32_t)i);
    const int record = sampler_item(task->sampler, step * B + i);
    *is_closed = rng_uniform(&rng) < task->closed_book_share || task->passages[record] < 0;
    return record;
}

static void want_pictures(PictureFeed *feed, const ReaderTask *task, int64_t step, int B) {
    for (int i = 0; i < B; i++) {
        bool is_closed;
        const int record = record_of(task, step, B, i, &is_closed);
        picture_feed_want(feed, task->queries, record / task->P);
        if (!is_closed) {
            picture_feed_want(feed, task->corpus, task->passages[record]);
        }
    }
}

// The tokens of the class, or of the answer's text where it is none of the classes.
static void set_answer(ReaderExample *example, const ReaderTrainer *trainer, const LabelSet *labels,
                       const Record *query) {
    if (query->label >= 0) {
        CHECK(query->label < labels->C, "label %d of %d", query->label, labels->C);
        example->answer = labels->tokens + query->label * labels->max_tokens;
        example->answer_count = labels->counts[query->label];
        return;
    }
    const Tokenizer *tokenizer = trainer->prompts->tokenizer;
    const size_t size = strlen(query->answer);
    const int count = tokenizer_encode(tokenizer, query->answer, size, NULL, 0);
    if (count < 1) {
        die(EXIT_BAD_DATA, "%s:%d: no answer to teach", query->source, query->line);
    }
    example->own_answer = xmalloc((size_t)count, sizeof *example->own_answer);
    tokenizer_encode(tokenizer, query->answer, size, example->own_answer, count);
    example->answer = example->own_answer;
    example->answer_count = count;
}

static ReaderExample example_of(const ReaderTrainer *trainer, const ReaderTask *task, int record,
                                bool is_closed) {
    const VisionConfig *vision = &trainer->reader->config.vision;
    const int q = record / task->P;
    const Record *query = &task->queries->records[q];
    ReaderExample example = {.prompt = {.caption = "", .question = query->question}};
    set_answer(&example, trainer, task->labels, query);
    example.prompt.query_image = reader_image_take_new(trainer->feed, vision, task->queries, q);
    if (!is_closed) {
        const int passage = task->passages[record];
        example.prompt.passage_image =
            reader_image_take_new(trainer->feed, vision, task->corpus, passage);
        example.prompt.caption = task->corpus->records[passage].text;
    }
    return example;
}

void reader_example_free(ReaderExample *example) {
    free((void *)example->prompt.passage_image.pixels);
    free((void *)example->prompt.query_image.pixels);
    free(example->own_answer);
}

// The examples of a step, whose pictures come from the feed; the next step's are asked for.
static ReaderExample *take_examples_new(ReaderTrainer *trainer, const ReaderTask *task,
                                        int64_t step, int B) {
    if (!trainer->feed || trainer->fed_step != step) { // the first, or out of turn
        picture_feed_free(trainer->feed);
        trainer->feed = picture_feed_new(task->processor, device_threads(trainer->dev), 2 * B);
        want_pictures(trainer->feed, task, step, B);
    }
    trainer->fed_step = step + 1; // its pictures are prepared while this step is computed
    want_pictures(trainer->feed, task, step + 1, B);
    ReaderExample *examples = xmalloc((size_t)B, sizeof *examples);
    for (int i = 0; i < B; i++) {
        bool is_closed;
        const int record = record_of(task, step, B, i, &is_closed);
        examples[i] = example_of(trainer, task, record, is_closed);
    }
    return examples;
}

static void free_examples(ReaderExample *examples, int B) {
    for (int i = 0; i < B; i++) {
        reader_example_free(&examples[i]);
    }
    free(examples);
}

double reader_task_step(ReaderTrainer *trainer, const ReaderTask *task, int64_t step, int B,
                        double lr) {
    ReaderExample *examples = take_examples_new(trainer, task, step, B);
    const double loss = reader_trainer_step(trainer, examples, B, lr);
    free_examples(examples, B);
    return loss;
}

Arena reader_task_plan(ReaderTrainer *trainer, const ReaderTask *task, int64_t step, int B) {
    ReaderExample *examples = take_examples_new(trainer, task, step, B);
    const int each = trainer->config.micro_batch ? trainer->config.micro_batch : B;
    const int cut_captions = trainer->prompts->cut_captions; // counted when the step is done
    int all = 0;
    Arena most = arena_plan();
    for (int b = 0; b < B; b++) {
        all += target_count(trainer, &examples[b]);
    }
    int32_t *targets = xmalloc((size_t)all, sizeof *targets);
    for (int first = 0; first < B; first += each) {
        fill_batch(trainer, examples + first, B - first < each ? B - first : each, targets);
        const Arena plan = plan_pass(trainer, targets);
        most.peak = plan.peak > most.peak ? plan.peak : most.peak;
        most.scratch = plan.scratch > most.scratch ? plan.scratch : most.scratch;
    }
    trainer->prompts->cut_captions = cut_captions;
    free(targets);
    free_examples(examples, B);
    return most;
}
