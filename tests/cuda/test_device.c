/*
 * The CUDA device itself: how it is opened, its arena, copies larger and more than its ring of pinned memory
 * takes, batches of more sequences than its tables had room for, and when a step is recorded. What memory
 * runs out at must stay usable.
 */
#include "tests/cuda/devices.h"

static struct vamp_device *open_device(enum vamp_precision precision, bool given, const char *mebibytes) {
  const char *path = getenv("VAMP_TEST_PLUGIN");
  void *object = path ? dlopen(path, RTLD_NOW | RTLD_LOCAL) : NULL;
  const struct vamp_plugin *plugin = object ? dlsym(object, VAMP_PLUGIN_SYMBOL) : NULL;
  struct vamp_device_options options = {.precision = precision, .precision_given = given};
  struct vamp_device *device = NULL;
  struct vamp_error error = {0};
  if (!plugin) {
    fail_msg("VAMP_TEST_PLUGIN names no plugin to test");
    return NULL;
  }
  if (mebibytes) {
    setenv("VAMP_CUDA_MEMORY_MIB", mebibytes, 1);
  }
  int status = plugin->open(&options, &device, &error);
  unsetenv("VAMP_CUDA_MEMORY_MIB");
  if (status) {
    fail_msg("%s", error.message);
  }
  return device;
}

static void test_open(void **state) {
  (void)state;
  struct vamp_device *device = open_device(VAMP_PRECISION_FP32, false, NULL);
  assert_non_null(strstr(device->backend, "cuda"));
  assert_non_null(strstr(device->description, "compute capability"));
  assert_int_equal(device->precision, VAMP_PRECISION_BF16);
  assert_int_equal(device->act_size, 2);
  assert_true(device->step_rows > 0 && device->codec_rows > 0);
  device->close(device);
  device = open_device(VAMP_PRECISION_FP32, true, "100");
  assert_int_equal(device->act_size, 4);
  assert_non_null(strstr(device->description, "100 MiB, fp32"));
  device->close(device);
  device = open_device(VAMP_PRECISION_TF32, true, "100");
  assert_int_equal(device->precision, VAMP_PRECISION_TF32);
  assert_int_equal(device->act_size, 4);
  assert_non_null(strstr(device->description, "100 MiB, tf32"));
  device->close(device);
}

static void test_copies(void **state) {
  (void)state;
  static const size_t SIZES[] = {0, 1, 255, 256, 257, 262144, 262145, 5000000};
  struct vamp_device *device = open_device(VAMP_PRECISION_FP32, true, NULL);
  const struct vamp_operations *ops = device->ops;
  for (int i = 0; i < COUNT(SIZES); i++) {
    size_t size = SIZES[i];
    void *first = NULL, *second = NULL;
    assert_int_equal(ops->allocate(device, size, &first, NULL), 0);
    assert_int_equal(ops->allocate(device, size, &second, NULL), 0);
    assert_ptr_not_equal(first, second);
    uint8_t *out = taken(malloc(size + 1)), *back = taken(calloc(size + 1, 1)),
            *gone = taken(malloc(size + 1));
    for (size_t b = 0; b < size; b++) {
      out[b] = gone[b] = (uint8_t)(b * 7 + b / 251);
    }
    assert_int_equal(ops->upload(device, first, gone, size), 0);
    memset(gone, 0xFF, size); /* what was uploaded is the device's at once */
    assert_int_equal(ops->copy(device, second, first, size), 0);
    assert_int_equal(ops->download(device, back, second, size), 0);
    assert_int_equal(ops->wait(device), 0);
    assert_memory_equal(out, back, size);
    free(out);
    free(back);
    free(gone);
    ops->release(device, first);
    ops->release(device, second);
  }
  ops->release(device, NULL);
  ops->weight_free(device, NULL);
  device->close(device);
}

