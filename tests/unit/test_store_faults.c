/*
 * The store killed, and failed by its disk, at every single system call.
 *
 * This program has functions of its own in place of those of the C library that change a file system, for the
 * store and for SQLite alike. They count, and at a chosen count kill the process or report a full disk. A
 * scenario that does everything once is first run undisturbed, noting after each step what the store holds;
 * then again and again, struck at the first call, the second, and so on to the last. Whatever was struck, the
 * store holds what it held before the step or what it holds after it, nothing else, nothing half, and goes on
 * to the same end.
 */
#undef _FORTIFY_SOURCE /* whose inline functions would stand in the way */
#include "tests/unit/test_store_fixture.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>

/* ---- system calls ------------------------------------------------------------------------------------- */

/* Under a sanitizer a run takes ten times as long; there it is the code that is looked at, not the order of
 * calls. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SPARSE 11
#else
#define SPARSE 1
#endif

enum strike { STRIKE_NONE, STRIKE_KILL, STRIKE_FAIL_ONCE, STRIKE_FAIL_ON };

static struct {
  enum strike strike;
  int calls, at, error;
} faults;

/* What has changed and is not on disk: a power cut cannot be had in a test, but fsync can be watched. Files
 * are known by their inode. SQLite's are written with pwrite64, and left out. */
static struct {
  bool on;
  ino_t dirty[64];
  int count;
  int commits, unsafe;
} watch;

static ino_t inode_of(int file) {
  struct stat facts;
  return fstat(file, &facts) == 0 ? facts.st_ino : 0;
}

static void note_dirty(int file) {
  if (watch.on && watch.count < 64) {
    watch.dirty[watch.count++] = inode_of(file);
  }
}

static void note_synced(int file) {
  ino_t inode = watch.on ? inode_of(file) : 0;
  int left = 0;
  for (int i = 0; i < watch.count; i++) {
    if (watch.dirty[i] != inode) {
      watch.dirty[left++] = watch.dirty[i];
    }
  }
  watch.count = left;
}

/* Whether this call is to fail. `makes_room`: a call that cannot fail for want of space. */
static bool struck(bool makes_room) {
  faults.calls++;
  if (faults.strike == STRIKE_KILL && faults.calls == faults.at) {
    raise(SIGKILL);
  }
  bool fails = (faults.strike == STRIKE_FAIL_ONCE && faults.calls == faults.at) ||
               (faults.strike == STRIKE_FAIL_ON && faults.calls >= faults.at);
  if (fails && !makes_room) {
    errno = faults.error;
    return true;
  }
  return false;
}

ssize_t write(int file, const void *data, size_t size) {
  note_dirty(file);
  return struck(false) ? -1 : syscall(SYS_write, file, data, size);
}

ssize_t pwrite64(int file, const void *data, size_t size, off64_t offset) {
  return struck(false) ? -1 : syscall(SYS_pwrite64, file, data, size, offset);
}

int fsync(int file) {
  note_synced(file);
  return struck(false) ? -1 : (int)syscall(SYS_fsync, file);
}

/* SQLite's commits alone. */
int fdatasync(int file) {
  watch.commits += watch.on;
  watch.unsafe += watch.on && watch.count > 0;
  return struck(false) ? -1 : (int)syscall(SYS_fdatasync, file);
}

int ftruncate64(int file, off64_t size) {
  return struck(false) ? -1 : (int)syscall(SYS_ftruncate, file, size);
}

int mkdirat(int parent, const char *path, mode_t mode) {
  note_dirty(parent);
  return struck(false) ? -1 : (int)syscall(SYS_mkdirat, parent, path, mode);
}

/* A disk that is full has room for another name of the same file, mostly. */
int renameat(int from, const char *old, int to, const char *new) {
  note_dirty(to);
  return struck(faults.strike == STRIKE_FAIL_ON) ? -1 : (int)syscall(SYS_renameat2, from, old, to, new, 0);
}

int unlinkat(int parent, const char *path, int flags) {
  return struck(true) ? -1 : (int)syscall(SYS_unlinkat, parent, path, flags);
}

int unlink(const char *path) {
  return struck(true) ? -1 : (int)syscall(SYS_unlinkat, AT_FDCWD, path, 0);
}

