/*
 * The parts that the answers of several endpoints share: densities in headers, pictures, timings.
 */
#ifndef VAMPD_DESCRIBE_H
#define VAMPD_DESCRIBE_H

#include <jansson.h>

#include "server/http/answer.h"
#include "server/http/exchange.h"
#include "vamp/request.h"

/* Vampd-Seed and Vampd-Density, -Density-Coarse, -Density-Codebooks from a mask document. */
void vampd_describe_headers(struct vampd_answer *answer, const json_t *mask);

/* Bytes as {"media_type", "encoding": "base64", "data"}; new reference, NULL when out of memory. */
json_t *vampd_describe_bytes(const char *media_type, const void *data, size_t size);

/* The picture as {"format", "media_type", "encoding", "data"}: base64 for PNG, text for SVG. */
int vampd_describe_picture(const struct vamp_variation *variation, const struct vamp_result *result,
                           enum vampd_picture picture, json_t **value, struct vamp_error *error);

/* The answer is the picture itself. */
void vampd_answer_picture(struct vampd_answer *answer, const struct vamp_variation *variation,
                          enum vampd_picture picture);

#endif
