/*
 * What the files of the CUDA backend share: the device, its memory, the kinds of weight, and the rules.
 *
 * One stream, one thread. Every operation only queues work on device->stream and returns; memory that was
 * released may be handed out again at once, because whoever gets it queues behind its last user. What the
 * host has to tell the device (where sequences begin, how they are sampled) goes through cuda_stage: a ring
 * of pinned memory, copied asynchronously.
 *
 * The promise of vamp/backend.h: tile sizes and the order of every sum follow from the weights' shapes and
 * from a sequence's own length. A grid may follow the batch, an element's arithmetic may not. In practice:
 * no atomic addition of floats, no split of a sum over blocks, and the same instructions whatever the row.
 *
 * Errors. CUDA_TRY and BLAS_TRY stand around every call of the runtime and of cuBLAS; a kernel goes through
 * VAMP_LAUNCH and is followed by CUDA_TRY(cudaGetLastError()). A fault inside a kernel surfaces at a later
 * call as VAMP_DEVICE, as the contract allows.
 *
 * Which file defines what: device.cu the table, open and close; arena.cu memory; transfer.cu
 * copies and staging; batch.cu packings and sequences on the device; graph.cu recorded steps; linear.cu,
 * norm.cu, embed.cu, attention.cu, predict.cu, sample.cu, remask.cu the transformer; conv*.cu, unit*.cu,
 * quantize.cu the codec.
 */
#ifndef CUDA_INTERNAL_H
#define CUDA_INTERNAL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cublasLt.h>

#include "cuda/launch.cuh"

#include "vamp/backend.h"

struct cuda_arena;

enum { CUDA_SLOTS = 8, CUDA_SLOT_BYTES = 1 << 18, CUDA_TILE_ROWS = 64 };

/* Pinned memory through which the host's tables travel, as a ring of a few slots: a slot is used again only
 * when the copy out of it is done. */
struct cuda_staging {
  char *host;   /* [CUDA_SLOTS, CUDA_SLOT_BYTES] pinned */
  char *device; /* [CUDA_SLOTS, CUDA_SLOT_BYTES]: where cuda_stage puts tables */
  int next;
  cudaEvent_t done[CUDA_SLOTS]; /* recorded behind the copy */
  bool used[CUDA_SLOTS];
};

/* What a kernel must know of a batch, in device memory at addresses that stay: so that a recorded step runs
 * on any batch of its size class. Launched with a grid for at least as many rows, it looks here how many
 * there are. */
struct cuda_extent {
  int32_t count, rows, tiles;
};

/* CUDA_TILE_ROWS rows of one sequence, or fewer at its end. */
struct cuda_tile {
  int32_t begin, end; /* rows of its sequence in the packed matrix */
  int32_t first;      /* row of the tile */
  int32_t sequence;
};

/* A batch as kernels get it, by value. */
struct cuda_batch {
  const struct cuda_extent *extent;
  const int32_t *offsets;                /* [count + 1] */
  const struct cuda_tile *tiles;         /* [tiles] */
  const struct vamp_sequence *sequences; /* [count] */
};

/* The sequence that a row belongs to. */
static __device__ __forceinline__ int cuda_sequence_of(const struct cuda_batch *batch, int row) {
  int low = 0, high = batch->extent->count; /* offsets[low] <= row < offsets[high] */
  while (high - low > 1) {
    int middle = (low + high) / 2;
    if (batch->offsets[middle] <= row) {
      low = middle;
    } else {
      high = middle;
    }
  }
  return low;
}

struct cuda_batch_table; /* batch.cu */
struct cuda_graphs;      /* graph.cu */
struct cuda_product;     /* linear.cu */
struct cuda_profile;     /* profile.cu */

