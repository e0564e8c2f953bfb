/*
 * Requests: JSON to parameters, audio to a variation, a variation to the mask document. The batch loop and
 * the device are not involved: results are made up here.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "vamp/request.h"

/* The font library keeps what it has read until the process ends. */
const char *__lsan_default_suppressions(void);
const char *__lsan_default_suppressions(void) {
  return "leak:libfontconfig\n";
}

#define SAMPLE_RATE 44100
#define HOP 768

static struct vamp_model_config model_config(void) {
  struct vamp_model_config config = {.name = "test"};
  config.codec.sample_rate = SAMPLE_RATE;
  config.codec.hop_length = HOP;
  config.codec.n_codebooks = 14;
  config.codec.codebook_size = 1024;
  config.coarse.n_codebooks = 4;
  return config;
}

static int parse(const char *text, struct vamp_request *request, struct vamp_error *error) {
  json_t *params = json_loads(text, 0, NULL);
  assert_non_null(params);
  *error = (struct vamp_error){0};
  int status = vamp_request_parse(params, request, error);
  json_decref(params);
  return status;
}

static void test_defaults(void **state) {
  (void)state;
  struct vamp_request one = {0}, two = {0};
  struct vamp_error error;
  assert_int_equal(vamp_request_parse(NULL, &one, &error), VAMP_OK);
  assert_int_equal(parse("{}", &two, &error), VAMP_OK);
  assert_int_equal(one.sampling.coarse_steps, 12);
  assert_int_equal(one.sampling.fine_steps, 2);
  assert_int_equal(one.format, VAMP_AUDIO_WAV16);
  assert_string_equal(one.model, "");
  assert_non_null(one.mask);
  /* Two random seeds of 53 bits. */
  assert_true(one.sampling.seed != two.sampling.seed);
  assert_true(one.sampling.seed < (uint64_t)1 << 53);
  vamp_request_free(&one);
  vamp_request_free(&two);
  vamp_request_free(&two);
}

static void test_fields(void **state) {
  (void)state;
  struct vamp_request request = {0};
  struct vamp_error error;
  assert_int_equal(parse("{\"preset\": \"vampnet/small\", \"mask\": {\"periodic_prompt\": 9},"
                         " \"seed\": 9007199254740991, \"model\": \"test\", \"format\": \"flac\","
                         " \"sampling\": {\"temperature\": 0.5, \"coarse_steps\": 36.0, \"greedy\": true,"
                         " \"top_k\": 5, \"typical_mass\": 0.15, \"typical_min_tokens\": 2}}",
                         &request, &error),
                   VAMP_OK);
  assert_true(request.sampling.seed == 9007199254740991u);
  assert_int_equal(request.format, VAMP_AUDIO_FLAC);
  assert_string_equal(request.model, "test");
  assert_int_equal(request.sampling.coarse_steps, 36);
  assert_true(request.sampling.temperature == 0.5f);
  assert_true(request.sampling.greedy);
  assert_int_equal(request.sampling.top_k, 5);
  assert_int_equal(request.sampling.typical_min_tokens, 2);
  vamp_request_free(&request);
}

