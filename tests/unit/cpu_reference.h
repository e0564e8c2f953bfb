/*
 * What the tests of the CPU backend share: the devices they run on, and the trial.
 *
 * A trial is one operation with its weights, beside a reference: plain loops in double precision, written
 * from vamp/backend.h and docs/model.md alone, for one sequence. trial_check() packs several sequences and
 * asks of every instruction set, precision and number of threads that
 *   - the results are the reference's within a tolerance,
 *   - one thread and two give the same bits,
 *   - a sequence alone and between others gives the same bits (the promise of vamp/backend.h),
 *   - nothing beside the output was written, and nothing beside the input had influence.
 *
 * All numbers are drawn so that bfloat16 holds them exactly. Products of two of them are exact in float, so
 * that a matrix product in bf16 owes the reference the same accuracy as one in fp32; the tolerance for bf16
 * has to cover only what an operation rounds inside. tf32 rounds eight times finer.
 *
 * Around the input lie NaNs: a kernel that reads beyond it may do so only if it ignores what it reads.
 */
#ifndef VAMP_TEST_CPU_REFERENCE_H
#define VAMP_TEST_CPU_REFERENCE_H

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "vamp/array.h"
#include "vamp/backend.h"

/* ---- devices ------------------------------------------------------------------------------------ */

/* A test of another backend says how many devices a setting has, and brings its own devices_open. */
#ifndef TRIAL_THREADS
#define TRIAL_THREADS 2
#define TRIAL_OPENS_CPU
#endif

enum { MAX_SETTINGS = 6, THREADS = TRIAL_THREADS };

/* One way to compute, on one thread and on two. */
struct setting {
  const char *name;
  bool bf16, tf32;
  struct vamp_device *device[THREADS];
};

struct devices {
  int count;
  struct setting setting[MAX_SETTINGS];
};

static inline int devices_close(void **state) {
  struct devices *devices = *state;
  for (int i = 0; i < devices->count; i++) {
    for (int t = 0; t < THREADS; t++) {
      devices->setting[i].device[t]->close(devices->setting[i].device[t]);
    }
  }
  free(devices);
  return 0;
}

#ifdef TRIAL_OPENS_CPU
/* Group setup: every instruction set of this processor in fp32, and bf16 where it has that. */
static inline int devices_open(void **state) {
  static const struct {
    const char *name, *simd;
    enum vamp_precision precision;
  } WANTED[] = {
      {"baseline fp32", "baseline", VAMP_PRECISION_FP32}, {"avx2 fp32", "avx2", VAMP_PRECISION_FP32},
      {"avx512 fp32", "avx512", VAMP_PRECISION_FP32},     {"best fp32", NULL, VAMP_PRECISION_FP32},
      {"best bf16", NULL, VAMP_PRECISION_BF16},
  };
  struct devices *devices = calloc(1, sizeof *devices);
  if (!devices) {
    return -1;
  }
  *state = devices;
  for (size_t i = 0; i < sizeof WANTED / sizeof WANTED[0]; i++) {
    struct setting *setting = &devices->setting[devices->count];
    setting->name = WANTED[i].name;
    setting->bf16 = WANTED[i].precision == VAMP_PRECISION_BF16;
    if (WANTED[i].simd) {
      setenv("VAMP_SIMD", WANTED[i].simd, 1);
    } else {
      unsetenv("VAMP_SIMD");
    }
    int opened = 0;
    for (int t = 0; t < THREADS; t++) {
      struct vamp_device_options options = {
          .precision = WANTED[i].precision, .precision_given = true, .threads = t + 1};
      struct vamp_error error = {0};
      int status = vamp_cpu_open(&options, &setting->device[t], &error);
      if (status == VAMP_UNSUPPORTED && setting->bf16) {
        break;
      }
      if (status) {
        print_error("%s: %s\n", setting->name, error.message);
        return -1;
      }
      opened++;
    }
    /* Where the processor lacks a set the next lesser one is given, which had or has its turn. */
    char wanted[32];
    snprintf(wanted, sizeof wanted, "cpu: %s,", WANTED[i].simd ? WANTED[i].simd : "");
    bool lesser = opened && WANTED[i].simd && !strstr(setting->device[0]->description, wanted);
    if (lesser || !opened) {
      print_message("not on this processor: %s\n", setting->name);
      while (opened > 0) {
        opened--;
        setting->device[opened]->close(setting->device[opened]);
      }
      continue;
    }
    devices->count++;
  }
  unsetenv("VAMP_SIMD");
  return 0;
}
#endif

