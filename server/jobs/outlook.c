/*
 * What can be expected of the jobs that are not finished: see outlook.h.
 *
 * Everything here looks and changes nothing. A place is exact where somebody waits for it, near the head, and
 * an estimate further back; times follow from the work that is left, which is counted in frames of one coarse
 * step (vamp_job_cost), and from the rate at which a device has done such work.
 */
#include "server/jobs/outlook.h"

#include <string.h>

#include "server/jobs/house.h"

/* How many of its own queue are before a job, and their work. Exact near the head; further back, where nobody
 * can tell and the walk would be long, from the order of acceptance. */
static int ahead_of(const struct vampd_live *live, double *work) {
  const struct vampd_queue *queue = live->queue;
  const struct vampd_live *at = queue->first;
  int ahead = 0;
  *work = 0;
  for (; at && at != live && ahead < VAMPD_HOUSE_LOOK_AHEAD; at = at->next_in_queue) {
    ahead++;
    *work += at->cost;
  }
  if (at == live) {
    return ahead;
  }
  int64_t accepted = live->number - queue->first->number;
  ahead = accepted > ahead && accepted < queue->waiting ? (int)accepted : queue->waiting - 1;
  *work = queue->waiting_cost * ahead / queue->waiting;
  return ahead;
}

/* Of the jobs that wait, how many go before: those of its own queue, whose work is *work, and of each other
 * queue as many. -1 where it does not wait. */
static int place_of(const struct vampd_live *live, double *work) {
  *work = 0;
  if (live->taken) {
    return -1;
  }
  int ahead = ahead_of(live, work), place = ahead;
  for (const struct vampd_queue *queue = live->house->queues; queue; queue = queue->next) {
    if (queue != live->queue) {
      place += queue->waiting < ahead ? queue->waiting : ahead;
    }
  }
  return place;
}

/* Jobs in the loop share the device, so one is done when about all that are as far as it are done. Several
 * devices share the others' work, but not its own. `before`: the work of those that wait before it. */
static double remaining_work(const struct vampd_live *live, double before) {
  const struct vampd_house *house = live->house;
  double own = live->cost * (1 - (double)live->progress), others = 0;
  for (const struct vampd_live *at = house->running; at; at = at->next_running) {
    double left = at->cost * (1 - (double)at->progress);
    others += at == live ? 0 : live->taken && left > own ? own : left;
  }
  return own + (others + before) / (house->limits.devices > 1 ? house->limits.devices : 1);
}

json_t *vampd_live_state_json(const struct vampd_live *live, double rate) {
  json_t *data =
      json_pack("{s:s, s:f}", "state", vampd_phase_name(live->phase), "progress", (double)live->progress);
  double before;
  int place = place_of(live, &before);
  if (place >= 0) {
    json_object_set_new(data, "place", json_integer(place));
  }
  if (rate > 0) {
    json_object_set_new(data, "estimate_seconds", json_real(remaining_work(live, before) / rate));
  }
  if (live->steps > 0) {
    json_object_set_new(data, "step", json_integer(live->step));
    json_object_set_new(data, "steps", json_integer(live->steps));
    json_object_set_new(data, "committed", json_real((double)live->committed));
  }
  return data;
}

bool vampd_house_facts(struct vampd_house *house, const char *id, struct vampd_live_facts *facts) {
  vampd_house_lock(house);
  const struct vampd_live *live = vampd_house_find(house, id);
  if (live) {
    double before;
    *facts = (struct vampd_live_facts){.phase = live->phase, .progress = live->progress};
    facts->place = place_of(live, &before);
    facts->remaining = remaining_work(live, before);
  }
  vampd_house_unlock(house);
  return live != NULL;
}

struct vampd_sweep_facts vampd_house_sweep(struct vampd_house *house, const char *sweep, const char *last) {
  struct vampd_sweep_facts facts = {0};
  const struct vampd_live *slowest = NULL;
  double left = 0, before;
  vampd_house_lock(house);
  for (const struct vampd_live *at = house->running; at; at = at->next_running) {
    if (at->phase != VAMPD_PHASE_QUEUED && strcmp(at->sweep, sweep) == 0) {
      double own = at->cost * (1 - (double)at->progress);
      facts.running++;
      facts.progress += (double)at->progress;
      slowest = own >= left ? at : slowest;
      left = own >= left ? own : left;
    }
  }
  const struct vampd_live *waits = last[0] ? vampd_house_find(house, last) : NULL;
  if (waits && !waits->taken) {
    place_of(waits, &before);
    facts.remaining = remaining_work(waits, before);
  } else if (slowest) {
    facts.remaining = remaining_work(slowest, 0);
  }
  vampd_house_unlock(house);
  return facts;
}

double vampd_house_work(struct vampd_house *house) {
  double work = 0;
  vampd_house_lock(house);
  for (const struct vampd_live *at = house->running; at; at = at->next_running) {
    work += at->cost * (1 - (double)at->progress);
  }
  for (const struct vampd_queue *queue = house->queues; queue; queue = queue->next) {
    work += queue->waiting_cost;
  }
  vampd_house_unlock(house);
  return work;
}
