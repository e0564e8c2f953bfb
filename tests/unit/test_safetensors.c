/*
 * The .safetensors reader: files as they should be, and files as a hostile or broken program may write
 * them. Each case is a header given as text and a number of data bytes; the file is put together here.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "engine/model/safetensors.h"

/* A file in memory. Its size is exact, so that the address sanitizer sees a read past its end. */
struct image {
  unsigned char *bytes;
  size_t size;
};

static struct image image_of(const char *header, const void *data, size_t data_size) {
  size_t length = strlen(header);
  struct image image = {.size = 8 + length + data_size};
  image.bytes = malloc(image.size);
  assert_non_null(image.bytes);
  for (int i = 0; i < 8; i++) {
    image.bytes[i] = (unsigned char)((uint64_t)length >> 8 * i);
  }
  memcpy(image.bytes + 8, header, length);
  if (data) {
    memcpy(image.bytes + 8 + length, data, data_size);
  } else {
    memset(image.bytes + 8 + length, 0, data_size);
  }
  return image;
}

static struct vamp_safetensors *open_good(const struct image *image) {
  struct vamp_safetensors *file = NULL;
  struct vamp_error error = {0};
  int status = vamp_safetensors_open_memory(image->bytes, image->size, "good.safetensors", &file, &error);
  if (status) {
    fail_msg("%s", error.message);
  }
  return file;
}

/* Opening must fail with `status` and a message that has the file and both texts in it. */
static void refuse_bytes(const void *bytes, size_t size, int status, const char *first, const char *second) {
  struct vamp_safetensors *file = NULL;
  struct vamp_error error = {0};
  assert_int_equal(vamp_safetensors_open_memory(bytes, size, "bad.safetensors", &file, &error), status);
  assert_null(file);
  assert_int_equal(error.status, status);
  if (!strstr(error.message, "bad.safetensors") || !strstr(error.message, first) ||
      !strstr(error.message, second)) {
    fail_msg("'%s' lacks the file, '%s' or '%s'", error.message, first, second);
  }
}

static void refuse(const char *header, size_t data_size, const char *first, const char *second) {
  struct image image = image_of(header, NULL, data_size);
  refuse_bytes(image.bytes, image.size, VAMP_INVALID, first, second);
  free(image.bytes);
}

