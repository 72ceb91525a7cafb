// peer_onednn: oneDNN 2 by dlopen; see peer_onednn.h. The types come from its header, the functions
// from the library when the program runs. Version 3 changed the interface and is not loaded.
#include "bench/peer_onednn.h"

#include <stdio.h>
#include <stdlib.h>

#include "bench/bench.h"

#if defined(__has_include)
#if __has_include(<dnnl.h>)
#include <dnnl.h>
#endif
#endif

#if defined(DNNL_VERSION_MAJOR) && DNNL_VERSION_MAJOR == 2
#include <dlfcn.h>
#include <omp.h>

// ---- the library ----
#define FUNCTIONS(X)                                                                               \
    X(engine_create)                                                                               \
    X(stream_create)                                                                               \
    X(stream_wait)                                                                                 \
    X(memory_desc_init_by_tag)                                                                     \
    X(memory_desc_get_size)                                                                        \
    X(matmul_desc_init)                                                                            \
    X(primitive_desc_create)                                                                       \
    X(primitive_desc_query_md)                                                                     \
    X(primitive_desc_destroy)                                                                      \
    X(reorder_primitive_desc_create)                                                               \
    X(primitive_create)                                                                            \
    X(primitive_execute)                                                                           \
    X(primitive_destroy)                                                                           \
    X(memory_create)                                                                               \
    X(memory_destroy)
static struct {
#define X(f) __typeof__(dnnl_##f) *f;
    FUNCTIONS(X)
#undef X
} api;
static dnnl_engine_t engine;
static dnnl_stream_t stream;

// Stops the bench: a failure here is a misuse of the library by this file.
#define DNNL_CHECK(call)                                                                           \
    do {                                                                                           \
        const dnnl_status_t status_ = (call);                                                      \
        CHECK(status_ == dnnl_success, "oneDNN says %d", (int)status_);                            \
    } while (0)

static bool load(void) {
    void *library = dlopen("libdnnl.so.2", RTLD_NOW | RTLD_LOCAL);
    bool is_whole = library != NULL;
#define X(f) is_whole = is_whole && (*(void **)&api.f = dlsym(library, "dnnl_" #f)) != NULL;
    FUNCTIONS(X)
#undef X
    if (!is_whole) {
        fprintf(stderr, "bench: no libdnnl.so.2, its columns are left out; apt-get install "
                        "libdnnl2\n");
        return false;
    }
    omp_set_num_threads(bench_threads()); // its threads are OpenMP's
    DNNL_CHECK(api.engine_create(&engine, dnnl_cpu, 0));
    DNNL_CHECK(api.stream_create(&stream, engine, dnnl_stream_default_flags));
    return true;
}

bool peer_onednn_open(void) {
    static bool was_tried, is_open;
    if (!was_tried) {
        was_tried = true;
        is_open = load();
    }
    return is_open;
}

// ---- products ----
struct PeerOnednn {
    dnnl_primitive_t run;
    dnnl_memory_t a, b, c;
    void *packed;
};

// b, given as (columns,depth) rows, in the form the product wants; its memory goes to out->packed.
static void pack(PeerOnednn *out, const dnnl_memory_desc_t *given, const dnnl_memory_desc_t *wanted,
                 void *b) {
    dnnl_primitive_desc_t form;
    dnnl_primitive_t reorder;
    dnnl_memory_t from;
    const size_t bytes = (api.memory_desc_get_size(wanted) + 63) / 64 * 64;
    out->packed = aligned_alloc(64, bytes);
    CHECK(out->packed, "bytes=%zu", bytes);
    DNNL_CHECK(api.memory_create(&from, given, engine, b));
    DNNL_CHECK(api.memory_create(&out->b, wanted, engine, out->packed));
    DNNL_CHECK(api.reorder_primitive_desc_create(&form, given, engine, wanted, engine, NULL));
    DNNL_CHECK(api.primitive_create(&reorder, form));
    const dnnl_exec_arg_t args[] = {{DNNL_ARG_FROM, from}, {DNNL_ARG_TO, out->b}};
    DNNL_CHECK(api.primitive_execute(reorder, stream, 2, args));
    DNNL_CHECK(api.stream_wait(stream));
    api.primitive_destroy(reorder);
    api.primitive_desc_destroy(form);
    api.memory_destroy(from);
}

PeerOnednn *peer_onednn_product_new(DType t, int rows, int columns, int depth, void *a, void *b,
                                    void *c) {
    const dnnl_data_type_t type = t == DT_F32 ? dnnl_f32 : dnnl_bf16;
    const dnnl_dims_t a_dims = {rows, depth}, b_dims = {depth, columns}, c_dims = {rows, columns};
    dnnl_memory_desc_t a_form, b_given, b_any, c_form;
    DNNL_CHECK(api.memory_desc_init_by_tag(&a_form, 2, a_dims, type, dnnl_ab));
    DNNL_CHECK(api.memory_desc_init_by_tag(&b_given, 2, b_dims, type, dnnl_ba));
    DNNL_CHECK(api.memory_desc_init_by_tag(&b_any, 2, b_dims, type, dnnl_format_tag_any));
    DNNL_CHECK(api.memory_desc_init_by_tag(&c_form, 2, c_dims, type, dnnl_ab));
    dnnl_matmul_desc_t desc;
    dnnl_primitive_desc_t form;
    DNNL_CHECK(api.matmul_desc_init(&desc, &a_form, &b_any, NULL, &c_form));
    if (api.primitive_desc_create(&form, &desc, NULL, engine, NULL) != dnnl_success) {
        return NULL; // bf16 without AVX-512
    }
    PeerOnednn *out = xcalloc(1, sizeof *out);
    DNNL_CHECK(api.primitive_create(&out->run, form));
    pack(out, &b_given, api.primitive_desc_query_md(form, dnnl_query_weights_md, 0), b);
    DNNL_CHECK(api.memory_create(&out->a, &a_form, engine, a));
    DNNL_CHECK(api.memory_create(&out->c, &c_form, engine, c));
    api.primitive_desc_destroy(form);
    return out;
}

void peer_onednn_run(void *product) {
    const PeerOnednn *p = product;
    const dnnl_exec_arg_t args[] = {
        {DNNL_ARG_SRC, p->a}, {DNNL_ARG_WEIGHTS, p->b}, {DNNL_ARG_DST, p->c}};
    api.primitive_execute(p->run, stream, 3, args);
    api.stream_wait(stream);
}

void peer_onednn_free(PeerOnednn *product) {
    if (product) {
        api.primitive_destroy(product->run);
        api.memory_destroy(product->a);
        api.memory_destroy(product->b);
        api.memory_destroy(product->c);
        free(product->packed);
        free(product);
    }
}

#else // built without oneDNN's header

bool peer_onednn_open(void) {
    static bool was_said;
    if (!was_said) {
        was_said = true;
        fprintf(stderr, "bench: built without oneDNN 2, its columns are left out; apt-get install "
                        "libdnnl-dev and build again\n");
    }
    return false;
}

PeerOnednn *peer_onednn_product_new(DType t, int rows, int columns, int depth, void *a, void *b,
                                    void *c) {
    (void)t, (void)rows, (void)columns, (void)depth, (void)a, (void)b, (void)c;
    return NULL;
}
void peer_onednn_run(void *product) { (void)product; }
void peer_onednn_free(PeerOnednn *product) { (void)product; }
#endif
