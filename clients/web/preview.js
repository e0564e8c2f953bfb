/*
 * Asking the daemon while a slider moves: not at every pixel, and never showing an answer to what was asked before the
 * last question. Pure but for timers: tests/http/web_pure.mjs.
 */

/** -> request(...what): calls ask(signal, ...what) once nothing was requested for `rest` milliseconds, or, while
 *  requests keep coming, every `longest`; then show(answer) or fail(error), unless another question has been asked since. */
export function latest(ask, show, fail, {rest = 50, longest = 150} = {}) {
  let timer = null, waiting = null, running = null;
  const run = async (what) => {
    waiting = null;
    running?.abort();
    const mine = running = new AbortController();
    try {
      const answer = await ask(mine.signal, ...what);
      if (mine === running) {
        show(answer);
      }
    } catch (error) {
      if (mine === running) {
        fail(error);
      }
    }
  };
  return (...what) => {
    const now = Date.now();
    waiting ??= now;
    clearTimeout(timer);
    timer = setTimeout(run, Math.max(0, Math.min(rest, waiting + longest - now)), what);
  };
}
