/* Training kernels for the codec on a CPU, fp32: the snake activation and stride-1 "same" convolutions of few
 * channels, forwards and backwards. The codec's signals at audio rate have 4 to 32 channels; a general
 * library pads those to its block size and takes several passes over memory for the activation, and training
 * then spends most of its time there. fast.py compiles this file and calls it; without a compiler everything
 * works, only slower.
 *
 * Signals are [B, channels, n] with n a multiple of 16; weights [O, C, K]; O is a multiple of 4. */
#include <stdlib.h>
#include <string.h>

#define LANES 16
#define TILE 4     /* vectors of samples that are computed together */
#define CHUNK 2048 /* samples a thread takes at a time */

typedef float vec __attribute__((vector_size(4 * LANES), aligned(4)));

static inline vec splat(float f) {
  return f - (vec){0};
}

/* sin(pi t): reduced to half a turn either way, then a polynomial. No branches, so that the compiler
 * vectorises it. */
static inline float sin_pi(float t) {
  float k = __builtin_rintf(t), r = t - k, s = r * r, p = 0.0821458866f;
  p = p * s - 0.599264529f;
  p = p * s + 2.55016404f;
  p = p * s - 5.16771278f;
  p = (p * s + 3.14159265f) * r;
  return (int)k & 1 ? -p : p;
}

#define INV_PI 0.318309886f

void snake_forward(const float *x, const float *alpha, float *y, long batch, long channels, long n) {
#pragma omp parallel for
  for (long row = 0; row < batch * channels; row++) {
    float a = alpha[row % channels], scale = 1 / (a + 1e-9f), turn = a * INV_PI;
    for (long i = row * n; i < (row + 1) * n; i++) {
      float s = sin_pi(x[i] * turn);
      y[i] = x[i] + s * s * scale;
    }
  }
}

/* d/dx = 1 + sin(2ax); d/da = x sin(2ax)/a - sin(ax)^2/a^2, summed over samples into dalpha [B, channels]. */
void snake_backward(const float *x, const float *alpha, const float *gradient, float *dx, float *dalpha,
                    long batch, long channels, long n) {
#pragma omp parallel for
  for (long row = 0; row < batch * channels; row++) {
    float a = alpha[row % channels], scale = 1 / (a + 1e-9f), turn = 2 * a * INV_PI, sum1 = 0, sum2 = 0;
    for (long i = row * n; i < (row + 1) * n; i++) {
      float v = x[i], g = gradient[i], t = v * turn, sin2 = sin_pi(t), s = sin_pi(0.5f * t);
      dx[i] = g + g * sin2 * a * scale;
      sum1 += g * v * sin2;
      sum2 += g * s * s;
    }
    dalpha[row] = sum1 * scale - sum2 * scale * scale;
  }
}

/* Copy samples [start - pad, start + count + pad) of every channel of x [C, n] to out [C, stride], zeros
 * outside. */
static void gather(const float *x, float *out, long channels, long n, long start, long count, long pad,
                   long stride) {
  for (long c = 0; c < channels; c++)
    for (long i = -pad; i < count + pad;) {
      long at = start + i, run;
      float *to = out + c * stride + pad + i;
      if (at < 0) {
        run = -at < count + pad - i ? -at : count + pad - i;
        memset(to, 0, run * sizeof *to);
      } else if (at >= n) {
        run = count + pad - i;
        memset(to, 0, run * sizeof *to);
      } else {
        run = n - at < count + pad - i ? n - at : count + pad - i;
        memcpy(to, x + c * n + at, run * sizeof *to);
      }
      i += run;
    }
}

static long least(long a, long b) {
  return a < b ? a : b;
}

/* y[b][o][i] = bias[o] + sum over c, k of w[o][c][k] x[b][c][i + k d - p]. packed: [O/4][C][K][4]. bias may
 * be NULL. */
