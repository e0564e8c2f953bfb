/*
 * A GPU on the processor, for tests: it runs the kernels of cuda/, compiled by g++ from the same text, and
 * reports what a GPU does not: accesses out of bounds, races, divergence, reading what was never written.
 *
 * Blocks run one after the other in a random order. A block's threads are fibres (block.cc): a fibre runs
 * until it meets a barrier or a collective of its warp, and then another one that can goes on, chosen at
 * random. The order comes from VAMP_EMULATOR_SEED, so a run can be repeated. What a warp does together
 * (shuffle, vote, mma, ldmatrix) is computed by its last lane to arrive (warp.cc, matrix.cc).
 *
 * Every load and store of a kernel is seen (access.cc): the kernels are compiled with -fsanitize=thread, for
 * which g++ calls __tsan_read4(address) and the like before each access that may not be private to a thread.
 * libtsan is not linked; those functions are defined here. So kernels need no proxy types, and nothing can be
 * forgotten. The alternative, pointers of a checking type behind VAMP_SHARED, would have spread through every
 * signature, and AddressSanitizer knows bounds but no races between fibres. From -fsanitize=bounds,alignment
 * come the bounds of arrays with a known size and the alignment of vector types, again with handlers of ours.
 *
 * Races are found by time, not by luck. `era` counts up at every block and every __syncthreads, a warp's
 * `phase` at every __syncwarp. Each two bytes of device and shared memory have a cell with the era, thread
 * and phase of the last write and the last read; two accesses to the same cell, one of them a write, by
 * different threads, with neither barrier between them, are a race whichever came first today.
 *
 * Memory is poisoned with 0xff, which is NaN in float and bf16, and -1 in whole numbers.
 *
 * What it cannot show: speed, weakly ordered memory, the exact rounding of tensor cores and of fast math.
 *
 * State is global, as the state of a process's GPU is; api_lock() serialises threads of the host.
 */
#ifndef EMULATOR_INTERNAL_H
#define EMULATOR_INTERNAL_H

#include <mutex>
#include <vector>

#include "cuda_runtime.h"

#define EMULATOR_INSIDE __attribute__((visibility("hidden")))
#define EMULATOR_MAX_THREADS 1024
#define EMULATOR_WARP 32
#define EMULATOR_SHARED_DEFAULT ((size_t)48 << 10)
/* A kernel's static shared memory counts as well. How much one has only nvcc knows: it is taken to be this.
 */
#define EMULATOR_SHARED_STATIC ((size_t)1 << 10)
#define EMULATOR_POISON 0xff
#define EMULATOR_STACK_BYTES ((size_t)64 << 10)
#define EMULATOR_THREAD_BITS 10
#define EMULATOR_PHASE_MASK ((1u << 18) - 1)

/* ---- block.cc: fibres and barriers ------------------------------------------------------------- */

enum emulator_collective {
  EMULATOR_NOTHING,
  EMULATOR_SYNCWARP,
  EMULATOR_SHUFFLE,
  EMULATOR_BALLOT,
  EMULATOR_REDUCTION,
  EMULATOR_LDMATRIX,
  EMULATOR_MMA_BF16,
  EMULATOR_MMA_TF32,
};

/* A cp.async under way: group 0 is not committed yet, others count from 1. */
struct emulator_copy {
  void *shared;
  const void *global;
  unsigned bytes;
  bool valid;
  unsigned group;
};

struct emulator_warp {
  uint32_t ready; /* a bit for each lane that can go on */
  int lanes, arrived;
  uint32_t phase;
  emulator_collective collective; /* which those that wait have called */
  void *payload[EMULATOR_WARP];   /* what each gave, on its own stack */
};

struct emulator_fibre {
  void *stack_pointer;
  unsigned char *stack; /* lowest address */
  unsigned thread;      /* x + y * width + z * width * height */
  int lane;
  uint32_t who; /* thread and the warp's phase, as cells keep them: EMULATOR_THREAD_BITS and then the phase */
  emulator_warp *warp;
  enum { READY, AT_COLLECTIVE, AT_BARRIER, RETURNED } state;
  uint3 index;
  std::vector<emulator_copy> copies;
  unsigned committed; /* groups of copies */
};

