/*
 * The runner: see runner.h.
 *
 * A job that is taken from the queue is one thread's at a time: a worker's while it is prepared, the
 * device's, a worker's again. Only what others look at or change meanwhile (its state, its cancellation) is
 * under the house's lock, which is never held while anything here waits.
 */
#include "server/jobs/runner.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "server/http/answer.h"
#include "server/jobs/document.h"
#include "server/jobs/job.h"
#include "server/jobs/outlook.h"
#include "server/jobs/prepare.h"
#include "server/jobs/result.h"
#include "server/log.h"

#define MAX_REFUSALS 5         /* times in a row without memory, before a job fails */
#define MAX_DISK_REFUSALS 1000 /* likewise, of the disk: four hours */
#define MEMORY_SECONDS 5.0     /* until a job for which there was none is tried again */
#define DISK_SECONDS 15.0      /* likewise, disk */
#define KEEP_ALIVE_SECONDS 15.0
#define CANCELLED_AT_ONCE 512 /* by one commit: about half a megabyte of the store's log */

struct vampd_runner {
  struct vampd_runner_parts parts;
  atomic_bool running;   /* jobs are taken */
  atomic_bool abandoned; /* those that end now are not recorded */
  atomic_int busy;
  double kept_alive; /* the ticking thread's */
};

int vampd_runner_create(const struct vampd_runner_parts *parts, struct vampd_runner **runner,
                        struct vamp_error *error) {
  struct vampd_runner *made = calloc(1, sizeof *made);
  if (!made) {
    return vamp_fail(error, VAMP_MEMORY, "Out of memory for the runner.");
  }
  made->parts = *parts;
  *runner = made;
  return VAMP_OK;
}

void vampd_runner_free(struct vampd_runner *runner) {
  free(runner);
}

static void prepare(struct vampd_task *task);

/* Takes as many jobs from the queue as may run. */
static void take_more(struct vampd_runner *runner) {
  for (;;) {
    vampd_house_lock(runner->parts.house);
    /* Under the lock: after vampd_runner_hold there is none that nobody counts. */
    struct vampd_live *live = runner->running ? vampd_house_take(runner->parts.house, vampd_now()) : NULL;
    if (live) {
      atomic_fetch_add(&runner->busy, 1);
      live->task.run = prepare;
      live->runner = runner;
    }
    vampd_house_unlock(runner->parts.house);
    if (!live) {
      return;
    }
    vampd_work_push(runner->parts.work, &live->task, false);
  }
}

/* ---- the end of a job ---------------------------------------------------------------------------------- */

/* The data of a job's last event; NULL where it cannot be had. */
static json_t *last_words(struct vampd_runner *runner, const struct vampd_live *live) {
  struct vampd_store_job row = {0};
  json_t *document = NULL;
  if (vampd_store_job(runner->parts.store, live->id, NULL, &row, NULL) == VAMP_OK) {
    document = vampd_job_document(&row, NULL, 0);
    vampd_job_shorten(document, &row);
  }
  vampd_store_job_free(&row);
  return document;
}

/* Out of the house; `event` NULL tells nobody anything. Who begins to listen after the look at the listeners
 * finds the job gone, and the end in the store. */
static void leave_quietly(struct vampd_runner *runner, struct vampd_live *live, const char *event) {
  json_t *document = NULL;
  vampd_house_lock(runner->parts.house);
  if (event && vampd_events_heard(&live->events)) {
    vampd_house_unlock(runner->parts.house);
    document = last_words(runner, live);
    vampd_house_lock(runner->parts.house);
  }
  struct vampd_caller *caller = live->caller;
  vampd_house_leave(live, event, document);
  vampd_house_unlock(runner->parts.house);
  if (event) {
    vampd_access_return_jobs(caller, 1);
  }
  atomic_fetch_sub(&runner->busy, 1);
}

static void leave(struct vampd_runner *runner, struct vampd_live *live, const char *event) {
  leave_quietly(runner, live, event);
  take_more(runner);
}

