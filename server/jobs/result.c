/* What a finished job leaves behind: see result.h. */
#include "server/jobs/result.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "server/jobs/document.h"
#include "server/jobs/prepare.h"
#include "vamp/array.h"
#include "vamp/measure.h"

#define MASTER "audio.wav"
#define MAX_FILE_BYTES ((size_t)1 << 32)

static void take(struct vampd_result *result, int index, const char *name, void *data, size_t size) {
  result->owned[index] = data;
  result->files[index] = (struct vampd_store_file){name, data, size};
}

void vampd_result_free(struct vampd_result *result) {
  free(result->summary);
  for (int i = 0; i < VAMPD_RESULT_FILES; i++) {
    free(result->owned[i]);
  }
  *result = (struct vampd_result){0};
}

/* ---- making -------------------------------------------------------------------------------------------- */

json_t *vampd_result_timings(const struct vamp_result *result, double total) {
  return json_pack("{s:f, s:f, s:f, s:f, s:f, s:f}", "queued", result->seconds.queued, "encode",
                   result->seconds.encode, "coarse", result->seconds.coarse, "fine", result->seconds.fine,
                   "decode", result->seconds.decode, "total", total);
}

int64_t vampd_result_reserve(size_t samples, int codebooks, int64_t frames) {
  /* The float file and a 16 bit one; 4 arrays of 4 bytes, the tokens, and the mask document with its base64.
   */
  return (int64_t)samples * 6 + frames * codebooks * (16 + 4 + 8) + (64 << 10);
}

/* The last pass's [codebooks, frames] as four layers of floats. */
static int pack_picture(const struct vamp_result *result, struct vampd_result *made,
                        struct vamp_error *error) {
  size_t tokens = (size_t)result->codebooks * (size_t)result->frames;
  int last = result->passes - 1;
  float *layers = malloc(4 * tokens * sizeof *layers);
  if (!layers) {
    return vamp_fail(error, VAMP_MEMORY, "Out of memory while keeping the result.");
  }
  for (size_t i = 0; i < tokens; i++) {
    layers[i] = (float)result->pass_before[last][i];
    layers[tokens + i] = (float)result->pass_after[last][i];
    layers[2 * tokens + i] = (float)result->committed_step[last][i];
    layers[3 * tokens + i] = result->confidence[last][i];
  }
  size_t shape[] = {4, (size_t)result->codebooks, (size_t)result->frames};
  void *data;
  size_t size;
  int status = vamp_array_write_memory(VAMP_F32, 3, shape, layers, &data, &size, error);
  free(layers);
  if (status == VAMP_OK) {
    take(made, 3, "picture.npy", data, size);
  }
  return status;
}

static int pack_tokens(const struct vamp_result *result, struct vampd_result *made,
                       struct vamp_error *error) {
  size_t shape[] = {(size_t)result->codebooks, (size_t)result->frames};
  void *data;
  size_t size;
  int status = vamp_array_write_memory(VAMP_I32, 2, shape, result->codes, &data, &size, error);
  if (status == VAMP_OK) {
    take(made, 2, "tokens.npy", data, size);
  }
  return status;
}

static json_t *summarise(const struct vampd_outcome *outcome, const struct vampd_device_facts *facts,
                         const json_t *mask) {
  json_t *passes = json_object_get(mask, "passes");
  json_t *last = json_array_get(passes, json_array_size(passes) - 1);
  return json_pack("{s:s, s:s, s:s, s:I, s:o, s:O, s:O}", "model", facts->model.name, "backend",
                   facts->backend, "precision", vamp_precision_name(facts->precision), "samples",
                   (json_int_t)outcome->result->sample_count, "timings",
                   vampd_result_timings(outcome->result, outcome->seconds), "density",
                   json_object_get(mask, "density"), "changed", json_object_get(last, "changed"));
}

