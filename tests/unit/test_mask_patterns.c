/*
 * Each pattern alone, and the laws of composition.
 *
 * The laws are tested on random trees: the algebra of all, any and not with silence (docs/masks.md) is
 * small enough to write again here, in three lines, and to compare token by token.
 */
#include "tests/unit/test_mask.h"

#include <math.h>
#include <stdio.h>

static void random_is_exact_for_tokens_and_frames(void **state) {
  (void)state;
  for (int frames = 1; frames < 400; frames += 37) {
    for (int percent = 0; percent <= 100; percent += 9) {
      char text[120];
      snprintf(text, sizeof text, "{\"pattern\": \"random\", \"ratio\": %g, \"codebooks\": [2, 7]}",
               percent / 100.0);
      uint8_t *cells = cells_of(text, frames, 3);
      assert_int_equal(masked_in(cells, frames, 2, 7), llround(percent / 100.0 * 5 * frames));
      assert_int_equal(masked_in(cells, frames, 0, CODEBOOKS), masked_in(cells, frames, 2, 7));
      test_free(cells);
      snprintf(text, sizeof text, "{\"pattern\": \"random\", \"ratio\": %g, \"per\": \"frame\"}",
               percent / 100.0);
      cells = cells_of(text, frames, 3);
      assert_int_equal(masked_in(cells, frames, 0, 1), llround(percent / 100.0 * frames));
      for (int codebook = 1; codebook < CODEBOOKS; codebook++) {
        assert_memory_equal(cells, cells + codebook * frames, (size_t)frames);
      }
      test_free(cells);
    }
  }
}

/* The share is within one block, regions are whole blocks, and everything is masked at 1. */
static void blocks_keep_their_size_and_share(void **state) {
  (void)state;
  for (int alternating = 0; alternating < 2; alternating++) {
    for (int size = 1; size < 90; size += 11) {
      for (int percent = 0; percent <= 100; percent += 5) {
        for (uint64_t seed = 0; seed < 5; seed++) {
          char text[160];
          snprintf(text, sizeof text,
                   "{\"pattern\": \"block\", \"size\": %d, \"ratio\": %g, \"arrangement\": \"%s\"}", size,
                   percent / 100.0, alternating ? "alternating" : "random");
          uint8_t *cells = cells_of(text, CLIP, seed);
          int64_t masked = masked_in(cells, CLIP, 0, 1);
          assert_true(fabs((double)masked - percent / 100.0 * CLIP) <= size);
          assert_true(percent < 100 || masked == CLIP);
          assert_true(percent > 0 || masked == 0);
          for (int frame = 0; frame < CLIP;) {
            int end = frame;
            while (end < CLIP && cells[end] == cells[frame]) {
              end++;
            }
            assert_true(!cells[frame] || end == CLIP || (end - frame) % size == 0);
            frame = end;
          }
          test_free(cells);
        }
      }
    }
  }
  /* Half and half: as long as each other, from the first frame on. */
  uint8_t *cells =
      cells_of("{\"pattern\": \"block\", \"size\": 30, \"arrangement\": \"alternating\"}", CLIP, 1);
  for (int frame = 0; frame < CLIP; frame++) {
    assert_int_equal(cells[frame], frame / 30 % 2 == 0);
  }
  test_free(cells);
}

/* Blocks are not tied to a grid or an end of the clip. */
static void random_blocks_reach_every_frame(void **state) {
  (void)state;
  int count[100] = {0};
  for (uint64_t seed = 0; seed < 1000; seed++) {
    uint8_t *cells = cells_of("{\"pattern\": \"block\", \"size\": 10, \"ratio\": 0.5}", 100, seed);
    for (int frame = 0; frame < 100; frame++) {
      count[frame] += cells[frame];
    }
    test_free(cells);
  }
  for (int frame = 0; frame < 100; frame++) {
    /* At the very ends a block has one way to cover the frame, inside it has ten. */
    assert_in_range(count[frame], 60, 700);
  }
}

