/*
 * Who is let in: the key file, callers and their limits, the queue's limits.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "server/access/access.h"
#include "server/access/admission.h"
#include "server/access/keys.h"

static char folder[] = "/tmp/vampd-access-XXXXXX";
static char path[64];

static int set_up(void **state) {
  (void)state;
  if (!mkdtemp(folder)) {
    return 1;
  }
  snprintf(path, sizeof path, "%s/keys.ini", folder);
  return 0;
}

static int tear_down(void **state) {
  (void)state;
  unlink(path);
  return rmdir(folder);
}

static void write_keys(const char *text, mode_t mode) {
  FILE *file = fopen(path, "w");
  assert_non_null(file);
  fputs(text, file);
  assert_int_equal(fclose(file), 0);
  assert_int_equal(chmod(path, mode), 0);
}

/* printf %s secret | sha256sum, and of "other" */
#define SECRET "2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b"
#define OTHER "d9298a10d1b0735837dc4bd85dac641b0f3cef27a47e5d53a54f2f3f5b2fcffa"

static void test_key_file(void **state) {
  (void)state;
  struct vampd_keys *keys = NULL;
  struct vamp_error error = {0};
  write_keys("; a comment\n[lab]\nhash = sha256:" SECRET "\nrequests-per-minute = 60\njobs = 3\n"
             "audio_seconds_per_hour = 100\npriority = 9\n\n[a.b_c-1]\nhash = sha256:" OTHER "\n",
             0640);
  if (vampd_keys_read(path, &keys, &error) != VAMP_OK) {
    fail_msg("%s", error.message);
  }
  assert_int_equal(keys->count, 2);
  assert_string_equal(keys->keys[0].name, "lab");
  assert_int_equal(keys->keys[0].allowance.requests_per_minute, 60);
  assert_int_equal(keys->keys[0].allowance.jobs, 3);
  assert_int_equal(keys->keys[0].allowance.audio_seconds_per_hour, 100);
  assert_int_equal(keys->keys[0].allowance.priority, 9);
  assert_string_equal(keys->keys[1].name, "a.b_c-1");
  assert_int_equal(keys->keys[1].allowance.priority, 5);
  assert_int_equal(keys->keys[1].allowance.jobs, 0);
  uint8_t hash[VAMPD_KEY_HASH_SIZE];
  vampd_key_hash("secret", 6, hash);
  assert_memory_equal(hash, keys->keys[0].hash, sizeof hash);
  vampd_keys_free(keys);
}

static void test_wrong_key_files(void **state) {
  (void)state;
  static const char *const WRONG[][2] = {
      {"hash = sha256:" SECRET "\n", ":1: hash stands in no section"},
      {"[lab]\npriority = 3\n", "lab has no hash"},
      {"[lab]\njobs = 3\n[two]\nhash = sha256:" SECRET "\n", "lab has no hash"},
      {"[lab]\nhash = " SECRET "\n", ":2: hash is"},
      {"[lab]\nhash = sha256:" SECRET "00\n", ":2: hash is"},
      {"[lab]\nhash = sha256:xbb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b\n",
       ":2: hash is"},
      {"[lab]\nhash = sha256:" SECRET "\npriority = 0\n", ":3: priority takes"},
      {"[lab]\nhash = sha256:" SECRET "\njobs = -1\n", ":3: jobs takes"},
      {"[lab]\nhash = sha256:" SECRET "\njob = 1\n", ":3: job is unknown"},
      {"[lab]\nhash = sha256:" SECRET "\nhash = sha256:" OTHER "\n", ":3: hash is there twice"},
      {"[lab]\nhash = sha256:" SECRET "\n[two]\nhash = sha256:" SECRET "\n", "same key as lab"},
      {"[lab]\nhash = sha256:" SECRET "\n[two]\nhash = sha256:" OTHER "\n[lab]\njobs = 1\n",
       "a section already"},
      {"[my lab]\nhash = sha256:" SECRET "\n", "cannot be the name"},
      {"[]\nhash = sha256:" SECRET "\n", "no section"},
      {"[name-that-is-longer-than-forty-characters]\nhash = sha256:" SECRET "\n", "cannot be the name"},
      {"[lab\nhash = sha256:" SECRET "\n", "no section"},
  };
  for (size_t i = 0; i < sizeof WRONG / sizeof WRONG[0]; i++) {
    struct vampd_keys *keys = NULL;
    struct vamp_error error = {0};
    write_keys(WRONG[i][0], 0600);
    if (vampd_keys_read(path, &keys, &error) != VAMP_INVALID) {
      fail_msg("key file %zu was accepted", i);
    }
    if (!strstr(error.message, WRONG[i][1])) {
      fail_msg("key file %zu: %s", i, error.message);
    }
    assert_null(keys);
  }
}

