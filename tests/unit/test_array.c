/*
 * .npy files: what numpy writes is read, what we write numpy reads (the bytes are those of its format
 * description), and what is wrong is named. And the 16-bit floats.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "vamp/array.h"

static int setup(void **state) {
  const char *base = getenv("TMPDIR");
  char *path;
  if (asprintf(&path, "%s/vamp-test-XXXXXX", base ? base : "/tmp") < 0 || !mkdtemp(path)) {
    return -1;
  }
  *state = path;
  return 0;
}

struct path {
  char text[512];
};

static struct path path_of(void **state) {
  struct path path;
  snprintf(path.text, sizeof path.text, "%s/array.npy", (const char *)*state);
  return path;
}

static int teardown(void **state) {
  unlink(path_of(state).text);
  rmdir(*state);
  free(*state);
  return 0;
}

static void save(const char *path, const void *data, size_t size) {
  FILE *file = fopen(path, "wb");
  assert_non_null(file);
  assert_int_equal(fwrite(data, 1, size, file), size);
  assert_int_equal(fclose(file), 0);
}

/* A file of version 1.0 (or `version`) with this dictionary and these elements. */
static void save_npy(const char *path, int version, const char *dictionary, const void *elements,
                     size_t size) {
  unsigned char file[4096] = "\x93NUMPY";
  size_t length = strlen(dictionary), start = version == 2 ? 12 : 10;
  assert_true(start + length + size <= sizeof file);
  file[6] = (unsigned char)version;
  file[8] = (unsigned char)length;
  file[9] = (unsigned char)(length >> 8);
  for (size_t i = 0; i < length; i++) {
    file[start + i] = (unsigned char)dictionary[i];
  }
  if (size > 0) {
    memcpy(file + start + length, elements, size);
  }
  save(path, file, start + length + size);
}

static struct vamp_array read_array(const char *path) {
  struct vamp_array array = {0};
  struct vamp_error error = {0};
  if (vamp_array_read(path, &array, &error) != 0) {
    fail_msg("%s", error.message);
  }
  return array;
}

static void expect(const char *path, int status, const char *message) {
  struct vamp_array untouched = {.dimensions = 3}, array = untouched;
  struct vamp_error error = {0};
  int got = vamp_array_read(path, &array, &error);
  if (got != status || !strstr(error.message, message) || !strstr(error.message, "array.npy")) {
    fail_msg("wanted %d \"%s\", got %d \"%s\"", status, message, got, error.message);
  }
  assert_memory_equal(&array, &untouched, sizeof array);
}

/* ---- writing -------------------------------------------------------------------------------------- */

static void test_bytes(void **state) {
  (void)state;
  const int32_t codes[6] = {1, 2, 3, 4, 5, -6};
  const size_t shape[2] = {2, 3};
  void *bytes;
  size_t size;
  assert_int_equal(vamp_array_write_memory(VAMP_I32, 2, shape, codes, &bytes, &size, NULL), 0);
  assert_int_equal(size, 128 + 24);
  assert_memory_equal(
      bytes, "\x93NUMPY\x01\x00\x76\x00{'descr': '<i4', 'fortran_order': False, 'shape': (2, 3), }  ", 71);
  assert_int_equal(((char *)bytes)[127], '\n');
  assert_memory_equal((char *)bytes + 128, codes, 24);
  free(bytes);
}

static void test_round_trip(void **state) {
  const struct path path = path_of(state);
  const size_t shape[4] = {2, 3, 1, 5};
  const enum vamp_dtype dtypes[] = {VAMP_F32, VAMP_F16, VAMP_I32, VAMP_U8};
  unsigned char data[30 * 4];
  for (size_t i = 0; i < sizeof data; i++) {
    data[i] = (unsigned char)(i * 7);
  }
  for (size_t d = 0; d < 4; d++) {
    for (int dimensions = 0; dimensions <= 4; dimensions++) {
      assert_int_equal(vamp_array_write(path.text, dtypes[d], dimensions, shape, data, NULL), 0);
      struct vamp_array array = read_array(path.text);
      assert_int_equal(array.dtype, dtypes[d]);
      assert_int_equal(array.dimensions, dimensions);
      size_t count = 1;
      for (int i = 0; i < dimensions; i++) {
        assert_int_equal(array.shape[i], shape[i]);
        count *= shape[i];
      }
      assert_int_equal(vamp_array_count(&array), count);
      assert_memory_equal(array.data, data, count * vamp_dtype_size(dtypes[d]));
      vamp_array_free(&array);
      assert_null(array.data);
    }
  }
  vamp_array_free(NULL);
}

