/*
 * Who may come in: a bound on the jobs in the house, and on the bytes of bodies and unsent answers held at
 * once.
 *
 * Any thread.
 */
#ifndef VAMPD_ADMISSION_H
#define VAMPD_ADMISSION_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>

#include "server/access/limits.h"

struct vampd_admission {
  pthread_mutex_t mutex;
  bool closed; /* the daemon is stopping */
  int jobs, max_jobs;
  size_t bytes, max_bytes;
  struct vampd_pace pace; /* at which jobs leave */
};

/* With limits of nothing, until vampd_admission_limit. */
void vampd_admission_init(struct vampd_admission *admission);
void vampd_admission_destroy(struct vampd_admission *admission);

/* Other limits from now on. Who is in already stays, also where they are fewer. */
void vampd_admission_limit(struct vampd_admission *admission, int max_jobs, size_t max_bytes);

enum vampd_entry { VAMPD_ENTERED, VAMPD_FULL, VAMPD_CLOSED };

/* Whether a job would be let in now; it takes no place. */
enum vampd_entry vampd_admission_look(struct vampd_admission *admission);
/* Takes a place, where there is one; to be given back by vampd_admission_leave. */
enum vampd_entry vampd_admission_enter(struct vampd_admission *admission);
void vampd_admission_leave(struct vampd_admission *admission);

/* Reserves memory for a body; false where all bodies together would be over the limit. */
bool vampd_admission_reserve(struct vampd_admission *admission, size_t bytes);
/* Counts bytes that are there already, an answer that waits for its reader: while those are many, no more
 * bodies are let in. */
void vampd_admission_charge(struct vampd_admission *admission, size_t bytes);
void vampd_admission_return(struct vampd_admission *admission, size_t bytes);

/* From now on nobody is let in. */
void vampd_admission_close(struct vampd_admission *admission);
bool vampd_admission_closed(struct vampd_admission *admission);
int vampd_admission_jobs(struct vampd_admission *admission);

/* Whole seconds after which a client that found the queue full should ask again: until all that are before it
 * now will have left, at the pace at which the last ones did. 1 .. VAMPD_RETRY_MAX. */
int vampd_admission_retry_after(struct vampd_admission *admission);

#endif
