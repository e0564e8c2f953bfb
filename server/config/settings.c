/*
 * Reading and exchanging the settings: see settings.h.
 *
 * Sources are applied from the weakest to the strongest, and each row remembers which one it had its value
 * from last. The file is named by a flag or a variable, so the flags are looked through once before.
 *
 * Snapshots. A reader takes the pointer and a reference under a mutex that covers just these two, because
 * with the pointer alone the last reference could be given back in between. Rejected: keeping every snapshot
 * for ever, which needs no lock and leaks with every reload; and hazard pointers, for something that is read
 * once a request.
 */
#include "server/config/settings.h"

#include <netdb.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "server/config/ini.h"

#define ENVIRONMENT_PREFIX "VAMPD_"
#define LINE_WIDTH 100
#define MAX_LIST 8192 /* bytes of a list that goes over several lines */

struct vampd_configuration {
  int argc;
  char *const *argv;
  char *const *environment;
  enum vampd_action action;
  const char *key_name;
  pthread_mutex_t mutex;
  struct vampd_settings *current; /* under the mutex */
};

/* ---- one source after the other ------------------------------------------------------------------------ */

static int set_row(struct vampd_settings *settings, int row, const char *value, enum vampd_source source,
                   int line, const char *place, struct vamp_error *error) {
  int status = vampd_option_set(&VAMPD_OPTIONS[row], value, &settings->options, place, error);
  if (status == VAMP_OK) {
    settings->origins[row] = (struct vampd_origin){source, line};
  }
  return status;
}

/* A list that goes on: what is there already and a comma before it. */
static int extend_list(struct vampd_settings *settings, int row, const char *value, int line,
                       const char *place, struct vamp_error *error) {
  char number[16], joined[MAX_LIST];
  const char *before = vampd_option_value(&VAMPD_OPTIONS[row], &settings->options, number);
  if (snprintf(joined, sizeof joined, "%s,%s", before, value) >= (int)sizeof joined) {
    return vamp_fail(error, VAMP_LIMIT, "%s is longer than %d bytes.", place, MAX_LIST);
  }
  return set_row(settings, row, joined, VAMPD_FROM_FILE, line, place, error);
}

static int take_file_entry(void *user, const char *section, const char *name, const char *value, int line,
                           struct vamp_error *error) {
  struct vampd_settings *settings = user;
  char place[300];
  vampd_ini_place(place, sizeof place, settings->file, line, name);
  if (section[0]) {
    return vamp_fail(error, VAMP_INVALID, "%s stands in [%s], but there are no sections in this file.", place,
                     section);
  }
  int row = vampd_option_find(name, strlen(name));
  if (row < 0) {
    return vamp_fail(error, VAMP_INVALID, "%s is unknown; vampd --help lists what there is.", place);
  }
  if (settings->origins[row].source == VAMPD_FROM_FILE) {
    if (VAMPD_OPTIONS[row].kind == VAMPD_OPTION_LIST) {
      return extend_list(settings, row, value, line, place, error);
    }
    return vamp_fail(error, VAMP_INVALID,
                     "%s has a value already in line %d (an indented line goes on with the one above).",
                     place, settings->origins[row].line);
  }
  return set_row(settings, row, value, VAMPD_FROM_FILE, line, place, error);
}

/* Turns "VAMPD_MAX_QUEUE" into a row; -1: there is none. */
static int find_variable(const char *variable, size_t length) {
  char name[64];
  if (length >= sizeof name) {
    return -1;
  }
  for (size_t i = 0; i < length; i++) {
    bool capital = variable[i] >= 'A' && variable[i] <= 'Z';
    if (!capital && variable[i] != '_') {
      return -1;
    }
    name[i] = capital ? (char)(variable[i] - 'A' + 'a') : '-';
  }
  return vampd_option_find(name, length);
}

static int take_environment(struct vampd_settings *settings, char *const *environment,
                            struct vamp_error *error) {
  size_t prefix = strlen(ENVIRONMENT_PREFIX);
  for (char *const *at = environment; at && *at; at++) {
    size_t length = strcspn(*at, "=");
    if (strncmp(*at, ENVIRONMENT_PREFIX, prefix) != 0 || (*at)[length] != '=' ||
        strncmp(*at, "VAMPD_CONFIG=", 13) == 0) {
      continue;
    }
    char place[80];
    snprintf(place, sizeof place, "%.*s", (int)(length < 79 ? length : 79), *at);
    int row = find_variable(*at + prefix, length - prefix);
    if (row < 0) {
      return vamp_fail(error, VAMP_INVALID, "The environment variable %s is none of vampd's.", place);
    }
    int status = set_row(settings, row, *at + length + 1, VAMPD_FROM_ENVIRONMENT, 0, place, error);
    if (status != VAMP_OK) {
      return status;
    }
  }
  return VAMP_OK;
}