struct cuda_device {
  struct vamp_device base; /* first: a vamp_device is a cuda_device */
  int ordinal;
  int processors;      /* multiprocessors */
  int capability;      /* 10 * major + minor: 80, 86, 89, 90 */
  size_t shared_limit; /* bytes of shared memory a block may have, after opting in */
  cudaStream_t stream;
  cudaEvent_t done; /* to wait for the stream without spinning */
  cublasLtHandle_t blas;
  struct cuda_arena *arena;
  struct cuda_staging staging;
  void *scratch; /* device memory of one operation, by cuda_scratch */
  size_t scratch_bytes;
  struct cuda_batch_table *batch;
  struct cuda_graphs *graphs;
  struct cuda_product *products; /* a list: the algorithm of each class of matrix products */
  uint64_t version;              /* counts what makes recorded steps stale: moved memory, freed weights */
  struct cuda_profile *profile;  /* NULL: nobody asked */
  int64_t class_rows;            /* while a step is being recorded: rows to launch for; else 0 */
};

/* What a kernel with dynamic shared memory may declare of static at most: the two share the limits. */
enum { CUDA_STATIC_SHARED = 1024 };

/* Bytes of dynamic shared memory that a block may have. */
static inline size_t cuda_shared_room(const struct cuda_device *device) {
  return device->shared_limit - CUDA_STATIC_SHARED;
}

/* To be called before a launch that takes so much: above 48 KiB, static included, a kernel must be allowed
 * to, on each device. */
static inline cudaError_t cuda_allow_shared(const void *kernel, size_t bytes) {
  return bytes + CUDA_STATIC_SHARED <= 48 * 1024
             ? cudaSuccess
             : cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)bytes);
}

static inline struct cuda_device *cuda_device(struct vamp_device *device) {
  return (struct cuda_device *)device;
}

static inline bool cuda_bf16(const struct cuda_device *device) {
  return device->base.precision == VAMP_PRECISION_BF16;
}

static inline bool cuda_tf32(const struct cuda_device *device) {
  return device->base.precision == VAMP_PRECISION_TF32;
}

/* ---- errors --------------------------------------------------------------------------------------- */

/* A vamp_status: VAMP_MEMORY where memory ran out, else VAMP_DEVICE, and then one line on stderr that says
 * what CUDA said and where, for an operation has no room for a text and a lost device without a reason helps
 * nobody. */
int cuda_status(cudaError_t error, const char *file, int line);
int cuda_blas_status(cublasStatus_t status, const char *file, int line);

/* The vamp_status of a call, for functions that unwind through err:. */
#define CUDA_CHECK(call) cuda_status((call), __FILE__, __LINE__)
#define BLAS_CHECK(call) cuda_blas_status((call), __FILE__, __LINE__)

/* Inside a function that returns a vamp_status and has nothing to free. After a VAMP_LAUNCH:
 * CUDA_TRY(cudaGetLastError()). */
#define CUDA_TRY(call)                                                                                       \
  do {                                                                                                       \
    int cuda_try_ = CUDA_CHECK(call);                                                                        \
    if (cuda_try_) {                                                                                         \
      return cuda_try_;                                                                                      \
    }                                                                                                        \
  } while (0)

#define BLAS_TRY(call)                                                                                       \
  do {                                                                                                       \
    int blas_try_ = BLAS_CHECK(call);                                                                        \
    if (blas_try_) {                                                                                         \
      return blas_try_;                                                                                      \
    }                                                                                                        \
  } while (0)

/* ---- memory --------------------------------------------------------------------------------------- */

/* Takes all but a reserve of what the device has free, or `bytes` of it where that is not 0. */
int cuda_arena_open(size_t bytes, struct cuda_arena **arena, struct vamp_error *error);
void cuda_arena_close(struct cuda_arena *arena);
size_t cuda_arena_size(const struct cuda_arena *arena);
size_t cuda_arena_peak(const struct cuda_arena *arena); /* the most that was ever handed out */

/* From the arena: 256-byte aligned; VAMP_MEMORY where nothing is left. Host bookkeeping only, never waits. */
int cuda_allocate(struct cuda_device *device, size_t bytes, void **memory);
void cuda_release(struct cuda_device *device, void *memory); /* NULL is fine */

