/*
 * Metrics: see metrics.h. One mutex over a few hundred numbers: they change some thousand times a second at
 * most. A client library is not in the distribution for C.
 */
#include "server/metrics.h"

#include <dirent.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#define MAX_ROUTES 48
#define MAX_STATUSES 24
#define BUCKETS 12

struct histogram {
  uint64_t counts[BUCKETS + 1]; /* the last: above all bounds */
  double sum;
};

static const double SECONDS[BUCKETS] = {0.001, 0.005, 0.02, 0.1, 0.25, 0.5, 1, 2.5, 5, 15, 60, 300};
static const double SIZES[BUCKETS] = {1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048};
static const double ROWS[BUCKETS] = {64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384, 32768, 65536, 131072};

struct route {
  const char *path;
  struct histogram seconds;
  int status[MAX_STATUSES];
  uint64_t count[MAX_STATUSES];
};

struct vampd_metrics {
  pthread_mutex_t mutex;
  struct route routes[MAX_ROUTES];
  int route_count;
  struct histogram queued, job, sequences, rows;
  uint64_t jobs[3];
  int devices;
  double busy_seconds[VAMPD_MAX_DEVICES];
  double audio_seconds, rate;
  uint64_t tokens;
  double started; /* since 1970 */
};

int vampd_metrics_create(struct vampd_metrics **metrics, struct vamp_error *error) {
  struct vampd_metrics *made = calloc(1, sizeof *made);
  if (!made) {
    return vamp_fail(error, VAMP_MEMORY, "Out of memory for the metrics.");
  }
  pthread_mutex_init(&made->mutex, NULL);
  struct timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  made->devices = 1;
  made->started = (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
  *metrics = made;
  return VAMP_OK;
}

void vampd_metrics_free(struct vampd_metrics *metrics) {
  if (metrics) {
    pthread_mutex_destroy(&metrics->mutex);
    free(metrics);
  }
}

static void observe(struct histogram *histogram, const double *bounds, double value) {
  int i = 0;
  while (i < BUCKETS && value > bounds[i]) {
    i++;
  }
  histogram->counts[i]++;
  histogram->sum += value;
}

static struct route *find_route(struct vampd_metrics *metrics, const char *path) {
  for (int i = 0; i < metrics->route_count; i++) {
    if (strcmp(metrics->routes[i].path, path) == 0) {
      return &metrics->routes[i];
    }
  }
  if (metrics->route_count == MAX_ROUTES) {
    return NULL;
  }
  struct route *route = &metrics->routes[metrics->route_count++];
  route->path = path;
  return route;
}

void vampd_metrics_request(struct vampd_metrics *metrics, const char *path, int status, double seconds) {
  pthread_mutex_lock(&metrics->mutex);
  struct route *route = find_route(metrics, path);
  if (route) {
    observe(&route->seconds, SECONDS, seconds);
    int i = 0;
    while (i < MAX_STATUSES - 1 && route->status[i] != status && route->count[i] > 0) {
      i++;
    }
    route->status[i] = status;
    route->count[i]++;
  }
  pthread_mutex_unlock(&metrics->mutex);
}

void vampd_metrics_devices(struct vampd_metrics *metrics, int devices) {
  pthread_mutex_lock(&metrics->mutex);
  metrics->devices = devices;
  pthread_mutex_unlock(&metrics->mutex);
}

void vampd_metrics_turn(struct vampd_metrics *metrics, int device, const struct vamp_loop_turn *turn,
                        double seconds) {
  pthread_mutex_lock(&metrics->mutex);
  metrics->busy_seconds[device] += seconds;
  observe(&metrics->sequences, SIZES, turn->sequences);
  observe(&metrics->rows, ROWS, (double)turn->rows);
  if (seconds > 0 && turn->cost > 0) {
    double rate = turn->cost / seconds;
    /* Large turns say more than small ones. */
    double share = turn->cost / (turn->cost + 20000);
    metrics->rate = metrics->rate > 0 ? metrics->rate + share * (rate - metrics->rate) : rate;
  }
  pthread_mutex_unlock(&metrics->mutex);
}

double vampd_metrics_rate(struct vampd_metrics *metrics) {
  pthread_mutex_lock(&metrics->mutex);
  double rate = metrics->rate;
  pthread_mutex_unlock(&metrics->mutex);
  return rate;
}

void vampd_metrics_job(struct vampd_metrics *metrics, enum vampd_ending ending, double seconds,
                       const struct vamp_result *result, int sample_rate) {
  pthread_mutex_lock(&metrics->mutex);
  metrics->jobs[ending]++;
  if (seconds > 0) {
    observe(&metrics->job, SECONDS, seconds);
  }
  if (result) {
    observe(&metrics->queued, SECONDS, result->seconds.queued);
    metrics->tokens += (uint64_t)result->codebooks * (uint64_t)result->frames * (uint64_t)result->passes;
    metrics->audio_seconds += sample_rate > 0 ? (double)result->sample_count / sample_rate : 0;
  }
  pthread_mutex_unlock(&metrics->mutex);
}

/* ---- text ---------------------------------------------------------------------------------------------- */

static void family(FILE *out, const char *name, const char *type, const char *help) {
  fprintf(out, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

static void print_histogram(FILE *out, const char *name, const char *label, const struct histogram *histogram,
                            const double *bounds) {
  const char *comma = label[0] ? "," : "";
  const char *open = label[0] ? "{" : "", *close = label[0] ? "}" : "";
  uint64_t total = 0;
  for (int i = 0; i < BUCKETS; i++) {
    total += histogram->counts[i];
    fprintf(out, "%s_bucket{%s%sle=\"%g\"} %llu\n", name, label, comma, bounds[i], (unsigned long long)total);
  }
  total += histogram->counts[BUCKETS];
  fprintf(out, "%s_bucket{%s%sle=\"+Inf\"} %llu\n", name, label, comma, (unsigned long long)total);
  fprintf(out, "%s_sum%s%s%s %.6f\n%s_count%s%s%s %llu\n", name, open, label, close, histogram->sum, name,
          open, label, close, (unsigned long long)total);
}

static void print_number(FILE *out, const char *name, const char *type, const char *help, double value) {
  family(out, name, type, help);
  fprintf(out, "%s %.15g\n", name, value);
}

static void print_requests(FILE *out, const struct vampd_metrics *metrics) {
  family(out, "vampd_requests_total", "counter", "Requests answered, by route and status.");
  for (int r = 0; r < metrics->route_count; r++) {
    const struct route *route = &metrics->routes[r];
    for (int i = 0; i < MAX_STATUSES && route->count[i] > 0; i++) {
      fprintf(out, "vampd_requests_total{route=\"%s\",status=\"%d\"} %llu\n", route->path, route->status[i],
              (unsigned long long)route->count[i]);
    }
  }
  family(out, "vampd_request_seconds", "histogram",
         "From the header lines of a request to the end of its answer.");
  for (int r = 0; r < metrics->route_count; r++) {
    char label[128];
    snprintf(label, sizeof label, "route=\"%s\"", metrics->routes[r].path);
    print_histogram(out, "vampd_request_seconds", label, &metrics->routes[r].seconds, SECONDS);
  }
}

static void print_jobs(FILE *out, const struct vampd_metrics *metrics, const struct vampd_gauges *gauges) {
  static const char *const ENDINGS[] = {"done", "failed", "cancelled"};
  family(out, "vampd_jobs_total", "counter", "Generations that ended, by how.");
  for (int i = 0; i < 3; i++) {
    fprintf(out, "vampd_jobs_total{state=\"%s\"} %llu\n", ENDINGS[i], (unsigned long long)metrics->jobs[i]);
  }
  family(out, "vampd_jobs", "gauge", "Durable jobs that are not finished.");
  fprintf(out, "vampd_jobs{state=\"queued\"} %d\nvampd_jobs{state=\"running\"} %d\n", gauges->jobs_waiting,
          gauges->jobs_running);
  print_number(out, "vampd_requests_in_progress", "gauge",
               "Requests that are worked on while their client waits.", gauges->requests);
  family(out, "vampd_queue_seconds", "histogram", "From submission to a job's first turn on the device.");
  print_histogram(out, "vampd_queue_seconds", "", &metrics->queued, SECONDS);
  family(out, "vampd_job_seconds", "histogram", "From submission to the end of a generation.");
  print_histogram(out, "vampd_job_seconds", "", &metrics->job, SECONDS);
}

static int open_files(void) {
  DIR *folder = opendir("/proc/self/fd");
  int count = 0;
  while (folder && readdir(folder)) {
    count++;
  }
  if (folder) {
    closedir(folder);
  }
  return count > 3 ? count - 3 : 0; /* ".", "..", and the folder itself */
}

static void print_process(FILE *out, double started) {
  struct rusage usage;
  getrusage(RUSAGE_SELF, &usage);
  double cpu = (double)usage.ru_utime.tv_sec + (double)usage.ru_stime.tv_sec +
               1e-6 * ((double)usage.ru_utime.tv_usec + (double)usage.ru_stime.tv_usec);
  print_number(out, "process_cpu_seconds_total", "counter", "Processor time, user and system.", cpu);
  print_number(out, "process_start_time_seconds", "gauge", "When the daemon was started, since 1970.",
               started);
  print_number(out, "process_open_fds", "gauge", "Open file descriptors.", open_files());
  long pages = 0;
  FILE *file = fopen("/proc/self/statm", "re");
  if (file) {
    if (fscanf(file, "%*s %ld", &pages) != 1) {
      pages = 0;
    }
    fclose(file);
  }
  print_number(out, "process_resident_memory_bytes", "gauge", "Resident memory.",
               (double)pages * (double)sysconf(_SC_PAGESIZE));
}

char *vampd_metrics_text(struct vampd_metrics *metrics, const struct vampd_gauges *gauges, size_t *size) {
  char *text = NULL;
  FILE *out = open_memstream(&text, size);
  if (!out) {
    return NULL;
  }
  pthread_mutex_lock(&metrics->mutex);
  print_requests(out, metrics);
  print_jobs(out, metrics, gauges);
  family(out, "vampd_batch_sequences", "histogram", "Sequences in a turn of the batch loop.");
  print_histogram(out, "vampd_batch_sequences", "", &metrics->sequences, SIZES);
  family(out, "vampd_batch_rows", "histogram", "Frames in a turn of the batch loop.");
  print_histogram(out, "vampd_batch_rows", "", &metrics->rows, ROWS);
  family(out, "vampd_device_busy_seconds_total", "counter", "Time in which a device ran turns.");
  for (int i = 0; i < metrics->devices; i++) {
    fprintf(out, "vampd_device_busy_seconds_total{device=\"%d\"} %.15g\n", i, metrics->busy_seconds[i]);
  }
  print_number(out, "vampd_tokens_total", "counter", "Tokens of results, kept and generated, of all passes.",
               (double)metrics->tokens);
  print_number(out, "vampd_audio_seconds_total", "counter", "Seconds of audio produced.",
               metrics->audio_seconds);
  pthread_mutex_unlock(&metrics->mutex);
  print_number(out, "vampd_connections", "gauge", "Open connections.", gauges->connections);
  print_number(out, "vampd_store_bytes", "gauge", "Inputs and results on the disk.",
               (double)gauges->store_bytes);
  print_number(out, "vampd_store_free_bytes", "gauge", "Free space of that disk.",
               (double)gauges->store_free_bytes);
  print_number(out, "vampd_store_jobs", "gauge", "Jobs in the store, finished or not.",
               (double)gauges->store_jobs);
  print_process(out, metrics->started);
  if (fclose(out) != 0) {
    free(text);
    return NULL;
  }
  return text;
}
