/*
 * That tf32 is tf32. The trials draw numbers that bf16 holds, so that a product owes them no rounding; here
 * are numbers that tf32 does not hold, in products small enough to be known to the bit. `ODD` lies three
 * quarters of the way from one number of tf32 to the next: rounded it is UP, and neither what truncation nor
 * what fp32 would make of it. For each product: what comes from the host is rounded, what comes from an
 * operation before is rounded there or on the way in, and what goes to the next one has 13 bits of zeros.
 */
#include "tests/cuda/devices.h"

#define ODD (1 + 7.0f / 4096)
#define UP (1 + 2.0f / 1024)

enum { WIDTH = 64, ROWS = 70 };

static struct vamp_device *tf32_device(void **state) {
  const struct devices *devices = *state;
  for (int i = 0; i < devices->count; i++) {
    if (devices->setting[i].tf32) {
      return devices->setting[i].device[0];
    }
  }
  fail_msg("no device in tf32");
  return NULL;
}

static float *filled(int count, float value) {
  float *values = taken(malloc(sizeof *values * (size_t)count));
  for (int i = 0; i < count; i++) {
    values[i] = value;
  }
  return values;
}

static void *on_device(struct vamp_device *device, int count, float value) {
  float *values = filled(count, value);
  void *memory = device_array(device, values, sizeof *values * (size_t)count);
  free(values);
  return memory;
}

static void check_all(struct vamp_device *device, const void *memory, int count, float want) {
  float *got = taken(malloc(sizeof *got * (size_t)count));
  assert_int_equal(device->ops->download(device, got, memory, sizeof *got * (size_t)count), 0);
  for (int i = 0; i < count; i++) {
    if (got[i] != want) {
      fail_msg("element %d: %.9g and not %.9g", i, (double)got[i], (double)want);
    }
  }
  free(got);
}

/* All of them numbers of tf32, and some of them not of bf16. */
static void check_rounded(struct vamp_device *device, const void *memory, int count) {
  uint32_t *got = taken(malloc(sizeof *got * (size_t)count));
  int finer = 0;
  assert_int_equal(device->ops->download(device, got, memory, sizeof *got * (size_t)count), 0);
  for (int i = 0; i < count; i++) {
    if (got[i] & 0x1fff) {
      fail_msg("element %d: %08x is not a number of tf32", i, got[i]);
    }
    finer += (got[i] & 0xffff) != 0;
  }
  assert_true(finer > 0);
  free(got);
}

static const int64_t OFFSETS[] = {0, ROWS};
static const struct vamp_packing PACKING = {1, OFFSETS};

static void test_weights(void **state) {
  struct vamp_device *device = tf32_device(state);
  /* n = 7 may find no algorithm, and is our own product's then */
  for (int n = 7; n <= WIDTH; n += WIDTH - 7) {
    float *weight = filled(n * WIDTH, ODD);
    struct vamp_weight *linear;
    assert_int_equal(device->ops->linear_create(device, n, WIDTH, false, weight, NULL, &linear, NULL), 0);
    void *in = on_device(device, ROWS * WIDTH, 1), *out = on_device(device, ROWS * n, 0);
    assert_int_equal(device->ops->linear(device, linear, VAMP_STORE, &PACKING, in, out), 0);
    check_all(device, out, ROWS * n, WIDTH * UP);
    device->ops->weight_free(device, linear);
    device->ops->release(device, in);
    device->ops->release(device, out);
    free(weight);
  }
}

static void test_norm_and_gate(void **state) {
  struct vamp_device *device = tf32_device(state);
  float *ones = filled(WIDTH, 1), *drawn = random_floats(ROWS * WIDTH, 1, 5);
  float *weight = random_weights(WIDTH * WIDTH, WIDTH, 6);
  struct vamp_weight *norm, *linear;
  assert_int_equal(device->ops->vector_create(device, ones, WIDTH, &norm, NULL), 0);
  void *in = device_array(device, drawn, sizeof *drawn * ROWS * WIDTH);
  void *act = on_device(device, ROWS * WIDTH, 0), *out = on_device(device, ROWS * WIDTH, 0);
  /* a width that is read by four channels, and one that is not */
  for (int width = WIDTH - 1; width <= WIDTH; width++) {
    assert_int_equal(device->ops->rms_norm(device, norm, ROWS, width, in, act), 0);
    check_rounded(device, act, ROWS * width);
  }
  for (int n = 14; n <= WIDTH; n += WIDTH - 14) {
    assert_int_equal(device->ops->linear_create(device, n, WIDTH, true, weight, NULL, &linear, NULL), 0);
    assert_int_equal(device->ops->linear(device, linear, VAMP_GATED_GELU, &PACKING, act, out), 0);
    check_rounded(device, out, ROWS * n / 2);
    device->ops->weight_free(device, linear);
  }
  device->ops->weight_free(device, norm);
  device->ops->release(device, in);
  device->ops->release(device, act);
  device->ops->release(device, out);
  free(ones);
  free(drawn);
  free(weight);
}