static void test_key_file_of_others(void **state) {
  (void)state;
  static const mode_t MODES[] = {0602, 0620, 0666};
  for (size_t i = 0; i < 3; i++) {
    struct vampd_keys *keys = NULL;
    struct vamp_error error = {0};
    write_keys("", MODES[i]);
    assert_int_equal(vampd_keys_read(path, &keys, &error), VAMP_INVALID);
    assert_non_null(strstr(error.message, "chmod go-w"));
  }
}

static void test_new_key(void **state) {
  (void)state;
  char key[VAMPD_KEY_TEXT_SIZE], other[VAMPD_KEY_TEXT_SIZE], header[100], *section = NULL, *second = NULL;
  struct vamp_error error;
  struct vampd_keys *keys;
  struct vampd_access *access;
  struct vampd_caller *caller;
  assert_int_equal(vampd_key_make("lab", key, &section, &error), VAMP_OK);
  assert_int_equal(strlen(key), 67);
  assert_null(strstr(section, key));
  write_keys(section, 0600);
  assert_int_equal(vampd_keys_read(path, &keys, &error), VAMP_OK);
  assert_int_equal(vampd_access_create(&access, &error), VAMP_OK);
  assert_int_equal(vampd_access_load(access, keys, &error), VAMP_OK);
  snprintf(header, sizeof header, "Bearer %s", key);
  assert_int_equal(vampd_access_identify(access, header, &caller, &error), VAMP_OK);
  assert_string_equal(vampd_caller_name(caller), "lab");
  header[40] ^= 1;
  assert_int_equal(vampd_access_identify(access, header, &caller, &error), VAMP_INVALID);
  assert_int_equal(vampd_key_make("lab", other, &second, &error), VAMP_OK);
  assert_string_not_equal(key, other);
  free(second);
  second = NULL;
  assert_int_equal(vampd_key_make("no name", other, &second, &error), VAMP_INVALID);
  assert_int_equal(vampd_key_make("", other, &second, &error), VAMP_INVALID);
  assert_null(second);
  free(section);
  vampd_access_free(access);
  vampd_keys_free(keys);
}

/* ---- callers ---------------------------------------------------------------------------------------------
 */

static void load(struct vampd_access *access, const char *text) {
  struct vampd_keys *keys = NULL;
  struct vamp_error error = {0};
  write_keys(text, 0600);
  if (vampd_keys_read(path, &keys, &error) != VAMP_OK) {
    fail_msg("%s", error.message);
  }
  assert_int_equal(vampd_access_load(access, keys, &error), VAMP_OK);
  vampd_keys_free(keys);
}

static struct vampd_caller *identify(struct vampd_access *access, const char *authorization) {
  struct vampd_caller *caller = NULL;
  struct vamp_error error;
  int status = vampd_access_identify(access, authorization, &caller, &error);
  assert_true((status == VAMP_OK) == (caller != NULL));
  assert_true(status == VAMP_OK || status == VAMP_INVALID);
  return caller;
}

static void test_without_keys(void **state) {
  (void)state;
  struct vampd_access *access;
  struct vamp_error error;
  int wait = 0;
  assert_int_equal(vampd_access_create(&access, &error), VAMP_OK);
  struct vampd_caller *caller = identify(access, NULL);
  assert_ptr_equal(identify(access, "Bearer whatever"), caller);
  assert_ptr_equal(identify(access, "Basic YTpi"), caller);
  assert_string_equal(vampd_caller_name(caller), "");
  assert_int_equal(vampd_caller_client(caller), 0);
  assert_int_equal(vampd_caller_priority(caller), 5);
  for (int i = 0; i < 10000; i++) {
    assert_int_equal(vampd_access_request(caller, &wait, &error), VAMP_OK);
  }
  assert_int_equal(vampd_access_take_jobs(caller, 1000000, 1e9, &wait, &error), VAMP_OK);
  vampd_access_free(access);
}

