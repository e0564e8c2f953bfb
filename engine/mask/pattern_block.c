/*
 * block: contiguous regions of `size` frames, not overlapping, together within one block of `ratio`.
 *
 * "random": the number of blocks nearest to the ratio; they and the frames between them are dealt like
 * cards, so every arrangement is equally likely and blocks are not tied to a grid. Neighbours may touch.
 * "alternating": a block, a gap, a block, a gap, from the first frame on, the gaps as long as the ratio
 * asks: at 0.5 as long as the blocks.
 */
#include "engine/mask/internal.h"

#include <math.h>

enum { RANDOM, ALTERNATING };
static const char *const arrangement_names[] = {"random", "alternating", NULL};

struct block_parameters {
  int64_t size;
  double ratio;
  int arrangement;
};

static int block_parse(struct vamp_mask_fields *fields, void *parameters) {
  struct block_parameters *block = parameters;
  *block = (struct block_parameters){.size = 29, .ratio = 0.5, .arrangement = RANDOM};
  vamp_mask_fields_integer(fields, "size", 1, VAMP_MASK_MAX_INTEGER, &block->size);
  vamp_mask_fields_number(fields, "ratio", 0, 1, &block->ratio);
  vamp_mask_fields_choice(fields, "arrangement", arrangement_names, &block->arrangement);
  return fields->status;
}

static void paint_alternating(const struct block_parameters *block, const struct vamp_mask_canvas *canvas) {
  for (int64_t i = 0;; i++) {
    /* One correctly rounded division: the same on every machine. */
    double start = (double)(i * block->size) / block->ratio;
    if (!(start < canvas->context->frames)) {
      return;
    }
    int64_t frame = llround(start);
    vamp_mask_canvas_frames(canvas, frame, frame + block->size, VAMP_CELL_MASK);
  }
}

static void paint_random(const struct block_parameters *block, const struct vamp_mask_canvas *canvas) {
  int64_t frames = canvas->context->frames;
  int64_t blocks = vamp_mask_share(block->ratio, frames);
  blocks = (blocks + block->size / 2) / block->size;
  if (blocks * block->size >= frames || block->ratio == 1) {
    vamp_mask_canvas_frames(canvas, 0, frames, VAMP_CELL_MASK); /* a last block is cut by the clip's end */
    return;
  }
  struct vamp_mask_choice choice = {
      .draw = canvas->draw,
      .items = (uint32_t)(frames - blocks * block->size + blocks),
      .chosen = (uint32_t)blocks,
  };
  for (int64_t frame = 0; frame < frames;) {
    int64_t next = frame + 1;
    if (vamp_mask_choice_next(&choice)) {
      next = frame + block->size;
      vamp_mask_canvas_frames(canvas, frame, next, VAMP_CELL_MASK);
    }
    frame = next;
  }
}

static int block_paint(const void *parameters, const struct vamp_mask_canvas *canvas,
                       struct vamp_error *error) {
  (void)error;
  const struct block_parameters *block = parameters;
  vamp_mask_canvas_frames(canvas, 0, canvas->context->frames, VAMP_CELL_KEEP);
  if (block->ratio > 0) {
    (block->arrangement == ALTERNATING ? paint_alternating : paint_random)(block, canvas);
  }
  return 0;
}

static int block_describe(const void *parameters, json_t *object) {
  const struct block_parameters *block = parameters;
  return json_object_set_new(object, "size", json_integer(block->size)) |
         json_object_set_new(object, "ratio", json_real(block->ratio)) |
         json_object_set_new(object, "arrangement", json_string(arrangement_names[block->arrangement]));
}

const struct vamp_mask_pattern vamp_mask_pattern_block = {
    .name = "block",
    .parameters_size = sizeof(struct block_parameters),
    .parse = block_parse,
    .paint = block_paint,
    .describe = block_describe,
};
