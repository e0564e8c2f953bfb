/*
 * The bytes of the page: see page.h.
 */
#include <string.h>

#include "server/api/page.h"
#include "server/embed.h"

VAMPD_EMBED(vampd_page_index, "clients/web/index.html");
VAMPD_EMBED(vampd_page_style, "clients/web/style.css");
VAMPD_EMBED(vampd_page_icon, "clients/web/icon.svg");
VAMPD_EMBED(vampd_page_client, "clients/js/vampd.js");
VAMPD_EMBED(vampd_page_example, "models/small/demo.flac");
VAMPD_EMBED(vampd_page_page, "clients/web/page.js");
VAMPD_EMBED(vampd_page_connection, "clients/web/connection.js");
VAMPD_EMBED(vampd_page_settings, "clients/web/settings.js");
VAMPD_EMBED(vampd_page_dom, "clients/web/dom.js");
VAMPD_EMBED(vampd_page_fields, "clients/web/fields.js");
VAMPD_EMBED(vampd_page_state, "clients/web/state.js");
VAMPD_EMBED(vampd_page_controls, "clients/web/controls.js");
VAMPD_EMBED(vampd_page_sound, "clients/web/sound.js");
VAMPD_EMBED(vampd_page_clip, "clients/web/clip.js");
VAMPD_EMBED(vampd_page_maskshape, "clients/web/maskshape.js");
VAMPD_EMBED(vampd_page_maskview, "clients/web/maskview.js");
VAMPD_EMBED(vampd_page_preview, "clients/web/preview.js");
VAMPD_EMBED(vampd_page_joblist, "clients/web/joblist.js");
VAMPD_EMBED(vampd_page_jobs, "clients/web/jobs.js");
VAMPD_EMBED(vampd_page_results, "clients/web/results.js");

#define HTML "text/html; charset=utf-8"
#define CSS "text/css; charset=utf-8"
#define SCRIPT "text/javascript; charset=utf-8"

static const struct vampd_page_file FILES[] = {
    {"", HTML, vampd_page_index, vampd_page_index_end},
    {"style.css", CSS, vampd_page_style, vampd_page_style_end},
    {"icon.svg", "image/svg+xml", vampd_page_icon, vampd_page_icon_end},
    {"vampd.js", SCRIPT, vampd_page_client, vampd_page_client_end},
    {"demo.flac", "audio/flac", vampd_page_example, vampd_page_example_end},
    {"page.js", SCRIPT, vampd_page_page, vampd_page_page_end},
    {"connection.js", SCRIPT, vampd_page_connection, vampd_page_connection_end},
    {"settings.js", SCRIPT, vampd_page_settings, vampd_page_settings_end},
    {"dom.js", SCRIPT, vampd_page_dom, vampd_page_dom_end},
    {"fields.js", SCRIPT, vampd_page_fields, vampd_page_fields_end},
    {"state.js", SCRIPT, vampd_page_state, vampd_page_state_end},
    {"controls.js", SCRIPT, vampd_page_controls, vampd_page_controls_end},
    {"sound.js", SCRIPT, vampd_page_sound, vampd_page_sound_end},
    {"clip.js", SCRIPT, vampd_page_clip, vampd_page_clip_end},
    {"maskshape.js", SCRIPT, vampd_page_maskshape, vampd_page_maskshape_end},
    {"maskview.js", SCRIPT, vampd_page_maskview, vampd_page_maskview_end},
    {"preview.js", SCRIPT, vampd_page_preview, vampd_page_preview_end},
    {"joblist.js", SCRIPT, vampd_page_joblist, vampd_page_joblist_end},
    {"jobs.js", SCRIPT, vampd_page_jobs, vampd_page_jobs_end},
    {"results.js", SCRIPT, vampd_page_results, vampd_page_results_end},
};

const struct vampd_page_file *vampd_page_find(const char *name) {
  for (size_t i = 0; i < sizeof FILES / sizeof FILES[0]; i++) {
    if (strcmp(FILES[i].name, name) == 0) {
      return &FILES[i];
    }
  }
  return NULL;
}
