// doctor: what this machine has for us, line by line: "ok", "--" for optional things that are
// absent with what they would give, "!!" for what will stop a run. Makes the directories the
// configuration names and tries a file in each. Exit code 0, or 73 when one of them cannot be
// written.
#define _GNU_SOURCE // environ, sched_getaffinity
#if defined(__x86_64__)
#include <cpuid.h>
#endif
#include <dlfcn.h>
#include <inttypes.h>
#include <jansson.h>
#include <jpeglib.h>
#include <omp.h>
#include <png.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <utf8proc.h>
#include <yaml.h>
#include <zlib.h>

#include "file.h"
#include "settings.h"
#include "verbs.h"
#include "version.h"

#define TEXT_OF(x) #x
#define VALUE_OF(x) TEXT_OF(x)

static void row(const char *mark, const char *what, const char *value) {
    printf("%s  %-22s %s\n", mark, what, value);
}

// ---- libraries ----
// The headers we were built with and the library that was loaded should be of one make.
static void compare(const char *what, const char *built, const char *loaded) {
    char value[128];
    const bool is_same = strcmp(built, loaded) == 0;
    snprintf(value, sizeof value, is_same ? "%s" : "%s, built with %s", loaded, built);
    row(is_same ? "ok" : "--", what, value);
}

static void print_libraries(void) {
    char built[32];
    row("ok", "libyaml", yaml_get_version_string());
    compare("libpng", PNG_LIBPNG_VER_STRING, png_get_libpng_ver(NULL));
    compare("zlib", ZLIB_VERSION, zlibVersion());
#ifdef LIBJPEG_TURBO_VERSION
    row("ok", "libjpeg-turbo",
        VALUE_OF(LIBJPEG_TURBO_VERSION) " (jpeglib.h " VALUE_OF(JPEG_LIB_VERSION) ")");
#else
    row("--", "libjpeg",
        VALUE_OF(JPEG_LIB_VERSION) ", not libjpeg-turbo: pixels may differ by a level");
#endif
    compare("jansson", JANSSON_VERSION, jansson_version_str());
    snprintf(built, sizeof built, "%d.%d.%d", UTF8PROC_VERSION_MAJOR, UTF8PROC_VERSION_MINOR,
             UTF8PROC_VERSION_PATCH);
    compare("utf8proc", built, utf8proc_version());
    row("ok", "OpenMP", VALUE_OF(_OPENMP));
}

static void print_optional(void) {
    static const struct {
        const char *what, *library, *use;
    } optional[] = {
        {"CUDA driver", "libcuda.so.1", "device=cuda"},
        {"cuBLASLt", "libcublasLt.so.13", "an alternative matmul, and a bench peer"},
        {"cuDNN", "libcudnn.so.9", "a bench peer"},
        {"NCCL", "libnccl.so.2", "comm=nccl"},
        {"OpenBLAS", "libopenblas.so.0", "a bench peer"},
        {"oneDNN", "libdnnl.so.2", "a bench peer"},
    };
    for (size_t i = 0; i < sizeof optional / sizeof *optional; i++) {
        void *handle = dlopen(optional[i].library, RTLD_LAZY | RTLD_LOCAL);
        char value[128];
        snprintf(value, sizeof value, handle ? "%s" : "no %s; would give: %s", optional[i].library,
                 optional[i].use);
        row(handle ? "ok" : "--", optional[i].what, value);
    }
}

// ---- machine ----
static void print_gpu(const Config *config) {
    char why[200];
    if (!device_is_there(DEVICE_CUDA, 0, why, sizeof why)) {
        row("--", "GPU", why);
        return;
    }
    Device *dev = device_of_kind(config, DEVICE_CUDA, 1);
    char value[200];
    snprintf(value, sizeof value, "%s; kernels of sm_%d", device_name(dev), device_arch(dev));
    row("ok", "GPU", value);
    device_free(dev);
}

