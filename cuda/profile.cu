/*
 * Where the device's time goes, by operation, for tools/measure/gpu.
 *
 * With VAMP_CUDA_PROFILE=FILE in the environment every operation is bracketed by two events on the stream;
 * when the device is closed their sums go to FILE as JSON, beside the most memory that was ever handed out.
 * Steps are not recorded as graphs then, for inside a graph there is nothing to bracket: so the operations of
 * one small step are launched one by one and their sum is what the device spent, not what passed. A profiler
 * would tell more, but it is another installation on the machine that is measured.
 *
 * Events are made once and used in turn; when all are used the device is waited for and they are read.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cuda/internal.h"

enum family {
  EMBED,
  RMS_NORM,
  LINEAR,
  ATTENTION,
  PREDICT,
  REMASK,
  CONV,
  RESIDUAL_UNIT,
  QUANTIZE,
  DEQUANTIZE,
  FAMILIES
};
static const char *const NAMES[FAMILIES] = {"embed",  "rms_norm", "linear",        "attention", "predict",
                                            "remask", "conv",     "residual_unit", "quantize",  "dequantize"};

enum { most_events = 1024 };

struct cuda_profile {
  const struct vamp_operations *plain;
  struct vamp_operations timed; /* what device->base.ops is while profiling */
  FILE *file;
  cudaEvent_t begin[most_events], end[most_events];
  enum family family[most_events];
  int made, used;
  double seconds[FAMILIES];
  int64_t calls[FAMILIES];
};

/* Adds up what was bracketed since the last time. */
static void collect(struct cuda_device *device) {
  struct cuda_profile *profile = device->profile;
  if (cudaStreamSynchronize(device->stream) != cudaSuccess) {
    profile->used = 0;
  }
  for (int i = 0; i < profile->used; i++) {
    float milliseconds = 0;
    if (cudaEventElapsedTime(&milliseconds, profile->begin[i], profile->end[i]) == cudaSuccess) {
      profile->seconds[profile->family[i]] += (double)milliseconds / 1e3;
      profile->calls[profile->family[i]]++;
    }
  }
  profile->used = 0;
}

static struct cuda_profile *begin(struct vamp_device *base, enum family family) {
  struct cuda_device *device = cuda_device(base);
  struct cuda_profile *profile = device->profile;
  if (profile->used == profile->made) {
    collect(device);
  }
  profile->family[profile->used] = family;
  cudaEventRecord(profile->begin[profile->used], device->stream);
  return profile;
}

static int end(struct vamp_device *base, int status) {
  struct cuda_profile *profile = cuda_device(base)->profile;
  cudaEventRecord(profile->end[profile->used], cuda_device(base)->stream);
  profile->used++;
  return status;
}

/* ---- the operations, bracketed ------------------------------------------------------------------------ */

static int embed(struct vamp_device *device, const struct vamp_weight *embedding,
                 const struct vamp_packing *packing, const struct vamp_sequence *sequences, float *x) {
  return end(device, begin(device, EMBED)->plain->embed(device, embedding, packing, sequences, x));
}

static int rms_norm(struct vamp_device *device, const struct vamp_weight *weight, int64_t rows, int width,
                    const float *x, void *out) {
  return end(device, begin(device, RMS_NORM)->plain->rms_norm(device, weight, rows, width, x, out));
}

static int linear(struct vamp_device *device, const struct vamp_weight *weight, enum vamp_epilogue epilogue,
                  const struct vamp_packing *packing, const void *in, void *out) {
  return end(device, begin(device, LINEAR)->plain->linear(device, weight, epilogue, packing, in, out));
}

static int attention(struct vamp_device *device, const struct vamp_weight *bias,
                     const struct vamp_packing *packing, int heads, int head_size, const void *qkv,
                     void *out) {
  return end(device,
             begin(device, ATTENTION)->plain->attention(device, bias, packing, heads, head_size, qkv, out));
}

static int predict(struct vamp_device *device, const struct vamp_weight *classifier, int codebooks,
                   int predicted, int vocabulary, const struct vamp_packing *packing,
                   const struct vamp_sequence *sequences, const void *x) {
  return end(device, begin(device, PREDICT)
                         ->plain->predict(device, classifier, codebooks, predicted, vocabulary, packing,
                                          sequences, x));
}

