// demo_stages: see demo_stages.h.
#include "demo_stages.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "settings.h"

#define QUESTION "grade ?"
#define MAX_TOKENS 96 // of a prompt; the longest of the demo has about 30

// Which set a stream of the world belongs to: RNG_DEMO's step.
enum { DRAW_CORPUS, DRAW_TRAIN, DRAW_TEST, DRAW_PAIRS = 1000, DRAW_PROMPTS = 100000 };

// ---- recipe ----
DemoRecipe demo_recipe(const Config *config) {
    DemoRecipe r = {
        .corpus_size = 2304, .train_size = 400, .test_size = 400,
        .corpus_finding = 0.7, .corpus_wrong = 0.08, .pretrain_finding = 0.17,
        .pretrain_wrong = 0.10, .reader_finding = 0.8, .reader_wrong = 0.08,
        .pretrain_steps = 250, .pretrain_batch = 128, .pretrain_lr = 1e-3, .pretrain_warmup = 20,
        .reader_steps = 300, .reader_batch = 64, .reader_lr = 2e-3, .reader_warmup = 50,
        .lora_steps = 150, .lora_batch = 64, .lora_lr = 1e-3, .lora_warmup = 15,
        .head_steps = 400, .head_batch = 8, .head_lr = 1e-3, .head_warmup = 20,
        .refit_steps = 100, .refit_batch = 64, .refit_lr = 5e-4, .refit_warmup = 15,
        .K = 32, .refresh = 10, .k = 2, .temperature = 0.07, .share = 0.15,
        .closed_book_share = 0.15, .lora_rank = 8, .lora_alpha = 16};
#define TAKE(key, field, from)                                                                     \
    if (config_is_set(config, key)) {                                                              \
        r.field = config->from;                                                                    \
    }
    TAKE("pretrain.steps", pretrain_steps, pretrain.steps)
    TAKE("pretrain.batch", pretrain_batch, pretrain.batch)
    TAKE("pretrain.lr", pretrain_lr, pretrain.lr)
    TAKE("pretrain.temperature", temperature, pretrain.temperature)
    TAKE("demo.corpus", corpus_size, demo.corpus)
    TAKE("demo.queries", train_size, demo.queries)
    TAKE("demo.queries", test_size, demo.queries)
    TAKE("demo.reader_steps", reader_steps, demo.reader_steps)
    TAKE("demo.refit_steps", refit_steps, demo.refit_steps)
    TAKE("reader.steps", lora_steps, reader.steps)
    TAKE("reader.lr", lora_lr, reader.lr)
    TAKE("reader.lora_rank", lora_rank, reader.lora_rank)
    TAKE("reader.lora_alpha", lora_alpha, reader.lora_alpha)
    TAKE("reader.closed_book_share", closed_book_share, reader.closed_book_share)
    TAKE("retriever.steps", head_steps, retriever.steps)
    TAKE("retriever.batch", head_batch, retriever.batch)
    TAKE("retriever.lr", head_lr, retriever.lr)
    TAKE("retriever.warmup", head_warmup, retriever.warmup)
    TAKE("retriever.k", K, retriever.k)
    TAKE("retriever.refresh", refresh, retriever.refresh)
    TAKE("retriever.share", share, retriever.share)
    TAKE("evaluate.k", k, evaluate.k)
#undef TAKE
    return r;
}

// ---- world ----
static Image borrow_pixels(const DemoCase *which) {
    return (Image){.width = DEMO_SIDE, .height = DEMO_SIDE, .channels = 1,
                   .data = (uint8_t *)which->pixels};
}

