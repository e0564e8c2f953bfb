/*
 * A tree of patterns -> a mask, and each pattern's own layer.
 *
 * Every node fills a plane of cells with keep, mask or silent (internal.h says what silence means) on the
 * codebooks that those above it leave; operators evaluate one child at a time into a second plane and
 * fold it into theirs. So memory is at most one plane for each level of the tree. A limit to codebooks
 * works downwards: a pattern under it chooses its exact share among the codebooks that are left, and does
 * not choose first and lose some of the choice afterwards.
 */
#include "engine/mask/internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct evaluation {
  const struct vamp_mask_context *context;
  struct vamp_mask_ear *ear;
  uint64_t seed;
  struct vamp_mask_layers *layers;
  struct vamp_error *error;
};

void vamp_mask_layers_free(struct vamp_mask_layers *layers) {
  for (int i = 0; i < layers->count; i++) {
    free(layers->layers[i].bits);
  }
  layers->count = 0;
}

bool vamp_mask_layer_get(const struct vamp_mask_layer *layer, int frames, int codebook, int frame) {
  if (codebook < layer->low || codebook >= layer->high) {
    return false;
  }
  size_t row_bytes = ((size_t)frames + 7) / 8;
  return layer->bits[(size_t)(codebook - layer->low) * row_bytes + (size_t)frame / 8] >> frame % 8 & 1;
}

/* A layer's name: the user's, or the pattern's; the second of a name is "name 2". */
static void name_layer(const struct vamp_mask_layers *layers, const char *wanted,
                       char name[VAMP_MASK_LAYER_NAME_SIZE]) {
  snprintf(name, VAMP_MASK_LAYER_NAME_SIZE, "%.*s", VAMP_MASK_NAME_SIZE - 1, wanted);
  for (int number = 2, i = 0; i < layers->count; i++) {
    if (strcmp(layers->layers[i].name, name) == 0) {
      snprintf(name, VAMP_MASK_LAYER_NAME_SIZE, "%.*s %d", VAMP_MASK_NAME_SIZE - 1, wanted, number++);
      i = -1; /* the new name must be compared with all of them, too */
    }
  }
}

/* Keeps a plane as a layer. */
static int add_layer(struct evaluation *evaluation, const struct vamp_mask_node *node, const char *pattern,
                     int low, int high, const uint8_t *cells) {
  struct vamp_mask_layers *layers = evaluation->layers;
  struct vamp_mask_layer *layer = &layers->layers[layers->count];
  size_t frames = (size_t)evaluation->context->frames, row_bytes = (frames + 7) / 8;
  *layer = (struct vamp_mask_layer){.low = low, .high = high};
  layer->bits = calloc((size_t)(high - low), row_bytes);
  if (!layer->bits) {
    return vamp_fail(evaluation->error, VAMP_MEMORY, "out of memory for a mask's layers.");
  }
  for (int codebook = low; codebook < high; codebook++) {
    const uint8_t *row = cells + (size_t)codebook * frames;
    uint8_t *bits = layer->bits + (size_t)(codebook - low) * row_bytes;
    for (size_t frame = 0; frame < frames; frame++) {
      bool masked = row[frame] == VAMP_CELL_MASK;
      bits[frame / 8] |= (uint8_t)(masked << frame % 8);
      layer->masked += masked;
    }
  }
  snprintf(layer->pattern, sizeof layer->pattern, "%s", pattern);
  name_layer(layers, node->name[0] != '\0' ? node->name : pattern, layer->name);
  layers->count++;
  return 0;
}

/* The layer of a `not` directly above a pattern: the two are one thought. */
static int add_negated_layer(struct evaluation *evaluation, const struct vamp_mask_node *node, int low,
                             int high, const uint8_t *cells) {
  const struct vamp_mask_node *child = node->children[0];
  char pattern[32];
  snprintf(pattern, sizeof pattern, "not %s", child->pattern->name);
  low = child->low > low ? child->low : low;
  high = child->high > 0 && child->high < high ? child->high : high;
  bool named_below = node->name[0] == '\0' && child->name[0] != '\0';
  return low < high ? add_layer(evaluation, named_below ? child : node, pattern, low, high, cells) : 0;
}

