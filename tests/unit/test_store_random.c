/*
 * The store against a small model of it, by random calls; and many threads at once on the same few jobs,
 * where what holds is counted rather than foreseen.
 */
#include "tests/unit/test_store_fixture.h"

#include <pthread.h>
#include <stdatomic.h>
#include <unistd.h>

static uint32_t next_random(uint32_t *random, uint32_t below) {
  *random = mix(*random + 0x9e3779b9u);
  return *random % below;
}

/* ---- the model ---------------------------------------------------------------------------------------- */

#define CALLS 1000
#define JOBS_MAX 2000
#define SWEEP_POINTS 4

struct model_job {
  char id[VAMPD_ID_SIZE], input[VAMPD_ID_SIZE], sweep[VAMPD_ID_SIZE];
  int64_t number, reserved;
  int state, attempts, point; /* state -1: forgotten */
  bool flac;
};

struct model {
  char folder[PATH_MAX];
  struct vampd_store *store;
  uint32_t random;
  struct model_job jobs[JOBS_MAX];
  int count;
  char sweeps[JOBS_MAX][VAMPD_ID_SIZE];
  bool archive[JOBS_MAX];
  int sweep_count;
};

static const char *owner_of(const char *id) {
  return id[0] < '8' ? "ann" : "bob";
}

static void add_job(struct model *model, const struct vampd_store_job *job, int64_t reserved) {
  assert_true(model->count < JOBS_MAX);
  struct model_job *added = &model->jobs[model->count++];
  *added = (struct model_job){.number = job->number, .reserved = reserved, .point = job->point};
  memcpy(added->id, job->id, VAMPD_ID_SIZE);
  memcpy(added->input, job->input, VAMPD_ID_SIZE);
  memcpy(added->sweep, job->sweep, VAMPD_ID_SIZE);
}

static struct vampd_store_job owned_job(const char *input) {
  struct vampd_store_job job = new_job(input, "");
  snprintf(job.owner, sizeof job.owner, "%s", owner_of(job.id));
  return job;
}

static void call_accept(struct model *model) {
  struct vampd_store_input inputs[2] = {new_input(), new_input()};
  struct vampd_store_job jobs[3] = {owned_job(inputs[0].id), owned_job(inputs[1].id),
                                    owned_job(inputs[0].id)};
  int64_t reserve = next_random(&model->random, 10000);
  assert_int_equal(vampd_store_accept(model->store, inputs, 2, jobs, 3, NULL, reserve, NULL), VAMP_OK);
  for (int i = 0; i < 3; i++) {
    add_job(model, &jobs[i], reserve / 3 + (i < reserve % 3));
  }
  free((void *)inputs[0].bytes);
  free((void *)inputs[1].bytes);
}

static void call_accept_sweep(struct model *model) {
  struct vampd_store_input input = new_input();
  struct vampd_store_job jobs[SWEEP_POINTS];
  struct vampd_store_sweep sweep = {.points = SWEEP_POINTS, .grid = PARAMS};
  assert_int_equal(vampd_store_new_id(sweep.id, NULL), VAMP_OK);
  memcpy(sweep.input, input.id, VAMPD_ID_SIZE);
  for (int i = 0; i < SWEEP_POINTS; i++) {
    jobs[i] = owned_job(input.id);
    jobs[i].point = i;
    memcpy(jobs[i].sweep, sweep.id, VAMPD_ID_SIZE);
  }
  assert_int_equal(vampd_store_accept(model->store, &input, 1, jobs, SWEEP_POINTS, &sweep, 0, NULL), VAMP_OK);
  for (int i = 0; i < SWEEP_POINTS; i++) {
    add_job(model, &jobs[i], 0);
  }
  memcpy(model->sweeps[model->sweep_count++], sweep.id, VAMPD_ID_SIZE);
  free((void *)input.bytes);
}

