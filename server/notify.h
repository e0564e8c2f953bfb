/*
 * Telling a supervisor what the daemon is up to (the protocol of sd_notify(3)).
 *
 * With it `systemctl start` returns when the model is loaded and requests are answered, not when the process
 * was forked, and what depends on vampd starts after that. The protocol is one datagram to a socket whose
 * name is in the environment, so libsystemd, with all it links to, is not needed.
 */
#ifndef VAMPD_NOTIFY_H
#define VAMPD_NOTIFY_H

/* Sends one state: "READY=1", "STOPPING=1", "RELOADING=1". Does nothing where nobody listens. Any thread. */
void vampd_notify(const char *state);

#endif