static DemoSet draw_set(const Demo *demo, uint32_t which, int n, double p_finding, double p_wrong) {
    DemoSet set = {.cases = xcalloc((size_t)n, sizeof *set.cases), .ds = dataset_new()};
    dataset_set_classes(set.ds, demo_class_names(), DEMO_CLASSES);
    for (int i = 0; i < n; i++) {
        Rng rng = rng_new((uint64_t)demo->seed, RNG_DEMO, which, (uint32_t)i);
        demo_case(&set.cases[i], &rng, p_finding, p_wrong, -1);
        char id[16];
        snprintf(id, sizeof id, "%u-%d", which, i);
        Record record = record_empty();
        record.id = id;
        record.text = set.cases[i].caption;
        record.question = QUESTION;
        record.label = demo_label(&set.cases[i]);
        record.answer = demo_class_names()[record.label];
        record.source = "demo";
        record.image = borrow_pixels(&set.cases[i]);
        dataset_add(set.ds, &record);
    }
    return set;
}

void demo_draw(Demo *demo) {
    const DemoRecipe *recipe = &demo->recipe;
    const char *specials[16] = {"[CLS]", "[SEP]"};
    int special_count, word_count;
    const char *const *more = prompt_specials(PROMPT_TINY, &special_count);
    memcpy(specials + 2, more, (size_t)special_count * sizeof *more);
    const char *const *words = demo_words(&word_count);
    demo->tokenizer = tokenizer_tiny_new(specials, special_count + 2, words, word_count);
    CHECK(processor_preset("tiny", &demo->tower_processor) &&
              processor_preset("tiny-reader", &demo->reader_processor),
          "no tiny processors");
    demo->corpus = draw_set(demo, DRAW_CORPUS, recipe->corpus_size, recipe->corpus_finding,
                            recipe->corpus_wrong);
    demo->train = draw_set(demo, DRAW_TRAIN, recipe->train_size, 0, 0); // captions are never used
    demo->test = draw_set(demo, DRAW_TEST, recipe->test_size, 0, 0);
    demo->labels = label_set_new(demo->tokenizer, demo_class_names(), DEMO_CLASSES, false);
}

// One line of losses per step, and now and then one for people.
static void log_step(Demo *demo, const char *stage, int step, int steps, double loss, double lr) {
    file_log_line(&demo->losses, "{\"stage\":\"%s\",\"step\":%d,\"loss\":%.9g,\"lr\":%.9g}", stage,
                  step, loss, lr);
    if ((step + 1) % 100 == 0 || step + 1 == steps) {
        LOG(INFO, "seed %d, %s: step %d of %d, loss %.4f", demo->seed, stage, step + 1, steps,
            loss);
    }
    if (!isfinite(loss)) {
        die(EXIT_DIVERGED, "demo: the loss of %s is not finite at step %d; lower the learning rate",
            stage, step);
    }
}

// ---- stage 0a: towers ----
void demo_pretrain_towers(Demo *demo) {
    const DemoRecipe *recipe = &demo->recipe;
    RetrieverConfig config;
    CHECK(retriever_preset(&config, "tiny"), "no preset 'tiny'");
    config.text.V = demo->tokenizer->vocab;
    CHECK(config.image.image_size == DEMO_SIDE, "tiny tower of %d pixels", config.image.image_size);
    demo->retriever = retriever_new(demo->dev, DT_F32, &config, true);
    tensors_init(&demo->retriever->tensors, (uint64_t)demo->seed);
    OptimConfig optim = optim_default();
    Pretrainer trainer = pretrainer_new(demo->dev, demo->retriever, demo->tokenizer, &optim,
                                        recipe->temperature,
                                        demo->config->pretrain.learn_temperature, MAX_TOKENS);
    const int B = recipe->pretrain_batch;
    const size_t each = (size_t)3 * DEMO_SIDE * DEMO_SIDE;
    float *pixels = xmalloc((size_t)B * each, sizeof *pixels);
    DemoCase *cases = xmalloc((size_t)B, sizeof *cases);
    const char **texts = xmalloc((size_t)B, sizeof *texts);
    for (int step = 0; step < recipe->pretrain_steps; step++) {
        for (int i = 0; i < B; i++) {
            Rng rng = rng_new((uint64_t)demo->seed, RNG_DEMO, (uint32_t)(DRAW_PAIRS + step),
                              (uint32_t)i);
            demo_case(&cases[i], &rng, recipe->pretrain_finding, recipe->pretrain_wrong, -1);
            const Image image = borrow_pixels(&cases[i]);
            processor_run(&demo->tower_processor, demo->dev, &image, pixels + (size_t)i * each);
            texts[i] = cases[i].caption;
        }
        const double lr = schedule_rate(SCHEDULE_COSINE, recipe->pretrain_lr,
                                        recipe->pretrain_warmup, recipe->pretrain_steps, step);
        const double loss = pretrainer_step(&trainer, pixels, texts, B, lr);
        log_step(demo, "0a towers", step, recipe->pretrain_steps, loss, lr);
    }
    free(pixels);
    free(cases);
    free(texts);
    pretrainer_free(&trainer);
}