static void call_on_job(struct model *model, struct model_job *job) {
  bool queued = job->state == (int)VAMPD_STATE_QUEUED, there = job->state >= 0;
  int attempts = 0, ended = queued ? VAMP_OK : VAMP_CANCELLED;
  switch (next_random(&model->random, 6)) {
  case 0:
    assert_int_equal(vampd_store_begin(model->store, job->id, &attempts, NULL), ended);
    job->attempts += queued;
    assert_true(!queued || attempts == job->attempts);
    break;
  case 1:
  case 2:
    assert_int_equal(finish_done(model->store, job->id, NULL), ended);
    job->state = queued ? (int)VAMPD_STATE_DONE : job->state;
    break;
  case 3:
    assert_int_equal(vampd_store_finish(model->store, job->id, VAMPD_STATE_FAILED, PARAMS, NULL, 0, NULL),
                     ended);
    job->state = queued ? (int)VAMPD_STATE_FAILED : job->state;
    break;
  case 4: {
    bool done = job->state == (int)VAMPD_STATE_DONE;
    int status = put_content(model->store, VAMPD_FOLDER_JOBS, job->id, "audio.flac", NULL);
    assert_int_equal(status, done ? VAMP_OK : VAMP_INVALID);
    job->flac = job->flac || done;
    break;
  }
  default:
    assert_int_equal(vampd_store_forget(model->store, job->id, NULL), queued  ? VAMP_BUSY
                                                                      : there ? VAMP_OK
                                                                              : VAMP_INVALID);
    job->state = queued ? job->state : -1;
  }
}

static void call_on_sweep(struct model *model, int sweep) {
  const char *id = model->sweeps[sweep];
  bool there = id[0] != '\0', busy = false;
  if (next_random(&model->random, 3) == 0) {
    int status = put_content(model->store, VAMPD_FOLDER_SWEEPS, id, "archive.zip", NULL);
    assert_int_equal(status, there ? VAMP_OK : VAMP_INVALID);
    model->archive[sweep] = model->archive[sweep] || there;
    return;
  }
  for (int i = 0; i < model->count && there; i++) {
    busy = busy || (strcmp(model->jobs[i].sweep, id) == 0 && model->jobs[i].state == (int)VAMPD_STATE_QUEUED);
  }
  assert_int_equal(vampd_store_forget_sweep(model->store, id, NULL), busy    ? VAMP_BUSY
                                                                     : there ? VAMP_OK
                                                                             : VAMP_INVALID);
  if (there && !busy) {
    for (int i = 0; i < model->count; i++) {
      model->jobs[i].state = strcmp(model->jobs[i].sweep, id) == 0 ? -1 : model->jobs[i].state;
    }
    model->sweeps[sweep][0] = '\0';
  }
}

static void check_job(const struct model *model, const struct model_job *known) {
  struct vampd_store_job job;
  int status = vampd_store_job(model->store, known->id, owner_of(known->id), &job, NULL);
  assert_int_equal(status, known->state < 0 ? VAMP_INVALID : VAMP_OK);
  bool done = known->state == (int)VAMPD_STATE_DONE;
  for (int i = 0; i < RESULT_FILES; i++) {
    assert_true(is_whole(model->store, VAMPD_FOLDER_JOBS, known->id, RESULT_NAMES[i]) == done);
  }
  assert_true(is_whole(model->store, VAMPD_FOLDER_JOBS, known->id, "audio.flac") == (done && known->flac));
  if (status != VAMP_OK) {
    return;
  }
  assert_int_equal(job.state, known->state);
  assert_int_equal(job.number, known->number);
  assert_int_equal(job.attempts, known->attempts);
  assert_int_equal(job.point, known->point);
  assert_string_equal(job.sweep, known->sweep);
  assert_true((job.finished > 0) == (known->state > 0));
  assert_int_equal(job.bytes, done ? result_size(job.id) +
                                         (known->flac ? (int64_t)content_size(job.id, "audio.flac") : 0)
                                   : 0);
  assert_true(is_whole(model->store, VAMPD_FOLDER_INPUTS, job.input, "clip"));
  vampd_store_job_free(&job);
}

/* The newest of an owner, against the model in reverse. */
static void check_list(const struct model *model, const char *owner) {
  struct vampd_store_job *jobs;
  int count, at = 0;
  struct vampd_store_query query = {.owner = owner, .any_state = true, .limit = 1000};
  assert_int_equal(vampd_store_list(model->store, &query, &jobs, &count, NULL), VAMP_OK);
  for (int i = model->count - 1; i >= 0 && at < count; i--) {
    const struct model_job *job = &model->jobs[i];
    if (job->state >= 0 && (!owner || strcmp(owner_of(job->id), owner) == 0)) {
      assert_string_equal(jobs[at].id, job->id);
      vampd_store_job_free(&jobs[at++]);
    }
  }
  assert_int_equal(at, count);
  free(jobs);
}

