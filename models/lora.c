// lora: building and merging of adapters; see lora.h.
#include "lora.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

float lora_scale(LoraConfig config) {
    const double rank = config.rank;
    return (float)(config.alpha / (config.is_rslora ? sqrt(rank) : rank));
}

static Tensor *add_adapter(TensorList *list, const char *name, Init init, int rows, int columns) {
    Tensor *tensor = tensors_add(list, name, init, 2, (int[]){rows, columns});
    tensor->is_adapter = tensor->is_matrix = true;
    return tensor;
}

void lora_add(TensorList *list, Linear *linear, const char *module, LoraConfig config) {
    lora_add_slice(list, linear, module, NULL, 0, linear->out, config);
}

void lora_add_slice(TensorList *list, Linear *linear, const char *module, const char *part,
                    int first, int rows, LoraConfig config) {
    if (config.rank == 0) {
        return;
    }
    char name_a[TENSOR_NAME], file_b[TENSOR_NAME], name_b[TENSOR_NAME + 16];
    snprintf(name_a, sizeof name_a, "%s.lora_A.weight", module);
    snprintf(file_b, sizeof file_b, "%s.lora_B.weight", module);
    snprintf(name_b, sizeof name_b, "%s%s%s", file_b, part ? "/" : "", part ? part : "");
    linear->rank = config.rank;
    linear->scale = lora_scale(config);
    linear->lora_a = tensors_find(list, name_a);
    if (!linear->lora_a) {
        linear->lora_a =
            add_adapter(list, name_a, init_fan_in(linear->in), config.rank, linear->in);
    }
    linear->lora_b = add_adapter(list, name_b, init_constant(0), linear->out, config.rank);
    tensor_set_slice(linear->lora_b, file_b, first, rows);
}

void lora_merge(const TensorList *list, const Linear *linear, float *values) {
    if (!linear->lora_a) {
        return;
    }
    const size_t in = (size_t)linear->in, rank = (size_t)linear->rank;
    float *a = xmalloc(linear->lora_a->count, sizeof *a);
    float *b = xmalloc(linear->lora_b->count, sizeof *b);
    tensor_read(list, linear->lora_a, a);
    tensor_read(list, linear->lora_b, b);
    const int threads = device_threads(list->dev);
#pragma omp parallel num_threads(threads) if (threads > 1)
    {
        float *sum = xmalloc(in, sizeof *sum); // a chain for each column, side by side
#pragma omp for schedule(static)
        for (size_t row = 0; row < (size_t)linear->out; row++) {
            memset(sum, 0, in * sizeof *sum);
            for (size_t k = 0; k < rank; k++) {
                for (size_t column = 0; column < in; column++) {
                    sum[column] = fmaf(b[row * rank + k], a[k * in + column], sum[column]);
                }
            }
            for (size_t column = 0; column < in; column++) {
                values[row * in + column] += linear->scale * sum[column];
            }
        }
        free(sum);
    }
    free(a);
    free(b);
}
