/*
 * Trees of patterns: JSON -> nodes -> JSON.
 *
 *   {"pattern": NAME, ...its fields}
 *   {"all": [NODE, ...]}   {"any": [NODE, ...]}   {"not": NODE}
 *   {"prompts": NODE, "dropout": SHARE, "mask": NODE}
 *
 * and on each of them "codebooks": [low, high] and "name". The last kind is what the simple form's
 * dropout needs: a share of the frames that `prompts` keeps is masked after all, whatever `mask` says
 * about them. It is one node because both halves must mean the same prompts, also where these are random.
 *
 * Nodes are numbered in pre-order as they are parsed, and draw their random numbers by that number, so
 * the JSON written from a tree gives the same tree and the same mask when it comes back.
 */
#include "engine/mask/internal.h"

#include <stdlib.h>
#include <string.h>

static const char *const kind_keys[] = {
    [VAMP_NODE_PATTERN] = "pattern", [VAMP_NODE_ALL] = "all",         [VAMP_NODE_ANY] = "any",
    [VAMP_NODE_NOT] = "not",         [VAMP_NODE_PROMPTS] = "prompts",
};
#define KIND_COUNT ((int)(sizeof kind_keys / sizeof kind_keys[0]))

struct parser {
  uint32_t nodes;
  struct vamp_error *error;
};

bool vamp_mask_json_is_node(const json_t *object) {
  for (int kind = 0; kind < KIND_COUNT; kind++) {
    if (json_object_get(object, kind_keys[kind])) {
      return true;
    }
  }
  return false;
}

void vamp_mask_node_free(struct vamp_mask_node *node) {
  if (!node) {
    return;
  }
  for (int i = 0; i < node->child_count; i++) {
    vamp_mask_node_free(node->children[i]);
  }
  free(node->children);
  if (node->parameters && node->pattern->release) {
    node->pattern->release(node->parameters);
  }
  free(node->parameters);
  free(node);
}

static int parse_node(struct parser *parser, const json_t *value, const char *pointer, int depth,
                      struct vamp_mask_node **out);

/* Which kind of node an object is: exactly one of the keys must be there. */
static int read_kind(struct vamp_mask_fields *fields, struct vamp_mask_node *node) {
  int found = 0;
  for (int kind = 0; kind < KIND_COUNT && fields->status == 0; kind++) {
    if (json_object_get(fields->object, kind_keys[kind])) {
      if (found++) {
        vamp_mask_fields_fail(fields, VAMP_INVALID, kind_keys[kind],
                              "a node is one of pattern, all, any, not and prompts, and this has both "
                              "\"%s\" and \"%s\".",
                              kind_keys[node->kind], kind_keys[kind]);
      }
      node->kind = (enum vamp_mask_kind)kind;
    }
  }
  if (!found) {
    vamp_mask_fields_fail(fields, VAMP_INVALID, NULL,
                          "a node of a mask needs one of the fields pattern, all, any, not or prompts.");
  }
  return fields->status;
}

/* "name" and "codebooks", which every node may carry. */
static void read_common(struct vamp_mask_fields *fields, struct vamp_mask_node *node) {
  const json_t *name = vamp_mask_fields_value(fields, "name");
  if (name) {
    const char *text = json_string_value(name);
    size_t length = text ? strlen(text) : 0;
    bool printable = length > 0 && length < sizeof node->name;
    for (size_t i = 0; i < length && printable; i++) {
      printable = (unsigned char)text[i] >= 0x20 && text[i] != 0x7F;
    }
    if (!printable) {
      vamp_mask_fields_fail(fields, VAMP_INVALID, "name", "name must be a string of 1 to %d printable bytes.",
                            VAMP_MASK_NAME_SIZE - 1);
      return;
    }
    memcpy(node->name, text, length + 1);
  }
  const json_t *codebooks = vamp_mask_fields_value(fields, "codebooks");
  if (codebooks) {
    int64_t low = -1, high = -1;
    const json_t *last = json_array_get(codebooks, 1);
    bool numbers = json_array_size(codebooks) == 2 &&
                   vamp_mask_json_integer(json_array_get(codebooks, 0), &low) &&
                   (json_is_null(last) || vamp_mask_json_integer(last, &high));
    bool open = json_is_null(last);
    if (!numbers || low < 0 || low >= VAMP_MASK_MAX_CODEBOOKS ||
        (!open && (high <= low || high > VAMP_MASK_MAX_CODEBOOKS))) {
      vamp_mask_fields_fail(fields, VAMP_INVALID, "codebooks",
                            "codebooks must be [low, high]: the first codebook and the one after the last "
                            "(or null for all from low on), 0 <= low < high <= %d.",
                            VAMP_MASK_MAX_CODEBOOKS);
      return;
    }
    node->low = (int)low;
    node->high = open ? 0 : (int)high;
  }
}

