/*
 * The daemon's side of the decoder.
 *
 * The clip goes over in a piece of memory (memfd), and the samples come back in another one, the tray, of
 * which only the pages that were written exist. Neither is ever used for a second clip, so nobody's audio can
 * turn up in somebody else's. The tray's size is sealed, so reading it cannot fail; and its content is, or
 * the child is dead, before it is looked at (internal.h says how that is known). Nothing in it is believed:
 * numbers are held against the limits, samples against what a sample can be, and text is made printable.
 *
 * A decoder that is gone (out of memory, or killed by hand) is noticed by whoever hands over or waits,
 * replaced, and the clip tried once more. The decoder itself reads nothing of a clip, so no clip can be the
 * cause; were that wrong, one request would end two decoders, and not more.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <math.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <spawn.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "server/decode/internal.h"
#include "server/log.h"

#define HELLO_SECONDS 30  /* to start, on a machine that is busy */
#define SEND_SECONDS 5    /* to take a message */
#define OVERTIME 2        /* times what a clip may take by the clock: the decoder must have answered */
#define LOOK_SECONDS 0.01 /* between two looks at whether it is still there */
#define TRIES 2
#define MOST_VARIABLES 16

struct vampd_decoder {
  struct vampd_decoder_patience patience;
  pthread_mutex_t mutex;
  pthread_cond_t left; /* a clip was decoded */
  int clips;           /* being decoded */
  int socket;          /* -1: there is no decoder */
  pid_t process;
  bool filtered;
  bool said; /* that nothing is filtered */
  unsigned generation;
};

/* What one clip's decoding holds. */
struct errand {
  struct vampd_decoder_request request;
  int clip, tray, pipe[2];
  _Atomic uint32_t *bell; /* mapped, or NULL */
  unsigned generation;
};

/* ---- the process: all under the mutex ----------------------------------------------------------------- */

/* Of the daemon's environment only what the dynamic linker and the sanitizers read: in the rest of it may be
 * what a clip that takes over its process must not find. */
static void choose_environment(char *chosen[MOST_VARIABLES + 1]) {
  static const char *const KEPT[] = {"LD_", "ASAN_", "UBSAN_", "LSAN_", "TSAN_"};
  int count = 0;
  for (char **variable = environ; *variable && count < MOST_VARIABLES; variable++) {
    for (size_t i = 0; i < sizeof KEPT / sizeof KEPT[0]; i++) {
      if (strncmp(*variable, KEPT[i], strlen(KEPT[i])) == 0) {
        chosen[count++] = *variable;
        break;
      }
    }
  }
  chosen[count] = NULL;
}

static int spawn(int socket, pid_t *process) {
  char program[] = "vampd-decoder", argument[] = VAMPD_DECODER_ARGUMENT;
  char *const arguments[] = {program, argument, NULL};
  char *environment[MOST_VARIABLES + 1];
  posix_spawn_file_actions_t actions;
  int status = posix_spawn_file_actions_init(&actions);
  if (status != 0) {
    return status;
  }
  /* The socket first: its own number may be one that is opened after it. */
  status = posix_spawn_file_actions_adddup2(&actions, socket, VAMPD_DECODER_SOCKET);
  for (int i = STDIN_FILENO; i <= STDOUT_FILENO && status == 0; i++) {
    status = posix_spawn_file_actions_addopen(&actions, i, "/dev/null", O_RDWR, 0);
  }
  if (status == 0) {
    choose_environment(environment);
    status = posix_spawn(process, "/proc/self/exe", &actions, NULL, arguments, environment);
  }
  posix_spawn_file_actions_destroy(&actions);
  return status;
}

static bool wait_readable(int descriptor, double seconds) {
  struct pollfd source = {.fd = descriptor, .events = POLLIN};
  double deadline = vampd_now() + seconds;
  for (double left = seconds;; left = deadline - vampd_now()) {
    int ready = poll(&source, 1, left > 0 ? (int)(left * 1e3) + 1 : 0);
    if (ready != 0 && (ready > 0 || errno != EINTR)) {
      return ready > 0;
    }
    if (left <= 0) {
      return false;
    }
  }
}

