/*
 * The vector type of simd.c and its elementary functions. Included by simd.c alone, which is compiled once
 * for each instruction set: everything here is static and inlined.
 */
#ifndef CPU_SIMD_VECTOR_H
#define CPU_SIMD_VECTOR_H

#include <math.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#ifdef __AVX512BF16__
#include <immintrin.h>
#endif

#define INLINE static inline __attribute__((always_inline))

enum { LANES = 16 };

typedef float vec __attribute__((vector_size(64)));
typedef int32_t ivec __attribute__((vector_size(64)));
typedef uint32_t uvec __attribute__((vector_size(64)));
typedef uint16_t hvec __attribute__((vector_size(32)));

/* ---- loads, stores, elementary functions -------------------------------------------------------- */

INLINE vec load(const float *p) {
  vec v;
  memcpy(&v, p, sizeof v);
  return v;
}

INLINE void store_f32(float *p, vec v) {
  memcpy(p, &v, sizeof v);
}

INLINE vec load_part(const float *p, int n) {
  float padded[LANES] = {0};
  memcpy(padded, p, sizeof(float) * (size_t)n);
  return load(padded);
}

INLINE vec splat(float x) {
  return x - (vec){0};
}

INLINE float lane_sum(vec v) {
  float s[LANES];
  store_f32(s, v);
  for (int width = LANES / 2; width > 0; width /= 2) {
    for (int i = 0; i < width; i++) {
      s[i] += s[i + width];
    }
  }
  return s[0];
}

/* Round to nearest even; finite values only, which is all a checked model gives. */
INLINE hvec to_bf16(vec v) {
  uvec bits = (uvec)v;
  bits += 0x7fffu + ((bits >> 16) & 1u);
  return __builtin_convertvector(bits >> 16, hvec);
}

INLINE void put(bool bf16, void *out, size_t at, vec v) {
  if (bf16) {
    hvec half = to_bf16(v);
    memcpy((uint16_t *)out + at, &half, sizeof half);
  } else {
    store_f32((float *)out + at, v);
  }
}

INLINE void put_part(bool bf16, void *out, size_t at, vec v, int n) {
  if (bf16) {
    hvec half = to_bf16(v);
    memcpy((uint16_t *)out + at, &half, sizeof(uint16_t) * (size_t)n);
  } else {
    memcpy((float *)out + at, &v, sizeof(float) * (size_t)n);
  }
}

INLINE vec choose(ivec condition, vec yes, vec no) {
  return (vec)((condition & (ivec)yes) | (~condition & (ivec)no));
}

INLINE vec vmax(vec a, vec b) {
  return choose(a > b, a, b);
}

INLINE vec vmin(vec a, vec b) {
  return choose(a < b, a, b);
}

/* To the nearest integer, for |x| < 2^22: adding 1.5 * 2^23 pushes the fraction out. The volatile-free
 * form survives because the flags of this file do not allow reassociation. */
INLINE vec round_near(vec x) {
  const vec magic = splat(12582912.0f);
  return (x + magic) - magic;
}

/* exp(x), relative error below 2e-7 for x in [-87, 88]; clamped outside. Cody-Waite reduction by ln 2,
 * then the Taylor polynomial, economised to degree 6. */
INLINE vec vexp(vec x) {
  x = vmin(vmax(x, splat(-87.0f)), splat(88.0f));
  vec n = round_near(x * splat(1.44269504f));
  vec r = x - n * splat(0.693359375f) - n * splat(-2.12194440e-4f);
  vec p = splat(1.9875691500e-4f);
  p = p * r + splat(1.3981999507e-3f);
  p = p * r + splat(8.3334519073e-3f);
  p = p * r + splat(4.1665795894e-2f);
  p = p * r + splat(1.6666665459e-1f);
  p = p * r + splat(5.0000001201e-1f);
  p = p * r * r + r + splat(1.0f);
  ivec exponent = (__builtin_convertvector(n, ivec) + 127) << 23;
  return p * (vec)exponent;
}

/* sin(x)^2, to 1e-6. Reduced modulo pi, where the square does not see the sign, with pi in two terms: good
 * for |x| up to some thousands, far beyond what snake meets. Then a polynomial in r^2, fitted for the
 * least greatest error over [-pi/2, pi/2]. */
INLINE vec sin_squared(vec x) {
  vec n = round_near(x * splat(0.318309886f));
  vec r = x - n * splat(3.140625f) - n * splat(9.67653589793e-4f);
  vec r2 = r * r;
  vec p = splat(0.000115089831f);
  p = p * r2 + splat(-0.00311458178f);
  p = p * r2 + splat(0.044385798f);
  p = p * r2 + splat(-0.333313529f);
  p = p * r2 + splat(1.0f);
  return p * r2;
}

INLINE vec vsnake(vec x, vec alpha, vec inverse) {
  return x + sin_squared(alpha * x) * inverse;
}

#endif
