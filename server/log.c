/*
 * The log: see log.h.
 *
 * A line is put together in a buffer on the stack and written with one write(), so it needs neither memory
 * nor a lock and works when both are short. JSON is written by hand for the same reason: a line holds texts
 * and numbers, no more.
 *
 * The format is the one piece of state in the process that is no thread's own: standard error is one as well,
 * and passing its form through every call that may have something to say would tell nobody anything.
 */
#include "server/log.h"

#include <inttypes.h>
#include <math.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define MAX_LINE 8192 /* 20 values of the longest kind, each byte of them escaped as six */
#define MAX_VALUE 256
#define MAX_MESSAGE 1024

static atomic_int format_of_lines; /* enum vampd_log_format */

struct line {
  char text[MAX_LINE + 2];
  size_t used; /* <= MAX_LINE */
};

double vampd_now(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

void vampd_log_set_format(enum vampd_log_format format) {
  atomic_store(&format_of_lines, (int)format);
}

static void add(struct line *line, const char *text, size_t length) {
  size_t room = MAX_LINE - line->used;
  length = length < room ? length : room;
  memcpy(line->text + line->used, text, length);
  line->used += length;
}

static void add_text(struct line *line, const char *text) {
  add(line, text, strlen(text));
}

static void add_time(struct line *line) {
  char text[40];
  struct timespec now;
  struct tm utc;
  clock_gettime(CLOCK_REALTIME, &now);
  gmtime_r(&now.tv_sec, &utc);
  size_t used = strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%S", &utc);
  snprintf(text + used, sizeof text - used, ".%03ldZ", now.tv_nsec / 1000000);
  add_text(line, text);
}

/* The length of the UTF-8 sequence at `text` (RFC 3629), 0 where there is none. */
static size_t utf8_length(const unsigned char *text) {
  size_t length = text[0] < 0x80                      ? 1
                  : text[0] >= 0xC2 && text[0] < 0xE0 ? 2
                  : text[0] >= 0xE0 && text[0] < 0xF0 ? 3
                  : text[0] >= 0xF0 && text[0] < 0xF5 ? 4
                                                      : 0;
  for (size_t i = 1; i < length; i++) {
    if ((text[i] & 0xC0) != 0x80) {
      return 0;
    }
  }
  bool overlong = (text[0] == 0xE0 && text[1] < 0xA0) || (text[0] == 0xF0 && text[1] < 0x90);
  bool beyond = (text[0] == 0xED && text[1] > 0x9F) || (text[0] == 0xF4 && text[1] > 0x8F);
  return overlong || beyond ? 0 : length;
}

/* At most `most` bytes of a text: what is neither printable nor whole becomes '?', and what would end a
 * quoted text is escaped where it stands in quotes. */
static void add_safely(struct line *line, const char *text, size_t most, bool quoted) {
  const unsigned char *at = (const unsigned char *)text;
  const unsigned char *end = at + strnlen(text, most);
  while (at < end) {
    size_t length = utf8_length(at);
    if (length == 0 || at + length > end || *at < ' ' || *at == 127) {
      add_text(line, "?");
      length = 1;
    } else {
      if (quoted && (*at == '"' || *at == '\\')) {
        add_text(line, "\\");
      }
      add(line, (const char *)at, length);
    }
    at += length;
  }
}

static void add_quoted(struct line *line, const char *text, size_t most) {
  add_text(line, "\"");
  add_safely(line, text, most, true);
  add_text(line, "\"");
}

/* Whether a plain line's value can be told from what comes next without quotes. */
static bool stands_alone(const char *text) {
  for (const char *at = text; *at; at++) {
    if ((unsigned char)*at <= ' ' || strchr("\"\\", *at) || *at == 127) {
      return false;
    }
  }
  return text[0] != '\0';
}

static void add_value(struct line *line, const struct vampd_log_field *field, bool json) {
  char number[64];
  if (field->kind == VAMPD_LOG_KIND_TEXT) {
    if (json || !stands_alone(field->text)) {
      add_quoted(line, field->text, MAX_VALUE);
    } else {
      add_safely(line, field->text, MAX_VALUE, false);
    }
    return;
  }
  if (field->kind == VAMPD_LOG_KIND_INTEGER) {
    snprintf(number, sizeof number, "%" PRId64, field->integer);
  } else {
    snprintf(number, sizeof number, fabs(field->number) < 1e15 ? "%.3f" : "%.6g", field->number);
  }
  add_text(line, number);
}

static bool is_left_out(const struct vampd_log_field *field) {
  return (field->kind == VAMPD_LOG_KIND_TEXT && !field->text) ||
         (field->kind == VAMPD_LOG_KIND_NUMBER && !isfinite(field->number));
}

static void write_line(struct line *line) {
  line->text[line->used++] = '\n';
  /* A log that cannot be written is nobody's to hear about. */
  ssize_t written = write(STDERR_FILENO, line->text, line->used);
  (void)written;
}

static void begin_json(struct line *line, const char *event) {
  add_text(line, "{\"time\":\"");
  add_time(line);
  add_text(line, "\",\"event\":");
  add_quoted(line, event, MAX_VALUE);
}

void vampd_log_fields(const char *event, const struct vampd_log_field *fields, size_t count) {
  bool json = atomic_load(&format_of_lines) == VAMPD_LOG_JSON;
  struct line line = {.used = 0};
  if (json) {
    begin_json(&line, event);
  } else {
    add_time(&line);
    add_text(&line, " ");
    add_text(&line, event);
  }
  for (size_t i = 0; i < count; i++) {
    /* A field goes in whole or not at all, so that the line stays what it claims to be. */
    size_t before = line.used;
    if (is_left_out(&fields[i])) {
      continue;
    }
    add_text(&line, json ? ",\"" : " ");
    add_text(&line, fields[i].key);
    add_text(&line, json ? "\":" : "=");
    add_value(&line, &fields[i], json);
    if (line.used >= MAX_LINE) {
      line.used = before;
      break;
    }
  }
  if (json) {
    add_text(&line, "}");
  }
  write_line(&line);
}

void vampd_log(const char *format, ...) {
  char message[MAX_MESSAGE];
  va_list arguments;
  va_start(arguments, format);
  int length = vsnprintf(message, sizeof message, format, arguments);
  va_end(arguments);
  size_t end = length < 0 ? 0 : strlen(message);
  while (end > 0 && message[end - 1] == '\n') {
    message[--end] = '\0';
  }
  message[end] = '\0';
  struct line line = {.used = 0};
  if (atomic_load(&format_of_lines) == VAMPD_LOG_JSON) {
    begin_json(&line, "message");
    add_text(&line, ",\"message\":");
    add_quoted(&line, message, MAX_MESSAGE);
    add_text(&line, "}");
  } else {
    add_time(&line);
    add_text(&line, " ");
    add_safely(&line, message, MAX_MESSAGE, false);
  }
  write_line(&line);
}
