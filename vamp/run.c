/*
 * vamp run: variations of files.
 *
 * Every input times every variation is a task. All tasks go to one batch loop, so ten files are generated
 * together as ten requests to the daemon would be; only a bounded number are held in memory at a time, so a
 * folder of a thousand files needs no more than a few dozen of them do. A file that fails is reported and
 * the others go on.
 */
#include <limits.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "vamp/run.h"

/* What is held at a time: enough to fill any device, and at most about 1 GiB of audio and tokens. */
#define MAX_TASKS_HELD 32
#define MAX_SECONDS_HELD 3600.0

struct run {
  const struct vamp_settings *settings;
  struct vamp_session session;
  struct vamp_progress progress;
  struct vamp_run_task *tasks;
  int count, next; /* tasks, and how many have been begun */
  int held, failed;
  double seconds_held;
  int64_t seed; /* of the first variation; -1: each draws its own */
};

static void task_failed(struct run *run, const struct vamp_run_task *task, const struct vamp_error *error) {
  vamp_progress_clear(&run->progress);
  vamp_run_failed(run->settings, task, error);
  run->failed++;
  run->progress.done++;
}

/* Reads and prepares one input and hands it to the loop. */
static int start_task(struct run *run, struct vamp_run_task *task, struct vamp_error *error) {
  struct vamp_request request = {0};
  struct vamp_audio audio = {0};
  struct vamp_audio_limits limits = vamp_audio_default_limits();
  struct vamp_job job;
  uint64_t id;
  int64_t seed = run->seed < 0 || task->number == 0 ? run->seed : run->seed + task->number - 1;
  task->started = vamp_clock();
  int status = vamp_settings_request(run->settings, seed, &request, error);
  if (status == 0) {
    status = vamp_audio_read_file(task->input, &limits, &audio, error);
  }
  if (status == 0) {
    task->audio_seconds = (double)audio.frames / audio.sample_rate;
    status = vamp_variation_prepare(&request, &audio, run->session.config, &task->variation, error);
  }
  vamp_audio_free(&audio);
  vamp_request_free(&request);
  if (status == 0) {
    vamp_variation_job(&task->variation, &job);
    job.user = task;
    status = vamp_loop_submit(run->session.loop, &job, &id, error);
  }
  if (status < 0) {
    vamp_variation_free(&task->variation);
    return status;
  }
  vamp_variation_forget_samples(&task->variation); /* the loop has its own copy */
  run->held++;
  run->seconds_held += task->audio_seconds;
  return 0;
}

static void start_tasks(struct run *run) {
  while (run->next < run->count && run->held < MAX_TASKS_HELD &&
         (run->held == 0 || run->seconds_held < MAX_SECONDS_HELD)) {
    struct vamp_run_task *task = &run->tasks[run->next++];
    struct vamp_error error = {0};
    if (start_task(run, task, &error) < 0) {
      task_failed(run, task, &error);
    }
  }
}

static void finish_task(struct run *run, struct vamp_run_task *task, struct vamp_event *event) {
  run->progress.running -= task->progress;
  run->held--;
  run->seconds_held -= task->audio_seconds;
  if (event->type == VAMP_EVENT_DONE) {
    struct vamp_error error = {0};
    vamp_progress_clear(&run->progress);
    vamp_variation_finish(&task->variation, event->result);
    if (vamp_run_write(run->settings, task, event->result, &error) < 0) {
      task_failed(run, task, &error);
    } else {
      run->progress.done++;
    }
    vamp_result_free(event->result);
  } else {
    task_failed(run, task, &event->error);
  }
  vamp_variation_free(&task->variation);
}

/* Steps the loop until every task is done; negative where the device is lost. */
static int run_tasks(struct run *run, struct vamp_error *error) {
  for (;;) {
    start_tasks(run);
    if (run->held == 0) {
      return 0;
    }
    struct vamp_event event;
    int status = vamp_session_event(&run->session, &event, error);
    if (status < 0) {
      return status;
    }
    struct vamp_run_task *task = event.user;
    if (event.type == VAMP_EVENT_PROGRESS) {
      run->progress.running += (double)event.progress - task->progress;
      task->progress = (double)event.progress;
      vamp_progress_draw(&run->progress, &event);
    } else {
      finish_task(run, task, &event);
    }
  }
}

