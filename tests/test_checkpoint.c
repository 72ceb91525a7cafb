// test_checkpoint: a stage goes on bit for bit, from the newest checkpoint that is whole.
#define _POSIX_C_SOURCE 200809L
#include "host/checkpoint.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "host/file.h"
#include "tests/check.h"

enum { MATRIX = 12, VECTOR = 5, COUNT = MATRIX + VECTOR };

// A trained list, its optimiser, and a further list of another storage type.
typedef struct {
    TensorList list, other;
    Optim optim;
    TensorList *lists[1];
} Fixture;

static Fixture *fixture_new(DType t, uint64_t seed) {
    Fixture *f = xcalloc(1, sizeof *f);
    f->list = tensors_new();
    f->other = tensors_new();
    tensors_add(&f->list, "m", init_normal(1), 2, (int[]){3, 4})->is_trainable = true;
    tensors_add(&f->list, "frozen", init_normal(1), 1, (int[]){2});
    tensors_add(&f->list, "v", init_normal(1), 1, (int[]){VECTOR})->is_trainable = true;
    tensors_add(&f->other, "m", init_normal(1), 2, (int[]){3, 4});
    tensors_allocate(&f->list, check_device(), t);
    tensors_allocate(&f->other, check_device(), t);
    tensors_init(&f->list, seed);
    tensors_init(&f->other, seed + 100);
    const OptimConfig config = optim_default();
    f->optim = optim_new(&f->list, &config);
    f->lists[0] = &f->other;
    return f;
}

static void fixture_free(Fixture *f) {
    optim_free(&f->optim);
    tensors_free(&f->list);
    tensors_free(&f->other);
    free(f);
}

static void train(Fixture *f, int first, int steps) {
    for (int step = first; step < first + steps; step++) {
        Rng rng = check_rng((uint32_t)step);
        for (int i = 0; i < f->list.count; i++) {
            const Tensor *tensor = f->list.tensor[i];
            float gradient[MATRIX];
            for (size_t k = 0; tensor->is_trainable && k < tensor->count; k++) {
                gradient[k] = (float)rng_normal(&rng);
            }
            if (tensor->is_trainable) {
                device_copy_in(f->list.dev, tensor->grad, gradient, tensor->count * sizeof(float));
            }
        }
        optim_step(&f->optim, 0.01);
    }
}

// Values of both lists, and what the ops read of them.
static void state_of(const Fixture *f, float out[2 * COUNT + MATRIX]) {
    tensor_read(&f->list, f->list.tensor[0], out);
    tensor_read(&f->list, f->list.tensor[2], out + MATRIX);
    tensor_read(&f->other, f->other.tensor[0], out + COUNT);
    for (int i = 0, at = COUNT + MATRIX; i < 3; i += 2) {
        const Tensor *tensor = f->list.tensor[i];
        values_read(f->list.dev, out + at, f->list.t, tensor->data, tensor->count);
        at += (int)tensor->count;
    }
}

static Error save(Fixture *f, const char *dir, int64_t step, int keep) {
    const CheckpointState state = {.stage = "stage",
                                   .step = step,
                                   .seed = 7,
                                   .context = 9,
                                   .optim = &f->optim,
                                   .lists = (const TensorList *const *)f->lists,
                                   .list_count = 1};
    return checkpoint_save(dir, &state, keep);
}

static Error load(Fixture *f, const char *dir, int64_t *step, uint64_t seed, uint64_t context) {
    const CheckpointState state = {.stage = "stage",
                                   .seed = seed,
                                   .context = context,
                                   .optim = &f->optim,
                                   .lists = (const TensorList *const *)f->lists,
                                   .list_count = 1};
    return checkpoint_load(step, dir, &state, &f->optim, f->lists);
}

TEST(checkpoint_resume) {
    const DType types[] = {DT_F32, DT_BF16, DT_F16};
    for (int k = 0; k < 3; k++) {
        if (!CASE("%s", dtype_name(types[k]))) {
            continue;
        }
        char *dir = file_join_new(check_tmpdir(), dtype_name(types[k]));
        Fixture *whole = fixture_new(types[k], 1), *resumed = fixture_new(types[k], 2);
        float want[2 * COUNT + MATRIX], got[2 * COUNT + MATRIX];
        int64_t step = 5;
        EXPECT(load(resumed, dir, &step, 7, 9).code == 0 && step == 0, "no checkpoint is step 0");
        train(whole, 0, 3);
        error_die(dir, save(whole, dir, 3, 2));
        const Error error = load(resumed, dir, &step, 7, 9);
        EXPECT(error.code == 0 && step == 3 && optim_read(&resumed->optim).count.step == 3,
               "step %d: %s", (int)step, error.text);
        state_of(whole, want);
        state_of(resumed, got);
        EXPECT(memcmp(got, want, sizeof got) == 0, "the state differs");
        train(whole, 3, 4);
        train(resumed, 3, 4);
        state_of(whole, want);
        state_of(resumed, got);
        EXPECT(memcmp(got, want, sizeof got) == 0,
               "the state differs after further steps: moments");
        fixture_free(whole);
        fixture_free(resumed);
        free(dir);
    }
}

