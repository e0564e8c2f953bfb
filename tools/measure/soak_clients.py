"""The clients of tools/measure/soak: each draws one thing after the other that the daemon offers, or that clients do to
daemons, and holds every answer against the contract. Standard library and tests/http/contract.py."""
import array
import base64
import collections
import errno
import hashlib
import http.client
import io
import json
import math
import os
import random
import socket
import sys
import threading
import time
import urllib.parse
import wave
import zipfile

import contract

CORPUS = os.path.join(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))), "tests", "fuzz",
                      "corpus")
ANSWER_SECONDS = 120                                           # what a loaded machine may take
QUICK = {"coarse_steps": 1, "fine_steps": 1}
MASKS = [{"mask_ratio": 0.8, "periodic_prompt": 5, "upper_codebook_mask": 4}, {"pattern": "range", "start_s": 0.1, "end_s": 0.2},
         {"any": [{"pattern": "random", "ratio": 0.3}, {"pattern": "periodic", "period": 7}]},
         {"passes": [{"mask_ratio": 0.5}, {"mask_ratio": 0.9, "upper_codebook_mask": 2}]},
         {"periodic_prompt": "beat"}, {"pattern": "onset"}, {"pattern": "adaptive"}]
ACCEPTS = ["audio/wav", "audio/flac", "audio/ogg", "application/json", "multipart/mixed", "*/*"]
FORMATS = ["wav", "wav24", "wavfloat", "flac", "ogg"]
PARTS = ["", "/audio", "/input", "/mask", "/mask.png", "/mask.svg", "/tokens"]
ENDPOINTS = ["/v1/vamp", "/v1/masks", "/v1/jobs", "/v1/sweeps", "/v1/audio", "/v1/tokens"]  # as in fuzz_input.c
HEADERS = ["Range", "If-Range", "If-None-Match", "Accept", "Origin", "Authorization", "Last-Event-ID", "Expect", "Cookie"]
FINISHED = ("done", "failed", "cancelled")


class Answer:
    def __init__(self, status, headers, body):
        self.status, self.headers, self.body = status, headers, body

    def json(self):
        return json.loads(self.body)


def make_wav(draw, seconds, rate=44100, channels=1):
    """A few notes and some noise."""
    samples = array.array("h")
    for i in range(int(seconds * rate)):
        if i % (rate // 8) == 0:
            frequency = 110 * 2 ** (draw.randrange(36) / 12)
        value = 0.3 * math.sin(2 * math.pi * frequency * i / rate) + draw.uniform(-0.02, 0.02)
        samples.extend([int(32767 * value)] * channels)
    if sys.byteorder == "big":
        samples.byteswap()
    file = io.BytesIO()
    with wave.open(file, "wb") as out:
        out.setnchannels(channels)
        out.setsampwidth(2)
        out.setframerate(rate)
        out.writeframes(samples.tobytes())
    return file.getvalue()


def encode_form(parts):
    boundary = "vampd-soak-boundary"
    body = b"".join(b'--%s\r\nContent-Disposition: form-data; name="%s"; filename="x"\r\n\r\n%s\r\n'
                    % (boundary.encode(), name.encode(), data) for name, data in parts)
    return body + b"--%s--\r\n" % boundary.encode(), f"multipart/form-data; boundary={boundary}"


def load_corpus():
    corpus = {}
    for target in sorted(os.listdir(CORPUS)):
        folder, corpus[target] = os.path.join(CORPUS, target), []
        for name in sorted(os.listdir(folder)):
            with open(os.path.join(folder, name), "rb") as file:
                corpus[target].append(file.read())
    return corpus


class Shared:
    """What the clients know together."""

    def __init__(self, port, seed):
        self.port, self.seed, self.lock = port, seed, threading.Lock()
        self.statuses, self.done, self.faults = collections.Counter(), collections.Counter(), []
        self.jobs, self.sweeps, self.digests = collections.deque(maxlen=60), collections.deque(maxlen=12), {}
        self.corpus = load_corpus()
        draw = random.Random(seed)
        self.clips = [make_wav(draw, seconds, rate, channels) for seconds, rate, channels in
                      ((0.1, 44100, 1), (0.2, 44100, 2), (0.3, 22050, 1), (0.5, 48000, 1), (1.0, 44100, 1), (0.02, 8000, 1))]
        self.document = json.loads(self.plain("/openapi.json"))

    def plain(self, path):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=ANSWER_SECONDS)
        try:
            connection.request("GET", path)
            return connection.getresponse().read()
        finally:
            connection.close()

    def metrics(self):
        return self.plain("/metrics").decode()

    def jobs_in_the_house(self):
        return json.loads(self.plain("/readyz")).get("jobs")

    def count(self):
        with self.lock:
            return sum(self.statuses.values())

    def enter(self, what, status):
        with self.lock:
            self.statuses[status] += 1
            self.done[what] += 1

    def fault(self, text):
        with self.lock:
            self.faults.append(text)

    def pick(self, draw, known):
        with self.lock:
            return draw.choice(known) if known else "0" * 24

    def add(self, known, identifiers):
        with self.lock:
            known.extend(identifiers)

    def same(self, what, data):
        """Whether these bytes are those that came the first time."""
        digest = hashlib.sha256(data).digest()
        with self.lock:
            return self.digests.setdefault(what, digest) == digest

    def leave_work(self, age):
        """Some seconds' work that nobody waits for -> how many jobs that is. The last clients' results fill the store and are
        too young to be forgotten: `age` makes those older that are no longer fresh, so it is called until there is room."""
        client = Client(self, 1 << 16)
        params = {"variations": 6, "sampling": {"coarse_steps": 256, "fine_steps": 256}, "mask": {"mask_ratio": 1.0}}
        deadline = time.monotonic() + 60
        age()
        while (answer := client.post_form("/v1/jobs", [("audio", self.clips[4])], params)).status != 202:
            if time.monotonic() > deadline:
                self.fault(f"no new work after a minute of rest: {answer.status} {answer.body[:300]}")
                break
            time.sleep(1)
            age()
        return self.jobs_in_the_house()

    def print_counts(self):
        print("answers: " + ", ".join(f"{count} x {status}" for status, count in sorted(self.statuses.items(), key=str)))
        print("done: " + ", ".join(f"{count} {what}" for what, count in sorted(self.done.items())))


