// vendor_cudnn: attention by cuDNN's graph API; see vendor_cudnn.h.
//
// The forward is a graph of one operation over tensors (B,H,T,D) whose strides say how they lie in
// our packed rows. The library proposes kernels for a graph, best first; the first that it can plan
// is taken. To run a plan is to name a pointer per tensor, by number.
// Declared here: the eight functions used, as in the cuDNN 9 manual, "Backend API", and the numbers
// of its enums. Not yet run on a GPU.
#include "vendor_cudnn.h"

#include <string.h>

#include "device_cuda.cuh"
#include "vendor.cuh"

#define PROPOSALS 16

// ---- the library ----
#define FUNCTIONS(X)                                                                               \
    X(cudnnCreate, (void **handle))                                                                \
    X(cudnnSetStream, (void *handle, cudaStream_t stream))                                         \
    X(cudnnBackendCreateDescriptor, (int kind, void **desc))                                       \
    X(cudnnBackendDestroyDescriptor, (void *desc))                                                 \
    X(cudnnBackendSetAttribute,                                                                    \
      (void *desc, int name, int type, int64_t count, const void *values))                         \
    X(cudnnBackendGetAttribute,                                                                    \
      (void *desc, int name, int type, int64_t wanted, int64_t *count, void *values))              \
    X(cudnnBackendFinalize, (void *desc))                                                          \
    X(cudnnBackendExecute, (void *handle, void *plan, void *pack))

static struct {
    void *handle; // NULL until it is open
#define X(name, parameters) int (*name) parameters;
    FUNCTIONS(X)
#undef X
} cudnn;

// Descriptors, their attributes, and the types of attributes.
enum { ENGINE_CONFIG = 3, HEURISTICS = 4, PLAN = 5, GRAPH = 15, PACK = 16, TENSOR = 17,
       SDPA_FWD = 41 };
enum { HEURISTICS_MODE = 200, HEURISTICS_GRAPH = 201, HEURISTICS_RESULTS = 202, PLAN_HANDLE = 400,
       PLAN_CONFIG = 401, PLAN_WORKSPACE = 402, GRAPH_HANDLE = 800, GRAPH_OPS = 801,
       TENSOR_ALIGNMENT = 900, TENSOR_TYPE = 901, TENSOR_DIMENSIONS = 902, TENSOR_STRIDES = 903,
       TENSOR_ID = 906, TENSOR_BY_VALUE = 908, PACK_IDS = 1000, PACK_POINTERS = 1001,
       PACK_WORKSPACE = 1003 };
enum { AS_HANDLE = 0, AS_DATA_TYPE = 1, AS_BOOLEAN = 2, AS_INT64 = 3, AS_POINTER = 6, AS_MODE = 8,
       AS_DESCRIPTOR = 15, MODE_A = 3 };
static const int DTYPE_OF[DT_COUNT] = {0, 9, 2};
static_assert(DT_F32 == 0 && DT_BF16 == 1 && DT_F16 == 2, "as in the table above");

// The tensors, by the numbers that the plans know them by.
typedef enum { Q, K, V, OUT, STATS, SCALE, IDS } Id;
enum { SDPA_TENSOR = 2800 }; // the operation's attribute for the first of them; the others follow

#define CUDNN_CHECK(call) VENDOR_CHECK(cudnn, call)

static bool cudnn_open(char *why, size_t size) {
    static const char *const names[] = {"libcudnn.so.9"};
    if (cudnn.handle) {
        return true;
    }
#define X(name, parameters) {#name, (void **)&cudnn.name},
    static const VendorFunction functions[] = {FUNCTIONS(X)};
#undef X
    const int count = sizeof functions / sizeof *functions;
    if (!vendor_load(names, 1, functions, count, why, size)) {
        return false;
    }
    CUDNN_CHECK(cudnnCreate(&cudnn.handle));
    return true;
}

// ---- descriptors ----
// The first failure of a plan that is being made; the rest is then passed over.
typedef struct {
    int status;
    const char *what;
} Trouble;

static void note(Trouble *trouble, int status, const char *what) {
    if (trouble->status == 0 && status != 0) {
        trouble->status = status;
        trouble->what = what;
    }
}

static void *desc_new(Trouble *trouble, int kind) {
    void *desc = NULL;
    note(trouble, cudnn.cudnnBackendCreateDescriptor(kind, &desc), "a descriptor");
    return desc;
}

