/*
 * model.json: one good document, and the same with one thing wrong. Each wrong one has to be refused
 * with the file's name and a pointer to the field.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "vamp/config.h"

static const char good[] =
    "{\"format\": 1, \"name\": \"test\", \"license\": \"MIT\", \"description\": \"for tests\",\n"
    " \"provenance\": {\"anything\": [1, 2]}, \"notes\": null,\n"
    " \"codec\": {\"sample_rate\": 44100, \"encoder_dim\": 8, \"encoder_rates\": [2, 3, 4],\n"
    "   \"decoder_dim\": 32, \"decoder_rates\": [6, 4], \"n_codebooks\": 9, \"codebook_size\": 512,\n"
    "   \"codebook_dim\": 5},\n"
    " \"coarse\": {\"n_codebooks\": 3, \"n_conditioning_codebooks\": 0, \"n_layers\": 2, \"n_heads\": 4,\n"
    "   \"embedding_dim\": 64, \"vocab_size\": 512, \"latent_dim\": 5},\n"
    " \"c2f\": {\"n_codebooks\": 9, \"n_conditioning_codebooks\": 3, \"n_layers\": 1, \"n_heads\": 2,\n"
    "   \"embedding_dim\": 48, \"vocab_size\": 512, \"latent_dim\": 5}}\n";

static int read_text(const void *text, size_t size, struct vamp_model_config *config,
                     struct vamp_error *error) {
  char folder[] = "/tmp/vamp-config-XXXXXX", path[64];
  assert_non_null(mkdtemp(folder));
  snprintf(path, sizeof path, "%s/model.json", folder);
  FILE *stream = fopen(path, "wb");
  assert_non_null(stream);
  assert_int_equal(fwrite(text, 1, size, stream), size);
  fclose(stream);
  int status = vamp_config_read(folder, config, error);
  unlink(path);
  rmdir(folder);
  return status;
}

/* Reads the good document with its first `from` (after `section`) replaced by `to`. */
static int read_edited(const char *section, const char *from, const char *to,
                       struct vamp_model_config *config, struct vamp_error *error) {
  const char *start = strstr(good, section);
  assert_non_null(start);
  const char *at = strstr(start, from);
  assert_non_null(at);
  size_t size = strlen(good) + strlen(to) + 1;
  char *text = malloc(size);
  assert_non_null(text);
  snprintf(text, size, "%.*s%s%s", (int)(at - good), good, to, at + strlen(from));
  int status = read_text(text, strlen(text), config, error);
  free(text);
  return status;
}

static void refuse(const char *section, const char *from, const char *to, int status, const char *field) {
  struct vamp_model_config config, before;
  memset(&config, 0x5a, sizeof config);
  before = config;
  struct vamp_error error = {0};
  int found = read_edited(section, from, to, &config, &error);
  if (found != status || strcmp(error.field, field) != 0 || !strstr(error.message, "model.json")) {
    fail_msg("%s -> %s: status %d, field '%s': %s", from, to, found, error.field, error.message);
  }
  assert_memory_equal(&config, &before, sizeof config);
}

static void reads_a_good_file(void **state) {
  (void)state;
  struct vamp_model_config config;
  struct vamp_error error;
  int status = read_text(good, strlen(good), &config, &error);
  if (status) {
    fail_msg("%s", error.message);
  }
  assert_string_equal(config.name, "test");
  assert_string_equal(config.license, "MIT");
  assert_string_equal(config.description, "for tests");
  assert_int_equal(config.codec.encoder_rate_count, 3);
  assert_int_equal(config.codec.encoder_rates[1], 3);
  assert_int_equal(config.codec.decoder_rate_count, 2);
  assert_int_equal(config.codec.hop_length, 24);
  assert_int_equal(config.codec.latent_dim, 64);
  assert_int_equal(config.codec.codebook_dim, 5);
  assert_int_equal(config.coarse.n_heads, 4);
  assert_int_equal(config.fine.n_conditioning_codebooks, 3);
  assert_int_equal(config.fine.embedding_dim, 48);
  assert_int_equal(read_edited("license", "\"MIT\"", "\"\"", &config, &error), 0);
  assert_int_equal(read_edited("", "\"license\": \"MIT\", ", "", &config, &error), 0);
  assert_string_equal(config.license, "");
}

