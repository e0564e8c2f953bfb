/*
 * adaptive: masks exactly round(ratio * frames) frames, the most active ones; with "invert" the least.
 *
 * Activity is a feature of the frame: "rms" its loudness, "flux" how much begins in it, "flatness" how
 * much of it is noise and not tone. Of frames that are equal the earlier one is masked.
 */
#include <stdlib.h>

#include "engine/mask/internal.h"

enum { FEATURE_RMS, FEATURE_FLUX, FEATURE_FLATNESS };
static const char *const feature_names[] = {"rms", "flux", "flatness", NULL};

struct adaptive_parameters {
  int feature;
  double ratio;
  bool invert;
};

static int adaptive_parse(struct vamp_mask_fields *fields, void *parameters) {
  struct adaptive_parameters *adaptive = parameters;
  *adaptive = (struct adaptive_parameters){.feature = FEATURE_RMS, .ratio = 0.5};
  vamp_mask_fields_choice(fields, "feature", feature_names, &adaptive->feature);
  vamp_mask_fields_number(fields, "ratio", 0, 1, &adaptive->ratio);
  vamp_mask_fields_boolean(fields, "invert", &adaptive->invert);
  return fields->status;
}

struct ranked_frame {
  float activity;
  int frame;
};

static int compare_ranked(const void *left, const void *right) {
  const struct ranked_frame *a = left, *b = right;
  if (a->activity != b->activity) {
    return a->activity > b->activity ? -1 : 1;
  }
  return (a->frame > b->frame) - (a->frame < b->frame);
}

static float activity_of(const struct vamp_mask_features *features, int feature, int frame) {
  switch (feature) {
  case FEATURE_RMS:
    return features->rms[frame];
  case FEATURE_FLUX: {
    float sum = 0;
    for (int i = 0; i < VAMP_STEPS_PER_FRAME; i++) {
      sum += features->flux[frame * VAMP_STEPS_PER_FRAME + i];
    }
    return sum;
  }
  default:
    return features->flatness[frame];
  }
}

static int adaptive_paint(const void *parameters, const struct vamp_mask_canvas *canvas,
                          struct vamp_error *error) {
  const struct adaptive_parameters *adaptive = parameters;
  const struct vamp_mask_features *features;
  char pointer[VAMP_MASK_POINTER_SIZE];
  vamp_mask_pointer_join(pointer, canvas->pointer, "pattern");
  int status = vamp_mask_ear_features(canvas->ear, pointer, &features, error);
  if (status != 0) {
    return status;
  }
  struct ranked_frame *ranked = malloc((size_t)features->frames * sizeof *ranked);
  if (!ranked) {
    return vamp_fail(error, VAMP_MEMORY, "out of memory for a mask.");
  }
  for (int frame = 0; frame < features->frames; frame++) {
    float activity = activity_of(features, adaptive->feature, frame);
    ranked[frame] = (struct ranked_frame){adaptive->invert ? -activity : activity, frame};
  }
  qsort(ranked, (size_t)features->frames, sizeof *ranked, compare_ranked);
  vamp_mask_canvas_frames(canvas, 0, features->frames, VAMP_CELL_KEEP);
  int64_t masked = vamp_mask_share(adaptive->ratio, features->frames);
  for (int64_t i = 0; i < masked; i++) {
    vamp_mask_canvas_frames(canvas, ranked[i].frame, ranked[i].frame + 1, VAMP_CELL_MASK);
  }
  free(ranked);
  return 0;
}

static int adaptive_describe(const void *parameters, json_t *object) {
  const struct adaptive_parameters *adaptive = parameters;
  return json_object_set_new(object, "feature", json_string(feature_names[adaptive->feature])) |
         json_object_set_new(object, "ratio", json_real(adaptive->ratio)) |
         json_object_set_new(object, "invert", json_boolean(adaptive->invert));
}

const struct vamp_mask_pattern vamp_mask_pattern_adaptive = {
    .name = "adaptive",
    .parameters_size = sizeof(struct adaptive_parameters),
    .parse = adaptive_parse,
    .paint = adaptive_paint,
    .describe = adaptive_describe,
};
