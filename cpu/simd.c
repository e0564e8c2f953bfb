/*
 * See simd.h. Written with the compiler's vector type of sixteen floats, which is one AVX-512 register,
 * two AVX2 or four SSE registers: the same source serves all, and only the attention's bfloat16 dot
 * product is an intrinsic. Ends of rows that do not fill a vector go through a zero-padded copy, so that
 * every element takes the same arithmetic wherever it stands.
 */
#include "cpu/simd.h"

#include <math.h>
#include <string.h>

#ifdef __AVX512BF16__
#include <immintrin.h>
#endif

#define NAME2(set) simd_##set
#define NAME(set) NAME2(set)
#define INLINE static inline __attribute__((always_inline))

enum { LANES = 16, PANEL = 64, ROWS = 6 };

typedef float vec __attribute__((vector_size(64)));
typedef int32_t ivec __attribute__((vector_size(64)));
typedef uint32_t uvec __attribute__((vector_size(64)));
typedef uint16_t hvec __attribute__((vector_size(32)));

/* ---- loads, stores, elementary functions -------------------------------------------------------- */

INLINE vec load(const float *p) {
  vec v;
  memcpy(&v, p, sizeof v);
  return v;
}

INLINE void store_f32(float *p, vec v) {
  memcpy(p, &v, sizeof v);
}

INLINE vec load_part(const float *p, int n) {
  float padded[LANES] = {0};
  memcpy(padded, p, sizeof(float) * (size_t)n);
  return load(padded);
}

INLINE vec splat(float x) {
  return x - (vec){0};
}

INLINE float lane_sum(vec v) {
  float s[LANES];
  store_f32(s, v);
  for (int width = LANES / 2; width > 0; width /= 2) {
    for (int i = 0; i < width; i++) {
      s[i] += s[i + width];
    }
  }
  return s[0];
}

/* Round to nearest even; finite values only, which is all a checked model gives. */
INLINE hvec to_bf16(vec v) {
  uvec bits = (uvec)v;
  bits += 0x7fffu + ((bits >> 16) & 1u);
  return __builtin_convertvector(bits >> 16, hvec);
}

INLINE void put(bool bf16, void *out, size_t at, vec v) {
  if (bf16) {
    hvec half = to_bf16(v);
    memcpy((uint16_t *)out + at, &half, sizeof half);
  } else {
    store_f32((float *)out + at, v);
  }
}

INLINE void put_part(bool bf16, void *out, size_t at, vec v, int n) {
  if (bf16) {
    hvec half = to_bf16(v);
    memcpy((uint16_t *)out + at, &half, sizeof(uint16_t) * (size_t)n);
  } else {
    memcpy((float *)out + at, &v, sizeof(float) * (size_t)n);
  }
}

INLINE vec choose(ivec condition, vec yes, vec no) {
  return (vec)((condition & (ivec)yes) | (~condition & (ivec)no));
}

INLINE vec vmax(vec a, vec b) {
  return choose(a > b, a, b);
}

INLINE vec vmin(vec a, vec b) {
  return choose(a < b, a, b);
}

/* To the nearest integer, for |x| < 2^22: adding 1.5 * 2^23 pushes the fraction out. The volatile-free
 * form survives because the flags of this file do not allow reassociation. */
INLINE vec round_near(vec x) {
  const vec magic = splat(12582912.0f);
  return (x + magic) - magic;
}

/* exp(x), relative error below 2e-7 for x in [-87, 88]; clamped outside. Cody-Waite reduction by ln 2,
 * then the Taylor polynomial, economised to degree 6. */
INLINE vec vexp(vec x) {
  x = vmin(vmax(x, splat(-87.0f)), splat(88.0f));
  vec n = round_near(x * splat(1.44269504f));
  vec r = x - n * splat(0.693359375f) - n * splat(-2.12194440e-4f);
  vec p = splat(1.9875691500e-4f);
  p = p * r + splat(1.3981999507e-3f);
  p = p * r + splat(8.3334519073e-3f);
  p = p * r + splat(4.1665795894e-2f);
  p = p * r + splat(1.6666665459e-1f);
  p = p * r + splat(5.0000001201e-1f);
  p = p * r * r + r + splat(1.0f);
  ivec exponent = (__builtin_convertvector(n, ivec) + 127) << 23;
  return p * (vec)exponent;
}

