/*
 * The options that several subcommands share, and how they become one request.
 *
 * The flags of the mask's simple form and of sampling are nothing but another way to write the JSON that the
 * HTTP API takes. --mask gives a whole mask; flags are laid over it; a preset stays a name, and
 * vamp_request_parse lays the mask over it.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "vamp/options.h"

#define MEMBER(name) offsetof(struct vamp_settings, name)

const struct vamp_option vamp_options_model[] = {
    {"model", 'm', VAMP_OPTION_TEXT, MEMBER(model), NULL, 0, 0, "MODEL",
     "model folder, or the name of one in models/ (default: $VAMP_MODEL, else models/small)"},
    {"backend", 0, VAMP_OPTION_TEXT, MEMBER(backend), "/backend", 0, 0, "B",
     "auto (default: a GPU if there is one, else the processor), cuda or cpu"},
    {"precision", 0, VAMP_OPTION_TEXT, MEMBER(precision), "/precision", 0, 0, "P",
     "fp32, tf32 (a GPU's) or bf16 (default, or auto: bf16 where the device has it)"},
    {"device", 0, VAMP_OPTION_COUNT, MEMBER(device), NULL, 0, 63, "N",
     "number of the GPU to use, as the driver counts (default 0)"},
    {"threads", 0, VAMP_OPTION_COUNT, MEMBER(threads), NULL, 0, 1024, "N",
     "threads of the processor to use (default: all cores)"},
    {0},
};

const struct vamp_option vamp_options_mask[] = {
    {"preset", 0, VAMP_OPTION_PARAMETER_TEXT, 0, "/preset", 0, 0, "NAME",
     "subtle, balanced (default), creative, rhythm, texture, vampnet/small, ... (vamp mask --presets lists "
     "them); the "
     "flags below change it"},
    {"mask", 0, VAMP_OPTION_TEXT, MEMBER(mask_text), NULL, 0, 0, "JSON|@FILE",
     "a mask in JSON: the simple form, a tree of patterns, or passes (docs/masks.md)"},
    {"mask-ratio", 0, VAMP_OPTION_PARAMETER_NUMBER, 0, "/mask/mask_ratio", 0, 0, "R",
     "share of the tokens to regenerate, 0 to 1 (default 0.5)"},
    {"periodic-prompt", 0, VAMP_OPTION_PARAMETER_EITHER, 0, "/mask/periodic_prompt", 0, 0, "N",
     "keep every Nth frame; 0 keeps none (default 7)"},
    {"upper-codebook-mask", 0, VAMP_OPTION_PARAMETER_INTEGER, 0, "/mask/upper_codebook_mask", 0, 0, "N",
     "number of lower codebooks that follow the pattern, 0 to 14 (default 3)"},
    {"upper-codebooks", 0, VAMP_OPTION_PARAMETER_TEXT, 0, "/mask/upper_codebooks", 0, 0, "WHAT",
     "what happens to coarse codebooks above those: keep (default) or mask"},
    {"periodic-width", 0, VAMP_OPTION_PARAMETER_INTEGER, 0, "/mask/periodic_width", 0, 0, "N",
     "frames kept at each period (default 1)"},
    {"periodic-offset", 0, VAMP_OPTION_PARAMETER_EITHER, 0, "/mask/periodic_offset", 0, 0, "N",
     "where the first kept frame stands, or random (default)"},
    {"prefix-s", 0, VAMP_OPTION_PARAMETER_NUMBER, 0, "/mask/prefix_s", 0, 0, "S",
     "keep this many seconds at the beginning"},
    {"suffix-s", 0, VAMP_OPTION_PARAMETER_NUMBER, 0, "/mask/suffix_s", 0, 0, "S",
     "keep this many seconds at the end"},
    {"dropout", 0, VAMP_OPTION_PARAMETER_NUMBER, 0, "/mask/dropout", 0, 0, "R",
     "share of the kept frames that are regenerated after all (default 0)"},
    {0},
};

const struct vamp_option vamp_options_steps[] = {
    {"steps", 0, VAMP_OPTION_PARAMETER_INTEGER, 0, "/sampling/coarse_steps", 0, 0, "N",
     "steps of the coarse stage (default 12; 36 for best quality)"},
    {"coarse-steps", 0, VAMP_OPTION_PARAMETER_INTEGER, 0, "/sampling/coarse_steps", 0, 0, "N",
     "the same as --steps"},
    {"fine-steps", 0, VAMP_OPTION_PARAMETER_INTEGER, 0, "/sampling/fine_steps", 0, 0, "N",
     "steps of the fine stage (default 2)"},
    {0},
};

const struct vamp_option vamp_options_sampling[] = {
    {"temperature", 0, VAMP_OPTION_PARAMETER_NUMBER, 0, "/sampling/temperature", 0, 0, "T",
     "below 1 safer, above 1 wilder (default 1)"},
    {"mask-temperature", 0, VAMP_OPTION_PARAMETER_NUMBER, 0, "/sampling/mask_temperature", 0, 0, "T",
     "randomness in the order in which tokens are settled (default 10.5)"},
    {"top-k", 0, VAMP_OPTION_PARAMETER_INTEGER, 0, "/sampling/top_k", 0, 0, "K",
     "sample from the K likeliest tokens (default: off)"},
    {"top-p", 0, VAMP_OPTION_PARAMETER_NUMBER, 0, "/sampling/top_p", 0, 0, "P",
     "sample from the likeliest tokens that make up this share (default: off)"},
    {"typical-mass", 0, VAMP_OPTION_PARAMETER_NUMBER, 0, "/sampling/typical_mass", 0, 0, "P",
     "typical filtering (default: off)"},
    {"typical-min-tokens", 0, VAMP_OPTION_PARAMETER_INTEGER, 0, "/sampling/typical_min_tokens", 0, 0, "N",
     "tokens that typical filtering keeps at least (default 64)"},
    {"sample-cutoff", 0, VAMP_OPTION_PARAMETER_NUMBER, 0, "/sampling/sample_cutoff", 0, 0, "R",
     "share of the steps that sample; later ones take the likeliest token (default 1)"},
    {"greedy", 0, VAMP_OPTION_PARAMETER_TRUE, 0, "/sampling/greedy", 0, 0, NULL,
     "always the likeliest token, no randomness at all"},
    {0},
};

const struct vamp_option vamp_options_params[] = {
    {"params", 0, VAMP_OPTION_TEXT, MEMBER(params_text), NULL, 0, 0, "JSON|@FILE",
     "mask, steps, sampling, seed, format and model in one JSON object, as vampd takes them and "
     "reports them of a job (docs/api.md); flags go over it"},
    {0},
};

const struct vamp_option vamp_options_seed[] = {
    {"seed", 0, VAMP_OPTION_PARAMETER_INTEGER, 0, "/seed", 0, 0, "S",
     "same seed, same result, 0 to 2^53-1 (default: random, and reported)"},
    {0},
};

int vamp_json_option(const char *text, json_t **value, struct vamp_error *error) {
  json_error_t problem;
  bool file = text[0] == '@';
  *value = file ? json_load_file(text + 1, JSON_REJECT_DUPLICATES, &problem)
                : json_loads(text, JSON_REJECT_DUPLICATES, &problem);
  if (*value) {
    return 0;
  }
  if (json_error_code(&problem) == json_error_cannot_open_file) {
    return vamp_fail(error, VAMP_INVALID, "cannot open %s: %s", text + 1, strerror(errno));
  }
  return vamp_fail(error, VAMP_INVALID, "%s is not valid JSON: %s (line %d, column %d)",
                   file ? text + 1 : "the text", problem.text, problem.line, problem.column);
}

/* The mask of --mask with the flags over it; NULL in *mask where there is neither. */
static int load_mask(const struct vamp_settings *settings, json_t **mask, struct vamp_error *error) {
  json_t *flags = json_object_get(settings->parameters, "mask");
  const char *text = settings->mask_text;
  if (!text) {
    *mask = flags ? json_deep_copy(flags) : NULL;
    return 0;
  }
  json_t *loaded;
  struct vamp_error why;
  if (vamp_json_option(text, &loaded, &why) < 0) {
    return vamp_fail_field(error, VAMP_INVALID, "/mask", "%s", why.message);
  }
  if (!json_is_object(loaded)) {
    json_decref(loaded);
    return vamp_fail_field(error, VAMP_INVALID, "/mask", "a mask is a JSON object, {...}");
  }
  if (flags && json_object_update(loaded, flags) != 0) {
    json_decref(loaded);
    return vamp_fail(error, VAMP_MEMORY, "out of memory");
  }
  *mask = loaded;
  return 0;
}

int vamp_settings_parameters(const struct vamp_settings *settings, int64_t seed, json_t **parameters,
                             struct vamp_error *error) {
  json_t *mask = NULL;
  int status = load_mask(settings, &mask, error);
  if (status < 0) {
    return status;
  }
  json_t *made = json_deep_copy(settings->parameters);
  int failed = !made || (mask && json_object_set(made, "mask", mask) != 0) ||
               (seed >= 0 && json_object_set_new(made, "seed", json_integer(seed)) != 0);
  json_decref(mask);
  if (failed) {
    json_decref(made);
    return vamp_fail(error, VAMP_MEMORY, "out of memory");
  }
  *parameters = made;
  return 0;
}

int vamp_settings_request(const struct vamp_settings *settings, int64_t seed, struct vamp_request *request,
                          struct vamp_error *error) {
  json_t *parameters = NULL;
  int status = vamp_settings_parameters(settings, seed, &parameters, error);
  if (status < 0) {
    return status;
  }
  status = vamp_request_parse(parameters, request, error);
  json_decref(parameters);
  return status;
}
