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
#include <signal.h>
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

static void close_all(void) {
  if (syscall(SYS_close_range, 0u, ~0u, 0u) != 0) { /* Linux before 5.9 */
    for (int i = 0; i < MOST_DESCRIPTORS; i++) {
      close(i);
    }
  }
}

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

static bool limit_resources(const struct vampd_child *child) {
  static const int NONE_OF[] = {RLIMIT_NOFILE, RLIMIT_NPROC, RLIMIT_FSIZE, RLIMIT_CORE};
  const struct vampd_decoder_request *request = child->request;
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

_Noreturn void vampd_child_run(const struct vampd_child *child) {
  const struct vampd_decoder_request *request = child->request;
  sigset_t none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, NULL);
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (getppid() != child->parent) {
    vampd_child_end(1);
  }
  size_t room = VAMPD_TRAY_SAMPLES + request->limits.max_samples * sizeof(float);
  const void *clip = mmap(NULL, request->size, PROT_READ, MAP_SHARED, child->clip, 0);
  void *tray = mmap(NULL, room, PROT_READ | PROT_WRITE, MAP_SHARED, child->tray, 0);
  if (clip == MAP_FAILED || tray == MAP_FAILED) {
    vampd_child_end(1);
  }
  close_all();
  if (!limit_resources(child) || (child->filter && vampd_filter_install(child->filter) != 0)) {
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
  vampd_child_end(0);
}
