/*
 * The contract between the model graph (engine/model) and the devices that run it (cpu/, cuda/).
 *
 * The graph is written once, against the table of operations below. A device is opened by its backend
 * and used by ONE thread at a time. Operations are asynchronous and happen in the order they were
 * called; wait() returns when all are done, download() waits for what it copies. Pointers named
 * "device" are addresses in the device's memory: the engine does arithmetic on them and never reads
 * through them.
 *
 * Layout. Everything is packed end to end, without padding: a batch of sequences is a matrix
 * [rows, channels] of all their positions, row-major, channels last, beside a vamp_packing that says
 * where each sequence begins. No operation lets one sequence see another, and a sequence's result may
 * not depend on its neighbours, not by one bit: a backend must choose tile sizes, algorithms and the
 * order of reductions from the sequence's own length and the shapes of the weights alone.
 *
 * Types. The residual stream and all codec signals are float. Matrix inputs inside the transformer
 * ("act") are float or bfloat16, as `precision` says: vamp_device.act_size bytes an element.
 *
 * Errors. Every operation returns 0 or a negative vamp_status. After VAMP_DEVICE the device is lost
 * and must be closed; any other error leaves it usable.
 */
#ifndef VAMP_BACKEND_H
#define VAMP_BACKEND_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "vamp/error.h"

