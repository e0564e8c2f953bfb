/*
 * The simple form: the properties that docs/masks.md promises, over many seeds and sizes. Each is checked
 * against the words of the specification, worked out here on its own, and not against the engine.
 */
#include "tests/unit/test_mask.h"

#include <math.h>
#include <stdio.h>

static const int sizes[] = {1, 2, 7, 29, 200, 574, 575, 1501};
#define SIZE_COUNT (sizeof sizes / sizeof sizes[0])

static void the_share_of_a_ratio_is_exact(void **state) {
  (void)state;
  static const double ratios[] = {0, 0.001, 0.1, 0.3, 0.5, 0.7, 0.95, 0.999, 1};
  for (size_t s = 0; s < SIZE_COUNT; s++) {
    for (size_t r = 0; r < sizeof ratios / sizeof ratios[0]; r++) {
      for (int n = 1; n <= CODEBOOKS; n += 3) {
        char text[160];
        snprintf(text, sizeof text,
                 "{\"mask_ratio\": %g, \"periodic_prompt\": 0, \"upper_codebook_mask\": %d}", ratios[r], n);
        uint8_t *cells = cells_of(text, sizes[s], 1000 * s + r);
        int64_t tokens = (int64_t)n * sizes[s];
        assert_int_equal(masked_in(cells, sizes[s], 0, n), llround(ratios[r] * (double)tokens));
        test_free(cells);
      }
    }
  }
}

/* Every width'th group of frames is kept on the pattern's codebooks, and nothing else is at ratio 1. */
static void periodic_prompts_are_exact(void **state) {
  (void)state;
  for (size_t s = 0; s < SIZE_COUNT; s++) {
    for (int interval = 1; interval <= 40; interval += 3) {
      for (int width = 1; width <= 3; width++) {
        for (int offset = 0; offset < 12; offset += 5) {
          char text[200];
          snprintf(text, sizeof text,
                   "{\"mask_ratio\": 1, \"periodic_prompt\": %d, \"periodic_width\": %d, "
                   "\"periodic_offset\": %d, \"upper_codebook_mask\": 4}",
                   interval, width, offset);
          uint8_t *cells = cells_of(text, sizes[s], 3);
          for (int codebook = 0; codebook < CODEBOOKS; codebook++) {
            for (int frame = 0; frame < sizes[s]; frame++) {
              bool prompt = codebook < 4 && frame >= offset && (frame - offset) % interval < width;
              assert_int_equal(cells[codebook * sizes[s] + frame], !prompt);
            }
          }
          test_free(cells);
        }
      }
    }
  }
}

/* Whatever the seed: groups of exactly the width, exactly the interval apart, the first within the first
 * period, and every possible place is taken by some seed. */
static void random_offsets_reach_every_place(void **state) {
  (void)state;
  enum { INTERVAL = 9, WIDTH = 2, PLACES = INTERVAL - WIDTH + 1, FRAMES = 300 };
  int seen[PLACES] = {0};
  for (uint64_t seed = 0; seed < 400; seed++) {
    uint8_t *cells =
        cells_of("{\"mask_ratio\": 1, \"periodic_prompt\": 9, \"periodic_width\": 2}", FRAMES, seed);
    int first = 0;
    while (cells[first]) {
      first++;
    }
    assert_true(first < PLACES);
    seen[first]++;
    for (int frame = 0; frame < FRAMES; frame++) {
      bool prompt = frame >= first && (frame - first) % INTERVAL < WIDTH;
      assert_int_equal(cells[frame], !prompt);
    }
    test_free(cells);
  }
  for (int place = 0; place < PLACES; place++) {
    assert_in_range(seen[place], 20, 90); /* 50 expected */
  }
}

static void an_interval_longer_than_the_clip_keeps_one_frame(void **state) {
  (void)state;
  for (uint64_t seed = 0; seed < 50; seed++) {
    uint8_t *cells = cells_of("{\"mask_ratio\": 1, \"periodic_prompt\": 1000000000}", 20, seed);
    assert_int_equal(masked_in(cells, 20, 0, 1), 19);
    test_free(cells);
  }
}

