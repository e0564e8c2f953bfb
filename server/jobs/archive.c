/*
 * The archive of a sweep: see sweep.h.
 *
 * It is written by libarchive beside its place, one entry after the other, so its size is bounded by the disk
 * and not by memory; nothing in it is compressed, for samples and pictures would not become much smaller.
 */
#include <archive.h>
#include <archive_entry.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "server/jobs/document.h"
#include "server/jobs/result.h"
#include "server/jobs/sweep.h"

#define ARCHIVE "archive.zip"

struct packing {
  struct vampd_store *store;
  struct vampd_decoder *decoder;
  const struct vampd_sweep *sweep;
  bool (*given_up)(void *user);
  void *user;
};

static int fail_archive(struct archive *archive, struct vamp_error *error) {
  bool full = archive_errno(archive) == ENOSPC || archive_errno(archive) == EDQUOT;
  const char *why = archive_error_string(archive);
  return vamp_fail(error, full ? VAMP_SPACE : VAMP_IO, "The archive cannot be written: %s.",
                   why ? why : "unknown reason");
}

/* Begins an entry; its time is that of the sweep, so that the same sweep gives the same archive. */
static int begin_entry(const struct packing *packing, struct archive *archive, const char *name, int64_t size,
                       struct vamp_error *error) {
  struct archive_entry *entry = archive_entry_new();
  if (!entry) {
    return vamp_fail(error, VAMP_MEMORY, "Out of memory while writing the archive.");
  }
  archive_entry_set_pathname(entry, name);
  archive_entry_set_size(entry, size);
  archive_entry_set_filetype(entry, AE_IFREG);
  archive_entry_set_perm(entry, 0644);
  archive_entry_set_mtime(entry, packing->sweep->row.created / 1000, 0);
  int result = archive_write_header(archive, entry);
  archive_entry_free(entry);
  return result == ARCHIVE_OK ? VAMP_OK : fail_archive(archive, error);
}

static int add_text(const struct packing *packing, struct archive *archive, const char *name,
                    const char *text, size_t size, struct vamp_error *error) {
  int status = begin_entry(packing, archive, name, (int64_t)size, error);
  if (status == VAMP_OK && archive_write_data(archive, text, size) != (la_ssize_t)size) {
    status = fail_archive(archive, error);
  }
  return status;
}

/* Copies an open file of the store into an entry, from its beginning wherever it was left; closes it. */
static int add_file(const struct packing *packing, struct archive *archive, const char *name, int file,
                    int64_t size, struct vamp_error *error) {
  char block[65536];
  int status = begin_entry(packing, archive, name, size, error);
  for (int64_t left = size; left > 0 && status == VAMP_OK;) {
    ssize_t got = pread(file, block, sizeof block, (off_t)(size - left));
    if (got <= 0) {
      status = vamp_fail(error, VAMP_IO, "A file of the sweep cannot be read.");
    } else if (archive_write_data(archive, block, (size_t)got) != got) {
      status = fail_archive(archive, error);
    }
    left -= got > 0 ? got : 0;
  }
  close(file);
  return status;
}

static int add_point(const struct packing *packing, struct archive *archive,
                     const struct vampd_store_job *job, struct vamp_error *error) {
  char name[48];
  int file;
  int64_t size;
  if (job->state != VAMPD_STATE_DONE) {
    return VAMP_OK;
  }
  int status = vampd_result_audio(packing->store, job->id, VAMP_AUDIO_WAV16, &file, &size, error);
  if (status == VAMP_OK) {
    snprintf(name, sizeof name, "point-%04d.wav", job->point);
    status = add_file(packing, archive, name, file, size, error);
  }
  if (status == VAMP_OK) {
    status =
        vampd_result_picture(packing->store, packing->decoder, job, VAMP_PICTURE_PNG, &file, &size, error);
  }
  if (status == VAMP_OK) {
    snprintf(name, sizeof name, "point-%04d.mask.png", job->point);
    status = add_file(packing, archive, name, file, size, error);
  }
  return status;
}

