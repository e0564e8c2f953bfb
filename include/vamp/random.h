/*
 * Philox 4x32-10 (Salmon, Moraes, Dror, Shaw: "Parallel random numbers: as easy as 1, 2, 3", SC 2011):
 * a counter-based generator, so that a draw depends on what it is for and never on who drew before.
 *
 * Pure functions; any thread. cuda/ carries the same arithmetic for the device.
 */
#ifndef VAMP_RANDOM_H
#define VAMP_RANDOM_H

#include <stdint.h>

struct vamp_random4 {
  uint32_t word[4];
};

static inline struct vamp_random4 vamp_philox(uint64_t key, uint32_t c0, uint32_t c1, uint32_t c2,
                                              uint32_t c3) {
  uint32_t k0 = (uint32_t)key, k1 = (uint32_t)(key >> 32);
  for (int round = 0; round < 10; round++) {
    uint64_t p0 = (uint64_t)0xD2511F53u * c0;
    uint64_t p1 = (uint64_t)0xCD9E8D57u * c2;
    uint32_t n0 = (uint32_t)(p1 >> 32) ^ c1 ^ k0;
    uint32_t n2 = (uint32_t)(p0 >> 32) ^ c3 ^ k1;
    c1 = (uint32_t)p1;
    c3 = (uint32_t)p0;
    c0 = n0;
    c2 = n2;
    k0 += 0x9E3779B9u; /* golden ratio */
    k1 += 0xBB67AE85u; /* sqrt(3) - 1 */
  }
  return (struct vamp_random4){{c0, c1, c2, c3}};
}

/* Uniform in the open interval (0, 1): 24 bits, centred, so neither log(u) nor log(-log(u)) is infinite. */
static inline float vamp_uniform(uint32_t word) {
  return ((float)(word >> 8) + 0.5f) * (1.0f / 16777216.0f);
}

/* What a key is used for: the third word of the counter, so that streams never meet. */
enum vamp_random_stream {
  VAMP_STREAM_COARSE = 1, /* token sampling and Gumbel noise of the coarse stage */
  VAMP_STREAM_FINE = 2,
  VAMP_STREAM_MASK = 3, /* mask building */
};

#endif
