/*
 * Reading the command line.
 *
 * getopt_long does the reading; this file turns tables of struct vamp_option into what it wants, and what it
 * finds into settings. Errors name the option and the value, and end with the way to the help page. Rejected:
 * a library for options (argp exits by itself and prints what it likes), and one hand-written switch a
 * subcommand (eight of them would drift apart from their help pages).
 */
#include "vamp/options.h"

#include <errno.h>
#include <getopt.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_OPTIONS 64
#define FIRST_VALUE 256 /* getopt's values for long options begin above every letter */
#define HELP_COLUMN 30
#define HELP_WIDTH 100

static bool takes_value(const struct vamp_option *option) {
  return option->kind != VAMP_OPTION_FLAG && option->kind != VAMP_OPTION_PARAMETER_TRUE;
}

/* ---- messages ----------------------------------------------------------------------------------------- */

int vamp_usage_error(const struct vamp_settings *settings, const char *format, ...) {
  fprintf(stderr, "vamp %s: ", settings->command->name);
  va_list arguments;
  va_start(arguments, format);
  vfprintf(stderr, format, arguments);
  va_end(arguments);
  fprintf(stderr, "\n'vamp %s --help' shows what it takes.\n", settings->command->name);
  return VAMP_EXIT_USAGE;
}

void vamp_warn(const struct vamp_settings *settings, const char *format, ...) {
  fprintf(stderr, "vamp %s: ", settings->command->name);
  va_list arguments;
  va_start(arguments, format);
  vfprintf(stderr, format, arguments);
  va_end(arguments);
  fputc('\n', stderr);
}

/* The option behind a JSON pointer. A pointer into --mask itself (its tree, say) is --mask's; where --params
 * is given, what no other option says came from there. */
static const char *option_of_pointer(const struct vamp_settings *settings, const char *pointer) {
  for (const struct vamp_option_group *group = settings->command->groups; group->title; group++) {
    for (const struct vamp_option *option = group->options; option->name; option++) {
      if (option->pointer && strcmp(option->pointer, pointer) == 0) {
        return option->name;
      }
    }
  }
  if (strncmp(pointer, "/mask", 5) == 0 && (settings->mask_text || !settings->params_text)) {
    return "mask";
  }
  return settings->params_text ? "params" : NULL;
}

int vamp_report(const struct vamp_settings *settings, const char *subject, const struct vamp_error *error) {
  const char *option = error->field[0] ? option_of_pointer(settings, error->field) : NULL;
  fprintf(stderr, "vamp %s: ", settings->command->name);
  if (subject && !strstr(error->message, subject)) {
    fprintf(stderr, "%s: ", subject);
  }
  if (option) {
    fprintf(stderr, "--%s: ", option);
  }
  fprintf(stderr, "%s", error->message);
  if (option && (strcmp(option, "mask") == 0 || strcmp(option, "params") == 0)) {
    fprintf(stderr, " (at %s)", error->field);
  }
  fputc('\n', stderr);
  return option ? VAMP_EXIT_USAGE : VAMP_EXIT_FAILED;
}

/* ---- help --------------------------------------------------------------------------------------------- */

/* Prints `text` from column HELP_COLUMN on, broken at spaces. */
static void print_wrapped(const char *text) {
  size_t room = HELP_WIDTH - HELP_COLUMN;
  while (strlen(text) > room) {
    size_t length = room;
    while (length > 0 && text[length] != ' ') {
      length--;
    }
    if (length == 0) {
      break; /* one word longer than a line */
    }
    printf("%.*s\n%*s", (int)length, text, HELP_COLUMN, "");
    text += length + 1;
  }
  printf("%s\n", text);
}

static void print_option(const struct vamp_option *option) {
  char left[96];
  char letter[8] = "    ";
  if (option->letter) {
    snprintf(letter, sizeof letter, "-%c, ", option->letter);
  }
  int width = snprintf(left, sizeof left, "  %s--%s%s%s", letter, option->name, option->argument ? " " : "",
                       option->argument ? option->argument : "");
  if (width < HELP_COLUMN - 1) {
    printf("%-*s", HELP_COLUMN, left);
  } else {
    printf("%s\n%*s", left, HELP_COLUMN, "");
  }
  print_wrapped(option->help);
}

static void print_help(const struct vamp_command *command) {
  printf("usage: vamp %s %s\n\n%s\n", command->name, command->synopsis, command->description);
  for (const struct vamp_option_group *group = command->groups; group->title; group++) {
    printf("%s:\n", group->title);
    for (const struct vamp_option *option = group->options; option->name; option++) {
      print_option(option);
    }
    printf("\n");
  }
  printf("example:\n%s\nexit code: 0 done, 1 something failed, 2 the command line is wrong\n",
         command->example);
}

/* ---- values ------------------------------------------------------------------------------------------- */

static bool parse_integer(const char *text, json_int_t *value) {
  char *end;
  errno = 0;
  long long parsed = strtoll(text, &end, 10);
  *value = parsed;
  return text[0] != '\0' && *end == '\0' && errno == 0;
}

