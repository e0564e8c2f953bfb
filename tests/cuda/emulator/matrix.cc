/*
 * Tensor cores and asynchronous copies, by the rules of the PTX manual (9.7.14.5 "Matrix multiply-accumulate
 * operation using mma instruction", "ldmatrix"; 9.7.9.25 "cp.async"); cuda/mma.cuh states the fragments.
 *
 * An mma gathers the fragments of 32 lanes into the matrices they are, multiplies in float, in order of k,
 * and deals the result out again. A tensor core sums in an order that is not published; whoever depends on it
 * is wrong anyway.
 *
 * The copy of a cp.async is made when it is waited for, the latest moment a GPU could choose; until then the
 * target is poison, and nobody may touch it.
 */
#include "internal.h"

#include "emulator_warp.h"

struct load {
  uint32_t *registers;
  int matrices;
  bool transposed;
  const unsigned char *row;
};

static void compute_load(emulator_warp *warp) {
  const load *first = (const load *)warp->payload[0];
  for (int lane = 0; lane < EMULATOR_WARP; lane++) {
    const load *self = (const load *)warp->payload[lane];
    int group = lane / 4, pair = lane % 4;
    for (int matrix = 0; matrix < first->matrices; matrix++) {
      uint32_t bits = 0;
      for (int half = 0; half < 2; half++) {
        int row = self->transposed ? pair * 2 + half : group;
        int column = self->transposed ? group : pair * 2 + half;
        uint16_t element;
        memcpy(&element, ((const load *)warp->payload[matrix * 8 + row])->row + column * 2, 2);
        bits |= (uint32_t)element << (16 * half);
      }
      self->registers[matrix] = bits;
    }
  }
}

static void check_full_warp(void) {
  if (machine.current->warp->lanes != EMULATOR_WARP) {
    emulator_fault(NULL, "a matrix instruction in a warp of fewer than 32 threads");
  }
}

void emulator_load_matrix(uint32_t *registers, int matrices, bool transposed, const void *row) {
  check_full_warp();
  if (machine.current->lane < matrices * 8) {
    const void *pc = __builtin_return_address(0);
    if ((uintptr_t)row % 16 != 0) {
      emulator_fault(pc, "ldmatrix of a row that is not at a multiple of 16 bytes");
    }
    if (!emulator_is_shared(row, 16)) {
      emulator_fault(pc, "ldmatrix of %p, which is outside of shared memory", row);
    }
    emulator_access(row, 16, EMULATOR_READ, pc);
  }
  load lane = {registers, matrices, transposed, (const unsigned char *)row};
  emulator_collect(EMULATOR_LDMATRIX, EMULATOR_FULL_MASK, &lane, compute_load);
}

struct product {
  float *d;
  const uint32_t *a, *b;
};

static void multiply(emulator_warp *warp, const float *a, const float *b, int depth) {
  float sum[16][8];
  for (int lane = 0; lane < EMULATOR_WARP; lane++) {
    const product *self = (const product *)warp->payload[lane];
    int group = lane / 4, column = lane % 4 * 2;
    memcpy(&sum[group][column], &self->d[0], 8);
    memcpy(&sum[group + 8][column], &self->d[2], 8);
  }
  for (int i = 0; i < 16; i++) {
    for (int k = 0; k < depth; k++) {
      for (int j = 0; j < 8; j++) {
        sum[i][j] += a[i * depth + k] * b[k * 8 + j];
      }
    }
  }
  for (int lane = 0; lane < EMULATOR_WARP; lane++) {
    const product *self = (const product *)warp->payload[lane];
    int group = lane / 4, column = lane % 4 * 2;
    memcpy(&self->d[0], &sum[group][column], 8);
    memcpy(&self->d[2], &sum[group + 8][column], 8);
  }
}

static float low(uint32_t pair) {
  return __uint_as_float(pair << 16);
}

static float high(uint32_t pair) {
  return __uint_as_float(pair & 0xffff0000u);
}

