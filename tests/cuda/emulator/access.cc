/*
 * Every access of a kernel: see internal.h. What g++ calls for -fsanitize=thread, bounds and alignment, in
 * place of the libraries that those usually come with.
 *
 * An address is in shared memory (dynamic, or the section of static __shared__ variables), in device memory,
 * on the stack of a fibre, in the launch's parameters or in the constants of this object. Anything else
 * belongs to the host, and a kernel must not touch it.
 */
#include "internal.h"

#include <sys/mman.h>

#define THREAD_MASK ((1u << EMULATOR_THREAD_BITS) - 1)
#define WARP_OF(word) (((word)&THREAD_MASK) / EMULATOR_WARP)
#define PHASE_OF(word) (((word) >> EMULATOR_THREAD_BITS) & EMULATOR_PHASE_MASK)
/* In `write`: */
#define BY_ATOMIC (1u << 28)
#define IN_FLIGHT (1u << 29)
/* In `read`: who else read in this era and phase, in this era, in this launch. */
#define MANY_LANES (1u << 28)
#define MANY_WARPS (1u << 29)
#define OTHER_BLOCKS (1u << 30)

#define SHARED_SPAN ((size_t)256 << 10)

/* The linker's names for the bounds of the section; none where no kernel has a static __shared__. */
extern "C" {
extern unsigned char __start_emulator_shared[] __attribute__((weak, visibility("hidden")));
extern unsigned char __stop_emulator_shared[] __attribute__((weak, visibility("hidden")));
extern const char __ehdr_start[] __attribute__((visibility("hidden")));
extern const char _end[] __attribute__((visibility("hidden")));
}

static emulator_cell *dynamic_cells, *static_cells;

static size_t static_span(void) {
  return (size_t)(__stop_emulator_shared - __start_emulator_shared);
}

