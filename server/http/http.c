/*
 * The glue to libmicrohttpd: see http.h.
 *
 * libmicrohttpd calls handle() once when the headers are there, once for every piece of the body, once
 * when the body is complete, and, after a suspended connection was resumed, once more. An answer can only
 * be queued at the first call and at the last ones; so a body that turns out too long while it arrives is
 * thrown away to its end before it is refused.
 *
 * The pool has two threads: all they do is copy bytes, and what takes time is done by the workers.
 */
#include "server/http/http.h"

#include <arpa/inet.h>
#include <errno.h>
#include <microhttpd.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "server/http/exchange.h"
#include "server/http/range.h"
#include "server/http/router.h"
#include "server/http/stream.h"
#include "server/log.h"

#define POOL_THREADS 2
#define HEADER_BYTES ((size_t)32 << 10) /* all header lines of a request, and the buffer for a body */
#define SLOWEST_READER (16.0 * 1024)    /* bytes a second */

static void log_exchange(const struct vampd_exchange *exchange, enum MHD_RequestTerminationCode code) {
  bool early = code != MHD_REQUEST_TERMINATED_COMPLETED_OK || exchange->abandoned;
  double seconds = vampd_now() - exchange->started;
  const char *key = exchange->caller ? vampd_caller_name(exchange->caller) : "";
  vampd_log_event("request", VAMPD_LOG_TEXT("id", exchange->id), VAMPD_LOG_TEXT("method", exchange->method),
                  VAMPD_LOG_TEXT("path", exchange->path),
                  VAMPD_LOG_INTEGER("status", exchange->answer.status),
                  VAMPD_LOG_INTEGER("in", exchange->received), VAMPD_LOG_INTEGER("out", exchange->sent),
                  VAMPD_LOG_NUMBER("seconds", seconds), VAMPD_LOG_TEXT("key", key[0] ? key : NULL),
                  VAMPD_LOG_TEXT("end", early ? "abandoned" : NULL));
  vampd_metrics_request(exchange->daemon->metrics, exchange->route ? exchange->route->path : "",
                        exchange->answer.status, seconds);
}

static void completed(void *context, struct MHD_Connection *connection, void **slot,
                      enum MHD_RequestTerminationCode code) {
  (void)connection;
  struct vampd *daemon = context;
  struct vampd_exchange *exchange = *slot;
  if (!exchange) {
    return;
  }
  /* First, for until then the watch may look at the exchange. */
  if (exchange->stream) {
    vampd_watch_wait(daemon->watch, exchange->peer, NULL);
    atomic_fetch_sub(&daemon->streams, 1);
  }
  log_exchange(exchange, code);
  /* The connection may stay for another request, whose header lines again have a time to arrive in. */
  vampd_watch_deadline(daemon->watch, exchange->peer, 2.0 * daemon->options.timeout);
  *slot = NULL;
  vampd_exchange_free(exchange);
}

static void connected(void *context, struct MHD_Connection *connection, void **slot,
                      enum MHD_ConnectionNotificationCode code) {
  struct vampd *daemon = context;
  if (code == MHD_CONNECTION_NOTIFY_STARTED) {
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CONNECTION_FD);
    *slot = info ? vampd_watch_add(daemon->watch, info->connect_fd) : NULL;
    if (*slot) {
      vampd_watch_deadline(daemon->watch, *slot, 2.0 * daemon->options.timeout);
    }
  } else if (*slot) {
    vampd_watch_remove(daemon->watch, *slot);
    *slot = NULL;
  }
}

static struct vampd_peer *peer_of(struct MHD_Connection *connection) {
  const union MHD_ConnectionInfo *info =
      MHD_get_connection_info(connection, MHD_CONNECTION_INFO_SOCKET_CONTEXT);
  return info ? info->socket_context : NULL;
}

