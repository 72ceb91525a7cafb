// test_model: tensor lists: layout of the blocks of memory, values, copies between lists, packing.
#include "models/model.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "tests/check.h"
#include "tests/model_check.h"

static TensorList list_of_three(DType t, bool is_trainable) {
    TensorList list = tensors_new();
    tensors_add(&list, "a.weight", init_fan_in(100), 2, (int[]){30, 100})->is_matrix = true;
    tensors_add(&list, "a.bias", init_normal(2), 1, (int[]){30});
    tensors_add(&list, "scale", init_constant(3), 0, NULL);
    tensors_mark(&list, "a.", is_trainable);
    tensors_allocate(&list, check_device(), t);
    return list;
}

TEST(model_tensors) {
    for (int t = DT_F32; t <= DT_F16; t++) {
        if (!CASE("t=%s", dtype_name((DType)t))) {
            continue;
        }
        TensorList list = list_of_three((DType)t, true);
        Tensor *weight = tensors_find(&list, "a.weight"), *bias = tensors_find(&list, "a.bias"),
               *scale = tensors_find(&list, "scale");
        EXPECT(!tensors_find(&list, "a"), "found '%s'", "a");
        EXPECT(tensors_count(&list, false) == 3031 && tensors_count(&list, true) == 3030,
               "%zu, %zu", tensors_count(&list, false), tensors_count(&list, true));
        EXPECT(bias->master - weight->master == 3008 && bias->grad - weight->grad == 3008 &&
                   list.trainable_count == 3072,
               "bias at %td of %zu", bias->master - weight->master, list.trainable_count);
        EXPECT((weight->data == weight->master) == (t == DT_F32), "data %p, master %p",
               weight->data, (void *)weight->master);
        EXPECT(!scale->master && !scale->grad && scale->data, "frozen data %p", scale->data);
        tensors_init(&list, check_seed());
        float values[3000], stored[3000];
        double squares = 0, largest = 0;
        tensor_read(&list, weight, values);
        for (int i = 0; i < 3000; i++) {
            squares += values[i] * values[i];
            largest = fmax(largest, fabs(values[i]));
        }
        // U(+-0.1): variance 0.01/3, whose estimate from 3000 draws has a relative sd of 1.6%.
        EXPECT(fabs(squares / 3000 / (0.01 / 3) - 1) <= 0.08 && largest <= 0.1 && largest > 0.099,
               "variance %g, largest %g", squares / 3000, largest);
        values_read(list.dev, stored, (DType)t, weight->data, 3000);
        for (int i = 0; i < 3000; i++) {
            char one[4];
            dtype_store((DType)t, one, 0, values[i]);
            EXPECT(stored[i] == dtype_load((DType)t, one, 0), "element %d is %g of master %g", i,
                   stored[i], values[i]);
        }
        tensor_read(&list, scale, values);
        EXPECT(values[0] == 3, "constant %g", values[0]);
        float gap[3072 - 3038]; // past the bias
        device_copy_out(list.dev, gap, list.master + 3038, sizeof gap);
        for (int i = 0; i < 3072 - 3038; i++) {
            EXPECT(gap[i] == 0, "gap %d holds %g", i, gap[i]);
        }
        tensors_free(&list);
    }
}

// The draws of a tensor depend on seed and name alone.
TEST(model_init) {
    TensorList list = list_of_three(DT_F32, true), other = tensors_new();
    tensors_add(&other, "before", init_normal(1), 1, (int[]){5});
    tensors_add(&other, "a.bias", init_normal(2), 1, (int[]){30});
    tensors_allocate(&other, check_device(), DT_F32);
    tensors_init(&list, 4);
    tensors_init(&other, 4);
    float first[30], second[30];
    tensor_read(&list, tensors_find(&list, "a.bias"), first);
    tensor_read(&other, tensors_find(&other, "a.bias"), second);
    EXPECT(memcmp(first, second, sizeof first) == 0, "%g and %g", first[0], second[0]);
    tensors_init(&other, 5);
    tensor_read(&other, tensors_find(&other, "a.bias"), second);
    EXPECT(memcmp(first, second, sizeof first) != 0, "%g under both seeds", first[0]);
    tensors_free(&list);
    tensors_free(&other);
}