/* sin(x)^2, to 1e-6. Reduced modulo pi, where the square does not see the sign, with pi in two terms: good
 * for |x| up to some thousands, far beyond what snake meets. Then a polynomial in r^2, fitted for the
 * least greatest error over [-pi/2, pi/2]. */
INLINE vec sin_squared(vec x) {
  vec n = round_near(x * splat(0.318309886f));
  vec r = x - n * splat(3.140625f) - n * splat(9.67653589793e-4f);
  vec r2 = r * r;
  vec p = splat(0.000115089831f);
  p = p * r2 + splat(-0.00311458178f);
  p = p * r2 + splat(0.044385798f);
  p = p * r2 + splat(-0.333313529f);
  p = p * r2 + splat(1.0f);
  return p * r2;
}

INLINE vec vsnake(vec x, vec alpha, vec inverse) {
  return x + sin_squared(alpha * x) * inverse;
}

/* ---- element-wise ------------------------------------------------------------------------------- */

static void k_to_act(const float *x, size_t count, bool bf16, void *out) {
  size_t i = 0;
  for (; i + LANES <= count; i += LANES) {
    put(bf16, out, i, load(x + i));
  }
  if (i < count) {
    int n = (int)(count - i);
    put_part(bf16, out, i, load_part(x + i, n), n);
  }
}

static void k_snake(const float *x, int rows, int channels, const float *alpha, const float *inverse,
                    bool bf16, void *out) {
  for (int r = 0; r < rows; r++) {
    size_t at = (size_t)r * (size_t)channels;
    int c = 0;
    for (; c + LANES <= channels; c += LANES) {
      put(bf16, out, at + (size_t)c, vsnake(load(x + at + c), load(alpha + c), load(inverse + c)));
    }
    if (c < channels) {
      int n = channels - c;
      vec v = vsnake(load_part(x + at + c, n), load_part(alpha + c, n), load_part(inverse + c, n));
      put_part(bf16, out, at + (size_t)c, v, n);
    }
  }
}

static void k_snake_channels(float *x, int channels, int length, size_t stride, const float *alpha,
                             const float *inverse) {
  for (int c = 0; c < channels; c++) {
    float *row = x + (size_t)c * stride;
    vec a = splat(alpha[c]), b = splat(inverse[c]);
    int t = 0;
    for (; t + LANES <= length; t += LANES) {
      store_f32(row + t, vsnake(load(row + t), a, b));
    }
    if (t < length) {
      put_part(false, row, (size_t)t, vsnake(load_part(row + t, length - t), a, b), length - t);
    }
  }
}

static void k_rms_norm(const float *x, const float *weight, int rows, int width, bool bf16, void *out) {
  for (int r = 0; r < rows; r++) {
    const float *row = x + (size_t)r * (size_t)width;
    vec sum = splat(0.0f);
    int c = 0;
    for (; c + LANES <= width; c += LANES) {
      vec v = load(row + c);
      sum += v * v;
    }
    if (c < width) {
      vec v = load_part(row + c, width - c);
      sum += v * v;
    }
    vec scale = splat(1.0f / sqrtf(lane_sum(sum) / (float)width + 1e-6f));
    size_t at = (size_t)r * (size_t)width;
    for (c = 0; c + LANES <= width; c += LANES) {
      put(bf16, out, at + (size_t)c, load(weight + c) * (load(row + c) * scale));
    }
    if (c < width) {
      int n = width - c;
      put_part(bf16, out, at + (size_t)c, load_part(weight + c, n) * (load_part(row + c, n) * scale), n);
    }
  }
}

static void k_store(const float *y, int rows, int n, const float *bias, bool bf16, void *out, size_t stride) {
  for (int r = 0; r < rows; r++) {
    const float *row = y + (size_t)r * (size_t)n;
    size_t at = (size_t)r * stride;
    int c = 0;
    for (; c + LANES <= n; c += LANES) {
      vec v = load(row + c);
      put(bf16, out, at + (size_t)c, bias ? v + load(bias + c) : v);
    }
    if (c < n) {
      vec v = load_part(row + c, n - c);
      put_part(bf16, out, at + (size_t)c, bias ? v + load_part(bias + c, n - c) : v, n - c);
    }
  }
}

