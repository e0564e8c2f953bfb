# vampd. `make` alone lists the targets; tools/bootstrap TARGET installs what a target needs first.

BUILD ?= build
CC ?= gcc
PKG_CONFIG ?= pkg-config
PYTHON ?= /usr/bin/python3
CLANG_FORMAT ?= clang-format
CLANG_TIDY ?= clang-tidy
# Sanitizers, coverage and the like: make build BUILD=build-asan SANITIZE=address,undefined
SANITIZE ?=

WARN := -Wall -Wextra -Wpedantic -Werror -Wshadow -Wstrict-prototypes -Wmissing-prototypes \
        -Wpointer-arith -Wwrite-strings -Wvla -Wformat=2
ENGINE_LIBS := sndfile soxr libebur128 jansson cairo
SERVER_LIBS := libmicrohttpd

CFLAGS ?= -O2 -g
override CFLAGS += -std=c11 -D_GNU_SOURCE $(WARN) -Iinclude -I. -fPIC -pthread -fopenmp -fno-math-errno
override LDFLAGS += -pthread -fopenmp
ifneq ($(SANITIZE),)
override CFLAGS += -fsanitize=$(SANITIZE) -fno-sanitize-recover=all -fno-omit-frame-pointer
override LDFLAGS += -fsanitize=$(SANITIZE)
endif

pkg_cflags = $(shell $(PKG_CONFIG) --cflags $(1) 2>/dev/null)
pkg_libs = $(shell $(PKG_CONFIG) --libs $(1) 2>/dev/null)
LIBS = $(call pkg_libs,$(ENGINE_LIBS)) -ldnnl -lm
override CFLAGS += $(call pkg_cflags,$(ENGINE_LIBS) $(SERVER_LIBS))

# One room, one folder: every .c in it is built. The command line is engine's front door.
ENGINE_SRC := $(wildcard engine/*/*.c)
CPU_SRC := $(wildcard cpu/*.c)
SERVER_SRC := $(filter-out server/main.c,$(wildcard server/*.c))
VAMP_SRC := $(wildcard vamp/*.c)
UNIT_SRC := $(wildcard tests/unit/test_*.c)

# cpu/simd.c is the vectorised kernels: the same source, once for each instruction set.
ifeq ($(shell uname -m),x86_64)
SIMD_SETS := baseline avx2 avx512
else
SIMD_SETS := baseline
endif
SIMD_FLAGS_baseline :=
SIMD_FLAGS_avx2 := -mavx2 -mfma -mf16c
SIMD_FLAGS_avx512 := -mavx512f -mavx512bw -mavx512dq -mavx512vl -mfma -mprefer-vector-width=512
CPU_SRC := $(filter-out cpu/simd.c,$(CPU_SRC))
SIMD_OBJ := $(SIMD_SETS:%=$(BUILD)/obj/cpu/simd_%.o)

obj = $(1:%.c=$(BUILD)/obj/%.o)
LIB_OBJ := $(call obj,$(ENGINE_SRC) $(CPU_SRC)) $(SIMD_OBJ)
LIB := $(BUILD)/libvamp.a
UNIT_BIN := $(UNIT_SRC:tests/unit/%.c=$(BUILD)/tests/%)

.DEFAULT_GOAL := help
.SECONDARY:
.DELETE_ON_ERROR:

help: ## this list
	@grep -hE '^[a-z][a-z-]*:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 16

build: $(BUILD)/vamp $(BUILD)/vampd ## the binaries vamp and vampd, into build/

$(BUILD)/obj/%.o: %.c
	@mkdir -p $(@D)
	$(CC) $(CFLAGS) -MMD -MP -c $< -o $@

$(BUILD)/obj/cpu/simd_%.o: cpu/simd.c
	@mkdir -p $(@D)
	$(CC) $(CFLAGS) -O3 -ffp-contract=fast $(SIMD_FLAGS_$*) -DVAMP_SIMD_SET=$* -MMD -MP -c $< -o $@

# The one archive of everything but the doors; recreated so that a deleted file leaves no trace.
$(LIB): $(LIB_OBJ)
	@rm -f $@
	ar rcs $@ $^

$(BUILD)/vamp: $(call obj,$(VAMP_SRC)) $(LIB)
	$(CC) $(LDFLAGS) $^ $(LIBS) -o $@

$(BUILD)/vampd: $(call obj,server/main.c $(SERVER_SRC)) $(LIB)
	$(CC) $(LDFLAGS) $^ $(call pkg_libs,$(SERVER_LIBS)) $(LIBS) -o $@

$(BUILD)/tests/%: $(BUILD)/obj/tests/unit/%.o $(call obj,$(SERVER_SRC)) $(LIB)
	@mkdir -p $(@D)
	$(CC) $(LDFLAGS) $^ $(call pkg_libs,cmocka $(SERVER_LIBS)) $(LIBS) -o $@

unit: $(UNIT_BIN) ## unit tests
	@failed=0; for t in $(UNIT_BIN); do echo "== $$t"; $$t || failed=1; done; exit $$failed

clean: ## removes build/
	rm -rf $(BUILD)

.PHONY: help build unit clean
-include $(wildcard $(BUILD)/obj/*.d $(BUILD)/obj/*/*.d $(BUILD)/obj/*/*/*.d)
