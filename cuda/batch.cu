/*
 * A batch on the device: where its sequences begin, how they are cut into tiles, how each is sampled.
 *
 * Kernels never get these from their arguments but read them from tables at addresses that do not change. Two
 * reasons: a step recorded as a graph replays with the arguments it was recorded with, so what differs from
 * step to step must lie in memory; and twenty layers use one packing, which is compared with what is already
 * there and sent once. The tables grow by doubling; growing moves them, and recorded steps become stale
 * (device->version).
 */
#include <stdlib.h>
#include <string.h>

#include "cuda/internal.h"

struct cuda_batch_table {
  int64_t count_room, tile_room;
  char *memory;     /* device: extent, offsets, tiles, sequences, each from a multiple of 256 */
  int64_t *offsets; /* host [count_room + 1]: what is on the device now; count 0 where nothing is */
  int64_t count;
  struct vamp_sequence *sequences; /* host [count_room] */
  int64_t sequence_count;          /* 0 where none are on the device */
  char *build;                     /* host: room for what is sent */
};

static size_t carved(size_t bytes) {
  return (bytes + 255) / 256 * 256;
}

static size_t offsets_at(void) {
  return carved(sizeof(struct cuda_extent));
}

static size_t tiles_at(const struct cuda_batch_table *t) {
  return offsets_at() + carved(sizeof(int32_t) * (size_t)(t->count_room + 1));
}

static size_t sequences_at(const struct cuda_batch_table *t) {
  return tiles_at(t) + carved(sizeof(struct cuda_tile) * (size_t)t->tile_room);
}

static size_t table_bytes(const struct cuda_batch_table *t) {
  return sequences_at(t) + sizeof(struct vamp_sequence) * (size_t)t->count_room;
}

static void table_free(struct cuda_device *device, struct cuda_batch_table *t) {
  if (t) {
    cuda_release(device, t->memory);
    free(t->offsets);
    free(t->sequences);
    free(t->build);
    free(t);
  }
}

void cuda_batch_free(struct cuda_device *device) {
  table_free(device, device->batch);
  device->batch = NULL;
}

static int64_t room_for(int64_t wanted, int64_t had) {
  int64_t room = had > 0 ? had : 64;
  while (room < wanted) {
    room *= 2;
  }
  return room;
}

static int table_reserve(struct cuda_device *device, int64_t count, int64_t tiles) {
  struct cuda_batch_table *old = device->batch;
  if (old && old->count_room >= count && old->tile_room >= tiles) {
    return 0;
  }
  struct cuda_batch_table *t = (struct cuda_batch_table *)calloc(1, sizeof *t);
  void *memory = NULL;
  int status = VAMP_MEMORY;
  if (!t) {
    return VAMP_MEMORY;
  }
  t->count_room = room_for(count, old ? old->count_room : 0);
  t->tile_room = room_for(tiles, old ? old->tile_room : 0);
  t->offsets = (int64_t *)calloc((size_t)t->count_room + 1, sizeof *t->offsets);
  t->sequences = (struct vamp_sequence *)calloc((size_t)t->count_room, sizeof *t->sequences);
  t->build = (char *)calloc(1, sequences_at(t));
  if (!t->offsets || !t->sequences || !t->build) {
    goto err;
  }
  status = cuda_allocate(device, table_bytes(t), &memory);
  if (status) {
    goto err;
  }
  t->memory = (char *)memory;
  table_free(device, old);
  device->batch = t;
  device->version++;
  return 0;
err:
  table_free(device, t);
  return status;
}

static int64_t tiles_of(const struct vamp_packing *packing) {
  int64_t tiles = 0;
  for (int s = 0; s < packing->count; s++) {
    tiles += (packing->offsets[s + 1] - packing->offsets[s] + CUDA_TILE_ROWS - 1) / CUDA_TILE_ROWS;
  }
  return tiles;
}

