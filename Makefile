# jomed. `make` builds what this machine allows and says what it left out; `make help` lists the rest.

# ---- knobs ----
CC       ?= cc
BUILD    ?= build
DEBUG    ?= 0
SAN      ?=
# The CPU backend wants AVX2, FMA and F16C on x86-64 (2013 or newer); CPUFLAGS= builds a portable, slow one.
CPUFLAGS ?= $(if $(filter x86_64,$(shell uname -m)),-march=x86-64-v3,)

# ---- probes ----
PKG      := $(shell command -v pkg-config 2>/dev/null)
REQUIRED := yaml-0.1 libpng zlib libjpeg jansson libutf8proc
MISSING  := $(strip $(if $(PKG),$(foreach p,$(REQUIRED),$(if $(shell pkg-config --exists $(p) && echo y),,$(p))),pkg-config))
# nvcc of the PATH, else the toolkit's that CUDA_HOME names.
CUDA_HOME ?= /usr/local/cuda
NVCC     := $(firstword $(shell command -v nvcc 2>/dev/null) $(wildcard $(CUDA_HOME)/bin/nvcc))
GXX      := $(shell command -v g++ 2>/dev/null)
STRACE   := $(shell command -v strace 2>/dev/null)
has       = $(if $(wildcard $(1)),y,)
OPENBLAS := $(call has,/usr/include/*/cblas-openblas.h /usr/include/*/openblas*/cblas.h)
DNNL     := $(call has,/usr/include/dnnl.h /usr/include/*/dnnl.h)

# ---- flags ----
WARN     := -Wall -Wextra -Wshadow -Wmissing-prototypes -Wstrict-prototypes -Wvla
OPT      := $(if $(filter 1,$(DEBUG)),-O0 -g3,-O3 -g1)
# No fast-math: order of sums and NaN are part of the contracts. -ffp-contract=off: a fused multiply-add
# happens where the source says fmaf, and nowhere else.
CFLAGS   += -std=c11 $(WARN) $(OPT) $(CPUFLAGS) -ffp-contract=off -fno-math-errno -fno-trapping-math \
            -fopenmp -I. -MMD -MP $(if $(PKG),$(shell pkg-config --cflags $(REQUIRED) 2>/dev/null))
LDLIBS   += $(if $(PKG),$(shell pkg-config --libs $(REQUIRED) 2>/dev/null)) -lm -ldl
# $ORIGIN/../lib: where a bundle has its libraries (tools/gpu_bundle.sh).
LDFLAGS  += -fopenmp -Wl,-rpath,'$$ORIGIN/../lib'
ifneq ($(SAN),)
CFLAGS   += -fsanitize=$(SAN) -fno-sanitize-recover=all -fno-omit-frame-pointer -O1 \
            -DIS_SLOW_BUILD
LDFLAGS  += -fsanitize=$(SAN)
BUILD    := build/san
endif

# Kernels by nvcc: sm_80 with PTX, so that it runs on every later card, and sm_90a for what only
# Hopper has. As on the CPU, nothing is contracted.
NVFLAGS  := -std=c++17 -O3 -fmad=false -lineinfo -I. -Werror all-warnings -Xcompiler -Wall,-Wextra -Xptxas -v \
            -gencode arch=compute_80,code=[sm_80,compute_80] -gencode arch=compute_90a,code=sm_90a
NVLIBS   := $(if $(NVCC),$(shell $(NVCC) --dryrun x.cu 2>&1 | sed -n 's/.*LIBRARIES= *//p') -lcudart_static -lrt -lpthread -lstdc++)
# Kernels by g++ for the emulator. check: the compiler calls us before every access (-fsanitize=thread
# without its library), and register copies stay whole (-fno-tree-sra); asan; plain.
EMU       ?= $(if $(SAN),asan,check)
EMUFLAGS  := -std=c++20 -Wall -Wextra -Wno-sign-compare -Wno-psabi -g1 -ffp-contract=off $(CPUFLAGS) -I. -Itests/emu -MMD -MP
EMU_plain := -O2
EMU_asan  := -O1 -fsanitize=address,undefined -fno-sanitize=vptr -fno-sanitize-recover=all
EMU_check := -O1 -fno-tree-sra -ftrivial-auto-var-init=pattern -fsanitize=thread,undefined -fno-sanitize=vptr \
             -fno-sanitize-recover=all --param tsan-instrument-func-entry-exit=0
EMURUN_plain := -O2 -Wshadow
EMURUN_asan  := -O1 -Wshadow -fsanitize=address
EMURUN_check := -O2 -Wshadow -DEMU_CHECK
EMULIBS      := $(if $(GXX),-lstdc++ $(if $(SAN),,-lubsan))

FLAGS    := $(CFLAGS)

# Commit and flags, for --version and the run directories; only host/version.c is rebuilt when they change.
COMMIT   := $(shell git describe --always --dirty=+changes --abbrev=12 2>/dev/null || echo unknown)
VERSION  := -DJOMED_COMMIT='"$(COMMIT)"' -DJOMED_FLAGS='"$(CPUFLAGS) $(if $(SAN),SAN=$(SAN))"'

# ---- sources ----
LIB   := $(wildcard kernels/*.c) $(wildcard models/*.c) $(filter-out host/main.c,$(wildcard host/*.c))
FUZZ  := $(wildcard tests/fuzz/fuzz_*.c)
TESTS := $(wildcard tests/*.c) $(FUZZ)
BENCH := $(wildcard bench/*.c)
obj    = $(patsubst %.c,$(BUILD)/%.o,$(1))
CU     := $(wildcard kernels/*.cu)
CUDA   := $(if $(NVCC),$(CU:%=$(BUILD)/%.o))
CUDA_TESTS := $(if $(NVCC),$(patsubst %,$(BUILD)/%.o,$(wildcard tests/emu/*.cu)))
# Everything but the vendors' libraries runs in the emulator; tests/emu/ has kernels of its own.
EMU_CU := $(filter-out kernels/vendor_%,$(CU)) $(wildcard tests/emu/*.cu) bad.cu
emu     = $(if $(GXX),$(patsubst %,$(BUILD)/emu-$(1)/%.o,$(EMU_CU) $(wildcard tests/emu/*.cpp)))
BINS  := $(BUILD)/bin/jomed $(BUILD)/bin/test $(BUILD)/bin/bench $(if $(GXX),$(BUILD)/bin/bench-emu)

# ---- rules ----
.PHONY: all test test-emu test-gpu gpu-bundle emu-lint fuzz fuzz-bins test-oracle demo bench check readme deps help clean report-parts
.PHONY: record record-test record-demo record-bench record-real
all: report-parts $(BINS)

$(BUILD)/bin/jomed: $(call obj,$(LIB) host/main.c) $(CUDA)
$(BUILD)/bin/test:  $(call obj,$(LIB) $(TESTS)) $(CUDA) $(CUDA_TESTS) $(call emu,$(EMU))
$(BUILD)/bin/bench: $(call obj,$(LIB) $(BENCH)) $(CUDA)
$(BUILD)/bin/bench-emu: $(call obj,$(LIB) $(BENCH)) $(CUDA) $(call emu,$(EMU))
$(BUILD)/bin/test-plain: $(call obj,$(LIB) $(TESTS)) $(CUDA) $(CUDA_TESTS) $(call emu,plain)
$(BINS) $(BUILD)/bin/test-plain: LDLIBS += $(NVLIBS)
$(BUILD)/bin/test $(BUILD)/bin/test-plain $(BUILD)/bin/bench-emu: LDLIBS += $(EMULIBS)
$(BINS) $(BUILD)/bin/test-plain:
	@mkdir -p $(@D)
	@echo "LINK  $@"
	@$(CC) $(LDFLAGS) -o $@ $^ $(LDLIBS)

# Whoever changes compiler or flags rebuilds everything.
$(BUILD)/%.o: %.c $(BUILD)/flags.txt
	@mkdir -p $(@D)
	@echo "CC    $<"
	@$(CC) $(CFLAGS) -c -o $@ $<
$(BUILD)/%.cu.o: %.cu $(BUILD)/nvflags.txt
	@mkdir -p $(@D)
	@echo "NVCC  $<"
	@$(NVCC) $(NVFLAGS) -MD -MF $(@:.o=.d) -c -o $@ $< > $(@:.o=.ptxas) 2>&1 || { cat $(@:.o=.ptxas); false; }
	@tools/check_ptxas.sh $< $(@:.o=.ptxas) || { rm $@; false; }
# The kernels with mistakes as one source, each in a namespace.
$(BUILD)/bad.cu: $(wildcard tests/emu/bad/*.cu)
	@mkdir -p $(@D)
	@(echo '#include "tests/emu/bad.h"'; for f in $^; do printf 'namespace bad_%s {\n#include "%s"\n}\n' $$(basename $$f .cu) $$f; done) > $@
define EMU_RULES
$(BUILD)/emu-$(1)/%.cu.o: %.cu $(BUILD)/emuflags.txt
	@mkdir -p $$(@D)
	@echo "EMU   $$<"
	@$(GXX) $(EMUFLAGS) $(EMU_$(1)) -x c++ -include tests/emu/cuda_emu.h -c -o $$@ $$<
$(BUILD)/emu-$(1)/%.cu.o: $(BUILD)/%.cu $(BUILD)/emuflags.txt
	@mkdir -p $$(@D)
	@echo "EMU   $$<"
	@$(GXX) $(EMUFLAGS) $(EMU_$(1)) -x c++ -include tests/emu/cuda_emu.h -c -o $$@ $$<
$(BUILD)/emu-$(1)/%.cpp.o: %.cpp $(BUILD)/emuflags.txt
	@mkdir -p $$(@D)
	@echo "CXX   $$<"
	@$(GXX) $(EMUFLAGS) $(EMURUN_$(1)) -c -o $$@ $$<
endef
$(foreach mode,check asan plain,$(eval $(call EMU_RULES,$(mode))))
$(BUILD)/host/version.o: CFLAGS += $(VERSION)
$(BUILD)/host/version.o: $(BUILD)/version.txt
$(BUILD)/version.txt: STAMP = $(COMMIT) $(CPUFLAGS) $(SAN)
$(BUILD)/flags.txt: STAMP = $(CC) $(FLAGS)
$(BUILD)/nvflags.txt: STAMP = $(NVFLAGS)
$(BUILD)/emuflags.txt: STAMP = $(EMUFLAGS) $(foreach m,check asan plain,$(EMU_$(m)) $(EMURUN_$(m)))
$(BUILD)/version.txt $(BUILD)/flags.txt $(BUILD)/nvflags.txt $(BUILD)/emuflags.txt: FORCE
	@mkdir -p $(@D)
	@echo '$(STAMP)' | cmp -s - $@ || echo '$(STAMP)' > $@
FORCE:
-include $(patsubst %.o,%.d,$(call obj,$(LIB) host/main.c $(TESTS) $(BENCH)) $(CUDA) $(CUDA_TESTS) $(foreach m,check asan plain,$(call emu,$(m))))

report-parts:
	@$(if $(and $(findstring nvcc,$(REQUIRE)),$(if $(NVCC),,missing)),echo "✗ nvcc is not there but REQUIRE names it"; exit 69)
	@$(if $(MISSING),echo "✗ required: $(MISSING) -> tools/bootstrap.sh deps"; exit 69,echo "✓ required libraries")
	@$(if $(NVCC),echo "✓ nvcc: $(NVCC) (CUDA backend)",echo "✗ nvcc (CUDA backend) -> CUDA toolkit 13; nvcc on PATH, or CUDA_HOME=DIR")
	@$(if $(GXX),echo "✓ g++ (CUDA kernels in the emulator)",echo "✗ g++ (CUDA kernels in the emulator) -> tools/bootstrap.sh test")
	@$(if $(STRACE),echo "✓ strace (tests of failing system calls)",echo "✗ strace (tests of failing system calls) -> tools/bootstrap.sh test")
	@$(if $(OPENBLAS),echo "✓ OpenBLAS (bench peer)",echo "✗ OpenBLAS (bench peer) -> apt-get install libopenblas-dev")
	@$(if $(DNNL),echo "✓ oneDNN (bench peer)",echo "✗ oneDNN (bench peer) -> apt-get install libdnnl-dev")

test: all
	$(BUILD)/bin/test
	$(if $(GXX),$(BUILD)/bin/test backend=emu)

# The emulator's other builds, other orders of threads, early copies, the older architecture, large
# cases: parts of their own, the longest first, as many at a time as JOBS. All run, whatever fails.
JOBS ?= $(shell nproc 2>/dev/null || echo 2)
EMU_PARTS := emu-plain-programs emu-check-ops emu-asan emu-order emu-plain emu-check emu-sm80
.PHONY: $(EMU_PARTS)
test-emu:
	+$(MAKE) -j$(JOBS) all $(BUILD)/bin/test-plain
	+$(MAKE) -j$(JOBS) NVCC= SAN=address,undefined build/san/bin/test build/san/bin/jomed
	+$(MAKE) -j$(JOBS) -k -Otarget $(EMU_PARTS)
	@echo "test-emu: $(words $(EMU_PARTS)) parts passed"
emu-plain-programs:
	EMU_ORDER=random:1 $(BUILD)/bin/test-plain backend=emu large=1 part=programs
emu-plain:
	EMU_ORDER=random:1 $(BUILD)/bin/test-plain backend=emu large=1 part=ops
	EMU_ORDER=random:1 $(BUILD)/bin/test-plain backend=emu large=1 part=models
emu-check-ops:
	$(BUILD)/bin/test backend=emu large=1 part=ops
emu-check:
	$(BUILD)/bin/test backend=emu part=models
	$(BUILD)/bin/test backend=emu part=programs
emu-order:
	EMU_ORDER=reverse EMU_COPIES=early $(BUILD)/bin/test backend=emu
emu-sm80:
	for op in matmul attention topk; do EMU_ARCH=sm80 $(BUILD)/bin/test backend=emu $$op || exit; done
emu-asan:
	build/san/bin/test backend=emu

# Everything that wants a GPU; and the same packed for a machine where nothing can be installed.
test-gpu: all
	@BUILD=$(BUILD) CUDA_HOME=$(CUDA_HOME) tools/test_gpu.sh $(STAGES)
gpu-bundle: all
	@BUILD=$(BUILD) tools/gpu_bundle.sh

# Sectors and bank passes of the emulated kernels of one op, against the least: make emu-lint LINT=topk
emu-lint: all
	@EMU_LINT=1 $(BUILD)/bin/test $(LINT) backend=emu 2>&1 | awk '\
	    /^lint / { key = sprintf("%-40s %-6s %2d bytes", $$2, $$3, $$4); n[key] += $$5; units[key] += $$6; least[key] += $$7 } \
	    END { for (key in n) printf "%5.2fx  %s  %d instructions\n", units[key] / least[key], key, n[key] }' | sort -rn

demo: all
	$(BUILD)/bin/jomed demo

# make bench backend=cuda [ONLY=matmul]: on a GPU, beside its peers, into a record.
bench: all
	$(if $(filter cuda,$(backend)),BUILD=$(BUILD) tools/bench_gpu.sh only=$(ONLY),\
	    $(BUILD)/bin/bench seconds=0.2 json=$(BUILD)/bench.json)

# libFuzzer on every parser in turn: make fuzz SECONDS=600 [FUZZ_ONLY=png]
SECONDS   ?= 600
FUZZ_CC   ?= $(firstword $(shell command -v clang-14) $(shell command -v clang))
FUZZ_BINS := $(patsubst tests/fuzz/%.c,$(BUILD)/bin/%,$(FUZZ))
fuzz:
	@$(if $(FUZZ_CC),,echo "✗ clang (libFuzzer) -> apt-get install clang-14 libclang-rt-14-dev"; exit 69)
	@$(MAKE) --no-print-directory CC=$(FUZZ_CC) BUILD=build/fuzz SAN=fuzzer-no-link,address,undefined NVCC= \
	    WARN='$(WARN) -Wno-pass-failed' fuzz-bins
	@tools/fuzz.sh build/fuzz $(SECONDS) $(FUZZ_ONLY)
fuzz-bins: $(FUZZ_BINS)
build/fuzz/tests/fuzz/%.o: CFLAGS += -DFUZZER
$(FUZZ_BINS): $(BUILD)/bin/fuzz_%: $(BUILD)/tests/fuzz/fuzz_%.o $(call obj,$(LIB))
	@mkdir -p $(@D)
	@echo "LINK  $@"
	@$(CC) $(LDFLAGS) -fsanitize=fuzzer -o $@ $^ $(LDLIBS)

# Against the Python packages that the originals live in; installs them below $(BUILD).
test-oracle: all
	@BUILD=$(BUILD) tools/test_oracle.sh $(ORACLE)

# Static checks; needs no build.
check:
	@tools/check.sh

# A record says where it comes from and is committed; what readme writes comes from records alone.
record-test record-demo record-bench record-real: record-%: all
	@BUILD=$(BUILD) tools/record.sh $*
record: record-test record-bench record-demo record-real
	@$(MAKE) --no-print-directory readme
readme:
	@tools/readme_numbers.sh
	@tools/bench_bars.sh
	@tools/verification_table.sh

help:
	@echo "make            build what this machine allows, and say what it left out"
	@echo "make test       ops, models, host and programs on the CPU"
	@echo "make test-emu   CUDA kernels in all builds of the emulator, thread orders, large cases"
	@echo "make test-gpu   STAGES='ops models demo sanitizer bench': everything that wants a GPU"
	@echo "make gpu-bundle  the same packed for a machine where nothing can be installed"
	@echo "make emu-lint   LINT=op: memory accesses of its CUDA kernels against the least"
	@echo "make demo       the embedded benchmark, three seeds"
	@echo "make bench      kernels and models beside their peers, rows also in $(BUILD)/bench.json"
	@echo "make bench backend=cuda  ONLY=matmul: the same on a GPU, at the real models' sizes, into bench/results"
	@echo "make fuzz       SECONDS=600: libFuzzer on every parser in turn (clang)"
	@echo "make test-oracle  live against PyTorch's models; ORACLE='jina-text=DIR data=DIR'"
	@echo "make check      layout, sizes, includes, stale numbers"
	@echo "make record     run tests, bench and demo, keep their summaries (record-test, -bench, -demo)"
	@echo "make readme     rewrite the numbers of README.md and tests/README.md from recorded runs"
	@echo "make deps       install the libraries"
	@echo "make clean      remove build/"
	@echo "knobs: DEBUG=1  SAN=address,undefined  CC=clang-14  CPUFLAGS="

deps:
	@tools/bootstrap.sh deps

clean:
	rm -rf build
