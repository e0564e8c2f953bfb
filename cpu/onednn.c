/*
 * See onednn.h. Both interfaces of the library are reached through a handful of static functions at the
 * top of this file: a memory descriptor is a struct in version 2 and a handle in version 3, and a
 * primitive descriptor is made from an operation descriptor in 2 and directly in 3. Everything below
 * them is the same for both.
 */
#include "cpu/onednn.h"

#include <dnnl.h>
#include <omp.h>
#include <stdlib.h>
#include <string.h>

#include "vamp/array.h"

/* Products are built for multiples of 16 rows: at most that many are wasted at the end of a sequence. */
enum { ROW_CLASSES = ONEDNN_MAX_ROWS / ONEDNN_ROW_STEP };

/* A primitive and the layouts it was made for. */
struct primitive {
  dnnl_primitive_t primitive;
  dnnl_primitive_desc_t descriptor; /* owns the layouts that the queries below return */
};

/* One product size: shared by all weight tiles of this shape. */
struct product_shape {
  bool bf16;
  int n, k;
  struct primitive classes[ROW_CLASSES];
  struct product_shape *next;
};

struct onednn {
  dnnl_engine_t engine;
  struct product_shape *shapes;
  size_t scratch;
};

struct onednn_product {
  struct onednn *library;
  struct product_shape *shape;
  void *storage;
  dnnl_memory_t weight;
};

struct onednn_conv {
  struct onednn *library;
  struct primitive primitive;
  void *weight_storage, *bias_storage;
  dnnl_memory_t weight, bias;
};

/* ---- the two interfaces ------------------------------------------------------------------------ */

#if DNNL_VERSION_MAJOR >= 3

typedef dnnl_memory_desc_t layout; /* a handle, owned */
typedef const_dnnl_memory_desc_t layout_ref;

static bool layout_make(layout *out, int rank, const dnnl_dims_t dims, dnnl_data_type_t type,
                        dnnl_format_tag_t tag) {
  return dnnl_memory_desc_create_with_tag(out, rank, dims, type, tag) == dnnl_success;
}

static void layout_free(layout *l) {
  if (*l) {
    dnnl_memory_desc_destroy(*l);
  }
}

#define LAYOUT_NONE NULL
#define LAYOUT_REF(l) (l)

static size_t layout_size(layout_ref l) {
  return dnnl_memory_desc_get_size(l);
}

static bool product_descriptor(dnnl_engine_t engine, const layout *in, layout_ref weight, const layout *out,
                               dnnl_primitive_attr_t attributes, dnnl_primitive_desc_t *descriptor) {
  return dnnl_matmul_primitive_desc_create(descriptor, engine, *in, weight, NULL, *out, attributes) ==
         dnnl_success;
}

static bool conv_descriptor(dnnl_engine_t engine, const layout *in, const layout *weight, const layout *bias,
                            const layout *out, int dilation, dnnl_primitive_attr_t attributes,
                            dnnl_primitive_desc_t *descriptor) {
  dnnl_dims_t stride = {1}, between = {dilation - 1}, padding = {0};
  return dnnl_convolution_forward_primitive_desc_create(
             descriptor, engine, dnnl_forward_inference, dnnl_convolution_direct, *in, *weight,
             bias ? *bias : NULL, *out, stride, between, padding, padding, attributes) == dnnl_success;
}

#else

typedef dnnl_memory_desc_t layout;
typedef const dnnl_memory_desc_t *layout_ref;

static bool layout_make(layout *out, int rank, const dnnl_dims_t dims, dnnl_data_type_t type,
                        dnnl_format_tag_t tag) {
  return dnnl_memory_desc_init_by_tag(out, rank, dims, type, tag) == dnnl_success;
}

static void layout_free(layout *l) {
  (void)l;
}

#define LAYOUT_NONE                                                                                          \
  { 0 }
#define LAYOUT_REF(l) (&(l))

static size_t layout_size(layout_ref l) {
  return dnnl_memory_desc_get_size(l);
}

static bool product_descriptor(dnnl_engine_t engine, const layout *in, layout_ref weight, const layout *out,
                               dnnl_primitive_attr_t attributes, dnnl_primitive_desc_t *descriptor) {
  dnnl_matmul_desc_t operation;
  return dnnl_matmul_desc_init(&operation, in, weight, NULL, out) == dnnl_success &&
         dnnl_primitive_desc_create(descriptor, &operation, attributes, engine, NULL) == dnnl_success;
}