/* Not to be tried again for so long; `counts` against it where that may not go on forever. */
static void put_back(struct vampd_runner *runner, struct vampd_live *live, double seconds, bool counts) {
  vampd_house_lock(runner->parts.house);
  live->refusals += counts;
  vampd_house_put_back(live, vampd_now() + seconds);
  vampd_house_unlock(runner->parts.house);
  atomic_fetch_sub(&runner->busy, 1);
  take_more(runner);
}

static void log_end(const struct vampd_live *live, const char *state, double seconds) {
  const char *key = vampd_caller_name(live->caller);
  vampd_log_event("job", VAMPD_LOG_TEXT("id", live->id), VAMPD_LOG_TEXT("state", state),
                  VAMPD_LOG_TEXT("key", key[0] ? key : NULL), VAMPD_LOG_INTEGER("attempt", live->attempts),
                  VAMPD_LOG_NUMBER("clip", live->seconds), VAMPD_LOG_NUMBER("seconds", seconds));
}

/* Why a job has no result, as the store keeps it; NULL when out of memory. What was accepted was right then:
 * only a field that is named is to blame, and not the client otherwise. */
static char *problem_text(const struct vamp_error *why) {
  json_t *problem =
      vampd_problem_json(why, why->field[0] ? VAMPD_PROBLEM_INVALID_FIELD : VAMPD_PROBLEM_INTERNAL);
  char *text = json_dumps(problem, JSON_COMPACT);
  json_decref(problem);
  return text;
}

/* A job that will never have a result: FAILED with its problem, or CANCELLED. */
static void end_without_result(struct vampd_runner *runner, struct vampd_live *live, enum vampd_state state,
                               const struct vamp_error *why) {
  struct vamp_error error = {0};
  const char *name = state == VAMPD_STATE_FAILED ? "failed" : "cancelled";
  char *text = problem_text(why);
  int status = vampd_store_finish(runner->parts.store, live->id, state, text ? text : "{}", NULL, 0, &error);
  free(text);
  if (status != VAMP_OK && status != VAMP_CANCELLED) {
    vampd_log("error: job %s cannot be recorded as %s: %s", live->id, name, error.message);
    put_back(runner, live, DISK_SECONDS, false);
    return;
  }
  log_end(live, name, 0);
  vampd_metrics_job(runner->parts.metrics,
                    state == VAMPD_STATE_FAILED ? VAMPD_ENDING_FAILED : VAMPD_ENDING_CANCELLED, 0, NULL, 0);
  leave(runner, live, name);
}

/* Something went wrong; may it go better later? */
static void end_with_error(struct vampd_runner *runner, struct vampd_live *live,
                           const struct vamp_error *error) {
  vampd_house_lock(runner->parts.house);
  bool cancelled = live->cancelled;
  vampd_house_unlock(runner->parts.house);
  if (runner->abandoned || error->status == VAMP_DEVICE) {
    leave(runner, live, NULL); /* the next daemon takes it up */
  } else if (cancelled) {
    end_without_result(runner, live, VAMPD_STATE_CANCELLED, error);
  } else if (error->status == VAMP_BUSY) {
    put_back(runner, live, MEMORY_SECONDS / 10, false);
  } else if (error->status == VAMP_MEMORY && live->refusals < MAX_REFUSALS) {
    vampd_log("job %s waits: %s", live->id, error->message);
    put_back(runner, live, MEMORY_SECONDS, true);
  } else if (error->status == VAMP_SPACE ||
             (error->status == VAMP_IO && live->refusals < MAX_DISK_REFUSALS)) {
    vampd_log("error: job %s waits: %s", live->id, error->message);
    put_back(runner, live, DISK_SECONDS, error->status == VAMP_IO);
  } else {
    end_without_result(runner, live, VAMPD_STATE_FAILED, error);
  }
}