/* Parses one more child and appends it. */
static int add_child(struct parser *parser, struct vamp_mask_node *node, const json_t *value,
                     const char *pointer, int depth) {
  struct vamp_mask_node *child = NULL;
  int status = parse_node(parser, value, pointer, depth + 1, &child);
  if (status == 0) {
    node->children[node->child_count++] = child;
  }
  return status;
}

static int reserve_children(struct vamp_mask_fields *fields, struct vamp_mask_node *node, size_t count) {
  node->children = calloc(count, sizeof(struct vamp_mask_node *));
  if (!node->children) {
    fields->status = vamp_fail(fields->error, VAMP_MEMORY, "out of memory for a mask.");
  }
  return fields->status;
}

static int read_pattern(struct vamp_mask_fields *fields, struct vamp_mask_node *node, const json_t *value) {
  char pointer[VAMP_MASK_POINTER_SIZE];
  vamp_mask_pointer_join(pointer, fields->pointer, "pattern");
  if (!json_is_string(value)) {
    return vamp_mask_fields_fail(fields, VAMP_INVALID, "pattern", "pattern must be a string, its name.");
  }
  int status = vamp_mask_pattern_find(json_string_value(value), pointer, &node->pattern, fields->error);
  if (status != 0) {
    return fields->status = status;
  }
  node->parameters = calloc(1, node->pattern->parameters_size);
  if (!node->parameters) {
    return fields->status = vamp_fail(fields->error, VAMP_MEMORY, "out of memory for a mask.");
  }
  return node->pattern->parse(fields, node->parameters);
}

static int read_list(struct parser *parser, struct vamp_mask_fields *fields, struct vamp_mask_node *node,
                     const json_t *list, const char *key, int depth) {
  size_t count = json_array_size(list);
  if (count == 0) {
    return vamp_mask_fields_fail(fields, VAMP_INVALID, key, "\"%s\" needs an array of one node or more.",
                                 key);
  }
  if (count > VAMP_MASK_MAX_NODES) {
    return vamp_mask_fields_fail(fields, VAMP_LIMIT, key, "\"%s\" has %zu nodes: a mask may have %d in all.",
                                 key, count, VAMP_MASK_MAX_NODES);
  }
  char base[VAMP_MASK_POINTER_SIZE], pointer[VAMP_MASK_POINTER_SIZE];
  vamp_mask_pointer_join(base, fields->pointer, key);
  int status = reserve_children(fields, node, count);
  for (size_t i = 0; i < count && status == 0; i++) {
    vamp_mask_pointer_index(pointer, base, (int)i);
    status = add_child(parser, node, json_array_get(list, i), pointer, depth);
  }
  return status;
}

static int read_children(struct parser *parser, struct vamp_mask_fields *fields, struct vamp_mask_node *node,
                         const json_t *value, int depth) {
  char pointer[VAMP_MASK_POINTER_SIZE];
  vamp_mask_pointer_join(pointer, fields->pointer, kind_keys[node->kind]);
  if (reserve_children(fields, node, 2) != 0) {
    return fields->status;
  }
  int status = add_child(parser, node, value, pointer, depth);
  if (node->kind == VAMP_NODE_NOT || status != 0) {
    return status;
  }
  vamp_mask_fields_number(fields, "dropout", 0, 1, &node->dropout);
  const json_t *mask = vamp_mask_fields_value(fields, "mask");
  if (mask && fields->status == 0) {
    vamp_mask_pointer_join(pointer, fields->pointer, "mask");
    return add_child(parser, node, mask, pointer, depth);
  }
  return fields->status;
}

