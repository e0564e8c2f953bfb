"""Bugs that a reader of the daemon's code has found: each of these failed before."""
import hashlib
import json

import pytest

from harness import make_wav
from test_access import as_key, write_keys
from test_errors import problem
from test_events import Stream

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
