/*
 * JSON parameters -> struct vamp_request.
 *
 * The same function serves `vamp run --mask ...` and POST /v1/vamp: what a parameter means is decided
 * here and nowhere else, so the same parameters give the same bytes through both doors. It is strict: a
 * field it does not know is an error with a pointer, because a misspelt "mask_ration" that is silently
 * ignored costs its author an afternoon.
 *
 * A missing seed is drawn here, from the kernel, and becomes part of the request: from then on nothing
 * is random, and the answer can name the seed that repeats it.
 */
#include <stdio.h>
#include <string.h>
#include <sys/random.h>

#include "engine/request/internal.h"

/* A field that is known one level further down, where docs that list fields by themselves leave it to the
 * reader to put it. NULL: it is known nowhere. */
static const char *place_of(const char *name) {
  if (vamp_mask_has_field(name)) {
    return "mask";
  }
  return vamp_sampling_has(name) ? "sampling" : NULL;
}

static int check_names(const json_t *params, struct vamp_error *error) {
  static const char *const KNOWN[] = {"preset", "mask", "sampling", "seed", "model", "format"};
  const char *name;
  json_t *value;
  json_object_foreach((json_t *)params, name, value) {
    bool known = false;
    for (size_t i = 0; i < sizeof KNOWN / sizeof KNOWN[0]; i++) {
      known = known || strcmp(name, KNOWN[i]) == 0;
    }
    if (!known) {
      char pointer[96];
      vamp_json_point("", name, pointer, sizeof pointer);
      const char *place = place_of(name);
      if (place) {
        return vamp_fail_field(error, VAMP_INVALID, pointer,
                               "Unknown field %s; it belongs in \"%s\": {\"%s\": {\"%s\": ...}}.", pointer,
                               place, place, name);
      }
      return vamp_fail_field(error, VAMP_INVALID, pointer,
                             "Unknown field %s; known here: preset, mask, sampling, seed, model, format.",
                             pointer);
    }
  }
  return VAMP_OK;
}

static int random_seed(uint64_t *seed, struct vamp_error *error) {
  uint64_t word;
  if (getrandom(&word, sizeof word, 0) != (ssize_t)sizeof word) {
    return vamp_fail(error, VAMP_IO, "The system gave no random numbers; give a \"seed\".");
  }
  *seed = word & VAMP_SEED_MAX;
  return VAMP_OK;
}

static int parse_seed(const json_t *params, uint64_t *seed, struct vamp_error *error) {
  const json_t *value = json_object_get(params, "seed");
  if (!value) {
    return random_seed(seed, error);
  }
  int64_t number = 0;
  int status = vamp_json_whole(value, "/seed", 0, (int64_t)VAMP_SEED_MAX, &number, error);
  if (status == VAMP_OK) {
    *seed = (uint64_t)number;
  }
  return status;
}

/* A preset and a mask together are the preset with the mask's fields over it, which is what the mask's
 * own grammar calls {"preset": NAME, ...fields}. */
static int parse_mask_and_preset(const json_t *mask, const json_t *preset, struct vamp_mask_spec **spec,
                                 struct vamp_error *error) {
  if (!json_is_string(preset)) {
    return vamp_fail_field(error, VAMP_INVALID, "/preset", "/preset must be the name of a preset.");
  }
  json_t *known = vamp_mask_preset(json_string_value(preset));
  if (!known) {
    return vamp_fail_field(error, VAMP_INVALID, "/preset",
                           "There is no preset \"%.64s\"; GET /v1/presets and `vamp mask --help` list them.",
                           json_string_value(preset));
  }
  json_decref(known);
  if (mask && !json_is_object(mask)) {
    return vamp_fail_field(error, VAMP_INVALID, "/mask", "/mask must be an object.");
  }
  if (mask && json_object_get(mask, "preset")) {
    return vamp_fail_field(error, VAMP_INVALID, "/mask/preset",
                           "The preset is given twice, in /preset and in /mask/preset: leave one out.");
  }
  json_t *merged = mask ? json_copy((json_t *)mask) : json_object();
  if (!merged || json_object_set(merged, "preset", (json_t *)preset) != 0) {
    json_decref(merged);
    return vamp_fail(error, VAMP_MEMORY, "Out of memory while reading the mask.");
  }
  int status = vamp_mask_spec_parse(merged, "/mask", spec, error);
  json_decref(merged);
  return status;
}

static int parse_names(const json_t *params, struct vamp_request *request, struct vamp_error *error) {
  const json_t *model = json_object_get(params, "model");
  if (model) {
    const char *name = json_is_string(model) ? json_string_value(model) : "";
    if (name[0] == '\0' || strlen(name) >= sizeof request->model) {
      return vamp_fail_field(error, VAMP_INVALID, "/model",
                             "/model must be the name of a model, 1 to %zu bytes long.",
                             sizeof request->model - 1);
    }
    snprintf(request->model, sizeof request->model, "%s", name);
  }
  const json_t *format = json_object_get(params, "format");
  if (format) {
    struct vamp_error why;
    const char *name = json_is_string(format) ? json_string_value(format) : "";
    if (vamp_audio_format_parse(name, &request->format, &why) != VAMP_OK) {
      return vamp_fail_field(error, VAMP_INVALID, "/format", "/format: %s", why.message);
    }
  }
  return VAMP_OK;
}

int vamp_request_parse(const json_t *params, struct vamp_request *request, struct vamp_error *error) {
  struct vamp_request parsed = {.format = VAMP_AUDIO_WAV16};
  vamp_sampling_defaults(&parsed.sampling);
  if (params && !json_is_object(params)) {
    return vamp_fail_field(error, VAMP_INVALID, "", "The parameters must be a JSON object.");
  }
  int status = check_names(params, error);
  if (status == VAMP_OK) {
    status = parse_names(params, &parsed, error);
  }
  const json_t *sampling = json_object_get(params, "sampling");
  if (status == VAMP_OK && sampling) {
    status = vamp_sampling_parse(sampling, "/sampling", &parsed.sampling, error);
  }
  if (status == VAMP_OK) {
    status = parse_seed(params, &parsed.sampling.seed, error);
  }
  if (status == VAMP_OK) {
    const json_t *mask = json_object_get(params, "mask"), *preset = json_object_get(params, "preset");
    status = preset ? parse_mask_and_preset(mask, preset, &parsed.mask, error)
                    : vamp_mask_spec_parse(mask, "/mask", &parsed.mask, error);
  }
  if (status == VAMP_OK) {
    *request = parsed;
  }
  return status;
}

void vamp_request_free(struct vamp_request *request) {
  vamp_mask_spec_free(request->mask);
  *request = (struct vamp_request){0};
}
