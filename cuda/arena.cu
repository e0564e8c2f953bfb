/*
 * Device memory: one piece, taken when the device is opened, and handed out by an allocator of our own.
 *
 * Why not cudaMalloc for each buffer: it waits for the device, its cost is unpredictable, and it may fail at
 * any moment because a stranger on the same GPU was quicker. One arena makes admission a question of
 * arithmetic: what was taken at start is ours, and a request that does not fit is VAMP_MEMORY at once, which
 * the engine turns into a queued or failed job and never into a lost device. cudaMallocAsync's pools were
 * rejected for the second reason.
 *
 * The allocator is best fit over a list of blocks in the order of their addresses, with neighbours joined
 * when they come free. There are some hundreds of blocks (weights, which stay; a few workspaces; a few arrays
 * a sequence), so a walk along the list costs less than a kernel launch. All bookkeeping is on the host:
 * handing out and taking back never touches the device, and because everything runs on one stream a block may
 * have a new owner while its last one's kernels are still queued.
 */
#include <stdlib.h>

#include "cuda/internal.h"

static const size_t grain = 256;      /* of addresses and sizes: what cuBLAS likes best */
static const size_t fence = 16;       /* bytes never handed out behind a block: an emulator can watch them */
static const size_t least = 64 << 20; /* an arena below this is no use to any model */

struct block {
  size_t offset, size;
  bool taken;
  struct block *previous, *next; /* by address */
};

struct cuda_arena {
  char *base;
  size_t size, used, peak;
  struct block *blocks;
};

int cuda_arena_open(size_t bytes, struct cuda_arena **out, struct vamp_error *error) {
  struct cuda_arena *arena = (struct cuda_arena *)calloc(1, sizeof *arena);
  struct block *block = (struct block *)calloc(1, sizeof *block);
  size_t available = 0, total = 0, reserve = 0;
  int status = VAMP_MEMORY, ordinal = 0, integrated = 0;
  if (!arena || !block) {
    vamp_fail(error, VAMP_MEMORY, "out of memory");
    goto err;
  }
  status = CUDA_CHECK(cudaMemGetInfo(&available, &total));
  if (status) {
    vamp_fail(error, status, "the GPU does not say how much memory it has");
    goto err;
  }
  /* What stays outside: the kernels' own local memory, cuBLAS, recorded steps, and some room for others. */
  reserve = available / 10 > (size_t)512 << 20 ? available / 10 : (size_t)512 << 20;
  /* A GPU on the processor's own memory takes from it, and the kernel would kill somebody for it. */
  if (cudaGetDevice(&ordinal) == cudaSuccess &&
      cudaDeviceGetAttribute(&integrated, cudaDevAttrIntegrated, ordinal) == cudaSuccess && integrated) {
    reserve = available / 2;
  }
  arena->size = bytes ? bytes : available > reserve + least ? available - reserve : available / 2;
  arena->size -= arena->size % grain;
  while (arena->size >= least && cudaMalloc((void **)&arena->base, arena->size) != cudaSuccess) {
    (void)cudaGetLastError(); /* what is free need not be in one piece: ask for less */
    arena->base = NULL;
    arena->size = bytes ? 0 : arena->size / 8 * 7 / grain * grain;
  }
  if (!arena->base) {
    status = vamp_fail(error, VAMP_MEMORY, "the GPU has too little free memory: %zu of %zu MiB",
                       available >> 20, total >> 20);
    goto err;
  }
  block->size = arena->size;
  arena->blocks = block;
  VAMP_MEMORY_GIVEN(arena->base, arena->size);
  *out = arena;
  return 0;
err:
  free(block);
  free(arena);
  return status;
}

void cuda_arena_close(struct cuda_arena *arena) {
  if (!arena) {
    return;
  }
  for (struct block *b = arena->blocks, *next; b; b = next) {
    next = b->next;
    free(b);
  }
  cudaFree(arena->base);
  free(arena);
}

size_t cuda_arena_size(const struct cuda_arena *arena) {
  return arena->size;
}

size_t cuda_arena_peak(const struct cuda_arena *arena) {
  return arena->peak;
}

/* Splits `size` bytes off the front of a free block. */
static bool block_split(struct block *block, size_t size) {
  if (block->size == size) {
    return true;
  }
  struct block *rest = (struct block *)calloc(1, sizeof *rest);
  if (!rest) {
    return false;
  }
  rest->offset = block->offset + size;
  rest->size = block->size - size;
  rest->previous = block;
  rest->next = block->next;
  if (rest->next) {
    rest->next->previous = rest;
  }
  block->next = rest;
  block->size = size;
  return true;
}

int cuda_allocate(struct cuda_device *device, size_t bytes, void **memory) {
  struct cuda_arena *arena = device->arena;
  if (bytes > arena->size - fence - grain) {
    return VAMP_MEMORY;
  }
  size_t size = (bytes + fence + grain - 1) / grain * grain;
  struct block *best = NULL;
  for (struct block *b = arena->blocks; b; b = b->next) {
    if (!b->taken && b->size >= size && (!best || b->size < best->size)) {
      best = b;
    }
  }
  if (!best || !block_split(best, size)) {
    return VAMP_MEMORY;
  }
  best->taken = true;
  arena->used += best->size;
  arena->peak = arena->used > arena->peak ? arena->used : arena->peak;
  *memory = arena->base + best->offset;
  VAMP_MEMORY_TAKEN(*memory, bytes);
  return 0;
}

/* Joins a free block with the free one behind it. */
static void block_join(struct block *block) {
  struct block *next = block->next;
  if (block->taken || !next || next->taken) {
    return;
  }
  block->size += next->size;
  block->next = next->next;
  if (block->next) {
    block->next->previous = block;
  }
  free(next);
}

void cuda_release(struct cuda_device *device, void *memory) {
  if (!memory) {
    return;
  }
  size_t offset = (size_t)((char *)memory - device->arena->base);
  for (struct block *b = device->arena->blocks; b; b = b->next) {
    if (b->offset == offset && b->taken) {
      VAMP_MEMORY_GIVEN(memory, b->size);
      b->taken = false;
      device->arena->used -= b->size;
      block_join(b);
      if (b->previous) {
        block_join(b->previous);
      }
      return;
    }
  }
}

int cuda_scratch(struct cuda_device *device, size_t bytes, void **memory) {
  if (device->scratch_bytes < bytes || !device->scratch) {
    cuda_release(device, device->scratch);
    device->scratch = NULL;
    device->scratch_bytes = 0;
    device->version++;
    int status = cuda_allocate(device, bytes, &device->scratch);
    if (status) {
      return status;
    }
    device->scratch_bytes = bytes;
  }
  *memory = device->scratch;
  return 0;
}
