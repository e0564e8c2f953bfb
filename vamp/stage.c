/*
 * vamp logits and vamp generate: one transformer on one sequence, as it is.
 *
 * They are for looking into the model and for checking it against other implementations: no chunks, no frames
 * kept at the edges, arrays in and arrays out. The lower codebooks of codes.npy and mask.npy are used where
 * there are more than the stage has, so that one file of 14 codebooks serves both stages.
 */
#include <stdlib.h>
#include <string.h>

#include "vamp/session.h"

#define MAX_LOGITS_BYTES ((size_t)1 << 30)

struct stage_input {
  enum vamp_stage stage;
  const struct vamp_transformer_config *transformer;
  struct vamp_array codes, mask; /* [codebooks of the stage, frames] */
  int frames;
};

static int parse_stage(const struct vamp_settings *settings, enum vamp_stage *stage) {
  const char *text = settings->stage;
  if (!text || (strcmp(text, "coarse") != 0 && strcmp(text, "fine") != 0)) {
    return vamp_usage_error(settings, "--stage must be coarse or fine");
  }
  *stage = strcmp(text, "coarse") == 0 ? VAMP_STAGE_COARSE : VAMP_STAGE_FINE;
  return VAMP_EXIT_OK;
}

static int read_input(const struct vamp_settings *settings, const struct vamp_session *session,
                      struct stage_input *input, struct vamp_error *error) {
  const struct vamp_model_config *config = session->config;
  input->transformer = input->stage == VAMP_STAGE_COARSE ? &config->coarse : &config->fine;
  const struct vamp_codes_wanted wanted = {.codebooks = input->transformer->n_codebooks,
                                           .codebook_size = input->transformer->vocab_size,
                                           .allow_mask = true,
                                           .more = true};
  int status = vamp_codes_read(settings->arguments[0], &wanted, &input->codes, error);
  if (status < 0) {
    return status;
  }
  input->frames = (int)input->codes.shape[1];
  return vamp_mask_read(settings->arguments[1], wanted.codebooks, input->frames, &input->mask, error);
}

static void free_input(struct stage_input *input) {
  vamp_array_free(&input->codes);
  vamp_array_free(&input->mask);
}

/* ---- logits ------------------------------------------------------------------------------------------- */

static int write_logits(const struct vamp_settings *settings, struct vamp_session *session,
                        struct stage_input *input, struct vamp_error *error) {
  const struct vamp_transformer_config *transformer = input->transformer;
  const size_t shape[3] = {(size_t)(transformer->n_codebooks - transformer->n_conditioning_codebooks),
                           (size_t)input->frames, (size_t)transformer->vocab_size};
  size_t bytes = shape[0] * shape[1] * shape[2] * sizeof(float);
  if (bytes > MAX_LOGITS_BYTES) {
    return vamp_fail(error, VAMP_LIMIT,
                     "%s: %d frames give %zu MiB of logits, and the limit is %zu MiB; cut it",
                     settings->arguments[0], input->frames, bytes >> 20, MAX_LOGITS_BYTES >> 20);
  }
  int32_t *codes = input->codes.data;
  const uint8_t *mask = input->mask.data;
  for (size_t i = 0; i < vamp_array_count(&input->codes); i++) {
    codes[i] = mask[i] ? transformer->vocab_size : codes[i]; /* the mask token */
  }
  float *logits = malloc(bytes);
  if (!logits) {
    return vamp_fail(error, VAMP_MEMORY, "out of memory for %zu MiB of logits", bytes >> 20);
  }
  int status = vamp_model_logits(session->model, input->stage, codes, input->frames, logits, error);
  if (status == 0) {
    status = vamp_array_write(settings->arguments[2], VAMP_F32, 3, shape, logits, error);
  }
  free(logits);
  return status;
}

static int command_logits(struct vamp_settings *settings) {
  struct stage_input input = {0};
  struct vamp_session session = {0};
  struct vamp_error error = {0};
  int exit_code = parse_stage(settings, &input.stage);
  if (exit_code != VAMP_EXIT_OK) {
    return exit_code;
  }
  int status = vamp_session_open(settings, NULL, &session, &error);
  if (status == 0) {
    status = read_input(settings, &session, &input, &error);
  }
  if (status == 0) {
    status = write_logits(settings, &session, &input, &error);
  }
  if (status == 0 && settings->json) {
    vamp_json_print(json_pack("{s:s, s:o, s:i}", "stage", settings->stage, "output",
                              vamp_json_name(settings->arguments[2]), "frames", input.frames));
  }
  free_input(&input);
  vamp_session_close(&session);
  return status < 0 ? vamp_report(settings, NULL, &error) : VAMP_EXIT_OK;
}

/* ---- generate ----------------------------------------------------------------------------------------- */

/* A token that is kept must be one: the mask token is only allowed where the mask is 1. */
static int check_kept(const struct vamp_settings *settings, const struct stage_input *input,
                      struct vamp_error *error) {
  const int32_t *codes = input->codes.data;
  const uint8_t *mask = input->mask.data;
  size_t conditioning = (size_t)input->transformer->n_conditioning_codebooks * (size_t)input->frames;
  for (size_t i = 0; i < vamp_array_count(&input->codes); i++) {
    if (codes[i] == input->transformer->vocab_size && (i < conditioning || !mask[i])) {
      return vamp_fail(error, VAMP_INVALID,
                       "%s: the token at [%zu, %zu] is masked already, but is to be kept",
                       settings->arguments[0], i / (size_t)input->frames, i % (size_t)input->frames);
    }
  }
  return 0;
}