static void strided_masks_a_length_of_every_stride(void **state) {
  (void)state;
  for (int stride = 1; stride < 30; stride += 4) {
    for (int length = 1; length <= stride; length += 3) {
      for (int offset = 0; offset < 40; offset += 13) {
        char text[160];
        snprintf(text, sizeof text,
                 "{\"pattern\": \"strided\", \"stride\": %d, \"length\": %d, \"offset\": %d}", stride, length,
                 offset);
        uint8_t *cells = cells_of(text, 300, 1);
        for (int frame = 0; frame < 300; frame++) {
          assert_int_equal(cells[13 * 300 + frame], frame >= offset && (frame - offset) % stride < length);
        }
        test_free(cells);
      }
    }
  }
}

static void ranges_are_rounded_to_the_nearest_frame(void **state) {
  (void)state;
  static const struct {
    const char *text;
    int start, end;
  } cases[] = {
      {"{\"pattern\": \"range\"}", 0, 574},
      {"{\"pattern\": \"range\", \"start_s\": 5}", 287, 574},               /* 287.1 */
      {"{\"pattern\": \"range\", \"end_s\": 0.51}", 0, 29},                 /* 29.3 */
      {"{\"pattern\": \"range\", \"start_s\": 2, \"end_s\": 4}", 115, 230}, /* 114.8, 229.7 */
      {"{\"pattern\": \"range\", \"start_s\": 2, \"end_s\": 10}", 115, 574},
      {"{\"pattern\": \"range\", \"end_s\": 10.01}", 0, 574}, /* 574.8: one frame is forgiven */
      {"{\"pattern\": \"range\", \"start_frame\": 10, \"end_frame\": 11}", 10, 11},
      {"{\"pattern\": \"range\", \"start_frame\": 573, \"end_s\": 9.999}", 573, 574},
  };
  for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
    uint8_t *cells = cells_of(cases[i].text, 574, 1);
    for (int frame = 0; frame < 574; frame++) {
      assert_int_equal(cells[frame], frame >= cases[i].start && frame < cases[i].end);
    }
    test_free(cells);
  }
}

static void bitmaps_say_what_they_say(void **state) {
  (void)state;
  uint8_t *cells = cells_of("{\"pattern\": \"bitmap\", \"codebooks\": [1, 3], "
                            "\"data\": [[1, 0, 0, 1, true], [0, 0, false, 1.0, 1]]}",
                            5, 1);
  static const uint8_t rows[2][5] = {{1, 0, 0, 1, 1}, {0, 0, 0, 1, 1}};
  assert_memory_equal(cells + 5, rows, sizeof rows);
  assert_int_equal(masked_in(cells, 5, 0, CODEBOOKS), 5);
  test_free(cells);
  assert_same_mask("{\"pattern\": \"bitmap\", \"codebooks\": [1, 3], \"data\": [[1,0,0,1,1], [0,0,0,1,1]]}",
                   "{\"pattern\": \"bitmap\", \"codebooks\": [1, 3], \"encoding\": \"run-lengths\", "
                   "\"data\": [[0,1,2,2], [3,1,0,1]]}",
                   5, 1);
}

static void fill_masks_all_or_nothing(void **state) {
  (void)state;
  uint8_t *cells = cells_of("{\"pattern\": \"fill\", \"codebooks\": [3, null]}", 9, 1);
  assert_int_equal(masked_in(cells, 9, 0, 3), 0);
  assert_int_equal(masked_in(cells, 9, 3, CODEBOOKS), 11 * 9);
  test_free(cells);
  cells = cells_of("{\"pattern\": \"fill\", \"value\": 0}", 9, 1);
  assert_int_equal(masked_in(cells, 9, 0, CODEBOOKS), 0);
  test_free(cells);
}

/* ---- composition ----------------------------------------------------------------------------- */