static void add_cors(struct MHD_Response *response, const struct vampd_exchange *exchange) {
  struct vampd_cors_header headers[VAMPD_CORS_MAX_HEADERS];
  bool preflight = strcmp(exchange->method, "OPTIONS") == 0;
  int count = vampd_cors_headers(exchange->settings->cors, exchange->fields.origin, preflight, headers);
  for (int i = 0; i < count; i++) {
    MHD_add_response_header(response, headers[i].name, headers[i].value);
  }
}

static void add_headers(struct MHD_Response *response, const struct vampd_exchange *exchange) {
  const struct vampd_answer *answer = &exchange->answer;
  if (answer->media_type) {
    MHD_add_response_header(response, "Content-Type", answer->media_type);
  }
  MHD_add_response_header(response, "Vampd-Request-Id", exchange->id);
  MHD_add_response_header(response, "X-Content-Type-Options", "nosniff");
  for (int i = 0; i < answer->header_count; i++) {
    MHD_add_response_header(response, answer->headers[i].name, answer->headers[i].value);
  }
  if (answer->etag[0] != '\0') {
    MHD_add_response_header(response, "ETag", answer->etag);
  }
  if (answer->is_file) {
    MHD_add_response_header(response, "Accept-Ranges", "bytes");
  }
  if (answer->status == 429 || answer->status == 503) {
    char text[16];
    int seconds = answer->retry_after     ? answer->retry_after
                  : answer->status == 429 ? vampd_admission_retry_after(&exchange->daemon->admission)
                                          : 1;
    snprintf(text, sizeof text, "%d", seconds);
    MHD_add_response_header(response, "Retry-After", text);
  }
  add_cors(response, exchange);
  if (exchange->ambiguous || vampd_admission_closed(&exchange->daemon->admission)) {
    MHD_add_response_header(response, "Connection", "close");
  }
}

/* Whether the client has it already, as If-None-Match says: then the answer is 304 instead. */
static bool answer_not_modified(struct vampd_exchange *exchange) {
  struct vampd_answer *answer = &exchange->answer;
  const char *known = exchange->fields.if_none_match;
  if (answer->etag[0] == '\0' || !known || !vampd_etag_matches(known, answer->etag)) {
    return false;
  }
  char etag[sizeof answer->etag];
  memcpy(etag, answer->etag, sizeof etag);
  vampd_answer_bytes(answer, 304, answer->media_type, NULL, 0);
  memcpy(answer->etag, etag, sizeof etag);
  return true;
}

/* What of a file is asked for: sets the answer's status and headers, and returns where it begins. */
static int64_t choose_range(struct vampd_exchange *exchange) {
  struct vampd_answer *answer = &exchange->answer;
  const struct vampd_fields *fields = &exchange->fields;
  /* If-Range: the range only where the tag is still the same; ours never changes, a date is never known. */
  bool same = !fields->if_range || strcmp(fields->if_range, answer->etag) == 0;
  bool asked = same && strcmp(exchange->method, "GET") == 0; /* RFC 9110, section 14.2 */
  int64_t size = (int64_t)answer->size, first = 0, last = 0;
  switch (vampd_range_parse(asked ? fields->range : NULL, size, &first, &last)) {
  case VAMPD_RANGE_WHOLE:
    return 0;
  case VAMPD_RANGE_PART:
    answer->status = 206;
    answer->size = (size_t)(last - first + 1);
    vampd_answer_header(answer, "Content-Range", "bytes %lld-%lld/%lld", (long long)first, (long long)last,
                        (long long)size);
    return first;
  case VAMPD_RANGE_UNSATISFIABLE:
    break;
  }
  vampd_answer_problem(answer, VAMPD_PROBLEM_RANGE_NOT_SATISFIABLE, NULL,
                       "The range begins behind the end: there are %lld bytes.", (long long)size);
  vampd_answer_header(answer, "Content-Range", "bytes */%lld", (long long)size);
  return 0;
}

