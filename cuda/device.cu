/*
 * The CUDA device: opened, described, closed, and its table of operations. One stream carries everything.
 *
 * This folder is built into a shared object that vamp and vampd load when they are asked to; they themselves
 * link no CUDA. The symbol vamp_plugin at the end is all they see.
 *
 * How much a turn takes (step_rows, codec_rows) follows from the device: enough rows that its multiprocessors
 * are busy through several waves of tiles, and no more than a share of its memory, so that workspaces grown
 * to that size leave room for weights. More rows would add waiting and no throughput.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cuda/internal.h"

#ifdef __CUDACC__
#define VAMP_CUDA_NAME "cuda"
#else
#define VAMP_CUDA_NAME "cuda-emulated" /* the same source on tests/cuda/emulator */
#endif

int cuda_status(cudaError_t error, const char *file, int line) {
  if (error == cudaSuccess) {
    return 0;
  }
  if (error == cudaErrorMemoryAllocation) {
    (void)cudaGetLastError(); /* not sticky: the device goes on */
    return VAMP_MEMORY;
  }
  fprintf(stderr, "cuda: %s (%s:%d)\n", cudaGetErrorString(error), file, line);
  return VAMP_DEVICE;
}

int cuda_blas_status(cublasStatus_t status, const char *file, int line) {
  if (status == CUBLAS_STATUS_SUCCESS) {
    return 0;
  }
  if (status == CUBLAS_STATUS_ALLOC_FAILED) {
    return VAMP_MEMORY;
  }
  fprintf(stderr, "cuda: cuBLAS status %d (%s:%d)\n", (int)status, file, line);
  return VAMP_DEVICE;
}

/* ---- memory ----------------------------------------------------------------------------------------- */

static int allocate(struct vamp_device *base, size_t bytes, void **memory, struct vamp_error *error) {
  int status = cuda_allocate(cuda_device(base), bytes ? bytes : 1, memory);
  return status ? vamp_fail(error, status, "out of memory on the GPU: %zu MiB wanted in one piece",
                            (bytes >> 20) + 1)
                : 0;
}

static void release(struct vamp_device *base, void *memory) {
  cuda_release(cuda_device(base), memory);
}

static int upload(struct vamp_device *base, void *to, const void *from, size_t bytes) {
  return cuda_upload(cuda_device(base), to, from, bytes);
}

/* cudaStreamSynchronize would keep a core of the host spinning, for each device; events can sleep. */
static int wait_done(struct vamp_device *base) {
  struct cuda_device *device = cuda_device(base);
  CUDA_TRY(cudaEventRecord(device->done, device->stream));
  CUDA_TRY(cudaEventSynchronize(device->done));
  return 0;
}

static int download(struct vamp_device *base, void *to, const void *from, size_t bytes) {
  struct cuda_device *device = cuda_device(base);
  if (bytes) {
    CUDA_TRY(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToHost, device->stream));
  }
  return wait_done(base);
}

static int copy(struct vamp_device *base, void *to, const void *from, size_t bytes) {
  if (bytes) {
    CUDA_TRY(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToDevice, cuda_device(base)->stream));
  }
  return 0;
}

/* ---- weights ---------------------------------------------------------------------------------------- */

int cuda_vector_create(struct vamp_device *base, const float *values, size_t count, struct vamp_weight **out,
                       struct vamp_error *error) {
  struct cuda_vector *vector = (struct cuda_vector *)calloc(1, sizeof *vector);
  void *memory = NULL;
  int status =
      vector ? cuda_upload_new(cuda_device(base), values, sizeof *values * count, &memory) : VAMP_MEMORY;
  if (status) {
    free(vector);
    return vamp_fail(error, status, "loading weights: %s", vamp_device_trouble(status));
  }
  vector->base.kind = CUDA_VECTOR;
  vector->count = count;
  vector->values = (float *)memory;
  *out = &vector->base;
  return 0;
}

static void weight_free(struct vamp_device *base, struct vamp_weight *weight) {
  struct cuda_device *device = cuda_device(base);
  if (!weight) {
    return;
  }
  device->version++;
  switch (weight->kind) {
  case CUDA_VECTOR:
    cuda_release(device, ((struct cuda_vector *)weight)->values);
    free(weight);
    break;
  case CUDA_LINEAR:
    cuda_linear_free(device, weight);
    break;
  case CUDA_CONV:
    cuda_conv_free(device, weight);
    break;
  case CUDA_UNIT:
    cuda_unit_free(device, weight);
    break;
  case CUDA_EMBEDDING:
    cuda_embedding_free(device, weight);
    break;
  case CUDA_QUANTIZER:
    cuda_quantizer_free(device, weight);
    break;
  }
}

