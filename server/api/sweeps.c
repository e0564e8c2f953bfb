/*
 * Sweeps: POST /v1/sweeps, the list, one of them with its points, its table, its archive, its end.
 *
 * A sweep is a grid over parameters on one clip, one durable job for every point. All points are checked
 * before any is accepted: a value that is out of range at point 3000 is an error at once, and not after an
 * hour.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "server/api/accept.h"
#include "server/api/lookup.h"
#include "server/http/router.h"
#include "server/jobs/grid.h"
#include "server/jobs/runner.h"
#include "server/jobs/sweep.h"

#define DEFAULT_LIMIT 20
#define MAX_LIMIT 200

/* ---- accepting
 * ------------------------------------------------------------------------------------------------ */

/* An error points into the parameters of a point; what the client sent is the grid, so it is the axis that
 * set the field, or a part of it, that is to blame. Fields that no axis sets keep their pointer. */
static void point_into_grid(const json_t *grid, struct vamp_error *error) {
  const char *axis;
  json_t *values;
  json_object_foreach((json_t *)grid, axis, values) {
    const char *field = error->field[0] == '/' ? error->field + 1 : error->field;
    const char *name = axis;
    while (*name && *field && (*name == *field || (*name == '.' && *field == '/'))) {
      name++;
      field++;
    }
    bool inside = *name == '\0' && (*field == '\0' || *field == '/');
    bool around = *field == '\0' && *name == '.';
    if (inside || around) {
      snprintf(error->field, sizeof error->field, "/grid/%s", axis);
      return;
    }
  }
}

/* Says which point of the grid it is that cannot be. */
static void refuse_point(struct vampd_exchange *exchange, struct vamp_error *error, int point,
                         const json_t *values) {
  char sentence[sizeof error->message];
  char *text = json_dumps(values, JSON_COMPACT | JSON_REAL_PRECISION(15));
  snprintf(sentence, sizeof sentence, "Point %d, %.200s: %.280s", point, text ? text : "", error->message);
  memcpy(error->message, sentence, sizeof sentence);
  free(text);
  vampd_answer_error(&exchange->answer, error, VAMPD_PROBLEM_INVALID_FIELD);
}

/* Makes and checks all points; the first of them is on the clip that `variation` is of. */
static int make_points(struct vampd_exchange *exchange, const struct vampd_device_facts *facts,
                       const struct vampd_input *input, const struct vamp_variation *variation, int points,
                       struct vampd_acceptance *acceptance) {
  int status = VAMP_OK;
  for (int point = 0; point < points && status == VAMP_OK; point++) {
    struct vamp_request request = {0};
    struct vamp_error error = {0};
    json_t *params = NULL, *values = NULL;
    status = vampd_grid_point(input->grid, input->params, point, &params, &values, &error);
    if (status == VAMP_OK) {
      status = vamp_request_parse(params, &request, &error);
    }
    if (status == VAMP_OK) {
      status = vamp_variation_check(&request, variation, &facts->model, &error);
    }
    if (status == VAMP_OK) {
      status = vampd_acceptance_job(acceptance, 0, params, values, &error);
    }
    if (status != VAMP_OK) {
      point_into_grid(input->grid, &error);
      refuse_point(exchange, &error, point, values);
    }
    vamp_request_free(&request);
    json_decref(params);
    json_decref(values);
    if (status == VAMP_OK && vampd_exchange_abandoned(exchange)) {
      vampd_answer_problem(&exchange->answer, VAMPD_PROBLEM_STOPPING, NULL, "The request was abandoned.");
      status = VAMP_CANCELLED;
    }
  }
  return status;
}

