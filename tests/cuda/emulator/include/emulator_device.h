/*
 * What device code may call, for g++: indices, barriers, warp collectives, atomics, arithmetic.
 *
 * A thread's index is a function with the attribute const, not a variable: it never changes within one call
 * of a kernel, and a variable would be instrumented at each use. Collectives take the mask 0xffffffff only.
 */
#ifndef EMULATOR_DEVICE_H
#define EMULATOR_DEVICE_H

#include <algorithm>
#include <math.h>
#include <stdint.h>
#include <string.h>
#include <type_traits>

#include "emulator_vector.h"

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline __attribute__((always_inline))
#define __constant__
#define __grid_constant__
#define __launch_bounds__(...)
#define __align__(bytes) __attribute__((aligned(bytes)))
/* A section of its own, so that its bounds are known: one block runs at a time, and one copy is enough. */
#define __shared__ static __attribute__((section("emulator_shared")))

#define EMULATOR_FULL_MASK 0xffffffffu

uint3 emulator_thread_index(void) __attribute__((const));
uint3 emulator_block_index(void) __attribute__((const));
uint3 emulator_block_size(void) __attribute__((const));
uint3 emulator_grid_size(void) __attribute__((const));
void *emulator_shared(void) __attribute__((const));

#define threadIdx (emulator_thread_index())
#define blockIdx (emulator_block_index())
#define blockDim (emulator_block_size())
#define gridDim (emulator_grid_size())
static const int warpSize = 32;

/* ---- barriers and collectives ------------------------------------------------------------------ */

enum emulator_vote { EMULATOR_COUNT, EMULATOR_ANY, EMULATOR_ALL };

/* All threads of the block meet; returns the number of them that said true, or whether any or all did. */
int emulator_barrier(emulator_vote vote, int predicate);
void emulator_warp_barrier(unsigned mask);
unsigned emulator_ballot(unsigned mask, int predicate);
/* What lane `source` gave; `valid` false: the own value. */
uint64_t emulator_shuffle(unsigned mask, uint64_t value, int source, bool valid);
/* How the lanes' values become one. */
enum emulator_reduction { EMULATOR_ADD, EMULATOR_MIN, EMULATOR_MAX, EMULATOR_AND, EMULATOR_OR, EMULATOR_XOR };
int64_t emulator_reduce(unsigned mask, emulator_reduction how, int64_t value);
int emulator_lane(void);

static inline void __syncthreads(void) {
  emulator_barrier(EMULATOR_COUNT, 0);
}
static inline int __syncthreads_count(int predicate) {
  return emulator_barrier(EMULATOR_COUNT, predicate);
}
static inline int __syncthreads_or(int predicate) {
  return emulator_barrier(EMULATOR_ANY, predicate);
}
static inline int __syncthreads_and(int predicate) {
  return emulator_barrier(EMULATOR_ALL, predicate);
}
static inline void __syncwarp(unsigned mask = EMULATOR_FULL_MASK) {
  emulator_warp_barrier(mask);
}
static inline void __threadfence(void) {
}
static inline void __threadfence_block(void) {
}
static inline unsigned __ballot_sync(unsigned mask, int predicate) {
  return emulator_ballot(mask, predicate);
}
static inline int __any_sync(unsigned mask, int predicate) {
  return emulator_ballot(mask, predicate) != 0;
}
static inline int __all_sync(unsigned mask, int predicate) {
  return emulator_ballot(mask, !predicate) == 0;
}

template <class T> static inline T emulator_shuffle_value(unsigned mask, T value, int source, bool valid) {
  static_assert(sizeof(T) <= 8, "a shuffle moves at most 8 bytes");
  uint64_t bits = 0;
  memcpy(&bits, &value, sizeof value);
  bits = emulator_shuffle(mask, bits, source, valid);
  memcpy(&value, &bits, sizeof value);
  return value;
}
template <class T> static inline T __shfl_sync(unsigned mask, T value, int source, int width = 32) {
  int segment = emulator_lane() & -width;
  return emulator_shuffle_value(mask, value, segment + (source & (width - 1)), true);
}
template <class T> static inline T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = 32) {
  int lane = emulator_lane();
  int source = lane - (int)delta;
  return emulator_shuffle_value(mask, value, source, source >= (lane & -width));
}
template <class T> static inline T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = 32) {
  int lane = emulator_lane();
  int source = lane + (int)delta;
  return emulator_shuffle_value(mask, value, source, source < (lane & -width) + width);
}
template <class T> static inline T __shfl_xor_sync(unsigned mask, T value, int bits, int width = 32) {
  int lane = emulator_lane();
  int source = lane ^ bits;
  return emulator_shuffle_value(mask, value, source, source < (lane & -width) + width);
}

#define EMULATOR_REDUCE(name, how)                                                                           \
  static inline int __reduce_##name##_sync(unsigned mask, int value) {                                       \
    return (int)emulator_reduce(mask, how, value);                                                           \
  }                                                                                                          \
  static inline unsigned __reduce_##name##_sync(unsigned mask, unsigned value) {                             \
    return (unsigned)emulator_reduce(mask, how, value);                                                      \
  }
EMULATOR_REDUCE(add, EMULATOR_ADD)
EMULATOR_REDUCE(min, EMULATOR_MIN)
EMULATOR_REDUCE(max, EMULATOR_MAX)
EMULATOR_REDUCE(and, EMULATOR_AND)
EMULATOR_REDUCE(or, EMULATOR_OR)
EMULATOR_REDUCE(xor, EMULATOR_XOR)

/* ---- atomics: return what was there before ----------------------------------------------------- */