class Client:
    def __init__(self, shared, number):
        self.shared, self.draw = shared, random.Random(shared.seed * 1000 + number)
        self.connection, self.what = None, ""

    # ---- one request and its answer

    def exchange(self, method, path, body, headers):
        """On the connection that is open, or a new one where that was closed meanwhile."""
        for fresh in (self.connection is None, True):
            if self.connection is None:
                self.connection = http.client.HTTPConnection("127.0.0.1", self.shared.port, timeout=ANSWER_SECONDS)
            try:
                self.connection.request(method, path, body, headers)
                response = self.connection.getresponse()
                answer = Answer(response.status, response.headers, response.read())
                if response.will_close or self.draw.random() < 0.1:
                    self.hang_up()
                return answer
            except (http.client.RemoteDisconnected, ConnectionError):
                self.hang_up()
                if fresh:
                    raise
        raise AssertionError("not reached")

    def hang_up(self):
        if self.connection:
            self.connection.close()
        self.connection = None

    def request(self, method, path, body=None, headers=None):
        answer = self.exchange(method, path, body, headers or {})
        assert answer.status < 500 or answer.status in (503, 507), f"{answer.status} {answer.body[:500]}"
        contract.check_answer(self.shared.document, method, path, answer)
        self.shared.enter(self.what, answer.status)
        if answer.status in (429, 503, 507):
            time.sleep(self.draw.uniform(0, 1))                # a client that is told to come back later, in short
        return answer

    def post_form(self, path, parts, params, accept=None):
        body, content_type = encode_form(parts + [("params", json.dumps(params).encode())])
        return self.request("POST", path, body, {"Content-Type": content_type, **({"Accept": accept} if accept else {})})

    def post_json(self, path, value, accept=None):
        return self.request("POST", path, json.dumps(value),
                            {"Content-Type": "application/json", **({"Accept": accept} if accept else {})})

    # ---- what a request may hold

    def clip(self):
        if self.draw.random() < 0.2:
            return self.draw.choice(self.shared.corpus["fuzz_audio"])
        return self.draw.choice(self.shared.clips)

    def params(self, **more):
        params = {"sampling": {**QUICK, "coarse_steps": self.draw.choice((1, 1, 2, 6))}, "seed": self.draw.randrange(1 << 53)}
        kind = self.draw.randrange(3)
        if kind == 0:
            params["preset"] = self.draw.choice(("subtle", "balanced", "creative"))
        elif kind == 1:
            params["mask"] = self.draw.choice(MASKS)
        return {**params, **more}

    # ---- what a client may do

    def vamp(self):
        accept, params = self.draw.choice(ACCEPTS), self.params()
        if accept == "application/json" and self.draw.random() < 0.5:
            params["picture"] = self.draw.choice(("png", "svg"))
        if accept == "*/*":
            params["format"] = self.draw.choice(FORMATS)
        if self.draw.random() < 0.3:
            self.post_json("/v1/vamp", {"audio": base64.b64encode(self.clip()).decode(), **params}, accept)
        else:
            self.post_form("/v1/vamp", [("audio", self.clip())], params, accept)

    def vamp_again(self):
        number = self.draw.randrange(12)
        clip = self.shared.clips[number % len(self.shared.clips)]
        answer = self.post_form("/v1/vamp", [("audio", clip)], {"seed": number, "sampling": QUICK})
        assert answer.status in (200, 429, 503, 507), f"{answer.status} {answer.body[:300]}"
        if answer.status == 200:
            assert self.shared.same(number, answer.body), f"seed {number} has other bytes than before"

    def jobs(self):
        clips = [("audio", self.clip()) for _ in range(self.draw.choice((1, 1, 1, 3)))]
        answer = self.post_form("/v1/jobs", clips, self.params(variations=self.draw.choice((1, 1, 2, 4))))
        if answer.status == 202:
            jobs = [job["id"] for job in answer.json()["jobs"]]
            self.shared.add(self.shared.jobs, jobs)
            if self.draw.random() < 0.3:
                self.follow(jobs[0])

    def follow(self, identifier):
        """Asks until it is finished, or until that has taken some seconds."""
        deadline = time.monotonic() + 8
        while time.monotonic() < deadline:
            answer = self.request("GET", f"/v1/jobs/{identifier}")
            if answer.status != 200 or answer.json()["state"] in FINISHED:
                return
            time.sleep(0.2)

    def results(self):
        path = f"/v1/jobs/{self.shared.pick(self.draw, self.shared.jobs)}" + self.draw.choice(PARTS)
        if path.endswith("/audio") and self.draw.random() < 0.5:
            path += "?format=" + self.draw.choice(FORMATS)
        headers = {}
        if self.draw.random() < 0.4:
            headers["Range"] = self.draw.choice(("bytes=0-43", "bytes=-100", "bytes=1000-", "bytes=99999999-", "bytes=5-1"))
        answer = self.request(self.draw.choice(("GET", "GET", "GET", "HEAD")), path, headers=headers)
        if answer.status == 200 and answer.headers.get("ETag"):
            again = self.request("GET", path, headers={"If-None-Match": answer.headers["ETag"]})
            assert again.status in (304, 404, 503), f"{again.status} for the ETag that was just given"

    def events(self):
        """Listens; more often than not, leaves before the end."""
        identifier = self.shared.pick(self.draw, self.shared.jobs)
        connection = http.client.HTTPConnection("127.0.0.1", self.shared.port, timeout=ANSWER_SECONDS)
        try:
            headers = {"Last-Event-ID": str(self.draw.randrange(200000))} if self.draw.random() < 0.2 else {}
            connection.request("GET", f"/v1/jobs/{identifier}/events", headers=headers)
            response = connection.getresponse()
            self.shared.enter(self.what, response.status)
            if response.status != 200:
                body = response.read()
                assert response.status in (204, 404, 429, 503), f"{response.status} {body[:300]}"
                return
            assert response.headers["Content-Type"].startswith("text/event-stream")
            left = self.draw.choice((0, 1, 3, 10, 10000))
            self.read_events(response, left, time.monotonic() + 20)
        finally:
            connection.close()

    def read_events(self, response, left, deadline):
        event = None
        while left > 0 and time.monotonic() < deadline:
            line = response.readline().decode()
            if not line:
                return
            name, _, value = line.rstrip("\n").partition(": ")
            if name == "event":
                event = value
            elif name == "data":
                schema = "Job" if event in FINISHED else "Progress"
                contract.check(self.shared.document, {"$ref": f"#/components/schemas/{schema}"}, json.loads(value))
                left -= 1

    def sweep(self):
        grid = self.draw.choice(({"mask.mask_ratio": [0.2, 0.8]}, {"seed": [1, 2, 3]}, {"preset": ["subtle", "creative"]},
                                 {"mask.mask_ratio": [0.5, 1], "mask.periodic_prompt": [3, 13]}))
        answer = self.post_form("/v1/sweeps", [("audio", self.clip())], {"grid": grid, "sampling": QUICK})
        if answer.status == 202:
            sweep = answer.json()["id"]
            self.shared.add(self.shared.sweeps, [sweep])
            deadline = time.monotonic() + 10
            while self.draw.random() < 0.9 and time.monotonic() < deadline:
                answer = self.request("GET", f"/v1/sweeps/{sweep}")
                states = answer.json()["states"] if answer.status == 200 else {"queued": 0, "running": 0}
                if states["queued"] + states["running"] == 0:
                    self.archive(sweep)
                    return
                time.sleep(0.3)

    def archive(self, sweep=None):
        sweep = sweep or self.shared.pick(self.draw, self.shared.sweeps)
        self.request("GET", f"/v1/sweeps/{sweep}/table.csv")
        answer = self.request("GET", f"/v1/sweeps/{sweep}/archive.zip")
        if answer.status == 200:
            with zipfile.ZipFile(io.BytesIO(answer.body)) as archive:
                assert archive.testzip() is None and "sweep.csv" in archive.namelist()
            self.request("GET", f"/v1/sweeps/{sweep}/archive.zip", headers={"Range": "bytes=100-299"})

    def masks(self):
        accept = self.draw.choice(("application/json", "image/png", "image/svg+xml"))
        if self.draw.random() < 0.5:
            self.post_json("/v1/masks", {"frames": self.draw.randrange(1, 600), **self.params()}, accept)
        else:
            self.post_form("/v1/masks", [("audio", self.clip())], self.params(), accept)

    def codec(self):
        clip = base64.b64encode(self.draw.choice(self.shared.clips)).decode()
        accept = self.draw.choice(("application/json", "application/octet-stream"))
        answer = self.post_json("/v1/tokens", {"audio": clip}, accept)
        if answer.status == 200 and accept == "application/json":
            self.post_json("/v1/audio", {"tokens": answer.json()["tokens"], "format": self.draw.choice(FORMATS)})
        elif answer.status == 200:
            self.post_form("/v1/audio", [("tokens", answer.body)], {})

    def look(self):
        path = self.draw.choice(("/v1/jobs", "/v1/jobs?limit=1000", "/v1/jobs?state=done&limit=5", "/v1/sweeps", "/v1/models",
                                 "/v1/presets", "/healthz", "/readyz", "/metrics", "/openapi.json", "/v1/nothing"))
        answer = self.request("GET", path)
        if path.startswith("/v1/jobs") and answer.status == 200:
            page = answer.json()
            with self.shared.lock:
                self.shared.jobs.extend(job["id"] for job in page["jobs"][:5])
            if "next" in page:
                self.request("GET", page["next"])

    def delete(self):
        if self.draw.random() < 0.8:
            self.request("DELETE", f"/v1/jobs/{self.shared.pick(self.draw, self.shared.jobs)}")
        else:
            self.request("DELETE", f"/v1/sweeps/{self.shared.pick(self.draw, self.shared.sweeps)}")

    # ---- what strangers do

    def mutate(self, data):
        data = bytearray(data)
        for _ in range(self.draw.choice((0, 1, 1, 4, 16))):
            at = self.draw.randrange(len(data) + 1)
            end = min(len(data), at + self.draw.choice((1, 4, 32, 512)))
            data[at:end] = self.draw.choice((b"", data[at:end] * 3, self.draw.randbytes(end - at), bytes(end - at)))
        return bytes(data[:1 << 20])

    def seed(self, target):
        return self.mutate(self.draw.choice(self.shared.corpus[target]))

    def hostile_request(self):
        """-> method, path, [(name, value), ...], body."""
        kind = self.draw.randrange(4)
        if kind == 0:
            body, content_type = encode_form([("audio", self.seed("fuzz_audio")), ("params", json.dumps(self.params()).encode())])
            return "POST", self.draw.choice(ENDPOINTS), [("Content-Type", content_type)], body
        if kind == 1:
            body, content_type = encode_form([("audio", self.shared.clips[0]), ("params", self.seed("fuzz_request")[1:])])
            return "POST", self.draw.choice(ENDPOINTS), [("Content-Type", content_type)], body
        if kind == 2:
            data = self.seed("fuzz_input")
            content_type, _, body = data[1:].partition(b"\n")
            endpoint = ENDPOINTS[data[0] % len(ENDPOINTS)] if data else ENDPOINTS[0]
            return "POST", endpoint, [("Content-Type", content_type.decode("latin-1"))], body
        path = f"/v1/jobs/{self.shared.pick(self.draw, self.shared.jobs)}" + self.draw.choice(PARTS + ["/x", "/../..", "%00"])
        value = self.seed("fuzz_headers")[1:].decode("latin-1")
        return self.draw.choice(("GET", "DELETE", "PUT", "OPTIONS")), path, [(self.draw.choice(HEADERS), value)], b""

    @staticmethod
    def lines(method, path, headers, length):
        def clean(text):
            return "".join(character for character in text if character not in "\r\n\0")[:4000]
        fields = "".join(f"{name}: {clean(value)}\r\n" for name, value in headers)
        return (f"{method} {clean(path)} HTTP/1.1\r\nHost: localhost\r\n{fields}Content-Length: {length}\r\n"
                "Connection: close\r\n\r\n").encode("latin-1", "replace")

    def socket(self, receive_bytes=None):
        made = socket.socket()
        if receive_bytes:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        made.settimeout(ANSWER_SECONDS)
        made.connect(("127.0.0.1", self.shared.port))
        return made

    def hostile(self):
        method, path, headers, body = self.hostile_request()
        with self.socket() as connection:
            try:
                connection.sendall(self.lines(method, path, headers, len(body)) + body)
            except (BrokenPipeError, ConnectionResetError):
                pass                                           # it answered without reading all of it
            response = http.client.HTTPResponse(connection, method=method)
            try:
                response.begin()
                answer = Answer(response.status, response.headers, response.read())
            except (http.client.HTTPException, ConnectionResetError):
                return
            finally:
                response.close()
        self.shared.enter(self.what, answer.status)
        self.check_hostile(method, urllib.parse.unquote(path), answer)

    def check_hostile(self, method, path, answer):
        """A success of the contract, a problem, or what libmicrohttpd itself says to what is no HTTP."""
        if not answer.headers.get("Vampd-Request-Id"):
            assert 400 <= answer.status < 500, f"{method} {path} {answer.status}"
            return
        assert answer.status < 500 or answer.status in (503, 507), f"{method} {path} {answer.status} {answer.body[:500]}"
        if answer.status >= 400:
            assert answer.headers["Content-Type"] == "application/problem+json", f"{method} {path} {answer.status}"
            contract.check(self.shared.document, {"$ref": "#/components/schemas/Problem"}, answer.json())
        elif method == "POST":
            contract.check_answer(self.shared.document, method, path, answer)

    def rude(self):
        """Half a request, slowly or at once; or a whole one, of which nobody reads the answer."""
        method, path, headers, body = self.hostile_request()
        if self.draw.random() < 0.5:
            body, content_type = encode_form([("audio", self.shared.clips[4])])
            method, path, headers = "POST", "/v1/vamp", [("Content-Type", content_type)]
        data = self.lines(method, path, headers, len(body) + self.draw.choice((0, 0, 100, 1 << 40))) + body
        data = data[:self.draw.choice((len(data), self.draw.randrange(len(data) + 1)))]
        with self.socket() as connection:
            try:
                for at in range(0, len(data), max(1, len(data) // self.draw.choice((1, 1, 4)))):
                    connection.sendall(data[at:at + max(1, len(data) // 4)])
                    time.sleep(self.draw.uniform(0, 0.2))
                if self.draw.random() < 0.3:
                    connection.shutdown(socket.SHUT_WR)
            except (BrokenPipeError, ConnectionResetError):
                pass
            except OSError as error:
                if error.errno != errno.ENOTCONN:              # the daemon has closed it: nothing to shut down
                    raise
        self.shared.enter(self.what, "none")

    def slow_reader(self):
        """Reads some hundred bytes at a time; loses patience with itself after some seconds."""
        path = self.draw.choice(("/openapi.json", f"/v1/jobs/{self.shared.pick(self.draw, self.shared.jobs)}/audio",
                                 f"/v1/sweeps/{self.shared.pick(self.draw, self.shared.sweeps)}/archive.zip"))
        with self.socket(2048) as connection:
            connection.sendall(self.lines("GET", path, [], 0))
            deadline, step = time.monotonic() + self.draw.uniform(0.5, 4), self.draw.choice((200, 2000))
            try:
                while time.monotonic() < deadline and connection.recv(step):
                    time.sleep(0.05)
            except ConnectionResetError:
                pass
        self.shared.enter(self.what, "none")

    # ---- all of it

    def run(self, deadline):
        things = {self.vamp: 6, self.vamp_again: 4, self.jobs: 6, self.results: 10, self.events: 3, self.sweep: 1,
                  self.archive: 1, self.masks: 4, self.codec: 2, self.look: 4, self.delete: 2, self.hostile: 8, self.rude: 3,
                  self.slow_reader: 2}
        while time.monotonic() < deadline:
            thing = self.draw.choices(list(things), list(things.values()))[0]
            self.what = thing.__name__
            try:
                thing()
            except ConnectionRefusedError:
                return                                         # the daemon is gone, which is noticed elsewhere
            except Exception as error:                         # an answer that the contract does not know, or none at all
                self.hang_up()
                self.shared.fault(f"{self.what}: {type(error).__name__}: {error}")
                if len(self.shared.faults) > 50:
                    return
        self.hang_up()
