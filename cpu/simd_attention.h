/*
 * Attention for one head of one sequence. Included by simd.c alone.
 *
 * Keys are packed transposed and values as they are into panels of 64 columns, so that both products
 * (queries x keys, weights x values) are the same small kernel: six rows by one panel in 24 registers.
 * Scores of six queries over all keys stay in the first cache; the softmax is exact, in two passes. In
 * bfloat16 panels hold pairs along the summed dimension, as the dot product wants them.
 */
#ifndef CPU_SIMD_ATTENTION_H
#define CPU_SIMD_ATTENTION_H

#include "cpu/simd.h"
#include "cpu/simd_vector.h"

enum { PANEL = 64, ROWS = 6 };

/* c [rows][PANEL] = a [ROWS][depth] * b [depth][PANEL] */
INLINE void tile_f32(const float *const a[ROWS], const float *b, int depth, float *c, size_t stride) {
  vec sum[ROWS][4];
  for (int r = 0; r < ROWS; r++) {
    for (int v = 0; v < 4; v++) {
      sum[r][v] = splat(0.0f);
    }
  }
  for (int k = 0; k < depth; k++) {
    vec x[4];
    for (int v = 0; v < 4; v++) {
      x[v] = load(b + (size_t)k * PANEL + v * LANES);
    }
    for (int r = 0; r < ROWS; r++) {
      vec factor = splat(a[r][k]);
      for (int v = 0; v < 4; v++) {
        sum[r][v] += factor * x[v];
      }
    }
  }
  for (int r = 0; r < ROWS; r++) {
    for (int v = 0; v < 4; v++) {
      store_f32(c + (size_t)r * stride + v * LANES, sum[r][v]);
    }
  }
}

#ifdef __AVX512BF16__
/* b [depth/2][PANEL][2], a rows of pairs; depth even. */
INLINE void tile_bf16(const uint16_t *const a[ROWS], const uint16_t *b, int depth, float *c, size_t stride) {
  __m512 sum[ROWS][4];
  for (int r = 0; r < ROWS; r++) {
    for (int v = 0; v < 4; v++) {
      sum[r][v] = _mm512_setzero_ps();
    }
  }
  for (int k = 0; k < depth; k += 2) {
    __m512bh x[4];
    for (int v = 0; v < 4; v++) {
      x[v] = (__m512bh)_mm512_loadu_si512(b + (size_t)k * PANEL + (size_t)v * 2 * LANES);
    }
    for (int r = 0; r < ROWS; r++) {
      int32_t pair;
      memcpy(&pair, a[r] + k, sizeof pair);
      __m512bh factor = (__m512bh)_mm512_set1_epi32(pair);
      for (int v = 0; v < 4; v++) {
        sum[r][v] = _mm512_dpbf16_ps(sum[r][v], factor, x[v]);
      }
    }
  }
  for (int r = 0; r < ROWS; r++) {
    for (int v = 0; v < 4; v++) {
      _mm512_storeu_ps(c + (size_t)r * stride + v * LANES, sum[r][v]);
    }
  }
}
#endif

static int round_up(int n, int to) {
  return (n + to - 1) / to * to;
}

INLINE float act_at(bool bf16, const void *p, size_t at) {
  if (!bf16) {
    return ((const float *)p)[at];
  }
  uint32_t bits = (uint32_t)((const uint16_t *)p)[at] << 16;
  float x;
  memcpy(&x, &bits, sizeof x);
  return x;
}

/* scores [ROWS][padded] -> exp(score * scale + bias - max); inverse sums. Bias of query i at key j is
 * bias[j - i + frames - 1]. */
