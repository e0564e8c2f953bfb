"""A vampd to test: started, asked and stopped; every answer is checked against the contract the daemon serves.

The binary is vampd in $VAMP_BUILD (default: build).
"""
import http.client
import io
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
import wave

import numpy

import contract

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
VAMPD = os.path.join(os.environ.get("VAMP_BUILD", os.path.join(ROOT, "build")), "vampd")
START_SECONDS = 60
FINISHED = ("done", "failed", "cancelled")
# For a daemon built with sanitizers: what libraries keep until the process ends.
ENVIRONMENT = {"LSAN_OPTIONS": "suppressions=" + os.path.join(ROOT, "tests", "leaks.supp"), **os.environ}


class Answer:
    def __init__(self, status, headers, body):
        self.status, self.headers, self.body = status, headers, body

    def json(self):
        return json.loads(self.body)


def encode_form(parts):
    """multipart/form-data of (name, bytes) pairs, written by hand so that tests can also write it wrongly."""
    boundary = "vampd-test-boundary"
    body = b"".join(
        b"--%s\r\nContent-Disposition: form-data; name=\"%s\"; filename=\"x\"\r\n\r\n%s\r\n"
        % (boundary.encode(), name.encode(), data) for name, data in parts)
    return body + b"--%s--\r\n" % boundary.encode(), f"multipart/form-data; boundary={boundary}"


