/*
 * Opening a device by name: see vamp/device.h.
 *
 * The CPU backend is linked in, for it is needed everywhere. The CUDA backend is a shared object opened at
 * run time: a program that linked it would not start where the CUDA libraries are not installed. One table
 * names the plugins; a third backend is a row.
 *
 * A plugin is code that runs with all our rights, so it is taken from places that only an administrator or
 * the user himself can fill: by its full path, never by the linker's search, and never from the current
 * folder. Its ABI number is read before anything else of it is used, because a plugin left over from another
 * version would call through a table of another shape.
 */
#include "vamp/device.h"

#include <dlfcn.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "vamp/program.h"

#define PLUGIN_PATH "VAMP_PLUGIN_PATH"
#define PREFERRED "VAMP_BACKEND"

struct plugin {
  const char *backend, *file;
};

static const struct plugin PLUGINS[] = {
    {"cuda", "libvamp_cuda.so"},
    {"cuda-emulated", "libvamp_cuda_emulated.so"},
};
enum { PLUGIN_COUNT = sizeof PLUGINS / sizeof PLUGINS[0] };
static const struct plugin *const AUTOMATIC = &PLUGINS[0];
static const char AUTOMATIC_DRIVER[] = "libcuda.so.1"; /* comes with NVIDIA's driver, not with CUDA */

/* Whether folder/file is there; `path` gets it if so. */
static bool try_folder(const char *folder, size_t length, const char *file, char path[PATH_MAX]) {
  int written = snprintf(path, PATH_MAX, "%.*s/%s", (int)length, folder, file);
  return length > 0 && length < PATH_MAX && written > 0 && written < PATH_MAX && access(path, R_OK) == 0;
}

static int find_plugin(const struct plugin *plugin, char path[PATH_MAX], struct vamp_error *error) {
  const char *folders = getenv(PLUGIN_PATH);
  while (folders && *folders) {
    size_t length = strcspn(folders, ":");
    if (try_folder(folders, length, plugin->file, path)) {
      return 0;
    }
    folders += length + (folders[length] == ':');
  }
  char program[PATH_MAX], library[PATH_MAX];
  vamp_program_folder(program);
  int written = snprintf(library, sizeof library, "%.*s/../lib/vampd", PATH_MAX - 32, program);
  if (try_folder(program, strlen(program), plugin->file, path) ||
      try_folder(library, (size_t)written, plugin->file, path)) {
    return 0;
  }
  return vamp_fail(error, VAMP_UNSUPPORTED,
                   "%s is not installed: it is neither in %.150s nor in ../lib/vampd there, nor in $%s",
                   plugin->file, program, PLUGIN_PATH);
}

static int open_plugin(const struct plugin *plugin, const struct vamp_device_options *options,
                       struct vamp_device **device, struct vamp_error *error) {
  char path[PATH_MAX];
  int status = find_plugin(plugin, path, error);
  if (status) {
    return status;
  }
  void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
  if (!library) {
    const char *reason = dlerror();
    return vamp_fail(error, VAMP_UNSUPPORTED, "%s cannot be loaded: %.400s", plugin->file,
                     reason ? reason : path);
  }
  const struct vamp_plugin *symbol = dlsym(library, VAMP_PLUGIN_SYMBOL);
  if (!symbol || symbol->abi != VAMP_PLUGIN_ABI) {
    status = vamp_fail(error, VAMP_UNSUPPORTED,
                       "%.300s is of another version of this program: its plugin ABI is %u, not %u", path,
                       symbol ? symbol->abi : 0, VAMP_PLUGIN_ABI);
  } else if (strcmp(symbol->name, plugin->backend) != 0) {
    status = vamp_fail(error, VAMP_UNSUPPORTED, "%.300s is the backend '%.30s', not '%s'", path, symbol->name,
                       plugin->backend);
  } else {
    status = symbol->open(options, device, error);
  }
  dlclose(library); /* stays loaded: RTLD_NODELETE */
  return status;
}

static void tell(struct vamp_device_choice *choice, const struct vamp_device *device, const char *reason) {
  if (choice) {
    snprintf(choice->text, sizeof choice->text, "backend %s (%s): %s", device->backend, device->description,
             reason);
  }
}

/* Whether it is worth opening the plugin unasked: it is there, and so is a driver. The libraries that it
 * brings along would stay in memory, 150 MiB of them, only to say that there is none. */
static int try_automatic(struct vamp_error *error) {
  char path[PATH_MAX];
  int status = find_plugin(AUTOMATIC, path, error);
  if (status) {
    return status;
  }
  void *driver = dlopen(AUTOMATIC_DRIVER, RTLD_LAZY | RTLD_LOCAL);
  if (!driver) {
    const char *reason = dlerror();
    return vamp_fail(error, VAMP_UNSUPPORTED, "there is no NVIDIA driver: %.400s",
                     reason ? reason : AUTOMATIC_DRIVER);
  }
  dlclose(driver);
  return 0;
}

static int open_automatic(const struct vamp_device_options *options, struct vamp_device **device,
                          struct vamp_device_choice *choice, struct vamp_error *error) {
  struct vamp_error missing = {0};
  int status = try_automatic(&missing);
  if (status == 0) {
    status = open_plugin(AUTOMATIC, options, device, &missing);
  }
  if (status == 0) {
    tell(choice, *device, "chosen because a GPU is there");
    return 0;
  }
  status = vamp_cpu_open(options, device, error);
  if (status && options->index > 0) {
    return vamp_fail(error, VAMP_UNSUPPORTED,
                     "there is no device number %d: %.400s, and the processor is number 0", options->index,
                     missing.message);
  }
  if (status == 0) {
    char reason[sizeof missing.message + 32];
    snprintf(reason, sizeof reason, "no GPU is used: %s", missing.message);
    tell(choice, *device, reason);
  }
  return status;
}

int vamp_device_open(const struct vamp_device_options *options, struct vamp_device **device,
                     struct vamp_device_choice *choice, struct vamp_error *error) {
  const char *backend = options->backend, *preferred = getenv(PREFERRED);
  if (!backend || strcmp(backend, "auto") == 0) {
    backend = preferred && preferred[0] ? preferred : "auto";
  }
  if (strcmp(backend, "auto") == 0) {
    return open_automatic(options, device, choice, error);
  }
  int status = VAMP_INVALID, i = 0;
  if (strcmp(backend, "cpu") == 0) {
    status = vamp_cpu_open(options, device, error);
  } else {
    while (i < PLUGIN_COUNT && strcmp(PLUGINS[i].backend, backend) != 0) {
      i++;
    }
    status = i < PLUGIN_COUNT
                 ? open_plugin(&PLUGINS[i], options, device, error)
                 : vamp_fail_field(error, VAMP_INVALID, "/backend",
                                   "it is auto, cpu, cuda or cuda-emulated, not '%.50s'", backend);
  }
  if (status == 0) {
    tell(choice, *device, "as asked for");
  }
  return status;
}
