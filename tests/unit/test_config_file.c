/*
 * Where settings come from: the table, flags, environment, the file, and what a reload makes of them.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "server/config/reload.h"
#include "server/config/settings.h"

static char folder[] = "/tmp/vampd-config-XXXXXX";
static char config_path[64], keys_path[64];

static void write_file(const char *path, const char *text) {
  FILE *file = fopen(path, "w");
  assert_non_null(file);
  fputs(text, file);
  assert_int_equal(fclose(file), 0);
}

static int set_up(void **state) {
  (void)state;
  if (!mkdtemp(folder)) {
    return 1;
  }
  snprintf(config_path, sizeof config_path, "%s/vampd.ini", folder);
  snprintf(keys_path, sizeof keys_path, "%s/keys.ini", folder);
  return 0;
}

static int tear_down(void **state) {
  (void)state;
  unlink(config_path);
  unlink(keys_path);
  return rmdir(folder);
}

/* With these flags and variables, each list ending with NULL. */
static int create(const char *const *flags, const char *const *variables,
                  struct vampd_configuration **configuration, struct vamp_error *error) {
  int count = 0;
  while (flags[count]) {
    count++;
  }
  return vampd_configuration_create(count, (char *const *)flags, (char *const *)variables, configuration,
                                    error);
}

static const char *const NOTHING[] = {NULL};

/* Expects this to be refused, with this in the message. */
static void refused(const char *const *flags, const char *const *variables, const char *said) {
  struct vampd_configuration *configuration = NULL;
  struct vamp_error error = {0};
  int status = create(flags, variables, &configuration, &error);
  if (status == VAMP_OK) {
    fail_msg("accepted, and should have said \"%s\"", said);
  }
  assert_null(configuration);
  if (!strstr(error.message, said)) {
    fail_msg("\"%s\" does not say \"%s\"", error.message, said);
  }
}

static void refused_file(const char *text, const char *said) {
  const char *flags[] = {"vampd", "--config", config_path, NULL};
  write_file(config_path, text);
  refused(flags, NOTHING, said);
}

/* ---- flags -----------------------------------------------------------------------------------------------
 */

static void test_flags(void **state) {
  (void)state;
  struct vampd_configuration *configuration;
  struct vamp_error error;
  const char *flags[] = {"vampd",       "--port=0", "--host",  "::1", "--allow-remote",
                         "--precision", "bf16",     "--grace", "0",   "--max-queue=3",
                         NULL};
  assert_int_equal(create(flags, NOTHING, &configuration, &error), VAMP_OK);
  const struct vampd_settings *settings = vampd_configuration_acquire(configuration);
  assert_int_equal(settings->options.port, 0);
  assert_string_equal(settings->options.host, "::1");
  assert_true(settings->options.allow_remote);
  assert_int_equal(settings->options.max_queue, 3);
  assert_int_equal(settings->options.max_body_mb, 64);
  assert_null(settings->options.data_dir);
  assert_null(settings->keys);
  struct vamp_device_options device = vampd_options_device(&settings->options);
  assert_true(device.precision_given);
  assert_int_equal(device.precision, VAMP_PRECISION_BF16);
  vampd_settings_release(settings);
  vampd_configuration_free(configuration);
}

static void test_precisions(void **state) {
  (void)state;
  static const enum vamp_precision WANTED[] = {VAMP_PRECISION_FP32, VAMP_PRECISION_TF32, VAMP_PRECISION_BF16};
  struct vamp_error error;
  for (int i = 0; i < 4; i++) {
    struct vampd_configuration *configuration;
    const char *text = i < 3 ? vamp_precision_name(WANTED[i]) : "auto";
    const char *flags[] = {"vampd", "--precision", text, NULL};
    assert_int_equal(create(flags, NOTHING, &configuration, &error), VAMP_OK);
    const struct vampd_settings *settings = vampd_configuration_acquire(configuration);
    struct vamp_device_options device = vampd_options_device(&settings->options);
    assert_int_equal(device.precision_given, i < 3);
    assert_int_equal(device.precision, i < 3 ? WANTED[i] : VAMP_PRECISION_FP32);
    vampd_settings_release(settings);
    vampd_configuration_free(configuration);
  }
}