TEST(model_copy) {
    for (int from = DT_F32; from <= DT_BF16; from++) {
        for (int to = DT_F32; to <= DT_BF16; to++) {
            for (int is_trainable = 0; is_trainable < 2; is_trainable++) {
                if (!CASE("%s to %s trainable=%d", dtype_name((DType)from), dtype_name((DType)to),
                          is_trainable)) {
                    continue;
                }
                TensorList source = list_of_three((DType)from, true),
                           target = list_of_three((DType)to, is_trainable);
                tensors_init(&source, 1);
                tensors_init(&target, 2);
                EXPECT(tensors_copy(&target, &source) == 3, "%d copied",
                       tensors_copy(&target, &source));
                float values[30], copied[30];
                tensor_read(&source, tensors_find(&source, "a.bias"), values);
                tensor_read(&target, tensors_find(&target, "a.bias"), copied);
                for (int i = 0; i < 30; i++) { // a master is copied whole, a frozen value rounded
                    const float want = is_trainable || to == DT_F32
                                           ? values[i]
                                           : bf16_to_float(bf16_from_float(values[i]));
                    EXPECT(copied[i] == want, "element %d is %g, not %g", i, copied[i], want);
                }
                tensors_free(&source);
                tensors_free(&target);
            }
        }
    }
}

// Packed weights give the same bits, and a write drops them.
TEST(model_pack) {
    TensorList list = list_of_three(DT_F32, false);
    tensors_init(&list, 3);
    Tensor *weight = tensors_find(&list, "a.weight");
    Buf inp = buf_fill(DT_F32, 2 * 100, 0.5), plain = buf_fill(DT_F32, 2 * 30, NAN),
        packed = buf_fill(DT_F32, 2 * 30, NAN);
    check_ops()->matmul_fwd(check_device(), DT_F32, plain.dev, inp.dev, weight->data, NULL, NULL, 2,
                            30, 100, false, NULL);
    tensors_pack(&list, 100);
    EXPECT(!weight->packed_fwd, "%s is packed into 100 bytes", weight->name);
    tensors_pack(&list, SIZE_MAX);
    const bool packs = matmul_pack_bytes(check_device(), DT_F32, MATMUL_PACK_FWD, 30, 100) > 0;
    EXPECT((weight->packed_fwd != NULL) == packs && !weight->packed_bwd,
           "%s: forms %p and %p; no backward can come", weight->name, weight->packed_fwd,
           weight->packed_bwd);
    check_ops()->matmul_fwd(check_device(), DT_F32, packed.dev, inp.dev, weight->data,
                            weight->packed_fwd, NULL, 2, 30, 100, false, NULL);
    expect_exact("packed", buf_read(&packed), buf_read(&plain), 60);
    EXPECT(!tensors_find(&list, "a.bias")->packed_fwd, "%s is packed", "a.bias");
    float *values = xcalloc(3000, sizeof *values);
    tensor_write(&list, weight, DT_F32, values);
    EXPECT(!weight->packed_fwd && !weight->packed_bwd, "%s keeps old packed values", weight->name);
    free(values);
    buf_free(&inp);
    buf_free(&plain);
    buf_free(&packed);
    tensors_free(&list);
}

// Values that formula_weights of tools/reference.py printed, and a slice of a fused tensor.
TEST(model_formula) {
    TensorList list = tensors_new();
    tensors_add(&list, "a.q.weight", init_constant(0), 2, (int[]){4, 3});
    Tensor *slice = tensors_add(&list, "a.q.weight/k", init_constant(0), 2, (int[]){2, 3});
    tensor_set_slice(slice, "a.q.weight", 1, 4);
    tensors_add(&list, "norm.weight", init_constant(0), 1, (int[]){4});
    tensors_add(&list, "wte.embed.weight", init_constant(0), 2, (int[]){5, 2});
    tensors_add(&list, "x.bias", init_constant(0), 1, (int[]){2});
    tensors_add(&list, "x.lora_B.weight", init_constant(0), 2, (int[]){3, 2});
    tensors_allocate(&list, check_device(), DT_F32);
    tensors_formula(&list);
    const float first[] = {-0x1.5ad2acp-1f, -0x1.8f98p-1f,     0x1.b72d72p-1f,
                           0x1.12f48cp-2f,  -0x1.019c84p-2f, -0x1.6cbde0p-3f};
    for (int i = 0; i < list.count; i++) {
        float values[12];
        tensor_read(&list, list.tensor[i], values);
        EXPECT(values[0] == first[i], "%s begins with %a, not %a", list.tensor[i]->name, values[0],
               first[i]);
    }
    tensors_free(&list);
}
