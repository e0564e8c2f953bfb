/*
 * A Fourier transform: radix 2, in double precision, of a real signal.
 *
 * Why not a library? FFTW is GPL and this program is not. KISS FFT is free enough, and would do; it is
 * also a shared library whose precision (float, double, fixed) and vectorisation are the packager's
 * choice, so that the last bits of a spectrum, and with them now and then a mask, would change with the
 * distribution. What is needed here is one power-of-two size at a time, a hundred times a second of
 * audio: the sixty lines below. The clip's transform is far below a hundredth of what generating costs.
 *
 * The real signal is folded into a complex one of half the size, z[n] = x[2n] + i x[2n+1]; with Z its
 * transform, the even samples' is (Z[k] + conj Z[-k]) / 2, the odd ones' (Z[k] - conj Z[-k]) / 2i, and
 * X[k] = even[k] + exp(-2 pi i k / size) odd[k].
 */
#include "engine/spectrum/spectrum.h"

#include <math.h>
#include <stdlib.h>

#define PI 3.14159265358979323846

static int *make_reversed(int count) {
  int *reversed = calloc((size_t)count, sizeof *reversed);
  for (int i = 1; reversed && i < count; i++) {
    reversed[i] = reversed[i / 2] / 2 + (i & 1) * count / 2;
  }
  return reversed;
}

static void fill_tables(struct vamp_spectrum *spectrum) {
  int size = spectrum->size, half = size / 2;
  for (int i = 0; i < size; i++) {
    /* The window's sum is size / 2, and a sine's power splits between two bins. */
    spectrum->window[i] = (1 - cos(2 * PI * i / size)) * 2 / size;
  }
  for (int k = 0; k < half; k++) {
    spectrum->cosine[k] = cos(2 * PI * k / size);
    spectrum->sine[k] = sin(2 * PI * k / size);
  }
  for (int span = 1; span < half; span *= 2) {
    int stride = half / span;
    for (int k = 0; k < span; k++) {
      spectrum->stage_cosine[span + k] = spectrum->cosine[k * stride];
      spectrum->stage_sine[span + k] = spectrum->sine[k * stride];
    }
  }
}

int vamp_spectrum_open(struct vamp_spectrum *spectrum, int size, struct vamp_error *error) {
  size_t count = (size_t)size, half = count / 2;
  *spectrum = (struct vamp_spectrum){.size = size, .memory = calloc(count + 6 * half, sizeof(double))};
  spectrum->reversed = make_reversed(size / 2);
  if (!spectrum->memory || !spectrum->reversed) {
    vamp_spectrum_close(spectrum);
    return vamp_fail(error, VAMP_MEMORY, "out of memory for listening to the clip.");
  }
  spectrum->window = spectrum->memory;
  spectrum->cosine = spectrum->window + count;
  spectrum->sine = spectrum->cosine + half;
  spectrum->stage_cosine = spectrum->sine + half;
  spectrum->stage_sine = spectrum->stage_cosine + half;
  spectrum->real = spectrum->stage_sine + half;
  spectrum->imaginary = spectrum->real + half;
  fill_tables(spectrum);
  return 0;
}

void vamp_spectrum_close(struct vamp_spectrum *spectrum) {
  free(spectrum->memory);
  free(spectrum->reversed);
  *spectrum = (struct vamp_spectrum){0};
}

/* One stage: pairs of elements `span` apart. The cosines and sines stand in the order in which they are used,
 * so that the compiler can take several at a time. */
static void one_stage(const struct vamp_spectrum *spectrum, int span) {
  const double *restrict c = spectrum->stage_cosine + span, *restrict s = spectrum->stage_sine + span;
  for (int start = 0; start < spectrum->size / 2; start += 2 * span) {
    double *restrict ar = spectrum->real + start, *restrict ai = spectrum->imaginary + start;
    double *restrict br = ar + span, *restrict bi = ai + span;
#pragma omp simd
    for (int k = 0; k < span; k++) {
      double tr = br[k] * c[k] + bi[k] * s[k], ti = bi[k] * c[k] - br[k] * s[k];
      br[k] = ar[k] - tr;
      bi[k] = ai[k] - ti;
      ar[k] += tr;
      ai[k] += ti;
    }
  }
}

/* The first two stages at once; their cosines and sines are 0 and 1. */
static void first_stages(double *restrict real, double *restrict imaginary, int count) {
  for (int i = 0; i < count; i += 4) {
    double *r = real + i, *m = imaginary + i;
    double sum_real = r[0] + r[1], difference_real = r[0] - r[1];
    double sum_imaginary = m[0] + m[1], difference_imaginary = m[0] - m[1];
    double other_sum_real = r[2] + r[3], other_difference_real = r[2] - r[3];
    double other_sum_imaginary = m[2] + m[3], other_difference_imaginary = m[2] - m[3];
    r[0] = sum_real + other_sum_real;
    r[2] = sum_real - other_sum_real;
    m[0] = sum_imaginary + other_sum_imaginary;
    m[2] = sum_imaginary - other_sum_imaginary;
    r[1] = difference_real + other_difference_imaginary;
    r[3] = difference_real - other_difference_imaginary;
    m[1] = difference_imaginary - other_difference_real;
    m[3] = difference_imaginary + other_difference_real;
  }
}

