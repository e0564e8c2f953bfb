/*
 * The mask's JSON: that it says what the mask is, and that what it says builds the mask again.
 */
#include "tests/unit/test_mask.h"

#include <math.h>
#include <stdio.h>

static const char bitmap[] =
    "{\"pattern\": \"bitmap\", \"codebooks\": [0, 1], \"encoding\": \"run-lengths\", "
    "\"data\": [[0, 40, 60, 20]]}";
static const char nested[] =
    "{\"any\": [{\"all\": [{\"pattern\": \"random\"}, {\"not\": {\"pattern\": \"random\"}}]}, "
    "{\"prompts\": {\"pattern\": \"periodic\"}, \"dropout\": 0.5, \"codebooks\": [2, null]}]}";
static const char *const specs[] = {
    "{}",
    "{\"preset\": \"subtle\"}",
    "{\"preset\": \"creative\", \"prefix_s\": 1, \"suffix_s\": 0.3}",
    "{\"preset\": \"rhythm\", \"periodic_prompt\": 29}",
    "{\"preset\": \"texture\"}",
    "{\"preset\": \"vampnet/improvise\"}",
    "{\"preset\": \"vampnet/generate\"}",
    "{\"upper_codebook_mask\": 0}",
    "{\"upper_codebook_mask\": 0, \"upper_codebooks\": \"mask\"}",
    "{\"upper_codebook_mask\": 14, \"mask_ratio\": 0.1, \"periodic_prompt\": 0}",
    "{\"periodic_prompt\": 11, \"periodic_width\": 3, \"prefix_s\": 0.7, \"dropout\": 0.4}",
    "{\"mask_ratio\": 0.4, \"periodic_prompt\": 0, \"dropout\": 0.4, \"seed\": 12}",
    "{\"pattern\": \"random\", \"ratio\": 0.123456789012345, \"per\": \"frame\"}",
    "{\"pattern\": \"periodic\", \"width\": 2}",
    "{\"pattern\": \"strided\", \"stride\": 9, \"length\": 4, \"offset\": \"random\"}",
    "{\"pattern\": \"block\", \"size\": 17, \"ratio\": 0.4}",
    "{\"pattern\": \"range\", \"start_s\": 0.5, \"end_s\": 1.25, \"name\": \"the middle\"}",
    bitmap,
    nested,
};
#define SPEC_COUNT (sizeof specs / sizeof specs[0])

enum { FRAMES = 120 };

static json_t *answer_of(const char *text, uint64_t seed, struct vamp_mask_plan **plan) {
  *plan = plan_of(text, FRAMES, seed);
  json_t *answer = vamp_mask_plan_json(*plan, 0, NULL);
  assert_non_null(answer);
  return answer;
}

/* Run lengths -> cells, as docs/masks.md tells a client. */
static void decode(const json_t *rows, uint8_t *cells) {
  assert_int_equal(json_array_size(rows), CODEBOOKS);
  for (int codebook = 0; codebook < CODEBOOKS; codebook++) {
    const json_t *runs = json_array_get(rows, (size_t)codebook);
    int at = 0;
    for (size_t i = 0; i < json_array_size(runs); i++) {
      int run = (int)json_integer_value(json_array_get(runs, i));
      assert_true(run > 0 || i == 0);
      assert_true(at + run <= FRAMES);
      memset(cells + codebook * FRAMES + at, (int)(i % 2), (size_t)run);
      at += run;
    }
    assert_int_equal(at, FRAMES);
  }
}

/* Byte for byte, through text, as a client would send it back. */
static void the_tree_gives_the_mask_again(void **state) {
  (void)state;
  for (size_t i = 0; i < SPEC_COUNT; i++) {
    for (uint64_t seed = 0; seed < 10; seed++) {
      struct vamp_mask_plan *plan;
      json_t *answer = answer_of(specs[i], seed, &plan);
      char *text = json_dumps(json_object_get(answer, "tree"), 0);
      json_t *tree = json_of(text);
      json_object_set(tree, "seed", json_object_get(answer, "seed"));
      struct vamp_mask_plan *again = plan_of_json(tree, FRAMES, 999);
      assert_true(
          same_cells(vamp_mask_plan_mask(plan, 0)->data, vamp_mask_plan_mask(again, 0)->data, FRAMES));
      json_t *second = vamp_mask_plan_json(again, 0, NULL);
      assert_true(json_equal(json_object_get(answer, "tree"), json_object_get(second, "tree")));
      assert_true(json_equal(json_object_get(answer, "layers"), json_object_get(second, "layers")));
      json_decref(second);
      vamp_mask_plan_free(again);
      json_decref(tree);
      free(text);
      json_decref(answer);
      vamp_mask_plan_free(plan);
    }
  }
}

