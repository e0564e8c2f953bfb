/*
 * A block as fibres: see internal.h.
 *
 * On x86-64 and aarch64 a switch is a dozen instructions of ours, because a whole generation makes some
 * hundred million of them and swapcontext would make two system calls for each. A fibre that has to wait
 * picks the next one itself and switches to it directly. Among those that can go on it prefers lanes of its
 * own warp, at random: every order inside the warp is tried, and its data stay in the cache.
 *
 * After a fault the fibres are left as they are: kernels own nothing that would have to be freed.
 */
#include <dlfcn.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "internal.h"

#define GUARD_BYTES ((size_t)4 << 10)

emulator_machine machine;

static emulator_fibre fibres[EMULATOR_MAX_THREADS];
static unsigned fibres_made;
static char report[1024];

/* Saves the registers a function must keep and the stack pointer to *save, takes those of `load`. */
extern "C" EMULATOR_INSIDE void emulator_switch(void **save, void *load);
extern "C" EMULATOR_INSIDE void emulator_fibre_entry(void);

#if defined(__x86_64__)
#define SAVED_WORDS 6 /* below the return address */
asm(".text\n"
    ".hidden emulator_switch\n"
    ".globl emulator_switch\n"
    "emulator_switch:\n"
    "  pushq %rbp\n  pushq %rbx\n  pushq %r12\n  pushq %r13\n  pushq %r14\n  pushq %r15\n"
    "  movq %rsp, (%rdi)\n"
    "  movq %rsi, %rsp\n"
    "  popq %r15\n  popq %r14\n  popq %r13\n  popq %r12\n  popq %rbx\n  popq %rbp\n"
    "  ret\n");

static void *first_frame(unsigned char *top) {
  void **frame = (void **)(void *)top - (SAVED_WORDS + 2); /* entered as if called: 8 off a multiple of 16 */
  for (int i = 0; i < SAVED_WORDS; i++) {
    frame[i] = NULL;
  }
  frame[SAVED_WORDS] = (void *)emulator_fibre_entry;
  return frame;
}
#elif defined(__aarch64__)
#define SAVED_WORDS 20 /* x19..x30, d8..d15 */
asm(".text\n"
    ".hidden emulator_switch\n"
    ".globl emulator_switch\n"
    "emulator_switch:\n"
    "  sub sp, sp, #160\n"
    "  stp x19, x20, [sp, #0]\n  stp x21, x22, [sp, #16]\n  stp x23, x24, [sp, #32]\n"
    "  stp x25, x26, [sp, #48]\n  stp x27, x28, [sp, #64]\n  stp x29, x30, [sp, #80]\n"
    "  stp d8, d9, [sp, #96]\n  stp d10, d11, [sp, #112]\n"
    "  stp d12, d13, [sp, #128]\n  stp d14, d15, [sp, #144]\n"
    "  mov x2, sp\n  str x2, [x0]\n  mov sp, x1\n"
    "  ldp x19, x20, [sp, #0]\n  ldp x21, x22, [sp, #16]\n  ldp x23, x24, [sp, #32]\n"
    "  ldp x25, x26, [sp, #48]\n  ldp x27, x28, [sp, #64]\n  ldp x29, x30, [sp, #80]\n"
    "  ldp d8, d9, [sp, #96]\n  ldp d10, d11, [sp, #112]\n"
    "  ldp d12, d13, [sp, #128]\n  ldp d14, d15, [sp, #144]\n"
    "  add sp, sp, #160\n"
    "  ret\n");

static void *first_frame(unsigned char *top) {
  void **frame = (void **)(void *)top - SAVED_WORDS;
  for (int i = 0; i < SAVED_WORDS; i++) {
    frame[i] = NULL;
  }
  frame[11] = (void *)emulator_fibre_entry; /* x30, the return address */
  return frame;
}
#else
#error "the emulator switches fibres on x86-64 and aarch64 only"
#endif

/* ---- reports ----------------------------------------------------------------------------------- */

const char *emulator_report(void) {
  return report;
}

void emulator_report_aloud(bool aloud) {
  machine.silent = !aloud;
}

void emulator_report_forget(void) {
  report[0] = '\0';
}

void emulator_report_text(const char *text) {
  snprintf(report, sizeof report, "%s", text);
  if (!machine.silent) {
    fprintf(stderr, "emulator: %s\n", text);
  }
}

static void append_place(char *text, size_t room, const void *pc) {
  size_t length = strlen(text);
  Dl_info info;
  if (pc && dladdr(pc, &info)) {
    snprintf(text + length, room - length, " (addr2line -Cfie %s %#zx)", info.dli_fname,
             (size_t)((const char *)pc - 1 - (const char *)info.dli_fbase));
  }
}

