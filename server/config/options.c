/*
 * The table of options: see options.h.
 *
 * Flags, file, environment, --help and --check-config are all read off the same rows, so that none of them
 * can know an option the others do not. getopt_long is not used: it prints its own messages and keeps its
 * position in globals.
 */
#include "server/config/options.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "vamp/device.h"

#define AT(member) offsetof(struct vampd_options, member)
#define TEXT VAMPD_OPTION_TEXT
#define LIST VAMPD_OPTION_LIST
#define NUMBERS VAMPD_OPTION_NUMBERS
#define NUMBER VAMPD_OPTION_NUMBER
#define SWITCH VAMPD_OPTION_SWITCH

/* name, kind, where, minimum, maximum, choices, optional, live, default, --help */
const struct vampd_option VAMPD_OPTIONS[VAMPD_OPTION_COUNT] = {
    {"host", TEXT, AT(host), 0, 0, NULL, false, false, "127.0.0.1", "ADDRESS", "where to listen"},
    {"port", NUMBER, AT(port), 0, 65535, NULL, false, false, "8765", "N",
     "0 takes a free port and prints it"},
    {"keys", TEXT, AT(keys), 0, 0, NULL, true, true, "", "FILE", "* who may use it; see --new-key"},
    {"allow-remote", SWITCH, AT(allow_remote), 0, 0, NULL, false, false, "no", "",
     "permit a --host beyond loopback without keys"},
    {"cors-origins", LIST, AT(cors_origins), 0, 0, NULL, true, true, "", "LIST",
     "* of web pages that may use it; commas, or *"},
    {"page", SWITCH, AT(page), 0, 0, NULL, false, true, "yes", "",
     "* a page for browsers at /; --page=no: none"},
    {"model", TEXT, AT(model), 0, 0, NULL, false, false, "small", "MODEL",
     "folder with model.json, or a name in models/"},
    {"backend", TEXT, AT(backend), 0, 0, "|auto|cpu|cuda|cuda-emulated|", false, false, "auto", "B",
     "auto: a GPU if there is one; cuda, cpu"},
    {"precision", TEXT, AT(precision), 0, 0, "|auto|fp32|tf32|bf16|", false, false, "auto", "P",
     "auto: the fastest; fp32, tf32 (GPU), bf16"},
    {"devices", NUMBERS, AT(devices), 0, 63, NULL, false, false, "0", "LIST",
     "GPUs to use, as 0,1; all takes them all"},
    {"threads", NUMBER, AT(threads), 0, 1024, NULL, false, false, "0", "N",
     "of the CPU backend; 0 takes all cores"},
    {"workers", NUMBER, AT(workers), 1, 64, NULL, false, false, "2", "N",
     "threads that decode and encode audio"},
    {"data-dir", TEXT, AT(data_dir), 0, 0, NULL, true, false, "", "FOLDER",
     "of durable jobs (~/.local/state/vampd)"},
    {"max-disk-mb", NUMBER, AT(max_disk_mb), 0, 1 << 30, NULL, false, true, "20480", "N",
     "* MiB in --data-dir; 0 is no limit"},
    {"min-free-mb", NUMBER, AT(min_free_mb), 0, 1 << 30, NULL, false, true, "1024", "N",
     "* MiB to leave free on its disk"},
    {"keep-hours", NUMBER, AT(keep_hours), 0, 1000000, NULL, false, true, "168", "N",
     "* a finished job is kept; 0 for ever"},
    {"max-queue", NUMBER, AT(max_queue), 1, VAMPD_MAX_QUEUE, NULL, false, true, "64", "N",
     "* jobs in the house before 429"},
    {"max-jobs-queued", NUMBER, AT(max_jobs_queued), 1, 10000000, NULL, false, true, "10000", "N",
     "* durable jobs that wait"},
    {"max-body-mb", NUMBER, AT(max_body_mb), 1, 1024, NULL, false, true, "64", "N", "* MiB of one body"},
    {"max-seconds", NUMBER, AT(max_seconds), 1, 3600, NULL, false, true, "600", "N", "* of one clip"},
    {"max-connections", NUMBER, AT(max_connections), 4, 10000, NULL, false, false, "256", "N",
     "open at once"},
    {"timeout", NUMBER, AT(timeout), 1, 3600, NULL, false, false, "30", "N",
     "seconds a silent connection is kept"},
    {"grace", NUMBER, AT(grace), 0, 3600, NULL, false, true, "20", "N",
     "* seconds running jobs get after SIGTERM"},
    {"log-format", TEXT, AT(log_format), 0, 0, "|plain|json|", false, true, "plain", "F", "* plain, json"},
};

