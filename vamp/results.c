/*
 * Where the results of `vamp run` go, and how they are written.
 *
 * One input and one variation: -o names a file. Otherwise, or where -o is a folder already, -o is a folder,
 * and a result is named after its input: song.flac -> OUT/song.wav, and with --variations OUT/song-1.wav and
 * on. The same holds for --mask-png and its kin. All names are worked out before anything is computed: two
 * inputs that would write the same file, or a result that would overwrite an input, its own or another's, are
 * found at once and not after an hour.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "vamp/run.h"

static bool is_folder(const char *path) {
  struct stat status;
  return stat(path, &status) == 0 && S_ISDIR(status.st_mode);
}

static const char *extension_of(enum vamp_audio_format format) {
  return format == VAMP_AUDIO_FLAC ? ".flac" : format == VAMP_AUDIO_OGG ? ".ogg" : ".wav";
}

/* FOLDER/NAME[-NUMBER]EXTENSION with the input's own name; malloc'd, NULL when out of memory. */
static char *name_after(const struct vamp_run_task *task, const char *folder, const char *extension) {
  const char *slash = strrchr(task->input, '/');
  const char *name = slash ? slash + 1 : task->input;
  const char *dot = strrchr(name, '.');
  int length = dot && dot != name ? (int)(dot - name) : (int)strlen(name);
  size_t folder_length = strlen(folder);
  const char *between = folder_length > 0 && folder[folder_length - 1] == '/' ? "" : "/";
  char number[16] = "";
  if (task->number > 0) {
    snprintf(number, sizeof number, "-%d", task->number);
  }
  char *path = NULL;
  if (asprintf(&path, "%s%s%.*s%s%s", folder, between, length, name, number, extension) < 0) {
    return NULL;
  }
  return path;
}

static int make_folder(const struct vamp_settings *settings, const char *path) {
  if (!path || is_folder(path) || mkdir(path, 0777) == 0) {
    return VAMP_EXIT_OK;
  }
  vamp_warn(settings, "cannot make the folder %s: %s", path, strerror(errno));
  return VAMP_EXIT_FAILED;
}

/* The format of a single file: --format, or what its name ends in; both must agree. */
static int format_of_file(const struct vamp_settings *settings, const struct vamp_request *request,
                          enum vamp_audio_format *format) {
  struct vamp_error error;
  enum vamp_audio_format named;
  bool given = vamp_settings_given(settings, "/format");
  if (vamp_audio_format_from_path(settings->output, &named, &error) < 0) {
    if (!given) {
      return vamp_usage_error(settings, "%s", error.message);
    }
    named = request->format;
  }
  if (given && strcmp(extension_of(named), extension_of(request->format)) != 0) {
    return vamp_usage_error(settings, "--format says %s, but %s is named otherwise",
                            extension_of(request->format) + 1, settings->output);
  }
  *format = given ? request->format : named;
  return VAMP_EXIT_OK;
}

static int compare_names(const void *one, const void *other) {
  const char *const *a = one, *const *b = other;
  return strcmp(*a, *b);
}

/* Two inputs that would be written to `output`, which is known to be there twice. */
static int report_twice(const struct vamp_settings *settings, const struct vamp_run_task *tasks, int count,
                        const char *output) {
  const char *inputs[2] = {"", ""};
  for (int i = 0, found = 0; i < count && found < 2; i++) {
    if (strcmp(tasks[i].output, output) == 0) {
      inputs[found++] = tasks[i].input;
    }
  }
  return vamp_usage_error(settings, "%s and %s would both be written to %s; rename one or run them apart",
                          inputs[0], inputs[1], output);
}

/* A file that is there, whatever it is called. */
struct identity {
  dev_t device;
  ino_t number;
  const char *name;
};

static int compare_identities(const void *one, const void *other) {
  const struct identity *a = one, *b = other;
  if (a->device != b->device) {
    return a->device < b->device ? -1 : 1;
  }
  return (a->number > b->number) - (a->number < b->number);
}

static bool identify(const char *name, struct identity *identity) {
  struct stat status;
  if (stat(name, &status) != 0) {
    return false;
  }
  *identity = (struct identity){status.st_dev, status.st_ino, name};
  return true;
}

/* An input may be the output of another one: song-1.wav, say, beside the first variation of song.flac.
 * Whether it had been read by then would be a matter of luck. */
