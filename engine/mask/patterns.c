/*
 * The table of patterns, and what several of them share.
 *
 * A pattern is one file, pattern_NAME.c, and one entry here.
 */
#include "engine/mask/internal.h"

#include <stdio.h>
#include <string.h>

static const struct vamp_mask_pattern *const patterns[] = {
    &vamp_mask_pattern_random,   &vamp_mask_pattern_periodic, &vamp_mask_pattern_block,
    &vamp_mask_pattern_strided,  &vamp_mask_pattern_range,    &vamp_mask_pattern_bitmap,
    &vamp_mask_pattern_fill,     &vamp_mask_pattern_beat,     &vamp_mask_pattern_onset,
    &vamp_mask_pattern_adaptive,
};

#define COUNT(array) (sizeof(array) / sizeof(array)[0])

int vamp_mask_pattern_find(const char *name, const char *pointer, const struct vamp_mask_pattern **pattern,
                           struct vamp_error *error) {
  char known[160] = "";
  size_t used = 0;
  for (size_t i = 0; i < COUNT(patterns); i++) {
    if (strcmp(name, patterns[i]->name) == 0) {
      *pattern = patterns[i];
      return 0;
    }
    if (used < sizeof known) {
      used += (size_t)snprintf(known + used, sizeof known - used, "%s%s", i ? ", " : "", patterns[i]->name);
    }
  }
  char quoted[VAMP_MASK_QUOTE_SIZE];
  vamp_mask_quote(quoted, name);
  return vamp_fail_field(error, VAMP_INVALID, pointer, "%s is not a pattern. Known are: %s.", quoted, known);
}

void vamp_mask_canvas_frames(const struct vamp_mask_canvas *canvas, int64_t from, int64_t to,
                             enum vamp_mask_cell value) {
  int64_t frames = canvas->context->frames;
  from = from < 0 ? 0 : from;
  to = to > frames ? frames : to;
  if (from >= to) {
    return;
  }
  for (int codebook = canvas->low; codebook < canvas->high; codebook++) {
    memset(canvas->cells + codebook * frames + from, value, (size_t)(to - from));
  }
}

void vamp_mask_fields_interval(struct vamp_mask_fields *fields, const char *name, int64_t *interval) {
  const char *text = json_string_value(json_object_get(fields->object, name));
  if (text && strcmp(text, "beat") == 0) {
    vamp_mask_fields_value(fields, name);
    *interval = VAMP_MASK_BEAT;
    return;
  }
  if (text) {
    char quoted[VAMP_MASK_QUOTE_SIZE];
    vamp_mask_quote(quoted, text);
    vamp_mask_fields_fail(fields, VAMP_INVALID, name, "%s is %s: it must be an integer, or \"beat\".", name,
                          quoted);
    return;
  }
  vamp_mask_fields_integer(fields, name, 0, VAMP_MASK_MAX_INTEGER, interval);
}

json_t *vamp_mask_interval_json(int64_t interval) {
  return interval == VAMP_MASK_BEAT ? json_string("beat") : json_integer(interval);
}

void vamp_mask_fields_offset(struct vamp_mask_fields *fields, const char *name, int64_t *offset) {
  const char *text = json_string_value(json_object_get(fields->object, name));
  if (!text) {
    vamp_mask_fields_integer(fields, name, 0, VAMP_MASK_MAX_INTEGER, offset);
    return;
  }
  vamp_mask_fields_value(fields, name);
  if (strcmp(text, "random") == 0) {
    *offset = -1;
    return;
  }
  char quoted[VAMP_MASK_QUOTE_SIZE];
  vamp_mask_quote(quoted, text);
  vamp_mask_fields_fail(fields, VAMP_INVALID, name, "%s is %s: it must be an integer, or \"random\".", name,
                        quoted);
}

int vamp_mask_describe_offset(json_t *object, int64_t offset) {
  return json_object_set_new(object, "offset", offset < 0 ? json_string("random") : json_integer(offset));
}

/* A random offset lets the first group stand anywhere in the first period as long as all of it does, and
 * all of it in the clip: so no gap is longer than the pattern's own, and an interval longer than the clip
 * still gives one prompt. */
int64_t vamp_mask_offset_frame(int64_t offset, int64_t interval, int64_t width,
                               const struct vamp_mask_canvas *canvas) {
  if (offset >= 0) {
    return offset;
  }
  int64_t room = interval < canvas->context->frames ? interval : canvas->context->frames;
  int64_t places = room - width + 1;
  return places > 1 ? vamp_mask_draw_below(canvas->draw, (uint32_t)places) : 0;
}

double vamp_mask_seconds_to_frames(const struct vamp_mask_context *context, double seconds) {
  return seconds * context->sample_rate / context->hop_length;
}
