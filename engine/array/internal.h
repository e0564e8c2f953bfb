/* What the files of engine/array share: the text header of a .npy file. */
#ifndef VAMP_ENGINE_ARRAY_INTERNAL_H
#define VAMP_ENGINE_ARRAY_INTERNAL_H

#include <stdbool.h>
#include <stddef.h>

#include "vamp/array.h"

/* What the header says. */
struct vamp_npy_header {
  char type[16]; /* numpy's descr, e.g. "<f4" */
  bool fortran_order;
  int dimensions;
  size_t shape[VAMP_ARRAY_MAX_DIMENSIONS];
};

/* Parses the dictionary, e.g. "{'descr': '<f4', 'fortran_order': False, 'shape': (3, 4), }\n". NULL, or
 * what is wrong with it, as the end of a sentence. */
const char *vamp_npy_header_parse(const char *text, size_t length, struct vamp_npy_header *header);

#endif
