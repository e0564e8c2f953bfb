/*
 * The list of variations: jobs the page has asked for, the newest first, and what is known of each. Lists are never
 * changed, a change gives another one. Pure: tests/http/web_pure.mjs.
 *
 * An entry is {id, clip, heard, job}: the name of its clip, when it was last heard of (milliseconds), and the job as
 * the daemon tells it, null until it does. Between reloads only id and clip are kept: the rest is the daemon's to say.
 */

const FINISHED = ["done", "failed", "cancelled"];
const KEPT = 100;

export const isFinished = (entry) => entry.job !== null && FINISHED.includes(entry.job.state);

/** The list with jobs that were just accepted in front. */
export function add(list, jobs, clip, now) {
  const known = new Set(list.map((entry) => entry.id));
  const fresh = jobs.filter((job) => !known.has(job.id)).map((job) => ({id: job.id, clip, heard: now, job}));
  return [...fresh, ...list].slice(0, KEPT);
}

/** The list after news of a job: a whole one, or an event's part of one. */
export function hear(list, id, news, now) {
  return list.map((entry) => {
    const late = entry.id === id && isFinished(entry) && !FINISHED.includes(news.state);
    return entry.id !== id || late ? entry : {...entry, heard: now, job: {...entry.job, ...news}};
  });
}

export const remove = (list, id) => list.filter((entry) => entry.id !== id);

/** Whom to listen to: a browser opens six connections to a daemon, and an event stream holds one. */
export function streamed(list, count) {
  return list.filter((entry) => entry.job && !isFinished(entry)).sort((a, b) => a.job.number - b.job.number)
    .slice(0, count).map((entry) => entry.id);
}

/** Whom to ask after: unfinished, or not known yet, and silent for a while. */
export function silent(list, now, patience) {
  return list.filter((entry) => !isFinished(entry) && (entry.job === null || now - entry.heard >= patience))
    .map((entry) => entry.id);
}

/** For localStorage, and back. What is not of this form is dropped. */
export const store = (list) => JSON.stringify(list.map(({id, clip}) => [id, clip]));

export function restore(text) {
  try {
    return JSON.parse(text).filter(([id, clip]) => /^[0-9a-f]{24}$/.test(id) && typeof clip === "string")
      .map(([id, clip]) => ({id, clip, heard: 0, job: null}));
  } catch {
    return [];
  }
}

const about = (seconds) => seconds < 1 ? "under a second" : seconds < 90 ? `about ${Math.ceil(seconds)} s`
  : `about ${Math.ceil(seconds / 60)} min`;

const WORDS = {queued: "Waiting", preparing: "Reading the clip", encoding: "Encoding", generating: "Generating",
               decoding: "Decoding", done: "Done", failed: "Failed", cancelled: "Cancelled"};

/** What is said of a job: "Waiting, 3 before it, about 12 s". */
export const stateText = ({state, place, step, steps, estimate_seconds: seconds}) => [
  WORDS[state] ?? state,
  state === "queued" && Number.isInteger(place) && (place === 0 ? "next in line" : `${place} before it`),
  state === "generating" && steps && `step ${step} of ${steps}`,
  !FINISHED.includes(state) && typeof seconds === "number" && about(seconds),
].filter(Boolean).join(", ");