static emulator_cell *map_cells(size_t bytes) {
  void *mapped = mmap(NULL, (bytes / 2 + 8) * sizeof(emulator_cell), PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (mapped == MAP_FAILED) {
    emulator_host_fault(NULL, "no room for the cells of shared memory");
  }
  return (emulator_cell *)mapped;
}

void emulator_access_start(void) {
  if (!machine.shared) {
    void *mapped =
        mmap(NULL, SHARED_SPAN, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (mapped == MAP_FAILED) {
      emulator_host_fault(NULL, "no room for shared memory");
    }
    machine.shared = (unsigned char *)mapped;
    dynamic_cells = map_cells(SHARED_SPAN);
    static_cells = map_cells(static_span());
  }
  if (machine.era > UINT32_MAX / 2) {
    /* Time starts again: no cell may look as if it had been touched in the future. */
    madvise(device_memory.cells, device_memory.span / 2 * sizeof(emulator_cell), MADV_DONTNEED);
    madvise(dynamic_cells, SHARED_SPAN / 2 * sizeof(emulator_cell), MADV_DONTNEED);
    madvise(static_cells, (static_span() / 2 + 8) * sizeof(emulator_cell), MADV_DONTNEED);
    machine.era = 0;
  }
}

void emulator_poison_shared(void) {
  memset(machine.shared, EMULATOR_POISON, machine.call->shared_bytes);
  if (static_span() > 0) {
    memset(__start_emulator_shared, EMULATOR_POISON, static_span());
  }
}

bool emulator_is_shared(const void *address, size_t bytes) {
  const unsigned char *at = (const unsigned char *)address;
  size_t dynamic = (size_t)(at - machine.shared), fixed = (size_t)(at - __start_emulator_shared);
  return dynamic + bytes <= machine.call->shared_bytes || fixed + bytes <= static_span();
}

/* ---- races ------------------------------------------------------------------------------------- */

static const char *verb(emulator_kind kind) {
  return kind == EMULATOR_READ ? "reads" : kind == EMULATOR_WRITE ? "writes" : "updates";
}

struct place {
  const char *space; /* "shared", "device" */
  const unsigned char *base;
  uint32_t first_era; /* what happened before is over: the block's, or the launch's first era */
};

static void __attribute__((noreturn, cold))
race(const place *where, const void *address, emulator_kind kind, const char *before, uint32_t word,
     uint32_t era, const void *pc) {
  size_t offset = (size_t)((const unsigned char *)address - where->base);
  if (era < machine.block_era) {
    emulator_fault(pc, "race: %s byte %zu of %s memory, which another block of this launch %s", verb(kind),
                   offset, where->space, before);
  }
  emulator_fault(pc, "race: %s byte %zu of %s memory, which thread %u%s %s with no barrier between",
                 verb(kind), offset, where->space, word & THREAD_MASK,
                 word & MANY_WARPS ? " (and others)" : "", before);
}

static inline void check_after_write(const emulator_cell *cell, const place *where, const void *address,
                                     emulator_kind kind, uint32_t me, const void *pc) {
  uint32_t word = cell->write;
  if (cell->write_era < where->first_era) {
    return;
  }
  bool both_atomic = kind == EMULATOR_ATOMIC && (word & BY_ATOMIC);
  if (cell->write_era < machine.block_era) {
    if (!both_atomic) {
      race(where, address, kind, "wrote", word, cell->write_era, pc);
    }
    return;
  }
  if (word & IN_FLIGHT) {
    emulator_fault(pc, "%s byte %zu of %s memory, which a cp.async of thread %u is still filling", verb(kind),
                   (size_t)((const unsigned char *)address - where->base), where->space, word & THREAD_MASK);
  }
  if (cell->write_era == machine.era && ((word ^ me) & THREAD_MASK) && !both_atomic &&
      (WARP_OF(word) != WARP_OF(me) || PHASE_OF(word) == PHASE_OF(me))) {
    race(where, address, kind, "wrote", word, cell->write_era, pc);
  }
}

static inline void check_after_read(const emulator_cell *cell, const place *where, const void *address,
                                    emulator_kind kind, uint32_t me, const void *pc) {
  uint32_t word = cell->read;
  if (cell->read_era < where->first_era) {
    return;
  }
  if (cell->read_era < machine.block_era || (word & OTHER_BLOCKS)) {
    race(where, address, kind, "read", word, machine.block_era - 1, pc);
  }
  if (cell->read_era == machine.era) {
    bool same_warp = !(word & MANY_WARPS) && WARP_OF(word) == WARP_OF(me);
    bool same_phase = PHASE_OF(word) == PHASE_OF(me);
    bool others = (word & MANY_LANES) || ((word ^ me) & THREAD_MASK);
    if (same_warp ? same_phase && others : true) {
      race(where, address, kind, "read", word, cell->read_era, pc);
    }
  }
}

static inline void note_read(emulator_cell *cell, const place *where, uint32_t me) {
  uint32_t word = cell->read, era = cell->read_era;
  if (era < where->first_era) {
    cell->read = me;
  } else if (era < machine.block_era) {
    cell->read = me | OTHER_BLOCKS;
  } else if (era < machine.era) {
    cell->read = me | (word & OTHER_BLOCKS);
  } else if (WARP_OF(word) != WARP_OF(me)) {
    cell->read = word | MANY_WARPS;
  } else if (PHASE_OF(word) == PHASE_OF(me)) {
    cell->read = word | ((word ^ me) & THREAD_MASK ? MANY_LANES : 0);
  } else {
    cell->read = me | (word & (OTHER_BLOCKS | MANY_WARPS));
  }
  cell->read_era = machine.era;
}

/* Whether one more read by `me` is in order and changes nothing: most accesses are reads of what many threads
 * read. */
static inline bool is_settled(const emulator_cell *cell, const place *where, uint32_t me) {
  uint32_t written = cell->write_era, word = cell->read;
  bool ordered =
      written < where->first_era ||
      (written - machine.block_era < machine.era - machine.block_era && !(cell->write & IN_FLIGHT));
  bool noted = (word & MANY_WARPS) ||
               ((word & MANY_LANES) && WARP_OF(word) == WARP_OF(me) && PHASE_OF(word) == PHASE_OF(me));
  return ordered && noted && cell->read_era == machine.era;
}

/* Neighbouring cells are mostly in the same state, for they are the halves of one number or of one vector:
 * what was decided for the first holds for all that look like it. */
static __attribute__((noinline)) void touch_cells(emulator_cell *first, emulator_cell *end,
                                                  const place *where, const unsigned char *address,
                                                  emulator_kind kind, uint32_t flags, const void *pc) {
  uint32_t me = machine.current->who;
  emulator_cell before = {}, after = {};
  for (emulator_cell *cell = first; cell < end; cell++, address += 2) {
    if (cell == first || memcmp(cell, &before, sizeof before) != 0) {
      after = before = *cell;
      check_after_write(&before, where, address, kind, me, pc);
      if (kind == EMULATOR_READ) {
        note_read(&after, where, me);
      } else {
        check_after_read(&before, where, address, kind, me, pc);
        after.write_era = machine.era;
        after.write = me | flags;
      }
    }
    *cell = after;
  }
}

static inline __attribute__((always_inline)) void touch(emulator_cell *cells, size_t offset, size_t bytes,
                                                        const place *where, emulator_kind kind,
                                                        uint32_t flags, const void *pc) {
  emulator_cell *first = &cells[offset / 2], *end = &cells[(offset + bytes - 1) / 2 + 1];
  if (kind == EMULATOR_READ) {
    uint32_t me = machine.current->who;
    while (first < end && is_settled(first, where, me)) {
      first++;
    }
    if (first == end) {
      return;
    }
  }
  touch_cells(first, end, where, where->base + (first - cells) * 2, kind, flags, pc);
}

/* ---- bounds ------------------------------------------------------------------------------------ */

static void __attribute__((noreturn, cold))
out_of_device(size_t offset, size_t bytes, emulator_kind kind, const void *pc) {
  size_t at = offset / EMULATOR_GRANULE;
  for (; at < (offset + bytes - 1) / EMULATOR_GRANULE && device_memory.granules[at] == EMULATOR_GRANULE;
       at++) {
  }
  bool freed = device_memory.granules[at] == EMULATOR_FREED;
  /* How far behind the buffer before it. */
  size_t end = at;
  while (!freed && end > 0 && at - end < 4096 && device_memory.granules[end] == 0) {
    end--;
  }
  size_t valid = end * EMULATOR_GRANULE + device_memory.granules[end];
  if (freed || device_memory.granules[end] == 0 || device_memory.granules[end] == EMULATOR_FREED) {
    emulator_fault(pc, "%s %zu bytes at %p of device memory that %s", verb(kind), bytes,
                   (void *)(device_memory.base + offset), freed ? "was freed" : "nobody allocated");
  }
  emulator_fault(pc, "%s %zu bytes out of bounds: %zd bytes behind the end of a buffer in device memory",
                 verb(kind), bytes, (ssize_t)(offset - valid));
}

static inline bool is_live(size_t offset, size_t bytes) {
  size_t first = offset / EMULATOR_GRANULE, last = (offset + bytes - 1) / EMULATOR_GRANULE;
  for (size_t i = first; i < last; i++) {
    if (device_memory.granules[i] != EMULATOR_GRANULE) {
      return false;
    }
  }
  unsigned char valid = device_memory.granules[last];
  return valid <= EMULATOR_GRANULE && valid > (offset + bytes - 1) % EMULATOR_GRANULE;
}

bool emulator_is_live(const void *address, size_t bytes) {
  size_t offset = (size_t)((const unsigned char *)address - device_memory.base);
  return bytes == 0 || (offset + bytes <= device_memory.span && is_live(offset, bytes));
}

static void check_elsewhere(const unsigned char *at, size_t bytes, emulator_kind kind, const void *pc) {
  const char *arguments = (const char *)machine.call->arguments.get();
  bool parameter = (size_t)((const char *)at - arguments) + bytes <= machine.call->argument_bytes;
  bool constant = (size_t)((const char *)at - __ehdr_start) < (size_t)(_end - __ehdr_start);
  if (!parameter && !constant && !emulator_is_device(at)) {
    emulator_fault(pc, "%s %zu bytes at %p, which is not device memory", verb(kind), bytes, (const void *)at);
  }
}

static inline __attribute__((always_inline)) void
access_with(const void *address, size_t bytes, emulator_kind kind, uint32_t flags, const void *pc) {
  const unsigned char *at = (const unsigned char *)address;
  if (!machine.call) {
    if (emulator_is_device(at)) {
      emulator_host_fault(pc, "code of the host touches device memory at %p", address);
    }
    return;
  }
  bool on_stack = (size_t)(at - machine.stacks) < EMULATOR_MAX_THREADS * EMULATOR_STACK_BYTES;
  if (machine.unchecked || on_stack) {
    return;
  }
  size_t offset = (size_t)(at - device_memory.base);
  if (offset < device_memory.span) {
    if (!is_live(offset, bytes)) {
      out_of_device(offset, bytes, kind, pc);
    }
    place where = {"device", device_memory.base, machine.launch_era};
    touch(device_memory.cells, offset, bytes, &where, kind, flags, pc);
    return;
  }
  offset = (size_t)(at - machine.shared);
  if (offset < SHARED_SPAN) {
    if (offset + bytes > machine.call->shared_bytes) {
      emulator_fault(pc, "%s bytes %zu..%zu of dynamic shared memory, out of bounds: it has %zu", verb(kind),
                     offset, offset + bytes - 1, machine.call->shared_bytes);
    }
    place where = {"shared", machine.shared, machine.block_era};
    touch(dynamic_cells, offset, bytes, &where, kind, flags, pc);
    return;
  }
  offset = (size_t)(at - __start_emulator_shared);
  if (offset < static_span()) {
    place where = {"static shared", __start_emulator_shared, machine.block_era};
    touch(static_cells, offset, bytes, &where, kind, flags, pc);
    return;
  }
  check_elsewhere(at, bytes, kind, pc);
}

void emulator_access(const void *address, size_t bytes, emulator_kind kind, const void *pc) {
  access_with(address, bytes, kind, kind == EMULATOR_ATOMIC ? BY_ATOMIC : 0, pc);
}

void emulator_access_in_flight(void *shared, size_t bytes, bool begin) {
  if (begin) {
    access_with(shared, bytes, EMULATOR_WRITE, IN_FLIGHT, NULL);
    return;
  }
  /* Landed: an ordinary write of this moment. */
  const unsigned char *at = (const unsigned char *)shared;
  bool dynamic = (size_t)(at - machine.shared) < SHARED_SPAN;
  const unsigned char *base = dynamic ? machine.shared : __start_emulator_shared;
  emulator_cell *cells = dynamic ? dynamic_cells : static_cells;
  uint32_t me = machine.current->who;
  for (size_t i = (size_t)(at - base) / 2; i < (size_t)(at - base + bytes) / 2; i++) {
    cells[i].write_era = machine.era;
    cells[i].write = me;
  }
}

/* ---- what the compiler calls ------------------------------------------------------------------- */

#define EXPORT extern "C" EMULATOR_INSIDE
#define PC __builtin_return_address(0)
#define READ(address, bytes) access_with(address, bytes, EMULATOR_READ, 0, PC)
#define WRITE(address, bytes) access_with(address, bytes, EMULATOR_WRITE, 0, PC)

#define ACCESSORS(bytes)                                                                                     \
  EXPORT void __tsan_read##bytes(void *address) {                                                            \
    READ(address, bytes);                                                                                    \
  }                                                                                                          \
  EXPORT void __tsan_write##bytes(void *address) {                                                           \
    WRITE(address, bytes);                                                                                   \
  }                                                                                                          \
  EXPORT void __tsan_unaligned_read##bytes(void *address) {                                                  \
    READ(address, bytes);                                                                                    \
  }                                                                                                          \
  EXPORT void __tsan_unaligned_write##bytes(void *address) {                                                 \
    WRITE(address, bytes);                                                                                   \
  }                                                                                                          \
  EXPORT void __tsan_volatile_read##bytes(void *address) {                                                   \
    READ(address, bytes);                                                                                    \
  }                                                                                                          \
  EXPORT void __tsan_volatile_write##bytes(void *address) {                                                  \
    WRITE(address, bytes);                                                                                   \
  }
