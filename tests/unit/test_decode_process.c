/*
 * Whatever a clip does to the process that decodes it is an error of that clip and of no other; whatever
 * happens to the decoder, the next clip is decoded; and nothing is left behind.
 */
#include "test_decode.h"

/* ---- what a clip may do to its process ------------------------------------------------------------------
 */

static void test_crashes(void **state) {
  (void)state;
  struct vampd_decoder *decoder = open_decoder();
  const char *message = "The audio cannot be read: the decoder failed on it";
  for (const char *c = "caeq"; *c; c++) {
    expect(decoder, *c, VAMP_INVALID, message);
  }
  vampd_decoder_stop(decoder);
}

static void test_lies(void **state) {
  (void)state;
  struct vampd_decoder *decoder = open_decoder();
  for (const char *c = "123456"; *c; c++) {
    expect(decoder, *c, VAMP_INVALID, "The audio cannot be read: the decoder failed on it");
  }
  expect(decoder, '7', VAMP_INVALID, "????????");
  vampd_decoder_stop(decoder);
}

static void test_system_calls(void **state) {
  (void)state;
  setenv("VAMPD_TEST_SECRET", "1", 1);
  struct vampd_decoder *decoder = open_decoder();
  if (!vampd_decoder_facts(decoder).filtered) {
    vampd_decoder_stop(decoder);
    skip();
  }
  expect(decoder, 't', VAMP_INVALID, "opened 0, wrote 0, executes 0, knows 0");
  expect(decoder, 's', VAMP_INVALID, "the decoder failed on it");
  expect(decoder, 'f', VAMP_INVALID, "the decoder failed on it");
  vampd_decoder_stop(decoder);
}

static void test_memory(void **state) {
  (void)state;
  if (SANITIZED) {
    skip(); /* there it has gigabytes */
  }
  struct vampd_decoder *decoder = open_decoder();
  expect(decoder, 'm', VAMP_MEMORY, "no more");
  vampd_decoder_stop(decoder);
}

struct worker {
  pthread_t thread;
  struct vampd_decoder *decoder;
  char what;
  int status;
  struct vamp_error error;
  double seconds;
};

static void *work(void *argument) {
  struct worker *worker = argument;
  double started = vampd_now();
  worker->status = order(worker->decoder, worker->what, &worker->error);
  worker->seconds = vampd_now() - started;
  return NULL;
}

static struct worker *start_worker(struct vampd_decoder *decoder, char what) {
  struct worker *worker = calloc(1, sizeof *worker);
  assert_non_null(worker);
  worker->decoder = decoder;
  worker->what = what;
  assert_int_equal(pthread_create(&worker->thread, NULL, work, worker), 0);
  return worker;
}

/* One sleeps, one is busy: both are ended in time, and nobody waits for them. */
static void test_time(void **state) {
  (void)state;
  struct vampd_decoder *decoder = open_decoder();
  struct worker *workers[] = {start_worker(decoder, 'h'), start_worker(decoder, 'b')};
  double started = vampd_now();
  struct vamp_error error;
  for (int i = 0; i < 3; i++) {
    assert_int_equal(order(decoder, '.', &error), 0);
  }
  assert_true(vampd_now() - started < 1.9);
  for (int i = 0; i < 2; i++) {
    pthread_join(workers[i]->thread, NULL);
    assert_int_equal(workers[i]->status, VAMP_INVALID);
    assert_non_null(
        strstr(workers[i]->error.message, "The audio cannot be read: decoding it takes too long"));
    assert_true(workers[i]->seconds > 0.9 && workers[i]->seconds < 20);
    free(workers[i]);
  }
  assert_idle(vampd_decoder_facts(decoder).process);
  vampd_decoder_stop(decoder);
}

/* A result counts only when nobody can write it any more: who keeps the tray is waited for. */
static void test_a_tray_that_is_kept(void **state) {
  (void)state;
  struct vampd_decoder *decoder = open_decoder();
  for (int i = 0; i < 20; i++) {
    struct vamp_audio audio = {0};
    struct vamp_error error = {0};
    assert_int_equal(vampd_decoder_read(decoder, "HOOKd", 5, "clip", NULL, &audio, &error), 0);
    assert_int_equal(audio.frames, 100);
    assert_true(audio.samples[99] == 0.5f);
    audio.samples[99] = 1; /* they are the caller's */
    vamp_audio_free(&audio);
  }
  vampd_decoder_stop(decoder);
}