// ---- stage 0b: reader ----
// Pixels of a case as the reader sees it; freed with reader_example_free.
static ReaderImage case_image(const Demo *demo, const DemoCase *which) {
    const Image image = borrow_pixels(which);
    return reader_image_new(demo->dev, &demo->reader_processor, &demo->base->config.vision, &image,
                            "demo");
}

static ReaderExample new_example(const Demo *demo, const DemoCase *query, const DemoCase *passage) {
    const int label = demo_label(query);
    ReaderExample example = {.prompt = {.caption = "", .question = QUESTION},
                             .answer = demo->labels.tokens + label * demo->labels.max_tokens,
                             .answer_count = demo->labels.counts[label]};
    example.prompt.query_image = case_image(demo, query);
    if (passage) {
        example.prompt.passage_image = case_image(demo, passage);
        example.prompt.caption = passage->caption;
    }
    return example;
}

void demo_pretrain_reader(Demo *demo) {
    const DemoRecipe *recipe = &demo->recipe;
    ReaderConfig config;
    CHECK(reader_preset(&config, "tiny-qwen2vl"), "no preset 'tiny-qwen2vl'");
    config.V = demo->tokenizer->vocab;
    config.image_id = tokenizer_id(demo->tokenizer, "<|image_pad|>");
    config.theta = 100; // of the prototype: prompts are about 30 tokens long
    demo->base = reader_new(demo->dev, DT_F32, &config, true);
    tensors_init(&demo->base->tensors, (uint64_t)demo->seed);
    demo->prompts = prompt_maker_new(PROMPT_TINY, demo->tokenizer, &demo->base->config, MAX_TOKENS);
    OptimConfig optim = optim_default();
    optim.beta2 = 0.98f;
    optim.clip = 1;
    ReaderTrainer trainer = reader_trainer_new(demo->dev, demo->base, &demo->prompts, &optim,
                                               &(ReaderTrainConfig){0});
    const int B = recipe->reader_batch, closed = (int)(recipe->closed_book_share * B);
    ReaderExample *examples = xmalloc((size_t)B, sizeof *examples);
    DemoCase *cases = xmalloc(2 * (size_t)B, sizeof *cases);
    for (int step = 0; step < recipe->reader_steps; step++) {
        for (int i = 0; i < B; i++) {
            Rng rng = rng_new((uint64_t)demo->seed, RNG_DEMO, (uint32_t)(DRAW_PROMPTS + step),
                              (uint32_t)i);
            DemoCase *query = &cases[2 * i], *passage = query + 1;
            demo_case(query, &rng, 0, 0, -1);
            // Half the passages help by force: else the reader learns to distrust captions.
            demo_case(passage, &rng, recipe->reader_finding, recipe->reader_wrong,
                      i % 2 ? query->finding : -1);
            examples[i] = new_example(demo, query, i < closed ? NULL : passage);
        }
        const double lr = schedule_rate(SCHEDULE_COSINE, recipe->reader_lr, recipe->reader_warmup,
                                        recipe->reader_steps, step);
        const double loss = reader_trainer_step(&trainer, examples, B, lr);
        log_step(demo, "0b reader", step, recipe->reader_steps, loss, lr);
        for (int i = 0; i < B; i++) {
            reader_example_free(&examples[i]);
        }
    }
    free(examples);
    free(cases);
    reader_trainer_free(&trainer);
    // From here on the base is frozen below adapters, which start as zero.
    const LoraConfig lora = {.rank = recipe->lora_rank, .alpha = (float)recipe->lora_alpha};
    reader_set_lora(&config, lora, true);
    demo->reader = reader_new(demo->dev, DT_F32, &config, false);
    tensors_init(&demo->reader->tensors, (uint64_t)demo->seed);
    const int copied = tensors_copy(&demo->reader->tensors, &demo->base->tensors);
    CHECK(copied == demo->base->tensors.count, "%d of %d tensors", copied,
          demo->base->tensors.count);
    tensors_pack(&demo->reader->tensors, PACK_LIMIT);
    demo->prompts.reader = &demo->reader->config;
}

