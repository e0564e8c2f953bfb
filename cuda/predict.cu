/*
 * The classifier, on masked positions alone.
 *
 * How many positions of a codebook are still masked only the device knows. So a first kernel lists, for each
 * predicted codebook, the rows that are masked there; the product gathers those rows, each against its
 * codebook's columns; and the draw follows the same lists. Neither needs the lengths on the host: grids are
 * launched for the most there can be, and blocks behind the end leave at once. In which order rows enter a
 * list is chance (an atomic counter), and nothing depends on it: a row of the product is the same wherever it
 * stands, and a draw is keyed by what it is for.
 *
 * Logits exist for one slab of tiles at a time (64 MiB at most), float, and are overwritten by their
 * exponentials.
 */
#include "cuda/sample.cuh"

enum { list_rows = 256 };

static const size_t slab_bytes = (size_t)64 << 20;

/* Block (x, y): 256 rows of predicted codebook y. */
static __global__ void __launch_bounds__(list_rows)
    list_masked(struct cuda_batch batch, int codebooks, int predicted, int vocabulary, int capacity,
                int32_t *counts, int32_t *lists) {
  int row = (int)blockIdx.x * list_rows + (int)threadIdx.x, lane = (int)threadIdx.x % 32, c = (int)blockIdx.y;
  bool masked = false;
  if (row < batch.extent->rows) {
    int s = cuda_sequence_of(&batch, row);
    int64_t at = (int64_t)(row - batch.offsets[s]) * codebooks + (codebooks - predicted + c);
    masked = batch.sequences[s].tokens[at] == vocabulary;
  }
  unsigned all = __ballot_sync(0xffffffffu, masked);
  int first = 0;
  if (lane == 0 && all) {
    first = atomicAdd(counts + c, __popc(all));
  }
  first = __shfl_sync(0xffffffffu, first, 0);
  if (masked) {
    lists[(int64_t)c * capacity + first + __popc(all & ((1u << lane) - 1u))] = row;
  }
}

static size_t carved(size_t bytes) {
  return (bytes + 255) / 256 * 256;
}

int cuda_predict(struct vamp_device *base, const struct vamp_weight *classifier, int codebooks, int predicted,
                 int vocabulary, const struct vamp_packing *packing, const struct vamp_sequence *sequences,
                 const void *x) {
  struct cuda_device *device = cuda_device(base);
  int64_t rows = cuda_launch_rows(device, packing->offsets[packing->count]);
  struct sample sample = {};
  void *memory;
  bool filters = false;
  if (rows == 0) {
    return 0;
  }
  int status = cuda_batch_set(device, packing, sequences, &sample.batch);
  if (status) {
    return status;
  }
  int64_t room = cuda_room_rows(rows);
  int tiles = predicted * (int)((room + GEMM_ROWS - 1) / GEMM_ROWS);
  size_t tile_bytes = sizeof(float) * GEMM_ROWS * (size_t)vocabulary;
  int slab = (int)(slab_bytes / tile_bytes);
  slab = slab < 1 ? 1 : slab > tiles ? tiles : slab;
  size_t counts_bytes = carved(sizeof(int32_t) * (size_t)predicted);
  size_t list_bytes = carved(sizeof(int32_t) * (size_t)predicted * (size_t)room);
  status = cuda_scratch(device, counts_bytes + list_bytes + (size_t)slab * tile_bytes, &memory);
  if (status) {
    return status;
  }
  int32_t *counts = (int32_t *)memory, *lists = (int32_t *)((char *)memory + counts_bytes);
  struct gemm *g = &sample.gemm;
  g->a = x;
  g->weight = cuda_linear_weight(classifier, &g->k, &g->bias);
  g->out = (float *)((char *)memory + counts_bytes + list_bytes);
  g->list = lists;
  g->counts = counts;
  g->groups = predicted;
  g->columns = vocabulary;
  g->capacity = (int)rows;
  sample.codebooks = codebooks;
  sample.predicted = predicted;
  sample.vocabulary = vocabulary;
  for (int s = 0; s < packing->count; s++) {
    filters = filters || cuda_sequence_filters(&sequences[s]);
  }
  CUDA_TRY(cudaMemsetAsync(counts, 0, sizeof *counts * (size_t)predicted, device->stream));
  VAMP_LAUNCH(list_masked, dim3((unsigned)((rows + list_rows - 1) / list_rows), (unsigned)predicted),
              dim3(list_rows), 0, device->stream, sample.batch, codebooks, predicted, vocabulary, (int)rows,
              counts, lists);
  CUDA_TRY(cudaGetLastError());
  for (g->first_tile = 0; g->first_tile < tiles && !status; g->first_tile += slab) {
    int now = tiles - g->first_tile < slab ? tiles - g->first_tile : slab;
    status = cuda_gemm(device, g, now);
    if (!status) {
      status = cuda_sample(device, &sample, now, filters);
    }
  }
  return status;
}