static void test_empty(void **state) {
  const struct path path = path_of(state);
  const size_t shape[2] = {14, 0};
  assert_int_equal(vamp_array_write(path.text, VAMP_I32, 2, shape, NULL, NULL), 0);
  struct vamp_array array = read_array(path.text);
  assert_int_equal(array.shape[0], 14);
  assert_int_equal(vamp_array_count(&array), 0);
  vamp_array_free(&array);
}

static void test_unwritable(void **state) {
  (void)state;
  const size_t shape[4] = {SIZE_MAX / 2, 3, 1, 1};
  void *bytes = NULL;
  size_t size = 0;
  struct vamp_error error;
  assert_int_equal(vamp_array_write_memory(VAMP_BF16, 1, shape, shape, &bytes, &size, &error),
                   VAMP_UNSUPPORTED);
  assert_int_equal(vamp_array_write_memory(VAMP_F32, 5, shape, shape, &bytes, &size, &error), VAMP_INVALID);
  assert_int_equal(vamp_array_write_memory(VAMP_F32, -1, shape, shape, &bytes, &size, &error), VAMP_INVALID);
  assert_int_equal(vamp_array_write_memory(VAMP_F32, 2, shape, shape, &bytes, &size, &error), VAMP_LIMIT);
  assert_null(bytes);
  const size_t one[1] = {1};
  float value = 0;
  assert_int_equal(vamp_array_write("/nowhere/array.npy", VAMP_F32, 1, one, &value, &error), VAMP_IO);
  assert_non_null(strstr(error.message, "cannot write /nowhere/array.npy"));
}

/* ---- reading -------------------------------------------------------------------------------------- */

#define DICTIONARY(descr, shape) "{'descr': '" descr "', 'fortran_order': False, 'shape': " shape ", }\n"

static void test_integers(void **state) {
  const struct path path = path_of(state);
  const struct {
    const char *dictionary;
    const char *elements; /* two of them */
    size_t size;
    int32_t expected[2];
  } cases[] = {
      {DICTIONARY("<i4", "(2,)"), "\1\0\0\0\xff\xff\xff\xff", 8, {1, -1}},
      {DICTIONARY("<i8", "(2,)"), "\1\4\0\0\0\0\0\0\0\0\0\x80\xff\xff\xff\xff", 16, {1025, INT32_MIN}},
      {DICTIONARY("|i1", "(2,)"), "\x7f\x80", 2, {127, -128}},
      {DICTIONARY("<i2", "(2,)"), "\0\4\xff\xff", 4, {1024, -1}},
      {DICTIONARY("<u2", "(2,)"), "\0\4\xff\xff", 4, {1024, 65535}},
      {DICTIONARY("<u4", "(2,)"), "\1\0\0\0\xff\xff\xff\x7f", 8, {1, INT32_MAX}},
      {DICTIONARY("<u8", "(2,)"), "\1\0\0\0\0\0\0\0\xff\xff\xff\x7f\0\0\0\0", 16, {1, INT32_MAX}},
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    save_npy(path.text, 1, cases[i].dictionary, cases[i].elements, cases[i].size);
    struct vamp_array array = read_array(path.text);
    assert_int_equal(array.dtype, VAMP_I32);
    assert_memory_equal(array.data, cases[i].expected, 8);
    vamp_array_free(&array);
  }
  save_npy(path.text, 1, DICTIONARY("|b1", "(3,)"), "\0\1\2", 3);
  struct vamp_array array = read_array(path.text);
  assert_int_equal(array.dtype, VAMP_U8);
  assert_memory_equal(array.data, "\0\1\1", 3);
  vamp_array_free(&array);

  save_npy(path.text, 1, DICTIONARY("<i8", "(2,)"), "\1\0\0\0\0\0\0\0\0\0\0\x80\0\0\0\0", 16);
  expect(path.text, VAMP_INVALID, "element 1 of");
  save_npy(path.text, 1, DICTIONARY("<u4", "(1,)"), "\0\0\0\x80", 4);
  expect(path.text, VAMP_INVALID, "does not fit into int32");
  save_npy(path.text, 1, DICTIONARY("<u8", "(1,)"), "\xff\xff\xff\xff\xff\xff\xff\xff", 8);
  expect(path.text, VAMP_INVALID, "does not fit into int32");
}

