/*
 * The picture: read back from the PNG's pixels, it is the mask. Words and taste are for the eye; here it
 * is that every codebook has its row, in order, and every frame its width.
 */
#include "tests/unit/test_mask.h"

#include <cairo.h>
#include <stdio.h>

struct bytes {
  const unsigned char *data;
  size_t size, at;
};

static cairo_status_t read_bytes(void *closure, unsigned char *data, unsigned int length) {
  struct bytes *bytes = closure;
  if (bytes->at + length > bytes->size) {
    return CAIRO_STATUS_READ_ERROR;
  }
  memcpy(data, bytes->data + bytes->at, length);
  bytes->at += length;
  return CAIRO_STATUS_SUCCESS;
}

static cairo_surface_t *png_of(const struct vamp_mask_plan *plan, int pass,
                               const struct vamp_mask_outcome *outcome) {
  void *data = NULL;
  size_t size = 0;
  struct vamp_error error = {0};
  if (vamp_mask_picture(plan, pass, outcome, VAMP_PICTURE_PNG, &data, &size, &error) != 0) {
    fail_msg("%s", error.message);
  }
  struct bytes bytes = {data, size, 0};
  cairo_surface_t *surface = cairo_image_surface_create_from_png_stream(read_bytes, &bytes);
  assert_int_equal(cairo_surface_status(surface), CAIRO_STATUS_SUCCESS);
  free(data);
  return surface;
}

static uint32_t pixel(cairo_surface_t *surface, int x, int y) {
  const unsigned char *row =
      cairo_image_surface_get_data(surface) + y * cairo_image_surface_get_stride(surface);
  uint32_t value;
  memcpy(&value, row + 4 * x, 4);
  return value & 0xFFFFFF;
}

/* The colours of kept, and of masked coarse and fine cells. */
enum { KEPT = 0xFAE3B2, COARSE_MASKED = 0x124A7D, FINE_MASKED = 0x5C8FBA };

/* Drawing libraries round colours as they like. */
static bool near(uint32_t a, uint32_t b) {
  for (int shift = 0; shift < 24; shift += 8) {
    if (abs((int)(a >> shift & 255) - (int)(b >> shift & 255)) > 2) {
      return false;
    }
  }
  return true;
}

static bool row_shows(cairo_surface_t *surface, int left, int y, int width, const uint8_t *cells, int frames,
                      uint32_t masked) {
  for (int x = 0; x < frames * width; x++) {
    if (!near(pixel(surface, left + x, y), cells[x / width] ? masked : KEPT)) {
      return false;
    }
  }
  return true;
}

/* Every codebook is found from the bottom up, each above the one before. */
static void the_pixels_are_the_mask(void **state) {
  (void)state;
  static const struct { int frames, width; } sizes[] = {{7, 24}, {200, 6}, {574, 2}, {4000, 1}};
  for (size_t s = 0; s < sizeof sizes / sizeof sizes[0]; s++) {
    int frames = sizes[s].frames;
    struct vamp_mask_plan *plan = plan_of("{\"any\": [{\"pattern\": \"random\", \"ratio\": 0.4}, "
                                          "{\"pattern\": \"block\", \"size\": 5, \"codebooks\": [2, 9]}]}",
                                          frames, 3);
    const struct vamp_mask *mask = vamp_mask_plan_mask(plan, 0);
    cairo_surface_t *surface = png_of(plan, 0, NULL);
    int image_width = cairo_image_surface_get_width(surface), y = cairo_image_surface_get_height(surface) - 1;
    int right = image_width - frames * sizes[s].width;
    for (int codebook = 0; codebook < CODEBOOKS; codebook++) {
      const uint8_t *cells = mask->data + codebook * frames;
      uint32_t masked = codebook < COARSE ? COARSE_MASKED : FINE_MASKED;
      bool found = false;
      while (y > 0 && !found) {
        y--;
        for (int left = 0; left <= right && !found; left++) {
          found = row_shows(surface, left, y, sizes[s].width, cells, frames, masked);
        }
      }
      if (!found) {
        fail_msg("codebook %d of %d frames is not in the picture", codebook, frames);
      }
    }
    cairo_surface_destroy(surface);
    vamp_mask_plan_free(plan);
  }
}

static void every_size_can_be_drawn(void **state) {
  (void)state;
  static const int frames[] = {1, 2, 60, 1201, 9000, 100000};
  for (size_t i = 0; i < sizeof frames / sizeof frames[0]; i++) {
    struct vamp_mask_plan *plan = plan_of("{}", frames[i], 3);
    cairo_surface_t *surface = png_of(plan, 0, NULL);
    assert_in_range(cairo_image_surface_get_width(surface), 300, 8192);
    assert_in_range(cairo_image_surface_get_height(surface), 200, 1200);
    cairo_surface_destroy(surface);
    vamp_mask_plan_free(plan);
  }
}

