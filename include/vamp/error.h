/*
 * One way to fail.
 *
 * Every function that can fail returns 0 or one of the negative codes below, and fills a
 * struct vamp_error with a sentence that tells the user what to do. `error` may be NULL where the
 * caller does not care. On failure a function has changed nothing the caller can see, and every
 * output pointer is left as it was, unless its own comment says otherwise.
 */
#ifndef VAMP_ERROR_H
#define VAMP_ERROR_H

#ifdef __cplusplus
extern "C" {
#endif

enum vamp_status {
  VAMP_OK = 0,
  VAMP_INVALID = -1,     /* the caller's input is wrong: a bad file, field or value */
  VAMP_LIMIT = -2,       /* the input is fine but larger than a stated limit */
  VAMP_IO = -3,          /* reading or writing failed: no such file, disk full */
  VAMP_MEMORY = -4,      /* out of memory */
  VAMP_UNSUPPORTED = -5, /* well-formed, but not something this build or device can do */
  VAMP_DEVICE = -6,      /* the compute device failed */
  VAMP_BUSY = -7,        /* a bounded queue is full: try again later */
  VAMP_CANCELLED = -8,   /* the caller cancelled the work */
  VAMP_SPACE = -9,       /* the disk, or the share of it that may be used, is full */
};

struct vamp_error {
  int status;        /* one of enum vamp_status */
  char message[512]; /* a sentence; names the file, tensor or field it is about */
  char field[128];   /* RFC 6901 JSON pointer to the offending field, or "" */
};

/* Fills `error` (may be NULL) with a printf-style message and returns `status`. Thread-safe. */
int vamp_fail(struct vamp_error *error, int status, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* As vamp_fail, and records the JSON pointer of the offending field, e.g. "/mask/mask_ratio". */
int vamp_fail_field(struct vamp_error *error, int status, const char *field, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

/* The static analyser cannot see that these return the status they were given, and would follow every
 * error path as if it were a success. */
#if defined(__clang_analyzer__) && !defined(VAMP_ERROR_IMPLEMENTATION)
#define vamp_fail(error, status, ...) (vamp_fail(error, status, __VA_ARGS__), (status))
#define vamp_fail_field(error, status, field, ...)                                                           \
  (vamp_fail_field(error, status, field, __VA_ARGS__), (status))
#endif

#ifdef __cplusplus
}
#endif

#endif
