/*
 * model.json: what a model folder says about itself.
 *
 *   {"format": 1, "name": "...", "license": "...", "description": "...", "provenance": {...},
 *    "codec":  {"sample_rate", "encoder_dim", "encoder_rates", "decoder_dim", "decoder_rates",
 *               "n_codebooks", "codebook_size", "codebook_dim"},
 *    "coarse": {"n_codebooks", "n_conditioning_codebooks", "n_layers", "n_heads", "embedding_dim",
 *               "vocab_size", "latent_dim"},
 *    "c2f":    {the same}}
 *
 * Every hyperparameter is written out although most follow from the shapes of the tensors: then the
 * shapes can be checked against something, and a folder whose parts come from different models is found
 * out before a weight is read. At the top, unknown fields are anybody's notes and tolerated; inside the
 * three parts an unknown field would be a hyperparameter this program does not know how to obey, so it
 * is an error. A change that old programs must not misread raises "format".
 *
 * Reading asks only for integers; all ranges and all consistency are vamp_config_check's, which also
 * serves configurations made in memory. The parts are read through tables of members, one line a field.
 */
#include "vamp/config.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <limits.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define FORMAT 1
#define MAX_FILE ((size_t)1 << 20) /* bytes */

#define MAX_DIMENSION 65536 /* of any width, and of the hop length */
#define MAX_RATE 256
#define MAX_SAMPLE_RATE 768000
#define MAX_CODEBOOKS 32
#define MAX_LAYERS 256
#define MAX_ELEMENTS ((int64_t)1 << 31)   /* of one weight: 8 GiB in float */
#define MAX_PARAMETERS ((int64_t)1 << 33) /* of a part: 32 GiB in float */

/* One integer of a part. */
struct member {
  const char *name;
  size_t offset; /* of an int in the part's structure */
  int min, max;
};

