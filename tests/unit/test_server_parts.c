/*
 * The parts of the daemon that need no socket: base64, bounded JSON, multipart, negotiation, the route
 * table.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "server/http/answer.h"
#include "server/http/base64.h"
#include "server/http/json.h"
#include "server/http/multipart.h"
#include "server/http/negotiate.h"
#include "server/http/router.h"

/* ---- base64 ----------------------------------------------------------------------------------------------
 */

static void test_base64_round_trip(void **state) {
  (void)state;
  uint8_t bytes[300];
  for (size_t i = 0; i < sizeof bytes; i++) {
    bytes[i] = (uint8_t)(i * 37 + 11);
  }
  for (size_t size = 0; size <= sizeof bytes; size++) {
    size_t length, back_size;
    void *back;
    struct vamp_error error;
    char *text = vampd_base64_encode(bytes, size, &length);
    assert_non_null(text);
    assert_int_equal(length, strlen(text));
    assert_int_equal(vampd_base64_decode(text, length, &back, &back_size, &error), VAMP_OK);
    assert_int_equal(back_size, size);
    assert_memory_equal(back, bytes, size);
    free(back);
    free(text);
  }
}

static void test_base64_vectors(void **state) {
  (void)state;
  static const char *const VECTORS[][2] = {{"", ""},
                                           {"f", "Zg=="},
                                           {"fo", "Zm8="},
                                           {"foo", "Zm9v"},
                                           {"foob", "Zm9vYg=="},
                                           {"fooba", "Zm9vYmE="},
                                           {"foobar", "Zm9vYmFy"}};
  for (size_t i = 0; i < sizeof VECTORS / sizeof VECTORS[0]; i++) {
    size_t length;
    char *text = vampd_base64_encode(VECTORS[i][0], strlen(VECTORS[i][0]), &length);
    assert_string_equal(text, VECTORS[i][1]);
    free(text);
  }
}

static void test_base64_is_strict(void **state) {
  (void)state;
  /* length, alphabet, padding inside, too much padding, stray bits, line breaks, the URL alphabet */
  static const char *const WRONG[] = {"Zg",   "Zg=",  "Z===", "====",   "Zg==Zg==", "Z g=",    "Zm9\n",
                                      "Zh==", "Zm9=", "Zm-_", "Zm9v\n", "=m9v",     "Zm8=AAAA"};
  for (size_t i = 0; i < sizeof WRONG / sizeof WRONG[0]; i++) {
    void *data = NULL;
    size_t size;
    struct vamp_error error = {0};
    int status = vampd_base64_decode(WRONG[i], strlen(WRONG[i]), &data, &size, &error);
    if (status != VAMP_INVALID) {
      fail_msg("\"%s\" was accepted", WRONG[i]);
    }
    assert_null(data);
    assert_true(strlen(error.message) > 0);
  }
}

/* ---- JSON ------------------------------------------------------------------------------------------------
 */

static int parse(const char *text, size_t size, struct vamp_error *error) {
  json_t *value = NULL;
  int status = vampd_json_parse(text, size, "The test", &value, error);
  assert_true((status == VAMP_OK) == (value != NULL));
  json_decref(value);
  return status;
}

static void test_json_accepts_and_rejects(void **state) {
  (void)state;
  struct vamp_error error = {0};
  assert_int_equal(parse("{\"a\": [1, \"]]]{{{\\\"\"]}", 22, &error), VAMP_OK);
  static const char *const WRONG[] = {"",    "{",    "{\"a\":1,\"a\":2}", "[1,]",    "{} {}",
                                      "nul", "\x01", "\"\xff\"",          "[1e999]", "{\"a\" 1}"};
  for (size_t i = 0; i < sizeof WRONG / sizeof WRONG[0]; i++) {
    if (parse(WRONG[i], strlen(WRONG[i]), &error) != VAMP_INVALID) {
      fail_msg("\"%s\" was accepted", WRONG[i]);
    }
  }
}