static uint8_t *new_plane(struct evaluation *evaluation) {
  size_t size = (size_t)evaluation->context->codebooks * (size_t)evaluation->context->frames;
  uint8_t *plane = calloc(size, 1);
  if (!plane) {
    vamp_fail(evaluation->error, VAMP_MEMORY, "out of memory for a mask of %zu tokens.", size);
  }
  return plane;
}

static int evaluate(struct evaluation *evaluation, const struct vamp_mask_node *node, int low, int high,
                    uint8_t *cells, bool negated);

/* all: the least, since keep < mask < silent. any: the greatest but for silence. */
static void fold(bool all, size_t count, uint8_t *into, const uint8_t *from) {
  for (size_t i = 0; i < count; i++) {
    uint8_t a = into[i], b = from[i];
    if (a == VAMP_CELL_SILENT || (b != VAMP_CELL_SILENT && (all ? b < a : b > a))) {
      into[i] = b;
    }
  }
}

static int evaluate_list(struct evaluation *evaluation, const struct vamp_mask_node *node, int low, int high,
                         uint8_t *cells) {
  size_t frames = (size_t)evaluation->context->frames;
  size_t start = (size_t)low * frames, count = (size_t)(high - low) * frames;
  uint8_t *child = new_plane(evaluation);
  int status = child ? 0 : VAMP_MEMORY;
  memset(cells + start, VAMP_CELL_SILENT, count);
  for (int i = 0; i < node->child_count && status == 0; i++) {
    status = evaluate(evaluation, node->children[i], low, high, child, false);
    if (status == 0) {
      fold(node->kind == VAMP_NODE_ALL, count, cells + start, child + start);
    }
  }
  free(child);
  return status;
}

/* True where the plane speaks of a frame and masks none of it. */
static bool frame_is_kept(const uint8_t *cells, int low, int high, size_t frames, size_t frame) {
  bool speaks = false;
  for (int codebook = low; codebook < high; codebook++) {
    uint8_t cell = cells[(size_t)codebook * frames + frame];
    if (cell == VAMP_CELL_MASK) {
      return false;
    }
    speaks |= cell == VAMP_CELL_KEEP;
  }
  return speaks;
}

/* Turns a plane of prompts into one of those that are dropped: mask on a random share of the frames it
 * keeps, silent everywhere else. */
static void choose_dropped(struct evaluation *evaluation, const struct vamp_mask_node *node, int low,
                           int high, uint8_t *cells) {
  size_t frames = (size_t)evaluation->context->frames;
  int64_t kept = 0;
  for (size_t frame = 0; frame < frames; frame++) {
    kept += frame_is_kept(cells, low, high, frames, frame);
  }
  struct vamp_mask_draw draw = vamp_mask_draw_begin(evaluation->seed, node->index);
  struct vamp_mask_choice choice = {
      .draw = &draw,
      .items = (uint32_t)kept,
      .chosen = (uint32_t)vamp_mask_share(node->dropout, kept),
  };
  for (size_t frame = 0; frame < frames; frame++) {
    bool dropped = frame_is_kept(cells, low, high, frames, frame) && vamp_mask_choice_next(&choice);
    for (int codebook = low; codebook < high; codebook++) {
      cells[(size_t)codebook * frames + frame] = dropped ? VAMP_CELL_MASK : VAMP_CELL_SILENT;
    }
  }
}

/* (mask and prompts), or dropped. */
static int evaluate_prompts(struct evaluation *evaluation, const struct vamp_mask_node *node, int low,
                            int high, uint8_t *cells) {
  size_t frames = (size_t)evaluation->context->frames;
  size_t start = (size_t)low * frames, count = (size_t)(high - low) * frames;
  uint8_t *prompts = new_plane(evaluation);
  int status = prompts ? evaluate(evaluation, node->children[0], low, high, prompts, false) : VAMP_MEMORY;
  if (status == 0) {
    if (node->child_count == 2) {
      status = evaluate(evaluation, node->children[1], low, high, cells, false);
    } else {
      memset(cells + start, VAMP_CELL_SILENT, count);
    }
  }
  if (status == 0) {
    fold(true, count, cells + start, prompts + start);
    choose_dropped(evaluation, node, low, high, prompts);
    fold(false, count, cells + start, prompts + start);
    status = add_layer(evaluation, node, "dropout", low, high, prompts);
  }
  free(prompts);
  return status;
}

