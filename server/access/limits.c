/* What a caller has used: see limits.h. */
#include "server/access/limits.h"

#include <math.h>

#define FADE (1.0 - 1.0 / 32) /* of the pace, a departure */
#define FIRST_GUESS 0.25      /* seconds a job, counted as one departure, until some were seen */

/* ---- pace ------------------------------------------------------------------------------------------------
 */

void vampd_pace_enter(struct vampd_pace *pace, int jobs_before, double now) {
  if (jobs_before == 0) {
    pace->since = now;
  }
}

void vampd_pace_leave(struct vampd_pace *pace, int count, double now) {
  double elapsed = now > pace->since ? now - pace->since : 0;
  for (int i = 0; i < count && i < 256; i++) {
    pace->seconds = pace->seconds * FADE + (i == 0 ? elapsed : 0);
    pace->departures = pace->departures * FADE + 1;
  }
  pace->since = now;
}

double vampd_pace_estimate(const struct vampd_pace *pace, int jobs, double now) {
  if (jobs <= 0) {
    return 0;
  }
  bool known = pace->departures > 0;
  double seconds = known ? pace->seconds : FIRST_GUESS, departures = known ? pace->departures : 1;
  /* What has been waited for in vain since the last departure counts as soon as it makes things worse. */
  double idle = now > pace->since ? now - pace->since : 0;
  double each = seconds / departures, late = (seconds + idle) / (departures + 1);
  return jobs * (late > each ? late : each);
}

int vampd_retry_after(double seconds) {
  return seconds <= 1 ? 1 : seconds >= VAMPD_RETRY_MAX ? VAMPD_RETRY_MAX : (int)ceil(seconds);
}

/* ---- buckets ---------------------------------------------------------------------------------------------
 */

/* Takes `amount` out of a bucket of `limit`, which drains within `period` seconds. */
static bool take(double *level, double *at, double limit, double period, double amount, double now,
                 double *wait) {
  double drained = (now - *at) * limit / period;
  double left = drained > 0 && *level > drained ? *level - drained : drained > 0 ? 0 : *level;
  *level = left;
  *at = now;
  if (amount > limit) {
    *wait = HUGE_VAL;
    return false;
  }
  /* A millionth of slack, so that who waits as long as it was told is let in. */
  if (left + amount > limit * (1 + 1e-6)) {
    *wait = (left + amount - limit) * period / limit;
    return false;
  }
  *level = left + amount;
  return true;
}

bool vampd_limits_request(const struct vampd_allowance *allowance, struct vampd_usage *usage, double now,
                          double *wait) {
  return allowance->requests_per_minute == 0 ||
         take(&usage->requests, &usage->requests_at, allowance->requests_per_minute, 60, 1, now, wait);
}

bool vampd_limits_audio(const struct vampd_allowance *allowance, struct vampd_usage *usage, double seconds,
                        double now, double *wait) {
  return allowance->audio_seconds_per_hour == 0 ||
         take(&usage->audio, &usage->audio_at, allowance->audio_seconds_per_hour, 3600, seconds, now, wait);
}

void vampd_limits_return_audio(struct vampd_usage *usage, double seconds) {
  usage->audio = usage->audio > seconds ? usage->audio - seconds : 0;
}

bool vampd_limits_jobs(const struct vampd_allowance *allowance, struct vampd_usage *usage, int count,
                       double now, double *wait) {
  if (allowance->jobs > 0 && count > allowance->jobs) {
    *wait = HUGE_VAL;
    return false;
  }
  if (allowance->jobs > 0 && usage->jobs > allowance->jobs - count) {
    *wait = vampd_pace_estimate(&usage->pace, usage->jobs + count - allowance->jobs, now);
    return false;
  }
  vampd_pace_enter(&usage->pace, usage->jobs, now);
  usage->jobs += count;
  return true;
}
