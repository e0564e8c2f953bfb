"""The daemon as a service: many clients, a full queue, clients that vanish or dawdle, starting and stopping."""
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import threading
import time

import pytest

from harness import ROOT, VAMPD, encode_form, make_wav


def in_threads(calls):
    results = [None] * len(calls)

    def run(index):
        results[index] = calls[index]()
    threads = [threading.Thread(target=run, args=(index,)) for index in range(len(calls))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


def post_of(audio, params):
    """The bytes of a whole request, for tests that hold the socket themselves."""
    body, content_type = encode_form([("audio", audio), ("params", json.dumps(params).encode())])
    head = (f"POST /v1/vamp HTTP/1.1\r\nHost: localhost\r\nContent-Type: {content_type}\r\n"
            f"Content-Length: {len(body)}\r\n\r\n")
    return head.encode() + body


# ---- many at once ----------------------------------------------------------------------------------------------


def test_eight_at_once_get_what_each_gets_alone(daemon):
    """Different clips, lengths, masks, seeds and steps, in one batch: the same bytes as alone."""
    presets = ["subtle", "balanced", "creative", "texture", "vampnet/small", "vampnet/large", "rhythm", "vampnet/remix"]
    requests = [(make_wav(0.4 + 0.2 * i, seed=i),
                 {"preset": presets[i], "seed": i, "sampling": {"coarse_steps": 4 + i, "temperature": 0.8 + 0.1 * i}})
                for i in range(8)]
    alone = [daemon.vamp(*request).body for request in requests]
    together = in_threads([lambda request=request: daemon.vamp(*request) for request in requests])
    assert all(answer.status == 200 for answer in together)
    assert [answer.body for answer in together] == alone
    assert len(set(alone)) == 8


def test_many_small_requests(daemon):
    def masks(number):
        def call():
            return [daemon.post("/v1/masks", {"frames": 50 + number, "seed": number}).json() for _ in range(5)]
        return call
    for number, documents in enumerate(in_threads([masks(number) for number in range(32)])):
        assert all(document["passes"][0]["frames"] == 50 + number for document in documents)
        assert all(document == documents[0] for document in documents)


# ---- a full queue ----------------------------------------------------------------------------------------------


def test_full_queue(start, long_job, clip):
    with start("--max-queue", "2", "--workers", "1") as daemon:
        with daemon.socket() as first, daemon.socket() as second:
            for connection in (first, second):
                connection.sendall(post_of(*long_job(60)))
            daemon.wait_for_jobs(2)
            for answer in (daemon.vamp(clip), daemon.post("/v1/masks", {"frames": 10})):
                assert answer.status == 429 and answer.json()["type"] == "/problems/queue-full"
                assert int(answer.headers["Retry-After"]) >= 1
            assert daemon.request("GET", "/healthz").status == 200
        daemon.wait_for_jobs(0)
        assert daemon.vamp(clip).status == 200


def test_bodies_have_a_budget_together(start):
    """With a limit of 1 MiB for one body, all bodies together may hold 8: the ninth is told to come later."""
    head = (b"POST /v1/vamp HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 1048576\r\n\r\n")
    with start("--max-body-mb", "1") as daemon:
        held = [daemon.socket() for _ in range(9)]
        answers = []
        for connection in held:
            connection.sendall(head + b" " * 1048575)
        time.sleep(0.5)
        for connection in held:
            connection.sendall(b" ")
            answers.append(connection.recv(65536).split(b"\r\n", 1)[0])
            connection.close()
        assert sum(answer.startswith(b"HTTP/1.1 429") for answer in answers) >= 1
        assert sum(answer.startswith(b"HTTP/1.1 400") for answer in answers) >= 7
        daemon.wait_for_jobs(0)


# ---- clients that are gone or slow -----------------------------------------------------------------------------


def test_vanishing_client_cancels_its_job(daemon, long_job):
    connection = daemon.socket()
    connection.sendall(post_of(*long_job(60)))
    daemon.wait_for_jobs(1)
    connection.close()
    started = time.monotonic()
    daemon.wait_for_jobs(0)
    assert time.monotonic() - started < 10
    assert any("abandoned" in line for line in daemon.log)


def test_vanishing_clients_do_not_disturb_others(daemon, long_job, clip):
    params = {"seed": 4, "sampling": {"coarse_steps": 20}}
    alone = daemon.vamp(clip, params).body
    connections = [daemon.socket() for _ in range(4)]
    for connection in connections:
        connection.sendall(post_of(*long_job(60)))
    daemon.wait_for_jobs(4)

    def vanish():
        for connection in connections:
            time.sleep(0.05)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")  # a reset
            connection.close()
    answers = in_threads([vanish] + [lambda: daemon.vamp(clip, params)] * 3)[1:]
    assert [answer.body for answer in answers] == [alone] * 3
    daemon.wait_for_jobs(0)


def test_client_that_vanishes_while_sending(daemon, clip):
    for cut in (10, 100, 400, 30000):
        with daemon.socket() as connection:
            connection.sendall(post_of(clip, {})[:cut])
    daemon.wait_for_jobs(0)
    assert daemon.vamp(clip).status == 200


def test_slow_senders_are_cut(start):
    """One sends its header lines a byte at a time, one its body: neither is silent long enough for a plain
    time-out, and both are ended."""
    with start("--timeout", "1") as daemon:
        header, body = daemon.socket(), daemon.socket()
        body.sendall(b"POST /v1/vamp HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
                     b"Content-Length: 1000\r\n\r\n")
        started, ended = time.monotonic(), {}
        while len(ended) < 2:
            assert time.monotonic() - started < 15, "a slow sender was never cut off"
            for name, connection in (("header", header), ("body", body)):
                try:
                    connection.sendall(b"G" if name == "header" else b" ")
                    connection.settimeout(0.05)
                    if name not in ended and connection.recv(1) == b"":
                        ended[name] = True
                except TimeoutError:
                    pass
                except ConnectionError:
                    ended[name] = True
            time.sleep(0.2)
        assert daemon.request("GET", "/healthz").status == 200


def test_silent_connections_are_closed(start):
    with start("--timeout", "1", "--max-connections", "8") as daemon:
        silent = [daemon.socket() for _ in range(8)]
        time.sleep(4)
        assert daemon.request("GET", "/healthz").status == 200
        for connection in silent:
            connection.close()


def test_slow_reader_does_not_stop_others(daemon, clip):
    with daemon.socket() as slow:
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        slow.sendall(post_of(make_wav(8), {"seed": 1}))
        assert slow.recv(10) == b"HTTP/1.1 2"
        assert daemon.vamp(clip).status == 200


# ---- starting --------------------------------------------------------------------------------------------------


def run(*flags):
    return subprocess.run([VAMPD, *flags], capture_output=True, text=True, timeout=60, cwd=ROOT)


def test_help_and_version():
    assert run("--version").stdout.startswith("vampd ")
    text = run("--help")
    assert text.returncode == 0 and len(text.stdout.splitlines()) <= 48


@pytest.mark.parametrize("flags,said", [
    (["--port", "99999"], "--port"), (["--frobnicate"], "--frobnicate"), (["--max-queue"], "--max-queue"),
    (["--backend", "abacus"], "--backend"), (["--host"], "--host"),
])
def test_wrong_flags(flags, said):
    result = run(*flags)
    assert result.returncode == 2 and said in result.stderr and result.stdout == ""


def test_missing_model(tmp_path):
    result = run("--model", str(tmp_path / "nothing"), "--port", "0")
    assert result.returncode == 1 and "nothing" in result.stderr


def test_broken_weights(model, tmp_path):
    broken = tmp_path / "broken"
    shutil.copytree(model, broken)
    with open(broken / "coarse.safetensors", "r+b") as file:
        file.truncate(1000)
    result = run("--model", str(broken), "--port", "0")
    assert result.returncode == 1 and "coarse.safetensors" in result.stderr
    assert "listening" not in result.stderr


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.1.2.3", "example.org", ""])
def test_refuses_what_is_not_loopback(model, host):
    result = run("--model", model, "--port", "0", "--host", host)
    assert result.returncode in (1, 2) and "listening" not in result.stderr and "--" in result.stderr


def test_port_in_use(daemon, model):
    result = run("--model", model, "--port", str(daemon.port))
    assert result.returncode == 1 and str(daemon.port) in result.stderr


def test_data_folder(start, model):
    with start() as daemon:
        folder = os.path.join(daemon.folder, "data")
        with open(os.path.join(folder, "vampd.port"), encoding="ascii") as file:
            assert int(file.read()) == daemon.port
        result = run("--model", model, "--port", "0", "--data-dir", folder)
        assert result.returncode == 1 and folder in result.stderr


def test_log_has_a_line_for_each_request(daemon):
    answer = daemon.request("GET", "/v1/models")
    name = answer.headers["Vampd-Request-Id"]
    deadline = time.monotonic() + 5
    while not any(name in line for line in daemon.log):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    (line,) = [line for line in daemon.log if name in line]
    assert re.search(r"method=GET path=/v1/models status=200 in=0 out=\d+ seconds=", line)


# ---- stopping --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_stop_when_idle(start, number):
    daemon = start()
    started = time.monotonic()
    assert daemon.stop(number) == 0
    assert time.monotonic() - started < 5


def test_stop_finishes_running_jobs(start, long_job):
    audio, params = long_job(1.5)
    with start() as daemon:
        alone = daemon.vamp(audio, params).body
    daemon = start("--grace", "200")
    answers = []
    client = threading.Thread(target=lambda: answers.append(daemon.vamp(audio, params)))
    client.start()
    daemon.wait_for_jobs(1)
    daemon.process.send_signal(signal.SIGTERM)
    time.sleep(0.2)
    refused = daemon.vamp(audio, params)
    assert refused.status == 503 and refused.json()["type"] == "/problems/stopping"
    assert refused.headers["Connection"] == "close" and "Retry-After" in refused.headers
    assert daemon.request("GET", "/readyz").status == 503
    assert daemon.request("GET", "/healthz").status == 200
    client.join()
    assert answers[0].status == 200 and answers[0].body == alone
    assert daemon.stop() == 0


def test_stop_cancels_after_the_grace_period(start, long_job):
    daemon = start("--grace", "1")
    answers = []
    client = threading.Thread(target=lambda: answers.append(daemon.vamp(*long_job(120))))
    client.start()
    daemon.wait_for_jobs(1)
    started = time.monotonic()
    assert daemon.stop() == 0
    assert 0.9 < time.monotonic() - started < 15
    client.join()
    assert answers[0].status == 503 and answers[0].json()["type"] == "/problems/stopping"


def test_stop_while_clients_hang_on(start):
    """Idle and half-sent connections do not hold the daemon up."""
    daemon = start()
    idle, half = daemon.socket(), daemon.socket()
    half.sendall(b"POST /v1/vamp HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 50\r\n\r\n{")
    started = time.monotonic()
    time.sleep(0.2)
    assert daemon.stop() == 0
    assert time.monotonic() - started < 15
    idle.close()
    half.close()


def test_stop_under_load(start, clip):
    """Whoever was let in gets a whole answer; whoever was not gets a 503, or finds the door closed."""
    daemon = start("--workers", "2")
    statuses, stopping = [], threading.Event()

    def client():
        while not stopping.is_set() or daemon.process.poll() is None:
            try:
                statuses.append(daemon.vamp(clip, {"sampling": {"coarse_steps": 2}}).status)
            except (ConnectionError, TimeoutError):
                if not stopping.is_set():
                    raise
    clients = [threading.Thread(target=client) for _ in range(6)]
    for thread in clients:
        thread.start()
    time.sleep(1)
    stopping.set()
    assert daemon.stop() == 0
    for thread in clients:
        thread.join()
    assert set(statuses) <= {200, 503} and statuses.count(200) > 0