/* ---- the command line ------------------------------------------------------------------------------------
 */

/* Flags that are no rows of the table. */
struct command {
  enum vampd_action action;
  const char *config, *key_name;
};

/* The value of the flag argv[*i], inside it ("--port=1") or behind it, where it takes one. */
static int value_of(int argc, char *const *argv, int *i, const char **value, struct vamp_error *error) {
  const char *equals = strchr(argv[*i], '=');
  if (equals) {
    *value = equals + 1;
    return VAMP_OK;
  }
  if (*i + 1 >= argc) {
    return vamp_fail(error, VAMP_INVALID, "%s needs a value.", argv[*i]);
  }
  *value = argv[++*i];
  return VAMP_OK;
}

/* --help and its like; *known: it was one. */
static int take_command(int argc, char *const *argv, int *i, struct command *command, bool *known,
                        struct vamp_error *error) {
  const char *text = argv[*i];
  *known = true;
  if (strcmp(text, "--help") == 0) {
    command->action = VAMPD_ACTION_HELP;
  } else if (strcmp(text, "--version") == 0) {
    command->action = VAMPD_ACTION_VERSION;
  } else if (strcmp(text, "--check-config") == 0) {
    command->action = VAMPD_ACTION_CHECK_CONFIG;
  } else if (strcmp(text, "--config") == 0 || strncmp(text, "--config=", 9) == 0) {
    return value_of(argc, argv, i, &command->config, error);
  } else if (strcmp(text, "--new-key") == 0 || strncmp(text, "--new-key=", 10) == 0) {
    command->action = VAMPD_ACTION_NEW_KEY;
    return value_of(argc, argv, i, &command->key_name, error);
  } else {
    *known = false;
  }
  return VAMP_OK;
}

/* With `settings` NULL the rows' values are passed over. */
static int take_flags(int argc, char *const *argv, struct vampd_settings *settings, struct command *command,
                      struct vamp_error *error) {
  for (int i = 1; i < argc; i++) {
    bool known;
    int status = take_command(argc, argv, &i, command, &known, error);
    if (status != VAMP_OK) {
      return status;
    }
    if (known) {
      continue;
    }
    const char *name = strncmp(argv[i], "--", 2) == 0 ? argv[i] + 2 : "";
    int row = vampd_option_find(name, strcspn(name, "="));
    if (row < 0) {
      return vamp_fail(error, VAMP_INVALID, "Unknown argument \"%.80s\"; vampd --help lists the flags.",
                       argv[i]);
    }
    const char *value = "yes";
    bool bare = VAMPD_OPTIONS[row].kind == VAMPD_OPTION_SWITCH && !strchr(name, '=');
    if (!bare && (status = value_of(argc, argv, &i, &value, error)) != VAMP_OK) {
      return status;
    }
    char place[32];
    snprintf(place, sizeof place, "--%s", VAMPD_OPTIONS[row].name);
    if (settings && (status = set_row(settings, row, value, VAMPD_FROM_FLAG, 0, place, error)) != VAMP_OK) {
      return status;
    }
  }
  return VAMP_OK;
}

/* ---- a snapshot ------------------------------------------------------------------------------------------
 */

void vampd_settings_release(const struct vampd_settings *settings) {
  /* Readers see a constant; the memory is ours. */
  struct vampd_settings *own = (struct vampd_settings *)settings;
  if (own && atomic_fetch_sub(&own->references, 1) == 1) {
    vampd_options_free(&own->options);
    vampd_keys_free(own->keys);
    vampd_cors_free(own->cors);
    free(own->file);
    free(own);
  }
}

static const char *find_config(const struct command *command, char *const *environment) {
  for (char *const *at = environment; at && *at && !command->config; at++) {
    if (strncmp(*at, "VAMPD_CONFIG=", 13) == 0) {
      return *at + 13;
    }
  }
  return command->config ? command->config : "";
}

static bool is_loopback(const struct sockaddr *address) {
  if (address->sa_family == AF_INET6) {
    return IN6_IS_ADDR_LOOPBACK(&((const struct sockaddr_in6 *)address)->sin6_addr);
  }
  return (ntohl(((const struct sockaddr_in *)address)->sin_addr.s_addr) >> 24) == 127;
}

/* A name could resolve to anything at any time, so an address is a number; and one that others can reach
 * needs keys. */