/* No reserve: it would take more time than all the rest. */
int fallocate64(int file, int mode, off64_t offset, off64_t size) {
  (void)file, (void)mode, (void)offset, (void)size;
  errno = EOPNOTSUPP;
  return -1;
}

int fallocate(int file, int mode, off_t offset, off_t size) {
  return fallocate64(file, mode, offset, size);
}

static int open_struck(int parent, const char *path, int flags, va_list values) {
  int mode = flags & O_CREAT ? va_arg(values, int) : 0;
  if (flags & O_CREAT && parent != AT_FDCWD) { /* AT_FDCWD: SQLite */
    note_dirty(parent);
  }
  return flags & O_CREAT && struck(false) ? -1 : (int)syscall(SYS_openat, parent, path, flags, mode);
}

int openat(int parent, const char *path, int flags, ...) {
  va_list values;
  va_start(values, flags);
  int file = open_struck(parent, path, flags, values);
  va_end(values);
  return file;
}

int open64(const char *path, int flags, ...) {
  va_list values;
  va_start(values, flags);
  int file = open_struck(AT_FDCWD, path, flags, values);
  va_end(values);
  return file;
}

/* ---- the scenario ------------------------------------------------------------------------------------- */

#define JOBS 7 /* 0 alone; 1 to 4 of the sweep; 5 beside it; 6 accepted last */
#define INPUTS 4

struct plan {
  char folder[PATH_MAX];
  struct vampd_store *store;
  struct vampd_store_input inputs[INPUTS];
  struct vampd_store_job jobs[JOBS];
  struct vampd_store_sweep sweep;
  int step; /* that is being done; shared with the child that is killed */
};

static const struct vampd_store_limits SMALL = {.max_bytes = 1};

static int step_open(struct plan *plan, struct vamp_error *error) {
  return vampd_store_open(plan->folder, &NO_LIMITS, &plan->store, error);
}

static int step_accept(struct plan *plan, struct vamp_error *error) {
  return vampd_store_accept(plan->store, plan->inputs, 1, plan->jobs, 1, NULL, 50000, error);
}

static int step_accept_sweep(struct plan *plan, struct vamp_error *error) {
  return vampd_store_accept(plan->store, plan->inputs + 1, 2, plan->jobs + 1, 5, &plan->sweep, 7, error);
}

static int step_begin(struct plan *plan, struct vamp_error *error) {
  return vampd_store_begin(plan->store, plan->jobs[0].id, NULL, error);
}

static int step_finish(struct plan *plan, struct vamp_error *error) {
  return finish_done(plan->store, plan->jobs[0].id, error);
}

static int step_finish_first_point(struct plan *plan, struct vamp_error *error) {
  return finish_done(plan->store, plan->jobs[1].id, error);
}

static int step_fail_second_point(struct plan *plan, struct vamp_error *error) {
  return vampd_store_finish(plan->store, plan->jobs[2].id, VAMPD_STATE_FAILED, PARAMS, NULL, 0, error);
}

/* The first is finished, and stays so. */
static int step_cancel_the_others(struct plan *plan, struct vamp_error *error) {
  const char *ids[] = {plan->jobs[1].id, plan->jobs[3].id, plan->jobs[4].id};
  return vampd_store_cancel(plan->store, ids, 3, PARAMS, error);
}

static int step_put_audio(struct plan *plan, struct vamp_error *error) {
  return put_content(plan->store, VAMPD_FOLDER_JOBS, plan->jobs[0].id, "audio.flac", error);
}

static int step_put_tokens(struct plan *plan, struct vamp_error *error) {
  return put_content(plan->store, VAMPD_FOLDER_INPUTS, plan->inputs[1].id, "tokens.npy", error);
}

static int step_put_archive(struct plan *plan, struct vamp_error *error) {
  return put_content(plan->store, VAMPD_FOLDER_SWEEPS, plan->sweep.id, "archive.zip", error);
}

static int step_forget(struct plan *plan, struct vamp_error *error) {
  return vampd_store_forget(plan->store, plan->jobs[0].id, error);
}

static int step_forget_sweep(struct plan *plan, struct vamp_error *error) {
  return vampd_store_forget_sweep(plan->store, plan->sweep.id, error);
}

static int step_finish_last(struct plan *plan, struct vamp_error *error) {
  return finish_done(plan->store, plan->jobs[5].id, error);
}

