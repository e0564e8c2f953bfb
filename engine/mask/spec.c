/*
 * JSON -> a spec: one form a pass, each a simple form, a preset with overrides, or a tree.
 *
 * "seed" may stand at the top of any of them. It is read and taken off here, on a copy, so that a tree's
 * nodes need not know of it.
 */
#include "engine/mask/internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int read_seed(const json_t *object, const char *pointer, bool *has_seed, uint64_t *seed,
                     struct vamp_error *error) {
  struct vamp_mask_fields fields;
  int64_t value = 0;
  vamp_mask_fields_open(&fields, object, pointer, error);
  *has_seed = vamp_mask_fields_integer(&fields, "seed", 0, VAMP_MASK_MAX_SEED, &value);
  *seed = (uint64_t)value;
  return fields.status;
}

/* A preset's JSON with the other fields of `object` over it. */
static int merge_preset(json_t *object, const char *pointer, json_t **merged, struct vamp_error *error) {
  struct vamp_mask_fields fields;
  vamp_mask_fields_open(&fields, object, pointer, error);
  const char *name = json_string_value(vamp_mask_fields_value(&fields, "preset"));
  if (!name) {
    return vamp_mask_fields_fail(&fields, VAMP_INVALID, "preset", "preset must be a string, its name.");
  }
  json_t *preset = vamp_mask_preset(name);
  if (!preset) {
    char quoted[VAMP_MASK_QUOTE_SIZE], names[320];
    vamp_mask_quote(quoted, name);
    vamp_mask_preset_names(names, sizeof names);
    return vamp_mask_fields_fail(&fields, VAMP_INVALID, "preset", "%s is not a preset. Known are: %s.",
                                 quoted, names);
  }
  json_object_del(object, "preset");
  if (vamp_mask_json_is_node(object) || json_object_get(object, "passes")) {
    json_decref(preset);
    return vamp_mask_fields_fail(&fields, VAMP_INVALID, "preset",
                                 "a preset takes the fields of its own form over it, not another mask beside "
                                 "it: to combine masks write them out, or use them as passes.");
  }
  if (json_object_update(preset, object) != 0) {
    json_decref(preset);
    return vamp_fail(error, VAMP_MEMORY, "out of memory for a mask.");
  }
  *merged = preset;
  return 0;
}

bool vamp_mask_has_field(const char *name) {
  json_t *probe = json_pack("{s:n}", name);
  json_t *simple = vamp_mask_simple_json(&(struct vamp_mask_simple){0});
  bool found =
      vamp_mask_json_is_node(probe) || strcmp(name, "passes") == 0 || json_object_get(simple, name) != NULL;
  json_decref(simple);
  json_decref(probe);
  return found;
}

/* One mask: `value` is an object. */
static int parse_form(const json_t *value, const char *pointer, struct vamp_mask_form *form,
                      struct vamp_error *error) {
  int status = read_seed(value, pointer, &form->has_seed, &form->seed, error);
  if (status != 0) {
    return status;
  }
  json_t *object = json_copy((json_t *)value); /* a shallow copy, to take fields off */
  if (!object) {
    return vamp_fail(error, VAMP_MEMORY, "out of memory for a mask.");
  }
  json_object_del(object, "seed");
  if (json_object_get(object, "preset")) {
    json_t *merged = NULL;
    status = merge_preset(object, pointer, &merged, error);
    json_decref(object);
    if (status != 0) {
      return status;
    }
    object = merged;
  }
  if (vamp_mask_json_is_node(object)) {
    status = vamp_mask_node_parse(object, pointer, &form->tree, error);
  } else {
    status = vamp_mask_simple_parse(object, pointer, &form->simple, error);
  }
  json_decref(object);
  return status;
}

static int parse_passes(const json_t *mask, const char *pointer, struct vamp_mask_spec *spec,
                        struct vamp_error *error) {
  struct vamp_mask_fields fields;
  vamp_mask_fields_open(&fields, mask, pointer, error);
  const json_t *passes = vamp_mask_fields_value(&fields, "passes");
  vamp_mask_fields_value(&fields, "seed");
  size_t count = json_array_size(passes);
  if (count == 0) {
    vamp_mask_fields_fail(&fields, VAMP_INVALID, "passes", "passes must be an array of one mask or more.");
  } else if (count > VAMP_MASK_MAX_PASSES) {
    vamp_mask_fields_fail(&fields, VAMP_LIMIT, "passes", "there are %zu passes: at most %d are possible.",
                          count, VAMP_MASK_MAX_PASSES);
  }
  int status = vamp_mask_fields_finish(&fields);
  char base[VAMP_MASK_POINTER_SIZE], deeper[VAMP_MASK_POINTER_SIZE];
  vamp_mask_pointer_join(base, pointer, "passes");
  for (size_t i = 0; i < count && status == 0; i++) {
    vamp_mask_pointer_index(deeper, base, (int)i);
    spec->count = (int)i + 1;
    status = parse_form(json_array_get(passes, i), deeper, &spec->forms[i], error);
  }
  return status;
}

int vamp_mask_spec_parse(const json_t *mask, const char *pointer, struct vamp_mask_spec **out,
                         struct vamp_error *error) {
  char root[VAMP_MASK_POINTER_SIZE];
  snprintf(root, sizeof root, "%s", pointer ? pointer : "");
  struct vamp_mask_spec *spec = calloc(1, sizeof *spec);
  json_t *empty = mask ? NULL : json_object();
  int status;
  if (!spec || (!mask && !empty)) {
    status = vamp_fail(error, VAMP_MEMORY, "out of memory for a mask.");
    goto err;
  }
  const json_t *object = mask ? mask : empty;
  status = read_seed(object, root, &spec->has_seed, &spec->seed, error);
  if (status != 0) {
    goto err;
  }
  if (json_object_get(object, "passes") && !json_object_get(object, "preset")) {
    status = parse_passes(object, root, spec, error);
  } else {
    spec->count = 1;
    status = parse_form(object, root, &spec->forms[0], error);
  }
  if (status != 0) {
    goto err;
  }
  json_decref(empty);
  *out = spec;
  return 0;
err:
  json_decref(empty);
  vamp_mask_spec_free(spec);
  return status;
}

void vamp_mask_spec_free(struct vamp_mask_spec *spec) {
  if (!spec) {
    return;
  }
  for (int i = 0; i < spec->count; i++) {
    vamp_mask_node_free(spec->forms[i].tree);
  }
  free(spec);
}
