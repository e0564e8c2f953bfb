/*
 * The page, wired together:
 *
 *   connection.js  the daemon              preview.js, maskview.js  what that would mean
 *   clip.js        what is varied          jobs.js                  what becomes of it
 *   settings.js    how                     results.js               where it is heard
 */
import {makeClip} from "./clip.js";
import {askKey, open, showAway} from "./connection.js";
import {mark} from "./controls.js";
import {announce, byId, element} from "./dom.js";
import {fieldsOf} from "./fields.js";
import {makeJobs} from "./jobs.js";
import {percent, summary} from "./maskshape.js";
import {drawMask, drawWaveform} from "./maskview.js";
import {latest} from "./preview.js";
import {makeResults} from "./results.js";
import {makeSettings} from "./settings.js";
import {listens, maskParams} from "./state.js";

const EXAMPLE_SECONDS = 10; // of the mask that is drawn before there is a clip

/* What went wrong: in the daemon's words, or in those for its silence. */
const said = (error) => error.detail
  ?? (error instanceof TypeError ? `The daemon does not answer (${error.message}).` : error.message);

const {daemon, model, presets} = await open().catch((error) => {
  byId("model").textContent = said(error);
  throw error;
});
const fields = fieldsOf(daemon.document, model.codebooks);
let clip = null, pass = null, blaming = null; // "request", "mask": what the marks at controls come from
const draw = () => (drawWaveform(byId("waveform"), clip?.samples), drawMask(byId("mask"), pass));

/* ---- what is wrong --------------------------------------------------------------------------------------------- */

/** Shows a problem, at its control too; null takes it away. */
function showProblem(error) {
  const box = byId("problem");
  box.hidden = error === null;
  blaming = error && "request";
  if (error === null) {
    mark(null);
    return;
  }
  const text = said(error);
  const later = [429, 503].includes(error.status) && error.retryAfter ? ` Try again in ${error.retryAfter} s.` : "";
  box.replaceChildren(element("strong", {}, `${error.title ?? "This did not work"}: `), text + later,
                      error.pointer ? element("code", {}, ` ${error.pointer}`) : "");
  mark(settings.blamed(error), text, {focus: true});
  if (error.status === 401) {
    askKey(daemon);
  }
}

/* ---- the mask, before anything is generated --------------------------------------------------------------------- */

/** A number of frames is enough for most masks; for those that listen, the clip. */
async function askMask(signal) {
  const params = maskParams(settings.params()), accept = "application/json";
  if (clip && (clip.seconds === null || listens(params, presets))) {
    return daemon.masks({audio: clip.file, params, accept, signal});
  }
  const frames = Math.max(1, Math.ceil((clip?.seconds ?? EXAMPLE_SECONDS) * model.frame_rate - 1e-6));
  return daemon.masks({params: {...params, frames}, accept, signal});
}

function showMask(document) {
  pass = document.passes.at(-1);
  const text = [summary(document), document.passes.length > 1 && `The last of ${document.passes.length} passes.`,
                !clip && `For ${EXAMPLE_SECONDS} seconds, until there is a clip.`].filter(Boolean).join(" ");
  byId("mask-text").textContent = text;
  byId("go-hint").textContent = clip ? `${percent(document.density.overall)} new` : "Choose a clip first.";
  byId("mask").setAttribute("aria-label", `The mask: ${text}`);
  byId("mask").classList.remove("stale");
  drawMask(byId("mask"), pass);
  if (blaming === "mask") {
    showProblem(null);
  }
}

function showNoMask(error) {
  byId("mask").classList.add("stale");
  byId("mask-text").textContent = `No mask: ${said(error)}`;
  if (blaming !== "request") {
    mark(settings.blamed(error), said(error));
    blaming = "mask";
  }
}

const preview = latest(askMask, showMask, showNoMask);
const settings = makeSettings(fields, presets, () => {
  if (blaming === "request") {
    showProblem(null);
  }
  preview();
});

/* ---- the clip, jobs, variations ---------------------------------------------------------------------------------- */

const taker = makeClip(model.sample_rate, (next) => {
  clip = next;
  byId("waveform").hidden = !clip.samples;
  byId("waveform").setAttribute("aria-label", `Waveform of ${clip.name}, ${clip.seconds?.toFixed(1)} seconds`);
  byId("generate").disabled = false;
  showProblem(null);
  draw();
  preview();
});

const showJobs = makeResults(daemon, {jobs: () => jobs, refused: showProblem, use: async (file) => {
  await taker.use(file);
  byId("drop").scrollIntoView({block: "center"});
}});
const jobs = makeJobs(daemon, {changed: showJobs, away: showAway, refused: showProblem});

async function generate() {
  const {jobs: accepted} = await daemon.create_jobs({audio: clip.file, params: settings.params()});
  jobs.add(accepted, clip.name);
  announce(accepted.length === 1 ? "Accepted." : `${accepted.length} variations accepted.`);
  byId("results").scrollIntoView({block: "nearest"});
  if (byId("reroll").checked) {
    settings.reroll();
  }
}

byId("settings").noValidate = true; // the daemon says what is wrong, in one way for all
byId("settings").addEventListener("submit", (event) => {
  event.preventDefault();
  const button = byId("generate");
  if (!button.disabled) {
    button.disabled = true;
    showProblem(null);
    generate().catch(showProblem).finally(() => (button.disabled = false));
  }
});
byId("model").textContent = `${model.name} on ${model.device} · up to ${model.max_seconds} s · ${model.license}`;
new ResizeObserver(draw).observe(byId("mask"));
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
settings.start();
jobs.start();