static int step_retain(struct plan *plan, struct vamp_error *error) {
  vampd_store_set_limits(plan->store, &SMALL);
  int count = vampd_store_retain(plan->store, error);
  vampd_store_set_limits(plan->store, &NO_LIMITS);
  return count < 0 ? count : VAMP_OK;
}

static int step_accept_again(struct plan *plan, struct vamp_error *error) {
  return vampd_store_accept(plan->store, plan->inputs + 3, 1, plan->jobs + 6, 1, NULL, 0, error);
}

static int step_reopen(struct plan *plan, struct vamp_error *error) {
  vampd_store_close(plan->store);
  plan->store = NULL;
  return step_open(plan, error);
}

static int (*const STEPS[])(struct plan *plan, struct vamp_error *error) = {
    step_open,
    step_accept,
    step_accept_sweep,
    step_begin,
    step_finish,
    step_put_audio,
    step_put_audio,
    step_finish_first_point,
    step_put_tokens,
    step_put_archive,
    step_reopen,
    step_forget,
    step_fail_second_point,
    step_cancel_the_others,
    step_forget_sweep,
    step_finish_last,
    step_retain,
    step_accept_again,
    step_reopen,
};
#define STEP_COUNT ((int)(sizeof STEPS / sizeof STEPS[0]))

static void make_plan(struct plan *plan) {
  static const int INPUT_OF[JOBS] = {0, 1, 1, 1, 1, 2, 3};
  for (int i = 0; i < INPUTS; i++) {
    plan->inputs[i] = new_input();
  }
  for (int i = 0; i < JOBS; i++) {
    plan->jobs[i] = new_job(plan->inputs[INPUT_OF[i]].id, "");
  }
  plan->sweep = (struct vampd_store_sweep){.points = 4, .grid = PARAMS};
  assert_int_equal(vampd_store_new_id(plan->sweep.id, NULL), VAMP_OK);
  memcpy(plan->sweep.input, plan->inputs[1].id, VAMPD_ID_SIZE);
  for (int i = 1; i <= 4; i++) {
    memcpy(plan->jobs[i].sweep, plan->sweep.id, VAMPD_ID_SIZE);
  }
}

static void free_plan(struct plan *plan) {
  for (int i = 0; i < INPUTS; i++) {
    free((void *)plan->inputs[i].bytes);
  }
}

/* ---- what the store holds ----------------------------------------------------------------------------- */

#define VIEW_SIZE 64

static char see_file(struct vampd_store *store, enum vampd_folder folder, const char *id, const char *name) {
  int file = vampd_store_open_file(store, folder, id, name, NULL, NULL);
  if (file < 0) {
    return '-';
  }
  close(file);
  assert_true(is_whole(store, folder, id, name));
  return 'x';
}

/* A letter for everything that can be there or not; what is there must be whole. */
static void look(struct plan *plan, char view[VIEW_SIZE]) {
  int at = 0;
  memset(view, 0, VIEW_SIZE);
  check_order(plan->store, plan->folder);
  for (int i = 0; i < JOBS; i++) {
    struct vampd_store_job job;
    if (vampd_store_job(plan->store, plan->jobs[i].id, NULL, &job, NULL) != VAMP_OK) {
      view[at++] = '-';
      continue;
    }
    view[at++] = "qdfc"[job.state];
    view[at++] = (char)('0' + job.attempts);
    if (job.state == VAMPD_STATE_DONE) {
      for (int k = 0; k < RESULT_FILES; k++) {
        assert_true(is_whole(plan->store, VAMPD_FOLDER_JOBS, job.id, RESULT_NAMES[k]));
      }
    }
    vampd_store_job_free(&job);
  }
  for (int i = 0; i < INPUTS; i++) {
    struct vampd_store_input input;
    bool there = vampd_store_input(plan->store, plan->inputs[i].id, &input, NULL) == VAMP_OK;
    view[at++] = there ? 'i' : '-';
    assert_true(!there || is_whole(plan->store, VAMPD_FOLDER_INPUTS, input.id, "clip"));
  }
  struct vampd_store_sweep sweep;
  bool there = vampd_store_sweep(plan->store, plan->sweep.id, NULL, &sweep, NULL) == VAMP_OK;
  view[at++] = there ? 's' : '-';
  if (there) {
    vampd_store_sweep_free(&sweep);
  }
  view[at++] = see_file(plan->store, VAMPD_FOLDER_JOBS, plan->jobs[0].id, "audio.flac");
  view[at++] = see_file(plan->store, VAMPD_FOLDER_INPUTS, plan->inputs[1].id, "tokens.npy");
  view[at++] = see_file(plan->store, VAMPD_FOLDER_SWEEPS, plan->sweep.id, "archive.zip");
}

