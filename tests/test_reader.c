// test_reader: gradients, adapters, batch invariance, positions and sizes of the two reader
// families.
#include "models/reader.h"

#include <stdlib.h>
#include <string.h>

#include "tests/check.h"
#include "tests/reader_check.h"

enum { VOCABULARY = 11, IMAGE_ID = 7 };

// Both families at a size at which differences are cheap.
static ReaderConfig small_config(const char *preset) {
    ReaderConfig config;
    CHECK(reader_preset(&config, preset), "no preset '%s'", preset);
    config.V = VOCABULARY;
    config.image_id = IMAGE_ID;
    config.L = 2;
    config.sections[0] = 2;
    config.sections[1] = config.sections[2] = 1;
    config.block.C = config.vision.C_out = 16;
    config.block.D = 8;
    config.block.H = 4;
    config.block.Hkv = 2;
    config.block.F = 12;
    config.vision.block.C = 12;
    config.vision.block.H = config.vision.block.Hkv = 3;
    config.vision.block.D = 4;
    config.vision.block.F = 10;
    config.embed_sd = 0.5f;
    return config;
}

// Prompt 0: text, image 0, text. Prompt 1: text only. Prompt 2: image 0, text, image 1, text.
static void add_prompt(ReaderFixture *fixture, int which) {
    static const char *const layout[3] = {"tt0tt", "ttttt", "0tt1t"};
    const LaidPrompt prompt = lay_prompt(fixture, layout[which], which);
    const int32_t wanted[2] = {1, prompt.T - 1};
    reader_batch_add(&fixture->batch, &fixture->reader->config, prompt.ids, prompt.T, prompt.image,
                     prompt.images, wanted, 2);
}

static ReaderFixture *fixture_on(Device *dev, const ReaderConfig *config, DType t,
                                 bool is_base_trainable) {
    static const int sides[2][2] = {{4, 2}, {2, 2}};
    ReaderFixture *fixture = reader_fixture_new(dev, config, t, is_base_trainable, sides);
    for (int b = 0; b < 3; b++) {
        add_prompt(fixture, b);
    }
    return fixture;
}

static ReaderFixture *fixture_new(const ReaderConfig *config, DType t, bool is_base_trainable) {
    return fixture_on(check_device(), config, t, is_base_trainable);
}

static const char *const families[] = {"tiny-qwen2vl", "tiny-pixtral"};

TEST(reader_gradients) {
    check_time_limit(180);
    for (int family = 0; family < 2; family++) {
        for (int mode = 0; mode < 4; mode++) {
            static const char *const modes[] = {"all", "tied", "lora", "lora-language"};
            const bool is_slow = mode == (family == 0 ? 3 : 1); // the other family has it anyway
            if ((is_slow && !check_is_large()) || !CASE("%s %s", families[family], modes[mode])) {
                continue;
            }
            ReaderConfig config = small_config(families[family]);
            config.is_tied = mode == 1;
            if (mode >= 2) {
                reader_set_lora(&config, (LoraConfig){.rank = 3, .alpha = 6}, mode == 2);
            }
            ReaderFixture *fixture = fixture_new(&config, DT_F32, mode < 2);
            const ModelUnderTest model = reader_under_test(fixture);
            expect_model_gradients(&model);
            expect_frozen_without_memory(model.list);
            reader_fixture_free(fixture);
        }
    }
}

TEST(reader_recompute) {
    for (int family = 0; family < 2; family++) {
        for (int t = DT_F32; t <= DT_BF16; t++) {
            for (int rank = 0; rank <= 3; rank += 3) {
                if (CASE("%s t=%s rank=%d", families[family], dtype_name((DType)t), rank)) {
                    ReaderConfig config = small_config(families[family]);
                    reader_set_lora(&config, (LoraConfig){.rank = rank, .alpha = 6}, true);
                    ReaderFixture *fixture = fixture_new(&config, (DType)t, rank == 0);
                    const ModelUnderTest model = reader_under_test(fixture);
                    expect_recompute_equal(&model);
                    reader_fixture_free(fixture);
                }
            }
        }
    }
}

