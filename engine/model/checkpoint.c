/*
 * From the tensors of a file to the weights of a graph.
 *
 * The graph (codec.c, transformer.c) knows what it needs and how large it is; the file says what it has.
 * This is where the two meet, so that the graph never sees a dtype, a g beside a v, or an adapter, and a
 * wrong file is found out by name here and not by a crash in a kernel.
 *
 * Folding and merging happen at load and not in tools/convert: the folder keeps what was published,
 * tensor by tensor, and can be compared with it. Norms are summed in double, since the largest rows
 * have tens of thousands of elements; an adapter adds r products in float, r being 8.
 *
 * Names that contradict each other (a weight beside its own weight_v, half of an adapter) are errors:
 * whichever was meant, the other half of the users would get wrong music. Names that mean nothing to the
 * graph are ignored and counted.
 */
#include "engine/model/checkpoint.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/model/safetensors.h"

/* A single weight of 2^31 elements would be 8 GiB; vamp/config.h allows none that large. */
#define MAX_ELEMENTS ((int64_t)1 << 31)

struct vamp_checkpoint {
  struct vamp_safetensors *file;
  bool *used; /* [tensors of the file] */
};

int vamp_checkpoint_open(const char *folder, const char *part, struct vamp_checkpoint **checkpoint,
                         struct vamp_error *error) {
  int status = 0;
  char *path = NULL;
  struct vamp_checkpoint *opened = calloc(1, sizeof *opened);
  if (!opened || asprintf(&path, "%s/%s.safetensors", folder, part) < 0) {
    path = NULL;
    goto memory;
  }
  status = vamp_safetensors_open(path, &opened->file, error);
  if (status) {
    goto err;
  }
  opened->used = calloc(vamp_safetensors_count(opened->file) + 1, sizeof *opened->used);
  if (!opened->used) {
    goto memory;
  }
  free(path);
  *checkpoint = opened;
  return 0;
memory:
  status = vamp_fail(error, VAMP_MEMORY, "%s: out of memory", folder);
err:
  free(path);
  vamp_checkpoint_close(opened);
  return status;
}

void vamp_checkpoint_close(struct vamp_checkpoint *checkpoint) {
  if (checkpoint) {
    vamp_safetensors_close(checkpoint->file);
    free(checkpoint->used);
    free(checkpoint);
  }
}

const char *vamp_checkpoint_name(const struct vamp_checkpoint *checkpoint) {
  return vamp_safetensors_name(checkpoint->file);
}

bool vamp_checkpoint_has(const struct vamp_checkpoint *checkpoint, const char *name) {
  return vamp_safetensors_find(checkpoint->file, name) != NULL;
}

size_t vamp_checkpoint_unused(const struct vamp_checkpoint *checkpoint, const char **first) {
  size_t unused = 0;
  if (first) {
    *first = NULL;
  }
  for (size_t i = 0; i < vamp_safetensors_count(checkpoint->file); i++) {
    if (!checkpoint->used[i] && unused++ == 0 && first) {
      *first = vamp_safetensors_tensor(checkpoint->file, i)->name;
    }
  }
  return unused;
}

/* ---- one tensor --------------------------------------------------------------------------------- */

static int significant_rank(int rank, const int64_t *shape) {
  while (rank > 0 && shape[rank - 1] == 1) {
    rank--;
  }
  return rank;
}

static bool same_shape(const struct vamp_tensor *tensor, int rank, const int64_t *shape) {
  int significant = significant_rank(rank, shape);
  return significant_rank(tensor->rank, tensor->shape) == significant &&
         (significant == 0 || memcmp(tensor->shape, shape, (size_t)significant * sizeof *shape) == 0);
}

/* The number of elements of a shape, or -1 where it is none that a weight can have. */
static int64_t count_elements(int rank, const int64_t *shape) {
  int64_t count = 1;
  for (int i = 0; i < rank; i++) {
    if (shape[i] <= 0 || __builtin_mul_overflow(count, shape[i], &count) || count > MAX_ELEMENTS) {
      return -1;
    }
  }
  return count;
}