// ---- index ----
void demo_build_index(Demo *demo) {
    Retriever *retriever = demo->retriever;
    const int n = demo->corpus.ds->n, E = retriever->config.image.E;
    const char **texts = xmalloc((size_t)n, sizeof *texts);
    for (int i = 0; i < n; i++) {
        texts[i] = demo->corpus.ds->records[i].text;
    }
    for (int side = 0; side < INDEX_SIDES; side++) {
        demo->index_f32[side] = xmalloc((size_t)n * E, sizeof(float));
    }
    encode_images(demo->index_f32[INDEX_IMAGE], demo->dev, DT_F32, &retriever->image,
                  &demo->tower_processor, demo->corpus.ds, NULL, n);
    encode_texts(demo->index_f32[INDEX_TEXT], demo->dev, DT_F32, &retriever->text, demo->tokenizer,
                 texts, n, MAX_TOKENS);
    free(texts);
    demo->index = index_new(demo->dev, n, E, (DType)demo->config->index.dtype);
    for (int side = 0; side < INDEX_SIDES; side++) {
        index_set_rows(demo->index, (IndexSide)side, 0, n, demo->index_f32[side]);
    }
    demo->index->encoder_hash = tensors_hash(&retriever->tensors);
    char *dir = file_join_new(demo->dir, "index");
    error_die(dir, index_save(demo->index, dir, demo->config->index.shard_rows));
    free(dir);
    demo->fixed_train = xmalloc((size_t)demo->train.ds->n * E, sizeof(float));
    demo->fixed_test = xmalloc((size_t)demo->test.ds->n * E, sizeof(float));
    encode_images(demo->fixed_train, demo->dev, DT_F32, &retriever->image, &demo->tower_processor,
                  demo->train.ds, NULL, demo->train.ds->n);
    encode_images(demo->fixed_test, demo->dev, DT_F32, &retriever->image, &demo->tower_processor,
                  demo->test.ds, NULL, demo->test.ds->n);
}

float *demo_queries_new(Demo *demo, const DemoSet *set, const float *fixed, Head *head) {
    const int n = set->ds->n, E = demo->index->dim;
    float *out = xmalloc((size_t)n * E, sizeof *out);
    if (!head) {
        memcpy(out, fixed, (size_t)n * E * sizeof *out);
        return out;
    }
    encode_images(out, demo->dev, DT_F32, &head->tower, &demo->tower_processor, set->ds, NULL, n);
    mix_queries(out, out, fixed, (float)demo->recipe.share, n, E);
    return out;
}

