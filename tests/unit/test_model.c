/*
 * The model as a whole: dimensions that are no multiples of anything, the codec's context against what
 * its convolutions reach, and folders in which one thing is wrong.
 *
 * The folder is written by a table-free walk over the names of docs/model.md, tensor by tensor, so that a
 * test can leave out, reshape or cut off any one of them by its number.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "engine/model/codec.h"
#include "vamp/model.h"

/* Odd wherever the graph allows it. */
static const struct vamp_model_config odd = {
    .name = "odd",
    .codec = {.sample_rate = 700,
              .encoder_dim = 3,
              .encoder_rate_count = 2,
              .encoder_rates = {2, 4},
              .decoder_dim = 20,
              .decoder_rate_count = 2,
              .decoder_rates = {4, 2},
              .n_codebooks = 3,
              .codebook_size = 13,
              .codebook_dim = 5},
    .coarse = {.n_codebooks = 2,
               .n_layers = 1,
               .n_heads = 3,
               .embedding_dim = 21,
               .vocab_size = 13,
               .latent_dim = 5},
    .fine = {.n_codebooks = 3,
             .n_conditioning_codebooks = 2,
             .n_layers = 2,
             .n_heads = 1,
             .embedding_dim = 17,
             .vocab_size = 13,
             .latent_dim = 5},
};
enum { HOP = 8, CODEBOOKS = 3, ENTRIES = 13, LATENT = 12 };

static struct vamp_device *open_device(enum vamp_precision precision) {
  struct vamp_device_options options = {.precision = precision, .precision_given = true, .threads = 2};
  struct vamp_device *device;
  if (vamp_cpu_open(&options, &device, NULL)) {
    skip(); /* no bf16 on this processor */
  }
  return device;
}

/* The same numbers each time, within 1. */
static float noise(uint32_t *state) {
  *state = *state * 1664525u + 1013904223u;
  return (float)(*state >> 8) / 8388608.0f - 1.0f;
}

/* ---- odd dimensions ------------------------------------------------------------------------------- */

static void run_all_of(struct vamp_model *model) {
  enum { FRAMES = 37, SAMPLES = FRAMES * HOP - 3 };
  float samples[SAMPLES], back[FRAMES * HOP], logits[2 * FRAMES * ENTRIES];
  int32_t codes[FRAMES * CODEBOOKS], masked[CODEBOOKS * FRAMES];
  uint32_t state = 1;
  for (int i = 0; i < SAMPLES; i++) {
    samples[i] = 0.5f * noise(&state);
  }
  assert_int_equal(vamp_model_frames(model, SAMPLES), FRAMES);
  assert_int_equal(vamp_model_encode(model, samples, SAMPLES, codes, NULL, NULL, NULL), 0);
  for (int i = 0; i < FRAMES * CODEBOOKS; i++) {
    assert_true(codes[i] >= 0 && codes[i] < ENTRIES);
    masked[i] = i % 2 ? codes[i] : ENTRIES;
  }
  assert_int_equal(vamp_model_decode(model, codes, FRAMES, back, NULL, NULL), 0);
  for (int i = 0; i < FRAMES * HOP; i++) {
    assert_true(back[i] >= -1 && back[i] <= 1);
  }
  for (int stage = VAMP_STAGE_COARSE; stage <= VAMP_STAGE_FINE; stage++) {
    int predicted = stage == VAMP_STAGE_COARSE ? 2 : 1;
    assert_int_equal(vamp_model_logits(model, (enum vamp_stage)stage, masked, FRAMES, logits, NULL), 0);
    for (int i = 0; i < predicted * FRAMES * ENTRIES; i++) {
      assert_true(isfinite(logits[i]));
    }
  }
}

static void odd_dimensions_work(void **state) {
  (void)state;
  for (int precision = VAMP_PRECISION_FP32; precision <= VAMP_PRECISION_BF16; precision++) {
    struct vamp_device *device = open_device((enum vamp_precision)precision);
    struct vamp_model *model;
    assert_int_equal(vamp_model_random(&odd, 5, device, &model, NULL), 0);
    run_all_of(model);
    vamp_model_free(model);
    device->close(device);
  }
}

static int full_attention(struct vamp_device *device, const struct vamp_weight *bias,
                          const struct vamp_packing *packing, int heads, int head_size, const void *qkv,
                          void *out) {
  (void)device, (void)bias, (void)packing, (void)heads, (void)head_size, (void)qkv, (void)out;
  return VAMP_MEMORY;
}

