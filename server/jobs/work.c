/* The worker pool: see work.h. Two lists, a mutex, a condition: the tasks take milliseconds, so anything
 * finer than one lock would be of no use. */
#include "server/jobs/work.h"

#include <pthread.h>
#include <stdlib.h>

struct list {
  struct vampd_task *first, **last;
};

struct vampd_work {
  pthread_mutex_t mutex;
  pthread_cond_t changed;
  struct list urgent, normal;
  int pending; /* normal tasks, queued or running */
  bool stop;
  int thread_count;
  pthread_t threads[];
};

static void append(struct list *list, struct vampd_task *task) {
  task->next = NULL;
  *list->last = task;
  list->last = &task->next;
}

static struct vampd_task *take(struct list *list) {
  struct vampd_task *task = list->first;
  if (task) {
    list->first = task->next;
    list->last = list->first ? list->last : &list->first;
  }
  return task;
}

static void *run(void *argument) {
  struct vampd_work *work = argument;
  pthread_mutex_lock(&work->mutex);
  for (;;) {
    struct vampd_task *task = take(&work->urgent);
    bool normal = task == NULL;
    if (normal) {
      task = take(&work->normal);
    }
    if (!task && work->stop) {
      break;
    }
    if (!task) {
      pthread_cond_wait(&work->changed, &work->mutex);
      continue;
    }
    pthread_mutex_unlock(&work->mutex);
    task->run(task);
    pthread_mutex_lock(&work->mutex);
    work->pending -= normal;
  }
  pthread_mutex_unlock(&work->mutex);
  return NULL;
}

int vampd_work_create(int threads, struct vampd_work **work, struct vamp_error *error) {
  struct vampd_work *made = calloc(1, sizeof *made + (size_t)threads * sizeof made->threads[0]);
  if (!made) {
    return vamp_fail(error, VAMP_MEMORY, "Out of memory while starting %d workers.", threads);
  }
  made->urgent.last = &made->urgent.first;
  made->normal.last = &made->normal.first;
  pthread_mutex_init(&made->mutex, NULL);
  pthread_cond_init(&made->changed, NULL);
  for (; made->thread_count < threads; made->thread_count++) {
    if (pthread_create(&made->threads[made->thread_count], NULL, run, made) != 0) {
      int failed = made->thread_count + 1;
      vampd_work_free(made);
      return vamp_fail(error, VAMP_MEMORY, "The system refused a thread for worker %d; try --workers 1.",
                       failed);
    }
  }
  *work = made;
  return VAMP_OK;
}

void vampd_work_push(struct vampd_work *work, struct vampd_task *task, bool urgent) {
  pthread_mutex_lock(&work->mutex);
  append(urgent ? &work->urgent : &work->normal, task);
  work->pending += !urgent;
  pthread_cond_signal(&work->changed);
  pthread_mutex_unlock(&work->mutex);
}

int vampd_work_pending(struct vampd_work *work) {
  pthread_mutex_lock(&work->mutex);
  int pending = work->pending;
  pthread_mutex_unlock(&work->mutex);
  return pending;
}

void vampd_work_free(struct vampd_work *work) {
  if (!work) {
    return;
  }
  pthread_mutex_lock(&work->mutex);
  work->stop = true;
  pthread_cond_broadcast(&work->changed);
  pthread_mutex_unlock(&work->mutex);
  for (int i = 0; i < work->thread_count; i++) {
    pthread_join(work->threads[i], NULL);
  }
  pthread_cond_destroy(&work->changed);
  pthread_mutex_destroy(&work->mutex);
  free(work);
}