// The bits of a prompt's logits do not depend on the rest of the batch, nor on where its features
// come from: the tower in this pass, or an earlier pass.
TEST_DEVICE(reader_batch_invariance) {
    for (int family = 0; family < 2; family++) {
        if (!CASE("%s", families[family])) {
            continue;
        }
        const ReaderConfig config = small_config(families[family]);
        ReaderFixture *fixture = fixture_new(&config, DT_F32, true);
        ModelUnderTest model = reader_under_test(fixture);
        float *together = xmalloc(model.count, sizeof *together),
              *alone = xmalloc(model.count, sizeof *alone);
        model_run(&model, together, NULL, false);
        for (int keeps_features = 0; keeps_features < 2; keeps_features++) {
            void *features = NULL;
            if (keeps_features) {
                const size_t tokens = (size_t)vision_tokens(&config.vision, &fixture->image[0]);
                features = device_alloc(check_device(), tokens * 16 * sizeof(float), "features");
                Arena arena = arena_new(check_device(), "features", 1 << 20);
                Run run = run_new(check_device(), DT_F32, &arena, false);
                reader_vision_fwd(&run, fixture->reader, features, fixture->image, 1);
                arena_free(&arena);
                fixture->image[0].features = features;
            }
            for (int b = 0; b < 3; b++) {
                reader_batch_clear(&fixture->batch);
                add_prompt(fixture, b);
                model.count = (size_t)fixture->batch.R * VOCABULARY;
                model_run(&model, alone, NULL, false);
                EXPECT(memcmp(alone, together + (size_t)b * model.count,
                              model.count * sizeof *alone) == 0,
                       "prompt %d differs, keeps_features=%d", b, keeps_features);
            }
            device_release(check_device(), features);
        }
        free(together);
        free(alone);
        reader_fixture_free(fixture);
    }
}

// Neither logits nor gradients depend on the number of threads. The tiny preset with forty prompts
// is large enough for every op to divide its work.
TEST(reader_threads) {
    if (device_kind(check_device()) != DEVICE_CPU) {
        check_skip("threads are the CPU's");
        return;
    }
    ReaderConfig config;
    reader_preset(&config, "tiny-qwen2vl");
    config.V = VOCABULARY;
    config.image_id = IMAGE_ID;
    reader_set_lora(&config, (LoraConfig){.rank = 4, .alpha = 8}, true);
    float *out[2], *grad[2], *weight = NULL;
    size_t count = 0, gradients = 0;
    for (int many = 0; many < 2; many++) {
        Device *dev = device_new(DEVICE_CPU, 0, many ? 3 : 1);
        ReaderFixture *fixture = fixture_on(dev, &config, DT_F32, true);
        for (int b = 3; b < 40; b++) {
            add_prompt(fixture, b % 3);
        }
        const ModelUnderTest model = reader_under_test(fixture);
        count = model.count;
        gradients = model.list->trainable_count;
        weight = xrealloc(weight, count, sizeof *weight);
        for (size_t i = 0; i < count; i++) {
            weight[i] = (float)(i % 7) - 3;
        }
        out[many] = xmalloc(count, sizeof **out);
        grad[many] = xmalloc(gradients, sizeof **grad);
        model_run(&model, out[many], weight, false);
        device_copy_out(dev, grad[many], model.list->grad, gradients * sizeof **grad);
        reader_fixture_free(fixture);
        device_free(dev);
    }
    EXPECT(memcmp(out[0], out[1], count * sizeof **out) == 0, "%zu logits differ", count);
    EXPECT(memcmp(grad[0], grad[1], gradients * sizeof **grad) == 0, "%zu gradients differ",
           gradients);
    for (int many = 0; many < 2; many++) {
        free(out[many]);
        free(grad[many]);
    }
    free(weight);
}

