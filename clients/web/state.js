/*
 * From what is set on the page to what is sent to the daemon, and to what is copied for others. Pure:
 * tests/http/web_pure.mjs.
 *
 * Settings are {preset, values: {pointer: value}, own: bool, json, seed, variations}. With `own` the mask is the JSON
 * text and nothing else; otherwise it is the preset with what differs from it, so that what is sent stays short enough
 * to be read.
 */

const TREE = ["pattern", "all", "any", "not", "prompts", "passes", "preset"];
const LISTENING = {pattern: ["beat", "onset", "adaptive"], periodic_prompt: ["beat"], interval: ["beat"]};

/** Whether a mask is more than the simple form, whose fields the controls set. */
export const isTree = (mask) => TREE.some((name) => name in mask);

/** What the controls show for a preset: its own fields, otherwise the defaults. */
export const presetValues = (preset, fields) => Object.fromEntries(fields.filter((field) => field.section === "mask")
  .map((field) => [field.pointer, preset.mask[field.name] ?? field.standard]));

/** JSON of a mask that somebody wrote; throws what looks like a problem of the daemon. */
export function parseMask(text) {
  let mask;
  try {
    mask = JSON.parse(text);
  } catch (error) {
    throw Object.assign(new Error(`This is not JSON: ${error.message}`), {pointer: "/mask"});
  }
  if (!mask || typeof mask !== "object" || Array.isArray(mask)) {
    throw Object.assign(new Error("A mask is a JSON object: {…}"), {pointer: "/mask"});
  }
  return mask;
}

/** The parameters of a job. An empty control is left to the daemon. */
export function paramsOf(settings, presets, fields) {
  const params = {}, mask = {}, sampling = {};
  const preset = presets.find((one) => one.name === settings.preset);
  const before = preset ? presetValues(preset, fields) : {};
  for (const field of fields) {
    const value = settings.values[field.pointer];
    if (value === undefined || value === null || value === "") {
      continue;
    }
    if (field.section === "mask" && value !== before[field.pointer]) {
      mask[field.name] = value;
    } else if (field.section === "sampling" && value !== field.standard) {
      sampling[field.name] = value;
    } else if (field.section === "") {
      params[field.name] = value;
    }
  }
  if (settings.own) {
    params.mask = parseMask(settings.json);
  } else {
    params.preset = settings.preset;
    if (Object.keys(mask).length && !(preset && isTree(preset.mask))) {
      params.mask = mask;
    }
  }
  if (Object.keys(sampling).length) {
    params.sampling = sampling;
  }
  return params;
}

/** What POST /v1/masks takes of a job's parameters. */
export const maskParams = ({variations, sampling, ...params}) => params;

/** Whether a mask is made by listening to the clip, so that a number of frames is not enough. */
export function listens(params, presets) {
  const look = (value) => Array.isArray(value) ? value.some(look)
    : value !== null && typeof value === "object" && Object.entries(value).some(([name, inner]) =>
      LISTENING[name]?.includes(inner) || (name === "preset" && of(inner)) || look(inner));
  const of = (name) => look(presets.find((one) => one.name === name)?.mask);
  const {preset, mask = {}} = params;
  const base = presets.find((one) => one.name === preset)?.mask ?? {};
  return look(isTree(base) || isTree(mask) ? [base, mask] : {...base, ...mask});
}

/** A seed that nobody chose: below 2^32, for it is read and typed by people. */
export const drawSeed = () => crypto.getRandomValues(new Uint32Array(1))[0];

/** What was accepted with a job, as parameters of one request for the same sound. */
export function repeatable(job) {
  const {variations, ...params} = job.params;
  return {...params, seed: job.seed};
}

const quote = (text) => `'${text.replaceAll("'", "'\\''")}'`;

/** A command that makes the same variation. A key is not written down: it is taken from the environment. */
export function curlOf(job, clip, origin, keyed) {
  const params = repeatable(job);
  const ending = {flac: "flac", ogg: "ogg"}[params.format] ?? "wav";
  return ["curl -sS --fail", ...(keyed ? ['-H "Authorization: Bearer $VAMP_KEY"'] : []),
          `-F ${quote(`audio=@"${clip.replaceAll("\\", "\\\\").replaceAll('"', '\\"')}"`)}`,
          `--form-string ${quote(`params=${JSON.stringify(params)}`)}`, `-o variation-${job.seed}.${ending}`,
          `${origin}/v1/vamp`].join(" ");
}
