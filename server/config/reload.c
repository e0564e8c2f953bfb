/* SIGHUP: see reload.h. */
#include "server/config/reload.h"

#include <stdio.h>
#include <string.h>

#include "server/log.h"

#define BODIES_AT_ONCE 8 /* of the largest size; the budget for all bodies together */

int vampd_settings_apply(const struct vampd_settings *settings, struct vampd_access *access,
                         struct vampd_admission *admission, struct vamp_error *error) {
  const struct vampd_options *options = &settings->options;
  int status = vampd_access_load(access, settings->keys, error);
  if (status != VAMP_OK) {
    return status;
  }
  vampd_admission_limit(admission, options->max_queue, ((size_t)options->max_body_mb << 20) * BODIES_AT_ONCE);
  vampd_log_set_format(strcmp(options->log_format, "json") == 0 ? VAMPD_LOG_JSON : VAMPD_LOG_PLAIN);
  return VAMP_OK;
}

/* One line for each row that has another value now. */
static void log_changes(const struct vampd_options *before, const struct vampd_options *now) {
  for (int row = 0; row < VAMPD_OPTION_COUNT; row++) {
    const struct vampd_option *option = &VAMPD_OPTIONS[row];
    char one[16], other[16];
    const char *old = vampd_option_value(option, before, one);
    const char *new = vampd_option_value(option, now, other);
    if (strcmp(old, new) != 0) {
      vampd_log_event("setting", VAMPD_LOG_TEXT("name", option->name), VAMPD_LOG_TEXT("value", new),
                      VAMPD_LOG_TEXT("before", old));
    }
  }
}

void vampd_reload(struct vampd_configuration *configuration, struct vampd_access *access,
                  struct vampd_admission *admission) {
  const struct vampd_settings *settings = NULL;
  char pending[256] = "";
  struct vamp_error error = {0};
  int status = vampd_configuration_read(configuration, &settings, pending, sizeof pending, &error);
  if (status == VAMP_OK) {
    status = vampd_settings_apply(settings, access, admission, &error);
  }
  if (status != VAMP_OK) {
    vampd_log("error: nothing is changed: %s", error.message);
    vampd_settings_release(settings);
    return;
  }
  const struct vampd_settings *before = vampd_configuration_acquire(configuration);
  vampd_configuration_publish(configuration, settings);
  log_changes(&before->options, &settings->options);
  if (pending[0]) {
    vampd_log("these changes need a restart: %s", pending);
  }
  vampd_log_event("reload", VAMPD_LOG_TEXT("file", settings->file),
                  VAMPD_LOG_INTEGER("keys", settings->keys ? settings->keys->count : 0));
  vampd_settings_release(before);
  vampd_settings_release(settings);
}
