/*
 * The CPU device: memory, threads, the choice of instruction set, and the table of operations.
 *
 * Operations are synchronous here: each returns when it is done, which the contract's "asynchronous in
 * order" allows, and wait() has nothing to wait for.
 */
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "cpu/internal.h"

/* More than this of one thread's scratch means a sequence beyond every limit of the engine. */
static const size_t max_scratch = (size_t)1 << 32;

void *cpu_allocate(size_t bytes) {
  const size_t huge = (size_t)1 << 21;
  if (bytes < 2 * huge) {
    return aligned_alloc(64, (bytes + 63) / 64 * 64 + 64);
  }
  /* Huge pages: fewer faults at first touch and fewer misses in the address cache. A hint: may fail. */
  bytes = (bytes + huge - 1) / huge * huge;
  void *memory = aligned_alloc(huge, bytes);
  if (memory) {
    madvise(memory, bytes, MADV_HUGEPAGE);
  }
  return memory;
}

int cpu_scratch_reserve(struct cpu_device *device, size_t bytes) {
  if (bytes > max_scratch) {
    return VAMP_MEMORY;
  }
  for (int t = 0; t < device->threads; t++) {
    if (device->scratch_size[t] < bytes) {
      void *bigger = cpu_allocate(bytes);
      if (!bigger) {
        return VAMP_MEMORY;
      }
      free(device->scratch[t]);
      device->scratch[t] = bigger;
      device->scratch_size[t] = bytes;
    }
  }
  return 0;
}

float *cpu_copy_floats(const float *from, size_t count) {
  float *to = cpu_allocate(sizeof *to * (count + 16));
  if (to) {
    memcpy(to, from, sizeof *to * count);
  }
  return to;
}

int64_t cpu_tiles(const struct vamp_packing *packing, int size, struct cpu_tile **tiles) {
  int64_t count = 0;
  for (int s = 0; s < packing->count; s++) {
    count += (packing->offsets[s + 1] - packing->offsets[s] + size - 1) / size;
  }
  struct cpu_tile *list = malloc(sizeof *list * (size_t)(count ? count : 1));
  if (!list) {
    return -1;
  }
  int64_t n = 0;
  for (int s = 0; s < packing->count; s++) {
    for (int64_t row = packing->offsets[s]; row < packing->offsets[s + 1]; row += size) {
      int64_t left = packing->offsets[s + 1] - row;
      list[n++] = (struct cpu_tile){s, row, left < size ? (int)left : size};
    }
  }
  *tiles = list;
  return count;
}

static int allocate(struct vamp_device *device, size_t bytes, void **memory, struct vamp_error *error) {
  (void)device;
  void *m = bytes < SIZE_MAX / 2 ? cpu_allocate(bytes + cpu_row_slack) : NULL;
  if (!m) {
    return vamp_fail(error, VAMP_MEMORY, "out of memory: %zu bytes", bytes);
  }
  *memory = m;
  return 0;
}

static void release(struct vamp_device *device, void *memory) {
  (void)device;
  free(memory);
}

static int transfer(struct vamp_device *device, void *to, const void *from, size_t bytes) {
  (void)device;
  if (bytes) {
    memcpy(to, from, bytes);
  }
  return 0;
}

static int wait_done(struct vamp_device *device) {
  (void)device;
  return 0;
}

int cpu_vector_make(const float *values, size_t count, struct cpu_vector **vector, struct vamp_error *error) {
  size_t head = cpu_carved(sizeof(struct cpu_vector)), bytes = cpu_carved(sizeof(float) * count);
  struct cpu_vector *v = cpu_allocate(head + 2 * bytes);
  if (!v) {
    return vamp_fail(error, VAMP_MEMORY, "out of memory");
  }
  *v = (struct cpu_vector){.base.kind = CPU_VECTOR,
                           .count = count,
                           .values = (float *)(void *)((char *)v + head),
                           .inverse = (float *)(void *)((char *)v + head + bytes)};
  for (size_t i = 0; i < count; i++) {
    v->values[i] = values[i];
    v->inverse[i] = 1.0f / (values[i] + 1e-9f);
  }
  *vector = v;
  return 0;
}

static int vector_create(struct vamp_device *device, const float *values, size_t count,
                         struct vamp_weight **vector, struct vamp_error *error) {
  (void)device;
  struct cpu_vector *v;
  int status = cpu_vector_make(values, count, &v, error);
  if (!status) {
    *vector = &v->base;
  }
  return status;
}

static void weight_free(struct vamp_device *device, struct vamp_weight *weight) {
  (void)device;
  if (!weight) {
    return;
  }
  switch (weight->kind) {
  case CPU_VECTOR:
    free(weight);
    break;
  case CPU_LINEAR:
    cpu_linear_free((struct cpu_linear *)weight);
    break;
  case CPU_CONV:
    cpu_conv_free((struct cpu_conv *)weight);
    break;
  case CPU_UNIT:
    cpu_unit_free((struct cpu_unit *)weight);
    break;
  case CPU_EMBEDDING:
    cpu_embedding_free((struct cpu_embedding *)weight);
    break;
  case CPU_QUANTIZER:
    cpu_quantizer_free((struct cpu_quantizer *)weight);
    break;
  }
}

