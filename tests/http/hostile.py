#!/usr/bin/env python3
"""What strangers send: requests made from the fuzzers' corpora and from mutations of them, the same for the same seed.

    tests/http/hostile.py [--seconds 60] [--seed 1] [--vampd build/vampd]

starts a daemon on a tiny model and keeps at it. It must stay alive; every answer must be one that the contract allows;
memory, descriptors and processes must not grow; in the end it must answer a well-behaved request with the bytes it
began with, and stop cleanly. test_hostile.py does the same for a few seconds. Built with sanitizers (SANITIZE=...), the
daemon also tells of what would go unnoticed otherwise.
"""
import argparse
import base64
import http.client
import json
import os
import random
import socket
import sys
import tempfile
import threading
import time

import contract
import harness
import tiny_model

CORPUS = os.path.join(harness.ROOT, "tests", "fuzz", "corpus")
# Few jobs and short ones: what is to be tried out is the door, not the model.
FLAGS = ["--max-seconds", "5", "--max-body-mb", "2", "--max-queue", "8", "--max-jobs-queued", "32", "--workers", "2",
         "--timeout", "5", "--max-disk-mb", "64", "--min-free-mb", "1", "--grace", "1"]
QUICK = {"sampling": {"coarse_steps": 1, "fine_steps": 1}, "seed": 1}
ENDPOINTS = ["/v1/vamp", "/v1/masks", "/v1/jobs", "/v1/sweeps", "/v1/audio", "/v1/tokens"]  # as in fuzz_input.c
PATHS = ENDPOINTS + ["/v1/jobs/{}", "/v1/jobs/{}/audio", "/v1/jobs/{}/input", "/v1/jobs/{}/mask", "/v1/jobs/{}/mask.png",
                     "/v1/jobs/{}/tokens", "/v1/sweeps/{}", "/v1/models", "/v1/presets", "/healthz", "/readyz", "/metrics"]
QUERIES = ["format=flac", "format=ogg", "limit=1", "state=done", "format=%ff", "limit=-1", "a=b&a=b", "=", "%00=%0a",
           "format=wav&format=wav", "limit=99999999999999999999", "x" * 2000]
INTERESTING = [0, 1, 2, 16, 32, 64, 100, 127, 128, 255]
GROWTH_KIB = 48 * 1024                                        # what buffers and arenas may come to after the warm-up


def load_corpus():
    """-> {target: [bytes, ...]}, each begun by its unmutated seeds."""
    corpus = {}
    for target in sorted(os.listdir(CORPUS)):
        folder = os.path.join(CORPUS, target)
        corpus[target] = [open(os.path.join(folder, name), "rb").read() for name in sorted(os.listdir(folder))]
    return corpus


class Stranger:
    """An endless source of requests: (method, target, [(name, value), ...], body)."""

    def __init__(self, seed, known):
        self.draw = random.Random(seed)
        self.corpus = load_corpus()
        self.known = known                                    # ids of jobs that are there

    def mutate(self, data):
        data = bytearray(data)
        for _ in range(self.draw.choice((0, 1, 1, 2, 4, 16))):
            at = self.draw.randrange(len(data) + 1)
            end = min(len(data), at + self.draw.choice((1, 2, 4, 32, 512)))
            kind = self.draw.randrange(7)
            if kind == 0 and at < len(data):
                data[at] ^= 1 << self.draw.randrange(8)
            elif kind == 1 and at < len(data):
                data[at] = self.draw.choice(INTERESTING)
            elif kind == 2:
                del data[at:end]
            elif kind == 3:
                data[at:at] = data[at:end] * self.draw.choice((1, 2, 50))
            elif kind == 4:
                data[at:at] = self.draw.randbytes(self.draw.choice((1, 4, 100)))
            elif kind == 5:
                data[at:end] = bytes([self.draw.choice(INTERESTING)]) * (end - at)
            else:
                other = self.draw.choice(self.corpus[self.draw.choice(list(self.corpus))])
                data[at:] = other[self.draw.randrange(len(other) + 1):]
        return bytes(data[:1 << 20])

    def seed(self, target):
        return self.mutate(self.draw.choice(self.corpus[target]))

    def form(self, *parts):
        body, content_type = harness.encode_form(parts)
        return [("Content-Type", content_type)], body

    def params(self):
        """Parameters as a text: those of the fuzzer, or good ones, so that what stands beside them is looked at."""
        if self.draw.random() < 0.5:
            return json.dumps(QUICK).encode()
        return self.mutate(self.draw.choice([seed[1:] for seed in self.corpus["fuzz_request"] if seed[0] % 4 == 0]))

    def audio(self):
        """A clip that is wrong in some way."""
        clip, endpoint = self.seed("fuzz_audio"), self.draw.choice(ENDPOINTS[:4] + ENDPOINTS[5:])
        if self.draw.random() < 0.3:
            body = {"audio": base64.b64encode(clip).decode(), **QUICK}
            return "POST", endpoint, [("Content-Type", "application/json")], json.dumps(body).encode()
        return "POST", endpoint, *self.form(("audio", clip), ("params", self.params()))

    def parameters(self):
        good = harness.make_wav(0.05)
        return "POST", self.draw.choice(ENDPOINTS[:4]), *self.form(("audio", good), ("params", self.params()))

    def whole_body(self):
        """Content-Type and body as they are: what fuzz_input reads."""
        data = self.seed("fuzz_input")
        endpoint = ENDPOINTS[data[0] % len(ENDPOINTS)] if data else ENDPOINTS[0]
        content_type, _, body = data[1:].partition(b"\n")
        return "POST", endpoint, [("Content-Type", content_type.decode("latin-1"))], body

    def sweep(self):
        try:
            grid, base = json.loads(self.seed("fuzz_grid"))[:2]
            text = json.dumps({**base, **QUICK, "grid": grid})
        except (ValueError, TypeError):
            text = '{"grid": {"seed": [1, 2]}}'
        return "POST", "/v1/sweeps", *self.form(("audio", harness.make_wav(0.05)), ("params", text.encode()))

    def read(self):
        """A look at what is there, with header fields from the fuzzer."""
        identifier = self.draw.choice(self.known + ["0" * 16, "..", "%2e%2e%2f", "\xff", "x" * 300])
        target = self.draw.choice(PATHS).format(identifier)
        if self.draw.random() < 0.3:
            target += "?" + self.draw.choice(QUERIES)
        if self.draw.random() < 0.1:
            target = "/" + self.mutate(target.encode("latin-1")).decode("latin-1")
        headers = []
        for name in self.draw.sample(["Range", "If-Range", "If-None-Match", "Accept", "Origin", "Authorization",
                                      "Last-Event-ID", "Host", "Expect", "Connection", "Cookie"], 3):
            headers.append((name, self.seed("fuzz_headers")[1:].decode("latin-1")))
        return self.draw.choice(("GET", "GET", "GET", "HEAD", "OPTIONS", "DELETE", "PUT")), target, headers, b""

    def request(self):
        kinds = (self.audio, self.audio, self.parameters, self.whole_body, self.whole_body, self.sweep, self.read, self.read)
        return self.draw.choice(kinds)()


