/*
 * What a stranger may send: every mistake gets its status, a JSON pointer to the field, and a sentence.
 */
#include "tests/unit/test_mask.h"

#include <stdio.h>

static void mistakes_have_a_pointer_and_a_sentence(void **state) {
  (void)state;
  static const struct {
    const char *text, *field, *part;
    int status;
  } cases[] = {
      /* not a mask at all */
      {"[]", "/mask", "an array", VAMP_INVALID},
      {"3", "/mask", "a number", VAMP_INVALID},
      {"null", "/mask", "null", VAMP_INVALID},
      /* unknown fields, with what is known */
      {"{\"mask_rato\": 0.5}", "/mask/mask_rato", "mask_ratio", VAMP_INVALID},
      {"{\"a/b~c\": 0.5}", "/mask/a~1b~0c", "not a field", VAMP_INVALID},
      {"{\"\": 1}", "/mask/", "not a field", VAMP_INVALID},
      {"{\"pattern\": \"random\", \"size\": 4}", "/mask/size", "ratio, per", VAMP_INVALID},
      {"{\"pattern\": \"random\", \"mask_ratio\": 0.5}", "/mask/mask_ratio", "not a field", VAMP_INVALID},
      /* types */
      {"{\"mask_ratio\": \"0.5\"}", "/mask/mask_ratio", "leave out the quotes", VAMP_INVALID},
      {"{\"mask_ratio\": null}", "/mask/mask_ratio", "null", VAMP_INVALID},
      {"{\"mask_ratio\": true}", "/mask/mask_ratio", "a boolean", VAMP_INVALID},
      {"{\"periodic_prompt\": 7.5}", "/mask/periodic_prompt", "an integer", VAMP_INVALID},
      {"{\"periodic_prompt\": 1e300}", "/mask/periodic_prompt", "an integer", VAMP_INVALID},
      {"{\"periodic_prompt\": \"7\"}", "/mask/periodic_prompt", "an integer", VAMP_INVALID},
      {"{\"upper_codebooks\": 3}", "/mask/upper_codebooks", "\"keep\" or \"mask\"", VAMP_INVALID},
      {"{\"upper_codebooks\": \"drop\"}", "/mask/upper_codebooks", "\"drop\"", VAMP_INVALID},
      {"{\"periodic_offset\": \"anywhere\"}", "/mask/periodic_offset", "\"random\"", VAMP_INVALID},
      {"{\"periodic_offset\": [1]}", "/mask/periodic_offset", "an array", VAMP_INVALID},
      /* ranges */
      {"{\"mask_ratio\": 1.0001}", "/mask/mask_ratio", "from 0 to 1", VAMP_INVALID},
      {"{\"mask_ratio\": -1e-9}", "/mask/mask_ratio", "from 0 to 1", VAMP_INVALID},
      {"{\"mask_ratio\": 1e308}", "/mask/mask_ratio", "from 0 to 1", VAMP_INVALID},
      {"{\"dropout\": 2}", "/mask/dropout", "from 0 to 1", VAMP_INVALID},
      {"{\"prefix_s\": -1}", "/mask/prefix_s", "from 0", VAMP_INVALID},
      {"{\"suffix_s\": 1e300}", "/mask/suffix_s", "from 0", VAMP_INVALID},
      {"{\"periodic_prompt\": -1}", "/mask/periodic_prompt", "from 0", VAMP_INVALID},
      {"{\"periodic_prompt\": 3000000000}", "/mask/periodic_prompt", "2147483647", VAMP_INVALID},
      {"{\"periodic_width\": 0}", "/mask/periodic_width", "from 1", VAMP_INVALID},
      {"{\"periodic_offset\": -1}", "/mask/periodic_offset", "from 0", VAMP_INVALID},
      {"{\"upper_codebook_mask\": 15}", "/mask/upper_codebook_mask", "14 codebooks", VAMP_INVALID},
      {"{\"upper_codebook_mask\": 33}", "/mask/upper_codebook_mask", "from 0", VAMP_INVALID},
      {"{\"seed\": -1}", "/mask/seed", "from 0", VAMP_INVALID},
      {"{\"seed\": 9007199254740992}", "/mask/seed", "9007199254740991", VAMP_INVALID},
      {"{\"seed\": 1e30}", "/mask/seed", "an integer", VAMP_INVALID},
      /* what listens, without music */
      {"{\"periodic_prompt\": \"beat\"}", "/mask/periodic_prompt", "listens", VAMP_INVALID},
      {"{\"preset\": \"rhythm\"}", "/mask/periodic_prompt", "listens", VAMP_INVALID},
      {"{\"pattern\": \"beat\"}", "/mask/pattern", "listens", VAMP_INVALID},
      {"{\"any\": [{\"pattern\": \"onset\"}]}", "/mask/any/0/pattern", "listens", VAMP_INVALID},
      {"{\"pattern\": \"adaptive\", \"feature\": \"rms\"}", "/mask/pattern", "listens", VAMP_INVALID},
      {"{\"pattern\": \"periodic\", \"interval\": \"beat\"}", "/mask/interval", "listens", VAMP_INVALID},
      {"{\"periodic_prompt\": \"bar\"}", "/mask/periodic_prompt", "an integer", VAMP_INVALID},
      {"{\"pattern\": \"onset\", \"width\": 0}", "/mask/width", "from 1", VAMP_INVALID},
      {"{\"pattern\": \"onset\", \"invert\": 1}", "/mask/invert", "true or false", VAMP_INVALID},
      {"{\"pattern\": \"beat\", \"every\": 0}", "/mask/every", "from 1", VAMP_INVALID},
      {"{\"pattern\": \"beat\", \"before_ms\": -1}", "/mask/before_ms", "from 0", VAMP_INVALID},
      {"{\"pattern\": \"adaptive\", \"feature\": \"pitch\"}", "/mask/feature", "flatness", VAMP_INVALID},
      {"{\"pattern\": \"adaptive\", \"ratio\": 1.5}", "/mask/ratio", "from 0 to 1", VAMP_INVALID},
      /* presets */
      {"{\"preset\": \"loud\"}", "/mask/preset", "balanced", VAMP_INVALID},
      {"{\"preset\": 3}", "/mask/preset", "a string", VAMP_INVALID},
      {"{\"preset\": \"subtle\", \"ratio\": 0.2}", "/mask/ratio", "mask_ratio", VAMP_INVALID},
      {"{\"preset\": \"texture\", \"mask_ratio\": 0.2}", "/mask/mask_ratio", "arrangement", VAMP_INVALID},
      {"{\"preset\": \"subtle\", \"pattern\": \"random\"}", "/mask/preset", "passes", VAMP_INVALID},
      {"{\"preset\": \"subtle\", \"passes\": [{}]}", "/mask/preset", "passes", VAMP_INVALID},
      /* trees */
      {"{\"pattern\": 3}", "/mask/pattern", "a string", VAMP_INVALID},
      {"{\"pattern\": \"spiral\"}", "/mask/pattern", "periodic", VAMP_INVALID},
      {"{\"all\": []}", "/mask/all", "one node or more", VAMP_INVALID},
      {"{\"all\": {}}", "/mask/all", "one node or more", VAMP_INVALID},
      {"{\"all\": [{}]}", "/mask/all/0", "needs one of", VAMP_INVALID},
      {"{\"all\": [7]}", "/mask/all/0", "a number", VAMP_INVALID},
      {"{\"not\": null}", "/mask/not", "null", VAMP_INVALID},
      {"{\"not\": {\"mask_ratio\": 1}}", "/mask/not", "needs one of", VAMP_INVALID},
      {"{\"all\": [{\"pattern\": \"fill\"}], \"any\": [{\"pattern\": \"fill\"}]}", "/mask/any", "both",
       VAMP_INVALID},
      {"{\"any\": [{\"pattern\": \"fill\"}, {\"not\": {\"pattern\": \"fill\", \"value\": 2}}]}",
       "/mask/any/1/not/value", "from 0 to 1", VAMP_INVALID},
      {"{\"any\": [{\"pattern\": \"fill\", \"seed\": 1}]}", "/mask/any/0/seed", "not a field", VAMP_INVALID},
      {"{\"prompts\": {\"pattern\": \"fill\"}, \"dropout\": 7}", "/mask/dropout", "from 0 to 1",
       VAMP_INVALID},
      {"{\"prompts\": {\"pattern\": \"fill\"}, \"mask\": 1}", "/mask/mask", "a number", VAMP_INVALID},
      {"{\"pattern\": \"fill\", \"codebooks\": 3}", "/mask/codebooks", "[low, high]", VAMP_INVALID},
      {"{\"pattern\": \"fill\", \"codebooks\": [3]}", "/mask/codebooks", "[low, high]", VAMP_INVALID},
      {"{\"pattern\": \"fill\", \"codebooks\": [3, 3]}", "/mask/codebooks", "low < high", VAMP_INVALID},
      {"{\"pattern\": \"fill\", \"codebooks\": [-1, 3]}", "/mask/codebooks", "[low, high]", VAMP_INVALID},
      {"{\"pattern\": \"fill\", \"codebooks\": [0, 15]}", "/mask/codebooks", "0 to 13", VAMP_INVALID},
      {"{\"pattern\": \"fill\", \"codebooks\": [20, null]}", "/mask/codebooks", "0 to 13", VAMP_INVALID},
      {"{\"pattern\": \"fill\", \"name\": \"\"}", "/mask/name", "printable", VAMP_INVALID},
      {"{\"pattern\": \"fill\", \"name\": \"a\\nb\"}", "/mask/name", "printable", VAMP_INVALID},
      /* patterns */
      {"{\"pattern\": \"strided\", \"stride\": 3, \"length\": 4}", "/mask/length", "stride", VAMP_INVALID},
      {"{\"pattern\": \"block\", \"size\": 0}", "/mask/size", "from 1", VAMP_INVALID},
      {"{\"pattern\": \"block\", \"arrangement\": \"heaped\"}", "/mask/arrangement", "alternating",
       VAMP_INVALID},
      {"{\"pattern\": \"range\", \"start_s\": 1, \"start_frame\": 3}", "/mask/start_frame", "not both",
       VAMP_INVALID},
      {"{\"pattern\": \"range\", \"end_s\": 60}", "/mask/end_s", "beyond the end", VAMP_INVALID},
      {"{\"pattern\": \"range\", \"start_frame\": 100}", "/mask/start_frame", "beyond the end", VAMP_INVALID},
      {"{\"pattern\": \"range\", \"start_s\": 1, \"end_s\": 0.5}", "/mask/end_s", "no frame", VAMP_INVALID},
      {"{\"pattern\": \"bitmap\"}", "/mask/data", "needs data", VAMP_INVALID},
      {"{\"pattern\": \"bitmap\", \"data\": [[0, 1]]}", "/mask/data", "one row for each", VAMP_INVALID},
      {"{\"pattern\": \"bitmap\", \"codebooks\": [0, 1], \"data\": [[0, 1]]}", "/mask/data/0", "2 frames",
       VAMP_INVALID},
      {"{\"pattern\": \"bitmap\", \"data\": [[0], [0, 2]]}", "/mask/data/1", "0 and 1", VAMP_INVALID},
      {"{\"pattern\": \"bitmap\", \"data\": [[0], 3]}", "/mask/data/1", "not an array", VAMP_INVALID},
      {"{\"pattern\": \"bitmap\", \"encoding\": \"run-lengths\", \"data\": [[1048576, 1]]}", "/mask/data/0",
       "counts", VAMP_INVALID},
      {"{\"pattern\": \"bitmap\", \"encoding\": \"run-lengths\", \"data\": [[-1]]}", "/mask/data/0", "counts",
       VAMP_INVALID},
      /* passes */
      {"{\"passes\": []}", "/mask/passes", "one mask or more", VAMP_INVALID},
      {"{\"passes\": 3}", "/mask/passes", "one mask or more", VAMP_INVALID},
      {"{\"passes\": [{}, 3]}", "/mask/passes/1", "a number", VAMP_INVALID},
      {"{\"passes\": [{\"passes\": [{}]}]}", "/mask/passes/0/passes", "not a field", VAMP_INVALID},
      {"{\"passes\": [{}], \"mask_ratio\": 1}", "/mask/mask_ratio", "passes, seed", VAMP_INVALID},
      {"{\"passes\": [{}, {\"any\": [{\"pattern\": \"range\", \"end_frame\": 101}]}]}",
       "/mask/passes/1/any/0/end_frame", "beyond the end", VAMP_INVALID},
  };
  for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
    assert_fails_at(cases[i].text, 100, cases[i].status, cases[i].field, cases[i].part);
  }
}