/* All keys alike: the softmax is a plain mean, of values that are all ODD. Then two keys that are one when
 * rounded: each has half the weight, whatever the query. */
static void test_attention(void **state) {
  struct vamp_device *device = tf32_device(state);
  float *bias = filled(32, 0), *qkv = taken(calloc(ROWS * 3 * WIDTH, sizeof *qkv));
  float *drawn = random_floats(ROWS * 3 * WIDTH, 1, 9);
  struct vamp_weight *vector;
  assert_int_equal(device->ops->vector_create(device, bias, 32, &vector, NULL), 0);
  for (int row = 0; row < ROWS; row++) {
    for (int i = 0; i < WIDTH; i++) {
      qkv[(row * 3 + 2) * WIDTH + i] = ODD;
    }
  }
  void *in = device_array(device, qkv, sizeof *qkv * ROWS * 3 * WIDTH),
       *out = on_device(device, ROWS * WIDTH, 0);
  assert_int_equal(device->ops->attention(device, vector, &PACKING, 1, WIDTH, in, out), 0);
  check_all(device, out, ROWS * WIDTH, UP);
  static const int64_t two[] = {0, 2};
  const struct vamp_packing pair = {1, two};
  for (int row = 0; row < 2; row++) {
    for (int i = 0; i < WIDTH; i++) {
      qkv[(row * 3 + 0) * WIDTH + i] = row ? UP : ODD;
      qkv[(row * 3 + 1) * WIDTH + i] = row ? UP : ODD;
      qkv[(row * 3 + 2) * WIDTH + i] = row ? 3 : 1;
    }
  }
  assert_int_equal(device->ops->upload(device, in, qkv, sizeof *qkv * 2 * 3 * WIDTH), 0);
  assert_int_equal(device->ops->attention(device, vector, &pair, 1, WIDTH, in, out), 0);
  check_all(device, out, 2 * WIDTH, 2);
  assert_int_equal(device->ops->upload(device, in, drawn, sizeof *drawn * ROWS * 3 * WIDTH), 0);
  /* the kernel for heads of 64, and the one for any */
  for (int heads = 1; heads <= 2; heads++) {
    assert_int_equal(device->ops->attention(device, vector, &PACKING, 1, WIDTH / heads, in, out), 0);
    check_rounded(device, out, ROWS * WIDTH / heads);
  }
  device->ops->weight_free(device, vector);
  device->ops->release(device, in);
  device->ops->release(device, out);
  free(bias);
  free(qkv);
  free(drawn);
}

/* The weights, then the signal, are what has to be rounded. */
static void test_convolution(void **state) {
  struct vamp_device *device = tf32_device(state);
  const struct vamp_conv_shape shape = {WIDTH, WIDTH, 1, 1, 1, 0, false};
  for (int odd = 0; odd < 2; odd++) {
    float *weight = filled(WIDTH * WIDTH, odd ? ODD : 1);
    struct vamp_weight *conv;
    assert_int_equal(device->ops->conv_create(device, &shape, weight, NULL, &conv, NULL), 0);
    void *in = on_device(device, ROWS * WIDTH, odd ? 1 : ODD), *out = on_device(device, ROWS * WIDTH, 0);
    assert_int_equal(device->ops->conv(device, conv, NULL, false, &PACKING, &PACKING, in, out), 0);
    check_all(device, out, ROWS * WIDTH, WIDTH * UP);
    device->ops->weight_free(device, conv);
    device->ops->release(device, in);
    device->ops->release(device, out);
    free(weight);
  }
}

/* The signal between the two convolutions of a unit: alphas of 0 make snakes that change nothing, the first
 * convolution copies, its bias adds what makes it ODD, and the second sums. */
static void test_unit(void **state) {
  struct vamp_device *device = tf32_device(state);
  const struct vamp_unit_shape shape = {WIDTH, 1, 1, 1};
  float *none = filled(WIDTH, 0), *rest = filled(WIDTH, ODD - 1), *sum = filled(WIDTH * WIDTH, 1);
  float *same = filled(WIDTH * WIDTH, 0);
  for (int i = 0; i < WIDTH; i++) {
    same[i * WIDTH + i] = 1;
  }
  const struct vamp_unit_weights weights = {none, same, rest, none, sum, none};
  struct vamp_weight *unit;
  assert_int_equal(device->ops->unit_create(device, &shape, &weights, &unit, NULL), 0);
  void *in = on_device(device, ROWS * WIDTH, 1), *out = on_device(device, ROWS * WIDTH, 0);
  assert_int_equal(device->ops->residual_unit(device, unit, &PACKING, 1, false, in, out), 0);
  check_all(device, out, ROWS * WIDTH, 1 + WIDTH * UP);
  device->ops->weight_free(device, unit);
  device->ops->release(device, in);
  device->ops->release(device, out);
  free(none);
  free(rest);
  free(sum);
  free(same);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_weights),   cmocka_unit_test(test_norm_and_gate),
      cmocka_unit_test(test_attention), cmocka_unit_test(test_convolution),
      cmocka_unit_test(test_unit),
  };
  return cmocka_run_group_tests(tests, devices_open, devices_close);
}
