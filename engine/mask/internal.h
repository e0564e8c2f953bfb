/*
 * What the files of this room share.
 *
 * The way of a spec:
 *
 *   spec.c     JSON -> forms, one a pass: the simple form (simple.c), a preset (presets.c), or a tree
 *   node.c     JSON -> tree of nodes, and back
 *   simple.c   the simple form -> the tree it stands for
 *   plan.c     forms + context -> masks and layers, by evaluate.c
 *   listen.c   context's samples -> features, onsets, beats, for the patterns that listen
 *   answer.c   plan -> JSON
 *   picture.c  plan -> PNG, SVG
 *
 * A token of a node's result has one of three values. A node may be limited to some codebooks and is
 * silent on the others: it has no vote there, neither for nor against.
 *
 *   all   masks where every child that speaks does
 *   any   masks where at least one child does
 *   not   the opposite of its child where that speaks
 *
 * Each is silent where all its children are, and what is silent in the end is kept. The alternative,
 * "a node keeps whatever it does not speak about", was rejected: a prompt for codebooks 0 to 3 inside an
 * `all` would then keep the other ten codebooks for ever, and `not` would mask them. Both surprise.
 */
#ifndef VAMP_MASK_INTERNAL_H
#define VAMP_MASK_INTERNAL_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "engine/mask/fields.h"
#include "engine/mask/listen.h"
#include "vamp/mask.h"
#include "vamp/random.h"

#define VAMP_MASK_MAX_SEED ((INT64_C(1) << 53) - 1) /* what every JSON library carries exactly */
#define VAMP_MASK_MAX_INTEGER INT32_MAX             /* of intervals, widths and offsets */
#define VAMP_MASK_NAME_SIZE 65
#define VAMP_MASK_LAYER_NAME_SIZE (VAMP_MASK_NAME_SIZE + 12) /* room for a number */

enum vamp_mask_cell { VAMP_CELL_KEEP = 0, VAMP_CELL_MASK = 1, VAMP_CELL_SILENT = 2 };

/* ---- random numbers (draw.c) ------------------------------------------------------------------- */

/* A sequence of draws that belongs to one node of one pass. */
struct vamp_mask_draw {
  uint64_t seed;
  uint32_t node; /* in pre-order; so no two nodes share a draw */
  uint32_t next; /* index of the next four words */
  int held;      /* words of `words` not yet used */
  struct vamp_random4 words;
};

struct vamp_mask_draw vamp_mask_draw_begin(uint64_t seed, uint32_t node);
/* Uniform in 0 .. bound-1, without bias; bound >= 1. */
uint32_t vamp_mask_draw_below(struct vamp_mask_draw *draw, uint32_t bound);
/* The seed of a pass: that of pass 0 is `seed` itself. */
uint64_t vamp_mask_pass_seed(uint64_t seed, int pass);

/* Chooses exactly `chosen` of `items` one after the other; every subset is equally likely. */
struct vamp_mask_choice {
  struct vamp_mask_draw *draw;
  uint32_t items, chosen; /* still to come */
};
bool vamp_mask_choice_next(struct vamp_mask_choice *choice);
/* round(ratio * count), the number of items that are a share of `count`. */
int64_t vamp_mask_share(double ratio, int64_t count);

/* ---- patterns (patterns.c and pattern_*.c) ----------------------------------------------------- */

/* Where a pattern paints: the rows [low, high) of `cells`. */
struct vamp_mask_canvas {
  const struct vamp_mask_context *context;
  int low, high;
  uint8_t *cells; /* [codebooks, frames] of enum vamp_mask_cell */
  struct vamp_mask_draw *draw;
  struct vamp_mask_ear *ear; /* for patterns that listen */
  const char *pointer;       /* of the node, for errors */
};

/* Sets frames [from, to), cut to the clip, on all rows of the canvas. */
void vamp_mask_canvas_frames(const struct vamp_mask_canvas *canvas, int64_t from, int64_t to,
                             enum vamp_mask_cell value);

/* One pattern: one file and one entry of the table in patterns.c. */
struct vamp_mask_pattern {
  const char *name;
  size_t parameters_size; /* of its parameters, which come zeroed */
  /* Reads its fields with their defaults; the caller finishes. Returns fields->status. */
  int (*parse)(struct vamp_mask_fields *fields, void *parameters);
  /* Paints every cell of the canvas with KEEP or MASK. */
  int (*paint)(const void *parameters, const struct vamp_mask_canvas *canvas, struct vamp_error *error);
  /* Adds its fields to `object`, all of them, so that parsing them again gives the same parameters.
   * Returns 0, or non-zero when out of memory. */
  int (*describe)(const void *parameters, json_t *object);
  void (*release)(void *parameters); /* NULL where there is nothing to free */
};

extern const struct vamp_mask_pattern vamp_mask_pattern_random, vamp_mask_pattern_periodic,
    vamp_mask_pattern_block, vamp_mask_pattern_strided, vamp_mask_pattern_range, vamp_mask_pattern_bitmap,
    vamp_mask_pattern_fill, vamp_mask_pattern_beat, vamp_mask_pattern_onset, vamp_mask_pattern_adaptive;

/* Looks a name up; VAMP_INVALID where nobody knows it. */
int vamp_mask_pattern_find(const char *name, const char *pointer, const struct vamp_mask_pattern **pattern,
                           struct vamp_error *error);

/* An interval in frames, also "beat", which is VAMP_MASK_BEAT here. */
#define VAMP_MASK_BEAT (-1)
void vamp_mask_fields_interval(struct vamp_mask_fields *fields, const char *name, int64_t *interval);
json_t *vamp_mask_interval_json(int64_t interval);