static void test_wrong_flags(void **state) {
  (void)state;
  const char *wrong[][4] = {{"vampd", "--port", "65536", NULL},
                            {"vampd", "--port", "8x", NULL},
                            {"vampd", "--port", NULL, NULL},
                            {"vampd", "--prot", "1", NULL},
                            {"vampd", "port", NULL, NULL},
                            {"vampd", "--backend", "gpu", NULL},
                            {"vampd", "--precision=", NULL, NULL},
                            {"vampd", "--precision", "tf16", NULL},
                            {"vampd", "--help=1", NULL, NULL},
                            {"vampd", "--model", "", NULL},
                            {"vampd", "--", NULL, NULL},
                            {"vampd", "--backend", "|", NULL},
                            {"vampd", "--max-queue", "0", NULL},
                            {"vampd", "--allow-remote=1", NULL},
                            {"vampd", "--log-format", "xml", NULL},
                            {"vampd", "--config", NULL},
                            {"vampd", "--new-key", NULL},
                            {"vampd", "--keep-hours", "-1", NULL},
                            {"vampd", "--max-disk-mb", "", NULL},
                            {"vampd", "--max-queueing", "2", NULL},
                            {"vampd", "--check-config=1", NULL},
                            {"vampd", "--config", "/nowhere", NULL},
                            {"vampd", "--config=/tmp", NULL}};
  for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
    refused(wrong[i], NOTHING, wrong[i][1][0] == '-' ? "" : "port");
  }
}

static void test_hosts(void **state) {
  (void)state;
  static const char *const OPEN[] = {"0.0.0.0", "::", "10.1.2.3", "2001:db8::1"};
  static const char *const CLOSED[] = {"127.0.0.1", "127.1.2.3", "::1", "localhost"};
  struct vampd_configuration *configuration;
  struct vamp_error error;
  write_file(keys_path, "");
  chmod(keys_path, 0600);
  for (size_t i = 0; i < 4; i++) {
    const char *bare[] = {"vampd", "--host", OPEN[i], NULL};
    refused(bare, NOTHING, "--allow-remote");
    const char *told[] = {"vampd", "--host", OPEN[i], "--allow-remote", NULL};
    assert_int_equal(create(told, NOTHING, &configuration, &error), VAMP_OK);
    vampd_configuration_free(configuration);
    const char *guarded[] = {"vampd", "--host", OPEN[i], "--keys", keys_path, NULL};
    assert_int_equal(create(guarded, NOTHING, &configuration, &error), VAMP_OK);
    vampd_configuration_free(configuration);
    const char *loopback[] = {"vampd", "--host", CLOSED[i], NULL};
    assert_int_equal(create(loopback, NOTHING, &configuration, &error), VAMP_OK);
    vampd_configuration_free(configuration);
  }
  const char *name[] = {"vampd", "--host", "example.org", NULL};
  refused(name, NOTHING, "numeric");
}

static void test_actions(void **state) {
  (void)state;
  struct vampd_configuration *configuration;
  struct vamp_error error;
  const char *variables[] = {"VAMPD_NONSENSE=1", NULL};
  const char *help[] = {"vampd", "--help", NULL};
  assert_int_equal(create(help, variables, &configuration, &error), VAMP_OK);
  assert_int_equal(vampd_configuration_action(configuration), VAMPD_ACTION_HELP);
  vampd_configuration_free(configuration);
  const char *key[] = {"vampd", "--new-key=lab", NULL};
  assert_int_equal(create(key, variables, &configuration, &error), VAMP_OK);
  assert_int_equal(vampd_configuration_action(configuration), VAMPD_ACTION_NEW_KEY);
  assert_string_equal(vampd_configuration_key_name(configuration), "lab");
  vampd_configuration_free(configuration);
  const char *check[] = {"vampd", "--check-config", NULL};
  refused(check, variables, "VAMPD_NONSENSE");
}

/* ---- precedence ------------------------------------------------------------------------------------------
 */

