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
#include "engine/mask/spectrum.h"

#include <math.h>
#include <stdlib.h>

#define PI 3.14159265358979323846

int vamp_spectrum_open(struct vamp_spectrum *spectrum, int size, struct vamp_error *error) {
  size_t count = (size_t)size, half = count / 2;
  *spectrum = (struct vamp_spectrum){.size = size, .memory = calloc(count + 4 * half, sizeof(double))};
  if (!spectrum->memory) {
    return vamp_fail(error, VAMP_MEMORY, "out of memory for listening to the clip.");
  }
  spectrum->window = spectrum->memory;
  spectrum->cosine = spectrum->window + count;
  spectrum->sine = spectrum->cosine + half;
  spectrum->real = spectrum->sine + half;
  spectrum->imaginary = spectrum->real + half;
  for (size_t i = 0; i < count; i++) {
    /* The window's sum is size / 2, and a sine's power splits between two bins. */
    spectrum->window[i] = (1 - cos(2 * PI * (double)i / size)) * 2 / size;
  }
  for (size_t k = 0; k < half; k++) {
    spectrum->cosine[k] = cos(2 * PI * (double)k / size);
    spectrum->sine[k] = sin(2 * PI * (double)k / size);
  }
  return 0;
}

void vamp_spectrum_close(struct vamp_spectrum *spectrum) {
  free(spectrum->memory);
  *spectrum = (struct vamp_spectrum){0};
}

/* Moves every element to the place of its index with the bits reversed. */
static void reverse_bits(double *real, double *imaginary, int count) {
  for (int i = 1, j = 0; i < count; i++) {
    int bit = count >> 1;
    for (; j & bit; bit >>= 1) {
      j ^= bit;
    }
    j ^= bit;
    if (i < j) {
      double kept = real[i];
      real[i] = real[j];
      real[j] = kept;
      kept = imaginary[i];
      imaginary[i] = imaginary[j];
      imaginary[j] = kept;
    }
  }
}

/* Cooley and Tukey's transform of size / 2 complex numbers, in place. */
static void transform(struct vamp_spectrum *spectrum) {
  int count = spectrum->size / 2;
  double *real = spectrum->real, *imaginary = spectrum->imaginary;
  reverse_bits(real, imaginary, count);
  for (int span = 1; span < count; span *= 2) {
    int stride = spectrum->size / (2 * span);
    for (int start = 0; start < count; start += 2 * span) {
      for (int k = 0; k < span; k++) {
        int a = start + k, b = a + span;
        double c = spectrum->cosine[k * stride], s = spectrum->sine[k * stride];
        double turned_real = real[b] * c + imaginary[b] * s;
        double turned_imaginary = imaginary[b] * c - real[b] * s;
        real[b] = real[a] - turned_real;
        imaginary[b] = imaginary[a] - turned_imaginary;
        real[a] += turned_real;
        imaginary[a] += turned_imaginary;
      }
    }
  }
}

void vamp_spectrum_power(struct vamp_spectrum *spectrum, const float *samples, double *power) {
  int half = spectrum->size / 2;
  const double *window = spectrum->window, *real = spectrum->real, *imaginary = spectrum->imaginary;
  for (int i = 0; i < half; i++) {
    spectrum->real[i] = samples[2 * i] * window[2 * i];
    spectrum->imaginary[i] = samples[2 * i + 1] * window[2 * i + 1];
  }
  transform(spectrum);
  for (int k = 0; k < half; k++) {
    int mirror = (half - k) % half;
    double even_real = (real[k] + real[mirror]) / 2, even_imaginary = (imaginary[k] - imaginary[mirror]) / 2;
    double odd_real = (imaginary[k] + imaginary[mirror]) / 2, odd_imaginary = (real[mirror] - real[k]) / 2;
    double c = spectrum->cosine[k], s = spectrum->sine[k];
    double x = even_real + c * odd_real + s * odd_imaginary;
    double y = even_imaginary + c * odd_imaginary - s * odd_real;
    power[k] = x * x + y * y;
  }
}
