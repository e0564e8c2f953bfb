/*
 * Accepting: inputs, jobs and perhaps a sweep, all or none.
 *
 * Space is claimed first, then the inputs are written beside, fsynced and named, by as many threads at once
 * as there are callers; under the writer's mutex remains the commit. Until that has returned nothing speaks
 * of the files, and a kill leaves only what the next start removes; after it all of it is there.
 */
#include <stdlib.h>
#include <string.h>

#include "server/store/internal.h"

#define COUNT_MAX 100000 /* inputs or jobs of one call */

static int check_jobs(const struct vampd_store_job *jobs, int count, const struct vampd_store_sweep *sweep,
                      struct vamp_error *error) {
  bool of_sweep = false;
  for (int i = 0; i < count; i++) {
    bool member = jobs[i].sweep[0] != '\0';
    of_sweep = of_sweep || member;
    if (!vampd_store_is_id(jobs[i].id) || !vampd_store_is_id(jobs[i].input) || !jobs[i].params ||
        (member && (!sweep || strcmp(jobs[i].sweep, sweep->id) != 0))) {
      return vamp_fail(error, VAMP_INVALID, "A job to be stored lacks an id, an input, its sweep or params.");
    }
  }
  if (sweep &&
      (!vampd_store_is_id(sweep->id) || !vampd_store_is_id(sweep->input) || !sweep->grid || !of_sweep)) {
    return vamp_fail(error, VAMP_INVALID, "A sweep to be stored lacks an id, an input, its grid or jobs.");
  }
  return VAMP_OK;
}

/* An input that no job names would never be forgotten. */
static int check_inputs(const struct vampd_store_input *inputs, int count, const struct vampd_store_job *jobs,
                        int job_count, struct vamp_error *error) {
  for (int i = 0; i < count; i++) {
    int user = 0;
    while (user < job_count && strcmp(jobs[user].input, inputs[i].id) != 0) {
      user++;
    }
    if (!vampd_store_is_id(inputs[i].id) || (!inputs[i].bytes && inputs[i].size > 0) || user == job_count) {
      return vamp_fail(error, VAMP_INVALID, "An input to be stored lacks an id, its bytes or a job.");
    }
  }
  return VAMP_OK;
}

/* ---- files -------------------------------------------------------------------------------------------- */

struct staged {
  char name[VAMPD_STAGE_SIZE];
  bool written, placed;
};

static int stage_inputs(struct vampd_store *store, const struct vampd_store_input *inputs, int count,
                        struct staged *staged, struct vamp_error *error) {
  for (int i = 0; i < count; i++) {
    const struct vampd_store_file clip = {"clip", inputs[i].bytes, inputs[i].size};
    int status = vampd_folder_stage(store, VAMPD_FOLDER_INPUTS, &clip, 1, staged[i].name, error);
    if (status != VAMP_OK) {
      return status;
    }
    staged[i].written = true;
  }
  return VAMP_OK;
}

static int place_inputs(struct vampd_store *store, const struct vampd_store_input *inputs, int count,
                        struct staged *staged, struct vamp_error *error) {
  for (int i = 0; i < count; i++) {
    int status = vampd_folder_place(store, VAMPD_FOLDER_INPUTS, staged[i].name, inputs[i].id, false, error);
    if (status != VAMP_OK) {
      return status;
    }
    staged[i].placed = true;
  }
  return count > 0 ? vampd_folder_sync(store, VAMPD_FOLDER_INPUTS, error) : VAMP_OK;
}

static void remove_inputs(struct vampd_store *store, const struct vampd_store_input *inputs, int count,
                          const struct staged *staged) {
  for (int i = 0; i < count; i++) {
    if (staged[i].written) {
      vampd_folder_remove(store, VAMPD_FOLDER_INPUTS, staged[i].placed ? inputs[i].id : staged[i].name);
    }
  }
}

/* ---- rows --------------------------------------------------------------------------------------------- */

static int add(struct vampd_database *writer, enum vampd_sql sql, int64_t *number, struct vamp_error *error) {
  int status = vampd_database_run(writer, sql, error);
  if (status == VAMP_OK && number) {
    *number = sqlite3_last_insert_rowid(writer->handle);
  }
  return status;
}

static int add_sweep(struct vampd_store *store, const struct vampd_store_sweep *sweep, int64_t now,
                     const struct vampd_store_job *jobs, int job_count, int64_t *number,
                     struct vamp_error *error) {
  int members = 0;
  for (int i = 0; i < job_count; i++) {
    members += jobs[i].sweep[0] != '\0';
  }
  int status = vampd_database_bind(&store->writer, VAMPD_SQL_SWEEP_ADD, error, "tttinnt", sweep->id,
                                   sweep->owner, sweep->input, now, sweep->points, members, sweep->grid);
  return status == VAMP_OK ? add(&store->writer, VAMPD_SQL_SWEEP_ADD, number, error) : status;
}

