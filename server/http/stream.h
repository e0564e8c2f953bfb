/*
 * The body of an answer that is written while it is sent, for event streams: a bounded pipe from whoever
 * knows something to the connection.
 *
 * The writer and the connection hold it, and the exchange while it may break it; it is freed when all have
 * let go. The writer never waits for a slow reader: what does not fit is refused, and the writer decides
 * whether that may be left out or whether the stream has to end.
 *
 * While there is nothing to send, the connection is suspended: a thousand idle listeners cost nothing.
 */
#ifndef VAMPD_STREAM_H
#define VAMPD_STREAM_H

#include <stdbool.h>
#include <stddef.h>

#define VAMPD_STREAM_CAPACITY ((size_t)32 << 10) /* bytes not sent yet */

struct MHD_Connection;
struct MHD_Response;
struct vampd_stream;

/* With one reference for the writer and one for the connection. NULL when out of memory. */
struct vampd_stream *vampd_stream_create(void);

/* ---- the writer; any thread --------------------------------------------------------------------------- */

/* All of it or nothing: false where it does not fit, or nobody reads any more. */
bool vampd_stream_write(struct vampd_stream *stream, const char *text, size_t size);
/* The body ends after what has been written. */
void vampd_stream_end(struct vampd_stream *stream);
/* Whether the reader has gone, or the stream was ended. */
bool vampd_stream_closed(struct vampd_stream *stream);
void vampd_stream_release(struct vampd_stream *stream); /* the writer's reference */

/* One reference more, for whoever may want to break it; to be released like the writer's. Any thread that has
 * one. */
void vampd_stream_keep(struct vampd_stream *stream);

/* ---- the connection ----------------------------------------------------------------------------------- */

/* A response that sends it over `connection`; takes the connection's reference, also where it fails (NULL).
 */
struct MHD_Response *vampd_stream_response(struct vampd_stream *stream, struct MHD_Connection *connection);
/* The client has hung up: wakes the connection, so that it sees it. Any thread. */
void vampd_stream_break(struct vampd_stream *stream);

#endif