/* ---- numbers ------------------------------------------------------------------------------------ */

static inline uint64_t random_word(uint64_t *state) {
  uint64_t z = *state += 0x9E3779B97F4A7C15u;
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
  return z ^ (z >> 31);
}

/* Uniform in [0, 1). */
static inline double random_share(uint64_t *state) {
  return (double)(random_word(state) >> 11) / 9007199254740992.0;
}

static inline int random_below(uint64_t *state, int limit) {
  return (int)(random_word(state) % (uint64_t)limit);
}

static inline float as_bf16(float x) {
  return vamp_bfloat16_to_float(vamp_float_to_bfloat16(x));
}

static inline void *taken(void *memory) {
  if (!memory) {
    fail_msg("out of memory");
    abort(); /* not reached; tells an analyser so */
  }
  return memory;
}

/* count values in (-scale, scale), each exact in bfloat16; the caller's to free. */
static inline float *random_floats(size_t count, double scale, uint64_t seed) {
  float *values = taken(malloc(sizeof *values * (count + 1)));
  for (size_t i = 0; i < count; i++) {
    values[i] = as_bf16((float)(scale * (2 * random_share(&seed) - 1)));
  }
  return values;
}

/* Weights whose sum over `terms` inputs of (-1, 1) keeps about their size. */
static inline float *random_weights(size_t count, double terms, uint64_t seed) {
  return random_floats(count, sqrt(3 / terms), seed);
}

/* ---- device memory ------------------------------------------------------------------------------ */

static inline void *device_array(struct vamp_device *device, const void *from, size_t bytes) {
  void *memory = NULL;
  assert_int_equal(device->ops->allocate(device, bytes + 1, &memory, NULL), 0);
  assert_int_equal(device->ops->upload(device, memory, from, bytes), 0);
  return memory;
}

/* Elements before and after every input and output of a trial. */
enum { GUARD = 32 };

/* The values as float, or as act where `bf16`, between guards of a bit pattern; the caller's to free. */
static inline void *guarded(const float *values, size_t count, bool bf16, uint32_t guard, size_t *bytes) {
  size_t total = count + 2 * GUARD;
  *bytes = total * (bf16 ? 2 : 4);
  uint32_t *words = taken(malloc(total * 4));
  uint16_t *halves = (uint16_t *)words;
  for (size_t i = 0; i < total; i++) {
    bool inside = i >= GUARD && i < GUARD + count;
    if (bf16) {
      halves[i] = inside ? vamp_float_to_bfloat16(values[i - GUARD]) : (uint16_t)(guard >> 16);
    } else if (inside) {
      memcpy(&words[i], &values[i - GUARD], 4);
    } else {
      words[i] = guard;
    }
  }
  return words;
}

/* ---- the trial ---------------------------------------------------------------------------------- */

enum { MAX_WEIGHTS = 2, MAX_SEQUENCES = 64 };

struct trial {
  char name[160];
  bool in_act, out_act; /* act, not float */
  int in_width, out_width;
  double tolerance, tolerance_bf16; /* of numbers around 1; an act output adds its own rounding */
  /* Rows made of `rows`; NULL: as many. */
  int64_t (*rows)(const struct trial *trial, int64_t rows);
  void (*create)(const struct trial *trial, struct vamp_device *device, struct vamp_weight **weights);
  int (*run)(const struct trial *trial, struct vamp_device *device, struct vamp_weight **weights,
             const struct vamp_packing *from, const struct vamp_packing *to, const void *in, void *out);
  /* One sequence. `out` holds what lay there before, and gets the result. */
  void (*reference)(const struct trial *trial, int64_t rows, const float *in, double *out);
};

