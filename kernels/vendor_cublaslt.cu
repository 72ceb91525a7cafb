// vendor_cublaslt: the products of matmul.h by cuBLASLt; see vendor_cublaslt.h. M, N, K are BLAS's.
//
// The library is column-major: a row-major (R,C) is its (C,R) with leading dimension C. So it is
// asked for the transposed product D' = op(A) op(B), with the operands in the other order:
//
//   product      D' (rows x columns)   A, as it lies   op(A)   B, as it lies   op(B)   depth
//   fwd          out'     N x M        weight  K x N   ^T      inp   K x M             K
//   bwd_input    dinp'    K x M        weight  K x N           dout  N x M             N
//   bwd_weight   dweight' K x N        inp     K x M           dout  N x M     ^T      M
//
// An algorithm is asked for once per shape, type and alignment, and kept. Declared here: the nine
// functions used, as in the cuBLAS 13 manual, section "Using the cuBLASLt API".
// Not yet run on a GPU.
#include "vendor_cublaslt.h"

#include <library_types.h>
#include <string.h>

#include "device_backend.h"
#include "device_cuda.cuh"
#include "ops.h"
#include "vendor.cuh"

#define WORKSPACE ((size_t)32 << 20) // what the manual wants for Hopper
#define PROPOSALS 16
#define TUNING_RUNS 5 // of each proposal; the fastest counts

// ---- the library ----
typedef struct {
    uint64_t data[8];
} Algorithm;
typedef struct {
    Algorithm algorithm;
    size_t workspace;
    int state;
    float waves;
    int reserved[4];
} Proposal;

// Values of the library's enums.
enum { COMPUTE_F32 = 68, NOT_TRANSPOSED = 0, TRANSPOSED = 1 };
enum { DESC_TRANSA = 3, DESC_TRANSB = 4, DESC_EPILOGUE = 7, DESC_BIAS = 8, EPILOGUE_BIAS = 4 };
enum { PREF_WORKSPACE = 1, PREF_REDUCTION = 3, PREF_ALIGNMENT_A = 5, PREF_ALIGNMENT_B = 6,
       PREF_ALIGNMENT_C = 7, PREF_ALIGNMENT_D = 8, REDUCTION_IN_F32 = 2 };

#define FUNCTIONS(X)                                                                               \
    X(cublasLtCreate, (void **handle))                                                             \
    X(cublasLtMatmulDescCreate, (void **desc, int compute, int scale))                             \
    X(cublasLtMatmulDescSetAttribute, (void *desc, int name, const void *value, size_t size))      \
    X(cublasLtMatrixLayoutCreate,                                                                  \
      (void **layout, int type, uint64_t rows, uint64_t columns, int64_t leading))                 \
    X(cublasLtMatmulPreferenceCreate, (void **preference))                                         \
    X(cublasLtMatmulPreferenceDestroy, (void *preference))                                         \
    X(cublasLtMatmulPreferenceSetAttribute,                                                        \
      (void *preference, int name, const void *value, size_t size))                                \
    X(cublasLtMatmulAlgoGetHeuristic,                                                              \
      (void *handle, void *desc, void *a, void *b, void *c, void *d, void *preference,             \
       int wanted, Proposal *proposal, int *count))                                                \
    X(cublasLtMatmul,                                                                              \
      (void *handle, void *desc, const void *alpha, const void *a, void *a_layout, const void *b,  \
       void *b_layout, const void *beta, const void *c, void *c_layout, void *d, void *d_layout,   \
       const Algorithm *algorithm, void *workspace, size_t workspace_bytes, cudaStream_t stream))

static struct {
    void *handle; // NULL until it is open
    bool is_tuned;
#define X(name, parameters) int (*name) parameters;
    FUNCTIONS(X)
#undef X
} lt;

#define LT_CHECK(call) VENDOR_CHECK(lt, call)