/* Operations return a status and no text; who calls them finds the words. */
static void failing_operations_are_explained(void **state) {
  (void)state;
  struct vamp_device *device = open_device(VAMP_PRECISION_FP32);
  const struct vamp_operations *working = device->ops;
  struct vamp_operations failing = *working;
  struct vamp_model *model;
  struct vamp_error error = {0};
  static const int32_t codes[2] = {0};
  float logits[2 * ENTRIES];
  assert_int_equal(vamp_model_random(&odd, 5, device, &model, NULL), 0);
  failing.attention = full_attention;
  device->ops = &failing;
  assert_int_equal(vamp_model_logits(model, VAMP_STAGE_COARSE, codes, 1, logits, &error), VAMP_MEMORY);
  assert_true(error.status == VAMP_MEMORY && strstr(error.message, "out of memory"));
  device->ops = working;
  vamp_model_free(model);
  device->close(device);
}

static void refuse_config(const struct vamp_model_config *config, int status, const char *word) {
  struct vamp_device *device = open_device(VAMP_PRECISION_FP32);
  struct vamp_model *model;
  struct vamp_error error = {0};
  assert_int_equal(vamp_model_random(config, 5, device, &model, &error), status);
  assert_int_equal(error.status, status);
  assert_non_null(strstr(error.message, word));
  device->close(device);
}

static void bad_dimensions_are_refused(void **state) {
  (void)state;
  struct vamp_model_config config = odd;
  config.codec.encoder_rates[0] = config.codec.decoder_rates[1] = 3; /* a frame too few */
  refuse_config(&config, VAMP_UNSUPPORTED, "encoder_rates");
  config = odd;
  config.codec.decoder_rates[0] = 1;
  config.codec.decoder_rates[1] = 8;
  refuse_config(&config, VAMP_UNSUPPORTED, "decoder_rates");
  config = odd;
  config.codec.encoder_dim = 16384; /* latent 65536: the last convolution alone is 51 GB */
  refuse_config(&config, VAMP_LIMIT, "codec");
  config = odd;
  config.coarse.embedding_dim = 65535;
  refuse_config(&config, VAMP_LIMIT, "coarse");
  config = odd;
  config.fine.vocab_size = 14;
  refuse_config(&config, VAMP_INVALID, "vocab_size");
}

/* ---- context -------------------------------------------------------------------------------------- */

/* Whatever stands beyond the context of a frame cannot change it, by not one bit; what stands in the frame
 * does. */
static void nothing_reaches_beyond_the_context(void **state) {
  (void)state;
  enum { FRAMES = 150, AT = 75, SAMPLES = FRAMES * HOP };
  struct vamp_model_config config = odd;
  struct vamp_device *device = open_device(VAMP_PRECISION_FP32);
  struct source source = {.seed = 3};
  struct codec *codec;
  assert_int_equal(vamp_config_check(&config, NULL), 0);
  assert_int_equal(codec_load(&config.codec, &source, device, &codec), 0);
  float samples[3][SAMPLES], back[3][SAMPLES];
  int32_t codes[3][FRAMES * CODEBOOKS], found[FRAMES * CODEBOOKS];
  static float latent[3][FRAMES * LATENT];
  uint32_t random = 9;
  int encoder = codec_encoder_context(codec), decoder = codec_decoder_context(codec);
  assert_true(encoder < AT && decoder < AT); /* or there is nothing to change */
  /* 0: as it is; 1: changed beyond the context; 2: changed inside. */
  for (int kind = 0; kind < 3; kind++) {
    for (int i = 0; i < SAMPLES; i++) {
      int away = abs(i / HOP - AT);
      bool changed = (kind == 1 && away > encoder) || (kind == 2 && away == 0);
      float value = noise(&random);
      samples[kind][i] = kind == 0 || changed ? value : samples[0][i];
    }
    for (int i = 0; i < FRAMES * CODEBOOKS; i++) {
      int away = abs(i / CODEBOOKS - AT);
      bool changed = (kind == 1 && away > decoder) || (kind == 2 && away == 0);
      codes[kind][i] = kind == 0 ? i % ENTRIES : changed ? (codes[0][i] + 1) % ENTRIES : codes[0][i];
    }
    int64_t frames = FRAMES;
    assert_int_equal(codec_encode(codec, 1, &frames, samples[kind], found, latent[kind], NULL, NULL), 0);
    assert_int_equal(codec_decode(codec, 1, &frames, codes[kind], back[kind], NULL, NULL), 0);
  }
  size_t row = sizeof(float) * LATENT, frame = sizeof(float) * HOP;
  assert_memory_equal(latent[0] + AT * LATENT, latent[1] + AT * LATENT, row);
  assert_memory_not_equal(latent[0] + AT * LATENT, latent[2] + AT * LATENT, row);
  assert_memory_equal(back[0] + AT * HOP, back[1] + AT * HOP, frame);
  assert_memory_not_equal(back[0] + AT * HOP, back[2] + AT * HOP, frame);
  codec_free(codec);
  device->close(device);
}

