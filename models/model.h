// model: named tensors, and what a forward or backward pass needs besides them.
//
// A model is a list of tensors and equations over ops. This file holds the lists. Tensors are added
// while the model is built, marked trainable, then allocated at once: frozen values, trainable
// values, f32 masters and f32 gradients are one block each, so that optimiser, clipping, all-reduce
// and checkpoint are loops over one array. Models never open files: host/weights fills tensors by
// `file`.
#ifndef JOMED_MODELS_MODEL_H
#define JOMED_MODELS_MODEL_H

#include "kernels/arena.h"
#include "kernels/base.h"
#include "kernels/ops.h"

#define TENSOR_NAME 128
#define MAX_LAYERS 128 // blocks of one stack; the largest of our families, Qwen2-VL-72B, has 80

// ---- tensors ----
typedef enum { INIT_CONSTANT, INIT_NORMAL, INIT_UNIFORM } InitKind;
typedef struct {
    InitKind kind;
    float value; // the constant; the standard deviation; the bound b of U(-b, b)
} Init;
Init init_constant(float value);
Init init_normal(float sd);
Init init_fan_in(int fan_in); // U(+-1/sqrt(fan_in)), torch's default for a Linear and its bias

typedef struct {
    char name[TENSOR_NAME]; // unique in its list: `file`, or `file`/part for a slice
    char file[TENSOR_NAME]; // in the original checkpoint, without an adapter's "base_model.model."
    int file_row, file_rows; // rows file_row .. file_row + shape[0] - 1 of the file's file_rows
    int rank, shape[5];     // as in the file (of the slice); rank 0 has one element
    size_t count;
    Init init;
    bool is_trainable, is_adapter; // an adapter tensor is a LoRA A or B
    bool is_borrowed;       // data is somebody else's, and read-only (tensor_borrow)
    bool is_matrix;         // used as the (shape[0], count/shape[0]) weight of a matmul
    bool is_transposed;     // the file has (shape[1],shape[0]): written for x @ P
    size_t offset;          // trainable: first element in the list's value, master and grad
    void *data;             // (count) t on the device: what the ops read
    float *master;          // (count) f32, == data when t is F32; NULL when frozen
    float *grad;            // (count) f32; NULL when frozen
    void *packed_fwd, *packed_bwd; // by tensors_pack, frozen matrices only; else NULL
} Tensor;

typedef struct {
    Device *dev;
    DType t;
    Tensor **tensor; // (count), in the order in which the model was built; pointers stay valid
    int count, capacity;
    // Trainable tensors, one after the other; each starts at a multiple of 64 elements and the gaps
    // are zero and stay zero, so that one op may run over all trainable_count elements.
    size_t trainable_count;
    void *value;   // (trainable_count) t
    float *master; // (trainable_count), == value when t is F32
    float *grad;   // (trainable_count)
    void *frozen, *packed;
} TensorList;