static bool parse_number(const char *text, double *value) {
  char *end;
  *value = strtod(text, &end);
  return text[0] != '\0' && *end == '\0' && isfinite(*value);
}

/* Sets parameters at a pointer of one or two names, which is all that the simple form needs. Takes over
 * `value`. */
static int set_parameter(json_t *parameters, const char *pointer, json_t *value) {
  const char *slash = strchr(pointer + 1, '/');
  if (!slash) {
    return json_object_set_new(parameters, pointer + 1, value);
  }
  char first[32];
  snprintf(first, sizeof first, "%.*s", (int)(slash - pointer - 1), pointer + 1);
  if (!json_object_get(parameters, first)) {
    json_object_set_new(parameters, first, json_object());
  }
  return json_object_set_new(json_object_get(parameters, first), slash + 1, value);
}

bool vamp_settings_given(const struct vamp_settings *settings, const char *pointer) {
  const char *slash = strchr(pointer + 1, '/');
  if (!slash) {
    return json_object_get(settings->parameters, pointer + 1) != NULL;
  }
  char first[32];
  snprintf(first, sizeof first, "%.*s", (int)(slash - pointer - 1), pointer + 1);
  return json_object_get(json_object_get(settings->parameters, first), slash + 1) != NULL;
}

static int take_parameter(struct vamp_settings *settings, const struct vamp_option *option,
                          const char *text) {
  json_int_t integer = 0;
  double number = 0;
  json_t *value = NULL;
  bool is_integer = option->kind != VAMP_OPTION_PARAMETER_TRUE && parse_integer(text, &integer);
  switch (option->kind) {
  case VAMP_OPTION_PARAMETER_TRUE:
    value = json_true();
    break;
  case VAMP_OPTION_PARAMETER_INTEGER:
    if (!is_integer) {
      return vamp_usage_error(settings, "--%s takes a whole number, not '%s'", option->name, text);
    }
    value = json_integer(integer);
    break;
  case VAMP_OPTION_PARAMETER_NUMBER:
    if (!parse_number(text, &number)) {
      return vamp_usage_error(settings, "--%s takes a number, not '%s'", option->name, text);
    }
    value = json_real(number);
    break;
  default:
    value = is_integer && option->kind == VAMP_OPTION_PARAMETER_EITHER ? json_integer(integer)
                                                                       : json_string(text);
    break;
  }
  if (!value) {
    return vamp_usage_error(settings, "--%s takes UTF-8 text", option->name);
  }
  if (set_parameter(settings->parameters, option->pointer, value) != 0) {
    return vamp_usage_error(settings, "out of memory");
  }
  return 0;
}

static int take_option(struct vamp_settings *settings, const struct vamp_option *option, const char *text) {
  char *member = (char *)settings + option->offset;
  json_int_t integer;
  double number;
  switch (option->kind) {
  case VAMP_OPTION_FLAG:
    *(bool *)(void *)member = true;
    return 0;
  case VAMP_OPTION_TEXT:
    if (text[0] == '\0') {
      return vamp_usage_error(settings, "--%s must not be empty", option->name);
    }
    *(const char **)(void *)member = text;
    return 0;
  case VAMP_OPTION_COUNT:
    if (!parse_integer(text, &integer) || (double)integer < option->low || (double)integer > option->high) {
      return vamp_usage_error(settings, "--%s takes a whole number from %.0f to %.0f, not '%s'", option->name,
                              option->low, option->high, text);
    }
    *(int *)(void *)member = (int)integer;
    return 0;
  case VAMP_OPTION_SECONDS:
    if (!parse_number(text, &number) || number < option->low || number > option->high) {
      return vamp_usage_error(settings, "--%s takes a number from %g to %g, not '%s'", option->name,
                              option->low, option->high, text);
    }
    *(double *)(void *)member = number;
    return 0;
  default:
    return take_parameter(settings, option, text);
  }
}

/* ---- getopt ------------------------------------------------------------------------------------------- */

struct getopt_tables {
  const struct vamp_option *options[MAX_OPTIONS];
  struct option longs[MAX_OPTIONS + 2];
  char shorts[2 * MAX_OPTIONS + 4];
  int count;
};

static void fill_tables(const struct vamp_command *command, struct getopt_tables *tables) {
  int count = 0;
  size_t shorts = 0;
  tables->shorts[shorts++] = ':'; /* report a missing value as ':' */
  tables->shorts[shorts++] = 'h';
  for (const struct vamp_option_group *group = command->groups; group->title; group++) {
    for (const struct vamp_option *option = group->options; option->name && count < MAX_OPTIONS; option++) {
      tables->options[count] = option;
      tables->longs[count] = (struct option){
          option->name, takes_value(option) ? required_argument : no_argument, NULL, FIRST_VALUE + count};
      if (option->letter) {
        tables->shorts[shorts++] = (char)option->letter;
        if (takes_value(option)) {
          tables->shorts[shorts++] = ':';
        }
      }
      count++;
    }
  }
  tables->shorts[shorts] = '\0';
  tables->count = count;
  tables->longs[count] = (struct option){"help", no_argument, NULL, 'h'};
  tables->longs[count + 1] = (struct option){NULL, 0, NULL, 0};
}

