/*
 * Fuzz target: the body of a request, as a worker takes it apart.
 *
 * The first byte chooses the endpoint, which decides what is understood; then comes the Content-Type up to a
 * newline, then the body. Whatever comes, there is an input whose clips lie within what was sent, or a
 * problem that is well-formed JSON and says something. Audio is not decoded here: fuzz_audio does that.
 *
 *   make fuzz
 *
 * The target brings three functions of its own in place of those that would bring the rest of the daemon: the
 * model's dimensions are made up, the body is only freed, and nothing is decoded.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "server/api/input.h"
#include "server/jobs/grid.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(bool condition) {
  if (!condition) {
    abort();
  }
}

/* ---- in place of the daemon's ---------------------------------------------------------------------------
 */

const struct vampd_device_facts *vampd_device_facts(struct vampd_device *device) {
  static struct vampd_device_facts facts;
  (void)device;
  facts.model.codec.sample_rate = 44100;
  facts.model.codec.hop_length = 768;
  facts.model.codec.n_codebooks = 14;
  facts.model.codec.codebook_size = 1024;
  facts.model.coarse.n_codebooks = 4;
  return &facts;
}

void vampd_exchange_drop_body(struct vampd_exchange *exchange) {
  free(exchange->body);
  exchange->body = NULL;
  exchange->size = 0;
}

int vampd_decoder_read(struct vampd_decoder *decoder, const void *data, size_t size, const char *name,
                       const struct vamp_audio_limits *limits, struct vamp_audio *audio,
                       struct vamp_error *error) {
  (void)decoder, (void)data, (void)size, (void)name, (void)limits, (void)audio;
  return vamp_fail(error, VAMP_INVALID, "nothing is decoded here");
}

/* ---- what must hold -------------------------------------------------------------------------------------
 */

static void check_problem(struct vampd_answer *answer) {
  require(answer->status >= 400 && answer->body != NULL);
  json_t *problem = json_loadb(answer->body, answer->size, 0, NULL);
  const char *detail = json_string_value(json_object_get(problem, "detail"));
  const char *pointer = json_string_value(json_object_get(problem, "pointer"));
  require(json_integer_value(json_object_get(problem, "status")) == answer->status);
  require(json_string_value(json_object_get(problem, "type")) != NULL && detail && detail[0] != '\0');
  require(!pointer || pointer[0] == '/' || pointer[0] == '\0');
  json_decref(problem);
}

static void check_clips(const struct vampd_input *input, const char *body, size_t size) {
  volatile unsigned char sum = 0;
  require(input->clip_count >= 0 && input->clip_count <= VAMPD_MAX_CLIPS);
  for (int i = 0; i < input->clip_count; i++) {
    const struct vampd_file *clip = &input->clips[i];
    const char *data = clip->data;
    require(clip->decoded || (data >= body && data + clip->size <= body + size));
    require(memchr(clip->name, '\0', sizeof clip->name) != NULL);
    for (size_t k = 0; k < clip->size; k++) {
      sum += (unsigned char)data[k];
    }
    vampd_sniff_audio(clip->data, clip->size);
  }
}

static void check_grid(const struct vampd_input *input) {
  struct vamp_error error = {0};
  int points = 0;
  if (vampd_grid_check(input->grid, &points, &error) != VAMP_OK) {
    require(error.message[0] != '\0');
    return;
  }
  require(points >= 1 && points <= VAMPD_GRID_MAX_POINTS);
  const int chosen[] = {0, points / 2, points - 1};
  for (int i = 0; i < 3; i++) {
    json_t *params = NULL, *values = NULL;
    int status = vampd_grid_point(input->grid, input->params, chosen[i], &params, &values, &error);
    require(status == VAMP_OK ? json_is_object(params) && json_is_object(values) : error.message[0] != '\0');
    if (status == VAMP_OK) {
      struct vamp_request request = {0};
      require(vamp_request_parse(params, &request, &error) == VAMP_OK || error.message[0] != '\0');
      vamp_request_free(&request);
    }
    json_decref(params);
    json_decref(values);
  }
}

static void check_tokens(const struct vamp_array *tokens) {
  if (tokens->data) {
    volatile unsigned char sum = 0;
    size_t bytes = vamp_array_count(tokens) * vamp_dtype_size(tokens->dtype);
    for (size_t i = 0; i < bytes; i++) {
      sum += ((const unsigned char *)tokens->data)[i];
    }
  }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  static const unsigned ENDPOINTS[] = {
      VAMPD_TAKES_PICTURE,
      VAMPD_TAKES_FRAMES | VAMPD_TAKES_PICTURE,
      VAMPD_TAKES_CLIPS | VAMPD_TAKES_VARIATIONS,
      VAMPD_TAKES_GRID,
      VAMPD_TAKES_TOKENS,
      0,
  };
  const uint8_t *line = size > 1 ? memchr(data + 1, '\n', size - 1) : NULL;
  if (!line) {
    return 0;
  }
  unsigned takes = ENDPOINTS[data[0] % (sizeof ENDPOINTS / sizeof ENDPOINTS[0])];
  static struct vampd daemon;
  static struct vampd_settings settings;
  settings.options.max_seconds = 30;
  struct vampd_exchange exchange = {.daemon = &daemon, .settings = &settings};
  struct vampd_input input = {0};
  size_t body_size = size - (size_t)(line + 1 - data);
  exchange.fields.content_type = strndup((const char *)data + 1, (size_t)(line - data) - 1);
  exchange.body = malloc(body_size > 0 ? body_size : 1); /* the exact size: one byte beyond is then seen */
  require(exchange.fields.content_type && exchange.body);
  memcpy(exchange.body, line + 1, body_size);
  exchange.size = body_size;
  if (vampd_input_read(&exchange, takes, &input) == VAMP_OK) {
    require(exchange.answer.status == 0 && json_is_object(input.params));
    check_clips(&input, exchange.body, body_size);
    check_tokens(&input.tokens);
    struct vamp_request request = {0};
    if (input.grid) {
      check_grid(&input);
    } else if (vampd_input_parse(&exchange, input.params, &request) == VAMP_OK) {
      vamp_request_free(&request);
    } else {
      check_problem(&exchange.answer);
    }
  } else {
    check_problem(&exchange.answer);
  }
  vampd_input_free(&input);
  vampd_exchange_drop_body(&exchange);
  vampd_answer_free(&exchange.answer);
  free(exchange.fields.content_type);
  return 0;
}
