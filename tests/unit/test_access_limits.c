/*
 * Buckets, pace and CORS: what needs no clock but a number.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "server/access/cors.h"
#include "server/access/limits.h"

/* ---- buckets ---------------------------------------------------------------------------------------------
 */

static void test_requests(void **state) {
  (void)state;
  struct vampd_allowance allowance = {.requests_per_minute = 6};
  struct vampd_usage usage = {0};
  double wait = 0;
  for (int i = 0; i < 6; i++) {
    assert_true(vampd_limits_request(&allowance, &usage, 1000, &wait));
  }
  assert_false(vampd_limits_request(&allowance, &usage, 1000, &wait));
  assert_int_equal(vampd_retry_after(wait), 10);
  assert_false(vampd_limits_request(&allowance, &usage, 1009.9, &wait));
  assert_int_equal(vampd_retry_after(wait), 1);
  assert_true(vampd_limits_request(&allowance, &usage, 1010, &wait));
  assert_false(vampd_limits_request(&allowance, &usage, 1010, &wait));
  /* Over ten minutes, whoever comes as often as he likes gets six a minute and the bucket. */
  int taken = 0;
  for (double now = 1010; now < 1610; now += 0.01) {
    taken += vampd_limits_request(&allowance, &usage, now, &wait);
  }
  assert_in_range(taken, 59, 61);
  /* A clock that stands still, or a hair behind, gives nothing away. */
  assert_false(vampd_limits_request(&allowance, &usage, 1609, &wait));
}

/* Whoever waits exactly as long as he was told is let in: at every limit, from any level. */
static void test_wait_is_enough(void **state) {
  (void)state;
  for (int limit = 1; limit < 3000; limit = limit * 7 / 3 + 1) {
    struct vampd_allowance allowance = {.requests_per_minute = limit, .audio_seconds_per_hour = limit};
    struct vampd_usage usage = {0};
    double now = 12345.678, wait = 0;
    for (int i = 0; i < 4 * limit; i++) {
      if (!vampd_limits_request(&allowance, &usage, now, &wait)) {
        now += wait;
        assert_true(vampd_limits_request(&allowance, &usage, now, &wait));
      }
      if (!vampd_limits_audio(&allowance, &usage, 0.7 * limit, now, &wait)) {
        now += wait;
        assert_true(vampd_limits_audio(&allowance, &usage, 0.7 * limit, now, &wait));
      }
    }
  }
}

static void test_audio(void **state) {
  (void)state;
  struct vampd_allowance allowance = {.audio_seconds_per_hour = 3600};
  struct vampd_usage usage = {0};
  double wait = 0;
  assert_false(vampd_limits_audio(&allowance, &usage, 3601, 0, &wait));
  assert_true(isinf(wait));
  assert_true(vampd_limits_audio(&allowance, &usage, 3600, 0, &wait));
  assert_false(vampd_limits_audio(&allowance, &usage, 100, 40, &wait));
  assert_int_equal(vampd_retry_after(wait), 60);
  vampd_limits_return_audio(&usage, 60);
  assert_true(vampd_limits_audio(&allowance, &usage, 100, 40, &wait));
  vampd_limits_return_audio(&usage, 1e9);
  assert_true(vampd_limits_audio(&allowance, &usage, 3600, 40, &wait));
}

/* ---- pace ------------------------------------------------------------------------------------------------
 */

static void test_pace(void **state) {
  (void)state;
  struct vampd_pace pace = {0};
  vampd_pace_enter(&pace, 0, 100);
  assert_int_equal(vampd_retry_after(vampd_pace_estimate(&pace, 5, 100)), 2);
  double now = 100;
  for (int i = 0; i < 100; i++) {
    now += 3;
    vampd_pace_leave(&pace, 1, now);
  }
  assert_int_equal(vampd_retry_after(vampd_pace_estimate(&pace, 10, now)), 30);
  /* In batches of eight, as the device finishes them, the pace is the same wherever one looks. */
  for (int i = 0; i < 100; i++) {
    now += 24;
    for (int j = 0; j < 8; j++) {
      vampd_pace_leave(&pace, 1, now);
      if (i > 50) {
        assert_in_range(vampd_retry_after(vampd_pace_estimate(&pace, 10, now)), 25, 36);
      }
    }
  }
  /* An idle night does not count, but a job that does not end does. */
  vampd_pace_enter(&pace, 0, now + 40000);
  assert_in_range(vampd_retry_after(vampd_pace_estimate(&pace, 10, now + 40000)), 25, 36);
  assert_true(vampd_pace_estimate(&pace, 10, now + 40600) > 150);
  /* It follows a change. */
  now += 40000;
  for (int i = 0; i < 200; i++) {
    now += 0.1;
    vampd_pace_leave(&pace, 1, now);
  }
  assert_in_range(vampd_retry_after(vampd_pace_estimate(&pace, 100, now)), 9, 12);
  assert_int_equal(vampd_retry_after(vampd_pace_estimate(&pace, 0, now)), 1);
  assert_int_equal(vampd_retry_after(HUGE_VAL), VAMPD_RETRY_MAX);
}

static void test_jobs(void **state) {
  (void)state;
  struct vampd_allowance allowance = {.jobs = 3};
  struct vampd_usage usage = {0};
  double wait = 0;
  assert_false(vampd_limits_jobs(&allowance, &usage, 4, 10, &wait));
  assert_true(isinf(wait));
  assert_true(vampd_limits_jobs(&allowance, &usage, 3, 10, &wait));
  assert_false(vampd_limits_jobs(&allowance, &usage, 2, 10, &wait));
  assert_int_equal(vampd_retry_after(wait), 1);
  usage.jobs = 9; /* more than it may, after a reload */
  assert_false(vampd_limits_jobs(&allowance, &usage, 1, 10, &wait));
  assert_int_equal(vampd_retry_after(wait), 2);
  allowance.jobs = 0;
  assert_true(vampd_limits_jobs(&allowance, &usage, 1000000, 10, &wait));
}