def clean(text):
    """What cannot be part of a line of a request is not sent as one: that would be another request."""
    return "".join(character for character in text if ord(character) < 256 and character not in "\r\n\0")[:4000]


def exchange(port, method, target, headers, body):
    """Sends a request as it is -> the answer, or None where the daemon closed the connection instead."""
    lines = [f"{method} {clean(target).replace(' ', '%20')} HTTP/1.1"]
    if not any(name == "Host" for name, _ in headers):
        lines.append("Host: localhost")
    lines += [f"{name}: {clean(value)}" for name, value in headers] + [f"Content-Length: {len(body)}"]
    with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
        try:
            connection.sendall("\r\n".join(lines).encode("latin-1") + b"\r\nConnection: close\r\n\r\n" + body)
        except (BrokenPipeError, ConnectionResetError):
            pass                                              # it answered without reading all of it
        response = http.client.HTTPResponse(connection, method=method)
        try:
            response.begin()
            return harness.Answer(response.status, response.headers, response.read())
        except (http.client.HTTPException, ConnectionResetError):
            return None
        finally:
            response.close()


def check(document, method, target, answer):
    """Every answer is a success or a problem of the contract. What libmicrohttpd itself refuses (a line that is no
    HTTP) has no body of ours."""
    if answer is None or not answer.headers.get("Vampd-Request-Id"):
        assert answer is None or 400 <= answer.status < 500, (method, target, answer.status)
        return
    assert answer.status < 500 or answer.status in (503, 507), (method, target, answer.status, answer.body[:500])
    path = target.partition("?")[0]
    operation, _ = contract.find_operation(document, method, path)
    if answer.status < 400 and operation is not None and method != "OPTIONS":
        contract.check_answer(document, method, path, answer)
    elif answer.status >= 400 and method != "HEAD":
        assert answer.headers["Content-Type"] == "application/problem+json", (method, target, answer.headers)
        contract.check(document, {"$ref": "#/components/schemas/Problem"}, answer.json())


def rudeness(port, stranger):
    """What no client library does: half a request, or none at all."""
    draw = stranger.draw
    method, target, headers, body = stranger.request()
    text = f"{method} {clean(target)} HTTP/1.1\r\n".encode("latin-1")
    text += "".join(f"{name}: {clean(value)}\r\n" for name, value in headers).encode("latin-1")
    text += b"Content-Length: %d\r\n\r\n" % draw.choice((len(body), len(body) + 100, 1 << 40)) + body
    with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
        try:
            connection.sendall(draw.choice((stranger.mutate(text), text[:draw.randrange(len(text) + 1)])))
            if draw.random() < 0.5:
                connection.shutdown(socket.SHUT_WR)
                connection.recv(1000)
        except OSError as error:                              # it has hung up already; but it must not leave us waiting
            if isinstance(error, TimeoutError):
                raise


