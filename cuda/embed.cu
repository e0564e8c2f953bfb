/*
 * Token embedding as one sum of table rows.
 *
 * The model looks up a row of `dimensions` (8) for each codebook, concatenates them and projects to `width`.
 * Both are linear, so each codebook's table times its columns of the projection is a table of rows of
 * `width`, made once at load, on the device: embedding a frame is then the sum of one such row for each
 * codebook. Official size: 4 x 1025 x 1280 floats, 21 MB, for coarse, 73 MB for fine. It spares a gather, a
 * product with k = 32 that would waste the tensor cores, and a way through bf16. The bias is in the first
 * codebook's table.
 *
 * A block takes a row, a thread four channels of it; codebooks are added in order. Bound by bytes: codebooks
 * * 4 read (mostly from the second-level cache) and 4 written for each channel.
 */
#include <stdlib.h>

#include "cuda/internal.h"

struct embedding {
  struct vamp_weight base;
  int codebooks, entries, width;
  float *tables; /* device [codebooks, entries, width] */
};

/* A block takes one entry of one codebook. */
static __global__ void fold(const float *tables, const float *projection, const float *bias, int codebooks,
                            int entries, int dimensions, int width, float *out) {
  int codebook = (int)blockIdx.x / entries;
  const float *row = tables + (size_t)blockIdx.x * (size_t)dimensions;
  for (int w = (int)threadIdx.x; w < width; w += (int)blockDim.x) {
    const float *column =
        projection + ((size_t)w * (size_t)codebooks + (size_t)codebook) * (size_t)dimensions;
    float sum = bias && codebook == 0 ? bias[w] : 0.0f;
    for (int d = 0; d < dimensions; d++) {
      sum = __fmaf_rn(row[d], column[d], sum);
    }
    out[(size_t)blockIdx.x * (size_t)width + (size_t)w] = sum;
  }
}

static __global__ void embed_rows(struct cuda_batch batch, const float *tables, int codebooks, int entries,
                                  int width, float *x) {
  int row = (int)blockIdx.x;
  if (row >= batch.extent->rows) {
    return;
  }
  int s = cuda_sequence_of(&batch, row);
  const int32_t *tokens = batch.sequences[s].tokens + (int64_t)(row - batch.offsets[s]) * codebooks;
  float *to = x + (int64_t)row * width;
  if (width % 4 == 0) {
    for (int w = 4 * (int)threadIdx.x; w < width; w += 4 * (int)blockDim.x) {
      float4 sum = make_float4(0, 0, 0, 0);
      for (int c = 0; c < codebooks; c++) {
        const float4 *from =
            (const float4 *)(tables + ((size_t)c * (size_t)entries + (size_t)tokens[c]) * (size_t)width +
                             (size_t)w);
        float4 v = *from;
        sum = make_float4(sum.x + v.x, sum.y + v.y, sum.z + v.z, sum.w + v.w);
      }
      *(float4 *)(to + w) = sum;
    }
  } else {
    for (int w = (int)threadIdx.x; w < width; w += (int)blockDim.x) {
      float sum = 0;
      for (int c = 0; c < codebooks; c++) {
        sum += tables[((size_t)c * (size_t)entries + (size_t)tokens[c]) * (size_t)width + (size_t)w];
      }
      to[w] = sum;
    }
  }
}

void cuda_embedding_free(struct cuda_device *device, struct vamp_weight *weight) {
  struct embedding *e = (struct embedding *)weight;
  if (e) {
    cuda_release(device, e->tables);
    free(e);
  }
}

/* Host arrays to the device, folded there, and taken away again. */
static int fold_tables(struct cuda_device *device, const struct embedding *e, int dimensions,
                       const float *tables, const float *projection, const float *bias) {
  size_t rows = (size_t)e->codebooks * (size_t)e->entries, k = (size_t)e->codebooks * (size_t)dimensions;
  void *from = NULL, *by = NULL, *plus = NULL;
  int status = cuda_upload_new(device, tables, sizeof *tables * rows * (size_t)dimensions, &from);
  if (!status) {
    status = cuda_upload_new(device, projection, sizeof *projection * k * (size_t)e->width, &by);
  }
  if (!status && bias) {
    status = cuda_upload_new(device, bias, sizeof *bias * (size_t)e->width, &plus);
  }
  if (!status) {
    VAMP_LAUNCH(fold, dim3((unsigned)rows), dim3(128), 0, device->stream, (const float *)from,
                (const float *)by, (const float *)plus, e->codebooks, e->entries, dimensions, e->width,
                e->tables);
    status = CUDA_CHECK(cudaGetLastError());
  }
  cuda_release(device, from);
  cuda_release(device, by);
  cuda_release(device, plus);
  return status;
}

int cuda_embedding_create(struct vamp_device *base, int codebooks, int entries, int dimensions, int width,
                          const float *tables, const float *projection, const float *bias,
                          struct vamp_weight **out, struct vamp_error *error) {
  struct cuda_device *device = cuda_device(base);
  struct embedding *e = (struct embedding *)calloc(1, sizeof *e);
  void *memory = NULL;
  int status = VAMP_MEMORY;
  if (e) {
    e->base.kind = CUDA_EMBEDDING;
    e->codebooks = codebooks;
    e->entries = entries;
    e->width = width;
    status =
        cuda_allocate(device, sizeof(float) * (size_t)codebooks * (size_t)entries * (size_t)width, &memory);
    e->tables = (float *)memory;
  }
  if (!status) {
    status = fold_tables(device, e, dimensions, tables, projection, bias);
  }
  if (status) {
    cuda_embedding_free(device, &e->base);
    return vamp_fail(error, status, "loading weights: %s", vamp_device_trouble(status));
  }
  *out = &e->base;
  return 0;
}

int cuda_embed(struct vamp_device *base, const struct vamp_weight *embedding,
               const struct vamp_packing *packing, const struct vamp_sequence *sequences, float *x) {
  struct cuda_device *device = cuda_device(base);
  const struct embedding *e = (const struct embedding *)embedding;
  int64_t rows = cuda_launch_rows(device, packing->offsets[packing->count]);
  struct cuda_batch batch;
  if (rows == 0) {
    return 0;
  }
  int status = cuda_batch_set(device, packing, sequences, &batch);
  if (status) {
    return status;
  }
  int threads = e->width / 4 >= 256 ? 256 : 128;
  VAMP_LAUNCH(embed_rows, dim3((unsigned)rows), dim3((unsigned)threads), 0, device->stream, batch, e->tables,
              e->codebooks, e->entries, e->width, x);
  CUDA_TRY(cudaGetLastError());
  return 0;
}