static void refuses_wrong_texts(void **state) {
  (void)state;
  refuse("", "\"format\": 1, ", "", VAMP_INVALID, "/format");
  refuse("", "\"format\": 1", "\"format\": 2", VAMP_UNSUPPORTED, "/format");
  refuse("", "\"format\": 1", "\"format\": \"1\"", VAMP_INVALID, "/format");
  refuse("", "\"name\": \"test\", ", "", VAMP_INVALID, "/name");
  refuse("", "\"test\"", "\"\"", VAMP_INVALID, "/name");
  refuse("", "\"test\"", "7", VAMP_INVALID, "/name");
  refuse("", "\"test\"", "\"a\\nb\"", VAMP_INVALID, "/name");
  refuse("", "\"test\"", "\"0123456789012345678901234567890123456789012345678901234567890123\"", VAMP_INVALID,
         "/name");
  refuse("", "\"MIT\"", "null", VAMP_INVALID, "/license");
}

static void refuses_wrong_numbers(void **state) {
  (void)state;
  refuse("", "\"codec\"", "\"kodek\"", VAMP_INVALID, "/codec");
  refuse("", "\"coarse\": {", "\"coarse\": 3, \"x\": {", VAMP_INVALID, "/coarse");
  refuse("codec", "44100", "0", VAMP_INVALID, "/codec/sample_rate");
  refuse("codec", "44100", "44100.0", VAMP_INVALID, "/codec/sample_rate");
  refuse("codec", "44100", "9999999999", VAMP_INVALID, "/codec/sample_rate");
  refuse("codec", "44100", "true", VAMP_INVALID, "/codec/sample_rate");
  refuse("codec", "\"encoder_dim\": 8, ", "", VAMP_INVALID, "/codec/encoder_dim");
  refuse("codec", "\"encoder_dim\": 8", "\"encoder_dim\": 65537", VAMP_INVALID, "/codec/encoder_dim");
  refuse("codec", "\"encoder_dim\": 8", "\"encoder_dim\": 32768", VAMP_INVALID, "/codec/encoder_dim");
  refuse("codec", "\"encoder_dim\": 8", "\"encoder_dim\": 8192", VAMP_LIMIT, "/codec");
  refuse("codec", "[2, 3, 4]", "[]", VAMP_INVALID, "/codec/encoder_rates");
  refuse("codec", "[2, 3, 4]", "24", VAMP_INVALID, "/codec/encoder_rates");
  refuse("codec", "[2, 3, 4]", "[1, 1, 1, 1, 1, 1, 2, 3, 4]", VAMP_INVALID, "/codec/encoder_rates");
  refuse("codec", "[2, 3, 4]", "[2, 0, 4]", VAMP_INVALID, "/codec/encoder_rates/1");
  refuse("codec", "[2, 3, 4]", "[2, 3, \"4\"]", VAMP_INVALID, "/codec/encoder_rates/2");
  refuse("codec", "[2, 3, 4]", "[2, 3, 1000]", VAMP_INVALID, "/codec/encoder_rates/2");
  refuse("codec", "[2, 3, 4]", "[256, 256, 256]", VAMP_INVALID, "/codec/encoder_rates");
  refuse("codec", "[2, 3, 4]", "[2, 3, 5]", VAMP_INVALID, "/codec/decoder_rates");
  refuse("codec", "\"decoder_dim\": 32", "\"decoder_dim\": 30", VAMP_INVALID, "/codec/decoder_dim");
  refuse("codec", "\"n_codebooks\": 9", "\"n_codebooks\": 33", VAMP_INVALID, "/codec/n_codebooks");
  refuse("codec", "512", "1", VAMP_INVALID, "/codec/codebook_size");
  refuse("codec", "\"codebook_dim\": 5", "\"codebook_dim\": 5, \"loudness\": -24", VAMP_INVALID, "/codec");
  refuse("coarse", "\"n_layers\": 2", "\"n_layers\": 257", VAMP_INVALID, "/coarse/n_layers");
  refuse("coarse", "\"n_heads\": 4", "\"n_heads\": 0", VAMP_INVALID, "/coarse/n_heads");
  refuse("coarse", "\"embedding_dim\": 64", "\"embedding_dim\": 65536", VAMP_LIMIT, "/coarse");
}