/* The sequences of a trial and what should become of them. */
struct packed {
  int count;
  int64_t from[MAX_SEQUENCES + 1], to[MAX_SEQUENCES + 1];
  float *in, *before;
  double *want;
};

static inline void *trial_run(const struct trial *trial, const struct setting *setting,
                              struct vamp_device *device, struct vamp_weight **weights, int count,
                              const int64_t *from, const int64_t *to, const float *in, const float *before) {
  bool in_bf16 = trial->in_act && setting->bf16, out_bf16 = trial->out_act && setting->bf16;
  size_t in_bytes, out_bytes;
  void *host_in = guarded(in, (size_t)(from[count] * trial->in_width), in_bf16, 0x7FC07FC0u, &in_bytes);
  void *host_out = guarded(before, (size_t)(to[count] * trial->out_width), out_bf16, 0x3ABC3ABCu, &out_bytes);
  size_t in_size = in_bf16 ? 2 : 4, out_size = out_bf16 ? 2 : 4;
  char *device_in = device_array(device, host_in, in_bytes);
  char *device_out = device_array(device, host_out, out_bytes);
  struct vamp_packing from_packing = {count, from}, to_packing = {count, to};
  int status = trial->run(trial, device, weights, &from_packing, &to_packing, device_in + GUARD * in_size,
                          device_out + GUARD * out_size);
  if (status) {
    fail_msg("%s, %s: status %d", trial->name, setting->name, status);
  }
  char *got_in = taken(malloc(in_bytes)), *got_out = taken(malloc(out_bytes));
  assert_int_equal(device->ops->wait(device), 0);
  assert_int_equal(device->ops->download(device, got_in, device_in, in_bytes), 0);
  assert_int_equal(device->ops->download(device, got_out, device_out, out_bytes), 0);
  if (memcmp(got_in, host_in, in_bytes) != 0) {
    fail_msg("%s, %s: the input was changed", trial->name, setting->name);
  }
  size_t end = out_bytes - GUARD * out_size;
  if (memcmp(got_out, host_out, GUARD * out_size) != 0 ||
      memcmp(got_out + end, (char *)host_out + end, GUARD * out_size) != 0) {
    fail_msg("%s, %s: written beside the output", trial->name, setting->name);
  }
  memmove(got_out, got_out + GUARD * out_size, end - GUARD * out_size);
  device->ops->release(device, device_in);
  device->ops->release(device, device_out);
  free(host_in);
  free(host_out);
  free(got_in);
  return got_out;
}

static inline void trial_compare(const struct trial *trial, const struct setting *setting,
                                 const struct packed *packed, const void *got) {
  bool bf16 = trial->out_act && setting->bf16;
  double tolerance = setting->bf16   ? trial->tolerance_bf16
                     : setting->tf32 ? trial->tolerance + trial->tolerance_bf16 / 8
                                     : trial->tolerance;
  double rounding = !trial->out_act ? 0 : setting->bf16 ? 1.0 / 256 : setting->tf32 ? 1.0 / 2048 : 0;
  for (int s = 0; s < packed->count; s++) {
    for (int64_t i = packed->to[s] * trial->out_width; i < packed->to[s + 1] * trial->out_width; i++) {
      double value =
          bf16 ? (double)vamp_bfloat16_to_float(((const uint16_t *)got)[i]) : (double)((const float *)got)[i];
      double want = packed->want[i];
      double allowed = tolerance * (1 + fabs(want)) + fabs(want) * rounding;
      if (!(fabs(value - want) <= allowed)) {
        int64_t at = i - packed->to[s] * trial->out_width;
        fail_msg("%s, %s: sequence %d of %d rows, row %d, channel %d: %.9g and not %.9g", trial->name,
                 setting->name, s, (int)(packed->from[s + 1] - packed->from[s]), (int)(at / trial->out_width),
                 (int)(at % trial->out_width), value, want);
      }
    }
  }
}

