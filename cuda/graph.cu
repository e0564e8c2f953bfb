/*
 * Steps recorded as CUDA graphs.
 *
 * A generation step is some 170 kernels. Launched one by one each costs the host a few microseconds and the
 * device a gap; for one clip (574 rows), where a kernel takes about ten microseconds, that would be felt. So
 * a step's operations are captured once and launched as one graph. The host does not wait in between: it
 * fills the next step's tables through pinned memory and queues the next graph.
 *
 * What may differ between two steps that use one graph? Everything that kernels read from the tables of
 * batch.cu: how many rows and sequences there are, where they begin, steps, seeds, temperatures. What may
 * not: the addresses of the buffers and the size of the grids. Hence size classes: rows rounded up to whole
 * tiles of 64. Kernels launched for the class look up how many rows are real; matrix products alone compute
 * the rows up to the class (at most 63) on whatever the buffer holds there (vamp_device.row_slack), which no
 * other row ever sees.
 *
 * Only batches of up to most_rows are recorded. Above that a launch hides behind the kernel before it, and
 * the number of classes would grow without bound. A class is recorded when it comes the second time: the
 * first run goes kernel by kernel, so that one-off batches cost no recording, modules are loaded, products
 * are chosen and scratch memory has grown: none of these may happen while a stream is being captured. So a
 * run counts as the first only if it came to its end, and only as long as nothing changed since: when memory
 * that a recording knows has moved, or a weight is freed (device->version), the entry is dropped, recorded or
 * not. (A model that is loaded where another was freed may have its very addresses, and products of other
 * shapes.)
 *
 * Should a driver refuse to record all the same, the step has not run, but nothing was lost either: recording
 * is switched off, and VAMP_BUSY asks the engine to run the step once more.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cuda/internal.h"

enum { most_rows = 4096, most_graphs = 64 };

struct graph {
  struct vamp_step step;
  int64_t rows;
  bool filters;         /* some sequence has top-k, top-p or typical filtering: another kernel runs */
  uint64_t version;     /* device->version when its first run ended, or when it was recorded */
  uint64_t used;        /* the time of its last use; 0: a free entry */
  bool ran;             /* to the end, kernel by kernel */
  cudaGraphExec_t exec; /* NULL: not recorded yet */
};

struct cuda_graphs {
  struct graph list[most_graphs];
  uint64_t now;
  struct graph *first, *recording; /* the step between step_begin and step_end, one or the other or none */
  bool off;                        /* the driver could not record: go without */
};

int cuda_graphs_open(struct cuda_device *device) {
  device->graphs = (struct cuda_graphs *)calloc(1, sizeof *device->graphs);
  const char *wanted = getenv("VAMP_CUDA_GRAPHS"); /* 0: kernel by kernel, for profilers */
  if (!device->graphs) {
    return VAMP_MEMORY;
  }
  device->graphs->off = wanted && strcmp(wanted, "0") == 0;
  return 0;
}

static void graph_drop(struct graph *graph) {
  if (graph->exec) {
    cudaGraphExecDestroy(graph->exec);
  }
  memset((void *)graph, 0, sizeof *graph);
}

void cuda_graphs_close(struct cuda_device *device) {
  for (int i = 0; device->graphs && i < most_graphs; i++) {
    graph_drop(&device->graphs->list[i]);
  }
  free(device->graphs);
  device->graphs = NULL;
}

bool cuda_sequence_filters(const struct vamp_sequence *s) {
  return s->top_k > 0 || s->top_p < 1 || s->typical_mass > 0;
}

static bool same_step(const struct vamp_step *a, const struct vamp_step *b) {
  return a->owner == b->owner && a->buffers[0] == b->buffers[0] && a->buffers[1] == b->buffers[1] &&
         a->buffers[2] == b->buffers[2];
}