static const struct vamp_option *find_option(const struct getopt_tables *tables, int found) {
  if (found >= FIRST_VALUE && found < FIRST_VALUE + tables->count) {
    return tables->options[found - FIRST_VALUE];
  }
  for (int i = 0; i < tables->count; i++) {
    if (tables->options[i]->letter == found) {
      return tables->options[i];
    }
  }
  return NULL;
}

/* getopt takes -mask-ratio for -m ask-ratio, and what becomes of that no message could explain. */
static int check_dashes(const struct vamp_settings *settings, const struct getopt_tables *tables, int count,
                        char **words) {
  for (int i = 1; i < count && strcmp(words[i], "--") != 0; i++) {
    const char *word = words[i];
    if (word[0] != '-' || word[1] == '-') {
      continue;
    }
    size_t length = strcspn(word + 1, "=");
    for (int o = 0; length > 1 && o < tables->count; o++) {
      const char *name = tables->options[o]->name;
      if (strlen(name) == length && strncmp(name, word + 1, length) == 0) {
        return vamp_usage_error(settings, "there is no option -%s; it is spelt --%s", name, name);
      }
    }
  }
  return 0;
}

/* Reads all options; 0, an exit code, or -1 where help was asked for. */
static int read_options(struct vamp_settings *settings, int count, char **words) {
  struct getopt_tables tables;
  fill_tables(settings->command, &tables);
  int wrong = check_dashes(settings, &tables, count, words);
  if (wrong != 0) {
    return wrong;
  }
  opterr = 0;
  optind = 1;
  for (;;) {
    int found = getopt_long(count, words, tables.shorts, tables.longs, NULL);
    if (found == -1) {
      return 0;
    }
    if (found == 'h') {
      return -1;
    }
    if (found == ':') {
      return vamp_usage_error(settings, "%s needs a value", words[optind - 1]);
    }
    const struct vamp_option *option = found == '?' ? NULL : find_option(&tables, found);
    if (!option) {
      const struct vamp_option *known = optopt ? find_option(&tables, optopt) : NULL;
      if (known) {
        return vamp_usage_error(settings, "--%s takes no value", known->name);
      }
      if (optopt && optopt < FIRST_VALUE) {
        return vamp_usage_error(settings, "there is no option -%c", optopt);
      }
      return vamp_usage_error(settings, "there is no option %s", words[optind - 1]);
    }
    int status = take_option(settings, option, optarg);
    if (status != 0) {
      return status;
    }
  }
}

/* --params below what the flags say. A job's parameters name their model, which -m overrules. */
static int lay_flags_over_params(struct vamp_settings *settings) {
  json_t *params = NULL;
  struct vamp_error error = {0};
  if (!settings->params_text) {
    return 0;
  }
  if (vamp_json_option(settings->params_text, &params, &error) < 0) {
    return vamp_usage_error(settings, "--params: %s", error.message);
  }
  int status = 0;
  if (!json_is_object(params)) {
    status = vamp_usage_error(settings, "--params: parameters are a JSON object, {...}");
  } else if (settings->mask_text && json_object_get(params, "mask")) {
    status = vamp_usage_error(settings, "--mask and --params both have a mask; leave one out");
  } else if (json_object_update_recursive(params, settings->parameters) != 0) {
    status = vamp_usage_error(settings, "out of memory");
  }
  if (status != 0) {
    json_decref(params);
    return status;
  }
  json_decref(settings->parameters);
  settings->parameters = params;
  if (settings->model) {
    json_object_del(params, "model");
  } else {
    settings->model = json_string_value(json_object_get(params, "model"));
  }
  return 0;
}

bool vamp_settings_parse(const struct vamp_command *command, int count, char **words,
                         struct vamp_settings *settings, int *exit_code) {
  *settings = (struct vamp_settings){.command = command,
                                     .variations = 1,
                                     .batch = 1,
                                     .repeat = 1,
                                     .seconds = 10,
                                     .parameters = json_object()};
  if (!settings->parameters) {
    *exit_code = vamp_usage_error(settings, "out of memory");
    return false;
  }
  int status = read_options(settings, count, words);
  if (status == 0) {
    status = lay_flags_over_params(settings);
  }
  if (status != 0) {
    if (status < 0) {
      print_help(command);
    }
    *exit_code = status < 0 ? VAMP_EXIT_OK : status;
    return false;
  }
  settings->arguments = words + optind;
  settings->argument_count = count - optind;
  if (settings->argument_count < command->minimum_arguments ||
      settings->argument_count > command->maximum_arguments) {
    *exit_code = vamp_usage_error(settings, "too %s arguments; it is used as: vamp %s %s",
                                  settings->argument_count < command->minimum_arguments ? "few" : "many",
                                  command->name, command->synopsis);
    return false;
  }
  return true;
}

void vamp_settings_free(struct vamp_settings *settings) {
  json_decref(settings->parameters);
  settings->parameters = NULL;
}
