#!/usr/bin/env python3
"""A client of vampd made from its contract: one file, standard library only, Python 3.9 or later.

    from vampd import Vampd
    daemon = Vampd("http://127.0.0.1:8765")
    daemon.vamp("song.wav", preset="subtle", seed=7).save("variation.wav")

What the daemon can do stands in its /openapi.json, and nothing of it is written down here a second time: every
operationId there is a method here. A method takes, in this order or by name, the operation's path parameters and the
files of its body; by name only, query parameters and header lines (lower case, "_" for "-"), the body's other fields,
and the fields of "params" each on its own. All are checked against the contract's schemas before anything is sent
(ValueError). A file is a path, bytes, or an open file. JSON comes back as dictionaries and lists, anything else as an
Answer, nothing as None. What the daemon refuses is a Problem.

On the command line: vampd.py --help. The environment's VAMPD is the daemon's address, VAMP_KEY the key.
"""
import argparse
import collections
import functools
import http.client
import json
import os
import re
import sys
import time
import urllib.parse
import uuid

FINISHED = ("done", "failed", "cancelled")
SILENCE_SECONDS = 45  # of an event stream, which says something every 15: then the connection is taken for dead
MEDIA_TYPES = {".wav": "audio/wav", ".flac": "audio/flac", ".ogg": "audio/ogg", ".json": "application/json"}

Event = collections.namedtuple("Event", "id name data")


class Problem(Exception):
    """What the daemon refused, and why (RFC 9457): status, type, title, detail, pointer, retry_after."""

    def __init__(self, value, retry_after=None):
        self.status, self.type = value.get("status"), value.get("type")
        self.title, self.detail, self.pointer = value.get("title"), value.get("detail"), value.get("pointer")
        self.retry_after = retry_after
        where = f"{self.pointer}: " if self.pointer else ""
        super().__init__(f"{where}{self.detail or self.title or self.status}")


class Answer:
    """An answer that is a file: status, headers, body (bytes)."""

    def __init__(self, status, headers, body):
        self.status, self.headers, self.body = status, headers, body

    @property
    def media_type(self):
        return (self.headers.get("Content-Type") or "").split(";")[0].strip()

    @property
    def seed(self):
        """The seed that repeats this result."""
        return int(self.headers["Vampd-Seed"])

    def json(self):
        return json.loads(self.body)

    def parts(self):
        """Of multipart/mixed: a list of (media type, bytes)."""
        found = re.search(r'boundary="?([^";]+)"?', self.headers.get("Content-Type") or "")
        parts = (b"\r\n" + self.body).split(b"\r\n--" + found.group(1).encode())[1:-1]
        split = (part.split(b"\r\n\r\n", 1) for part in parts)
        return [(re.search(rb"content-type:\s*([^;\r\n]+)", head, re.I).group(1).decode().strip(), data)
                for head, data in split]

    def save(self, path):
        """Beside and renamed, so that nobody reads half of it."""
        beside = f"{path}.{uuid.uuid4().hex[:8]}"
        try:
            with open(beside, "wb") as file:
                file.write(self.body)
            os.replace(beside, path)
        except BaseException:
            if os.path.exists(beside):
                os.unlink(beside)
            raise


# ---- the contract ------------------------------------------------------------------------------------------------


def is_type(value, name):
    if name == "number":
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    if name == "integer":
        return is_type(value, "number") and value == int(value)
    kinds = {"object": dict, "array": (list, tuple), "string": str, "boolean": bool, "null": type(None)}
    return isinstance(value, kinds[name])


