/*
 * A client of vampd made from its contract: one ES module for browsers (and Node 18 or later), no dependencies.
 *
 *   import {connect} from "./vampd.js";
 *   const daemon = await connect("http://127.0.0.1:8765", {key: "..."});
 *   const answer = await daemon.vamp({audio: file, preset: "subtle", seed: 7});
 *   player.src = URL.createObjectURL(answer.blob());
 *
 * What the daemon can do stands in its /openapi.json, and nothing of it is written down here a second time: every
 * operationId there is a method here, with one object of arguments: path and query parameters and header lines by
 * name (lower case, "_" for "-"), files of the body (File, Blob, ArrayBuffer, typed array), and the fields of "params"
 * each on its own or together as `params`. `accept` is the media type wanted, `signal` an AbortSignal. Names are
 * checked here; values are the daemon's to judge. JSON comes back as objects and arrays, anything else as an Answer,
 * nothing as null. What the daemon refuses is thrown as a Problem.
 *
 * Events are read with fetch and not with EventSource, which cannot send an Authorization header.
 */

const FINISHED = new Set(["done", "failed", "cancelled"]);
const SILENCE_SECONDS = 45; // of an event stream, which says something every 15: then it is taken for dead
const OPTIONS = new Set(["accept", "signal", "raw"]);

/** What the daemon refused, and why (RFC 9457). */
export class Problem extends Error {
  constructor(value, retryAfter) {
    super(`${value.pointer ? value.pointer + ": " : ""}${value.detail || value.title || value.status}`);
    this.name = "Problem";
    Object.assign(this, {status: value.status, type: value.type, title: value.title, detail: value.detail,
                         pointer: value.pointer, retryAfter});
  }
}

/** An answer that is a file: status, headers, body (Uint8Array). */
export class Answer {
  constructor(status, headers, body) {
    Object.assign(this, {status, headers, body});
  }
  get mediaType() {
    return (this.headers.get("Content-Type") || "").split(";")[0].trim();
  }
  /** The seed that repeats this result. */
  get seed() {
    return Number(this.headers.get("Vampd-Seed"));
  }
  blob() {
    return new Blob([this.body], {type: this.mediaType});
  }
  json() {
    return JSON.parse(new TextDecoder().decode(this.body));
  }
}

const pause = (seconds, signal) => new Promise((resolve, reject) => {
  const timer = setTimeout(resolve, seconds * 1000);
  signal?.addEventListener("abort", () => {
    clearTimeout(timer);
    reject(signal.reason);
  }, {once: true});
});

const idOf = (what) => typeof what === "string" ? what : what.id;

/* ---- the contract ---------------------------------------------------------------------------------------------- */

function resolve(document, value) {
  while (value && value.$ref) {
    value = value.$ref.slice(2).split("/").reduce((found, part) => found[part], document);
  }
  return value;
}

function describe(document, path, method, operation, shared) {
  const parameters = new Map();
  for (const reference of [...shared, ...(operation.parameters || [])]) {
    const parameter = resolve(document, reference);
    const name = parameter.name.toLowerCase().replaceAll("-", "_");
    if (!parameters.has(name)) {
      parameters.set(name, parameter);
    }
  }
  const form = resolve(document, operation.requestBody?.content["multipart/form-data"].schema) || {};
  const fields = form.properties || {};
  const params = resolve(document, fields.params)?.properties || {};
  return {path, method: method.toUpperCase(), parameters, fields, params, summary: operation.summary};
}

function operationsOf(document) {
  const operations = new Map();
  for (const [path, item] of Object.entries(document.paths)) {
    for (const [method, operation] of Object.entries(item)) {
      if (method !== "parameters") {
        operations.set(operation.operationId, describe(document, path, method, operation, item.parameters || []));
      }
    }
  }
  return operations;
}

/* ---- server-sent events ---------------------------------------------------------------------------------------- */

