/*
 * Spec + context -> the masks of all passes.
 *
 * The simple form goes the long way on purpose: to the tree it stands for, as JSON, parsed and evaluated
 * like a tree that a user wrote.
 */
#include "engine/mask/internal.h"

#include <stdlib.h>

/* Masks and layers of one plan, in bytes: an hour of audio in sixteen passes of a dozen layers fits. */
#define MOST_BYTES ((size_t)256 << 20)

static int check_context(const struct vamp_mask_context *context, struct vamp_error *error) {
  if (context->codebooks < 1 || context->codebooks > VAMP_MASK_MAX_CODEBOOKS ||
      context->coarse_codebooks < 0 || context->coarse_codebooks > context->codebooks) {
    return vamp_fail(error, VAMP_INVALID,
                     "a mask is for 1 to %d codebooks, and this is for %d, %d of them coarse.",
                     VAMP_MASK_MAX_CODEBOOKS, context->codebooks, context->coarse_codebooks);
  }
  if (context->sample_rate < 1 || context->hop_length < 1) {
    return vamp_fail(error, VAMP_INVALID, "a mask needs the sample rate and the hop length of its frames.");
  }
  if (context->frames < 1) {
    return vamp_fail(error, VAMP_INVALID, "a mask needs at least one frame, and this is for %d.",
                     context->frames);
  }
  if (context->frames > VAMP_MASK_MAX_FRAMES) {
    return vamp_fail(error, VAMP_LIMIT, "a mask has at most %d frames, and this is for %d.",
                     VAMP_MASK_MAX_FRAMES, context->frames);
  }
  if (context->seed > (uint64_t)VAMP_MASK_MAX_SEED) {
    return vamp_fail(error, VAMP_INVALID, "a seed is at most %lld.", (long long)VAMP_MASK_MAX_SEED);
  }
  return 0;
}

static int check_size(const struct vamp_mask_spec *spec, const struct vamp_mask_context *context,
                      struct vamp_error *error) {
  size_t tokens = (size_t)context->codebooks * (size_t)context->frames, bytes = 0;
  for (int i = 0; i < spec->count; i++) {
    const struct vamp_mask_node *tree = spec->forms[i].tree;
    bytes += tokens + (size_t)(tree ? vamp_mask_node_count(tree) : 8) * (tokens / 8);
  }
  if (bytes > MOST_BYTES) {
    return vamp_fail(
        error, VAMP_LIMIT,
        "the masks and layers of %d passes over %d frames take too much memory: use fewer passes, "
        "simpler masks or a shorter clip.",
        spec->count, context->frames);
  }
  return 0;
}

static int build_pass(const struct vamp_mask_form *form, const struct vamp_mask_context *context,
                      struct vamp_mask_ear *ear, struct vamp_mask_pass *pass, struct vamp_error *error) {
  struct vamp_mask_node *parsed = NULL;
  json_t *tree_json = NULL;
  int status = 0;
  if (!form->tree) {
    status = vamp_mask_simple_tree(&form->simple, context, ear, &tree_json, error);
    if (status == 0) {
      status = vamp_mask_node_parse(tree_json, "/tree", &parsed, error);
    }
    json_decref(tree_json);
    if (status != 0) {
      return status;
    }
  }
  const struct vamp_mask_node *tree = form->tree ? form->tree : parsed;
  size_t tokens = (size_t)context->codebooks * (size_t)context->frames;
  pass->mask = (struct vamp_mask){context->codebooks, context->frames, malloc(tokens)};
  if (!pass->mask.data) {
    status = vamp_fail(error, VAMP_MEMORY, "out of memory for a mask of %zu tokens.", tokens);
    goto done;
  }
  status = vamp_mask_evaluate(tree, context, ear, pass->seed, pass->mask.data, &pass->layers, error);
  if (status != 0) {
    goto done;
  }
  pass->tree = vamp_mask_node_json(tree, context->codebooks);
  pass->parameters = form->tree ? NULL : vamp_mask_simple_json(&form->simple);
  if (!pass->tree || (!form->tree && !pass->parameters)) {
    status = vamp_fail(error, VAMP_MEMORY, "out of memory for a mask.");
  }
done:
  vamp_mask_node_free(parsed);
  return status;
}

int vamp_mask_plan_build(const struct vamp_mask_spec *spec, const struct vamp_mask_context *context,
                         struct vamp_mask_plan **out, struct vamp_error *error) {
  int status = check_context(context, error);
  if (status == 0) {
    status = check_size(spec, context, error);
  }
  if (status != 0) {
    return status;
  }
  struct vamp_mask_ear ear = vamp_mask_ear_begin(context);
  struct vamp_mask_plan *plan = calloc(1, sizeof *plan);
  if (plan) {
    plan->passes = calloc((size_t)spec->count, sizeof *plan->passes);
  }
  if (!plan || !plan->passes) {
    status = vamp_fail(error, VAMP_MEMORY, "out of memory for a mask.");
    goto err;
  }
  plan->context = *context;
  plan->context.samples = NULL;
  plan->context.sample_count = 0;
  plan->seed = spec->has_seed ? spec->seed : context->seed;
  for (int i = 0; i < spec->count; i++) {
    const struct vamp_mask_form *form = &spec->forms[i];
    plan->count = i + 1;
    plan->passes[i].seed = form->has_seed ? form->seed : vamp_mask_pass_seed(plan->seed, i);
    status = build_pass(form, context, &ear, &plan->passes[i], error);
    if (status != 0) {
      goto err;
    }
  }
  vamp_mask_ear_close(&ear);
  *out = plan;
  return 0;
err:
  vamp_mask_ear_close(&ear);
  vamp_mask_plan_free(plan);
  return status;
}

void vamp_mask_plan_free(struct vamp_mask_plan *plan) {
  if (!plan) {
    return;
  }
  for (int i = 0; i < plan->count; i++) {
    struct vamp_mask_pass *pass = &plan->passes[i];
    free(pass->mask.data);
    json_decref(pass->tree);
    json_decref(pass->parameters);
    vamp_mask_layers_free(&pass->layers);
  }
  free(plan->passes);
  free(plan);
}

int vamp_mask_plan_passes(const struct vamp_mask_plan *plan) {
  return plan->count;
}

const struct vamp_mask *vamp_mask_plan_mask(const struct vamp_mask_plan *plan, int pass) {
  return pass >= 0 && pass < plan->count ? &plan->passes[pass].mask : NULL;
}

uint64_t vamp_mask_plan_seed(const struct vamp_mask_plan *plan) {
  return plan->seed;
}

double vamp_mask_density(const struct vamp_mask *mask, int low, int high) {
  int64_t masked = 0, tokens = (int64_t)(high - low) * mask->frames;
  const uint8_t *cells = mask->data + (size_t)low * (size_t)mask->frames;
  for (int64_t i = 0; i < tokens; i++) {
    masked += cells[i];
  }
  return tokens > 0 ? (double)masked / (double)tokens : 0;
}
