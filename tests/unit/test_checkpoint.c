/*
 * Weights as the graph asks for them: shapes, weight norm, LoRA, and what is refused. The tests write
 * small files and compare with sums worked out by hand.
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

#include "engine/model/checkpoint.h"

/* A tensor to write: name, shape as JSON, values. */
struct piece {
  const char *name, *shape;
  int count;
  float values[16];
};

static struct vamp_checkpoint *checkpoint_of(const struct piece *pieces, int count) {
  char folder[] = "/tmp/vamp-checkpoint-XXXXXX", path[64], header[4096] = "{";
  assert_non_null(mkdtemp(folder));
  snprintf(path, sizeof path, "%s/coarse.safetensors", folder);
  size_t length = 1, at = 0;
  for (int i = 0; i < count; i++) {
    size_t end = at + 4 * (size_t)pieces[i].count;
    length += (size_t)snprintf(header + length, sizeof header - length,
                               "%s\"%s\":{\"dtype\":\"F32\",\"shape\":%s,\"data_offsets\":[%zu,%zu]}",
                               i ? "," : "", pieces[i].name, pieces[i].shape, at, end);
    at = end;
  }
  header[length++] = '}';
  unsigned char size[8] = {(unsigned char)length, (unsigned char)(length >> 8)};
  FILE *stream = fopen(path, "wb");
  assert_non_null(stream);
  fwrite(size, 1, 8, stream);
  fwrite(header, 1, length, stream);
  for (int i = 0; i < count; i++) {
    fwrite(pieces[i].values, 4, (size_t)pieces[i].count, stream);
  }
  assert_int_equal(fclose(stream), 0);
  struct vamp_checkpoint *checkpoint = NULL;
  struct vamp_error error;
  int status = vamp_checkpoint_open(folder, "coarse", &checkpoint, &error);
  unlink(path); /* it stays mapped */
  rmdir(folder);
  if (status) {
    fail_msg("%s", error.message);
  }
  return checkpoint;
}

static void refused(int status, const struct vamp_error *error, const char *first, const char *second) {
  assert_int_not_equal(status, 0);
  assert_int_equal(status, error->status);
  if (!strstr(error->message, "coarse.safetensors") || !strstr(error->message, first) ||
      !strstr(error->message, second)) {
    fail_msg("'%s' lacks the file, '%s' or '%s'", error->message, first, second);
  }
}

static void checks_shapes(void **state) {
  (void)state;
  const struct piece pieces[] = {
      {"a", "[2,3]", 6, {1, 2, 3, 4, 5, 6}}, {"b", "[1,2,1]", 2, {7, 8}}, {"c", "[]", 1, {9}}};
  struct vamp_checkpoint *checkpoint = checkpoint_of(pieces, 3);
  struct vamp_error error;
  float *values = NULL;
  const char *first;
  assert_int_equal(vamp_checkpoint_unused(checkpoint, &first), 3);
  assert_string_equal(first, "a");
  assert_int_equal(vamp_checkpoint_tensor(checkpoint, "a", 2, (int64_t[]){2, 3}, &values, &error), 0);
  assert_memory_equal(values, pieces[0].values, 24);
  free(values);
  /* Trailing ones are the same shape, leading ones are not. */
  assert_int_equal(vamp_checkpoint_tensor(checkpoint, "a", 3, (int64_t[]){2, 3, 1}, &values, &error), 0);
  free(values);
  assert_int_equal(vamp_checkpoint_tensor(checkpoint, "c", 1, (int64_t[]){1}, &values, &error), 0);
  assert_true(values[0] == 9);
  free(values);
  values = NULL;
  assert_int_equal(vamp_checkpoint_unused(checkpoint, &first), 1);
  assert_string_equal(first, "b");
  refused(vamp_checkpoint_tensor(checkpoint, "b", 1, (int64_t[]){2}, &values, &error), &error, "'b'",
          "[1, 2, 1]");
  refused(vamp_checkpoint_tensor(checkpoint, "a", 2, (int64_t[]){3, 2}, &values, &error), &error, "[2, 3]",
          "[3, 2]");
  refused(vamp_checkpoint_tensor(checkpoint, "a", 1, (int64_t[]){6}, &values, &error), &error, "'a'", "[6]");
  refused(vamp_checkpoint_tensor(checkpoint, "d", 1, (int64_t[]){6}, &values, &error), &error, "'d'",
          "missing");
  assert_null(values);
  assert_true(vamp_checkpoint_has(checkpoint, "b"));
  assert_false(vamp_checkpoint_has(checkpoint, "bb"));
  vamp_checkpoint_close(checkpoint);
  vamp_checkpoint_close(NULL);
}