static json_t *nested(int depth) {
  json_t *node = json_of("{\"pattern\": \"fill\"}");
  for (int i = 1; i < depth; i++) {
    node = json_pack("{s:o}", "not", node);
  }
  return node;
}

static json_t *wide(int leaves) {
  json_t *list = json_array();
  for (int i = 0; i < leaves; i++) {
    json_array_append_new(list, json_of("{\"pattern\": \"fill\"}"));
  }
  return json_pack("{s:o}", "any", list);
}

static int status_of(json_t *json) {
  struct vamp_mask_plan *plan = NULL;
  struct vamp_error error = {0};
  int status = try_plan(json, 10, 1, &plan, &error);
  assert_true(status == 0 || error.status == status);
  vamp_mask_plan_free(plan);
  json_decref(json);
  return status;
}

static void depth_nodes_and_passes_are_bounded(void **state) {
  (void)state;
  assert_int_equal(status_of(nested(VAMP_MASK_MAX_DEPTH)), 0);
  assert_int_equal(status_of(nested(VAMP_MASK_MAX_DEPTH + 1)), VAMP_LIMIT);
  assert_int_equal(status_of(nested(500)), VAMP_LIMIT);
  assert_int_equal(status_of(wide(VAMP_MASK_MAX_NODES - 1)), 0);
  assert_int_equal(status_of(wide(VAMP_MASK_MAX_NODES)), VAMP_LIMIT);
  assert_int_equal(status_of(wide(100000)), VAMP_LIMIT);
  json_t *list = json_array();
  for (int i = 0; i < VAMP_MASK_MAX_PASSES; i++) {
    json_array_append_new(list, json_object());
  }
  assert_int_equal(status_of(json_pack("{s:O}", "passes", list)), 0);
  json_array_append_new(list, json_object());
  assert_int_equal(status_of(json_pack("{s:o}", "passes", list)), VAMP_LIMIT);
}