/* The sweep, and of each point all that repeats it: an archive is read where the daemon is not. */
static char *describe(const struct vampd_sweep *sweep) {
  static const char *const COPIED[] = {"model", "backend", "precision"};
  json_t *document = vampd_sweep_document(sweep, NULL, 0, false);
  json_t *points = json_object_get(document, "points");
  for (int i = 0; i < sweep->count; i++) {
    json_t *point = json_array_get(points, (size_t)i);
    json_t *params = vampd_stored_json(sweep->jobs[i].params);
    json_t *outcome = vampd_stored_json(sweep->jobs[i].outcome);
    json_object_set(point, "params", json_object_get(params, "params"));
    for (size_t c = 0; sweep->jobs[i].state == VAMPD_STATE_DONE && c < sizeof COPIED / sizeof COPIED[0];
         c++) {
      json_object_set(point, COPIED[c], json_object_get(outcome, COPIED[c]));
    }
    json_decref(params);
    json_decref(outcome);
  }
  char *text = json_dumps(document, JSON_INDENT(1) | JSON_REAL_PRECISION(15));
  json_decref(document);
  return text;
}

static int add_all(const struct packing *packing, struct archive *archive, struct vamp_error *error) {
  const struct vampd_sweep *sweep = packing->sweep;
  char *csv = NULL;
  size_t size;
  int64_t length;
  int status = vampd_sweep_csv(sweep, &csv, &size, error);
  if (status == VAMP_OK) {
    status = add_text(packing, archive, "sweep.csv", csv, size, error);
  }
  free(csv);
  if (status == VAMP_OK) {
    char *text = describe(sweep);
    status = text ? add_text(packing, archive, "sweep.json", text, strlen(text), error)
                  : vamp_fail(error, VAMP_MEMORY, "Out of memory while writing the archive.");
    free(text);
  }
  if (status == VAMP_OK) {
    int file =
        vampd_store_open_file(packing->store, VAMPD_FOLDER_INPUTS, sweep->row.input, "clip", &length, error);
    status = file < 0 ? file : add_file(packing, archive, "input", file, length, error);
  }
  for (int i = 0; i < sweep->count && status == VAMP_OK; i++) {
    status = packing->given_up(packing->user)
                 ? vamp_fail(error, VAMP_CANCELLED, "Nobody waits for the archive any more.")
                 : add_point(packing, archive, &sweep->jobs[i], error);
  }
  return status;
}

static int fill(int file, void *user, struct vamp_error *error) {
  struct archive *archive = archive_write_new();
  if (!archive) {
    return vamp_fail(error, VAMP_MEMORY, "Out of memory while writing the archive.");
  }
  int status = VAMP_OK;
  if (archive_write_set_format_zip(archive) != ARCHIVE_OK ||
      archive_write_set_options(archive, "zip:compression=store") != ARCHIVE_OK ||
      archive_write_open_fd(archive, file) != ARCHIVE_OK) {
    status = fail_archive(archive, error);
  }
  if (status == VAMP_OK) {
    status = add_all(user, archive, error);
  }
  if (status == VAMP_OK && archive_write_close(archive) != ARCHIVE_OK) {
    status = fail_archive(archive, error);
  }
  archive_write_free(archive);
  return status;
}

int vampd_sweep_archive(struct vampd_store *store, struct vampd_decoder *decoder,
                        const struct vampd_sweep *sweep, bool (*given_up)(void *user), void *user, int *file,
                        int64_t *size, struct vamp_error *error) {
  struct packing packing = {store, decoder, sweep, given_up, user};
  int opened = vampd_store_open_file(store, VAMPD_FOLDER_SWEEPS, sweep->row.id, ARCHIVE, size, NULL);
  if (opened < 0) {
    /* Of a point go in the 16 bit audio and a picture, of which neither may be there yet: together about what
     * it has. */
    int64_t expected = 0;
    for (int i = 0; i < sweep->count; i++) {
      expected += 2 * sweep->jobs[i].bytes;
    }
    if (!vampd_store_has_room(store, expected)) {
      return vamp_fail(error, VAMP_SPACE, "There is no room on the disk for an archive of about %lld MB.",
                       (long long)(expected / 1000000 + 1));
    }
    int status =
        vampd_store_fill_file(store, VAMPD_FOLDER_SWEEPS, sweep->row.id, ARCHIVE, fill, &packing, error);
    if (status != VAMP_OK) {
      return status;
    }
    opened = vampd_store_open_file(store, VAMPD_FOLDER_SWEEPS, sweep->row.id, ARCHIVE, size, error);
  }
  if (opened < 0) {
    return opened;
  }
  *file = opened;
  return VAMP_OK;
}
