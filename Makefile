# vampd. `make` alone lists the targets; tools/bootstrap TARGET installs what a target needs first.

MAKEFLAGS += --no-builtin-rules

BUILD ?= build
ifeq ($(origin CC),default)
CC := gcc
endif
PKG_CONFIG ?= pkg-config
PYTHON ?= /usr/bin/python3
# Formatting is that of version 14: others differ in detail.
CLANG_FORMAT ?= $(shell command -v clang-format-14 || echo clang-format)
CLANG_TIDY ?= clang-tidy
CLANG ?= clang
PREFIX ?= /usr/local
SYSCONFDIR ?= /etc
UNITDIR ?= $(PREFIX)/lib/systemd/system
# One short line for each file made; V=1 shows the commands.
V ?=
say = $(if $(V),,@printf '  %-4s  %s\n' $(1) $@ && )
# Sanitizers, coverage and the like: make build BUILD=build-asan SANITIZE=address,undefined
SANITIZE ?=

WARN := -Wall -Wextra -Wpedantic -Werror -Wshadow -Wstrict-prototypes -Wmissing-prototypes \
        -Wpointer-arith -Wwrite-strings -Wvla -Wformat=2
ENGINE_LIBS := sndfile soxr libebur128 jansson cairo
SERVER_LIBS := libmicrohttpd sqlite3 inih libsodium libseccomp libarchive

CFLAGS ?= -O2 -g
override CFLAGS += -std=c11 -D_GNU_SOURCE $(WARN) -Iinclude -I. -fPIC -pthread -fopenmp-simd -fno-math-errno
override LDFLAGS += -pthread
ifneq ($(SANITIZE),)
# Instrumented code misleads what the compiler believes about the lengths of strings.
override CFLAGS += -Wno-format-truncation -Wno-maybe-uninitialized
override CFLAGS += -fsanitize=$(SANITIZE) -fno-sanitize-recover=all -fno-omit-frame-pointer
export LSAN_OPTIONS := suppressions=$(CURDIR)/tests/leaks.supp:print_suppressions=0
override LDFLAGS += -fsanitize=$(SANITIZE)
endif

pkg_cflags = $(shell $(PKG_CONFIG) --cflags $(1) 2>/dev/null)
pkg_libs = $(shell $(PKG_CONFIG) --libs $(1) 2>/dev/null)
ENGINE_LINK = $(call pkg_libs,$(ENGINE_LIBS)) -lm
LIBS = $(ENGINE_LINK) -ldnnl -lgomp -ldl
override CFLAGS += $(call pkg_cflags,$(ENGINE_LIBS) $(SERVER_LIBS))

