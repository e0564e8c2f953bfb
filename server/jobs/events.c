/* Server-sent events: see events.h. */
#include "server/jobs/events.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "server/http/stream.h"

struct vampd_listener {
  struct vampd_stream *stream;
  struct vampd_listener *next;
};

int64_t vampd_events_final(int attempts) {
  return (int64_t)(attempts + 1) * VAMPD_EVENTS_AN_ATTEMPT;
}

void vampd_events_begin(struct vampd_events *events, int attempt) {
  int64_t first = (int64_t)attempt * VAMPD_EVENTS_AN_ATTEMPT;
  events->last = events->last > first ? events->last : first;
}

int64_t vampd_events_number(struct vampd_events *events) {
  /* A job of so many steps that its numbers would run into the next attempt's repeats the last one. */
  bool full = events->last % VAMPD_EVENTS_AN_ATTEMPT == VAMPD_EVENTS_AN_ATTEMPT - 1;
  return full ? events->last : ++events->last;
}

bool vampd_events_heard(const struct vampd_events *events) {
  return events->listeners != NULL;
}

/* The text of an event; JSON in one line has no line break that would end the field. */
static char *render(int64_t number, const char *name, json_t *data, size_t *size) {
  char *json = data ? json_dumps(data, JSON_COMPACT | JSON_REAL_PRECISION(15)) : NULL;
  json_decref(data);
  size_t room = json ? strlen(json) + strlen(name) + 64 : 0;
  char *text = json ? malloc(room) : NULL;
  if (text) {
    *size = (size_t)snprintf(text, room, "id: %lld\nevent: %s\ndata: %s\n\n", (long long)number, name, json);
  }
  free(json);
  return text;
}

bool vampd_event_write(struct vampd_stream *stream, int64_t number, const char *name, json_t *data) {
  size_t size = 0;
  char *text = render(number, name, data, &size);
  bool written = text && vampd_stream_write(stream, text, size);
  free(text);
  return written;
}

/* Unlinks and frees those whose stream is closed. */
static void drop_closed(struct vampd_events *events) {
  struct vampd_listener **at = &events->listeners;
  while (*at) {
    struct vampd_listener *listener = *at;
    if (vampd_stream_closed(listener->stream)) {
      *at = listener->next;
      vampd_stream_release(listener->stream);
      free(listener);
    } else {
      at = &listener->next;
    }
  }
}

void vampd_events_tell(struct vampd_events *events, int64_t number, const char *name, json_t *data,
                       bool final) {
  size_t size = 0;
  char *text = events->listeners ? render(number, name, data, &size) : NULL;
  if (!events->listeners) {
    json_decref(data);
  }
  for (struct vampd_listener *at = events->listeners; at; at = at->next) {
    if (text) {
      vampd_stream_write(at->stream, text, size);
    }
    if (final) {
      vampd_stream_end(at->stream);
    }
  }
  free(text);
  drop_closed(events);
}

void vampd_events_keep_alive(struct vampd_events *events) {
  static const char COMMENT[] = ": keep-alive\n\n";
  for (struct vampd_listener *at = events->listeners; at; at = at->next) {
    vampd_stream_write(at->stream, COMMENT, sizeof COMMENT - 1);
  }
  drop_closed(events);
}

int vampd_events_listen(struct vampd_events *events, struct vampd_stream *stream, struct vamp_error *error) {
  struct vampd_listener *listener = malloc(sizeof *listener);
  if (!listener) {
    vampd_stream_end(stream);
    vampd_stream_release(stream);
    return vamp_fail(error, VAMP_MEMORY, "Out of memory for a listener.");
  }
  *listener = (struct vampd_listener){stream, events->listeners};
  events->listeners = listener;
  return VAMP_OK;
}

void vampd_events_end(struct vampd_events *events) {
  for (struct vampd_listener *at = events->listeners; at; at = at->next) {
    vampd_stream_end(at->stream);
  }
  drop_closed(events);
}