/** The chunks of text/event-stream (HTML Standard, section 9.2) -> {retry: seconds} or {id, name, data}. */
async function* readEvents(body) {
  const reader = body.getReader();
  const decoder = new TextDecoder();
  let text = "", name = "message", data = [], id = null;
  try {
    for (;;) {
      let timer;
      const silence = new Promise((_, reject) => {
        timer = setTimeout(() => reject(new TypeError("The event stream is silent.")), SILENCE_SECONDS * 1000);
      });
      const {done, value} = await Promise.race([reader.read(), silence]).finally(() => clearTimeout(timer));
      if (done) {
        return;
      }
      text += decoder.decode(value, {stream: true});
      const lines = text.split("\n");
      text = lines.pop();
      for (const raw of lines) {
        const line = raw.replace(/\r$/, "");
        const [, field, content] = line.match(/^([^:]*)(?:: ?(.*))?$/);
        if (line === "") {
          if (data.length) {
            yield {id, name, data: JSON.parse(data.join("\n"))};
          }
          [name, data] = ["message", []];
        } else if (field === "event") {
          name = content;
        } else if (field === "data") {
          data.push(content);
        } else if (field === "id") {
          id = content;
        } else if (field === "retry") {
          yield {retry: Number(content) / 1000};
        }
      }
    }
  } finally {
    await reader.cancel().catch(() => {});
  }
}

/* ---- the daemon ------------------------------------------------------------------------------------------------ */

class Vampd {
  constructor(address, {key = null, patience = 0} = {}) {
    this.address = String(address).replace(/\/+$/, "");
    this.key = key;
    this.patience = patience;
    this.operations = new Map();
  }

  learn(document) {
    this.document = document;
    this.operations = operationsOf(document);
    for (const name of this.operations.keys()) {
      this[name] = (values) => this.call(name, values);
    }
  }

  /** Calls an operation of the contract. */
  async call(name, values = {}) {
    const {path, init} = this.prepare(name, values);
    const response = await this.request(path, init);
    const answer = new Answer(response.status, response.headers, new Uint8Array(await response.arrayBuffer()));
    if (values.raw) {
      return answer;
    }
    if (answer.mediaType === "application/json") {
      return answer.json();
    }
    return answer.body.length || answer.status === 200 ? answer : null;
  }

  /** -> the path with its query, and what fetch takes beside it. */
  prepare(name, values) {
    const about = this.operations.get(name);
    if (!about) {
      throw new TypeError(`The contract has no operation ${name}.`);
    }
    let path = about.path;
    const query = new URLSearchParams(), headers = {}, fields = {}, params = {...(values.params || {})};
    for (const [key, value] of Object.entries(values)) {
      const parameter = about.parameters.get(key);
      if (value === undefined || value === null || OPTIONS.has(key) || key === "params") {
        continue;
      } else if (parameter?.in === "path") {
        path = path.replace(`{${key}}`, encodeURIComponent(value));
      } else if (parameter?.in === "query") {
        query.append(parameter.name, value);
      } else if (parameter) {
        headers[parameter.name] = String(value);
      } else if (key in about.fields) {
        fields[key] = value;
      } else if (key in about.params) {
        params[key] = value;
      } else {
        throw new TypeError(`${name} has no ${key}.`);
      }
    }
    if (path.includes("{")) {
      throw new TypeError(`${name} needs ${path.match(/[{]([^}]*)[}]/)[1]}.`);
    }
    if (values.accept) {
      headers.Accept = values.accept;
    }
    const body = Object.keys(about.fields).length ? this.form(fields, params) : undefined;
    const suffix = query.size ?? [...query].length ? `?${query}` : "";
    return {path: path + suffix, init: {method: about.method, headers, body, signal: values.signal}};
  }

  form(fields, params) {
    const form = new FormData();
    for (const [name, value] of Object.entries(fields)) {
      for (const file of Array.isArray(value) ? value : [value]) {
        form.append(name, file instanceof Blob ? file : new Blob([file]), file.name || name);
      }
    }
    if (Object.keys(params).length) {
      form.append("params", JSON.stringify(params));
    }
    return form;
  }