// Rows under images take nothing from the table, so its image row has no gradient.
TEST(reader_image_row_gradient) {
    for (int family = 0; family < 2; family++) {
        if (CASE("%s", families[family])) {
            const ReaderConfig config = small_config(families[family]);
            ReaderFixture *fixture = fixture_new(&config, DT_F32, true);
            const ModelUnderTest model = reader_under_test(fixture);
            float *out = xmalloc(model.count, sizeof *out);
            float *ones = xmalloc(model.count, sizeof *ones);
            for (size_t i = 0; i < model.count; i++) {
                ones[i] = i % 3 == 0;
            }
            tensors_zero_grad(&fixture->reader->tensors);
            model_run(&model, out, ones, false);
            float row[VOCABULARY][16];
            device_copy_out(check_device(), row, fixture->reader->embed->grad, sizeof row);
            int others = 0;
            for (int c = 0; c < 16; c++) {
                EXPECT(row[IMAGE_ID][c] == 0, "column %d has %g", c, row[IMAGE_ID][c]);
                others += row[0][c] != 0;
            }
            EXPECT(others > 0, "%d of the columns of row 0 have a gradient", others);
            free(out);
            free(ones);
            reader_fixture_free(fixture);
        }
    }
}

// Worked by hand from the rule: three words, an image of 2x3, two words.
TEST(reader_positions) {
    ReaderConfig config = small_config("tiny-qwen2vl");
    const ReaderImage image = {.rows = 4, .columns = 6};
    const int32_t i = IMAGE_ID, ids[11] = {1, 2, 3, i, i, i, i, i, i, 4, 5};
    const int32_t want[3][11] = {{0, 1, 2, 3, 3, 3, 3, 3, 3, 6, 7},
                                 {0, 1, 2, 3, 3, 3, 4, 4, 4, 6, 7},
                                 {0, 1, 2, 3, 4, 5, 3, 4, 5, 6, 7}};
    int32_t got[3][11];
    EXPECT(reader_positions(&config, got[0], 11, ids, 11, &image, 1) - 11 == -3, "delta is %d",
           reader_positions(&config, got[0], 11, ids, 11, &image, 1) - 11);
    EXPECT(memcmp(got, want, sizeof got) == 0, "axes start %d %d %d", got[0][4], got[1][6],
           got[2][4]);
    config = small_config("tiny-pixtral"); // plain 1-D positions
    const ReaderImage patch = {.rows = 2, .columns = 3};
    reader_positions(&config, got[0], 11, ids, 11, &patch, 1);
    for (int t = 0; t < 11; t++) {
        EXPECT(got[0][t] == t, "position %d is %d", t, got[0][t]);
    }
}

// Parameters of the published checkpoints, and of PEFT's adapters of rank 8 on them.
TEST(reader_sizes) {
    const struct {
        const char *name;
        size_t count, lora, frozen_lora; // the last: none on the vision tower
        int lora_tensors, frozen_tensors;
    } known[] = {{"qwen2-vl-2b", 2208985600u, 14475264, 9232384, 648, 392},
                 {"qwen2-vl-7b", 8291375616u, 25427968, 20185088, 648, 392},
                 {"pixtral-12b", 12682739712u, 33030144, 28508160, 896, 560}};
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        if (!CASE("%s", known[i].name)) {
            continue;
        }
        ReaderConfig config;
        EXPECT(reader_preset(&config, known[i].name), "no preset '%s'", known[i].name);
        reader_set_lora(&config, (LoraConfig){.rank = 8, .alpha = 16}, true);
        Reader reader;
        reader_build(&reader, &config);
        const TensorList list = reader.tensors;
        size_t lora = 0, frozen_lora = 0;
        int files = 0, frozen_files = 0;
        for (int k = 0; k < list.count; k++) {
            const Tensor *tensor = list.tensor[k];
            lora += tensor->is_adapter ? tensor->count : 0;
            const bool is_file = tensor->is_adapter && tensor->file_row == 0; // a fused B: once
            const bool is_language = strncmp(tensor->file, "vis", 3) != 0;
            files += is_file;
            frozen_files += is_file && is_language;
            frozen_lora += tensor->is_adapter && is_language ? tensor->count : 0;
        }
        EXPECT(tensors_count(&list, false) - lora == known[i].count, "%zu parameters",
               tensors_count(&list, false) - lora);
        EXPECT(lora == known[i].lora && files == known[i].lora_tensors,
               "%zu parameters in %d adapter tensors", lora, files);
        EXPECT(frozen_lora == known[i].frozen_lora && frozen_files == known[i].frozen_tensors,
               "%zu parameters in %d adapter tensors of the language model", frozen_lora,
               frozen_files);
        reader_unbuild(&reader);
    }
}