/* There is nothing that it would have to put in order, and its children do not outlive it. */
static void end_process(struct vampd_decoder *decoder) {
  if (decoder->socket >= 0) {
    close(decoder->socket);
    decoder->socket = -1;
    kill(decoder->process, SIGKILL);
    while (waitpid(decoder->process, NULL, 0) < 0 && errno == EINTR) {
    }
  }
}

/* Takes the decoder's first word. */
static int meet(struct vampd_decoder *decoder, struct vamp_error *error) {
  struct vampd_decoder_hello hello;
  if (!wait_readable(decoder->socket, HELLO_SECONDS) ||
      recv(decoder->socket, &hello, sizeof hello, MSG_DONTWAIT) != (ssize_t)sizeof hello) {
    end_process(decoder);
    return vamp_fail(error, VAMP_IO, "The process that decodes audio does not start.");
  }
  decoder->filtered = hello.filter_error == 0;
  if (!decoder->filtered && !decoder->said) {
    vampd_log(
        "decoder: the kernel refuses to filter system calls (%s): audio is decoded under resource limits "
        "alone",
        strerror(hello.filter_error));
    decoder->said = true;
  }
  return VAMP_OK;
}

static int start_process(struct vampd_decoder *decoder, struct vamp_error *error) {
  int ends[2];
  if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) != 0) {
    return vamp_fail(error, VAMP_IO, "The system refused a socket for the decoder: %s.", strerror(errno));
  }
  struct timeval patience = {.tv_sec = SEND_SECONDS};
  setsockopt(ends[0], SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
  int status = spawn(ends[1], &decoder->process);
  close(ends[1]);
  if (status != 0) {
    close(ends[0]);
    return vamp_fail(error, VAMP_IO, "The process that decodes audio cannot be started: %s.",
                     strerror(status));
  }
  decoder->socket = ends[0];
  decoder->generation++;
  return meet(decoder, error);
}

int vampd_decoder_start(const struct vampd_decoder_patience *patience, struct vampd_decoder **decoder,
                        struct vamp_error *error) {
  struct vampd_decoder *made = calloc(1, sizeof *made);
  if (!made) {
    return vamp_fail(error, VAMP_MEMORY, "Out of memory while starting the decoder.");
  }
  made->socket = -1;
  made->patience = *patience;
  pthread_mutex_init(&made->mutex, NULL);
  pthread_cond_init(&made->left, NULL);
  int status = start_process(made, error);
  if (status != VAMP_OK) {
    vampd_decoder_stop(made);
    return status;
  }
  *decoder = made;
  return VAMP_OK;
}

void vampd_decoder_stop(struct vampd_decoder *decoder) {
  if (!decoder) {
    return;
  }
  end_process(decoder);
  pthread_cond_destroy(&decoder->left);
  pthread_mutex_destroy(&decoder->mutex);
  free(decoder);
}

/* Whether the children of processes that died become this one's. */
static bool adopts_orphans(void) {
  int reaper = 0;
  return getpid() == 1 || (prctl(PR_GET_CHILD_SUBREAPER, &reaper) == 0 && reaper != 0);
}

void vampd_decoder_reap(struct vampd_decoder *decoder) {
  siginfo_t child = {0};
  if (!adopts_orphans() || pthread_mutex_trylock(&decoder->mutex) != 0) {
    return; /* who holds the mutex may be starting a decoder, and waits for it itself */
  }
  while (waitid(P_ALL, 0, &child, WEXITED | WNOHANG | WNOWAIT) == 0 && child.si_pid != 0) {
    if (decoder->socket >= 0 && child.si_pid == decoder->process) {
      end_process(decoder);
    } else {
      waitpid(child.si_pid, NULL, 0);
    }
    child.si_pid = 0;
  }
  pthread_mutex_unlock(&decoder->mutex);
}

struct vampd_decoder_facts vampd_decoder_facts(struct vampd_decoder *decoder) {
  pthread_mutex_lock(&decoder->mutex);
  struct vampd_decoder_facts facts = {decoder->process, decoder->filtered};
  pthread_mutex_unlock(&decoder->mutex);
  return facts;
}