static void end_with_result(struct vampd_runner *runner, struct vampd_live *live,
                            const struct vampd_outcome *outcome) {
  const struct vampd_device_facts *facts = vampd_device_facts(runner->parts.device);
  struct vampd_result result = {0};
  struct vamp_error error = {0};
  int status = facts ? vampd_result_make(outcome, facts, live->sweep[0] != '\0', &result, &error)
                     : vamp_fail(&error, VAMP_DEVICE, "The device was lost.");
  if (status == VAMP_OK) {
    status = vampd_store_finish(runner->parts.store, live->id, VAMPD_STATE_DONE, result.summary, result.files,
                                VAMPD_RESULT_FILES, &error);
  }
  vampd_result_free(&result);
  if (status != VAMP_OK) {
    end_with_error(runner, live, &error);
    return;
  }
  log_end(live, "done", outcome->seconds);
  vampd_metrics_job(runner->parts.metrics, VAMPD_ENDING_DONE, outcome->seconds, outcome->result,
                    outcome->variation->sample_rate);
  leave(runner, live, "done");
}

/* ---- in the loop ----------------------------------------------------------------------------------------
 */

/* On the device thread. */
static void progress(const struct vamp_event *event, void *user) {
  struct vampd_live *live = user;
  double rate = vampd_metrics_rate(live->runner->parts.metrics);
  vampd_house_lock(live->house);
  vampd_live_progress(live, event, rate);
  vampd_house_unlock(live->house);
}

/* The generation has ended: on a worker. */
static void generated(const struct vampd_outcome *outcome, void *user) {
  struct vampd_live *live = user;
  struct vampd_runner *runner = live->runner;
  if (outcome->status == VAMP_OK) {
    end_with_result(runner, live, outcome);
  } else {
    end_with_error(runner, live, outcome->error);
  }
}

static void encoded(const struct vampd_outcome *outcome, void *user);

/* Hands the job to the loop. Takes over the variation. */
static int submit(struct vampd_runner *runner, struct vampd_live *live, struct vamp_variation *variation,
                  struct vamp_error *error) {
  struct vampd_job_options options = {
      .task = live->encodes ? VAMP_TASK_ENCODE : VAMP_TASK_VARIATION,
      .keep_samples = live->encodes || live->sweep[0] != '\0',
      .caller = live->caller,
      .progress = live->encodes ? NULL : progress,
      .done = live->encodes ? encoded : generated,
      .user = live,
  };
  struct vampd_job *job;
  vampd_house_lock(runner->parts.house);
  if (!live->encodes && live->input->codes) {
    options.codes = live->input->codes;
    options.codebooks = live->input->codebooks;
    options.frames = live->input->frames;
  }
  vampd_house_unlock(runner->parts.house);
  int status = vampd_job_create(runner->parts.device, runner->parts.work, &options, variation, &job, error);
  if (status != VAMP_OK) {
    return status;
  }
  vampd_house_lock(runner->parts.house);
  vampd_job_release(live->job);
  live->job = job;
  bool cancelled = live->cancelled || runner->abandoned;
  /* The loop tells only what it has done. */
  vampd_live_enter_phase(live, options.codes ? VAMPD_PHASE_GENERATING : VAMPD_PHASE_ENCODING);
  vampd_house_unlock(runner->parts.house);
  int submitted =
      cancelled ? vamp_fail(error, VAMP_CANCELLED, "The job was cancelled.") : vampd_job_submit(job, error);
  take_more(runner); /* one fewer is being prepared */
  return submitted;
}

/* The clip has been encoded, for this job and others: on a worker. */
static void encoded(const struct vampd_outcome *outcome, void *user) {
  struct vampd_live *live = user;
  struct vampd_runner *runner = live->runner;
  struct vamp_error error = outcome->error ? *outcome->error : (struct vamp_error){0};
  struct vamp_variation variation;
  const struct vamp_result *result = outcome->result;
  int status = outcome->status;
  int32_t *codes = NULL;
  if (status == VAMP_OK) {
    size_t size = sizeof *codes * (size_t)result->codebooks * (size_t)result->frames;
    codes = malloc(size);
    status = codes ? VAMP_OK : vamp_fail(&error, VAMP_MEMORY, "Out of memory for the tokens of a clip.");
    if (codes) {
      memcpy(codes, result->codes, size);
    }
  }
  vampd_job_take_variation(outcome->job, &variation);
  vampd_house_lock(runner->parts.house);
  if (codes) {
    live->input->codes = codes;
    live->input->codebooks = result->codebooks;
    live->input->frames = result->frames;
  }
  live->input->encoding = false;
  live->encodes = false;
  vampd_house_unlock(runner->parts.house);
  take_more(runner);
  if (status == VAMP_OK) {
    status = submit(runner, live, &variation, &error);
  }
  vamp_variation_free(&variation);
  if (status != VAMP_OK) {
    end_with_error(runner, live, &error);
  }
}

