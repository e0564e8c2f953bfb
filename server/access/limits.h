/*
 * What a caller has used of what it may use.
 *
 * Requests and audio are leaky buckets: a level that drains evenly, at limit / period, and may not rise above
 * the limit. After an idle minute (hour) the whole limit can be used at once; over a long time no more than
 * the limit in each. Two numbers a bucket, where a sliding window would need a list of all that happened.
 *
 * Jobs are counted. When one of them will be finished is guessed from the pace at which the last ones were
 * (struct vampd_pace), which is also how the queue knows what to put into Retry-After.
 *
 * No clock and no lock here: `now` is in seconds on vampd_now's clock, and the caller sees to it that one
 * thread at a time is inside.
 */
#ifndef VAMPD_LIMITS_H
#define VAMPD_LIMITS_H

#include <stdbool.h>

#include "server/access/keys.h"

#define VAMPD_RETRY_MAX 3600 /* seconds, of any Retry-After */

/* How fast jobs leave, by the clock, while there are some. The last thirty or so count. */
struct vampd_pace {
  double seconds, departures; /* both fade alike */
  double since;               /* the last departure, or when the house filled again */
};

struct vampd_usage {
  double requests, requests_at; /* the bucket's level, and when it was that */
  double audio, audio_at;
  int jobs;
  struct vampd_pace pace;
};

void vampd_pace_enter(struct vampd_pace *pace, int jobs_before, double now);
void vampd_pace_leave(struct vampd_pace *pace, int count, double now);

/* Seconds until `jobs` have left, at the pace measured; a second each where nothing was measured yet. Grows
 * while none leaves. */
double vampd_pace_estimate(const struct vampd_pace *pace, int jobs, double now);

/* Rounds up to whole seconds, 1 .. VAMPD_RETRY_MAX. */
int vampd_retry_after(double seconds);

/* Each of these takes all it is asked for, or nothing; then *wait is the number of seconds until it would be
 * there, HUGE_VAL where it never will. */
bool vampd_limits_request(const struct vampd_allowance *allowance, struct vampd_usage *usage, double now,
                          double *wait);
bool vampd_limits_audio(const struct vampd_allowance *allowance, struct vampd_usage *usage, double seconds,
                        double now, double *wait);
bool vampd_limits_jobs(const struct vampd_allowance *allowance, struct vampd_usage *usage, int count,
                       double now, double *wait);

/* Gives back what vampd_limits_audio took. */
void vampd_limits_return_audio(struct vampd_usage *usage, double seconds);

#endif