static int send_packing(struct cuda_device *device, const struct vamp_packing *packing, int64_t tiles) {
  struct cuda_batch_table *t = device->batch;
  struct cuda_extent *extent = (struct cuda_extent *)(void *)t->build;
  int32_t *offsets = (int32_t *)(void *)(t->build + offsets_at());
  struct cuda_tile *tile = (struct cuda_tile *)(void *)(t->build + tiles_at(t));
  extent->count = packing->count;
  extent->rows = (int32_t)packing->offsets[packing->count];
  extent->tiles = (int32_t)tiles;
  for (int s = 0; s <= packing->count; s++) {
    offsets[s] = (int32_t)packing->offsets[s];
  }
  for (int s = 0; s < packing->count; s++) {
    for (int32_t first = offsets[s]; first < offsets[s + 1]; first += CUDA_TILE_ROWS) {
      tile->begin = offsets[s];
      tile->end = offsets[s + 1];
      tile->first = first;
      tile->sequence = s;
      tile++;
    }
  }
  t->count = 0; /* in case the upload fails */
  int status =
      cuda_upload(device, t->memory, t->build, tiles_at(t) + sizeof(struct cuda_tile) * (size_t)tiles);
  if (!status) {
    memcpy(t->offsets, packing->offsets, sizeof *t->offsets * ((size_t)packing->count + 1));
    t->count = packing->count;
  }
  return status;
}

static int send_sequences(struct cuda_device *device, const struct vamp_sequence *sequences, int count) {
  struct cuda_batch_table *t = device->batch;
  size_t bytes = sizeof *sequences * (size_t)count;
  t->sequence_count = 0;
  int status = cuda_upload(device, t->memory + sequences_at(t), sequences, bytes);
  if (!status) {
    memcpy((void *)t->sequences, sequences, bytes);
    t->sequence_count = count;
  }
  return status;
}

int cuda_batch_set(struct cuda_device *device, const struct vamp_packing *packing,
                   const struct vamp_sequence *sequences, struct cuda_batch *batch) {
  int64_t tiles = tiles_of(packing);
  int status = packing->offsets[packing->count] > INT32_MAX / 64 ? VAMP_LIMIT : 0;
  if (!status) {
    status = table_reserve(device, packing->count, tiles);
  }
  if (status) {
    return status;
  }
  struct cuda_batch_table *t = device->batch;
  if (t->count != packing->count || t->count == 0 ||
      memcmp(t->offsets, packing->offsets, sizeof *t->offsets * ((size_t)packing->count + 1)) != 0) {
    status = send_packing(device, packing, tiles);
  }
  if (!status && sequences &&
      (t->sequence_count != packing->count || t->sequence_count == 0 ||
       memcmp((const void *)t->sequences, sequences, sizeof *sequences * (size_t)packing->count) != 0)) {
    status = send_sequences(device, sequences, packing->count);
  }
  if (!status) {
    batch->extent = (const struct cuda_extent *)(void *)t->memory;
    batch->offsets = (const int32_t *)(void *)(t->memory + offsets_at());
    batch->tiles = (const struct cuda_tile *)(void *)(t->memory + tiles_at(t));
    batch->sequences = (const struct vamp_sequence *)(void *)(t->memory + sequences_at(t));
  }
  return status;
}

/* A class of rows holds at most this many sequences, each of which may end in a tile that is not full. */
static int64_t class_sequences(int64_t rows) {
  return rows / CUDA_TILE_ROWS + 16;
}

int64_t cuda_class_rows(const struct vamp_packing *packing) {
  int64_t rows = packing->offsets[packing->count];
  int64_t size = (rows + CUDA_TILE_ROWS - 1) / CUDA_TILE_ROWS * CUDA_TILE_ROWS;
  return packing->count <= class_sequences(size) ? size : 0;
}

int64_t cuda_launch_rows(const struct cuda_device *device, int64_t rows) {
  return device->class_rows ? device->class_rows : rows;
}

int64_t cuda_launch_tiles(const struct cuda_device *device, const struct vamp_packing *packing) {
  int64_t size = device->class_rows;
  return size ? size / CUDA_TILE_ROWS + class_sequences(size) : tiles_of(packing);
}

int64_t cuda_launch_sequences(const struct cuda_device *device, const struct vamp_packing *packing) {
  return device->class_rows ? class_sequences(device->class_rows) : packing->count;
}