static void test_doubles(void **state) {
  const struct path path = path_of(state);
  const double values[] = {1.5, -0.1, (double)INFINITY, (double)NAN, 1e-300, 1e39};
  save_npy(path.text, 2, DICTIONARY("<f8", "(5,)"), values, 40);
  struct vamp_array array = read_array(path.text);
  const float *floats = array.data;
  assert_int_equal(array.dtype, VAMP_F32);
  assert_true(floats[0] == 1.5f && floats[1] == -0.1f && isinf(floats[2]) && isnan(floats[3]) &&
              floats[4] == 0);
  vamp_array_free(&array);
  save_npy(path.text, 2, DICTIONARY("<f8", "(6,)"), values, 48);
  expect(path.text, VAMP_INVALID, "element 5 of");
}

/* More elements than are converted at a time. */
static void test_many(void **state) {
  const struct path path = path_of(state);
  enum { COUNT = 100003 };
  int64_t *values = malloc(COUNT * sizeof *values);
  assert_non_null(values);
  for (int64_t i = 0; i < COUNT; i++) {
    values[i] = i * 21001 - 7;
  }
  const size_t shape[1] = {COUNT};
  assert_int_equal(vamp_array_write(path.text, VAMP_I64, 1, shape, values, NULL), 0);
  struct vamp_array array = read_array(path.text);
  for (int64_t i = 0; i < COUNT; i++) {
    assert_int_equal(((int32_t *)array.data)[i], values[i]);
  }
  vamp_array_free(&array);
  free(values);
}

/* Spellings that numpy or others use; all of them six bytes. */
static void test_spellings(void **state) {
  const struct path path = path_of(state);
  const char *fine[] = {
      "{'descr': '|u1', 'fortran_order': False, 'shape': (2, 3), }          \n",
      "{\"descr\":\"|u1\",\"fortran_order\":False,\"shape\":(2,3)}",
      "{'shape': (2, 3), 'fortran_order': False, 'descr': '|u1'}\n",
      " { 'descr' : '|u1' , 'fortran_order' : False , 'shape' : ( 2 , 3 , ) , } \n",
  };
  for (size_t i = 0; i < 4; i++) {
    save_npy(path.text, 1, fine[i], "abcdef", 6);
    struct vamp_array array = read_array(path.text);
    assert_int_equal(array.dimensions, 2);
    assert_int_equal(array.shape[0], 2);
    assert_int_equal(array.shape[1], 3);
    assert_memory_equal(array.data, "abcdef", 6);
    vamp_array_free(&array);
  }
  /* One row, one column: the order makes no difference. */
  save_npy(path.text, 1, "{'descr': '|u1', 'fortran_order': True, 'shape': (1, 6)}", "abcdef", 6);
  struct vamp_array array = read_array(path.text);
  assert_memory_equal(array.data, "abcdef", 6);
  vamp_array_free(&array);
}