static void test_identify(void **state) {
  (void)state;
  static const char *const WRONG[] = {NULL,
                                      "",
                                      "Bearer",
                                      "Bearer ",
                                      "secret",
                                      "Bearer Secret",
                                      "Bearer secre",
                                      "Bearer secrets",
                                      "Basic secret",
                                      "Bearer secret more",
                                      "Bearer  ",
                                      "Bearersecret",
                                      "Bearer other",
                                      "Bearer\tsecret",
                                      "Bearer \xff\n",
                                      "bearer=secret"};
  struct vampd_access *access;
  struct vampd_caller *lab, *caller;
  struct vamp_error error;
  assert_int_equal(vampd_access_create(&access, &error), VAMP_OK);
  load(access, "[lab]\nhash = sha256:" SECRET "\npriority = 8\n");
  for (size_t i = 0; i < sizeof WRONG / sizeof WRONG[0]; i++) {
    if (identify(access, WRONG[i])) {
      fail_msg("\"%s\" was let in", WRONG[i] ? WRONG[i] : "(nothing)");
    }
  }
  lab = identify(access, "Bearer secret");
  assert_ptr_equal(identify(access, "bEARER   secret "), lab);
  assert_int_equal(vampd_caller_client(lab), 1);
  assert_int_equal(vampd_caller_priority(lab), 8);
  assert_int_equal(vampd_access_find(access, "lab", &caller, &error), VAMP_OK);
  assert_ptr_equal(caller, lab);

  /* The key changes hands, and its old owner is gone; what he was is still known by name. */
  load(access, "[studio]\nhash = sha256:" SECRET "\n");
  caller = identify(access, "Bearer secret");
  assert_string_equal(vampd_caller_name(caller), "studio");
  assert_int_equal(vampd_caller_client(caller), 2);
  assert_string_equal(vampd_caller_name(lab), "lab");
  assert_int_equal(vampd_caller_priority(lab), 5);

  /* An empty key file lets nobody in, none at all everybody. */
  load(access, "");
  assert_null(identify(access, "Bearer secret"));
  assert_int_equal(vampd_access_load(access, NULL, &error), VAMP_OK);
  assert_int_equal(vampd_caller_client(identify(access, "Bearer secret")), 0);
  vampd_access_free(access);
}

static void test_jobs_of_a_key(void **state) {
  (void)state;
  struct vampd_access *access;
  struct vamp_error error;
  int wait = 0;
  assert_int_equal(vampd_access_create(&access, &error), VAMP_OK);
  load(access, "[lab]\nhash = sha256:" SECRET "\njobs = 4\naudio-seconds-per-hour = 100\n");
  struct vampd_caller *lab = identify(access, "Bearer secret");
  assert_int_equal(vampd_access_take_jobs(lab, 5, 1, &wait, &error), VAMP_LIMIT);
  assert_int_equal(vampd_access_take_jobs(lab, 1, 101, &wait, &error), VAMP_LIMIT);
  assert_int_equal(vampd_access_take_jobs(lab, 3, 30, &wait, &error), VAMP_OK);
  assert_int_equal(vampd_access_take_jobs(lab, 2, 10, &wait, &error), VAMP_BUSY);
  assert_true(wait >= 1);
  /* The refused ones have cost nothing: 70 s are left. 80 are there after 10 s of 100 an hour. */
  assert_int_equal(vampd_access_take_jobs(lab, 1, 80, &wait, &error), VAMP_BUSY);
  assert_in_range(wait, 359, 360);
  assert_int_equal(vampd_access_take_jobs(lab, 1, 70, &wait, &error), VAMP_OK);
  vampd_access_return_jobs(lab, 2);
  assert_int_equal(vampd_access_take_jobs(lab, 1, 1, &wait, &error), VAMP_BUSY);
  vampd_access_undo_jobs(lab, 1, 70);
  assert_int_equal(vampd_access_take_jobs(lab, 3, 70, &wait, &error), VAMP_OK);
  vampd_access_return_jobs(lab, 4);

  /* A reload changes the limits and forgets nothing. */
  load(access, "[lab]\nhash = sha256:" OTHER "\njobs = 1\naudio-seconds-per-hour = 200\n");
  assert_ptr_equal(identify(access, "Bearer other"), lab);
  vampd_access_adopt_jobs(lab, 7);
  assert_int_equal(vampd_access_take_jobs(lab, 1, 1, &wait, &error), VAMP_BUSY);
  vampd_access_return_jobs(lab, 7);
  assert_int_equal(vampd_access_take_jobs(lab, 1, 101, &wait, &error), VAMP_BUSY);
  assert_int_equal(vampd_access_take_jobs(lab, 1, 100, &wait, &error), VAMP_OK);
  vampd_access_free(access);
}

