/*
 * The devices that the tests of the CUDA backend run on: whatever plugin VAMP_TEST_PLUGIN names, emulated or
 * real, in fp32, bf16 and tf32. The trials are those of tests/unit/cpu_reference.h; include this in its
 * place.
 */
#ifndef VAMP_TEST_CUDA_DEVICES_H
#define VAMP_TEST_CUDA_DEVICES_H

#define TRIAL_THREADS 1
#include "tests/unit/cpu_reference.h"

#include <dlfcn.h>

/* What a test's devices take: three are open at a time, and each would take nearly all that it finds. */
#define DEVICES_MEBIBYTES "256"

/* Group setup. */
static inline int devices_open(void **state) {
  struct devices *devices = calloc(1, sizeof *devices);
  if (!devices) {
    return -1;
  }
  *state = devices;
  const char *path = getenv("VAMP_TEST_PLUGIN");
  if (!path) {
    print_error("VAMP_TEST_PLUGIN names no plugin to test\n");
    return -1;
  }
  void *object = dlopen(path, RTLD_NOW | RTLD_LOCAL);
  const struct vamp_plugin *plugin = object ? dlsym(object, VAMP_PLUGIN_SYMBOL) : NULL;
  if (!plugin || plugin->abi != VAMP_PLUGIN_ABI) {
    print_error("%s: %s\n", path, plugin ? "made for another version" : dlerror());
    return -1;
  }
  static const enum vamp_precision PRECISIONS[] = {VAMP_PRECISION_FP32, VAMP_PRECISION_BF16,
                                                   VAMP_PRECISION_TF32};
  setenv("VAMP_CUDA_MEMORY_MIB", DEVICES_MEBIBYTES, 0);
  for (int i = 0; i < 3; i++) {
    struct setting *setting = &devices->setting[i];
    struct vamp_device_options options = {.precision = PRECISIONS[i], .precision_given = true};
    struct vamp_error error = {0};
    setting->bf16 = PRECISIONS[i] == VAMP_PRECISION_BF16;
    setting->tf32 = PRECISIONS[i] == VAMP_PRECISION_TF32;
    setting->name = vamp_precision_name(PRECISIONS[i]);
    if (plugin->open(&options, &setting->device[0], &error)) {
      print_error("%s: %s\n", setting->name, error.message);
      return -1;
    }
    devices->count++;
  }
  return 0;
}

#endif