static bool conv_descriptor(dnnl_engine_t engine, const layout *in, const layout *weight, const layout *bias,
                            const layout *out, int dilation, dnnl_primitive_attr_t attributes,
                            dnnl_primitive_desc_t *descriptor) {
  dnnl_convolution_desc_t operation;
  dnnl_dims_t stride = {1}, between = {dilation - 1}, padding = {0};
  return dnnl_dilated_convolution_forward_desc_init(&operation, dnnl_forward_inference,
                                                    dnnl_convolution_direct, in, weight, bias, out, stride,
                                                    between, padding, padding) == dnnl_success &&
         dnnl_primitive_desc_create(descriptor, &operation, attributes, engine, NULL) == dnnl_success;
}

#endif

/* ---- the same for both ------------------------------------------------------------------------- */

static layout_ref primitive_layout(const struct primitive *p, dnnl_query_t what) {
  return dnnl_primitive_desc_query_md(p->descriptor, what, 0);
}

static void primitive_free(struct primitive *p) {
  if (p->primitive) {
    dnnl_primitive_destroy(p->primitive);
  }
  if (p->descriptor) {
    dnnl_primitive_desc_destroy(p->descriptor);
  }
  *p = (struct primitive){0};
}

/* Tiles are run by one thread each: primitives must be planned, and run, without threads of oneDNN's own.
 * The setting belongs to the calling thread; reading it is cheaper than setting it. */
static void single_thread(void) {
  if (omp_get_max_threads() != 1) {
    omp_set_num_threads(1);
  }
}

static bool attributes_make(dnnl_primitive_attr_t *attributes) {
  return dnnl_primitive_attr_create(attributes) == dnnl_success &&
         dnnl_primitive_attr_set_scratchpad_mode(*attributes, dnnl_scratchpad_mode_user) == dnnl_success;
}

static void note_scratch(struct onednn *library, const struct primitive *p) {
  size_t size = layout_size(primitive_layout(p, dnnl_query_scratchpad_md));
  if (size > library->scratch) {
    library->scratch = size;
  }
}

static void *aligned_bytes(size_t size) {
  return aligned_alloc(64, (size + 63) / 64 * 64 + 64);
}

int onednn_open(struct onednn **library, struct vamp_error *error) {
  struct onednn *l = calloc(1, sizeof *l);
  if (!l) {
    return vamp_fail(error, VAMP_MEMORY, "out of memory");
  }
  if (dnnl_engine_create(&l->engine, dnnl_cpu, 0) != dnnl_success) {
    free(l);
    return vamp_fail(error, VAMP_DEVICE, "oneDNN could not start on this processor");
  }
  *library = l;
  return 0;
}

void onednn_close(struct onednn *library) {
  if (!library) {
    return;
  }
  while (library->shapes) {
    struct product_shape *shape = library->shapes;
    library->shapes = shape->next;
    for (int c = 0; c < ROW_CLASSES; c++) {
      primitive_free(&shape->classes[c]);
    }
    free(shape);
  }
  dnnl_engine_destroy(library->engine);
  free(library);
}

size_t onednn_scratch_size(const struct onednn *library) {
  return library->scratch;
}

static int class_index(int row_class) {
  return row_class / ONEDNN_ROW_STEP - 1;
}

int onednn_row_class(int rows) {
  return (rows + ONEDNN_ROW_STEP - 1) / ONEDNN_ROW_STEP * ONEDNN_ROW_STEP;
}