extern "C" bool cublaslt_open(Device *dev, char *why, size_t size) {
    static const char *const names[] = {"libcublasLt.so.13", "libcublasLt.so.12"};
    if (lt.handle) {
        return true;
    }
    if (device_kind(dev) != DEVICE_CUDA) {
        snprintf(why, size, "cuBLASLt needs a GPU");
        return false;
    }
#define X(name, parameters) {#name, (void **)&lt.name},
    static const VendorFunction functions[] = {FUNCTIONS(X)};
#undef X
    const int count = sizeof functions / sizeof *functions;
    if (!vendor_load(names, 2, functions, count, why, size)) {
        return false;
    }
    LT_CHECK(cublasLtCreate(&lt.handle));
    return true;
}

extern "C" void cublaslt_tune(bool is_tuned) { lt.is_tuned = is_tuned; }

// ---- plans ----
static const int DTYPE_OF[DT_COUNT] = {CUDA_R_32F, CUDA_R_16BF, CUDA_R_16F};
static_assert(DT_F32 == 0 && DT_BF16 == 1 && DT_F16 == 2, "as in the table above");

// What decides which algorithm runs; compared as bytes, so it is zeroed before it is filled.
typedef struct {
    DType t, out_t;
    int rows, columns, depth; // of D'
    bool is_a_transposed, is_b_transposed, has_bias, has_c, is_tuned;
    uint32_t a_alignment, b_alignment, c_alignment, d_alignment, bias_alignment; // at most 16
} Key;

typedef struct {
    Key key;
    void *desc, *a, *b, *d; // layouts; C has D's
    Proposal proposal;
} Plan;

static Plan *plans;
static size_t plan_count, plan_room;

static uint32_t alignment_of(const void *memory) {
    const uintptr_t low = (uintptr_t)memory & (~(uintptr_t)memory + 1);
    return low == 0 || low > 16 ? 16 : (uint32_t)low;
}

static void desc_set(void *desc, int name, int value) {
    LT_CHECK(cublasLtMatmulDescSetAttribute(desc, name, &value, sizeof value));
}

// The operands of one product in the library's terms.
typedef struct {
    const void *a, *b, *bias; // bias NULL: none
    const void *c;            // D = scale A B + keep C + bias
    void *d;
    float scale, keep;
} Operands;

static void run_plan(Device *dev, Plan *plan, const Proposal *proposal, const Operands *x) {
    if (plan->key.has_bias) {
        LT_CHECK(cublasLtMatmulDescSetAttribute(plan->desc, DESC_BIAS, &x->bias, sizeof x->bias));
    }
    LT_CHECK(cublasLtMatmul(lt.handle, plan->desc, &x->scale, x->a, plan->a, x->b, plan->b,
                            &x->keep, x->c, plan->d, x->d, plan->d, &proposal->algorithm,
                            device_scratch(dev, WORKSPACE), WORKSPACE, device_stream(dev)));
}

// The fastest of the proposals, each run a few times; the first run of each is not counted.
static int fastest(Device *dev, Plan *plan, const Proposal *proposal, int count,
                   const Operands *x) {
    int best = 0;
    double least = 1e30;
    for (int i = 0; i < count; i++) {
        for (int run = 0; proposal[i].state == 0 && run <= TUNING_RUNS; run++) {
            device_timer_start(dev);
            run_plan(dev, plan, &proposal[i], x);
            const double seconds = device_timer_stop(dev);
            if (run > 0 && seconds < least) {
                least = seconds;
                best = i;
            }
        }
    }
    return best;
}

