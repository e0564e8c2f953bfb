/*
 * vamp mask: the mask alone, without generating anything.
 *
 * It needs a model's dimensions and never its weights, so that a mask can be tried out in milliseconds and on
 * any machine. Without -m the published model's dimensions are taken, which are models/small's too.
 */
#include <stdio.h>
#include <stdlib.h>

#include "vamp/session.h"
#include "vamp/targets.h"

static int print_presets(void) {
  json_t *presets = vamp_mask_presets_json();
  if (!presets) {
    fprintf(stderr, "vamp mask: out of memory\n");
    return VAMP_EXIT_FAILED;
  }
  size_t i;
  json_t *preset;
  json_array_foreach(presets, i, preset) {
    const char *name = json_string_value(json_object_get(preset, "name"));
    const char *description = json_string_value(json_object_get(preset, "description"));
    printf("%-24s%s\n", name ? name : "", description ? description : "");
  }
  json_decref(presets);
  return VAMP_EXIT_OK;
}

static int read_config(const struct vamp_settings *settings, struct vamp_model_config *config,
                       struct vamp_error *error) {
  if (!settings->model) {
    return vamp_config_named("official", config, error);
  }
  char folder[PATH_MAX];
  int status = vamp_settings_model(settings, folder, error);
  return status < 0 ? status : vamp_config_read(folder, config, error);
}

/* Builds the mask for the audio file or for the bare number of frames. */
static int prepare(const struct vamp_settings *settings, struct vamp_variation *variation,
                   struct vamp_error *error) {
  struct vamp_model_config config;
  struct vamp_request request = {0};
  struct vamp_audio audio = {0};
  int status = vamp_settings_request(settings, -1, &request, error);
  if (status == 0) {
    status = read_config(settings, &config, error);
  }
  if (status == 0 && settings->argument_count == 1) {
    struct vamp_audio_limits limits = vamp_audio_default_limits();
    status = vamp_audio_read_file(settings->arguments[0], &limits, &audio, error);
    if (status == 0) {
      status = vamp_variation_prepare(&request, &audio, &config, variation, error);
    }
  } else if (status == 0) {
    status = vamp_variation_prepare_frames(&request, settings->frames, &config, variation, error);
  }
  vamp_audio_free(&audio);
  vamp_request_free(&request);
  return status;
}

static int write_picture(const struct vamp_variation *variation, const char *path,
                         enum vamp_picture_format format, struct vamp_error *error) {
  if (!path) {
    return 0;
  }
  void *data = NULL;
  size_t size = 0;
  int status = vamp_variation_picture(variation, NULL, format, &data, &size, error);
  if (status == 0) {
    status = vamp_bytes_write(path, data, size, error);
    free(data);
  }
  return status;
}

static int write_array(const struct vamp_variation *variation, const char *path, struct vamp_error *error) {
  if (!path) {
    return 0;
  }
  const struct vamp_mask *mask =
      vamp_mask_plan_mask(variation->plan, vamp_mask_plan_passes(variation->plan) - 1);
  const size_t shape[2] = {(size_t)mask->codebooks, (size_t)mask->frames};
  return vamp_array_write(path, VAMP_U8, 2, shape, mask->data, error);
}

static void print_summary(const struct vamp_variation *variation, const json_t *document) {
  const struct vamp_mask *mask =
      vamp_mask_plan_mask(variation->plan, vamp_mask_plan_passes(variation->plan) - 1);
  json_t *density = json_object_get(document, "density"), *value;
  size_t i;
  printf("%d codebooks x %d frames (%.2f s), seed %lld\n", mask->codebooks, mask->frames,
         (double)mask->frames * variation->hop_length / variation->sample_rate,
         (long long)vamp_mask_plan_seed(variation->plan));
  printf("masked: %.1f %% of all tokens, %.1f %% of the coarse ones\nby codebook, %%:",
         100 * json_number_value(json_object_get(density, "overall")),
         100 * json_number_value(json_object_get(density, "coarse")));
  json_array_foreach(json_object_get(density, "codebooks"), i, value) {
    printf(" %.1f", 100 * json_number_value(value));
  }
  printf("\n");
}

static int check_targets(const struct vamp_settings *settings) {
  struct vamp_target targets[] = {{settings->mask_png, "--png", NULL},
                                  {settings->mask_svg, "--svg", NULL},
                                  {settings->mask_json, "--json", NULL},
                                  {settings->mask_npy, "--npy", NULL}};
  return vamp_targets_check(settings, targets, sizeof targets / sizeof targets[0],
                            (size_t)settings->argument_count);
}

