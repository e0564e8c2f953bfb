"""What was accepted is done, whatever happens to the daemon meanwhile: kills in every state, a graceful stop, and some
random kills (kills.py does two hundred)."""
import contextlib
import io
import os
import signal
import sqlite3
import time
import zipfile

import pytest

import kills
import tiny_model
from harness import FINISHED, Daemon, make_wav
from test_errors import problem
from test_events import Stream

# Long enough for a kill to hit each stage of it.
CLIP_SECONDS = 8
PARAMS = {"seed": 100, "mask": {"mask_ratio": 0.9, "upper_codebook_mask": 4}, "sampling": {"coarse_steps": 40}}


@pytest.fixture(scope="module")
def long_clip():
    return make_wav(CLIP_SECONDS, seed=5)


@pytest.fixture(scope="module")
def expected(daemon, long_clip):
    """What an undisturbed daemon makes of it."""
    return daemon.done(*daemon.submit(long_clip, PARAMS))[0]


def wait_for_files(daemon):
    """Until a file of a result is being written."""
    deadline = time.monotonic() + 60
    while not any(name.startswith("new.") for name in os.listdir(os.path.join(daemon.data, "jobs"))):
        assert time.monotonic() < deadline, "no file was written"


@pytest.mark.parametrize("state", ["queued", "preparing", "encoding", "generating", "decoding", "finishing"])
def test_kill_in_each_state(start, tmp_path, long_clip, expected, state):
    daemon = start(data=tmp_path / "data")
    if state == "queued":
        *before, job = daemon.submit(long_clip, {**PARAMS, "seed": PARAMS["seed"] - 63, "variations": 64})
        assert daemon.job(job["id"])["state"] == "queued"
    else:
        (job,) = daemon.submit(long_clip, PARAMS)
    if state == "finishing":
        wait_for_files(daemon)
    elif state != "queued":
        for _, _, data in Stream(daemon, job["id"]):
            if data["state"] == state:
                break
            assert data["state"] not in FINISHED, f"was never seen {state}"
    daemon.kill()
    kills.check_database(daemon.data)
    with start(data=tmp_path / "data") as daemon:
        if state == "queued":
            for other in before:
                assert daemon.request("DELETE", other["links"]["self"]).status == 202
        assert daemon.done(job) == [expected]
        again = daemon.job(job["id"])
        assert again["number"] == job["number"] and again["created"] == job["created"]
        assert again["attempts"] == (1 if state == "queued" else 2)
        events = list(Stream(daemon, job["id"]))
        assert events[-1][1] == "done"


@pytest.mark.parametrize("attempts, state", [(4, "done"), (100, "failed")])
def test_who_may_have_ended_the_daemon_waits(start, tmp_path, clip, long_clip, attempts, state):
    """A job begun again and again came first at every start, up to a thousand times: nobody else got a turn."""
    daemon = start(data=tmp_path / "data")
    (job,) = daemon.submit(long_clip, PARAMS)
    daemon.kill()
    with contextlib.closing(sqlite3.connect(tmp_path / "data" / "vampd.db")) as store, store:
        store.execute("UPDATE jobs SET attempts = ?", (attempts,))
    began = time.monotonic()
    with start(data=tmp_path / "data") as daemon:
        if state == "done":
            daemon.done(*daemon.submit(clip, {"seed": 2}))
            waiting = daemon.job(job["id"])
            assert waiting["state"] == "queued" and waiting["attempts"] == attempts
        found = daemon.wait_for(job["id"])
        assert found["state"] == state and found["attempts"] == attempts + 1
        assert state == "failed" or time.monotonic() - began >= 2


def test_events_go_on_after_a_kill(start, tmp_path, long_clip, expected):
    """Last-Event-ID of the daemon that was killed means something to the next one."""
    daemon = start(data=tmp_path / "data")
    (job,) = daemon.submit(long_clip, PARAMS)
    for identifier, name, data in Stream(daemon, job["id"]):
        if name == "progress" and data["state"] == "generating":
            break
    daemon.kill()
    with start(data=tmp_path / "data") as daemon:
        stream = Stream(daemon, job["id"], identifier)
        assert stream.response.status == 200
        events = list(stream)
        assert events[-1][1] == "done"
        assert daemon.done(job) == [expected]


def test_finished_jobs_and_sweeps_are_still_there(start, tmp_path, clip):
    daemon = start(data=tmp_path / "data")
    jobs = daemon.submit(clip, {"seed": 1, "variations": 2, "sampling": {"coarse_steps": 2}})
    before = daemon.done(*jobs)
    made = daemon.submit_sweep(clip, {"seed": 2, "grid": {"preset": ["subtle", "creative"]}}).json()
    sweep = daemon.wait_for_sweep(made["id"])
    archive = daemon.get(sweep["links"]["archive"]).body
    described = [daemon.job(job["id"]) for job in jobs]
    daemon.kill()
    with start(data=tmp_path / "data") as daemon:
        assert [daemon.job(job["id"]) for job in jobs] == described
        assert daemon.done(*jobs) == before
        assert daemon.get(sweep["links"]["self"]).json() == sweep
        assert daemon.get(sweep["links"]["archive"]).body == archive