#define CODEC(member, min, max)                                                                              \
  { #member, offsetof(struct vamp_codec_config, member), min, max }
static const struct member codec_members[] = {
    CODEC(sample_rate, 1, MAX_SAMPLE_RATE), CODEC(encoder_dim, 1, MAX_DIMENSION),
    CODEC(decoder_dim, 1, MAX_DIMENSION),   CODEC(n_codebooks, 1, MAX_CODEBOOKS),
    CODEC(codebook_size, 2, MAX_DIMENSION), CODEC(codebook_dim, 1, MAX_DIMENSION),
};

#define TRANSFORMER(member, min, max)                                                                        \
  { #member, offsetof(struct vamp_transformer_config, member), min, max }
static const struct member transformer_members[] = {
    TRANSFORMER(n_codebooks, 1, MAX_CODEBOOKS),   TRANSFORMER(n_conditioning_codebooks, 0, MAX_CODEBOOKS - 1),
    TRANSFORMER(n_layers, 1, MAX_LAYERS),         TRANSFORMER(n_heads, 1, MAX_DIMENSION),
    TRANSFORMER(embedding_dim, 1, MAX_DIMENSION), TRANSFORMER(vocab_size, 2, MAX_DIMENSION),
    TRANSFORMER(latent_dim, 1, MAX_DIMENSION),
};
#define COUNT(array) (sizeof(array) / sizeof *(array))

static int *member_of(void *part, const struct member *member) {
  return (int *)(void *)((char *)part + member->offset);
}

static int value_of(const void *part, const struct member *member) {
  return *(const int *)(const void *)((const char *)part + member->offset);
}

/* ---- checking ----------------------------------------------------------------------------------- */

/* Fails about the field "/part/name". */
static int fail_at(struct vamp_error *error, int status, const char *part, const char *name,
                   const char *format, ...) __attribute__((format(printf, 5, 6)));

static int fail_at(struct vamp_error *error, int status, const char *part, const char *name,
                   const char *format, ...) {
  char field[96], message[320];
  snprintf(field, sizeof field, "/%s%s%s", part, name[0] ? "/" : "", name);
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(message, sizeof message, format, arguments);
  va_end(arguments);
  return vamp_fail_field(error, status, field, "%s %s", field, message);
}

static int check_members(const void *part, const char *part_name, const struct member *members, size_t count,
                         struct vamp_error *error) {
  for (size_t i = 0; i < count; i++) {
    int value = value_of(part, &members[i]);
    if (value < members[i].min || value > members[i].max) {
      return fail_at(error, VAMP_INVALID, part_name, members[i].name, "is %d; it goes from %d to %d", value,
                     members[i].min, members[i].max);
    }
  }
  return 0;
}

/* The product of the strides, or a failure where one is out of range or the product is. */
static int check_rates(const int *rates, int count, const char *name, int *product,
                       struct vamp_error *error) {
  if (count < 1 || count > VAMP_MAX_RATES) {
    return fail_at(error, VAMP_INVALID, "codec", name, "has %d strides; it can have 1 to %d", count,
                   VAMP_MAX_RATES);
  }
  int64_t hop = 1;
  for (int i = 0; i < count; i++) {
    if (rates[i] < 1 || rates[i] > MAX_RATE) {
      char field[48];
      snprintf(field, sizeof field, "%s/%d", name, i);
      return fail_at(error, VAMP_INVALID, "codec", field, "is %d; a stride goes from 1 to %d", rates[i],
                     MAX_RATE);
    }
    hop *= rates[i];
    if (hop > MAX_DIMENSION) {
      return fail_at(error, VAMP_INVALID, "codec", name, "multiplies to more than %d samples a frame",
                     MAX_DIMENSION);
    }
  }
  *product = (int)hop;
  return 0;
}

/* Adds a weight's elements to *total; false where either is over its limit. Factors are at most 2^16,
 * three of them and a kernel at most 2^57. */
static bool add_weight(int64_t *total, int64_t elements, int64_t copies) {
  if (elements > MAX_ELEMENTS) {
    return false;
  }
  *total += elements * copies;
  return *total <= MAX_PARAMETERS;
}

static int check_codec_size(const struct vamp_codec_config *codec, struct vamp_error *error) {
  int64_t total = 0, latent = codec->latent_dim, channels = codec->encoder_dim;
  bool fits = add_weight(&total, latent * latent * 3, 1) &&
              add_weight(&total, latent * codec->decoder_dim * 7, 1) &&
              add_weight(&total, latent * codec->codebook_dim, 2 * codec->n_codebooks) &&
              add_weight(&total, (int64_t)codec->codebook_size * codec->codebook_dim, codec->n_codebooks);
  for (int i = 0; fits && i < codec->encoder_rate_count; i++, channels *= 2) {
    fits = add_weight(&total, channels * channels * 8, 3) &&
           add_weight(&total, channels * channels * 4 * codec->encoder_rates[i], 1);
  }
  channels = codec->decoder_dim;
  for (int i = 0; fits && i < codec->decoder_rate_count; i++, channels /= 2) {
    fits = add_weight(&total, channels * channels * codec->decoder_rates[i], 1) &&
           add_weight(&total, channels / 2 * (channels / 2) * 11, 18);
  }
  return fits ? 0
              : fail_at(error, VAMP_LIMIT, "codec", "", "describes a model larger than this program loads");
}

static int check_codec(struct vamp_codec_config *codec, struct vamp_error *error) {
  int status = check_members(codec, "codec", codec_members, COUNT(codec_members), error);
  int encoder_hop = 0, decoder_hop = 0;
  if (!status) {
    status =
        check_rates(codec->encoder_rates, codec->encoder_rate_count, "encoder_rates", &encoder_hop, error);
  }
  if (!status) {
    status =
        check_rates(codec->decoder_rates, codec->decoder_rate_count, "decoder_rates", &decoder_hop, error);
  }
  if (status) {
    return status;
  }
  if (encoder_hop != decoder_hop) {
    return fail_at(error, VAMP_INVALID, "codec", "decoder_rates",
                   "multiply to %d samples a frame, but encoder_rates to %d", decoder_hop, encoder_hop);
  }
  if (codec->encoder_dim > MAX_DIMENSION >> codec->encoder_rate_count) {
    return fail_at(error, VAMP_INVALID, "codec", "encoder_dim",
                   "is %d, which doubles with each stride to more than %d channels", codec->encoder_dim,
                   MAX_DIMENSION);
  }
  if (codec->decoder_dim % (1 << codec->decoder_rate_count) != 0) {
    return fail_at(error, VAMP_INVALID, "codec", "decoder_dim", "is %d, which cannot be halved %d times",
                   codec->decoder_dim, codec->decoder_rate_count);
  }
  codec->latent_dim = codec->encoder_dim << codec->encoder_rate_count;
  codec->hop_length = decoder_hop;
  return check_codec_size(codec, error);
}

static int check_transformer(const struct vamp_transformer_config *transformer, const char *part,
                             const struct vamp_codec_config *codec, struct vamp_error *error) {
  int status = check_members(transformer, part, transformer_members, COUNT(transformer_members), error);
  if (status) {
    return status;
  }
  if (transformer->n_conditioning_codebooks >= transformer->n_codebooks) {
    return fail_at(error, VAMP_INVALID, part, "n_conditioning_codebooks",
                   "is %d of %d codebooks: none to predict", transformer->n_conditioning_codebooks,
                   transformer->n_codebooks);
  }
  if (transformer->embedding_dim % transformer->n_heads != 0) {
    return fail_at(error, VAMP_INVALID, part, "embedding_dim", "is %d, which is not a multiple of %d heads",
                   transformer->embedding_dim, transformer->n_heads);
  }
  if (transformer->vocab_size != codec->codebook_size) {
    return fail_at(error, VAMP_INVALID, part, "vocab_size", "is %d, but the codec's codebook_size is %d",
                   transformer->vocab_size, codec->codebook_size);
  }
  if (transformer->latent_dim != codec->codebook_dim) {
    return fail_at(error, VAMP_INVALID, part, "latent_dim", "is %d, but the codec's codebook_dim is %d",
                   transformer->latent_dim, codec->codebook_dim);
  }
  int64_t total = 0, width = transformer->embedding_dim;
  int predicted = transformer->n_codebooks - transformer->n_conditioning_codebooks;
  bool fits = add_weight(&total, width * width * 4, 2 * transformer->n_layers) &&
              add_weight(&total, width * width * 2, transformer->n_layers) &&
              add_weight(&total, width * transformer->vocab_size * predicted, 1) &&
              add_weight(&total, width * transformer->latent_dim * transformer->n_codebooks, 1);
  return fits ? 0 : fail_at(error, VAMP_LIMIT, part, "", "describes a model larger than this program loads");
}

int vamp_config_check(struct vamp_model_config *config, struct vamp_error *error) {
  struct vamp_model_config checked = *config;
  const struct vamp_transformer_config *coarse = &checked.coarse, *fine = &checked.fine;
  int status = check_codec(&checked.codec, error);
  if (!status) {
    status = check_transformer(coarse, "coarse", &checked.codec, error);
  }
  if (!status) {
    status = check_transformer(fine, "c2f", &checked.codec, error);
  }
  if (status) {
    return status;
  }
  if (coarse->n_conditioning_codebooks != 0) {
    return fail_at(error, VAMP_INVALID, "coarse", "n_conditioning_codebooks",
                   "is %d; the first stage has nothing to be conditioned on, so it must be 0",
                   coarse->n_conditioning_codebooks);
  }
  if (fine->n_codebooks != checked.codec.n_codebooks) {
    return fail_at(error, VAMP_INVALID, "c2f", "n_codebooks", "is %d, but the codec has %d",
                   fine->n_codebooks, checked.codec.n_codebooks);
  }
  if (fine->n_conditioning_codebooks != coarse->n_codebooks) {
    return fail_at(error, VAMP_INVALID, "c2f", "n_conditioning_codebooks", "is %d, but coarse predicts %d",
                   fine->n_conditioning_codebooks, coarse->n_codebooks);
  }
  *config = checked;
  return 0;
}

/* ---- reading ------------------------------------------------------------------------------------ */

static int read_integer(const json_t *value, const char *part, const char *name, int *out,
                        struct vamp_error *error) {
  if (!value) {
    return fail_at(error, VAMP_INVALID, part, name, "is missing");
  }
  if (!json_is_integer(value) || json_integer_value(value) < INT_MIN || json_integer_value(value) > INT_MAX) {
    return fail_at(error, VAMP_INVALID, part, name, "is not a whole number");
  }
  *out = (int)json_integer_value(value);
  return 0;
}

static int read_rates(const json_t *part, const char *name, int *rates, int *count,
                      struct vamp_error *error) {
  const json_t *list = json_object_get(part, name);
  if (!json_is_array(list) || json_array_size(list) < 1 || json_array_size(list) > VAMP_MAX_RATES) {
    return fail_at(error, VAMP_INVALID, "codec", name, "is not a list of 1 to %d strides", VAMP_MAX_RATES);
  }
  *count = (int)json_array_size(list);
  for (int i = 0; i < *count; i++) {
    char field[48];
    snprintf(field, sizeof field, "%s/%d", name, i);
    int status = read_integer(json_array_get(list, (size_t)i), "codec", field, &rates[i], error);
    if (status) {
      return status;
    }
  }
  return 0;
}

/* The integers of a part. `lists` names the fields that are read elsewhere, or is NULL. */
static int read_part(const json_t *root, const char *name, const struct member *members, size_t count,
                     const char *const *lists, void *out, struct vamp_error *error) {
  json_t *part = json_object_get(root, name);
  if (!json_is_object(part)) {
    return fail_at(error, VAMP_INVALID, name, "", "is missing or not an object");
  }
  for (size_t i = 0; i < count; i++) {
    int status = read_integer(json_object_get(part, members[i].name), name, members[i].name,
                              member_of(out, &members[i]), error);
    if (status) {
      return status;
    }
  }
  const char *key;
  json_t *value;
  json_object_foreach(part, key, value) {
    bool known = false;
    for (size_t i = 0; i < count && !known; i++) {
      known = strcmp(key, members[i].name) == 0;
    }
    for (size_t i = 0; lists && lists[i] && !known; i++) {
      known = strcmp(key, lists[i]) == 0;
    }
    if (!known) {
      return fail_at(error, VAMP_INVALID, name, "", "has a field '%.60s' that this program does not know",
                     key);
    }
  }
  return 0;
}

/* Texts are shown to people and stand in HTTP headers: no control characters. */
static int read_text(const json_t *root, const char *name, bool required, char *out, size_t size,
                     struct vamp_error *error) {
  const json_t *value = json_object_get(root, name);
  const char *text = json_string_value(value);
  if (!value && !required) {
    out[0] = '\0';
    return 0;
  }
  if (!text || (required && !text[0])) {
    return fail_at(error, VAMP_INVALID, name, "", "is %s", value ? "not a text" : "missing");
  }
  if (strlen(text) >= size) {
    return fail_at(error, VAMP_INVALID, name, "", "is longer than %zu bytes", size - 1);
  }
  for (const unsigned char *c = (const unsigned char *)text; *c; c++) {
    if (*c < 0x20 || *c == 0x7f) {
      return fail_at(error, VAMP_INVALID, name, "", "has a control character in it");
    }
  }
  memcpy(out, text, strlen(text) + 1);
  return 0;
}

static int read_root(const json_t *root, struct vamp_model_config *config, struct vamp_error *error) {
  int format = 0;
  int status = read_integer(json_object_get(root, "format"), "format", "", &format, error);
  if (!status && format != FORMAT) {
    status = fail_at(error, VAMP_UNSUPPORTED, "format", "", "is %d; this program reads %d", format, FORMAT);
  }
  if (!status) {
    status = read_text(root, "name", true, config->name, sizeof config->name, error);
  }
  if (!status) {
    status = read_text(root, "license", false, config->license, sizeof config->license, error);
  }
  if (!status) {
    status = read_text(root, "description", false, config->description, sizeof config->description, error);
  }
  static const char *const lists[] = {"encoder_rates", "decoder_rates", NULL};
  struct vamp_codec_config *codec = &config->codec;
  if (!status) {
    status = read_part(root, "codec", codec_members, COUNT(codec_members), lists, codec, error);
  }
  const json_t *part = json_object_get(root, "codec");
  if (!status) {
    status = read_rates(part, lists[0], codec->encoder_rates, &codec->encoder_rate_count, error);
  }
  if (!status) {
    status = read_rates(part, lists[1], codec->decoder_rates, &codec->decoder_rate_count, error);
  }
  if (!status) {
    status = read_part(root, "coarse", transformer_members, COUNT(transformer_members), NULL, &config->coarse,
                       error);
  }
  if (!status) {
    status =
        read_part(root, "c2f", transformer_members, COUNT(transformer_members), NULL, &config->fine, error);
  }
  return status ? status : vamp_config_check(config, error);
}

/* A small text file. *text is the caller's to free. */
static int read_text_file(const char *path, char **text, size_t *size, struct vamp_error *error) {
  int status = 0;
  FILE *file = NULL;
  char *read = NULL;
  /* O_NONBLOCK: opening a named pipe must not wait for a writer. */
  int descriptor = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (descriptor < 0 || !(file = fdopen(descriptor, "rb"))) {
    status = vamp_fail(error, VAMP_IO, "%s: cannot be opened: %s; a model is a folder with a model.json",
                       path, strerror(errno));
    goto err;
  }
  struct stat about;
  if (fstat(descriptor, &about) < 0 || !S_ISREG(about.st_mode) || (uint64_t)about.st_size > MAX_FILE) {
    status = vamp_fail(error, VAMP_INVALID, "%s: is not a file of at most %zu bytes", path, MAX_FILE);
    goto err;
  }
  read = malloc((size_t)about.st_size + 1);
  if (!read) {
    status = vamp_fail(error, VAMP_MEMORY, "%s: out of memory", path);
    goto err;
  }
  *size = fread(read, 1, (size_t)about.st_size, file);
  if (ferror(file)) {
    status = vamp_fail(error, VAMP_IO, "%s: cannot be read: %s", path, strerror(errno));
    goto err;
  }
  *text = read;
  read = NULL;
err:
  free(read);
  if (file) {
    fclose(file);
  } else if (descriptor >= 0) {
    close(descriptor);
  }
  return status;
}

int vamp_config_read(const char *folder, struct vamp_model_config *config, struct vamp_error *error) {
  int status = 0;
  char *path = NULL, *text = NULL;
  json_t *root = NULL;
  size_t size = 0;
  if (asprintf(&path, "%s/model.json", folder) < 0) {
    return vamp_fail(error, VAMP_MEMORY, "%s: out of memory", folder);
  }
  status = read_text_file(path, &text, &size, error);
  if (status) {
    goto err;
  }
  json_error_t problem;
  root = json_loadb(text, size, JSON_REJECT_DUPLICATES, &problem);
  if (!json_is_object(root)) {
    status = root ? vamp_fail(error, VAMP_INVALID, "%s: is not a JSON object", path)
                  : vamp_fail(error, VAMP_INVALID, "%s:%d: is not valid JSON: %s", path, problem.line,
                              problem.text);
    goto err;
  }
  struct vamp_model_config read = {0};
  struct vamp_error inner;
  status = read_root(root, &read, &inner);
  if (status) {
    status = vamp_fail_field(error, status, inner.field, "%s: %s", path, inner.message);
    goto err;
  }
  *config = read;
err:
  json_decref(root);
  free(text);
  free(path);
  return status;
}

/* ---- known dimensions --------------------------------------------------------------------------- */

static struct vamp_transformer_config transformer(int codebooks, int conditioning, int layers, int heads,
                                                  int width) {
  return (struct vamp_transformer_config){.n_codebooks = codebooks,
                                          .n_conditioning_codebooks = conditioning,
                                          .n_layers = layers,
                                          .n_heads = heads,
                                          .embedding_dim = width,
                                          .vocab_size = 1024,
                                          .latent_dim = 8};
}

int vamp_config_named(const char *name, struct vamp_model_config *config, struct vamp_error *error) {
  bool official = strcmp(name, "official") == 0;
  if (!official && strcmp(name, "small") != 0) {
    return vamp_fail(error, VAMP_INVALID, "'%.60s' are no known dimensions; there are: official, small",
                     name);
  }
  struct vamp_model_config made = {
      .codec = {.sample_rate = 44100,
                .encoder_dim = official ? 64 : 12,
                .encoder_rate_count = 4,
                .encoder_rates = {2, 6, 8, 8},
                .decoder_dim = official ? 1536 : 256,
                .decoder_rate_count = 6,
                .decoder_rates = {6, 4, 4, 2, 2, 2},
                .n_codebooks = 14,
                .codebook_size = 1024,
                .codebook_dim = 8},
      .coarse = official ? transformer(4, 0, 20, 20, 1280) : transformer(4, 0, 4, 3, 192),
      .fine = official ? transformer(14, 4, 16, 20, 1280) : transformer(14, 4, 3, 3, 192),
  };
  snprintf(made.name, sizeof made.name, "%s", name);
  int status = vamp_config_check(&made, error);
  if (!status) {
    *config = made;
  }
  return status;
}
