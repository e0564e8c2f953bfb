/* What a warp does together, but matrices: shuffles, votes, reductions, and atomics. See internal.h. */
#include "internal.h"

struct shuffle {
  uint64_t given, taken;
  int source;
};

static void compute_shuffle(emulator_warp *warp) {
  for (int i = 0; i < warp->lanes; i++) {
    shuffle *lane = (shuffle *)warp->payload[i];
    /* A lane beyond a short warp's end: undefined on a device, poison here. */
    lane->taken = lane->source < warp->lanes ? ((shuffle *)warp->payload[lane->source])->given : UINT64_MAX;
  }
}

uint64_t emulator_shuffle(unsigned mask, uint64_t value, int source, bool valid) {
  shuffle lane = {value, value, valid ? source & (EMULATOR_WARP - 1) : machine.current->lane};
  emulator_collect(EMULATOR_SHUFFLE, mask, &lane, compute_shuffle);
  return lane.taken;
}

struct ballot {
  bool predicate;
  unsigned bits;
};

static void compute_ballot(emulator_warp *warp) {
  unsigned bits = 0;
  for (int i = 0; i < warp->lanes; i++) {
    bits |= (unsigned)((ballot *)warp->payload[i])->predicate << i;
  }
  for (int i = 0; i < warp->lanes; i++) {
    ((ballot *)warp->payload[i])->bits = bits;
  }
}

unsigned emulator_ballot(unsigned mask, int predicate) {
  ballot lane = {predicate != 0, 0};
  emulator_collect(EMULATOR_BALLOT, mask, &lane, compute_ballot);
  return lane.bits;
}

struct reduction {
  emulator_reduction how;
  int64_t value;
};

static int64_t combine(emulator_reduction how, int64_t a, int64_t b) {
  switch (how) {
  case EMULATOR_ADD:
    return (int64_t)((uint64_t)a + (uint64_t)b);
  case EMULATOR_MIN:
    return a < b ? a : b;
  case EMULATOR_MAX:
    return a > b ? a : b;
  case EMULATOR_AND:
    return a & b;
  case EMULATOR_OR:
    return a | b;
  case EMULATOR_XOR:
    return a ^ b;
  }
  return 0;
}

static void compute_reduction(emulator_warp *warp) {
  reduction *first = (reduction *)warp->payload[0];
  int64_t total = first->value;
  for (int i = 1; i < warp->lanes; i++) {
    total = combine(first->how, total, ((reduction *)warp->payload[i])->value);
  }
  for (int i = 0; i < warp->lanes; i++) {
    ((reduction *)warp->payload[i])->value = total;
  }
}

int64_t emulator_reduce(unsigned mask, emulator_reduction how, int64_t value) {
  reduction lane = {how, value};
  emulator_collect(EMULATOR_REDUCTION, mask, &lane, compute_reduction);
  return lane.value;
}

/* ---- atomics: one fibre runs at a time, so that nothing more is needed than to note the access ---- */

#define ATOMIC(type, name, expression)                                                                       \
  type name(type *address, type value) {                                                                     \
    emulator_access(address, sizeof(type), EMULATOR_ATOMIC, __builtin_return_address(0));                    \
    type old = *address;                                                                                     \
    *address = (expression);                                                                                 \
    return old;                                                                                              \
  }
#define ATOMICS(type)                                                                                        \
  ATOMIC(type, atomicMin, value < old ? value : old)                                                         \
  ATOMIC(type, atomicMax, value > old ? value : old)                                                         \
  ATOMIC(type, atomicExch, value)                                                                            \
  ATOMIC(type, atomicAnd, old &value)                                                                        \
  ATOMIC(type, atomicOr, old | value)                                                                        \
  ATOMIC(type, atomicXor, old ^ value)                                                                       \
  type atomicCAS(type *address, type expected, type value) {                                                 \
    emulator_access(address, sizeof(type), EMULATOR_ATOMIC, __builtin_return_address(0));                    \
    type old = *address;                                                                                     \
    *address = old == expected ? value : old;                                                                \
    return old;                                                                                              \
  }
ATOMICS(int)
ATOMICS(unsigned)
ATOMICS(unsigned long long)
ATOMIC(int, atomicAdd, (int)((unsigned)old + (unsigned)value))
ATOMIC(int, atomicSub, (int)((unsigned)old - (unsigned)value))
ATOMIC(unsigned, atomicAdd, old + value)
ATOMIC(unsigned, atomicSub, old - value)
ATOMIC(unsigned long long, atomicAdd, old + value)
ATOMIC(unsigned long long, atomicSub, old - value)
ATOMIC(float, atomicAdd, old + value)
ATOMIC(float, atomicExch, value)
ATOMIC(double, atomicAdd, old + value)
