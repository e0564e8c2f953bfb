/*
 * The decoder: a process that forks one child for every clip, and tells the daemon how each of them ended.
 *
 * Why not fork in the daemon? It has threads, gigabytes of model and a GPU's mappings: a fork would copy the
 * page tables of all that, for every clip, and the child could do hardly anything safely. Why not run a
 * program for every clip? Starting one takes some ten milliseconds, mostly of dynamic linking. Why not one
 * process that decodes clip after clip? Then what one clip broke, the next one would have.
 *
 * One child, the spare, is forked ahead: it has decoded a clip of our own, so that the libraries are ready,
 * waits for one request, and is as fresh as any other child when that comes. A clip that finds no spare, as
 * when many come at once, gets a child that is forked there and then. More spares than one were not worth
 * their memory: where clips come faster than one in a few milliseconds, the processors are busy anyway.
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

/* Milliseconds without a message, after which there is time to fork: the daemon, which has just been told how
 * a clip ended, goes first. */
#define PAUSE 2

struct clip {
  pid_t process; /* 0: this place is free */
  int pipe;
  double deadline;
  bool too_long; /* it has been killed for that */
  bool dropped;  /* and for this: nobody waits for it */
};

struct service {
  vampd_decode_function *decode;
  struct vampd_filter *filter;
  uint64_t own_memory;
  int children;     /* signalfd of SIGCHLD */
  pid_t spare;      /* a child that waits for its clip, or 0 */
  int spare_socket; /* -1: there is none, or it is no longer one */
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

/* Forks a child that waits for its clip. 0, or an errno. */
static int make_spare(struct service *service, bool ahead) {
  int ends[2];
  if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) != 0) {
    return errno;
  }
  struct vampd_child child = {.socket = ends[1],
                              .ahead = ahead,
                              .filter = service->filter,
                              .decode = service->decode,
                              .own_memory = service->own_memory,
                              .parent = getpid()};
  pid_t process = fork();
  int reason = errno;
  if (process == 0) {
    vampd_child_run(&child);
  }
  close(ends[1]);
  if (process < 0) {
    close(ends[0]);
    return reason;
  }
  service->spare = process;
  service->spare_socket = ends[0];
  return 0;
}