struct emulator_machine {
  /* The launch, NULL when none runs. */
  const emulator_call *call;
  uint3 grid_size, block_size, block_index;
  unsigned threads;
  emulator_fibre *current;
  emulator_warp warps[EMULATOR_MAX_THREADS / EMULATOR_WARP];
  uint32_t ready_warps;
  unsigned at_barrier, returned;
  int votes, barrier_result;
  void *host_stack_pointer;
  bool faulted;
  uint64_t random;
  /* Time. */
  uint32_t era, launch_era, block_era;
  unsigned char *stacks; /* EMULATOR_STACK_BYTES for each thread */
  /* Shared memory. */
  unsigned char *shared; /* EMULATOR_SHARED_SPAN bytes */
  bool unchecked, eager, silent;
};

extern EMULATOR_INSIDE emulator_machine machine;

/* Runs all blocks of a launch; false after a fault, which has been reported. */
EMULATOR_INSIDE bool emulator_run_call(const emulator_call &call);
/* Reports a fault of the kernel's current thread and leaves the launch; never returns. `pc` may be NULL. */
EMULATOR_INSIDE void emulator_fault(const void *pc, const char *format, ...)
    __attribute__((noreturn, format(printf, 2, 3)));
/* The same, for a fault of the host. */
EMULATOR_INSIDE void emulator_host_fault(const void *pc, const char *format, ...)
    __attribute__((noreturn, format(printf, 2, 3)));
/* Prints and keeps a report without leaving anything. */
EMULATOR_INSIDE void emulator_report_text(const char *text);
EMULATOR_INSIDE void emulator_report_forget(void);
/* All lanes of the warp give a payload; the last to arrive computes with all of them. */
EMULATOR_INSIDE void emulator_collect(emulator_collective collective, unsigned mask, void *payload,
                                      void (*compute)(emulator_warp *warp));

/* ---- access.cc: bounds and races --------------------------------------------------------------- */

enum emulator_kind { EMULATOR_READ, EMULATOR_WRITE, EMULATOR_ATOMIC };

EMULATOR_INSIDE void emulator_access(const void *address, size_t bytes, emulator_kind kind, const void *pc);
/* The target of a cp.async: from `begin` true until it is called with false, nobody may touch it. */
EMULATOR_INSIDE void emulator_access_in_flight(void *shared, size_t bytes, bool begin);
EMULATOR_INSIDE bool emulator_is_shared(const void *address, size_t bytes);
EMULATOR_INSIDE void emulator_poison_shared(void);
EMULATOR_INSIDE void emulator_access_start(void);

/* ---- memory.cc --------------------------------------------------------------------------------- */

#define EMULATOR_GRANULE 16
#define EMULATOR_FREED 0xfe

/* Two bytes of memory: who wrote and who read them last. */
struct alignas(16) emulator_cell {
  uint32_t write_era, read_era;
  uint32_t write, read; /* thread, phase and flags: access.cc */
};

struct emulator_space {
  unsigned char *base;
  size_t span;             /* of addresses; never freed ones come back early */
  unsigned char *granules; /* for each 16 bytes how many may be touched, or EMULATOR_FREED */
  emulator_cell *cells;    /* for each 2 bytes */
};

extern EMULATOR_INSIDE emulator_space device_memory;

EMULATOR_INSIDE void emulator_memory_start(void);
EMULATOR_INSIDE bool emulator_is_device(const void *address);
EMULATOR_INSIDE bool emulator_is_pinned(const void *address);
/* Whether all of it lies in live device memory. */
EMULATOR_INSIDE bool emulator_is_live(const void *address, size_t bytes);
EMULATOR_INSIDE size_t emulator_shared_limit(void);

/* ---- stream.cc --------------------------------------------------------------------------------- */

typedef std::unique_lock<std::recursive_mutex> emulator_lock;
EMULATOR_INSIDE emulator_lock emulator_api_lock(void);
/* Puts work at the end of a stream. It returns false after a fault. */
struct emulator_work {
  virtual bool run() = 0;
  virtual ~emulator_work() {
  }
};
EMULATOR_INSIDE cudaError_t emulator_enqueue(cudaStream_t stream, std::shared_ptr<emulator_work> work);
/* Does everything that is queued anywhere. */
EMULATOR_INSIDE cudaError_t emulator_drain(void);
EMULATOR_INSIDE int emulator_devices(void);                    /* VAMP_EMULATOR_DEVICES, or 1 */
EMULATOR_INSIDE cudaError_t emulator_error(cudaError_t error); /* remembers it for cudaGetLastError */
/* Called by what may not happen while the calling thread captures a stream: the capture is void then, and
 * this returns true, with the error set. */
EMULATOR_INSIDE bool emulator_capture_forbids(const char *what);
EMULATOR_INSIDE void emulator_start(void);

#endif