// ---- stages 1 and 4: the reader's adapter ----
void demo_train_adapter(Demo *demo, const int32_t *passages, const char *stage, int steps,
                        int batch, double lr_top, int warmup, bool is_linear) {
    OptimConfig optim = optim_default();
    optim.weight_decay = 0;
    optim.clip = 1;
    ReaderTrainer trainer = reader_trainer_new(demo->dev, demo->reader, &demo->prompts, &optim,
                                               &(ReaderTrainConfig){0});
    const int P = 2 * demo->recipe.k;
    const ReaderTask task = {.queries = demo->train.ds,
                             .corpus = demo->corpus.ds,
                             .passages = passages,
                             .P = P,
                             .labels = &demo->labels,
                             .processor = &demo->reader_processor,
                             .closed_book_share = demo->recipe.closed_book_share,
                             .seed = (uint64_t)demo->seed,
                             .sampler = sampler_new(demo->train.ds->n * P, (uint64_t)demo->seed)};
    for (int step = 0; step < steps; step++) {
        const double lr = schedule_rate(is_linear ? SCHEDULE_LINEAR : SCHEDULE_COSINE, lr_top,
                                        warmup, steps, step);
        log_step(demo, stage, step, steps, reader_task_step(&trainer, &task, step, batch, lr), lr);
    }
    sampler_free(task.sampler);
    reader_trainer_free(&trainer);
}

void demo_open_scorer(Demo *demo) {
    if (demo->scorer.reader) {
        scorer_free(&demo->scorer);
    }
    if (!demo->store) {
        const char *set = demo->config->score_store.dir;
        char *dir = set[0] ? xstrdup(set) : file_join_new(demo->dir, "scores");
        error_die(dir, score_store_open(&demo->store, dir, DEMO_CLASSES,
                                        demo->config->score_store.enable));
        free(dir);
    }
    demo->scorer = scorer_new(demo->dev, demo->reader, &demo->prompts, &demo->reader_processor,
                              &demo->labels, demo->store);
}

// ---- stages 2 and 3: the query heads ----
// The recipe's numbers over those of the keys.
static RetrieverTrainConfig head_config(const Demo *demo, IndexSide side, bool is_permuted) {
    const DemoRecipe *recipe = &demo->recipe;
    RetrieverTrainConfig out = retriever_settings(demo->config, side);
    out.K = recipe->K;
    out.batch = recipe->head_batch;
    out.refresh = recipe->refresh;
    out.steps = recipe->head_steps;
    out.share = (float)recipe->share;
    out.seed = (uint64_t)demo->seed;
    out.is_permuted = is_permuted;
    return out;
}

Head *demo_train_head(Demo *demo, IndexSide side, bool is_permuted, const char *stage,
                      Head **search, double *hit_rate, double *distinct) {
    const RetrieverTrainConfig config = head_config(demo, side, is_permuted);
    const ImageTowerConfig *tower = &demo->retriever->config.image;
    Head *live = head_new(demo->dev, DT_F32, tower, true);
    tensors_copy(&live->tensors, &demo->retriever->tensors);
    if (!*search) {
        *search = head_new(demo->dev, DT_F32, tower, false);
        tensors_copy(&(*search)->tensors, &demo->retriever->tensors);
    }
    OptimConfig optim = retriever_optim(demo->config);
    optim.clip = config_is_set(demo->config, "retriever.clip") ? optim.clip : 0;
    Sampler *sampler = sampler_new(demo->train.ds->n, (uint64_t)demo->seed);
    RetrieverTrainer trainer = retriever_trainer_new(
        demo->dev, &config, &optim, live, *search, demo->index,
        config.is_recompute_fp32 ? demo->index_f32[side] : NULL, &demo->tower_processor,
        demo->train.ds, demo->corpus.ds, &demo->scorer, sampler, demo->fixed_train);
    const uint64_t hits = demo->store->hits, misses = demo->store->misses;
    for (int step = 0; step < config.steps; step++) {
        const double lr = schedule_rate(SCHEDULE_COSINE, demo->recipe.head_lr,
                                        demo->recipe.head_warmup, config.steps, step);
        const RetrieverStep report = retriever_trainer_step(&trainer, lr);
        log_step(demo, stage, step, config.steps, report.loss, lr);
    }
    const double hit = (double)(demo->store->hits - hits),
                 miss = (double)(demo->store->misses - misses);
    *hit_rate = hit / (hit + miss);
    *distinct = retriever_trainer_distinct(&trainer);
    retriever_trainer_free(&trainer);
    sampler_free(sampler);
    return live;
}

