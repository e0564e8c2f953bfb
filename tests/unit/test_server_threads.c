/*
 * The daemon's threads: the worker pool, and the watch over connections (on socket pairs).
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "server/http/watch.h"
#include "server/jobs/work.h"
#include "server/log.h"

#define PATIENCE 10.0 /* seconds, for a loaded machine */

static void nap(void) {
  struct timespec turn = {.tv_nsec = 5000000};
  nanosleep(&turn, NULL);
}

/* ---- workers ---------------------------------------------------------------------------------------------
 */

struct numbered {
  struct vampd_task task; /* first member: the task is the number */
  int number;
};

static atomic_bool gate;
static atomic_int order[16], ordered;

static void record(struct vampd_task *task) {
  order[ordered++] = ((struct numbered *)task)->number;
}

static void hold(struct vampd_task *task) {
  (void)task;
  while (!gate) {
    nap();
  }
}

static void test_urgent_goes_first(void **state) {
  (void)state;
  struct vampd_work *work;
  struct vamp_error error;
  struct numbered holder = {.task.run = hold}, tasks[6];
  gate = false;
  ordered = 0;
  assert_int_equal(vampd_work_create(1, &work, &error), VAMP_OK);
  vampd_work_push(work, &holder.task, false);
  for (int i = 0; i < 6; i++) {
    tasks[i] = (struct numbered){.task.run = record, .number = i};
    vampd_work_push(work, &tasks[i].task, i % 2 == 1);
  }
  assert_int_equal(vampd_work_pending(work), 4);
  gate = true;
  vampd_work_free(work); /* runs what is queued */
  static const int EXPECTED[] = {1, 3, 5, 0, 2, 4};
  assert_int_equal(ordered, 6);
  for (int i = 0; i < 6; i++) {
    assert_int_equal(order[i], EXPECTED[i]);
  }
}

static atomic_int done;

static void count(struct vampd_task *task) {
  (void)task;
  done++;
}

static void test_every_task_runs_once(void **state) {
  (void)state;
  enum { TASKS = 2000 };
  static struct vampd_task tasks[TASKS];
  struct vampd_work *work;
  struct vamp_error error;
  done = 0;
  assert_int_equal(vampd_work_create(4, &work, &error), VAMP_OK);
  for (int i = 0; i < TASKS; i++) {
    tasks[i] = (struct vampd_task){.run = count};
    vampd_work_push(work, &tasks[i], i % 3 == 0);
  }
  vampd_work_free(work);
  assert_int_equal(done, TASKS);
  vampd_work_free(NULL);
}

/* ---- the watch -------------------------------------------------------------------------------------------
 */

static atomic_int gone_count;
static void *_Atomic gone_last;

static void gone(void *waiting) {
  gone_last = waiting;
  gone_count++;
}

struct scene {
  struct vampd_watch *watch;
  struct vampd_peer *peer;
  int client, server;
};

static void open_scene(struct scene *scene) {
  int ends[2];
  struct vamp_error error;
  gone_count = 0;
  gone_last = NULL;
  assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, ends), 0);
  scene->client = ends[0];
  scene->server = ends[1];
  assert_int_equal(vampd_watch_create(gone, &scene->watch, &error), VAMP_OK);
  scene->peer = vampd_watch_add(scene->watch, scene->server);
  assert_non_null(scene->peer);
}

static void close_scene(struct scene *scene) {
  vampd_watch_remove(scene->watch, scene->peer);
  vampd_watch_free(scene->watch);
  close(scene->server);
  if (scene->client >= 0) {
    close(scene->client);
  }
}

static void hang_up(struct scene *scene) {
  close(scene->client);
  scene->client = -1;
}

/* Whether the server's end was shut down: reading it gives its end at once. */
static bool is_shut_down(const struct scene *scene) {
  char byte;
  return recv(scene->server, &byte, 1, MSG_DONTWAIT | MSG_PEEK) == 0;
}

static void let_it_look(void) {
  struct timespec turns = {.tv_nsec = 200000000};
  nanosleep(&turns, NULL);
}

static void test_a_waiting_client_that_hangs_up_is_reported_once(void **state) {
  (void)state;
  struct scene scene;
  int waiting = 0;
  open_scene(&scene);
  vampd_watch_wait(scene.watch, scene.peer, &waiting);
  let_it_look();
  assert_int_equal(gone_count, 0);
  hang_up(&scene);
  for (double end = vampd_now() + PATIENCE; gone_count == 0 && vampd_now() < end;) {
    nap();
  }
  let_it_look();
  assert_int_equal(gone_count, 1);
  assert_ptr_equal(gone_last, &waiting);
  close_scene(&scene);
}

static void test_who_does_not_wait_is_not_reported(void **state) {
  (void)state;
  struct scene scene;
  int waiting = 0;
  open_scene(&scene);
  vampd_watch_wait(scene.watch, scene.peer, &waiting);
  vampd_watch_wait(scene.watch, scene.peer, NULL);
  hang_up(&scene);
  let_it_look();
  assert_int_equal(gone_count, 0);
  close_scene(&scene);
}

static void test_deadlines(void **state) {
  (void)state;
  struct scene scene;
  open_scene(&scene);
  vampd_watch_deadline(scene.watch, scene.peer, 0.05);
  for (double end = vampd_now() + PATIENCE; !is_shut_down(&scene) && vampd_now() < end;) {
    nap();
  }
  assert_true(is_shut_down(&scene));
  close_scene(&scene);

  open_scene(&scene);
  vampd_watch_deadline(scene.watch, scene.peer, 0.3);
  vampd_watch_deadline(scene.watch, scene.peer, 0);
  let_it_look();
  let_it_look();
  assert_false(is_shut_down(&scene));
  close_scene(&scene);
}

/* Hanging up in the middle of a body ends the connection, but not before what was sent is read. */
static void test_a_body_cut_off(void **state) {
  (void)state;
  struct scene scene;
  char byte;
  open_scene(&scene);
  vampd_watch_receive(scene.watch, scene.peer, 60, true);
  assert_int_equal(send(scene.client, "x", 1, 0), 1);
  assert_int_equal(shutdown(scene.client, SHUT_WR), 0);
  let_it_look();
  assert_int_equal(recv(scene.client, &byte, 1, MSG_DONTWAIT), -1); /* still open towards the client */
  assert_int_equal(recv(scene.server, &byte, 1, 0), 1);
  for (double end = vampd_now() + PATIENCE; recv(scene.client, &byte, 1, MSG_DONTWAIT) != 0;) {
    assert_true(vampd_now() < end);
    nap();
  }
  close_scene(&scene);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_urgent_goes_first),
      cmocka_unit_test(test_every_task_runs_once),
      cmocka_unit_test(test_a_waiting_client_that_hangs_up_is_reported_once),
      cmocka_unit_test(test_who_does_not_wait_is_not_reported),
      cmocka_unit_test(test_deadlines),
      cmocka_unit_test(test_a_body_cut_off),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