/* Allocates and uploads; `from` may be freed on return. */
int cuda_upload_new(struct cuda_device *device, const void *from, size_t bytes, void **memory);
/* The same, rounded to bfloat16 or to tf32 where the device's precision is that: act [count]. */
int cuda_upload_act(struct cuda_device *device, const float *from, size_t count, void **memory);

/* Memory for the inside of one operation: at least `bytes`, 256-byte aligned, contents undefined. The same
 * piece serves every operation, one after the other, so a kernel of the next one may overwrite it. */
int cuda_scratch(struct cuda_device *device, size_t bytes, void **memory);

int cuda_staging_open(struct cuda_device *device);
void cuda_staging_close(struct cuda_device *device);

/* Copies a host table to the device, in order and without waiting for the device. *memory stays valid for
 * the operations queued until CUDA_SLOTS more calls were made, so: for this operation. */
int cuda_stage(struct cuda_device *device, const void *from, size_t bytes, const void **memory);

/* A host array into device memory at `to`, in order, read before this returns; waits for the device only
 * where it is larger than the ring. */
int cuda_upload(struct cuda_device *device, void *to, const void *from, size_t bytes);

/* ---- batches (batch.cu) ---------------------------------------------------------------------------- */

/* Puts packing and sequences (NULL: whatever they are) on the device where they are not there yet. */
int cuda_batch_set(struct cuda_device *device, const struct vamp_packing *packing,
                   const struct vamp_sequence *sequences, struct cuda_batch *batch);
void cuda_batch_free(struct cuda_device *device);

/* The size class of a batch: its rows, rounded up to whole tiles. 0 where it has so many sequences for its
 * rows that it is not worth recording. */
int64_t cuda_class_rows(const struct vamp_packing *packing);

/* How many rows, tiles and sequences to launch for: those of the batch, or of its size class while a step is
 * being recorded. */
int64_t cuda_launch_rows(const struct cuda_device *device, int64_t rows);
/* The same where memory is reserved: always for the class, so that recording a step does not make scratch
 * grow. */
static inline int64_t cuda_room_rows(int64_t rows) {
  return (rows + CUDA_TILE_ROWS - 1) / CUDA_TILE_ROWS * CUDA_TILE_ROWS;
}
int64_t cuda_launch_tiles(const struct cuda_device *device, const struct vamp_packing *packing);
int64_t cuda_launch_sequences(const struct cuda_device *device, const struct vamp_packing *packing);

/* ---- weights -------------------------------------------------------------------------------------- */

enum cuda_kind { CUDA_VECTOR, CUDA_LINEAR, CUDA_CONV, CUDA_UNIT, CUDA_EMBEDDING, CUDA_QUANTIZER };

struct vamp_weight {
  enum cuda_kind kind;
};

/* Norms, snake's alpha, the attention bias. */
struct cuda_vector {
  struct vamp_weight base;
  size_t count;
  float *values; /* device [count] */
};

static inline const float *cuda_vector_values(const struct vamp_weight *vector) {
  return vector ? ((const struct cuda_vector *)vector)->values : NULL;
}

/* The kinds that one file alone knows are declared there; each begins with a vamp_weight named base. */

/* ---- the operations, by file: signatures as in vamp/backend.h ------------------------------------------ */

/* A step that is recorded once and then launched whole (graph.cu). */
int cuda_graphs_open(struct cuda_device *device);
int cuda_step_begin(struct vamp_device *device, const struct vamp_step *step,
                    const struct vamp_packing *packing, const struct vamp_sequence *sequences,
                    bool *replayed);
int cuda_step_end(struct vamp_device *device, int status);
/* Whether top-k, top-p or typical filtering is on. */
bool cuda_sequence_filters(const struct vamp_sequence *sequence);
void cuda_graphs_close(struct cuda_device *device);

int cuda_vector_create(struct vamp_device *device, const float *values, size_t count,
                       struct vamp_weight **vector, struct vamp_error *error);

