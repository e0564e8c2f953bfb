/*
 * The watch: see watch.h.
 *
 * Every TURN it walks the list under its lock and polls the sockets of those that wait, without blocking:
 * with a few hundred connections that is some microseconds, so there is nothing to gain from an epoll set
 * of its own.
 *
 * A client that closes only its sending half (shutdown(SHUT_WR)) counts as gone, as in other servers: it
 * cannot be told from one that has vanished.
 */
#include "server/http/watch.h"

#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <time.h>

#include "server/log.h"

#define TURN_NANOSECONDS 50000000 /* 50 ms */

struct vampd_peer {
  struct vampd_peer *next, **from;
  int socket;
  double deadline; /* on vampd_now's clock; 0: none */
  bool receiving;  /* a body */
  void *waiting;
};

struct vampd_watch {
  pthread_mutex_t mutex;
  pthread_t thread;
  bool stop;
  struct vampd_peer *peers;
  void (*gone)(void *waiting);
};

static bool has_hung_up(const struct vampd_peer *peer) {
  struct pollfd poller = {.fd = peer->socket, .events = POLLRDHUP};
  return poll(&poller, 1, 0) == 1 && (poller.revents & (POLLRDHUP | POLLHUP | POLLERR)) != 0;
}

/* Hung up in the middle of a body: nothing more will come, and nothing is left to be read. */
static bool is_cut_off(const struct vampd_peer *peer) {
  int unread = 0;
  return has_hung_up(peer) && ioctl(peer->socket, FIONREAD, &unread) == 0 && unread == 0;
}

static void look(struct vampd_watch *watch) {
  double now = vampd_now();
  for (struct vampd_peer *peer = watch->peers; peer; peer = peer->next) {
    bool late = peer->deadline > 0 && now > peer->deadline;
    if (late || (peer->receiving && is_cut_off(peer))) {
      peer->deadline = 0;
      peer->receiving = false;
      shutdown(peer->socket, SHUT_RDWR);
    }
    if (peer->waiting && has_hung_up(peer)) {
      void *waiting = peer->waiting;
      peer->waiting = NULL;
      watch->gone(waiting);
    }
  }
}

static void *run(void *argument) {
  struct vampd_watch *watch = argument;
  struct timespec turn = {.tv_nsec = TURN_NANOSECONDS};
  pthread_mutex_lock(&watch->mutex);
  while (!watch->stop) {
    look(watch);
    pthread_mutex_unlock(&watch->mutex);
    nanosleep(&turn, NULL);
    pthread_mutex_lock(&watch->mutex);
  }
  pthread_mutex_unlock(&watch->mutex);
  return NULL;
}

int vampd_watch_create(void (*gone)(void *waiting), struct vampd_watch **watch, struct vamp_error *error) {
  struct vampd_watch *made = calloc(1, sizeof *made);
  if (!made) {
    return vamp_fail(error, VAMP_MEMORY, "Out of memory while starting the watch.");
  }
  made->gone = gone;
  pthread_mutex_init(&made->mutex, NULL);
  if (pthread_create(&made->thread, NULL, run, made) != 0) {
    pthread_mutex_destroy(&made->mutex);
    free(made);
    return vamp_fail(error, VAMP_MEMORY, "The system refused a thread for the watch.");
  }
  *watch = made;
  return VAMP_OK;
}

void vampd_watch_free(struct vampd_watch *watch) {
  if (!watch) {
    return;
  }
  vampd_watch_lock(watch);
  watch->stop = true;
  vampd_watch_unlock(watch);
  pthread_join(watch->thread, NULL);
  pthread_mutex_destroy(&watch->mutex);
  free(watch);
}

struct vampd_peer *vampd_watch_add(struct vampd_watch *watch, int socket) {
  struct vampd_peer *peer = calloc(1, sizeof *peer);
  if (!peer) {
    return NULL;
  }
  peer->socket = socket;
  vampd_watch_lock(watch);
  peer->next = watch->peers;
  peer->from = &watch->peers;
  if (peer->next) {
    peer->next->from = &peer->next;
  }
  watch->peers = peer;
  vampd_watch_unlock(watch);
  return peer;
}

void vampd_watch_remove(struct vampd_watch *watch, struct vampd_peer *peer) {
  vampd_watch_lock(watch);
  *peer->from = peer->next;
  if (peer->next) {
    peer->next->from = peer->from;
  }
  vampd_watch_unlock(watch);
  free(peer);
}

void vampd_watch_deadline(struct vampd_watch *watch, struct vampd_peer *peer, double seconds) {
  vampd_watch_lock(watch);
  peer->deadline = seconds > 0 ? vampd_now() + seconds : 0;
  peer->receiving = false;
  vampd_watch_unlock(watch);
}

void vampd_watch_receive(struct vampd_watch *watch, struct vampd_peer *peer, double seconds, bool has_body) {
  vampd_watch_lock(watch);
  peer->deadline = seconds > 0 ? vampd_now() + seconds : 0;
  peer->receiving = has_body;
  vampd_watch_unlock(watch);
}

void vampd_watch_wait(struct vampd_watch *watch, struct vampd_peer *peer, void *waiting) {
  vampd_watch_lock(watch);
  peer->waiting = waiting;
  peer->deadline = 0;
  peer->receiving = false;
  vampd_watch_unlock(watch);
}

void vampd_watch_each(struct vampd_watch *watch, void (*each)(void *waiting)) {
  vampd_watch_lock(watch);
  for (struct vampd_peer *peer = watch->peers; peer; peer = peer->next) {
    if (peer->waiting) {
      each(peer->waiting);
    }
  }
  vampd_watch_unlock(watch);
}

void vampd_watch_lock(struct vampd_watch *watch) {
  pthread_mutex_lock(&watch->mutex);
}

void vampd_watch_unlock(struct vampd_watch *watch) {
  pthread_mutex_unlock(&watch->mutex);
}