static void compute_bf16(emulator_warp *warp) {
  float a[16][16], b[16][8];
  for (int lane = 0; lane < EMULATOR_WARP; lane++) {
    const product *self = (const product *)warp->payload[lane];
    int group = lane / 4, pair = lane % 4;
    for (int i = 0; i < 4; i++) {
      float *to = &a[group + i % 2 * 8][pair * 2 + i / 2 * 8];
      to[0] = low(self->a[i]);
      to[1] = high(self->a[i]);
    }
    for (int i = 0; i < 2; i++) {
      b[pair * 2 + i * 8][group] = low(self->b[i]);
      b[pair * 2 + i * 8 + 1][group] = high(self->b[i]);
    }
  }
  multiply(warp, &a[0][0], &b[0][0], 16);
}

static float tf32(uint32_t bits) {
  return __uint_as_float(bits & 0xffffe000u);
}

static void compute_tf32(emulator_warp *warp) {
  float a[16][8], b[8][8];
  for (int lane = 0; lane < EMULATOR_WARP; lane++) {
    const product *self = (const product *)warp->payload[lane];
    int group = lane / 4, pair = lane % 4;
    for (int i = 0; i < 4; i++) {
      a[group + i % 2 * 8][pair + i / 2 * 4] = tf32(self->a[i]);
    }
    for (int i = 0; i < 2; i++) {
      b[pair + i * 4][group] = tf32(self->b[i]);
    }
  }
  multiply(warp, &a[0][0], &b[0][0], 8);
}

void vamp_mma_bf16(float d[4], const uint32_t a[4], const uint32_t b[2]) {
  check_full_warp();
  product lane = {d, a, b};
  emulator_collect(EMULATOR_MMA_BF16, EMULATOR_FULL_MASK, &lane, compute_bf16);
}

void vamp_mma_tf32(float d[4], const uint32_t a[4], const uint32_t b[2]) {
  check_full_warp();
  product lane = {d, a, b};
  emulator_collect(EMULATOR_MMA_TF32, EMULATOR_FULL_MASK, &lane, compute_tf32);
}

/* ---- cp.async ---------------------------------------------------------------------------------- */

void emulator_copy_async(void *shared, const void *global, unsigned bytes, bool valid) {
  const void *pc = __builtin_return_address(0);
  if ((uintptr_t)shared % bytes != 0 || (valid && (uintptr_t)global % bytes != 0)) {
    emulator_fault(pc, "cp.async of %u bytes, misaligned: to %p from %p", bytes, shared, global);
  }
  if (!emulator_is_shared(shared, bytes)) {
    emulator_fault(pc, "cp.async to %p, which is outside of shared memory", shared);
  }
  if (valid) {
    if (!emulator_is_device(global)) {
      emulator_fault(pc, "cp.async from %p, which is not device memory", global);
    }
    emulator_access(global, bytes, EMULATOR_READ, pc);
  }
  emulator_access_in_flight(shared, bytes, true);
  memset(shared, EMULATOR_POISON, bytes);
  machine.current->copies.push_back({shared, global, bytes, valid, 0});
}

void vamp_copy_commit(void) {
  emulator_fibre *self = machine.current;
  self->committed++;
  for (emulator_copy &copy : self->copies) {
    copy.group = copy.group ? copy.group : self->committed;
  }
}

void vamp_copy_wait(int pending) {
  emulator_fibre *self = machine.current;
  size_t kept = 0;
  for (const emulator_copy &copy : self->copies) {
    if (copy.group == 0 || copy.group + (unsigned)pending > self->committed) {
      self->copies[kept++] = copy;
      continue;
    }
    if (copy.valid) {
      memcpy(copy.shared, copy.global, copy.bytes);
    } else {
      memset(copy.shared, 0, copy.bytes);
    }
    emulator_access_in_flight(copy.shared, copy.bytes, false);
  }
  self->copies.resize(kept);
}