static int command_run(struct vamp_settings *settings) {
  struct run run = {.settings = settings, .seed = -1};
  struct vamp_request request = {0};
  struct vamp_error error = {0};
  /* Before anything slow: is what was asked for well-formed, and where will it go? */
  if (vamp_settings_request(settings, -1, &request, &error) < 0) {
    return vamp_report(settings, NULL, &error);
  }
  json_t *seed = json_object_get(settings->parameters, "seed");
  if (seed) {
    run.seed = (int64_t)json_number_value(seed); /* --params may say 7.0 */
  }
  int exit_code = vamp_run_plan(settings, &request, &run.tasks, &run.count);
  vamp_request_free(&request);
  if (exit_code != VAMP_EXIT_OK) {
    return exit_code;
  }
  int status = vamp_session_open(settings, NULL, &run.session, &error);
  if (status == 0) {
    vamp_progress_start(&run.progress, settings, run.count);
    status = run_tasks(&run, &error);
    vamp_progress_clear(&run.progress);
  }
  if (status < 0) {
    exit_code = vamp_report(settings, NULL, &error);
  } else if (run.failed > 0) {
    exit_code = VAMP_EXIT_FAILED;
    if (run.count > 1) {
      vamp_warn(settings, "%d of %d failed", run.failed, run.count);
    }
  }
  vamp_session_close(&run.session);
  vamp_run_tasks_free(run.tasks, run.count);
  return exit_code;
}

#define MEMBER(name) offsetof(struct vamp_settings, name)

static const struct vamp_option own_options[] = {
    {"output", 'o', VAMP_OPTION_TEXT, MEMBER(output), NULL, 0, 0, "OUT",
     "where the result goes: a file, or a folder for several inputs (names are kept)"},
    {"format", 0, VAMP_OPTION_PARAMETER_TEXT, 0, "/format", 0, 0, "F",
     "wav (16 bit), wav24, wavfloat, flac or ogg (default: by the name of OUT, else wav)"},
    {"variations", 0, VAMP_OPTION_COUNT, MEMBER(variations), NULL, 1, 1000, "N",
     "make N variations of each input, with seeds S, S+1, ... (default 1)"},
    {"mask-png", 0, VAMP_OPTION_TEXT, MEMBER(mask_png), NULL, 0, 0, "F",
     "draw the mask (F and its kin: a folder for several results)"},
    {"mask-svg", 0, VAMP_OPTION_TEXT, MEMBER(mask_svg), NULL, 0, 0, "F", "the same as SVG"},
    {"mask-json", 0, VAMP_OPTION_TEXT, MEMBER(mask_json), NULL, 0, 0, "F",
     "the mask with its layers, densities, and what the model did"},
    {"tokens", 0, VAMP_OPTION_TEXT, MEMBER(tokens), NULL, 0, 0, "F",
     "the variation's tokens, int32 [codebooks, frames] (.npy)"},
    {"json", 0, VAMP_OPTION_FLAG, MEMBER(json), NULL, 0, 0, NULL, "print one JSON object for each result"},
    {"quiet", 'q', VAMP_OPTION_FLAG, MEMBER(quiet), NULL, 0, 0, NULL, "print nothing but errors"},
    {0},
};

static const struct vamp_option_group groups[] = {
    {"options", own_options},
    {"parameters", vamp_options_params},
    {"mask", vamp_options_mask},
    {"steps", vamp_options_steps},
    {"sampling", vamp_options_sampling},
    {"randomness", vamp_options_seed},
    {"model", vamp_options_model},
    {NULL, NULL},
};

const struct vamp_command vamp_command_run = {
    .name = "run",
    .synopsis = "IN... -o OUT [options]",
    .summary = "make variations of audio files",
    .description =
        "Makes a variation of each IN: encodes it to tokens, masks some, lets the model fill them in, and\n"
        "decodes. IN is WAV, FLAC, Ogg Vorbis, Opus, MP3 or AIFF of any rate, up to 10 minutes long. The\n"
        "result is mono at the model's rate and at its input's level: what is kept is as loud as it was.\n",
    .example =
        "  vamp run song.wav -o variation.wav --mask-ratio 0.7 --periodic-prompt 10 --mask-png mask.png\n"
        "  vamp run *.flac -o variations/ --preset creative --variations 3 --seed 1\n",
    .groups = groups,
    .minimum_arguments = 1,
    .maximum_arguments = INT_MAX,
    .run = command_run,
};
