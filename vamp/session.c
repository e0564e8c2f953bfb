/*
 * Finding a model, opening it, and running jobs on it.
 *
 * The command line is one thread: it prepares audio, steps the loop and writes results in turn. A second
 * thread for files would only contend with the device's threads for the same cores; the daemon, which must
 * answer while it computes, has one.
 */
#include "vamp/session.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "vamp/device.h"

double vamp_clock(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

int vamp_settings_model(const struct vamp_settings *settings, char folder[PATH_MAX],
                        struct vamp_error *error) {
  const char *preferred = getenv("VAMP_MODEL");
  if (settings->model) {
    return vamp_model_find(settings->model, folder, error);
  }
  if (!preferred || !preferred[0]) {
    return vamp_model_find("small", folder, error);
  }
  struct vamp_error why;
  int status = vamp_model_find(preferred, folder, &why);
  return status == 0 ? 0 : vamp_fail(error, status, "$VAMP_MODEL: %s", why.message);
}

/* The precision is "fp32", "tf32", "bf16" or nothing. */
static int parse_device(const struct vamp_settings *settings, struct vamp_device_options *options,
                        struct vamp_error *error) {
  const char *text = settings->precision;
  options->backend = settings->backend;
  options->threads = settings->threads;
  options->index = settings->device;
  if (!text) {
    return 0;
  }
  options->precision_given = strcmp(text, "auto") != 0;
  if (options->precision_given && !vamp_precision_parse(text, &options->precision)) {
    return vamp_fail_field(error, VAMP_INVALID, "/precision", "it is auto, fp32, tf32 or bf16, not '%s'",
                           text);
  }
  return 0;
}

int vamp_session_open(const struct vamp_settings *settings, const struct vamp_model_config *random,
                      struct vamp_session *session, struct vamp_error *error) {
  *session = (struct vamp_session){0};
  double started = vamp_clock();
  struct vamp_device_options options = {0};
  struct vamp_device_choice choice;
  char folder[PATH_MAX] = "";
  int status = parse_device(settings, &options, error);
  if (status == 0 && !random) {
    status = vamp_settings_model(settings, folder, error);
  }
  if (status == 0) {
    status = vamp_device_open(&options, &session->device, &choice, error);
  }
  /* Into a file or a pipe only what is not expected: scripts look at standard error. */
  if (status == 0 && !settings->quiet &&
      (isatty(STDERR_FILENO) || strcmp(session->device->backend, "cpu") != 0)) {
    fprintf(stderr, "%s\n", choice.text);
  }
  if (status == 0) {
    status = random ? vamp_model_random(random, 1, session->device, &session->model, error)
                    : vamp_model_open(folder, session->device, &session->model, error);
  }
  if (status == 0) {
    status = vamp_loop_create(session->model, NULL, &session->loop, error);
  }
  if (status < 0) {
    vamp_session_close(session);
    return status;
  }
  session->config = vamp_model_config(session->model);
  session->load_seconds = vamp_clock() - started;
  return 0;
}

void vamp_session_close(struct vamp_session *session) {
  if (session->loop) {
    vamp_loop_free(session->loop);
  }
  if (session->model) {
    vamp_model_free(session->model);
  }
  if (session->device) {
    session->device->close(session->device);
  }
  *session = (struct vamp_session){0};
}

int vamp_session_event(struct vamp_session *session, struct vamp_event *event, struct vamp_error *error) {
  for (;;) {
    if (vamp_loop_next_event(session->loop, event)) {
      return 0;
    }
    int status = vamp_loop_step(session->loop, error);
    if (status < 0 && !vamp_loop_next_event(session->loop, event)) {
      return status;
    }
    if (status < 0) {
      return 0; /* the jobs' own events say what happened */
    }
    if (status == 0) {
      if (vamp_loop_next_event(session->loop, event)) {
        return 0;
      }
      return vamp_fail(error, VAMP_DEVICE, "the batch loop has stopped with work left; this is a bug");
    }
  }
}

int vamp_session_run(const struct vamp_settings *settings, struct vamp_session *session,
                     const struct vamp_job *job, struct vamp_result **result, struct vamp_error *error) {
  uint64_t id;
  int status = vamp_loop_submit(session->loop, job, &id, error);
  if (status < 0) {
    return status;
  }
  struct vamp_progress progress;
  vamp_progress_start(&progress, settings, 1);
  for (;;) {
    struct vamp_event event;
    status = vamp_session_event(session, &event, error);
    if (status < 0) {
      break;
    }
    if (event.type == VAMP_EVENT_DONE) {
      *result = event.result;
      break;
    }
    if (event.type == VAMP_EVENT_FAILED || event.type == VAMP_EVENT_CANCELLED) {
      status = event.type == VAMP_EVENT_FAILED ? event.error.status : VAMP_CANCELLED;
      if (error) {
        *error = event.error;
      }
      break;
    }
    progress.running = (double)event.progress;
    vamp_progress_draw(&progress, &event);
  }
  vamp_progress_clear(&progress);
  return status;
}
