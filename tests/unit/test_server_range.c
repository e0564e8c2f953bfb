/*
 * Byte ranges and entity tags, as clients write them and as they should not.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "server/http/range.h"

#define WHOLE VAMPD_RANGE_WHOLE
#define PART VAMPD_RANGE_PART
#define BEYOND VAMPD_RANGE_UNSATISFIABLE

static void test_ranges(void **state) {
  (void)state;
  static const struct {
    const char *range;
    int64_t size;
    enum vampd_range kind;
    int64_t first, last;
  } CASES[] = {
      {NULL, 1000, WHOLE, 0, 0},
      {"", 1000, WHOLE, 0, 0},
      {"bytes=0-499", 1000, PART, 0, 499},
      {"Bytes=0-0", 1000, PART, 0, 0},
      {"bytes=500-", 1000, PART, 500, 999},
      {"bytes=999-", 1000, PART, 999, 999},
      {"bytes=-1", 1000, PART, 999, 999},
      {"bytes=-1000", 1000, PART, 0, 999},
      {"bytes=-5000", 1000, PART, 0, 999},
      {"bytes=0-5000", 1000, PART, 0, 999},
      {"bytes= 1-2 ", 1000, PART, 1, 2},
      {"bytes=1000-", 1000, BEYOND, 0, 0},
      {"bytes=1000-1001", 1000, BEYOND, 0, 0},
      {"bytes=-0", 1000, BEYOND, 0, 0},
      {"bytes=0-", 0, BEYOND, 0, 0},
      {"bytes=-1", 0, BEYOND, 0, 0},
      {"bytes=5-4", 1000, WHOLE, 0, 0},
      {"bytes=-", 1000, WHOLE, 0, 0},
      {"bytes=", 1000, WHOLE, 0, 0},
      {"bytes=1", 1000, WHOLE, 0, 0},
      {"bytes=x-1", 1000, WHOLE, 0, 0},
      {"bytes=1-x", 1000, WHOLE, 0, 0},
      {"bytes=--1", 1000, WHOLE, 0, 0},
      {"bytes=0-1,3-4", 1000, WHOLE, 0, 0},
      {"items=0-1", 1000, WHOLE, 0, 0},
      {"bytes", 1000, WHOLE, 0, 0},
      {"bytes=0-99999999999999999999999999999999", 1000, PART, 0, 999},
      {"bytes=99999999999999999999999999999999-", 1000, BEYOND, 0, 0},
      {"bytes=-99999999999999999999999999999999", 1000, PART, 0, 999},
      {"bytes=9223372036854775807-9223372036854775807", 1000, BEYOND, 0, 0},
      {"bytes=18446744073709551616-", 1000, BEYOND, 0, 0},
      {"bytes=4294967296-4294967297", INT64_C(1) << 40, PART, INT64_C(1) << 32, (INT64_C(1) << 32) + 1},
  };
  for (size_t i = 0; i < sizeof CASES / sizeof CASES[0]; i++) {
    int64_t first = 0, last = 0;
    enum vampd_range kind = vampd_range_parse(CASES[i].range, CASES[i].size, &first, &last);
    if (kind != CASES[i].kind || first != CASES[i].first || last != CASES[i].last) {
      fail_msg("\"%s\" of %lld: %d, %lld to %lld", CASES[i].range ? CASES[i].range : "(none)",
               (long long)CASES[i].size, (int)kind, (long long)first, (long long)last);
    }
  }
}

/* Every range of a small body that can be written is within it. */
static void test_parts_are_within(void **state) {
  (void)state;
  char range[40];
  for (int64_t size = 0; size < 6; size++) {
    for (int from = -1; from < 8; from++) {
      for (int to = -1; to < 8; to++) {
        int used = snprintf(range, sizeof range, "bytes=");
        used += from < 0 ? 0 : snprintf(range + used, sizeof range - (size_t)used, "%d", from);
        used += snprintf(range + used, sizeof range - (size_t)used, "-");
        used += to < 0 ? 0 : snprintf(range + used, sizeof range - (size_t)used, "%d", to);
        int64_t first = -7, last = -7;
        if (vampd_range_parse(range, size, &first, &last) == PART) {
          assert_true(0 <= first && first <= last && last < size);
          assert_true(from < 0 ? last - first + 1 == (to < size ? to : size) : first == from);
        } else {
          assert_true(first == -7 && last == -7);
        }
      }
    }
  }
}

static void test_etags(void **state) {
  (void)state;
  static const struct {
    const char *list, *etag;
    bool matches;
  } CASES[] = {
      {"\"a\"", "\"a\"", true},
      {"W/\"a\"", "\"a\"", true},
      {"*", "\"a\"", true},
      {" \"b\" , \"a\"", "\"a\"", true},
      {"\"b\",W/\"a\"", "\"a\"", true},
      {"\"b, a\", \"c\"", "\"a\"", false},
      {"\"ab\"", "\"a\"", false},
      {"\"a", "\"a\"", false},
      {"a", "\"a\"", false},
      {"", "\"a\"", false},
      {NULL, "\"a\"", false},
      {",,,", "\"a\"", false},
      {"W/", "\"a\"", false},
      {"\"\"", "\"a\"", false},
  };
  for (size_t i = 0; i < sizeof CASES / sizeof CASES[0]; i++) {
    if (vampd_etag_matches(CASES[i].list, CASES[i].etag) != CASES[i].matches) {
      fail_msg("%s in %s", CASES[i].etag, CASES[i].list ? CASES[i].list : "(none)");
    }
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_ranges),
      cmocka_unit_test(test_parts_are_within),
      cmocka_unit_test(test_etags),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
