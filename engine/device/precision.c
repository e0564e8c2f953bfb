/*
 * The names of precisions: see vamp/device.h. A file of its own, so that who only reads options needs no
 * backend.
 */
#include <stddef.h>
#include <string.h>

#include "vamp/device.h"

bool vamp_precision_parse(const char *text, enum vamp_precision *precision) {
  static const enum vamp_precision ALL[] = {VAMP_PRECISION_FP32, VAMP_PRECISION_TF32, VAMP_PRECISION_BF16};
  for (size_t i = 0; i < sizeof ALL / sizeof ALL[0]; i++) {
    if (strcmp(text, vamp_precision_name(ALL[i])) == 0) {
      *precision = ALL[i];
      return true;
    }
  }
  return false;
}