static void test_json_bounds(void **state) {
  (void)state;
  struct vamp_error error = {0};
  char deep[2 * VAMPD_JSON_MAX_DEPTH + 2];
  int most = VAMPD_JSON_MAX_DEPTH;
  memset(deep, '[', (size_t)most);
  memset(deep + most, ']', (size_t)most);
  assert_int_equal(parse(deep, 2 * (size_t)most, &error), VAMP_OK);
  memset(deep, '[', (size_t)most + 1);
  memset(deep + most + 1, ']', (size_t)most + 1);
  assert_int_equal(parse(deep, 2 * ((size_t)most + 1), &error), VAMP_LIMIT);

  size_t size = 3 * VAMPD_JSON_MAX_CONTAINERS + 1;
  char *wide = malloc(size);
  assert_non_null(wide);
  wide[0] = '[';
  for (size_t i = 1; i + 1 < size; i += 3) {
    memcpy(wide + i, "{},", 3);
  }
  wide[size - 1] = ']';
  assert_int_equal(parse(wide, size, &error), VAMP_LIMIT);
  free(wide);

  size = 2 * (size_t)VAMPD_JSON_MAX_VALUES + 3;
  char *many = malloc(size);
  assert_non_null(many);
  many[0] = '[';
  for (size_t i = 1; i + 2 < size; i += 2) {
    memcpy(many + i, "1,", 2);
  }
  many[size - 2] = '1';
  many[size - 1] = ']';
  assert_int_equal(parse(many, size, &error), VAMP_LIMIT);
  free(many);
}

static void test_json_text_survives_cut_utf8(void **state) {
  (void)state;
  json_t *text = vampd_json_text("a\xc3");
  assert_string_equal(json_string_value(text), "a?");
  json_decref(text);
  text = vampd_json_text("\xc3\xa4");
  assert_string_equal(json_string_value(text), "\xc3\xa4");
  json_decref(text);
}

/* ---- multipart -------------------------------------------------------------------------------------------
 */

#define FORM "multipart/form-data; boundary=XX"

static int split(const char *type, const char *body, struct vampd_part *parts, int *count) {
  struct vamp_error error = {0};
  int status = vampd_multipart_parse(type, body, strlen(body), parts, count, &error);
  assert_true(status == VAMP_OK || strlen(error.message) > 0);
  return status;
}

static void test_multipart_splits(void **state) {
  (void)state;
  struct vampd_part parts[VAMPD_MULTIPART_MAX_PARTS];
  int count;
  static const char BODY[] =
      "preamble\r\n--XX\r\n"
      "Content-Type: text/plain\r\n"
      "content-disposition: form-data; filename=\"a;name=b\"; name=\"au\\\"dio\"\r\n\r\n"
      "one\r\n--X\r\ntwo\r\n"
      "--XX \t\r\nContent-Disposition: form-data; name=params\r\n\r\n"
      "\r\n--XX--\r\nepilogue";
  assert_int_equal(split(FORM, BODY, parts, &count), VAMP_OK);
  assert_int_equal(count, 2);
  assert_string_equal(parts[0].name, "au\"dio");
  assert_int_equal(parts[0].size, 13);
  assert_memory_equal(parts[0].data, "one\r\n--X\r\ntwo", 13);
  assert_string_equal(parts[1].name, "params");
  assert_int_equal(parts[1].size, 0);
}

static void test_multipart_boundaries(void **state) {
  (void)state;
  struct vampd_part parts[VAMPD_MULTIPART_MAX_PARTS];
  int count;
  static const char BODY[] = "--a b\r\nContent-Disposition: form-data; name=\"x\"\r\n\r\n1\r\n--a b--";
  assert_int_equal(split("Multipart/Form-Data; charset=x; Boundary=\"a b\"", BODY, parts, &count), VAMP_OK);
  assert_int_equal(count, 1);
  assert_int_equal(parts[0].size, 1);
  assert_int_equal(split("multipart/form-data", BODY, parts, &count), VAMP_INVALID);
  assert_int_equal(split("multipart/form-data; boundary=", BODY, parts, &count), VAMP_INVALID);
  assert_int_equal(split("multipart/form-data; boundary=\"a b", BODY, parts, &count), VAMP_INVALID);
  char type[200] = "multipart/form-data; boundary=";
  memset(type + strlen(type), 'x', 71);
  assert_int_equal(split(type, BODY, parts, &count), VAMP_INVALID);
}

