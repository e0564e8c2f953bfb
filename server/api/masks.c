/*
 * POST /v1/masks: what a mask would be, for a clip or for a bare number of frames, without generating
 * anything. The same parameters as POST /v1/vamp, so that a page can show a mask and then send the very same
 * document to be heard.
 */
#include "server/api/describe.h"
#include "server/api/input.h"
#include "server/http/negotiate.h"
#include "server/http/router.h"

/* The masks of a bare number of frames. */
static int prepare_frames(struct vampd_exchange *exchange, const struct vampd_device_facts *facts,
                          int64_t frames, const struct vamp_request *request,
                          struct vamp_variation *variation) {
  struct vamp_error error = {0};
  int status = vamp_variation_prepare_frames(request, frames, &facts->model, variation, &error);
  if (status != VAMP_OK) {
    vampd_answer_error(&exchange->answer, &error, VAMPD_PROBLEM_INVALID_FIELD);
  }
  return status;
}

/* Body -> variation. On failure the exchange has its answer. */
static int prepare(struct vampd_exchange *exchange, const struct vampd_device_facts *facts,
                   struct vamp_variation *variation) {
  struct vampd_input input = {0};
  struct vamp_request request = {0};
  int status = vampd_input_read(exchange, VAMPD_TAKES_PICTURE | VAMPD_TAKES_FRAMES, &input);
  exchange->output.picture = input.picture;
  if (status == VAMP_OK && (input.frames > 0) == (input.clip_count > 0)) {
    vampd_answer_problem(&exchange->answer, VAMPD_PROBLEM_INVALID_FIELD, "/frames",
                         "Send either \"frames\" or audio: one of them says how long the mask is.");
    status = VAMP_INVALID;
  }
  if (status == VAMP_OK) {
    status = vampd_input_parse(exchange, input.params, &request);
  }
  if (status == VAMP_OK) {
    status = input.frames > 0 ? prepare_frames(exchange, facts, input.frames, &request, variation)
                              : vampd_input_variation_once(exchange, facts, &input, &request, variation);
  }
  vamp_request_free(&request);
  vampd_input_free(&input);
  return status;
}

/* The document, with the picture in it where one was asked for. */
static void answer_document(struct vampd_exchange *exchange, const struct vamp_variation *variation,
                            json_t *mask) {
  struct vamp_error error = {0};
  json_t *picture;
  if (exchange->output.picture != VAMPD_PICTURE_NONE) {
    if (vampd_describe_picture(variation, NULL, exchange->output.picture, &picture, &error) != VAMP_OK) {
      vampd_answer_error(&exchange->answer, &error, VAMPD_PROBLEM_INTERNAL);
      return;
    }
    json_object_set_new(mask, "picture", picture);
  }
  vampd_answer_json(&exchange->answer, 200, json_incref(mask));
}

static void answer_masks(struct vampd_exchange *exchange, const struct vamp_variation *variation) {
  json_t *mask = vamp_variation_mask_json(variation, NULL);
  if (!mask) {
    struct vamp_error error = {.status = VAMP_MEMORY, .message = "Out of memory while describing the mask."};
    vampd_answer_error(&exchange->answer, &error, VAMPD_PROBLEM_INTERNAL);
    return;
  }
  int chosen = vampd_negotiate(exchange->fields.accept, exchange->route->offers);
  if (chosen <= 0) {
    answer_document(exchange, variation, mask);
  } else {
    vampd_answer_picture(&exchange->answer, variation, chosen == 1 ? VAMPD_PICTURE_PNG : VAMPD_PICTURE_SVG);
  }
  if (exchange->answer.status == 200) {
    vampd_describe_headers(&exchange->answer, mask);
  }
  json_decref(mask);
}

void vampd_handle_masks(struct vampd_exchange *exchange) {
  const struct vampd_device_facts *facts = vampd_exchange_begin(exchange);
  struct vamp_variation variation = {0};
  if (facts && prepare(exchange, facts, &variation) == VAMP_OK) {
    answer_masks(exchange, &variation);
  }
  vamp_variation_free(&variation);
  vampd_exchange_finish(exchange);
}
