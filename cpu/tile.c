/* See tile.h. */
#include "cpu/tile.h"

#include <string.h>

enum { SLACK = 128, TRANSPOSE_ROWS = 16 };

int tile_output_rows(int channels) {
  if (channels >= 192) {
    return 192;
  }
  return channels >= 96 ? 256 : channels >= TILE_FEW_CHANNELS ? 512 : 1024;
}

void tile_fetch_rows(const struct cpu_device *device, const float *sequence, int64_t length, int channels,
                     const struct cpu_vector *alpha, int64_t from, int rows, bool bf16, char *out) {
  size_t row = (bf16 ? 2 : 4) * (size_t)channels;
  int64_t first = from < 0 ? 0 : from, last = from + rows < length ? from + rows : length;
  if (first >= last) {
    memset(out, 0, row * (size_t)rows);
    return;
  }
  memset(out, 0, row * (size_t)(first - from));
  memset(out + row * (size_t)(last - from), 0, row * (size_t)(from + rows - last));
  char *to = out + row * (size_t)(first - from);
  const float *x = sequence + (size_t)first * (size_t)channels;
  if (alpha) {
    device->simd->snake(x, (int)(last - first), channels, alpha->values, alpha->inverse, bf16, to);
  } else {
    device->simd->to_act(x, (size_t)(last - first) * (size_t)channels, bf16, to);
  }
}

void tile_fetch_channels(const struct cpu_device *device, const float *sequence, int64_t length, int channels,
                         const struct cpu_vector *alpha, int64_t from, int rows, float *out, size_t stride) {
  int64_t first = from < 0 ? 0 : from, last = from + rows < length ? from + rows : length;
  if (first > last) {
    first = last = from;
  }
  for (int c = 0; c < channels; c++) {
    float *row = out + (size_t)c * stride;
    memset(row, 0, sizeof *row * (size_t)(first - from));
    memset(row + (last - from), 0, sizeof *row * (stride - (size_t)(last - from)));
  }
  /* Blocks of rows, so that both sides stay within a few cache lines. */
  for (int64_t block = first; block < last; block += TRANSPOSE_ROWS) {
    int n = (int)(last - block < TRANSPOSE_ROWS ? last - block : TRANSPOSE_ROWS);
    const float *x = sequence + (size_t)block * (size_t)channels;
    for (int c = 0; c < channels; c++) {
      float *row = out + (size_t)c * stride + (block - from);
      for (int t = 0; t < n; t++) {
        row[t] = x[(size_t)t * (size_t)channels + (size_t)c];
      }
    }
  }
  if (alpha && last > first) {
    device->simd->snake_channels(out + (first - from), channels, (int)(last - first), stride, alpha->values,
                                 alpha->inverse);
  }
}

void tile_channels_to_rows(const float *in, size_t stride, int channels, int rows, float *out) {
  for (int block = 0; block < rows; block += TRANSPOSE_ROWS) {
    int n = rows - block < TRANSPOSE_ROWS ? rows - block : TRANSPOSE_ROWS;
    float *y = out + (size_t)block * (size_t)channels;
    for (int c = 0; c < channels; c++) {
      const float *row = in + (size_t)c * stride + block;
      for (int t = 0; t < n; t++) {
        y[(size_t)t * (size_t)channels + (size_t)c] = row[t];
      }
    }
  }
}

size_t tile_channel_stride(int rows) {
  return ((size_t)rows + SLACK + 15) / 16 * 16;
}