/* ---- folders -------------------------------------------------------------------------------------- */

enum fault { NO_FAULT, LEFT_OUT, RESHAPED, CUT_OFF };

/* A file being written; the fault, where there is one, is at tensor number `at`. */
struct file {
  enum fault fault;
  int at, count;
  char *header, *data; /* open_memstream */
  size_t header_size, data_size, offset;
  FILE *header_stream, *data_stream;
  char faulty[128]; /* the tensor's name */
  uint32_t noise;
};

static void tensor(struct file *file, const char *name, int rank, const int *shape) {
  bool here = file->fault != NO_FAULT && file->count == file->at;
  size_t values = 1;
  if (here) {
    snprintf(file->faulty, sizeof file->faulty, "%s", name);
  }
  if (!here || file->fault != LEFT_OUT) {
    fprintf(file->header_stream, "%c\"%s\":{\"dtype\":\"F32\",\"shape\":[", file->offset ? ',' : '{', name);
    for (int i = 0; i < rank; i++) {
      int size = shape[i] + (here && file->fault == RESHAPED && i == 0);
      fprintf(file->header_stream, "%s%d", i ? "," : "", size);
      values *= (size_t)size;
    }
    size_t end = file->offset + 4 * values;
    fprintf(file->header_stream, "],\"data_offsets\":[%zu,%zu]}", file->offset, end);
    file->offset = end;
    for (size_t i = 0; i < values; i++) {
      float value = 0.3f * noise(&file->noise) + 0.01f;
      fwrite(&value, sizeof value, 1, file->data_stream);
    }
  }
  file->count++;
}