static void test_multipart_refuses_broken_framing(void **state) {
  (void)state;
  struct vampd_part parts[VAMPD_MULTIPART_MAX_PARTS];
  int count;
  static const char *const WRONG[] = {
      "",
      "--X",
      "--XX",
      "--XX\r\n",
      "--XXY\r\n",
      "--XX\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\ncut off",
      "--XX\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\ncut off\r\n--XX",
      "--XX\r\nContent-Disposition: form-data; name=\"a\"\r\n",
      "--XX\r\nContent-Disposition: form-data\r\n\r\nnameless\r\n--XX--",
      "--XX\r\nContent-Disposition: form-data; name=\"\"\r\n\r\nempty\r\n--XX--",
      "--XX\r\n\r\n\r\nno header\r\n--XX--",
      "--XX\r\nContent-Disposition: form-data; name=\"a\r\n\r\nopen quote\r\n--XX--",
  };
  for (size_t i = 0; i < sizeof WRONG / sizeof WRONG[0]; i++) {
    if (split(FORM, WRONG[i], parts, &count) != VAMP_INVALID) {
      fail_msg("body %zu was accepted", i);
    }
  }
  static char many[8192];
  for (int i = 0; i <= VAMPD_MULTIPART_MAX_PARTS; i++) {
    strcat(many, "--XX\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\n1\r\n");
  }
  strcat(many, "--XX--");
  assert_int_equal(split(FORM, many, parts, &count), VAMP_LIMIT);
  assert_int_equal(split(FORM, "--XX--", parts, &count), VAMP_OK);
  assert_int_equal(count, 0);
}

/* ---- negotiation -----------------------------------------------------------------------------------------
 */

static void test_negotiate(void **state) {
  (void)state;
  static const char *const OFFERS[] = {"audio/wav", "audio/flac", "application/json", NULL};
  static const struct {
    const char *accept;
    int index;
  } CASES[] = {
      {NULL, 0},
      {"", 0},
      {"*/*", 0},
      {"audio/*", 0},
      {"application/json", 2},
      {"APPLICATION/JSON; charset=utf-8", 2},
      {"application/*", 2},
      {"audio/x-wav", 0},
      {"audio/flac, audio/wav;q=0.5", 1},
      {"audio/wav;q=0.1, application/json;q=0.2, */*;q=0", 2},
      {"audio/wav;q=0, */*;q=0.1", 1},
      {"text/html", -1},
      {"*/*;q=0", -1},
      {"nonsense, application/json", 2},
      {"audio/wav;q=2", -1},
      {"audio/wav;q=nan", -1},
      {"audio", -1},
  };
  for (size_t i = 0; i < sizeof CASES / sizeof CASES[0]; i++) {
    int index = vampd_negotiate(CASES[i].accept, OFFERS);
    if (index != CASES[i].index) {
      fail_msg("Accept: %s chose %d instead of %d", CASES[i].accept ? CASES[i].accept : "(none)", index,
               CASES[i].index);
    }
  }
  assert_true(vampd_media_type_is("Application/JSON ; charset=utf-8", "application/json"));
  assert_false(vampd_media_type_is("application/jsonx", "application/json"));
  assert_false(vampd_media_type_is(NULL, "application/json"));
}

/* ---- routes and problems ---------------------------------------------------------------------------------
 */

static void test_router(void **state) {
  (void)state;
  char id[VAMPD_ID_SIZE], allowed[64];
  assert_non_null(vampd_router_find("POST", "/v1/vamp", true, id, allowed));
  assert_string_equal(id, "");
  assert_ptr_equal(vampd_router_find("HEAD", "/healthz", true, id, allowed),
                   vampd_router_find("GET", "/healthz", true, id, allowed));
  assert_null(vampd_router_find("GET", "/v1/vamp", true, id, allowed));
  assert_string_equal(allowed, "POST");
  assert_null(vampd_router_find("DELETE", "/healthz", true, id, allowed));
  assert_string_equal(allowed, "GET, HEAD");
  assert_null(vampd_router_find("GET", "/v1/vamp/", true, id, allowed));
  assert_string_equal(allowed, "");
}

static void test_router_page(void **state) {
  (void)state;
  static const char *const PATHS[] = {"/", "/web/page.js", "/web/vampd.js", "/web/style.css"};
  static const char *const OTHERS[] = {"/web/", "/web", "/web/page.jsx", "/web/{name}", "//", ""};
  char id[VAMPD_ID_SIZE], allowed[64];
  for (size_t i = 0; i < sizeof PATHS / sizeof PATHS[0]; i++) {
    const struct vampd_route *route = vampd_router_find("GET", PATHS[i], true, id, allowed);
    assert_true(route && route->open);
    assert_string_equal(id, "");
    assert_null(vampd_router_find("POST", PATHS[i], true, id, allowed));
    assert_string_equal(allowed, "GET, HEAD");
    assert_null(vampd_router_find("GET", PATHS[i], false, id, allowed));
    assert_string_equal(allowed, "");
  }
  for (size_t i = 0; i < sizeof OTHERS / sizeof OTHERS[0]; i++) {
    assert_null(vampd_router_find("GET", OTHERS[i], true, id, allowed));
    assert_string_equal(allowed, "");
  }
}

