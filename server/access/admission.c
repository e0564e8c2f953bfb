/* Admission: see admission.h. */
#include "server/access/admission.h"

#include "server/log.h"

void vampd_admission_init(struct vampd_admission *admission) {
  *admission = (struct vampd_admission){.jobs = 0};
  pthread_mutex_init(&admission->mutex, NULL);
}

void vampd_admission_limit(struct vampd_admission *admission, int max_jobs, size_t max_bytes) {
  pthread_mutex_lock(&admission->mutex);
  admission->max_jobs = max_jobs;
  admission->max_bytes = max_bytes;
  pthread_mutex_unlock(&admission->mutex);
}

void vampd_admission_destroy(struct vampd_admission *admission) {
  pthread_mutex_destroy(&admission->mutex);
}

static enum vampd_entry state_of(const struct vampd_admission *admission) {
  if (admission->closed) {
    return VAMPD_CLOSED;
  }
  return admission->jobs < admission->max_jobs ? VAMPD_ENTERED : VAMPD_FULL;
}

enum vampd_entry vampd_admission_look(struct vampd_admission *admission) {
  pthread_mutex_lock(&admission->mutex);
  enum vampd_entry entry = state_of(admission);
  pthread_mutex_unlock(&admission->mutex);
  return entry;
}

enum vampd_entry vampd_admission_enter(struct vampd_admission *admission) {
  pthread_mutex_lock(&admission->mutex);
  enum vampd_entry entry = state_of(admission);
  if (entry == VAMPD_ENTERED) {
    vampd_pace_enter(&admission->pace, admission->jobs++, vampd_now());
  }
  pthread_mutex_unlock(&admission->mutex);
  return entry;
}

void vampd_admission_leave(struct vampd_admission *admission) {
  pthread_mutex_lock(&admission->mutex);
  admission->jobs--;
  vampd_pace_leave(&admission->pace, 1, vampd_now());
  pthread_mutex_unlock(&admission->mutex);
}

bool vampd_admission_reserve(struct vampd_admission *admission, size_t bytes) {
  pthread_mutex_lock(&admission->mutex);
  bool fits = admission->bytes <= admission->max_bytes && bytes <= admission->max_bytes - admission->bytes;
  admission->bytes += fits ? bytes : 0;
  pthread_mutex_unlock(&admission->mutex);
  return fits;
}

void vampd_admission_charge(struct vampd_admission *admission, size_t bytes) {
  pthread_mutex_lock(&admission->mutex);
  admission->bytes += bytes;
  pthread_mutex_unlock(&admission->mutex);
}

void vampd_admission_return(struct vampd_admission *admission, size_t bytes) {
  pthread_mutex_lock(&admission->mutex);
  admission->bytes -= bytes;
  pthread_mutex_unlock(&admission->mutex);
}

void vampd_admission_close(struct vampd_admission *admission) {
  pthread_mutex_lock(&admission->mutex);
  admission->closed = true;
  pthread_mutex_unlock(&admission->mutex);
}

bool vampd_admission_closed(struct vampd_admission *admission) {
  return vampd_admission_look(admission) == VAMPD_CLOSED;
}

int vampd_admission_jobs(struct vampd_admission *admission) {
  pthread_mutex_lock(&admission->mutex);
  int jobs = admission->jobs;
  pthread_mutex_unlock(&admission->mutex);
  return jobs;
}

int vampd_admission_retry_after(struct vampd_admission *admission) {
  pthread_mutex_lock(&admission->mutex);
  double seconds = vampd_pace_estimate(&admission->pace, admission->jobs, vampd_now());
  pthread_mutex_unlock(&admission->mutex);
  return vampd_retry_after(seconds);
}