/* How the result differs from the clip as it came in. */
static int add_measures(const struct vampd_outcome *outcome, json_t *summary, struct vamp_error *error) {
  const struct vamp_clip *clip = &outcome->variation->clip;
  const struct vamp_result *result = outcome->result;
  float *before = malloc(clip->count * sizeof *before);
  if (!before) {
    return vamp_fail(error, VAMP_MEMORY, "Out of memory while measuring the result.");
  }
  for (size_t i = 0; i < clip->count; i++) {
    before[i] = (float)(clip->samples[i] / clip->gain);
  }
  struct vamp_measures measures = {0};
  int status = vamp_measure_audio(before, result->samples, clip->count, clip->sample_rate, &measures, error);
  free(before);
  if (status == VAMP_OK) {
    json_object_set_new(summary, "measures", vamp_measure_json(&measures));
  }
  return status;
}

int vampd_result_make(const struct vampd_outcome *outcome, const struct vampd_device_facts *facts,
                      bool measure, struct vampd_result *result, struct vamp_error *error) {
  struct vampd_result made = {0};
  void *data;
  size_t size;
  json_t *summary = NULL;
  json_t *mask = vamp_variation_mask_json(outcome->variation, outcome->result);
  char *text = mask ? json_dumps(mask, JSON_COMPACT | JSON_REAL_PRECISION(15)) : NULL;
  int status = text ? VAMP_OK : vamp_fail(error, VAMP_MEMORY, "Out of memory while describing the mask.");
  if (status == VAMP_OK) {
    take(&made, 1, "mask.json", text, strlen(text));
    status =
        vamp_audio_write_memory(VAMP_AUDIO_WAV_FLOAT, outcome->result->samples, outcome->result->sample_count,
                                outcome->variation->sample_rate, &data, &size, error);
  }
  if (status == VAMP_OK) {
    take(&made, 0, MASTER, data, size);
    status = pack_tokens(outcome->result, &made, error);
  }
  if (status == VAMP_OK) {
    status = pack_picture(outcome->result, &made, error);
  }
  if (status == VAMP_OK) {
    summary = summarise(outcome, facts, mask);
    status = summary ? VAMP_OK : vamp_fail(error, VAMP_MEMORY, "Out of memory while keeping the result.");
  }
  if (status == VAMP_OK && measure && outcome->variation->clip.samples) {
    status = add_measures(outcome, summary, error);
  }
  if (status == VAMP_OK) {
    made.summary = json_dumps(summary, JSON_COMPACT | JSON_REAL_PRECISION(9));
    status =
        made.summary ? VAMP_OK : vamp_fail(error, VAMP_MEMORY, "Out of memory while keeping the result.");
  }
  json_decref(summary);
  json_decref(mask);
  if (status != VAMP_OK) {
    vampd_result_free(&made);
    return status;
  }
  *result = made;
  return VAMP_OK;
}

/* ---- what is made on demand ---------------------------------------------------------------------------- */

const char *vampd_result_audio_name(enum vamp_audio_format format) {
  static const char *const NAMES[] = {[VAMP_AUDIO_WAV16] = "audio-16.wav",
                                      [VAMP_AUDIO_WAV24] = "audio-24.wav",
                                      [VAMP_AUDIO_WAV_FLOAT] = MASTER,
                                      [VAMP_AUDIO_FLAC] = "audio.flac",
                                      [VAMP_AUDIO_OGG] = "audio.ogg"};
  return NAMES[format];
}

static int open_file(struct vampd_store *store, const char *id, const char *name, int *file, int64_t *size,
                     struct vamp_error *error) {
  int opened = vampd_store_open_file(store, VAMPD_FOLDER_JOBS, id, name, size, error);
  if (opened >= 0) {
    *file = opened;
  }
  return opened < 0 ? opened : VAMP_OK;
}

bool vampd_result_is_kept(struct vampd_store *store, const char *id, const char *name) {
  int file = vampd_store_open_file(store, VAMPD_FOLDER_JOBS, id, name, NULL, NULL);
  if (file >= 0) {
    close(file);
  }
  return file >= 0;
}