/* The child that waits is killed again and again: the next clip gets another one. */
static void test_a_spare_that_dies(void **state) {
  (void)state;
  struct vampd_decoder *decoder = open_decoder();
  pid_t process = vampd_decoder_facts(decoder).process;
  for (int i = 0; i < 5; i++) {
    struct vamp_error error;
    assert_idle(process);
    kill_children(process);
    while (count_children(process) > 0) {
      usleep(1000);
    }
    assert_int_equal(order(decoder, '.', &error), 0);
  }
  assert_int_equal(vampd_decoder_facts(decoder).process, process);
  vampd_decoder_stop(decoder);
}

/* ---- the decoder itself ---------------------------------------------------------------------------------
 */

static void test_a_decoder_that_dies_is_replaced(void **state) {
  (void)state;
  struct vampd_decoder *decoder = open_decoder();
  pid_t first = vampd_decoder_facts(decoder).process;
  struct vamp_error error;
  assert_int_equal(kill(first, SIGKILL), 0);
  assert_int_equal(order(decoder, '.', &error), 0);
  pid_t second = vampd_decoder_facts(decoder).process;
  assert_int_not_equal(first, second);
  /* Once more, while it decodes. */
  struct worker *worker = start_worker(decoder, 'w');
  while (count_clips(second) == 0) {
    usleep(1000);
  }
  assert_int_equal(kill(second, SIGKILL), 0);
  pthread_join(worker->thread, NULL);
  assert_int_equal(worker->status, 0);
  assert_int_not_equal(vampd_decoder_facts(decoder).process, second);
  free(worker);
  assert_int_equal(count_children(getpid()), 1);
  vampd_decoder_stop(decoder);
  assert_int_equal(count_children(getpid()), 0);
}

/* As process 1 has it: the children of a decoder that is dead are ours, and so is the decoder. */
static void test_orphans_are_reaped(void **state) {
  (void)state;
  struct vampd_decoder *decoder = open_decoder();
  struct vamp_error error;
  int status;
  pid_t own = fork();
  if (own == 0) {
    _exit(7);
  }
  siginfo_t end;
  assert_int_equal(waitid(P_PID, (id_t)own, &end, WEXITED | WNOWAIT), 0);
  vampd_decoder_reap(decoder); /* no orphan can come here: not ours to take */
  assert_int_equal(waitpid(own, &status, 0), own);
  assert_int_equal(WEXITSTATUS(status), 7);
  assert_int_equal(prctl(PR_SET_CHILD_SUBREAPER, 1), 0);
  for (int i = 0; i < 3; i++) {
    pid_t process = vampd_decoder_facts(decoder).process;
    struct worker *worker = start_worker(decoder, 'w');
    while (count_clips(process) == 0) {
      usleep(1000);
    }
    assert_int_equal(kill(process, SIGKILL), 0);
    pthread_join(worker->thread, NULL); /* another decoder has done it */
    assert_int_equal(worker->status, 0);
    free(worker);
    assert_int_not_equal(vampd_decoder_facts(decoder).process, process);
    for (int k = 0; k < 5000 && count_children(getpid()) > 1; k++) {
      vampd_decoder_reap(decoder);
      usleep(1000);
    }
    assert_int_equal(count_children(getpid()), 1);
    assert_int_equal(order(decoder, '.', &error), 0);
  }
  /* One that nobody has needed since it died. */
  assert_int_equal(kill(vampd_decoder_facts(decoder).process, SIGKILL), 0);
  for (int k = 0; k < 5000 && count_children(getpid()) > 0; k++) {
    vampd_decoder_reap(decoder);
    usleep(1000);
  }
  assert_int_equal(count_children(getpid()), 0);
  assert_int_equal(prctl(PR_SET_CHILD_SUBREAPER, 0), 0);
  assert_int_equal(order(decoder, '.', &error), 0);
  vampd_decoder_stop(decoder);
}

/* It is stopped, as by a debugger: who waits loses patience with it, and the clip is decoded by the next. */
static void test_a_decoder_that_does_nothing_is_replaced(void **state) {
  (void)state;
  struct vampd_decoder *decoder = open_decoder();
  pid_t first = vampd_decoder_facts(decoder).process;
  struct vamp_error error;
  assert_int_equal(kill(first, SIGSTOP), 0);
  assert_int_equal(order(decoder, '.', &error), 0);
  assert_int_not_equal(vampd_decoder_facts(decoder).process, first);
  vampd_decoder_stop(decoder);
}