/* Undisturbed: views[i] is what the store holds after step i. Returns the number of system calls. */
static int run_undisturbed(char views[STEP_COUNT + 1][VIEW_SIZE]) {
  struct plan plan = {0};
  struct vamp_error error;
  int calls = 0;
  make_quick_folder(plan.folder);
  make_plan(&plan);
  for (plan.step = 0; plan.step < STEP_COUNT; plan.step++) {
    faults.calls = 0;
    int status = STEPS[plan.step](&plan, &error);
    calls += faults.calls;
    if (status != VAMP_OK) {
      fail_msg("step %d: %s", plan.step, error.message);
    }
    look(&plan, views[plan.step + 1]);
  }
  memcpy(views[0], views[1], VIEW_SIZE); /* before the store is opened: as an empty one */
  vampd_store_close(plan.store);
  remove_folder(plan.folder);
  free_plan(&plan);
  return calls;
}

/* ---- power cuts --------------------------------------------------------------------------------------- */

/* When a row is committed, every file and folder that it speaks of is on disk: for what is accepted and what
 * is finished. Of what can be made again only the bytes are, before the name. */
static void test_on_disk_before_it_counts(void **state) {
  (void)state;
  struct plan plan = {0};
  make_quick_folder(plan.folder);
  make_plan(&plan);
  int watched = 0;
  for (plan.step = 0; plan.step < STEP_COUNT; plan.step++) {
    memset(&watch, 0, sizeof watch);
    watch.on = STEPS[plan.step] == step_accept || STEPS[plan.step] == step_accept_sweep ||
               STEPS[plan.step] == step_finish || STEPS[plan.step] == step_finish_first_point;
    watched += watch.on;
    assert_int_equal(STEPS[plan.step](&plan, NULL), VAMP_OK);
    assert_true(!watch.on || watch.commits > 0);
    assert_int_equal(watch.unsafe, 0);
    assert_int_equal(watch.count, 0);
  }
  assert_int_equal(watched, 4);
  memset(&watch, 0, sizeof watch);
  vampd_store_close(plan.store);
  remove_folder(plan.folder);
  free_plan(&plan);
}

/* ---- kills -------------------------------------------------------------------------------------------- */

/* The rest of the scenario, in a store that is open. */
static void go_on(struct plan *plan, int step) {
  struct vamp_error error;
  for (plan->step = step > 0 ? step : 1; plan->step < STEP_COUNT; plan->step++) {
    if (STEPS[plan->step](plan, &error) != VAMP_OK) {
      fail_msg("after a kill in step %d, step %d is refused: %s", step, plan->step, error.message);
    }
  }
}

/* Struck at the given call; whether the scenario was long enough for that. */
static bool kill_at(int call, struct plan *plan, char views[STEP_COUNT + 1][VIEW_SIZE]) {
  char view[VIEW_SIZE];
  int status;
  make_quick_folder(plan->folder);
  make_plan(plan);
  pid_t child = fork();
  assert_true(child >= 0);
  if (child == 0) {
    faults.calls = 0;
    faults.at = call;
    faults.strike = STRIKE_KILL;
    for (plan->step = 0; plan->step < STEP_COUNT; plan->step++) {
      if (STEPS[plan->step](plan, NULL) != VAMP_OK) {
        _exit(1);
      }
    }
    _exit(0);
  }
  assert_int_equal(waitpid(child, &status, 0), child);
  bool killed = WIFSIGNALED(status);
  assert_true(killed ? WTERMSIG(status) == SIGKILL : WEXITSTATUS(status) == 0);
  plan->store = open_store(plan->folder, &NO_LIMITS);
  look(plan, view);
  int step = plan->step;
  if (killed && strcmp(view, views[step]) != 0 && strcmp(view, views[step + 1]) != 0) {
    fail_msg("killed at call %d, in step %d: %s is neither %s nor %s", call, step, view, views[step],
             views[step + 1]);
  }
  if (killed && call % 5 == 0) { /* each would take too long */
    go_on(plan, strcmp(view, views[step]) == 0 ? step : step + 1);
    look(plan, view);
    assert_string_equal(view, views[STEP_COUNT]);
  }
  vampd_store_close(plan->store);
  remove_folder(plan->folder);
  free_plan(plan);
  return killed;
}