static int check_host(const struct vampd_options *options, struct vamp_error *error) {
  struct addrinfo numeric = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICHOST};
  struct addrinfo *address = NULL;
  if (strcmp(options->host, "localhost") == 0) {
    return VAMP_OK;
  }
  if (getaddrinfo(options->host, NULL, &numeric, &address) != 0) {
    return vamp_fail(error, VAMP_INVALID, "--host takes a numeric address or localhost, not \"%.80s\".",
                     options->host);
  }
  bool guarded = options->keys || options->allow_remote || is_loopback(address->ai_addr);
  freeaddrinfo(address);
  if (!guarded) {
    return vamp_fail(error, VAMP_INVALID,
                     "%.80s is not a loopback address, and without a key file (--keys) anyone who reaches it "
                     "could use this machine. Give --allow-remote if that is what you want.",
                     options->host);
  }
  return VAMP_OK;
}

/* What the values lead to: files and lists. */
static int complete(struct vampd_settings *settings, struct vamp_error *error) {
  const struct vampd_options *options = &settings->options;
  int status = check_host(options, error);
  if (status == VAMP_OK) {
    status = vampd_cors_create(options->cors_origins, &settings->cors, error);
  }
  if (status == VAMP_OK && options->keys) {
    status = vampd_keys_read(options->keys, &settings->keys, error);
  }
  return status;
}

/* All sources, without what they lead to. */
static int gather(const struct vampd_configuration *configuration, struct vampd_settings *settings,
                  struct vamp_error *error) {
  struct command command = {0};
  int status = take_flags(configuration->argc, configuration->argv, NULL, &command, error);
  if (status == VAMP_OK) {
    status = vampd_options_default(&settings->options, error);
  }
  const char *file = find_config(&command, configuration->environment);
  if (status == VAMP_OK && file[0]) {
    settings->file = strdup(file);
    status = settings->file ? vampd_ini_read(file, false, take_file_entry, settings, error)
                            : vamp_fail(error, VAMP_MEMORY, "Out of memory.");
  }
  if (status == VAMP_OK) {
    status = take_environment(settings, configuration->environment, error);
  }
  if (status == VAMP_OK) {
    status = take_flags(configuration->argc, configuration->argv, settings, &command, error);
  }
  return status;
}

static struct vampd_settings *new_settings(struct vamp_error *error) {
  struct vampd_settings *settings = calloc(1, sizeof *settings);
  if (!settings) {
    vamp_fail(error, VAMP_MEMORY, "Out of memory.");
    return NULL;
  }
  atomic_init(&settings->references, 1);
  return settings;
}

/* ---- the configuration
 * ------------------------------------------------------------------------------------- */

static int read_first(struct vampd_configuration *configuration, struct vamp_error *error) {
  struct command command = {0};
  int status = take_flags(configuration->argc, configuration->argv, NULL, &command, error);
  configuration->action = command.action;
  configuration->key_name = command.key_name;
  bool whole = command.action == VAMPD_ACTION_SERVE || command.action == VAMPD_ACTION_CHECK_CONFIG;
  if (status == VAMP_OK) {
    status = whole ? gather(configuration, configuration->current, error)
                   : vampd_options_default(&configuration->current->options, error);
  }
  return status == VAMP_OK && whole ? complete(configuration->current, error) : status;
}

int vampd_configuration_create(int argc, char *const *argv, char *const *environment,
                               struct vampd_configuration **configuration, struct vamp_error *error) {
  struct vampd_configuration *made = calloc(1, sizeof *made);
  if (!made) {
    return vamp_fail(error, VAMP_MEMORY, "Out of memory.");
  }
  *made = (struct vampd_configuration){.argc = argc, .argv = argv, .environment = environment};
  pthread_mutex_init(&made->mutex, NULL);
  made->current = new_settings(error);
  int status = made->current ? read_first(made, error) : VAMP_MEMORY;
  if (status != VAMP_OK) {
    vampd_configuration_free(made);
    return status;
  }
  *configuration = made;
  return VAMP_OK;
}

void vampd_configuration_free(struct vampd_configuration *configuration) {
  if (configuration) {
    vampd_settings_release(configuration->current);
    pthread_mutex_destroy(&configuration->mutex);
    free(configuration);
  }
}

enum vampd_action vampd_configuration_action(const struct vampd_configuration *configuration) {
  return configuration->action;
}

const char *vampd_configuration_key_name(const struct vampd_configuration *configuration) {
  return configuration->key_name;
}

