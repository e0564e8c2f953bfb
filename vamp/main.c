/*
 * vamp, the command line: the engine's front door for shells and scripts.
 *
 * One file a subcommand, each a struct vamp_command (vamp/options.h). All of them go through the rooms that
 * the daemon goes through (vamp/request.h for parameters, vamp/generate.h for the device), so what is heard
 * here is what is heard there. This file finds the subcommand and hands over.
 */
#include <stdio.h>
#include <string.h>

#include "vamp/options.h"

static const struct vamp_command *const commands[] = {
    &vamp_command_run,     &vamp_command_mask,   &vamp_command_encode,
    &vamp_command_decode,  &vamp_command_logits, &vamp_command_generate,
    &vamp_command_measure, &vamp_command_bench,  &vamp_command_info,
};
#define COMMAND_COUNT (sizeof commands / sizeof commands[0])

static void print_overview(FILE *to) {
  fprintf(to, "vamp makes variations of music by masked acoustic token modelling.\n\n"
              "usage: vamp COMMAND ...\n\ncommands:\n");
  for (size_t i = 0; i < COMMAND_COUNT; i++) {
    fprintf(to, "  %-10s%s\n", commands[i]->name, commands[i]->summary);
  }
  fprintf(
      to,
      "\n'vamp COMMAND --help' shows a command's options and an example; 'vamp --version' the version.\n\n"
      "example:\n  vamp run song.wav -o variation.wav --mask-ratio 0.5 --periodic-prompt 7\n\n"
      "exit code: 0 done, 1 something failed, 2 the command line is wrong\n"
      "environment: VAMP_MODEL is the model folder where -m is not given, VAMP_BACKEND the\n"
      "backend where --backend is not, VAMP_PLUGIN_PATH folders with backends\n");
}

static const struct vamp_command *find_command(const char *name) {
  for (size_t i = 0; i < COMMAND_COUNT; i++) {
    if (strcmp(commands[i]->name, name) == 0) {
      return commands[i];
    }
  }
  return NULL;
}

/* A result that could not be written is a failure: the reader of a pipe must not take half for all. */
static int close_output(int exit_code) {
  if (fflush(stdout) != 0 || ferror(stdout)) {
    perror("vamp: writing to standard output");
    return exit_code == VAMP_EXIT_OK ? VAMP_EXIT_FAILED : exit_code;
  }
  return exit_code;
}

int main(int count, char **words) {
  if (count < 2) {
    print_overview(stderr);
    return VAMP_EXIT_USAGE;
  }
  const char *name = words[1];
  if (strcmp(name, "--help") == 0 || strcmp(name, "-h") == 0 || strcmp(name, "help") == 0) {
    print_overview(stdout);
    return close_output(VAMP_EXIT_OK);
  }
  if (strcmp(name, "--version") == 0) {
    printf("vamp %s\n", VAMP_VERSION);
    return close_output(VAMP_EXIT_OK);
  }
  const struct vamp_command *command = find_command(name);
  if (!command) {
    fprintf(stderr, "vamp: there is no command '%s'; 'vamp --help' lists them\n", name);
    return VAMP_EXIT_USAGE;
  }
  struct vamp_settings settings;
  int exit_code = VAMP_EXIT_OK;
  if (vamp_settings_parse(command, count - 1, words + 1, &settings, &exit_code)) {
    exit_code = command->run(&settings);
  }
  vamp_settings_free(&settings);
  return close_output(exit_code);
}
