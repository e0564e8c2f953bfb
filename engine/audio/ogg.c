/*
 * Ogg pages (RFC 3533), only as far as to make a stream reproducible.
 *
 * libsndfile numbers every stream it writes at random, and there is no way to choose. The number serves
 * to tell streams apart that are multiplexed into one file; ours are alone. The promise that the same
 * request gives the same bytes is worth more, so the number is replaced after the fact, and with it each
 * page's checksum: CRC-32 of polynomial 0x04C11DB7, highest bit first, from zero, over the whole page with
 * the checksum's own four bytes zero.
 */
#include <string.h>

#include "engine/audio/internal.h"

#define HEADER 27
#define SERIAL_AT 14
#define CHECKSUM_AT 22
#define SEGMENTS_AT 26

static uint32_t checksum(const unsigned char *data, size_t size) {
  uint32_t table[256];
  for (uint32_t i = 0; i < 256; i++) {
    uint32_t value = i << 24;
    for (int bit = 0; bit < 8; bit++) {
      value = value & 0x80000000u ? value << 1 ^ 0x04C11DB7u : value << 1;
    }
    table[i] = value;
  }
  uint32_t crc = 0;
  for (size_t i = 0; i < size; i++) {
    crc = crc << 8 ^ table[(crc >> 24) ^ data[i]];
  }
  return crc;
}

static void put32(unsigned char *bytes, uint32_t value) {
  for (int i = 0; i < 4; i++) {
    bytes[i] = (unsigned char)(value >> (8 * i));
  }
}

bool vamp_ogg_set_serial(unsigned char *data, size_t size, uint32_t serial) {
  while (size > 0) {
    if (size < HEADER || memcmp(data, "OggS", 4) != 0) {
      return false;
    }
    size_t segments = data[SEGMENTS_AT], page = HEADER + segments;
    if (size < page) {
      return false;
    }
    for (size_t i = 0; i < segments; i++) {
      page += data[HEADER + i];
    }
    if (size < page) {
      return false;
    }
    put32(data + SERIAL_AT, serial);
    put32(data + CHECKSUM_AT, 0);
    put32(data + CHECKSUM_AT, checksum(data, page));
    data += page;
    size -= page;
  }
  return true;
}