int vamp_checkpoint_tensor(struct vamp_checkpoint *checkpoint, const char *name, int rank,
                           const int64_t *shape, float **values, struct vamp_error *error) {
  const char *file = vamp_checkpoint_name(checkpoint);
  const struct vamp_tensor *tensor = vamp_safetensors_find(checkpoint->file, name);
  if (!tensor) {
    return vamp_fail(error, VAMP_INVALID, "%s: tensor '%s' is missing: does model.json fit this file?", file,
                     name);
  }
  char expected[96], found[96];
  vamp_shape_text(rank, shape, expected, sizeof expected);
  if (!same_shape(tensor, rank, shape)) {
    return vamp_fail(error, VAMP_INVALID, "%s: tensor '%s': shape is %s, but model.json asks for %s", file,
                     name, vamp_shape_text(tensor->rank, tensor->shape, found, sizeof found), expected);
  }
  int64_t count = count_elements(rank, shape);
  if (count < 0) {
    return vamp_fail(error, VAMP_LIMIT, "%s: tensor '%s': %s is not a size that weights can have", file, name,
                     expected);
  }
  float *out = malloc((size_t)count * sizeof *out);
  if (!out) {
    return vamp_fail(error, VAMP_MEMORY, "%s: tensor '%s': out of memory for %lld values", file, name,
                     (long long)count);
  }
  int status = vamp_tensor_to_float(checkpoint->file, tensor, out, error);
  vamp_safetensors_release(checkpoint->file, tensor);
  if (status) {
    free(out);
    return status;
  }
  checkpoint->used[tensor - vamp_safetensors_tensor(checkpoint->file, 0)] = true;
  *values = out;
  return 0;
}

/* PREFIX.SUFFIX into name, or VAMP_INVALID where it is longer than a tensor's name can be. */
static int join(const struct vamp_checkpoint *checkpoint, const char *prefix, const char *suffix,
                char name[VAMP_SAFETENSORS_MAX_NAME + 1], struct vamp_error *error) {
  int length = snprintf(name, VAMP_SAFETENSORS_MAX_NAME + 1, "%s.%s", prefix, suffix);
  if (length < 0 || length > VAMP_SAFETENSORS_MAX_NAME) {
    return vamp_fail(error, VAMP_INVALID, "%s: tensor '%.100s...': name too long",
                     vamp_checkpoint_name(checkpoint), prefix);
  }
  return 0;
}

/* ---- weight norm -------------------------------------------------------------------------------- */

/* Turns v [rows, width] into g * v / |v| row by row. Returns the first row whose norm is 0, where this
 * is not defined, or -1. */
static int64_t fold(const float *g, float *v, int64_t rows, int64_t width) {
  for (int64_t row = 0; row < rows; row++) {
    float *values = v + row * width;
    double sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t i = 0; i < width; i++) {
      sum += (double)values[i] * values[i];
    }
    if (!(sum > 0)) {
      return row;
    }
    double scale = g[row] / sqrt(sum);
#pragma omp simd
    for (int64_t i = 0; i < width; i++) {
      values[i] = (float)(values[i] * scale);
    }
  }
  return -1;
}

static int load_folded(struct vamp_checkpoint *checkpoint, const char *prefix, int rank, const int64_t *shape,
                       float **weight, struct vamp_error *error) {
  char name_g[VAMP_SAFETENSORS_MAX_NAME + 1], name_v[VAMP_SAFETENSORS_MAX_NAME + 1];
  float *g = NULL, *v = NULL;
  int status = join(checkpoint, prefix, "weight_g", name_g, error);
  if (!status) {
    status = join(checkpoint, prefix, "weight_v", name_v, error);
  }
  if (!status) {
    status = vamp_checkpoint_tensor(checkpoint, name_g, 1, shape, &g, error);
  }
  if (!status) {
    status = vamp_checkpoint_tensor(checkpoint, name_v, rank, shape, &v, error);
  }
  if (status) {
    goto err;
  }
  int64_t dead = fold(g, v, shape[0], count_elements(rank, shape) / shape[0]);
  if (dead >= 0) {
    status =
        vamp_fail(error, VAMP_INVALID, "%s: tensor '%s': row %lld is all zeros, so that it has no direction",
                  vamp_checkpoint_name(checkpoint), name_v, (long long)dead);
    goto err;
  }
  free(g);
  *weight = v;
  return 0;
err:
  free(g);
  free(v);
  return status;
}