#define ID "0123456789abcdef01234567"

static void test_router_ids(void **state) {
  (void)state;
  static const char *const PATHS[] = {
      "/v1/jobs/" ID "/",
      "/v1/jobs/" ID "8",
      "/v1/jobs/0123456789abcdef0123456",
      "/v1/jobs/",
      "/v1/jobs/" ID "/nix",
      "/v1/jobs/0123456789ABCDEF01234567",
      "/v1/jobs/../../../../etc",
      "/v1/jobs//events",
      "/v1/jobs/0123456789abcdef0123456%",
      "/v1/jobs/" ID "/mask.pngx",
      "/v1/jobs/{id}",
      "/v1/jobs/0123456789abcdef0123456/events",
      "/v1/sweeps/" ID "/events",
      "/v1/jobs/0123456789abcdef012345//events",
  };
  char id[VAMPD_ID_SIZE], allowed[64];
  for (size_t i = 0; i < sizeof PATHS / sizeof PATHS[0]; i++) {
    assert_null(vampd_router_find("GET", PATHS[i], true, id, allowed));
    assert_string_equal(allowed, "");
    assert_string_equal(id, "");
  }
  const struct vampd_route *route = vampd_router_find("GET", "/v1/jobs/" ID, true, id, allowed);
  assert_string_equal(route->path, "/v1/jobs/{id}");
  assert_string_equal(id, ID);
  route = vampd_router_find("DELETE", "/v1/jobs/" ID, true, id, allowed);
  assert_string_equal(route->method, "DELETE");
  route = vampd_router_find("GET", "/v1/jobs/" ID "/mask.png", true, id, allowed);
  assert_string_equal(route->path, "/v1/jobs/{id}/mask.png");
  assert_string_equal(id, ID);
  route = vampd_router_find("GET", "/v1/sweeps/" ID "/archive.zip", true, id, allowed);
  assert_string_equal(route->path, "/v1/sweeps/{id}/archive.zip");
  assert_null(vampd_router_find("PUT", "/v1/jobs/" ID, true, id, allowed));
  assert_string_equal(allowed, "GET, HEAD, DELETE");
  assert_string_equal(id, "");
}

static void test_problems(void **state) {
  (void)state;
  struct vampd_answer answer = {0};
  struct vamp_error error;
  vamp_fail_field(&error, VAMP_INVALID, "/mask/mask_ratio", "mask_ratio is \"\xff\".");
  vampd_answer_error(&answer, &error, VAMPD_PROBLEM_INVALID_FIELD);
  assert_int_equal(answer.status, 400);
  assert_string_equal(answer.media_type, "application/problem+json");
  json_t *value = json_loadb(answer.body, answer.size, 0, NULL);
  assert_string_equal(json_string_value(json_object_get(value, "type")), "/problems/invalid-field");
  assert_string_equal(json_string_value(json_object_get(value, "pointer")), "/mask/mask_ratio");
  assert_int_equal(json_integer_value(json_object_get(value, "status")), 400);
  json_decref(value);
  vamp_fail(&error, VAMP_LIMIT, "Too long.");
  vampd_answer_error(&answer, &error, VAMPD_PROBLEM_INVALID_FIELD);
  assert_int_equal(answer.status, 413);
  vamp_fail(&error, VAMP_BUSY, "Full.");
  vampd_answer_error(&answer, &error, VAMPD_PROBLEM_INVALID_FIELD);
  assert_int_equal(answer.status, 429);
  vampd_answer_json(&answer, 200, NULL);
  assert_int_equal(answer.status, 503);
  vampd_answer_free(&answer);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_base64_round_trip),
      cmocka_unit_test(test_base64_vectors),
      cmocka_unit_test(test_base64_is_strict),
      cmocka_unit_test(test_json_accepts_and_rejects),
      cmocka_unit_test(test_json_bounds),
      cmocka_unit_test(test_json_text_survives_cut_utf8),
      cmocka_unit_test(test_multipart_splits),
      cmocka_unit_test(test_multipart_boundaries),
      cmocka_unit_test(test_multipart_refuses_broken_framing),
      cmocka_unit_test(test_negotiate),
      cmocka_unit_test(test_router),
      cmocka_unit_test(test_router_page),
      cmocka_unit_test(test_router_ids),
      cmocka_unit_test(test_problems),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
