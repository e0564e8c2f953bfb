/*
 * What separates a kernel from the compiler that builds it: how it is launched, where its shared memory
 * comes from, and whom the arena tells what it hands out.
 *
 * The .cu files are compiled twice: by nvcc for a GPU, and by g++ against tests/cuda/emulator, which runs
 * them on the processor and looks for faults. Nearly all of CUDA's C++ is C++, so a header of the same name
 * stands in for it. Two things are not: <<<...>>> and `extern __shared__`, and here is the one spelling of
 * each.
 *
 * VAMP_LAUNCH(kernel, grid, block, shared_bytes, stream, arguments...)
 *   launches; cudaGetLastError() says whether that worked. A template's name with a comma goes in
 * parentheses. VAMP_SHARED(type, name) declares `type *name`, the block's dynamic shared memory, at a
 * multiple of 128 bytes. VAMP_MEMORY_TAKEN(memory, bytes), VAMP_MEMORY_GIVEN(memory, bytes) an allocator that
 * cuts up what cudaMalloc gave it says what it hands out and takes back, so that the emulator can tell one
 * buffer from the next. Nothing on a GPU.
 */
#ifndef VAMP_CUDA_LAUNCH_CUH
#define VAMP_CUDA_LAUNCH_CUH

#include <cuda_bf16.h>
#include <cuda_runtime.h>
#include <stdint.h>

#ifdef __CUDACC__

#define VAMP_LAUNCH(kernel, grid, block, shared_bytes, stream, ...)                                          \
  kernel<<<(grid), (block), (shared_bytes), (stream)>>>(__VA_ARGS__)

#define VAMP_SHARED(type, name)                                                                              \
  extern __shared__ __align__(128) unsigned char vamp_shared_bytes[];                                        \
  type *name = reinterpret_cast<type *>(vamp_shared_bytes)

#define VAMP_MEMORY_TAKEN(memory, bytes) ((void)(memory), (void)(bytes))
#define VAMP_MEMORY_GIVEN(memory, bytes) ((void)(memory), (void)(bytes))

#else

#define VAMP_LAUNCH(kernel, grid, block, shared_bytes, stream, ...)                                          \
  emulator_launch(#kernel, kernel, grid, block, shared_bytes, stream, __VA_ARGS__)

#define VAMP_SHARED(type, name) type *name = reinterpret_cast<type *>(emulator_shared())

#define VAMP_MEMORY_TAKEN(memory, bytes) emulator_memory_taken(memory, bytes)
#define VAMP_MEMORY_GIVEN(memory, bytes) emulator_memory_given(memory, bytes)

#endif
#endif