static struct MHD_Response *make_response(struct vampd_exchange *exchange) {
  struct vampd_answer *answer = &exchange->answer;
  int64_t offset = !answer_not_modified(exchange) && answer->is_file ? choose_range(exchange) : 0;
  if (answer->is_file) {
    struct MHD_Response *response =
        MHD_create_response_from_fd_at_offset64(answer->size, answer->file, (uint64_t)offset);
    if (response) {
      answer->file = -1; /* the response closes it */
    }
    return response;
  }
  if (answer->stream) {
    struct vampd_stream *stream = answer->stream;
    answer->stream = NULL;
    vampd_exchange_streams(exchange, stream);
    return vampd_stream_response(stream, exchange->connection);
  }
  bool borrowed = answer->borrowed || answer->size == 0;
  struct MHD_Response *response =
      MHD_create_response_from_buffer(answer->size, answer->size ? answer->body : (void *)"",
                                      borrowed ? MHD_RESPMEM_PERSISTENT : MHD_RESPMEM_MUST_FREE);
  if (response && !borrowed) {
    answer->body = NULL; /* the response frees it */
  }
  return response;
}

static enum MHD_Result send_answer(struct vampd_exchange *exchange) {
  struct vampd_answer *answer = &exchange->answer;
  bool streams = answer->stream != NULL;
  struct MHD_Response *response = make_response(exchange);
  if (!response) {
    return MHD_NO;
  }
  exchange->sent = answer->size;
  if (!streams) {
    vampd_watch_deadline(exchange->daemon->watch, exchange->peer,
                         exchange->settings->options.timeout + (double)answer->size / SLOWEST_READER);
  }
  add_headers(response, exchange);
  enum MHD_Result result = MHD_queue_response(exchange->connection, (unsigned int)answer->status, response);
  MHD_destroy_response(response);
  return result;
}

/* Whether an answer that is known before the body must not wait for it: see exchange.c, "Refusing". */
static bool must_answer_at_once(const struct vampd_exchange *exchange) {
  return MHD_lookup_connection_value(exchange->connection, MHD_HEADER_KIND, "Expect") ||
         exchange->answer.status == 413 || exchange->ambiguous;
}

static enum MHD_Result handle(void *context, struct MHD_Connection *connection, const char *url,
                              const char *method, const char *version, const char *data, size_t *size,
                              void **slot) {
  (void)version;
  struct vampd *daemon = context;
  struct vampd_exchange *exchange = *slot;
  if (!exchange) {
    struct vampd_peer *peer = peer_of(connection);
    exchange = peer ? vampd_exchange_create(daemon, connection, peer, method, url) : NULL;
    *slot = exchange;
    if (!exchange) {
      return MHD_NO;
    }
    return exchange->answered && must_answer_at_once(exchange) ? send_answer(exchange) : MHD_YES;
  }
  if (*size > 0) {
    bool more = vampd_exchange_receive(exchange, data, *size);
    *size = 0;
    return more ? MHD_YES : MHD_NO;
  }
  if (!exchange->answered) {
    vampd_exchange_dispatch(exchange);
    if (!exchange->answered) {
      return MHD_YES; /* suspended: handle() is called again when it is resumed */
    }
  }
  return send_answer(exchange);
}

__attribute__((format(printf, 2, 0))) static void log_message(void *context, const char *format,
                                                              va_list arguments) {
  (void)context;
  char message[512];
  vsnprintf(message, sizeof message, format, arguments);
  message[strcspn(message, "\r\n")] = '\0';
  vampd_log("http: %s", message);
}

static bool is_loopback(const struct sockaddr *address) {
  if (address->sa_family == AF_INET6) {
    return IN6_IS_ADDR_LOOPBACK(&((const struct sockaddr_in6 *)address)->sin6_addr);
  }
  return (ntohl(((const struct sockaddr_in *)address)->sin_addr.s_addr) >> 24) == 127;
}

static int port_of(int socket) {
  union {
    struct sockaddr any;
    struct sockaddr_in four;
    struct sockaddr_in6 six;
  } bound = {.six = {0}};
  socklen_t length = sizeof bound;
  if (getsockname(socket, &bound.any, &length) != 0) {
    return 0;
  }
  return ntohs(bound.any.sa_family == AF_INET6 ? bound.six.sin6_port : bound.four.sin_port);
}