/* Limits on the whole: a million frames are fine, sixteen passes of sixty layers over them are not. */
static void size_is_bounded(void **state) {
  (void)state;
  struct vamp_mask_plan *plan = NULL;
  struct vamp_error error = {0};
  json_t *list = json_array(), *json = json_pack("{s:o}", "passes", list);
  for (int i = 0; i < VAMP_MASK_MAX_PASSES; i++) {
    json_array_append_new(list, wide(60));
  }
  assert_int_equal(try_plan(json, VAMP_MASK_MAX_FRAMES, 1, &plan, &error), VAMP_LIMIT);
  json_decref(json);
  json = json_of(
      "{\"pattern\": \"periodic\", \"interval\": 1000000000, \"width\": 2147483647, \"offset\": 2147483647}");
  assert_int_equal(try_plan(json, VAMP_MASK_MAX_FRAMES, 1, &plan, &error), 0);
  vamp_mask_plan_free(plan);
  plan = NULL;
  assert_int_equal(try_plan(json, VAMP_MASK_MAX_FRAMES + 1, 1, &plan, &error), VAMP_LIMIT);
  assert_int_equal(try_plan(json, 0, 1, &plan, &error), VAMP_INVALID);
  assert_int_equal(try_plan(json, -5, 1, &plan, &error), VAMP_INVALID);
  assert_int_equal(try_plan(json, 5, UINT64_MAX, &plan, &error), VAMP_INVALID);
  json_decref(json);
}