/* The clip, as the parameters without the grid have it: what is wrong with those is found here. */
static int prepare_clip(struct vampd_exchange *exchange, const struct vampd_device_facts *facts,
                        struct vampd_input *input, struct vampd_acceptance *acceptance,
                        struct vamp_variation *variation) {
  struct vamp_error error = {0};
  struct vamp_request request = {0};
  int status = vampd_input_parse(exchange, input->params, &request);
  if (status == VAMP_OK) {
    status = vampd_input_variation(exchange, facts, input, 0, &request, variation);
  }
  uint64_t seed = request.sampling.seed; /* one that is missing is drawn once, for all points */
  vamp_request_free(&request);
  if (status != VAMP_OK) {
    return status;
  }
  status = vampd_acceptance_seed(input->params, seed, &error);
  if (status == VAMP_OK) {
    status = vampd_acceptance_clip(acceptance, &input->clips[0], variation, &error);
  }
  if (status != VAMP_OK) {
    vampd_answer_error(&exchange->answer, &error, VAMPD_PROBLEM_INTERNAL);
  }
  return status;
}

static int accept_sweep(struct vampd_exchange *exchange, const struct vampd_device_facts *facts,
                        struct vampd_input *input, struct vampd_acceptance *acceptance,
                        struct vampd_store_sweep *sweep) {
  struct vamp_variation variation = {0};
  struct vamp_error error = {0};
  int points = 0;
  int status = vampd_input_read(exchange, VAMPD_TAKES_GRID, input);
  if (status != VAMP_OK) {
    return status;
  }
  status = vampd_grid_check(input->grid, &points, &error);
  if (status == VAMP_OK) {
    status = vampd_store_new_id(sweep->id, &error);
  }
  if (status != VAMP_OK) {
    vampd_answer_error(&exchange->answer, &error, VAMPD_PROBLEM_INVALID_FIELD);
    return status;
  }
  status = vampd_acceptance_begin(exchange, facts, 1, points, acceptance);
  if (status == VAMP_OK) {
    status = prepare_clip(exchange, facts, input, acceptance, &variation);
  }
  if (status == VAMP_OK) {
    status = make_points(exchange, facts, input, &variation, points, acceptance);
  }
  vamp_variation_free(&variation);
  if (status != VAMP_OK) {
    return status;
  }
  sweep->points = points;
  sweep->grid = json_dumps(input->grid, JSON_COMPACT);
  memcpy(sweep->input, acceptance->clips[0].id, sizeof sweep->input);
  strncpy(sweep->owner, vampd_caller_name(exchange->caller), sizeof sweep->owner - 1);
  acceptance->sweep = sweep;
  if (!sweep->grid) {
    vampd_answer_json(&exchange->answer, 202, NULL);
    return VAMP_MEMORY;
  }
  return vampd_acceptance_commit(exchange, acceptance);
}

/* ---- answering
 * -------------------------------------------------------------------------------------------------- */

/* Reads the sweep that the path names, with its jobs. */
static int read_sweep(struct vampd_exchange *exchange, struct vampd_sweep *sweep) {
  struct vampd_store_sweep row = {0};
  struct vamp_error error = {0};
  int status = vampd_lookup_sweep(exchange, &row);
  if (status != VAMP_OK) {
    return status;
  }
  status = vampd_sweep_read(exchange->daemon->store, &row, sweep, &error);
  if (status != VAMP_OK) {
    vampd_answer_error(&exchange->answer, &error, VAMPD_PROBLEM_INTERNAL);
  }
  return status;
}

static void answer_sweep(struct vampd_exchange *exchange, int status, const struct vampd_sweep *sweep) {
  struct vampd *daemon = exchange->daemon;
  vampd_answer_json(&exchange->answer, status,
                    vampd_sweep_document(sweep, daemon->house, vampd_metrics_rate(daemon->metrics), false));
}

void vampd_handle_sweeps_post(struct vampd_exchange *exchange) {
  const struct vampd_device_facts *facts = vampd_exchange_begin(exchange);
  struct vampd_input input = {0};
  struct vampd_acceptance acceptance = {0};
  struct vampd_store_sweep row = {0};
  struct vampd_sweep sweep = {0};
  if (facts && accept_sweep(exchange, facts, &input, &acceptance, &row) == VAMP_OK) {
    memcpy(exchange->target, row.id, sizeof exchange->target);
    if (read_sweep(exchange, &sweep) == VAMP_OK) {
      answer_sweep(exchange, 202, &sweep);
      vampd_answer_header(&exchange->answer, "Location", "/v1/sweeps/%s", row.id);
    }
  }
  vampd_sweep_free(&sweep);
  vampd_acceptance_end(&acceptance);
  vampd_store_sweep_free(&row);
  vampd_input_free(&input);
  vampd_exchange_finish(exchange);
}

