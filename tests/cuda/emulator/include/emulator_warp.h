/* What cuda/mma.cuh describes, as functions of the emulator (tests/cuda/emulator/matrix.cc, copy.cc). */
#ifndef EMULATOR_WARP_H
#define EMULATOR_WARP_H

#include "cuda_bf16.h"

void emulator_load_matrix(uint32_t *registers, int matrices, bool transposed, const void *row);
void vamp_mma_bf16(float d[4], const uint32_t a[4], const uint32_t b[2]);
void vamp_mma_tf32(float d[4], const uint32_t a[4], const uint32_t b[2]);
void emulator_copy_async(void *shared, const void *global, unsigned bytes, bool valid);
void vamp_copy_commit(void);
void vamp_copy_wait(int pending);

static inline float vamp_exp2(float x) {
  return x < -126.0f ? 0.0f : exp2f(x);
}

static inline uint32_t vamp_bf16_pack(float low, float high) {
  return (uint32_t)__float2bfloat16_rn(low).bits | (uint32_t)__float2bfloat16_rn(high).bits << 16;
}
static inline uint32_t vamp_tf32(float value) {
  uint32_t bits = __float_as_uint(value);
  return (bits & 0x7f800000u) == 0x7f800000u ? bits : (bits + 0x1000u) & 0xffffe000u;
}
static inline void vamp_ldmatrix_x4(uint32_t r[4], const void *row) {
  emulator_load_matrix(r, 4, false, row);
}
static inline void vamp_ldmatrix_x4_trans(uint32_t r[4], const void *row) {
  emulator_load_matrix(r, 4, true, row);
}
static inline void vamp_ldmatrix_x2(uint32_t r[2], const void *row) {
  emulator_load_matrix(r, 2, false, row);
}
static inline void vamp_ldmatrix_x2_trans(uint32_t r[2], const void *row) {
  emulator_load_matrix(r, 2, true, row);
}
static inline char *vamp_keep(char *pointer) {
  return pointer;
}
static inline void vamp_store_four(float *to, float4 v) {
  *(float4 *)to = v;
}
static inline void vamp_copy_async16(void *shared, const void *global, bool valid) {
  emulator_copy_async(shared, global, 16, valid);
}
static inline void vamp_copy_async8(void *shared, const void *global, bool valid) {
  emulator_copy_async(shared, global, 8, valid);
}
static inline void vamp_copy_async4(void *shared, const void *global, bool valid) {
  emulator_copy_async(shared, global, 4, valid);
}

#endif