static void check_model(struct model *model) {
  int64_t jobs = 0, unfinished = 0, reserved = 0;
  check_order(model->store, model->folder);
  for (int i = 0; i < model->count; i++) {
    check_job(model, &model->jobs[i]);
    jobs += model->jobs[i].state >= 0;
    unfinished += model->jobs[i].state == (int)VAMPD_STATE_QUEUED;
    reserved += model->jobs[i].state == (int)VAMPD_STATE_QUEUED ? model->jobs[i].reserved : 0;
  }
  struct vampd_store_usage usage;
  assert_int_equal(vampd_store_usage(model->store, &usage, NULL), VAMP_OK);
  assert_int_equal(usage.jobs, jobs);
  assert_int_equal(usage.unfinished, unfinished);
  assert_int_equal(usage.reserved, reserved);
  check_list(model, NULL);
  check_list(model, "ann");
  check_list(model, "bob");
}

static void test_random_calls(void **state) {
  (void)state;
  struct model *model = calloc(1, sizeof *model);
  model->random = 7;
  make_quick_folder(model->folder);
  model->store = open_store(model->folder, &NO_LIMITS);
  call_accept_sweep(model);
  for (int call = 1; call <= CALLS; call++) {
    uint32_t choice = next_random(&model->random, 20);
    if (choice < 2) {
      call_accept(model);
    } else if (choice < 3) {
      call_accept_sweep(model);
    } else if (choice < 5) {
      call_on_sweep(model, (int)next_random(&model->random, (uint32_t)model->sweep_count));
    } else {
      call_on_job(model, &model->jobs[next_random(&model->random, (uint32_t)model->count)]);
    }
    if (call % 100 == 0) {
      check_model(model);
      vampd_store_close(model->store);
      model->store = open_store(model->folder, &NO_LIMITS);
      check_model(model);
    }
  }
  vampd_store_close(model->store);
  remove_folder(model->folder);
  free(model);
}

/* ---- threads ------------------------------------------------------------------------------------------ */

#define THREADS 6
#define TURNS 400
#define SHARED 1024 /* jobs, which all threads work on */

struct shared {
  struct vampd_store *store;
  pthread_mutex_t mutex;
  char ids[SHARED][VAMPD_ID_SIZE], inputs[SHARED][VAMPD_ID_SIZE];
  atomic_int count, ends[SHARED], forgets[SHARED], strange;
};

struct hand {
  struct shared *shared;
  uint32_t random;
};

static void wonder(struct shared *shared, bool strange, const char *what, const struct vamp_error *error) {
  if (strange) {
    fprintf(stderr, "%s: %s\n", what, error->message);
    atomic_fetch_add(&shared->strange, 1);
  }
}

static void share_job(struct shared *shared) {
  struct vampd_store_job job;
  struct vamp_error error;
  int status = accept_one(shared->store, 40000, &job, &error);
  wonder(shared, status != VAMP_OK && status != VAMP_SPACE, "accept", &error);
  if (status == VAMP_OK) {
    pthread_mutex_lock(&shared->mutex);
    int at = atomic_load(&shared->count);
    if (at < SHARED) {
      memcpy(shared->ids[at], job.id, VAMPD_ID_SIZE);
      memcpy(shared->inputs[at], job.input, VAMPD_ID_SIZE);
      atomic_store(&shared->count, at + 1);
    }
    pthread_mutex_unlock(&shared->mutex);
  }
}

static int count_job(const struct vampd_store_job *job, void *user) {
  *(int *)user += vampd_store_is_id(job->id);
  return 0;
}

static void look_around(struct shared *shared, uint32_t choice) {
  struct vamp_error error = {0};
  struct vampd_store_job *jobs;
  int count = 0, status = VAMP_OK;
  if (choice == 0) {
    status = vampd_store_each_unfinished(shared->store, count_job, &count, &error);
  } else if (choice == 1) {
    status = vampd_store_retain(shared->store, &error);
  } else if (choice == 2) {
    vampd_store_has_room(shared->store, 100000);
  } else {
    struct vampd_store_query query = {.any_state = true, .limit = 50};
    status = vampd_store_list(shared->store, &query, &jobs, &count, &error);
    for (int i = 0; i < count && status == VAMP_OK; i++) {
      vampd_store_job_free(&jobs[i]);
    }
    if (status == VAMP_OK) {
      free(jobs);
    }
  }
  wonder(shared, status < 0, "looking around", &error);
}