/* What ends the daemon must leave the decoder to it. */
static void test_signals_of_the_daemon(void **state) {
  (void)state;
  struct vampd_decoder *decoder = open_decoder();
  pid_t process = vampd_decoder_facts(decoder).process;
  struct vamp_error error;
  const int numbers[] = {SIGINT, SIGTERM, SIGHUP, SIGPIPE};
  for (int i = 0; i < 4; i++) {
    assert_int_equal(kill(process, numbers[i]), 0);
    assert_int_equal(order(decoder, '.', &error), 0);
  }
  assert_int_equal(vampd_decoder_facts(decoder).process, process);
  vampd_decoder_stop(decoder);
}

/* The daemon is killed: the decoder and what it decodes go with it. */
static void test_the_daemon_dies(void **state) {
  (void)state;
  int ends[2];
  assert_int_equal(prctl(PR_SET_CHILD_SUBREAPER, 1), 0); /* who loses its parent comes here */
  assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
  pid_t daemon = fork();
  if (daemon == 0) {
    struct vampd_decoder *decoder = NULL;
    if (vampd_decoder_start(&VAMPD_DECODER_PATIENCE, &decoder, NULL) != 0) {
      _exit(1);
    }
    pid_t process = vampd_decoder_facts(decoder).process;
    ssize_t written = write(ends[1], &process, sizeof process);
    (void)written;
    order(decoder, 'h', NULL);
    _exit(0);
  }
  pid_t process = 0;
  assert_int_equal(read(ends[0], &process, sizeof process), sizeof process);
  while (count_clips(process) == 0) {
    usleep(1000);
  }
  assert_int_equal(kill(daemon, SIGKILL), 0);
  assert_int_equal(waitpid(daemon, NULL, 0), daemon);
  for (int i = 0; count_children(getpid()) > 0 && i < 5000; i++) {
    waitpid(-1, NULL, WNOHANG);
    usleep(1000);
  }
  assert_int_equal(count_children(getpid()), 0);
  close(ends[0]);
  close(ends[1]);
}

static void *decode_many(void *argument) {
  struct worker *worker = argument;
  for (int i = 0; i < 125; i++) {
    struct vamp_audio audio = {0};
    struct bytes wav = fixture_wav(36 + 2000, 2000, 1, 44100, 1000);
    memset(wav.data + 44, worker->what + i, 2000);
    int status = vampd_decoder_read(worker->decoder, wav.data, wav.size, "x", NULL, &audio, &worker->error);
    int16_t value;
    memcpy(&value, wav.data + 44, sizeof value);
    if (status != 0 || audio.frames != 1000 || audio.samples[999] != (float)value / 32768) {
      worker->status++;
    }
    vamp_audio_free(&audio);
    free(wav.data);
  }
  return NULL;
}

/* A thousand clips by eight threads: each gets its own samples, and nothing is left behind. */
static void test_a_thousand_clips(void **state) {
  (void)state;
  struct vampd_decoder *decoder = open_decoder();
  pid_t process = vampd_decoder_facts(decoder).process;
  struct vamp_error error;
  assert_int_equal(order(decoder, '.', &error), 0);
  assert_idle(process);
  int here = count_descriptors(getpid()), there = count_descriptors(process);
  long memory = resident_kib(process);
  struct worker workers[8];
  for (int i = 0; i < 8; i++) {
    workers[i] = (struct worker){.decoder = decoder, .what = (char)(i * 16)};
    assert_int_equal(pthread_create(&workers[i].thread, NULL, decode_many, &workers[i]), 0);
  }
  for (int i = 0; i < 8; i++) {
    pthread_join(workers[i].thread, NULL);
    assert_int_equal(workers[i].status, 0);
  }
  assert_idle(process);
  assert_int_equal(count_descriptors(getpid()), here);
  assert_int_equal(count_descriptors(process), there);
  assert_idle(process);
  assert_true(SANITIZED || resident_kib(process) - memory < 512);
  assert_int_equal(vampd_decoder_facts(decoder).process, process);
  vampd_decoder_stop(decoder);
}