static int remask(struct vamp_device *device, int codebooks, int predicted, int vocabulary,
                  const struct vamp_packing *packing, const struct vamp_sequence *sequences) {
  return end(
      device,
      begin(device, REMASK)->plain->remask(device, codebooks, predicted, vocabulary, packing, sequences));
}

static int conv(struct vamp_device *device, const struct vamp_weight *weight, const struct vamp_weight *alpha,
                bool apply_tanh, const struct vamp_packing *from, const struct vamp_packing *to,
                const float *in, float *out) {
  return end(device, begin(device, CONV)->plain->conv(device, weight, alpha, apply_tanh, from, to, in, out));
}

static int residual_unit(struct vamp_device *device, const struct vamp_weight *unit,
                         const struct vamp_packing *packing, float scale, bool accumulate, const float *in,
                         float *out) {
  return end(
      device,
      begin(device, RESIDUAL_UNIT)->plain->residual_unit(device, unit, packing, scale, accumulate, in, out));
}

static int quantize(struct vamp_device *device, const struct vamp_weight *quantizer, int64_t rows,
                    float *latent, int32_t *codes, float *quantized) {
  return end(device,
             begin(device, QUANTIZE)->plain->quantize(device, quantizer, rows, latent, codes, quantized));
}

static int dequantize(struct vamp_device *device, const struct vamp_weight *quantizer, int64_t rows,
                      const int32_t *codes, float *latent) {
  return end(device, begin(device, DEQUANTIZE)->plain->dequantize(device, quantizer, rows, codes, latent));
}

/* ---- open and close ------------------------------------------------------------------------------------ */

int cuda_profile_open(struct cuda_device *device, struct vamp_error *error) {
  const char *path = getenv("VAMP_CUDA_PROFILE");
  if (!path || !path[0]) {
    return 0;
  }
  struct cuda_profile *profile = (struct cuda_profile *)calloc(1, sizeof *profile);
  if (!profile) {
    return vamp_fail(error, VAMP_MEMORY, "out of memory");
  }
  device->profile = profile;
  profile->file = fopen(path, "w");
  if (!profile->file) {
    return vamp_fail(error, VAMP_IO, "VAMP_CUDA_PROFILE: cannot write %s", path);
  }
  for (; profile->made < most_events; profile->made++) {
    int status = CUDA_CHECK(cudaEventCreate(&profile->begin[profile->made]));
    if (!status) {
      status = CUDA_CHECK(cudaEventCreate(&profile->end[profile->made]));
    }
    if (status) {
      return vamp_fail(error, status, "VAMP_CUDA_PROFILE: no events to be had");
    }
  }
  profile->plain = device->base.ops;
  profile->timed = *profile->plain;
  profile->timed.step_begin = NULL;
  profile->timed.step_end = NULL;
  profile->timed.embed = embed;
  profile->timed.rms_norm = rms_norm;
  profile->timed.linear = linear;
  profile->timed.attention = attention;
  profile->timed.predict = predict;
  profile->timed.remask = remask;
  profile->timed.conv = conv;
  profile->timed.residual_unit = residual_unit;
  profile->timed.quantize = quantize;
  profile->timed.dequantize = dequantize;
  device->base.ops = &profile->timed;
  return 0;
}

void cuda_profile_close(struct cuda_device *device) {
  struct cuda_profile *profile = device->profile;
  if (!profile) {
    return;
  }
  if (profile->plain) {
    collect(device);
    fprintf(profile->file, "{\"peak_bytes\": %zu, \"families\": {", cuda_arena_peak(device->arena));
    for (int i = 0; i < FAMILIES; i++) {
      fprintf(profile->file, "%s\"%s\": {\"seconds\": %.9f, \"calls\": %lld}", i ? ", " : "", NAMES[i],
              profile->seconds[i], (long long)profile->calls[i]);
    }
    fprintf(profile->file, "}}\n");
  }
  for (int i = 0; i < most_events; i++) {
    if (profile->begin[i]) {
      cudaEventDestroy(profile->begin[i]);
    }
    if (profile->end[i]) {
      cudaEventDestroy(profile->end[i]);
    }
  }
  if (profile->file) {
    fclose(profile->file);
  }
  free(profile);
  device->profile = NULL;
}