static int check_inputs(const struct vamp_settings *settings, const struct vamp_run_task *tasks, int count) {
  struct identity *inputs = calloc((size_t)settings->argument_count, sizeof *inputs), output;
  if (!inputs) {
    vamp_warn(settings, "out of memory");
    return VAMP_EXIT_FAILED;
  }
  size_t there = 0;
  for (int i = 0; i < settings->argument_count; i++) {
    there += identify(settings->arguments[i], &inputs[there]);
  }
  qsort(inputs, there, sizeof *inputs, compare_identities);
  int status = VAMP_EXIT_OK;
  for (int i = 0; i < count && status == VAMP_EXIT_OK; i++) {
    const struct identity *input = identify(tasks[i].output, &output)
                                       ? bsearch(&output, inputs, there, sizeof *inputs, compare_identities)
                                       : NULL;
    if (input && strcmp(input->name, tasks[i].input) == 0) {
      status = vamp_usage_error(settings, "%s would be overwritten by its own variation; choose another -o",
                                input->name);
    } else if (input) {
      status = vamp_usage_error(settings, "%s would be overwritten by the variation of %s; choose another -o",
                                input->name, tasks[i].input);
    }
  }
  free(inputs);
  return status;
}

static int check_outputs(const struct vamp_settings *settings, const struct vamp_run_task *tasks, int count) {
  int status = check_inputs(settings, tasks, count);
  if (status != VAMP_EXIT_OK) {
    return status;
  }
  const char **names = calloc((size_t)count, sizeof *names);
  if (!names) {
    vamp_warn(settings, "out of memory");
    return VAMP_EXIT_FAILED;
  }
  for (int i = 0; i < count; i++) {
    names[i] = tasks[i].output;
  }
  qsort(names, (size_t)count, sizeof *names, compare_names);
  for (int i = 1; i < count && status == VAMP_EXIT_OK; i++) {
    if (strcmp(names[i - 1], names[i]) == 0) {
      status = report_twice(settings, tasks, count, names[i]);
    }
  }
  free(names);
  return status;
}

static int make_folders(const struct vamp_settings *settings) {
  const char *const folders[] = {settings->output, settings->mask_png, settings->mask_svg,
                                 settings->mask_json, settings->tokens};
  for (size_t i = 0; i < sizeof folders / sizeof folders[0]; i++) {
    if (make_folder(settings, folders[i]) != VAMP_EXIT_OK) {
      return VAMP_EXIT_FAILED;
    }
  }
  return VAMP_EXIT_OK;
}

static int name_outputs(const struct vamp_settings *settings, const struct vamp_request *request,
                        struct vamp_run_task *tasks, int count) {
  size_t length = strlen(settings->output);
  bool several = count > 1;
  bool folder = several || settings->output[length - 1] == '/' || is_folder(settings->output);
  enum vamp_audio_format format = request->format;
  if (!folder) {
    int status = format_of_file(settings, request, &format);
    if (status != VAMP_EXIT_OK) {
      return status;
    }
  }
  for (int i = 0; i < count; i++) {
    struct vamp_run_task *task = &tasks[i];
    task->input = settings->arguments[i / settings->variations];
    task->number = settings->variations > 1 ? i % settings->variations + 1 : 0;
    task->many = several;
    task->format = format;
    task->output =
        folder ? name_after(task, settings->output, extension_of(format)) : strdup(settings->output);
    if (!task->output) {
      vamp_warn(settings, "out of memory");
      return VAMP_EXIT_FAILED;
    }
  }
  int status = check_outputs(settings, tasks, count);
  if (status != VAMP_EXIT_OK) {
    return status;
  }
  return several ? make_folders(settings) : folder ? make_folder(settings, settings->output) : VAMP_EXIT_OK;
}

int vamp_run_plan(const struct vamp_settings *settings, const struct vamp_request *request,
                  struct vamp_run_task **tasks, int *count) {
  if (!settings->output) {
    return vamp_usage_error(settings,
                            "-o says where the result goes: a file, or a folder for several inputs");
  }
  int wanted = settings->argument_count * settings->variations;
  struct vamp_run_task *made = calloc((size_t)wanted, sizeof *made);
  if (!made) {
    vamp_warn(settings, "out of memory");
    return VAMP_EXIT_FAILED;
  }
  int status = name_outputs(settings, request, made, wanted);
  if (status != VAMP_EXIT_OK) {
    vamp_run_tasks_free(made, wanted);
    return status;
  }
  *tasks = made;
  *count = wanted;
  return VAMP_EXIT_OK;
}

void vamp_run_tasks_free(struct vamp_run_task *tasks, int count) {
  for (int i = 0; tasks && i < count; i++) {
    vamp_variation_free(&tasks[i].variation);
    free(tasks[i].output);
  }
  free(tasks);
}