static void reads_tensors_of_every_type(void **state) {
  (void)state;
  struct {
    float single[3];
    uint16_t half[6], bfloat[4];
    int64_t whole;
  } data = {.single = {1.5f, -2, 0},
            /* 1, -2, the largest, the smallest normal, the smallest subnormal, -0 */
            .half = {0x3c00, 0xc000, 0x7bff, 0x0400, 0x0001, 0x8000},
            .bfloat = {0x3f80, 0xc000, 0x7f7f, 0x0001},
            .whole = 7};
  unsigned char packed[40];
  memcpy(packed, data.single, 12);
  memcpy(packed + 12, data.half, 12);
  memcpy(packed + 24, data.bfloat, 8);
  memcpy(packed + 32, &data.whole, 8);
  struct image image = image_of("{\"__metadata__\":{\"made by\":\"a test\"},"
                                "\"whole\":{\"dtype\":\"I64\",\"shape\":[],\"data_offsets\":[32,40]},"
                                "\"half\":{\"dtype\":\"F16\",\"shape\":[2,3],\"data_offsets\":[12,24]},"
                                "\"bfloat\":{\"dtype\":\"BF16\",\"shape\":[4],\"data_offsets\":[24,32]},"
                                "\"single\":{\"dtype\":\"F32\",\"shape\":[1,3],\"data_offsets\":[0,12]},"
                                "\"empty\":{\"dtype\":\"F32\",\"shape\":[0,9],\"data_offsets\":[12,12]}}   ",
                                packed, sizeof packed);
  struct vamp_safetensors *file = open_good(&image);
  assert_int_equal(vamp_safetensors_count(file), 5);
  assert_string_equal(vamp_safetensors_tensor(file, 0)->name, "bfloat"); /* by name */
  assert_null(vamp_safetensors_tensor(file, 5));
  assert_null(vamp_safetensors_find(file, "__metadata__"));
  assert_null(vamp_safetensors_find(file, "sing"));

  float out[6];
  const struct vamp_tensor *tensor = vamp_safetensors_find(file, "single");
  assert_int_equal(tensor->rank, 2);
  assert_int_equal(tensor->shape[1], 3);
  assert_int_equal(vamp_tensor_to_float(file, tensor, out, NULL), 0);
  assert_memory_equal(out, data.single, sizeof data.single);

  tensor = vamp_safetensors_find(file, "half");
  assert_int_equal(tensor->count, 6);
  assert_int_equal(vamp_tensor_to_float(file, tensor, out, NULL), 0);
  const float halves[] = {1, -2, 65504, 0x1p-14f, 0x1p-24f, -0.0f};
  assert_memory_equal(out, halves, sizeof halves);

  assert_int_equal(vamp_tensor_to_float(file, vamp_safetensors_find(file, "bfloat"), out, NULL), 0);
  const float bfloats[] = {1, -2, 0x1.fep127f, 0x1p-133f};
  assert_memory_equal(out, bfloats, sizeof bfloats);

  tensor = vamp_safetensors_find(file, "empty");
  assert_int_equal(tensor->count, 0);
  assert_int_equal(vamp_tensor_to_float(file, tensor, out, NULL), 0);

  struct vamp_error error;
  tensor = vamp_safetensors_find(file, "whole");
  assert_false(tensor->readable);
  assert_int_equal(vamp_tensor_to_float(file, tensor, out, &error), VAMP_UNSUPPORTED);
  assert_non_null(strstr(error.message, "'whole'"));
  vamp_safetensors_close(file);
  free(image.bytes);
}

/* Every half there is, against the definition. The data begins at an odd byte. */
static void converts_every_half(void **state) {
  (void)state;
  enum { COUNT = 0x10000 };
  uint16_t *halves = malloc(COUNT * sizeof *halves);
  float *out = malloc(COUNT * sizeof *out);
  assert_non_null(halves);
  assert_non_null(out);
  size_t count = 0;
  for (uint32_t half = 0; half < COUNT; half++) {
    if ((half & 0x7c00) != 0x7c00) {
      halves[count++] = (uint16_t)half;
    }
  }
  char header[160];
  int length =
      snprintf(header, sizeof header, "{\"h\":{\"dtype\":\"F16\",\"shape\":[%zu],\"data_offsets\":[0,%zu]}}",
               count, 2 * count);
  if (length % 2 == 0) {
    strcat(header, " ");
  }
  struct image image = image_of(header, halves, 2 * count);
  struct vamp_safetensors *file = open_good(&image);
  assert_int_equal(vamp_tensor_to_float(file, vamp_safetensors_find(file, "h"), out, NULL), 0);
  for (size_t i = 0; i < count; i++) {
    int exponent = halves[i] >> 10 & 31, mantissa = halves[i] & 1023;
    float magnitude = exponent ? ldexpf(1024 + (float)mantissa, exponent - 25) : ldexpf((float)mantissa, -24);
    assert_true(fabsf(out[i]) == magnitude);
    assert_int_equal(signbit(out[i]) != 0, halves[i] >> 15);
  }
  vamp_safetensors_close(file);
  free(image.bytes);
  free(out);
  free(halves);
}

