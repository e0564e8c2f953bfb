/*
 * Settings and callers while they are reloaded: readers see one snapshot or the other, counts stay right.
 * Worth most under ThreadSanitizer.
 */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "server/access/access.h"
#include "server/access/admission.h"
#include "server/access/keys.h"
#include "server/config/settings.h"

#define THREADS 4
#define ROUNDS 300

struct shared {
  struct vampd_configuration *configuration;
  struct vampd_access *access;
  struct vampd_admission admission;
  atomic_int taken, wrong;
  atomic_bool stop;
};

static void *read_settings(void *user) {
  struct shared *shared = user;
  while (!shared->stop) {
    const struct vampd_settings *settings = vampd_configuration_acquire(shared->configuration);
    shared->wrong += settings->options.port != 8765 || strcmp(settings->options.host, "127.0.0.1") != 0 ||
                     !vampd_cors_allows(settings->cors, "https://a.example");
    vampd_settings_release(settings);
  }
  return NULL;
}

static void test_settings(void **state) {
  (void)state;
  struct shared shared = {.stop = false};
  struct vamp_error error;
  const char *flags[] = {"vampd", "--cors-origins=https://a.example", NULL}, *variables[] = {NULL};
  pthread_t threads[THREADS];
  assert_int_equal(vampd_configuration_create(2, (char *const *)flags, (char *const *)variables,
                                              &shared.configuration, &error),
                   VAMP_OK);
  for (int i = 0; i < THREADS; i++) {
    assert_int_equal(pthread_create(&threads[i], NULL, read_settings, &shared), 0);
  }
  for (int i = 0; i < ROUNDS; i++) {
    const struct vampd_settings *settings;
    char pending[8];
    assert_int_equal(
        vampd_configuration_read(shared.configuration, &settings, pending, sizeof pending, &error), VAMP_OK);
    vampd_configuration_publish(shared.configuration, settings);
    vampd_settings_release(settings);
  }
  shared.stop = true;
  for (int i = 0; i < THREADS; i++) {
    pthread_join(threads[i], NULL);
  }
  assert_int_equal(shared.wrong, 0);
  vampd_configuration_free(shared.configuration);
}

static void *use_key(void *user) {
  struct shared *shared = user;
  struct vamp_error error;
  for (int i = 0; i < ROUNDS; i++) {
    struct vampd_caller *caller;
    int wait = 0;
    if (vampd_access_identify(shared->access, "Bearer secret", &caller, &error) != VAMP_OK) {
      shared->wrong++;
      continue;
    }
    if (vampd_access_take_jobs(caller, 1, 1, &wait, &error) != VAMP_OK) {
      shared->wrong += wait < 1;
      continue;
    }
    /* The key may have three jobs, whoever asks and however often limits are read anew. */
    shared->wrong += atomic_fetch_add(&shared->taken, 1) >= 3;
    shared->wrong += vampd_caller_priority(caller) != 7;
    if (vampd_admission_enter(&shared->admission) == VAMPD_ENTERED) {
      shared->wrong += vampd_admission_retry_after(&shared->admission) < 1;
      vampd_admission_leave(&shared->admission);
    }
    atomic_fetch_sub(&shared->taken, 1);
    vampd_access_return_jobs(caller, 1);
  }
  return NULL;
}

static void test_access(void **state) {
  (void)state;
  struct shared shared = {.stop = false};
  struct vampd_key key = {.name = "lab", .allowance = {.jobs = 3, .priority = 7}};
  struct vampd_keys keys = {1, &key};
  struct vamp_error error;
  pthread_t threads[THREADS];
  vampd_key_hash("secret", 6, key.hash);
  vampd_admission_init(&shared.admission);
  assert_int_equal(vampd_access_create(&shared.access, &error), VAMP_OK);
  assert_int_equal(vampd_access_load(shared.access, &keys, &error), VAMP_OK);
  for (int i = 0; i < THREADS; i++) {
    assert_int_equal(pthread_create(&threads[i], NULL, use_key, &shared), 0);
  }
  for (int i = 0; i < ROUNDS; i++) {
    assert_int_equal(vampd_access_load(shared.access, &keys, &error), VAMP_OK);
    vampd_admission_limit(&shared.admission, 1 + i % 3, 100);
  }
  for (int i = 0; i < THREADS; i++) {
    pthread_join(threads[i], NULL);
  }
  assert_int_equal(shared.wrong, 0);
  assert_int_equal(vampd_admission_jobs(&shared.admission), 0);
  vampd_admission_destroy(&shared.admission);
  vampd_access_free(shared.access);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_settings), cmocka_unit_test(test_access)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
