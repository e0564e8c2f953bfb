"""GET /v1/jobs/ID/events: server-sent events, and their resumption."""
import http.client
import json
import socket
import threading
import time

import pytest

import contract
from harness import FINISHED


class Stream:
    """An open event stream. Events are (id, name, data); `comments` counts lines that say only that it lives."""

    def __init__(self, daemon, identifier, last=None, query=False):
        path = f"/v1/jobs/{identifier}/events" + (f"?last_event_id={last}" if last and query else "")
        self.daemon, self.comments, self.retry = daemon, 0, None
        self.connection = daemon.connect()
        headers = {"Last-Event-ID": last} if last and not query else {}
        if daemon.key:
            headers["Authorization"] = f"Bearer {daemon.key}"
        self.connection.request("GET", path, headers=headers)
        self.response = self.connection.getresponse()
        assert self.response.status in (200, 204), self.response.read()
        operation, _ = contract.find_operation(daemon.document, "GET", f"/v1/jobs/{identifier}/events")
        self.schemas = operation["responses"]["200"]["content"]["text/event-stream"]["x-events"]
        if self.response.status == 200:
            assert self.response.headers["Content-Type"].startswith("text/event-stream")
            assert self.response.headers["Vampd-Request-Id"]

    def __iter__(self):
        fields = {}
        for line in self.response:
            line = line.decode().rstrip("\n")
            name, _, value = line.partition(": ")
            if line.startswith(":"):
                self.comments += 1
            elif line == "" and "data" in fields:
                data = json.loads(fields["data"])
                contract.check(self.daemon.document, self.schemas[fields["event"]], data)
                yield fields["id"], fields["event"], data
                fields = {}
            elif name == "retry":
                self.retry = int(value)
            elif line:
                assert name in ("id", "event", "data"), line
                fields[name] = value

    def close(self):
        self.connection.close()

    def vanish(self):
        self.connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
        self.close()


def test_a_whole_stream(daemon, long_job):
    (job,) = daemon.submit(*long_job(1))
    stream = Stream(daemon, job["id"])
    events = list(stream)
    identifiers = [event[0] for event in events]
    assert stream.retry == 2000 and len(set(identifiers)) == len(identifiers)
    names = [event[1] for event in events]
    assert names[-1] == "done" and not set(names[:-1]) & set(FINISHED)
    assert events[-1][2] == daemon.job(job["id"])
    states = [event[2]["state"] for event in events]
    order = ["queued", "preparing", "encoding", "generating", "decoding", "done"]
    assert [order.index(state) for state in states] == sorted(order.index(state) for state in states)
    assert "generating" in states
    progress = [event[2]["progress"] for event in events if event[1] == "progress"]
    assert progress == sorted(progress) and len(progress) > 3 and all(0 <= share <= 1 for share in progress)
    steps = [event[2] for event in events if event[2]["state"] == "generating" and "steps" in event[2]]
    assert len(steps) > 3 and all(0 <= data["step"] <= data["steps"] for data in steps)
    # Within a stage ever more tokens are fixed; with the next stage or pass it begins anew.
    assert all(b["committed"] >= a["committed"] or b["step"] < a["step"] or b["steps"] != a["steps"]
               for a, b in zip(steps, steps[1:]))
    assert max(data["committed"] for data in steps) > 0.5


def test_of_a_finished_job(daemon, clip):
    (job,) = daemon.submit(clip, {"seed": 1})
    daemon.wait_for(job["id"])
    events = list(Stream(daemon, job["id"]))
    assert events[-1][1] == "done" and events[-1][2]["id"] == job["id"]
    last = events[-1][0]
    for query in (False, True):
        stream = Stream(daemon, job["id"], last, query)
        assert stream.response.status == 204 and stream.response.read() == b""