/* `offset` of periodic and strided, also "random", which is -1 here. */
void vamp_mask_fields_offset(struct vamp_mask_fields *fields, const char *name, int64_t *offset);
int vamp_mask_describe_offset(json_t *object, int64_t offset);
/* The frame where the first `width` of an `interval` stand. */
int64_t vamp_mask_offset_frame(int64_t offset, int64_t interval, int64_t width,
                               const struct vamp_mask_canvas *canvas);

/* Seconds -> frames of the context, as a real number. */
double vamp_mask_seconds_to_frames(const struct vamp_mask_context *context, double seconds);

/* ---- trees (node.c, evaluate.c) ---------------------------------------------------------------- */

enum vamp_mask_kind { VAMP_NODE_PATTERN, VAMP_NODE_ALL, VAMP_NODE_ANY, VAMP_NODE_NOT, VAMP_NODE_PROMPTS };

struct vamp_mask_node {
  enum vamp_mask_kind kind;
  uint32_t index;                       /* in pre-order */
  char pointer[VAMP_MASK_POINTER_SIZE]; /* where it stood in the input */
  char name[VAMP_MASK_NAME_SIZE];       /* "" where the user gave none */
  int low, high;                        /* codebooks where it speaks; high 0: all from low on */
  const struct vamp_mask_pattern *pattern;
  void *parameters;
  double dropout; /* PROMPTS */
  int child_count;
  struct vamp_mask_node **children; /* PROMPTS: the prompts, then the mask if there is one */
};

/* True where an object is a tree's node and not the simple form. */
bool vamp_mask_json_is_node(const json_t *object);
int vamp_mask_node_parse(const json_t *value, const char *pointer, struct vamp_mask_node **node,
                         struct vamp_error *error);
void vamp_mask_node_free(struct vamp_mask_node *node); /* NULL is fine */
/* The tree with every default spelt out, for `codebooks` of them; NULL when out of memory. */
json_t *vamp_mask_node_json(const struct vamp_mask_node *node, int codebooks);
int vamp_mask_node_count(const struct vamp_mask_node *node);

/* What one pattern of the tree masks on its own. */
struct vamp_mask_layer {
  char name[VAMP_MASK_LAYER_NAME_SIZE];
  char pattern[32];
  int low, high;  /* codebooks where it speaks */
  uint8_t *bits;  /* [high - low, (frames + 7) / 8], frame f is bit f % 8 of byte f / 8 */
  int64_t masked; /* tokens */
};

struct vamp_mask_layers {
  int count;
  struct vamp_mask_layer layers[VAMP_MASK_MAX_NODES];
};

void vamp_mask_layers_free(struct vamp_mask_layers *layers);
bool vamp_mask_layer_get(const struct vamp_mask_layer *layer, int frames, int codebook, int frame);

/* Evaluates a tree: mask [codebooks, frames] of 0 and 1, and its layers. */
int vamp_mask_evaluate(const struct vamp_mask_node *tree, const struct vamp_mask_context *context,
                       struct vamp_mask_ear *ear, uint64_t seed, uint8_t *mask,
                       struct vamp_mask_layers *layers, struct vamp_error *error);

/* ---- the simple form (simple.c) ------------------------------------------------------------------ */

struct vamp_mask_simple {
  double mask_ratio;
  int64_t periodic_prompt;                 /* or VAMP_MASK_BEAT */
  int64_t periodic_width, periodic_offset; /* offset -1: random */
  int64_t upper_codebook_mask;
  int upper_codebooks; /* 0 "keep", 1 "mask" */
  double prefix_s, suffix_s, dropout;
  char pointer[VAMP_MASK_POINTER_SIZE];
};

int vamp_mask_simple_parse(const json_t *value, const char *pointer, struct vamp_mask_simple *simple,
                           struct vamp_error *error);
/* The tree it stands for, as JSON. */
int vamp_mask_simple_tree(const struct vamp_mask_simple *simple, const struct vamp_mask_context *context,
                          struct vamp_mask_ear *ear, json_t **tree, struct vamp_error *error);
/* All of its fields; NULL when out of memory. */
json_t *vamp_mask_simple_json(const struct vamp_mask_simple *simple);

/* ---- presets (presets.c) ------------------------------------------------------------------------- */

/* Writes the names of all presets, "a, b, c". */
void vamp_mask_preset_names(char *out, size_t size);

/* ---- specs and plans (spec.c, plan.c) ------------------------------------------------------------ */

/* One pass of a spec. */
struct vamp_mask_form {
  struct vamp_mask_node *tree; /* NULL: the simple form */
  struct vamp_mask_simple simple;
  bool has_seed;
  uint64_t seed;
};

struct vamp_mask_spec {
  bool has_seed;
  uint64_t seed;
  int count;
  struct vamp_mask_form forms[VAMP_MASK_MAX_PASSES];
};

struct vamp_mask_pass {
  struct vamp_mask mask;
  uint64_t seed;
  json_t *tree;       /* never handed out, only copies of it: a plan is read from any thread */
  json_t *parameters; /* of the simple form, or NULL */
  struct vamp_mask_layers layers;
};

struct vamp_mask_plan {
  struct vamp_mask_context context; /* without its samples, which are the caller's */
  uint64_t seed;
  int count;
  struct vamp_mask_pass *passes; /* [count] */
};

/* Share of ones among the rows [low, high); 0 where there are none. */
double vamp_mask_density(const struct vamp_mask *mask, int low, int high);

#endif