/* ---- handing over ------------------------------------------------------------------------------------- */

static void close_errand(struct errand *errand) {
  if (errand->bell) {
    munmap(errand->bell, sizeof *errand->bell);
    errand->bell = NULL;
  }
  int *const descriptors[] = {&errand->clip, &errand->tray, &errand->pipe[0], &errand->pipe[1]};
  for (size_t i = 0; i < sizeof descriptors / sizeof descriptors[0]; i++) {
    if (*descriptors[i] >= 0) {
      close(*descriptors[i]);
    }
    *descriptors[i] = -1;
  }
}

static bool write_whole(int descriptor, const char *data, size_t size) {
  while (size > 0) {
    ssize_t written = write(descriptor, data, size);
    if (written < 0 && errno != EINTR) {
      return false;
    }
    data += written > 0 ? written : 0;
    size -= written > 0 ? (size_t)written : 0;
  }
  return true;
}

/* Memory and a pipe for one try. */
static int open_errand(struct errand *errand, const void *data, struct vamp_error *error) {
  const struct vampd_decoder_request *request = &errand->request;
  off_t room = (off_t)(VAMPD_TRAY_SAMPLES + request->limits.max_samples * sizeof(float));
  off_t place = (off_t)VAMPD_BELL_OFFSET(request->size);
  void *bell = MAP_FAILED;
  errand->clip = memfd_create("clip", MFD_CLOEXEC);
  errand->tray = memfd_create("tray", MFD_CLOEXEC | MFD_ALLOW_SEALING);
  if (errand->clip < 0 || errand->tray < 0 || pipe2(errand->pipe, O_CLOEXEC) != 0 ||
      !write_whole(errand->clip, data, request->size) ||
      ftruncate(errand->clip, place + (off_t)sizeof *errand->bell) != 0 ||
      (bell = mmap(NULL, sizeof *errand->bell, PROT_READ | PROT_WRITE, MAP_SHARED, errand->clip, place)) ==
          MAP_FAILED ||
      ftruncate(errand->tray, room) != 0 ||
      fcntl(errand->tray, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW) != 0) {
    int reason = errno;
    close_errand(errand);
    if (bell != MAP_FAILED) {
      munmap(bell, sizeof *errand->bell);
    }
    return vamp_fail(error, VAMP_MEMORY, "No memory to decode the audio in: %s.", strerror(reason));
  }
  errand->bell = bell;
  return VAMP_OK;
}

/* Under the mutex, which also keeps another thread from closing the socket meanwhile. */
static int hand_over(struct vampd_decoder *decoder, struct errand *errand, struct vamp_error *error) {
  const int descriptors[VAMPD_REQUEST_DESCRIPTORS] = {[VAMPD_REQUEST_CLIP] = errand->clip,
                                                      [VAMPD_REQUEST_TRAY] = errand->tray,
                                                      [VAMPD_REQUEST_PIPE] = errand->pipe[1]};
  for (int i = 0; i < TRIES; i++) {
    if (decoder->socket < 0) {
      int status = start_process(decoder, error);
      if (status != VAMP_OK) {
        return status;
      }
      vampd_log("decoder: it was gone, and has been started again as process %d", (int)decoder->process);
    }
    if (vampd_request_send(decoder->socket, &errand->request, descriptors, VAMPD_REQUEST_DESCRIPTORS)) {
      errand->generation = decoder->generation;
      return VAMP_OK;
    }
    end_process(decoder);
  }
  return vamp_fail(error, VAMP_IO, "The process that decodes audio does not stay alive.");
}

static void wait_for_bell(_Atomic uint32_t *bell, double seconds) {
  struct timespec time = {.tv_nsec = (long)(1e9 * fmin(seconds, 0.5))};
  syscall(SYS_futex, bell, FUTEX_WAIT, 0, &time, NULL, 0);
}

/* From here on nobody can write into the tray; false where somebody still might. */
static bool seal(const struct errand *errand) {
  return fcntl(errand->tray, F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_SEAL) == 0;
}

