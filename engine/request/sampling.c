/*
 * The object "sampling": how tokens are drawn.
 *
 * Every field is one row of a table: its name, where it goes, and its range. The ranges are those that
 * vamp/generate.h states, checked here because only here is the field's place in the user's JSON known:
 * a wrong value is answered with a pointer to it, and the batch loop's own check is only the second
 * line. Two bounds are narrower than the contract's. A temperature must be at least 0.001: below that
 * logits divided by it overflow, and whoever wants the likeliest token says "greedy". And top_k is
 * bounded by the vocabulary, which is not known before the model is: vamp_variation_prepare does it.
 */
#include <math.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include "engine/request/internal.h"

enum kind { WHOLE, REAL, FLAG };

struct field {
  const char *name;
  enum kind kind;
  size_t offset; /* in struct vamp_sampling */
  double minimum, maximum;
};

static const struct field FIELDS[] = {
    {"temperature", REAL, offsetof(struct vamp_sampling, temperature), 0.001, 10},
    {"mask_temperature", REAL, offsetof(struct vamp_sampling, mask_temperature), 0, 1000},
    {"coarse_steps", WHOLE, offsetof(struct vamp_sampling, coarse_steps), 1, 256},
    {"fine_steps", WHOLE, offsetof(struct vamp_sampling, fine_steps), 1, 256},
    {"sample_cutoff", REAL, offsetof(struct vamp_sampling, sample_cutoff), 0, 1},
    {"top_k", WHOLE, offsetof(struct vamp_sampling, top_k), 0, 1 << 20},
    {"top_p", REAL, offsetof(struct vamp_sampling, top_p), 0.000001, 1},
    {"typical_mass", REAL, offsetof(struct vamp_sampling, typical_mass), 0, 1},
    {"typical_min_tokens", WHOLE, offsetof(struct vamp_sampling, typical_min_tokens), 1, 1 << 20},
    {"greedy", FLAG, offsetof(struct vamp_sampling, greedy), 0, 1},
};

static const struct field *find_field(const char *name) {
  for (size_t i = 0; i < sizeof FIELDS / sizeof FIELDS[0]; i++) {
    if (strcmp(FIELDS[i].name, name) == 0) {
      return &FIELDS[i];
    }
  }
  return NULL;
}

void vamp_json_point(const char *parent, const char *name, char *pointer, size_t size) {
  size_t used = (size_t)snprintf(pointer, size, "%s/", parent);
  for (; *name && used + 3 < size; name++) {
    bool escaped = *name == '~' || *name == '/';
    if (escaped) {
      pointer[used++] = '~';
    }
    pointer[used++] = escaped ? (*name == '~' ? '0' : '1') : *name;
  }
  if (used < size) {
    pointer[used] = '\0';
  }
}

int vamp_json_whole(const json_t *value, const char *pointer, int64_t minimum, int64_t maximum, int64_t *out,
                    struct vamp_error *error) {
  int64_t number = 0;
  bool whole = false;
  if (json_is_integer(value)) {
    number = json_integer_value(value);
    whole = true;
  } else if (json_is_real(value)) {
    double real = json_real_value(value);
    /* Beyond 2^53 a double has no fraction to lose and no exact value to trust. */
    whole = fabs(real) <= 9007199254740992.0 && real == floor(real);
    number = whole ? (int64_t)real : 0;
  }
  if (!whole || number < minimum || number > maximum) {
    return vamp_fail_field(error, VAMP_INVALID, pointer, "%s must be a whole number from %lld to %lld.",
                           pointer, (long long)minimum, (long long)maximum);
  }
  *out = number;
  return VAMP_OK;
}

bool vamp_sampling_has(const char *name) {
  return find_field(name) != NULL;
}

static int set_field(const struct field *field, const json_t *value, const char *pointer,
                     struct vamp_sampling *sampling, struct vamp_error *error) {
  void *target = (char *)sampling + field->offset;
  if (field->kind == FLAG) {
    if (!json_is_boolean(value)) {
      return vamp_fail_field(error, VAMP_INVALID, pointer, "%s must be true or false.", pointer);
    }
    *(bool *)target = json_is_true(value);
    return VAMP_OK;
  }
  if (field->kind == WHOLE) {
    int64_t number = 0;
    int status =
        vamp_json_whole(value, pointer, (int64_t)field->minimum, (int64_t)field->maximum, &number, error);
    if (status == VAMP_OK) {
      *(int *)target = (int)number;
    }
    return status;
  }
  double number = json_is_number(value) ? json_number_value(value) : NAN;
  if (!(number >= field->minimum && number <= field->maximum)) {
    return vamp_fail_field(error, VAMP_INVALID, pointer, "%s must be a number from %g to %g.", pointer,
                           field->minimum, field->maximum);
  }
  *(float *)target = (float)number;
  return VAMP_OK;
}

/* "temperature, mask_temperature, ..." for the error that a misspelt name gets. */
static void list_fields(char *text, size_t size) {
  size_t used = 0;
  text[0] = '\0';
  for (size_t i = 0; i < sizeof FIELDS / sizeof FIELDS[0] && used < size; i++) {
    used += (size_t)snprintf(text + used, size - used, "%s%s", i ? ", " : "", FIELDS[i].name);
  }
}

int vamp_sampling_parse(const json_t *object, const char *pointer, struct vamp_sampling *sampling,
                        struct vamp_error *error) {
  if (!json_is_object(object)) {
    return vamp_fail_field(error, VAMP_INVALID, pointer, "%s must be an object.", pointer);
  }
  struct vamp_sampling parsed = *sampling;
  const char *name;
  json_t *value;
  json_object_foreach((json_t *)object, name, value) {
    char place[128];
    vamp_json_point(pointer, name, place, sizeof place);
    const struct field *field = find_field(name);
    if (!field) {
      char known[256];
      list_fields(known, sizeof known);
      return vamp_fail_field(error, VAMP_INVALID, place, "Unknown field %s; known here: %s.", place, known);
    }
    int status = set_field(field, value, place, &parsed, error);
    if (status != VAMP_OK) {
      return status;
    }
  }
  *sampling = parsed;
  return VAMP_OK;
}