static void refuses_parts_that_do_not_fit(void **state) {
  (void)state;
  refuse("codec", "\"n_codebooks\": 9", "\"n_codebooks\": 8", VAMP_INVALID, "/c2f/n_codebooks");
  refuse("c2f", "\"n_conditioning_codebooks\": 3", "\"n_conditioning_codebooks\": 4", VAMP_INVALID,
         "/c2f/n_conditioning_codebooks");
  refuse("c2f", "\"n_conditioning_codebooks\": 3", "\"n_conditioning_codebooks\": 9", VAMP_INVALID,
         "/c2f/n_conditioning_codebooks");
  refuse("coarse", "\"n_conditioning_codebooks\": 0", "\"n_conditioning_codebooks\": 1", VAMP_INVALID,
         "/coarse/n_conditioning_codebooks");
  refuse("coarse", "512", "1024", VAMP_INVALID, "/coarse/vocab_size");
  refuse("c2f", "\"latent_dim\": 5", "\"latent_dim\": 8", VAMP_INVALID, "/c2f/latent_dim");
  refuse("c2f", "48", "49", VAMP_INVALID, "/c2f/embedding_dim");
}

static void refuses_what_is_no_document(void **state) {
  (void)state;
  struct vamp_model_config config;
  struct vamp_error error;
  assert_int_equal(read_text("", 0, &config, &error), VAMP_INVALID);
  assert_int_equal(read_text("[]", 2, &config, &error), VAMP_INVALID);
  assert_int_equal(read_text(good, strlen(good) / 2, &config, &error), VAMP_INVALID);
  assert_non_null(strstr(error.message, "model.json"));
  assert_int_equal(read_edited("", "\"format\": 1", "\"format\": 1, \"format\": 1", &config, &error),
                   VAMP_INVALID);
  assert_int_equal(vamp_config_read("/nowhere", &config, &error), VAMP_IO);
  assert_non_null(strstr(error.message, "/nowhere/model.json"));
  size_t size = ((size_t)1 << 20) + 1;
  char *spaces = malloc(size);
  assert_non_null(spaces);
  memset(spaces, ' ', size);
  memcpy(spaces, good, strlen(good));
  assert_int_equal(read_text(spaces, size, &config, &error), VAMP_INVALID);
  assert_int_equal(read_text(spaces, size - 1, &config, &error), 0);
  free(spaces);
}

static void knows_two_models(void **state) {
  (void)state;
  struct vamp_model_config config;
  struct vamp_error error;
  assert_int_equal(vamp_config_named("official", &config, &error), 0);
  assert_int_equal(config.codec.latent_dim, 1024);
  assert_int_equal(config.codec.hop_length, 768);
  assert_int_equal(config.coarse.embedding_dim / config.coarse.n_heads, 64);
  assert_int_equal(config.fine.n_codebooks - config.fine.n_conditioning_codebooks, 10);
  struct vamp_model_config shipped; /* make runs the tests in the project's root */
  assert_int_equal(vamp_config_named("small", &config, &error), 0);
  assert_int_equal(vamp_config_read("models/small", &shipped, &error), 0);
  assert_memory_equal(&config.coarse, &shipped.coarse, sizeof config.coarse);
  assert_memory_equal(&config.fine, &shipped.fine, sizeof config.fine);
  assert_int_equal(config.codec.encoder_dim, shipped.codec.encoder_dim);
  assert_int_equal(config.codec.decoder_dim, shipped.codec.decoder_dim);
  assert_int_equal(config.codec.latent_dim, shipped.codec.latent_dim);
  assert_int_equal(vamp_config_named("large", &config, &error), VAMP_INVALID);
  assert_non_null(strstr(error.message, "official, small"));
}

/* Configurations made in memory may hold anything. */
static void checks_counts_of_rates(void **state) {
  (void)state;
  struct vamp_model_config config;
  struct vamp_error error;
  assert_int_equal(vamp_config_named("small", &config, &error), 0);
  config.codec.decoder_rate_count = VAMP_MAX_RATES + 1;
  assert_int_equal(vamp_config_check(&config, &error), VAMP_INVALID);
  assert_string_equal(error.field, "/codec/decoder_rates");
  config.codec.decoder_rate_count = -1;
  assert_int_equal(vamp_config_check(&config, &error), VAMP_INVALID);
  config.codec.decoder_rate_count = 6;
  config.codec.latent_dim = config.codec.hop_length = 0;
  assert_int_equal(vamp_config_check(&config, &error), 0);
  assert_int_equal(config.codec.latent_dim, 192);
  assert_int_equal(config.codec.hop_length, 768);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(reads_a_good_file),           cmocka_unit_test(refuses_wrong_texts),
      cmocka_unit_test(refuses_wrong_numbers),       cmocka_unit_test(refuses_parts_that_do_not_fit),
      cmocka_unit_test(refuses_what_is_no_document), cmocka_unit_test(knows_two_models),
      cmocka_unit_test(checks_counts_of_rates),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
