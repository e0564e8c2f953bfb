/*
 * periodic: keeps `width` frames at every `interval` and masks the rest; the first of them stands at
 * `offset`. An interval of 0 keeps none.
 */
#include "engine/mask/internal.h"

struct periodic_parameters {
  int64_t interval, width, offset;
};

static int periodic_parse(struct vamp_mask_fields *fields, void *parameters) {
  struct periodic_parameters *periodic = parameters;
  *periodic = (struct periodic_parameters){.interval = 7, .width = 1, .offset = -1};
  if (json_is_string(json_object_get(fields->object, "interval"))) {
    return vamp_mask_fields_fail(fields, VAMP_UNSUPPORTED, "interval",
                                 "an interval taken from the music's tempo is not available in this version: "
                                 "give a number of frames (a frame is about 17.4 ms).");
  }
  vamp_mask_fields_integer(fields, "interval", 0, VAMP_MASK_MAX_INTEGER, &periodic->interval);
  vamp_mask_fields_integer(fields, "width", 1, VAMP_MASK_MAX_INTEGER, &periodic->width);
  vamp_mask_fields_offset(fields, "offset", &periodic->offset);
  return fields->status;
}

static int periodic_paint(const void *parameters, const struct vamp_mask_canvas *canvas,
                          struct vamp_error *error) {
  (void)error;
  const struct periodic_parameters *periodic = parameters;
  int64_t frames = canvas->context->frames;
  vamp_mask_canvas_frames(canvas, 0, frames, VAMP_CELL_MASK);
  if (periodic->interval == 0) {
    return 0;
  }
  int64_t start = vamp_mask_offset_frame(periodic->offset, periodic->interval, periodic->width, canvas);
  for (int64_t frame = start; frame < frames; frame += periodic->interval) {
    vamp_mask_canvas_frames(canvas, frame, frame + periodic->width, VAMP_CELL_KEEP);
  }
  return 0;
}

static int periodic_describe(const void *parameters, json_t *object) {
  const struct periodic_parameters *periodic = parameters;
  return json_object_set_new(object, "interval", json_integer(periodic->interval)) |
         json_object_set_new(object, "width", json_integer(periodic->width)) |
         vamp_mask_describe_offset(object, periodic->offset);
}

const struct vamp_mask_pattern vamp_mask_pattern_periodic = {
    .name = "periodic",
    .parameters_size = sizeof(struct periodic_parameters),
    .parse = periodic_parse,
    .paint = periodic_paint,
    .describe = periodic_describe,
};