/* PREFIX.weight, folded where it comes in two parts. */
static int load_weight(struct vamp_checkpoint *checkpoint, const char *prefix, int rank, const int64_t *shape,
                       float **weight, struct vamp_error *error) {
  char whole[VAMP_SAFETENSORS_MAX_NAME + 1], name_g[VAMP_SAFETENSORS_MAX_NAME + 1];
  char name_v[VAMP_SAFETENSORS_MAX_NAME + 1];
  int status = join(checkpoint, prefix, "weight_g", name_g, error);
  if (!status) {
    status = join(checkpoint, prefix, "weight_v", name_v, error);
  }
  if (!status) {
    status = join(checkpoint, prefix, "weight", whole, error);
  }
  if (status) {
    return status;
  }
  bool parts = vamp_checkpoint_has(checkpoint, name_g) || vamp_checkpoint_has(checkpoint, name_v);
  if (parts && vamp_checkpoint_has(checkpoint, whole)) {
    return vamp_fail(error, VAMP_INVALID,
                     "%s: tensor '%s': is there folded and as weight_g and weight_v; only one "
                     "can be meant",
                     vamp_checkpoint_name(checkpoint), whole);
  }
  return parts ? load_folded(checkpoint, prefix, rank, shape, weight, error)
               : vamp_checkpoint_tensor(checkpoint, whole, rank, shape, weight, error);
}

int vamp_checkpoint_conv_weight(struct vamp_checkpoint *checkpoint, const char *prefix, const int64_t dims[3],
                                float **weight, struct vamp_error *error) {
  return load_weight(checkpoint, prefix, 3, dims, weight, error);
}

/* ---- LoRA --------------------------------------------------------------------------------------- */

/* weight [out, in] += b [out, rank] * a [rank, in] / rank. `row` is room for `in` floats. Returns
 * whether all came out finite. */
static bool add_product(float *weight, const float *a, const float *b, int64_t out, int64_t in, int64_t rank,
                        float *row) {
  float scale = 1.0f / (float)rank;
  bool finite = true;
  for (int64_t o = 0; o < out; o++) {
    memset(row, 0, (size_t)in * sizeof *row);
    for (int64_t r = 0; r < rank; r++) {
      const float *direction = a + r * in;
      float factor = b[o * rank + r];
#pragma omp simd
      for (int64_t i = 0; i < in; i++) {
        row[i] += factor * direction[i];
      }
    }
    float *target = weight + o * in;
    float check = 0;
#pragma omp simd reduction(+ : check)
    for (int64_t i = 0; i < in; i++) {
      target[i] += row[i] * scale;
      check += target[i] * 0.0f; /* 0, or NaN where it is not finite */
    }
    finite = finite && check == 0.0f;
  }
  return finite;
}

static int merge_adapter(struct vamp_checkpoint *checkpoint, const char *name_a, const char *name_b,
                         int64_t out, int64_t in, float *weight, struct vamp_error *error) {
  float *a = NULL, *b = NULL, *row = NULL;
  /* The rank is the adapter's own affair, so its shape is taken from the file; B has to agree. */
  const struct vamp_tensor *tensor = vamp_safetensors_find(checkpoint->file, name_a);
  int64_t rank = tensor && tensor->rank > 0 && tensor->shape[0] > 0 ? tensor->shape[0] : 1;
  int status = vamp_checkpoint_tensor(checkpoint, name_a, 2, (int64_t[]){rank, in}, &a, error);
  if (!status) {
    status = vamp_checkpoint_tensor(checkpoint, name_b, 2, (int64_t[]){out, rank}, &b, error);
  }
  if (status) {
    goto err;
  }
  row = malloc((size_t)in * sizeof *row);
  if (!row) {
    status = vamp_fail(error, VAMP_MEMORY, "%s: out of memory", vamp_checkpoint_name(checkpoint));
    goto err;
  }
  if (!add_product(weight, a, b, out, in, rank, row)) {
    status = vamp_fail(error, VAMP_INVALID, "%s: tensor '%s': merging it makes a weight infinite",
                       vamp_checkpoint_name(checkpoint), name_b);
  }
err:
  free(row);
  free(b);
  free(a);
  return status;
}

int vamp_checkpoint_linear_weight(struct vamp_checkpoint *checkpoint, const char *prefix, int64_t out,
                                  int64_t in, float **weight, struct vamp_error *error) {
  char name_a[VAMP_SAFETENSORS_MAX_NAME + 1], name_b[VAMP_SAFETENSORS_MAX_NAME + 1];
  float *values = NULL;
  int status = join(checkpoint, prefix, "lora_A", name_a, error);
  if (!status) {
    status = join(checkpoint, prefix, "lora_B", name_b, error);
  }
  if (!status) {
    status = load_weight(checkpoint, prefix, 2, (int64_t[]){out, in}, &values, error);
  }
  if (!status && (vamp_checkpoint_has(checkpoint, name_a) || vamp_checkpoint_has(checkpoint, name_b))) {
    status = merge_adapter(checkpoint, name_a, name_b, out, in, values, error);
  }
  if (status) {
    free(values);
    return status;
  }
  *weight = values;
  return 0;
}