/* ---- writing ------------------------------------------------------------------------------------------ */

/* The name of a companion file: `target` itself, or a name in the folder it is. NULL when out of memory. */
static char *companion(const struct vamp_run_task *task, const char *target, const char *extension) {
  return task->many || is_folder(target) ? name_after(task, target, extension) : strdup(target);
}

static int write_picture(const struct vamp_run_task *task, const struct vamp_result *result,
                         const char *target, enum vamp_picture_format format, struct vamp_error *error) {
  if (!target) {
    return 0;
  }
  void *data = NULL;
  size_t size = 0;
  int status = vamp_variation_picture(&task->variation, result, format, &data, &size, error);
  if (status < 0) {
    return status;
  }
  char *path = companion(task, target, format == VAMP_PICTURE_PNG ? ".png" : ".svg");
  status = path ? vamp_bytes_write(path, data, size, error) : vamp_fail(error, VAMP_MEMORY, "out of memory");
  free(path);
  free(data);
  return status;
}

static int write_mask_json(const struct vamp_settings *settings, const struct vamp_run_task *task,
                           const json_t *document, struct vamp_error *error) {
  if (!settings->mask_json) {
    return 0;
  }
  char *path = companion(task, settings->mask_json, ".json");
  int status = path ? vamp_json_write(path, document, error) : vamp_fail(error, VAMP_MEMORY, "out of memory");
  free(path);
  return status;
}

static int write_tokens(const struct vamp_settings *settings, const struct vamp_run_task *task,
                        const struct vamp_result *result, struct vamp_error *error) {
  if (!settings->tokens) {
    return 0;
  }
  char *path = companion(task, settings->tokens, ".npy");
  int status = path ? vamp_codes_write(path, result->codes, result->codebooks, result->frames, error)
                    : vamp_fail(error, VAMP_MEMORY, "out of memory");
  free(path);
  return status;
}

static void print_result(const struct vamp_settings *settings, const struct vamp_run_task *task,
                         const struct vamp_result *result, const json_t *document) {
  double wall = vamp_clock() - task->started;
  json_t *density = json_object_get(document, "density");
  if (settings->json) {
    vamp_json_print(json_pack("{s:o, s:o, s:O, s:f, s:i, s:O, s:{s:f, s:f, s:f, s:f, s:f, s:f}}", "input",
                              vamp_json_name(task->input), "output", vamp_json_name(task->output), "seed",
                              json_object_get(document, "seed"), "duration_s", task->audio_seconds, "frames",
                              result->frames, "density", density, "seconds", "queued", result->seconds.queued,
                              "encode", result->seconds.encode, "coarse", result->seconds.coarse, "fine",
                              result->seconds.fine, "decode", result->seconds.decode, "total", wall));
  } else if (!settings->quiet) {
    printf("%s: %.1f s of audio in %.1f s, seed %lld, %.1f %% of its tokens masked (%.1f %% of the coarse "
           "ones)\n",
           task->output, task->audio_seconds, wall, (long long)task->variation.sampling.seed,
           100 * json_number_value(json_object_get(density, "overall")),
           100 * json_number_value(json_object_get(density, "coarse")));
    fflush(stdout);
  }
}

int vamp_run_write(const struct vamp_settings *settings, const struct vamp_run_task *task,
                   const struct vamp_result *result, struct vamp_error *error) {
  json_t *document = vamp_variation_mask_json(&task->variation, result);
  if (!document) {
    return vamp_fail(error, VAMP_MEMORY, "out of memory");
  }
  int status = vamp_audio_write_file(task->output, task->format, result->samples, result->sample_count,
                                     task->variation.sample_rate, error);
  if (status == 0) {
    status = write_picture(task, result, settings->mask_png, VAMP_PICTURE_PNG, error);
  }
  if (status == 0) {
    status = write_picture(task, result, settings->mask_svg, VAMP_PICTURE_SVG, error);
  }
  if (status == 0) {
    status = write_mask_json(settings, task, document, error);
  }
  if (status == 0) {
    status = write_tokens(settings, task, result, error);
  }
  if (status == 0) {
    print_result(settings, task, result, document);
  }
  json_decref(document);
  return status;
}

void vamp_run_failed(const struct vamp_settings *settings, const struct vamp_run_task *task,
                     const struct vamp_error *error) {
  vamp_report(settings, task->input, error);
  if (settings->json) {
    vamp_json_print(json_pack("{s:o, s:{s:i, s:s, s:s}}", "input", vamp_json_name(task->input), "error",
                              "status", error->status, "message", error->message, "field", error->field));
  }
}
