/*
 * What the daemon and its decoder say to each other, and what the files of the decoder share.
 *
 * One socket (SOCK_SEQPACKET: a message is whole or not there) joins the two. The decoder says hello once;
 * after that the daemon's threads send requests, and nothing comes back that way. With a request come three
 * descriptors: the clip's bytes, the tray, and the writing end of a pipe. The tray is the memory in which the
 * child leaves a slip and, from VAMPD_TRAY_SAMPLES on, the samples.
 *
 * The daemon may look into the tray when nobody can write there any more, of which there are two proofs. One
 * is that the child is dead: the decoder then writes how it died into the pipe. The other is sooner by what
 * it takes a process to die, which is longer than a short clip takes to decode. The child unmaps the tray and
 * rings a bell (a futex in a page behind the clip), and the daemon seals the tray against writing, which the
 * kernel grants only where nobody has it mapped for that, and after which nobody ever can. The bell is a
 * mere hint and need not be believed: a child that rings it and keeps the tray is waited for like any other.
 * When the daemon has what it wants it closes the pipe, and the decoder kills what the child still is.
 */
#ifndef VAMPD_DECODE_INTERNAL_H
#define VAMPD_DECODE_INTERNAL_H

#include <stdint.h>

#include "server/decode/decode.h"

#define VAMPD_DECODER_SOCKET 3          /* the descriptor that the decoder finds the socket at */
#define VAMPD_TRAY_SAMPLES 65536        /* offset of the samples: a multiple of every page size */
#define VAMPD_TRAY_MARK 0x76616D7064ull /* of a slip that was written to its end */

struct vampd_decoder_hello {
  int32_t filter_error; /* 0, or the errno of the filter that was refused */
};

/* Where in the clip's memory the bell is, a uint32_t: behind `size` bytes, in a page of its own. */
#define VAMPD_BELL_OFFSET(size)                                                                              \
  (((uint64_t)(size) + VAMPD_TRAY_SAMPLES - 1) & ~(uint64_t)(VAMPD_TRAY_SAMPLES - 1))

enum { VAMPD_REQUEST_CLIP, VAMPD_REQUEST_TRAY, VAMPD_REQUEST_PIPE, VAMPD_REQUEST_DESCRIPTORS };

struct vampd_decoder_request {
  uint64_t size; /* of the clip; not 0 */
  struct vamp_audio_limits limits;
  uint32_t cpu_seconds, wall_milliseconds;
  char name[64]; /* what error messages call the clip */
};

enum vampd_decoder_end {
  VAMPD_END_DONE,    /* the slip says what came of it */
  VAMPD_END_CRASHED, /* detail: the signal, or 0 and it left in another way */
  VAMPD_END_TOO_LONG,
  VAMPD_END_NOT_BEGUN, /* detail: errno of fork */
};

/* What comes through the pipe. */
struct vampd_decoder_report {
  int32_t end; /* enum vampd_decoder_end */
  int32_t detail;
};

/* What the child leaves at the beginning of the tray. */
struct vampd_decoder_slip {
  uint64_t mark; /* VAMPD_TRAY_MARK, written last */
  uint64_t frames;
  int32_t channels, sample_rate;
  int32_t status; /* what the decode function returned */
  char message[sizeof((struct vamp_error *)0)->message];
};

/* ---- request.c ----------------------------------------------------------------------------------------- */

/* Sends a request with the first `count` of its descriptors, which stay the caller's. False: not sent. */
bool vampd_request_send(int socket, const struct vampd_decoder_request *request, const int *descriptors,
                        size_t count);

/* Takes one with `count` descriptors, which are then the caller's. `flags` are those of recvmsg. 1; 0 where
 * there is none, or a message that is no request; -1 where there will be no more. */
int vampd_request_receive(int socket, int flags, struct vampd_decoder_request *request, int *descriptors,
                          size_t count);

/* ---- service.c ----------------------------------------------------------------------------------------- */

/* Serves until the daemon is gone; returns the exit code. */
int vampd_decoder_serve(vampd_decode_function *decode);

/* ---- child.c ------------------------------------------------------------------------------------------- */

struct vampd_filter;

/* What a clip's process is given when it is born. `filter` may be NULL. */
struct vampd_child {
  int socket; /* where its request comes, once */
  bool ahead; /* the clip is not there yet: there is time to warm up */
  const struct vampd_filter *filter;
  vampd_decode_function *decode;
  uint64_t own_memory; /* bytes of address space that the decoder itself takes */
  pid_t parent;
};

/* What ps calls it: a child that waits for its clip, and one that has it. */
#define VAMPD_SPARE_NAME "vampd-spare"
#define VAMPD_CLIP_NAME "vampd-clip"

/* Waits for its clip, decodes it and ends the process, which must be a child of the decoder. */
_Noreturn void vampd_child_run(const struct vampd_child *child);

/* Ends a process that may be under the filter. */
_Noreturn void vampd_child_end(int code);

/* ---- filter.c ------------------------------------------------------------------------------------------ */

/* Compiles the filter; NULL and *reason (an errno) where that cannot be done. */
struct vampd_filter *vampd_filter_create(int *reason);
void vampd_filter_free(struct vampd_filter *filter); /* NULL is fine */

/* From here on the calling thread and its children are under the filter. 0, or an errno. */
int vampd_filter_install(const struct vampd_filter *filter);

#endif