/* ---- CORS ------------------------------------------------------------------------------------------------
 */

static const char *value_of(const struct vampd_cors_header *headers, int count, const char *name) {
  for (int i = 0; i < count; i++) {
    if (strcmp(headers[i].name, name) == 0) {
      return headers[i].value;
    }
  }
  return NULL;
}

static void test_cors(void **state) {
  (void)state;
  struct vampd_cors *cors;
  struct vamp_error error;
  struct vampd_cors_header headers[VAMPD_CORS_MAX_HEADERS];
  assert_int_equal(
      vampd_cors_create("https://studio.example.org,http://localhost:5173 , http://[::1]:80,null,", &cors,
                        &error),
      VAMP_INVALID); /* a port that a browser leaves out */
  assert_int_equal(
      vampd_cors_create("https://studio.example.org,http://localhost:5173 , http://[::1]:81,null,", &cors,
                        &error),
      VAMP_OK);
  static const char *const IN[] = {"https://studio.example.org", "http://localhost:5173", "http://[::1]:81",
                                   "null"};
  static const char *const OUT[] = {"http://studio.example.org",
                                    "https://studio.example.org:8443",
                                    "https://evil.example",
                                    "https://studio.example.org.evil.example",
                                    "https://evilstudio.example.org",
                                    "",
                                    "*"};
  for (size_t i = 0; i < sizeof IN / sizeof IN[0]; i++) {
    int count = vampd_cors_headers(cors, IN[i], false, headers);
    assert_string_equal(value_of(headers, count, "Access-Control-Allow-Origin"), IN[i]);
    assert_string_equal(value_of(headers, count, "Vary"), "Origin");
    assert_non_null(strstr(value_of(headers, count, "Access-Control-Expose-Headers"), "Location"));
    assert_null(value_of(headers, count, "Access-Control-Allow-Methods"));
    count = vampd_cors_headers(cors, IN[i], true, headers);
    assert_non_null(strstr(value_of(headers, count, "Access-Control-Allow-Headers"), "Authorization"));
    assert_non_null(strstr(value_of(headers, count, "Access-Control-Allow-Methods"), "DELETE"));
    assert_null(value_of(headers, count, "Access-Control-Allow-Credentials"));
  }
  for (size_t i = 0; i < sizeof OUT / sizeof OUT[0]; i++) {
    assert_false(vampd_cors_allows(cors, OUT[i]));
    assert_int_equal(vampd_cors_headers(cors, OUT[i], true, headers), 1);
    assert_string_equal(headers[0].name, "Vary");
  }
  assert_int_equal(vampd_cors_headers(cors, NULL, false, headers), 1);
  vampd_cors_free(cors);
}

static void test_cors_of_all_and_none(void **state) {
  (void)state;
  struct vampd_cors *cors;
  struct vamp_error error;
  struct vampd_cors_header headers[VAMPD_CORS_MAX_HEADERS];
  assert_int_equal(vampd_cors_create("*", &cors, &error), VAMP_OK);
  int count = vampd_cors_headers(cors, "https://any.example", false, headers);
  assert_string_equal(value_of(headers, count, "Access-Control-Allow-Origin"), "*");
  assert_null(value_of(headers, count, "Vary"));
  assert_int_equal(vampd_cors_headers(cors, NULL, false, headers), 0);
  vampd_cors_free(cors);
  assert_int_equal(vampd_cors_create(NULL, &cors, &error), VAMP_OK);
  assert_int_equal(vampd_cors_headers(cors, "https://any.example", true, headers), 0);
  vampd_cors_free(cors);
}

static void test_wrong_origins(void **state) {
  (void)state;
  static const char *const WRONG[] = {"example.org",
                                      "https://",
                                      "https://a.example/",
                                      "https://A.example",
                                      "https://a:",
                                      "https://a:x",
                                      "https://a.example:443",
                                      "https://*.example",
                                      "://a",
                                      "https://user@a",
                                      "http://[::1",
                                      "https://a?b",
                                      "https://ok.example,nonsense",
                                      "**"};
  struct vamp_error error;
  for (size_t i = 0; i < sizeof WRONG / sizeof WRONG[0]; i++) {
    struct vampd_cors *cors = NULL;
    if (vampd_cors_create(WRONG[i], &cors, &error) != VAMP_INVALID) {
      fail_msg("\"%s\" was accepted", WRONG[i]);
    }
    assert_null(cors);
  }
  char many[2000] = "";
  for (int i = 0; i <= VAMPD_CORS_MAX_ORIGINS; i++) {
    snprintf(many + strlen(many), sizeof many - strlen(many), "http://h%d ", i);
  }
  struct vampd_cors *cors = NULL;
  assert_int_equal(vampd_cors_create(many, &cors, &error), VAMP_LIMIT);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_requests),      cmocka_unit_test(test_wait_is_enough),
      cmocka_unit_test(test_audio),         cmocka_unit_test(test_pace),
      cmocka_unit_test(test_jobs),          cmocka_unit_test(test_cors),
      cmocka_unit_test(test_wrong_origins), cmocka_unit_test(test_cors_of_all_and_none),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