static void kept_frames_are_kept_at_any_ratio(void **state) {
  (void)state;
  for (uint64_t seed = 0; seed < 30; seed++) {
    uint8_t *cells = cells_of("{\"mask_ratio\": 0.9, \"periodic_prompt\": 5, \"periodic_offset\": 2, "
                              "\"prefix_s\": 0.5, \"suffix_s\": 0.25, \"upper_codebook_mask\": 4}",
                              CLIP, seed);
    /* 0.5 s is 28.7 frames and 0.25 s is 14.4: every frame that the time touches is kept. */
    for (int codebook = 0; codebook < 4; codebook++) {
      for (int frame = 0; frame < CLIP; frame++) {
        if (frame < 29 || frame >= CLIP - 15 || (frame >= 2 && (frame - 2) % 5 == 0)) {
          assert_int_equal(cells[codebook * CLIP + frame], 0);
        }
      }
    }
    test_free(cells);
  }
}

static void a_prefix_longer_than_the_clip_keeps_it_all(void **state) {
  (void)state;
  uint8_t *cells = cells_of("{\"mask_ratio\": 1, \"prefix_s\": 60, \"suffix_s\": 1e9}", 100, 1);
  assert_int_equal(masked_in(cells, 100, 0, COARSE), 0);
  assert_int_equal(masked_in(cells, 100, COARSE, CODEBOOKS), 10 * 100);
  test_free(cells);
}

/* A time computed from a number of frames gives that number. */
static void times_of_whole_frames_are_whole_frames(void **state) {
  (void)state;
  for (int frames = 1; frames <= 574; frames++) {
    char text[120];
    snprintf(text, sizeof text, "{\"mask_ratio\": 1, \"periodic_prompt\": 0, \"prefix_s\": %.15g}",
             frames * 768.0 / 44100.0);
    uint8_t *cells = cells_of(text, CLIP, 1);
    assert_int_equal(masked_in(cells, CLIP, 0, 1), CLIP - frames);
    test_free(cells);
  }
}

/* Exactly round(dropout * n) of the n kept frames are masked after all, whole frames, whatever the ratio. */
static void dropout_counts_are_exact(void **state) {
  (void)state;
  static const double dropouts[] = {0.05, 0.1, 0.25, 0.5, 0.9, 1};
  for (size_t d = 0; d < sizeof dropouts / sizeof dropouts[0]; d++) {
    for (int ratio = 0; ratio <= 1; ratio++) {
      for (uint64_t seed = 0; seed < 10; seed++) {
        char text[200];
        snprintf(text, sizeof text,
                 "{\"mask_ratio\": %d, \"periodic_prompt\": 6, \"periodic_offset\": 0, \"prefix_s\": 0.5, "
                 "\"dropout\": %g, \"upper_codebook_mask\": 3}",
                 ratio, dropouts[d]);
        uint8_t *cells = cells_of(text, CLIP, seed);
        int kept = 0, dropped = 0;
        for (int frame = 0; frame < CLIP; frame++) {
          bool prompt = frame < 29 || frame % 6 == 0;
          int masked = cells[frame] + cells[CLIP + frame] + cells[2 * CLIP + frame];
          assert_true(masked == 0 || masked == 3);
          kept += prompt;
          dropped += prompt && masked == 3;
          assert_true(prompt || masked == 3 * ratio);
        }
        assert_int_equal(dropped, llround(dropouts[d] * kept));
        test_free(cells);
      }
    }
  }
}