static int generate(const struct vamp_settings *settings, struct vamp_session *session,
                    const struct vamp_request *request, struct stage_input *input, struct vamp_error *error) {
  struct vamp_job job = {
      .task = input->stage == VAMP_STAGE_COARSE ? VAMP_TASK_COARSE : VAMP_TASK_FINE,
      .codes = input->codes.data,
      .codebooks = input->transformer->n_codebooks,
      .frames = input->frames,
      .passes = 1,
      .masks = {{.codebooks = input->transformer->n_codebooks,
                 .frames = input->frames,
                 .data = input->mask.data}},
      .sampling = request->sampling,
  };
  if (settings->steps > 0) {
    job.sampling.coarse_steps = job.sampling.fine_steps = settings->steps;
  }
  struct vamp_result *result = NULL;
  int status = check_kept(settings, input, error);
  if (status == 0) {
    status = vamp_session_run(settings, session, &job, &result, error);
  }
  if (status == 0 && result) {
    status =
        vamp_codes_write(settings->arguments[2], result->codes, result->codebooks, result->frames, error);
  }
  if (status == 0 && result && settings->json) {
    vamp_json_print(json_pack("{s:s, s:o, s:i, s:I, s:f}", "stage", settings->stage, "output",
                              vamp_json_name(settings->arguments[2]), "frames", input->frames, "seed",
                              (json_int_t)job.sampling.seed, "seconds",
                              result->seconds.coarse + result->seconds.fine));
  }
  vamp_result_free(result);
  return status;
}

static int command_generate(struct vamp_settings *settings) {
  struct stage_input input = {0};
  struct vamp_request request = {0};
  struct vamp_session session = {0};
  struct vamp_error error = {0};
  int exit_code = parse_stage(settings, &input.stage);
  if (exit_code != VAMP_EXIT_OK) {
    return exit_code;
  }
  int status = vamp_settings_request(settings, -1, &request, &error);
  if (status == 0) {
    status = vamp_session_open(settings, NULL, &session, &error);
  }
  if (status == 0) {
    status = read_input(settings, &session, &input, &error);
  }
  if (status == 0) {
    status = generate(settings, &session, &request, &input, &error);
  }
  free_input(&input);
  vamp_request_free(&request);
  vamp_session_close(&session);
  return status < 0 ? vamp_report(settings, NULL, &error) : VAMP_EXIT_OK;
}

/* ---- options ------------------------------------------------------------------------------------------ */

#define MEMBER(name) offsetof(struct vamp_settings, name)

static const struct vamp_option logits_options[] = {
    {"stage", 0, VAMP_OPTION_TEXT, MEMBER(stage), NULL, 0, 0, "STAGE", "coarse or fine"},
    {"json", 0, VAMP_OPTION_FLAG, MEMBER(json), NULL, 0, 0, NULL, "print what was done as JSON"},
    {0},
};

static const struct vamp_option generate_options[] = {
    {"stage", 0, VAMP_OPTION_TEXT, MEMBER(stage), NULL, 0, 0, "STAGE", "coarse or fine"},
    {"steps", 0, VAMP_OPTION_COUNT, MEMBER(steps), NULL, 1, 256, "N", "steps (default: coarse 12, fine 2)"},
    {"json", 0, VAMP_OPTION_FLAG, MEMBER(json), NULL, 0, 0, NULL, "print what was done as JSON"},
    {0},
};

static const struct vamp_option_group logits_groups[] = {
    {"options", logits_options}, {"model", vamp_options_model}, {NULL, NULL}};
static const struct vamp_option_group generate_groups[] = {{"options", generate_options},
                                                           {"sampling", vamp_options_sampling},
                                                           {"randomness", vamp_options_seed},
                                                           {"model", vamp_options_model},
                                                           {NULL, NULL}};

const struct vamp_command vamp_command_logits = {
    .name = "logits",
    .synopsis = "--stage coarse|fine codes.npy mask.npy logits.npy",
    .summary = "what a transformer thinks of masked tokens",
    .description =
        "Replaces the tokens that mask.npy marks (uint8, 1 = masked) in codes.npy (int32 [codebooks, "
        "frames])\n"
        "by the mask token, runs the stage's transformer once over the whole sequence, and writes float32\n"
        "[predicted codebooks, frames, vocabulary].\n",
    .example = "  vamp logits --stage coarse codes.npy mask.npy logits.npy\n",
    .groups = logits_groups,
    .minimum_arguments = 3,
    .maximum_arguments = 3,
    .run = command_logits,
};

const struct vamp_command vamp_command_generate = {
    .name = "generate",
    .synopsis = "--stage coarse|fine codes.npy mask.npy out.npy",
    .summary = "fill in the masked tokens of one sequence",
    .description =
        "Regenerates the tokens that mask.npy marks (uint8, 1 = regenerate) in codes.npy (int32 [codebooks,\n"
        "frames]) with the stage's transformer, as one sequence of its whole length, and writes int32\n"
        "[codebooks of the stage, frames]. The fine stage never changes the coarse codebooks.\n",
    .example = "  vamp generate --stage coarse --greedy --steps 12 codes.npy mask.npy out.npy\n",
    .groups = generate_groups,
    .minimum_arguments = 3,
    .maximum_arguments = 3,
    .run = command_generate,
};
