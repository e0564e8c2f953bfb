/*
 * bitmap: the caller's own array, `data`, one row for each codebook where the node speaks, lowest first.
 *
 * "encoding": "values": a row is the frames' 0 and 1. "run-lengths": a row is counts of frames, kept and
 * masked in turn, beginning with kept: the form in which a mask comes out, so that one can be sent back.
 * Held as run lengths in any case: never larger than what came in.
 */
#include "engine/mask/internal.h"

#include <stdlib.h>

enum { VALUES, RUN_LENGTHS };
static const char *const encoding_names[] = {"values", "run-lengths", NULL};

struct bitmap_row {
  int64_t frames;
  size_t count;
  int32_t *runs; /* [count], kept first */
};

struct bitmap_parameters {
  int rows;
  struct bitmap_row row[VAMP_MASK_MAX_CODEBOOKS];
};

static int bitmap_fail(struct vamp_mask_fields *fields, int row, const char *problem) {
  char pointer[VAMP_MASK_POINTER_SIZE], deeper[VAMP_MASK_POINTER_SIZE];
  vamp_mask_pointer_join(pointer, fields->pointer, "data");
  vamp_mask_pointer_index(deeper, pointer, row);
  if (fields->status == 0) {
    fields->status =
        vamp_fail_field(fields->error, VAMP_INVALID, deeper, "row %d of the bitmap %s.", row, problem);
  }
  return fields->status;
}

/* Values -> runs, at most one more than there are values. */
static int read_values(struct vamp_mask_fields *fields, int index, const json_t *values,
                       struct bitmap_row *row) {
  int current = VAMP_CELL_KEEP;
  for (size_t i = 0; i < json_array_size(values); i++) {
    const json_t *value = json_array_get(values, i);
    int64_t cell = json_is_true(value) ? 1 : 0;
    if (!json_is_boolean(value) && (!vamp_mask_json_integer(value, &cell) || cell < 0 || cell > 1)) {
      return bitmap_fail(fields, index, "holds something other than 0 and 1");
    }
    if (row->count == 0 || (int)cell != current) {
      if (row->count == 0 && cell == 1) {
        row->runs[row->count++] = 0;
      }
      row->runs[row->count++] = 0;
      current = (int)cell;
    }
    row->runs[row->count - 1]++;
  }
  row->frames = (int64_t)json_array_size(values);
  return 0;
}

static int read_runs(struct vamp_mask_fields *fields, int index, const json_t *values,
                     struct bitmap_row *row) {
  for (size_t i = 0; i < json_array_size(values); i++) {
    int64_t run;
    if (!vamp_mask_json_integer(json_array_get(values, i), &run) || run < 0 || run > VAMP_MASK_MAX_FRAMES ||
        row->frames + run > VAMP_MASK_MAX_FRAMES) {
      return bitmap_fail(fields, index, "holds something other than counts of frames");
    }
    row->runs[row->count++] = (int32_t)run;
    row->frames += run;
  }
  return 0;
}

static int read_row(struct vamp_mask_fields *fields, int index, const json_t *values, int encoding,
                    struct bitmap_row *row) {
  size_t size = json_array_size(values);
  if (!json_is_array(values) || size == 0 || size > VAMP_MASK_MAX_FRAMES) {
    return bitmap_fail(fields, index, "is not an array of frames, or has too many or none");
  }
  row->runs = malloc((size + 1) * sizeof *row->runs);
  if (!row->runs) {
    return fields->status = vamp_fail(fields->error, VAMP_MEMORY, "out of memory for a bitmap.");
  }
  return (encoding == VALUES ? read_values : read_runs)(fields, index, values, row);
}

static int bitmap_parse(struct vamp_mask_fields *fields, void *parameters) {
  struct bitmap_parameters *bitmap = parameters;
  int encoding = VALUES;
  vamp_mask_fields_choice(fields, "encoding", encoding_names, &encoding);
  const json_t *data = vamp_mask_fields_value(fields, "data");
  size_t rows = json_array_size(data);
  if (!json_is_array(data) || rows == 0 || rows > VAMP_MASK_MAX_CODEBOOKS) {
    return vamp_mask_fields_fail(fields, VAMP_INVALID, "data",
                                 "a bitmap needs data: an array with one row for each codebook (at most %d).",
                                 VAMP_MASK_MAX_CODEBOOKS);
  }
  for (size_t i = 0; i < rows && fields->status == 0; i++) {
    bitmap->rows = (int)i + 1;
    read_row(fields, (int)i, json_array_get(data, i), encoding, &bitmap->row[i]);
  }
  return fields->status;
}

static int bitmap_paint(const void *parameters, const struct vamp_mask_canvas *canvas,
                        struct vamp_error *error) {
  const struct bitmap_parameters *bitmap = parameters;
  int64_t frames = canvas->context->frames;
  char pointer[VAMP_MASK_POINTER_SIZE], deeper[VAMP_MASK_POINTER_SIZE];
  vamp_mask_pointer_join(pointer, canvas->pointer, "data");
  if (bitmap->rows != canvas->high - canvas->low) {
    return vamp_fail_field(error, VAMP_INVALID, pointer,
                           "the bitmap has %d rows, and speaks about %d codebooks (%d to %d): it needs one "
                           "row for each.",
                           bitmap->rows, canvas->high - canvas->low, canvas->low, canvas->high - 1);
  }
  for (int i = 0; i < bitmap->rows; i++) {
    const struct bitmap_row *row = &bitmap->row[i];
    if (row->frames != frames) {
      vamp_mask_pointer_index(deeper, pointer, i);
      return vamp_fail_field(error, VAMP_INVALID, deeper,
                             "row %d of the bitmap has %lld frames, the clip %lld.", i,
                             (long long)row->frames, (long long)frames);
    }
    struct vamp_mask_canvas line = *canvas;
    line.low = canvas->low + i;
    line.high = line.low + 1;
    int64_t at = 0;
    for (size_t run = 0; run < row->count; run++) {
      vamp_mask_canvas_frames(&line, at, at + row->runs[run], run % 2 ? VAMP_CELL_MASK : VAMP_CELL_KEEP);
      at += row->runs[run];
    }
  }
  return 0;
}

static int bitmap_describe(const void *parameters, json_t *object) {
  const struct bitmap_parameters *bitmap = parameters;
  json_t *data = json_array();
  int failed = json_object_set_new(object, "encoding", json_string(encoding_names[RUN_LENGTHS])) |
               json_object_set_new(object, "data", data);
  for (int i = 0; i < bitmap->rows && !failed; i++) {
    json_t *runs = json_array();
    failed |= json_array_append_new(data, runs);
    for (size_t run = 0; run < bitmap->row[i].count && !failed; run++) {
      failed |= json_array_append_new(runs, json_integer(bitmap->row[i].runs[run]));
    }
  }
  return failed;
}

static void bitmap_release(void *parameters) {
  struct bitmap_parameters *bitmap = parameters;
  for (int i = 0; i < bitmap->rows; i++) {
    free(bitmap->row[i].runs);
  }
}

const struct vamp_mask_pattern vamp_mask_pattern_bitmap = {
    .name = "bitmap",
    .parameters_size = sizeof(struct bitmap_parameters),
    .parse = bitmap_parse,
    .paint = bitmap_paint,
    .describe = bitmap_describe,
    .release = bitmap_release,
};
