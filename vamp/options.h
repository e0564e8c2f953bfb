/*
 * The shape of every subcommand, and what the user said.
 *
 * A subcommand is a struct vamp_command: words for its help page, groups of options, and a function. One
 * table of options serves getopt_long, the help page and the errors, so the three cannot disagree. An
 * option lands in one of two places: in a member of struct vamp_settings (what the command line alone
 * knows: files, threads), or, where it carries a JSON pointer, in settings.parameters, which has the form of
 * the HTTP API's `params`. Those are then parsed by vamp_request_parse, so there is one parser, one set of
 * ranges and one set of defaults for vamp and vampd.
 */
#ifndef VAMP_COMMAND_OPTIONS_H
#define VAMP_COMMAND_OPTIONS_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

#include "vamp/error.h"
#include "vamp/request.h"

#define VAMP_VERSION "0.1.0"

/* Exit codes, also in `vamp --help`. */
enum vamp_exit { VAMP_EXIT_OK = 0, VAMP_EXIT_FAILED = 1, VAMP_EXIT_USAGE = 2 };

struct vamp_command;

struct vamp_settings {
  const struct vamp_command *command;
  char **arguments; /* what is not an option; borrowed from argv */
  int argument_count;
  json_t *parameters; /* {"preset", "mask": {...}, "sampling": {...}, "seed", "format"}; owned */

  const char *model; /* -m: a folder or a name; NULL: the default */
  const char *backend;
  const char *precision;
  int device;  /* the backend's, by its index */
  int threads; /* 0: all cores */
  bool json;
  bool quiet;

  const char *output;
  const char *mask_text;   /* --mask: JSON or @FILE */
  const char *params_text; /* --params: JSON or @FILE; its fields go into `parameters` below the flags' */
  const char *mask_png, *mask_svg, *mask_json, *mask_npy;
  const char *tokens;
  int variations;

  bool raw;
  const char *encoder_out, *latent;
  const char *stage;
  int steps;
  int frames;

  const char *dims;
  int batch;
  int repeat;
  double seconds;
  bool compare_torch;
  bool check;
  bool presets;
};

enum vamp_option_kind {
  VAMP_OPTION_FLAG,    /* bool member */
  VAMP_OPTION_TEXT,    /* const char * member */
  VAMP_OPTION_COUNT,   /* int member, low .. high */
  VAMP_OPTION_SECONDS, /* double member, low .. high */
  /* settings.parameters, at `pointer`; ranges are vamp_request_parse's business */
  VAMP_OPTION_PARAMETER_TEXT,
  VAMP_OPTION_PARAMETER_INTEGER,
  VAMP_OPTION_PARAMETER_NUMBER,
  VAMP_OPTION_PARAMETER_EITHER, /* an integer where it looks like one, else text: "random", "beat" */
  VAMP_OPTION_PARAMETER_TRUE,
};

struct vamp_option {
  const char *name; /* long name; NULL ends a table */
  int letter;       /* short name, or 0 */
  enum vamp_option_kind kind;
  size_t offset;       /* of the member of struct vamp_settings */
  const char *pointer; /* "/mask/mask_ratio"; for a member the field that errors about it name, or NULL */
  double low, high;
  const char *argument; /* how help names the value; NULL for flags */
  const char *help;
};

struct vamp_option_group {
  const char *title;
  const struct vamp_option *options;
};

struct vamp_command {
  const char *name;
  const char *synopsis;                   /* after "vamp NAME" */
  const char *summary;                    /* one line, for `vamp --help` */
  const char *description;                /* whole lines, for `vamp NAME --help` */
  const char *example;                    /* whole lines */
  const struct vamp_option_group *groups; /* ends with title NULL */
  int minimum_arguments, maximum_arguments;
  int (*run)(struct vamp_settings *settings); /* returns an enum vamp_exit */
};

extern const struct vamp_command vamp_command_run, vamp_command_mask, vamp_command_encode,
    vamp_command_decode, vamp_command_logits, vamp_command_generate, vamp_command_bench, vamp_command_info,
    vamp_command_measure;

/* JSON or @FILE. VAMP_INVALID says where it is wrong. */
int vamp_json_option(const char *text, json_t **value, struct vamp_error *error);

/* Tables that several subcommands share. */
extern const struct vamp_option vamp_options_model[];    /* -m, --backend, --precision, --device, --threads */
extern const struct vamp_option vamp_options_mask[];     /* the mask's simple form, --preset, --mask */
extern const struct vamp_option vamp_options_sampling[]; /* temperature and filters, without steps and seed */
extern const struct vamp_option vamp_options_params[];   /* --params */
extern const struct vamp_option vamp_options_seed[];     /* --seed */
extern const struct vamp_option vamp_options_steps[];    /* --coarse-steps, --steps, --fine-steps */

/* Reads the command line after the subcommand's name. Returns true where the command should run; false where
 * *exit_code says it all (help was printed, or an error). settings is to be freed either way. */
bool vamp_settings_parse(const struct vamp_command *command, int count, char **words,
                         struct vamp_settings *settings, int *exit_code);
void vamp_settings_free(struct vamp_settings *settings);

/* Prints "vamp NAME: message" and where help is; returns VAMP_EXIT_USAGE. */
int vamp_usage_error(const struct vamp_settings *settings, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* Prints "vamp NAME: [subject: ]message", with the option in place of a JSON pointer, and without the subject
 * (a file; may be NULL) where the message names it itself; returns VAMP_EXIT_USAGE where the error is about
 * an option, else VAMP_EXIT_FAILED. */
int vamp_report(const struct vamp_settings *settings, const char *subject, const struct vamp_error *error);

/* Prints a warning under the same name. */
void vamp_warn(const struct vamp_settings *settings, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* settings.parameters with --mask under the mask's own flags: the `params` of the HTTP API. Where `seed` is
 * not negative it is set in place of the user's. New reference in *parameters. */
int vamp_settings_parameters(const struct vamp_settings *settings, int64_t seed, json_t **parameters,
                             struct vamp_error *error);
/* The same, parsed. */
int vamp_settings_request(const struct vamp_settings *settings, int64_t seed, struct vamp_request *request,
                          struct vamp_error *error);
/* Whether the user gave the parameter at this JSON pointer. */
bool vamp_settings_given(const struct vamp_settings *settings, const char *pointer);

#endif
