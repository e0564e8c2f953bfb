/*
 * What the header lines of a request decide: see check.h.
 *
 * In this order: where its body ends, what it is for, whether a web page may ask, who asks, and what is
 * asked. The first that says no answers; whoever may not come in learns nothing of what is behind the door.
 */
#include "server/http/check.h"

#include <microhttpd.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "server/http/json.h"
#include "server/http/negotiate.h"
#include "server/http/router.h"

#define ACCEPTED_TYPES "multipart/form-data or application/json"

static void refuse_unavailable(struct vampd_exchange *exchange, enum vampd_problem problem,
                               const char *detail) {
  vampd_answer_problem(&exchange->answer, problem, NULL, "%s", detail);
  exchange->answered = true;
}

bool vampd_check_refuse_entry(struct vampd_exchange *exchange, enum vampd_entry entry) {
  if (entry == VAMPD_CLOSED) {
    refuse_unavailable(exchange, VAMPD_PROBLEM_STOPPING, "The daemon is stopping and takes no new work.");
  } else if (entry == VAMPD_FULL) {
    vampd_answer_problem(&exchange->answer, VAMPD_PROBLEM_QUEUE_FULL, NULL,
                         "The queue is full. Try again later.");
    exchange->answered = true;
  }
  return entry != VAMPD_ENTERED;
}

static void refuse_accept(struct vampd_exchange *exchange) {
  char types[256] = "";
  size_t used = 0;
  for (const char *const *offer = exchange->route->offers; *offer && used < sizeof types; offer++) {
    used += (size_t)snprintf(types + used, sizeof types - used, "%s%s", used ? ", " : "", *offer);
  }
  vampd_answer_problem(&exchange->answer, VAMPD_PROBLEM_NOT_ACCEPTABLE, NULL,
                       "The Accept header admits none of what this answers with: %s.", types);
  exchange->answered = true;
}

/* What can be said about a request for a slow route from its headers. */
static void check_slow(struct vampd_exchange *exchange) {
  const struct vampd_route *route = exchange->route;
  if (!vampd_media_type_is(exchange->fields.content_type, "multipart/form-data") &&
      !vampd_media_type_is(exchange->fields.content_type, "application/json")) {
    vampd_answer_problem(&exchange->answer, VAMPD_PROBLEM_UNSUPPORTED_MEDIA_TYPE, NULL,
                         "The body must be %s, as its Content-Type says.", ACCEPTED_TYPES);
    vampd_answer_header(&exchange->answer, "Accept-Post", "multipart/form-data, application/json");
    exchange->answered = true;
  } else if (vampd_negotiate(exchange->fields.accept, route->offers) < 0) {
    refuse_accept(exchange);
  } else if (!vampd_check_refuse_entry(exchange, vampd_admission_look(&exchange->daemon->admission)) &&
             !exchange->daemon->ready) {
    refuse_unavailable(exchange, VAMPD_PROBLEM_NOT_READY, "The model is still loading.");
  }
}

/* A browser asks whether a page may send the request that it has in mind. */
static void answer_options(struct vampd_exchange *exchange, const char *allowed) {
  vampd_answer_bytes(&exchange->answer, 204, NULL, NULL, 0);
  vampd_answer_header(&exchange->answer, "Allow", "%s, OPTIONS", allowed);
  exchange->answered = true;
}

static void find_route(struct vampd_exchange *exchange, const char *method, const char *path) {
  char allowed[64];
  bool page = exchange->settings->options.page;
  exchange->route = vampd_router_find(method, path, page, exchange->target, allowed);
  if (!exchange->route && allowed[0] == '\0') {
    vampd_answer_problem(&exchange->answer, VAMPD_PROBLEM_NOT_FOUND, NULL,
                         "Nothing is served under this path; GET /openapi.json lists what is.");
    exchange->answered = true;
  } else if (!exchange->route && strcmp(method, "OPTIONS") == 0) {
    answer_options(exchange, allowed);
  } else if (!exchange->route) {
    vampd_answer_problem(&exchange->answer, VAMPD_PROBLEM_METHOD_NOT_ALLOWED, NULL,
                         "This path answers to %s.", allowed);
    vampd_answer_header(&exchange->answer, "Allow", "%s", allowed);
    exchange->answered = true;
  }
}

/* Whether "127.0.0.1:8765", "localhost" or "[::1]:8765" names this machine to itself. */
static bool is_local_name(const char *host) {
  size_t length = host[0] == '[' ? strcspn(host, "]") + 1 : strcspn(host, ":");
  static const char *const NAMES[] = {"localhost", "[::1]"};
  for (int i = 0; i < 2; i++) {
    if (strlen(NAMES[i]) == length && strncasecmp(host, NAMES[i], length) == 0) {
      return true;
    }
  }
  return strncmp(host, "127.", 4) == 0 && strspn(host, "0123456789.") == length;
}