/* ---- before ----------------------------------------------------------------------------------------------
 */

/* Notes the attempt; refuses one too many. A job that was put back for want of memory or disk goes on with
 * the attempt it has: they count daemons, because many mean that the job may be what kills them. */
static int begin(struct vampd_runner *runner, struct vampd_live *live, struct vamp_error *error) {
  vampd_house_lock(runner->parts.house);
  bool cancelled = live->cancelled || runner->abandoned;
  int attempts = live->attempts;
  vampd_house_unlock(runner->parts.house);
  if (cancelled) {
    return vamp_fail(error, VAMP_CANCELLED, "The job was cancelled.");
  }
  int status = live->begun ? VAMP_OK : vampd_store_begin(runner->parts.store, live->id, &attempts, error);
  if (status != VAMP_OK) {
    return status;
  }
  vampd_house_lock(runner->parts.house);
  live->attempts = attempts;
  live->begun = true;
  vampd_events_begin(&live->events, attempts);
  vampd_house_unlock(runner->parts.house);
  return attempts <= VAMPD_MAX_ATTEMPTS
             ? VAMP_OK
             : vamp_fail(error, VAMP_INVALID, "The job was begun %d times and never came to an end.",
                         attempts - 1);
}

/* The first thing a worker does for a job. */
static void prepare(struct vampd_task *task) {
  struct vampd_live *live = (struct vampd_live *)task;
  struct vampd_runner *runner = live->runner;
  const struct vampd_device_facts *facts = vampd_device_facts(runner->parts.device);
  struct vampd_store_job row = {0};
  struct vamp_variation variation = {0};
  struct vamp_error error = {0};
  int status = facts ? begin(runner, live, &error) : vamp_fail(&error, VAMP_DEVICE, "The device was lost.");
  if (status == VAMP_OK) {
    status = vampd_store_job(runner->parts.store, live->id, NULL, &row, &error);
  }
  if (status == VAMP_OK) {
    status =
        vampd_prepare(runner->parts.store, runner->parts.decoder, &facts->model, &row, &variation, &error);
  }
  vampd_store_job_free(&row);
  if (status == VAMP_OK) {
    status = submit(runner, live, &variation, &error);
  }
  vamp_variation_free(&variation);
  if (status != VAMP_OK) {
    end_with_error(runner, live, &error);
  }
}

/* ---- from outside ----------------------------------------------------------------------------------------
 */

int vampd_runner_enter(struct vampd_runner *runner, const struct vampd_store_job *jobs, const double *costs,
                       int count, struct vampd_caller *caller, struct vamp_error *error) {
  int status = vampd_house_enter(runner->parts.house, jobs, costs, count, true, caller, error);
  take_more(runner);
  return status;
}

/* One job that an earlier daemon has left. */
static int enter_again(const struct vampd_store_job *job, void *user) {
  struct vampd_runner *runner = user;
  const struct vampd_device_facts *facts = vampd_device_facts(runner->parts.device);
  struct vamp_error error = {0};
  struct vampd_caller *caller;
  if (!facts) {
    return 1;
  }
  double cost = vampd_job_cost(job, &facts->model);
  int status = vampd_access_find(runner->parts.access, job->owner, &caller, &error);
  if (status == VAMP_OK) {
    status = vampd_house_enter(runner->parts.house, job, &cost, 1, false, caller, &error);
  }
  if (status == VAMP_OK) {
    vampd_access_adopt_jobs(caller, 1);
  } else {
    vampd_log("error: job %s stays in the store: %s", job->id, error.message);
  }
  return 0;
}