void emulator_fault(const void *pc, const char *format, ...) {
  char text[sizeof report];
  uint3 b = machine.block_index, t = machine.current->index;
  int length =
      snprintf(text, sizeof text, "%s: block (%u, %u, %u), thread (%u, %u, %u): ", machine.call->name, b.x,
               b.y, b.z, t.x, t.y, t.z);
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(text + length, sizeof text - (size_t)length, format, arguments);
  va_end(arguments);
  append_place(text, sizeof text, pc);
  emulator_report_text(text);
  machine.faulted = true;
  void *forgotten;
  emulator_switch(&forgotten, machine.host_stack_pointer);
  abort();
}

void emulator_host_fault(const void *pc, const char *format, ...) {
  char text[sizeof report];
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(text, sizeof text, format, arguments);
  va_end(arguments);
  append_place(text, sizeof text, pc);
  emulator_report_text(text);
  abort();
}

/* ---- who runs next ----------------------------------------------------------------------------- */

static uint32_t draw(uint32_t below) {
  machine.random ^= machine.random << 13;
  machine.random ^= machine.random >> 7;
  machine.random ^= machine.random << 17;
  return (uint32_t)(((machine.random >> 32) * below) >> 32);
}

static int draw_bit(uint32_t bits) {
  for (uint32_t skip = draw((uint32_t)__builtin_popcount(bits)); skip > 0; skip--) {
    bits &= bits - 1;
  }
  return __builtin_ctz(bits);
}

static void make_ready(emulator_fibre *fibre) {
  fibre->state = emulator_fibre::READY;
  fibre->warp->ready |= 1u << fibre->lane;
  machine.ready_warps |= 1u << (fibre->warp - machine.warps);
}

/* Nobody can go on: some wait for others that will never come. */
static void stuck(void) {
  unsigned at_collective = 0;
  for (unsigned i = 0; i < machine.threads; i++) {
    at_collective += fibres[i].state == emulator_fibre::AT_COLLECTIVE;
  }
  emulator_fault(NULL,
                 "divergence: %u threads wait at a barrier of the block, %u at a collective of their warp, "
                 "%u have returned",
                 machine.at_barrier, at_collective, machine.returned);
}

static emulator_fibre *pick(emulator_warp *warp) {
  if (!warp->ready) {
    if (!machine.ready_warps) {
      stuck();
    }
    warp = &machine.warps[draw_bit(machine.ready_warps)];
  }
  int lane = draw_bit(warp->ready);
  warp->ready &= ~(1u << lane);
  if (!warp->ready) {
    machine.ready_warps &= ~(1u << (warp - machine.warps));
  }
  return &fibres[(warp - machine.warps) * EMULATOR_WARP + lane];
}

static void go_on(emulator_fibre *self) {
  emulator_fibre *next = pick(self->warp);
  if (next != self) {
    machine.current = next;
    emulator_switch(&self->stack_pointer, next->stack_pointer);
  }
}

extern "C" void emulator_fibre_entry(void) {
  machine.call->run(machine.call->kernel, machine.call->arguments.get());
  emulator_fibre *self = machine.current;
  if (!self->copies.empty()) {
    emulator_fault(NULL, "returns before its cp.async copies have landed");
  }
  self->state = emulator_fibre::RETURNED;
  if (++machine.returned == machine.threads) {
    emulator_switch(&self->stack_pointer, machine.host_stack_pointer);
  }
  machine.current = pick(self->warp);
  emulator_switch(&self->stack_pointer, machine.current->stack_pointer);
  abort();
}

/* ---- barriers ---------------------------------------------------------------------------------- */

int emulator_barrier(emulator_vote vote, int predicate) {
  emulator_fibre *self = machine.current;
  machine.votes += predicate != 0;
  self->state = emulator_fibre::AT_BARRIER;
  if (++machine.at_barrier == machine.threads) {
    machine.barrier_result = machine.votes;
    machine.votes = 0;
    machine.at_barrier = 0;
    machine.era++;
    for (unsigned i = 0; i < machine.threads; i++) {
      make_ready(&fibres[i]);
    }
  }
  go_on(self);
  /* Read before this thread can arrive at the next barrier, and so before the result can change. */
  int count = machine.barrier_result;
  return vote == EMULATOR_COUNT ? count : vote == EMULATOR_ANY ? count > 0 : count == (int)machine.threads;
}