const struct vampd_settings *vampd_configuration_acquire(struct vampd_configuration *configuration) {
  pthread_mutex_lock(&configuration->mutex);
  struct vampd_settings *settings = configuration->current;
  atomic_fetch_add(&settings->references, 1);
  pthread_mutex_unlock(&configuration->mutex);
  return settings;
}

/* Rows that only a restart changes keep the value that is in force. */
static int keep_fixed(struct vampd_settings *settings, const struct vampd_settings *before, char *pending,
                      size_t pending_size, struct vamp_error *error) {
  size_t used = 0;
  pending[0] = '\0';
  for (int row = 0; row < VAMPD_OPTION_COUNT; row++) {
    const struct vampd_option *option = &VAMPD_OPTIONS[row];
    char one[16], other[16];
    const char *value = vampd_option_value(option, &before->options, one);
    if (option->live || strcmp(value, vampd_option_value(option, &settings->options, other)) == 0) {
      continue;
    }
    int length = snprintf(pending + used, pending_size - used, "%s%s", used ? ", " : "", option->name);
    used = used + (size_t)length < pending_size ? used + (size_t)length : pending_size - 1;
    int status = vampd_option_set(option, value, &settings->options, option->name, error);
    if (status != VAMP_OK) {
      return status;
    }
    settings->origins[row] = before->origins[row];
  }
  return VAMP_OK;
}

int vampd_configuration_read(struct vampd_configuration *configuration,
                             const struct vampd_settings **settings, char *pending, size_t pending_size,
                             struct vamp_error *error) {
  struct vampd_settings *made = new_settings(error);
  if (!made) {
    return VAMP_MEMORY;
  }
  const struct vampd_settings *before = vampd_configuration_acquire(configuration);
  int status = gather(configuration, made, error);
  if (status == VAMP_OK) {
    status = keep_fixed(made, before, pending, pending_size, error);
  }
  if (status == VAMP_OK) {
    status = complete(made, error);
  }
  vampd_settings_release(before);
  if (status != VAMP_OK) {
    vampd_settings_release(made);
    return status;
  }
  *settings = made;
  return VAMP_OK;
}

void vampd_configuration_publish(struct vampd_configuration *configuration,
                                 const struct vampd_settings *settings) {
  struct vampd_settings *own = (struct vampd_settings *)settings;
  atomic_fetch_add(&own->references, 1);
  pthread_mutex_lock(&configuration->mutex);
  struct vampd_settings *before = configuration->current;
  configuration->current = own;
  pthread_mutex_unlock(&configuration->mutex);
  vampd_settings_release(before);
}

static void print_origin(const struct vampd_settings *settings, int row, FILE *out) {
  static const char *const SOURCES[] = {"default", "", "environment", "flag"};
  const struct vampd_origin *origin = &settings->origins[row];
  fprintf(out, "; %s", SOURCES[origin->source]);
  if (origin->source == VAMPD_FROM_FILE) {
    fprintf(out, "%s:%d", settings->file, origin->line);
  }
  fputs("\n", out);
}

/* A list that is too long for one line of the file goes on in indented ones, as the file may have it: an end
 * of line stands for a comma there, and a comma before it would make one too many. */
static void print_list(const char *value, FILE *out) {
  int used = 0;
  while (*value) {
    int item = (int)strcspn(value, ",");
    bool more = value[item] == ',';
    bool fits = used == 0 || used + item <= LINE_WIDTH;
    if (used > 0) {
      fputs(fits ? "," : "\n    ", out);
    }
    used = (fits ? used : 0) + 1 + fprintf(out, "%.*s", item, value);
    value += item + more;
  }
  fputs("\n", out);
}

void vampd_settings_print(const struct vampd_settings *settings, FILE *out) {
  for (int row = 0; row < VAMPD_OPTION_COUNT; row++) {
    const struct vampd_option *option = &VAMPD_OPTIONS[row];
    char number[16];
    const char *value = vampd_option_value(option, &settings->options, number);
    if (option->kind == VAMPD_OPTION_LIST && strlen(value) > LINE_WIDTH / 2) {
      print_origin(settings, row, out); /* nothing may stand behind a line that goes on */
      fprintf(out, "%s = ", option->name);
      print_list(value, out);
      continue;
    }
    int used = fprintf(out, "%s = %s", option->name, value);
    fprintf(out, "%*s ", used < 40 ? 40 - used : 0, "");
    print_origin(settings, row, out);
  }
  if (settings->keys) {
    fprintf(out, "; %zu %s in %s\n", settings->keys->count, settings->keys->count == 1 ? "key" : "keys",
            settings->options.keys);
  }
}