static void refuses_values_that_are_not_finite(void **state) {
  (void)state;
  const struct {
    const char *type;
    uint32_t bits;
    size_t size;
  } bad[] = {{"F32", 0x7fc00000, 4}, {"F32", 0xff800000, 4}, {"F16", 0x7c00, 2},
             {"F16", 0xfe01, 2},     {"BF16", 0x7f80, 2},    {"BF16", 0xffc0, 2}};
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
    enum { COUNT = 37 }; /* not a whole number of vectors; the bad one is the last */
    unsigned char data[COUNT * 4] = {0};
    memcpy(data + (COUNT - 1) * bad[i].size, &bad[i].bits, bad[i].size);
    char header[160];
    snprintf(header, sizeof header, "{\"sick\":{\"dtype\":\"%s\",\"shape\":[%d],\"data_offsets\":[0,%zu]}}",
             bad[i].type, COUNT, COUNT * bad[i].size);
    struct image image = image_of(header, data, COUNT * bad[i].size);
    struct vamp_safetensors *file = open_good(&image);
    float out[COUNT];
    struct vamp_error error;
    assert_int_equal(vamp_tensor_to_float(file, vamp_safetensors_find(file, "sick"), out, &error),
                     VAMP_INVALID);
    assert_non_null(strstr(error.message, "good.safetensors: tensor 'sick'"));
    vamp_safetensors_close(file);
    free(image.bytes);
  }
}

static void refuses_wrong_lengths(void **state) {
  (void)state;
  refuse_bytes("", 0, VAMP_INVALID, "0 bytes", "too few");
  refuse_bytes("\2\0\0\0\0\0\0", 7, VAMP_INVALID, "7 bytes", "too few");
  refuse_bytes("\0\0\0\0\0\0\0\0", 8, VAMP_INVALID, "JSON", "");
  refuse_bytes("\3\0\0\0\0\0\0\0{}", 10, VAMP_INVALID, "header of 3 bytes", "ends after 2");
  /* 10 GB, 2^63 + 2, all ones */
  refuse_bytes("\0\xe4\x0b\x54\x02\0\0\0{}", 10, VAMP_LIMIT, "header of 10000000000", "");
  refuse_bytes("\2\0\0\0\0\0\0\x80{}", 10, VAMP_LIMIT, "header", "");
  refuse_bytes("\xff\xff\xff\xff\xff\xff\xff\xff{}", 10, VAMP_LIMIT, "18446744073709551615", "");
}

static void refuses_bad_headers(void **state) {
  (void)state;
  refuse("[]", 0, "not a JSON object", "");
  refuse("{} {}", 0, "JSON", "");
  refuse("{\"a\":3}", 0, "'a'", "dtype");
  refuse("{\"a\":{\"shape\":[],\"data_offsets\":[0,4]}}", 4, "'a'", "dtype");
  refuse("{\"a\":{\"dtype\":\"F31\",\"shape\":[],\"data_offsets\":[0,4]}}", 4, "'a'", "dtype");
  refuse("{\"a\":{\"dtype\":\"F32\",\"data_offsets\":[0,4]}}", 4, "'a'", "shape");
  refuse("{\"a\":{\"dtype\":\"F32\",\"shape\":3,\"data_offsets\":[0,4]}}", 4, "'a'", "shape");
  refuse("{\"a\":{\"dtype\":\"F32\",\"shape\":[1,1,1,1,1,1,1,1,1],\"data_offsets\":[0,4]}}", 4, "'a'",
         "shape");
  refuse("{\"a\":{\"dtype\":\"F32\",\"shape\":[-1],\"data_offsets\":[0,4]}}", 4, "'a'", "dimension 0");
  refuse("{\"a\":{\"dtype\":\"F32\",\"shape\":[1,1.0],\"data_offsets\":[0,4]}}", 4, "'a'", "dimension 1");
  refuse("{\"a\":{\"dtype\":\"F32\",\"shape\":[\"1\"],\"data_offsets\":[0,4]}}", 4, "'a'", "dimension 0");
  refuse("{\"b\":{},\"a\":{\"dtype\":\"F32\",\"shape\":[NaN],\"data_offsets\":[0,4]}}", 4, "'a'", "NaN");
  refuse("{\"a\":{\"dtype\":\"F32\",\"shape\":[1e999],\"data_offsets\":[0,4]}}", 4, "'a'", "");
  refuse("{\"a\":{\"dtype\":\"F32\",\"shape\":[99999999999999999999],\"data_offsets\":[0,4]}}", 4, "'a'", "");
  refuse("{\"a\":{\"dtype\":\"F32\",\"shape\":[4294967296,4294967296],\"data_offsets\":[0,4]}}", 4, "'a'",
         "more elements");
  refuse("{\"a\":{\"dtype\":\"F32\",\"shape\":[4611686018427387905],\"data_offsets\":[0,4]}}", 4, "'a'",
         "do not fit");
  refuse("{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,4]}}", 4, "'a'", "2 elements of F32");
  refuse("{\"a\":{\"dtype\":\"F32\",\"shape\":[],\"data_offsets\":[0]}}", 4, "'a'", "data_offsets");
  refuse("{\"a\":{\"dtype\":\"F32\",\"shape\":[],\"data_offsets\":[-4,0]}}", 4, "'a'", "data_offsets");
  refuse("{\"a\":{\"dtype\":\"F32\",\"shape\":[],\"data_offsets\":[4,0]}}", 4, "'a'", "data_offsets");
  refuse("{\"a\":{\"dtype\":\"F32\",\"shape\":[],\"data_offsets\":[0,4.0]}}", 4, "'a'", "data_offsets");
  refuse("{\"a\":{\"dtype\":\"F32\",\"shape\":[],\"data_offsets\":[4,8]}}", 4, "'a'", "ends at byte 8");
  refuse("{\"\":{\"dtype\":\"F32\",\"shape\":[],\"data_offsets\":[0,4]}}", 4, "name", "");
  refuse("{\"a\\u001b[2J\":{\"dtype\":\"F32\",\"shape\":[],\"data_offsets\":[0,4]}}", 4, "control character",
         "");
  refuse("{\"a\\u0000\":{\"dtype\":\"F32\",\"shape\":[],\"data_offsets\":[0,4]}}", 4, "JSON", "");
}