class Contract:
    """An OpenAPI document, as far as a client needs it."""

    def __init__(self, document):
        self.document = document
        self.operations = {}
        for path, item in document["paths"].items():
            for method, operation in item.items():
                if method != "parameters":
                    shared = item.get("parameters", [])
                    self.operations[operation["operationId"]] = self.describe(path, method, operation, shared)

    def resolve(self, value):
        while "$ref" in value:
            found = self.document
            for part in value["$ref"].removeprefix("#/").split("/"):
                found = found[part]
            value = found
        return value

    def describe(self, path, method, operation, shared):
        parameters = [self.resolve(value) for value in shared + operation.get("parameters", [])]
        named = {}
        for parameter in parameters:
            named.setdefault(parameter["name"].lower().replace("-", "_"), parameter)
        content = operation.get("requestBody", {}).get("content", {})
        form = self.resolve(content.get("multipart/form-data", {}).get("schema", {}))
        fields = form.get("properties", {})
        files = [name for name in fields if name != "params"]
        in_path = [name for name, parameter in named.items() if parameter["in"] == "path"]
        inner = self.resolve(fields["params"])["properties"] if "params" in fields else {}
        return {"path": path, "method": method.upper(), "parameters": named, "form": form, "files": files,
                "order": in_path + files, "params": inner, "summary": operation.get("summary", "")}

    def check(self, schema, value, pointer=""):
        """ValueError, with the JSON pointer, where the value is not what the schema admits."""
        schema = self.resolve(schema)

        def require(held, wanted):
            if not held:
                raise ValueError(f"{pointer or '/'} is {value!r:.60}, but must be {wanted}")
        if "type" in schema:
            names = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
            require(any(is_type(value, name) for name in names), " or ".join(names))
        if "enum" in schema:
            require(value in schema["enum"], "one of " + ", ".join(map(str, schema["enum"])))
        if "const" in schema:
            require(value == schema["const"], repr(schema["const"]))
        if "oneOf" in schema:
            require(sum(self.fits(choice, value) for choice in schema["oneOf"]) == 1, "as the contract says")
        if is_type(value, "number"):
            require(value >= schema.get("minimum", value), f"at least {schema.get('minimum')}")
            require(value <= schema.get("maximum", value), f"at most {schema.get('maximum')}")
        if isinstance(value, str):
            require(re.search(schema.get("pattern", ""), value), f"like {schema.get('pattern')}")
        if isinstance(value, (str, list, tuple)):
            kind = "Length" if isinstance(value, str) else "Items"
            least, most = schema.get("min" + kind, 0), schema.get("max" + kind, len(value))
            require(least <= len(value) <= most, f"{least} to {most} long")
        if isinstance(value, dict):
            self.check_object(schema, value, pointer)
        if isinstance(value, (list, tuple)) and "items" in schema:
            for index, item in enumerate(value):
                self.check(schema["items"], item, f"{pointer}/{index}")

    def fits(self, schema, value):
        try:
            self.check(schema, value)
        except ValueError:
            return False
        return True

    def check_object(self, schema, value, pointer):
        known, others = schema.get("properties", {}), schema.get("additionalProperties", True)
        missing = [name for name in schema.get("required", []) if name not in value]
        if missing:
            raise ValueError(f"{pointer}/{missing[0]} is missing")
        for name, inner in value.items():
            if name not in known and others is False:
                raise ValueError(f"{pointer}/{name} is unknown; known are {', '.join(known)}")
            if name in known or isinstance(others, dict):
                self.check(known.get(name, others), inner, f"{pointer}/{name}")


# ---- bodies ------------------------------------------------------------------------------------------------------


def read_file(source):
    """A path, bytes, or an open file -> its name and its bytes."""
    if isinstance(source, (bytes, bytearray, memoryview)):
        return "file", bytes(source)
    if hasattr(source, "read"):
        return os.path.basename(str(getattr(source, "name", "file"))), source.read()
    with open(source, "rb") as file:
        return os.path.basename(os.fspath(source)), file.read()


def encode_form(parts):
    """multipart/form-data (RFC 7578) of (field, file name or None, bytes) -> the body and its type."""
    boundary = "vampd-" + uuid.uuid4().hex
    lines = []
    for field, name, data in parts:
        quoted = name and name.replace("\\", "_").replace('"', "%22").replace("\r", "%0D").replace("\n", "%0A")
        head = f'--{boundary}\r\nContent-Disposition: form-data; name="{field}"'
        head += f'; filename="{quoted}"\r\nContent-Type: application/octet-stream' if name else ""
        lines += [head.encode(), b"\r\n\r\n", data, b"\r\n"]
    return b"".join(lines) + f"--{boundary}--\r\n".encode(), f"multipart/form-data; boundary={boundary}"


# ---- the daemon --------------------------------------------------------------------------------------------------