static void test_precedence(void **state) {
  (void)state;
  struct vampd_configuration *configuration;
  struct vamp_error error;
  write_file(config_path,
             "max-queue = 1\nmax_seconds = 2 ; underscores are dashes\n# and a comment\n"
             "max-body-mb = 3\ncors-origins = https://a.example\n  https://b.example\n"
             "cors-origins = https://c.example, https://d.example\nallow-remote = yes\n"
             "cors-origins = https://one.long.origin.example, https://another.long.origin.example\n");
  char variable[100];
  snprintf(variable, sizeof variable, "VAMPD_CONFIG=%s", config_path);
  const char *variables[] = {variable, "HOME=/x", "VAMPD_MAX_SECONDS=20", "VAMPD_MAX_BODY_MB=30", NULL};
  const char *flags[] = {"vampd", "--max-body-mb", "300", "--allow-remote=no", NULL};
  assert_int_equal(create(flags, variables, &configuration, &error), VAMP_OK);
  const struct vampd_settings *settings = vampd_configuration_acquire(configuration);
  assert_int_equal(settings->options.max_queue, 1);
  assert_int_equal(settings->options.max_seconds, 20);
  assert_int_equal(settings->options.max_body_mb, 300);
  assert_int_equal(settings->options.timeout, 30);
  assert_false(settings->options.allow_remote);
  assert_true(vampd_cors_allows(settings->cors, "https://a.example"));
  assert_true(vampd_cors_allows(settings->cors, "https://b.example"));
  assert_true(vampd_cors_allows(settings->cors, "https://d.example"));
  char *text = NULL;
  size_t size;
  FILE *out = open_memstream(&text, &size);
  vampd_settings_print(settings, out);
  fclose(out);
  char place[100];
  snprintf(place, sizeof place, " ; %s:1\n", config_path);
  assert_non_null(strstr(text, place));
  assert_non_null(strstr(text, "max-seconds = 20                         ; environment\n"));
  assert_non_null(strstr(text, "max-body-mb = 300                        ; flag\n"));
  assert_non_null(strstr(text, "timeout = 30                             ; default\n"));
  char *origins = strdup(settings->options.cors_origins);
  assert_non_null(origins);
  vampd_settings_release(settings);
  vampd_configuration_free(configuration);

  /* What is printed is a configuration file itself. */
  write_file(config_path, text);
  free(text);
  const char *again[] = {"vampd", "--config", config_path, NULL};
  assert_int_equal(create(again, NOTHING, &configuration, &error), VAMP_OK);
  settings = vampd_configuration_acquire(configuration);
  assert_int_equal(settings->options.max_body_mb, 300);
  assert_null(settings->options.data_dir);
  assert_true(vampd_cors_allows(settings->cors, "https://c.example"));
  assert_string_equal(settings->options.cors_origins, origins);
  free(origins);
  vampd_settings_release(settings);
  vampd_configuration_free(configuration);
}

static void test_wrong_files(void **state) {
  (void)state;
  refused_file("max-queue = 1\n\nmax-que = 2\n", "vampd.ini:3: max-que is unknown");
  refused_file("max-queue = many\n", "vampd.ini:1: max-queue takes");
  refused_file("timeout = 5\ngrace = 1\ntimeout = 6\n", "vampd.ini:3: timeout has a value already in line 1");
  refused_file("host = 127.0.0.1\n  port = 80\n", "vampd.ini:2: host has a value already");
  refused_file("[server]\nport = 80\n", "no sections");
  refused_file("port = 80\nnonsense\n", "vampd.ini:2: ");
  refused_file("help = yes\n", "unknown");
  refused_file("config = other.ini\n", "unknown");
  refused_file("cors-origins = https://a.example/path\n", "no origin");
  refused_file("keys = /nowhere/keys.ini\n", "/nowhere/keys.ini");
  char line[300];
  memset(line, 'x', sizeof line);
  memcpy(line, "model = ", 8);
  line[sizeof line - 1] = '\0';
  refused_file(line, "190 bytes");
  memcpy(line + 60, " = 1", 5);
  refused_file(line + 8, "name is too long");
}

static void test_wrong_variables(void **state) {
  (void)state;
  static const char *const WRONG[] = {"VAMPD_MAX_QUEUES=1", "VAMPD_max_queue=1", "VAMPD_=1",
                                      "VAMPD_MAX-QUEUE=1",  "VAMPD_PORT=",       "VAMPD_HELP=1"};
  const char *flags[] = {"vampd", NULL};
  for (size_t i = 0; i < sizeof WRONG / sizeof WRONG[0]; i++) {
    const char *variables[] = {WRONG[i], NULL};
    refused(flags, variables, "VAMPD_");
  }
}

/* ---- reload ----------------------------------------------------------------------------------------------
 */

static void test_reload(void **state) {
  (void)state;
  struct vampd_configuration *configuration;
  const struct vampd_settings *made = NULL;
  struct vamp_error error;
  char pending[64];
  const char *flags[] = {"vampd", "--config", config_path, "--grace", "7", NULL};
  write_file(config_path, "port = 81\nmax-seconds = 5\ngrace = 3\n");
  assert_int_equal(create(flags, NOTHING, &configuration, &error), VAMP_OK);
  const struct vampd_settings *old = vampd_configuration_acquire(configuration);

  write_file(config_path, "max-seconds = 9\nport = x\n");
  assert_int_equal(vampd_configuration_read(configuration, &made, pending, sizeof pending, &error),
                   VAMP_INVALID);
  assert_null(made);

  write_file(config_path, "port = 82\nmax-seconds = 6\ngrace = 4\nmodel = other\n");
  assert_int_equal(vampd_configuration_read(configuration, &made, pending, sizeof pending, &error), VAMP_OK);
  assert_string_equal(pending, "port, model");
  const struct vampd_settings *now = vampd_configuration_acquire(configuration);
  assert_ptr_equal(now, old);
  vampd_settings_release(now);
  vampd_configuration_publish(configuration, made);
  vampd_settings_release(made);
  now = vampd_configuration_acquire(configuration);
  assert_int_equal(now->options.max_seconds, 6);
  assert_int_equal(now->options.port, 81);
  assert_int_equal(now->options.grace, 7);
  assert_string_equal(now->options.model, "small");
  assert_int_equal(old->options.max_seconds, 5); /* whoever holds the old one still sees it */
  vampd_settings_release(now);
  vampd_settings_release(old);
  vampd_configuration_free(configuration);
}

