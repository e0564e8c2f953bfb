/*
 * The decoder: a process that forks one child for every clip, and tells the daemon how each of them ended.
 *
 * Why not fork in the daemon? It has threads, gigabytes of model and a GPU's mappings: a fork would copy the
 * page tables of all that, for every clip, and the child could do hardly anything safely. Why not run a
 * program for every clip? Starting one takes some ten milliseconds, mostly of dynamic linking; a fork of this
 * small process takes less than half of one. Why not one process that decodes clip after clip? Then what one
 * clip broke, the next one would have.
 *
 * It is the daemon's own program, run again, so that nothing more has to be installed and found; and that
 * from the start, not a fork of the daemon before it has threads, so that the first decoder and one that
 * replaces it are the same thing, and neither has a page of what the daemon read (its keys) in its memory.
 * Measured, a fork says its first word after 1 ms, a program after 7 to 13, once; a clip takes both equally
 * long.
 *
 * It reads no byte of a clip. Signals that end the daemon leave it alone, also those that a terminal sends to
 * both: it ends when the socket does, which is when the daemon has no use for it any more, or is dead.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "server/decode/internal.h"
#include "server/log.h"

struct clip {
  pid_t process; /* 0: this place is free */
  int pipe;
  double deadline;
  bool too_long;
};

struct service {
  vampd_decode_function *decode;
  struct vampd_filter *filter;
  uint64_t own_memory;
  int children; /* signalfd of SIGCHLD */
  int count;
  struct clip clips[VAMPD_DECODER_CLIPS];
};

/* ---- children ------------------------------------------------------------------------------------------ */

/* Writes how a clip ended and closes its pipe. Nobody may be there to read it, which is no concern here. */
static void report(int pipe, enum vampd_decoder_end end, int detail) {
  struct vampd_decoder_report word = {.end = (int32_t)end, .detail = detail};
  ssize_t written = write(pipe, &word, sizeof word);
  (void)written;
  close(pipe);
}

static void begin(struct service *service, const struct vampd_decoder_request *request,
                  const int *descriptors) {
  struct clip *clip = service->clips;
  while (clip < service->clips + VAMPD_DECODER_CLIPS && clip->process != 0) {
    clip++;
  }
  bool full = clip == service->clips + VAMPD_DECODER_CLIPS;
  struct vampd_child child = {
      .request = request,
      .clip = descriptors[VAMPD_REQUEST_CLIP],
      .tray = descriptors[VAMPD_REQUEST_TRAY],
      .filter = service->filter,
      .decode = service->decode,
      .own_memory = service->own_memory,
      .parent = getpid(),
  };
  pid_t process = full ? -1 : fork();
  if (process == 0) {
    vampd_child_run(&child);
  }
  if (process < 0) {
    report(descriptors[VAMPD_REQUEST_PIPE], VAMPD_END_NOT_BEGUN, full ? EAGAIN : errno);
  } else {
    *clip = (struct clip){.process = process,
                          .pipe = descriptors[VAMPD_REQUEST_PIPE],
                          .deadline = vampd_now() + request->wall_milliseconds * 1e-3};
    service->count++;
  }
  close(descriptors[VAMPD_REQUEST_CLIP]);
  close(descriptors[VAMPD_REQUEST_TRAY]);
}

static void end(struct service *service, struct clip *clip, int status) {
  bool left = WIFEXITED(status);
  int number = left ? 0 : WTERMSIG(status);
  if (left && WEXITSTATUS(status) == 0) {
    report(clip->pipe, VAMPD_END_DONE, 0);
  } else if (clip->too_long || number == SIGXCPU) {
    report(clip->pipe, VAMPD_END_TOO_LONG, number);
  } else {
    report(clip->pipe, VAMPD_END_CRASHED, number);
  }
  *clip = (struct clip){0};
  service->count--;
}

/* Takes leave of the dead; where `wait`, of all. */
static void reap(struct service *service, bool wait) {
  int status;
  pid_t process;
  while (service->count > 0 && (process = waitpid(-1, &status, wait ? 0 : WNOHANG)) > 0) {
    for (struct clip *clip = service->clips; clip < service->clips + VAMPD_DECODER_CLIPS; clip++) {
      if (clip->process == process) {
        end(service, clip, status);
        break;
      }
    }
  }
}

/* Ends what is over its time; the milliseconds until the next one is, or -1. */
static int watch_clock(struct service *service) {
  double now = vampd_now(), next = -1;
  for (struct clip *clip = service->clips; clip < service->clips + VAMPD_DECODER_CLIPS; clip++) {
    if (clip->process == 0 || clip->too_long) {
      continue;
    }
    if (clip->deadline <= now) {
      clip->too_long = true;
      kill(clip->process, SIGKILL);
    } else if (next < 0 || clip->deadline - now < next) {
      next = clip->deadline - now;
    }
  }
  return next < 0 ? -1 : (int)(next * 1e3) + 1;
}

/* ---- the socket ---------------------------------------------------------------------------------------- */

/* Takes the descriptors of a message; true where it is what a request should be. Those of one that is not are
 * closed. */
static bool take_descriptors(struct msghdr *message, int *descriptors) {
  bool good = (message->msg_flags & (MSG_TRUNC | MSG_CTRUNC)) == 0;
  size_t taken = 0;
  for (struct cmsghdr *part = CMSG_FIRSTHDR(message); part; part = CMSG_NXTHDR(message, part)) {
    if (part->cmsg_level == SOL_SOCKET && part->cmsg_type == SCM_RIGHTS && taken == 0) {
      taken = (part->cmsg_len - CMSG_LEN(0)) / sizeof(int);
      memcpy(descriptors, CMSG_DATA(part), taken * sizeof(int));
    }
  }
  good = good && taken == VAMPD_REQUEST_DESCRIPTORS;
  for (size_t i = 0; i < taken && !good; i++) {
    close(descriptors[i]);
  }
  return good;
}