/* More uploads than the ring has slots, none waited for. */
static void test_many_uploads(void **state) {
  (void)state;
  enum { COPIES = 50, EACH = 1000 };
  struct vamp_device *device = open_device(VAMP_PRECISION_FP32, true, NULL);
  const struct vamp_operations *ops = device->ops;
  int32_t block[EACH], *back = taken(malloc(sizeof *back * COPIES * EACH));
  void *memory = NULL;
  assert_int_equal(ops->allocate(device, sizeof *back * COPIES * EACH, &memory, NULL), 0);
  for (int c = 0; c < COPIES; c++) {
    for (int i = 0; i < EACH; i++) {
      block[i] = c * EACH + i;
    }
    assert_int_equal(ops->upload(device, (int32_t *)memory + c * EACH, block, sizeof block), 0);
  }
  assert_int_equal(ops->download(device, back, memory, sizeof *back * COPIES * EACH), 0);
  for (int i = 0; i < COPIES * EACH; i++) {
    assert_int_equal(back[i], i);
  }
  ops->release(device, memory);
  free(back);
  device->close(device);
}

/* Norm of four channels: works, or says that it does not. */
static void check_works(struct vamp_device *device) {
  static const float VALUES[4] = {3, 0, -4, 0}, ONES[4] = {1, 1, 1, 1};
  struct vamp_weight *weight = NULL;
  float got[4], *x = device_array(device, VALUES, sizeof VALUES),
                *y = device_array(device, VALUES, sizeof VALUES);
  assert_int_equal(device->ops->vector_create(device, ONES, 4, &weight, NULL), 0);
  assert_int_equal(device->ops->rms_norm(device, weight, 1, 4, x, y), 0);
  assert_int_equal(device->ops->download(device, got, y, sizeof got), 0);
  for (int i = 0; i < 4; i++) {
    assert_true(fabsf(got[i] - VALUES[i] / 2.5f) < 1e-5f);
  }
  device->ops->release(device, x);
  device->ops->release(device, y);
  device->ops->weight_free(device, weight);
}

/* Filled up, emptied in another order, and whole again. */
static void test_exhausted(void **state) {
  (void)state;
  enum { PIECES = 256 };
  struct vamp_device *device = open_device(VAMP_PRECISION_FP32, true, "64");
  const struct vamp_operations *ops = device->ops;
  struct vamp_error error = {0};
  void *piece[PIECES] = {NULL}, *whole = NULL;
  int count = 0, status = 0;
  while (count < PIECES && (status = ops->allocate(device, (size_t)1 << 20, &piece[count], &error)) == 0) {
    count++;
  }
  assert_int_equal(status, VAMP_MEMORY);
  assert_true(count > 50 && count < 64);
  assert_true(strlen(error.message) > 0);
  float *values = taken(calloc((size_t)1 << 20, sizeof *values));
  struct vamp_weight *weight = NULL;
  assert_int_equal(ops->vector_create(device, values, (size_t)1 << 20, &weight, &error), VAMP_MEMORY);
  assert_int_equal(ops->linear_create(device, 1024, 1024, false, values, values, &weight, &error),
                   VAMP_MEMORY);
  assert_int_equal(ops->embedding_create(device, 1, 1024, 1, 1024, values, values, values, &weight, &error),
                   VAMP_MEMORY);
  assert_null(weight);
  free(values);
  for (int i = 0; i < count; i += 2) {
    ops->release(device, piece[i]);
  }
  check_works(device);
  assert_int_equal(ops->allocate(device, (size_t)40 << 20, &whole, NULL), VAMP_MEMORY); /* not in one piece */
  for (int i = 1; i < count; i += 2) {
    ops->release(device, piece[i]);
  }
  assert_int_equal(ops->allocate(device, (size_t)55 << 20, &whole, NULL), 0);
  ops->release(device, whole);
  assert_int_equal(ops->allocate(device, SIZE_MAX - 100, &whole, NULL), VAMP_MEMORY);
  check_works(device);
  device->close(device);
}