static void test_killed_at_every_call(void **state) {
  (void)state;
  char views[STEP_COUNT + 1][VIEW_SIZE];
  int calls = run_undisturbed(views), call = 1;
  struct plan *plan = mmap(NULL, sizeof *plan, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  assert_true(plan != MAP_FAILED);
  while (kill_at(call, plan, views)) {
    memset(plan, 0, sizeof *plan);
    call += SPARSE;
  }
  print_message("killed at each of %d calls\n", call / SPARSE);
  assert_true(call >= calls - 20 && call > 100);
  munmap(plan, sizeof *plan);
}

/* ---- a full disk -------------------------------------------------------------------------------------- */

/* The step that is struck may fail, with the status given, and then is as if it had not been tried; or it may
 * do without what failed. */
static bool fail_at(enum strike strike, int code, int expected, int call,
                    char views[STEP_COUNT + 1][VIEW_SIZE]) {
  struct plan plan = {0};
  struct vamp_error error = {0};
  char view[VIEW_SIZE];
  int status = VAMP_OK;
  bool reached = false;
  make_quick_folder(plan.folder);
  make_plan(&plan);
  faults.calls = 0;
  faults.at = call;
  faults.error = code;
  for (plan.step = 0; plan.step < STEP_COUNT && !reached; plan.step++) {
    faults.strike = strike;
    status = STEPS[plan.step](&plan, &error);
    faults.strike = STRIKE_NONE;
    reached = faults.calls >= call;
  }
  int step = plan.step - 1;
  if (status != VAMP_OK) {
    /* What SQLite cannot open it does not say why. */
    bool opens = STEPS[step] == step_open || STEPS[step] == step_reopen;
    if (!reached || (status != expected && !(opens && status == VAMP_IO)) || strlen(error.message) < 20) {
      fail_msg("call %d fails, and step %d with %d: %s", call, step, status, error.message);
    }
    if (plan.store) {
      look(&plan, view);
      if (strcmp(view, views[step]) != 0) {
        fail_msg("call %d fails, and step %d leaves %s, not %s", call, step, view, views[step]);
      }
    }
    if (STEPS[step](&plan, &error) != VAMP_OK) {
      fail_msg("call %d fails, and step %d cannot be done again: %s", call, step, error.message);
    }
  }
  for (int again = 0; again < 2; again++) {
    look(&plan, view);
    assert_string_equal(view, views[step + 1]);
    assert_int_equal(step_reopen(&plan, &error), VAMP_OK);
  }
  vampd_store_close(plan.store);
  remove_folder(plan.folder);
  free_plan(&plan);
  return reached;
}

/* At every call, or every so many. */
static void fail_everywhere(enum strike strike, int code, int expected, int stride) {
  char views[STEP_COUNT + 1][VIEW_SIZE];
  run_undisturbed(views);
  int call = 1;
  while (fail_at(strike, code, expected, call, views)) {
    call += stride * SPARSE;
  }
  assert_true(call > 100);
}

static void test_no_space_at_a_call(void **state) {
  (void)state;
  fail_everywhere(STRIKE_FAIL_ONCE, ENOSPC, VAMP_SPACE, 2);
}

static void test_no_space_from_a_call_on(void **state) {
  (void)state;
  fail_everywhere(STRIKE_FAIL_ON, EDQUOT, VAMP_SPACE, 5);
}

static void test_a_failing_disk(void **state) {
  (void)state;
  fail_everywhere(STRIKE_FAIL_ONCE, EIO, VAMP_IO, 5);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_on_disk_before_it_counts), cmocka_unit_test(test_killed_at_every_call),
      cmocka_unit_test(test_no_space_at_a_call),       cmocka_unit_test(test_no_space_from_a_call_on),
      cmocka_unit_test(test_a_failing_disk),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