/* The table of MASKS: what happens to codebooks at or above upper_codebook_mask. */
static void the_codebook_rule_holds(void **state) {
  (void)state;
  for (int n = 0; n <= CODEBOOKS; n++) {
    for (int mode = 0; mode < 2; mode++) {
      char text[160];
      snprintf(text, sizeof text,
               "{\"mask_ratio\": 0.5, \"upper_codebook_mask\": %d, \"upper_codebooks\": \"%s\"}", n,
               mode ? "mask" : "keep");
      uint8_t *cells = cells_of(text, 100, 9);
      for (int codebook = 0; codebook < CODEBOOKS; codebook++) {
        int64_t masked = masked_in(cells, 100, codebook, codebook + 1);
        if (codebook < n) {
          assert_in_range(masked, 20, 70); /* the pattern: about 0.5 * 6/7 */
        } else {
          assert_int_equal(masked, mode == 1 || codebook >= COARSE ? 100 : 0);
        }
      }
      test_free(cells);
    }
  }
}

static void seeds_decide_and_nothing_else(void **state) {
  (void)state;
  const char *text = "{\"mask_ratio\": 0.5}";
  uint8_t *one = cells_of(text, CLIP, 1), *again = cells_of(text, CLIP, 1), *two = cells_of(text, CLIP, 2);
  assert_true(same_cells(one, again, CLIP));
  assert_false(same_cells(one, two, CLIP));
  test_free(again);
  test_free(two);
  /* The spec's own seed wins over the context's. */
  uint8_t *own = cells_of("{\"mask_ratio\": 0.5, \"seed\": 1}", CLIP, 77);
  assert_true(same_cells(one, own, CLIP));
  test_free(own);
  test_free(one);
  struct vamp_mask_plan *plan = plan_of("{\"seed\": 9007199254740991}", 10, 77);
  assert_true(vamp_mask_plan_seed(plan) == 9007199254740991u);
  vamp_mask_plan_free(plan);
  plan = plan_of("{}", 10, 77);
  assert_true(vamp_mask_plan_seed(plan) == 77);
  vamp_mask_plan_free(plan);
}

/* What a slider in a page needs: raising the ratio only ever masks more. */
static void a_larger_ratio_masks_all_that_a_smaller_one_does(void **state) {
  (void)state;
  for (uint64_t seed = 0; seed < 20; seed++) {
    uint8_t *before = cells_of("{\"mask_ratio\": 0}", 200, seed);
    for (int step = 1; step <= 20; step++) {
      char text[64];
      snprintf(text, sizeof text, "{\"mask_ratio\": %g}", step / 20.0);
      uint8_t *after = cells_of(text, 200, seed);
      for (int i = 0; i < CODEBOOKS * 200; i++) {
        assert_true(after[i] >= before[i]);
      }
      test_free(before);
      before = after;
    }
    test_free(before);
  }
}

/* Every token is as likely as any other: 2,000 choices of 10 from 40, five standard deviations. */
static void random_choices_are_uniform(void **state) {
  (void)state;
  int count[40] = {0};
  for (uint64_t seed = 0; seed < 2000; seed++) {
    uint8_t *cells =
        cells_of("{\"mask_ratio\": 0.25, \"periodic_prompt\": 0, \"upper_codebook_mask\": 1}", 40, seed);
    for (int i = 0; i < 40; i++) {
      count[i] += cells[i];
    }
    test_free(cells);
  }
  for (int i = 0; i < 40; i++) {
    assert_in_range(count[i], 500 - 97, 500 + 97);
  }
}

/* Passes differ from each other, and each pass's mask comes again from its own tree and seed. */
static void passes_have_seeds_of_their_own(void **state) {
  (void)state;
  struct vamp_mask_plan *plan = plan_of("{\"passes\": [{\"mask_ratio\": 0.5}, {\"mask_ratio\": 0.5}, "
                                        "{\"mask_ratio\": 0.5, \"seed\": 4}], \"seed\": 4}",
                                        CLIP, 1);
  assert_int_equal(vamp_mask_plan_passes(plan), 3);
  assert_null(vamp_mask_plan_mask(plan, 3));
  assert_null(vamp_mask_plan_mask(plan, -1));
  const uint8_t *first = vamp_mask_plan_mask(plan, 0)->data;
  assert_false(same_cells(first, vamp_mask_plan_mask(plan, 1)->data, CLIP));
  assert_true(same_cells(first, vamp_mask_plan_mask(plan, 2)->data, CLIP));
  uint8_t *alone = cells_of("{\"mask_ratio\": 0.5}", CLIP, 4);
  assert_true(same_cells(first, alone, CLIP));
  test_free(alone);
  for (int pass = 0; pass < 3; pass++) {
    json_t *answer = vamp_mask_plan_json(plan, pass, NULL);
    uint64_t seed = (uint64_t)json_integer_value(json_object_get(answer, "seed"));
    struct vamp_mask_plan *again = plan_of_json(json_object_get(answer, "tree"), CLIP, seed);
    assert_true(same_cells(vamp_mask_plan_mask(plan, pass)->data, vamp_mask_plan_mask(again, 0)->data, CLIP));
    vamp_mask_plan_free(again);
    json_decref(answer);
  }
  vamp_mask_plan_free(plan);
}

