/*
 * Presets: the densities that the published ones were measured to have, and the table itself.
 */
#include "tests/unit/test_mask.h"

#include <math.h>
#include <stdio.h>

static double overall(const char *text, int frames, uint64_t seed) {
  uint8_t *cells = cells_of(text, frames, seed);
  double density = (double)masked_in(cells, frames, 0, CODEBOOKS) / (CODEBOOKS * frames);
  test_free(cells);
  return density;
}

/* MASKS: "subtle 0.943, improvise 0.990, remix 0.998, texture 0.969, generate 1.000", over ten seconds,
 * which are 574 or 575 frames depending on who rounds; for every seed, with dropout too. */
static void published_densities_to_the_third_digit(void **state) {
  (void)state;
  static const struct {
    const char *name;
    int thousandths;
  } published[] = {
      {"subtle", 943}, {"improvise", 990}, {"remix", 998}, {"texture", 969}, {"generate", 1000},
  };
  for (size_t i = 0; i < sizeof published / sizeof published[0]; i++) {
    for (int frames = 574; frames <= 575; frames++) {
      for (uint64_t seed = 0; seed < 50; seed++) {
        char text[80];
        snprintf(text, sizeof text, "{\"preset\": \"vampnet/%s\"}", published[i].name);
        assert_int_equal(lround(1000 * overall(text, frames, seed)), published[i].thousandths);
      }
    }
  }
}

/* Where dropout is 0 every Nth frame is kept on the lower codebooks, and nothing else: to the last digit. */
static void published_masks_without_dropout_are_exact(void **state) {
  (void)state;
  static const struct {
    const char *name;
    int prompt, upper;
  } published[] = {{"timbre", 2, 1}, {"small", 5, 4},   {"medium", 7, 4},
                   {"subtle", 5, 4}, {"texture", 7, 3}, {"unconditional", 0, 1}};
  for (size_t i = 0; i < sizeof published / sizeof published[0]; i++) {
    for (uint64_t seed = 0; seed < 5; seed++) {
      char text[80];
      snprintf(text, sizeof text, "{\"preset\": \"vampnet/%s\"}", published[i].name);
      uint8_t *cells = cells_of(text, CLIP, seed);
      for (int codebook = 0; codebook < CODEBOOKS; codebook++) {
        for (int frame = 0; frame < CLIP; frame++) {
          bool kept =
              codebook < published[i].upper && published[i].prompt && frame % published[i].prompt == 0;
          assert_int_equal(cells[codebook * CLIP + frame], !kept);
        }
      }
      test_free(cells);
    }
  }
}

static void study_presets_are_their_parameters(void **state) {
  (void)state;
  assert_same_mask("{\"preset\": \"subtle\"}",
                   "{\"mask_ratio\": 0.3, \"periodic_prompt\": 7, \"upper_codebook_mask\": 2}", CLIP, 3);
  assert_same_mask("{\"preset\": \"balanced\"}",
                   "{\"mask_ratio\": 0.5, \"periodic_prompt\": 7, \"upper_codebook_mask\": 3}", CLIP, 3);
  assert_same_mask("{\"preset\": \"creative\"}",
                   "{\"mask_ratio\": 0.7, \"periodic_prompt\": 10, \"upper_codebook_mask\": 4}", CLIP, 3);
  assert_same_mask("{\"preset\": \"rhythm\", \"periodic_prompt\": 29, \"periodic_offset\": 0}",
                   "{\"mask_ratio\": 1, \"periodic_prompt\": 29, \"upper_codebook_mask\": 3, "
                   "\"periodic_offset\": 0}",
                   CLIP, 3);
  uint8_t *cells = cells_of("{\"preset\": \"texture\"}", CLIP, 3);
  for (int codebook = 0; codebook < CODEBOOKS; codebook++) {
    for (int frame = 0; frame < CLIP; frame++) {
      assert_int_equal(cells[codebook * CLIP + frame], codebook >= 2 && frame / 29 % 2 == 0);
    }
  }
  test_free(cells);
}

static void overrides_go_over_the_preset(void **state) {
  (void)state;
  assert_same_mask("{\"preset\": \"creative\", \"mask_ratio\": 0.2, \"seed\": 4}",
                   "{\"mask_ratio\": 0.2, \"periodic_prompt\": 10, \"upper_codebook_mask\": 4, \"seed\": 4}",
                   CLIP, 3);
  assert_same_mask("{\"preset\": \"texture\", \"size\": 10, \"codebooks\": [4, 14]}",
                   "{\"pattern\": \"block\", \"size\": 10, \"arrangement\": \"alternating\", "
                   "\"codebooks\": [4, 14]}",
                   CLIP, 3);
}

static void every_preset_of_the_table_can_be_built(void **state) {
  (void)state;
  json_t *table = vamp_mask_presets_json();
  assert_int_equal(json_array_size(table), 15);
  for (size_t i = 0; i < json_array_size(table); i++) {
    json_t *entry = json_array_get(table, i);
    const char *name = json_string_value(json_object_get(entry, "name"));
    assert_true(strlen(json_string_value(json_object_get(entry, "description"))) > 10);
    json_t *mask = vamp_mask_preset(name);
    assert_true(json_equal(mask, json_object_get(entry, "mask")));
    json_t *by_name = json_pack("{s:s}", "preset", name);
    if (json_is_string(json_object_get(mask, "periodic_prompt"))) { /* "beat", which takes a clip */
      json_object_set_new(mask, "periodic_prompt", json_integer(29));
      json_object_set_new(by_name, "periodic_prompt", json_integer(29));
    }
    for (int frames = 1; frames < 3000; frames = frames * 3 + 1) {
      struct vamp_mask_plan *whole = plan_of_json(mask, frames, 2), *named = plan_of_json(by_name, frames, 2);
      assert_true(
          same_cells(vamp_mask_plan_mask(whole, 0)->data, vamp_mask_plan_mask(named, 0)->data, frames));
      vamp_mask_plan_free(whole);
      vamp_mask_plan_free(named);
    }
    json_decref(by_name);
    json_decref(mask);
  }
  json_decref(table);
  assert_null(vamp_mask_preset("nothing"));
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(published_densities_to_the_third_digit),
      cmocka_unit_test(published_masks_without_dropout_are_exact),
      cmocka_unit_test(study_presets_are_their_parameters),
      cmocka_unit_test(overrides_go_over_the_preset),
      cmocka_unit_test(every_preset_of_the_table_can_be_built),
  };
  return cmocka_run_group_tests_name("mask presets", tests, NULL, NULL);
}