/* Without keys, being on this machine is what opens the door, and any web page that is open in a browser here
 * is. So a page's requests are refused unless it is on the allow-list or came from here; and so is a name for
 * this machine that somebody else's name server gave it ("DNS rebinding"), under which a page would look as
 * if it came from here. */
static void check_page(struct vampd_exchange *exchange) {
  const char *host = MHD_lookup_connection_value(exchange->connection, MHD_HEADER_KIND, "Host");
  const char *origin = exchange->fields.origin;
  if (vampd_access_guarded(exchange->daemon->access) || exchange->daemon->options.allow_remote) {
    return;
  }
  const char *after = origin ? strstr(origin, "://") : NULL;
  bool own = after && host && strcmp(after + 3, host) == 0;
  if ((host && !is_local_name(host)) ||
      (origin && !own && !vampd_cors_allows(exchange->settings->cors, origin))) {
    vampd_answer_problem(&exchange->answer, VAMPD_PROBLEM_FORBIDDEN_ORIGIN, NULL,
                         "Without keys, only this machine may ask, and no web page that is not listed in "
                         "--cors-origins.");
    exchange->answered = true;
  }
}

/* Who asks, and may they ask now? */
static void check_caller(struct vampd_exchange *exchange, const char *authorization) {
  struct vamp_error error = {0};
  int retry_after = 0;
  if (vampd_access_identify(exchange->daemon->access, authorization, &exchange->caller, &error) != VAMP_OK) {
    vampd_answer_problem(&exchange->answer, VAMPD_PROBLEM_UNAUTHORIZED, NULL, "%s", error.message);
    vampd_answer_header(&exchange->answer, "WWW-Authenticate", "Bearer");
    exchange->answered = true;
  } else if (vampd_access_request(exchange->caller, &retry_after, &error) != VAMP_OK) {
    vampd_answer_problem(&exchange->answer, VAMPD_PROBLEM_RATE_LIMITED, NULL, "%s", error.message);
    exchange->answer.retry_after = retry_after;
    exchange->answered = true;
  }
}

/* One parameter of the query, from libmicrohttpd. */
static enum MHD_Result take_parameter(void *context, enum MHD_ValueKind kind, const char *name,
                                      const char *value) {
  (void)kind;
  struct vampd_exchange *exchange = context;
  const char *const *known = exchange->route->query;
  while (known && *known && strcmp(*known, name) != 0) {
    known++;
  }
  char pointer[80];
  snprintf(pointer, sizeof pointer, "/query/%.64s", name);
  pointer[strcspn(pointer + 7, "/~") + 7] = '\0';
  if (!known || !*known) {
    vampd_answer_problem(&exchange->answer, VAMPD_PROBLEM_INVALID_FIELD, pointer,
                         "This path knows no parameter \"%s\" in its query.", name);
  } else if (!value || json_object_get(exchange->query, name)) {
    vampd_answer_problem(&exchange->answer, VAMPD_PROBLEM_INVALID_FIELD, pointer,
                         "The query must give \"%s\" once, with a value.", name);
  } else {
    json_object_set_new(exchange->query, name, vampd_json_text(value));
    return MHD_YES;
  }
  exchange->answered = true;
  return MHD_NO;
}

static enum MHD_Result count_length(void *context, enum MHD_ValueKind kind, const char *name,
                                    const char *value) {
  (void)kind;
  (void)value;
  *(int *)context += strcasecmp(name, "Content-Length") == 0 || strcasecmp(name, "Transfer-Encoding") == 0;
  return MHD_YES;
}

/* Two lengths of one body: whoever forwards requests may have believed the other, and then what we take for
 * the next request is a stranger's text ("request smuggling", RFC 9112, section 11.2). */
static void check_length(struct vampd_exchange *exchange) {
  int lengths = 0;
  MHD_get_connection_values(exchange->connection, MHD_HEADER_KIND, count_length, &lengths);
  if (lengths > 1) {
    vampd_answer_problem(&exchange->answer, VAMPD_PROBLEM_INVALID_BODY, NULL,
                         "The request tells the length of its body more than once.");
    exchange->answered = exchange->ambiguous = true;
  }
}

void vampd_check_request(struct vampd_exchange *exchange, const char *method, const char *path) {
  check_length(exchange);
  if (!exchange->answered) {
    find_route(exchange, method, path);
  }
  if (!exchange->answered) {
    check_page(exchange);
  }
  if (!exchange->answered && !exchange->route->open) {
    check_caller(exchange,
                 MHD_lookup_connection_value(exchange->connection, MHD_HEADER_KIND, "Authorization"));
  }
  if (!exchange->answered) {
    MHD_get_connection_values(exchange->connection, MHD_GET_ARGUMENT_KIND, take_parameter, exchange);
  }
  if (!exchange->answered && exchange->route->kind == VAMPD_ROUTE_WORK) {
    check_slow(exchange);
  }
}