static void odd_contexts_are_refused(void **state) {
  (void)state;
  static const struct vamp_mask_context contexts[] = {
      {.codebooks = 0, .frames = 1, .sample_rate = 1, .hop_length = 1},
      {.codebooks = 33, .frames = 1, .sample_rate = 1, .hop_length = 1},
      {.codebooks = 4, .coarse_codebooks = 5, .frames = 1, .sample_rate = 1, .hop_length = 1},
      {.codebooks = 4, .coarse_codebooks = -1, .frames = 1, .sample_rate = 1, .hop_length = 1},
      {.codebooks = 4, .frames = 1, .sample_rate = 0, .hop_length = 1},
      {.codebooks = 4, .frames = 1, .sample_rate = 1, .hop_length = 0},
  };
  struct vamp_mask_spec *spec = NULL;
  assert_int_equal(vamp_mask_spec_parse(NULL, "", &spec, NULL), 0);
  for (size_t i = 0; i < sizeof contexts / sizeof contexts[0]; i++) {
    struct vamp_mask_plan *plan = NULL;
    assert_int_equal(vamp_mask_plan_build(spec, &contexts[i], &plan, NULL), VAMP_INVALID);
    assert_null(plan);
  }
  vamp_mask_spec_free(spec);
}

static void numbers_without_a_fraction_are_integers(void **state) {
  (void)state;
  assert_same_mask("{\"periodic_prompt\": 7.0, \"mask_ratio\": 1, \"seed\": 3.0}",
                   "{\"periodic_prompt\": 7, \"mask_ratio\": 1.0, \"seed\": 3}", 100, 1);
}

