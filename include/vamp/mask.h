/*
 * Masks: which tokens are regenerated (1) and which are kept as a prompt (0).
 *
 * A spec is parsed JSON: the simple form (mask_ratio, periodic_prompt, upper_codebook_mask, ...), a
 * preset, or a tree of patterns composed with all, any and not; several of them make passes. Building
 * a spec for a number of frames gives a plan: one mask a pass, and the layers it was composed of. The
 * same spec, seed and frames give the same plan on every machine: only integers and Philox 4x32
 * decide. docs/masks.md is the user's view of the same.
 *
 * A spec and a plan are immutable once made and may be read from any thread.
 */
#ifndef VAMP_MASK_H
#define VAMP_MASK_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "vamp/error.h"

#define VAMP_MASK_MAX_CODEBOOKS 32
#define VAMP_MASK_MAX_FRAMES (1 << 20)
#define VAMP_MASK_MAX_PASSES 16
#define VAMP_MASK_MAX_NODES 64 /* patterns and operators in one tree */
#define VAMP_MASK_MAX_DEPTH 8

struct vamp_mask {
  int codebooks;
  int frames;
  uint8_t *data; /* [codebooks, frames], 0 or 1 */
};

/* What a mask is built for. */
struct vamp_mask_context {
  int codebooks;        /* 14 */
  int coarse_codebooks; /* 4: those below are predicted by the coarse model */
  int frames;
  int sample_rate; /* Hz */
  int hop_length;  /* samples a frame */
  uint64_t seed;   /* used where the spec itself carries no seed */
  /* The prepared clip, for patterns that listen; NULL for a mask of a bare number of frames. */
  const float *samples;
  size_t sample_count;
};

struct vamp_mask_spec;

/* Parses `mask`, a JSON object: the simple form, {"preset": "balanced", ...overrides}, a tree node, or
 * {"passes": [...]}. NULL is the default preset ("balanced"). Unknown fields, wrong types and values out
 * of range are VAMP_INVALID with a JSON pointer that begins with `pointer` (e.g. "/mask"). */
int vamp_mask_spec_parse(const json_t *mask, const char *pointer, struct vamp_mask_spec **spec,
                         struct vamp_error *error);
void vamp_mask_spec_free(struct vamp_mask_spec *spec);

struct vamp_mask_plan;

/* Builds every pass. VAMP_INVALID (with pointer) where the spec does not fit the context, e.g. a range
 * beyond the end, a bitmap of another size, or a pattern that listens without audio. */
int vamp_mask_plan_build(const struct vamp_mask_spec *spec, const struct vamp_mask_context *context,
                         struct vamp_mask_plan **plan, struct vamp_error *error);
void vamp_mask_plan_free(struct vamp_mask_plan *plan);

int vamp_mask_plan_passes(const struct vamp_mask_plan *plan); /* >= 1 */
/* The mask of pass 0 .. passes-1; owned by the plan. */
const struct vamp_mask *vamp_mask_plan_mask(const struct vamp_mask_plan *plan, int pass);
uint64_t vamp_mask_plan_seed(const struct vamp_mask_plan *plan); /* the seed in effect */

/* What a generation did, for the mask's JSON and picture. Arrays are [codebooks, frames]. */
struct vamp_mask_outcome {
  const int32_t *codes_before;
  const int32_t *codes_after;
  const int32_t *committed_step; /* 0-based step of its stage; -1 where the token was kept */
  const float *confidence;       /* the model's probability of the token; 1 where kept */
};

/* The mask as JSON: shape, frame_rate, hop_length, sample_rate, codebook names, the array as run
 * lengths, densities (overall, coarse, codebooks[]), layers by name with their own arrays, the tree the
 * spec stands for, seed; with an outcome also changed shares, committed steps and confidences. One pass;
 * new reference, NULL when out of memory. */
json_t *vamp_mask_plan_json(const struct vamp_mask_plan *plan, int pass,
                            const struct vamp_mask_outcome *outcome);

enum vamp_picture_format { VAMP_PICTURE_PNG, VAMP_PICTURE_SVG };

/* Draws one pass: codebooks up, seconds across, coarse and fine set apart, layers named. Legible from
 * 200 to 4,000 frames; larger masks are reduced to at most 8,192 pixels across. *data is malloc'd and
 * the caller's to free. */
int vamp_mask_picture(const struct vamp_mask_plan *plan, int pass, const struct vamp_mask_outcome *outcome,
                      enum vamp_picture_format format, void **data, size_t *size, struct vamp_error *error);

/* Whether a mask, in any of its forms, can have a member of this name besides "preset" and "seed". */
bool vamp_mask_has_field(const char *name);

/* The table of presets: [{"name","description","mask":{...}}]; new reference. */
json_t *vamp_mask_presets_json(void);
/* A preset's JSON by name, a new reference, or NULL. */
json_t *vamp_mask_preset(const char *name);

#endif