/* By position, for C++17 knows no designators: the order is that of struct vamp_operations, and the compiler
 * checks every type. */
static const struct vamp_operations operations = {
    allocate,
    release,
    upload,
    download,
    copy,
    wait_done,
    cuda_linear_create,
    cuda_conv_create,
    cuda_unit_create,
    cuda_embedding_create,
    cuda_quantizer_create,
    cuda_vector_create,
    weight_free,
    cuda_step_begin,
    cuda_step_end,
    cuda_embed,
    cuda_rms_norm,
    cuda_linear,
    cuda_attention,
    cuda_predict,
    cuda_remask,
    cuda_conv,
    cuda_residual_unit,
    cuda_quantize,
    cuda_dequantize,
};

/* ---- open and close --------------------------------------------------------------------------------- */

static void device_close(struct vamp_device *base) {
  struct cuda_device *device = cuda_device(base);
  if (device->stream) {
    cudaStreamSynchronize(device->stream);
  }
  cuda_profile_close(device);
  cuda_graphs_close(device);
  cuda_products_free(device);
  if (device->arena) {
    cuda_batch_free(device);
    cuda_staging_close(device);
    cuda_release(device, device->scratch);
  }
  cuda_arena_close(device->arena);
  if (device->blas) {
    cublasLtDestroy(device->blas);
  }
  if (device->done) {
    cudaEventDestroy(device->done);
  }
  if (device->stream) {
    cudaStreamDestroy(device->stream);
  }
  free(device);
}

static __global__ void any_kernel(void) {
}

/* Whether the plugin was built for this device: otherwise the first launch would fail. */
static int check_image(const char *name, struct vamp_error *error) {
  cudaFuncAttributes attributes;
  cudaError_t found = cudaFuncGetAttributes(&attributes, any_kernel);
  if (found == cudaSuccess) {
    return 0;
  }
  (void)cudaGetLastError();
  return vamp_fail(error, VAMP_UNSUPPORTED,
                   "the plugin has no kernels that run on %s (%s): build it with its compute capability in "
                   "CUDA_TARGETS",
                   name, cudaGetErrorString(found));
}

/* The driver, a device, and one that can run these kernels. */
static int find_device(struct cuda_device *device, char *name, size_t name_bytes, struct vamp_error *error) {
  int count = 0, major = 0, minor = 0, processors = 0, shared = 0;
  cudaDeviceProp properties;
  cudaError_t found = cudaGetDeviceCount(&count);
  if (found != cudaSuccess || count == 0) {
    (void)cudaGetLastError();
    return vamp_fail(error, VAMP_UNSUPPORTED, "no CUDA device: %s",
                     found == cudaSuccess                   ? "the driver knows of none"
                     : found == cudaErrorInsufficientDriver ? "the NVIDIA driver is missing or too old"
                                                            : cudaGetErrorString(found));
  }
  if (device->ordinal < 0 || device->ordinal >= count) {
    return vamp_fail(error, VAMP_UNSUPPORTED, "the CUDA devices here are 0 to %d: there is no number %d",
                     count - 1, device->ordinal);
  }
  device->base.count = count;
  int status = CUDA_CHECK(cudaSetDevice(device->ordinal));
  if (!status) {
    status = CUDA_CHECK(cudaGetDeviceProperties(&properties, device->ordinal));
  }
  if (!status) {
    status = CUDA_CHECK(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device->ordinal));
  }
  if (!status) {
    status = CUDA_CHECK(cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, device->ordinal));
  }
  if (!status) {
    status = CUDA_CHECK(cudaDeviceGetAttribute(&processors, cudaDevAttrMultiProcessorCount, device->ordinal));
  }
  if (!status) {
    status =
        CUDA_CHECK(cudaDeviceGetAttribute(&shared, cudaDevAttrMaxSharedMemoryPerBlockOptin, device->ordinal));
  }
  if (status) {
    return vamp_fail(error, VAMP_UNSUPPORTED, "CUDA device %d does not answer", device->ordinal);
  }
  device->capability = 10 * major + minor;
  device->processors = processors;
  device->shared_limit = (size_t)shared;
  snprintf(name, name_bytes, "%.80s", properties.name);
  if (device->capability < 80) {
    return vamp_fail(error, VAMP_UNSUPPORTED, "%s has compute capability %d.%d: 8.0 is the least", name,
                     major, minor);
  }
  return check_image(name, error);
}

