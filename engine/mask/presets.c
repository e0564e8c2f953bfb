/*
 * Presets: masks with names.
 *
 * The first five are the masking study's ("keep": the coarse codebooks above the pattern stay). The
 * others are the published application's and its notebook's ("mask": they are regenerated, with ratio 1).
 * Those let the periodic prompt begin at frame 0, so that their densities are the published ones for every
 * seed, to the last digit where dropout is 0; {"preset": "vampnet/small", "periodic_offset": "random"}
 * has it otherwise.
 */
#include "engine/mask/internal.h"

#include <stdio.h>
#include <string.h>

struct preset {
  const char *name, *description, *mask;
};

#define STUDY(ratio, prompt, upper)                                                                          \
  "{\"mask_ratio\": " ratio ", \"periodic_prompt\": " prompt ", \"upper_codebook_mask\": " upper             \
  ", \"upper_codebooks\": \"keep\"}"
#define PUBLISHED(prompt, upper, dropout)                                                                    \
  "{\"mask_ratio\": 1.0, \"periodic_prompt\": " prompt ", \"upper_codebook_mask\": " upper                   \
  ", \"upper_codebooks\": \"mask\", \"periodic_offset\": 0, \"dropout\": " dropout "}"

static const struct preset presets[] = {
    {"subtle", "New timbre and detail; melody, rhythm and most of the sound stay.", STUDY("0.3", "7", "2")},
    {"balanced", "The default: clearly a variation, clearly of this piece.", STUDY("0.5", "7", "3")},
    {"creative", "All codebooks open, prompts further apart: a new piece with the old one's bones.",
     STUDY("0.7", "10", "4")},
    {"rhythm",
     "Keeps one prompt a beat and invents the rest. The beat is heard in the music, so this wants a clip; "
     "without one set periodic_prompt to your own: 3445 / beats per minute.",
     STUDY("1.0", "\"beat\"", "3")},
    {"texture",
     "Half-second blocks of new texture between half-seconds of the old: fine and upper coarse codebooks "
     "alternate, the lower coarse ones (melody, rhythm) stay.",
     "{\"pattern\": \"block\", \"size\": 29, \"ratio\": 0.5, \"arrangement\": \"alternating\", "
     "\"codebooks\": [2, null]}"},
    {"vampnet/timbre", "The published application's \"timbre\".", PUBLISHED("2", "1", "0.0")},
    {"vampnet/small", "The published application's \"small variation\".", PUBLISHED("5", "4", "0.0")},
    {"vampnet/medium", "The published application's \"medium variation\".", PUBLISHED("7", "4", "0.0")},
    {"vampnet/large", "The published application's \"large variation\".", PUBLISHED("13", "4", "0.2")},
    {"vampnet/unconditional", "The published application's \"unconditional\": nothing is kept.",
     PUBLISHED("0", "1", "0.0")},
    {"vampnet/subtle", "The published notebook's \"subtle\".", PUBLISHED("5", "4", "0.0")},
    {"vampnet/improvise", "The published notebook's \"improvise\".", PUBLISHED("13", "2", "0.1")},
    {"vampnet/remix", "The published notebook's \"remix\".", PUBLISHED("30", "1", "0.2")},
    {"vampnet/texture", "The published notebook's \"texture\".", PUBLISHED("7", "3", "0.0")},
    {"vampnet/generate", "The published notebook's \"generate\": everything is regenerated.",
     PUBLISHED("70", "0", "0.3")},
};
#define PRESET_COUNT (sizeof presets / sizeof presets[0])

json_t *vamp_mask_preset(const char *name) {
  for (size_t i = 0; i < PRESET_COUNT; i++) {
    if (strcmp(presets[i].name, name) == 0) {
      return json_loads(presets[i].mask, 0, NULL);
    }
  }
  return NULL;
}

json_t *vamp_mask_presets_json(void) {
  json_t *list = json_array();
  for (size_t i = 0; i < PRESET_COUNT; i++) {
    json_t *entry = json_pack("{s:s, s:s, s:o}", "name", presets[i].name, "description",
                              presets[i].description, "mask", json_loads(presets[i].mask, 0, NULL));
    if (json_array_append_new(list, entry) != 0) {
      json_decref(list);
      return NULL;
    }
  }
  return list;
}

void vamp_mask_preset_names(char *out, size_t size) {
  size_t used = 0;
  out[0] = '\0';
  for (size_t i = 0; i < PRESET_COUNT && used < size; i++) {
    used += (size_t)snprintf(out + used, size - used, "%s%s", i ? ", " : "", presets[i].name);
  }
}