static void formatted(struct file *file, int rank, const int *shape, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

static void formatted(struct file *file, int rank, const int *shape, const char *format, ...) {
  char name[128];
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(name, sizeof name, format, arguments);
  va_end(arguments);
  tensor(file, name, rank, shape);
}

static void conv(struct file *file, const char *name, int first, int second, int kernel, int bias) {
  formatted(file, 3, (int[]){first, second, kernel}, "%s.weight", name);
  formatted(file, 1, &bias, "%s.bias", name);
}

static void unit(struct file *file, const char *stem, int channels, int kernel1, int kernel2) {
  char name[128];
  for (int i = 0; i < 4; i++) {
    snprintf(name, sizeof name, "%s.%d", stem, i);
    if (i % 2) {
      conv(file, name, channels, channels, i == 1 ? kernel1 : kernel2, channels);
    } else {
      formatted(file, 3, (int[]){1, channels, 1}, "%s.alpha", name);
    }
  }
}

static void write_codec(struct file *file) {
  const struct vamp_codec_config *c = &odd.codec;
  char name[112];
  int channels = c->encoder_dim;
  conv(file, "encoder.block.0", channels, 1, 7, channels);
  for (int s = 0; s < 2; s++, channels *= 2) {
    for (int u = 0; u < 3; u++) {
      snprintf(name, sizeof name, "encoder.block.%d.block.%d.block", s + 1, u);
      unit(file, name, channels, 7, 1);
    }
    formatted(file, 3, (int[]){1, channels, 1}, "encoder.block.%d.block.3.alpha", s + 1);
    snprintf(name, sizeof name, "encoder.block.%d.block.4", s + 1);
    conv(file, name, 2 * channels, channels, 2 * c->encoder_rates[s], 2 * channels);
  }
  tensor(file, "encoder.block.3.alpha", 3, (int[]){1, channels, 1});
  conv(file, "encoder.block.4", channels, channels, 3, channels);
  for (int q = 0; q < CODEBOOKS; q++) {
    snprintf(name, sizeof name, "quantizer.quantizers.%d.in_proj", q);
    conv(file, name, c->codebook_dim, LATENT, 1, c->codebook_dim);
    snprintf(name, sizeof name, "quantizer.quantizers.%d.out_proj", q);
    conv(file, name, LATENT, c->codebook_dim, 1, LATENT);
    formatted(file, 2, (int[]){ENTRIES, c->codebook_dim}, "quantizer.quantizers.%d.codebook.weight", q);
  }
  channels = c->decoder_dim;
  conv(file, "decoder.model.0", channels, LATENT, 7, channels);
  for (int s = 0; s < 2; s++) {
    formatted(file, 3, (int[]){1, channels, 1}, "decoder.model.%d.block.0.alpha", s + 1);
    snprintf(name, sizeof name, "decoder.model.%d.block.1", s + 1);
    conv(file, name, channels, channels / 2, 2 * c->decoder_rates[s], channels / 2);
    channels /= 2;
    for (int i = 0; i < 9; i++) {
      int kernel = 3 + 4 * (i / 3);
      snprintf(name, sizeof name, "decoder.model.%d.block.2.mrf_blocks.%d.block.%d.layer", s + 1, i / 3,
               i % 3);
      unit(file, name, channels, kernel, kernel);
    }
  }
  tensor(file, "decoder.model.3.alpha", 3, (int[]){1, channels, 1});
  conv(file, "decoder.model.4", 1, channels, 7, 1);
}

static void write_transformer(struct file *file, const struct vamp_transformer_config *c) {
  static const char *const square[] = {"w_qs", "w_ks", "w_vs", "fc"};
  int width = c->embedding_dim, channels = ENTRIES * (c->n_codebooks - c->n_conditioning_codebooks);
  tensor(file, "embedding.special.MASK", 2, (int[]){c->n_codebooks, c->latent_dim});
  conv(file, "embedding.out_proj", width, c->n_codebooks * c->latent_dim, 1, width);
  for (int l = 0; l < c->n_layers; l++) {
    formatted(file, 1, &width, "transformer.layers.%d.norm_1.weight", l);
    for (int i = 0; i < 4; i++) {
      formatted(file, 2, (int[]){width, width}, "transformer.layers.%d.self_attn.%s.weight", l, square[i]);
    }
    if (l == 0) {
      tensor(file, "transformer.layers.0.self_attn.relative_attention_bias.weight", 2,
             (int[]){32, c->n_heads});
    }
    formatted(file, 1, &width, "transformer.layers.%d.norm_3.weight", l);
    formatted(file, 2, (int[]){4 * width, width}, "transformer.layers.%d.feed_forward.w_1.weight", l);
    formatted(file, 2, (int[]){width, 2 * width}, "transformer.layers.%d.feed_forward.w_2.weight", l);
  }
  tensor(file, "transformer.norm.weight", 1, &width);
  conv(file, "classifier.layers.0", channels, width, 1, channels);
}

static const char *const parts[] = {"codec", "coarse", "c2f"};

static void write_part(const char *folder, int part, struct file *file) {
  char path[96];
  file->header_stream = open_memstream(&file->header, &file->header_size);
  file->data_stream = open_memstream(&file->data, &file->data_size);
  assert_true(file->header_stream && file->data_stream);
  if (part == 0) {
    write_codec(file);
  } else {
    write_transformer(file, part == 1 ? &odd.coarse : &odd.fine);
  }
  fputc('}', file->header_stream);
  fclose(file->header_stream);
  fclose(file->data_stream);
  snprintf(path, sizeof path, "%s/%s.safetensors", folder, parts[part]);
  FILE *out = fopen(path, "wb");
  assert_non_null(out);
  uint64_t length = file->header_size; /* little-endian machines only, as the tests run on */
  fwrite(&length, 8, 1, out);
  fwrite(file->header, 1, file->header_size, out);
  fwrite(file->data, 1, file->data_size - (file->fault == CUT_OFF ? 4 : 0), out);
  assert_int_equal(fclose(out), 0);
  free(file->header);
  free(file->data);
}

static void write_part_json(FILE *out, const char *name, const struct vamp_transformer_config *c) {
  fprintf(out,
          ",\"%s\":{\"n_codebooks\":%d,\"n_conditioning_codebooks\":%d,\"n_layers\":%d,\"n_heads\":%d,"
          "\"embedding_dim\":%d,\"vocab_size\":%d,\"latent_dim\":%d}",
          name, c->n_codebooks, c->n_conditioning_codebooks, c->n_layers, c->n_heads, c->embedding_dim,
          c->vocab_size, c->latent_dim);
}

static void write_config(const char *folder, int first_stride) {
  char path[96];
  snprintf(path, sizeof path, "%s/model.json", folder);
  FILE *out = fopen(path, "wb");
  assert_non_null(out);
  fprintf(out,
          "{\"format\":1,\"name\":\"odd\",\"codec\":{\"sample_rate\":700,\"encoder_dim\":3,\"encoder_rates\":"
          "[%d,4],\"decoder_dim\":20,\"decoder_rates\":[4,%d],\"n_codebooks\":3,\"codebook_size\":13,"
          "\"codebook_dim\":5}",
          first_stride, first_stride);
  write_part_json(out, "coarse", &odd.coarse);
  write_part_json(out, "c2f", &odd.fine);
  fputs("}\n", out);
  assert_int_equal(fclose(out), 0);
}

static void remove_folder(const char *folder) {
  char path[96];
  for (int part = 0; part < 4; part++) {
    snprintf(path, sizeof path, "%s/%s%s", folder, part < 3 ? parts[part] : "model",
             part < 3 ? ".safetensors" : ".json");
    unlink(path);
  }
  assert_int_equal(rmdir(folder), 0);
}

static void a_whole_folder_opens(void **state) {
  (void)state;
  char folder[] = "/tmp/vamp-model-XXXXXX";
  struct vamp_device *device = open_device(VAMP_PRECISION_FP32);
  struct vamp_model *model;
  struct vamp_error error = {0};
  assert_non_null(mkdtemp(folder));
  write_config(folder, 2);
  for (int part = 0; part < 3; part++) {
    write_part(folder, part, &(struct file){0});
  }
  if (vamp_model_open(folder, device, &model, &error)) {
    fail_msg("%s", error.message);
  }
  assert_string_equal(vamp_model_config(model)->name, "odd");
  run_all_of(model);
  vamp_model_free(model);
  device->close(device);
  remove_folder(folder);
}

/* Opening has to fail, and to name the file and the tensor. What it leaves behind is the sanitizer's to
 * find. */
static void refuse_folder(const char *folder, struct vamp_device *device, const char *file,
                          const char *word) {
  struct vamp_model *model;
  struct vamp_error error = {0};
  int status = vamp_model_open(folder, device, &model, &error);
  assert_true(status == VAMP_INVALID || status == VAMP_IO || status == VAMP_UNSUPPORTED);
  assert_int_equal(error.status, status);
  if (!strstr(error.message, file) || !strstr(error.message, word)) {
    fail_msg("'%s' lacks '%s' or '%s'", error.message, file, word);
  }
}

static void one_wrong_tensor_is_found_and_named(void **state) {
  (void)state;
  char folder[] = "/tmp/vamp-model-XXXXXX", name[32];
  struct vamp_device *device = open_device(VAMP_PRECISION_FP32);
  assert_non_null(mkdtemp(folder));
  write_config(folder, 2);
  struct file whole[3] = {{0}};
  for (int part = 0; part < 3; part++) {
    write_part(folder, part, &whole[part]);
  }
  for (int part = 0; part < 3; part++) {
    snprintf(name, sizeof name, "%s.safetensors", parts[part]);
    /* Every tensor once, with one fault or the other. */
    for (int at = 0; at < whole[part].count; at++) {
      struct file file = {.fault = at % 2 ? RESHAPED : LEFT_OUT, .at = at};
      write_part(folder, part, &file);
      refuse_folder(folder, device, name, file.faulty);
    }
    struct file file = {.fault = CUT_OFF, .at = whole[part].count - 1};
    write_part(folder, part, &file);
    refuse_folder(folder, device, name, file.faulty);
    write_part(folder, part, &(struct file){0});
  }
  device->close(device);
  remove_folder(folder);
}

static void missing_files_and_odd_strides_are_named(void **state) {
  (void)state;
  char folder[] = "/tmp/vamp-model-XXXXXX";
  struct vamp_device *device = open_device(VAMP_PRECISION_FP32);
  assert_non_null(mkdtemp(folder));
  refuse_folder(folder, device, folder, "model.json");
  write_config(folder, 2);
  for (int part = 0; part < 3; part++) {
    refuse_folder(folder, device, folder, parts[part]);
    write_part(folder, part, &(struct file){0});
  }
  write_config(folder, 3);
  refuse_folder(folder, device, "codec", "odd");
  device->close(device);
  remove_folder(folder);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(odd_dimensions_work),
      cmocka_unit_test(failing_operations_are_explained),
      cmocka_unit_test(bad_dimensions_are_refused),
      cmocka_unit_test(nothing_reaches_beyond_the_context),
      cmocka_unit_test(a_whole_folder_opens),
      cmocka_unit_test(one_wrong_tensor_is_found_and_named),
      cmocka_unit_test(missing_files_and_odd_strides_are_named),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