// ---- probe ----
// Solves A (D,D) w = b (D,R) by Gaussian elimination; A, symmetric and positive, and b are spoiled.
static void solve(double *w, double *A, double *b, int D, int R) {
    for (int k = 0; k < D; k++) {
        for (int i = k + 1; i < D; i++) {
            const double factor = A[i * D + k] / A[k * D + k];
            for (int j = k; j < D; j++) {
                A[i * D + j] -= factor * A[k * D + j];
            }
            for (int c = 0; c < R; c++) {
                b[i * R + c] -= factor * b[k * R + c];
            }
        }
    }
    for (int k = D - 1; k >= 0; k--) {
        for (int c = 0; c < R; c++) {
            double sum = b[k * R + c];
            for (int j = k + 1; j < D; j++) {
                sum -= A[k * D + j] * w[j * R + c];
            }
            w[k * R + c] = sum / A[k * D + k];
        }
    }
}

double demo_probe(const Demo *demo) {
    // Normal equations of least squares, E + 1 unknowns per finding.
    const int n = demo->corpus.ds->n, half = n / 2, E = demo->index->dim, D = E + 1;
    const float *rows = demo->index_f32[INDEX_IMAGE];
    double *A = xcalloc((size_t)D * D, sizeof *A),
           *b = xcalloc((size_t)D * DEMO_FINDINGS, sizeof *b);
    double *w = xcalloc((size_t)D * DEMO_FINDINGS, sizeof *w), *x = xcalloc((size_t)D, sizeof *x);
    for (int i = 0; i < half; i++) {
        for (int d = 0; d < D; d++) {
            x[d] = d < E ? rows[(size_t)i * E + d] : 1;
        }
        for (int d = 0; d < D; d++) {
            for (int e = 0; e < D; e++) {
                A[d * D + e] += x[d] * x[e];
            }
            b[d * DEMO_FINDINGS + demo->corpus.cases[i].finding] += x[d];
        }
    }
    for (int d = 0; d < D; d++) { // a tiny ridge, because unit rows are nearly collinear
        A[d * D + d] += 1e-8 * half;
    }
    solve(w, A, b, D, DEMO_FINDINGS);
    int right = 0;
    for (int i = half; i < n; i++) {
        double best = -INFINITY;
        int said = -1;
        for (int c = 0; c < DEMO_FINDINGS; c++) {
            double sum = w[E * DEMO_FINDINGS + c];
            for (int d = 0; d < E; d++) {
                sum += w[d * DEMO_FINDINGS + c] * rows[(size_t)i * E + d];
            }
            if (sum > best) {
                best = sum;
                said = c;
            }
        }
        right += said == demo->corpus.cases[i].finding;
    }
    free(A);
    free(b);
    free(w);
    free(x);
    return (double)right / (n - half);
}

void demo_close(Demo *demo) {
    scorer_free(&demo->scorer);
    error_die(demo->dir, score_store_close(demo->store));
    index_free(demo->index);
    retriever_free(demo->retriever);
    reader_free(demo->base);
    reader_free(demo->reader);
    label_set_free(&demo->labels);
    tokenizer_free(demo->tokenizer);
    for (int side = 0; side < INDEX_SIDES; side++) {
        free(demo->index_f32[side]);
    }
    free(demo->fixed_train);
    free(demo->fixed_test);
    DemoSet *const sets[] = {&demo->corpus, &demo->train, &demo->test};
    for (int i = 0; i < 3; i++) {
        free(sets[i]->cases);
        dataset_free(sets[i]->ds);
    }
    file_log_close(&demo->losses);
}
