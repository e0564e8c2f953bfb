/*
 * The CPU device itself: how it is opened, what it refuses, and its memory. The other tests of the CPU
 * backend (test_cpu_*.c) ask what it computes.
 */
#include "tests/unit/cpu_reference.h"

static struct vamp_device *open_device(const struct vamp_device_options *options) {
  struct vamp_device *device = NULL;
  struct vamp_error error = {0};
  if (vamp_cpu_open(options, &device, &error)) {
    fail_msg("%s", error.message);
  }
  return device;
}

static void test_open(void **state) {
  (void)state;
  struct vamp_device_options options = {
      .precision = VAMP_PRECISION_FP32, .precision_given = true, .threads = 1};
  struct vamp_device *device = open_device(&options);
  assert_string_equal(device->backend, "cpu");
  assert_int_equal(device->precision, VAMP_PRECISION_FP32);
  assert_int_equal(device->act_size, 4);
  assert_true(device->step_rows > 0 && device->codec_rows > 0);
  assert_non_null(strstr(device->description, "1 thread"));
  device->close(device);
  /* Whatever the hardware has, and every core. */
  options =
      (struct vamp_device_options){.precision = VAMP_PRECISION_FP32, .precision_given = false, .threads = 0};
  device = open_device(&options);
  assert_int_equal(device->act_size, device->precision == VAMP_PRECISION_BF16 ? 2 : 4);
  device->close(device);
}

static void check_refused(const struct vamp_device_options *options, int status) {
  struct vamp_device *device = NULL;
  struct vamp_error error = {0};
  assert_int_equal(vamp_cpu_open(options, &device, &error), status);
  assert_int_equal(error.status, status);
  assert_true(strlen(error.message) > 0);
  assert_null(device);
  assert_int_equal(vamp_cpu_open(options, &device, NULL), status);
}

static void test_refused(void **state) {
  (void)state;
  struct vamp_device_options crowd = {
      .precision = VAMP_PRECISION_FP32, .precision_given = true, .threads = 100000};
  check_refused(&crowd, VAMP_INVALID);
  /* The plain instruction set has no bfloat16, whatever the processor. */
  struct vamp_device_options bf16 = {.precision = VAMP_PRECISION_BF16, .precision_given = true, .threads = 1};
  setenv("VAMP_SIMD", "baseline", 1);
  check_refused(&bf16, VAMP_UNSUPPORTED);
  struct vamp_device_options tf32 = {.precision = VAMP_PRECISION_TF32, .precision_given = true, .threads = 1};
  check_refused(&tf32, VAMP_UNSUPPORTED);
  struct vamp_device_options any = {.precision = VAMP_PRECISION_BF16, .precision_given = false, .threads = 1};
  struct vamp_device *device = open_device(&any);
  assert_int_equal(device->precision, VAMP_PRECISION_FP32);
  device->close(device);
  unsetenv("VAMP_SIMD");
}

static void test_memory(void **state) {
  (void)state;
  static const size_t SIZES[] = {0, 1, 63, 64, 65, 100000, 5000000};
  struct vamp_device_options options = {
      .precision = VAMP_PRECISION_FP32, .precision_given = true, .threads = 1};
  struct vamp_device *device = open_device(&options);
  const struct vamp_operations *ops = device->ops;
  for (int i = 0; i < COUNT(SIZES); i++) {
    size_t size = SIZES[i];
    void *first = NULL, *second = NULL;
    assert_int_equal(ops->allocate(device, size, &first, NULL), 0);
    assert_int_equal(ops->allocate(device, size, &second, NULL), 0);
    assert_ptr_not_equal(first, second);
    uint8_t *out = taken(malloc(size + 1)), *back = taken(calloc(size + 1, 1));
    for (size_t b = 0; b < size; b++) {
      out[b] = (uint8_t)(b * 7 + b / 251);
    }
    assert_int_equal(ops->upload(device, first, out, size), 0);
    assert_int_equal(ops->copy(device, second, first, size), 0);
    assert_int_equal(ops->download(device, back, second, size), 0);
    assert_int_equal(ops->wait(device), 0);
    assert_memory_equal(out, back, size);
    free(out);
    free(back);
    ops->release(device, first);
    ops->release(device, second);
  }
  ops->release(device, NULL);
  ops->weight_free(device, NULL);
  device->close(device);
}

/* Two devices share nothing: one can go while the other works. */
static void test_two_devices(void **state) {
  (void)state;
  static const float VALUES[4] = {3, 0, -4, 0}, ONES[4] = {1, 1, 1, 1};
  struct vamp_device_options options = {
      .precision = VAMP_PRECISION_FP32, .precision_given = true, .threads = 2};
  struct vamp_device *first = open_device(&options), *second = open_device(&options);
  struct vamp_weight *weight = NULL;
  assert_int_equal(second->ops->vector_create(second, ONES, 4, &weight, NULL), 0);
  first->close(first);
  float *x = device_array(second, VALUES, sizeof VALUES), *y = device_array(second, VALUES, sizeof VALUES);
  float got[4];
  assert_int_equal(second->ops->rms_norm(second, weight, 1, 4, x, y), 0);
  assert_int_equal(second->ops->download(second, got, y, sizeof got), 0);
  for (int i = 0; i < 4; i++) {
    assert_true(fabsf(got[i] - VALUES[i] / 2.5f) < 1e-5f);
  }
  second->ops->release(second, x);
  second->ops->release(second, y);
  second->ops->weight_free(second, weight);
  second->close(second);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_open),
      cmocka_unit_test(test_refused),
      cmocka_unit_test(test_memory),
      cmocka_unit_test(test_two_devices),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
