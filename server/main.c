/*
 * vampd: the daemon's front door. Everything is in daemon.c; here are the flags, the signals and the exit
 * code: 0 after a clean stop, 1 where something failed, 2 where the command line is wrong.
 */
#include <signal.h>
#include <stdio.h>

#include "server/daemon.h"

int main(int argc, char **argv) {
  struct vampd_options options;
  struct vamp_error error;
  if (vampd_options_parse(argc, argv, &options, &error) != VAMP_OK) {
    fprintf(stderr, "vampd: %s\n", error.message);
    return 2;
  }
  if (options.help || options.version) {
    fputs(options.help ? vampd_options_help() : "vampd " VAMPD_VERSION "\n", stdout);
    return 0;
  }
  /* Before any thread exists, so that all of them inherit it: signals are read from a descriptor. */
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGTERM);
  sigaddset(&signals, SIGINT);
  sigprocmask(SIG_BLOCK, &signals, NULL);
  signal(SIGPIPE, SIG_IGN);
  return vampd_run(&options);
}