static void test_errors_point_at_the_field(void **state) {
  (void)state;
  static const char *const CASES[][2] = {
      {"{\"mask_ratio\": 0.5}", "/mask_ratio"},
      {"{\"a/b~c\": 1}", "/a~1b~0c"},
      {"{\"mask\": {\"mask_ratio\": 2}}", "/mask/mask_ratio"},
      {"{\"mask\": {\"mask_ration\": 0.5}}", "/mask/mask_ration"},
      {"{\"mask\": 7}", "/mask"},
      {"{\"mask\": 7, \"preset\": \"subtle\"}", "/mask"},
      {"{\"mask\": {\"preset\": \"subtle\"}, \"preset\": \"subtle\"}", "/mask/preset"},
      {"{\"preset\": \"subtil\"}", "/preset"},
      {"{\"preset\": 7}", "/preset"},
      {"{\"seed\": -1}", "/seed"},
      {"{\"seed\": 9007199254740992}", "/seed"},
      {"{\"seed\": 0.5}", "/seed"},
      {"{\"seed\": \"random\"}", "/seed"},
      {"{\"seed\": null}", "/seed"},
      {"{\"model\": \"\"}", "/model"},
      {"{\"model\": [\"a\"]}", "/model"},
      {"{\"format\": \"mp3\"}", "/format"},
      {"{\"format\": 1}", "/format"},
      {"{\"sampling\": []}", "/sampling"},
      {"{\"sampling\": {\"temprature\": 1}}", "/sampling/temprature"},
      {"{\"sampling\": {\"temperature\": 0}}", "/sampling/temperature"},
      {"{\"sampling\": {\"temperature\": 11}}", "/sampling/temperature"},
      {"{\"sampling\": {\"temperature\": \"1\"}}", "/sampling/temperature"},
      {"{\"sampling\": {\"coarse_steps\": 0}}", "/sampling/coarse_steps"},
      {"{\"sampling\": {\"coarse_steps\": 12.5}}", "/sampling/coarse_steps"},
      {"{\"sampling\": {\"coarse_steps\": 1e300}}", "/sampling/coarse_steps"},
      {"{\"sampling\": {\"fine_steps\": 257}}", "/sampling/fine_steps"},
      {"{\"sampling\": {\"greedy\": 1}}", "/sampling/greedy"},
      {"{\"sampling\": {\"top_p\": 0}}", "/sampling/top_p"},
      {"[]", ""},
  };
  for (size_t i = 0; i < sizeof CASES / sizeof CASES[0]; i++) {
    struct vamp_request request = {0};
    struct vamp_error error;
    int status = parse(CASES[i][0], &request, &error);
    if (status != VAMP_INVALID || strcmp(error.field, CASES[i][1]) != 0 || error.message[0] == '\0') {
      fail_msg("%s: status %d, field \"%s\", message \"%s\"", CASES[i][0], status, error.field,
               error.message);
    }
    assert_null(request.mask);
  }
}

static void make_audio(struct vamp_audio *audio, double seconds, int sample_rate) {
  audio->frames = (size_t)(seconds * sample_rate);
  audio->channels = 1;
  audio->sample_rate = sample_rate;
  audio->samples = malloc(audio->frames * sizeof audio->samples[0]);
  assert_non_null(audio->samples);
  for (size_t i = 0; i < audio->frames; i++) {
    audio->samples[i] = 0.25f * (float)sin(0.06 * (double)i);
  }
}

static void test_prepare(void **state) {
  (void)state;
  struct vamp_model_config config = model_config();
  struct vamp_request request = {0};
  struct vamp_audio audio = {0};
  struct vamp_variation variation = {0};
  struct vamp_error error;
  struct vamp_job job;
  assert_int_equal(
      parse("{\"seed\": 7, \"mask\": {\"mask_ratio\": 1, \"periodic_prompt\": 0}}", &request, &error),
      VAMP_OK);
  make_audio(&audio, 1.0, SAMPLE_RATE);
  assert_int_equal(vamp_variation_prepare(&request, &audio, &config, &variation, &error), VAMP_OK);
  vamp_variation_job(&variation, &job);
  assert_int_equal(job.task, VAMP_TASK_VARIATION);
  assert_int_equal(job.sample_count, SAMPLE_RATE);
  assert_int_equal(job.frames, (SAMPLE_RATE + HOP - 1) / HOP);
  assert_int_equal(job.passes, 1);
  assert_int_equal(job.masks[0].codebooks, 14);
  assert_int_equal(job.masks[0].frames, job.frames);
  assert_true(job.sampling.seed == 7);
  vamp_variation_forget_samples(&variation);
  assert_null(variation.clip.samples);

  /* Finishing needs only the gain: what came in at the clip's loudness goes out at the input's. */
  struct vamp_result result = {.sample_count = 4, .samples = (float[]){0.1f, -0.1f, 0.05f, 0}};
  double gain = variation.clip.gain;
  assert_true(gain > 0 && gain != 1);
  vamp_variation_finish(&variation, &result);
  assert_float_equal(result.samples[0], 0.1 / gain, 1e-5);
  vamp_variation_free(&variation);
  vamp_variation_free(&variation);
  vamp_audio_free(&audio);
  vamp_request_free(&request);
}