/* What cannot be kept can still be sent: a file in memory. */
static int lend(const char *name, const void *data, size_t bytes, int *file, int64_t *size,
                struct vamp_error *error) {
  int made = memfd_create(name, MFD_CLOEXEC);
  for (size_t done = 0; made >= 0 && done < bytes;) {
    ssize_t written = write(made, (const char *)data + done, bytes - done);
    if (written <= 0) {
      close(made);
      made = -1;
    }
    done += written > 0 ? (size_t)written : 0;
  }
  if (made < 0) {
    return vamp_fail(error, VAMP_MEMORY, "Out of memory while sending the result.");
  }
  *file = made;
  *size = (int64_t)bytes;
  return VAMP_OK;
}

/* Keeps what was made, and opens it; where the disk is full, it is made again next time. Takes over `data`.
 */
static int keep(struct vampd_store *store, const char *id, const char *name, void *data, size_t bytes,
                int *file, int64_t *size, struct vamp_error *error) {
  struct vampd_store_file made = {name, data, bytes};
  int status = vampd_store_put_file(store, VAMPD_FOLDER_JOBS, id, &made, error);
  if (status == VAMP_OK) {
    status = open_file(store, id, name, file, size, error);
  } else if (status == VAMP_SPACE || status == VAMP_IO) {
    status = lend(name, data, bytes, file, size, error);
  }
  free(data);
  return status;
}

int vampd_result_audio(struct vampd_store *store, const char *id, enum vamp_audio_format format, int *file,
                       int64_t *size, struct vamp_error *error) {
  const char *name = vampd_result_audio_name(format);
  if (open_file(store, id, name, file, size, NULL) == VAMP_OK) {
    return VAMP_OK;
  }
  struct vamp_audio audio = {0};
  struct vamp_audio_limits limits = {.max_seconds = 1e6, .max_samples = (size_t)1 << 30, .max_channels = 1};
  void *data = NULL;
  size_t bytes = 0;
  int status =
      vampd_store_read_file(store, VAMPD_FOLDER_JOBS, id, MASTER, MAX_FILE_BYTES, &data, &bytes, error);
  if (status == VAMP_OK) {
    status = vamp_audio_read_memory(data, bytes, MASTER, &limits, &audio, error);
    free(data);
    data = NULL;
  }
  if (status == VAMP_OK) {
    status =
        vamp_audio_write_memory(format, audio.samples, audio.frames, audio.sample_rate, &data, &bytes, error);
    vamp_audio_free(&audio);
  }
  return status == VAMP_OK ? keep(store, id, name, data, bytes, file, size, error) : status;
}

/* picture.npy back into the form in which a generation returns it: the last pass alone. */
static int unpack_picture(struct vampd_store *store, const char *id, int passes, struct vamp_result *result,
                          struct vamp_error *error) {
  struct vamp_array array = {0};
  void *data = NULL;
  size_t size = 0;
  int status =
      vampd_store_read_file(store, VAMPD_FOLDER_JOBS, id, "picture.npy", MAX_FILE_BYTES, &data, &size, error);
  if (status == VAMP_OK) {
    status = vamp_array_read_memory(data, size, "picture.npy", &array, error);
  }
  free(data);
  if (status == VAMP_OK && (array.dtype != VAMP_F32 || array.dimensions != 3 || array.shape[0] != 4)) {
    status = vamp_fail(error, VAMP_INVALID, "picture.npy is not what was written.");
  }
  if (status != VAMP_OK) {
    vamp_array_free(&array);
    return status;
  }
  size_t tokens = array.shape[1] * array.shape[2];
  const float *layers = array.data;
  int last = passes - 1;
  *result =
      (struct vamp_result){.codebooks = (int)array.shape[1], .frames = (int)array.shape[2], .passes = passes};
  int32_t **integers[] = {&result->pass_before[last], &result->pass_after[last],
                          &result->committed_step[last]};
  for (int layer = 0; layer < 3; layer++) {
    int32_t *values = malloc(tokens * sizeof *values);
    for (size_t i = 0; values && i < tokens; i++) {
      values[i] = (int32_t)layers[(size_t)layer * tokens + i];
    }
    *integers[layer] = values;
    status = values ? status : VAMP_MEMORY;
  }
  result->confidence[last] = malloc(tokens * sizeof(float));
  if (result->confidence[last]) {
    memcpy(result->confidence[last], layers + 3 * tokens, tokens * sizeof(float));
  }
  vamp_array_free(&array);
  return status == VAMP_OK && result->confidence[last]
             ? VAMP_OK
             : vamp_fail(error, VAMP_MEMORY, "Out of memory while drawing the mask.");
}

