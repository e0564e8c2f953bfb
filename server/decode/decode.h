/*
 * Decoding what strangers send, out of the daemon's reach.
 *
 * The libraries that decode audio are large, old and written in C; what they read is chosen by whoever sends
 * it. So no byte of it is decoded in the daemon: a second process, the decoder, forks a child for every clip,
 * and the child, which can do nothing but compute, puts the samples into memory that the daemon maps. What
 * it does wrong (crash, run on, fill its memory, lose some on the way, call the system) ends with it, and is
 * the sender's error like any other.
 *
 * How: service.c is the decoder, child.c what a clip's process may do, filter.c the system calls left to it,
 * client.c the daemon's side and the only one that is called from threads.
 */
#ifndef VAMPD_DECODE_H
#define VAMPD_DECODE_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include "vamp/audio.h"

struct vampd_decoder;

/* ---- the daemon's side --------------------------------------------------------------------------------- */

struct vampd_decoder_facts {
  pid_t process;
  bool filtered; /* system calls are filtered, not only resources limited */
};

/* How long a clip may take: so much time of the processor, and twice that by the clock. */
struct vampd_decoder_patience {
  unsigned seconds;         /* for any clip */
  unsigned seconds_an_hour; /* and for an hour of what limits->max_seconds allows */
};

#define VAMPD_DECODER_PATIENCE ((struct vampd_decoder_patience){5, 180})

/* Starts the decoder: this very program, run again with VAMPD_DECODER_ARGUMENT, so that it shares neither
 * memory nor descriptors with the daemon and can be started at any time from any thread. Where the kernel
 * refuses to filter system calls, one line of the log says so. VAMP_IO where the decoder does not come up. */
int vampd_decoder_start(const struct vampd_decoder_patience *patience, struct vampd_decoder **decoder,
                        struct vamp_error *error);

/* As vamp_audio_read_memory, with the same errors, the same samples bit for bit, and three errors more:
 *   VAMP_INVALID  "The audio cannot be read: ...", where the decoder crashed on it, or took too long
 *   VAMP_MEMORY   no memory or descriptors to hand the clip over
 *   VAMP_IO       the decoder is gone and does not come up again; it is started once more for every clip
 * `name` is ASCII. Any thread, as many at once as there are clips; beyond VAMPD_DECODER_CLIPS they wait for
 * each other. The samples are a mapping: vamp_audio_free gives it back. limits may be NULL. */
int vampd_decoder_read(struct vampd_decoder *decoder, const void *data, size_t size, const char *name,
                       const struct vamp_audio_limits *limits, struct vamp_audio *audio,
                       struct vamp_error *error);

#define VAMPD_DECODER_CLIPS 64 /* decoded at once */

/* Takes leave of children that are dead: of the decoder (the next clip starts another), and of those that are
 * nobody's any more, which come to a process 1, as in a container, and to a subreaper. Of nobody's else: does
 * nothing where this process is neither. For the thread that does what is due, once all that forks and waits
 * on its own (drivers of a device) has started. Does not wait. */
void vampd_decoder_reap(struct vampd_decoder *decoder);

/* Of the decoder that runs now. */
struct vampd_decoder_facts vampd_decoder_facts(struct vampd_decoder *decoder);

/* Ends the decoder and waits for it. No thread may be inside vampd_decoder_read. NULL is fine. */
void vampd_decoder_stop(struct vampd_decoder *decoder);

/* ---- the decoder's side -------------------------------------------------------------------------------- */

/* The one argument of the decoder's command line. */
#define VAMPD_DECODER_ARGUMENT "--decoder-process"

/* What a clip's process does; vamp_audio_read_memory_into is what it does in vampd. Tests plant others. */
typedef int vampd_decode_function(const void *data, size_t size, const char *name,
                                  const struct vamp_audio_limits *limits, float *room,
                                  struct vamp_audio *audio, struct vamp_error *error);

/* main() begins with this: true where the process was started as the decoder. It has then done its work, and
 * main returns *exit_code. */
bool vampd_decoder_main(int argc, char **argv, vampd_decode_function *decode, int *exit_code);

#endif