/* `weight` NULL: the library chooses the weights' layout. */
static int product_primitive(struct onednn *library, struct product_shape *shape, int c, layout_ref weight,
                             struct vamp_error *error) {
  dnnl_data_type_t type = shape->bf16 ? dnnl_bf16 : dnnl_f32;
  int rows = (c + 1) * ONEDNN_ROW_STEP;
  dnnl_dims_t in_dims = {rows, shape->k}, weight_dims = {shape->k, shape->n}, out_dims = {rows, shape->n};
  layout in = LAYOUT_NONE, any = LAYOUT_NONE, out = LAYOUT_NONE;
  dnnl_primitive_attr_t attributes = NULL;
  struct primitive p = {0};
  single_thread();
  bool ok = layout_make(&in, 2, in_dims, type, dnnl_ab) &&
            layout_make(&any, 2, weight_dims, type, dnnl_format_tag_any) &&
            layout_make(&out, 2, out_dims, dnnl_f32, dnnl_ab) && attributes_make(&attributes) &&
            product_descriptor(library->engine, &in, weight ? weight : LAYOUT_REF(any), &out, attributes,
                               &p.descriptor) &&
            dnnl_primitive_create(&p.primitive, p.descriptor) == dnnl_success;
  if (attributes) {
    dnnl_primitive_attr_destroy(attributes);
  }
  layout_free(&in);
  layout_free(&any);
  layout_free(&out);
  if (!ok) {
    primitive_free(&p);
    return vamp_fail(error, VAMP_DEVICE, "oneDNN has no %s product of %d x %d x %d",
                     shape->bf16 ? "bf16" : "fp32", rows, shape->n, shape->k);
  }
  shape->classes[c] = p;
  note_scratch(library, &p);
  return 0;
}

/* The largest class decides the weights' layout; the others take it as it is. */
static int shape_find(struct onednn *library, bool bf16, int n, int k, struct product_shape **out,
                      struct vamp_error *error) {
  for (struct product_shape *s = library->shapes; s; s = s->next) {
    if (s->bf16 == bf16 && s->n == n && s->k == k) {
      *out = s;
      return 0;
    }
  }
  struct product_shape *s = calloc(1, sizeof *s);
  if (!s) {
    return vamp_fail(error, VAMP_MEMORY, "out of memory");
  }
  *s = (struct product_shape){.bf16 = bf16, .n = n, .k = k};
  int status = product_primitive(library, s, ROW_CLASSES - 1, NULL, error);
  if (status) {
    free(s);
    return status;
  }
  s->next = library->shapes;
  library->shapes = s;
  *out = s;
  return 0;
}

/* Copies plain host weights into a memory of layout `to`, reordered; *storage and *memory are the
 * caller's. `from` holds elements of `from_type`. */
static int reorder(struct onednn *library, int rank, const dnnl_dims_t dims, dnnl_data_type_t from_type,
                   dnnl_format_tag_t tag, const void *from, layout_ref to, void **storage,
                   dnnl_memory_t *memory, struct vamp_error *error) {
  layout plain = LAYOUT_NONE;
  dnnl_memory_t source = NULL, target = NULL;
  dnnl_primitive_desc_t descriptor = NULL;
  dnnl_primitive_t primitive = NULL;
  dnnl_stream_t stream = NULL;
  int status = VAMP_DEVICE;
  void *bytes = aligned_bytes(layout_size(to));
  if (!bytes) {
    return vamp_fail(error, VAMP_MEMORY, "out of memory for %zu bytes of weights", layout_size(to));
  }
  if (layout_make(&plain, rank, dims, from_type, tag) &&
      dnnl_memory_create(&source, LAYOUT_REF(plain), library->engine, (void *)from) == dnnl_success &&
      dnnl_memory_create(&target, to, library->engine, bytes) == dnnl_success &&
      dnnl_reorder_primitive_desc_create(&descriptor, LAYOUT_REF(plain), library->engine, to, library->engine,
                                         NULL) == dnnl_success &&
      dnnl_primitive_create(&primitive, descriptor) == dnnl_success &&
      dnnl_stream_create(&stream, library->engine, dnnl_stream_default_flags) == dnnl_success) {
    dnnl_exec_arg_t arguments[] = {{DNNL_ARG_FROM, source}, {DNNL_ARG_TO, target}};
    if (dnnl_primitive_execute(primitive, stream, 2, arguments) == dnnl_success &&
        dnnl_stream_wait(stream) == dnnl_success) {
      status = 0;
    }
  }
  if (stream) {
    dnnl_stream_destroy(stream);
  }
  if (primitive) {
    dnnl_primitive_destroy(primitive);
  }
  if (descriptor) {
    dnnl_primitive_desc_destroy(descriptor);
  }
  if (source) {
    dnnl_memory_destroy(source);
  }
  layout_free(&plain);
  if (status) {
    if (target) {
      dnnl_memory_destroy(target);
    }
    free(bytes);
    return vamp_fail(error, status, "oneDNN could not reorder weights");
  }
  *storage = bytes;
  *memory = target;
  return 0;
}

