/*
 * The store under kill -9: a child with several threads works it at random, and says through a pipe what it
 * is about to do and how that went, until it is killed; then its parent opens the store and holds it against
 * what was said. The child of the next round goes on with what is there.
 */
#include "tests/unit/test_store_fixture.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <sys/wait.h>
#include <time.h>

#define ROUNDS 100
#define THREADS 3
#define JOBS_MAX 4096
#define LONGEST_MICROSECONDS 40000

struct report { /* written whole: shorter than PIPE_BUF */
  char what;    /* accept, begin, done, cancel, forget, put, retain */
  bool before;
  int status;
  char id[VAMPD_ID_SIZE], input[VAMPD_ID_SIZE];
};

struct known {
  char id[VAMPD_ID_SIZE], input[VAMPD_ID_SIZE];
  int state;  /* enum vampd_state; -1: not there */
  char under; /* what was about to happen to it, or 0 */
  int begun;  /* times, as reported */
};

struct world {
  char folder[PATH_MAX];
  struct known jobs[JOBS_MAX];
  int count;
  bool retained;                              /* in this round finished jobs may have been forgotten */
  int accepted, refused, finished, forgotten; /* in all, so that nobody need wonder whether it did anything */
};

/* ---- the child ---------------------------------------------------------------------------------------- */

struct worker {
  struct vampd_store *store;
  const struct world *world;
  int pipe, index, round;
  uint32_t random;
  struct known jobs[JOBS_MAX]; /* its own: nobody else touches them, but retention */
  int count;
};

static uint32_t next_random(uint32_t *random, uint32_t below) {
  *random = mix(*random + 0x9e3779b9u);
  return *random % below;
}

static void tell(struct worker *worker, char what, bool before, int status, const char *id,
                 const char *input) {
  struct report report = {.what = what, .before = before, .status = status};
  snprintf(report.id, sizeof report.id, "%s", id);
  snprintf(report.input, sizeof report.input, "%s", input);
  if (write(worker->pipe, &report, sizeof report) != sizeof report) {
    _exit(4);
  }
}

/* The child has no other way to fail. Retention may take a finished job at any time. */
static void expect(struct worker *worker, int status, const struct vamp_error *error, bool finished) {
  bool gone = finished && worker->round % 3 == 2 && status == VAMP_INVALID;
  bool full = worker->round % 3 != 0 && status == VAMP_SPACE;
  if (status != VAMP_OK && !gone && !full) {
    fprintf(stderr, "child: %s\n", error->message);
    _exit(3);
  }
}

static void work_accept(struct worker *worker) {
  struct vampd_store_input input = new_input();
  struct vampd_store_job job = new_job(input.id, "");
  struct vamp_error error;
  tell(worker, 'a', true, 0, job.id, input.id);
  int status = vampd_store_accept(worker->store, &input, 1, &job, 1, NULL, 3000, &error);
  tell(worker, 'a', false, status, job.id, input.id);
  expect(worker, status, &error, false);
  free((void *)input.bytes);
  if (status == VAMP_OK && worker->count < JOBS_MAX) {
    struct known *known = &worker->jobs[worker->count++];
    *known = (struct known){.state = VAMPD_STATE_QUEUED};
    memcpy(known->id, job.id, VAMPD_ID_SIZE);
    memcpy(known->input, input.id, VAMPD_ID_SIZE);
  }
}

static void work_on(struct worker *worker, struct known *job) {
  struct vamp_error error;
  int status;
  bool queued = job->state == VAMPD_STATE_QUEUED;
  uint32_t choice = next_random(&worker->random, 8);
  char what = queued ? "bbdddddc"[choice] : "ppgggggg"[choice];
  tell(worker, what, true, 0, job->id, job->input);
  switch (what) {
  case 'b':
    status = vampd_store_begin(worker->store, job->id, NULL, &error);
    break;
  case 'd':
    status = finish_done(worker->store, job->id, &error);
    job->state = status == VAMP_OK ? (int)VAMPD_STATE_DONE : job->state;
    break;
  case 'c':
    status = vampd_store_finish(worker->store, job->id, VAMPD_STATE_CANCELLED, NULL, NULL, 0, &error);
    job->state = status == VAMP_OK ? (int)VAMPD_STATE_CANCELLED : job->state;
    break;
  case 'p': /* a cancelled job has no files */
    status = put_content(worker->store, VAMPD_FOLDER_JOBS, job->id, "audio.flac", &error);
    status = status == VAMP_INVALID && job->state == (int)VAMPD_STATE_CANCELLED ? VAMP_OK : status;
    break;
  default:
    status = vampd_store_forget(worker->store, job->id, &error);
    job->state = -1;
  }
  tell(worker, what, false, status, job->id, job->input);
  expect(worker, status, &error, !queued);
}

