/*
 * fill: masks everything where it speaks, or with "value": 0 nothing. The simple form needs it for the
 * codebooks that follow no pattern.
 */
#include "engine/mask/internal.h"

struct fill_parameters {
  int64_t value;
};

static int fill_parse(struct vamp_mask_fields *fields, void *parameters) {
  struct fill_parameters *fill = parameters;
  fill->value = 1;
  vamp_mask_fields_integer(fields, "value", 0, 1, &fill->value);
  return fields->status;
}

static int fill_paint(const void *parameters, const struct vamp_mask_canvas *canvas,
                      struct vamp_error *error) {
  (void)error;
  const struct fill_parameters *fill = parameters;
  vamp_mask_canvas_frames(canvas, 0, canvas->context->frames, fill->value ? VAMP_CELL_MASK : VAMP_CELL_KEEP);
  return 0;
}

static int fill_describe(const void *parameters, json_t *object) {
  const struct fill_parameters *fill = parameters;
  return json_object_set_new(object, "value", json_integer(fill->value));
}

const struct vamp_mask_pattern vamp_mask_pattern_fill = {
    .name = "fill",
    .parameters_size = sizeof(struct fill_parameters),
    .parse = fill_parse,
    .paint = fill_paint,
    .describe = fill_describe,
};