  /** fetch, with the key; throws what is a problem; waits out 429 and 503 as far as patience goes. */
  async request(path, init = {}) {
    const deadline = Date.now() + this.patience * 1000;
    const headers = {...init.headers, ...(this.key ? {Authorization: `Bearer ${this.key}`} : {})};
    for (;;) {
      const response = await fetch(this.address + path, {...init, headers});
      if (response.status < 400) {
        return response;
      }
      const text = await response.text();
      let value = {status: response.status, title: text.slice(0, 200)};
      try {
        value = JSON.parse(text);
      } catch {
        // Not ours: a proxy's page.
      }
      const seconds = Number(response.headers.get("Retry-After")) || 1;
      if (![429, 503].includes(response.status) || Date.now() + seconds * 1000 > deadline) {
        throw new Problem(value, seconds);
      }
      await pause(seconds, init.signal);
    }
  }

  /** What happens to a job (or its id), as {id, name, data}, until it is finished. A broken connection is taken up
   *  where it broke; after `patience` seconds without one, what was wrong with it is thrown. */
  async* events(job, {lastEventId = null, patience = 60, signal} = {}) {
    let retry = 2, failing = null;
    for (;;) {
      try {
        const values = {id: idOf(job), last_event_id: lastEventId, accept: "text/event-stream", signal};
        const {path, init} = this.prepare("job_events", values);
        const response = await this.request(path, init);
        if (response.status === 204) {
          return;
        }
        for await (const event of readEvents(response.body)) {
          failing = null;
          if (event.retry) {
            retry = event.retry;
            continue;
          }
          lastEventId = event.id ?? lastEventId;
          yield event;
          if (FINISHED.has(event.name)) {
            return;
          }
        }
      } catch (error) {
        failing ??= Date.now();
        const passes = error instanceof Problem ? [429, 503].includes(error.status) : error instanceof TypeError;
        if (!passes || signal?.aborted || Date.now() - failing + retry * 1000 > patience * 1000) {
          throw error;
        }
      }
      await pause(retry, signal);
    }
  }

  /** Waits for a job, or a sweep, and returns it as it is then; a job's `state` says whether it went well. `seen` is
   *  called with every event of a job, and with a sweep each time it was asked after. */
  async wait(what, {seen, signal, patience = 60} = {}) {
    if (what.points_total !== undefined) {
      return this.#waitForSweep(what, {seen, signal, patience});
    }
    for await (const event of this.events(what, {signal, patience})) {
      seen?.(event);
      if (FINISHED.has(event.name)) {
        return event.data;
      }
    }
    return this.call("get_job", {id: idOf(what), signal});
  }

  /** A daemon that is restarted goes on with its sweeps: it is waited for as long as `patience` says. */
  async #waitForSweep(sweep, {seen, signal, patience = 60}) {
    let failing = null;
    for (let seconds = 0.1;; seconds = Math.min(seconds * 1.5, 5)) {
      try {
        sweep = await this.call("get_sweep", {id: sweep.id, signal});
        failing = null;
      } catch (error) {
        failing ??= Date.now();
        const passes = error instanceof Problem ? [429, 503].includes(error.status) : error instanceof TypeError;
        if (!passes || signal?.aborted || Date.now() - failing > patience * 1000) {
          throw error;
        }
        await pause(1, signal);
        continue;
      }
      seen?.(sweep);
      if (sweep.states.queued + sweep.states.running === 0) {
        return sweep;
      }
      await pause(seconds, signal);
    }
  }

  /** A whole sweep: accepted, waited for, and returned with its points. */
  async sweep(audio, grid, {seen, signal, ...params} = {}) {
    return this.#waitForSweep(await this.call("create_sweep", {audio, grid, signal, ...params}), {seen, signal});
  }
}

/** The daemon at an address ("" for the one that this page came from), with a method for each operation of its
 *  contract. options: key; patience, seconds in which 429 and 503 are tried again; contract, the document, where
 *  the daemon shall not be asked for it. */
export async function connect(address = "", {contract, ...options} = {}) {
  const daemon = new Vampd(address, options);
  daemon.learn(contract || await (await daemon.request("/openapi.json")).json());
  return daemon;
}