#ifdef __cplusplus
extern "C" {
#endif

/* TF32: act is float, and what enters a matrix product is rounded to 10 bits of mantissa; sums are float. */
enum vamp_precision { VAMP_PRECISION_FP32, VAMP_PRECISION_BF16, VAMP_PRECISION_TF32 };

/* As users write it; vamp/device.h has the way back. Here, for plugins say it too. */
static inline const char *vamp_precision_name(enum vamp_precision precision) {
  return precision == VAMP_PRECISION_BF16 ? "bf16" : precision == VAMP_PRECISION_TF32 ? "tf32" : "fp32";
}

/* Where each sequence of a packed matrix begins: sequence s is rows offsets[s] .. offsets[s+1]-1.
 * Host memory, read before the operation returns. */
struct vamp_packing {
  int count;
  const int64_t *offsets; /* [count + 1], offsets[0] == 0, ascending */
};

/* Weights in the form a device likes best; opaque, freed by vamp_operations.weight_free. */
struct vamp_weight;

struct vamp_conv_shape {
  int in_channels, out_channels;
  int kernel, stride, dilation, padding;
  bool transposed; /* transposed convolution: weights [in, out, kernel]; dilation 1 */
};

/* Rows a convolution makes of `rows` rows; 0 where the kernel does not fit. */
static inline int64_t vamp_conv_rows(const struct vamp_conv_shape *shape, int64_t rows) {
  int64_t span = (int64_t)shape->dilation * (shape->kernel - 1) + 1;
  if (shape->transposed) {
    int64_t out = (rows - 1) * shape->stride - 2 * (int64_t)shape->padding + span;
    return rows > 0 && out > 0 ? out : 0;
  }
  int64_t room = rows + 2 * (int64_t)shape->padding - span;
  return room < 0 ? 0 : room / shape->stride + 1;
}

/* A residual unit: two convolutions that keep channels and rows (odd kernels), each after a snake. */
struct vamp_unit_shape {
  int channels;
  int kernel1, dilation1;
  int kernel2; /* dilation 1 */
};

struct vamp_unit_weights {
  const float *alpha1, *weight1, *bias1; /* [channels], [channels, channels, kernel1], [channels] */
  const float *alpha2, *weight2, *bias2; /* [channels], [channels, channels, kernel2], [channels] */
};

enum vamp_epilogue {
  VAMP_STORE,      /* out act   [rows, n] = y */
  VAMP_STORE_F32,  /* out float [rows, n] = y */
  VAMP_ADD,        /* out float [rows, n] += y (residual stream) */
  VAMP_GATED_GELU, /* out act [rows, n/2] = y1 * gelu_tanh(y2), y1 the first half of the channels */
};

/* What a generation step is run with, for devices that record it: `owner` names the model, `buffers` are what
 * the engine gives to the operations besides weights. Equal members mean equal operations on equal addresses.
 */
struct vamp_step {
  const void *owner;
  const void *buffers[3];
};

/* One sequence in the generation step of a transformer. Device arrays are the sequence's own; C is the
 * model's codebooks, P the predicted ones (the last P of C), V the vocabulary (also the mask token). */
struct vamp_sequence {
  int32_t *tokens;    /* device [frames, C]; V where masked */
  int32_t *sampled;   /* device [frames, P]: this step's candidates, at masked positions */
  float *probability; /* device [frames, P]: of the candidate, kept once it is committed */
  float *confidence;  /* device [frames, P]: ln probability plus this step's noise */
  int32_t *committed; /* device [frames, P]: the step at which the token was fixed; -1 before */

  /* This step's sampling. The filters (top_k, then top_p, then typical) look at softmax(logits); what they
   * leave is drawn from softmax(logits / temperature). */
  bool argmax;         /* take the likeliest token instead of sampling */
  float temperature;   /* > 0 */
  int32_t top_k;       /* 0: off */
  float top_p;         /* 1: off */
  float typical_mass;  /* 0: off */
  int32_t typical_min; /* tokens kept at least */
  float noise;         /* mask_temperature * (1 - r): scale of the Gumbel noise on confidence */
  int32_t masked;      /* positions masked before this step */
  int32_t keep_masked; /* m: positions that stay masked after it; 0 at the last step */
  int32_t step;        /* written to `committed` */

  /* Random numbers: vamp_philox(seed, frame, codebook + 256 * step, counter, stream); word 0 draws the
   * token, word 1 the Gumbel noise. */
  uint64_t seed;
  uint32_t counter; /* pass and chunk, see engine/generate */
  uint32_t stream;  /* enum vamp_random_stream */
};

struct vamp_device;

struct vamp_operations {
  /* ---- memory -------------------------------------------------------------------------------- */
  int (*allocate)(struct vamp_device *device, size_t bytes, void **memory, struct vamp_error *error);
  void (*release)(struct vamp_device *device, void *memory); /* NULL is fine */
  int (*upload)(struct vamp_device *device, void *to, const void *from_host, size_t bytes);
  int (*download)(struct vamp_device *device, void *to_host, const void *from, size_t bytes);
  int (*copy)(struct vamp_device *device, void *to, const void *from, size_t bytes);
  int (*wait)(struct vamp_device *device);

  /* ---- weights: host arrays in, reordered once; the host arrays may be freed on return ---------- */
  /* weight [n, k] row-major, bias [n] or NULL. `gated`: will be used with VAMP_GATED_GELU (n even). */
  int (*linear_create)(struct vamp_device *device, int n, int k, bool gated, const float *weight,
                       const float *bias, struct vamp_weight **linear, struct vamp_error *error);
  /* weight [out, in, kernel], or [in, out, kernel] where transposed; bias [out] or NULL. */
  int (*conv_create)(struct vamp_device *device, const struct vamp_conv_shape *shape, const float *weight,
                     const float *bias, struct vamp_weight **conv, struct vamp_error *error);
  int (*unit_create)(struct vamp_device *device, const struct vamp_unit_shape *shape,
                     const struct vamp_unit_weights *weights, struct vamp_weight **unit,
                     struct vamp_error *error);
  /* tables [codebooks, entries, dimensions], projection [width, codebooks * dimensions], bias [width]. */
  int (*embedding_create)(struct vamp_device *device, int codebooks, int entries, int dimensions, int width,
                          const float *tables, const float *projection, const float *bias,
                          struct vamp_weight **embedding, struct vamp_error *error);
  /* One residual vector quantiser of `codebooks` levels: in_weight [codebooks, dimensions, width],
   * in_bias [codebooks, dimensions], table [codebooks, entries, dimensions],
   * out_weight [codebooks, width, dimensions], out_bias [codebooks, width]. */
  int (*quantizer_create)(struct vamp_device *device, int codebooks, int entries, int dimensions, int width,
                          const float *in_weight, const float *in_bias, const float *table,
                          const float *out_weight, const float *out_bias, struct vamp_weight **quantizer,
                          struct vamp_error *error);
  /* Any small float vector or table an operation reads: norms, snake's alpha, the attention bias. */
  int (*vector_create)(struct vamp_device *device, const float *values, size_t count,
                       struct vamp_weight **vector, struct vamp_error *error);
  void (*weight_free)(struct vamp_device *device, struct vamp_weight *weight); /* NULL is fine */

  /* ---- transformer ----------------------------------------------------------------------------- */
  /* Optional, NULL together: brackets of one generation step (embed ... remask on one packing), between which
   * nothing is allocated, copied or created. A device may record the operations of a step and later run the
   * recording instead: then step_begin runs the whole step and sets *replayed, and neither the operations nor
   * step_end are called. step_end gets the first status of the operations that was not 0, or 0, and returns
   * it or its own; VAMP_BUSY: recording failed, nothing ran, and the operations are to be called once more.
   */
  int (*step_begin)(struct vamp_device *device, const struct vamp_step *step,
                    const struct vamp_packing *packing, const struct vamp_sequence *sequences,
                    bool *replayed);
  int (*step_end)(struct vamp_device *device, int status);
  /* x float [rows, width] = projection(concat of table rows of tokens [rows of the sequence, codebooks]). */
  int (*embed)(struct vamp_device *device, const struct vamp_weight *embedding,
               const struct vamp_packing *packing, const struct vamp_sequence *sequences, float *x);
  /* out act [rows, width] = weight * x / sqrt(mean(x^2) + 1e-6). */
  int (*rms_norm)(struct vamp_device *device, const struct vamp_weight *weight, int64_t rows, int width,
                  const float *x, void *out);
  /* out = epilogue(in act [rows, k] * weight^T + bias). */
  int (*linear)(struct vamp_device *device, const struct vamp_weight *linear, enum vamp_epilogue epilogue,
                const struct vamp_packing *packing, const void *in, void *out);
  /* Bidirectional attention inside each sequence. qkv act [rows, 3 * heads * head_size] (q, k, v in this
   * order), bias: vector [32 buckets, heads], added as bias[bucket(key - query)][head] after the scores
   * were scaled by 1/sqrt(head_size). out act [rows, heads * head_size]. Buckets: docs/model.md. */
  int (*attention)(struct vamp_device *device, const struct vamp_weight *bias,
                   const struct vamp_packing *packing, int heads, int head_size, const void *qkv, void *out);
  /* Classifies x act [rows, k] and draws a candidate for every masked position: fills sampled,
   * probability and confidence of each sequence. The classifier's channel is codebook * V + token.
   * Logits never leave the device, and only masked positions need to be computed. */
  int (*predict)(struct vamp_device *device, const struct vamp_weight *classifier, int codebooks,
                 int predicted, int vocabulary, const struct vamp_packing *packing,
                 const struct vamp_sequence *sequences, const void *x);
  /* Commits every masked position but the keep_masked least confident of each sequence; on equal
   * confidence the position that comes first in [frame, codebook] order stays masked. */
  int (*remask)(struct vamp_device *device, int codebooks, int predicted, int vocabulary,
                const struct vamp_packing *packing, const struct vamp_sequence *sequences);

  /* ---- codec: float [rows, channels] in and out ------------------------------------------------- */
  /* out = conv(snake(in)); alpha NULL: no snake; apply_tanh: tanh at the end. `to` has
   * vamp_conv_rows(from) rows for each sequence. Plain and transposed alike. */
  int (*conv)(struct vamp_device *device, const struct vamp_weight *conv, const struct vamp_weight *alpha,
              bool apply_tanh, const struct vamp_packing *from, const struct vamp_packing *to,
              const float *in, float *out);
  /* y = in + second(snake2(first(snake1(in)))): out = scale * y, or out += scale * y. in and out must
   * not overlap. */
  int (*residual_unit)(struct vamp_device *device, const struct vamp_weight *unit,
                       const struct vamp_packing *packing, float scale, bool accumulate, const float *in,
                       float *out);
  /* Latent [rows, width] -> codes int32 [rows, codebooks]; the latent is used up. quantized (may be
   * NULL) float [rows, width] gets the sum of all levels. */
  int (*quantize)(struct vamp_device *device, const struct vamp_weight *quantizer, int64_t rows,
                  float *latent, int32_t *codes, float *quantized);
  /* Codes int32 [rows, codebooks] -> latent float [rows, width]. */
  int (*dequantize)(struct vamp_device *device, const struct vamp_weight *quantizer, int64_t rows,
                    const int32_t *codes, float *latent);
};

struct vamp_device {
  const struct vamp_operations *ops;
  const char *backend;   /* "cpu", "cuda" */
  char description[160]; /* for people: processor, instruction set, threads */
  /* What the bits of a result depend on besides the precision: equal for devices that give equal results. */
  char hardware[96];
  int count; /* devices that this backend finds here, this one among them */
  enum vamp_precision precision;
  size_t act_size;    /* 4 or 2 */
  int64_t step_rows;  /* rows a generation step takes before more only means waiting */
  int64_t codec_rows; /* the same for the codec, in frames */
  /* Operations of the transformer may read and write up to this many rows behind the last one of x, act and
   * what lies between them: their buffers have room for so many more. 0 on the CPU. */
  int64_t row_slack;
  void (*close)(struct vamp_device *device);
};

/* What went wrong in an operation, for a message: operations return a status and no text. */
static inline const char *vamp_device_trouble(int status) {
  return status == VAMP_MEMORY ? "out of memory on the device" : "the device failed";
}

struct vamp_device_options {
  enum vamp_precision precision;
  bool precision_given; /* false: the backend takes the fastest the hardware has */
  int threads;          /* CPU; 0: all cores */
  int index;            /* which of the backend's devices, from 0 */
  const char *backend;  /* for vamp_device_open, see vamp/device.h; a backend does not look at it */
};

/* Opens a device. VAMP_UNSUPPORTED where there is none of that index, the hardware lacks the precision, or
 * the build lacks the backend. */
int vamp_cpu_open(const struct vamp_device_options *options, struct vamp_device **device,
                  struct vamp_error *error);

/* A backend in a shared object libvamp_NAME.so, which exports one symbol, VAMP_PLUGIN_SYMBOL. The object
 * stays loaded until the process ends. `open` is as vamp_cpu_open and is called from the thread that will
 * own the device. */
#define VAMP_PLUGIN_ABI 3 /* grows with every change of this header; a plugin with another one is refused */
#define VAMP_PLUGIN_SYMBOL "vamp_plugin"

struct vamp_plugin {
  uint32_t abi;     /* VAMP_PLUGIN_ABI; first for good, so that any version can be read */
  const char *name; /* as vamp_device.backend: "cuda" */
  int (*open)(const struct vamp_device_options *options, struct vamp_device **device,
              struct vamp_error *error);
};

/* Defined by plugins alone. */
extern const struct vamp_plugin vamp_plugin __attribute__((visibility("default")));

#ifdef __cplusplus
}
#endif

#endif
