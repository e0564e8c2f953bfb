/*
 * The watch: a thread that looks after connections where libmicrohttpd does not.
 *
 * libmicrohttpd times out a connection that is silent, but not one that sends a byte every few seconds; and
 * while a connection is suspended it does not look at it at all, so a client that hangs up would have its job
 * run for nobody. Nor does it notice (0.9.75, with epoll) a client that hangs up right behind half a body.
 * The watch knows every connection: it ends those past their deadline, and reports those that wait for an
 * answer and whose client is gone.
 *
 * It never closes a socket: shutdown() makes libmicrohttpd see the end and close it. Peers are removed,
 * under the lock, before libmicrohttpd closes their socket, so a number is never another's.
 */
#ifndef VAMPD_WATCH_H
#define VAMPD_WATCH_H

#include <stdbool.h>

#include "vamp/error.h"

struct vampd_watch;
struct vampd_peer; /* one connection */

/* `gone` is called under the watch's lock, on its thread, at most once a wait. */
int vampd_watch_create(void (*gone)(void *waiting), struct vampd_watch **watch, struct vamp_error *error);
void vampd_watch_free(struct vampd_watch *watch); /* NULL is fine; no peer may be left */

/* Any thread. NULL when out of memory. */
struct vampd_peer *vampd_watch_add(struct vampd_watch *watch, int socket);
void vampd_watch_remove(struct vampd_watch *watch, struct vampd_peer *peer);

/* The connection is shut down `seconds` from now; 0: never. */
void vampd_watch_deadline(struct vampd_watch *watch, struct vampd_peer *peer, double seconds);

/* The same while a request is received; where it `has_body`, also once the client has hung up and all it
 * sent is read. */
void vampd_watch_receive(struct vampd_watch *watch, struct vampd_peer *peer, double seconds, bool has_body);

/* From now on `waiting` is handed to `gone` if the client hangs up; NULL ends the wait. Also ends
 * vampd_watch_receive. */
void vampd_watch_wait(struct vampd_watch *watch, struct vampd_peer *peer, void *waiting);

/* Calls `each` for everything that is waiting, under the lock. */
void vampd_watch_each(struct vampd_watch *watch, void (*each)(void *waiting));

/* The lock itself, for what must not happen while `gone` or `each` runs. */
void vampd_watch_lock(struct vampd_watch *watch);
void vampd_watch_unlock(struct vampd_watch *watch);

#endif