static void every_outcome_can_be_drawn(void **state) {
  (void)state;
  enum { FRAMES = 90, TOKENS = CODEBOOKS * FRAMES };
  int32_t *before = test_calloc(TOKENS, sizeof *before), *after = test_calloc(TOKENS, sizeof *after);
  int32_t *step = test_calloc(TOKENS, sizeof *step);
  float *confidence = test_calloc(TOKENS, sizeof *confidence);
  struct vamp_mask_plan *plan = plan_of("{\"passes\": [{}, {\"preset\": \"creative\"}]}", FRAMES, 1);
  for (int i = 0; i < TOKENS; i++) {
    bool masked = vamp_mask_plan_mask(plan, 1)->data[i];
    after[i] = masked;
    step[i] = masked ? i % 12 : -1;
    confidence[i] = masked ? 0.5f : 1;
  }
  for (int parts = 0; parts < 8; parts++) {
    struct vamp_mask_outcome outcome = {parts & 1 ? before : NULL, parts & 1 ? after : NULL,
                                        parts & 2 ? step : NULL, parts & 4 ? confidence : NULL};
    cairo_surface_destroy(png_of(plan, 1, &outcome));
  }
  void *data = NULL;
  size_t size;
  assert_int_equal(vamp_mask_picture(plan, 2, NULL, VAMP_PICTURE_PNG, &data, &size, NULL), VAMP_INVALID);
  assert_null(data);
  vamp_mask_plan_free(plan);
  test_free(before);
  test_free(after);
  test_free(step);
  test_free(confidence);
}

static void svg_is_compact(void **state) {
  (void)state;
  static const struct {
    const char *text;
    int frames;
    size_t most; /* bytes; the outlines of the letters alone are some 60,000 */
  } cases[] = {{"{\"preset\": \"vampnet/small\"}", 574, 110000}, {"{}", 4000, 220000}};
  for (size_t i = 0; i < 2; i++) {
    struct vamp_mask_plan *plan = plan_of(cases[i].text, cases[i].frames, 1);
    void *data = NULL;
    size_t size = 0;
    assert_int_equal(vamp_mask_picture(plan, 0, NULL, VAMP_PICTURE_SVG, &data, &size, NULL), 0);
    assert_true(size < cases[i].most);
    assert_memory_equal(data, "<?xml", 5);
    assert_memory_equal((char *)data + size - 7, "</svg>\n", 7);
    free(data);
    vamp_mask_plan_free(plan);
  }
}

/* The line of words above the legend. */
static uint8_t *subtitle_of(const char *mask, size_t *size) {
  static const float silence[100 * 768];
  struct vamp_mask_spec *spec = NULL;
  struct vamp_mask_plan *plan = NULL;
  struct vamp_mask_context context = context_of(100, 1);
  json_t *json = json_of(mask);
  context.samples = silence;
  context.sample_count = sizeof silence / sizeof *silence;
  assert_int_equal(vamp_mask_spec_parse(json, "/mask", &spec, NULL), 0);
  assert_int_equal(vamp_mask_plan_build(spec, &context, &plan, NULL), 0);
  cairo_surface_t *surface = png_of(plan, 0, NULL);
  const unsigned char *pixels = cairo_image_surface_get_data(surface);
  size_t stride = (size_t)cairo_image_surface_get_stride(surface);
  *size = 20 * stride;
  uint8_t *words = test_malloc(*size);
  memcpy(words, pixels + 38 * stride, *size);
  cairo_surface_destroy(surface);
  vamp_mask_plan_free(plan);
  vamp_mask_spec_free(spec);
  json_decref(json);
  return words;
}

/* The words tell a prompt at every beat from none. */
static void a_prompt_a_beat_is_named(void **state) {
  (void)state;
  size_t beat_size, again_size, none_size;
  uint8_t *beat = subtitle_of("{\"periodic_prompt\": \"beat\"}", &beat_size);
  uint8_t *again = subtitle_of("{\"periodic_prompt\": \"beat\"}", &again_size);
  uint8_t *none = subtitle_of("{\"periodic_prompt\": 0}", &none_size);
  assert_int_equal(beat_size, again_size);
  assert_memory_equal(beat, again, beat_size);
  bool same_width = beat_size == none_size;
  assert_true(!same_width || memcmp(beat, none, beat_size) != 0);
  test_free(beat);
  test_free(again);
  test_free(none);
}

/* More layers than have room, with long names of wide characters. */
static void many_layers_can_be_drawn(void **state) {
  (void)state;
  json_t *list = json_array();
  for (int i = 0; i < 60; i++) {
    json_array_append_new(
        list, json_pack("{s:s, s:s}", "pattern", "fill", "name",
                        "\xE6\x97\x8B\xE5\xBE\x8B\xE6\x97\x8B\xE5\xBE\x8B\xE6\x97\x8B\xE5\xBE\x8B\xE6\x97\x8B"
                        "\xE5\xBE\x8B\xE6\x97\x8B\xE5\xBE\x8B\xE6\x97\x8B\xE5\xBE\x8B"));
  }
  json_t *json = json_pack("{s:o}", "any", list);
  struct vamp_mask_plan *plan = plan_of_json(json, 50, 1);
  cairo_surface_t *surface = png_of(plan, 0, NULL);
  assert_in_range(cairo_image_surface_get_height(surface), 200, 900);
  cairo_surface_destroy(surface);
  vamp_mask_plan_free(plan);
  json_decref(json);
}

/* Fontconfig keeps what it has read of the system's fonts until the process ends; a leak checker asks
 * here what it may overlook. */
const char *__lsan_default_suppressions(void);
const char *__lsan_default_suppressions(void) {
  return "leak:libfontconfig\n";
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(the_pixels_are_the_mask),    cmocka_unit_test(every_size_can_be_drawn),
      cmocka_unit_test(every_outcome_can_be_drawn), cmocka_unit_test(svg_is_compact),
      cmocka_unit_test(many_layers_can_be_drawn),   cmocka_unit_test(a_prompt_a_beat_is_named),
  };
  return cmocka_run_group_tests_name("mask picture", tests, NULL, NULL);
}