static void propose(Device *dev, Plan *plan, const Operands *x) {
    const Key *key = &plan->key;
    const uint32_t alignments[] = {key->a_alignment, key->b_alignment, key->c_alignment,
                                   key->d_alignment};
    const uint64_t workspace = WORKSPACE;
    const uint32_t reduction = REDUCTION_IN_F32;
    void *preference;
    LT_CHECK(cublasLtMatmulPreferenceCreate(&preference));
    LT_CHECK(cublasLtMatmulPreferenceSetAttribute(preference, PREF_WORKSPACE, &workspace,
                                                  sizeof workspace));
    LT_CHECK(cublasLtMatmulPreferenceSetAttribute(preference, PREF_REDUCTION, &reduction,
                                                  sizeof reduction));
    for (int i = 0; i < 4; i++) {
        LT_CHECK(cublasLtMatmulPreferenceSetAttribute(preference, PREF_ALIGNMENT_A + i,
                                                      &alignments[i], sizeof alignments[i]));
    }
    Proposal proposal[PROPOSALS];
    int count = 0;
    const int status = lt.cublasLtMatmulAlgoGetHeuristic(
        lt.handle, plan->desc, plan->a, plan->b, plan->d, plan->d, preference,
        key->is_tuned ? PROPOSALS : 1, proposal, &count);
    LT_CHECK(cublasLtMatmulPreferenceDestroy(preference));
    if (status != 0 || count == 0) {
        die(EXIT_RESOURCE,
            "cuBLASLt: no algorithm for %d x %d over %d of %s (status %d); use matmul=own",
            key->rows, key->columns, key->depth, dtype_name(key->t), status);
    }
    plan->proposal = proposal[key->is_tuned ? fastest(dev, plan, proposal, count, x) : 0];
}

static void layout_new(void **layout, DType t, int rows, int columns) {
    LT_CHECK(cublasLtMatrixLayoutCreate(layout, DTYPE_OF[t], (uint64_t)rows, (uint64_t)columns,
                                        rows));
}

static Plan *plan_of(Device *dev, const Key *key, const Operands *x) {
    for (size_t i = 0; i < plan_count; i++) {
        if (memcmp(&plans[i].key, key, sizeof *key) == 0) {
            return &plans[i];
        }
    }
    if (plan_count == plan_room) {
        plan_room = plan_room ? 2 * plan_room : 64;
        plans = (Plan *)xrealloc(plans, plan_room, sizeof *plans);
    }
    Plan *plan = &plans[plan_count++];
    memset(plan, 0, sizeof *plan);
    memcpy(&plan->key, key, sizeof *key);
    LT_CHECK(cublasLtMatmulDescCreate(&plan->desc, COMPUTE_F32, CUDA_R_32F));
    desc_set(plan->desc, DESC_TRANSA, key->is_a_transposed ? TRANSPOSED : NOT_TRANSPOSED);
    desc_set(plan->desc, DESC_TRANSB, key->is_b_transposed ? TRANSPOSED : NOT_TRANSPOSED);
    if (key->has_bias) {
        desc_set(plan->desc, DESC_EPILOGUE, EPILOGUE_BIAS);
        LT_CHECK(cublasLtMatmulDescSetAttribute(plan->desc, DESC_BIAS, &x->bias, sizeof x->bias));
    }
    layout_new(&plan->a, key->t, key->is_a_transposed ? key->depth : key->rows,
               key->is_a_transposed ? key->rows : key->depth);
    layout_new(&plan->b, key->t, key->is_b_transposed ? key->columns : key->depth,
               key->is_b_transposed ? key->depth : key->columns);
    layout_new(&plan->d, key->out_t, key->rows, key->columns);
    propose(dev, plan, x);
    return plan;
}

static void product(Device *dev, Key key, const Operands *x) {
    CHECK(lt.handle, "cublaslt_open comes first");
    key.a_alignment = alignment_of(x->a);
    key.b_alignment = alignment_of(x->b);
    key.c_alignment = alignment_of(x->c);
    key.d_alignment = alignment_of(x->d);
    key.bias_alignment = alignment_of(x->bias);
    key.has_bias = x->bias != NULL;
    key.has_c = x->keep != 0;
    key.is_tuned = lt.is_tuned;
    Plan *plan = plan_of(dev, &key, x);
    run_plan(dev, plan, &plan->proposal, x);
}

// Zeroed, padding included.
static Key key_of(DType t, DType out_t, int rows, int columns, int depth) {
    CHECK(rows >= 1 && columns >= 1 && depth >= 1, "%d x %d over %d", rows, columns, depth);
    Key key;
    memset(&key, 0, sizeof key);
    key.t = t, key.out_t = out_t;
    key.rows = rows, key.columns = columns, key.depth = depth;
    return key;
}