/* A pattern without randomness, so that copies of it agree wherever they stand in a tree. */
static void random_leaf(char *out, size_t size, unsigned *dice, bool limited) {
  char codebooks[48] = "";
  unsigned r = *dice = *dice * 1664525u + 1013904223u;
  unsigned low = r >> 8 & 7, high = low + 1 + (r >> 11) % (CODEBOOKS - low);
  if (limited && (r >> 29) != 0) {
    snprintf(codebooks, sizeof codebooks, ", \"codebooks\": [%u, %u]", low, high);
  }
  unsigned a = 2 + (r >> 16) % 9, b = (r >> 20) % a;
  if (r >> 30 & 1) {
    snprintf(out, size, "{\"pattern\": \"periodic\", \"interval\": %u, \"offset\": %u%s}", a, b, codebooks);
  } else {
    snprintf(out, size, "{\"pattern\": \"range\", \"start_frame\": %u, \"end_frame\": %u%s}", 3 * b, 30 + a,
             codebooks);
  }
}

enum { LEAF = 160, LAW = 2000 };

static void check_laws(const char *a, const char *b, const char *c, bool everywhere) {
  static const struct {
    const char *left, *right;
    bool everywhere; /* holds only where all of them speak of all codebooks */
  } laws[] = {
      {"{\"not\": {\"all\": [A, B]}}", "{\"any\": [{\"not\": A}, {\"not\": B}]}", false}, /* De Morgan */
      {"{\"not\": {\"any\": [A, B]}}", "{\"all\": [{\"not\": A}, {\"not\": B}]}", false},
      {"{\"not\": {\"not\": A}}", "A", false},
      {"{\"all\": [A, A]}", "A", false}, /* idempotence */
      {"{\"any\": [A, A, A]}", "A", false},
      {"{\"all\": [A]}", "A", false},
      {"{\"any\": [A]}", "A", false},
      {"{\"all\": [A, B]}", "{\"all\": [B, A]}", false}, /* order and grouping do not matter */
      {"{\"any\": [A, B]}", "{\"any\": [B, A]}", false},
      {"{\"all\": [A, {\"all\": [B, C]}]}", "{\"all\": [A, B, C]}", false},
      {"{\"any\": [{\"any\": [A, B]}, C]}", "{\"any\": [A, B, C]}", false},
      {"{\"all\": [A, {\"any\": [A, B]}]}", "A", true}, /* absorption */
      {"{\"any\": [A, {\"all\": [A, B]}]}", "A", true},
      {"{\"all\": [A, {\"any\": [B, C]}]}", "{\"any\": [{\"all\": [A, B]}, {\"all\": [A, C]}]}", true},
      {"{\"any\": [A, {\"all\": [B, C]}]}", "{\"all\": [{\"any\": [A, B]}, {\"any\": [A, C]}]}", true},
      {"{\"all\": [A, {\"not\": A}]}", "{\"pattern\": \"fill\", \"value\": 0}", false}, /* no contradiction */
      {"{\"any\": [A, {\"not\": A}]}", "{\"pattern\": \"fill\"}", true},
      {"{\"all\": [A, {\"pattern\": \"fill\", \"value\": 0}]}", "{\"pattern\": \"fill\", \"value\": 0}",
       false},
      {"{\"any\": [A, {\"pattern\": \"fill\"}]}", "{\"pattern\": \"fill\"}", false},
  };
  for (size_t i = 0; i < sizeof laws / sizeof laws[0]; i++) {
    if (laws[i].everywhere && !everywhere) {
      continue;
    }
    char side[2][LAW];
    for (int s = 0; s < 2; s++) {
      char *out = side[s];
      for (const char *from = s ? laws[i].right : laws[i].left; *from; from++) {
        const char *leaf = *from == 'A' ? a : *from == 'B' ? b : *from == 'C' ? c : NULL;
        if (leaf) {
          size_t length = strlen(leaf);
          memcpy(out, leaf, length);
          out += length;
        } else {
          *out++ = *from;
        }
      }
      *out = '\0';
    }
    assert_same_mask(side[0], side[1], 60, 5);
  }
}

static void the_laws_of_composition_hold(void **state) {
  (void)state;
  unsigned dice = 1;
  for (int round = 0; round < 60; round++) {
    char leaf[3][LEAF];
    for (int i = 0; i < 3; i++) {
      random_leaf(leaf[i], LEAF, &dice, round % 2);
    }
    check_laws(leaf[0], leaf[1], leaf[2], round % 2 == 0);
  }
}

