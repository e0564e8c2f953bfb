/*
 * What the files of the CPU backend share: the device, the kinds of weight, and how work is cut.
 *
 * Every operation cuts each sequence into tiles whose size follows from the weight's shape and the
 * sequence's own length, and deals the tiles to the threads of its pool. A tile is computed by one thread
 * from start to end, in scratch memory that stays in its cache. Hence the promise of vamp/backend.h: no
 * number depends on the batch or on the number of threads.
 */
#ifndef CPU_INTERNAL_H
#define CPU_INTERNAL_H

#include "cpu/onednn.h"
#include "cpu/pool.h"
#include "cpu/simd.h"
#include "vamp/backend.h"

struct cpu_device {
  struct vamp_device base; /* first: a vamp_device is a cpu_device */
  struct onednn *onednn;
  const struct simd *simd;
  int threads;
  struct cpu_pool *pool;
  void **scratch;       /* [threads], 64-byte aligned */
  size_t *scratch_size; /* [threads] */
};

static inline struct cpu_device *cpu_device(struct vamp_device *device) {
  return (struct cpu_device *)device;
}

static inline bool cpu_bf16(const struct cpu_device *device) {
  return device->base.precision == VAMP_PRECISION_BF16;
}

/* Makes every thread's scratch at least `bytes`; not while a loop runs. */
int cpu_scratch_reserve(struct cpu_device *device, size_t bytes);
/* A thread's scratch, by the number that cpu_pool_run gave it. */
static inline char *cpu_scratch(const struct cpu_device *device, int thread) {
  return device->scratch[thread];
}

/* Carves aligned pieces off a thread's scratch. */
static inline void *cpu_carve(char **at, size_t bytes) {
  char *piece = *at;
  *at += (bytes + 63) / 64 * 64;
  return piece;
}

static inline size_t cpu_carved(size_t bytes) {
  return (bytes + 63) / 64 * 64;
}

/* Bytes readable behind every buffer of the device: products take rows by whole classes. */
static const size_t cpu_row_slack = (size_t)1 << 21;

void *cpu_allocate(size_t bytes); /* 64-byte aligned, freed by free(); NULL when out of memory */

/* A copy with a vector's room behind it; freed by free(), NULL when out of memory. */
float *cpu_copy_floats(const float *from, size_t count);

enum cpu_kind { CPU_VECTOR, CPU_LINEAR, CPU_CONV, CPU_UNIT, CPU_EMBEDDING, CPU_QUANTIZER };

struct vamp_weight {
  enum cpu_kind kind;
};

struct cpu_vector {
  struct vamp_weight base;
  size_t count;
  float *values;  /* [count]; inside the same allocation */
  float *inverse; /* [count]: 1 / (value + 1e-9), snake's second factor */
};

/* A matrix cut into column tiles of equal width; gated: tile j holds the same columns of both halves. */
struct cpu_linear {
  struct vamp_weight base;
  int n, k;
  bool gated;
  int tiles, tile_n;               /* n == tiles * tile_n */
  struct onednn_product **product; /* [tiles] */
  float *bias;                     /* [n] in tile order, or NULL */
};

enum cpu_conv_way {
  CPU_CONV_CHANNELS,   /* stride 1, few channels: our own kernel, vectors along time */
  CPU_CONV_TILE,       /* stride 1: one oneDNN convolution over a tile with its context */
  CPU_CONV_GATHER,     /* strided: rows gathered, then a product */
  CPU_CONV_TRANSPOSED, /* transposed: a product, then overlap and add */
};

struct cpu_conv {
  struct vamp_weight base;
  struct vamp_conv_shape shape;
  enum cpu_conv_way way;
  int rows;                  /* a tile's output rows (TILE, CHANNELS) */
  float *weight;             /* CHANNELS: [out, in, kernel] */
  float *bias;               /* [out] or NULL */
  struct onednn_conv *tile;  /* TILE: of `rows` rows */
  struct cpu_linear *linear; /* GATHER, TRANSPOSED */
};

struct fast_fir;

/* A residual unit: the first convolution's tile is wider by the context of the second. Where a fast FIR is
 * there it takes the place of the convolution's own tile. */
struct cpu_unit {
  struct vamp_weight base;
  struct cpu_vector *alpha1, *alpha2;
  struct vamp_conv_shape shape1, shape2;
  int rows, hidden;                /* a tile's output rows, and rows between the convolutions */
  struct cpu_conv *first, *second; /* NULL where the fast FIR is used */
  struct fast_fir *fast_first, *fast_second;
};

struct cpu_embedding {
  struct vamp_weight base;
  int codebooks, entries, dimensions, width;
  float *tables; /* [codebooks, entries, dimensions] */
  struct cpu_linear *projection;
};

