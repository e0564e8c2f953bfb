/*
 * The process of one clip.
 *
 * It is born as a copy of the decoder, gives away everything but memory, decodes, leaves a slip in the tray
 * and is gone. What it is left with:
 *
 *   descriptors   none, and it can open none: input and output are mapped memory
 *   memory        what the decoder has, the clip, the tray, and 64 MiB for the libraries
 *   time          so many seconds of the processor; the decoder looks at the clock
 *   system calls  those of filter.c
 *
 * The limits alone, where the kernel refuses the filter, leave a process that can still make system calls
 * without a descriptor, such as signals to processes of the same user.
 *
 * It ends by the system call itself: what libraries lost on the way is the kernel's to tidy, and nothing of
 * theirs runs at the end. (Neither does a sanitizer, which makes _exit an occasion to look for leaks, by
 * means that the filter does not allow.)
 */
#include <linux/futex.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "server/decode/internal.h"

/* Room for the libraries; a sanitizer keeps books of its own. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define HEAP_BYTES ((uint64_t)4 << 30)
#else
#define HEAP_BYTES ((uint64_t)64 << 20)
#endif

#define MOST_DESCRIPTORS 1024 /* more than the decoder can have: three, and a pipe for each clip */

/* What the administrator allows is never raised. */
static bool limit(int resource, uint64_t soft, uint64_t hard) {
  struct rlimit value;
  if (getrlimit(resource, &value) != 0) {
    return false;
  }
  value.rlim_max = value.rlim_max < (rlim_t)hard ? value.rlim_max : (rlim_t)hard;
  value.rlim_cur = value.rlim_max < (rlim_t)soft ? value.rlim_max : (rlim_t)soft;
  return setrlimit(resource, &value) == 0;
}

static bool limit_resources(const struct vampd_child *child, const struct vampd_decoder_request *request) {
  static const int NONE_OF[] = {RLIMIT_NOFILE, RLIMIT_NPROC, RLIMIT_FSIZE, RLIMIT_CORE};
  uint64_t samples = request->limits.max_samples * sizeof(float);
  uint64_t memory = child->own_memory + request->size + samples + HEAP_BYTES;
  /* At the soft limit of time comes SIGXCPU, which tells it from other ends; at the hard one SIGKILL. */
  bool limited = limit(RLIMIT_CPU, request->cpu_seconds, (uint64_t)request->cpu_seconds + 1) &&
                 limit(RLIMIT_AS, memory, memory);
  for (size_t i = 0; i < sizeof NONE_OF / sizeof NONE_OF[0]; i++) {
    limited = limited && limit(NONE_OF[i], 0, 0);
  }
  return limited;
}

_Noreturn void vampd_child_end(int code) {
  for (;;) {
    syscall(SYS_exit_group, code);
  }
}

/* ---- before the clip ----------------------------------------------------------------------------------- */

static void put_le(unsigned char *to, uint32_t value, int bytes) {
  for (int i = 0; i < bytes; i++) {
    to[i] = (unsigned char)(value >> (8 * i));
  }
}

/* A clip of our own, so that the libraries' pages are there, their symbols bound and their first memory had
 * when the stranger's comes. What becomes of it is of no interest. */
static void warm_up(vampd_decode_function *decode) {
  enum { HEADER = 44, FRAMES = 512 };
  unsigned char wav[HEADER + 2 * FRAMES] = "RIFF....WAVEfmt ....................data";
  float room[FRAMES];
  struct vamp_audio_limits limits = vamp_audio_default_limits();
  struct vamp_audio audio = {0};
  limits.max_samples = FRAMES;
  put_le(wav + 4, sizeof wav - 8, 4);
  put_le(wav + 16, 16, 4); /* bytes of what follows: PCM, one channel, 44.1 kHz, 16 bit */
  put_le(wav + 20, 1, 2);
  put_le(wav + 22, 1, 2);
  put_le(wav + 24, 44100, 4);
  put_le(wav + 28, 2 * 44100, 4);
  put_le(wav + 32, 2, 2);
  put_le(wav + 34, 16, 2);
  put_le(wav + 40, 2 * FRAMES, 4);
  decode(wav, sizeof wav, "", &limits, room, &audio, NULL);
}

/* Closes all descriptors but this one, which may be none (-1). */
static void close_all_but(int kept) {
  bool closed = kept <= 0 || syscall(SYS_close_range, 0u, (unsigned)kept - 1, 0u) == 0;
  if (!closed || syscall(SYS_close_range, (unsigned)(kept + 1), ~0u, 0u) != 0) { /* Linux before 5.9 */
    for (int i = 0; i < MOST_DESCRIPTORS; i++) {
      if (i != kept) {
        close(i);
      }
    }
  }
}

/* ---- the clip ------------------------------------------------------------------------------------------ */

static _Noreturn void run(const struct vampd_child *child, const struct vampd_decoder_request *request,
                          const int *descriptors) {
  size_t room = VAMPD_TRAY_SAMPLES + request->limits.max_samples * sizeof(float);
  const void *clip = mmap(NULL, request->size, PROT_READ, MAP_SHARED, descriptors[VAMPD_REQUEST_CLIP], 0);
  void *tray = mmap(NULL, room, PROT_READ | PROT_WRITE, MAP_SHARED, descriptors[VAMPD_REQUEST_TRAY], 0);
  _Atomic uint32_t *bell = mmap(NULL, sizeof *bell, PROT_READ | PROT_WRITE, MAP_SHARED,
                                descriptors[VAMPD_REQUEST_CLIP], (off_t)VAMPD_BELL_OFFSET(request->size));
  if (clip == MAP_FAILED || tray == MAP_FAILED || bell == MAP_FAILED) {
    vampd_child_end(1);
  }
  close_all_but(-1);
  if (!limit_resources(child, request) || (child->filter && vampd_filter_install(child->filter) != 0)) {
    vampd_child_end(1);
  }
  struct vampd_decoder_slip *slip = tray;
  struct vamp_audio audio = {0};
  struct vamp_error error = {0};
  slip->status = child->decode(clip, request->size, request->name, &request->limits,
                               (float *)((char *)tray + VAMPD_TRAY_SAMPLES), &audio, &error);
  slip->frames = audio.frames;
  slip->channels = audio.channels;
  slip->sample_rate = audio.sample_rate;
  memcpy(slip->message, error.message, sizeof slip->message);
  slip->mark = VAMPD_TRAY_MARK;
  munmap(tray, room);
  atomic_store(bell, 1);
  syscall(SYS_futex, bell, FUTEX_WAKE, 1, NULL, NULL, 0);
  vampd_child_end(0);
}

_Noreturn void vampd_child_run(const struct vampd_child *child) {
  struct vampd_decoder_request request;
  int descriptors[VAMPD_REQUEST_PIPE]; /* the pipe stays with the decoder */
  sigset_t none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, NULL);
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (getppid() != child->parent) {
    vampd_child_end(1);
  }
  close_all_but(child->socket);
  if (child->ahead) {
    prctl(PR_SET_NAME, VAMPD_SPARE_NAME);
    warm_up(child->decode);
  }
  if (vampd_request_receive(child->socket, 0, &request, descriptors, VAMPD_REQUEST_PIPE) <= 0) {
    vampd_child_end(1);
  }
  prctl(PR_SET_NAME, VAMPD_CLIP_NAME);
  run(child, &request, descriptors);
}