void emulator_collect(emulator_collective collective, unsigned mask, void *payload,
                      void (*compute)(emulator_warp *warp)) {
  emulator_fibre *self = machine.current;
  emulator_warp *warp = self->warp;
  if (mask != EMULATOR_FULL_MASK) {
    emulator_fault(NULL, "a collective of a part of the warp (mask %#x)", mask);
  }
  if (warp->arrived == 0) {
    warp->collective = collective;
  } else if (warp->collective != collective) {
    emulator_fault(NULL, "divergence: lanes of one warp wait at different collectives (%d and %d)",
                   (int)warp->collective, (int)collective);
  }
  warp->payload[self->lane] = payload;
  self->state = emulator_fibre::AT_COLLECTIVE;
  if (++warp->arrived == warp->lanes) {
    warp->arrived = 0;
    compute(warp);
    emulator_fibre *first = &fibres[(warp - machine.warps) * EMULATOR_WARP];
    for (int i = 0; i < warp->lanes; i++) {
      make_ready(&first[i]);
    }
  }
  go_on(self);
}

static void next_phase(emulator_warp *warp) {
  warp->phase = (warp->phase + 1) & EMULATOR_PHASE_MASK;
  emulator_fibre *first = &fibres[(warp - machine.warps) * EMULATOR_WARP];
  for (int i = 0; i < warp->lanes; i++) {
    first[i].who = first[i].thread | warp->phase << EMULATOR_THREAD_BITS;
  }
}

void emulator_warp_barrier(unsigned mask) {
  emulator_collect(EMULATOR_SYNCWARP, mask, NULL, next_phase);
}

/* ---- a launch ---------------------------------------------------------------------------------- */

static void make_fibres(unsigned count) {
  if (!machine.stacks) {
    void *mapped = mmap(NULL, EMULATOR_MAX_THREADS * EMULATOR_STACK_BYTES, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (mapped == MAP_FAILED) {
      emulator_host_fault(NULL, "no room for the stacks of fibres");
    }
    machine.stacks = (unsigned char *)mapped;
  }
  for (; fibres_made < count; fibres_made++) {
    emulator_fibre *fibre = &fibres[fibres_made];
    fibre->thread = fibres_made;
    fibre->lane = (int)(fibres_made % EMULATOR_WARP);
    fibre->warp = &machine.warps[fibres_made / EMULATOR_WARP];
    fibre->stack = machine.stacks + fibres_made * EMULATOR_STACK_BYTES;
    mprotect(fibre->stack, GUARD_BYTES, PROT_NONE);
  }
}

static void run_block(uint3 index) {
  machine.block_index = index;
  machine.block_era = ++machine.era;
  machine.at_barrier = machine.returned = 0;
  machine.votes = 0;
  machine.ready_warps = 0;
  uint3 size = machine.block_size;
  for (unsigned i = 0; i < machine.threads; i++) {
    emulator_fibre *fibre = &fibres[i];
    emulator_warp *warp = fibre->warp;
    if (fibre->lane == 0) {
      unsigned left = machine.threads - i;
      *warp = {};
      warp->lanes = (int)(left < EMULATOR_WARP ? left : EMULATOR_WARP);
    }
    fibre->index = {i % size.x, i / size.x % size.y, i / (size.x * size.y)};
    fibre->who = fibre->thread;
    fibre->copies.clear();
    fibre->committed = 0;
    /* Tops differ by cache lines, or all stacks would share the same few of the cache. */
    fibre->stack_pointer = first_frame(fibre->stack + EMULATOR_STACK_BYTES - (i * 5 % 61) * 64);
    make_ready(fibre);
  }
  emulator_poison_shared();
  machine.current = pick(&machine.warps[0]);
  emulator_switch(&machine.host_stack_pointer, machine.current->stack_pointer);
}

bool emulator_run_call(const emulator_call &call) {
  machine.call = &call;
  machine.grid_size = {call.grid.x, call.grid.y, call.grid.z};
  machine.block_size = {call.block.x, call.block.y, call.block.z};
  machine.threads = call.block.x * call.block.y * call.block.z;
  machine.faulted = false;
  make_fibres(machine.threads);
  emulator_access_start();
  machine.launch_era = machine.era + 1;
  size_t count = (size_t)call.grid.x * call.grid.y * call.grid.z;
  std::vector<uint32_t> order(count);
  for (size_t i = 0; i < count; i++) {
    size_t other = draw((uint32_t)(i + 1));
    order[i] = order[other];
    order[other] = (uint32_t)i;
  }
  for (size_t i = 0; i < count && !machine.faulted; i++) {
    uint32_t at = order[i];
    run_block({at % call.grid.x, at / call.grid.x % call.grid.y, at / (call.grid.x * call.grid.y)});
  }
  machine.call = NULL;
  return !machine.faulted;
}

uint3 emulator_thread_index(void) {
  return machine.current->index;
}

uint3 emulator_block_index(void) {
  return machine.block_index;
}

uint3 emulator_block_size(void) {
  return machine.block_size;
}

uint3 emulator_grid_size(void) {
  return machine.grid_size;
}

void *emulator_shared(void) {
  return machine.shared;
}

int emulator_lane(void) {
  return machine.current->lane;
}