void vampd_handle_sweep(struct vampd_exchange *exchange) {
  struct vampd_sweep sweep = {0};
  if (read_sweep(exchange, &sweep) == VAMP_OK) {
    answer_sweep(exchange, 200, &sweep);
  }
  vampd_sweep_free(&sweep);
  vampd_exchange_finish(exchange);
}

void vampd_handle_sweeps(struct vampd_exchange *exchange) {
  struct vampd *daemon = exchange->daemon;
  struct vampd_store_sweep *sweeps = NULL;
  struct vamp_error error = {0};
  int64_t limit, before;
  int count = 0;
  if (vampd_query_number(exchange, "limit", MAX_LIMIT, DEFAULT_LIMIT, &limit) != VAMP_OK ||
      vampd_query_number(exchange, "before", INT64_MAX, 0, &before) != VAMP_OK) {
    vampd_exchange_finish(exchange);
    return;
  }
  if (vampd_store_list_sweeps(daemon->store, vampd_lookup_owner(exchange), before, (int)limit, &sweeps,
                              &count, &error) != VAMP_OK) {
    vampd_answer_error(&exchange->answer, &error, VAMPD_PROBLEM_INTERNAL);
    vampd_exchange_finish(exchange);
    return;
  }
  json_t *list = json_array(), *document = json_pack("{s:o}", "sweeps", list);
  int64_t last = count > 0 ? sweeps[count - 1].number : 0;
  for (int i = 0; i < count; i++) {
    const struct vampd_sweep sweep = {.row = sweeps[i]};
    json_array_append_new(
        list, vampd_sweep_document(&sweep, daemon->house, vampd_metrics_rate(daemon->metrics), true));
    vampd_store_sweep_free(&sweeps[i]);
  }
  free(sweeps);
  if (count == (int)limit) {
    json_object_set_new(document, "next",
                        json_sprintf("/v1/sweeps?before=%lld&limit=%lld", (long long)last, (long long)limit));
  }
  vampd_answer_json(&exchange->answer, 200, document);
  vampd_exchange_finish(exchange);
}

/* ---- table and archive
 * ------------------------------------------------------------------------------------------- */

void vampd_handle_sweep_table(struct vampd_exchange *exchange) {
  struct vampd_sweep sweep = {0};
  struct vamp_error error = {0};
  char *text;
  size_t size;
  if (read_sweep(exchange, &sweep) == VAMP_OK) {
    if (vampd_sweep_csv(&sweep, &text, &size, &error) == VAMP_OK) {
      vampd_answer_bytes(&exchange->answer, 200, "text/csv", text, size);
      vampd_answer_header(&exchange->answer, "Content-Disposition", "attachment; filename=\"sweep-%s.csv\"",
                          sweep.row.id);
    } else {
      vampd_answer_error(&exchange->answer, &error, VAMPD_PROBLEM_INTERNAL);
    }
  }
  vampd_sweep_free(&sweep);
  vampd_exchange_finish(exchange);
}

static bool is_given_up(void *exchange) {
  return vampd_exchange_abandoned(exchange);
}