static void test_requests_of_a_key(void **state) {
  (void)state;
  struct vampd_access *access;
  struct vampd_caller *caller;
  struct vamp_error error;
  int wait = 0;
  assert_int_equal(vampd_access_create(&access, &error), VAMP_OK);
  load(access, "[lab]\nhash = sha256:" SECRET "\nrequests-per-minute = 2\n"
               "[two]\nhash = sha256:" OTHER "\nrequests-per-minute = 2\n");
  caller = identify(access, "Bearer secret");
  assert_int_equal(vampd_access_request(caller, &wait, &error), VAMP_OK);
  assert_int_equal(vampd_access_request(caller, &wait, &error), VAMP_OK);
  assert_int_equal(vampd_access_request(caller, &wait, &error), VAMP_BUSY);
  assert_in_range(wait, 29, 30);
  caller = identify(access, "Bearer other");
  assert_int_equal(vampd_access_request(caller, &wait, &error), VAMP_OK);
  vampd_access_free(access);
}

/* ---- the queue -------------------------------------------------------------------------------------------
 */

static void test_admission(void **state) {
  (void)state;
  struct vampd_admission admission;
  vampd_admission_init(&admission);
  assert_int_equal(vampd_admission_enter(&admission), VAMPD_FULL);
  vampd_admission_limit(&admission, 2, 100);
  assert_int_equal(vampd_admission_enter(&admission), VAMPD_ENTERED);
  assert_int_equal(vampd_admission_look(&admission), VAMPD_ENTERED);
  assert_int_equal(vampd_admission_enter(&admission), VAMPD_ENTERED);
  assert_int_equal(vampd_admission_enter(&admission), VAMPD_FULL);
  assert_int_equal(vampd_admission_jobs(&admission), 2);
  assert_int_equal(vampd_admission_retry_after(&admission), 1); /* a guess, for want of better */
  vampd_admission_leave(&admission);
  assert_int_equal(vampd_admission_enter(&admission), VAMPD_ENTERED);
  assert_true(vampd_admission_reserve(&admission, 60));
  assert_false(vampd_admission_reserve(&admission, 41));
  assert_true(vampd_admission_reserve(&admission, 40));
  vampd_admission_limit(&admission, 1, 50);
  assert_false(vampd_admission_reserve(&admission, 1));
  vampd_admission_leave(&admission);
  assert_int_equal(vampd_admission_enter(&admission), VAMPD_FULL);
  vampd_admission_limit(&admission, 2, 100);
  vampd_admission_return(&admission, 100);
  assert_true(vampd_admission_reserve(&admission, 100));
  vampd_admission_close(&admission);
  assert_int_equal(vampd_admission_enter(&admission), VAMPD_CLOSED);
  assert_true(vampd_admission_closed(&admission));
  vampd_admission_destroy(&admission);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_key_file),           cmocka_unit_test(test_wrong_key_files),
      cmocka_unit_test(test_key_file_of_others), cmocka_unit_test(test_new_key),
      cmocka_unit_test(test_without_keys),       cmocka_unit_test(test_identify),
      cmocka_unit_test(test_jobs_of_a_key),      cmocka_unit_test(test_requests_of_a_key),
      cmocka_unit_test(test_admission),
  };
  return cmocka_run_group_tests(tests, set_up, tear_down);
}