int vampd_runner_begin(struct vampd_runner *runner, struct vamp_error *error) {
  int status = vampd_store_each_unfinished(runner->parts.store, enter_again, runner, error);
  int queued, running;
  vampd_house_count(runner->parts.house, &queued, &running);
  if (queued > 0) {
    vampd_log("%d jobs of an earlier run are taken up again", queued);
  }
  runner->running = true;
  take_more(runner);
  return status;
}

/* Under the lock: true where the job waited, and is now ours to end. */
static bool stop_job(struct vampd_runner *runner, struct vampd_live *live) {
  bool waits = vampd_house_take_queued(live);
  live->cancelled = true;
  if (waits) {
    live->runner = runner;
    atomic_fetch_add(&runner->busy, 1);
  } else if (live->job) {
    vampd_job_cancel(live->job);
  }
  return waits;
}

/* Those that waited, the last of them first: one commit for all. */
static void end_waiting(struct vampd_runner *runner, struct vampd_live *const *waiting, int count) {
  const char *ids[CANCELLED_AT_ONCE];
  struct vamp_error error = {0}, why = {0};
  for (int i = 0; i < count; i++) {
    ids[i] = waiting[i]->id;
  }
  vamp_fail(&why, VAMP_CANCELLED, "The job was cancelled before it began.");
  char *text = problem_text(&why);
  int status = vampd_store_cancel(runner->parts.store, ids, count, text ? text : "{}", &error);
  free(text);
  if (status != VAMP_OK) {
    vampd_log("error: %d jobs cannot be recorded as cancelled: %s", count, error.message);
  }
  for (int i = 0; status != VAMP_OK && i < count; i++) {
    put_back(runner, waiting[i], DISK_SECONDS, false);
  }
  /* The one that was taken last is the first of those that run: nobody is searched for. */
  for (int i = count - 1; status == VAMP_OK && i >= 0; i--) {
    log_end(waiting[i], "cancelled", 0);
    vampd_metrics_job(runner->parts.metrics, VAMPD_ENDING_CANCELLED, 0, NULL, 0);
    leave_quietly(runner, waiting[i], "cancelled");
  }
  take_more(runner);
}

int vampd_runner_cancel(struct vampd_runner *runner, const struct vampd_store_job *jobs, int count) {
  struct vampd_live *waiting[CANCELLED_AT_ONCE];
  int found = 0;
  for (int left = count; left > 0;) {
    int waits = 0;
    vampd_house_lock(runner->parts.house);
    for (int i = 0; i < CANCELLED_AT_ONCE && left > 0; i++) {
      struct vampd_live *live = vampd_house_find(runner->parts.house, jobs[--left].id);
      found += live != NULL;
      if (live && stop_job(runner, live)) {
        waiting[waits++] = live;
      }
    }
    vampd_house_unlock(runner->parts.house);
    if (waits > 0) {
      end_waiting(runner, waiting, waits);
    }
  }
  return found;
}

void vampd_runner_tick(struct vampd_runner *runner) {
  double now = vampd_now();
  if (now - runner->kept_alive > KEEP_ALIVE_SECONDS) {
    runner->kept_alive = now;
    vampd_house_keep_alive(runner->parts.house);
  }
  take_more(runner);
}

double vampd_runner_backlog(struct vampd_runner *runner) {
  const struct vampd_device_facts *facts = vampd_device_facts(runner->parts.device);
  double rate = vampd_metrics_rate(runner->parts.metrics) * (facts ? facts->devices : 1);
  return rate > 0 ? vampd_house_work(runner->parts.house) / rate : 0;
}

void vampd_runner_hold(struct vampd_runner *runner) {
  vampd_house_lock(runner->parts.house);
  runner->running = false;
  vampd_house_unlock(runner->parts.house);
}

void vampd_runner_abandon(struct vampd_runner *runner) {
  runner->abandoned = true;
  vampd_house_cancel_running(runner->parts.house);
}

int vampd_runner_busy(struct vampd_runner *runner) {
  return runner->busy;
}