class Daemon:
    """A running vampd. As a context manager it is stopped at the end, and must then have stopped well.

    data  a folder that outlives this daemon; without it there is one that goes with it
    key   sent with every request
    environment  more variables
    prefix  a command that starts another in its place or as its child
    """
    running = []

    def __init__(self, model, *flags, wait=True, data=None, key=None, environment=None, prefix=()):
        self.folder = None if data else tempfile.mkdtemp(prefix="vampd-test-")
        self.data = str(data) if data else os.path.join(self.folder, "data")
        self.key = key
        self.process = subprocess.Popen(
            [*prefix, VAMPD, "--model", model, "--port", "0", "--data-dir", self.data, "--threads", "2", *flags],
            stderr=subprocess.PIPE, text=True, cwd=ROOT, env={**ENVIRONMENT, **(environment or {})})
        self.running.append(self)
        self.log, self.port, self.document = [], None, None
        self.ready = threading.Event()
        self.reader = threading.Thread(target=self.read_log, daemon=True)
        self.reader.start()
        if wait:
            self.wait()

    def read_log(self):
        for line in self.process.stderr:
            self.log.append(line)
            found = re.fullmatch(r"vampd listening on http://127\.0\.0\.1:(\d+)\n", line)
            if found:
                self.port = int(found.group(1))
                self.ready.set()
        self.ready.set()

    def wait(self):
        assert self.ready.wait(START_SECONDS) and self.port, "vampd did not start:\n" + "".join(self.log)
        self.document = self.request("GET", "/openapi.json", check=False).json()

    def connect(self):
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)

    def request(self, method, path, body=None, headers=None, check=True):
        connection = self.connect()
        try:
            headers = {**({"Authorization": f"Bearer {self.key}"} if self.key else {}), **(headers or {})}
            connection.request(method, path, body, headers)
            response = connection.getresponse()
            answer = Answer(response.status, response.headers, response.read())
        finally:
            connection.close()
        if check:
            contract.check_answer(self.document, method, path, answer)
        return answer

    def form(self, path, *parts, accept=None):
        body, content_type = encode_form(parts)
        headers = {"Content-Type": content_type, **({"Accept": accept} if accept else {})}
        return self.request("POST", path, body, headers)

    def vamp(self, audio, params=None, accept=None):
        parts = [("audio", audio)]
        if params is not None:
            parts.append(("params", json.dumps(params).encode()))
        return self.form("/v1/vamp", *parts, accept=accept)

    def post(self, path, value, accept=None):
        body = value if isinstance(value, bytes) else json.dumps(value).encode()
        headers = {"Content-Type": "application/json", **({"Accept": accept} if accept else {})}
        return self.request("POST", path, body, headers)

    def get(self, path, **headers):
        """get(path, if_none_match=...): header lines by name."""
        return self.request("GET", path, headers={name.replace("_", "-"): value for name, value in headers.items()})

    @property
    def address(self):
        return f"http://127.0.0.1:{self.port}"

    # ---- jobs

    def post_jobs(self, audio, params=None):
        """audio: one clip or a list of them."""
        clips = audio if isinstance(audio, list) else [audio]
        parts = [("audio", clip) for clip in clips]
        if params is not None:
            parts.append(("params", json.dumps(params).encode()))
        return self.form("/v1/jobs", *parts)

    def submit(self, audio, params=None):
        """-> the jobs that were accepted."""
        answer = self.post_jobs(audio, params)
        assert answer.status == 202, answer.body
        jobs = answer.json()["jobs"]
        assert answer.headers["Location"] == jobs[0]["links"]["self"] == "/v1/jobs/" + jobs[0]["id"]
        return jobs

    def job(self, identifier):
        answer = self.get(f"/v1/jobs/{identifier}")
        assert answer.status == 200, answer.body
        return answer.json()

    def wait_for(self, identifier, *states, seconds=60):
        """Asks after a job until its state is one of these, or any in which it is finished."""
        deadline = time.monotonic() + seconds
        while True:
            job = self.job(identifier)
            if job["state"] in (states or FINISHED):
                return job
            assert job["state"] not in FINISHED, job
            assert time.monotonic() < deadline, job
            time.sleep(0.01)

    def done(self, *jobs):
        """Waits for jobs, which must all be done -> their audio."""
        audio = []
        for job in jobs:
            job = self.wait_for(job["id"])
            assert job["state"] == "done", job
            audio.append(self.get(job["links"]["audio"]).body)
        return audio

    def submit_sweep(self, audio, params):
        return self.form("/v1/sweeps", ("audio", audio), ("params", json.dumps(params).encode()))

    def wait_for_sweep(self, identifier, seconds=60):
        deadline = time.monotonic() + seconds
        while True:
            sweep = self.get(f"/v1/sweeps/{identifier}").json()
            if not sweep["states"]["queued"] + sweep["states"]["running"]:
                return sweep
            assert time.monotonic() < deadline, sweep["states"]
            time.sleep(0.02)

    # ---- everything else

    def socket(self):
        return socket.create_connection(("127.0.0.1", self.port), timeout=60)

    def jobs(self):
        return self.request("GET", "/readyz").json()["jobs"]

    def wait_for_jobs(self, count, seconds=30):
        deadline = time.monotonic() + seconds
        while self.jobs() != count:
            assert time.monotonic() < deadline, f"never {count} jobs in the house"
            time.sleep(0.01)

    def stop(self, number=signal.SIGTERM):
        """-> the exit code. One that is stopped or killed already stays so."""
        if self not in self.running:
            return 0
        if self.process.poll() is None:
            self.process.send_signal(number)
        try:
            code = self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise
        self.clean_up()
        return code

    def kill(self):
        """kill -9."""
        self.process.kill()
        self.process.wait(60)
        self.clean_up()

    def clean_up(self):
        self.running.remove(self)
        self.reader.join(10)
        if self.folder:
            shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self):
        return self

    def __exit__(self, kind, value, trace):
        if kind and self.process.poll() is None:
            self.process.kill()  # the test has failed: no need to be patient
        code = self.stop()
        if kind is None:
            assert code == 0, f"exit code {code}:\n" + "".join(self.log)


def make_wav(seconds=1.0, rate=44100, channels=1, seed=0):
    """A melody of decaying sines with a little noise, 16 bit; the same seed, the same bytes."""
    draw = numpy.random.RandomState(seed)
    time_of = numpy.arange(int(seconds * rate)) / rate
    notes = 110 * 2 ** (draw.randint(0, 36, int(seconds * 4) + 1) / 12)
    tone = numpy.sin(2 * numpy.pi * notes[(time_of * 4).astype(int)] * time_of) * numpy.exp(-(time_of % 0.25) * 8)
    samples = (32767 * (0.4 * tone + draw.uniform(-0.01, 0.01, len(tone)))).astype("<i2")
    file = io.BytesIO()
    with wave.open(file, "wb") as out:
        out.setnchannels(channels)
        out.setsampwidth(2)
        out.setframerate(rate)
        out.writeframes(numpy.repeat(samples, channels).tobytes())
    return file.getvalue()