TensorList tensors_new(void);
void tensors_free(TensorList *list);
// Adds a tensor while the model is built. It is frozen until marked. The name must be new (CHECK).
Tensor *tensors_add(TensorList *list, const char *name, Init init, int rank, const int *shape);
// Tensors whose name starts with prefix ("" for all) become trainable or frozen. Before allocation.
void tensors_mark(TensorList *list, const char *prefix, bool is_trainable);
// Same for base tensors only, or for adapter tensors only.
void tensors_mark_adapters(TensorList *list, bool is_adapter, bool is_trainable);
void tensors_allocate(TensorList *list, Device *dev, DType t); // once; all zero
// A frozen tensor shall read `data`, (count) of the type that the list will have, which the device
// can read and which outlives the list, such as a mapped file. Before the allocation, which gives
// it no memory; afterwards nothing writes or packs it.
void tensor_borrow(Tensor *tensor, const void *data);
// Draws every tensor that is not borrowed by its Init. Draws depend on seed and name only, not on
// order or on other tensors; adapters use the stream RNG_LORA_INIT, the rest RNG_INIT.
void tensors_init(TensorList *list, uint64_t seed);
void tensors_init_adapters(TensorList *list, uint64_t seed); // the adapters alone
Tensor *tensors_find(const TensorList *list, const char *name); // NULL when absent
// Copies values (and masters) of equal name and shape; the types may differ. Returns how many were
// copied.
int tensors_copy(TensorList *to, const TensorList *from);
// Packs the frozen matrices for the products, after their values are set, unless that takes more
// than limit bytes. The same bits, sooner: by a third for one row, 5% for a hundred, nothing for a
// thousand. Optional, and repeatable.
// Borrowed ones are used as they lie: a packed copy would cost the memory that borrowing saves.
#define PACK_LIMIT ((size_t)1 << 30) // of a small reader; a large one is not worth holding twice
void tensors_pack(TensorList *list, size_t limit);
void tensors_zero_grad(TensorList *list);
size_t tensors_count(const TensorList *list, bool is_trainable_only); // elements, without gaps
// values: (count) on the host. Writing sets the master too, and drops the tensor's packed forms.
void tensor_write(TensorList *list, Tensor *tensor, DType from, const void *values);
void tensor_read(const TensorList *list, const Tensor *tensor, float *values); // master, else data
// n elements of type t from the device, as f32.
void values_read(Device *dev, float *values, DType t, const void *from, size_t n);
// rows [0, shape[0]) become the slice at row first of a tensor of `rows` rows named file in
// checkpoints.
void tensor_set_slice(Tensor *tensor, const char *file, int first, int rows);

// ---- a pass ----
// A forward takes from the arena all that its backward needs, and scratch. The caller marks the
// arena before the forward and releases it after the backward. With is_planning no op is called, so
// that the same code, run once over arena_plan(), measures the peak. With is_training false a
// forward keeps nothing, and no backward may follow. With recomputes a block keeps only its input,
// and its backward runs its forward again: the same bits, less memory.
typedef struct {
    Device *dev;
    const Ops *op;
    DType t; // of the activations; equals the list's t
    Arena *arena;
    bool is_planning, is_training, recomputes;
} Run;
Run run_new(Device *dev, DType t, Arena *arena, bool is_training);
Run run_planning(const Run *run, Arena *plan); // the same pass over a planning arena

// run->op->name(dev, t, ...), unless the run only plans.
#define RUN(run, name, ...)                                                                        \
    do {                                                                                           \
        if (!(run)->is_planning) {                                                                 \
            (run)->op->name((run)->dev, (run)->t, __VA_ARGS__);                                    \
        }                                                                                          \
    } while (0)
// Before RUN of an op that takes scratch of its own (OPS_SCRATCH): a plan notes how much. The
// arguments are those of <op>_scratch.
#define PLAN_SCRATCH(run, name, ...)                                                               \
    do {                                                                                           \
        if ((run)->is_planning && (run)->op->name##_scratch) {                                     \
            run_scratch(run, (run)->op->name##_scratch((run)->dev, (run)->t, __VA_ARGS__));        \
        }                                                                                          \
    } while (0)
void run_scratch(Run *run, size_t bytes);

void *run_take(Run *run, size_t rows, size_t columns);              // (rows,columns) t
float *run_take_f32(Run *run, size_t count);
int32_t *run_take_ids(Run *run, const int32_t *host, size_t count); // a device copy of host ids
void run_zero(Run *run, void *tensor, size_t rows, size_t columns);
// Address of an element; NULL in a plan.
void *run_at(const Run *run, const void *tensor, size_t element);

// Scratch on the host for row numbers. It grows when a pass, or a plan, needs more than ever
// before.
typedef struct {
    int32_t *ids;
    size_t count;
} HostIds;
int32_t *host_ids(HostIds *scratch, size_t count);
void host_ids_free(HostIds *scratch);

#endif