/* linear.cu */
int cuda_linear_create(struct vamp_device *device, int n, int k, bool gated, const float *weight,
                       const float *bias, struct vamp_weight **linear, struct vamp_error *error);
/* The algorithms that linear.cu keeps for the device. */
void cuda_products_free(struct cuda_device *device);
void cuda_linear_free(struct cuda_device *device, struct vamp_weight *linear);
int cuda_linear(struct vamp_device *device, const struct vamp_weight *linear, enum vamp_epilogue epilogue,
                const struct vamp_packing *packing, const void *in, void *out);

/* Its weight, act [n, k], and bias (device, or NULL). */
const void *cuda_linear_weight(const struct vamp_weight *linear, int *k, const float **bias);

/* embed.cu, norm.cu, attention.cu */
int cuda_embedding_create(struct vamp_device *device, int codebooks, int entries, int dimensions, int width,
                          const float *tables, const float *projection, const float *bias,
                          struct vamp_weight **embedding, struct vamp_error *error);
void cuda_embedding_free(struct cuda_device *device, struct vamp_weight *embedding);
int cuda_embed(struct vamp_device *device, const struct vamp_weight *embedding,
               const struct vamp_packing *packing, const struct vamp_sequence *sequences, float *x);
int cuda_rms_norm(struct vamp_device *device, const struct vamp_weight *weight, int64_t rows, int width,
                  const float *x, void *out);
int cuda_attention(struct vamp_device *device, const struct vamp_weight *bias,
                   const struct vamp_packing *packing, int heads, int head_size, const void *qkv, void *out);

/* predict.cu, remask.cu */
int cuda_predict(struct vamp_device *device, const struct vamp_weight *classifier, int codebooks,
                 int predicted, int vocabulary, const struct vamp_packing *packing,
                 const struct vamp_sequence *sequences, const void *x);
int cuda_remask(struct vamp_device *device, int codebooks, int predicted, int vocabulary,
                const struct vamp_packing *packing, const struct vamp_sequence *sequences);

/* conv.cu, unit.cu */
int cuda_conv_create(struct vamp_device *device, const struct vamp_conv_shape *shape, const float *weight,
                     const float *bias, struct vamp_weight **conv, struct vamp_error *error);
void cuda_conv_free(struct cuda_device *device, struct vamp_weight *conv);
int cuda_conv(struct vamp_device *device, const struct vamp_weight *conv, const struct vamp_weight *alpha,
              bool apply_tanh, const struct vamp_packing *from, const struct vamp_packing *to,
              const float *in, float *out);
int cuda_unit_create(struct vamp_device *device, const struct vamp_unit_shape *shape,
                     const struct vamp_unit_weights *weights, struct vamp_weight **unit,
                     struct vamp_error *error);
void cuda_unit_free(struct cuda_device *device, struct vamp_weight *unit);
int cuda_residual_unit(struct vamp_device *device, const struct vamp_weight *unit,
                       const struct vamp_packing *packing, float scale, bool accumulate, const float *in,
                       float *out);

/* quantize.cu */
int cuda_quantizer_create(struct vamp_device *device, int codebooks, int entries, int dimensions, int width,
                          const float *in_weight, const float *in_bias, const float *table,
                          const float *out_weight, const float *out_bias, struct vamp_weight **quantizer,
                          struct vamp_error *error);
void cuda_quantizer_free(struct cuda_device *device, struct vamp_weight *quantizer);
int cuda_quantize(struct vamp_device *device, const struct vamp_weight *quantizer, int64_t rows,
                  float *latent, int32_t *codes, float *quantized);
int cuda_dequantize(struct vamp_device *device, const struct vamp_weight *quantizer, int64_t rows,
                    const int32_t *codes, float *latent);

/* profile.cu: VAMP_CUDA_PROFILE. To be opened last, when device->base.ops is set; closed where that failed,
 * too. */
int cuda_profile_open(struct cuda_device *device, struct vamp_error *error);
void cuda_profile_close(struct cuda_device *device);

#endif
