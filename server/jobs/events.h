/*
 * What happens to one job, told to whoever listens: server-sent events (WHATWG HTML, "Server-sent events").
 *
 * Events have ascending numbers. Those of an attempt k to run the job are k * 100000 + 1 and up, and the last
 * one, by which the job is finished, is (attempts + 1) * 100000: so a listener that comes back, even to a
 * daemon that was started anew meanwhile, can be told what it has missed. Events tell a state and not a
 * change, so of those missed the latest says it all; they are kept nowhere.
 *
 * Not thread-safe: the owner's lock guards it (live.h).
 */
#ifndef VAMPD_EVENTS_H
#define VAMPD_EVENTS_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "vamp/error.h"

#define VAMPD_EVENTS_AN_ATTEMPT 100000

struct vampd_stream;
struct vampd_listener;

struct vampd_events {
  int64_t last; /* the number of the latest event; 0: none yet */
  struct vampd_listener *listeners;
};

/* The number of the event by which a job that was begun `attempts` times is finished. */
int64_t vampd_events_final(int attempts);

/* An attempt begins: numbers go on from there. */
void vampd_events_begin(struct vampd_events *events, int attempt);

/* Gives the next number to something that has happened. */
int64_t vampd_events_number(struct vampd_events *events);

/* Whether telling it would reach anybody. */
bool vampd_events_heard(const struct vampd_events *events);

/* Tells everybody. Takes the reference to `data`. Who reads too slowly misses it; where it is the `final`
 * event, their streams end, which tells them to ask again. */
void vampd_events_tell(struct vampd_events *events, int64_t number, const char *name, json_t *data,
                       bool final);

/* A line that keeps the connection from looking dead. Drops listeners that have gone. */
void vampd_events_keep_alive(struct vampd_events *events);

/* Takes over the writer's reference to the stream. */
int vampd_events_listen(struct vampd_events *events, struct vampd_stream *stream, struct vamp_error *error);

/* Ends all streams. */
void vampd_events_end(struct vampd_events *events);

/* One event on a stream alone. Takes the reference. False where it does not fit. */
bool vampd_event_write(struct vampd_stream *stream, int64_t number, const char *name, json_t *data);

#endif