static void k_add(const float *y, int rows, int n, const float *bias, float *out, size_t stride) {
  for (int r = 0; r < rows; r++) {
    const float *row = y + (size_t)r * (size_t)n;
    float *to = out + (size_t)r * stride;
    for (int c = 0; c < n; c++) {
      to[c] += bias ? row[c] + bias[c] : row[c];
    }
  }
}

/* tanh GELU: 0.5 x (1 + tanh(u)) = x / (1 + exp(-2u)), u = sqrt(2/pi) (x + 0.044715 x^3). */
INLINE vec vgelu(vec x) {
  vec u2 = x * (splat(1.5957691216f) + splat(0.0713548163f) * x * x);
  return x / (splat(1.0f) + vexp(-u2));
}

static void k_gated_gelu(const float *y, int rows, int n, const float *bias, bool bf16, void *out,
                         size_t stride) {
  for (int r = 0; r < rows; r++) {
    const float *value = y + (size_t)r * 2 * (size_t)n, *gate = value + n;
    size_t at = (size_t)r * stride;
    for (int c = 0; c < n; c += LANES) {
      int left = n - c < LANES ? n - c : LANES;
      vec v = left == LANES ? load(value + c) : load_part(value + c, left);
      vec g = left == LANES ? load(gate + c) : load_part(gate + c, left);
      if (bias) {
        v += left == LANES ? load(bias + c) : load_part(bias + c, left);
        g += left == LANES ? load(bias + n + c) : load_part(bias + n + c, left);
      }
      vec result = v * vgelu(g);
      if (left == LANES) {
        put(bf16, out, at + (size_t)c, result);
      } else {
        put_part(bf16, out, at + (size_t)c, result, left);
      }
    }
  }
}

static void k_tanh(float *x, size_t count) {
  for (size_t i = 0; i < count; i += LANES) {
    int left = count - i < LANES ? (int)(count - i) : LANES;
    vec v = load_part(x + i, left);
    /* exp loses the small difference near 0, where tanh x = x (1 - x^2/3 + 2 x^4/15). */
    vec x2 = v * v;
    vec small = v * (splat(1.0f) - x2 * (splat(0.33333333f) - x2 * splat(0.13333333f)));
    vec e = vexp(v * splat(2.0f));
    vec large = splat(1.0f) - splat(2.0f) / (e + splat(1.0f));
    put_part(false, x, i, choose(x2 < splat(0.0025f), small, large), left);
  }
}

static void k_residual(const float *x, const float *y, size_t count, float scale, bool accumulate,
                       float *out) {
  if (accumulate) {
    for (size_t i = 0; i < count; i++) {
      out[i] += scale * (x[i] + y[i]);
    }
  } else {
    for (size_t i = 0; i < count; i++) {
      out[i] = scale * (x[i] + y[i]);
    }
  }
}

/* ---- convolution over few channels: vectors run along time --------------------------------------- */

/* `outs` output channels by `vectors` vectors of positions stay in registers over all taps. */
INLINE void conv_block(const float *in, size_t in_stride, int in_channels, const float *weight,
                       const float *bias, int kernel, int dilation, float *out, size_t out_stride, int length,
                       int outs, int vectors) {
  vec sum[4][4];
  size_t filter = (size_t)in_channels * (size_t)kernel;
  for (int o = 0; o < outs; o++) {
    for (int v = 0; v < vectors; v++) {
      sum[o][v] = splat(bias ? bias[o] : 0.0f);
    }
  }
  for (int c = 0; c < in_channels; c++) {
    for (int j = 0; j < kernel; j++) {
      const float *at = in + (size_t)c * in_stride + (size_t)j * (size_t)dilation;
      const float *w = weight + (size_t)c * (size_t)kernel + j;
      vec x[4];
      for (int v = 0; v < vectors; v++) {
        x[v] = load(at + v * LANES);
      }
      for (int o = 0; o < outs; o++) {
        vec factor = splat(w[(size_t)o * filter]);
        for (int v = 0; v < vectors; v++) {
          sum[o][v] += factor * x[v];
        }
      }
    }
  }
  for (int o = 0; o < outs; o++) {
    for (int v = 0; v < vectors; v++) {
      int left = length - v * LANES;
      if (left >= LANES) {
        store_f32(out + (size_t)o * out_stride + v * LANES, sum[o][v]);
      } else if (left > 0) {
        put_part(false, out + (size_t)o * out_stride, (size_t)(v * LANES), sum[o][v], left);
      }
    }
  }
}

