/*
 * A sweep with its jobs, as JSON and as CSV: see sweep.h; its archive is archive.c.
 *
 * The rows are read first and the house is asked after that, so the two may tell of different moments; what
 * is said always adds up to the number of points.
 */
#include "server/jobs/sweep.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "server/jobs/document.h"
#include "server/jobs/outlook.h"

/* As the rows have them that were read: a moment later than the sweep's own. */
static void count_states(struct vampd_sweep *sweep) {
  memset(sweep->row.states, 0, sizeof sweep->row.states);
  sweep->row.last[0] = '\0';
  for (int i = 0; i < sweep->count; i++) {
    const struct vampd_store_job *job = &sweep->jobs[i];
    sweep->row.states[job->state]++;
    if (job->state == VAMPD_STATE_QUEUED) {
      memcpy(sweep->row.last, job->id, sizeof job->id);
    }
  }
}

int vampd_sweep_read(struct vampd_store *store, struct vampd_store_sweep *row, struct vampd_sweep *sweep,
                     struct vamp_error *error) {
  struct vampd_sweep made = {.row = *row};
  struct vampd_store_query query = {.sweep = made.row.id, .any_state = true};
  *row = (struct vampd_store_sweep){0};
  int status = vampd_store_list(store, &query, &made.jobs, &made.count, error);
  if (status != VAMP_OK) {
    vampd_sweep_free(&made);
    return status;
  }
  count_states(&made);
  *sweep = made;
  return VAMP_OK;
}

void vampd_sweep_free(struct vampd_sweep *sweep) {
  for (int i = 0; i < sweep->count; i++) {
    vampd_store_job_free(&sweep->jobs[i]);
  }
  free(sweep->jobs);
  vampd_store_sweep_free(&sweep->row);
  *sweep = (struct vampd_sweep){0};
}

bool vampd_sweep_finished(const struct vampd_sweep *sweep) {
  return sweep->row.states[VAMPD_STATE_QUEUED] == 0;
}

/* ---- JSON
 * -------------------------------------------------------------------------------------------------- */

static json_t *point_json(const struct vampd_store_job *job, const struct vampd_live_facts *facts) {
  static const char *const COPIED[] = {"density", "changed", "measures"};
  json_t *params = vampd_stored_json(job->params), *outcome = vampd_stored_json(job->outcome);
  json_t *values = json_object_get(params, "point");
  json_t *point = json_pack("{s:i, s:O, s:s, s:s}", "point", job->point, "values", values, "job", job->id,
                            "state", vampd_job_state(job, facts));
  for (size_t i = 0; job->state == VAMPD_STATE_DONE && i < sizeof COPIED / sizeof COPIED[0]; i++) {
    json_t *value = json_object_get(outcome, COPIED[i]);
    if (value) {
      json_object_set(point, COPIED[i], value);
    }
  }
  json_decref(params);
  json_decref(outcome);
  return point;
}

/* The table so far. *running counts what is said to run: a reader may count along. */
static json_t *points_json(const struct vampd_sweep *sweep, struct vampd_house *house, int *running) {
  json_t *points = json_array();
  *running = 0;
  for (int i = 0; i < sweep->count; i++) {
    const struct vampd_store_job *job = &sweep->jobs[i];
    struct vampd_live_facts facts = {0};
    if (job->state == VAMPD_STATE_QUEUED) {
      facts.phase = vampd_house_phase(house, job->id);
    }
    *running += facts.phase != VAMPD_PHASE_QUEUED;
    json_array_append_new(points, point_json(job, &facts));
  }
  return points;
}

json_t *vampd_sweep_document(const struct vampd_sweep *sweep, struct vampd_house *house, double rate,
                             bool brief) {
  const struct vampd_store_sweep *row = &sweep->row;
  const int *count = row->states;
  int unfinished = count[VAMPD_STATE_QUEUED];
  int finished = count[VAMPD_STATE_DONE] + count[VAMPD_STATE_FAILED] + count[VAMPD_STATE_CANCELLED];
  struct vampd_sweep_facts facts = {0};
  if (unfinished > 0) {
    facts = vampd_house_sweep(house, row->id, row->last);
  }
  /* A job leaves the house a moment after its row says that it is done: it must not count twice. */
  if (facts.running > unfinished) {
    facts.progress *= (double)unfinished / facts.running;
    facts.running = unfinished;
  }
  json_t *points = brief ? NULL : points_json(sweep, house, &facts.running);
  bool estimated = rate > 0 && facts.remaining > 0;
  double total = finished + unfinished;
  json_t *states = json_pack("{s:i, s:i, s:i, s:i, s:i}", "queued", unfinished - facts.running, "running",
                             facts.running, "done", count[VAMPD_STATE_DONE], "failed",
                             count[VAMPD_STATE_FAILED], "cancelled", count[VAMPD_STATE_CANCELLED]);
  bool cut = brief && strlen(row->grid) > VAMPD_LONG_JSON;
  json_t *links = json_object();
  json_object_set_new(links, "self", json_sprintf("/v1/sweeps/%s", row->id));
  json_object_set_new(links, "table", json_sprintf("/v1/sweeps/%s/table.csv", row->id));
  json_object_set_new(links, "archive", json_sprintf("/v1/sweeps/%s/archive.zip", row->id));
  return json_pack("{s:s, s:I, s:o, s:o, s:i, s:o, s:f, s:o, s:o*, s:o}", "id", row->id, "number",
                   (json_int_t)row->number, "created", vampd_time_json(row->created), "grid",
                   cut ? json_object() : vampd_stored_json(row->grid), "points_total", row->points, "states",
                   states, "progress", total > 0 ? (finished + facts.progress) / total : 0.0,
                   "estimate_seconds", estimated ? json_real(facts.remaining / rate) : json_null(), "points",
                   points, "links", links);
}