class Vampd:
    """A daemon at an address.

    key       where it wants one
    contract  the document, or the path of a file with it; otherwise the daemon is asked for it at the first call
    patience  seconds in which 429 and 503 are tried again, each time after what Retry-After says; 0: not at all
    timeout   seconds that a connection may be silent

    Threads may share it: each call has a connection of its own.
    """

    def __init__(self, address=None, key=None, contract=None, patience=0, timeout=600):
        address = address or os.environ.get("VAMPD") or "http://127.0.0.1:8765"
        self.address = urllib.parse.urlsplit(address)
        if self.address.scheme not in ("http", "https") or not self.address.hostname:
            raise ValueError(f"{address!r} is not the address of a daemon, like http://127.0.0.1:8765")
        self.key = key or os.environ.get("VAMP_KEY")
        self.patience, self.timeout = patience, timeout
        if isinstance(contract, (str, os.PathLike)):
            contract = json.loads(read_file(contract)[1])
        self.known = Contract(contract) if contract else None

    @property
    def contract(self):
        if self.known is None:
            self.known = Contract(self.request("GET", "/openapi.json").json())
        return self.known

    def __getattr__(self, name):
        if name.startswith("_") or name not in self.contract.operations:
            raise AttributeError(f"the contract has no operation {name!r}")
        method = functools.partial(self.call, name)
        method.__doc__ = self.contract.operations[name]["summary"]
        return method

    def __dir__(self):
        return [*super().__dir__(), *self.contract.operations]

    # -- any operation

    def call(self, operation, /, *positional, accept=None, check=True, raw=False, **arguments):
        """Calls an operation of the contract. accept: the media type wanted. check=False sends what is wrong, too.
        raw=True returns the Answer whatever it is."""
        method, path, headers, body = self.prepare(operation, positional, arguments, check)
        if accept:
            headers["Accept"] = accept
        answer = self.request(method, path, headers, body)
        if raw:
            return answer
        if answer.media_type == "application/json":
            return answer.json()
        return answer if answer.body or answer.status == 200 else None

    def prepare(self, name, positional, arguments, check=True):
        """-> method, path with query, headers, body."""
        about = self.contract.operations[name]
        if len(positional) > len(about["order"]):
            raise TypeError(f"{name} takes {', '.join(about['order']) or 'names'} and then names only")
        arguments = {**dict(zip(about["order"], positional)), **arguments}
        path, query, headers, fields = about["path"], {}, {}, {}
        for key, value in arguments.items():
            parameter = about["parameters"].get(key)
            if parameter is None:
                fields[key] = value
                continue
            if value is None:
                continue
            if check:
                self.contract.check(parameter["schema"], value, "/" + key)
            if parameter["in"] == "path":
                path = path.replace("{%s}" % key, urllib.parse.quote(str(value), safe=""))
            elif parameter["in"] == "query":
                query[parameter["name"]] = value
            else:
                headers[parameter["name"]] = str(value)
        if "{" in path:
            raise TypeError(f"{name} needs {', '.join(about['order'])}")
        body = self.prepare_body(name, about, fields, headers, check)
        return about["method"], path + ("?" + urllib.parse.urlencode(query) if query else ""), headers, body

    def prepare_body(self, name, about, fields, headers, check):
        known = about["form"].get("properties", {})
        if not known:
            if fields:
                raise TypeError(f"{name} has no {', '.join(fields)}")
            return None
        params = dict(fields.pop("params", None) or {})
        params.update({key: fields.pop(key) for key in list(fields) if key not in known})
        required = about["form"].get("required", [])
        missing = [key for key in required if key not in fields and key != "params"]
        if check and missing:
            raise ValueError(f"/{missing[0]} is missing")
        if check and (params or "params" in required):
            self.contract.check(known["params"], params)
        parts = []
        for key, value in fields.items():
            several = isinstance(value, (list, tuple))
            if check and several and self.contract.resolve(known[key]).get("type") != "array":
                raise ValueError(f"/{key} is one file, not several")
            parts += [(key, *read_file(one)) for one in (value if several else [value])]
        if params:
            parts.append(("params", None, json.dumps(params).encode()))
        body, headers["Content-Type"] = encode_form(parts)
        return body

    # -- requests

    def connect(self, timeout=None):
        kind = http.client.HTTPSConnection if self.address.scheme == "https" else http.client.HTTPConnection
        return kind(self.address.hostname, self.address.port, timeout=timeout or self.timeout)

    def open(self, connection, method, path, headers=None, body=None):
        """Sends a request and returns the response, its body unread; raises what is a problem."""
        headers = {**(headers or {}), **({"Authorization": f"Bearer {self.key}"} if self.key else {})}
        try:
            connection.connect()
        except OSError as error:
            raise type(error)(error.errno, f"no daemon answers at {self.address.geturl()}: {error.strerror or error}")
        connection.request(method, self.address.path.rstrip("/") + path, body, headers)
        response = connection.getresponse()
        if response.status < 400:
            return response
        text = response.read()
        try:
            value = json.loads(text)
        except ValueError:
            value = {"status": response.status, "title": text.decode(errors="replace")[:200]}
        later = response.headers.get("Retry-After")
        raise Problem(value, int(later) if later and later.isdigit() else None)

    def request(self, method, path, headers=None, body=None):
        """A whole exchange -> Answer; tried again as far as patience goes."""
        deadline = time.monotonic() + self.patience
        while True:
            connection = self.connect()
            try:
                response = self.open(connection, method, path, headers, body)
                return Answer(response.status, response.headers, response.read())
            except Problem as problem:
                pause = problem.retry_after or 1
                if problem.status not in (429, 503) or time.monotonic() + pause > deadline:
                    raise
                time.sleep(pause)
            finally:
                connection.close()

    # -- jobs and sweeps

    def events(self, job, last_event_id=None, patience=60):
        """What happens to a job (or its id), Event by Event, until it is finished. A broken connection is taken up
        where it broke; after `patience` seconds without one, what was wrong with it is raised."""
        retry, failing = 2.0, None
        while True:
            connection = self.connect(SILENCE_SECONDS)
            try:
                method, path, headers, _ = self.prepare("job_events", (id_of(job),), {"last_event_id": last_event_id})
                response = self.open(connection, method, path, {**headers, "Accept": "text/event-stream"})
                if response.status == 204:
                    return
                for name, value in read_events(response):
                    failing = None
                    if name == "retry":
                        retry = value
                        continue
                    last_event_id = value.id or last_event_id
                    yield value
                    if value.name in FINISHED:
                        return
            except (OSError, http.client.HTTPException, Problem) as error:
                if isinstance(error, Problem) and error.status not in (429, 503):
                    raise
                failing = failing or time.monotonic()
                if time.monotonic() - failing + retry > patience:
                    raise
            finally:
                connection.close()
            time.sleep(retry)

    def wait(self, what, seen=None, patience=60):
        """Waits for a job, or a sweep, and returns it as it is then; its "state" says whether it went well. `seen` is
        called with every event of a job, and with a sweep each time it was asked after. A daemon that is restarted
        goes on with its work: it is waited for as long as `patience` says."""
        if isinstance(what, dict) and "points_total" in what:
            return self.wait_for_sweep(what, seen, patience)
        for event in self.events(what, patience=patience):
            if seen:
                seen(event)
            if event.name in FINISHED:
                return event.data
        return self.get_job(id_of(what))

    def wait_for_sweep(self, sweep, seen=None, patience=60):
        pause, failing = 0.1, None
        while True:
            try:
                sweep, failing = self.get_sweep(id_of(sweep)), None
            except (OSError, http.client.HTTPException, Problem) as error:
                failing = failing or time.monotonic()
                passes = not isinstance(error, Problem) or error.status in (429, 503)
                if not passes or time.monotonic() - failing > patience:
                    raise
                time.sleep(1)
                continue
            if seen:
                seen(sweep)
            if not sweep["states"]["queued"] + sweep["states"]["running"]:
                return sweep
            time.sleep(pause)
            pause = min(pause * 1.5, 5)

    def sweep(self, audio, grid, seen=None, **params):
        """A whole sweep: accepted, waited for, and returned with its points."""
        return self.wait_for_sweep(self.create_sweep(audio, grid=grid, **params), seen)


