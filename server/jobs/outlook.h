/*
 * What can be expected of the jobs that are not finished: which place in the queue they have, and how much
 * work is left until they are done. live.h is what becomes of them.
 */
#ifndef VAMPD_OUTLOOK_H
#define VAMPD_OUTLOOK_H

#include <jansson.h>

#include "server/jobs/live.h"

/* State as an event's data; new reference. `rate`: a device's work a second, 0 where unknown. Under the
 * house's lock.
 */
json_t *vampd_live_state_json(const struct vampd_live *live, double rate);

/* ---- takes the lock ------------------------------------------------------------------------------------ */

/* What an answer says of a live job. */
struct vampd_live_facts {
  enum vampd_phase phase;
  float progress;
  int place;        /* jobs that are before it in the queue; -1 where it is not queued */
  double remaining; /* work of one device until it is done, its own and what goes before it */
};
bool vampd_house_facts(struct vampd_house *house, const char *id, struct vampd_live_facts *facts);

/* What can be said of a sweep without a look at each of its jobs. */
struct vampd_sweep_facts {
  int running;
  double progress;  /* of those, added up */
  double remaining; /* as above, until its last job is done; 0 where none is in the house */
};
/* `last`: of those of its jobs that are not finished the one that was accepted last; "" where there is none.
 */
struct vampd_sweep_facts vampd_house_sweep(struct vampd_house *house, const char *sweep, const char *last);

/* Work of everything that is in the house. */
double vampd_house_work(struct vampd_house *house);

#endif