static void refuses_bad_layouts(void **state) {
  (void)state;
#define AT(name, begin, end)                                                                                 \
  "\"" name "\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[" begin "," end "]}"
  refuse("{" AT("first", "0", "4") "," AT("second", "2", "6") "}", 6, "'second'", "overlaps that of 'first'");
  refuse("{" AT("first", "0", "4") "," AT("second", "0", "4") "}", 4, "'second'", "overlaps");
  refuse("{" AT("first", "0", "4") "," AT("second", "5", "9") "}", 9, "'second'", "no tensor");
  refuse("{" AT("first", "0", "4") "}", 7, "last 3 bytes", "");
  refuse("{" AT("twice", "0", "4") "," AT("twice", "4", "8") "}", 8, "'twice'", "duplicate");
}

static void bounds_the_number_of_values(void **state) {
  (void)state;
  size_t commas = 13 * (size_t)VAMP_SAFETENSORS_MAX_TENSORS;
  char *header = malloc(commas + 16);
  assert_non_null(header);
  memcpy(header, "{\"a\":[", 6);
  memset(header + 6, ',', commas);
  strcpy(header + 6 + commas, "]}");
  struct image image = image_of(header, NULL, 0);
  refuse_bytes(image.bytes, image.size, VAMP_LIMIT, "more values", "");
  free(image.bytes);
  /* nesting as deep as the header is long */
  memset(header, '[', commas);
  header[commas] = '\0';
  image = image_of(header, NULL, 0);
  refuse_bytes(image.bytes, image.size, VAMP_INVALID, "JSON", "");
  free(image.bytes);
  free(header);
}

