"""Bugs that a reader of the daemon's code has found: each of these failed before."""
import hashlib
import json
import threading
import time

import pytest

from harness import make_wav
from test_access import as_key, write_keys
from test_configuration import reload
from test_errors import problem
from test_events import Stream
from test_metrics import scrape, total

LAB = "vk_" + hashlib.sha256(b"review").hexdigest()


def long_mask(bytes_at_least, seconds=1):
    """A mask of bitmaps, as long as a page would send one it has drawn."""
    frames = -(-44100 * seconds // 768)
    bitmap = {"pattern": "bitmap", "codebooks": [0, 14], "data": [[(c + t) % 2 for t in range(frames)] for c in range(14)]}
    count = bytes_at_least // len(json.dumps(bitmap, separators=(",", ":"))) + 1
    return {"any": [bitmap] * count}


def test_the_last_event_of_a_job_with_long_parameters(daemon, clip):
    """It did not fit the stream, so the client was never told and asked again forever."""
    params = {"seed": 1, "mask": long_mask(40 << 10), "sampling": {"coarse_steps": 1, "fine_steps": 1}}
    (job,) = daemon.submit(clip, params)
    stream = Stream(daemon, job["id"])
    *_, (_, name, data) = stream
    stream.close()
    assert name == "done" and data["params"] == {} and data["seed"] == 1
    late = Stream(daemon, job["id"])
    ((_, name, data),) = late
    late.close()
    assert name == "done" and data["params"] == {}
    whole = daemon.job(job["id"])
    assert whole["params"]["mask"] == params["mask"]
    (listed,) = [each for each in daemon.get("/v1/jobs?limit=1").json()["jobs"] if each["id"] == job["id"]]
    assert listed["params"] == {}


def test_parameters_have_a_bound(daemon):
    """They are kept, and copied into every point of a sweep and every job of a list: megabytes became gigabytes."""
    mask = long_mask(300 << 10, seconds=4)
    problem(daemon.post_jobs(make_wav(4.0), {"seed": 1, "mask": mask}), 413, "too-large")
    daemon.wait_for_jobs(0)


@pytest.fixture(scope="module")
def metered(start, tmp_path_factory):
    keys = write_keys(tmp_path_factory.mktemp("keys") / "keys", lab=(LAB, {"audio_seconds_per_hour": 10}))
    with start("--keys", keys, key=LAB) as running:
        yield running


def test_tokens_to_audio_is_counted(metered):
    """The device works for POST /v1/audio as for the others, and nobody counted it."""
    frames = int(4 * 44100 / 768)
    tokens = {"tokens": [[0] * frames] * 14}
    wrong = {"tokens": [[1 << 20] * frames] * 14}
    for _ in range(5):  # what is refused costs nothing
        problem(metered.post("/v1/audio", wrong), 400, "invalid-field", "/tokens")
    assert [metered.post("/v1/audio", tokens).status for _ in range(3)] == [200, 200, 429]
    problem(metered.vamp(make_wav(4.0), {"seed": 1}), 429, "rate-limited")
    assert metered.request("GET", "/v1/models", headers=as_key(LAB)).status == 200


# ---- a public daemon -------------------------------------------------------------------------------------------


def test_a_body_of_any_length_must_keep_its_pace(start):
    """Who announced 60 MB and sent a byte now and then had a connection for a quarter of an hour, without a key."""
    with start("--timeout", "1") as daemon, daemon.socket() as slow:
        slow.sendall(b"POST /v1/vamp HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
                     b"Content-Length: 60000000\r\n\r\n")
        slow.settimeout(0.2)
        deadline = time.monotonic() + 10
        while True:
            assert time.monotonic() < deadline, "a slow sender was never cut off"
            try:
                slow.sendall(b" ")
                if slow.recv(1) == b"":
                    break
            except TimeoutError:
                pass
            except ConnectionError:
                break


def test_as_many_files_as_connections_need(start, clip):
    """The system's usual limit was below what --max-connections promises: then no job found a file to open."""
    limits = ["prlimit", "--nofile=128:4096"]
    with start("--max-connections", "400", "--timeout", "60", prefix=limits) as daemon:
        idle = [daemon.socket() for _ in range(150)]
        (audio,) = daemon.done(*daemon.submit(clip, {"seed": 1}))
        assert audio == daemon.vamp(clip, {"seed": 1}).body
        for connection in idle:
            connection.close()
    with start("--max-connections", "400", prefix=["prlimit", "--nofile=300:300"]) as daemon:
        assert [line for line in daemon.log if "--max-connections" in line and "300" in line]


def test_models_tell_the_limit_that_is_in_force(start, tmp_path):
    config = tmp_path / "vampd.ini"
    config.write_text("max-seconds = 20\n")
    with start("--config", str(config)) as daemon:
        assert daemon.get("/v1/models").json()["models"][0]["max_seconds"] == 20
        config.write_text("max-seconds = 10\n")
        reload(daemon, "reload file=")
        assert daemon.get("/v1/models").json()["models"][0]["max_seconds"] == 10


def test_a_range_of_a_head_is_of_no_matter(daemon, clip):
    """RFC 9110, section 14.2: a range is a matter of GET alone."""
    (job,) = daemon.submit(clip, {"seed": 1})
    daemon.done(job)
    whole = daemon.request("HEAD", f"/v1/jobs/{job['id']}/audio")
    part = daemon.request("HEAD", f"/v1/jobs/{job['id']}/audio", headers={"Range": "bytes=0-9"})
    assert part.status == whole.status == 200
    assert part.headers["Content-Length"] == whole.headers["Content-Length"]


def test_jobs_that_never_began_took_no_time(daemon, long_job):
    """Each that was cancelled in the queue stood as one of 0 s among the generations."""
    audio, params = long_job(60)
    _, before = scrape(daemon)
    made = daemon.submit_sweep(audio, {**params, "grid": {"seed": list(range(40))}}).json()
    daemon.wait_for(made["points"][0]["job"], "generating")
    assert daemon.request("DELETE", made["links"]["self"]).status == 202
    assert daemon.wait_for_sweep(made["id"])["states"]["cancelled"] == 40
    _, after = scrape(daemon)

    def grown(name, **labels):
        return total(after, name, **labels) - total(before, name, **labels)
    assert grown("vampd_jobs_total", state="cancelled") == 40
    assert grown("vampd_job_seconds_bucket", le="0.001") == 0


def test_a_sweep_is_cancelled_whole_or_not_yet(start, tmp_path):
    """While a daemon takes up what an earlier one has left, a sweep's jobs enter the queue one after the other. To
    cancel it then was answered with 202, cancelled those that were there, and all others were generated."""
    data, points = tmp_path / "data", 4000
    params = {"sampling": {"coarse_steps": 256}, "mask": long_mask(2000), "grid": {"seed": list(range(points))}}
    with start(data=data) as daemon:
        made = daemon.submit_sweep(make_wav(1.0), params).json()
        daemon.kill()
    (data / "vampd.port").unlink(missing_ok=True)
    daemon = start(data=data, wait=False)
    while not (data / "vampd.port").exists():
        time.sleep(0.001)
    with daemon:
        daemon.port = int((data / "vampd.port").read_text())
        early = daemon.request("DELETE", made["links"]["self"], check=False)
        assert early.status in (202, 409), early.body
        daemon.wait()
        if early.status == 409:
            problem(early, 409, "not-finished")
            assert daemon.request("DELETE", made["links"]["self"]).status == 202
        states = daemon.wait_for_sweep(made["id"])["states"]
        assert states["cancelled"] >= points - 300, (early.status, states)


def test_long_encodings_keep_nobody_waiting(start):
    """To ask for two long results in another format kept everybody from asking after his jobs meanwhile."""
    with start("--max-seconds", "700", "--max-body-mb", "128") as daemon:
        (job,) = daemon.submit(make_wav(300.0), {"seed": 1, "sampling": {"coarse_steps": 1, "fine_steps": 1}})
        daemon.done(job)
        began = time.monotonic()
        askers = [threading.Thread(target=daemon.get, args=(f"/v1/jobs/{job['id']}/audio?format={name}",))
                  for name in ("ogg", "ogg")]
        for asker in askers:
            asker.start()
        time.sleep(0.1)
        assert daemon.job(job["id"])["state"] == "done"
        answered = time.monotonic() - began - 0.1
        for asker in askers:
            asker.join()
        took = time.monotonic() - began
        assert answered < max(0.3, took / 3), f"answered after {answered:.2f} s, the encoding took {took:.2f} s"


def test_a_page_of_long_parameters_is_short(start):
    """A thousand bitmaps were read and parsed for one page, and for half a minute nobody else was answered."""
    params = {"mask": long_mask(90 << 10), "variations": 40}
    with start("--grace", "0") as daemon:
        made = {job["id"] for job in daemon.submit(make_wav(1.0), params)}
        listed, path, pages = [], "/v1/jobs?limit=1000", 0
        while path:
            page = daemon.get(path).json()
            listed += [job["id"] for job in page["jobs"]]
            path, pages = page.get("next"), pages + 1
            assert len(page["jobs"]) <= 25
        assert len(listed) == 40 and set(listed) == made and pages > 1


@pytest.mark.parametrize("lengths", ["Content-Length: 4\r\nTransfer-Encoding: chunked", "Content-Length: 4\r\nContent-Length: 5"])
def test_a_body_of_two_lengths_is_the_last(daemon, lengths):
    """A proxy may have believed the one and the daemon the other; what followed was taken for a request."""
    with daemon.socket() as connection:
        connection.sendall(b"POST /v1/masks HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
                           + lengths.encode() + b"\r\n\r\n0\r\n\r\nGET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        connection.settimeout(20)
        answer = b""
        try:
            while piece := connection.recv(4096):
                answer += piece
        except ConnectionResetError:
            pass
        assert answer.startswith(b"HTTP/1.1 400") and b"invalid-body" in answer and answer.count(b"HTTP/1.1") == 1