int onednn_product_create(struct onednn *library, bool bf16, int n, int k, const float *weight, size_t stride,
                          struct onednn_product **product, struct vamp_error *error) {
  struct onednn_product *p = calloc(1, sizeof *p);
  float *rows = NULL;
  int status;
  if (!p) {
    return vamp_fail(error, VAMP_MEMORY, "out of memory");
  }
  p->library = library;
  status = shape_find(library, bf16, n, k, &p->shape, error);
  if (status) {
    goto err;
  }
  if (stride != (size_t)k) {
    rows = malloc(sizeof *rows * (size_t)n * (size_t)k);
    if (!rows) {
      status = vamp_fail(error, VAMP_MEMORY, "out of memory for a weight tile");
      goto err;
    }
    for (int i = 0; i < n; i++) {
      memcpy(rows + (size_t)i * (size_t)k, weight + (size_t)i * stride, sizeof *rows * (size_t)k);
    }
  }
  dnnl_dims_t dims = {k, n};
  status = reorder(library, 2, dims, dnnl_f32, dnnl_ba, rows ? rows : weight,
                   primitive_layout(&p->shape->classes[ROW_CLASSES - 1], dnnl_query_weights_md), &p->storage,
                   &p->weight, error);
  if (status) {
    goto err;
  }
  free(rows);
  *product = p;
  return 0;
err:
  free(rows);
  onednn_product_free(p);
  return status;
}

void onednn_product_free(struct onednn_product *product) {
  if (!product) {
    return;
  }
  if (product->weight) {
    dnnl_memory_destroy(product->weight);
  }
  free(product->storage);
  free(product);
}

int onednn_product_prepare(struct onednn_product *product, int row_class, struct vamp_error *error) {
  int c = class_index(row_class);
  struct product_shape *shape = product->shape;
  if (shape->classes[c].primitive) {
    return 0;
  }
  layout_ref weight = primitive_layout(&shape->classes[ROW_CLASSES - 1], dnnl_query_weights_md);
  return product_primitive(product->library, shape, c, weight, error);
}

/* Memory objects and stream are handles made for the one call: microseconds, where a tile takes hundreds. */
static int execute(const struct onednn *library, const struct primitive *p, dnnl_memory_t weight,
                   dnnl_memory_t bias, const void *in, float *out, void *scratch) {
  dnnl_memory_t source = NULL, target = NULL, pad = NULL;
  dnnl_stream_t stream = NULL;
  int status = VAMP_DEVICE;
  single_thread();
  if (dnnl_memory_create(&source, primitive_layout(p, dnnl_query_src_md), library->engine, (void *)in) ==
          dnnl_success &&
      dnnl_memory_create(&target, primitive_layout(p, dnnl_query_dst_md), library->engine, out) ==
          dnnl_success &&
      dnnl_memory_create(&pad, primitive_layout(p, dnnl_query_scratchpad_md), library->engine, scratch) ==
          dnnl_success &&
      dnnl_stream_create(&stream, library->engine, dnnl_stream_default_flags) == dnnl_success) {
    dnnl_exec_arg_t arguments[] = {{DNNL_ARG_SRC, source},
                                   {DNNL_ARG_WEIGHTS, weight},
                                   {DNNL_ARG_DST, target},
                                   {DNNL_ARG_SCRATCHPAD, pad},
                                   {DNNL_ARG_BIAS, bias}};
    if (dnnl_primitive_execute(p->primitive, stream, bias ? 5 : 4, arguments) == dnnl_success) {
      status = 0;
    }
  }
  if (stream) {
    dnnl_stream_destroy(stream);
  }
  if (pad) {
    dnnl_memory_destroy(pad);
  }
  if (target) {
    dnnl_memory_destroy(target);
  }
  if (source) {
    dnnl_memory_destroy(source);
  }
  return status;
}