static void the_default_is_balanced(void **state) {
  (void)state;
  struct vamp_mask_plan *nothing = plan_of_json(NULL, CLIP, 5);
  uint8_t *balanced = cells_of("{\"preset\": \"balanced\"}", CLIP, 5), *empty = cells_of("{}", CLIP, 5);
  assert_true(same_cells(vamp_mask_plan_mask(nothing, 0)->data, balanced, CLIP));
  assert_true(same_cells(empty, balanced, CLIP));
  vamp_mask_plan_free(nothing);
  test_free(balanced);
  test_free(empty);
}

/* FNV-1a of a few masks, so that a change on any machine, compiler or library is seen. */
static void golden_masks(void **state) {
  (void)state;
  static const struct {
    const char *text;
    int frames;
    uint64_t seed, hash;
  } golden[] = {
      {"{}", 574, 0, 0xCFD5FB57622F57D3},
      {"{\"preset\": \"creative\"}", 575, 42, 0xD1798688E08A9EB9},
      {"{\"preset\": \"vampnet/improvise\", \"periodic_offset\": \"random\"}", 575, 9007199254740991,
       0x6BD94A75ADD9A4EB},
      {"{\"any\": [{\"pattern\": \"block\", \"size\": 20, \"ratio\": 0.3, \"codebooks\": [0, 4]}, "
       "{\"not\": {\"pattern\": \"random\", \"ratio\": 0.2, \"per\": \"frame\"}, \"codebooks\": [4, null]}]}",
       4000, 7, 0xB5386B09D9C86915},
  };
  for (size_t i = 0; i < sizeof golden / sizeof golden[0]; i++) {
    uint8_t *cells = cells_of(golden[i].text, golden[i].frames, golden[i].seed);
    uint64_t hash = 0xCBF29CE484222325u;
    for (int at = 0; at < CODEBOOKS * golden[i].frames; at++) {
      hash = (hash ^ cells[at]) * 0x100000001B3u;
    }
    test_free(cells);
    if (hash != golden[i].hash) {
      fail_msg("mask %zu has the hash 0x%016llX", i, (unsigned long long)hash);
    }
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(the_share_of_a_ratio_is_exact),
      cmocka_unit_test(periodic_prompts_are_exact),
      cmocka_unit_test(random_offsets_reach_every_place),
      cmocka_unit_test(an_interval_longer_than_the_clip_keeps_one_frame),
      cmocka_unit_test(kept_frames_are_kept_at_any_ratio),
      cmocka_unit_test(a_prefix_longer_than_the_clip_keeps_it_all),
      cmocka_unit_test(times_of_whole_frames_are_whole_frames),
      cmocka_unit_test(dropout_counts_are_exact),
      cmocka_unit_test(the_codebook_rule_holds),
      cmocka_unit_test(seeds_decide_and_nothing_else),
      cmocka_unit_test(a_larger_ratio_masks_all_that_a_smaller_one_does),
      cmocka_unit_test(random_choices_are_uniform),
      cmocka_unit_test(passes_have_seeds_of_their_own),
      cmocka_unit_test(the_default_is_balanced),
      cmocka_unit_test(golden_masks),
  };
  return cmocka_run_group_tests_name("mask simple", tests, NULL, NULL);
}
