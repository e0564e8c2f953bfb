/*
 * periodic: keeps `width` frames at every `interval` and masks the rest; the first of them stands at
 * `offset`. An interval of 0 keeps none; "beat" is the music's beat in whole frames.
 */
#include "engine/mask/internal.h"

struct periodic_parameters {
  int64_t interval, width, offset;
};

static int periodic_parse(struct vamp_mask_fields *fields, void *parameters) {
  struct periodic_parameters *periodic = parameters;
  *periodic = (struct periodic_parameters){.interval = 7, .width = 1, .offset = -1};
  vamp_mask_fields_interval(fields, "interval", &periodic->interval);
  vamp_mask_fields_integer(fields, "width", 1, VAMP_MASK_MAX_INTEGER, &periodic->width);
  vamp_mask_fields_offset(fields, "offset", &periodic->offset);
  return fields->status;
}

static int periodic_paint(const void *parameters, const struct vamp_mask_canvas *canvas,
                          struct vamp_error *error) {
  const struct periodic_parameters *periodic = parameters;
  int64_t frames = canvas->context->frames, interval = periodic->interval;
  if (interval == VAMP_MASK_BEAT) {
    char pointer[VAMP_MASK_POINTER_SIZE];
    vamp_mask_pointer_join(pointer, canvas->pointer, "interval");
    int status = vamp_mask_ear_interval(canvas->ear, pointer, &interval, error);
    if (status != 0) {
      return status;
    }
  }
  vamp_mask_canvas_frames(canvas, 0, frames, VAMP_CELL_MASK);
  if (interval == 0) {
    return 0;
  }
  int64_t start = vamp_mask_offset_frame(periodic->offset, interval, periodic->width, canvas);
  for (int64_t frame = start; frame < frames; frame += interval) {
    vamp_mask_canvas_frames(canvas, frame, frame + periodic->width, VAMP_CELL_KEEP);
  }
  return 0;
}

static int periodic_describe(const void *parameters, json_t *object) {
  const struct periodic_parameters *periodic = parameters;
  return json_object_set_new(object, "interval", vamp_mask_interval_json(periodic->interval)) |
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
