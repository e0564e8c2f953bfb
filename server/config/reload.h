/*
 * SIGHUP: the configuration and the key file are read again and put in force.
 *
 * Everything that can fail is done before anything changes, so a broken file leaves the daemon as it was; the
 * log says what was wrong, what changed, and what needs a restart.
 */
#ifndef VAMPD_RELOAD_H
#define VAMPD_RELOAD_H

#include "server/access/access.h"
#include "server/access/admission.h"
#include "server/config/settings.h"

/* What the snapshot says to those who do not look at it themselves: keys and limits to `access`, the queue's
 * limits to `admission`, the log's format. Also for the start. */
int vampd_settings_apply(const struct vampd_settings *settings, struct vampd_access *access,
                         struct vampd_admission *admission, struct vamp_error *error);

/* On the main thread. */
void vampd_reload(struct vampd_configuration *configuration, struct vampd_access *access,
                  struct vampd_admission *admission);

#endif