def test_another_model(start, tmp_path, monkeypatch):
    """All that a job has left is there when another model is loaded, of another shape even, and what has not been asked
    for before is drawn as it would have been."""
    clip = make_wav(2.0)
    params = {"seed": 3, "mask": {"passes": [{"pattern": "onset"}, {"mask_ratio": 0.7, "upper_codebook_mask": 4}]},
              "sampling": {"coarse_steps": 3, "top_k": 1000}}
    pictures = ("mask_png", "mask_svg")
    with start(data=tmp_path / "data") as daemon:
        drawn, later = daemon.submit(clip, {**params, "variations": 1}) + daemon.submit(clip, params)
        daemon.done(drawn, later)
        links = [daemon.job(job["id"])["links"] for job in (drawn, later)]
        expected = [daemon.get(links[0][name]).body for name in pictures]
        sweep = daemon.submit_sweep(clip, {**params, "grid": {"seed": [3]}}).json()
        daemon.wait_for_sweep(sweep["id"])
        left = daemon.submit(*[clip, {**params, "sampling": {"coarse_steps": 200}}])[0]
        daemon.kill()
    monkeypatch.setattr(tiny_model, "CODEBOOKS", 9)
    monkeypatch.setattr(tiny_model, "ENTRIES", 256)
    monkeypatch.setattr(tiny_model, "configuration", lambda made=tiny_model.configuration: {**made(), "name": "other"})
    tiny_model.write(str(tmp_path / "other"))
    with Daemon(str(tmp_path / "other"), data=tmp_path / "data") as daemon:
        assert daemon.get("/v1/models").json()["models"][0]["name"] == "other"
        for found in links:
            assert [daemon.get(found[name]).body for name in pictures] == expected
            assert all(daemon.get(found[name]).status == 200 for name in ("audio", "mask", "tokens", "input"))
        archive = daemon.get(sweep["links"]["archive"])
        assert archive.status == 200
        inside = zipfile.ZipFile(io.BytesIO(archive.body))
        assert inside.read("point-0000.mask.png") == expected[0]
        unfinished = daemon.wait_for(left["id"])  # what needs that model says so
        assert unfinished["state"] in ("failed", "done")
        if unfinished["state"] == "failed":
            assert "tiny" in unfinished["problem"]["detail"]


def test_a_sweep_goes_on(start, tmp_path, clip):
    params = {"seed": 2, "sampling": {"coarse_steps": 30}, "grid": {"mask.mask_ratio": [0.2, 0.4, 0.6, 0.8]}}
    daemon = start(data=tmp_path / "data")
    made = daemon.submit_sweep(make_wav(5), params).json()
    daemon.wait_for(made["points"][0]["job"], "generating", "decoding", "done")
    daemon.kill()
    with start(data=tmp_path / "data") as daemon:
        sweep = daemon.wait_for_sweep(made["id"])
        assert sweep["states"]["done"] == 4 and [point["job"] for point in sweep["points"]] == [
            point["job"] for point in made["points"]]
        audio = daemon.get(f"/v1/jobs/{sweep['points'][2]['job']}/audio").body
        alone = {"seed": 2, "sampling": {"coarse_steps": 30}, "mask": {"mask_ratio": 0.6}}
        assert audio == daemon.vamp(make_wav(5), alone).body


def test_a_graceful_stop_keeps_what_it_does_not_finish(start, tmp_path, long_clip, expected):
    daemon = start("--grace", "0", data=tmp_path / "data")
    jobs = daemon.submit(long_clip, PARAMS) + daemon.submit(long_clip, {**PARAMS, "seed": 9})
    daemon.wait_for(jobs[0]["id"], "generating")
    started = time.monotonic()
    daemon.process.send_signal(signal.SIGTERM)
    assert daemon.stop() == 0 and time.monotonic() - started < 15
    with start(data=tmp_path / "data") as daemon:
        assert daemon.done(*jobs)[0] == expected


def test_new_work_is_refused_while_it_stops(start, long_job, clip):
    """Queued jobs do not hold up the stop; who asks for more is sent away; reading goes on until the end."""
    audio, params = long_job(60)
    daemon = start("--grace", "2")
    (job,) = daemon.submit(audio, params)
    daemon.wait_for(job["id"], "generating")
    daemon.process.send_signal(signal.SIGTERM)
    time.sleep(0.3)
    for answer in (daemon.post_jobs(clip), daemon.submit_sweep(clip, {"grid": {"seed": [1]}})):
        problem(answer, 503, "stopping")
    assert daemon.job(job["id"])["state"] == "generating"
    assert daemon.stop() == 0


def test_a_cancelled_job_stays_cancelled(start, tmp_path, long_job):
    daemon = start(data=tmp_path / "data")
    (job,) = daemon.submit(*long_job(60))
    daemon.wait_for(job["id"], "generating")
    assert daemon.request("DELETE", job["links"]["self"]).status == 202
    daemon.wait_for(job["id"], "cancelled")
    daemon.kill()
    with start(data=tmp_path / "data") as daemon:
        assert daemon.job(job["id"])["state"] == "cancelled"


def test_random_kills(start, tmp_path):
    def make_daemon(folder, wait=True):
        return start("--keep-hours", "0", "--max-jobs-queued", "100000", data=folder, wait=wait)
    ledger = kills.run(make_daemon, make_wav, str(tmp_path / "data"), 8, 1, 1)
    assert ledger.rounds == 8 and ledger.jobs
