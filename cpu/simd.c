/*
 * See simd.h. Written with the compiler's vector type of sixteen floats, which is one AVX-512 register,
 * two AVX2 or four SSE registers: the same source serves all, and only the attention's bfloat16 dot
 * product is an intrinsic. Ends of rows that do not fill a vector go through a zero-padded copy, so that
 * every element takes the same arithmetic wherever it stands.
 */
#include "cpu/simd.h"

#include <math.h>
#include <string.h>

#include "cpu/simd_attention.h"
#include "cpu/simd_vector.h"

#define NAME2(set) simd_##set
#define NAME(set) NAME2(set)
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

static void k_subtract(const float *x, const float *y, const float *z, size_t count, float *out) {
  for (size_t i = 0; i < count; i++) {
    out[i] = x[i] - y[i] - z[i];
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

static int k_nearest(const float *z, const float *table, const float *offset, int dimensions, int entries) {
  int best = 0;
  float best_dot = -INFINITY;
  for (int j = 0; j < entries; j += LANES) {
    int left = entries - j < LANES ? entries - j : LANES;
    vec sum = -(left == LANES ? load(offset + j) : load_part(offset + j, left));
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
    .subtract = k_subtract,
    .conv_channels = k_conv_channels,
    .attention = k_attention,
    .exp_sum = k_exp_sum,
    .nearest = k_nearest,
    .dot = k_dot,
    .axpy = k_axpy,
};
