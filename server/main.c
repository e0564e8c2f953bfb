/*
 * vampd: the daemon's front door. Everything is in daemon.c; here are the signals, what is printed instead of
 * serving, and the exit code: 0 after a clean stop, 1 where something failed, 2 where flags, environment or
 * configuration are wrong.
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "server/access/keys.h"
#include "server/config/settings.h"
#include "server/daemon.h"
#include "server/decode/decode.h"

/* The key is on standard output alone in its line, and nowhere else: it is never seen again. */
static int print_key(const char *name) {
  char key[VAMPD_KEY_TEXT_SIZE], *section = NULL;
  struct vamp_error error;
  if (vampd_key_make(name, key, &section, &error) != VAMP_OK) {
    fprintf(stderr, "vampd: %s\n", error.message);
    return 2;
  }
  printf("%s\n\n"
         "; That is the key: give it to who shall use it, it cannot be shown again.\n"
         "; This is for the key file (--keys), then SIGHUP:\n\n%s",
         key, section);
  free(section);
  return 0;
}

/* Settings that are well-formed; would the daemon start with them? */
static int print_settings(struct vampd_configuration *configuration) {
  const struct vampd_settings *settings = vampd_configuration_acquire(configuration);
  struct vamp_error error;
  char folder[PATH_MAX];
  int status = vampd_find_model(&settings->options, folder, &error);
  vampd_settings_print(settings, stdout);
  vampd_settings_release(settings);
  if (status != VAMP_OK) {
    fprintf(stderr, "vampd: %s\n", error.message);
  }
  return status == VAMP_OK ? 0 : 2;
}

static int serve(struct vampd_configuration *configuration) {
  /* Before any thread exists, so that all of them inherit it: signals are read from a descriptor. */
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGTERM);
  sigaddset(&signals, SIGINT);
  sigaddset(&signals, SIGHUP);
  sigprocmask(SIG_BLOCK, &signals, NULL);
  signal(SIGPIPE, SIG_IGN);
  return vampd_run(configuration);
}

static int act(struct vampd_configuration *configuration) {
  switch (vampd_configuration_action(configuration)) {
  case VAMPD_ACTION_HELP:
    vampd_options_help(stdout);
    return 0;
  case VAMPD_ACTION_VERSION:
    printf("vampd %s\n", VAMPD_VERSION);
    return 0;
  case VAMPD_ACTION_CHECK_CONFIG:
    return print_settings(configuration);
  case VAMPD_ACTION_NEW_KEY:
    return print_key(vampd_configuration_key_name(configuration));
  case VAMPD_ACTION_SERVE:
    break;
  }
  return serve(configuration);
}

int main(int argc, char **argv) {
  struct vampd_configuration *configuration = NULL;
  struct vamp_error error;
  int decoder_code;
  if (vampd_decoder_main(argc, argv, vamp_audio_read_memory_into, &decoder_code)) {
    return decoder_code;
  }
  if (vampd_configuration_create(argc, argv, environ, &configuration, &error) != VAMP_OK) {
    fprintf(stderr, "vampd: %s\n", error.message);
    return 2;
  }
  int code = act(configuration);
  vampd_configuration_free(configuration);
  return code;
}
