/*
 * What `vamp run` is made of: tasks (one result each), the names of their files, and writing them.
 */
#ifndef VAMP_COMMAND_RUN_H
#define VAMP_COMMAND_RUN_H

#include "vamp/session.h"

struct vamp_run_task {
  const char *input;
  int number;   /* 1 .. --variations; 0 where there is one variation of each input */
  bool many;    /* results of this run go into folders */
  char *output; /* owned */
  enum vamp_audio_format format;

  struct vamp_variation variation; /* from start to finish */
  double audio_seconds;
  double started; /* vamp_clock() */
  double progress;
};

/* One task for each input and variation, with the names of their results; makes the folders. Prints what is
 * wrong and returns an enum vamp_exit. */
int vamp_run_plan(const struct vamp_settings *settings, const struct vamp_request *request,
                  struct vamp_run_task **tasks, int *count);
void vamp_run_tasks_free(struct vamp_run_task *tasks, int count);

/* Writes everything that was asked for and prints the task's line. */
int vamp_run_write(const struct vamp_settings *settings, const struct vamp_run_task *task,
                   const struct vamp_result *result, struct vamp_error *error);

/* Prints why there is no result: a sentence on stderr, and with --json an object on stdout. */
void vamp_run_failed(const struct vamp_settings *settings, const struct vamp_run_task *task,
                     const struct vamp_error *error);

#endif