static void send_archive(struct vampd_exchange *exchange, const struct vampd_sweep *sweep) {
  struct vampd *daemon = exchange->daemon;
  struct vamp_error error = {0};
  int file = -1;
  int64_t size = 0;
  if (!vampd_sweep_finished(sweep)) {
    vampd_answer_problem(
        &exchange->answer, VAMPD_PROBLEM_NOT_FINISHED, NULL,
        "The sweep is not finished; GET /v1/sweeps/%s says how far it is, and table.csv has the "
        "points that are done.",
        sweep->row.id);
  } else if (vampd_sweep_archive(daemon->store, daemon->decoder, sweep, is_given_up, exchange, &file, &size,
                                 &error) != VAMP_OK) {
    /* VAMP_INVALID: it has been forgotten meanwhile */
    vampd_answer_error(&exchange->answer, &error, VAMPD_PROBLEM_NOT_FOUND);
  } else {
    char etag[64];
    snprintf(etag, sizeof etag, "%s-archive", sweep->row.id);
    vampd_answer_file(&exchange->answer, "application/zip", file, (size_t)size, etag);
    vampd_answer_header(&exchange->answer, "Content-Disposition", "attachment; filename=\"sweep-%s.zip\"",
                        sweep->row.id);
  }
}

void vampd_handle_sweep_archive(struct vampd_exchange *exchange) {
  struct vampd_sweep sweep = {0};
  if (read_sweep(exchange, &sweep) == VAMP_OK) {
    send_archive(exchange, &sweep);
  }
  vampd_sweep_free(&sweep);
  vampd_exchange_finish(exchange);
}

/* ---- the end
 * ------------------------------------------------------------------------------------------------------ */

static void forget(struct vampd_task *task) {
  struct vampd_exchange *exchange = (struct vampd_exchange *)task;
  struct vamp_error error = {0};
  if (vampd_store_forget_sweep(exchange->daemon->store, exchange->target, &error) == VAMP_OK) {
    vampd_answer_bytes(&exchange->answer, 204, NULL, NULL, 0);
  } else {
    /* VAMP_INVALID: it has been forgotten meanwhile */
    vampd_answer_error(&exchange->answer, &error, VAMPD_PROBLEM_NOT_FOUND);
  }
  vampd_exchange_finish(exchange);
}

/* Whether some of the jobs stand in the store alone: accepted a moment ago, or left by an earlier daemon and
 * not taken up yet. One that has ended meanwhile is not in the house either, but its row says so. */
static bool waits_outside(struct vampd *daemon, const struct vampd_sweep *sweep) {
  bool outside = false;
  for (int i = 0; i < sweep->count && !outside; i++) {
    struct vampd_store_job row = {0};
    const char *id = sweep->jobs[i].id;
    if (sweep->jobs[i].state == VAMPD_STATE_QUEUED && !vampd_house_has(daemon->house, id) &&
        vampd_store_job(daemon->store, id, NULL, &row, NULL) == VAMP_OK) {
      outside = row.state == VAMPD_STATE_QUEUED;
    }
    vampd_store_job_free(&row);
  }
  return outside;
}

/* Cancelling must not wait for an archive that is being packed; removing thousands of files may. */
void vampd_handle_sweep_delete(struct vampd_exchange *exchange) {
  struct vampd *daemon = exchange->daemon;
  struct vampd_sweep sweep = {0};
  int status = read_sweep(exchange, &sweep);
  if (status == VAMP_OK && vampd_sweep_finished(&sweep)) {
    vampd_sweep_free(&sweep);
    exchange->task.run = forget;
    vampd_work_push(daemon->chores, &exchange->task, false);
    return;
  }
  if (status == VAMP_OK) {
    int queued = sweep.row.states[VAMPD_STATE_QUEUED];
    bool all = vampd_runner_cancel(daemon->runner, sweep.jobs, sweep.count) >= queued ||
               !waits_outside(daemon, &sweep);
    vampd_sweep_free(&sweep);
    if (!all) {
      vampd_answer_problem(&exchange->answer, VAMPD_PROBLEM_NOT_FINISHED, NULL,
                           "Not all of the sweep has entered the queue yet: ask again in a moment.");
    } else if (read_sweep(exchange, &sweep) == VAMP_OK) {
      answer_sweep(exchange, 202, &sweep);
    }
  }
  vampd_sweep_free(&sweep);
  vampd_exchange_finish(exchange);
}