static void folds_weight_norm(void **state) {
  (void)state;
  const struct piece pieces[] = {
      {"x.weight_g", "[2,1,1]", 2, {10, -1}},   {"x.weight_v", "[2,2,2]", 8, {1, 1, 1, 1, 0, 3, 0, 4}},
      {"y.weight", "[2,2,1]", 4, {1, 2, 3, 4}}, {"dead.weight_g", "[2,1,1]", 2, {1, 1}},
      {"dead.weight_v", "[2,1,1]", 2, {1, 0}},  {"half.weight_v", "[2,1,1]", 2, {1, 1}},
      {"both.weight", "[1]", 1, {1}},           {"both.weight_g", "[1]", 1, {1}},
      {"both.weight_v", "[1]", 1, {1}},
  };
  struct vamp_checkpoint *checkpoint = checkpoint_of(pieces, 9);
  struct vamp_error error;
  float *weight = NULL;
  assert_int_equal(vamp_checkpoint_conv_weight(checkpoint, "x", (int64_t[]){2, 2, 2}, &weight, &error), 0);
  const float expected[] = {5, 5, 5, 5, 0, -0.6f, 0, -0.8f};
  for (int i = 0; i < 8; i++) {
    assert_true(fabsf(weight[i] - expected[i]) < 1e-7f);
  }
  free(weight);
  assert_int_equal(vamp_checkpoint_conv_weight(checkpoint, "y", (int64_t[]){2, 2, 1}, &weight, &error), 0);
  assert_memory_equal(weight, pieces[2].values, 16);
  free(weight);
  weight = NULL;
  refused(vamp_checkpoint_conv_weight(checkpoint, "dead", (int64_t[]){2, 1, 1}, &weight, &error), &error,
          "'dead.weight_v'", "row 1");
  refused(vamp_checkpoint_conv_weight(checkpoint, "half", (int64_t[]){2, 1, 1}, &weight, &error), &error,
          "'half.weight_g'", "missing");
  refused(vamp_checkpoint_conv_weight(checkpoint, "both", (int64_t[]){1, 1, 1}, &weight, &error), &error,
          "'both.weight'", "folded");
  refused(vamp_checkpoint_conv_weight(checkpoint, "x", (int64_t[]){2, 4, 1}, &weight, &error), &error,
          "'x.weight_v'", "[2, 2, 2]");
  refused(vamp_checkpoint_conv_weight(checkpoint, "none", (int64_t[]){2, 4, 1}, &weight, &error), &error,
          "'none.weight'", "missing");
  assert_null(weight);
  vamp_checkpoint_close(checkpoint);
}

static void merges_adapters(void **state) {
  (void)state;
  const struct piece pieces[] = {
      {"w.weight", "[2,3]", 6, {1, 2, 3, 4, 5, 6}}, {"w.lora_A", "[2,3]", 6, {1, 0, 2, 0, 1, 0}},
      {"w.lora_B", "[2,2]", 4, {2, 4, 6, 8}},       {"conv.weight_g", "[1,1,1]", 1, {10}},
      {"conv.weight_v", "[1,2,1]", 2, {3, 4}},      {"half.weight", "[1,1]", 1, {1}},
      {"half.lora_B", "[1,2]", 2, {1, 1}},          {"wide.weight", "[1,1]", 1, {1}},
      {"wide.lora_A", "[2,1]", 2, {1, 1}},          {"wide.lora_B", "[1,3]", 3, {1, 1, 1}},
      {"huge.weight", "[1,2]", 2, {1, 1}},          {"huge.lora_A", "[1,2]", 2, {1, 3e38f}},
      {"huge.lora_B", "[1,1]", 1, {3e38f}},
  };
  struct vamp_checkpoint *checkpoint = checkpoint_of(pieces, 13);
  struct vamp_error error;
  float *weight = NULL;
  assert_int_equal(vamp_checkpoint_linear_weight(checkpoint, "w", 2, 3, &weight, &error), 0);
  /* B A / 2 = [[2, 4, 4], [6, 8, 12]] / 2 */
  const float expected[] = {1 + 1, 2 + 2, 3 + 2, 4 + 3, 5 + 4, 6 + 6};
  for (int i = 0; i < 6; i++) {
    assert_true(weight[i] == expected[i]);
  }
  free(weight);
  /* A weight-normalised 1x1 convolution is a matrix too. */
  assert_int_equal(vamp_checkpoint_linear_weight(checkpoint, "conv", 1, 2, &weight, &error), 0);
  assert_true(fabsf(weight[0] - 6) < 1e-6f && fabsf(weight[1] - 8) < 1e-6f);
  free(weight);
  weight = NULL;
  refused(vamp_checkpoint_linear_weight(checkpoint, "half", 1, 1, &weight, &error), &error, "'half.lora_A'",
          "missing");
  refused(vamp_checkpoint_linear_weight(checkpoint, "wide", 1, 1, &weight, &error), &error, "'wide.lora_B'",
          "[1, 2]");
  refused(vamp_checkpoint_linear_weight(checkpoint, "huge", 1, 2, &weight, &error), &error, "'huge.lora_B'",
          "infinite");
  refused(vamp_checkpoint_linear_weight(checkpoint, "w", 3, 2, &weight, &error), &error, "'w.weight'",
          "[3, 2]");
  assert_null(weight);
  vamp_checkpoint_close(checkpoint);
}

static void names_the_missing_file(void **state) {
  (void)state;
  struct vamp_checkpoint *checkpoint = NULL;
  struct vamp_error error;
  refused(vamp_checkpoint_open("/nowhere", "coarse", &checkpoint, &error), &error, "/nowhere/", "opened");
  assert_null(checkpoint);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(checks_shapes),
      cmocka_unit_test(folds_weight_norm),
      cmocka_unit_test(merges_adapters),
      cmocka_unit_test(names_the_missing_file),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
