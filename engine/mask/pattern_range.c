/*
 * range: masks one region. A hole to fill (inpainting), all from a point on (continuation), the middle
 * of a loop.
 *
 * Each end is given in seconds (rounded to the nearest frame) or in frames; the region is [start, end).
 * Missing ends are the clip's. A region that reaches beyond the clip is an error, because it is nearly
 * always a mistake of units; up to one frame is forgiven, since a clip's length is no multiple of a
 * frame's.
 */
#include "engine/mask/internal.h"

#include <math.h>

/* Longer than any clip. Finite, so that the error names the length of the clip and not of a float. */
#define MOST_SECONDS 1e9

struct range_parameters {
  bool has_start_s, has_end_s, has_start_frame, has_end_frame;
  double start_s, end_s;
  int64_t start_frame, end_frame;
};

static int range_parse(struct vamp_mask_fields *fields, void *parameters) {
  struct range_parameters *range = parameters;
  range->has_start_s = vamp_mask_fields_number(fields, "start_s", 0, MOST_SECONDS, &range->start_s);
  range->has_end_s = vamp_mask_fields_number(fields, "end_s", 0, MOST_SECONDS, &range->end_s);
  range->has_start_frame =
      vamp_mask_fields_integer(fields, "start_frame", 0, VAMP_MASK_MAX_FRAMES, &range->start_frame);
  range->has_end_frame =
      vamp_mask_fields_integer(fields, "end_frame", 1, VAMP_MASK_MAX_FRAMES, &range->end_frame);
  if (range->has_start_s && range->has_start_frame) {
    vamp_mask_fields_fail(fields, VAMP_INVALID, "start_frame", "give start_s or start_frame, not both.");
  }
  if (range->has_end_s && range->has_end_frame) {
    vamp_mask_fields_fail(fields, VAMP_INVALID, "end_frame", "give end_s or end_frame, not both.");
  }
  return fields->status;
}

static int range_fail(const struct vamp_mask_canvas *canvas, const char *field, const char *problem,
                      struct vamp_error *error) {
  char pointer[VAMP_MASK_POINTER_SIZE];
  vamp_mask_pointer_join(pointer, canvas->pointer, field);
  const struct vamp_mask_context *context = canvas->context;
  return vamp_fail_field(error, VAMP_INVALID, pointer, "%s %s: the clip has %d frames, %.3f s.", field,
                         problem, context->frames,
                         (double)context->frames * context->hop_length / context->sample_rate);
}

static int range_paint(const void *parameters, const struct vamp_mask_canvas *canvas,
                       struct vamp_error *error) {
  const struct range_parameters *range = parameters;
  int64_t frames = canvas->context->frames;
  int64_t start = range->start_frame, end = range->has_end_frame ? range->end_frame : frames;
  if (range->has_start_s) {
    start = llround(vamp_mask_seconds_to_frames(canvas->context, range->start_s));
  }
  if (range->has_end_s) {
    end = llround(vamp_mask_seconds_to_frames(canvas->context, range->end_s));
    end = end == frames + 1 ? frames : end;
  }
  const char *end_field = range->has_end_frame ? "end_frame" : "end_s";
  if (end > frames) {
    return range_fail(canvas, end_field, "is beyond the end", error);
  }
  if (start >= frames) {
    return range_fail(canvas, range->has_start_s ? "start_s" : "start_frame", "is at or beyond the end",
                      error);
  }
  if (start >= end) {
    return range_fail(canvas, end_field, "leaves no frame after the start", error);
  }
  vamp_mask_canvas_frames(canvas, 0, frames, VAMP_CELL_KEEP);
  vamp_mask_canvas_frames(canvas, start, end, VAMP_CELL_MASK);
  return 0;
}

static int range_describe(const void *parameters, json_t *object) {
  const struct range_parameters *range = parameters;
  int failed = range->has_start_s
                   ? json_object_set_new(object, "start_s", json_real(range->start_s))
                   : json_object_set_new(object, "start_frame", json_integer(range->start_frame));
  if (range->has_end_s) {
    failed |= json_object_set_new(object, "end_s", json_real(range->end_s));
  } else if (range->has_end_frame) {
    failed |= json_object_set_new(object, "end_frame", json_integer(range->end_frame));
  }
  return failed;
}

const struct vamp_mask_pattern vamp_mask_pattern_range = {
    .name = "range",
    .parameters_size = sizeof(struct range_parameters),
    .parse = range_parse,
    .paint = range_paint,
    .describe = range_describe,
};
