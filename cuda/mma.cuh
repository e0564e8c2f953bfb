/*
 * Tensor cores and asynchronous copies: the few PTX instructions that CUDA C++ has no name for, each as one
 * function. On a GPU it is the instruction; under tests/cuda/emulator it is a function that computes the
 * fragments of the whole warp by the rule of the PTX manual (sections "Matrix Fragments for mma.m16n8k16" and
 * "... mma.m16n8k8", "ldmatrix", "cp.async").
 *
 * CUDA's own nvcuda::wmma was rejected: its fragments are opaque, so that scores could not go from the first
 * product of attention to the second without a way through shared memory.
 *
 * All of these but vamp_bf16_pack, vamp_tf32, vamp_exp2 and the copies are done by a whole warp together. In
 * the fragments group = lane / 4 and pair = lane % 4; every register of a bf16 fragment holds two neighbours,
 * the first in the lower half.
 *
 * Needs compute capability 8.0.
 */
#ifndef VAMP_CUDA_MMA_CUH
#define VAMP_CUDA_MMA_CUH

#include "cuda/launch.cuh"
#include "vamp/backend.h"

#ifdef __CUDACC__

/* Two floats as bf16, rounded to the nearest even. */
static __device__ __forceinline__ uint32_t vamp_bf16_pack(float low, float high) {
  uint32_t pair;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
  return pair;
}

/* 2^x by the special function unit, good to 2 units in the last place; 0 for x below -126, -INFINITY
 * included. */
static __device__ __forceinline__ float vamp_exp2(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

/* A float as tf32 (10 bits of mantissa), rounded to the nearest, ties away from zero. */
static __device__ __forceinline__ uint32_t vamp_tf32(float value) {
  uint32_t bits;
  asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(bits) : "f"(value));
  return bits;
}

/* The pointer, of which the compiler then knows nothing but that it is in a register: else it finds it
 * cheaper to make an address in shared memory anew each time, from special registers that are slow to read.
 */
static __device__ __forceinline__ char *vamp_keep(char *pointer) {
  asm volatile("" : "+l"(pointer));
  return pointer;
}

/* Sixteen bytes to global memory in one piece: of an assignment the compiler may make four stores. */
static __device__ __forceinline__ void vamp_store_four(float *to, float4 v) {
  asm volatile("st.global.v4.f32 [%0], {%1, %2, %3, %4};" ::"l"(__cvta_generic_to_global(to)), "f"(v.x),
               "f"(v.y), "f"(v.z), "f"(v.w)
               : "memory");
}

static __device__ __forceinline__ uint32_t vamp_shared_address(const void *shared) {
  return (uint32_t)__cvta_generic_to_shared(shared);
}

/* Four (two) 8 x 8 matrices of 16-bit elements out of shared memory. Lane l gives the address of row l % 8 of
 * matrix l / 8, a multiple of 16 bytes (of the x2 forms only lanes 0..15 matter); register i of a lane gets
 * elements 2 * pair and 2 * pair + 1 of row `group` of matrix i. _trans: of the transposed matrix. */
static __device__ __forceinline__ void vamp_ldmatrix_x4(uint32_t r[4], const void *row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(vamp_shared_address(row))
               : "memory");
}

static __device__ __forceinline__ void vamp_ldmatrix_x4_trans(uint32_t r[4], const void *row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(vamp_shared_address(row))
               : "memory");
}

static __device__ __forceinline__ void vamp_ldmatrix_x2(uint32_t r[2], const void *row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%0, %1}, [%2];"
               : "=r"(r[0]), "=r"(r[1])
               : "r"(vamp_shared_address(row))
               : "memory");
}

static __device__ __forceinline__ void vamp_ldmatrix_x2_trans(uint32_t r[2], const void *row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {%0, %1}, [%2];"
               : "=r"(r[0]), "=r"(r[1])
               : "r"(vamp_shared_address(row))
               : "memory");
}

/* d [16, 8] += a [16, 16] * b [16, 8], bf16 in, float sums.
 * a[0]: row group, columns 2 pair..; a[1]: row group + 8; a[2], a[3]: the same, columns + 8.
 * b[0]: rows 2 pair.., column group; b[1]: rows + 8.
 * d[0], d[1]: row group, columns 2 pair..; d[2], d[3]: row group + 8. */
static __device__ __forceinline__ void vamp_mma_bf16(float d[4], const uint32_t a[4], const uint32_t b[2]) {
  asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
               "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
               : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

/* d [16, 8] += a [16, 8] * b [8, 8], tf32 in (the lower 13 bits are ignored), float sums.
 * a[0]: row group, column pair; a[1]: row group + 8; a[2], a[3]: the same, column + 4.
 * b[0]: row pair, column group; b[1]: row pair + 4. d as above. */
static __device__ __forceinline__ void vamp_mma_tf32(float d[4], const uint32_t a[4], const uint32_t b[2]) {
  asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 "
               "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
               : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

/* Starts copying 16 (8, 4) bytes, both addresses a multiple of that, and zeros where not `valid`: `global` is
 * not read then. Landed once vamp_copy_wait says so, for this thread; for others after a barrier as well. */
static __device__ __forceinline__ void vamp_copy_async16(void *shared, const void *global, bool valid) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(vamp_shared_address(shared)),
               "l"(__cvta_generic_to_global(global)), "r"(valid ? 16 : 0)
               : "memory");
}

static __device__ __forceinline__ void vamp_copy_async8(void *shared, const void *global, bool valid) {
  asm volatile("cp.async.ca.shared.global [%0], [%1], 8, %2;" ::"r"(vamp_shared_address(shared)),
               "l"(__cvta_generic_to_global(global)), "r"(valid ? 8 : 0)
               : "memory");
}

static __device__ __forceinline__ void vamp_copy_async4(void *shared, const void *global, bool valid) {
  asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;" ::"r"(vamp_shared_address(shared)),
               "l"(__cvta_generic_to_global(global)), "r"(valid ? 4 : 0)
               : "memory");
}

/* Ends a group of copies; waits until at most `pending` groups, the latest ones, are under way. `pending` is
 * a number the compiler knows. */
static __device__ __forceinline__ void vamp_copy_commit(void) {
  asm volatile("cp.async.commit_group;" ::: "memory");
}

#define vamp_copy_wait(pending) asm volatile("cp.async.wait_group %0;" ::"n"(pending) : "memory")

#else

#include "emulator_warp.h"

#endif

/* The float that a tensor core then sees as it is. Who writes what a product will read in tf32 rounds it, so
 * that a product need not, and cuBLAS, which does not say how it does, has nothing to round. */
static __device__ __forceinline__ float vamp_tf32_round(float value) {
  return __uint_as_float(vamp_tf32(value) & 0xffffe000u);
}

/* An element of act as a product will read it. */
static __device__ __forceinline__ void vamp_store_act(void *to, int64_t at, float value,
                                                      enum vamp_precision precision) {
  if (precision == VAMP_PRECISION_BF16) {
    ((__nv_bfloat16 *)to)[at] = __float2bfloat16(value);
  } else {
    ((float *)to)[at] = precision == VAMP_PRECISION_TF32 ? vamp_tf32_round(value) : value;
  }
}
#endif