static void test_wrong(void **state) {
  const struct path path = path_of(state);
  const struct {
    const char *dictionary, *message;
  } cases[] = {
      {DICTIONARY("|u1", "(7,)"), "announces 7 bytes of elements and holds 6"},
      {DICTIONARY("|u1", "(5,)"), "announces 5 bytes of elements and holds 6"},
      {DICTIONARY("<f4", "(6,)"), "announces 24 bytes of elements and holds 6"},
      {DICTIONARY("|u1", "(99999999999999999999999,)"), "tuple of whole numbers"},
      {DICTIONARY("|u1", "(4294967296, 4294967296)"), "larger than the file"},
      {DICTIONARY("|u1", "(1073741824, 1073741824, 1073741824, 0)"), "larger than the file"},
      {DICTIONARY("|u1", "(-6,)"), "tuple of whole numbers"},
      {DICTIONARY("|u1", "(6.0,)"), "tuple of whole numbers"},
      {DICTIONARY("|u1", "(2 3)"), "tuple of whole numbers"},
      {DICTIONARY("|u1", "(,)"), "tuple of whole numbers"},
      {DICTIONARY("|u1", "(1, 1, 1, 1, 6)"), "more than 4 dimensions"},
      {DICTIONARY("|u1", "[6]"), "not a tuple"},
      {DICTIONARY(">f4", "(1,)"), "\">f4\"; convert them first"},
      {DICTIONARY("<c8", "(1,)"), "\"<c8\""},
      {DICTIONARY("|O", "(1,)"), "\"|O\""},
      {DICTIONARY("<U99999999999999999999999", "(1,)"), "not plain numbers"},
      {"{'descr': [('x', '<f4')], 'fortran_order': False, 'shape': (1,)}", "not plain numbers"},
      {"{'descr': '|u1', 'fortran_order': True, 'shape': (2, 3)}", "numpy.ascontiguousarray"},
      {"{'descr': '|u1', 'fortran_order': 0, 'shape': (2, 3)}", "neither True nor False"},
      {"{'descr': '|u1', 'shape': (2, 3)}", "incomplete"},
      {"{'descr': '|u1', 'descr': '|u1', 'fortran_order': False, 'shape': (2, 3)}", "a key twice"},
      {"{'descr': '|u1', 'fortran_order': False, 'shape': (2, 3), 'x': 1}", "unknown key"},
      {"{'descr': '|u1', 'fortran_order': False, 'shape': (2, 3)} + __import__('os')", "other text"},
      {"{'descr': '|u1' 'fortran_order': False, 'shape': (2, 3)}", "damaged"},
      {"{'descr': '|u1', 'fortran_order': False, 'shape': (2, 3)", "damaged"},
      {"{'descr': '|u1', 'fortran_order': False, 'shape': (2, ", "tuple of whole numbers"},
      {"{'descr': '|u", "not plain numbers"},
      {"{", "damaged"},
      {"", "not a dictionary"},
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    save_npy(path.text, 1, cases[i].dictionary, "\0\0\0\0\0\0", 6);
    expect(path.text, VAMP_INVALID, cases[i].message);
  }
}

static void test_wrong_beginning(void **state) {
  const struct path path = path_of(state);
  expect(path.text, VAMP_IO, "No such file");
  save(path.text, "", 0);
  expect(path.text, VAMP_INVALID, "too short");
  save(path.text, "\x93NUMPY\x01\x00\x10", 9);
  expect(path.text, VAMP_INVALID, "too short");
  save(path.text, "1,2,3\n4,5,6\n", 12);
  expect(path.text, VAMP_INVALID, "signature");
  save(path.text, "\x93NUMPY\x03\x00\x02\x00{}", 12);
  expect(path.text, VAMP_INVALID, "version");
  save(path.text, "\x93NUMPY\x01\x00\xff\xff{}", 12);
  expect(path.text, VAMP_INVALID, "header is longer than the file");
  save(path.text, "\x93NUMPY\x02\x00\xff\xff\xff\xff{}", 14);
  expect(path.text, VAMP_INVALID, "header is longer than the file");
  save(path.text, "\x93NUMPY\x02\x00\x01\x00", 10);
  expect(path.text, VAMP_INVALID, "too short");
  struct vamp_array array;
  assert_int_equal(vamp_array_read(*state, &array, NULL), VAMP_IO);
}

/* A sparse file: takes no disk, and no memory. */
static void test_too_large(void **state) {
  const struct path path = path_of(state);
  save_npy(path.text, 1, DICTIONARY("|u1", "(1073741825,)"), "", 0);
  assert_int_equal(truncate(path.text, ((off_t)1 << 30) + 1000), 0);
  expect(path.text, VAMP_LIMIT, "larger than 1 GiB");
  save_npy(path.text, 1, DICTIONARY("|i1", "(536870912,)"), "", 0); /* 2 GiB as int32 */
  off_t header = 10 + (off_t)strlen(DICTIONARY("|i1", "(536870912,)"));
  assert_int_equal(truncate(path.text, header + 536870912), 0);
  expect(path.text, VAMP_LIMIT, "more than 1 GiB as int32");
}

/* ---- 16-bit floats -------------------------------------------------------------------------------- */