/* What is there must be whole, whatever others do to it meanwhile. */
static void read_job(struct shared *shared, int at) {
  struct vamp_error error;
  const char *id = shared->ids[at];
  for (int i = 0; i < RESULT_FILES; i++) {
    void *data;
    size_t size, right = content_size(id, RESULT_NAMES[i]);
    int status = vampd_store_read_file(shared->store, VAMPD_FOLDER_JOBS, id, RESULT_NAMES[i], 1 << 20, &data,
                                       &size, &error);
    wonder(shared, status != VAMP_OK && status != VAMP_INVALID, "read", &error);
    if (status == VAMP_OK) {
      unsigned char *bytes = content(id, RESULT_NAMES[i], right);
      snprintf(error.message, sizeof error.message, "%s", id);
      wonder(shared, size != right || memcmp(bytes, data, right) != 0, "torn", &error);
      free(bytes);
      free(data);
    }
  }
}

static void handle_job(struct shared *shared, int at, uint32_t choice) {
  struct vamp_error error;
  const char *id = shared->ids[at];
  int status;
  if (choice < 3) {
    status = choice == 0 ? vampd_store_finish(shared->store, id, VAMPD_STATE_CANCELLED, NULL, NULL, 0, &error)
                         : finish_done(shared->store, id, &error);
    atomic_fetch_add(&shared->ends[at], status == VAMP_OK);
    wonder(shared, status != VAMP_OK && status != VAMP_CANCELLED, "finish", &error);
  } else if (choice == 3) {
    status = vampd_store_forget(shared->store, id, &error);
    atomic_fetch_add(&shared->forgets[at], status == VAMP_OK);
    wonder(shared, status != VAMP_OK && status != VAMP_BUSY && status != VAMP_INVALID, "forget", &error);
  } else if (choice == 4) {
    status = put_content(shared->store, VAMPD_FOLDER_INPUTS, shared->inputs[at], "tokens.npy", &error);
    wonder(shared, status != VAMP_OK && status != VAMP_INVALID && status != VAMP_SPACE, "put", &error);
  } else if (choice == 5) {
    status = put_content(shared->store, VAMPD_FOLDER_JOBS, id, "mask.png", &error);
    wonder(shared, status != VAMP_OK && status != VAMP_INVALID && status != VAMP_SPACE, "put", &error);
  } else if (choice == 6) {
    status = vampd_store_begin(shared->store, id, NULL, &error);
    wonder(shared, status != VAMP_OK && status != VAMP_CANCELLED, "begin", &error);
  } else {
    read_job(shared, at);
  }
}

static void *work(void *argument) {
  struct hand *hand = argument;
  struct shared *shared = hand->shared;
  for (int turn = 0; turn < TURNS; turn++) {
    uint32_t choice = next_random(&hand->random, 12);
    int count = atomic_load(&shared->count);
    if (choice < 2 || count == 0) {
      share_job(shared);
    } else if (choice == 2) {
      look_around(shared, next_random(&hand->random, 4));
    } else { /* one of the last few, so that they meet */
      int last = count < 8 ? count : 8;
      handle_job(shared, count - 1 - (int)next_random(&hand->random, (uint32_t)last),
                 next_random(&hand->random, 9));
    }
  }
  return NULL;
}

static void test_threads(void **state) {
  (void)state;
  struct shared *shared = calloc(1, sizeof *shared);
  struct hand hands[THREADS];
  pthread_t threads[THREADS];
  char folder[PATH_MAX], log[PATH_MAX];
  struct stat facts;
  make_quick_folder(folder);
  shared->store = open_store(folder, &(struct vampd_store_limits){.max_bytes = 1000000});
  pthread_mutex_init(&shared->mutex, NULL);
  for (int i = 0; i < THREADS; i++) {
    hands[i] = (struct hand){shared, (uint32_t)i + 100};
    assert_int_equal(pthread_create(&threads[i], NULL, work, &hands[i]), 0);
  }
  for (int i = 0; i < THREADS; i++) {
    pthread_join(threads[i], NULL);
  }
  assert_int_equal(atomic_load(&shared->strange), 0);
  for (int i = 0; i < atomic_load(&shared->count); i++) {
    assert_true(atomic_load(&shared->ends[i]) <=
                1); /* a job ends once, whoever tries, and is forgotten once */
    assert_true(atomic_load(&shared->forgets[i]) <= atomic_load(&shared->ends[i]));
  }
  check_order(shared->store, folder);
  assert_true(snprintf(log, sizeof log, "%s/vampd.db-wal", folder) < (int)sizeof log);
  assert_int_equal(stat(log, &facts), 0);
  assert_true(facts.st_size < 17 << 20);
  vampd_store_close(shared->store);
  shared->store = open_store(folder, &NO_LIMITS);
  check_order(shared->store, folder);
  vampd_store_close(shared->store);
  pthread_mutex_destroy(&shared->mutex);
  remove_folder(folder);
  free(shared);
}

