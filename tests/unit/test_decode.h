/*
 * What the tests of server/decode share.
 *
 * A test program is also the decoder: it is run again as one, with a decode function that obeys a few clips
 * that no library would (they begin with "HOOK"), and hands all others to the engine.
 */
#ifndef VAMP_TEST_DECODE_H
#define VAMP_TEST_DECODE_H

#include "test_audio_fixture.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <seccomp.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "server/decode/internal.h"
#include "server/log.h"

/* A sanitizer keeps books, which take memory of their own. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITIZED true
#else
#define SANITIZED false
#endif

#define SHORT ((struct vampd_decoder_patience){1, 0})

/* ---- what the decoder does here ------------------------------------------------------------------------ */

/* Not to be optimised away, and not understood by an analyser. */
static void *volatile nowhere;
static volatile unsigned sink;

static inline void sleep_for_ever(void) {
  for (int word = 0;;) { /* a futex is among the few calls that are allowed */
    syscall(SYS_futex, &word, 0 /* wait */, 0, NULL, NULL, 0);
  }
}

static inline int fill_memory(struct vamp_error *error) {
  for (;;) {
    char *block = malloc(1 << 20);
    if (!block) {
      return vamp_fail(error, VAMP_MEMORY, "no more");
    }
    for (size_t i = 0; i < 1 << 20; i += 4096) {
      block[i] = 1;
    }
    nowhere = block;
  }
}

