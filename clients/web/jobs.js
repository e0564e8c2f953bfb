/*
 * Following jobs: the oldest unfinished ones by their event streams; all others, and those whose streams say nothing,
 * by asking every few seconds. A daemon that is away, for a restart say, is asked until it is back; its jobs go on then.
 */
import {add, hear, isFinished, remove, restore, silent, store, streamed} from "./joblist.js";

const STREAMS = 2;
const SILENCE = 1500; // milliseconds without news after which is asked
const PLACE = "vampd-jobs"; // in localStorage

/* What the daemon has forgotten is null; other problems go on. */
const gone = (error) => error.status === 404 ? null : Promise.reject(error);

/** daemon: of vampd.js. changed(list) after every change; away(bool) when the daemon stops and begins to answer;
 *  refused(problem) where it answers with one. -> {start, add, forget, cancel} */
export function makeJobs(daemon, {changed, away, refused}) {
  let list = restore(localStorage.getItem(PLACE)), asking = false;
  const streams = new Map();

  /* What is kept is which jobs there are: news of one change nothing of that. */
  const put = (next) => {
    const kept = store(next);
    if (kept !== store(list)) {
      localStorage.setItem(PLACE, kept);
    }
    list = next;
    changed(list);
  };

  const listen = async (id) => {
    const stop = new AbortController();
    streams.set(id, stop);
    try {
      for await (const event of daemon.events(id, {patience: Infinity, signal: stop.signal})) {
        put(hear(list, id, {state: event.name, ...event.data}, Date.now()));
      }
    } catch {
      // Then it is asked after, and that says what is wrong.
    }
    // Ended without a last word: asked after for a while, and then listened to again.
    setTimeout(() => streams.delete(id), 10000);
  };

  const ask = async (ids) => {
    const known = new Map((await daemon.list_jobs({limit: 200})).jobs.map((job) => [job.id, job]));
    for (const id of ids) {
      const job = known.get(id) ?? await daemon.get_job({id}).catch(gone);
      put(job ? hear(list, id, job, Date.now()) : remove(list, id));
    }
  };

  const look = async () => {
    streamed(list, STREAMS).filter((id) => !streams.has(id)).forEach(listen);
    const ids = silent(list, Date.now(), SILENCE);
    if (asking || !ids.length) {
      return;
    }
    asking = true;
    try {
      await ask(ids);
      away(false);
    } catch (error) {
      if (error.name !== "Problem" || error.status === 503 || error.status === 502) {
        away(true);
      } else {
        refused(error);
      }
    } finally {
      asking = false;
    }
  };

  return {
    start: () => {
      changed(list);
      look();
      setInterval(look, 1000);
    },
    add: (jobs, clip) => {
      put(add(list, jobs, clip, Date.now()));
      look();
    },
    /** Cancels what is not finished: of what is, DELETE would take the result. */
    cancel: async (id) => {
      const job = await daemon.get_job({id});
      put(hear(list, id, isFinished({job}) ? job : await daemon.delete_job({id}) ?? job, Date.now()));
    },
    /** Takes a finished one out of the list and out of the daemon. */
    forget: async (id) => {
      await daemon.delete_job({id}).catch(gone);
      streams.get(id)?.abort();
      put(remove(list, id));
    },
  };
}
