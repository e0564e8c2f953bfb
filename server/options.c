/*
 * The command line of vampd: see options.h.
 *
 * A flag is one row of a table, with its range: a configuration file and environment variables can later
 * be read through the same rows. getopt_long is not used: it prints its own messages and keeps its
 * position in globals.
 */
#include "server/options.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum kind { TEXT, NUMBER, SWITCH };

struct flag {
  const char *name;
  enum kind kind;
  size_t offset; /* in struct vampd_options */
  int minimum, maximum;
  const char *choices; /* TEXT: NULL, or the values allowed, each between bars */
};

#define AT(member) offsetof(struct vampd_options, member)

static const struct flag FLAGS[] = {
    {"host", TEXT, AT(host), 0, 0, NULL},
    {"port", NUMBER, AT(port), 0, 65535, NULL},
    {"allow-remote", SWITCH, AT(allow_remote), 0, 0, NULL},
    {"model", TEXT, AT(model), 0, 0, NULL},
    {"backend", TEXT, AT(backend), 0, 0, "|auto|cpu|cuda|cuda-emulated|"},
    {"precision", TEXT, AT(precision), 0, 0, "|auto|fp32|bf16|"},
    {"threads", NUMBER, AT(threads), 0, 1024, NULL},
    {"workers", NUMBER, AT(workers), 1, 64, NULL},
    {"data-dir", TEXT, AT(data_dir), 0, 0, NULL},
    {"max-queue", NUMBER, AT(max_queue), 1, 100000, NULL},
    {"max-body-mb", NUMBER, AT(max_body_mb), 1, 1024, NULL},
    {"max-seconds", NUMBER, AT(max_seconds), 1, 3600, NULL},
    {"max-connections", NUMBER, AT(max_connections), 4, 10000, NULL},
    {"timeout", NUMBER, AT(timeout), 1, 3600, NULL},
    {"grace", NUMBER, AT(grace), 0, 3600, NULL},
    {"help", SWITCH, AT(help), 0, 0, NULL},
    {"version", SWITCH, AT(version), 0, 0, NULL},
};

static const char HELP[] = "vampd: variations of music over HTTP. One daemon, one model, one device.\n"
                           "  vampd --model models/small        then: docs/api.md, or GET /openapi.json\n"
                           "\n"
                           "  --host ADDRESS       where to listen (127.0.0.1)\n"
                           "  --port N             0 takes a free port and prints it (8765)\n"
                           "  --allow-remote       permit a --host that is not loopback (no keys yet!)\n"
                           "  --model FOLDER       model.json and its weights (models/small)\n"
                           "  --backend B          auto, cuda, cpu (auto: a GPU if there is one)\n"
                           "  --precision P        auto, fp32, bf16 (auto: the fastest there is)\n"
                           "  --threads N          of the CPU backend; 0 takes all cores (0)\n"
                           "  --workers N          threads that decode, resample and encode audio (2)\n"
                           "  --data-dir FOLDER    created if missing, for one daemon at a time (none)\n"
                           "  --max-queue N        jobs waiting and running before 429 is answered (64)\n"
                           "  --max-body-mb N      MiB of one request body (64)\n"
                           "  --max-seconds N      of one clip (600)\n"
                           "  --max-connections N  open at once (256)\n"
                           "  --timeout N          seconds a silent connection is kept (30)\n"
                           "  --grace N            seconds running jobs get after SIGTERM (20)\n"
                           "  --help, --version\n";

static const struct flag *find_flag(const char *name, size_t length) {
  for (size_t i = 0; i < sizeof FLAGS / sizeof FLAGS[0]; i++) {
    if (strlen(FLAGS[i].name) == length && strncmp(FLAGS[i].name, name, length) == 0) {
      return &FLAGS[i];
    }
  }
  return NULL;
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

static int set_flag(const struct flag *flag, const char *value, struct vampd_options *options,
                    struct vamp_error *error) {
  void *target = (char *)options + flag->offset;
  if (flag->kind == NUMBER) {
    char *end;
    errno = 0;
    long number = strtol(value, &end, 10);
    if (errno != 0 || end == value || *end != '\0' || number < flag->minimum || number > flag->maximum) {
      return vamp_fail(error, VAMP_INVALID, "--%s takes a whole number from %d to %d, not \"%s\".",
                       flag->name, flag->minimum, flag->maximum, value);
    }
    *(int *)target = (int)number;
    return VAMP_OK;
  }
  if (value[0] == '\0' || (flag->choices && (strchr(value, '|') || !is_choice(flag->choices, value)))) {
    return vamp_fail(error, VAMP_INVALID, "--%s cannot be \"%s\"%s%s.", flag->name, value,
                     flag->choices ? "; it is one of " : "", flag->choices ? flag->choices : "");
  }
  *(const char **)target = value;
  return VAMP_OK;
}

int vampd_options_parse(int argc, char *const *argv, struct vampd_options *options,
                        struct vamp_error *error) {
  struct vampd_options parsed = {
      .host = "127.0.0.1",
      .port = 8765,
      .model = "models/small",
      .backend = "auto",
      .precision = "auto",
      .workers = 2,
      .max_queue = 64,
      .max_body_mb = 64,
      .max_seconds = 600,
      .max_connections = 256,
      .timeout = 30,
      .grace = 20,
  };
  for (int i = 1; i < argc; i++) {
    const char *text = argv[i];
    const char *name = strncmp(text, "--", 2) == 0 ? text + 2 : "";
    size_t length = strcspn(name, "=");
    const struct flag *flag = find_flag(name, length);
    if (!flag || (flag->kind == SWITCH && name[length] == '=')) {
      return vamp_fail(error, VAMP_INVALID, "Unknown argument \"%s\"; vampd --help lists the flags.", text);
    }
    if (flag->kind == SWITCH) {
      *(bool *)((char *)&parsed + flag->offset) = true;
      continue;
    }
    bool inside = name[length] == '=';
    if (!inside && i + 1 == argc) {
      return vamp_fail(error, VAMP_INVALID, "--%s needs a value.", flag->name);
    }
    int status = set_flag(flag, inside ? name + length + 1 : argv[++i], &parsed, error);
    if (status != VAMP_OK) {
      return status;
    }
  }
  *options = parsed;
  return VAMP_OK;
}

const char *vampd_options_help(void) {
  return HELP;
}

struct vamp_device_options vampd_options_device(const struct vampd_options *options) {
  bool given = strcmp(options->precision, "auto") != 0;
  bool bf16 = strcmp(options->precision, "bf16") == 0;
  return (struct vamp_device_options){
      .precision = bf16 ? VAMP_PRECISION_BF16 : VAMP_PRECISION_FP32,
      .precision_given = given,
      .threads = options->threads,
      .backend = options->backend,
  };
}