static void print_cpu(const Config *config) {
    char value[256] = "";
#if defined(__x86_64__)
    __builtin_cpu_init();
#define FEATURE(name)                                                                   \
    do {                                                                                \
        if (__builtin_cpu_supports(name)) {                                             \
            snprintf(value + strlen(value), sizeof value - strlen(value), "%s ", name); \
        }                                                                               \
    } while (0)
    FEATURE("avx2");
    FEATURE("fma");
    FEATURE("avx512f");
    FEATURE("avx512bw");
    unsigned a, b, c, d; // f16c: clang's builtin does not know the name
    if (__get_cpuid(1, &a, &b, &c, &d) && c & bit_F16C) {
        snprintf(value + strlen(value), sizeof value - strlen(value), "f16c ");
    }
    const bool is_fast = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    row(is_fast ? "ok" : "--", "CPU features", is_fast ? value : "no AVX2; build with CPUFLAGS=");
#else
    row("--", "CPU features", "not x86-64: the portable kernels");
#endif
    cpu_set_t set;
    const int usable = sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : -1;
    snprintf(value, sizeof value, "%d used, %d of %ld CPUs allowed to us",
             config->threads ? config->threads : omp_get_max_threads(), usable,
             sysconf(_SC_NPROCESSORS_ONLN));
    row("ok", "threads", value);
    const double page = (double)sysconf(_SC_PAGESIZE) / (1 << 30);
    snprintf(value, sizeof value, "%.1f GiB, %.1f GiB free", page * (double)sysconf(_SC_PHYS_PAGES),
             page * (double)sysconf(_SC_AVPHYS_PAGES));
    row("ok", "memory", value);
}

static bool print_directory(const char *key, const char *path) {
    char value[400];
    const Error error = file_check_writable(path);
    if (error.code != EXIT_OK) {
        snprintf(value, sizeof value, "'%.150s': %.200s", path, error.text);
        row("!!", key, value);
        return false;
    }
    snprintf(value, sizeof value, "'%.200s' can be written, %.1f GiB free", path,
             (double)file_free_bytes(path) / (1 << 30));
    row("ok", key, value);
    return true;
}

// ---- launcher ----
static void print_launcher(void) {
    static const char *const prefixes[] = {"SLURM_PROCID=",
                                           "SLURM_NTASKS=",
                                           "SLURM_STEP_ID=",
                                           "SLURM_JOB_ID=",
                                           "SLURM_LOCALID=",
                                           "SLURM_STEP_NODELIST=",
                                           "SLURM_RESTART_COUNT=",
                                           "RANK=",
                                           "WORLD_SIZE=",
                                           "LOCAL_RANK=",
                                           "MASTER_ADDR=",
                                           "MASTER_PORT=",
                                           "OMPI_COMM_WORLD_RANK=",
                                           "OMPI_COMM_WORLD_SIZE=",
                                           "PMI_RANK=",
                                           "PMI_SIZE=",
                                           "CUDA_VISIBLE_DEVICES="};
    int found = 0;
    for (char **e = environ; *e; e++) {
        for (size_t i = 0; i < sizeof prefixes / sizeof *prefixes; i++) {
            if (strncmp(*e, prefixes[i], strlen(prefixes[i])) == 0) {
                row("ok", "launcher", *e);
                found++;
            }
        }
    }
    if (!found) {
        row("--", "launcher", "no Slurm, torchrun or mpirun variables: one process");
    }
    if (getenv("SLURM_JOB_ID") && !getenv("SLURM_STEP_ID")) {
        row("!!", "launcher",
            "inside a Slurm job but not in a step: start with srun, or it is one process");
    }
}

int cmd_doctor(const Config *config) {
    printf("jomed %s, commit %s, %s\n", version_text, version_commit, version_build);
    print_libraries();
    print_optional();
    print_cpu(config);
    print_gpu(config);
    bool is_writable = print_directory("run.dir", config->run.dir[0] ? config->run.dir : ".");
    if (config->index.dir[0]) {
        is_writable &= print_directory("index.dir", config->index.dir);
    }
    if (config->score_store.dir[0]) {
        is_writable &= print_directory("score_store.dir", config->score_store.dir);
    }
    print_launcher();
    return is_writable ? EXIT_OK : EXIT_NO_OUTPUT;
}