/* Long names are cut, but never in the middle of a character: the error must still be JSON. */
static void long_names_leave_valid_text(void **state) {
  (void)state;
  static const char *const characters[] = {"a", "\xC3\xA4", "\xE2\x82\xAC", "\xF0\x9D\x84\x9E", "~"};
  for (size_t kind = 0; kind < sizeof characters / sizeof characters[0]; kind++) {
    for (int length = 1; length < 140; length++) {
      char key[600] = "";
      size_t bytes = strlen(characters[kind]);
      for (size_t i = 0; i < (size_t)length; i++) {
        memcpy(key + i * bytes, characters[kind], bytes + 1);
      }
      json_t *objects[] = {json_pack("{s:i}", key, 1), json_pack("{s:s}", "preset", key),
                           json_pack("{s:s}", "pattern", key), json_pack("{s:s}", "upper_codebooks", key)};
      for (size_t i = 0; i < 4; i++) {
        struct vamp_mask_spec *spec = NULL;
        struct vamp_error error = {0};
        assert_int_equal(vamp_mask_spec_parse(objects[i], "/m", &spec, &error), VAMP_INVALID);
        json_t *texts = json_pack("[s, s]", error.field, error.message);
        assert_non_null(texts);
        json_decref(texts);
        json_decref(objects[i]);
      }
    }
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(mistakes_have_a_pointer_and_a_sentence),
      cmocka_unit_test(depth_nodes_and_passes_are_bounded),
      cmocka_unit_test(size_is_bounded),
      cmocka_unit_test(odd_contexts_are_refused),
      cmocka_unit_test(numbers_without_a_fraction_are_integers),
      cmocka_unit_test(long_names_leave_valid_text),
  };
  return cmocka_run_group_tests_name("mask parse", tests, NULL, NULL);
}
