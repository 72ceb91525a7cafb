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
NVCC     := $(shell command -v nvcc 2>/dev/null)
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
LDFLAGS  += -fopenmp
ifneq ($(SAN),)
CFLAGS   += -fsanitize=$(SAN) -fno-sanitize-recover=all -fno-omit-frame-pointer -O1 \
            -DIS_SLOW_BUILD
LDFLAGS  += -fsanitize=$(SAN)
BUILD    := build/san
endif

FLAGS    := $(CFLAGS)

# Commit and flags, for --version and the run directories; only host/version.c is rebuilt when they change.
COMMIT   := $(shell git describe --always --dirty=+changes --abbrev=12 2>/dev/null || echo unknown)
VERSION  := -DJOMED_COMMIT='"$(COMMIT)"' -DJOMED_FLAGS='"$(CPUFLAGS) $(if $(SAN),SAN=$(SAN))"'

# ---- sources ----
LIB   := $(wildcard kernels/*.c) $(wildcard models/*.c) $(filter-out host/main.c,$(wildcard host/*.c))
TESTS := $(wildcard tests/*.c)
BENCH := $(wildcard bench/*.c)
obj    = $(patsubst %.c,$(BUILD)/%.o,$(1))
BINS  := $(BUILD)/bin/jomed $(BUILD)/bin/test $(BUILD)/bin/bench

# ---- rules ----
.PHONY: all test demo bench check readme deps help clean report-parts
.PHONY: record record-test record-demo record-bench record-real
all: report-parts $(BINS)

$(BUILD)/bin/jomed: $(call obj,$(LIB) host/main.c)
$(BUILD)/bin/test:  $(call obj,$(LIB) $(TESTS))
$(BUILD)/bin/bench: $(call obj,$(LIB) $(BENCH))
$(BINS):
	@mkdir -p $(@D)
	@echo "LINK  $@"
	@$(CC) $(LDFLAGS) -o $@ $^ $(LDLIBS)

# Whoever changes compiler or flags rebuilds everything.
$(BUILD)/%.o: %.c $(BUILD)/flags.txt
	@mkdir -p $(@D)
	@echo "CC    $<"
	@$(CC) $(CFLAGS) -c -o $@ $<
$(BUILD)/host/version.o: CFLAGS += $(VERSION)
$(BUILD)/host/version.o: $(BUILD)/version.txt
$(BUILD)/version.txt: STAMP = $(COMMIT) $(CPUFLAGS) $(SAN)
$(BUILD)/flags.txt: STAMP = $(CC) $(FLAGS)
$(BUILD)/version.txt $(BUILD)/flags.txt: FORCE
	@mkdir -p $(@D)
	@echo '$(STAMP)' | cmp -s - $@ || echo '$(STAMP)' > $@
FORCE:
-include $(patsubst %.o,%.d,$(call obj,$(LIB) host/main.c $(TESTS) $(BENCH)))

report-parts:
	@$(if $(MISSING),echo "✗ required: $(MISSING) -> tools/bootstrap.sh deps"; exit 69,echo "✓ required libraries")
	@$(if $(NVCC),echo "✓ nvcc: $(NVCC) (there are no CUDA kernels yet)",echo "✗ nvcc (there are no CUDA kernels yet) -> CUDA toolkit 13, nvcc on PATH")
	@$(if $(STRACE),echo "✓ strace (tests of failing system calls)",echo "✗ strace (tests of failing system calls) -> tools/bootstrap.sh test")
	@$(if $(OPENBLAS),echo "✓ OpenBLAS (bench peer)",echo "✗ OpenBLAS (bench peer) -> apt-get install libopenblas-dev")
	@$(if $(DNNL),echo "✓ oneDNN (bench peer)",echo "✗ oneDNN (bench peer) -> apt-get install libdnnl-dev")

test: all
	$(BUILD)/bin/test

demo: all
	$(BUILD)/bin/jomed demo

bench: all
	$(BUILD)/bin/bench seconds=0.2 json=$(BUILD)/bench.json

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
	@tools/verification_table.sh

help:
	@echo "make            build what this machine allows, and say what it left out"
	@echo "make test       ops, models, host and programs on the CPU"
	@echo "make demo       the embedded benchmark, three seeds"
	@echo "make bench      kernels and models beside their peers, rows also in $(BUILD)/bench.json"
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