def process_facts(process):
    """-> resident KiB and the number of open descriptors of a process, and of its children."""
    with open(f"/proc/{process}/status", encoding="utf-8") as file:
        resident = int(next(line for line in file if line.startswith("VmRSS")).split()[1])
    children = []
    for name in os.listdir("/proc"):
        try:
            with open(f"/proc/{name}/stat", encoding="utf-8") as file:
                if int(file.read().rpartition(")")[2].split()[1]) == process:
                    children.append(int(name))
        except (OSError, ValueError):
            pass
    return resident, len(os.listdir(f"/proc/{process}/fd")), children


def process_name(process):
    try:
        with open(f"/proc/{process}/comm", encoding="utf-8") as file:
            return file.read().strip()
    except OSError:
        return ""


class Attack:
    """Several strangers at once, until the time is over or one of them finds something wrong."""

    def __init__(self, daemon, seed, strangers=4):
        self.daemon, self.deadline, self.wrong, self.count = daemon, None, [], 0
        clip, quick = harness.make_wav(0.2), QUICK
        self.good = daemon.vamp(clip, quick).body
        self.ask = lambda: daemon.vamp(clip, quick)
        known = [job["id"] for job in daemon.submit([clip, clip], quick)]
        for identifier in known:
            daemon.wait_for(identifier)
        self.strangers = [Stranger(seed * 1000 + index, list(known)) for index in range(strangers)]
        self.lock = threading.Lock()

    def work(self, stranger):
        while time.monotonic() < self.deadline and not self.wrong:
            try:
                if stranger.draw.random() < 0.05:
                    rudeness(self.daemon.port, stranger)
                    continue
                request = stranger.request()
                answer = exchange(self.daemon.port, *request)
                check(self.daemon.document, request[0], clean(request[1]), answer)
                if answer and answer.status == 202 and "jobs" in request[1]:
                    stranger.known = (stranger.known + [job["id"] for job in answer.json()["jobs"]])[-20:]
                with self.lock:
                    self.count += 1
            except Exception as error:                        # an assertion, a time-out: the attack is over
                self.wrong.append((error, locals().get("request")))

    def run(self, seconds):
        """For so many seconds; raises what went wrong."""
        self.deadline = time.monotonic() + seconds
        threads = [threading.Thread(target=self.work, args=(stranger,)) for stranger in self.strangers]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if self.wrong:
            error, request = self.wrong[0]
            raise AssertionError(f"{str(request):.2000}") from error
        assert self.daemon.process.poll() is None, "".join(self.daemon.log[-50:])

    def settle(self):
        """Waits for jobs that were accepted, and for connections that are closing."""
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            ready = self.daemon.request("GET", "/readyz", check=False)
            if ready.status == 200 and ready.json()["jobs"] == 0:
                break
            time.sleep(0.1)
        time.sleep(1)

    def facts(self):
        """Resident memory of daemon and decoder in KiB, their descriptors, and the processes of clips: the decoder's
        children but the one that waits for the next clip."""
        resident, descriptors, children = process_facts(self.daemon.process.pid)
        assert len(children) == 1, f"{len(children)} children of the daemon, and there should be the decoder alone"
        inner_resident, inner_descriptors, grandchildren = process_facts(children[0])
        spares = sum(process_name(process) == "vampd-spare" for process in grandchildren)
        assert spares <= 1, f"{spares} processes that wait for a clip"
        return resident, descriptors, inner_resident, inner_descriptors, len(grandchildren) - spares

    def compare(self, before):
        """What must not have grown since then."""
        deadline = time.monotonic() + 30                      # a clip whose sender has gone may still be decoded
        while self.facts()[4] and time.monotonic() < deadline:
            time.sleep(0.1)
        after = self.facts()
        assert after[0] - before[0] < GROWTH_KIB, f"resident memory from {before[0]} to {after[0]} KiB"
        assert after[1] <= before[1] + 8, f"from {before[1]} to {after[1]} open descriptors"
        assert after[2] - before[2] < 4096 and after[3] <= before[3] + 2, f"the decoder: from {before[2:]} to {after[2:]}"
        assert after[4] == 0, f"{after[4]} processes of clips are left"
        answer = self.ask()
        assert answer.status == 200 and answer.body == self.good, "a well-behaved request gets other bytes than before"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--vampd", default=harness.VAMPD)
    arguments = parser.parse_args()
    harness.VAMPD = arguments.vampd
    with tempfile.TemporaryDirectory() as folder:
        model = os.path.join(folder, "tiny")
        tiny_model.write(model)
        with harness.Daemon(model, *FLAGS) as daemon:
            attack = Attack(daemon, arguments.seed)
            attack.run(arguments.seconds / 4)
            attack.settle()
            before = attack.facts()
            attack.run(arguments.seconds * 3 / 4)
            attack.settle()
            attack.compare(before)
            print(f"{attack.count} requests, seed {arguments.seed}; resident {before[0]} KiB after a quarter, "
                  f"{attack.facts()[0]} KiB at the end")
    return 0


if __name__ == "__main__":
    sys.exit(main())
