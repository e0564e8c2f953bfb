/*
 * The glue to libmicrohttpd.
 */
#ifndef VAMPD_HTTP_H
#define VAMPD_HTTP_H

#include "server/daemon.h"

/* Binds and listens on host:port: a loopback address, unless there are keys or `allow_remote`. *port is the
 * one that was bound. Returns a socket, or a negative status. */
int vampd_http_listen(const struct vampd_options *options, int *port, struct vamp_error *error);

/* Starts to serve on the socket, which it takes over on success. daemon->http is set. */
int vampd_http_start(struct vampd *daemon, int socket, struct vamp_error *error);

/* No new connections from now on; those there are go on. */
void vampd_http_quiesce(struct vampd *daemon);

/* Open connections. */
int vampd_http_connections(struct vampd *daemon);

/* Closes everything. Every suspended connection must have been resumed. */
void vampd_http_stop(struct vampd *daemon);

#endif
