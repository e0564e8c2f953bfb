/*
 * onset: keeps `width` frames around every note onset and masks the rest, so that the notes begin where
 * they began and are otherwise new; with "invert" it masks the onsets and keeps what sounds on.
 *
 * The onset's frame stands in the middle of the width, of an even width just after it, as the published
 * code has it. Where nothing begins there is nothing to keep.
 */
#include "engine/mask/internal.h"

struct onset_parameters {
  int64_t width;
  bool invert;
};

static int onset_parse(struct vamp_mask_fields *fields, void *parameters) {
  struct onset_parameters *onset = parameters;
  *onset = (struct onset_parameters){.width = 3};
  vamp_mask_fields_integer(fields, "width", 1, VAMP_MASK_MAX_INTEGER, &onset->width);
  vamp_mask_fields_boolean(fields, "invert", &onset->invert);
  return fields->status;
}

static int onset_paint(const void *parameters, const struct vamp_mask_canvas *canvas,
                       struct vamp_error *error) {
  const struct onset_parameters *onset = parameters;
  const struct vamp_mask_events *events;
  char pointer[VAMP_MASK_POINTER_SIZE];
  vamp_mask_pointer_join(pointer, canvas->pointer, "pattern");
  int status = vamp_mask_ear_onsets(canvas->ear, pointer, &events, error);
  if (status != 0) {
    return status;
  }
  enum vamp_mask_cell around = onset->invert ? VAMP_CELL_MASK : VAMP_CELL_KEEP;
  vamp_mask_canvas_frames(canvas, 0, canvas->context->frames,
                          onset->invert ? VAMP_CELL_KEEP : VAMP_CELL_MASK);
  for (int i = 0; i < events->count; i++) {
    int64_t from = events->steps[i] / VAMP_STEPS_PER_FRAME - onset->width / 2;
    vamp_mask_canvas_frames(canvas, from, from + onset->width, around);
  }
  return 0;
}

static int onset_describe(const void *parameters, json_t *object) {
  const struct onset_parameters *onset = parameters;
  return json_object_set_new(object, "width", json_integer(onset->width)) |
         json_object_set_new(object, "invert", json_boolean(onset->invert));
}

const struct vamp_mask_pattern vamp_mask_pattern_onset = {
    .name = "onset",
    .parameters_size = sizeof(struct onset_parameters),
    .parse = onset_parse,
    .paint = onset_paint,
    .describe = onset_describe,
};