/* Two stages at once, of spans `span` and 2 * span: the same sums as one after the other, with half the ways
 * to memory. */
static void two_stages(const struct vamp_spectrum *spectrum, int span) {
  const double *restrict c1 = spectrum->stage_cosine + span, *restrict s1 = spectrum->stage_sine + span;
  const double *restrict c2 = c1 + span, *restrict s2 = s1 + span; /* of the first half of the next stage */
  const double *restrict c3 = c2 + span, *restrict s3 = s2 + span; /* of its second half */
  for (int start = 0; start < spectrum->size / 2; start += 4 * span) {
    double *restrict ar = spectrum->real + start, *restrict ai = spectrum->imaginary + start;
    double *restrict br = ar + span, *restrict bi = ai + span;
    double *restrict cr = br + span, *restrict ci = bi + span;
    double *restrict dr = cr + span, *restrict di = ci + span;
#pragma omp simd
    for (int k = 0; k < span; k++) {
      double tr = br[k] * c1[k] + bi[k] * s1[k], ti = bi[k] * c1[k] - br[k] * s1[k];
      double ur = dr[k] * c1[k] + di[k] * s1[k], ui = di[k] * c1[k] - dr[k] * s1[k];
      double a1r = ar[k] + tr, a1i = ai[k] + ti, b1r = ar[k] - tr, b1i = ai[k] - ti;
      double e1r = cr[k] + ur, e1i = ci[k] + ui, d1r = cr[k] - ur, d1i = ci[k] - ui;
      double vr = e1r * c2[k] + e1i * s2[k], vi = e1i * c2[k] - e1r * s2[k];
      double wr = d1r * c3[k] + d1i * s3[k], wi = d1i * c3[k] - d1r * s3[k];
      ar[k] = a1r + vr;
      ai[k] = a1i + vi;
      cr[k] = a1r - vr;
      ci[k] = a1i - vi;
      br[k] = b1r + wr;
      bi[k] = b1i + wi;
      dr[k] = b1r - wr;
      di[k] = b1i - wi;
    }
  }
}

/* Cooley and Tukey's transform of size / 2 complex numbers, in place, of which each stands at its index with
 * the bits reversed. */
static void transform(struct vamp_spectrum *spectrum) {
  int count = spectrum->size / 2, span = 4, stages = 0;
  for (int rest = count; rest > span; rest /= 2) {
    stages++;
  }
  first_stages(spectrum->real, spectrum->imaginary, count);
  if (stages % 2 == 1) {
    one_stage(spectrum, span);
    span *= 2;
  }
  for (; span < count; span *= 4) {
    two_stages(spectrum, span);
  }
}

/* Takes the even and the odd samples' transforms apart and puts them together, for bins k and half - k at
 * once, which need the same numbers. */
static void unfold(const struct vamp_spectrum *spectrum, double *restrict power) {
  int half = spectrum->size / 2;
  const double *restrict real = spectrum->real, *restrict imaginary = spectrum->imaginary;
  const double *restrict cosine = spectrum->cosine, *restrict sine = spectrum->sine;
  double sum = real[0] + imaginary[0];
  power[0] = sum * sum;
  power[half / 2] = real[half / 2] * real[half / 2] + imaginary[half / 2] * imaginary[half / 2];
#pragma omp simd
  for (int k = 1; k < half / 2; k++) {
    double even_real = (real[k] + real[half - k]) / 2,
           even_imaginary = (imaginary[k] - imaginary[half - k]) / 2;
    double odd_real = (imaginary[k] + imaginary[half - k]) / 2,
           odd_imaginary = (real[half - k] - real[k]) / 2;
    double turned_real = cosine[k] * odd_real + sine[k] * odd_imaginary;
    double turned_imaginary = cosine[k] * odd_imaginary - sine[k] * odd_real;
    double x = even_real + turned_real, y = even_imaginary + turned_imaginary;
    double mirrored_x = even_real - turned_real, mirrored_y = even_imaginary - turned_imaginary;
    power[k] = x * x + y * y;
    power[half - k] = mirrored_x * mirrored_x + mirrored_y * mirrored_y;
  }
}

void vamp_spectrum_power(struct vamp_spectrum *spectrum, const float *samples, double *power) {
  const double *window = spectrum->window;
  for (int i = 0; i < spectrum->size / 2; i++) {
    int place = spectrum->reversed[i];
    spectrum->real[place] = samples[2 * i] * window[2 * i];
    spectrum->imaginary[place] = samples[2 * i + 1] * window[2 * i + 1];
  }
  transform(spectrum);
  unfold(spectrum, power);
}