/* Tries what the filter and the limits refuse without ending the process. */
static inline int try_everything(struct vamp_error *error) {
  void *code = mmap(NULL, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  bool opened = open("/dev/null", O_RDONLY) >= 0 || open("/proc/self/mem", O_RDWR) >= 0;
  bool wrote = write(2, "", 1) >= 0 || write(3, "", 1) >= 0;
  bool executes = code != MAP_FAILED;
  return vamp_fail(error, VAMP_INVALID, "opened %d, wrote %d, executes %d, knows %d", opened, wrote, executes,
                   getenv("VAMPD_TEST_SECRET") != NULL);
}

static inline int obey(int order, const struct vamp_audio_limits *limits, float *room,
                       struct vamp_audio *audio, struct vamp_error *error) {
  *audio = (struct vamp_audio){.samples = room, .frames = 100, .channels = 1, .sample_rate = 44100};
  switch (order) {
  case 'c': /* crash */
    return *(volatile int *)nowhere;
  case 'a':
    abort();
  case 'e':
    _exit(3);
  case 'q': /* leave as if all were well */
    _exit(0);
  case 'h':
    sleep_for_ever();
    break;
  case 'b': /* busy */
    while (true) {
      sink++;
    }
  case 'w': /* for a while, well within a second of processor time, and then well */
    for (double end = vampd_now() + 0.3; vampd_now() < end;) {
      sink++;
    }
    return 0;
  case 'm':
    return fill_memory(error);
  case 't':
    return try_everything(error);
  case 's':
    return vamp_fail(error, VAMP_INVALID, "a socket: %d", socket(AF_UNIX, SOCK_STREAM, 0) >= 0);
  case 'f':
    sink = (unsigned)fork();
    return vamp_fail(error, VAMP_INVALID, "a process");
  case 'l': /* leak */
    nowhere = malloc(10 << 20);
    memset(nowhere, 1, 10 << 20);
    return 0;
  case 'd': /* keeps the tray in a second place, so that it can still be written to */
    room[99] = 0.5f;
    nowhere = mremap(room, 0, 4096, MREMAP_MAYMOVE);
    return nowhere == MAP_FAILED ? VAMP_IO : 0;
  case '1': /* lies */
    audio->frames = limits->max_samples + 1;
    return 0;
  case '2':
    audio->frames = SIZE_MAX / 4;
    audio->channels = 64;
    return 0;
  case '3':
    audio->channels = -1;
    return 0;
  case '4':
    audio->sample_rate = 0;
    return 0;
  case '5':
    room[50] = NAN;
    return 0;
  case '6':
    return 77;
  case '7':
    memset(error->message, 7, sizeof error->message);
    return VAMP_INVALID;
  default:
    break;
  }
  return 0;
}

static inline int decode(const void *data, size_t size, const char *name,
                         const struct vamp_audio_limits *limits, float *room, struct vamp_audio *audio,
                         struct vamp_error *error) {
  if (size >= 5 && memcmp(data, "HOOK", 4) == 0) {
    return obey(((const char *)data)[4], limits, room, audio, error);
  }
  return vamp_audio_read_memory_into(data, size, name, limits, room, audio, error);
}

/* ---- helpers ------------------------------------------------------------------------------------------- */

static inline struct vampd_decoder *open_decoder(void) {
  struct vampd_decoder *decoder = NULL;
  struct vamp_error error = {0};
  if (vampd_decoder_start(&SHORT, &decoder, &error) != 0) {
    fail_msg("%s", error.message);
  }
  return decoder;
}

static inline int order(struct vampd_decoder *decoder, char what, struct vamp_error *error) {
  char clip[] = "HOOK?";
  clip[4] = what;
  struct vamp_audio audio = {0};
  int status = vampd_decoder_read(decoder, clip, sizeof clip - 1, "clip", NULL, &audio, error);
  vamp_audio_free(&audio);
  return status;
}

/* The order ends in this error, and the next clip is decoded. */
static inline void expect(struct vampd_decoder *decoder, char what, int status, const char *message) {
  struct vamp_error error = {0};
  int got = order(decoder, what, &error);
  if (got != status || !strstr(error.message, message)) {
    fail_msg("%c: wanted %d \"%s\", got %d \"%s\"", what, status, message, got, error.message);
  }
  assert_int_equal(order(decoder, '.', &error), 0);
}

/* Both ways of decoding say the same, bit for bit; where it can be decoded, and how many frames there are. */
static inline size_t compare(struct vampd_decoder *decoder, const void *data, size_t size,
                             const struct vamp_audio_limits *limits) {
  struct vamp_audio here = {0}, there = {0};
  struct vamp_error expected = {0}, error = {0};
  int status = vamp_audio_read_memory(data, size, "upload", limits, &here, &expected);
  assert_int_equal(vampd_decoder_read(decoder, data, size, "upload", limits, &there, &error), status);
  assert_string_equal(error.message, expected.message);
  assert_int_equal(there.frames, here.frames);
  assert_int_equal(there.channels, here.channels);
  assert_int_equal(there.sample_rate, here.sample_rate);
  if (status == 0) {
    assert_memory_equal(there.samples, here.samples,
                        here.frames * (size_t)here.channels * sizeof *here.samples);
  }
  size_t frames = here.frames;
  vamp_audio_free(&here);
  vamp_audio_free(&there);
  return frames;
}

static inline int count_entries(const char *folder) {
  int count = 0;
  DIR *entries = opendir(folder);
  assert_non_null(entries);
  while (readdir(entries)) {
    count++;
  }
  closedir(entries);
  return count;
}

static inline int count_descriptors(pid_t process) {
  char folder[64];
  snprintf(folder, sizeof folder, "/proc/%d/fd", (int)process);
  return count_entries(folder);
}

/* Processes whose parent is this one, zombies among them; of this name only, where `name` is not NULL. */
static inline int count_named(pid_t parent, const char *name) {
  int count = 0;
  DIR *entries = opendir("/proc");
  assert_non_null(entries);
  for (struct dirent *entry; (entry = readdir(entries));) {
    char path[300], called[64], state;
    int process, of;
    snprintf(path, sizeof path, "/proc/%s/stat", entry->d_name);
    FILE *file = entry->d_name[0] >= '1' && entry->d_name[0] <= '9' ? fopen(path, "r") : NULL;
    if (file && fscanf(file, "%d (%63[^)]) %c %d", &process, called, &state, &of) == 4) {
      count += of == (int)parent && (!name || strcmp(called, name) == 0);
    }
    if (file) {
      fclose(file);
    }
  }
  closedir(entries);
  return count;
}

static inline void kill_children(pid_t parent) {
  char path[64];
  int process;
  snprintf(path, sizeof path, "/proc/%d/task/%d/children", (int)parent, (int)parent);
  FILE *file = fopen(path, "r");
  assert_non_null(file);
  while (fscanf(file, "%d", &process) == 1) {
    kill(process, SIGKILL);
  }
  fclose(file);
}

static inline int count_children(pid_t parent) {
  return count_named(parent, NULL);
}

/* Of a decoder: the processes that have a clip. */
static inline int count_clips(pid_t decoder) {
  return count_named(decoder, VAMPD_CLIP_NAME);
}

/* Nothing but the spare is left, after a moment in which the last child may go and the spare come. */
static inline void assert_idle(pid_t decoder) {
  for (int i = 0; i < 2000; i++) {
    if (count_children(decoder) == 1 && count_named(decoder, VAMPD_SPARE_NAME) == 1) {
      return;
    }
    usleep(1000);
  }
  fail_msg("%d children, %d spare", count_children(decoder), count_named(decoder, VAMPD_SPARE_NAME));
}

static inline long resident_kib(pid_t process) {
  char path[64];
  long pages = 0;
  snprintf(path, sizeof path, "/proc/%d/statm", (int)process);
  FILE *file = fopen(path, "r");
  assert_non_null(file);
  assert_int_equal(fscanf(file, "%*d %ld", &pages), 1);
  fclose(file);
  return pages * (sysconf(_SC_PAGESIZE) / 1024);
}

#endif