/* On an address that others reach, the keys cannot be taken away under way. */
static void test_reload_keeps_the_door(void **state) {
  (void)state;
  struct vampd_configuration *configuration;
  const struct vampd_settings *made = NULL;
  struct vamp_error error;
  char pending[64], text[200];
  const char *flags[] = {"vampd", "--config", config_path, "--host=0.0.0.0", NULL};
  write_file(keys_path, "");
  chmod(keys_path, 0600);
  snprintf(text, sizeof text, "keys = %s\n", keys_path);
  write_file(config_path, text);
  assert_int_equal(create(flags, NOTHING, &configuration, &error), VAMP_OK);
  write_file(config_path, "\n");
  assert_int_equal(vampd_configuration_read(configuration, &made, pending, sizeof pending, &error),
                   VAMP_INVALID);
  /* Nor by asking for another address in the same breath: that one comes with a restart. */
  write_file(config_path, "allow-remote = yes\n");
  assert_int_equal(vampd_configuration_read(configuration, &made, pending, sizeof pending, &error),
                   VAMP_INVALID);
  vampd_configuration_free(configuration);
}

static void test_reload_and_access(void **state) {
  (void)state;
  struct vampd_configuration *configuration;
  struct vampd_access *access;
  struct vampd_admission admission;
  struct vampd_caller *caller;
  struct vamp_error error;
  const char *flags[] = {"vampd", "--config", config_path, NULL};
  write_file(config_path, "max-queue = 1\n");
  assert_int_equal(create(flags, NOTHING, &configuration, &error), VAMP_OK);
  assert_int_equal(vampd_access_create(&access, &error), VAMP_OK);
  vampd_admission_init(&admission);
  const struct vampd_settings *settings = vampd_configuration_acquire(configuration);
  assert_int_equal(vampd_settings_apply(settings, access, &admission, &error), VAMP_OK);
  vampd_settings_release(settings);
  assert_int_equal(vampd_admission_enter(&admission), VAMPD_ENTERED);
  assert_int_equal(vampd_admission_enter(&admission), VAMPD_FULL);
  assert_int_equal(vampd_access_identify(access, NULL, &caller, &error), VAMP_OK);

  char text[200];
  snprintf(text, sizeof text, "max-queue = 2\nkeys = %s\n", keys_path);
  write_file(config_path, text);
  unlink(keys_path);
  /* With a key file that does not exist nothing changes. */
  vampd_reload(configuration, access, &admission);
  assert_int_equal(vampd_admission_enter(&admission), VAMPD_FULL);
  assert_false(vampd_access_guarded(access));

  write_file(keys_path, "");
  chmod(keys_path, 0600);
  vampd_reload(configuration, access, &admission);
  assert_int_equal(vampd_admission_enter(&admission), VAMPD_ENTERED);
  assert_true(vampd_access_guarded(access));
  assert_int_equal(vampd_access_identify(access, NULL, &caller, &error), VAMP_INVALID);
  vampd_admission_destroy(&admission);
  vampd_access_free(access);
  vampd_configuration_free(configuration);
}

/* ---- the table -------------------------------------------------------------------------------------------
 */

static void test_help_fits_two_screens(void **state) {
  (void)state;
  char *text = NULL;
  size_t size;
  FILE *out = open_memstream(&text, &size);
  vampd_options_help(out);
  fclose(out);
  int lines = 0;
  for (const char *line = text; *line; line += strcspn(line, "\n") + 1) {
    if (strcspn(line, "\n") > 80) {
      fail_msg("too long: %.100s", line);
    }
    lines++;
  }
  assert_true(lines <= 48);
  for (int row = 0; row < VAMPD_OPTION_COUNT; row++) {
    char flag[64];
    snprintf(flag, sizeof flag, "  --%s ", VAMPD_OPTIONS[row].name);
    assert_non_null(strstr(text, flag));
  }
  free(text);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_flags),
      cmocka_unit_test(test_precisions),
      cmocka_unit_test(test_wrong_flags),
      cmocka_unit_test(test_hosts),
      cmocka_unit_test(test_actions),
      cmocka_unit_test(test_precedence),
      cmocka_unit_test(test_wrong_files),
      cmocka_unit_test(test_wrong_variables),
      cmocka_unit_test(test_reload),
      cmocka_unit_test(test_reload_and_access),
      cmocka_unit_test(test_reload_keeps_the_door),
      cmocka_unit_test(test_help_fits_two_screens),
  };
  return cmocka_run_group_tests(tests, set_up, tear_down);
}