#define EMULATOR_ATOMICS(type)                                                                               \
  type atomicAdd(type *address, type value);                                                                 \
  type atomicSub(type *address, type value);                                                                 \
  type atomicMin(type *address, type value);                                                                 \
  type atomicMax(type *address, type value);                                                                 \
  type atomicExch(type *address, type value);                                                                \
  type atomicCAS(type *address, type expected, type value);                                                  \
  type atomicAnd(type *address, type value);                                                                 \
  type atomicOr(type *address, type value);                                                                  \
  type atomicXor(type *address, type value);
EMULATOR_ATOMICS(int)
EMULATOR_ATOMICS(unsigned)
EMULATOR_ATOMICS(unsigned long long)
float atomicAdd(float *address, float value);
float atomicExch(float *address, float value);
double atomicAdd(double *address, double value);

/* ---- arithmetic -------------------------------------------------------------------------------- */

template <class T> static inline T __ldg(const T *address) {
  return *address;
}
template <class T> static inline T __ldcs(const T *address) {
  return *address;
}
template <class T> static inline void __stcs(T *address, T value) {
  *address = value;
}

template <class To, class From> static inline To emulator_bits(From value) {
  To bits;
  static_assert(sizeof bits == sizeof value, "the same bits");
  memcpy(&bits, &value, sizeof bits);
  return bits;
}
#define EMULATOR_BITS(name, to, from)                                                                        \
  static inline to name(from value) {                                                                        \
    return emulator_bits<to>(value);                                                                         \
  }
EMULATOR_BITS(__float_as_int, int, float)
EMULATOR_BITS(__float_as_uint, unsigned, float)
EMULATOR_BITS(__int_as_float, float, int)
EMULATOR_BITS(__uint_as_float, float, unsigned)
EMULATOR_BITS(__double_as_longlong, long long, double)
EMULATOR_BITS(__longlong_as_double, double, long long)

/* glibc has functions of these names, so that here they are macros. */
#define __expf(a) expf(a)
#define __exp10f(a) exp10f(a)
#define __logf(a) logf(a)
#define __log2f(a) log2f(a)
#define __sinf(a) sinf(a)
#define __cosf(a) cosf(a)
#define __tanhf(a) tanhf(a)
#define __powf(a, b) powf(a, b)

#define EMULATOR_MATH1(name, type, expression)                                                               \
  static inline type name(type a) {                                                                          \
    return expression;                                                                                       \
  }
#define EMULATOR_MATH2(name, type, expression)                                                               \
  static inline type name(type a, type b) {                                                                  \
    return expression;                                                                                       \
  }
EMULATOR_MATH1(rsqrtf, float, 1.0f / sqrtf(a))
EMULATOR_MATH1(__frsqrt_rn, float, (float)(1.0 / sqrt((double)a)))
EMULATOR_MATH1(__frcp_rn, float, 1.0f / a)
EMULATOR_MATH1(__fsqrt_rn, float, sqrtf(a))
EMULATOR_MATH1(__saturatef, float, a > 0.0f ? (a < 1.0f ? a : 1.0f) : 0.0f)
EMULATOR_MATH2(__fdividef, float, a / b)
EMULATOR_MATH2(__fadd_rn, float, a + b)
EMULATOR_MATH2(__fsub_rn, float, a - b)
EMULATOR_MATH2(__fmul_rn, float, a *b)
EMULATOR_MATH2(__fdiv_rn, float, a / b)
static inline float __fmaf_rn(float a, float b, float c) {
  return fmaf(a, b, c);
}
static inline int __float2int_rn(float a) {
  return (int)rintf(a);
}
static inline int __float2int_rz(float a) {
  return (int)a;
}
static inline int __float2int_rd(float a) {
  return (int)floorf(a);
}
static inline float __int2float_rn(int a) {
  return (float)a;
}
static inline float __uint2float_rn(unsigned a) {
  return (float)a;
}

static inline int __popc(unsigned a) {
  return __builtin_popcount(a);
}
static inline int __popcll(unsigned long long a) {
  return __builtin_popcountll(a);
}
static inline int __ffs(int a) {
  return __builtin_ffs(a);
}
static inline int __clz(int a) {
  return a ? __builtin_clz((unsigned)a) : 32;
}
static inline int __clzll(long long a) {
  return a ? __builtin_clzll((unsigned long long)a) : 64;
}
static inline unsigned __brev(unsigned a) {
  unsigned reversed = 0;
  for (int i = 0; i < 32; i++) {
    reversed |= ((a >> i) & 1u) << (31 - i);
  }
  return reversed;
}
static inline unsigned __umulhi(unsigned a, unsigned b) {
  return (unsigned)(((uint64_t)a * b) >> 32);
}
static inline unsigned __funnelshift_l(unsigned low, unsigned high, unsigned shift) {
  return (unsigned)(((((uint64_t)high << 32) | low) << (shift & 31)) >> 32);
}

/* CUDA has min and max without a namespace, for every mixture of numbers; those of floats skip a NaN. */
template <class A, class B> static inline std::common_type_t<A, B> min(A a, B b) {
  typedef std::common_type_t<A, B> type;
  if constexpr (std::is_floating_point_v<type>) {
    return fmin((type)a, (type)b);
  }
  return (type)b < (type)a ? (type)b : (type)a;
}
template <class A, class B> static inline std::common_type_t<A, B> max(A a, B b) {
  typedef std::common_type_t<A, B> type;
  if constexpr (std::is_floating_point_v<type>) {
    return fmax((type)a, (type)b);
  }
  return (type)a < (type)b ? (type)b : (type)a;
}

#endif