static int parse_node(struct parser *parser, const json_t *value, const char *pointer, int depth,
                      struct vamp_mask_node **out) {
  if (depth > VAMP_MASK_MAX_DEPTH) {
    return vamp_fail_field(parser->error, VAMP_LIMIT, pointer, "the mask is nested more than %d deep.",
                           VAMP_MASK_MAX_DEPTH);
  }
  if (parser->nodes == VAMP_MASK_MAX_NODES) {
    return vamp_fail_field(parser->error, VAMP_LIMIT, pointer, "the mask has more than %d nodes.",
                           VAMP_MASK_MAX_NODES);
  }
  struct vamp_mask_node *node = calloc(1, sizeof *node);
  if (!node) {
    return vamp_fail(parser->error, VAMP_MEMORY, "out of memory for a mask.");
  }
  node->index = parser->nodes++;
  memcpy(node->pointer, pointer, strlen(pointer) + 1);

  struct vamp_mask_fields fields;
  vamp_mask_fields_open(&fields, value, node->pointer, parser->error);
  int status = fields.status;
  if (status == 0) {
    status = read_kind(&fields, node);
  }
  if (status == 0) {
    const char *key = kind_keys[node->kind];
    const json_t *content = vamp_mask_fields_value(&fields, key);
    if (node->kind == VAMP_NODE_PATTERN) {
      status = read_pattern(&fields, node, content);
    } else if (node->kind == VAMP_NODE_ALL || node->kind == VAMP_NODE_ANY) {
      status = read_list(parser, &fields, node, content, key, depth);
    } else {
      status = read_children(parser, &fields, node, content, depth);
    }
  }
  if (status == 0) {
    read_common(&fields, node);
    status = vamp_mask_fields_finish(&fields);
  }
  if (status != 0) {
    vamp_mask_node_free(node);
    return status;
  }
  *out = node;
  return 0;
}

int vamp_mask_node_parse(const json_t *value, const char *pointer, struct vamp_mask_node **node,
                         struct vamp_error *error) {
  struct parser parser = {.error = error};
  return parse_node(&parser, value, pointer, 1, node);
}

int vamp_mask_node_count(const struct vamp_mask_node *node) {
  int count = 1;
  for (int i = 0; i < node->child_count; i++) {
    count += vamp_mask_node_count(node->children[i]);
  }
  return count;
}

static int describe_content(const struct vamp_mask_node *node, int codebooks, json_t *object) {
  const char *key = kind_keys[node->kind];
  if (node->kind == VAMP_NODE_PATTERN) {
    return json_object_set_new(object, key, json_string(node->pattern->name)) |
           node->pattern->describe(node->parameters, object);
  }
  if (node->kind == VAMP_NODE_ALL || node->kind == VAMP_NODE_ANY) {
    json_t *list = json_array();
    int failed = json_object_set_new(object, key, list);
    for (int i = 0; i < node->child_count && !failed; i++) {
      failed |= json_array_append_new(list, vamp_mask_node_json(node->children[i], codebooks));
    }
    return failed;
  }
  int failed = json_object_set_new(object, key, vamp_mask_node_json(node->children[0], codebooks));
  if (node->kind == VAMP_NODE_PROMPTS) {
    failed |= json_object_set_new(object, "dropout", json_real(node->dropout));
    if (node->child_count == 2) {
      failed |= json_object_set_new(object, "mask", vamp_mask_node_json(node->children[1], codebooks));
    }
  }
  return failed;
}

json_t *vamp_mask_node_json(const struct vamp_mask_node *node, int codebooks) {
  json_t *object = json_object();
  int failed = !object;
  if (!failed && node->name[0] != '\0') {
    failed |= json_object_set_new(object, "name", json_string(node->name));
  }
  if (!failed) {
    failed |= describe_content(node, codebooks, object);
  }
  if (!failed && (node->low > 0 || node->high > 0)) {
    int high = node->high > 0 ? node->high : codebooks;
    failed |= json_object_set_new(object, "codebooks", json_pack("[i, i]", node->low, high));
  }
  if (failed) {
    json_decref(object);
    return NULL;
  }
  return object;
}
