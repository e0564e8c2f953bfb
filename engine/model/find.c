/*
 * A model by its name: vamp_model_find of vamp/model.h.
 *
 * People say "small", and mean the folder that came with the program. What is a model folder as it stands is
 * taken first; a name with a slash in it is a path and nothing else, so that a mistyped path is not found
 * somewhere else.
 */
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "vamp/model.h"
#include "vamp/program.h"

#define NAME_SIZE 256 /* of a name; a path is bounded by PATH_MAX */
static const char *const BESIDE[] = {"../models", "../share/vampd/models"}; /* of build/, of PREFIX/bin */

/* Whether `path` is a model folder; `folder` gets it if so. */
static bool try_folder(const char *path, char folder[PATH_MAX]) {
  char file[PATH_MAX + 16];
  if (strlen(path) >= PATH_MAX) {
    return false;
  }
  snprintf(file, sizeof file, "%s/model.json", path);
  if (access(file, F_OK) != 0) {
    return false;
  }
  strcpy(folder, path);
  return true;
}

/* In the places where models that come with the program are. */
static bool try_places(const char *program, const char *name, char folder[PATH_MAX]) {
  char path[2 * PATH_MAX];
  snprintf(path, sizeof path, "models/%s", name);
  bool found = try_folder(path, folder);
  for (int i = 0; i < 2 && !found; i++) {
    snprintf(path, sizeof path, "%s/%s/%s", program, BESIDE[i], name);
    found = try_folder(path, folder);
  }
  return found;
}

int vamp_model_find(const char *name, char folder[PATH_MAX], struct vamp_error *error) {
  char program[PATH_MAX];
  struct stat there;
  bool is_name = !strchr(name, '/') && strlen(name) < NAME_SIZE;
  vamp_program_folder(program);
  if ((name[0] && try_folder(name, folder)) || (is_name && try_places(program, name, folder))) {
    return 0;
  }
  bool is_folder = stat(name, &there) == 0 && S_ISDIR(there.st_mode);
  if (is_name && !is_folder) {
    return vamp_fail(error, VAMP_IO,
                     "found no model '%s' in models/, in %.150s/%s or in %.150s/%s; give the path of a "
                     "model folder, the one that has model.json",
                     name, program, BESIDE[0], program, BESIDE[1]);
  }
  return vamp_fail(error, VAMP_IO, "%.300s is not a model folder: %s", name,
                   is_folder ? "it has no model.json" : "there is none of this path");
}
