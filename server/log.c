/* The log: see log.h. */
#include "server/log.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

double vampd_now(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

void vampd_log(const char *format, ...) {
  char line[1024];
  struct timespec now;
  struct tm utc;
  clock_gettime(CLOCK_REALTIME, &now);
  gmtime_r(&now.tv_sec, &utc);
  size_t used = strftime(line, sizeof line, "%Y-%m-%dT%H:%M:%S", &utc);
  used += (size_t)snprintf(line + used, sizeof line - used, ".%03ldZ ", now.tv_nsec / 1000000);
  va_list arguments;
  va_start(arguments, format);
  int length = vsnprintf(line + used, sizeof line - used, format, arguments);
  va_end(arguments);
  size_t end = length < 0 ? used : used + (size_t)length;
  end = end < sizeof line - 1 ? end : sizeof line - 2;
  while (end > used && line[end - 1] == '\n') {
    end--;
  }
  for (size_t i = used; i < end; i++) {
    if ((unsigned char)line[i] < ' ' || line[i] == 127) {
      line[i] = '?';
    }
  }
  line[end] = '\n';
  /* A log that cannot be written is nobody's to hear about. */
  ssize_t written = write(STDERR_FILENO, line, end + 1);
  (void)written;
}