/* The simple form is reported with every default, and is the same mask again. */
static void parameters_give_the_mask_again(void **state) {
  (void)state;
  struct vamp_mask_plan *plan;
  json_t *answer = answer_of("{\"preset\": \"vampnet/improvise\"}", 3, &plan);
  json_t *parameters = json_object_get(answer, "parameters");
  assert_int_equal(json_object_size(parameters), 9);
  assert_int_equal(json_integer_value(json_object_get(parameters, "periodic_prompt")), 13);
  struct vamp_mask_plan *again = plan_of_json(parameters, FRAMES, 3);
  assert_true(same_cells(vamp_mask_plan_mask(plan, 0)->data, vamp_mask_plan_mask(again, 0)->data, FRAMES));
  vamp_mask_plan_free(again);
  json_decref(answer);
  vamp_mask_plan_free(plan);
}

static void run_lengths_and_densities_are_the_mask(void **state) {
  (void)state;
  uint8_t *cells = test_malloc(CODEBOOKS * FRAMES);
  for (size_t i = 0; i < SPEC_COUNT; i++) {
    struct vamp_mask_plan *plan;
    json_t *answer = answer_of(specs[i], 4, &plan);
    decode(json_object_get(answer, "mask"), cells);
    assert_true(same_cells(cells, vamp_mask_plan_mask(plan, 0)->data, FRAMES));
    json_t *density = json_object_get(answer, "density"), *rows = json_object_get(density, "codebooks");
    assert_int_equal(json_array_size(rows), CODEBOOKS);
    for (int codebook = 0; codebook < CODEBOOKS; codebook++) {
      double share = (double)masked_in(cells, FRAMES, codebook, codebook + 1) / FRAMES;
      assert_true(json_real_value(json_array_get(rows, (size_t)codebook)) == share);
    }
    static const struct {
      const char *name;
      int low, high;
    } parts[] = {{"overall", 0, CODEBOOKS}, {"coarse", 0, COARSE}, {"fine", COARSE, CODEBOOKS}};
    for (size_t p = 0; p < 3; p++) {
      double share = (double)masked_in(cells, FRAMES, parts[p].low, parts[p].high) /
                     ((parts[p].high - parts[p].low) * FRAMES);
      assert_true(json_real_value(json_object_get(density, parts[p].name)) == share);
    }
    json_decref(answer);
    vamp_mask_plan_free(plan);
  }
  test_free(cells);
}

static void the_shape_is_described(void **state) {
  (void)state;
  struct vamp_mask_plan *plan;
  json_t *answer = answer_of("{\"passes\": [{}, {}]}", 4, &plan);
  assert_int_equal(json_integer_value(json_object_get(answer, "codebooks")), 14);
  assert_int_equal(json_integer_value(json_object_get(answer, "frames")), FRAMES);
  assert_int_equal(json_integer_value(json_object_get(answer, "hop_length")), 768);
  assert_int_equal(json_integer_value(json_object_get(answer, "sample_rate")), 44100);
  assert_int_equal(json_integer_value(json_object_get(answer, "seed")), 4);
  assert_int_equal(json_integer_value(json_object_get(answer, "passes")), 2);
  assert_true(fabs(json_real_value(json_object_get(answer, "frame_rate")) - 57.421875) < 1e-9);
  json_t *names = json_object_get(answer, "codebook_names");
  assert_string_equal(json_string_value(json_array_get(names, 3)), "coarse 3");
  assert_string_equal(json_string_value(json_array_get(names, 4)), "fine 4");
  assert_null(vamp_mask_plan_json(plan, 2, NULL));
  json_decref(answer);
  vamp_mask_plan_free(plan);
}

/* A reader sees which pattern masked what: the layers, put together by hand, are the mask. */
static void layers_explain_the_mask(void **state) {
  (void)state;
  struct vamp_mask_plan *plan;
  json_t *answer =
      answer_of("{\"mask_ratio\": 0.6, \"periodic_prompt\": 5, \"prefix_s\": 0.3, \"suffix_s\": 0.2, "
                "\"dropout\": 0.3, \"upper_codebook_mask\": 2}",
                4, &plan);
  static const char *const names[] = {"periodic prompt", "prefix",  "suffix",
                                      "random choice",   "dropout", "fine codebooks"};
  json_t *layers = json_object_get(answer, "layers");
  assert_int_equal(json_array_size(layers), 6);
  uint8_t *layer[6];
  for (size_t i = 0; i < 6; i++) {
    json_t *entry = json_array_get(layers, i);
    assert_string_equal(json_string_value(json_object_get(entry, "name")), names[i]);
    layer[i] = test_malloc(CODEBOOKS * FRAMES);
    decode(json_object_get(entry, "mask"), layer[i]);
    json_t *range = json_object_get(entry, "codebooks");
    int low = (int)json_integer_value(json_array_get(range, 0)),
        high = (int)json_integer_value(json_array_get(range, 1));
    double share = (double)masked_in(layer[i], FRAMES, 0, CODEBOOKS) / ((high - low) * FRAMES);
    assert_true(json_real_value(json_object_get(entry, "density")) == share);
  }
  const uint8_t *mask = vamp_mask_plan_mask(plan, 0)->data;
  for (int i = 0; i < CODEBOOKS * FRAMES; i++) {
    bool prompted = !layer[0][i] || !layer[1][i] || !layer[2][i];
    assert_int_equal(mask[i], (layer[3][i] && !prompted) || layer[4][i] || layer[5][i]);
  }
  for (size_t i = 0; i < 6; i++) {
    test_free(layer[i]);
  }
  json_decref(answer);
  vamp_mask_plan_free(plan);
}