static void *work(void *argument) {
  struct worker *worker = argument;
  struct vamp_error error;
  for (;;) {
    uint32_t choice = next_random(&worker->random, 16);
    if (choice < 5) {
      work_accept(worker);
    } else if (choice == 5 && worker->round % 3 == 2) {
      tell(worker, 'r', true, 0, "", "");
      int status = vampd_store_retain(worker->store, &error);
      expect(worker, status < 0 ? status : VAMP_OK, &error, false);
    } else if (worker->count > 0) {
      struct known *job = &worker->jobs[next_random(&worker->random, (uint32_t)worker->count)];
      if (job->state >= 0) {
        work_on(worker, job);
      }
    }
  }
  return NULL;
}

/* Some rounds have no limits, some refuse new jobs, some forget old ones for new. */
static struct vampd_store_limits limits_of(int round) {
  static const struct vampd_store_limits LIMITS[3] = {
      {0}, {.max_bytes = 400000, .spare_seconds = 3600}, {.max_bytes = 300000}};
  return LIMITS[round % 3];
}

static void run_child(const struct world *world, int round, int pipe) {
  static struct worker workers[THREADS];
  struct vampd_store_limits limits = limits_of(round);
  struct vampd_store *store;
  struct vamp_error error;
  if (vampd_store_open(world->folder, &limits, &store, &error) != VAMP_OK) {
    fprintf(stderr, "child: %s\n", error.message);
    _exit(3);
  }
  for (int i = 0; i < THREADS; i++) {
    workers[i] = (struct worker){.store = store, .world = world, .pipe = pipe, .index = i, .round = round};
    workers[i].random = mix((uint32_t)(round * THREADS + i));
    for (int k = i; k < world->count; k += THREADS) {
      workers[i].jobs[workers[i].count++] = world->jobs[k];
    }
    pthread_t thread;
    if (pthread_create(&thread, NULL, work, &workers[i]) != 0) {
      _exit(4);
    }
  }
  for (;;) {
    pause();
  }
}

/* ---- the parent --------------------------------------------------------------------------------------- */

static struct known *find(struct world *world, const struct report *report) {
  for (int i = 0; i < world->count; i++) {
    if (strcmp(world->jobs[i].id, report->id) == 0) {
      return &world->jobs[i];
    }
  }
  assert_true(world->count < JOBS_MAX);
  struct known *job = &world->jobs[world->count++];
  *job = (struct known){.state = -1};
  memcpy(job->id, report->id, VAMPD_ID_SIZE);
  memcpy(job->input, report->input, VAMPD_ID_SIZE);
  return job;
}

static void hear(struct world *world, const struct report *report) {
  if (report->what == 'r') {
    return;
  }
  struct known *job = find(world, report);
  job->under = report->before ? report->what : 0;
  if (report->before || report->status != VAMP_OK) {
    world->refused += !report->before && report->what == 'a';
    return;
  }
  switch (report->what) {
  case 'a':
    job->state = VAMPD_STATE_QUEUED;
    world->accepted++;
    break;
  case 'b':
    job->begun++;
    break;
  case 'd':
    job->state = VAMPD_STATE_DONE;
    world->finished++;
    break;
  case 'c':
    job->state = VAMPD_STATE_CANCELLED;
    break;
  case 'g':
    job->state = -1;
    world->forgotten++;
    break;
  }
}

/* Whether a job may be in this state, after what was said of it. */
static bool may_be(const struct world *world, const struct known *job, int state) {
  bool finished = job->state > (int)VAMPD_STATE_QUEUED || job->under == 'd' || job->under == 'c';
  if (state == job->state || (state == -1 && world->retained && finished)) {
    return true;
  }
  switch (job->under) {
  case 'a':
    return state == (int)VAMPD_STATE_QUEUED;
  case 'd':
    return state == (int)VAMPD_STATE_DONE;
  case 'c':
    return state == (int)VAMPD_STATE_CANCELLED;
  case 'g':
    return state == -1;
  default:
    return false;
  }
}

