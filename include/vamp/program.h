/*
 * Where this program lies. What is installed with it (models, plugins) is found from there, so that it works
 * from any working folder, from build/ as well as from PREFIX/bin.
 */
#ifndef VAMP_PROGRAM_H
#define VAMP_PROGRAM_H

#include <limits.h>

/* The folder of the running executable, links resolved, without a slash at its end; "" where the system does
 * not say. Any thread. Source: proc(5), /proc/self/exe. */
void vamp_program_folder(char folder[PATH_MAX]);

#endif