int onednn_product_run(const struct onednn_product *product, int row_class, const void *in, float *out,
                       void *scratch) {
  return execute(product->library, &product->shape->classes[class_index(row_class)], product->weight, NULL,
                 in, out, scratch);
}

static int conv_primitive(struct onednn_conv *conv, bool bf16, int rows, int in_channels, int out_channels,
                          int kernel, int dilation, bool has_bias, struct vamp_error *error) {
  dnnl_data_type_t type = bf16 ? dnnl_bf16 : dnnl_f32;
  dnnl_dims_t in_dims = {1, in_channels, rows + (kernel - 1) * dilation},
              weight_dims = {out_channels, in_channels, kernel}, bias_dims = {out_channels},
              out_dims = {1, out_channels, rows};
  layout in = LAYOUT_NONE, weight = LAYOUT_NONE, bias = LAYOUT_NONE, out = LAYOUT_NONE;
  dnnl_primitive_attr_t attributes = NULL;
  single_thread();
  bool ok = layout_make(&in, 3, in_dims, type, dnnl_nwc) &&
            layout_make(&weight, 3, weight_dims, type, dnnl_format_tag_any) &&
            layout_make(&bias, 1, bias_dims, dnnl_f32, dnnl_a) &&
            layout_make(&out, 3, out_dims, dnnl_f32, dnnl_nwc) && attributes_make(&attributes) &&
            conv_descriptor(conv->library->engine, &in, &weight, has_bias ? &bias : NULL, &out, dilation,
                            attributes, &conv->primitive.descriptor) &&
            dnnl_primitive_create(&conv->primitive.primitive, conv->primitive.descriptor) == dnnl_success;
  if (attributes) {
    dnnl_primitive_attr_destroy(attributes);
  }
  layout_free(&in);
  layout_free(&weight);
  layout_free(&bias);
  layout_free(&out);
  if (!ok) {
    return vamp_fail(error, VAMP_DEVICE, "oneDNN has no %s convolution %d -> %d, kernel %d, dilation %d",
                     bf16 ? "bf16" : "fp32", in_channels, out_channels, kernel, dilation);
  }
  note_scratch(conv->library, &conv->primitive);
  return 0;
}

int onednn_conv_create(struct onednn *library, bool bf16, int rows, int in_channels, int out_channels,
                       int kernel, int dilation, const float *weight, const float *bias,
                       struct onednn_conv **conv, struct vamp_error *error) {
  struct onednn_conv *c = calloc(1, sizeof *c);
  int status;
  if (!c) {
    return vamp_fail(error, VAMP_MEMORY, "out of memory");
  }
  c->library = library;
  status = conv_primitive(c, bf16, rows, in_channels, out_channels, kernel, dilation, bias != NULL, error);
  if (status) {
    goto err;
  }
  dnnl_dims_t dims = {out_channels, in_channels, kernel}, bias_dims = {out_channels};
  status =
      reorder(library, 3, dims, dnnl_f32, dnnl_oiw, weight,
              primitive_layout(&c->primitive, dnnl_query_weights_md), &c->weight_storage, &c->weight, error);
  if (!status && bias) {
    layout plain = LAYOUT_NONE;
    if (!layout_make(&plain, 1, bias_dims, dnnl_f32, dnnl_a)) {
      status = vamp_fail(error, VAMP_DEVICE, "oneDNN could not describe a bias");
      goto err;
    }
    status = reorder(library, 1, bias_dims, dnnl_f32, dnnl_a, bias, LAYOUT_REF(plain), &c->bias_storage,
                     &c->bias, error);
    layout_free(&plain);
  }
  if (status) {
    goto err;
  }
  *conv = c;
  return 0;
err:
  onednn_conv_free(c);
  return status;
}

void onednn_conv_free(struct onednn_conv *conv) {
  if (!conv) {
    return;
  }
  primitive_free(&conv->primitive);
  if (conv->weight) {
    dnnl_memory_destroy(conv->weight);
  }
  if (conv->bias) {
    dnnl_memory_destroy(conv->bias);
  }
  free(conv->weight_storage);
  free(conv->bias_storage);
  free(conv);
}

int onednn_conv_run(const struct onednn_conv *conv, const void *in, float *out, void *scratch) {
  return execute(conv->library, &conv->primitive, conv->weight, conv->bias, in, out, scratch);
}
