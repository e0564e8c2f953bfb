/*
 * What every subcommand needs that touches a model: finding it, opening it on a device, one batch loop,
 * one job through it with a progress line, and arrays checked on the way in.
 */
#ifndef VAMP_COMMAND_SESSION_H
#define VAMP_COMMAND_SESSION_H

#include <limits.h>

#include "vamp/array.h"
#include "vamp/generate.h"
#include "vamp/options.h"

/* ---- the model ---------------------------------------------------------------------------------------- */

/* The folder of the model that -m, else $VAMP_MODEL, else "small" names: see vamp_model_find. */
int vamp_settings_model(const struct vamp_settings *settings, char folder[PATH_MAX],
                        struct vamp_error *error);

struct vamp_session {
  struct vamp_device *device;
  struct vamp_model *model;
  struct vamp_loop *loop;
  const struct vamp_model_config *config; /* the model's */
  double load_seconds;
};

/* Opens the device that --backend, --precision, --device and --threads ask for, the model, and a loop. With
 * `random` not NULL the model is one of these dimensions with random weights instead. */
int vamp_session_open(const struct vamp_settings *settings, const struct vamp_model_config *random,
                      struct vamp_session *session, struct vamp_error *error);
void vamp_session_close(struct vamp_session *session); /* fine on a zeroed struct */

/* Runs one job to its end with a progress line; the result is the caller's. */
int vamp_session_run(const struct vamp_settings *settings, struct vamp_session *session,
                     const struct vamp_job *job, struct vamp_result **result, struct vamp_error *error);

/* Steps the loop until there is an event and takes it; negative where the device is lost or no job is left.
 */
int vamp_session_event(struct vamp_session *session, struct vamp_event *event, struct vamp_error *error);

double vamp_clock(void); /* seconds, monotonic */

/* ---- progress ----------------------------------------------------------------------------------------- */

/* One line on stderr, redrawn in place; nothing at all where stderr is no terminal or --quiet is given. */
struct vamp_progress {
  bool shown;
  double started, drawn;
  int total, done; /* jobs */
  double running;  /* sum of the progress of the jobs that run */
};

void vamp_progress_start(struct vamp_progress *progress, const struct vamp_settings *settings, int total);
void vamp_progress_draw(struct vamp_progress *progress, const struct vamp_event *event);
/* Wipes the line, so that something else can be printed. */
void vamp_progress_clear(struct vamp_progress *progress);

/* ---- arrays ------------------------------------------------------------------------------------------- */

/* Reads codes.npy: integers [codebooks or more, frames], each 0 .. codebook_size-1 (the mask token too
 * where `allow_mask`). Rows above `codebooks` are dropped where `more` allows them, an error otherwise. */
struct vamp_codes_wanted {
  int codebooks;
  int codebook_size;
  bool allow_mask;
  bool more;
};
int vamp_codes_read(const char *path, const struct vamp_codes_wanted *wanted, struct vamp_array *codes,
                    struct vamp_error *error);

/* Reads mask.npy: uint8 or bool [codebooks or more, frames], 0 or 1; rows above `codebooks` are dropped. */
int vamp_mask_read(const char *path, int codebooks, int frames, struct vamp_array *mask,
                   struct vamp_error *error);

/* Writes int32 codes [codebooks, frames]. */
int vamp_codes_write(const char *path, const int32_t *codes, int codebooks, int frames,
                     struct vamp_error *error);

/* ---- files -------------------------------------------------------------------------------------------- */

/* Writes as arrays and audio are written: beside the final name (of what a link points to), forced to the
 * disk and renamed; a device or a pipe directly. "-" is standard output. */
int vamp_bytes_write(const char *path, const void *data, size_t size, struct vamp_error *error);
/* Prints one JSON object on a line of standard output and drops the reference; NULL is out of memory. */
void vamp_json_print(json_t *object);
/* A file name as JSON: names need not be UTF-8, JSON must be. New reference. */
json_t *vamp_json_name(const char *name);
/* The same as vamp_bytes_write for JSON, on one line: masks are long arrays, which no indentation helps. */
int vamp_json_write(const char *path, const json_t *json, struct vamp_error *error);

#endif
