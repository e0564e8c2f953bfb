/*
 * The progress line: how far, which stage, how long still.
 *
 *   [##########..............]  41 %  coarse 5/12  3 of 8 done  0:12 left
 *
 * Time left is time spent, stretched: stages differ in cost per step, and the loop's progress already weighs
 * that. It is drawn at most ten times a second.
 */
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "vamp/session.h"

#define BAR_WIDTH 24

static const char *phase_name(enum vamp_phase phase) {
  switch (phase) {
  case VAMP_QUEUED:
    return "waiting";
  case VAMP_ENCODING:
    return "encoding";
  case VAMP_COARSE:
    return "coarse";
  case VAMP_FINE:
    return "fine";
  case VAMP_DECODING:
    return "decoding";
  default:
    return "finishing";
  }
}

void vamp_progress_start(struct vamp_progress *progress, const struct vamp_settings *settings, int total) {
  *progress = (struct vamp_progress){
      .shown = isatty(STDERR_FILENO) && !settings->quiet, .started = vamp_clock(), .total = total};
}

void vamp_progress_draw(struct vamp_progress *progress, const struct vamp_event *event) {
  double now = vamp_clock();
  if (!progress->shown || now - progress->drawn < 0.1) {
    return;
  }
  progress->drawn = now;
  double share = (progress->done + progress->running) / progress->total;
  share = fmin(fmax(share, 0), 1);
  char bar[BAR_WIDTH + 1], step[32] = "", jobs[48] = "", left[48] = "";
  int filled = (int)(share * BAR_WIDTH);
  memset(bar, '#', (size_t)filled);
  memset(bar + filled, '.', (size_t)(BAR_WIDTH - filled));
  bar[BAR_WIDTH] = '\0';
  if (event->steps > 0) {
    snprintf(step, sizeof step, " %d/%d", event->step, event->steps);
  }
  if (progress->total > 1) {
    snprintf(jobs, sizeof jobs, "  %d of %d done", progress->done, progress->total);
  }
  double seconds = share > 0.02 ? (now - progress->started) * (1 - share) / share : -1;
  if (seconds >= 0 && seconds < 360000) {
    snprintf(left, sizeof left, "  %d:%02d left", (int)seconds / 60, (int)seconds % 60);
  }
  fprintf(stderr, "\r[%s] %3.0f %%  %s%s%s%s\033[K", bar, 100 * share, phase_name(event->phase), step, jobs,
          left);
  fflush(stderr);
}

void vamp_progress_clear(struct vamp_progress *progress) {
  if (progress->shown && progress->drawn > 0) {
    fprintf(stderr, "\r\033[K");
    fflush(stderr);
    progress->drawn = 0;
  }
}