/* Waits for the bell, and looks after the pipe as well, for a child may die without ringing, and the decoder
 * too: futexes and descriptors cannot be waited for together. True where the tray is sealed. */
static bool wait_for_result(const struct errand *errand, double deadline) {
  while (vampd_now() < deadline) {
    if (atomic_load(errand->bell) != 0) {
      return seal(errand);
    }
    if (wait_readable(errand->pipe[0], 0)) {
      return false;
    }
    wait_for_bell(errand->bell, LOOK_SECONDS);
  }
  return false;
}

/* Waits until the tray can be looked into. False where the decoder is gone or stuck; it has then been ended.
 */
static bool await(struct vampd_decoder *decoder, struct errand *errand, struct vampd_decoder_report *report) {
  double deadline = vampd_now() + errand->request.wall_milliseconds * 1e-3 * OVERTIME;
  close(errand->pipe[1]); /* the decoder's is then the last, and its end the pipe's */
  errand->pipe[1] = -1;
  if (wait_for_result(errand, deadline)) {
    *report = (struct vampd_decoder_report){.end = VAMPD_END_DONE};
    return true;
  }
  if (wait_readable(errand->pipe[0], deadline - vampd_now()) &&
      read(errand->pipe[0], report, sizeof *report) == (ssize_t)sizeof *report) {
    return true;
  }
  pthread_mutex_lock(&decoder->mutex);
  if (decoder->generation == errand->generation) {
    end_process(decoder);
  }
  pthread_mutex_unlock(&decoder->mutex);
  return false;
}

/* Has the clip decoded; afterwards *report says how that ended, and the errand still holds the tray. */
static int run_errand(struct vampd_decoder *decoder, struct errand *errand, const void *data,
                      struct vampd_decoder_report *report, struct vamp_error *error) {
  for (int i = 0; i < TRIES; i++) {
    int status = open_errand(errand, data, error);
    if (status != VAMP_OK) {
      return status;
    }
    pthread_mutex_lock(&decoder->mutex);
    status = hand_over(decoder, errand, error);
    pthread_mutex_unlock(&decoder->mutex);
    if (status != VAMP_OK || await(decoder, errand, report)) {
      return status;
    }
    close_errand(errand);
  }
  return vamp_fail(error, VAMP_IO, "The process that decodes audio does not stay alive.");
}

/* ---- what came back ----------------------------------------------------------------------------------- */

static int fail_crash(const struct vampd_decoder_report *report, struct vamp_error *error) {
  vampd_log("decoder: a clip ended its process%s%s", report->detail ? " by " : "",
            report->detail ? strsignal(report->detail) : "");
  return vamp_fail(error, VAMP_INVALID,
                   "The audio cannot be read: the decoder failed on it; save it again, as WAV or FLAC.");
}

static bool within_limits(const struct vampd_decoder_slip *slip, const struct vamp_audio_limits *limits) {
  return slip->frames > 0 && slip->channels > 0 && slip->channels <= limits->max_channels &&
         slip->sample_rate >= 1000 && slip->sample_rate <= 768000 &&
         slip->frames <= limits->max_samples / (uint64_t)slip->channels &&
         (double)slip->frames <= limits->max_seconds * slip->sample_rate;
}

static bool are_samples(const float *samples, size_t count) {
  int bad = 0;
#pragma omp simd reduction(| : bad)
  for (size_t i = 0; i < count; i++) {
    bad |= !(fabsf(samples[i]) <= VAMP_AUDIO_LARGEST_SAMPLE); /* also for NaN */
  }
  return !bad;
}

static int fail_as_told(struct vampd_decoder_slip *slip, struct vamp_error *error) {
  slip->message[sizeof slip->message - 1] = '\0';
  for (char *c = slip->message; *c; c++) {
    *c = *c >= ' ' && *c <= '~' ? *c : '?';
  }
  return vamp_fail(error, slip->status, "%s", slip->message);
}