/* Hands the request to a child, whose process this returns; or a negative errno. */
static pid_t hand_over(struct service *service, const struct vampd_decoder_request *request,
                       const int *descriptors) {
  for (int i = 0; i < 2; i++) { /* somebody may have killed the spare */
    int reason = service->spare_socket < 0 ? make_spare(service, false) : 0;
    if (reason != 0) {
      return -reason;
    }
    bool sent = vampd_request_send(service->spare_socket, request, descriptors, VAMPD_REQUEST_PIPE);
    close(service->spare_socket);
    service->spare_socket = -1;
    if (sent) {
      pid_t process = service->spare;
      service->spare = 0;
      return process;
    }
  }
  return -EAGAIN;
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

/* Nobody waits for this clip any more: the daemon has what it wanted, or is dead. */
static bool is_abandoned(const struct clip *clip) {
  struct pollfd pipe = {.fd = clip->pipe};
  return poll(&pipe, 1, 0) > 0 && (pipe.revents & POLLERR) != 0;
}

/* NULL where as many are decoded as may be. One that nobody waits for has lost its place. */
static struct clip *find_place(struct service *service) {
  struct clip *end_of_clips = service->clips + VAMPD_DECODER_CLIPS;
  for (struct clip *clip = service->clips; clip < end_of_clips; clip++) {
    if (clip->process == 0) {
      return clip;
    }
  }
  for (struct clip *clip = service->clips; clip < end_of_clips; clip++) {
    int status;
    if (is_abandoned(clip) && kill(clip->process, SIGKILL) == 0 && waitpid(clip->process, &status, 0) > 0) {
      end(service, clip, status);
      return clip;
    }
  }
  return NULL;
}

static void begin(struct service *service, const struct vampd_decoder_request *request,
                  const int *descriptors) {
  struct clip *clip = find_place(service);
  pid_t process = clip ? hand_over(service, request, descriptors) : -EAGAIN;
  if (process < 0) {
    report(descriptors[VAMPD_REQUEST_PIPE], VAMPD_END_NOT_BEGUN, (int)-process);
  } else {
    *clip = (struct clip){.process = process,
                          .pipe = descriptors[VAMPD_REQUEST_PIPE],
                          .deadline = vampd_now() + request->wall_milliseconds * 1e-3};
    service->count++;
  }
  close(descriptors[VAMPD_REQUEST_CLIP]);
  close(descriptors[VAMPD_REQUEST_TRAY]);
}

/* The spare is dead without a clip: the next clip gets a new one. */
static void lose_spare(struct service *service) {
  service->spare = 0;
  if (service->spare_socket >= 0) {
    close(service->spare_socket);
    service->spare_socket = -1;
  }
}

/* Takes leave of the dead; where `wait`, of all. True where a clip was among them. */
static bool reap(struct service *service, bool wait) {
  int status, count = service->count;
  pid_t process;
  while ((process = waitpid(-1, &status, wait ? 0 : WNOHANG)) > 0) {
    if (process == service->spare) {
      lose_spare(service);
    }
    for (struct clip *clip = service->clips; clip < service->clips + VAMPD_DECODER_CLIPS; clip++) {
      if (clip->process == process) {
        end(service, clip, status);
        break;
      }
    }
  }
  return service->count < count;
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

/* Takes one request; false where there will be no more. */
static bool receive(struct service *service) {
  struct vampd_decoder_request request;
  int descriptors[VAMPD_REQUEST_DESCRIPTORS];
  int status = vampd_request_receive(VAMPD_DECODER_SOCKET, MSG_DONTWAIT, &request, descriptors,
                                     VAMPD_REQUEST_DESCRIPTORS);
  if (status > 0) {
    begin(service, &request, descriptors);
  }
  return status >= 0;
}

enum { CHILDREN, SOCKET, PIPES, SOURCES = PIPES + VAMPD_DECODER_CLIPS };

/* Waits for something to happen; what poll says, but an interruption is like nothing. */
static int wait_for_events(struct service *service, struct pollfd *sources, bool pause) {
  int timeout = watch_clock(service);
  sources[CHILDREN] = (struct pollfd){.fd = service->children, .events = POLLIN};
  sources[SOCKET] = (struct pollfd){.fd = VAMPD_DECODER_SOCKET, .events = POLLIN};
  for (int i = 0; i < VAMPD_DECODER_CLIPS; i++) {
    const struct clip *clip = &service->clips[i];
    sources[PIPES + i] = (struct pollfd){.fd = clip->process != 0 && !clip->dropped ? clip->pipe : -1};
  }
  int ready = poll(sources, SOURCES, pause && (timeout < 0 || timeout > PAUSE) ? PAUSE : timeout);
  if (ready < 0 && errno == EINTR) {
    memset(sources, 0, SOURCES * sizeof *sources);
    return 0;
  }
  return ready;
}

/* Ends what nobody waits for any more: a child has no business to outlive its answer. */
static void drop_abandoned(struct service *service, const struct pollfd *sources) {
  for (int i = 0; i < VAMPD_DECODER_CLIPS; i++) {
    if (sources[PIPES + i].revents & POLLERR) {
      kill(service->clips[i].process, SIGKILL);
      service->clips[i].dropped = true;
    }
  }
}

static void serve(struct service *service) {
  struct pollfd sources[SOURCES];
  bool open = true, make = true; /* a spare, when there is a pause */
  while (open) {
    int ready = wait_for_events(service, sources, make);
    if (ready < 0) {
      break;
    }
    if (ready == 0 && make) {
      make = false; /* where it fails, the next clip tries again, and says so */
      if (service->spare_socket < 0) {
        make_spare(service, true);
      }
    }
    drop_abandoned(service, sources);
    struct signalfd_siginfo signal;
    if (sources[CHILDREN].revents && read(service->children, &signal, sizeof signal) > 0) {
      make = reap(service, false) || make;
    }
    if (sources[SOCKET].revents) {
      open = receive(service);
    }
  }
  for (int i = 0; i < VAMPD_DECODER_CLIPS; i++) {
    if (service->clips[i].process != 0) {
      kill(service->clips[i].process, SIGKILL);
    }
  }
  if (service->spare != 0) {
    kill(service->spare, SIGKILL);
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
  struct service service = {.decode = decode, .own_memory = measure_memory(), .spare_socket = -1};
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