static void layers_of_one_name_are_numbered(void **state) {
  (void)state;
  struct vamp_mask_plan *plan;
  json_t *answer =
      answer_of("{\"any\": [{\"pattern\": \"random\"}, {\"pattern\": \"fill\", \"name\": \"random\"}, "
                "{\"not\": {\"pattern\": \"random\"}}, {\"pattern\": \"random\"}]}",
                4, &plan);
  static const char *const names[] = {"random", "random 2", "not random", "random 3"};
  for (size_t i = 0; i < 4; i++) {
    json_t *entry = json_array_get(json_object_get(answer, "layers"), i);
    assert_string_equal(json_string_value(json_object_get(entry, "name")), names[i]);
  }
  json_decref(answer);
  vamp_mask_plan_free(plan);
}

/* The inverse of the engine's base64, for standard alphabet and padding; returns the number of bytes. */
static size_t base64_bytes(const char *text, uint8_t *bytes) {
  static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  assert_int_equal(strlen(text) % 4, 0);
  size_t count = 0;
  uint32_t held = 0;
  int bits = 0;
  for (; *text && *text != '='; text++) {
    held = held << 6 | (uint32_t)(strchr(digits, *text) - digits);
    bits += 6;
    if (bits >= 8) {
      bits -= 8;
      bytes[count++] = (uint8_t)(held >> bits);
    }
  }
  return count;
}

static void outcomes_come_back_as_they_were(void **state) {
  (void)state;
  enum { TOKENS = CODEBOOKS * FRAMES };
  int32_t *before = test_calloc(TOKENS, sizeof *before), *after = test_calloc(TOKENS, sizeof *after);
  int32_t *step = test_calloc(TOKENS, sizeof *step);
  float *confidence = test_calloc(TOKENS, sizeof *confidence);
  struct vamp_mask_plan *plan = plan_of("{}", FRAMES, 1);
  const uint8_t *mask = vamp_mask_plan_mask(plan, 0)->data;
  int changed[CODEBOOKS] = {0};
  for (int i = 0; i < TOKENS; i++) {
    before[i] = i % 1024;
    after[i] = mask[i] && i % 3 ? (i + 5) % 1024 : before[i];
    step[i] = mask[i] ? i % 300 : -1;
    confidence[i] = mask[i] ? (float)(i % 101) / 100 : 1;
    changed[i / FRAMES] += before[i] != after[i];
  }
  confidence[0] = NAN;
  struct vamp_mask_outcome outcome = {before, after, step, confidence};
  json_t *answer = vamp_mask_plan_json(plan, 0, &outcome);
  assert_non_null(answer);

  json_t *shares = json_object_get(json_object_get(answer, "changed"), "codebooks");
  for (int codebook = 0; codebook < CODEBOOKS; codebook++) {
    assert_true(json_real_value(json_array_get(shares, (size_t)codebook)) ==
                (double)changed[codebook] / FRAMES);
  }
  uint8_t *bytes = test_malloc(2 * TOKENS + 4);
  json_t *steps = json_object_get(answer, "committed_step");
  assert_string_equal(json_string_value(json_object_get(steps, "dtype")), "int16");
  assert_int_equal(base64_bytes(json_string_value(json_object_get(steps, "data")), bytes), 2 * TOKENS);
  for (int i = 0; i < TOKENS; i++) {
    assert_int_equal((int16_t)(bytes[2 * i] | bytes[2 * i + 1] << 8), step[i]);
  }
  json_t *levels = json_object_get(answer, "confidence");
  assert_int_equal(base64_bytes(json_string_value(json_object_get(levels, "data")), bytes), TOKENS);
  assert_int_equal(bytes[0], 0);
  for (int i = 1; i < TOKENS; i++) {
    assert_true(fabsf((float)bytes[i] / 255 - confidence[i]) <= 0.5f / 255 + 1e-6f);
  }
  test_free(bytes);
  json_decref(answer);
  vamp_mask_plan_free(plan);
  test_free(before);
  test_free(after);
  test_free(step);
  test_free(confidence);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(the_tree_gives_the_mask_again),
      cmocka_unit_test(parameters_give_the_mask_again),
      cmocka_unit_test(run_lengths_and_densities_are_the_mask),
      cmocka_unit_test(the_shape_is_described),
      cmocka_unit_test(layers_explain_the_mask),
      cmocka_unit_test(layers_of_one_name_are_numbered),
      cmocka_unit_test(outcomes_come_back_as_they_were),
  };
  return cmocka_run_group_tests_name("mask answer", tests, NULL, NULL);
}