/* numbers: one for each job, and the sweep's. */
static int add_rows(struct vampd_store *store, const struct vampd_store_input *inputs, int input_count,
                    const struct vampd_store_job *jobs, int job_count, const struct vampd_store_sweep *sweep,
                    int64_t reserve, int64_t now, int64_t *numbers, struct vamp_error *error) {
  struct vampd_database *writer = &store->writer;
  int status = vampd_database_run(writer, VAMPD_SQL_BEGIN, error);
  for (int i = 0; i < input_count && status == VAMP_OK; i++) {
    const struct vampd_store_input *input = &inputs[i];
    status = vampd_database_bind(writer, VAMPD_SQL_INPUT_ADD, error, "tttdi", input->id, input->media_type,
                                 input->name, input->seconds, (int64_t)input->size);
    if (status == VAMP_OK) {
      status = add(writer, VAMPD_SQL_INPUT_ADD, NULL, error);
    }
  }
  if (status == VAMP_OK && sweep) {
    status = add_sweep(store, sweep, now, jobs, job_count, &numbers[job_count], error);
  }
  for (int i = 0; i < job_count && status == VAMP_OK; i++) {
    const struct vampd_store_job *job = &jobs[i];
    int64_t share = reserve / job_count + (i < reserve % job_count);
    status = vampd_database_bind(writer, VAMPD_SQL_JOB_ADD, error, "ttttnidit", job->id, job->owner,
                                 job->input, job->sweep, job->point, now, job->seconds, share, job->params);
    if (status == VAMP_OK) {
      status = add(writer, VAMPD_SQL_JOB_ADD, &numbers[i], error);
    }
  }
  if (status == VAMP_OK) {
    return vampd_database_commit(writer, &store->reader, error);
  }
  vampd_database_roll_back(writer);
  return status;
}

/* ------------------------------------------------------------------------------------------------------- */

static void fill_in(struct vampd_store_job *jobs, int job_count, struct vampd_store_sweep *sweep, int64_t now,
                    const int64_t *numbers) {
  for (int i = 0; i < job_count; i++) {
    jobs[i].number = numbers[i];
    jobs[i].created = now;
  }
  if (sweep) {
    sweep->number = numbers[job_count];
    sweep->created = now;
  }
}

int vampd_store_accept(struct vampd_store *store, const struct vampd_store_input *inputs, int input_count,
                       struct vampd_store_job *jobs, int job_count, struct vampd_store_sweep *sweep,
                       int64_t reserve, struct vamp_error *error) {
  if (input_count < 0 || job_count < 1 || input_count > COUNT_MAX || job_count > COUNT_MAX || reserve < 0) {
    return vamp_fail(error, VAMP_INVALID, "There must be 1 to %d jobs to be stored.", COUNT_MAX);
  }
  int status = check_jobs(jobs, job_count, sweep, error);
  if (status == VAMP_OK) {
    status = check_inputs(inputs, input_count, jobs, job_count, error);
  }
  if (status != VAMP_OK) {
    return status;
  }
  int64_t size = 0;
  for (int i = 0; i < input_count; i++) {
    size =
        inputs[i].size < VAMPD_SPACE_MAX - (uint64_t)size ? size + (int64_t)inputs[i].size : VAMPD_SPACE_MAX;
  }
  if (size == VAMPD_SPACE_MAX || reserve > VAMPD_SPACE_MAX - size) {
    return vamp_fail(error, VAMP_SPACE, "No disk has room for such a job.");
  }
  struct staged *staged = calloc((size_t)input_count + 1, sizeof *staged);
  int64_t *numbers = calloc((size_t)job_count + 1, sizeof *numbers);
  if (!staged || !numbers) {
    status = vamp_fail(error, VAMP_MEMORY, "Out of memory while accepting jobs.");
    goto err;
  }
  status = vampd_space_claim(store, size + reserve, true, error);
  if (status != VAMP_OK) {
    goto err;
  }
  int64_t now = vampd_store_now();
  const struct vampd_space accepted = {.bytes = size,
                                       .reserved = reserve,
                                       .pending = -(size + reserve),
                                       .jobs = job_count,
                                       .unfinished = job_count};
  const struct vampd_space refused = {.pending = -(size + reserve)};
  status = stage_inputs(store, inputs, input_count, staged, error);
  if (status == VAMP_OK) {
    status = place_inputs(store, inputs, input_count, staged, error);
  }
  if (status == VAMP_OK) {
    pthread_mutex_lock(&store->writer.mutex);
    status = add_rows(store, inputs, input_count, jobs, job_count, sweep, reserve, now, numbers, error);
    if (status == VAMP_OK) {
      vampd_space_add(store, &accepted);
    }
    pthread_mutex_unlock(&store->writer.mutex);
  }
  if (status != VAMP_OK) { /* a folder that has its name is ours: who finds the name taken is refused */
    remove_inputs(store, inputs, input_count, staged);
    vampd_space_add(store, &refused);
  }
  if (status == VAMP_OK) {
    fill_in(jobs, job_count, sweep, now, numbers);
  }
err:
  free(staged);
  free(numbers);
  return status;
}