struct cpu_quantizer {
  struct vamp_weight base;
  int codebooks, entries, dimensions, width;
  float *in_weight;    /* [codebooks, dimensions, width] */
  float *in_bias;      /* [codebooks, dimensions] */
  float *table;        /* [codebooks, entries, dimensions] */
  float *directions;   /* [codebooks, dimensions, entries]: rows of the table, normalised, transposed */
  float *half_squares; /* [codebooks, entries]: half the squared norm of each direction */
  float *out_weight;   /* [codebooks, dimensions, width]: transposed */
  float *out_bias;     /* [codebooks, width] */
};

/* A tile of rows of one sequence. */
struct cpu_tile {
  int sequence;
  int64_t first; /* row in the packed matrix */
  int rows;
};

/* Cuts every sequence into tiles of `size` rows; *tiles is malloc'd. Returns their number, or -1. */
int64_t cpu_tiles(const struct vamp_packing *packing, int size, struct cpu_tile **tiles);

/* One product tile with its epilogue left to the caller: y [rows, tile_n] = in * weight. in act
 * [rows, k] contiguous, readable up to the end of its row class, whatever stands there; y has room for as
 * many rows. pad is scratch of cpu_linear_scratch bytes. */
size_t cpu_linear_scratch(const struct cpu_device *device);
int cpu_linear_tile(const struct cpu_linear *linear, int tile, int rows, const void *in, float *y, void *pad);
/* Builds what tiles of `rows` rows need; not while a loop runs. */
int cpu_linear_prepare(const struct cpu_linear *linear, int rows, struct vamp_error *error);

/* The operations, by file. A cpu_vector is one allocation, freed by free(). */
int cpu_vector_make(const float *values, size_t count, struct cpu_vector **vector, struct vamp_error *error);
int cpu_linear_create(struct vamp_device *device, int n, int k, bool gated, const float *weight,
                      const float *bias, struct vamp_weight **linear, struct vamp_error *error);
void cpu_linear_free(struct cpu_linear *linear);
int cpu_linear(struct vamp_device *device, const struct vamp_weight *linear, enum vamp_epilogue epilogue,
               const struct vamp_packing *packing, const void *in, void *out);
int cpu_embedding_create(struct vamp_device *device, int codebooks, int entries, int dimensions, int width,
                         const float *tables, const float *projection, const float *bias,
                         struct vamp_weight **embedding, struct vamp_error *error);
void cpu_embedding_free(struct cpu_embedding *embedding);
int cpu_embed(struct vamp_device *device, const struct vamp_weight *embedding,
              const struct vamp_packing *packing, const struct vamp_sequence *sequences, float *x);
int cpu_rms_norm(struct vamp_device *device, const struct vamp_weight *weight, int64_t rows, int width,
                 const float *x, void *out);
int cpu_attention(struct vamp_device *device, const struct vamp_weight *bias,
                  const struct vamp_packing *packing, int heads, int head_size, const void *qkv, void *out);
int cpu_predict(struct vamp_device *device, const struct vamp_weight *classifier, int codebooks,
                int predicted, int vocabulary, const struct vamp_packing *packing,
                const struct vamp_sequence *sequences, const void *x);
int cpu_remask(struct vamp_device *device, int codebooks, int predicted, int vocabulary,
               const struct vamp_packing *packing, const struct vamp_sequence *sequences);
int cpu_conv_create(struct vamp_device *device, const struct vamp_conv_shape *shape, const float *weight,
                    const float *bias, struct vamp_weight **conv, struct vamp_error *error);
/* The same with a given number of output rows to a tile. */
int cpu_conv_make(struct vamp_device *device, const struct vamp_conv_shape *shape, int rows,
                  const float *weight, const float *bias, struct cpu_conv **conv, struct vamp_error *error);
void cpu_conv_free(struct cpu_conv *conv);
int cpu_conv(struct vamp_device *device, const struct vamp_weight *conv, const struct vamp_weight *alpha,
             bool apply_tanh, const struct vamp_packing *from, const struct vamp_packing *to, const float *in,
             float *out);
int cpu_unit_create(struct vamp_device *device, const struct vamp_unit_shape *shape,
                    const struct vamp_unit_weights *weights, struct vamp_weight **unit,
                    struct vamp_error *error);
void cpu_unit_free(struct cpu_unit *unit);
int cpu_residual_unit(struct vamp_device *device, const struct vamp_weight *unit,
                      const struct vamp_packing *packing, float scale, bool accumulate, const float *in,
                      float *out);
int cpu_quantizer_create(struct vamp_device *device, int codebooks, int entries, int dimensions, int width,
                         const float *in_weight, const float *in_bias, const float *table,
                         const float *out_weight, const float *out_bias, struct vamp_weight **quantizer,
                         struct vamp_error *error);
void cpu_quantizer_free(struct cpu_quantizer *quantizer);
int cpu_quantize(struct vamp_device *device, const struct vamp_weight *quantizer, int64_t rows, float *latent,
                 int32_t *codes, float *quantized);
int cpu_dequantize(struct vamp_device *device, const struct vamp_weight *quantizer, int64_t rows,
                   const int32_t *codes, float *latent);

#endif
