/*
 * Opening a device by the name of its backend, so that the same program runs with and without a GPU.
 */
#ifndef VAMP_DEVICE_H
#define VAMP_DEVICE_H

#include "vamp/backend.h"

/* "fp32", "tf32" or "bf16"; false for anything else. */
bool vamp_precision_parse(const char *text, enum vamp_precision *precision);

/* What was opened and why, for a log: one line without a line break. */
struct vamp_device_choice {
  char text[768];
};

/* Opens the device that options->backend names:
 *   "cpu"            the processor;
 *   "cuda"           the GPU number options->index, or an error that says what is missing;
 *   "cuda-emulated"  the CUDA backend on the processor, for tests: very slow;
 *   "auto" or NULL   what the environment variable VAMP_BACKEND names, if it is set; or else the GPU if
 * plugin, driver and a device are there; or else the processor.
 *
 * "cuda" and "cuda-emulated" are plugins, libvamp_cuda.so and libvamp_cuda_emulated.so, which are looked for
 * in the folders of the environment variable VAMP_PLUGIN_PATH (between colons), beside the program, and in
 * ../lib/vampd from there; never in the current folder or the linker's path. A plugin that was loaded stays
 * loaded.
 *
 * `choice` may be NULL. VAMP_INVALID where there is no such backend, VAMP_UNSUPPORTED where it cannot be used
 * here, VAMP_MEMORY or VAMP_DEVICE where opening the device failed. The device belongs to the calling
 * thread from now on; it is freed by device->close. May be called from any thread. */
int vamp_device_open(const struct vamp_device_options *options, struct vamp_device **device,
                     struct vamp_device_choice *choice, struct vamp_error *error);

#endif
