/*
 * beat: keeps what is around the music's beats, from `before_ms` before to `after_ms` after each, and
 * masks the rest, so that the pulse stays and the music is new; with "invert" it masks the beats.
 *
 * "downbeats": only the first beats of bars. "every": only every so many of them, from the first on. A
 * frame that the time touches belongs to it, and the beat's own frame always does. Where there is no
 * pulse there is nothing to keep.
 */
#include <math.h>

#include "engine/mask/internal.h"

#define MOST_MILLISECONDS 60000

struct beat_parameters {
  double before_ms, after_ms;
  bool downbeats;
  int64_t every;
  bool invert;
};

static int beat_parse(struct vamp_mask_fields *fields, void *parameters) {
  struct beat_parameters *beat = parameters;
  *beat = (struct beat_parameters){.before_ms = 50, .after_ms = 100, .every = 1};
  vamp_mask_fields_number(fields, "before_ms", 0, MOST_MILLISECONDS, &beat->before_ms);
  vamp_mask_fields_number(fields, "after_ms", 0, MOST_MILLISECONDS, &beat->after_ms);
  vamp_mask_fields_boolean(fields, "downbeats", &beat->downbeats);
  vamp_mask_fields_integer(fields, "every", 1, VAMP_MASK_MAX_INTEGER, &beat->every);
  vamp_mask_fields_boolean(fields, "invert", &beat->invert);
  return fields->status;
}

static int beat_paint(const void *parameters, const struct vamp_mask_canvas *canvas,
                      struct vamp_error *error) {
  const struct beat_parameters *beat = parameters;
  const struct vamp_mask_beats *beats;
  char pointer[VAMP_MASK_POINTER_SIZE];
  vamp_mask_pointer_join(pointer, canvas->pointer, "pattern");
  int status = vamp_mask_ear_beats(canvas->ear, pointer, &beats, error);
  if (status != 0) {
    return status;
  }
  enum vamp_mask_cell around = beat->invert ? VAMP_CELL_MASK : VAMP_CELL_KEEP;
  vamp_mask_canvas_frames(canvas, 0, canvas->context->frames, beat->invert ? VAMP_CELL_KEEP : VAMP_CELL_MASK);
  double before = vamp_mask_seconds_to_frames(canvas->context, beat->before_ms / 1000);
  double after = vamp_mask_seconds_to_frames(canvas->context, beat->after_ms / 1000);
  int64_t apart = beat->downbeats ? beat->every * VAMP_BEATS_A_BAR : beat->every;
  for (int64_t i = beat->downbeats ? beats->downbeat : 0; i < beats->events.count; i += apart) {
    double frame = (double)beats->events.steps[i] / VAMP_STEPS_PER_FRAME;
    int64_t from = (int64_t)floor(frame - before), to = (int64_t)ceil(frame + after);
    vamp_mask_canvas_frames(canvas, from, to > (int64_t)frame ? to : (int64_t)frame + 1, around);
  }
  return 0;
}

static int beat_describe(const void *parameters, json_t *object) {
  const struct beat_parameters *beat = parameters;
  return json_object_set_new(object, "before_ms", json_real(beat->before_ms)) |
         json_object_set_new(object, "after_ms", json_real(beat->after_ms)) |
         json_object_set_new(object, "downbeats", json_boolean(beat->downbeats)) |
         json_object_set_new(object, "every", json_integer(beat->every)) |
         json_object_set_new(object, "invert", json_boolean(beat->invert));
}

const struct vamp_mask_pattern vamp_mask_pattern_beat = {
    .name = "beat",
    .parameters_size = sizeof(struct beat_parameters),
    .parse = beat_parse,
    .paint = beat_paint,
    .describe = beat_describe,
};
