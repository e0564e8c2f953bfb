/*
 * Random choices for masks: integers only, from Philox, so that a seed gives the same mask on every
 * machine.
 *
 * Shares are exact. To choose k of n tokens we go through them once and take each with probability
 * (still to choose) / (still to come): Knuth's selection sampling (The Art of Computer Programming,
 * volume 2, 3.4.2, algorithm S). It needs no memory, every subset is equally likely, and it has a
 * property that a slider in a web page wants: with the same seed a larger k chooses all that a smaller
 * one chose and more. (By induction: the larger choice never has fewer left to choose, so whatever draw
 * takes an item for the smaller takes it for the larger.) Shuffling indices or sorting keys gives the
 * same distribution at the price of an array four times the mask.
 */
#include "engine/mask/internal.h"

#include <math.h>

/* The node number under which the seeds of passes are drawn; no tree has as many. */
#define PASS_NODE UINT32_MAX

struct vamp_mask_draw vamp_mask_draw_begin(uint64_t seed, uint32_t node) {
  return (struct vamp_mask_draw){.seed = seed, .node = node};
}

static uint32_t draw_word(struct vamp_mask_draw *draw) {
  if (draw->held == 0) {
    draw->words = vamp_philox(draw->seed, draw->next++, draw->node, 0, VAMP_STREAM_MASK);
    draw->held = 4;
  }
  return draw->words.word[4 - draw->held--];
}

/* Lemire, "Fast random integer generation in an interval", 2019: the high half of word * bound, with the
 * few words drawn again that would make some results likelier than others. */
uint32_t vamp_mask_draw_below(struct vamp_mask_draw *draw, uint32_t bound) {
  uint64_t product = (uint64_t)draw_word(draw) * bound;
  if ((uint32_t)product < bound) {
    uint32_t excess = (0u - bound) % bound; /* 2^32 mod bound */
    while ((uint32_t)product < excess) {
      product = (uint64_t)draw_word(draw) * bound;
    }
  }
  return (uint32_t)(product >> 32);
}

/* Passes have seeds of their own, rather than counters, so that one pass's tree and seed are all it takes
 * to build its mask again. */
uint64_t vamp_mask_pass_seed(uint64_t seed, int pass) {
  if (pass == 0) {
    return seed;
  }
  struct vamp_random4 words = vamp_philox(seed, (uint32_t)pass, PASS_NODE, 0, VAMP_STREAM_MASK);
  return ((uint64_t)words.word[0] << 32 | words.word[1]) & (uint64_t)VAMP_MASK_MAX_SEED;
}

bool vamp_mask_choice_next(struct vamp_mask_choice *choice) {
  bool taken = vamp_mask_draw_below(choice->draw, choice->items) < choice->chosen;
  choice->items--;
  choice->chosen -= taken;
  return taken;
}

int64_t vamp_mask_share(double ratio, int64_t count) {
  return (int64_t)llround(ratio * (double)count);
}