static int command_mask(struct vamp_settings *settings) {
  if (settings->presets) {
    return print_presets();
  }
  if ((settings->argument_count == 1) == (settings->frames > 0)) {
    return vamp_usage_error(settings, "give either an audio file or --frames N");
  }
  int refused = check_targets(settings);
  if (refused != VAMP_EXIT_OK) {
    return refused;
  }
  struct vamp_variation variation = {0};
  struct vamp_error error = {0};
  json_t *document = NULL;
  int status = prepare(settings, &variation, &error);
  if (status == 0) {
    document = vamp_variation_mask_json(&variation, NULL);
    status = document ? 0 : vamp_fail(&error, VAMP_MEMORY, "out of memory");
  }
  if (status == 0) {
    status = write_picture(&variation, settings->mask_png, VAMP_PICTURE_PNG, &error);
  }
  if (status == 0) {
    status = write_picture(&variation, settings->mask_svg, VAMP_PICTURE_SVG, &error);
  }
  if (status == 0) {
    status = write_array(&variation, settings->mask_npy, &error);
  }
  if (status == 0 && settings->mask_json) {
    status = vamp_json_write(settings->mask_json, document, &error);
  }
  if (status == 0 && !settings->mask_json && !settings->mask_png && !settings->mask_svg &&
      !settings->mask_npy) {
    print_summary(&variation, document);
  }
  json_decref(document);
  vamp_variation_free(&variation);
  return status < 0 ? vamp_report(settings, NULL, &error) : VAMP_EXIT_OK;
}

#define MEMBER(name) offsetof(struct vamp_settings, name)

static const struct vamp_option own_options[] = {
    {"frames", 0, VAMP_OPTION_COUNT, MEMBER(frames), NULL, 1, VAMP_MASK_MAX_FRAMES, "N",
     "a mask of N frames, without audio (57.4 frames are a second)"},
    {"png", 0, VAMP_OPTION_TEXT, MEMBER(mask_png), NULL, 0, 0, "F", "draw it"},
    {"svg", 0, VAMP_OPTION_TEXT, MEMBER(mask_svg), NULL, 0, 0, "F", "the same as SVG"},
    {"json", 0, VAMP_OPTION_TEXT, MEMBER(mask_json), NULL, 0, 0, "F",
     "write it with its layers and densities (- is standard output)"},
    {"npy", 0, VAMP_OPTION_TEXT, MEMBER(mask_npy), NULL, 0, 0, "F",
     "write the array, uint8 [codebooks, frames]; with several passes the last one's"},
    {"presets", 0, VAMP_OPTION_FLAG, MEMBER(presets), NULL, 0, 0, NULL,
     "list the presets and what they are for"},
    {"model", 'm', VAMP_OPTION_TEXT, MEMBER(model), NULL, 0, 0, "MODEL",
     "model whose dimensions to take (default: the published one's)"},
    {0},
};

static const struct vamp_option_group groups[] = {
    {"options", own_options},
    {"parameters", vamp_options_params},
    {"mask", vamp_options_mask},
    {"randomness", vamp_options_seed},
    {NULL, NULL},
};

const struct vamp_command vamp_command_mask = {
    .name = "mask",
    .synopsis = "IN|--frames N [options]",
    .summary = "build and draw a mask, without generating",
    .description =
        "Builds the mask that 'vamp run' would use for IN, or one of N frames, and writes it as a picture,\n"
        "as JSON or as an array; with none of these it prints the densities. Presets: subtle, balanced,\n"
        "creative, rhythm, texture; of the published application: vampnet/timbre, vampnet/small,\n"
        "vampnet/medium, vampnet/large, vampnet/unconditional, vampnet/subtle, vampnet/improvise,\n"
        "vampnet/remix, vampnet/texture, vampnet/generate. They are made for 14 codebooks, 4 of them "
        "coarse.\n",
    .example =
        "  vamp mask --frames 574 --preset creative --seed 1 --png mask.png --json mask.json\n"
        "  vamp mask song.wav --svg mask.svg --mask '{\"all\": [{\"pattern\": \"random\", \"ratio\": 0.8},\n"
        "      {\"not\": {\"pattern\": \"range\", \"start_s\": 2, \"end_s\": 4}}]}'\n",
    .groups = groups,
    .minimum_arguments = 0,
    .maximum_arguments = 1,
    .run = command_mask,
};