/* A listening socket at one address, or -1 with errno. */
static int listen_at(const struct addrinfo *address) {
  int made = socket(address->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  int one = 1;
  if (made < 0) {
    return -1;
  }
  if (setsockopt(made, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one) != 0 ||
      bind(made, address->ai_addr, address->ai_addrlen) != 0 || listen(made, 128) != 0) {
    int why = errno;
    close(made);
    errno = why;
    return -1;
  }
  return made;
}

int vampd_http_listen(const struct vampd_options *options, int *port, struct vamp_error *error) {
  char service[8];
  snprintf(service, sizeof service, "%d", options->port);
  struct addrinfo wanted = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE | AI_NUMERICSERV};
  struct addrinfo *address = NULL;
  /* A name other than "localhost" could resolve to anything at any time: numbers only. */
  if (strcmp(options->host, "localhost") != 0) {
    wanted.ai_flags |= AI_NUMERICHOST;
  }
  if (getaddrinfo(options->host, service, &wanted, &address) != 0) {
    return vamp_fail(error, VAMP_INVALID, "--host takes a numeric address or localhost, not \"%s\".",
                     options->host);
  }
  int result;
  /* settings.c has refused numbers of this kind already; "localhost" may be anything. */
  if (!options->allow_remote && !options->keys && !is_loopback(address->ai_addr)) {
    result = vamp_fail(error, VAMP_INVALID,
                       "%s is not a loopback address, and there is no key file (--keys).", options->host);
  } else if ((result = listen_at(address)) < 0) {
    result = vamp_fail(error, VAMP_IO, "Cannot listen on %s port %d: %s.", options->host, options->port,
                       strerror(errno));
  } else {
    *port = port_of(result);
  }
  freeaddrinfo(address);
  return result;
}

int vampd_http_start(struct vampd *daemon, int socket, struct vamp_error *error) {
  const struct vampd_options *options = &daemon->options;
  daemon->http = MHD_start_daemon(
      MHD_USE_EPOLL_INTERNAL_THREAD | MHD_ALLOW_SUSPEND_RESUME | MHD_USE_ERROR_LOG, 0, NULL, NULL, handle,
      daemon, MHD_OPTION_EXTERNAL_LOGGER, log_message, NULL, MHD_OPTION_LISTEN_SOCKET, socket,
      MHD_OPTION_THREAD_POOL_SIZE, (unsigned int)POOL_THREADS, MHD_OPTION_CONNECTION_LIMIT,
      (unsigned int)options->max_connections, MHD_OPTION_CONNECTION_TIMEOUT, (unsigned int)options->timeout,
      MHD_OPTION_CONNECTION_MEMORY_LIMIT, HEADER_BYTES, MHD_OPTION_STRICT_FOR_CLIENT, 1,
      MHD_OPTION_NOTIFY_COMPLETED, completed, daemon, MHD_OPTION_NOTIFY_CONNECTION, connected, daemon,
      MHD_OPTION_END);
  if (!daemon->http) {
    return vamp_fail(error, VAMP_IO, "The HTTP server could not be started.");
  }
  return VAMP_OK;
}

void vampd_http_quiesce(struct vampd *daemon) {
  MHD_socket listening = daemon->http ? MHD_quiesce_daemon(daemon->http) : MHD_INVALID_SOCKET;
  if (listening != MHD_INVALID_SOCKET) {
    close(listening);
  }
}

int vampd_http_connections(struct vampd *daemon) {
  const union MHD_DaemonInfo *info = MHD_get_daemon_info(daemon->http, MHD_DAEMON_INFO_CURRENT_CONNECTIONS);
  return info ? (int)info->num_connections : 0;
}

void vampd_http_stop(struct vampd *daemon) {
  if (daemon->http) {
    MHD_stop_daemon(daemon->http);
    daemon->http = NULL;
  }
}