static void free_picture(struct vamp_result *result, int passes) {
  int last = passes - 1;
  free(result->pass_before[last]);
  free(result->pass_after[last]);
  free(result->committed_step[last]);
  free(result->confidence[last]);
}

/* What a mask has to know of the model that made a result: another one may be loaded by now. */
static int read_model(struct vampd_store *store, const struct vampd_store_job *job,
                      struct vamp_model_config *model, struct vamp_error *error) {
  void *data = NULL;
  size_t size = 0;
  int status = vampd_store_read_file(store, VAMPD_FOLDER_JOBS, job->id, "mask.json", MAX_FILE_BYTES, &data,
                                     &size, error);
  if (status != VAMP_OK) {
    return status;
  }
  json_t *outcome = vampd_stored_json(job->outcome), *mask = json_loadb(data, size, 0, NULL);
  const char *name = "";
  free(data);
  *model = (struct vamp_model_config){.codec.codebook_size = INT_MAX}; /* limits top_k: that was in order */
  if (json_unpack(outcome, "{s:s}", "model", &name) != 0 ||
      json_unpack(mask, "{s:[{s:i, s:i, s:i, s:i}]}", "passes", "codebooks", &model->codec.n_codebooks,
                  "coarse_codebooks", &model->coarse.n_codebooks, "sample_rate", &model->codec.sample_rate,
                  "hop_length", &model->codec.hop_length) != 0 ||
      model->codec.sample_rate < 1 || model->codec.hop_length < 1) {
    status = vamp_fail(error, VAMP_IO, "mask.json is not what was written.");
  }
  snprintf(model->name, sizeof model->name, "%s", name);
  json_decref(mask);
  json_decref(outcome);
  return status;
}

const char *vampd_result_picture_name(enum vamp_picture_format format) {
  return format == VAMP_PICTURE_PNG ? "mask.png" : "mask.svg";
}

int vampd_result_picture(struct vampd_store *store, struct vampd_decoder *decoder,
                         const struct vampd_store_job *job, enum vamp_picture_format format, int *file,
                         int64_t *size, struct vamp_error *error) {
  const char *name = vampd_result_picture_name(format);
  if (open_file(store, job->id, name, file, size, NULL) == VAMP_OK) {
    return VAMP_OK;
  }
  struct vamp_variation variation = {0};
  struct vamp_result result = {0};
  void *data = NULL;
  size_t bytes = 0;
  struct vamp_model_config model;
  int passes = 1;
  int status = read_model(store, job, &model, error);
  if (status == VAMP_OK) {
    status = vampd_prepare(store, decoder, &model, job, &variation, error);
  }
  if (status == VAMP_OK) {
    passes = vamp_mask_plan_passes(variation.plan);
    status = unpack_picture(store, job->id, passes, &result, error);
  }
  if (status == VAMP_OK) {
    const struct vamp_mask *mask = vamp_mask_plan_mask(variation.plan, passes - 1);
    if (mask->frames != result.frames || mask->codebooks != result.codebooks) {
      status = vamp_fail(error, VAMP_IO, "picture.npy and mask.json are not of one result.");
    }
  }
  if (status == VAMP_OK) {
    status = vamp_variation_picture(&variation, &result, format, &data, &bytes, error);
  }
  free_picture(&result, passes);
  vamp_variation_free(&variation);
  return status == VAMP_OK ? keep(store, job->id, name, data, bytes, file, size, error) : status;
}
