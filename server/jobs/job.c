/*
 * A job: see job.h.
 *
 * References: one is the creator's, one the device's from submission until `done` has returned. Whoever
 * cancels does so through a reference of their own.
 *
 * The mutex orders submission, cancellation and the end. The loop may finish a job before
 * vamp_loop_submit has even returned its id; the worker that finishes it takes the mutex first, and so
 * waits until the submitter has noted the id and dropped the samples. The device thread takes no lock: it
 * notes the event and hands the job to a worker.
 */
#include "server/jobs/job.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "server/access/keys.h"
#include "server/log.h"

struct vampd_job {
  struct vampd_task finish; /* first member: the task is the job */
  struct vampd_device *device;
  struct vampd_work *work;
  struct vampd_job_options options;
  atomic_int references;
  pthread_mutex_t mutex; /* guards the members down to `cancelled` */
  struct vamp_variation variation;
  uint64_t id; /* in the loop */
  bool submitted, cancelled;
  double submitted_at;
  /* Written by the device thread before the finishing task is pushed, read by that task. */
  int status;
  struct vamp_error error;
  struct vamp_result *result;
};

static void finish(struct vampd_task *task) {
  struct vampd_job *job = (struct vampd_job *)task;
  pthread_mutex_lock(&job->mutex); /* the submitter is done with the job, then */
  job->submitted = false;
  pthread_mutex_unlock(&job->mutex);
  if (job->result && job->options.task == VAMP_TASK_VARIATION) {
    vamp_variation_finish(&job->variation, job->result);
  }
  struct vampd_outcome outcome = {
      .job = job,
      .status = job->status,
      .error = &job->error,
      .variation = &job->variation,
      .result = job->result,
      .seconds = vampd_now() - job->submitted_at,
  };
  job->options.done(&outcome, job->options.user);
  vampd_job_release(job);
}

int vampd_job_create(struct vampd_device *device, struct vampd_work *work,
                     const struct vampd_job_options *options, struct vamp_variation *variation,
                     struct vampd_job **job, struct vamp_error *error) {
  struct vampd_job *made = calloc(1, sizeof *made);
  if (!made) {
    return vamp_fail(error, VAMP_MEMORY, "Out of memory while accepting the job.");
  }
  made->finish.run = finish;
  made->device = device;
  made->work = work;
  made->options = *options;
  atomic_init(&made->references, 1);
  pthread_mutex_init(&made->mutex, NULL);
  made->variation = *variation;
  *variation = (struct vamp_variation){0};
  *job = made;
  return VAMP_OK;
}

/* The job in the form the loop takes. */
static struct vamp_job describe(struct vampd_job *job) {
  const struct vampd_job_options *options = &job->options;
  struct vamp_job task = {.task = options->task};
  if (options->task == VAMP_TASK_VARIATION) {
    vamp_variation_job(&job->variation, &task);
  } else if (options->task == VAMP_TASK_ENCODE) {
    task.samples = job->variation.clip.samples;
    task.sample_count = job->variation.clip.count;
    vamp_sampling_defaults(&task.sampling);
  } else {
    vamp_sampling_defaults(&task.sampling);
  }
  if (options->codes) {
    task.samples = NULL;
    task.codes = options->codes;
    task.codebooks = options->codebooks;
    task.frames = options->frames;
  }
  if (options->caller) {
    task.client = vampd_caller_client(options->caller);
    task.weight = (float)vampd_caller_priority(options->caller) / VAMPD_PRIORITY_DEFAULT;
  }
  task.user = job;
  return task;
}

int vampd_job_submit(struct vampd_job *job, struct vamp_error *error) {
  struct vamp_job task = describe(job);
  /* One reference for the device, one for this function: the job may end before it does. */
  atomic_fetch_add(&job->references, 2);
  pthread_mutex_lock(&job->mutex);
  job->submitted_at = vampd_now();
  int status = job->cancelled ? vamp_fail(error, VAMP_CANCELLED, "The job was cancelled before it began.")
                              : vampd_device_submit(job->device, &task, &job->id, error);
  if (status == VAMP_OK) {
    job->submitted = true;
    job->options.codes = NULL;
    if (!job->options.keep_samples) {
      vamp_variation_forget_samples(&job->variation);
    }
  }
  pthread_mutex_unlock(&job->mutex);
  if (status != VAMP_OK) {
    atomic_fetch_sub(&job->references, 1); /* the device's; ours is still there */
  }
  vampd_job_release(job);
  return status;
}

void vampd_job_cancel(struct vampd_job *job) {
  pthread_mutex_lock(&job->mutex);
  job->cancelled = true;
  if (job->submitted) {
    vampd_device_cancel(job->device, job->id);
  }
  pthread_mutex_unlock(&job->mutex);
}

void vampd_job_take_variation(struct vampd_job *job, struct vamp_variation *variation) {
  *variation = job->variation;
  job->variation = (struct vamp_variation){0};
}

void vampd_job_release(struct vampd_job *job) {
  if (!job || atomic_fetch_sub(&job->references, 1) != 1) {
    return;
  }
  vamp_variation_free(&job->variation);
  vamp_result_free(job->result);
  pthread_mutex_destroy(&job->mutex);
  free(job);
}

void vampd_job_event(const struct vamp_event *event) {
  struct vampd_job *job = event->user;
  if (event->type == VAMP_EVENT_PROGRESS) {
    if (job->options.progress) {
      job->options.progress(event, job->options.user);
    }
    return;
  }
  if (event->type == VAMP_EVENT_DONE) {
    job->status = VAMP_OK;
    job->result = event->result;
  } else if (event->type == VAMP_EVENT_CANCELLED) {
    job->status = vamp_fail(&job->error, VAMP_CANCELLED, "The job was cancelled.");
  } else {
    job->error = event->error;
    job->status = event->error.status != VAMP_OK ? event->error.status : VAMP_DEVICE;
  }
  vampd_work_push(job->work, &job->finish, true);
}