ACCESSORS(1)
ACCESSORS(2)
ACCESSORS(4)
ACCESSORS(8)
ACCESSORS(16)

EXPORT void __tsan_read_range(void *address, size_t bytes) {
  READ(address, bytes);
}
EXPORT void __tsan_write_range(void *address, size_t bytes) {
  WRITE(address, bytes);
}
/* The counter of a shared_ptr, in host code; kernels have CUDA's atomics. */
EXPORT int __tsan_atomic32_fetch_add(volatile int *address, int value, int) {
  return __atomic_fetch_add(address, value, __ATOMIC_ACQ_REL);
}
EXPORT void __tsan_init(void) {
}
EXPORT void __tsan_func_entry(void *) {
}
EXPORT void __tsan_func_exit(void *) {
}
EXPORT void __tsan_vptr_update(void **, void *) {
}

struct source_place {
  const char *file;
  uint32_t line, column;
};

EXPORT void __ubsan_handle_out_of_bounds(source_place *place, void *index) {
  if (machine.call) {
    emulator_fault(PC, "index %zd is out of the bounds of an array (%s:%u)", (ssize_t)(size_t)index,
                   place->file, place->line);
  }
  emulator_host_fault(PC, "index %zd is out of the bounds of an array (%s:%u)", (ssize_t)(size_t)index,
                      place->file, place->line);
}
EXPORT void __ubsan_handle_type_mismatch_v1(source_place *place, void *address) {
  if (machine.call) {
    emulator_fault(PC, "address %p is misaligned for its type (%s:%u)", address, place->file, place->line);
  }
  emulator_host_fault(PC, "address %p is misaligned for its type (%s:%u)", address, place->file, place->line);
}
