/* CUDA's bfloat16: the upper half of a float, rounded to the nearest, ties to even. */
#ifndef EMULATOR_CUDA_BF16_H
#define EMULATOR_CUDA_BF16_H

#include "emulator_device.h"

struct __nv_bfloat16 {
  unsigned short bits;
  __nv_bfloat16() = default;
  explicit __nv_bfloat16(float value);
  explicit operator float() const {
    return emulator_bits<float>((unsigned)bits << 16);
  }
};

struct alignas(4) __nv_bfloat162 {
  __nv_bfloat16 x, y;
};

typedef __nv_bfloat16 nv_bfloat16;
typedef __nv_bfloat162 nv_bfloat162;

static inline __nv_bfloat16 __ushort_as_bfloat16(unsigned short bits) {
  __nv_bfloat16 value;
  value.bits = bits;
  return value;
}
static inline unsigned short __bfloat16_as_ushort(__nv_bfloat16 value) {
  return value.bits;
}
static inline __nv_bfloat16 __float2bfloat16_rn(float value) {
  unsigned bits = emulator_bits<unsigned>(value);
  if ((bits & 0x7fffffffu) > 0x7f800000u) {
    return __ushort_as_bfloat16(0x7fff);
  }
  return __ushort_as_bfloat16((unsigned short)((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16));
}
static inline __nv_bfloat16 __float2bfloat16(float value) {
  return __float2bfloat16_rn(value);
}
inline __nv_bfloat16::__nv_bfloat16(float value) : bits(__float2bfloat16_rn(value).bits) {
}
static inline float __bfloat162float(__nv_bfloat16 value) {
  return (float)value;
}
static inline __nv_bfloat162 __halves2bfloat162(__nv_bfloat16 low, __nv_bfloat16 high) {
  return {low, high};
}
static inline __nv_bfloat162 make_bfloat162(__nv_bfloat16 low, __nv_bfloat16 high) {
  return {low, high};
}
static inline __nv_bfloat162 __floats2bfloat162_rn(float low, float high) {
  return {__float2bfloat16_rn(low), __float2bfloat16_rn(high)};
}
static inline __nv_bfloat162 __float22bfloat162_rn(float2 value) {
  return __floats2bfloat162_rn(value.x, value.y);
}
static inline float2 __bfloat1622float2(__nv_bfloat162 value) {
  return {(float)value.x, (float)value.y};
}
static inline float __low2float(__nv_bfloat162 value) {
  return (float)value.x;
}
static inline float __high2float(__nv_bfloat162 value) {
  return (float)value.y;
}
static inline __nv_bfloat16 __low2bfloat16(__nv_bfloat162 value) {
  return value.x;
}
static inline __nv_bfloat16 __high2bfloat16(__nv_bfloat162 value) {
  return value.y;
}

#endif
