/*
 * The log's lines, plain and JSON, and what a stranger's text can do to them: nothing.
 */
#include <jansson.h>
#include <math.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "server/log.h"

static FILE *captured;
static int real;

static int begin(void **state) {
  (void)state;
  captured = tmpfile();
  real = dup(STDERR_FILENO);
  return captured && real >= 0 && dup2(fileno(captured), STDERR_FILENO) >= 0 ? 0 : 1;
}

static int end(void **state) {
  (void)state;
  vampd_log_set_format(VAMPD_LOG_PLAIN);
  dup2(real, STDERR_FILENO);
  close(real);
  return fclose(captured);
}

/* What was logged since `begin`, whole. */
static char *lines(void) {
  static char text[1 << 16];
  ssize_t size = pread(fileno(captured), text, sizeof text - 1, 0);
  assert_true(size >= 0);
  text[size] = '\0';
  return text;
}

static json_t *parse(char *line) {
  json_error_t error;
  json_t *value = json_loads(line, JSON_REJECT_DUPLICATES, &error);
  if (!value) {
    fail_msg("%s: %s", error.text, line);
  }
  return value;
}

static void test_plain(void **state) {
  (void)state;
  vampd_log("hello %d\n", 5);
  vampd_log_event("request", VAMPD_LOG_TEXT("path", "/v1/jobs?limit=3"), VAMPD_LOG_INTEGER("status", 200),
                  VAMPD_LOG_NUMBER("seconds", 0.12345), VAMPD_LOG_TEXT("key", NULL),
                  VAMPD_LOG_TEXT("empty", ""), VAMPD_LOG_TEXT("name", "a \"b\" c"),
                  VAMPD_LOG_NUMBER("wrong", NAN));
  char *text = lines();
  assert_int_equal(strcspn(text, "Z"), 23);
  assert_non_null(strstr(text, "Z hello 5\n"));
  assert_non_null(strstr(text, "Z request path=/v1/jobs?limit=3 status=200 seconds=0.123 empty=\"\" "
                               "name=\"a \\\"b\\\" c\"\n"));
}

static void test_json(void **state) {
  (void)state;
  vampd_log_set_format(VAMPD_LOG_JSON);
  vampd_log("100%% \"sure\"");
  vampd_log_event("job", VAMPD_LOG_TEXT("id", "2f"), VAMPD_LOG_INTEGER("bytes", INT64_MAX),
                  VAMPD_LOG_NUMBER("seconds", 1e300), VAMPD_LOG_TEXT("none", NULL));
  char *first = lines(), *second = strchr(first, '\n') + 1;
  second[-1] = '\0';
  json_t *message = parse(first), *job = parse(second);
  assert_string_equal(json_string_value(json_object_get(message, "message")), "100% \"sure\"");
  assert_string_equal(json_string_value(json_object_get(job, "event")), "job");
  assert_true(json_integer_value(json_object_get(job, "bytes")) == INT64_MAX);
  assert_true(json_is_number(json_object_get(job, "seconds")));
  assert_int_equal(json_object_size(job), 5);
  assert_int_equal(strlen(json_string_value(json_object_get(job, "time"))), 24);
  json_decref(message);
  json_decref(job);
}

static void test_strangers(void **state) {
  (void)state;
  static const char *const TEXTS[] = {"a\nrequest id=1",
                                      "\x1b[2J\r\t\x7f",
                                      "\"},{\"x\":\"\\",
                                      "\xff\xc0\x80\xed\xa0\x80",
                                      "caf\xc3\xa9 \xf0\x9f\x8e\xb5",
                                      "cut \xf0\x9f\x8e",
                                      "\\u0000\\"};
  enum { COUNT = sizeof TEXTS / sizeof TEXTS[0] };
  char endless[5000];
  memset(endless, '"', sizeof endless - 1);
  endless[sizeof endless - 1] = '\0';
  for (int format = 0; format < 2; format++) {
    vampd_log_set_format(format ? VAMPD_LOG_JSON : VAMPD_LOG_PLAIN);
    for (int i = 0; i < COUNT; i++) {
      vampd_log_event("request", VAMPD_LOG_TEXT("path", TEXTS[i]), VAMPD_LOG_INTEGER("status", 1));
      vampd_log("%s", TEXTS[i]);
    }
    vampd_log("%s", endless);
    vampd_log_event("endless", VAMPD_LOG_TEXT("path", endless));
  }
  int count = 0;
  char *save = NULL;
  for (char *line = strtok_r(lines(), "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
    for (const char *at = line; *at; at++) {
      assert_true((unsigned char)*at >= ' ' && *at != 127);
    }
    if (count >= 2 * COUNT + 2) {
      json_decref(parse(line));
    }
    count++;
  }
  assert_int_equal(count, 2 * (2 * COUNT + 2));
}

/* More than a line holds: it stays a line, and JSON. */
static void test_long_lines(void **state) {
  (void)state;
  static const char *const NAMES[] = {"a", "b", "c", "d", "e", "f", "g", "h", "i", "j",
                                      "k", "l", "m", "n", "o", "p", "q", "r", "s", "t",
                                      "u", "v", "w", "x", "y", "z", "A", "B", "C", "D"};
  char quotes[400];
  memset(quotes, '"', sizeof quotes - 1);
  quotes[sizeof quotes - 1] = '\0';
  struct vampd_log_field fields[30];
  for (int i = 0; i < 30; i++) {
    fields[i] = VAMPD_LOG_TEXT(NAMES[i], quotes);
  }
  vampd_log_set_format(VAMPD_LOG_JSON);
  vampd_log_fields("long", fields, 30);
  char *text = lines();
  assert_int_equal(strcspn(text, "\n"), strlen(text) - 1);
  json_t *value = parse(text);
  assert_true(json_object_size(value) > 10);
  assert_int_equal(json_string_length(json_object_get(value, "a")), 256);
  json_decref(value);
}

static void *log_much(void *user) {
  for (int i = 0; i < 100; i++) {
    vampd_log_event("event", VAMPD_LOG_TEXT("thread", user), VAMPD_LOG_INTEGER("number", i));
  }
  return NULL;
}

static void test_threads(void **state) {
  (void)state;
  static char names[4][2] = {"0", "1", "2", "3"};
  pthread_t threads[4];
  vampd_log_set_format(VAMPD_LOG_JSON);
  for (int i = 0; i < 4; i++) {
    assert_int_equal(pthread_create(&threads[i], NULL, log_much, names[i]), 0);
  }
  for (int i = 0; i < 4; i++) {
    pthread_join(threads[i], NULL);
  }
  int count = 0;
  char *save = NULL;
  for (char *line = strtok_r(lines(), "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
    json_decref(parse(line));
    count++;
  }
  assert_int_equal(count, 400);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test_setup_teardown(test_plain, begin, end),
      cmocka_unit_test_setup_teardown(test_json, begin, end),
      cmocka_unit_test_setup_teardown(test_strangers, begin, end),
      cmocka_unit_test_setup_teardown(test_long_lines, begin, end),
      cmocka_unit_test_setup_teardown(test_threads, begin, end),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
