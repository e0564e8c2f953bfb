/*
 * Fuzz target: the header fields that somebody reads, and the query.
 *
 * The first byte chooses the field, the rest is its value, as a text. (The query itself is taken apart by
 * libmicrohttpd; what is left of it are short texts.) What must hold stands in each function.
 *
 *   make fuzz
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "server/access/access.h"
#include "server/access/cors.h"
#include "server/access/keys.h"
#include "server/http/json.h"
#include "server/http/negotiate.h"
#include "server/http/range.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(bool condition) {
  if (!condition) {
    abort();
  }
}

static void fuzz_range(const char *text) {
  const int64_t sizes[] = {0, 1, 1000, INT64_MAX / 2};
  for (int i = 0; i < 4; i++) {
    int64_t first = -1, last = -1;
    enum vampd_range range = vampd_range_parse(text, sizes[i], &first, &last);
    require(range != VAMPD_RANGE_PART || (first >= 0 && first <= last && last < sizes[i]));
  }
}

static void fuzz_etags(const char *text) {
  static const char TAG[] = "\"0123456789abcdef\"";
  bool found = vampd_etag_matches(text, TAG);
  require(!found || strchr(text, '*') || strstr(text, TAG));
}

static void fuzz_accept(const char *text) {
  static const char *const OFFERS[] = {"audio/wav", "audio/flac", "application/json", "multipart/mixed",
                                       NULL};
  int chosen = vampd_negotiate(text, OFFERS);
  require(chosen >= -1 && chosen < 4);
  for (int i = 0; OFFERS[i]; i++) {
    vampd_media_type_is(text, OFFERS[i]);
  }
}

/* As a list of the configuration, and as an Origin. Who is allowed is in the list. */
static void fuzz_origins(const char *text) {
  struct vampd_cors *cors = NULL;
  struct vampd_cors_header headers[VAMPD_CORS_MAX_HEADERS];
  struct vamp_error error = {0};
  if (vampd_cors_create(text, &cors, &error) == VAMP_OK) {
    vampd_cors_allows(cors, "https://studio.example.org");
    vampd_cors_free(cors);
  } else {
    require(error.message[0] != '\0');
  }
  require(vampd_cors_create("https://studio.example.org,null", &cors, &error) == VAMP_OK);
  bool allowed = vampd_cors_allows(cors, text);
  require(!allowed || strcmp(text, "https://studio.example.org") == 0 || strcmp(text, "null") == 0);
  int count = vampd_cors_headers(cors, text, true, headers);
  require(count >= 0 && count <= VAMPD_CORS_MAX_HEADERS);
  vampd_cors_free(cors);
}

/* One key opens the door, and nothing else does. */
static void fuzz_authorization(const char *text) {
  static const char KEY[] = "vk_test";
  struct vampd_key key = {.name = "lab", .allowance = {.priority = VAMPD_PRIORITY_DEFAULT}};
  struct vampd_keys keys = {1, &key};
  struct vampd_access *access = NULL;
  struct vampd_caller *caller = NULL;
  struct vamp_error error = {0};
  vampd_key_hash(KEY, sizeof KEY - 1, key.hash);
  require(vampd_access_create(&access, &error) == VAMP_OK);
  require(vampd_access_load(access, &keys, &error) == VAMP_OK);
  bool open = vampd_access_identify(access, text, &caller, &error) == VAMP_OK;
  require(open ? strstr(text, KEY) != NULL && caller != NULL : error.message[0] != '\0');
  vampd_access_free(access);
}

/* Texts of a query, and of anything else that goes back in a message, are JSON in the end. */
static void fuzz_text(const char *text) {
  json_t *json = vampd_json_text(text);
  require(json != NULL);
  char *dumped = json_dumps(json, JSON_ENCODE_ANY);
  require(dumped != NULL);
  free(dumped);
  json_decref(json);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  static void (*const FIELDS[])(const char *) = {fuzz_range,   fuzz_etags,         fuzz_accept,
                                                 fuzz_origins, fuzz_authorization, fuzz_text};
  if (size > 0) {
    char *text = malloc(size);
    require(text != NULL);
    memcpy(text, data + 1, size - 1);
    text[size - 1] = '\0';
    FIELDS[data[0] % (sizeof FIELDS / sizeof FIELDS[0])](text);
    free(text);
  }
  return 0;
}
