/*
 * The engine without HTTP, for bench_http to compare with: the same clip and parameters, from the bytes of a
 * file to the bytes of a file, in one process and one thread.
 *
 *   bench_http_engine MODEL CLIP PARAMS THREADS PRECISION
 *
 * It says "ready" when the model is loaded, and then answers to lines on standard input with one JSON object
 * each:
 *
 *   alone N     N variations, one after the other, with seeds 0 .. N-1:
 *               {"seconds": [of each, N]}
 *   batch N     N variations at once:
 *               {"prepare": s, "loop": s, "finish": s}, of all together
 *
 * so that bench_http can take turns between it and the daemon: on a machine that others use as well, two
 * numbers can be compared only where they were measured at the same time.
 *
 * "prepare" is JSON, decoding, resampling, loudness and the mask; "loop" the device's part, from the first
 * submission to the last result; "finish" loudness and the WAV file.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "vamp/device.h"
#include "vamp/generate.h"
#include "vamp/model.h"
#include "vamp/request.h"

#define MAX_VARIATIONS 1024

struct bench {
  struct vamp_device *device;
  struct vamp_model *model;
  struct vamp_loop *loop;
  void *clip;
  size_t clip_size;
  const char *params;
  struct vamp_variation variations[MAX_VARIATIONS];
  struct vamp_result *results[MAX_VARIATIONS];
};

static double now(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return (double)time.tv_sec + 1e-9 * (double)time.tv_nsec;
}

static int read_clip(const char *path, struct bench *bench, struct vamp_error *error) {
  FILE *file = fopen(path, "rb");
  long size = -1;
  if (file && fseek(file, 0, SEEK_END) == 0) {
    size = ftell(file);
    rewind(file);
  }
  bench->clip = size > 0 ? malloc((size_t)size) : NULL;
  bool read = bench->clip && fread(bench->clip, 1, (size_t)size, file) == (size_t)size;
  if (file) {
    fclose(file);
  }
  bench->clip_size = (size_t)size;
  return read ? 0 : vamp_fail(error, VAMP_IO, "cannot read %s", path);
}

static int prepare(struct bench *bench, int index, struct vamp_error *error) {
  struct vamp_request request = {0};
  struct vamp_audio audio = {0};
  json_error_t problem;
  json_t *params = json_loads(bench->params, 0, &problem);
  if (!params || json_object_set_new(params, "seed", json_integer(index)) != 0) {
    json_decref(params);
    return vamp_fail(error, VAMP_INVALID, "the parameters are not a JSON object: %s", bench->params);
  }
  int status = vamp_request_parse(params, &request, error);
  if (status == 0) {
    status = vamp_audio_read_memory(bench->clip, bench->clip_size, "the clip", NULL, &audio, error);
  }
  if (status == 0) {
    status = vamp_variation_prepare(&request, &audio, vamp_model_config(bench->model),
                                    &bench->variations[index], error);
  }
  vamp_audio_free(&audio);
  vamp_request_free(&request);
  json_decref(params);
  return status;
}

static int submit(struct bench *bench, int index, struct vamp_error *error) {
  struct vamp_job job;
  uint64_t id;
  vamp_variation_job(&bench->variations[index], &job);
  job.user = &bench->results[index];
  return vamp_loop_submit(bench->loop, &job, &id, error);
}

/* Until all that was submitted is done. */
static int run(struct bench *bench, struct vamp_error *error) {
  while (vamp_loop_jobs(bench->loop) > 0) {
    struct vamp_event event;
    int status = vamp_loop_step(bench->loop, error);
    while (vamp_loop_next_event(bench->loop, &event) == 1) {
      if (event.type == VAMP_EVENT_DONE) {
        *(struct vamp_result **)event.user = event.result;
      } else if (event.type != VAMP_EVENT_PROGRESS) {
        *error = event.error;
        return event.error.status;
      }
    }
    if (status < 0) {
      return status;
    }
  }
  return 0;
}

