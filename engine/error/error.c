/* The one way to fail: see vamp/error.h. */
#define VAMP_ERROR_IMPLEMENTATION
#include "vamp/error.h"

#include <stdarg.h>
#include <stdio.h>

__attribute__((format(printf, 4, 0))) static void
fill(struct vamp_error *error, int status, const char *field, const char *format, va_list arguments) {
  if (!error) {
    return;
  }
  error->status = status;
  snprintf(error->field, sizeof error->field, "%s", field);
  vsnprintf(error->message, sizeof error->message, format, arguments);
}

int vamp_fail(struct vamp_error *error, int status, const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  fill(error, status, "", format, arguments);
  va_end(arguments);
  return status;
}

int vamp_fail_field(struct vamp_error *error, int status, const char *field, const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  fill(error, status, field, format, arguments);
  va_end(arguments);
  return status;
}