@pytest.mark.parametrize("query", [False, True])
def test_resume(daemon, long_job, query):
    """A client whose connection breaks after every second event sees each later event once, and the end."""
    (job,) = daemon.submit(*long_job(2))
    seen, last = [], None
    while not seen or seen[-1][1] not in FINISHED:
        stream = Stream(daemon, job["id"], last, query)
        assert stream.response.status == 200
        for event, _ in zip(stream, range(2)):
            seen.append(event)
        last = seen[-1][0]
        stream.vanish()
    identifiers = [event[0] for event in seen]
    assert len(set(identifiers)) == len(identifiers) and seen[-1][1] == "done"
    progress = [event[2]["progress"] for event in seen if event[1] == "progress"]
    assert progress == sorted(progress)


def test_several_listeners_hear_the_same(daemon, long_job):
    (job,) = daemon.submit(*long_job(1))
    heard = [None] * 4

    def listen(index):
        heard[index] = list(Stream(daemon, job["id"]))
    threads = [threading.Thread(target=listen, args=(index,)) for index in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(events[-1][1] == "done" for events in heard)
    assert all(events[-1] == heard[0][-1] for events in heard)


def test_cancelled(daemon, long_job):
    (job,) = daemon.submit(*long_job(60))
    stream = Stream(daemon, job["id"])
    for event in stream:
        if event[2]["state"] == "generating":
            break
    assert daemon.request("DELETE", job["links"]["self"]).status == 202
    events = list(stream)
    assert events[-1][1] == "cancelled" and events[-1][2]["state"] == "cancelled"


def test_a_listener_that_vanishes_cancels_nothing(daemon, clip):
    params = {"seed": 3, "sampling": {"coarse_steps": 100}}
    (job,) = daemon.submit(clip, params)
    for _ in range(5):
        stream = Stream(daemon, job["id"])
        next(iter(stream), None)
        stream.vanish()
    assert daemon.done(job) == [daemon.vamp(clip, params).body]


def test_a_listener_that_does_not_read_stops_nobody(daemon, long_job, clip):
    (job,) = daemon.submit(*long_job(2))
    with daemon.socket() as deaf:
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        deaf.sendall(f"GET /v1/jobs/{job['id']}/events HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        assert daemon.vamp(clip, {"seed": 1}).status == 200
        assert daemon.wait_for(job["id"])["state"] == "done"


def test_many_idle_listeners(start, long_job):
    """They cost a connection each, and no thread."""
    with start("--max-connections", "100") as daemon:
        (job,) = daemon.submit(*long_job(60))
        streams = [Stream(daemon, job["id"]) for _ in range(60)]
        iterators = [iter(stream) for stream in streams]
        assert all(next(iterator) for iterator in iterators)
        with open(f"/proc/{daemon.process.pid}/status", encoding="ascii") as file:
            threads = int(next(line for line in file if line.startswith("Threads:")).split()[1])
        assert threads < 40
        assert daemon.request("DELETE", job["links"]["self"]).status == 202
        for iterator in iterators:
            assert list(iterator)[-1][1] == "cancelled"


def test_the_stream_ends_when_the_daemon_stops(start, long_job):
    daemon = start("--grace", "0")
    (job,) = daemon.submit(*long_job(60))
    stream = Stream(daemon, job["id"])
    iterator = iter(stream)
    next(iterator)
    started = time.monotonic()
    stopper = threading.Thread(target=lambda: daemon.process.terminate())
    stopper.start()
    try:
        events = list(iterator)
        assert not events or events[-1][1] not in ("done", "failed")
    except (ConnectionError, http.client.HTTPException):
        pass
    stopper.join()
    assert daemon.stop() == 0 and time.monotonic() - started < 15


def test_unknown_ids(daemon, clip):
    """Whatever a client believes to have seen, it is told the end."""
    (job,) = daemon.submit(clip, {"seed": 1})
    daemon.wait_for(job["id"])
    for text in ("no-such-event", "x" * 500, "-1", "0"):
        assert list(Stream(daemon, job["id"], text, True))[-1][1] == "done"
    assert Stream(daemon, job["id"], "9" * 40).response.status in (200, 204)
