/*
 * 16-bit floats. Written with integers, so that every compiler and processor gives the same bits; what
 * has to be fast converts in its own vector code (cpu/simd.c).
 */
#include <string.h>

#include "vamp/array.h"

static float from_bits(uint32_t bits) {
  float value;
  memcpy(&value, &bits, sizeof value);
  return value;
}

static uint32_t to_bits(float value) {
  uint32_t bits;
  memcpy(&bits, &value, sizeof bits);
  return bits;
}

float vamp_half_to_float(uint16_t half) {
  uint32_t sign = (uint32_t)(half & 0x8000) << 16;
  uint32_t exponent = half >> 10 & 0x1F;
  uint32_t fraction = half & 0x3FF;
  if (exponent == 0) { /* zero and subnormals: fraction * 2^-24, exact in a float */
    float magnitude = (float)fraction * (1.0f / 16777216.0f);
    return from_bits(sign | to_bits(magnitude));
  }
  if (exponent == 31) { /* infinity and NaN */
    return from_bits(sign | 0x7F800000u | fraction << 13);
  }
  return from_bits(sign | (exponent + 112) << 23 | fraction << 13);
}

float vamp_bfloat16_to_float(uint16_t bfloat16) {
  return from_bits((uint32_t)bfloat16 << 16);
}

uint16_t vamp_float_to_bfloat16(float value) {
  uint32_t bits = to_bits(value);
  if ((bits & 0x7FFFFFFFu) > 0x7F800000u) { /* rounding could turn a NaN into infinity */
    return (uint16_t)(bits >> 16 | 0x40);
  }
  /* To nearest: half a step up, less one where the kept part is even and would be left alone by a tie. */
  return (uint16_t)((bits + 0x7FFFu + (bits >> 16 & 1)) >> 16);
}