static void test_prepare_checks_the_model(void **state) {
  (void)state;
  struct vamp_model_config config = model_config();
  static const char *const CASES[][2] = {{"{\"model\": \"other\"}", "/model"},
                                         {"{\"sampling\": {\"top_k\": 1025}}", "/sampling/top_k"}};
  for (size_t i = 0; i < 2; i++) {
    struct vamp_request request = {0};
    struct vamp_variation variation = {0};
    struct vamp_error error;
    assert_int_equal(parse(CASES[i][0], &request, &error), VAMP_OK);
    assert_int_equal(vamp_variation_prepare_frames(&request, 100, &config, &variation, &error), VAMP_INVALID);
    assert_string_equal(error.field, CASES[i][1]);
    assert_null(variation.plan);
    vamp_request_free(&request);
  }
}

static void test_frames_are_bounded(void **state) {
  (void)state;
  struct vamp_model_config config = model_config();
  struct vamp_request request = {0};
  struct vamp_variation variation = {0};
  struct vamp_error error;
  assert_int_equal(parse("{}", &request, &error), VAMP_OK);
  assert_int_equal(vamp_variation_prepare_frames(&request, 0, &config, &variation, &error), VAMP_INVALID);
  assert_int_equal(
      vamp_variation_prepare_frames(&request, VAMP_MASK_MAX_FRAMES + 1, &config, &variation, &error),
      VAMP_LIMIT);
  vamp_request_free(&request);
}

/* A document of two passes, with what a generation did. */
static void test_mask_document(void **state) {
  (void)state;
  enum { FRAMES = 20, TOKENS = 14 * FRAMES };
  struct vamp_model_config config = model_config();
  struct vamp_request request = {0};
  struct vamp_variation variation = {0};
  struct vamp_error error;
  assert_int_equal(parse("{\"seed\": 3, \"mask\": {\"passes\": [{\"preset\": \"vampnet/unconditional\"},"
                         " {\"mask_ratio\": 0, \"upper_codebook_mask\": 14}]}}",
                         &request, &error),
                   VAMP_OK);
  assert_int_equal(vamp_variation_prepare_frames(&request, FRAMES, &config, &variation, &error), VAMP_OK);
  static int32_t before[TOKENS], after[TOKENS], step[TOKENS];
  static float confidence[TOKENS];
  memset(after, 1, sizeof after);
  struct vamp_result result = {.codebooks = 14, .frames = FRAMES, .passes = 2};
  for (int pass = 0; pass < 2; pass++) {
    result.pass_before[pass] = pass == 0 ? before : after;
    result.pass_after[pass] = after;
    result.committed_step[pass] = step;
    result.confidence[pass] = confidence;
  }
  json_t *document = vamp_variation_mask_json(&variation, &result);
  assert_non_null(document);
  assert_int_equal(json_integer_value(json_object_get(document, "seed")), 3);
  const json_t *passes = json_object_get(document, "passes");
  assert_int_equal(json_array_size(passes), 2);
  const json_t *first = json_array_get(passes, 0), *second = json_array_get(passes, 1);
  double all = json_number_value(json_object_get(json_object_get(first, "density"), "overall"));
  assert_float_equal(all, 1, 1e-9);
  double none = json_number_value(json_object_get(json_object_get(document, "density"), "overall"));
  assert_float_equal(none, 0, 1e-9);
  double changed = json_number_value(json_object_get(json_object_get(first, "changed"), "overall"));
  assert_float_equal(changed, 1, 1e-9);
  changed = json_number_value(json_object_get(json_object_get(second, "changed"), "overall"));
  assert_float_equal(changed, 0, 1e-9);
  json_decref(document);

  document = vamp_variation_mask_json(&variation, NULL);
  assert_null(json_object_get(json_array_get(json_object_get(document, "passes"), 0), "changed"));
  json_decref(document);
  void *picture;
  size_t size;
  assert_int_equal(vamp_variation_picture(&variation, &result, VAMP_PICTURE_SVG, &picture, &size, &error),
                   VAMP_OK);
  assert_true(size > 0);
  free(picture);
  vamp_variation_free(&variation);
  vamp_request_free(&request);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_defaults),
      cmocka_unit_test(test_fields),
      cmocka_unit_test(test_errors_point_at_the_field),
      cmocka_unit_test(test_prepare),
      cmocka_unit_test(test_prepare_checks_the_model),
      cmocka_unit_test(test_frames_are_bounded),
      cmocka_unit_test(test_mask_document),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
