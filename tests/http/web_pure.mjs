/* The parts of the page (clients/web) that do not touch a document: web_pure.mjs CONTRACT, called by test_web.py. */
import assert from "node:assert/strict";
import {readFile} from "node:fs/promises";
import test from "node:test";

import {blamed, fieldsOf, rangeText} from "../../clients/web/fields.js";
import * as joblist from "../../clients/web/joblist.js";
import {columns, expand, rows, summary, ticks} from "../../clients/web/maskshape.js";
import {latest} from "../../clients/web/preview.js";
import {isReadable, lengthText, peaks, wavOf} from "../../clients/web/sound.js";
import {curlOf, isTree, listens, maskParams, paramsOf, presetValues, repeatable} from "../../clients/web/state.js";

const contract = JSON.parse(await readFile(process.env.CONTRACT, "utf8"));
const schemas = contract.components.schemas;
const fields = fieldsOf(contract, 14);
const field = (pointer) => fields.find((one) => one.pointer === pointer);
const presets = [
  {name: "balanced", mask: {mask_ratio: 0.5, periodic_prompt: 7, upper_codebook_mask: 3, upper_codebooks: "keep"}},
  {name: "rhythm", mask: {mask_ratio: 1, periodic_prompt: "beat", upper_codebook_mask: 3, upper_codebooks: "keep"}},
  {name: "texture", mask: {pattern: "block", size: 29}},
];
const balanced = {"/seed": 5, "/variations": 2, "/sampling/temperature": 1, ...presetValues(presets[0], fields)};
const settings = (changes = {}, more = {}) => ({preset: "balanced", values: {...balanced, ...changes}, own: false, json: "", ...more});
const params = (...changes) => paramsOf(settings(...changes), presets, fields);

test("every control has the contract's range, default and explanation", () => {
  assert.ok(fields.length >= 12);
  for (const one of fields) {
    const schema = schemas[{mask: "Mask", sampling: "Sampling", "": "JobParameters"}[one.section]].properties[one.name];
    const full = schema.$ref ? schemas[schema.$ref.split("/").at(-1)] : schema;
    const range = full.oneOf ? full.oneOf[0] : full;
    assert.deepEqual([one.minimum, one.maximum, one.choices, one.standard, one.explanation],
                     [range.minimum, range.maximum, full.enum, full.default, full.description], one.pointer);
    assert.ok(one.choices || Number.isFinite(one.minimum), one.pointer);
    assert.ok(one.widget !== "slider" || one.slider > one.minimum, one.pointer);
  }
  assert.equal(field("/mask/periodic_prompt").word, "beat");
  assert.equal(field("/mask/upper_codebook_mask").slider, 14);
});

test("ranges in words", () => {
  assert.equal(rangeText(field("/mask/mask_ratio")), "0 – 1, default 0.5");
  assert.equal(rangeText(field("/mask/periodic_prompt")), "0 and up or “beat”, default 7");
  assert.equal(rangeText(field("/mask/upper_codebooks")), "default keep");
  assert.equal(rangeText(field("/seed")), "0 – 9007199254740991");
});

test("a problem's pointer finds its control", () => {
  assert.equal(blamed("/mask/mask_ratio", fields), "/mask/mask_ratio");
  assert.equal(blamed("/mask/all/1/ratio", fields), "/mask");
  assert.equal(blamed("/audio", fields), "/audio");
  assert.equal(blamed("/query/x", fields), null);
  assert.equal(blamed(undefined, fields), null);
});

test("what is sent is the preset and what differs from it", () => {
  assert.deepEqual(params(), {preset: "balanced", seed: 5, variations: 2});
  assert.deepEqual(params({"/mask/mask_ratio": 0.8, "/sampling/temperature": 1.2, "/mask/dropout": 0}),
                   {preset: "balanced", seed: 5, variations: 2, mask: {mask_ratio: 0.8}, sampling: {temperature: 1.2}});
  assert.deepEqual(params({"/seed": null, "/variations": null, "/mask/mask_ratio": null}), {preset: "balanced"});
  assert.deepEqual(params({"/mask/mask_ratio": 0.8}, {preset: "texture"}), {preset: "texture", seed: 5, variations: 2});
  assert.deepEqual(maskParams(params({"/mask/prefix_s": 2})), {preset: "balanced", seed: 5, mask: {prefix_s: 2}});
});