static void test_half(void **state) {
  (void)state;
  assert_true(vamp_half_to_float(0x3C00) == 1 && vamp_half_to_float(0xC000) == -2);
  assert_true(vamp_half_to_float(0x7BFF) == 65504);
  assert_true(vamp_half_to_float(0x0001) == ldexpf(1, -24) && vamp_half_to_float(0x0400) == ldexpf(1, -14));
  assert_true(vamp_half_to_float(0x83FF) == -1023 * ldexpf(1, -24));
  assert_true(isinf(vamp_half_to_float(0x7C00)) && vamp_half_to_float(0xFC00) < 0);
  assert_true(isnan(vamp_half_to_float(0x7E00)) && isnan(vamp_half_to_float(0x7C01)));
  assert_true(vamp_half_to_float(0x8000) == 0 && signbit(vamp_half_to_float(0x8000)));
  for (unsigned half = 0; half < 0x7C00; half++) { /* every positive number, by its definition */
    int exponent = (int)(half >> 10), fraction = (int)(half & 0x3FF);
    float expected =
        exponent ? ldexpf((float)(1024 + fraction), exponent - 25) : ldexpf((float)fraction, -24);
    assert_true(vamp_half_to_float((uint16_t)half) == expected);
  }
}

static void test_bfloat16(void **state) {
  (void)state;
  for (uint32_t bits = 0; bits < 65536; bits++) { /* what is bfloat16 already stays */
    float value = vamp_bfloat16_to_float((uint16_t)bits);
    uint16_t back = vamp_float_to_bfloat16(value);
    assert_true(isnan(value) ? isnan(vamp_bfloat16_to_float(back)) : back == bits);
  }
  const float step = 1.0f / 128;                                      /* of bfloat16 between 1 and 2 */
  assert_int_equal(vamp_float_to_bfloat16(1 + step / 2), 0x3F80);     /* ties to even: down */
  assert_int_equal(vamp_float_to_bfloat16(1 + step * 3 / 2), 0x3F82); /* up */
  assert_int_equal(vamp_float_to_bfloat16(nextafterf(1 + step / 2, 2)), 0x3F81);
  assert_int_equal(vamp_float_to_bfloat16(nextafterf(1 + step * 3 / 2, 0)), 0x3F81);
  assert_int_equal(vamp_float_to_bfloat16(3.4028235e38f), 0x7F80); /* the largest float rounds to infinity */
  assert_int_equal(vamp_float_to_bfloat16(-INFINITY), 0xFF80);
  assert_int_equal(vamp_float_to_bfloat16(-0.0f), 0x8000);
  uint32_t narrow_nan = 0x7F800001u; /* whose kept bits alone would be infinity */
  float nan;
  memcpy(&nan, &narrow_nan, sizeof nan);
  assert_true(isnan(vamp_bfloat16_to_float(vamp_float_to_bfloat16(nan))));
}

static void test_sizes(void **state) {
  (void)state;
  assert_int_equal(vamp_dtype_size(VAMP_F32), 4);
  assert_int_equal(vamp_dtype_size(VAMP_F16), 2);
  assert_int_equal(vamp_dtype_size(VAMP_BF16), 2);
  assert_int_equal(vamp_dtype_size(VAMP_I32), 4);
  assert_int_equal(vamp_dtype_size(VAMP_I64), 8);
  assert_int_equal(vamp_dtype_size(VAMP_U8), 1);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_bytes),
      cmocka_unit_test_setup_teardown(test_round_trip, setup, teardown),
      cmocka_unit_test_setup_teardown(test_empty, setup, teardown),
      cmocka_unit_test(test_unwritable),
      cmocka_unit_test_setup_teardown(test_integers, setup, teardown),
      cmocka_unit_test_setup_teardown(test_doubles, setup, teardown),
      cmocka_unit_test_setup_teardown(test_many, setup, teardown),
      cmocka_unit_test_setup_teardown(test_spellings, setup, teardown),
      cmocka_unit_test_setup_teardown(test_wrong, setup, teardown),
      cmocka_unit_test_setup_teardown(test_wrong_beginning, setup, teardown),
      cmocka_unit_test_setup_teardown(test_too_large, setup, teardown),
      cmocka_unit_test(test_half),
      cmocka_unit_test(test_bfloat16),
      cmocka_unit_test(test_sizes),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