static void check_known(struct world *world, struct vampd_store *store, struct known *known) {
  struct vampd_store_job job = {0};
  int status = vampd_store_job(store, known->id, NULL, &job, NULL);
  int state = status == VAMP_OK ? (int)job.state : -1;
  if (!may_be(world, known, state)) {
    fail_msg("job %s is in state %d; it was in %d, and '%c' was under way", known->id, state, known->state,
             known->under ? known->under : '-');
  }
  known->state = state;
  if (state < 0) {
    return;
  }
  assert_true(job.attempts == known->begun || (known->under == 'b' && job.attempts == known->begun + 1));
  known->begun = job.attempts;
  known->under = 0;
  assert_true(is_whole(store, VAMPD_FOLDER_INPUTS, job.input, "clip"));
  for (int i = 0; i < RESULT_FILES && job.state == VAMPD_STATE_DONE; i++) {
    assert_true(is_whole(store, VAMPD_FOLDER_JOBS, job.id, RESULT_NAMES[i]));
  }
  int64_t size;
  int file = vampd_store_open_file(store, VAMPD_FOLDER_JOBS, job.id, "audio.flac", &size, NULL);
  if (file >= 0) {
    close(file);
    assert_true(is_whole(store, VAMPD_FOLDER_JOBS, job.id, "audio.flac"));
  }
  vampd_store_job_free(&job);
}

static int count_unfinished(const struct vampd_store_job *job, void *user) {
  int64_t *last = user;
  assert_true(job->number > last[0]);
  last[0] = job->number;
  last[1]++;
  return 0;
}

static void check_round(struct world *world) {
  struct vampd_store *store = open_store(world->folder, &NO_LIMITS);
  check_order(store, world->folder);
  int left = 0, unfinished = 0;
  for (int i = 0; i < world->count; i++) {
    check_known(world, store, &world->jobs[i]);
    unfinished += world->jobs[i].state == (int)VAMPD_STATE_QUEUED;
    if (world->jobs[i].state >= 0) {
      world->jobs[left++] = world->jobs[i];
    }
  }
  world->count = left;
  struct vampd_store_usage usage;
  assert_int_equal(vampd_store_usage(store, &usage, NULL), VAMP_OK);
  assert_int_equal(usage.jobs, left); /* and nothing that was never heard of */
  int64_t found[2] = {0, 0};
  assert_int_equal(vampd_store_each_unfinished(store, count_unfinished, found, NULL), VAMP_OK);
  assert_int_equal(found[1], unfinished);
  vampd_store_close(store);
}

static void run_round(struct world *world, int round, uint32_t *random) {
  int ends[2], status;
  assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
  fcntl(ends[1], F_SETPIPE_SZ, 1 << 20);
  fflush(NULL);
  pid_t child = fork();
  assert_true(child >= 0);
  if (child == 0) {
    run_child(world, round, ends[1]);
  }
  close(ends[1]);
  if (round % 4 != 0) { /* otherwise the child may be killed while it opens the store */
    poll(&(struct pollfd){.fd = ends[0], .events = POLLIN}, 1, -1);
  }
  nanosleep(&(struct timespec){.tv_nsec = 1000L * next_random(random, LONGEST_MICROSECONDS)}, NULL);
  kill(child, SIGKILL);
  assert_int_equal(waitpid(child, &status, 0), child);
  assert_true(WIFSIGNALED(status));
  struct report report;
  ssize_t got;
  while ((got = read(ends[0], &report, sizeof report)) == sizeof report) {
    hear(world, &report);
  }
  assert_int_equal(got, 0);
  close(ends[0]);
  world->retained = round % 3 == 2;
  check_round(world);
}

static void test_killed_at_random(void **state) {
  (void)state;
  static struct world world;
  uint32_t random = 1;
  make_quick_folder(world.folder);
  int round = 0;
  bool enough = false;
  while (round < ROUNDS || (!enough && round < 10 * ROUNDS)) { /* more of them where the machine is busy */
    run_round(&world, round++, &random);
    enough = world.accepted > 50 && world.finished > 20 && world.forgotten > 5;
  }
  remove_folder(world.folder);
  print_message("%d kills: %d jobs accepted, %d refused, %d finished, %d forgotten\n", round, world.accepted,
                world.refused, world.finished, world.forgotten);
  assert_true(enough);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_killed_at_random),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