static void set(Trouble *trouble, void *desc, int name, int type, int64_t count,
                const void *values) {
    if (trouble->status == 0) {
        note(trouble, cudnn.cudnnBackendSetAttribute(desc, name, type, count, values),
             "an attribute");
    }
}

static void finish(Trouble *trouble, void *desc, const char *what) {
    if (trouble->status == 0) {
        note(trouble, cudnn.cudnnBackendFinalize(desc), what);
    }
}

static void desc_free(void *desc) {
    if (desc) {
        CUDNN_CHECK(cudnnBackendDestroyDescriptor(desc));
    }
}

// A tensor of four dimensions.
static void *tensor_new(Trouble *trouble, Id id, DType t, const int64_t *dimensions,
                        const int64_t *strides) {
    const int64_t number = id, alignment = id == SCALE ? 4 : 16;
    const bool is_value = id == SCALE;
    void *desc = desc_new(trouble, TENSOR);
    set(trouble, desc, TENSOR_ID, AS_INT64, 1, &number);
    set(trouble, desc, TENSOR_TYPE, AS_DATA_TYPE, 1, &DTYPE_OF[t]);
    set(trouble, desc, TENSOR_ALIGNMENT, AS_INT64, 1, &alignment);
    set(trouble, desc, TENSOR_DIMENSIONS, AS_INT64, 4, dimensions);
    set(trouble, desc, TENSOR_STRIDES, AS_INT64, 4, strides);
    set(trouble, desc, TENSOR_BY_VALUE, AS_BOOLEAN, 1, &is_value);
    finish(trouble, desc, "a tensor");
    return desc;
}

// ---- plans ----
struct CudnnAttention {
    DType t;
    AttentionShape shape;
    void *plan, *graph, *op, *tensor[IDS];
    size_t workspace_bytes;
    float *stats; // (B,H,T)
    void *workspace;
};

static void *operand_new(Trouble *trouble, const CudnnAttention *a, Id id) {
    const AttentionShape *s = &a->shape;
    const int64_t T = s->max_Tq, D = s->D, H = s->H, Hkv = s->Hkv, B = s->B;
    if (id == SCALE) {
        const int64_t ones[4] = {1, 1, 1, 1};
        return tensor_new(trouble, id, DT_F32, ones, ones);
    }
    if (id == STATS) {
        const int64_t dimensions[4] = {B, H, T, 1}, strides[4] = {H * T, T, 1, 1};
        return tensor_new(trouble, id, DT_F32, dimensions, strides);
    }
    const bool is_key = id == K || id == V;
    const int64_t row = id == K   ? s->k_stride
                        : id == V ? s->v_stride
                        : id == Q ? s->q_stride
                                  : s->out_stride;
    const int64_t dimensions[4] = {B, is_key ? Hkv : H, T, D}, strides[4] = {T * row, D, row, 1};
    return tensor_new(trouble, id, a->t, dimensions, strides);
}

// The first proposal that can be planned.
static void plan_new(Trouble *trouble, CudnnAttention *a) {
    void *heuristics = desc_new(trouble, HEURISTICS), *config[PROPOSALS] = {NULL};
    const int mode = MODE_A;
    int64_t count = 0, bytes = 0;
    set(trouble, heuristics, HEURISTICS_GRAPH, AS_DESCRIPTOR, 1, &a->graph);
    set(trouble, heuristics, HEURISTICS_MODE, AS_MODE, 1, &mode);
    finish(trouble, heuristics, "proposals");
    for (int i = 0; i < PROPOSALS; i++) {
        config[i] = desc_new(trouble, ENGINE_CONFIG);
    }
    if (trouble->status == 0) {
        note(trouble,
             cudnn.cudnnBackendGetAttribute(heuristics, HEURISTICS_RESULTS, AS_DESCRIPTOR,
                                            PROPOSALS, &count, config),
             "proposals");
    }
    for (int64_t i = 0; trouble->status == 0 && !a->plan && i < count; i++) {
        Trouble own = {0, NULL};
        void *plan = desc_new(&own, PLAN);
        set(&own, plan, PLAN_HANDLE, AS_HANDLE, 1, &cudnn.handle);
        set(&own, plan, PLAN_CONFIG, AS_DESCRIPTOR, 1, &config[i]);
        finish(&own, plan, "a plan");
        if (own.status == 0) {
            int64_t got = 0;
            note(&own,
                 cudnn.cudnnBackendGetAttribute(plan, PLAN_WORKSPACE, AS_INT64, 1, &got, &bytes),
                 "a workspace");
        }
        if (own.status == 0) {
            a->plan = plan;
            a->workspace_bytes = (size_t)bytes;
        } else {
            desc_free(plan);
        }
    }
    for (int i = 0; i < PROPOSALS; i++) {
        desc_free(config[i]);
    }
    desc_free(heuristics);
    note(trouble, a->plan ? 0 : -1, "a kernel");
}

