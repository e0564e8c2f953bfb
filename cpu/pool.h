/*
 * The CPU backend's threads: one loop at a time, dealt item by item.
 *
 * Why not OpenMP: its threads spin at every barrier, which on a machine shared with anything else costs
 * several times the work (docs/performance.md), the spinning can only be turned off from outside the
 * process, and ThreadSanitizer does not understand it. Here a thread that is late is not waited for:
 * whoever is awake does the work.
 */
#ifndef CPU_POOL_H
#define CPU_POOL_H

#include <stdint.h>

#include "vamp/error.h"

struct cpu_pool;

/* `threads` in all, the caller's included. */
int cpu_pool_open(int threads, struct cpu_pool **pool, struct vamp_error *error);
void cpu_pool_close(struct cpu_pool *pool); /* NULL is fine */

/* One item of a loop; thread is 0 .. threads-1, and no two items run on one thread at once. Returns 0 or
 * a negative vamp_status. */
typedef int cpu_pool_body(void *context, int64_t item, int thread);

/* Runs the body for items 0 .. items-1, handed out in order, and returns when all are done: 0, or the
 * status of an item that failed (the rest may then not have run). One caller at a time. */
int cpu_pool_run(struct cpu_pool *pool, int64_t items, cpu_pool_body *body, void *context);

#endif