/* Where a node does not speak it neither masks nor keeps. */
static void silence_has_no_vote(void **state) {
  (void)state;
  const char *prompt = "{\"pattern\": \"periodic\", \"interval\": 3, \"offset\": 0, \"codebooks\": [0, 4]}";
  char text[400];
  snprintf(text, sizeof text, "{\"all\": [{\"pattern\": \"fill\"}, %s]}", prompt);
  uint8_t *cells = cells_of(text, 30, 1);
  assert_int_equal(masked_in(cells, 30, 0, 4), 4 * 20);
  assert_int_equal(masked_in(cells, 30, 4, CODEBOOKS), 10 * 30);
  test_free(cells);
  snprintf(text, sizeof text, "{\"not\": %s}", prompt);
  cells = cells_of(text, 30, 1);
  assert_int_equal(masked_in(cells, 30, 0, 4), 4 * 10);
  assert_int_equal(masked_in(cells, 30, 4, CODEBOOKS), 0);
  test_free(cells);
}

/* A share under a limit is a share of what is left: exact, not cut afterwards. */
static void limits_work_downwards(void **state) {
  (void)state;
  uint8_t *cells =
      cells_of("{\"all\": [{\"pattern\": \"random\", \"ratio\": 0.3}], \"codebooks\": [1, 4]}", CLIP, 8);
  assert_int_equal(masked_in(cells, CLIP, 1, 4), llround(0.3 * 3 * CLIP));
  assert_int_equal(masked_in(cells, CLIP, 0, CODEBOOKS), llround(0.3 * 3 * CLIP));
  test_free(cells);
  cells =
      cells_of("{\"any\": [{\"pattern\": \"fill\", \"codebooks\": [6, 9]}], \"codebooks\": [1, 4]}", CLIP, 8);
  assert_int_equal(masked_in(cells, CLIP, 0, CODEBOOKS), 0);
  test_free(cells);
}

/* Two patterns of one tree do not draw the same numbers: half of a half is a quarter. */
static void nodes_draw_independently(void **state) {
  (void)state;
  const char *half = "{\"pattern\": \"random\", \"ratio\": 0.5}";
  char text[200];
  snprintf(text, sizeof text, "{\"all\": [%s, %s]}", half, half);
  for (uint64_t seed = 0; seed < 10; seed++) {
    uint8_t *cells = cells_of(text, CLIP, seed);
    /* 8050 tokens, hypergeometric: standard deviation 22 */
    assert_in_range(masked_in(cells, CLIP, 0, CODEBOOKS), 2012 - 110, 2012 + 110);
    test_free(cells);
  }
}

/* Dropout of prompts, of a tree: exactly the share of the frames that the prompts keep whole. */
static void prompts_drop_whole_frames(void **state) {
  (void)state;
  uint8_t *cells = cells_of("{\"prompts\": {\"pattern\": \"strided\", \"stride\": 4, \"length\": 3}, "
                            "\"dropout\": 0.25, \"codebooks\": [0, 2]}",
                            400, 6);
  assert_int_equal(masked_in(cells, 400, 0, 1), 300 + 25);
  assert_memory_equal(cells, cells + 400, 400);
  test_free(cells);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(random_is_exact_for_tokens_and_frames),
      cmocka_unit_test(blocks_keep_their_size_and_share),
      cmocka_unit_test(random_blocks_reach_every_frame),
      cmocka_unit_test(strided_masks_a_length_of_every_stride),
      cmocka_unit_test(ranges_are_rounded_to_the_nearest_frame),
      cmocka_unit_test(bitmaps_say_what_they_say),
      cmocka_unit_test(fill_masks_all_or_nothing),
      cmocka_unit_test(the_laws_of_composition_hold),
      cmocka_unit_test(silence_has_no_vote),
      cmocka_unit_test(limits_work_downwards),
      cmocka_unit_test(nodes_draw_independently),
      cmocka_unit_test(prompts_drop_whole_frames),
  };
  return cmocka_run_group_tests_name("mask patterns", tests, NULL, NULL);
}