static const struct vamp_operations operations = {
    .allocate = allocate,
    .release = release,
    .upload = transfer,
    .download = transfer,
    .copy = transfer,
    .wait = wait_done,
    .linear_create = cpu_linear_create,
    .conv_create = cpu_conv_create,
    .unit_create = cpu_unit_create,
    .embedding_create = cpu_embedding_create,
    .quantizer_create = cpu_quantizer_create,
    .vector_create = vector_create,
    .weight_free = weight_free,
    .embed = cpu_embed,
    .rms_norm = cpu_rms_norm,
    .linear = cpu_linear,
    .attention = cpu_attention,
    .predict = cpu_predict,
    .remask = cpu_remask,
    .conv = cpu_conv,
    .residual_unit = cpu_residual_unit,
    .quantize = cpu_quantize,
    .dequantize = cpu_dequantize,
};

static void device_close(struct vamp_device *base) {
  struct cpu_device *device = cpu_device(base);
  if (device->scratch) {
    for (int t = 0; t < device->threads; t++) {
      free(device->scratch[t]);
    }
  }
  free(device->scratch);
  free(device->scratch_size);
  onednn_close(device->onednn);
  cpu_pool_close(device->pool);
  free(device);
}

const struct simd *simd_choose(const char *wanted) {
#if defined(__x86_64__)
  const struct simd *sets[] = {&simd_avx512bf16, &simd_avx512, &simd_avx2, &simd_baseline};
  __builtin_cpu_init();
  bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  bool avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
  bool has[] = {avx512 && __builtin_cpu_supports("avx512bf16"), avx512, avx2, true};
  bool reached = !wanted;
  for (int i = 0; i < 4; i++) {
    reached = reached || strcmp(sets[i]->name, wanted) == 0;
    if (reached && has[i]) {
      return sets[i];
    }
  }
#else
  (void)wanted;
#endif
  return &simd_baseline;
}

/* Those this process may run on, which in a container is fewer than there are. */
static int processors(void) {
  cpu_set_t set;
  int count =
      sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : (int)sysconf(_SC_NPROCESSORS_ONLN);
  return count > 0 ? count : 1;
}

int vamp_cpu_open(const struct vamp_device_options *options, struct vamp_device **out,
                  struct vamp_error *error) {
  int threads = options->threads > 0 ? options->threads : processors();
  if (threads > 1024) {
    return vamp_fail(error, VAMP_INVALID, "%d threads: at most 1024", threads);
  }
  struct cpu_device *device = calloc(1, sizeof *device);
  if (!device) {
    return vamp_fail(error, VAMP_MEMORY, "out of memory");
  }
  int status;
  if (options->index != 0) {
    status = vamp_fail(error, VAMP_UNSUPPORTED,
                       "the processor is one device, number 0: there is no number %d", options->index);
    goto err;
  }
  device->simd = simd_choose(getenv("VAMP_SIMD"));
  device->threads = threads;
  bool fast_bf16 = device->simd->bf16_dot;
  if (options->precision_given && options->precision == VAMP_PRECISION_BF16 && !fast_bf16) {
    status = vamp_fail(error, VAMP_UNSUPPORTED,
                       "this processor has no bfloat16 dot product (AVX512-BF16): use --precision fp32");
    goto err;
  }
  if (options->precision_given && options->precision == VAMP_PRECISION_TF32) {
    status = vamp_fail(error, VAMP_UNSUPPORTED,
                       "tf32 is a precision of GPUs, and the processor computes: use --precision fp32");
    goto err;
  }
  device->scratch = calloc((size_t)threads, sizeof *device->scratch);
  device->scratch_size = calloc((size_t)threads, sizeof *device->scratch_size);
  if (!device->scratch || !device->scratch_size) {
    status = vamp_fail(error, VAMP_MEMORY, "out of memory");
    goto err;
  }
  status = cpu_pool_open(threads, &device->pool, error);
  if (!status) {
    status = onednn_open(&device->onednn, error);
  }
  if (status) {
    goto err;
  }
  struct vamp_device *base = &device->base;
  base->ops = &operations;
  base->backend = "cpu";
  base->precision =
      options->precision_given ? options->precision : (fast_bf16 ? VAMP_PRECISION_BF16 : VAMP_PRECISION_FP32);
  base->act_size = base->precision == VAMP_PRECISION_BF16 ? 2 : 4;
  /* Beyond one long clip a larger batch only makes everybody wait: the cores are full. */
  base->step_rows = 1200;
  base->codec_rows = 1200;
  base->close = device_close;
  snprintf(base->description, sizeof base->description, "cpu: %s, %d thread%s, %s", device->simd->name,
           threads, threads == 1 ? "" : "s", vamp_precision_name(base->precision));
  snprintf(base->hardware, sizeof base->hardware, "%s", device->simd->name);
  base->count = 1;
  *out = base;
  return 0;
err:
  device_close(&device->base);
  return status;
}
