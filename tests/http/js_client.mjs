/* clients/js/vampd.js against a running daemon: js_client.mjs ADDRESS FOLDER, called by test_clients.py. */
import assert from "node:assert/strict";
import {readFile, writeFile} from "node:fs/promises";
import http from "node:http";
import {join} from "node:path";

import {connect, Problem} from "../../clients/js/vampd.js";

const [address, folder] = process.argv.slice(2);
const song = await readFile(join(folder, "song.wav"));
const daemon = await connect(address, {patience: 60});

/** A door before the daemon that breaks every event stream after its third event. */
async function unreliable() {
  const seen = {resumed: 0, keys: 0, away: 0};
  const server = http.createServer(async (request, response) => {
    const headers = {};
    for (const name of ["last-event-id", "accept"]) {
      if (request.headers[name]) {
        headers[name] = request.headers[name];
      }
    }
    if (seen.away > 0 && request.url.startsWith("/v1/sweeps")) {
      seen.away -= 1;
      response.socket.destroy();
      return;
    }
    seen.resumed += "last-event-id" in headers;
    seen.keys += request.headers.authorization === "Bearer secret";
    const answer = await fetch(address + request.url, {headers});
    response.writeHead(answer.status, {"Content-Type": answer.headers.get("Content-Type") ?? "text/plain"});
    if (!request.url.includes("/events")) {
      response.end(Buffer.from(await answer.arrayBuffer()));
      return;
    }
    let text = "";
    for await (const chunk of answer.body ?? []) {
      text += Buffer.from(chunk).toString().replace("retry: 2000", "retry: 20");
      const events = text.split("\n\n");
      if (events.length > 4) {
        break;
      }
    }
    response.write(text.split("\n\n").slice(0, 4).join("\n\n") + "\n\n");
    response.socket.end();
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  return {server, seen, address: `http://127.0.0.1:${server.address().port}`};
}

async function aVariation() {
  const answer = await daemon.vamp({audio: song, preset: "subtle", seed: 7});
  assert.equal(answer.seed, 7);
  assert.equal(answer.mediaType, "audio/wav");
  assert.equal(answer.blob().size, answer.body.length);
  await writeFile(join(folder, "out.wav"), answer.body);
  const document = await daemon.vamp({audio: new Blob([song]), params: {seed: 7}, accept: "application/json"});
  assert.equal(document.seed, 7);
}

async function problems() {
  await assert.rejects(daemon.vamp({audio: song, mask: {mask_ratio: 2}}), (error) => error instanceof Problem &&
    error.status === 400 && error.pointer === "/mask/mask_ratio" && error.type === "/problems/invalid-field");
  await assert.rejects(daemon.vamp({audio: song, colour: "red"}), TypeError);
  await assert.rejects(daemon.get_job({}), TypeError);
  await assert.rejects(daemon.get_job({id: "../models"}), (error) => error.status === 404);
}

async function jobs() {
  const made = await daemon.create_jobs({audio: [song, song], seed: 1, variations: 2});
  assert.equal(made.jobs.length, 4);
  const seen = [];
  for (const job of made.jobs) {
    assert.equal((await daemon.wait(job, {seen: (event) => seen.push(event.name)})).state, "done");
  }
  assert.ok(seen.includes("done"));
  const audio = await daemon.job_audio({id: made.jobs[0].id, format: "flac"});
  assert.equal(audio.mediaType, "audio/flac");
  assert.equal((await daemon.job_audio({id: made.jobs[0].id, range: "bytes=0-3"})).body.length, 4);
  assert.equal((await daemon.list_jobs({state: "done", limit: 2})).jobs.length, 2);
  assert.equal(await daemon.delete_job({id: made.jobs[0].id}), null);
}

async function events() {
  const door = await unreliable();
  const client = await connect(door.address, {key: "secret"});
  const params = JSON.parse(await readFile(join(folder, "long.json")));
  const {jobs: [job]} = await daemon.create_jobs({audio: await readFile(join(folder, "long.wav")), params});
  const seen = [];
  for await (const event of client.events(job)) {
    seen.push(event);
  }
  assert.equal(seen.at(-1).name, "done");
  assert.equal(new Set(seen.map((event) => event.id)).size, seen.length);
  assert.ok(door.seen.resumed > 1 && door.seen.keys > 1);
  door.server.close();
  door.server.closeAllConnections();
}

async function cancelling() {
  const params = JSON.parse(await readFile(join(folder, "long.json")));
  const {jobs: [job]} = await daemon.create_jobs({audio: await readFile(join(folder, "long.wav")), params});
  const abort = new AbortController();
  const waiting = daemon.wait(job, {signal: abort.signal});
  abort.abort();
  await assert.rejects(waiting, {name: "AbortError"});
  await daemon.delete_job({id: job.id});
  assert.ok(["cancelled", "done"].includes((await daemon.wait(job)).state));
}

async function sweeps() {
  const sweep = await daemon.sweep(song, {preset: ["subtle", "creative"]}, {seed: 1, sampling: {coarse_steps: 2}});
  assert.equal(sweep.states.done, 2);
  assert.equal((await daemon.sweep_archive({id: sweep.id})).mediaType, "application/zip");
  const door = await unreliable();
  const client = await connect(door.address);
  door.seen.away = 1;
  assert.equal((await client.wait(sweep)).states.done, 2);
  assert.equal(door.seen.away, 0);
  door.seen.away = 1;
  await assert.rejects(client.wait(sweep, {patience: -1}), TypeError);
  door.server.close();
  door.server.closeAllConnections();
}

async function patience() {
  const answers = await Promise.all(Array.from({length: 12}, (_, seed) =>
    daemon.vamp({audio: song, seed, sampling: {coarse_steps: 40}})));
  assert.equal(new Set(answers.map((answer) => answer.seed)).size, 12);
}

for (const check of [aVariation, problems, jobs, events, cancelling, sweeps, patience]) {
  await check();
  console.log(check.name);
}
console.log("all");