/* Each sequence alone must give the bits it gave in `together`. */
static inline void trial_alone(const struct trial *trial, const struct setting *setting,
                               struct vamp_device *device, struct vamp_weight **weights,
                               const struct packed *packed, const char *together) {
  size_t size = trial->out_act && setting->bf16 ? 2 : 4;
  for (int s = 0; s < packed->count; s++) {
    int64_t from[2] = {0, packed->from[s + 1] - packed->from[s]};
    int64_t to[2] = {0, packed->to[s + 1] - packed->to[s]};
    void *alone = trial_run(trial, setting, device, weights, 1, from, to,
                            packed->in + packed->from[s] * trial->in_width,
                            packed->before + packed->to[s] * trial->out_width);
    size_t begin = (size_t)(packed->to[s] * trial->out_width) * size;
    if (memcmp(alone, together + begin, (size_t)(to[1] * trial->out_width) * size) != 0) {
      fail_msg("%s, %s: sequence %d of %d rows is not the same alone and among others", trial->name,
               setting->name, s, (int)from[1]);
    }
    free(alone);
  }
}

static inline void trial_setting(const struct trial *trial, const struct setting *setting,
                                 const struct packed *packed) {
  void *first = NULL;
  size_t bytes =
      (size_t)(packed->to[packed->count] * trial->out_width) * (trial->out_act && setting->bf16 ? 2 : 4);
  for (int t = 0; t < THREADS; t++) {
    struct vamp_device *device = setting->device[t];
    struct vamp_weight *weights[MAX_WEIGHTS] = {NULL};
    trial->create(trial, device, weights);
    void *got = trial_run(trial, setting, device, weights, packed->count, packed->from, packed->to,
                          packed->in, packed->before);
    trial_compare(trial, setting, packed, got);
    if (first && memcmp(first, got, bytes) != 0) {
      fail_msg("%s, %s: one thread and two differ", trial->name, setting->name);
    }
    trial_alone(trial, setting, device, weights, packed, got);
    for (int i = 0; i < MAX_WEIGHTS; i++) {
      device->ops->weight_free(device, weights[i]);
    }
    free(first);
    first = got;
  }
  free(first);
}

/* Inputs and what lies in the output before are drawn from (-in_scale, in_scale) and (-1, 1). */
static inline void trial_check_scaled(void **state, const struct trial *trial, int count, const int *lengths,
                                      double in_scale) {
  const struct devices *devices = *state;
  struct packed packed = {.count = count};
  assert_true(count <= MAX_SEQUENCES);
  for (int s = 0; s < count; s++) {
    packed.from[s + 1] = packed.from[s] + lengths[s];
    packed.to[s + 1] = packed.to[s] + (trial->rows ? trial->rows(trial, lengths[s]) : lengths[s]);
  }
  size_t out_count = (size_t)(packed.to[count] * trial->out_width);
  packed.in = random_floats((size_t)(packed.from[count] * trial->in_width), in_scale, 0xF00D);
  packed.before = random_floats(out_count, 1, 0xBEEF);
  packed.want = taken(malloc(sizeof *packed.want * (out_count + 1)));
  for (size_t i = 0; i < out_count; i++) {
    packed.want[i] = (double)packed.before[i];
  }
  for (int s = 0; s < count; s++) {
    trial->reference(trial, lengths[s], packed.in + packed.from[s] * trial->in_width,
                     packed.want + packed.to[s] * trial->out_width);
  }
  for (int i = 0; i < devices->count; i++) {
    trial_setting(trial, &devices->setting[i], &packed);
  }
  free(packed.in);
  free(packed.before);
  free(packed.want);
}

static inline void trial_check(void **state, const struct trial *trial, int count, const int *lengths) {
  trial_check_scaled(state, trial, count, lengths, 1);
}

#define COUNT(array) ((int)(sizeof(array) / sizeof((array)[0])))

#endif