/* The entry of this step and class, or one made for it in place of the longest unused. */
static struct graph *graph_find(struct cuda_device *device, const struct vamp_step *step, int64_t rows,
                                bool filters) {
  struct cuda_graphs *graphs = device->graphs;
  struct graph *oldest = &graphs->list[0];
  for (int i = 0; i < most_graphs; i++) {
    struct graph *g = &graphs->list[i];
    if (g->ran && g->version != device->version) {
      graph_drop(g);
    }
    if (g->used && g->rows == rows && g->filters == filters && same_step(&g->step, step)) {
      return g;
    }
    oldest = g->used < oldest->used ? g : oldest;
  }
  graph_drop(oldest);
  oldest->step = *step;
  oldest->rows = rows;
  oldest->filters = filters;
  return oldest;
}

int cuda_step_begin(struct vamp_device *base, const struct vamp_step *step,
                    const struct vamp_packing *packing, const struct vamp_sequence *sequences,
                    bool *replayed) {
  struct cuda_device *device = cuda_device(base);
  struct cuda_graphs *graphs = device->graphs;
  struct cuda_batch batch;
  int64_t rows = cuda_class_rows(packing);
  bool filters = false;
  *replayed = false;
  graphs->first = NULL;
  if (graphs->off || rows == 0 || rows > most_rows) {
    return 0;
  }
  for (int s = 0; s < packing->count; s++) {
    filters = filters || cuda_sequence_filters(&sequences[s]);
  }
  int status = cuda_batch_set(device, packing, sequences, &batch);
  if (status) {
    return status;
  }
  struct graph *graph = graph_find(device, step, rows, filters);
  graph->used = ++graphs->now;
  if (graph->exec) {
    *replayed = true;
    CUDA_TRY(cudaGraphLaunch(graph->exec, device->stream));
    return 0;
  }
  if (!graph->ran) {
    graphs->first = graph; /* kernel by kernel, at the batch's own size */
    return 0;
  }
  if (CUDA_CHECK(cudaStreamBeginCapture(device->stream, cudaStreamCaptureModeThreadLocal))) {
    (void)cudaGetLastError();
    graphs->off = true;
    return 0;
  }
  graphs->recording = graph;
  /* Should scratch grow on the way, the recording is good for its first run alone: what was released in
   * between belongs to nobody else until then. */
  graph->version = device->version;
  device->class_rows = rows;
  return 0;
}

/* Ends the capture; an executable graph of it, launched, or no graph. */
static int record(struct cuda_device *device, int status, cudaGraphExec_t *exec) {
  cudaGraph_t recorded = NULL;
  int ended = CUDA_CHECK(cudaStreamEndCapture(device->stream, &recorded));
  status = status ? status : ended;
  if (!status) {
    status = CUDA_CHECK(cudaGraphInstantiate(exec, recorded, 0));
  }
  if (!status) {
    status = CUDA_CHECK(cudaGraphLaunch(*exec, device->stream));
  }
  if (recorded) {
    cudaGraphDestroy(recorded);
  }
  if (status && *exec) {
    cudaGraphExecDestroy(*exec);
    *exec = NULL;
  }
  (void)cudaGetLastError(); /* or the next launch would be blamed for it */
  return status;
}

int cuda_step_end(struct vamp_device *base, int status) {
  struct cuda_device *device = cuda_device(base);
  struct cuda_graphs *graphs = device->graphs;
  struct graph *graph = graphs->recording;
  if (graphs->first && !status) {
    graphs->first->ran = true;
    graphs->first->version = device->version;
  }
  graphs->first = NULL;
  if (!graph) {
    return status;
  }
  graphs->recording = NULL;
  device->class_rows = 0;
  int recorded = record(device, status, &graph->exec);
  if (!recorded || (status && status != VAMP_DEVICE)) {
    return recorded; /* or an operation that did not fit, recorded or not */
  }
  /* Was it the recording, or is the device lost? */
  CUDA_TRY(cudaStreamSynchronize(device->stream));
  fprintf(stderr, "cuda: a step could not be recorded: steps run kernel by kernel from here on\n");
  graphs->off = true;
  return VAMP_BUSY;
}