/* All at the same moment: one of them ends the job, the others hear that it has been. */
#define RIVALS 3
#define RACES 60

struct race {
  struct vampd_store *store;
  pthread_barrier_t barrier;
  char ids[RACES][VAMPD_ID_SIZE];
  atomic_int won[RACES], lost[RACES];
};

static void *run_race(void *argument) {
  struct race *race = argument;
  for (int i = 0; i < RACES; i++) {
    pthread_barrier_wait(&race->barrier);
    int status = finish_done(race->store, race->ids[i], NULL);
    atomic_fetch_add(&race->won[i], status == VAMP_OK);
    atomic_fetch_add(&race->lost[i], status == VAMP_CANCELLED);
  }
  return NULL;
}

static void test_one_ends_a_job(void **state) {
  (void)state;
  struct race *race = calloc(1, sizeof *race);
  pthread_t threads[RIVALS];
  char folder[PATH_MAX];
  make_quick_folder(folder);
  race->store = open_store(folder, &NO_LIMITS);
  for (int i = 0; i < RACES; i++) {
    struct vampd_store_job job;
    assert_int_equal(accept_one(race->store, 0, &job, NULL), VAMP_OK);
    memcpy(race->ids[i], job.id, VAMPD_ID_SIZE);
  }
  pthread_barrier_init(&race->barrier, NULL, RIVALS);
  for (int i = 0; i < RIVALS; i++) {
    assert_int_equal(pthread_create(&threads[i], NULL, run_race, race), 0);
  }
  for (int i = 0; i < RIVALS; i++) {
    pthread_join(threads[i], NULL);
  }
  for (int i = 0; i < RACES; i++) {
    assert_int_equal(atomic_load(&race->won[i]), 1);
    assert_int_equal(atomic_load(&race->lost[i]), RIVALS - 1);
  }
  check_order(race->store, folder);
  pthread_barrier_destroy(&race->barrier);
  vampd_store_close(race->store);
  remove_folder(folder);
  free(race);
}

/* A program that looks into the database for a long time keeps the log from starting over; it must not grow
 * without bound once that has gone. */
static void test_log_starts_over(void **state) {
  (void)state;
  char folder[PATH_MAX], path[PATH_MAX];
  sqlite3 *other;
  struct stat facts;
  struct vampd_store_job job;
  make_quick_folder(folder);
  struct vampd_store *store = open_store(folder, &NO_LIMITS);
  assert_int_equal(accept_one(store, 0, &job, NULL), VAMP_OK);
  assert_true(snprintf(path, sizeof path, "%s/vampd.db", folder) < (int)sizeof path);
  assert_int_equal(sqlite3_open(path, &other), SQLITE_OK);
  assert_int_equal(sqlite3_exec(other, "BEGIN; SELECT count(*) FROM jobs;", NULL, NULL, NULL), SQLITE_OK);
  for (int i = 0; i < 1600; i++) {
    assert_int_equal(vampd_store_begin(store, job.id, NULL, NULL), VAMP_OK);
  }
  sqlite3_close(other);
  assert_true(snprintf(path, sizeof path, "%s/vampd.db-wal", folder) < (int)sizeof path);
  assert_int_equal(stat(path, &facts), 0);
  int64_t grown = facts.st_size;
  assert_true(grown > 1600 * 4096);
  for (int i = 0; i < 1600; i++) {
    assert_int_equal(vampd_store_begin(store, job.id, NULL, NULL), VAMP_OK);
  }
  assert_int_equal(stat(path, &facts), 0);
  assert_true(facts.st_size <= 4194304 + 65536);
  check_order(store, folder);
  vampd_store_close(store);
  remove_folder(folder);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_random_calls),
      cmocka_unit_test(test_threads),
      cmocka_unit_test(test_one_ends_a_job),
      cmocka_unit_test(test_log_starts_over),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