INLINE void softmax_rows(float *scores, size_t padded, int frames, int query, float scale, const float *bias,
                         float *inverse) {
  for (int r = 0; r < ROWS; r++) {
    float *row = scores + (size_t)r * padded;
    int i = query + r < frames ? query + r : frames - 1;
    const float *b = bias + (frames - 1 - i);
    vec best = splat(-INFINITY), factor = splat(scale);
    int j = 0;
    for (; j + LANES <= frames; j += LANES) {
      vec s = load(row + j) * factor + load(b + j);
      store_f32(row + j, s);
      best = vmax(best, s);
    }
    if (j < frames) {
      int n = frames - j;
      vec s = load_part(row + j, n) * factor + load_part(b + j, n);
      for (int l = 0; l < LANES; l++) {
        s[l] = l < n ? s[l] : -INFINITY;
      }
      store_f32(row + j, s);
      best = vmax(best, s);
    }
    float lanes[LANES], most = -INFINITY;
    store_f32(lanes, best);
    for (int l = 0; l < LANES; l++) {
      most = lanes[l] > most ? lanes[l] : most;
    }
    vec sum = splat(0.0f), shift = splat(most);
    for (j = 0; j < frames; j += LANES) {
      vec s = load(row + j);
      vec e = choose(s > splat(-INFINITY), vexp(s - shift), splat(0.0f));
      store_f32(row + j, e);
      sum += e;
    }
    for (size_t rest = (size_t)j; rest < padded; rest += LANES) {
      store_f32(row + rest, splat(0.0f));
    }
    inverse[r] = 1.0f / lane_sum(sum);
  }
}

static void write_rows(const struct simd_attention *a, int query, int panel, const float *product,
                       const float *inverse) {
  int width = a->head_size - panel * PANEL < PANEL ? a->head_size - panel * PANEL : PANEL;
  for (int r = 0; r < ROWS && query + r < a->frames; r++) {
    size_t at = (size_t)(query + r) * a->out_row + (size_t)panel * PANEL;
    for (int d = 0; d < width; d += LANES) {
      vec v = load(product + r * PANEL + d) * splat(inverse[r]);
      if (width - d >= LANES) {
        put(a->bf16, a->out, at + (size_t)d, v);
      } else {
        put_part(a->bf16, a->out, at + (size_t)d, v, width - d);
      }
    }
  }
}

static void attention_f32(const struct simd_attention *a) {
  int padded = round_up(a->frames, PANEL), depth = a->head_size;
  int panels = padded / PANEL, value_panels = round_up(depth, PANEL) / PANEL;
  float *keys = a->scratch;                                                /* [panels][depth][PANEL] */
  float *values = keys + (size_t)padded * (size_t)depth;                   /* [value_panels][padded][PANEL] */
  float *queries = values + (size_t)value_panels * PANEL * (size_t)padded; /* [ROWS][depth] */
  float *scores = queries + (size_t)ROWS * (size_t)round_up(depth, LANES); /* [ROWS][padded] */
  float product[ROWS * PANEL], inverse[ROWS];
  float scale = 1.0f / sqrtf((float)depth);
  for (int j = 0; j < padded; j++) {
    float *panel = keys + (size_t)(j / PANEL) * (size_t)depth * PANEL + j % PANEL;
    for (int d = 0; d < depth; d++) {
      panel[(size_t)d * PANEL] = j < a->frames ? act_at(a->bf16, a->k, (size_t)j * a->row + (size_t)d) : 0.0f;
    }
    for (int d = 0; d < value_panels * PANEL; d++) {
      values[((size_t)(d / PANEL) * (size_t)padded + (size_t)j) * PANEL + (size_t)(d % PANEL)] =
          j < a->frames && d < depth ? act_at(a->bf16, a->v, (size_t)j * a->row + (size_t)d) : 0.0f;
    }
  }
  for (int query = 0; query < a->frames; query += ROWS) {
    const float *rows[ROWS];
    for (int r = 0; r < ROWS; r++) {
      int i = query + r < a->frames ? query + r : a->frames - 1;
      for (int d = 0; d < depth; d++) {
        queries[r * depth + d] = act_at(a->bf16, a->q, (size_t)i * a->row + (size_t)d);
      }
      rows[r] = queries + (size_t)r * (size_t)depth;
    }
    for (int p = 0; p < panels; p++) {
      tile_f32(rows, keys + (size_t)p * (size_t)depth * PANEL, depth, scores + (size_t)p * PANEL,
               (size_t)padded);
    }
    softmax_rows(scores, (size_t)padded, a->frames, query, scale, a->bias, inverse);
    for (int r = 0; r < ROWS; r++) {
      rows[r] = scores + (size_t)r * (size_t)padded;
    }
    for (int p = 0; p < value_panels; p++) {
      tile_f32(rows, values + (size_t)p * (size_t)padded * PANEL, a->frames, product, PANEL);
      write_rows(a, query, p, product, inverse);
    }
  }
}

