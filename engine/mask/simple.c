/*
 * The simple form: three parameters and their companions, shorthand for a tree.
 *
 * A token is masked where the random choice says so and it is on no prompt frame and not in the kept
 * prefix or suffix; then dropout; then the rule for the upper codebooks. Nothing is computed here: the
 * form is turned into the tree it stands for, that tree is parsed like any other, and it is what the
 * answer shows. So the two cannot come apart. A periodic_prompt of "beat" becomes a number there, so that the
 * tree gives its mask again without the music.
 *
 *   {"any": [{"codebooks": [0, n], ...one of
 *               "all": [random, periodic, not prefix, not suffix]                  without dropout
 *               "prompts": {"all": [periodic, not prefix, not suffix]}, "dropout", "mask": random},
 *            {"pattern": "fill", "codebooks": [first masked codebook, codebooks]}]}
 */
#include "engine/mask/internal.h"

#include <math.h>
#include <string.h>

enum { UPPER_KEEP, UPPER_MASK };
static const char *const upper_names[] = {"keep", "mask", NULL};

#define MOST_SECONDS 1e9

int vamp_mask_simple_parse(const json_t *value, const char *pointer, struct vamp_mask_simple *simple,
                           struct vamp_error *error) {
  *simple = (struct vamp_mask_simple){
      .mask_ratio = 0.5,
      .periodic_prompt = 7,
      .periodic_width = 1,
      .periodic_offset = -1,
      .upper_codebook_mask = 3,
      .upper_codebooks = UPPER_KEEP,
  };
  memcpy(simple->pointer, pointer, strlen(pointer) + 1);
  struct vamp_mask_fields fields;
  vamp_mask_fields_open(&fields, value, pointer, error);
  vamp_mask_fields_number(&fields, "mask_ratio", 0, 1, &simple->mask_ratio);
  vamp_mask_fields_interval(&fields, "periodic_prompt", &simple->periodic_prompt);
  vamp_mask_fields_integer(&fields, "upper_codebook_mask", 0, VAMP_MASK_MAX_CODEBOOKS,
                           &simple->upper_codebook_mask);
  vamp_mask_fields_choice(&fields, "upper_codebooks", upper_names, &simple->upper_codebooks);
  vamp_mask_fields_integer(&fields, "periodic_width", 1, VAMP_MASK_MAX_INTEGER, &simple->periodic_width);
  vamp_mask_fields_offset(&fields, "periodic_offset", &simple->periodic_offset);
  vamp_mask_fields_number(&fields, "prefix_s", 0, MOST_SECONDS, &simple->prefix_s);
  vamp_mask_fields_number(&fields, "suffix_s", 0, MOST_SECONDS, &simple->suffix_s);
  vamp_mask_fields_number(&fields, "dropout", 0, 1, &simple->dropout);
  if (fields.asked_count < VAMP_MASK_FIELDS_MAX) {
    fields.asked[fields.asked_count++] = "seed"; /* spec.c has read it */
  }
  return vamp_mask_fields_finish(&fields);
}

json_t *vamp_mask_simple_json(const struct vamp_mask_simple *simple) {
  json_t *offset =
      simple->periodic_offset < 0 ? json_string("random") : json_integer(simple->periodic_offset);
  json_t *interval = vamp_mask_interval_json(simple->periodic_prompt);
  return json_pack("{s:f, s:o, s:I, s:s, s:I, s:o, s:f, s:f, s:f}", "mask_ratio", simple->mask_ratio,
                   "periodic_prompt", interval, "upper_codebook_mask",
                   (json_int_t)simple->upper_codebook_mask, "upper_codebooks",
                   upper_names[simple->upper_codebooks], "periodic_width", (json_int_t)simple->periodic_width,
                   "periodic_offset", offset, "prefix_s", simple->prefix_s, "suffix_s", simple->suffix_s,
                   "dropout", simple->dropout);
}

/* Frames of a kept beginning or end: all frames that the time touches, at most the whole clip. */
static int64_t kept_frames(const struct vamp_mask_context *context, double seconds) {
  /* 1e-6: a time computed from a number of frames must give that number again. */
  double frames = ceil(vamp_mask_seconds_to_frames(context, seconds) - 1e-6);
  return frames > context->frames ? context->frames : frames > 0 ? (int64_t)frames : 0;
}

static json_t *kept_range(const char *name, int64_t from, int64_t to) {
  return json_pack("{s:s, s:{s:s, s:I, s:I}}", "name", name, "not", "pattern", "range", "start_frame",
                   (json_int_t)from, "end_frame", (json_int_t)to);
}