static void k_conv_channels(const float *in, size_t in_stride, int in_channels, const float *weight,
                            const float *bias, int out_channels, int kernel, int dilation, int length,
                            float *out, size_t out_stride) {
  size_t filter = (size_t)in_channels * (size_t)kernel;
  for (int t = 0; t < length; t += PANEL) {
    int o = 0;
    for (; o + 4 <= out_channels; o += 4) {
      conv_block(in + t, in_stride, in_channels, weight + (size_t)o * filter, bias ? bias + o : NULL, kernel,
                 dilation, out + (size_t)o * out_stride + t, out_stride, length - t, 4, 4);
    }
    for (; o < out_channels; o++) {
      conv_block(in + t, in_stride, in_channels, weight + (size_t)o * filter, bias ? bias + o : NULL, kernel,
                 dilation, out + (size_t)o * out_stride + t, out_stride, length - t, 1, 4);
    }
  }
}

/* ---- attention ------------------------------------------------------------------------------------
 *
 * For one head, keys are packed transposed and values as they are into panels of 64 columns, so that
 * both products (queries x keys, weights x values) are the same small kernel: six rows by one panel in
 * 24 registers. Scores of six queries over all keys stay in the first cache; the softmax is exact, in
 * two passes. In bfloat16 panels hold pairs along the summed dimension, as the dot product wants them.
 */

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

/* ---- sampling and quantisation -------------------------------------------------------------------- */

static float k_exp_sum(const float *logits, int count, float scale, float *p) {
  float most = logits[0];
  for (int i = 1; i < count; i++) {
    most = logits[i] > most ? logits[i] : most;
  }
  vec sum = splat(0.0f);
  for (int i = 0; i < count; i += LANES) {
    int left = count - i < LANES ? count - i : LANES;
    vec v = left == LANES ? load(logits + i) : load_part(logits + i, left);
    vec e = vexp((v - splat(most)) * splat(scale));
    if (left == LANES) {
      store_f32(p + i, e);
    } else {
      for (int l = left; l < LANES; l++) {
        e[l] = 0.0f;
      }
      put_part(false, p, (size_t)i, e, left);
    }
    sum += e;
  }
  return lane_sum(sum);
}

static int k_nearest(const float *z, const float *table, int dimensions, int entries) {
  int best = 0;
  float best_dot = -INFINITY;
  for (int j = 0; j < entries; j += LANES) {
    int left = entries - j < LANES ? entries - j : LANES;
    vec sum = splat(0.0f);
    for (int d = 0; d < dimensions; d++) {
      const float *row = table + (size_t)d * (size_t)entries + j;
      sum += splat(z[d]) * (left == LANES ? load(row) : load_part(row, left));
    }
    float lanes[LANES];
    store_f32(lanes, sum);
    for (int l = 0; l < left; l++) {
      if (lanes[l] > best_dot) {
        best_dot = lanes[l];
        best = j + l;
      }
    }
  }
  return best;
}

static float k_dot(const float *a, const float *b, int count) {
  vec sum = splat(0.0f);
  for (int i = 0; i < count; i += LANES) {
    int left = count - i < LANES ? count - i : LANES;
    sum += left == LANES ? load(a + i) * load(b + i) : load_part(a + i, left) * load_part(b + i, left);
  }
  return lane_sum(sum);
}

static void k_axpy(float a, const float *x, int count, float *y) {
  for (int i = 0; i < count; i++) {
    y[i] += a * x[i];
  }
}

#define STRING2(x) #x
#define STRING(x) STRING2(x)

const struct simd NAME(VAMP_SIMD_SET) = {
    .name = STRING(VAMP_SIMD_SET),
#ifdef __AVX512BF16__
    .bf16_dot = true,
#endif
    .to_act = k_to_act,
    .snake = k_snake,
    .snake_channels = k_snake_channels,
    .rms_norm = k_rms_norm,
    .store = k_store,
    .add = k_add,
    .gated_gelu = k_gated_gelu,
    .tanh = k_tanh,
    .residual = k_residual,
    .conv_channels = k_conv_channels,
    .attention = k_attention,
    .exp_sum = k_exp_sum,
    .nearest = k_nearest,
    .dot = k_dot,
    .axpy = k_axpy,
};