static int names_in(const char *dir, char *all, size_t room) {
    char *parent = file_join_new(dir, "checkpoints"), **names;
    int count;
    error_die(parent, file_list_new(&names, &count, parent));
    all[0] = '\0';
    for (int i = 0; i < count; i++) {
        snprintf(all + strlen(all), room - strlen(all), "%s ", names[i]);
    }
    file_list_free(names, count);
    free(parent);
    return count;
}

// The `keep` newest of the stage stay; remains of a killed attempt go; other stages are let alone.
TEST(checkpoint_keep) {
    char *dir = file_join_new(check_tmpdir(), "run"), all[512];
    Fixture *f = fixture_new(DT_F32, 1);
    char *torn = xformat_new("%s/checkpoints/.tmp-stage-4.1", dir),
         *other = xformat_new("%s/checkpoints/other-00000001", dir);
    error_die(torn, file_make_directories(torn));
    error_die(other, file_make_directories(other));
    for (int step = 1; step <= 5; step++) {
        error_die(dir, save(f, dir, step, 3));
    }
    const int count = names_in(dir, all, sizeof all);
    EXPECT(count == 4 && strstr(all, "stage-00000003 stage-00000004 stage-00000005"), "%s", all);
    EXPECT(!strstr(all, ".tmp") && strstr(all, "other-00000001"), "%s", all);
    error_die(dir, save(f, dir, 5, 3)); // the same step again replaces it
    EXPECT(names_in(dir, all, sizeof all) == 4, "%s", all);
    fixture_free(f);
    free(dir);
    free(torn);
    free(other);
}

// Flips, or cuts off, a byte of a file of a checkpoint.
static void damage(const char *dir, const char *name, bool cuts) {
    char *path = xformat_new("%s/checkpoints/stage-00000002/%s", dir, name);
    FileBytes bytes;
    error_die(path, file_read_new(&bytes, path, 1 << 20));
    uint8_t *copy = xmalloc(bytes.size, 1);
    memcpy(copy, bytes.data, bytes.size);
    copy[bytes.size - 3] ^= 1;
    error_die(path, file_replace(path, copy, bytes.size - cuts));
    file_bytes_free(&bytes);
    free(copy);
    free(path);
}

TEST(checkpoint_damaged) {
    static const char *const files[] = {"tensors.safetensors", "state.json", "MANIFEST.json"};
    for (int k = 0; k < 9; k++) {
        static const char *const damages[] = {"flipped", "cut", "missing"};
        if (!CASE("%s %s", files[k % 3], damages[k / 3])) {
            continue;
        }
        char *dir = file_join_new(check_tmpdir(), "run");
        Fixture *f = fixture_new(DT_F32, 1), *back = fixture_new(DT_F32, 2);
        float want[2 * COUNT + MATRIX], got[2 * COUNT + MATRIX];
        train(f, 0, 1);
        error_die(dir, save(f, dir, 1, 2));
        state_of(f, want);
        train(f, 1, 1);
        error_die(dir, save(f, dir, 2, 2));
        if (k / 3 == 2) {
            char *path = xformat_new("%s/checkpoints/stage-00000002/%s", dir, files[k % 3]);
            EXPECT(unlink(path) == 0, "%s", path);
            free(path);
        } else {
            damage(dir, files[k % 3], k / 3 == 1);
        }
        int64_t step;
        const Error error = load(back, dir, &step, 7, 9);
        state_of(back, got);
        EXPECT(error.code == 0 && step == 1 && optim_read(&back->optim).count.step == 1,
               "step %d: %s", (int)step, error.text);
        EXPECT(memcmp(got, want, sizeof got) == 0, "not the state of step 1");
        error_die("tree", file_remove_tree(dir));
        fixture_free(f);
        fixture_free(back);
        free(dir);
    }
}

TEST(checkpoint_refused) {
    char *dir = file_join_new(check_tmpdir(), "run");
    Fixture *f = fixture_new(DT_F32, 1);
    error_die(dir, save(f, dir, 1, 2));
    int64_t step;
    EXPECT(load(f, dir, &step, 8, 9).code == EXIT_CONFIG, "another seed");
    EXPECT(load(f, dir, &step, 7, 10).code == EXIT_CONFIG, "another context");
    // Another model under the same context is our bug or a damaged context, and still no crash.
    Fixture *larger = fixture_new(DT_F32, 1);
    tensors_free(&larger->other);
    larger->other = tensors_new();
    tensors_add(&larger->other, "m", init_normal(1), 2, (int[]){3, 5});
    tensors_allocate(&larger->other, check_device(), DT_F32);
    EXPECT(load(larger, dir, &step, 7, 9).code == EXIT_BAD_DATA, "another shape");
    fixture_free(larger);
    fixture_free(f);
    free(dir);
}
