/*
 * See pool.h. A loop is published under the mutex with a new generation number; threads that wake while
 * it is open join it and take items from a shared counter; the caller works too, closes the loop when
 * the counter has run out, and waits only for those that joined. Both waits spin for some tens of
 * microseconds first, about the time between two operations of a small model, and sleep after that.
 */
#include "cpu/pool.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>

enum { SPINS = 2000 }; /* of some 20 ns each */

struct cpu_pool {
  int threads; /* the caller's included */
  int started; /* threads - 1 once open */
  pthread_t *ids;

  pthread_mutex_t lock;
  pthread_cond_t work, done;
  atomic_uint generation; /* written under the lock */
  bool open, quit;        /* under the lock */
  atomic_int running;     /* joined and not finished; written under the lock */

  /* the loop */
  int64_t items;
  cpu_pool_body *body;
  void *context;
  atomic_llong next;
  atomic_int status;
};

struct start {
  struct cpu_pool *pool;
  int thread;
};

static void pause_briefly(void) {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#else
  atomic_signal_fence(memory_order_seq_cst);
#endif
}

static void work_through(struct cpu_pool *pool, int thread) {
  int64_t item;
  while ((item = atomic_fetch_add(&pool->next, 1)) < pool->items) {
    int status = pool->body(pool->context, item, thread);
    if (status) {
      atomic_store(&pool->status, status);
      atomic_store(&pool->next, pool->items);
    }
  }
}

/* Waits for a loop later than `seen` and joins it; false: time to quit. */
static bool join_loop(struct cpu_pool *pool, unsigned *seen) {
  for (int i = 0; i < SPINS && atomic_load(&pool->generation) == *seen; i++) {
    pause_briefly();
  }
  pthread_mutex_lock(&pool->lock);
  while (!pool->quit && !(pool->open && atomic_load(&pool->generation) != *seen)) {
    pthread_cond_wait(&pool->work, &pool->lock);
  }
  bool joined = !pool->quit;
  if (joined) {
    *seen = atomic_load(&pool->generation);
    atomic_fetch_add(&pool->running, 1);
  }
  pthread_mutex_unlock(&pool->lock);
  return joined;
}

static void *thread_main(void *argument) {
  struct start start = *(struct start *)argument;
  struct cpu_pool *pool = start.pool;
  unsigned seen = 0;
  free(argument);
  while (join_loop(pool, &seen)) {
    work_through(pool, start.thread);
    pthread_mutex_lock(&pool->lock);
    if (atomic_fetch_sub(&pool->running, 1) == 1) {
      pthread_cond_signal(&pool->done);
    }
    pthread_mutex_unlock(&pool->lock);
  }
  return NULL;
}

int cpu_pool_run(struct cpu_pool *pool, int64_t items, cpu_pool_body *body, void *context) {
  if (pool->threads == 1 || items <= 1) {
    int status = 0;
    for (int64_t item = 0; item < items && !status; item++) {
      status = body(context, item, 0);
    }
    return status;
  }
  pthread_mutex_lock(&pool->lock);
  pool->items = items;
  pool->body = body;
  pool->context = context;
  atomic_store(&pool->next, 0);
  atomic_store(&pool->status, 0);
  pool->open = true;
  atomic_fetch_add(&pool->generation, 1);
  pthread_cond_broadcast(&pool->work);
  pthread_mutex_unlock(&pool->lock);

  work_through(pool, 0);

  pthread_mutex_lock(&pool->lock);
  pool->open = false;
  pthread_mutex_unlock(&pool->lock);
  for (int i = 0; i < SPINS && atomic_load(&pool->running) > 0; i++) {
    pause_briefly();
  }
  pthread_mutex_lock(&pool->lock);
  while (atomic_load(&pool->running) > 0) {
    pthread_cond_wait(&pool->done, &pool->lock);
  }
  pthread_mutex_unlock(&pool->lock);
  return atomic_load(&pool->status);
}

int cpu_pool_open(int threads, struct cpu_pool **out, struct vamp_error *error) {
  struct cpu_pool *pool = calloc(1, sizeof *pool);
  if (!pool) {
    return vamp_fail(error, VAMP_MEMORY, "out of memory");
  }
  pool->threads = threads;
  pthread_mutex_init(&pool->lock, NULL);
  pthread_cond_init(&pool->work, NULL);
  pthread_cond_init(&pool->done, NULL);
  pool->ids = calloc((size_t)threads, sizeof *pool->ids);
  for (int t = 1; pool->ids && t < threads; t++) {
    struct start *start = malloc(sizeof *start);
    if (start) {
      *start = (struct start){pool, t};
    }
    if (!start || pthread_create(&pool->ids[pool->started], NULL, thread_main, start)) {
      free(start);
      break;
    }
    pool->started++;
  }
  if (pool->started != threads - 1) {
    cpu_pool_close(pool);
    return vamp_fail(error, VAMP_MEMORY, "could not start %d threads", threads);
  }
  *out = pool;
  return 0;
}

void cpu_pool_close(struct cpu_pool *pool) {
  if (!pool) {
    return;
  }
  pthread_mutex_lock(&pool->lock);
  pool->quit = true;
  pthread_cond_broadcast(&pool->work);
  pthread_mutex_unlock(&pool->lock);
  for (int t = 0; t < pool->started; t++) {
    pthread_join(pool->ids[t], NULL);
  }
  free(pool->ids);
  pthread_cond_destroy(&pool->done);
  pthread_cond_destroy(&pool->work);
  pthread_mutex_destroy(&pool->lock);
  free(pool);
}