/* 0 where the environment says nothing. */
static size_t wanted_memory(void) {
  const char *text = getenv("VAMP_CUDA_MEMORY_MIB"); /* for sharing a GPU, and for tests */
  unsigned long long wanted = text ? strtoull(text, NULL, 10) : 0;
  return wanted < (1ull << 30) ? (size_t)(wanted << 20) : 0;
}

/* Bytes that a row of a step, and a frame of the codec, take at the official size: x, act and wide, the
 * matrix product's slab and logits; the decoder's four signals at their widest. */
enum { step_row_bytes = 48 << 10, codec_row_bytes = 640 << 10 };

static int64_t clamp(int64_t value, int64_t least, int64_t most) {
  return value < least ? least : value > most ? most : value;
}

static void choose_rows(struct cuda_device *device) {
  int64_t bytes = (int64_t)cuda_arena_size(device->arena);
  /* 140 rows a multiprocessor: at the official width the narrowest product (1280 columns) is then some ten
   * waves of 128 x 128 tiles; 132 of them take 32 clips of ten seconds. */
  device->base.step_rows = clamp(140 * (int64_t)device->processors, 1200, 65536);
  device->base.step_rows = clamp(bytes / 8 / step_row_bytes, 256, device->base.step_rows);
  device->base.codec_rows = clamp(70 * (int64_t)device->processors, 1200, 65536);
  device->base.codec_rows = clamp(bytes / 4 / codec_row_bytes, 128, device->base.codec_rows);
  device->base.row_slack = CUDA_TILE_ROWS - 1;
}

static int cuda_open(const struct vamp_device_options *options, struct vamp_device **out,
                     struct vamp_error *error) {
  char name[96] = "";
  struct cuda_device *device = (struct cuda_device *)calloc(1, sizeof *device);
  if (!device) {
    return vamp_fail(error, VAMP_MEMORY, "out of memory");
  }
  struct vamp_device *base = &device->base;
  device->ordinal = options->index;
  int status = find_device(device, name, sizeof name, error);
  if (status) {
    goto err;
  }
  status = cuda_arena_open(wanted_memory(), &device->arena, error);
  if (status) {
    goto err;
  }
  status = CUDA_CHECK(cudaStreamCreateWithFlags(&device->stream, cudaStreamNonBlocking));
  if (!status) {
    status =
        CUDA_CHECK(cudaEventCreateWithFlags(&device->done, cudaEventDisableTiming | cudaEventBlockingSync));
  }
  if (!status) {
    status = BLAS_CHECK(cublasLtCreate(&device->blas));
  }
  if (!status) {
    status = cuda_staging_open(device);
  }
  if (!status) {
    status = cuda_graphs_open(device);
  }
  if (status) {
    vamp_fail(error, status, "opening %s: %s", name, vamp_device_trouble(status));
    goto err;
  }
  base->ops = &operations;
  base->backend = VAMP_CUDA_NAME;
  base->precision = options->precision_given ? options->precision : VAMP_PRECISION_BF16;
  base->act_size = base->precision == VAMP_PRECISION_BF16 ? 2 : 4;
  base->close = device_close;
  choose_rows(device);
  snprintf(base->description, sizeof base->description, "%s: %.80s, compute capability %d.%d, %zu MiB, %s",
           VAMP_CUDA_NAME, name, device->capability / 10, device->capability % 10,
           cuda_arena_size(device->arena) >> 20, vamp_precision_name(base->precision));
  snprintf(base->hardware, sizeof base->hardware, "%.80s, %d.%d", name, device->capability / 10,
           device->capability % 10);
  status = cuda_profile_open(device, error);
  if (status) {
    goto err;
  }
  *out = base;
  return 0;
err:
  device_close(base);
  return status;
}

extern "C" const struct vamp_plugin vamp_plugin;
const struct vamp_plugin vamp_plugin = {VAMP_PLUGIN_ABI, VAMP_CUDA_NAME, cuda_open};