/* ---- CSV
 * --------------------------------------------------------------------------------------------------- */

/* One field; quoted where it has to be. */
static void put_field(FILE *out, const json_t *value) {
  if (json_is_string(value)) {
    const char *text = json_string_value(value);
    bool quoted = strpbrk(text, ",\"\r\n") != NULL;
    fputs(quoted ? "\"" : "", out);
    for (const char *at = text; *at; at++) {
      fputs(*at == '"' ? "\"\"" : (char[]){*at, '\0'}, out);
    }
    fputs(quoted ? "\"" : "", out);
  } else if (json_is_integer(value)) {
    fprintf(out, "%lld", (long long)json_integer_value(value));
  } else if (json_is_number(value)) {
    fprintf(out, "%.9g", json_number_value(value));
  } else if (value && !json_is_null(value)) {
    char *text = json_dumps(value, JSON_COMPACT | JSON_ENCODE_ANY | JSON_REAL_PRECISION(9));
    json_t *string = text ? json_string(text) : NULL;
    if (string) {
      put_field(out, string);
    }
    json_decref(string);
    free(text);
  }
}

/* The columns of shares: overall, coarse, fine, and of every codebook. */
static void put_shares(FILE *out, const char *name, const json_t *shares, int codebooks, bool header) {
  static const char *const PARTS[] = {"overall", "coarse", "fine"};
  for (int i = 0; i < 3; i++) {
    fputc(',', out);
    if (header) {
      fprintf(out, "%s_%s", name, PARTS[i]);
    } else {
      put_field(out, json_object_get(shares, PARTS[i]));
    }
  }
  for (int c = 0; c < codebooks; c++) {
    fputc(',', out);
    if (header) {
      fprintf(out, "%s_codebook_%d", name, c);
    } else {
      put_field(out, json_array_get(json_object_get(shares, "codebooks"), (size_t)c));
    }
  }
}

/* The columns that all rows have: those of the first point that is done. */
static void choose_columns(const struct vampd_sweep *sweep, int *codebooks, json_t **measures) {
  *codebooks = 0;
  *measures = NULL;
  for (int i = 0; i < sweep->count && !*measures; i++) {
    if (sweep->jobs[i].state == VAMPD_STATE_DONE) {
      json_t *outcome = vampd_stored_json(sweep->jobs[i].outcome);
      json_t *density = json_object_get(outcome, "density");
      *codebooks = (int)json_array_size(json_object_get(density, "codebooks"));
      *measures = json_incref(json_object_get(outcome, "measures"));
      json_decref(outcome);
    }
  }
}

/* One row, or the names. The seed has a column of its own, unless it is an axis and has one already. */
static void put_row(FILE *out, const struct vampd_store_job *job, const json_t *grid, int codebooks,
                    const json_t *columns, bool header) {
  json_t *params = vampd_stored_json(job->params), *outcome = vampd_stored_json(job->outcome);
  bool done = job->state == VAMPD_STATE_DONE;
  const char *name;
  json_t *value;
  if (header) {
    fputs("point", out);
  } else {
    fprintf(out, "%d", job->point);
  }
  json_object_foreach((json_t *)grid, name, value) {
    fputc(',', out);
    json_t *field =
        header ? json_string(name) : json_incref(json_object_get(json_object_get(params, "point"), name));
    put_field(out, field);
    json_decref(field);
  }
  if (!json_object_get(grid, "seed")) {
    fputs(header ? ",seed" : ",", out);
    put_field(out, header ? NULL : json_object_get(json_object_get(params, "params"), "seed"));
  }
  if (header) {
    fputs(",job,state", out);
  } else {
    fprintf(out, ",%s,%s", job->id, vampd_job_state(job, NULL));
  }
  put_shares(out, "density", done ? json_object_get(outcome, "density") : NULL, codebooks, header);
  put_shares(out, "changed", done ? json_object_get(outcome, "changed") : NULL, codebooks, header);
  json_object_foreach((json_t *)columns, name, value) {
    fputc(',', out);
    if (header) {
      fputs(name, out);
    } else {
      put_field(out, done ? json_object_get(json_object_get(outcome, "measures"), name) : NULL);
    }
  }
  fputs("\r\n", out);
  json_decref(params);
  json_decref(outcome);
}

int vampd_sweep_csv(const struct vampd_sweep *sweep, char **text, size_t *size, struct vamp_error *error) {
  char *made = NULL;
  FILE *out = open_memstream(&made, size);
  if (!out) {
    return vamp_fail(error, VAMP_MEMORY, "Out of memory while writing the table.");
  }
  int codebooks;
  json_t *columns, *grid = vampd_stored_json(sweep->row.grid);
  choose_columns(sweep, &codebooks, &columns);
  static const struct vampd_store_job none;
  put_row(out, sweep->count > 0 ? &sweep->jobs[0] : &none, grid, codebooks, columns, true);
  for (int i = 0; i < sweep->count; i++) {
    put_row(out, &sweep->jobs[i], grid, codebooks, columns, false);
  }
  json_decref(columns);
  json_decref(grid);
  if (fclose(out) != 0) {
    free(made);
    return vamp_fail(error, VAMP_MEMORY, "Out of memory while writing the table.");
  }
  *text = made;
  return VAMP_OK;
}