static int evaluate_pattern(struct evaluation *evaluation, const struct vamp_mask_node *node, int low,
                            int high, uint8_t *cells, bool negated) {
  struct vamp_mask_draw draw = vamp_mask_draw_begin(evaluation->seed, node->index);
  struct vamp_mask_canvas canvas = {evaluation->context, low,          high, cells, &draw,
                                    evaluation->ear,     node->pointer};
  int status = node->pattern->paint(node->parameters, &canvas, evaluation->error);
  if (status == 0 && !negated) {
    status = add_layer(evaluation, node, node->pattern->name, low, high, cells);
  }
  return status;
}

static int evaluate_not(struct evaluation *evaluation, const struct vamp_mask_node *node, int low, int high,
                        uint8_t *cells) {
  size_t frames = (size_t)evaluation->context->frames;
  bool of_pattern = node->children[0]->kind == VAMP_NODE_PATTERN;
  int status = evaluate(evaluation, node->children[0], low, high, cells, of_pattern);
  if (status != 0) {
    return status;
  }
  for (size_t i = (size_t)low * frames; i < (size_t)high * frames; i++) {
    cells[i] = cells[i] == VAMP_CELL_SILENT ? VAMP_CELL_SILENT : !cells[i];
  }
  return of_pattern ? add_negated_layer(evaluation, node, low, high, cells) : 0;
}

/* Evaluates on the codebooks [low, high), which are those that the nodes above leave; cells of others are
 * not touched. `negated`: the parent is a `not` and makes the layer. */
static int evaluate(struct evaluation *evaluation, const struct vamp_mask_node *node, int low, int high,
                    uint8_t *cells, bool negated) {
  int codebooks = evaluation->context->codebooks;
  size_t frames = (size_t)evaluation->context->frames;
  int own_high = node->high > 0 ? node->high : codebooks;
  if (own_high > codebooks || node->low >= own_high) {
    char pointer[VAMP_MASK_POINTER_SIZE];
    vamp_mask_pointer_join(pointer, node->pointer, "codebooks");
    return vamp_fail_field(evaluation->error, VAMP_INVALID, pointer,
                           "codebooks begin at %d and end before %d, and the model has 0 to %d.", node->low,
                           own_high, codebooks - 1);
  }
  int first = node->low > low ? node->low : low, end = own_high < high ? own_high : high;
  if (first >= end) {
    memset(cells + (size_t)low * frames, VAMP_CELL_SILENT, (size_t)(high - low) * frames);
    return 0;
  }
  memset(cells + (size_t)low * frames, VAMP_CELL_SILENT, (size_t)(first - low) * frames);
  memset(cells + (size_t)end * frames, VAMP_CELL_SILENT, (size_t)(high - end) * frames);
  switch (node->kind) {
  case VAMP_NODE_PATTERN:
    return evaluate_pattern(evaluation, node, first, end, cells, negated);
  case VAMP_NODE_NOT:
    return evaluate_not(evaluation, node, first, end, cells);
  case VAMP_NODE_PROMPTS:
    return evaluate_prompts(evaluation, node, first, end, cells);
  default:
    return evaluate_list(evaluation, node, first, end, cells);
  }
}

int vamp_mask_evaluate(const struct vamp_mask_node *tree, const struct vamp_mask_context *context,
                       struct vamp_mask_ear *ear, uint64_t seed, uint8_t *mask,
                       struct vamp_mask_layers *layers, struct vamp_error *error) {
  struct evaluation evaluation = {context, ear, seed, layers, error};
  int status = evaluate(&evaluation, tree, 0, context->codebooks, mask, false);
  if (status != 0) {
    vamp_mask_layers_free(layers);
    return status;
  }
  size_t count = (size_t)context->codebooks * (size_t)context->frames;
  for (size_t i = 0; i < count; i++) {
    mask[i] = mask[i] == VAMP_CELL_MASK;
  }
  return 0;
}