#ifdef __AVX512BF16__
/* Keys as pairs, transposed: [panels][depth/2][PANEL] pairs. Values as pairs of frames:
 * [value_panels][padded/2][PANEL] pairs. Beyond the last frame and channel there are zeros. */
static void pack_bf16(const struct simd_attention *a, int padded, int depth, int value_panels, uint32_t *keys,
                      uint32_t *values) {
  const uint16_t *k = a->k, *v = a->v;
  int pairs = depth / 2, whole = a->head_size / 2;
  memset(keys, 0, sizeof *keys * (size_t)padded * (size_t)pairs);
  for (int j = 0; j < a->frames; j++) {
    uint32_t *panel = keys + (size_t)(j / PANEL) * (size_t)pairs * PANEL + j % PANEL;
    const uint16_t *row = k + (size_t)j * a->row;
    for (int d = 0; d < whole; d++) {
      memcpy(panel + (size_t)d * PANEL, row + 2 * d, sizeof *panel);
    }
    if (a->head_size % 2) {
      panel[(size_t)whole * PANEL] = row[2 * whole];
    }
  }
  memset(values, 0, sizeof *values * (size_t)value_panels * (size_t)(padded / 2) * PANEL);
  for (int j = 0; j < a->frames; j += 2) {
    const uint16_t *even = v + (size_t)j * a->row, *odd = even + a->row;
    for (int p = 0; p < value_panels; p++) {
      uint32_t *to = values + ((size_t)p * (size_t)(padded / 2) + (size_t)(j / 2)) * PANEL;
      int width = a->head_size - p * PANEL < PANEL ? a->head_size - p * PANEL : PANEL;
      if (j + 1 < a->frames) {
        for (int d = 0; d < width; d++) {
          to[d] = (uint32_t)even[p * PANEL + d] | (uint32_t)odd[p * PANEL + d] << 16;
        }
      } else {
        for (int d = 0; d < width; d++) {
          to[d] = even[p * PANEL + d];
        }
      }
    }
  }
}

/* As softmax_rows, in base 2, straight to bfloat16: what enters the second product has 8 bits, so a
 * polynomial of degree 4 (relative error 4e-6) is plenty. scale and bias carry the factor log2(e). The
 * sum is of the rounded weights, so that they add up to one. */
INLINE void softmax_rows_bf16(float *scores, uint16_t *weights, size_t padded, int frames, int query,
                              float scale, const float *bias, float *inverse) {
  __mmask16 tail = (__mmask16)(frames % LANES ? (1u << (frames % LANES)) - 1 : 0xffff);
  int last = (frames - 1) / LANES * LANES;
  for (int r = 0; r < ROWS; r++) {
    float *row = scores + (size_t)r * padded;
    uint16_t *out = weights + (size_t)r * padded;
    int i = query + r < frames ? query + r : frames - 1;
    const float *b = bias + (frames - 1 - i);
    __m512 factor = _mm512_set1_ps(scale), best = _mm512_set1_ps(-INFINITY);
    for (int j = 0; j <= last; j += LANES) {
      __mmask16 lanes = j == last ? tail : 0xffff;
      __m512 s = _mm512_fmadd_ps(_mm512_loadu_ps(row + j), factor, _mm512_maskz_loadu_ps(lanes, b + j));
      s = _mm512_mask_blend_ps(lanes, _mm512_set1_ps(-INFINITY), s);
      _mm512_storeu_ps(row + j, s);
      best = _mm512_max_ps(best, s);
    }
    __m512 most = _mm512_set1_ps(_mm512_reduce_max_ps(best)), sum = _mm512_setzero_ps();
    for (int j = 0; j <= last; j += LANES) {
      __m512 x = _mm512_max_ps(_mm512_sub_ps(_mm512_loadu_ps(row + j), most), _mm512_set1_ps(-126.0f));
      __m512 n = _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
      __m512 f = _mm512_sub_ps(x, n);
      __m512 p = _mm512_set1_ps(9.6181291e-3f);
      p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(5.5504109e-2f));
      p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(2.4022651e-1f));
      p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(6.9314718e-1f));
      p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(1.0f));
      __m256bh rounded = _mm512_cvtneps_pbh(_mm512_maskz_scalef_ps(j == last ? tail : 0xffff, p, n));
      _mm256_storeu_si256((__m256i *)(void *)(out + j), (__m256i)rounded);
      sum = _mm512_add_ps(sum, (__m512)_mm512_slli_epi32(_mm512_cvtepu16_epi32((__m256i)rounded), 16));
    }
    for (size_t rest = (size_t)last + LANES; rest < padded; rest += LANES) {
      _mm256_storeu_si256((__m256i *)(void *)(out + rest), _mm256_setzero_si256());
    }
    inverse[r] = 1.0f / lane_sum((vec)sum);
  }
}