/* An operation whose scratch does not fit fails, and the next one works. */
static void test_no_scratch(void **state) {
  (void)state;
  enum { ROWS = 600, WIDTH = 16384 }; /* 38 MiB between product and gate */
  struct vamp_device *device = open_device(VAMP_PRECISION_FP32, true, "64");
  const struct vamp_operations *ops = device->ops;
  float *values = taken(calloc((size_t)WIDTH * 8, sizeof *values));
  struct vamp_weight *weight = NULL;
  void *in = device_array(device, values, sizeof *values * 8 * ROWS), *out = NULL;
  int64_t offsets[2] = {0, ROWS};
  struct vamp_packing packing = {1, offsets};
  assert_int_equal(ops->linear_create(device, WIDTH, 8, true, values, NULL, &weight, NULL), 0);
  assert_int_equal(ops->allocate(device, sizeof(float) * ROWS * WIDTH / 2, &out, NULL), 0);
  void *most = NULL;
  assert_int_equal(ops->allocate(device, (size_t)8 << 20, &most, NULL), 0);
  assert_int_equal(ops->linear(device, weight, VAMP_GATED_GELU, &packing, in, out), VAMP_MEMORY);
  check_works(device);
  ops->release(device, most);
  ops->release(device, out);
  ops->release(device, in);
  ops->weight_free(device, weight);
  device->close(device);
  free(values);
}

/* One-frame sequences in growing numbers: the tables of a batch grow, and every row is its own token's. */
static void test_many_sequences(void **state) {
  (void)state;
  enum { MOST = 700, ENTRIES = 11, WIDTH = 4 };
  static const int COUNTS[] = {3, 65, MOST, 2};
  struct vamp_device *device = open_device(VAMP_PRECISION_FP32, true, NULL);
  const struct vamp_operations *ops = device->ops;
  float tables[ENTRIES], projection[WIDTH], *got = taken(malloc(sizeof *got * MOST * WIDTH));
  int32_t *tokens = taken(malloc(sizeof *tokens * MOST));
  int64_t *offsets = taken(malloc(sizeof *offsets * (MOST + 1)));
  struct vamp_sequence *sequences = taken(calloc(MOST, sizeof *sequences));
  struct vamp_weight *embedding = NULL;
  for (int i = 0; i < ENTRIES; i++) {
    tables[i] = (float)(i * i);
  }
  for (int w = 0; w < WIDTH; w++) {
    projection[w] = (float)(w + 1);
  }
  assert_int_equal(
      ops->embedding_create(device, 1, ENTRIES, 1, WIDTH, tables, projection, NULL, &embedding, NULL), 0);
  for (int i = 0; i < MOST; i++) {
    tokens[i] = i * 7 % ENTRIES;
    offsets[i] = i;
  }
  offsets[MOST] = MOST;
  int32_t *on_device = device_array(device, tokens, sizeof *tokens * MOST);
  float *x = device_array(device, got, sizeof *got * MOST * WIDTH);
  for (int c = 0; c < COUNT(COUNTS); c++) {
    struct vamp_packing packing = {COUNTS[c], offsets};
    for (int s = 0; s < COUNTS[c]; s++) {
      sequences[s].tokens =
          on_device + (s + c) % MOST; /* other sequences each time, in an equal packing too */
    }
    assert_int_equal(ops->embed(device, embedding, &packing, sequences, x), 0);
    assert_int_equal(ops->download(device, got, x, sizeof *got * (size_t)COUNTS[c] * WIDTH), 0);
    for (int i = 0; i < COUNTS[c] * WIDTH; i++) {
      int token = tokens[(i / WIDTH + c) % MOST];
      assert_true(got[i] == (float)(token * token * (i % WIDTH + 1)));
    }
  }
  ops->release(device, x);
  ops->release(device, on_device);
  ops->weight_free(device, embedding);
  free(sequences);
  free(offsets);
  free(tokens);
  free(got);
  device->close(device);
}

static void test_unsupported(void **state) {
  (void)state;
  struct vamp_device *device = open_device(VAMP_PRECISION_FP32, true, NULL);
  float *zeros = taken(calloc(3 * 300 + 32, sizeof *zeros));
  struct vamp_weight *bias = NULL;
  int64_t offsets[2] = {0, 1};
  struct vamp_packing packing = {1, offsets};
  void *qkv = device_array(device, zeros, sizeof *zeros * 900), *out = device_array(device, zeros, 1200);
  assert_int_equal(device->ops->vector_create(device, zeros, 32, &bias, NULL), 0);
  assert_int_equal(device->ops->attention(device, bias, &packing, 1, 300, qkv, out), VAMP_UNSUPPORTED);
  check_works(device);
  device->ops->release(device, qkv);
  device->ops->release(device, out);
  device->ops->weight_free(device, bias);
  free(zeros);
  device->close(device);
}