# One room, one folder: every .c in it is built. The command line is engine's front door.
ENGINE_SRC := $(wildcard engine/*/*.c)
CPU_SRC := $(wildcard cpu/*.c)
SERVER_SRC := $(filter-out server/main.c,$(wildcard server/*.c server/*/*.c))
VAMP_SRC := $(wildcard vamp/*.c)
UNIT_SRC := $(wildcard tests/unit/test_*.c)
FUZZ_SRC := $(wildcard tests/fuzz/fuzz_*.c)
ALL_SRC := $(wildcard include/*/*.h engine/*/*.[ch] cpu/*.[ch] server/*.[ch] server/*/*.[ch] vamp/*.[ch] tests/*/*.[ch] tools/*/*.c \
            cuda/*.cu cuda/*.cuh cuda/*.h tests/cuda/*.cu tests/cuda/emulator/*.cc tests/cuda/emulator/*.h \
            tests/cuda/emulator/include/*.h)

# cpu/simd.c is the vectorised kernels: the same source, once for each instruction set.
ifeq ($(shell uname -m),x86_64)
SIMD_SETS := baseline avx2 avx512 avx512bf16
else
SIMD_SETS := baseline
endif
SIMD_FLAGS_baseline :=
SIMD_FLAGS_avx2 := -mavx2 -mfma -mf16c
SIMD_FLAGS_avx512 := -mavx512f -mavx512bw -mavx512dq -mavx512vl -mfma -mprefer-vector-width=512
SIMD_FLAGS_avx512bf16 := $(SIMD_FLAGS_avx512) -mavx512bf16
CPU_SRC := $(filter-out cpu/simd.c,$(CPU_SRC))
SIMD_OBJ := $(SIMD_SETS:%=$(BUILD)/obj/cpu/simd_%.o)

obj = $(1:%.c=$(BUILD)/obj/%.o)
LIB_OBJ := $(call obj,$(ENGINE_SRC) $(CPU_SRC)) $(SIMD_OBJ)
LIB := $(BUILD)/libvamp.a
UNIT_BIN := $(UNIT_SRC:tests/unit/%.c=$(BUILD)/tests/%)

# The CUDA backend is a plugin, built by nvcc for devices and by g++ against an emulator for tests.
CUDA_SRC := $(wildcard cuda/*.cu)
EMULATOR_SRC := $(wildcard tests/cuda/emulator/*.cc)

.DEFAULT_GOAL := help
.SECONDARY:
.DELETE_ON_ERROR:

help: ## this list
	@grep -hE '^[a-z][a-z-]*:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 16

build: $(BUILD)/vamp $(BUILD)/vampd ## the binaries vamp and vampd, into build/

$(BUILD)/obj/%.o: %.c
	@mkdir -p $(@D)
	$(call say,CC)$(CC) $(CFLAGS) -MMD -MP -c $< -o $@

# What the assembler takes in (server/embed.h), the compiler's list of dependencies does not have.
$(BUILD)/obj/server/api/page_files.o: $(wildcard clients/web/*.html clients/web/*.css clients/web/*.svg clients/web/*.js) \
  clients/js/vampd.js models/small/demo.flac
$(BUILD)/obj/server/api/facts.o: proto/openapi.json

$(BUILD)/obj/cpu/simd_%.o: cpu/simd.c
	@mkdir -p $(@D)
	$(call say,CC)$(CC) $(CFLAGS) -O3 -ffp-contract=fast -Wno-psabi $(SIMD_FLAGS_$*) -DVAMP_SIMD_SET=$* -MMD -MP -c $< -o $@

# The one archive of everything but the doors; recreated so that a deleted file leaves no trace.
$(LIB): $(LIB_OBJ)
	@rm -f $@
	$(call say,AR)ar rcs $@ $^

$(BUILD)/vamp: $(call obj,$(VAMP_SRC)) $(LIB)
	$(call say,LINK)$(CC) $(LDFLAGS) $^ $(LIBS) -o $@

$(BUILD)/vampd: $(call obj,server/main.c $(SERVER_SRC)) $(LIB)
	$(call say,LINK)$(CC) $(LDFLAGS) $^ $(call pkg_libs,$(SERVER_LIBS)) $(LIBS) -o $@

$(BUILD)/tests/%: $(BUILD)/obj/tests/unit/%.o $(call obj,$(SERVER_SRC)) $(LIB)
	@mkdir -p $(@D)
	$(call say,LINK)$(CC) $(LDFLAGS) $^ $(call pkg_libs,cmocka $(SERVER_LIBS)) $(LIBS) -o $@

# ---- CUDA ---------------------------------------------------------------------------------------

NVCC ?= $(firstword $(shell command -v nvcc) $(wildcard /usr/local/cuda/bin/nvcc))
CUDA_LIB = $(abspath $(dir $(NVCC))/../lib64)
# Machine code for what there is, and PTX of the last, which a driver compiles for what follows.
CUDA_TARGETS ?= 80 86 89 90
# Of toolkits that were not tried some may warn: make cuda CUDA_WERROR=
CUDA_WERROR ?= -Werror all-warnings
NVCC_FLAGS := -std=c++17 -O3 -lineinfo -Iinclude -I. -Xcompiler -fPIC,-fvisibility=hidden,-Wall \
              $(CUDA_WERROR) -Xptxas -v \
              $(foreach sm,$(CUDA_TARGETS),-gencode arch=compute_$(sm),code=sm_$(sm)) \
              -gencode arch=compute_$(lastword $(CUDA_TARGETS)),code=compute_$(lastword $(CUDA_TARGETS))
CUDA_OBJ := $(CUDA_SRC:%.cu=$(BUILD)/obj/%.cu.o)
PLUGIN_OBJ := $(BUILD)/obj/plugin/error.o

cuda: ## the CUDA backend, build/libvamp_cuda.so, and what ptxas says of its kernels (nvcc)
	@if [ -z "$(NVCC)" ]; then \
	  echo "make cuda: no nvcc on PATH nor in /usr/local/cuda; install the CUDA toolkit 12 or 13, or set NVCC" >&2; \
	  exit 1; fi
	@$(MAKE) --no-print-directory $(BUILD)/libvamp_cuda.so
	@cat $(CUDA_OBJ:%.o=%.ptxas) >$(BUILD)/cuda-ptxas.txt
	@tools/measure/kernels $(BUILD)/cuda-ptxas.txt >$(BUILD)/cuda-kernels.md

$(BUILD)/obj/%.cu.o: %.cu
	@mkdir -p $(@D)
	$(call say,NVCC)$(NVCC) $(NVCC_FLAGS) -MMD -MP -MF $(@:.o=.d) -c $< -o $@ >$(@:.o=.ptxas) 2>&1 || { cat $(@:.o=.ptxas); exit 1; }
	@grep -v '^ptxas info\|^    [0-9]* bytes stack' $(@:.o=.ptxas) || true

# Not the objects of the programs: those may be built with sanitizers.
$(BUILD)/obj/plugin/%.o: engine/error/%.c
	@mkdir -p $(@D)
	$(call say,CC)$(CC) -std=c11 -O2 -g $(WARN) -Iinclude -fPIC -fvisibility=hidden -MMD -MP -c $< -o $@

$(BUILD)/libvamp_cuda.so: $(CUDA_OBJ) $(PLUGIN_OBJ)
	$(call say,LINK)$(NVCC) -shared -cudart static $^ -lcublasLt -Xlinker -z,defs -Xlinker -rpath,$(CUDA_LIB) -o $@

# Thread, bounds and alignment instrumentation calls functions of the emulator; no sanitizer is linked.
CXX := $(if $(filter default,$(origin CXX)),g++,$(CXX))
EMULATOR_FLAGS := -std=c++17 -O2 -g $(filter-out -Wstrict-prototypes -Wmissing-prototypes -Wpedantic -Wshadow -Wextra,$(WARN)) \
                  -fPIC -fvisibility=hidden -Itests/cuda/emulator/include -Iinclude -I.
EMULATED_FLAGS := -x c++ $(EMULATOR_FLAGS) -Wno-unknown-pragmas -Wno-format-truncation -fsanitize=thread,bounds,alignment \
                  --param=tsan-instrument-func-entry-exit=0
EMULATOR_OBJ := $(EMULATOR_SRC:%.cc=$(BUILD)/obj/%.o)
EMULATED_OBJ := $(CUDA_SRC:%.cu=$(BUILD)/obj/emulated/%.o)

$(BUILD)/obj/tests/cuda/emulator/%.o: tests/cuda/emulator/%.cc
	@mkdir -p $(@D)
	$(call say,CXX)$(CXX) $(EMULATOR_FLAGS) -O3 -MMD -MP -c $< -o $@

$(BUILD)/obj/emulated/%.o: %.cu
	@mkdir -p $(@D)
	$(call say,CXX)$(CXX) $(EMULATED_FLAGS) -MMD -MP -c $< -o $@

$(BUILD)/libvamp_cuda_emulated.so: $(EMULATED_OBJ) $(EMULATOR_OBJ) $(PLUGIN_OBJ)
	$(call say,LINK)$(CXX) -shared $^ -Wl,-z,defs -ldl -pthread -o $@

cuda-emulated: $(BUILD)/libvamp_cuda_emulated.so ## the CUDA backend on the processor, for tests

# Tests of the emulator are linked with it, those of kernels open the plugin.
$(BUILD)/tests/cuda/test_emulator%: $(BUILD)/obj/emulated/tests/cuda/test_emulator%.o $(EMULATOR_OBJ)
	@mkdir -p $(@D)
	$(call say,LINK)$(CXX) $^ $(call pkg_libs,cmocka) -ldl -pthread -o $@

$(BUILD)/obj/emulated/tests/cuda/%.o: tests/cuda/%.cu
	@mkdir -p $(@D)
	$(call say,CXX)$(CXX) $(EMULATED_FLAGS) -MMD -MP -c $< -o $@

$(BUILD)/tests/cuda/%: $(BUILD)/obj/tests/cuda/%.o $(LIB)
	@mkdir -p $(@D)
	$(call say,LINK)$(CC) $(LDFLAGS) $^ $(call pkg_libs,cmocka) $(LIBS) -ldl -o $@

KERNEL_TEST_BIN := $(patsubst tests/cuda/%.c,$(BUILD)/tests/cuda/%,$(wildcard tests/cuda/test_*.c))
CUDA_TEST_BIN := $(patsubst tests/cuda/%.cu,$(BUILD)/tests/cuda/%,$(wildcard tests/cuda/test_emulator*.cu)) \
                 $(KERNEL_TEST_BIN)
cuda-tests: $(CUDA_TEST_BIN) $(BUILD)/libvamp_cuda_emulated.so ## the emulator, and every kernel under it
	@failed=0; for t in $(CUDA_TEST_BIN); do echo "== $$t"; \
	  VAMP_TEST_PLUGIN=$${VAMP_TEST_PLUGIN:-$(abspath $(BUILD))/libvamp_cuda_emulated.so} $$t || failed=1; done; \
	  exit $$failed

$(BUILD)/matrix_rate: $(BUILD)/obj/tools/measure/matrix_rate.cu.o
	$(call say,LINK)$(NVCC) -cudart static $< -lcublas -Xlinker -rpath,$(CUDA_LIB) -o $@

gpu-parts: build cuda $(KERNEL_TEST_BIN)
	@$(MAKE) --no-print-directory $(BUILD)/matrix_rate

check-gpu: ## every kernel, parity and batches on this machine's GPU, then under compute-sanitizer
	@$(MAKE) --no-print-directory -j$$(nproc) gpu-parts
	@tests/cuda/check-gpu --build $(BUILD) $(ARGS)

bench-gpu: ## this backend beside PyTorch on this machine's GPU: builds, checks, prints a table
	@started=$$(date +%s); $(MAKE) --no-print-directory -j$$(nproc) gpu-parts && \
	  tools/measure/gpu --build $(BUILD) --started $$started $(ARGS)

unit: $(UNIT_BIN) ## unit tests
	@failed=0; for t in $(UNIT_BIN); do echo "== $$t"; $$t || failed=1; done; exit $$failed

# Tests find the binaries through VAMP_BUILD, and write below temporary folders only.
# On a machine with a GPU too the processor computes, for results are compared.
PYTEST := VAMP_BACKEND=cpu VAMP_BUILD=$(abspath $(BUILD)) PYTHONDONTWRITEBYTECODE=1 $(PYTHON) -m pytest -q -ra -p no:cacheprovider

pytest: build cuda-emulated ## tests of the command line, of HTTP, of tools, of backends, and parity
	$(PYTEST) tests

train-smoke: build ## the training tools and their whole pipeline on a minute of audio (needs PyTorch)
	VAMP_TRAIN_SMOKE=1 $(PYTEST) --durations=5 tests/tools/test_train.py

# One after the other, so that a failure stands at the end of the log.
check: ## every test; tools/bootstrap check installs what they need
	@$(MAKE) --no-print-directory format-check
	@$(MAKE) --no-print-directory build
	@$(MAKE) --no-print-directory unit
	@$(MAKE) --no-print-directory cuda-tests
	@$(MAKE) --no-print-directory pytest

# Leaks are looked for as well; -O1 keeps it quick.
check-asan: ## unit tests and the command line's under address and undefined behaviour sanitizers
	@$(MAKE) --no-print-directory BUILD=$(BUILD)-asan SANITIZE=address,undefined CFLAGS="-O1 -g" build
	@$(MAKE) --no-print-directory BUILD=$(BUILD)-asan SANITIZE=address,undefined CFLAGS="-O1 -g" unit
	@$(MAKE) --no-print-directory BUILD=$(BUILD)-asan SANITIZE=address,undefined CFLAGS="-O1 -g" pytest-asan

pytest-asan: build
	$(PYTEST) tests/cli

# Engine and server as an archive compiled by clang with coverage for the fuzzer, of which a target takes what it
# needs; the CPU backend stays out.
SECONDS ?= 60
fuzz: ## every fuzz target for SECONDS=60 each (clang)
	@$(MAKE) --no-print-directory CC=$(CLANG) BUILD=$(BUILD)-fuzz SANITIZE=fuzzer-no-link,address,undefined \
	  WARN=-w CFLAGS="-O1 -g" fuzz-run

FUZZ_BIN := $(FUZZ_SRC:tests/fuzz/%.c=$(BUILD)/fuzz/%)
$(BUILD)/libengine.a: $(call obj,$(ENGINE_SRC) $(SERVER_SRC))
	@rm -f $@
	$(call say,AR)ar rcs $@ $^

$(BUILD)/fuzz/%: $(BUILD)/obj/tests/fuzz/%.o $(BUILD)/libengine.a
	@mkdir -p $(@D)
	$(call say,LINK)$(CC) $(LDFLAGS) -fsanitize=fuzzer $^ $(call pkg_libs,$(SERVER_LIBS)) $(ENGINE_LINK) -o $@

fuzz-run: $(FUZZ_BIN)
	@for t in $(FUZZ_BIN); do \
	  name=$$(basename $$t); corpus=$(BUILD)/corpus/$$name; mkdir -p $$corpus; \
	  seeds=; if [ -d tests/fuzz/corpus/$$name ]; then seeds=tests/fuzz/corpus/$$name; fi; \
	  if $$t -max_total_time=$(SECONDS) -rss_limit_mb=2048 -timeout=20 -print_final_stats=1 \
	      -artifact_prefix=$(BUILD)/$$name- $$corpus $$seeds >$(BUILD)/$$name.log 2>&1; \
	  then echo "$$name: $$(sed -n 's/^stat::number_of_executed_units: *//p' $(BUILD)/$$name.log) inputs, no fault"; \
	  else tail -n 60 $(BUILD)/$$name.log; exit 1; fi; \
	done

demo: build ## one variation of the bundled clip through vampd, into demo-out/
	@VAMP_BUILD=$(BUILD) tools/demo

bench: $(BUILD)/vamp ## speed of this machine: make bench ARGS="--dims official --repeat 3"
	$(BUILD)/vamp bench $(ARGS)

$(BUILD)/measure/%: $(BUILD)/obj/tools/measure/%.o $(LIB)
	@mkdir -p $(@D)
	$(call say,LINK)$(CC) $(LDFLAGS) $^ $(LIBS) -o $@

bench-http: build $(BUILD)/measure/bench_http_engine ## vampd at 1, 8 and 64 clients beside the engine alone: ARGS="--rounds 3"
	$(PYTHON) tools/measure/bench_http --build $(BUILD) $(ARGS)

# SECONDS has another default here than for fuzz.
soak: build ## vampd under everything it offers for SECONDS=300: nothing may grow, every answer be one of the contract
	$(PYTHON) tools/measure/soak --build $(BUILD) --seconds $(if $(filter file,$(origin SECONDS)),300,$(SECONDS)) $(ARGS)

format: ## formats every .c and .h
	$(CLANG_FORMAT) -i $(ALL_SRC)

format-check: ## says which files are not formatted
	@if ! $(CLANG_FORMAT) --version 2>/dev/null | grep -q 'version 14[.]'; then \
	  echo "format-check: skipped, for it takes clang-format 14 and here is none"; exit 0; fi; \
	bad=; for f in $(ALL_SRC); do $(CLANG_FORMAT) $$f | cmp -s - $$f || bad="$$bad $$f"; done; \
	if [ -n "$$bad" ]; then echo "not formatted; 'make format' does it:$$bad"; exit 1; fi

# cpu/simd.c is one source for several instruction sets; it is looked at as the plain one.
tidy: ## clang-tidy on every .c
	@printf '%s\n' $(filter %.c,$(ALL_SRC)) | xargs -P $$(nproc) -I FILE \
	  $(CLANG_TIDY) --quiet FILE -- $(filter-out $(WARN),$(CFLAGS)) -DVAMP_SIMD_SET=baseline

# Files with @NAME@ in them get the paths; what an operator may have changed is not replaced.
FILL := sed -e 's|@BINDIR@|$(PREFIX)/bin|g' -e 's|@DATADIR@|$(PREFIX)/share|g' -e 's|@SYSCONFDIR@|$(SYSCONFDIR)|g' \
  -e "s|@VERSION@|$$(sed -n 's/^.define VAMPD_VERSION "\(.*\)"/\1/p' server/config/options.h)|g"
INTO = install -D -m 644 /dev/stdin $(DESTDIR)
install: build ## binaries, model, man pages, unit, configuration: PREFIX=/usr/local SYSCONFDIR=/etc UNITDIR DESTDIR
	install -D -t $(DESTDIR)$(PREFIX)/bin $(BUILD)/vamp $(BUILD)/vampd
	$(if $(wildcard $(BUILD)/libvamp_cuda.so),install -D -m 644 -t $(DESTDIR)$(PREFIX)/lib/vampd $(BUILD)/libvamp_cuda.so)
	install -D -m 644 -t $(DESTDIR)$(PREFIX)/share/vampd/models/small $(wildcard models/small/*)
	install -D -m 644 -t $(DESTDIR)$(PREFIX)/share/doc/vampd README.md LICENSE $(wildcard docs/*.md docs/*.png)
	$(FILL) packaging/vamp.1 | $(INTO)$(PREFIX)/share/man/man1/vamp.1
	$(FILL) packaging/vampd.8 | $(INTO)$(PREFIX)/share/man/man8/vampd.8
	$(FILL) packaging/vampd.service.in | $(INTO)$(UNITDIR)/vampd.service
	$(FILL) packaging/vampd.ini.in | $(INTO)$(PREFIX)/share/doc/vampd/vampd.ini
	test -e $(DESTDIR)$(SYSCONFDIR)/vampd/vampd.ini || \
	  $(FILL) packaging/vampd.ini.in | $(INTO)$(SYSCONFDIR)/vampd/vampd.ini
	test -e $(DESTDIR)$(SYSCONFDIR)/vampd/keys.ini || \
	  install -D -m 644 packaging/keys.ini $(DESTDIR)$(SYSCONFDIR)/vampd/keys.ini

clean: ## removes build/ and its kin
	rm -rf $(BUILD) $(BUILD)-asan $(BUILD)-fuzz

.PHONY: help build cuda cuda-emulated cuda-tests gpu-parts check-gpu bench-gpu unit pytest train-smoke check check-asan pytest-asan fuzz fuzz-run demo bench bench-http soak format format-check tidy install clean
-include $(wildcard $(BUILD)/obj/*.d $(BUILD)/obj/*/*.d $(BUILD)/obj/*/*/*.d $(BUILD)/obj/*/*/*/*.d)
