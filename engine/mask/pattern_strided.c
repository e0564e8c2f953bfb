/*
 * strided: masks `length` frames out of every `stride`, the first of them at `offset`. The counterpart
 * of periodic, for those who think of what is invented and not of what is kept.
 */
#include "engine/mask/internal.h"

struct strided_parameters {
  int64_t stride, length, offset;
};

static int strided_parse(struct vamp_mask_fields *fields, void *parameters) {
  struct strided_parameters *strided = parameters;
  *strided = (struct strided_parameters){.stride = 2, .length = 1, .offset = 0};
  vamp_mask_fields_integer(fields, "stride", 1, VAMP_MASK_MAX_INTEGER, &strided->stride);
  vamp_mask_fields_integer(fields, "length", 1, VAMP_MASK_MAX_INTEGER, &strided->length);
  vamp_mask_fields_offset(fields, "offset", &strided->offset);
  if (strided->length > strided->stride) {
    return vamp_mask_fields_fail(fields, VAMP_INVALID, "length",
                                 "length is %lld, more than the stride of %lld: of every `stride` frames "
                                 "`length` are masked.",
                                 (long long)strided->length, (long long)strided->stride);
  }
  return fields->status;
}

static int strided_paint(const void *parameters, const struct vamp_mask_canvas *canvas,
                         struct vamp_error *error) {
  (void)error;
  const struct strided_parameters *strided = parameters;
  int64_t frames = canvas->context->frames;
  vamp_mask_canvas_frames(canvas, 0, frames, VAMP_CELL_KEEP);
  int64_t start = vamp_mask_offset_frame(strided->offset, strided->stride, strided->length, canvas);
  for (int64_t frame = start; frame < frames; frame += strided->stride) {
    vamp_mask_canvas_frames(canvas, frame, frame + strided->length, VAMP_CELL_MASK);
  }
  return 0;
}

static int strided_describe(const void *parameters, json_t *object) {
  const struct strided_parameters *strided = parameters;
  return json_object_set_new(object, "stride", json_integer(strided->stride)) |
         json_object_set_new(object, "length", json_integer(strided->length)) |
         vamp_mask_describe_offset(object, strided->offset);
}

const struct vamp_mask_pattern vamp_mask_pattern_strided = {
    .name = "strided",
    .parameters_size = sizeof(struct strided_parameters),
    .parse = strided_parse,
    .paint = strided_paint,
    .describe = strided_describe,
};