static const char HELP_TOP[] =
    "vampd: variations of music over HTTP. One daemon, one model.\n"
    "  vampd --model small                  then: docs/api.md, or GET /openapi.json\n\n";

static const char HELP_BOTTOM[] =
    "  --config FILE         the same names, one a line: max-queue = 100\n"
    "  --check-config        print what is in force and from where; 0, or 2 if wrong\n"
    "  --new-key NAME        print a fresh key, and its section for the key file\n"
    "  --help, --version\n\n"
    "Every option is also a variable (VAMPD_MAX_QUEUE). Flags go before variables,\n"
    "those before the file. SIGHUP reads * again, and the keys; SIGTERM stops.\n";

int vampd_option_find(const char *name, size_t length) {
  for (int row = 0; row < VAMPD_OPTION_COUNT; row++) {
    const char *own = VAMPD_OPTIONS[row].name;
    size_t i = 0;
    while (i < length && own[i] && (own[i] == name[i] || (own[i] == '-' && name[i] == '_'))) {
      i++;
    }
    if (i == length && !own[i]) {
      return row;
    }
  }
  return -1;
}

static bool is_choice(const char *choices, const char *value) {
  size_t length = strlen(value);
  for (const char *at = choices; (at = strstr(at, value)) != NULL; at++) {
    if (length > 0 && at[-1] == '|' && at[length] == '|') {
      return true;
    }
  }
  return false;
}

static int set_number(const struct vampd_option *option, const char *value, int *target, const char *source,
                      struct vamp_error *error) {
  char *end;
  errno = 0;
  long number = strtol(value, &end, 10);
  if (errno != 0 || end == value || *end != '\0' || number < option->minimum || number > option->maximum) {
    return vamp_fail(error, VAMP_INVALID, "%s takes a whole number from %d to %d, not \"%.80s\".", source,
                     option->minimum, option->maximum, value);
  }
  *target = (int)number;
  return VAMP_OK;
}

int vampd_options_numbers(const char *text, int minimum, int maximum, int numbers[VAMPD_MAX_DEVICES]) {
  int count = 0;
  if (strcmp(text, "all") == 0) {
    return 0;
  }
  for (;;) {
    char *end;
    errno = 0;
    long number = strtol(text, &end, 10);
    if (errno != 0 || *text < '0' || *text > '9' || number < minimum || number > maximum ||
        count == VAMPD_MAX_DEVICES) {
      return -1;
    }
    for (int i = 0; i < count; i++) {
      if (numbers[i] == number) {
        return -1;
      }
    }
    numbers[count++] = (int)number;
    if (*end != ',') {
      return *end == '\0' ? count : -1;
    }
    text = end + 1;
  }
}

static int set_switch(const char *value, bool *target, const char *source, struct vamp_error *error) {
  bool yes = strcmp(value, "yes") == 0 || strcmp(value, "true") == 0;
  if (!yes && strcmp(value, "no") != 0 && strcmp(value, "false") != 0) {
    return vamp_fail(error, VAMP_INVALID, "%s is yes or no, not \"%.80s\".", source, value);
  }
  *target = yes;
  return VAMP_OK;
}

