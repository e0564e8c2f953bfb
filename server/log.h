/*
 * The log: one line on standard error for each thing that happened, with the time in UTC.
 *
 *   plain   2026-11-22T18:00:00.123Z request id=2f... method=GET path=/healthz status=200 seconds=0.000
 *   json    {"time":"2026-11-22T18:00:00.123Z","event":"request","id":"2f...","method":"GET",...}
 *
 * Two kinds of line: an event, which has a name and typed fields, and a message, which is for people; in JSON
 * a message is the event "message" with one field of that name. The form belongs to the process, as standard
 * error does: it is the one thing here that every thread shares.
 *
 * Any thread; a line is written with one system call, so lines never mix. What a stranger sent cannot forge a
 * line or a field: control characters are replaced, values with spaces or quotes are quoted. A value is cut
 * at 256 bytes, a message at 1 KiB.
 */
#ifndef VAMPD_LOG_H
#define VAMPD_LOG_H

#include <stddef.h>
#include <stdint.h>

enum vampd_log_format { VAMPD_LOG_PLAIN, VAMPD_LOG_JSON };

/* Of all lines from now on. VAMPD_LOG_PLAIN until somebody says otherwise. */
void vampd_log_set_format(enum vampd_log_format format);

void vampd_log(const char *format, ...) __attribute__((format(printf, 1, 2)));

enum vampd_log_kind { VAMPD_LOG_KIND_TEXT, VAMPD_LOG_KIND_INTEGER, VAMPD_LOG_KIND_NUMBER };

struct vampd_log_field {
  const char *key; /* a literal of letters, digits and _ */
  enum vampd_log_kind kind;
  const char *text; /* NULL: the field is left out */
  int64_t integer;
  double number; /* three decimals; not finite: the field is left out */
};

#define VAMPD_LOG_TEXT(name, value) ((struct vampd_log_field){(name), VAMPD_LOG_KIND_TEXT, (value), 0, 0})
#define VAMPD_LOG_INTEGER(name, value)                                                                       \
  ((struct vampd_log_field){(name), VAMPD_LOG_KIND_INTEGER, NULL, (int64_t)(value), 0})
#define VAMPD_LOG_NUMBER(name, value)                                                                        \
  ((struct vampd_log_field){(name), VAMPD_LOG_KIND_NUMBER, NULL, 0, (value)})

void vampd_log_fields(const char *event, const struct vampd_log_field *fields, size_t count);

/* vampd_log_event("job", VAMPD_LOG_TEXT("id", id), VAMPD_LOG_NUMBER("seconds", 1.25)): at least one field. */
#define vampd_log_event(event, ...)                                                                          \
  vampd_log_fields((event), (const struct vampd_log_field[]){__VA_ARGS__},                                   \
                   sizeof((const struct vampd_log_field[]){__VA_ARGS__}) / sizeof(struct vampd_log_field))

/* Seconds on a clock that only goes forward. */
double vampd_now(void);

#endif
