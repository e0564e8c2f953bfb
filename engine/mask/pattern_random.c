/*
 * random: a random choice of exactly round(ratio * n), of the tokens on the codebooks where it speaks
 * ("per": "token") or of the frames, each with all of those codebooks ("per": "frame").
 */
#include "engine/mask/internal.h"

enum { PER_TOKEN, PER_FRAME };
static const char *const per_names[] = {"token", "frame", NULL};

struct random_parameters {
  double ratio;
  int per;
};

static int random_parse(struct vamp_mask_fields *fields, void *parameters) {
  struct random_parameters *random = parameters;
  random->ratio = 0.5;
  vamp_mask_fields_number(fields, "ratio", 0, 1, &random->ratio);
  vamp_mask_fields_choice(fields, "per", per_names, &random->per);
  return fields->status;
}

static int random_paint(const void *parameters, const struct vamp_mask_canvas *canvas,
                        struct vamp_error *error) {
  (void)error;
  const struct random_parameters *random = parameters;
  int64_t frames = canvas->context->frames;
  int64_t items = random->per == PER_FRAME ? frames : (canvas->high - canvas->low) * frames;
  struct vamp_mask_choice choice = {
      .draw = canvas->draw,
      .items = (uint32_t)items,
      .chosen = (uint32_t)vamp_mask_share(random->ratio, items),
  };
  if (random->per == PER_FRAME) {
    for (int64_t frame = 0; frame < frames; frame++) {
      vamp_mask_canvas_frames(canvas, frame, frame + 1, vamp_mask_choice_next(&choice));
    }
    return 0;
  }
  uint8_t *cells = canvas->cells + canvas->low * frames;
  for (int64_t i = 0; i < items; i++) {
    cells[i] = vamp_mask_choice_next(&choice);
  }
  return 0;
}

static int random_describe(const void *parameters, json_t *object) {
  const struct random_parameters *random = parameters;
  return json_object_set_new(object, "ratio", json_real(random->ratio)) |
         json_object_set_new(object, "per", json_string(per_names[random->per]));
}

const struct vamp_mask_pattern vamp_mask_pattern_random = {
    .name = "random",
    .parameters_size = sizeof(struct random_parameters),
    .parse = random_parse,
    .paint = random_paint,
    .describe = random_describe,
};
