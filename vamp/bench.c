/*
 * vamp bench: how fast this machine is.
 *
 * It runs whole variations through the batch loop, as the daemon does, on synthetic audio. Without -m the
 * model is one of the named sizes with random weights: what is computed does not depend on what the weights
 * are. Reported are medians over --repeat runs. A stage's time is that of the clip that spent longest in
 * it; with --batch, clips take turns, so stages overlap and add up to more than the total.
 *
 * --compare-torch times tools/train/model.py (PyTorch) on the same sizes right after, on the same machine,
 * and takes the best of its runs against the median of ours.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "vamp/random.h"
#include "vamp/session.h"

#define MAX_REPEATS 100
#define TORCH_PROGRAM "tools/train/model.py"

enum { ENCODE, COARSE, FINE, DECODE, TOTAL, STAGES };
static const char *const STAGE_NAMES[STAGES] = {"encode", "coarse", "fine", "decode", "total"};

struct bench {
  const struct vamp_settings *settings;
  struct vamp_session session;
  struct vamp_variation *variations; /* [batch] */
  double seconds[STAGES][MAX_REPEATS];
  double median[STAGES];
  double masked_tokens; /* of the whole batch */
  double peak_mib;
  json_t *torch; /* what model.py printed, or NULL */
};

static double square(double x) {
  return x * x;
}

/* A few notes with harmonics and a little noise: enough for loudness to be defined and codes to vary. */
static int synthesize(double seconds, int sample_rate, struct vamp_audio *audio, struct vamp_error *error) {
  size_t count = (size_t)(seconds * sample_rate);
  float *samples = malloc(count * sizeof *samples);
  if (!samples) {
    return vamp_fail(error, VAMP_MEMORY, "out of memory for %g s of audio", seconds);
  }
  for (size_t i = 0; i < count; i++) {
    double time = (double)i / sample_rate;
    double note = 220 * pow(2, floor(fmod(time * 4, 12)) / 12);
    double decay = square(1 - fmod(time * 4, 1));
    double noise = (double)vamp_uniform(vamp_philox(1, (uint32_t)i, 0, 0, 0).word[0]) - 0.5;
    samples[i] =
        (float)(0.3 * decay * (sin(6.28318530718 * note * time) + 0.5 * sin(12.5663706144 * note * time)) +
                0.02 * noise);
  }
  *audio =
      (struct vamp_audio){.samples = samples, .frames = count, .channels = 1, .sample_rate = sample_rate};
  return 0;
}

/* Clips, masks and seeds of the batch. */
static int prepare(struct bench *bench, struct vamp_error *error) {
  struct vamp_audio audio = {0};
  int batch = bench->settings->batch;
  bench->variations = calloc((size_t)batch, sizeof *bench->variations);
  if (!bench->variations) {
    return vamp_fail(error, VAMP_MEMORY, "out of memory");
  }
  int status = synthesize(bench->settings->seconds, bench->session.config->codec.sample_rate, &audio, error);
  for (int i = 0; i < batch && status == 0; i++) {
    struct vamp_request request = {0};
    status = vamp_settings_request(bench->settings, i, &request, error);
    if (status == 0) {
      status = vamp_variation_prepare(&request, &audio, bench->session.config, &bench->variations[i], error);
    }
    vamp_request_free(&request);
    if (status == 0) {
      const struct vamp_mask *mask = vamp_mask_plan_mask(bench->variations[i].plan, 0);
      for (int64_t k = 0; k < (int64_t)mask->codebooks * mask->frames; k++) {
        bench->masked_tokens += mask->data[k];
      }
    }
  }
  vamp_audio_free(&audio);
  return status;
}

static int submit_all(struct bench *bench, struct vamp_error *error) {
  for (int i = 0; i < bench->settings->batch; i++) {
    struct vamp_job job;
    uint64_t id;
    vamp_variation_job(&bench->variations[i], &job);
    int status = vamp_loop_submit(bench->session.loop, &job, &id, error);
    if (status < 0) {
      return status;
    }
  }
  return 0;
}

/* One run of the whole batch; a stage's time is that of the job that spent longest in it. */
static int run_once(struct bench *bench, int repeat, struct vamp_progress *progress,
                    struct vamp_error *error) {
  double started = vamp_clock();
  int status = submit_all(bench, error);
  for (int left = bench->settings->batch; left > 0 && status == 0;) {
    struct vamp_event event;
    status = vamp_session_event(&bench->session, &event, error);
    if (status < 0) {
      break;
    }
    if (event.type == VAMP_EVENT_DONE) {
      const double spent[] = {event.result->seconds.encode, event.result->seconds.coarse,
                              event.result->seconds.fine, event.result->seconds.decode};
      for (int stage = 0; stage < TOTAL; stage++) {
        bench->seconds[stage][repeat] = fmax(bench->seconds[stage][repeat], spent[stage]);
      }
      vamp_result_free(event.result);
      left--;
    } else if (event.type != VAMP_EVENT_PROGRESS) {
      *error = event.error;
      status = event.error.status;
    } else {
      progress->running = (double)event.progress;
      vamp_progress_draw(progress, &event);
    }
  }
  bench->seconds[TOTAL][repeat] = vamp_clock() - started;
  return status;
}