static void graph_new(Trouble *trouble, CudnnAttention *a) {
    a->op = desc_new(trouble, SDPA_FWD);
    for (int id = 0; id < IDS; id++) {
        a->tensor[id] = operand_new(trouble, a, (Id)id);
        set(trouble, a->op, SDPA_TENSOR + id, AS_DESCRIPTOR, 1, &a->tensor[id]);
    }
    finish(trouble, a->op, "the operation");
    a->graph = desc_new(trouble, GRAPH);
    set(trouble, a->graph, GRAPH_HANDLE, AS_HANDLE, 1, &cudnn.handle);
    set(trouble, a->graph, GRAPH_OPS, AS_DESCRIPTOR, 1, &a->op);
    finish(trouble, a->graph, "the graph");
}

extern "C" void cudnn_attention_free(Device *dev, CudnnAttention *a) {
    desc_free(a->plan);
    desc_free(a->graph);
    desc_free(a->op);
    for (int id = 0; id < IDS; id++) {
        desc_free(a->tensor[id]);
    }
    device_release(dev, a->stats);
    device_release(dev, a->workspace);
    free(a);
}

extern "C" CudnnAttention *cudnn_attention_new(Device *dev, DType t, const AttentionShape *shape,
                                               char *why, size_t size) {
    const AttentionShape *s = shape;
    if (device_kind(dev) != DEVICE_CUDA || t == DT_F32 || s->is_causal || s->alibi || s->used_k ||
        s->max_Tq != s->max_Tk || s->Nq != s->B * s->max_Tq || s->Nk != s->Nq) {
        snprintf(why, size,
                 "only 16-bit types, sequences of one length, neither causal nor biased");
        return NULL;
    }
    if (!cudnn_open(why, size)) {
        return NULL;
    }
    CUDNN_CHECK(cudnnSetStream(cudnn.handle, device_stream(dev)));
    CudnnAttention *a = (CudnnAttention *)xcalloc(1, sizeof *a);
    a->t = t;
    a->shape = *shape;
    Trouble trouble = {0, NULL};
    graph_new(&trouble, a);
    plan_new(&trouble, a);
    if (trouble.status != 0) {
        snprintf(why, size, "the library has not got %s for this shape: status %d", trouble.what,
                 trouble.status);
        cudnn_attention_free(dev, a);
        return NULL;
    }
    a->stats = (float *)device_alloc(dev, (size_t)s->H * (size_t)s->Nq * sizeof(float), "cuDNN");
    a->workspace = device_alloc(dev, a->workspace_bytes, "cuDNN");
    return a;
}

// ---- running ----
extern "C" void cudnn_attention_fwd(Device *dev, CudnnAttention *a, void *out, const void *q,
                                    const void *k, const void *v) {
    (void)dev;
    const void *const pointers[IDS] = {q, k, v, out, a->stats, &a->shape.scale};
    const int64_t ids[IDS] = {Q, K, V, OUT, STATS, SCALE};
    Trouble trouble = {0, NULL};
    void *pack = desc_new(&trouble, PACK);
    set(&trouble, pack, PACK_POINTERS, AS_POINTER, IDS, pointers);
    set(&trouble, pack, PACK_IDS, AS_INT64, IDS, ids);
    set(&trouble, pack, PACK_WORKSPACE, AS_POINTER, 1, &a->workspace);
    finish(&trouble, pack, "the pointers");
    CHECK(trouble.status == 0, "%s: status %d", trouble.what, trouble.status);
    CUDNN_CHECK(cudnnBackendExecute(cudnn.handle, a->plan, pack));
    desc_free(pack);
}
