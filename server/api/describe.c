/* The parts that answers share: see describe.h. */
#include "server/api/describe.h"

#include <stdio.h>
#include <stdlib.h>

#include "server/http/base64.h"

static const char *media_type_of(enum vampd_picture picture) {
  return picture == VAMPD_PICTURE_PNG ? "image/png" : "image/svg+xml";
}

static int draw(const struct vamp_variation *variation, const struct vamp_result *result,
                enum vampd_picture picture, void **data, size_t *size, struct vamp_error *error) {
  enum vamp_picture_format format = picture == VAMPD_PICTURE_PNG ? VAMP_PICTURE_PNG : VAMP_PICTURE_SVG;
  return vamp_variation_picture(variation, result, format, data, size, error);
}

void vampd_describe_headers(struct vampd_answer *answer, const json_t *mask) {
  const json_t *density = json_object_get(mask, "density");
  const json_t *codebooks = json_object_get(density, "codebooks");
  char list[200] = "";
  size_t used = 0;
  for (size_t i = 0; i < json_array_size(codebooks) && used + 16 < sizeof list; i++) {
    double share = json_number_value(json_array_get(codebooks, i));
    used += (size_t)snprintf(list + used, sizeof list - used, "%s%.4f", i ? ", " : "", share);
  }
  vampd_answer_header(answer, "Vampd-Seed", "%lld",
                      (long long)json_integer_value(json_object_get(mask, "seed")));
  vampd_answer_header(answer, "Vampd-Density", "%.6f",
                      json_number_value(json_object_get(density, "overall")));
  vampd_answer_header(answer, "Vampd-Density-Coarse", "%.6f",
                      json_number_value(json_object_get(density, "coarse")));
  vampd_answer_header(answer, "Vampd-Density-Codebooks", "%s", list);
}

json_t *vampd_describe_bytes(const char *media_type, const void *data, size_t size) {
  size_t length;
  char *text = vampd_base64_encode(data, size, &length);
  /* Base64 is ASCII: no need to have it checked as UTF-8. */
  json_t *string = text ? json_stringn_nocheck(text, length) : NULL;
  free(text);
  return json_pack("{s:s, s:s, s:o}", "media_type", media_type, "encoding", "base64", "data", string);
}

int vampd_describe_picture(const struct vamp_variation *variation, const struct vamp_result *result,
                           enum vampd_picture picture, json_t **value, struct vamp_error *error) {
  void *data;
  size_t size;
  int status = draw(variation, result, picture, &data, &size, error);
  if (status != VAMP_OK) {
    return status;
  }
  bool png = picture == VAMPD_PICTURE_PNG;
  json_t *described = png ? vampd_describe_bytes("image/png", data, size)
                          : json_pack("{s:s, s:s, s:s%}", "media_type", "image/svg+xml", "encoding", "utf-8",
                                      "data", (const char *)data, size);
  free(data);
  if (!described || json_object_set_new(described, "format", json_string(png ? "png" : "svg")) != 0) {
    json_decref(described);
    return vamp_fail(error, VAMP_MEMORY, "Out of memory while drawing the mask.");
  }
  *value = described;
  return VAMP_OK;
}

void vampd_answer_picture(struct vampd_answer *answer, const struct vamp_variation *variation,
                          enum vampd_picture picture) {
  void *data;
  size_t size;
  struct vamp_error error = {0};
  if (draw(variation, NULL, picture, &data, &size, &error) != VAMP_OK) {
    vampd_answer_error(answer, &error, VAMPD_PROBLEM_INTERNAL);
    return;
  }
  vampd_answer_bytes(answer, 200, media_type_of(picture), data, size);
}