test("a mask of one's own replaces the preset", () => {
  assert.deepEqual(params({}, {own: true, json: '{"pattern": "fill"}'}), {mask: {pattern: "fill"}, seed: 5, variations: 2});
  for (const json of ["", "[]", "null", "{"]) {
    assert.throws(() => params({}, {own: true, json}), (error) => error.pointer === "/mask");
  }
  assert.ok(isTree(presets[2].mask) && !isTree(presets[0].mask));
});

test("masks that listen need the clip", () => {
  for (const [given, yes] of [
    [{preset: "balanced"}, false], [{preset: "rhythm"}, true], [{preset: "rhythm", mask: {periodic_prompt: 7}}, false],
    [{preset: "balanced", mask: {periodic_prompt: "beat"}}, true], [{mask: {preset: "rhythm"}}, true],
    [{mask: {all: [{pattern: "fill"}, {not: {pattern: "onset"}}]}}, true], [{mask: {pattern: "fill", name: "beat"}}, false],
    [{mask: {pattern: "periodic", interval: "beat"}}, true], [{preset: "texture"}, false],
  ]) {
    assert.equal(listens(given, presets), yes, JSON.stringify(given));
  }
});

test("a job is repeated by its parameters", () => {
  const job = {seed: 6, params: {seed: 5, variations: 2, preset: "it's"}};
  assert.deepEqual(repeatable(job), {seed: 6, preset: "it's"});
  const line = curlOf(job, "my \"song\".wav", "http://127.0.0.1:8765", true);
  assert.match(line, /-H "Authorization: Bearer \$VAMP_KEY"/);
  assert.match(line, /-F 'audio=@"my \\"song\\".wav"'/);
  assert.match(line, /--form-string 'params=\{"seed":6,"preset":"it'\\''s"\}' -o variation-6.wav http:\/\/127.0.0.1:8765\/v1\/vamp$/);
  assert.doesNotMatch(curlOf(job, "a.wav", "http://x", false), /Authorization/);
});

test("run lengths, columns, rows and ticks of a mask", () => {
  assert.deepEqual([...expand([2, 3, 1], 6)], [0, 0, 1, 1, 1, 0]);
  assert.deepEqual([...expand([0, 2], 2)], [1, 1]);
  assert.deepEqual([...columns(Uint8Array.of(0, 1, 1, 1), 2)], [0.5, 1]);
  assert.deepEqual([...columns(Uint8Array.of(0, 1), 4)], [0, 0, 1, 1]);
  const placed = rows(14, 4, 146, 6);
  assert.deepEqual(placed.map((row) => row.codebook), [13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0]);
  assert.deepEqual(placed.filter((row) => row.coarse).map((row) => row.top), [106, 116, 126, 136]);
  assert.equal(placed[9].top + placed[9].height, 100);
  assert.equal(rows(4, 4, 40, 6)[3].top, 30);
  assert.deepEqual(ticks(10, 600, 55), [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10]);
  assert.deepEqual(ticks(0.3, 600, 55), [0, 0.1, 0.2, 0.3]);
  assert.ok(ticks(3600, 300, 55).length <= 6);
  assert.equal(summary({density: {overall: 0.807, coarse: 0.32, fine: null}}),
               "81 % of the tokens are new: 32 % of the coarse, – of the fine.");
});

test("sound", () => {
  assert.deepEqual([...peaks(Float32Array.of(-1, 0.5, 0, 0.25), 2)], [-1, 0.5, 0, 0.25]);
  assert.deepEqual([...peaks(Float32Array.of(0.5), 2)], [0.5, 0.5, 0.5, 0.5]);
  assert.deepEqual([...peaks(new Float32Array(0), 1)], [0, 0]);
  const file = Buffer.from(wavOf([Float32Array.of(0, 2), Float32Array.of(-2, 0.5)], 44100));
  assert.equal(file.length, 52);
  assert.equal(file.toString("latin1", 0, 4) + file.toString("latin1", 8, 16), "RIFFWAVEfmt ");
  assert.deepEqual([file.readUInt32LE(4), file.readUInt16LE(22), file.readUInt32LE(24), file.readUInt32LE(40)], [44, 2, 44100, 8]);
  assert.deepEqual([44, 46, 48, 50].map((at) => file.readInt16LE(at)), [0, -32767, 32767, 16384]);
  assert.ok(isReadable("A.FLAC") && !isReadable("a.webm") && !isReadable("wav"));
  assert.deepEqual([lengthText(8.25), lengthText(75.4), lengthText(119.7)], ["8.3 s", "1:15", "2:00"]);
});

const id = (digit) => String(digit).repeat(24);
const job = (digit, state, more = {}) => ({id: id(digit), number: digit, state, seed: digit, progress: 0, ...more});

test("the list of jobs", () => {
  let list = joblist.add([], [job(1, "queued"), job(2, "queued")], "a.wav", 1000);
  list = joblist.add(list, [job(3, "queued"), job(2, "queued")], "b.wav", 2000);
  assert.deepEqual(list.map((entry) => [entry.id, entry.clip]), [[id(3), "b.wav"], [id(1), "a.wav"], [id(2), "a.wav"]]);
  assert.deepEqual(joblist.streamed(list, 2), [id(1), id(2)]);
  assert.deepEqual(joblist.silent(list, 2500, 1000), [id(1), id(2)]);
  list = joblist.hear(list, id(1), {state: "generating", progress: 0.5}, 3000);
  assert.equal(list[1].job.seed, 1);
  list = joblist.hear(list, id(1), job(1, "done"), 3000);
  list = joblist.hear(list, id(1), {state: "generating", progress: 0.6}, 3000);
  assert.ok(list[1].job.state === "done" && joblist.isFinished(list[1]));
  assert.deepEqual(joblist.streamed(list, 2), [id(2), id(3)]);
  assert.deepEqual(joblist.remove(list, id(3)).map((entry) => entry.id), [id(1), id(2)]);
  assert.equal(joblist.add(list, Array.from({length: 150}, (_, i) => job(String(i), "queued")), "c", 0).length, 100);
});

test("the list outlives a reload", () => {
  const list = joblist.add([], [job(1, "queued")], "a \"b\".wav", 1000);
  const again = joblist.restore(joblist.store(list));
  assert.deepEqual(again, [{id: id(1), clip: "a \"b\".wav", heard: 0, job: null}]);
  assert.deepEqual(joblist.silent(again, 1, 1000), [id(1)]);
  assert.deepEqual(joblist.streamed(again, 2), []);
  for (const text of [null, "", "{}", "[1]", '[["../x", "a"]]', "[null]"]) {
    assert.deepEqual(joblist.restore(text), [], String(text));
  }
});

test("the state of a job in words", () => {
  assert.equal(joblist.stateText(job(1, "queued", {place: 0, estimate_seconds: null})), "Waiting, next in line");
  assert.equal(joblist.stateText(job(1, "queued", {place: 3, estimate_seconds: 12.2})), "Waiting, 3 before it, about 13 s");
  assert.equal(joblist.stateText(job(1, "generating", {step: 5, steps: 12, estimate_seconds: 0.4})),
               "Generating, step 5 of 12, under a second");
  assert.equal(joblist.stateText(job(1, "done", {estimate_seconds: 0})), "Done");
  const states = schemas.State.enum;
  assert.ok(states.every((state) => joblist.stateText(job(1, state)) !== state));
});

test("of many questions the last is answered", async () => {
  const asked = [], shown = [], failed = [], answers = {};
  const ask = (signal, what) => {
    asked.push(what);
    return new Promise((resolve, reject) => (answers[what] = {resolve: () => resolve(what), reject, signal}));
  };
  const until = async (holds) => {
    while (!holds()) {
      await new Promise((resolve) => setTimeout(resolve, 1));
    }
  };
  const request = latest(ask, (answer) => shown.push(answer), (error) => failed.push(error.message), {rest: 1});
  request("dropped");
  request("slow");
  await until(() => asked.length === 1);
  request("quick");
  await until(() => asked.length === 2);
  assert.ok(answers.slow.signal.aborted && !answers.quick.signal.aborted);
  answers.quick.resolve();
  answers.slow.resolve();
  await until(() => shown.length);
  request("bad");
  await until(() => asked.length === 3);
  answers.bad.reject(new Error("bad"));
  await until(() => failed.length);
  assert.deepEqual([asked, shown, failed], [["slow", "quick", "bad"], ["quick"], ["bad"]]);
});