static int read_tray(const struct errand *errand, const struct vampd_decoder_report *report,
                     struct vamp_audio *audio, struct vamp_error *error) {
  struct vampd_decoder_slip slip;
  if (pread(errand->tray, &slip, sizeof slip, 0) != (ssize_t)sizeof slip || slip.mark != VAMPD_TRAY_MARK) {
    return fail_crash(report, error);
  }
  if (slip.status == VAMP_INVALID || slip.status == VAMP_LIMIT || slip.status == VAMP_MEMORY) {
    return fail_as_told(&slip, error);
  }
  if (slip.status != VAMP_OK || !within_limits(&slip, &errand->request.limits)) {
    return fail_crash(report, error);
  }
  size_t count = (size_t)slip.frames * (size_t)slip.channels, size = count * sizeof(float);
  /* A private mapping: a sealed tray allows no other, and who writes into it has a copy of the page. */
  void *samples = mmap(NULL, size, PROT_READ, MAP_PRIVATE | MAP_POPULATE, errand->tray, VAMPD_TRAY_SAMPLES);
  if (samples == MAP_FAILED || mprotect(samples, size, PROT_READ | PROT_WRITE) != 0) {
    if (samples != MAP_FAILED) {
      munmap(samples, size);
    }
    return vamp_fail(error, VAMP_MEMORY, "No memory for the decoded audio: %s.", strerror(errno));
  }
  if (!are_samples(samples, count)) {
    munmap(samples, size);
    return fail_crash(report, error);
  }
  *audio = (struct vamp_audio){.samples = samples,
                               .frames = (size_t)slip.frames,
                               .channels = slip.channels,
                               .sample_rate = slip.sample_rate,
                               .mapped = size};
  return VAMP_OK;
}

static int conclude(const struct errand *errand, const struct vampd_decoder_report *report,
                    struct vamp_audio *audio, struct vamp_error *error) {
  switch (report->end) {
  case VAMPD_END_DONE:
    return read_tray(errand, report, audio, error);
  case VAMPD_END_TOO_LONG:
    return vamp_fail(error, VAMP_INVALID,
                     "The audio cannot be read: decoding it takes too long; send a shorter part of it, or "
                     "save it again, as WAV or FLAC.");
  case VAMPD_END_NOT_BEGUN:
    return vamp_fail(error, VAMP_MEMORY, "No process to decode the audio in: %s.", strerror(report->detail));
  default:
    return fail_crash(report, error);
  }
}

int vampd_decoder_read(struct vampd_decoder *decoder, const void *data, size_t size, const char *name,
                       const struct vamp_audio_limits *limits, struct vamp_audio *audio,
                       struct vamp_error *error) {
  if (size == 0) { /* nothing to decode, and an error that is said in one place */
    return vamp_audio_read_memory(data, size, name, limits, audio, error);
  }
  struct errand errand = {.clip = -1, .tray = -1, .pipe = {-1, -1}};
  struct vampd_decoder_report report = {0};
  errand.request.size = size;
  errand.request.limits = limits ? *limits : vamp_audio_default_limits();
  double hours = fmin(errand.request.limits.max_seconds / 3600, 1000);
  errand.request.cpu_seconds =
      decoder->patience.seconds + (uint32_t)(decoder->patience.seconds_an_hour * hours);
  errand.request.wall_milliseconds = 2000 * errand.request.cpu_seconds;
  snprintf(errand.request.name, sizeof errand.request.name, "%s", name);
  pthread_mutex_lock(&decoder->mutex);
  while (decoder->clips == VAMPD_DECODER_CLIPS) {
    pthread_cond_wait(&decoder->left, &decoder->mutex);
  }
  decoder->clips++;
  pthread_mutex_unlock(&decoder->mutex);
  int status = run_errand(decoder, &errand, data, &report, error);
  if (status == VAMP_OK) {
    status = conclude(&errand, &report, audio, error);
  }
  close_errand(&errand);
  pthread_mutex_lock(&decoder->mutex);
  decoder->clips--;
  pthread_cond_signal(&decoder->left);
  pthread_mutex_unlock(&decoder->mutex);
  return status;
}