static int compare_doubles(const void *one, const void *other) {
  double a = *(const double *)one, b = *(const double *)other;
  return (a > b) - (a < b);
}

static int measure(struct bench *bench, struct vamp_error *error) {
  int repeats = bench->settings->repeat;
  struct vamp_progress progress;
  vamp_progress_start(&progress, bench->settings, repeats);
  int status = 0;
  for (int repeat = 0; repeat < repeats && status == 0; repeat++) {
    status = run_once(bench, repeat, &progress, error);
    progress.done++;
    progress.running = 0;
  }
  vamp_progress_clear(&progress);
  for (int stage = 0; stage < STAGES; stage++) {
    double *values = bench->seconds[stage];
    qsort(values, (size_t)repeats, sizeof *values, compare_doubles);
    bench->median[stage] = (values[(repeats - 1) / 2] + values[repeats / 2]) / 2;
  }
  struct rusage usage;
  getrusage(RUSAGE_SELF, &usage);
  bench->peak_mib = (double)usage.ru_maxrss / 1024;
  return status;
}

/* ---- PyTorch ------------------------------------------------------------------------------------------ */

static int run_torch(struct bench *bench, struct vamp_error *error) {
  const struct vamp_settings *settings = bench->settings;
  const struct vamp_sampling *sampling = &bench->variations[0].sampling;
  char command[512], threads[32] = "";
  if (settings->threads > 0) {
    snprintf(threads, sizeof threads, " --threads %d", settings->threads);
  }
  /* It runs on the processor, which has no tf32. */
  snprintf(command, sizeof command,
           "/usr/bin/python3 " TORCH_PROGRAM
           " --bench --json --dims %s --precision %s --seconds %g --coarse-steps %d "
           "--fine-steps %d --runs %d%s",
           settings->dims ? settings->dims : "small",
           bench->session.device->precision == VAMP_PRECISION_BF16 ? "bf16" : "fp32", settings->seconds,
           sampling->coarse_steps, sampling->fine_steps, settings->repeat, threads);
  FILE *pipe = popen(command, "r");
  if (!pipe) {
    return vamp_fail(error, VAMP_IO, "cannot start %s", command);
  }
  char text[8192];
  size_t length = fread(text, 1, sizeof text - 1, pipe);
  text[length] = '\0';
  int status = pclose(pipe);
  json_error_t problem;
  bench->torch = status == 0 ? json_loads(text, 0, &problem) : NULL;
  if (!json_object_get(bench->torch, "wall_s")) {
    return vamp_fail(
        error, VAMP_IO,
        "the comparison failed; it needs the repository's root as the working folder and PyTorch "
        "(python3-torch): %s",
        command);
  }
  return 0;
}

static double torch_seconds(const struct bench *bench, int stage) {
  return json_number_value(json_object_get(json_object_get(bench->torch, "wall_s"), STAGE_NAMES[stage]));
}

/* ---- report ------------------------------------------------------------------------------------------- */

static double audio_per_second(const struct bench *bench) {
  return bench->settings->batch * bench->settings->seconds / bench->median[TOTAL];
}

static double tokens_per_second(const struct bench *bench) {
  double seconds = bench->median[COARSE] + bench->median[FINE];
  return seconds > 0 ? bench->masked_tokens / seconds : 0;
}

static void print_table(const struct bench *bench) {
  const struct vamp_settings *settings = bench->settings;
  const struct vamp_sampling *sampling = &bench->variations[0].sampling;
  printf("%s\nmodel %s, %s, %d x %g s of audio, %d + %d steps, median of %d\n\n",
         bench->session.device->description, bench->session.config->name,
         vamp_precision_name(bench->session.device->precision), settings->batch, settings->seconds,
         sampling->coarse_steps, sampling->fine_steps, settings->repeat);
  printf("%-10s%10s%s\n", "", "seconds", bench->torch ? "     torch    faster" : "");
  printf("%-10s%10.3f\n", "load", bench->session.load_seconds);
  for (int stage = 0; stage < STAGES; stage++) {
    printf("%-10s%10.3f", STAGE_NAMES[stage], bench->median[stage]);
    if (bench->torch) {
      printf("%10.3f%9.2fx", torch_seconds(bench, stage),
             torch_seconds(bench, stage) * settings->batch / bench->median[stage]);
    }
    printf("\n");
  }
  printf("\n%.2f s of audio per second, %.0f masked tokens per second in the transformers, peak memory %.0f "
         "MiB\n",
         audio_per_second(bench), tokens_per_second(bench), bench->peak_mib);
}

