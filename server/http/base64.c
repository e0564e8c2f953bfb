/*
 * Base64, both ways: see base64.h.
 *
 * Our own, because it is forty lines and the libraries at hand skip what they do not know: a decoder
 * that ignores stray characters turns a truncated or doubly encoded upload into noise instead of an error.
 */
#include "server/http/base64.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

static const char ALPHABET[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/* The value of a character, or -1. */
static int value_of(char character) {
  if (character >= 'A' && character <= 'Z') {
    return character - 'A';
  }
  if (character >= 'a' && character <= 'z') {
    return character - 'a' + 26;
  }
  if (character >= '0' && character <= '9') {
    return character - '0' + 52;
  }
  return character == '+' ? 62 : character == '/' ? 63 : -1;
}

int vampd_base64_decode(const char *text, size_t length, void **data, size_t *size,
                        struct vamp_error *error) {
  if (length > 5 && memcmp(text, "data:", 5) == 0) {
    return vamp_fail(error, VAMP_INVALID, "This is a data: URL; send only the base64 behind its comma.");
  }
  if (length % 4 != 0) {
    return vamp_fail(error, VAMP_INVALID, "The base64 text has %zu characters, which is no multiple of 4.",
                     length);
  }
  size_t padding = 0;
  while (padding < 2 && padding < length && text[length - 1 - padding] == '=') {
    padding++;
  }
  size_t count = length / 4 * 3 - padding;
  uint8_t *bytes = malloc(count + 1);
  if (!bytes) {
    return vamp_fail(error, VAMP_MEMORY, "Out of memory while reading base64.");
  }
  uint32_t word = 0;
  for (size_t i = 0, out = 0; i < length; i++) {
    int value = i < length - padding ? value_of(text[i]) : 0;
    if (value < 0) {
      free(bytes);
      return vamp_fail(error, VAMP_INVALID, "Character %zu of the base64 text is not base64.", i);
    }
    word = word << 6 | (uint32_t)value;
    if (i % 4 == 3) {
      for (int shift = 16; shift >= 0 && out < count; shift -= 8) {
        bytes[out++] = (uint8_t)(word >> shift);
      }
      word = i + 1 == length ? word : 0;
    }
  }
  /* Of the last group, 8 bits for each padding character must be zero: they stand for nothing. */
  if (padding > 0 && (word & ((1u << (8 * padding)) - 1)) != 0) {
    free(bytes);
    return vamp_fail(error, VAMP_INVALID, "The base64 text ends in bits that belong to no byte.");
  }
  *data = bytes;
  *size = count;
  return VAMP_OK;
}

char *vampd_base64_encode(const void *data, size_t size, size_t *length) {
  if (size > SIZE_MAX / 4 * 3 - 8) {
    return NULL;
  }
  const uint8_t *bytes = data;
  *length = (size + 2) / 3 * 4;
  char *text = malloc(*length + 1);
  if (!text) {
    return NULL;
  }
  char *out = text;
  for (size_t i = 0; i < size; i += 3) {
    uint32_t word = (uint32_t)bytes[i] << 16;
    word |= i + 1 < size ? (uint32_t)bytes[i + 1] << 8 : 0;
    word |= i + 2 < size ? bytes[i + 2] : 0;
    *out++ = ALPHABET[word >> 18];
    *out++ = ALPHABET[word >> 12 & 63];
    *out++ = i + 1 < size ? ALPHABET[word >> 6 & 63] : '=';
    *out++ = i + 2 < size ? ALPHABET[word & 63] : '=';
  }
  *out = '\0';
  return text;
}