/* Appends the prompts: everything that keeps frames. */
static int add_prompts(const struct vamp_mask_simple *simple, int64_t interval,
                       const struct vamp_mask_context *context, json_t *list) {
  int failed = 0;
  if (interval > 0) {
    json_t *offset =
        simple->periodic_offset < 0 ? json_string("random") : json_integer(simple->periodic_offset);
    failed |=
        json_array_append_new(list, json_pack("{s:s, s:s, s:I, s:I, s:o}", "name", "periodic prompt",
                                              "pattern", "periodic", "interval", (json_int_t)interval,
                                              "width", (json_int_t)simple->periodic_width, "offset", offset));
  }
  int64_t frames = context->frames, prefix = kept_frames(context, simple->prefix_s);
  if (prefix > 0) {
    failed |= json_array_append_new(list, kept_range("prefix", 0, prefix));
  }
  int64_t suffix = kept_frames(context, simple->suffix_s);
  if (suffix > 0) {
    failed |= json_array_append_new(list, kept_range("suffix", frames - suffix, frames));
  }
  return failed;
}

/* What the codebooks below n follow; NULL when out of memory. */
static json_t *lower_node(const struct vamp_mask_simple *simple, int64_t interval,
                          const struct vamp_mask_context *context) {
  json_t *random = json_pack("{s:s, s:s, s:f, s:s}", "name", "random choice", "pattern", "random", "ratio",
                             simple->mask_ratio, "per", "token");
  json_t *prompts = json_array(), *node = NULL;
  if (random && prompts && add_prompts(simple, interval, context, prompts) == 0) {
    if (json_array_size(prompts) == 0) {
      node = json_incref(random);
    } else if (simple->dropout > 0) {
      node = json_pack("{s:s, s:{s:O}, s:f, s:O}", "name", "dropout", "prompts", "all", prompts, "dropout",
                       simple->dropout, "mask", random);
    } else if (json_array_insert(prompts, 0, random) == 0) {
      node = json_pack("{s:O}", "all", prompts);
    }
  }
  json_decref(random);
  json_decref(prompts);
  if (node && json_object_set_new(node, "codebooks",
                                  json_pack("[i, I]", 0, (json_int_t)simple->upper_codebook_mask)) != 0) {
    json_decref(node);
    node = NULL;
  }
  return node;
}

int vamp_mask_simple_tree(const struct vamp_mask_simple *simple, const struct vamp_mask_context *context,
                          struct vamp_mask_ear *ear, json_t **tree, struct vamp_error *error) {
  int64_t upper = simple->upper_codebook_mask, codebooks = context->codebooks;
  if (upper > codebooks) {
    char pointer[VAMP_MASK_POINTER_SIZE];
    vamp_mask_pointer_join(pointer, simple->pointer, "upper_codebook_mask");
    return vamp_fail_field(error, VAMP_INVALID, pointer,
                           "upper_codebook_mask is %lld, and the model has %d codebooks.", (long long)upper,
                           context->codebooks);
  }
  int64_t masked_from = upper;
  if (simple->upper_codebooks == UPPER_KEEP && upper < context->coarse_codebooks) {
    masked_from = context->coarse_codebooks;
  }
  int64_t interval = simple->periodic_prompt;
  if (interval == VAMP_MASK_BEAT) {
    char pointer[VAMP_MASK_POINTER_SIZE];
    vamp_mask_pointer_join(pointer, simple->pointer, "periodic_prompt");
    int status = vamp_mask_ear_interval(ear, pointer, &interval, error);
    if (status != 0) {
      return status;
    }
  }
  json_t *lower = upper > 0 ? lower_node(simple, interval, context) : NULL;
  json_t *fill = NULL;
  if (masked_from < codebooks || !lower) {
    const char *name = masked_from >= context->coarse_codebooks ? "fine codebooks" : "upper codebooks";
    fill = masked_from < codebooks
               ? json_pack("{s:s, s:s, s:i, s:[I, I]}", "name", name, "pattern", "fill", "value", 1,
                           "codebooks", (json_int_t)masked_from, (json_int_t)codebooks)
               : json_pack("{s:s, s:i}", "pattern", "fill", "value", 0);
  }
  json_t *result = lower && fill ? json_pack("{s:[o, o]}", "any", lower, fill) : lower ? lower : fill;
  if (!result || (upper > 0 && !lower)) {
    json_decref(result);
    return vamp_fail(error, VAMP_MEMORY, "out of memory for a mask.");
  }
  *tree = result;
  return 0;
}