static int set_text(const struct vampd_option *option, const char *value, char **target, const char *source,
                    struct vamp_error *error) {
  if ((value[0] == '\0' && !option->optional) ||
      (option->choices && (strchr(value, '|') || !is_choice(option->choices, value)))) {
    return vamp_fail(error, VAMP_INVALID, "%s cannot be \"%.80s\"%s%s.", source, value,
                     option->choices ? "; it is one of " : "", option->choices ? option->choices : "");
  }
  char *copy = value[0] ? strdup(value) : NULL;
  if (value[0] && !copy) {
    return vamp_fail(error, VAMP_MEMORY, "Out of memory.");
  }
  free(*target);
  *target = copy;
  return VAMP_OK;
}

static bool is_text(const struct vampd_option *option) {
  return option->kind == TEXT || option->kind == LIST || option->kind == NUMBERS;
}

int vampd_option_set(const struct vampd_option *option, const char *value, struct vampd_options *options,
                     const char *source, struct vamp_error *error) {
  void *target = (char *)options + option->offset;
  int numbers[VAMPD_MAX_DEVICES];
  if (option->kind == NUMBERS &&
      vampd_options_numbers(value, option->minimum, option->maximum, numbers) < 0) {
    return vamp_fail(
        error, VAMP_INVALID,
        "%s takes \"all\" or different numbers from %d to %d with commas between, not \"%.80s\".", source,
        option->minimum, option->maximum, value);
  }
  if (is_text(option)) {
    return set_text(option, value, target, source, error);
  }
  if (option->kind == NUMBER) {
    return set_number(option, value, target, source, error);
  }
  return set_switch(value, target, source, error);
}

void vampd_options_free(struct vampd_options *options) {
  for (int row = 0; row < VAMPD_OPTION_COUNT; row++) {
    if (is_text(&VAMPD_OPTIONS[row])) {
      char **text = (char **)((char *)options + VAMPD_OPTIONS[row].offset);
      free(*text);
      *text = NULL;
    }
  }
}

int vampd_options_default(struct vampd_options *options, struct vamp_error *error) {
  memset(options, 0, sizeof *options);
  for (int row = 0; row < VAMPD_OPTION_COUNT; row++) {
    const struct vampd_option *option = &VAMPD_OPTIONS[row];
    int status = vampd_option_set(option, option->standard, options, option->name, error);
    if (status != VAMP_OK) {
      vampd_options_free(options);
      return status;
    }
  }
  return VAMP_OK;
}

const char *vampd_option_value(const struct vampd_option *option, const struct vampd_options *options,
                               char number[16]) {
  const void *at = (const char *)options + option->offset;
  if (is_text(option)) {
    const char *text = *(char *const *)at;
    return text ? text : "";
  }
  if (option->kind == SWITCH) {
    return *(const bool *)at ? "yes" : "no";
  }
  snprintf(number, 16, "%d", *(const int *)at);
  return number;
}

void vampd_options_help(FILE *out) {
  fputs(HELP_TOP, out);
  for (int row = 0; row < VAMPD_OPTION_COUNT; row++) {
    const struct vampd_option *option = &VAMPD_OPTIONS[row];
    int used = fprintf(out, "  --%s %s", option->name, option->argument);
    fprintf(out, "%*s%s", used < 24 ? 24 - used : 1, "", option->help);
    if (option->kind == SWITCH || !option->standard[0]) {
      fputs("\n", out);
    } else {
      fprintf(out, " (%s)\n", option->standard);
    }
  }
  fputs(HELP_BOTTOM, out);
}

struct vamp_device_options vampd_options_device(const struct vampd_options *options) {
  enum vamp_precision precision = VAMP_PRECISION_FP32;
  bool given = vamp_precision_parse(options->precision, &precision); /* "auto" is none */
  return (struct vamp_device_options){
      .precision = precision,
      .precision_given = given,
      .threads = options->threads,
      .backend = options->backend,
  };
}