/* ---- recorded steps: one product for each ------------------------------------------------------------- */

enum { STEP_ROWS = 70, STEP_ROOM = 128, STEP_K = 64, STEP_MOST = 256 };

struct one_step {
  struct vamp_device *device;
  struct vamp_step step;
  struct vamp_packing packing;
  struct vamp_sequence sequence;
  void *in, *out;
};

static struct vamp_weight *step_weight(const struct one_step *s, int n) {
  struct vamp_weight *weight = NULL;
  float *values = random_weights((size_t)n * STEP_K, STEP_K, (uint64_t)n);
  assert_int_equal(s->device->ops->linear_create(s->device, n, STEP_K, false, values, NULL, &weight, NULL),
                   0);
  free(values);
  return weight;
}

/* Whether the step was replayed; `status`: what its operations are said to have come to. */
static bool step_runs(struct one_step *s, const struct vamp_weight *weight, int n, int status) {
  const struct vamp_operations *ops = s->device->ops;
  float *plain = taken(malloc(sizeof *plain * STEP_ROWS * STEP_MOST));
  float *got = taken(malloc(sizeof *got * STEP_ROWS * STEP_MOST));
  bool replayed;
  assert_int_equal(ops->step_begin(s->device, &s->step, &s->packing, &s->sequence, &replayed), 0);
  if (!replayed) {
    status = status ? status : ops->linear(s->device, weight, VAMP_STORE_F32, &s->packing, s->in, s->out);
    assert_int_equal(ops->step_end(s->device, status), status);
  }
  if (!status) {
    assert_int_equal(ops->download(s->device, got, s->out, sizeof *got * STEP_ROWS * (size_t)n), 0);
    assert_int_equal(ops->linear(s->device, weight, VAMP_STORE_F32, &s->packing, s->in, s->out), 0);
    assert_int_equal(ops->download(s->device, plain, s->out, sizeof *got * STEP_ROWS * (size_t)n), 0);
    assert_memory_equal(got, plain, sizeof *got * STEP_ROWS * (size_t)n);
  }
  free(plain);
  free(got);
  return replayed;
}

/* A step is recorded once it has run to its end with all that it needs: not when that failed, and not when a
 * weight was freed since, whose place another may have taken. */
static void test_recording(void **state) {
  (void)state;
  static const int64_t OFFSETS[] = {0, STEP_ROWS};
  struct one_step s = {.device = open_device(VAMP_PRECISION_BF16, true, "64"), .packing = {1, OFFSETS}};
  const struct vamp_operations *ops = s.device->ops;
  float *values = random_floats((size_t)STEP_ROOM * STEP_MOST, 1, 3);
  s.in = device_array(s.device, values, sizeof(uint16_t) * STEP_ROOM * STEP_K);
  s.out = device_array(s.device, values, sizeof *values * STEP_ROOM * STEP_MOST);
  s.step = (struct vamp_step){&s, {s.in, s.out, NULL}};
  struct vamp_weight *first = step_weight(&s, 64);
  assert_false(step_runs(&s, first, 64, VAMP_MEMORY)); /* did not come to its end */
  assert_false(step_runs(&s, first, 64, 0));           /* kernel by kernel */
  ops->weight_free(s.device, first);
  struct vamp_weight *second = step_weight(&s, 128);
  assert_false(step_runs(&s, second, 128, 0)); /* kernel by kernel */
  assert_false(step_runs(&s, second, 128, 0)); /* recorded */
  for (int i = 0; i < 2; i++) {
    assert_true(step_runs(&s, second, 128, 0));
  }
  ops->weight_free(s.device, second);
  ops->release(s.device, s.in);
  ops->release(s.device, s.out);
  free(values);
  s.device->close(s.device);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_open),         cmocka_unit_test(test_copies),
      cmocka_unit_test(test_many_uploads), cmocka_unit_test(test_exhausted),
      cmocka_unit_test(test_no_scratch),   cmocka_unit_test(test_many_sequences),
      cmocka_unit_test(test_unsupported),  cmocka_unit_test(test_recording),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