static int finish(struct bench *bench, int index, struct vamp_error *error) {
  struct vamp_result *result = bench->results[index];
  void *file = NULL;
  size_t size;
  vamp_variation_finish(&bench->variations[index], result);
  int status = vamp_audio_write_memory(VAMP_AUDIO_WAV16, result->samples, result->sample_count,
                                       bench->variations[index].sample_rate, &file, &size, error);
  free(file);
  return status;
}

static void forget(struct bench *bench, int index) {
  vamp_variation_free(&bench->variations[index]);
  vamp_result_free(bench->results[index]);
  bench->variations[index] = (struct vamp_variation){0};
  bench->results[index] = NULL;
}

static int measure_alone(struct bench *bench, int count, struct vamp_error *error) {
  int status = 0;
  printf("{\"seconds\": [");
  for (int i = 0; i < count && status == 0; i++) {
    double started = now();
    status = prepare(bench, i, error);
    if (status == 0) {
      status = submit(bench, i, error);
    }
    if (status == 0) {
      status = run(bench, error);
    }
    if (status == 0) {
      status = finish(bench, i, error);
    }
    printf("%s%.6f", i ? ", " : "", now() - started);
    forget(bench, i);
  }
  printf("]}\n");
  return status;
}

static int measure_batch(struct bench *bench, int count, struct vamp_error *error) {
  double times[4] = {now()};
  int status = 0;
  for (int i = 0; i < count && status == 0; i++) {
    status = prepare(bench, i, error);
  }
  times[1] = now();
  for (int i = 0; i < count && status == 0; i++) {
    status = submit(bench, i, error);
  }
  if (status == 0) {
    status = run(bench, error);
  }
  times[2] = now();
  for (int i = 0; i < count && status == 0; i++) {
    status = finish(bench, i, error);
  }
  times[3] = now();
  for (int i = 0; i < count; i++) {
    forget(bench, i);
  }
  printf("{\"prepare\": %.6f, \"loop\": %.6f, \"finish\": %.6f}\n", times[1] - times[0], times[2] - times[1],
         times[3] - times[2]);
  return status;
}

static int obey(struct bench *bench, struct vamp_error *error) {
  char line[64];
  int count, status = 0;
  while (status == 0 && fgets(line, sizeof line, stdin)) {
    bool alone = sscanf(line, "alone %d", &count) == 1;
    if ((!alone && sscanf(line, "batch %d", &count) != 1) || count < 1 || count > MAX_VARIATIONS) {
      return vamp_fail(error, VAMP_INVALID, "not understood: %s", line);
    }
    status = alone ? measure_alone(bench, count, error) : measure_batch(bench, count, error);
    fflush(stdout);
  }
  return status;
}

static int open_engine(char **arguments, struct bench *bench, struct vamp_error *error) {
  struct vamp_device_options options = {
      .threads = atoi(arguments[4]),
  };
  options.precision_given = vamp_precision_parse(arguments[5], &options.precision);
  bench->params = arguments[3];
  int status = read_clip(arguments[2], bench, error);
  if (status == 0) {
    status = vamp_cpu_open(&options, &bench->device, error);
  }
  if (status == 0) {
    status = vamp_model_open(arguments[1], bench->device, &bench->model, error);
  }
  if (status == 0) {
    status = vamp_loop_create(bench->model, NULL, &bench->loop, error);
  }
  return status;
}

static void close_engine(struct bench *bench) {
  if (bench->loop) {
    vamp_loop_free(bench->loop);
  }
  if (bench->model) {
    vamp_model_free(bench->model);
  }
  if (bench->device) {
    bench->device->close(bench->device);
  }
  free(bench->clip);
}

int main(int argc, char **argv) {
  static struct bench bench;
  struct vamp_error error = {0};
  if (argc != 6) {
    fprintf(stderr, "usage: bench_http_engine MODEL CLIP PARAMS THREADS PRECISION\n");
    return 2;
  }
  int status = open_engine(argv, &bench, &error);
  if (status == 0) {
    printf("ready\n");
    fflush(stdout);
    status = obey(&bench, &error);
  }
  if (status != 0) {
    fprintf(stderr, "bench_http_engine: %s\n", error.message);
  }
  close_engine(&bench);
  return status == 0 ? 0 : 1;
}