/* Takes one request; false where there will be no more. */
static bool receive(struct service *service) {
  struct vampd_decoder_request request;
  union {
    struct cmsghdr align;
    char bytes[CMSG_SPACE(sizeof(int) * VAMPD_REQUEST_DESCRIPTORS)];
  } control;
  int descriptors[VAMPD_REQUEST_DESCRIPTORS];
  struct iovec body = {&request, sizeof request};
  struct msghdr message = {
      .msg_iov = &body, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control};
  ssize_t got = recvmsg(VAMPD_DECODER_SOCKET, &message, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
  if (got < 0) {
    return errno == EINTR || errno == EAGAIN || errno == EWOULDBLOCK;
  }
  if (got == 0) {
    return false;
  }
  if (take_descriptors(&message, descriptors) && got == (ssize_t)sizeof request) {
    begin(service, &request, descriptors);
  }
  return true;
}

static void serve(struct service *service) {
  struct pollfd sources[] = {{.fd = service->children, .events = POLLIN},
                             {.fd = VAMPD_DECODER_SOCKET, .events = POLLIN}};
  bool open = true;
  while (open) {
    if (poll(sources, 2, watch_clock(service)) < 0 && errno != EINTR) {
      break;
    }
    struct signalfd_siginfo signal;
    if (sources[0].revents && read(service->children, &signal, sizeof signal) > 0) {
      reap(service, false);
    }
    if (sources[1].revents) {
      open = receive(service);
    }
  }
  for (int i = 0; i < VAMPD_DECODER_CLIPS; i++) {
    if (service->clips[i].process != 0) {
      kill(service->clips[i].process, SIGKILL);
    }
  }
  reap(service, true);
}

/* ---- the start ----------------------------------------------------------------------------------------- */

static int prepare_signals(void) {
  static const int LEFT_TO_THE_DAEMON[] = {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGUSR1, SIGUSR2, SIGPIPE};
  for (size_t i = 0; i < sizeof LEFT_TO_THE_DAEMON / sizeof LEFT_TO_THE_DAEMON[0]; i++) {
    signal(LEFT_TO_THE_DAEMON[i], SIG_IGN);
  }
  signal(SIGCHLD, SIG_DFL); /* ignored, the children's ends would be lost */
  sigset_t children;
  sigemptyset(&children);
  sigaddset(&children, SIGCHLD);
  sigprocmask(SIG_SETMASK, &children, NULL);
  return signalfd(-1, &children, SFD_CLOEXEC | SFD_NONBLOCK);
}

/* The bytes of address space that this process takes; 0 where they cannot be told. */
static uint64_t measure_memory(void) {
  unsigned long long pages = 0;
  FILE *file = fopen("/proc/self/statm", "re");
  if (file) {
    if (fscanf(file, "%llu", &pages) != 1) {
      pages = 0;
    }
    fclose(file);
  }
  return pages * (uint64_t)sysconf(_SC_PAGESIZE);
}

/* Whether a filter can be installed here: what a container forbids is known only by trying. 0, or an errno.
 */
static int try_filter(const struct vampd_filter *filter) {
  pid_t process = fork();
  if (process == 0) {
    vampd_child_end(vampd_filter_install(filter));
  }
  int status;
  if (process < 0 || waitpid(process, &status, 0) != process) {
    return errno;
  }
  return WIFEXITED(status) ? WEXITSTATUS(status) : EPERM;
}

int vampd_decoder_serve(vampd_decode_function *decode) {
  struct service service = {.decode = decode, .own_memory = measure_memory()};
  struct vampd_decoder_hello hello = {0};
  int code = 1;
  syscall(SYS_close_range, VAMPD_DECODER_SOCKET + 1u, ~0u, 0u); /* there should be none */
  prctl(PR_SET_NAME, "vampd-decoder");
  prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
  service.children = prepare_signals();
  if (service.children < 0 || service.own_memory == 0 || chdir("/") != 0) {
    goto out;
  }
  service.filter = vampd_filter_create(&hello.filter_error);
  if (service.filter && (hello.filter_error = try_filter(service.filter)) != 0) {
    vampd_filter_free(service.filter);
    service.filter = NULL;
  }
  if (send(VAMPD_DECODER_SOCKET, &hello, sizeof hello, MSG_NOSIGNAL) != (ssize_t)sizeof hello) {
    goto out;
  }
  serve(&service);
  code = 0;
out:
  vampd_filter_free(service.filter);
  return code;
}

bool vampd_decoder_main(int argc, char **argv, vampd_decode_function *decode, int *exit_code) {
  if (argc != 2 || strcmp(argv[1], VAMPD_DECODER_ARGUMENT) != 0) {
    return false;
  }
  int type = 0;
  socklen_t size = sizeof type;
  if (getsockopt(VAMPD_DECODER_SOCKET, SOL_SOCKET, SO_TYPE, &type, &size) != 0 || type != SOCK_SEQPACKET) {
    fputs("vampd: " VAMPD_DECODER_ARGUMENT " is how vampd starts its own decoder, and nothing for a shell\n",
          stderr);
    *exit_code = 2;
    return true;
  }
  *exit_code = vampd_decoder_serve(decode);
  return true;
}