def id_of(what):
    return what["id"] if isinstance(what, dict) else what


def read_events(response):
    """The lines of text/event-stream (HTML Standard, section 9.2) -> ("retry", seconds) or ("event", Event)."""
    name, data, identifier = "message", [], None
    for line in response:
        line = line.decode().rstrip("\r\n")
        field, _, value = line.partition(":")
        value = value[1:] if value.startswith(" ") else value
        if line == "":
            if data:
                yield "event", Event(identifier, name, json.loads("\n".join(data)))
            name, data = "message", []
        elif field == "event":
            name = value
        elif field == "data":
            data.append(value)
        elif field == "id":
            identifier = value
        elif field == "retry" and value.isdigit():
            yield "retry", int(value) / 1000


# ---- the command line --------------------------------------------------------------------------------------------


def read_params(text):
    """JSON, or @FILE with it."""
    try:
        return json.loads(read_file(text[1:])[1] if text.startswith("@") else text)
    except (OSError, ValueError) as error:
        raise argparse.ArgumentTypeError(f"{text:.60} is not JSON: {error}" if isinstance(error, ValueError)
                                         else str(error))


def show(event):
    data = event.data
    share = f" {100 * data['progress']:.0f} %" if "progress" in data else ""
    print(f"{data['state']}{share}", file=sys.stderr)


