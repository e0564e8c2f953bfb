/*
 * See stream.h.
 *
 * libmicrohttpd asks for the next piece on the connection's thread. Where there is none, it must not be told
 * "nothing yet" (it would ask again at once, and again): the connection is suspended instead, and resumed by
 * the next write. That both are decided under one lock is what makes it impossible to sleep through one.
 */
#include "server/http/stream.h"

#include <microhttpd.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#define BLOCK ((size_t)4 << 10) /* bytes asked for at a time */

struct vampd_stream {
  atomic_int references;
  pthread_mutex_t mutex; /* guards what follows */
  struct MHD_Connection *connection;
  bool asleep; /* the connection is suspended */
  bool ended, broken;
  size_t size;
  char bytes[VAMPD_STREAM_CAPACITY];
};

struct vampd_stream *vampd_stream_create(void) {
  struct vampd_stream *stream = calloc(1, sizeof *stream);
  if (stream) {
    atomic_init(&stream->references, 2);
    pthread_mutex_init(&stream->mutex, NULL);
  }
  return stream;
}

void vampd_stream_keep(struct vampd_stream *stream) {
  atomic_fetch_add(&stream->references, 1);
}

void vampd_stream_release(struct vampd_stream *stream) {
  if (atomic_fetch_sub(&stream->references, 1) == 1) {
    pthread_mutex_destroy(&stream->mutex);
    free(stream);
  }
}

static void wake(struct vampd_stream *stream) {
  if (stream->asleep) {
    stream->asleep = false;
    MHD_resume_connection(stream->connection);
  }
}

bool vampd_stream_write(struct vampd_stream *stream, const char *text, size_t size) {
  pthread_mutex_lock(&stream->mutex);
  bool fits = !stream->ended && !stream->broken && size <= sizeof stream->bytes - stream->size;
  if (fits) {
    memcpy(stream->bytes + stream->size, text, size);
    stream->size += size;
    wake(stream);
  }
  pthread_mutex_unlock(&stream->mutex);
  return fits;
}

void vampd_stream_end(struct vampd_stream *stream) {
  pthread_mutex_lock(&stream->mutex);
  stream->ended = true;
  wake(stream);
  pthread_mutex_unlock(&stream->mutex);
}

void vampd_stream_break(struct vampd_stream *stream) {
  pthread_mutex_lock(&stream->mutex);
  stream->broken = true;
  wake(stream);
  pthread_mutex_unlock(&stream->mutex);
}

bool vampd_stream_closed(struct vampd_stream *stream) {
  pthread_mutex_lock(&stream->mutex);
  bool closed = stream->ended || stream->broken;
  pthread_mutex_unlock(&stream->mutex);
  return closed;
}

/* libmicrohttpd wants more, on the connection's thread. */
static ssize_t give(void *context, uint64_t position, char *to, size_t most) {
  (void)position;
  struct vampd_stream *stream = context;
  ssize_t given = 0;
  pthread_mutex_lock(&stream->mutex);
  if (stream->ended && stream->size == 0) {
    given = MHD_CONTENT_READER_END_OF_STREAM;
  } else if (stream->broken) {
    given = MHD_CONTENT_READER_END_WITH_ERROR;
  } else if (stream->size > 0) {
    size_t size = stream->size < most ? stream->size : most;
    memcpy(to, stream->bytes, size);
    stream->size -= size;
    memmove(stream->bytes, stream->bytes + size, stream->size);
    given = (ssize_t)size;
  } else {
    stream->asleep = true;
    MHD_suspend_connection(stream->connection);
  }
  pthread_mutex_unlock(&stream->mutex);
  return given;
}

/* libmicrohttpd is done with the response. */
static void let_go(void *context) {
  struct vampd_stream *stream = context;
  pthread_mutex_lock(&stream->mutex);
  stream->broken = true;
  stream->asleep = false;
  pthread_mutex_unlock(&stream->mutex);
  vampd_stream_release(stream);
}

struct MHD_Response *vampd_stream_response(struct vampd_stream *stream, struct MHD_Connection *connection) {
  stream->connection = connection;
  struct MHD_Response *response =
      MHD_create_response_from_callback(MHD_SIZE_UNKNOWN, BLOCK, give, stream, let_go);
  if (!response) {
    let_go(stream);
  }
  return response;
}