/* More at once than the decoder takes: they wait for each other. */
static void test_a_crowd(void **state) {
  (void)state;
  struct vampd_decoder *decoder = open_decoder();
  struct worker *workers[VAMPD_DECODER_CLIPS + 36];
  for (int i = 0; i < VAMPD_DECODER_CLIPS + 36; i++) {
    workers[i] = start_worker(decoder, '.');
  }
  for (int i = 0; i < VAMPD_DECODER_CLIPS + 36; i++) {
    pthread_join(workers[i]->thread, NULL);
    assert_int_equal(workers[i]->status, 0);
    free(workers[i]);
  }
  vampd_decoder_stop(decoder);
}

/* ---- where no filter is to be had ------------------------------------------------------------------------
 */

/* As in a container that forbids it. */
static bool forbid_filters(void) {
  scmp_filter_ctx context = seccomp_init(SCMP_ACT_ALLOW);
  bool done = context && seccomp_rule_add(context, SCMP_ACT_ERRNO(EINVAL), SCMP_SYS(seccomp), 0) == 0 &&
              seccomp_load(context) == 0;
  seccomp_release(context);
  return done;
}

/* In a process of its own; returns how many things were wrong. */
static int decode_without_filter(int log) {
  dup2(log, STDERR_FILENO);
  struct vampd_decoder *decoder = NULL;
  struct vamp_error error = {0};
  if (!forbid_filters() || vampd_decoder_start(&SHORT, &decoder, &error) != 0) {
    return 100;
  }
  int wrong = vampd_decoder_facts(decoder).filtered;
  wrong += order(decoder, '.', &error) != 0;
  wrong += order(decoder, 'c', &error) != VAMP_INVALID;
  wrong += order(decoder, 's', &error) != VAMP_INVALID || !strstr(error.message, "a socket: 0");
  wrong += order(decoder, 't', &error) != VAMP_INVALID || !strstr(error.message, "opened 0, wrote 0");
  wrong += order(decoder, 'b', &error) != VAMP_INVALID || !strstr(error.message, "takes too long");
  kill(vampd_decoder_facts(decoder).process, SIGKILL);
  wrong += order(decoder, '.', &error) != 0;
  vampd_decoder_stop(decoder);
  return wrong;
}

static void test_without_a_filter(void **state) {
  (void)state;
  int ends[2];
  assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
  pid_t process = fork();
  if (process == 0) {
    _exit(decode_without_filter(ends[1]));
  }
  close(ends[1]);
  char log[8192] = "";
  size_t size = 0;
  for (ssize_t got; size < sizeof log - 1 && (got = read(ends[0], log + size, sizeof log - 1 - size)) > 0;) {
    size += (size_t)got;
  }
  log[size] = '\0';
  close(ends[0]);
  int status;
  assert_int_equal(waitpid(process, &status, 0), process);
  assert_true(WIFEXITED(status));
  assert_int_equal(WEXITSTATUS(status), 0);
  const char *line = strstr(log, "refuses to filter system calls");
  assert_non_null(line);
  assert_null(strstr(line + 1, "refuses to filter system calls")); /* once, also after a second start */
}

/* A shell that calls it by hand is told so. */
static void test_the_argument_by_hand(void **state) {
  (void)state;
  pid_t process = fork();
  if (process == 0) {
    int nothing = open("/dev/null", O_RDWR);
    dup2(nothing, STDERR_FILENO);
    dup2(nothing, 3);
    execl("/proc/self/exe", "vampd", VAMPD_DECODER_ARGUMENT, (char *)NULL);
    _exit(1);
  }
  int status;
  assert_int_equal(waitpid(process, &status, 0), process);
  assert_int_equal(WEXITSTATUS(status), 2);
}

int main(int argc, char **argv) {
  int code;
  if (vampd_decoder_main(argc, argv, decode, &code)) {
    return code;
  }
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_crashes),
      cmocka_unit_test(test_lies),
      cmocka_unit_test(test_system_calls),
      cmocka_unit_test(test_memory),
      cmocka_unit_test(test_time),
      cmocka_unit_test(test_a_tray_that_is_kept),
      cmocka_unit_test(test_a_spare_that_dies),
      cmocka_unit_test(test_a_decoder_that_dies_is_replaced),
      cmocka_unit_test(test_orphans_are_reaped),
      cmocka_unit_test(test_a_decoder_that_does_nothing_is_replaced),
      cmocka_unit_test(test_signals_of_the_daemon),
      cmocka_unit_test(test_the_daemon_dies),
      cmocka_unit_test(test_a_thousand_clips),
      cmocka_unit_test(test_a_crowd),
      cmocka_unit_test(test_without_a_filter),
      cmocka_unit_test(test_the_argument_by_hand),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