// ---- the ops ----
// Whether the library can end a product so; if it can, x gets what that takes. It adds a residual
// to the sum before it rounds, once, where our kernels round twice; heads are turned by rope_fwd.
static bool ends_so(Operands *x, bool is_accumulated, const MatmulEpilogue *epilogue) {
    const EpilogueKind kind = epilogue ? epilogue->kind : EPILOGUE_NONE;
    x->c = kind == EPILOGUE_RESIDUAL ? epilogue->residual : x->d;
    x->scale = kind == EPILOGUE_SCALE ? epilogue->scale : 1;
    x->keep = kind == EPILOGUE_RESIDUAL ? 1 : is_accumulated ? x->scale : 0;
    return (kind == EPILOGUE_NONE || kind == EPILOGUE_ROPE ||
            (kind == EPILOGUE_SCALE && !x->bias) ||
            (kind == EPILOGUE_RESIDUAL && !is_accumulated)) &&
           !(epilogue && epilogue->rank);
}

extern "C" void matmul_fwd_cublaslt(Device *dev, DType t, void *out, const void *inp,
                                    const void *weight, const void *packed, const void *bias, int M,
                                    int N, int K, bool is_accumulated,
                                    const MatmulEpilogue *epilogue) {
    CHECK(!(is_accumulated && bias), "bias with is_accumulated");
    CHECK(!packed, "weights are not packed here");
    CHECK_POINTERS(matmul_fwd, out, inp, weight);
    Key key = key_of(t, t, N, M, K);
    key.is_a_transposed = true;
    Operands x = {weight, inp, bias, NULL, out, 1, 0};
    if (ends_so(&x, is_accumulated, epilogue)) {
        product(dev, key, &x);
        if (epilogue && epilogue->kind == EPILOGUE_ROPE) {
            const MatmulEpilogue *e = epilogue;
            rope_fwd_cuda(dev, t, out, e->cosine, e->sine, M, N / e->head_width, e->head_width, N,
                          e->pairing);
        }
    } else {
        matmul_fwd_cuda(dev, t, out, inp, weight, packed, bias, M, N, K, is_accumulated, epilogue);
    }
}

extern "C" void matmul_bwd_input_cublaslt(Device *dev, DType t, void *dinp, const void *dout,
                                          const void *weight, const void *packed, int M, int N,
                                          int K, bool is_accumulated,
                                          const MatmulEpilogue *epilogue) {
    CHECK(!packed, "weights are not packed here");
    CHECK_POINTERS(matmul_bwd_input, dinp, dout, weight);
    const Key key = key_of(t, t, K, M, N);
    Operands x = {weight, dout, NULL, NULL, dinp, 1, 0};
    if (ends_so(&x, is_accumulated, epilogue)) {
        product(dev, key, &x);
    } else {
        matmul_bwd_input_cuda(dev, t, dinp, dout, weight, packed, M, N, K, is_accumulated,
                              epilogue);
    }
}

// The library's bias gradient is assigned, not added: that sum stays ours.
extern "C" void matmul_bwd_weight_cublaslt(Device *dev, DType t, float *dweight, float *dbias,
                                           const void *dout, const void *inp, int M, int N, int K) {
    CHECK_POINTERS(matmul_bwd_weight, dout, inp);
    if (dweight) {
        Key key = key_of(t, DT_F32, K, N, M);
        key.is_b_transposed = true;
        const Operands x = {inp, dout, NULL, dweight, dweight, 1, 1};
        product(dev, key, &x);
    }
    if (dbias) {
        matmul_bwd_weight_cuda(dev, t, NULL, dbias, dout, inp, M, N, K);
    }
}

extern "C" void cublaslt_take_over(Device *dev) {
    static Ops ops;
    CHECK(lt.handle, "cublaslt_open comes first");
    ops = *device_ops(dev);
    ops.matmul_fwd = matmul_fwd_cublaslt;
    ops.matmul_bwd_input = matmul_bwd_input_cublaslt;
    ops.matmul_bwd_weight = matmul_bwd_weight_cublaslt;
    dev->ops = &ops;
}