def run_vamp(daemon, options):
    suffix = os.path.splitext(options.output)[1].lower()
    if suffix not in MEDIA_TYPES:
        raise ValueError(f"{options.output} must end in .wav, .flac, .ogg or .json")
    answer = daemon.call("vamp", options.input, params=options.params, accept=MEDIA_TYPES[suffix], raw=True)
    answer.save(options.output)
    print(f"seed {answer.seed}", file=sys.stderr)


def run_job(daemon, options):
    os.makedirs(options.output, exist_ok=True)
    failed = False
    for job in daemon.create_jobs(options.inputs, params=options.params)["jobs"]:
        job = daemon.wait(job, show)
        failed |= job["state"] != "done"
        if job["state"] == "done":
            audio = daemon.job_audio(job["id"])
            suffix = {media: suffix for suffix, media in MEDIA_TYPES.items()}[audio.media_type]
            path = os.path.join(options.output, job["id"] + suffix)
            audio.save(path)
            print(path)
        elif "problem" in job:
            print(job["problem"]["detail"], file=sys.stderr)
    return 1 if failed else 0


def run_sweep(daemon, options):
    params = {**options.params, "grid": options.grid}
    sweep = daemon.wait(daemon.create_sweep(options.input, params=params),
                        lambda sweep: print(f"{100 * sweep['progress']:.0f} %", file=sys.stderr))
    daemon.sweep_archive(sweep["id"]).save(options.output)


def run_call(daemon, options):
    about = daemon.contract.operations.get(options.operation)
    if about is None:
        raise ValueError(f"there is no operation {options.operation}; there are: "
                         + ", ".join(daemon.contract.operations))
    arguments = {}
    for text in options.arguments:
        name, _, value = text.partition("=")
        parameter = about["parameters"].get(name)
        plain = name in about["files"] or parameter and "integer" not in str(parameter["schema"].get("type"))
        arguments[name] = value if plain else read_params(value)
    answer = daemon.call(options.operation, **arguments, accept=options.accept, raw=True)
    if options.output:
        answer.save(options.output)
    else:
        sys.stdout.buffer.write(answer.body)


def parse_arguments(arguments):
    parser = argparse.ArgumentParser(prog="vampd.py", description="A client of vampd.")
    parser.add_argument("--address", help="of the daemon (VAMPD, or http://127.0.0.1:8765)")
    parser.add_argument("--patience", type=float, default=60, metavar="S", help="to retry a busy daemon (60)")
    commands = parser.add_subparsers(required=True, metavar="vamp | job | sweep | call")
    vamp = commands.add_parser("vamp", help="one variation, now")
    vamp.add_argument("input")
    vamp.add_argument("-o", dest="output", required=True, metavar="OUT", help=".wav, .flac, .ogg, or .json")
    job = commands.add_parser("job", help="variations of one or more clips, as jobs")
    job.add_argument("inputs", nargs="+", metavar="input")
    job.add_argument("-o", dest="output", required=True, metavar="FOLDER")
    sweep = commands.add_parser("sweep", help="a grid over parameters")
    sweep.add_argument("input")
    sweep.add_argument("-o", dest="output", required=True, metavar="OUT.zip")
    sweep.add_argument("--grid", type=read_params, required=True, help='{"mask.mask_ratio": [0.1, 0.5]}, or @FILE')
    for command, run in ((vamp, run_vamp), (job, run_job), (sweep, run_sweep)):
        command.add_argument("--params", type=read_params, default={}, metavar="JSON",
                             help='{"preset": "subtle", "seed": 7}, or @FILE')
        command.set_defaults(run=run)
    call = commands.add_parser("call", help="any operation of the contract")
    call.add_argument("operation")
    call.add_argument("arguments", nargs="*", metavar="NAME=VALUE", help="a file's name, or JSON")
    call.add_argument("--accept", metavar="TYPE")
    call.add_argument("-o", dest="output", metavar="OUT")
    call.set_defaults(run=run_call)
    return parser.parse_args(arguments)


def main(arguments=None):
    options = parse_arguments(arguments)
    try:
        return options.run(Vampd(options.address, patience=options.patience), options) or 0
    except (Problem, ValueError, TypeError, OSError, http.client.HTTPException, argparse.ArgumentTypeError) as error:
        print(f"vampd.py: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