void conv_forward(const float *x, const float *packed, const float *bias, float *y, long batch, long C,
                  long O, long K, long dilation, long n) {
  long pad = (K - 1) * dilation / 2, stride = CHUNK + 2 * pad, chunks = (n + CHUNK - 1) / CHUNK;
#pragma omp parallel
  {
    float *in = aligned_alloc(64, (C * stride * sizeof *in + 63) / 64 * 64);
#pragma omp for
    for (long job = 0; job < batch * chunks; job++) {
      long b = job / chunks, start = job % chunks * CHUNK, count = least(CHUNK, n - start);
      gather(x + b * C * n, in, C, n, start, count, pad, stride);
      for (long o = 0; o < O; o += 4)
        for (long i = 0; i < count; i += TILE * LANES) {
          long vectors = least(TILE, (count - i) / LANES);
          const float *w = packed + o * C * K;
          vec sum[4][TILE];
          for (int j = 0; j < 4; j++)
            for (int t = 0; t < TILE; t++)
              sum[j][t] = splat(bias ? bias[o + j] : 0);
          if (vectors == TILE)
            for (long c = 0; c < C; c++)
              for (long k = 0; k < K; k++, w += 4) {
                const float *from = in + c * stride + i + k * dilation;
#pragma GCC unroll 4
                for (int t = 0; t < TILE; t++) {
                  vec v = *(const vec *)(from + t * LANES);
#pragma GCC unroll 4
                  for (int j = 0; j < 4; j++)
                    sum[j][t] += w[j] * v;
                }
              }
          else
            for (long c = 0; c < C; c++)
              for (long k = 0; k < K; k++, w += 4)
                for (long t = 0; t < vectors; t++)
                  for (int j = 0; j < 4; j++)
                    sum[j][t] += w[j] * *(const vec *)(in + c * stride + i + k * dilation + t * LANES);
          for (int j = 0; j < 4; j++)
            for (long t = 0; t < vectors; t++)
              *(vec *)(y + (b * O + o + j) * n + start + i + t * LANES) = sum[j][t];
        }
    }
    free(in);
  }
}

static float total(vec v) {
  float sum = 0;
  for (int i = 0; i < LANES; i++)
    sum += v[i];
  return sum;
}

/* One pair of output channels against one input channel: dw[0..1][k] += sum over i of g[i] x[i + k d]. K is
 * constant so that the sums stay in registers. */
#define WEIGHT_GRADIENT(K)                                                                                   \
  static void weight_gradient_##K(const float *x, const float *g0, const float *g1, long count,              \
                                  long dilation, float *dw0, float *dw1) {                                   \
    vec s0[K], s1[K];                                                                                        \
    for (int k = 0; k < K; k++)                                                                              \
      s0[k] = s1[k] = splat(0);                                                                              \
    for (long i = 0; i < count; i += LANES) {                                                                \
      vec a = *(const vec *)(g0 + i), b = *(const vec *)(g1 + i);                                            \
      _Pragma("GCC unroll 11") for (int k = 0; k < K; k++) {                                                 \
        vec v = *(const vec *)(x + i + k * dilation);                                                        \
        s0[k] += a * v;                                                                                      \
        s1[k] += b * v;                                                                                      \
      }                                                                                                      \
    }                                                                                                        \
    for (int k = 0; k < K; k++) {                                                                            \
      dw0[k] += total(s0[k]);                                                                                \
      dw1[k] += total(s1[k]);                                                                                \
    }                                                                                                        \
  }
WEIGHT_GRADIENT(1)
WEIGHT_GRADIENT(3)
WEIGHT_GRADIENT(7)
WEIGHT_GRADIENT(11)

/* dw [O, C, K] and dbias [O], both summed into what is there. */
void conv_weight_backward(const float *x, const float *gradient, float *dw, float *dbias, long batch, long C,
                          long O, long K, long dilation, long n) {
  long pad = (K - 1) * dilation / 2, stride = CHUNK + 2 * pad, chunks = (n + CHUNK - 1) / CHUNK;
#pragma omp parallel
  {
    float *in = aligned_alloc(64, (C * stride * sizeof *in + 63) / 64 * 64);
    float *mine = calloc(O * C * K + O, sizeof *mine);
#pragma omp for
    for (long job = 0; job < batch * chunks; job++) {
      long b = job / chunks, start = job % chunks * CHUNK, count = least(CHUNK, n - start);
      gather(x + b * C * n, in, C, n, start, count, pad, stride);
      for (long o = 0; o < O; o += 2) {
        const float *g0 = gradient + (b * O + o) * n + start, *g1 = g0 + n;
        float sum0 = 0, sum1 = 0;
        for (long c = 0; c < C; c++) {
          float *dw0 = mine + (o * C + c) * K, *dw1 = dw0 + C * K;
          const float *from = in + c * stride;
          switch (K) {
          case 1:
            weight_gradient_1(from, g0, g1, count, dilation, dw0, dw1);
            break;
          case 3:
            weight_gradient_3(from, g0, g1, count, dilation, dw0, dw1);
            break;
          case 7:
            weight_gradient_7(from, g0, g1, count, dilation, dw0, dw1);
            break;
          case 11:
            weight_gradient_11(from, g0, g1, count, dilation, dw0, dw1);
            break;
          }
        }
        for (long i = 0; i < count; i++) {
          sum0 += g0[i];
          sum1 += g1[i];
        }
        mine[O * C * K + o] += sum0;
        mine[O * C * K + o + 1] += sum1;
      }
    }
#pragma omp critical
    {
      for (long i = 0; i < O * C * K; i++)
        dw[i] += mine[i];
      for (long o = 0; o < O; o++)
        dbias[o] += mine[O * C * K + o];
    }
    free(mine);
    free(in);
  }
}