static void print_json(const struct bench *bench) {
  const struct vamp_settings *settings = bench->settings;
  const struct vamp_sampling *sampling = &bench->variations[0].sampling;
  json_t *wall = json_object(), *faster = json_object();
  for (int stage = 0; stage < STAGES; stage++) {
    json_object_set_new(wall, STAGE_NAMES[stage], json_real(bench->median[stage]));
    if (bench->torch && bench->median[stage] > 0) {
      json_object_set_new(faster, STAGE_NAMES[stage],
                          json_real(torch_seconds(bench, stage) * settings->batch / bench->median[stage]));
    }
  }
  json_t *object = json_pack(
      "{s:s, s:s, s:s, s:s, s:i, s:f, s:i, s:i, s:i, s:f, s:o, s:f, s:f, s:f}", "version", VAMP_VERSION,
      "device", bench->session.device->description, "model", bench->session.config->name, "precision",
      vamp_precision_name(bench->session.device->precision), "batch", settings->batch, "seconds",
      settings->seconds, "coarse_steps", sampling->coarse_steps, "fine_steps", sampling->fine_steps, "repeat",
      settings->repeat, "load_s", bench->session.load_seconds, "wall_s", wall, "audio_seconds_per_second",
      audio_per_second(bench), "tokens_per_second", tokens_per_second(bench), "peak_memory_mib",
      bench->peak_mib);
  if (object && bench->torch) {
    json_object_set(object, "torch", bench->torch);
    json_object_set(object, "times_faster", faster);
  }
  json_decref(faster);
  vamp_json_print(object);
}

static int command_bench(struct vamp_settings *settings) {
  if (settings->model && settings->dims) {
    return vamp_usage_error(settings, "give either -m or --dims");
  }
  if (settings->compare_torch && settings->model) {
    return vamp_usage_error(settings, "--compare-torch compares named sizes: give --dims instead of -m");
  }
  struct vamp_error error = {0};
  struct vamp_model_config config;
  if (vamp_config_named(settings->dims ? settings->dims : "small", &config, &error) < 0) {
    return vamp_usage_error(settings, "--dims: %s", error.message);
  }
  struct bench *bench = calloc(1, sizeof *bench);
  if (!bench) {
    vamp_warn(settings, "out of memory");
    return VAMP_EXIT_FAILED;
  }
  bench->settings = settings;
  int status = vamp_session_open(settings, settings->model ? NULL : &config, &bench->session, &error);
  if (status == 0) {
    status = prepare(bench, &error);
  }
  if (status == 0) {
    status = measure(bench, &error);
  }
  if (status == 0 && settings->compare_torch) {
    status = run_torch(bench, &error);
  }
  if (status == 0 && settings->json) {
    print_json(bench);
  } else if (status == 0) {
    print_table(bench);
  }
  for (int i = 0; bench->variations && i < settings->batch; i++) {
    vamp_variation_free(&bench->variations[i]);
  }
  free(bench->variations);
  json_decref(bench->torch);
  vamp_session_close(&bench->session);
  free(bench);
  return status < 0 ? vamp_report(settings, NULL, &error) : VAMP_EXIT_OK;
}

#define MEMBER(name) offsetof(struct vamp_settings, name)

static const struct vamp_option own_options[] = {
    {"dims", 0, VAMP_OPTION_TEXT, MEMBER(dims), NULL, 0, 0, "SIZE",
     "small or official: random weights of this size (default: small)"},
    {"batch", 0, VAMP_OPTION_COUNT, MEMBER(batch), NULL, 1, 1000, "N", "clips at once (default 1)"},
    {"seconds", 0, VAMP_OPTION_SECONDS, MEMBER(seconds), NULL, 0.1, 600, "S",
     "length of a clip (default 10)"},
    {"repeat", 0, VAMP_OPTION_COUNT, MEMBER(repeat), NULL, 1, MAX_REPEATS, "N",
     "runs to take the median of (default 1)"},
    {"compare-torch", 0, VAMP_OPTION_FLAG, MEMBER(compare_torch), NULL, 0, 0, NULL,
     "time " TORCH_PROGRAM " too (needs python3-torch; run it from the repository)"},
    {"json", 0, VAMP_OPTION_FLAG, MEMBER(json), NULL, 0, 0, NULL, "print one JSON object"},
    {"quiet", 'q', VAMP_OPTION_FLAG, MEMBER(quiet), NULL, 0, 0, NULL, "no progress"},
    {0},
};

static const struct vamp_option_group groups[] = {
    {"options", own_options},
    {"steps", vamp_options_steps},
    {"mask", vamp_options_mask},
    {"model", vamp_options_model},
    {NULL, NULL},
};

const struct vamp_command vamp_command_bench = {
    .name = "bench",
    .synopsis = "[-m MODEL | --dims small|official] [options]",
    .summary = "measure speed and memory",
    .description =
        "Times whole variations of synthetic audio, stage by stage: a model's, or with random weights of a\n"
        "named size where no -m is given.\n",
    .example = "  vamp bench --dims official --precision bf16 --repeat 3\n",
    .groups = groups,
    .minimum_arguments = 0,
    .maximum_arguments = 0,
    .run = command_bench,
};