/* Whatever byte is broken, the reader answers, and never reads outside the file. */
static void survives_every_broken_byte(void **state) {
  (void)state;
  const char *header = "{\"a.w\":{\"dtype\":\"F32\",\"shape\":[2,1],\"data_offsets\":[0,8]},"
                       "\"b\":{\"dtype\":\"BF16\",\"shape\":[2],\"data_offsets\":[8,12]}}";
  struct image image = image_of(header, NULL, 12);
  int opened = 0;
  for (size_t at = 0; at < image.size - 12; at++) {
    unsigned char before = image.bytes[at];
    for (int value = 0; value < 256; value += 1 + (at < 8 ? 0 : 6)) {
      image.bytes[at] = (unsigned char)value;
      struct vamp_safetensors *file = NULL;
      if (vamp_safetensors_open_memory(image.bytes, image.size, "broken", &file, NULL) == 0) {
        float out[4];
        for (size_t i = 0; i < vamp_safetensors_count(file); i++) {
          const struct vamp_tensor *tensor = vamp_safetensors_tensor(file, i);
          assert_true(tensor->count <= 4);
          (void)vamp_tensor_to_float(file, tensor, out, NULL);
        }
        vamp_safetensors_close(file);
        opened++;
      }
    }
    image.bytes[at] = before;
  }
  assert_true(opened > 0); /* a name may be any letter */
  free(image.bytes);
}

static void maps_files(void **state) {
  (void)state;
  char folder[] = "/tmp/vamp-safetensors-XXXXXX", path[64], fifo[64];
  assert_non_null(mkdtemp(folder));
  snprintf(path, sizeof path, "%s/a.safetensors", folder);
  snprintf(fifo, sizeof fifo, "%s/nowhere.safetensors", folder);
  enum { COUNT = 10000 };
  float data[COUNT], out[COUNT];
  for (int i = 0; i < COUNT; i++) {
    data[i] = (float)i;
  }
  struct image image =
      image_of("{\"a\":{\"dtype\":\"F32\",\"shape\":[10000],\"data_offsets\":[0,40000]}}", data, sizeof data);
  FILE *stream = fopen(path, "wb");
  assert_non_null(stream);
  assert_int_equal(fwrite(image.bytes, 1, image.size, stream), image.size);
  fclose(stream);
  free(image.bytes);

  struct vamp_safetensors *file = NULL;
  struct vamp_error error = {0};
  assert_int_equal(vamp_safetensors_open(path, &file, &error), 0);
  const struct vamp_tensor *tensor = vamp_safetensors_find(file, "a");
  for (int round = 0; round < 2; round++) { /* pages that were released come back */
    assert_int_equal(vamp_tensor_to_float(file, tensor, out, NULL), 0);
    assert_memory_equal(out, data, sizeof data);
    vamp_safetensors_release(file, tensor);
    memset(out, 0, sizeof out);
  }
  vamp_safetensors_close(file);

  file = NULL;
  assert_int_equal(truncate(path, 1000), 0);
  assert_int_equal(vamp_safetensors_open(path, &file, &error), VAMP_INVALID);
  assert_non_null(strstr(error.message, "a.safetensors: tensor 'a'"));
  assert_int_equal(truncate(path, 0), 0);
  assert_int_equal(vamp_safetensors_open(path, &file, &error), VAMP_INVALID);
  assert_int_equal(vamp_safetensors_open(fifo, &file, &error), VAMP_IO);
  assert_non_null(strstr(error.message, "nowhere.safetensors"));
  assert_int_equal(vamp_safetensors_open(folder, &file, &error), VAMP_IO);
  assert_null(file);
  unlink(path);
  rmdir(folder);
}

static void shape_texts_never_overflow(void **state) {
  (void)state;
  char text[16];
  assert_string_equal(vamp_shape_text(0, NULL, text, sizeof text), "[]");
  assert_string_equal(vamp_shape_text(2, (int64_t[]){3, 40}, text, sizeof text), "[3, 40]");
  vamp_shape_text(3, (int64_t[]){INT64_MAX, INT64_MAX, 1}, text, sizeof text);
  assert_int_equal(strlen(text), 15);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(reads_tensors_of_every_type),
      cmocka_unit_test(converts_every_half),
      cmocka_unit_test(refuses_values_that_are_not_finite),
      cmocka_unit_test(refuses_wrong_lengths),
      cmocka_unit_test(refuses_bad_headers),
      cmocka_unit_test(refuses_bad_layouts),
      cmocka_unit_test(bounds_the_number_of_values),
      cmocka_unit_test(survives_every_broken_byte),
      cmocka_unit_test(maps_files),
      cmocka_unit_test(shape_texts_never_overflow),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