static void attention_bf16(const struct simd_attention *a) {
  int padded = round_up(a->frames, PANEL), depth = round_up(a->head_size, 2);
  int panels = padded / PANEL, value_panels = round_up(a->head_size, PANEL) / PANEL;
  size_t span = 2 * (size_t)a->frames - 1;
  uint32_t *keys = a->scratch;
  uint32_t *values = keys + (size_t)padded * (size_t)(depth / 2);
  uint16_t *queries = (uint16_t *)(values + (size_t)value_panels * PANEL * (size_t)(padded / 2));
  uint16_t *weights = queries + (size_t)ROWS * (size_t)round_up(depth, 2 * LANES); /* [ROWS][padded] */
  float *scores = (float *)(void *)(weights + (size_t)ROWS * (size_t)padded);      /* [ROWS][padded] */
  float *bias = scores + (size_t)ROWS * (size_t)padded;                            /* [span] */
  const uint16_t *q = a->q;
  float product[ROWS * PANEL], inverse[ROWS];
  const float log2e = 1.44269504f, scale = log2e / sqrtf((float)a->head_size);
  pack_bf16(a, padded, depth, value_panels, keys, values);
  for (size_t i = 0; i < span; i++) {
    bias[i] = a->bias[i] * log2e;
  }
  for (int query = 0; query < a->frames; query += ROWS) {
    const uint16_t *rows[ROWS];
    for (int r = 0; r < ROWS; r++) {
      int i = query + r < a->frames ? query + r : a->frames - 1;
      rows[r] = q + (size_t)i * a->row;
      if (depth > a->head_size) {
        uint16_t *padded_row = queries + (size_t)r * (size_t)depth;
        memcpy(padded_row, rows[r], sizeof *q * (size_t)a->head_size);
        padded_row[a->head_size] = 0;
        rows[r] = padded_row;
      }
    }
    for (int p = 0; p < panels; p++) {
      tile_bf16(rows, (const uint16_t *)(keys + (size_t)p * (size_t)(depth / 2) * PANEL), depth,
                scores + (size_t)p * PANEL, (size_t)padded);
    }
    softmax_rows_bf16(scores, weights, (size_t)padded, a->frames, query, scale, bias, inverse);
    for (int r = 0; r < ROWS; r++) {
      rows[r] = weights + (size_t)r * (size_t)padded;
    }
    for (int p = 0; p < value_panels; p++) {
      tile_bf16(rows, (const uint16_t *)(values + (size_t)p * (size_t)(padded / 2) * PANEL),
                round_up(a->frames, 2), product, PANEL);
      write_rows(a, query, p, product, inverse);
    }
  }
}
#endif

static void k_attention(const struct simd_attention *a) {
#ifdef __AVX512BF16__
  if (a->bf16) {
    attention_bf16(a);
    return;
  }
#endif
  attention_f32(a);
}

#endif
