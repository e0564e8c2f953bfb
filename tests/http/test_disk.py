"""A full disk, a bound on what is stored, and how long finished jobs are kept."""
import io
import os
import signal
import sqlite3
import subprocess
import time
import zipfile

import pytest

from harness import make_wav
from test_errors import problem

TMPFS_MB = 24


@pytest.fixture
def small_disk(tmp_path):
    """A file system of its own, of 24 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={TMPFS_MB}m", "tmpfs", str(folder)],
                             capture_output=True, text=True)
    if mounted.returncode != 0:
        pytest.skip("a small tmpfs cannot be mounted here (it takes root): " + mounted.stderr.strip())
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(folder, leave=0):
    """Takes what is left on the disk, but for so many bytes."""
    path = folder / "filler"
    with open(path, "wb") as file:
        try:
            while True:
                file.write(bytes(65536))
                file.flush()
        except OSError:
            pass
    if leave:
        os.truncate(path, max(0, path.stat().st_size - leave))
    return path


def test_full_disk(start, small_disk, clip):
    flags = ("--min-free-mb", "0", "--keep-hours", "0")
    with start(*flags, data=small_disk / "data") as daemon:
        jobs = daemon.submit(clip, {"seed": 1, "variations": 2})
        audio = daemon.done(*jobs)
        filler = fill(small_disk)
        for _ in range(3):
            problem(daemon.post_jobs(make_wav(4), {"seed": 1}), 507, "disk-full")
        problem(daemon.submit_sweep(clip, {"grid": {"seed": [1, 2]}}), 507, "disk-full")
        # Everything that was there is still served, also in formats that nobody has asked for before.
        assert daemon.done(*jobs) == audio
        assert daemon.get(f"/v1/jobs/{jobs[0]['id']}/audio?format=flac").body.startswith(b"fLaC")
        assert daemon.get(f"/v1/jobs/{jobs[0]['id']}/mask.png").status == 200
        assert len(daemon.get("/v1/jobs").json()["jobs"]) == 2
        assert daemon.request("GET", "/healthz").status == 200 and daemon.get("/metrics").status == 200
        assert daemon.vamp(clip, {"seed": 1}).status in (200, 507)
        # Forgetting works, and room makes the daemon take work again.
        assert daemon.request("DELETE", jobs[1]["links"]["self"]).status == 204
        filler.unlink()
        assert daemon.done(*daemon.submit(clip, {"seed": 1})) == audio[:1]


def test_a_disk_that_fills_while_a_job_runs(start, small_disk, long_job):
    """The daemon lives, and the job waits until there is room for its result; so it does in the next daemon."""
    audio, params = long_job(1)
    flags = "--min-free-mb", "0"
    daemon = start(*flags, data=small_disk / "data")
    (job,) = daemon.submit(audio, params)
    daemon.wait_for(job["id"], "generating")
    filler = fill(small_disk)
    deadline = time.monotonic() + 30
    while daemon.job(job["id"])["state"] != "queued":
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert daemon.request("GET", "/healthz").status == 200
    daemon.kill()
    filler.unlink()
    with start(*flags, data=small_disk / "data") as daemon:
        assert daemon.done(job) == [daemon.vamp(audio, params).body]


def test_starting_on_a_full_disk(start, small_disk, clip):
    with start("--min-free-mb", "0", data=small_disk / "data") as daemon:
        (job,) = daemon.submit(clip, {"seed": 1})
        audio = daemon.done(job)
        fill(small_disk)
        daemon.kill()
        with start("--min-free-mb", "0", data=small_disk / "data") as again:
            assert again.done(job) == audio
            problem(again.post_jobs(make_wav(4)), 507, "disk-full")


def test_room_that_must_stay_free(start, clip):
    """Where the disk has less free than --min-free-mb, nothing is accepted."""
    with start("--min-free-mb", "1000000") as daemon:
        problem(daemon.post_jobs(clip), 507, "disk-full")
        assert daemon.vamp(clip).status in (200, 507)


def test_an_archive_for_which_there_is_no_room(start, tmp_path, clip):
    """Its pictures are made in memory then; the archive itself is not, and the answer says why."""
    config = tmp_path / "vampd.ini"
    config.write_text("min-free-mb = 1\n")
    with start("--config", str(config)) as daemon:
        sweeps = [daemon.submit_sweep(clip, {"grid": {"seed": [1, 2]}}).json() for _ in range(2)]
        for sweep in sweeps:
            daemon.wait_for_sweep(sweep["id"])
        archives = [f"/v1/sweeps/{sweep['id']}/archive.zip" for sweep in sweeps]
        before = daemon.get(archives[0])
        assert before.status == 200
        config.write_text("min-free-mb = 1000000\n")
        daemon.process.send_signal(signal.SIGHUP)
        deadline = time.monotonic() + 30
        while daemon.post_jobs(clip).status != 507:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        problem(daemon.get(archives[1]), 507, "disk-full")
        assert daemon.get(archives[0]).body == before.body


def test_an_archive_whose_pictures_cannot_be_kept(start, tmp_path, clip):
    """They are made in memory, and are in it all the same."""
    data = tmp_path / "data"
    with start(data=data) as daemon:
        sweep = daemon.submit_sweep(clip, {"grid": {"seed": [1, 2]}}).json()
        sweep = daemon.wait_for_sweep(sweep["id"])
        for point in sweep["points"]:
            (data / "jobs" / point["job"] / "mask.png").mkdir()  # so that no file can have this name
        answer = daemon.get(f"/v1/sweeps/{sweep['id']}/archive.zip")
        assert answer.status == 200, answer.body
        with zipfile.ZipFile(io.BytesIO(answer.body)) as archive:
            assert archive.testzip() is None
            for index, point in enumerate(sweep["points"]):
                picture = archive.read(f"point-{index:04d}.mask.png")
                assert picture.startswith(b"\x89PNG")
                assert picture == daemon.get(f"/v1/jobs/{point['job']}/mask.png").body


def age(data, seconds, *jobs):
    """Time passes, as far as the store can tell, for these jobs and for all sweeps."""
    database, milliseconds = sqlite3.connect(os.path.join(data, "vampd.db")), int(seconds * 1000)
    for job in jobs:
        database.execute("UPDATE jobs SET created = created - ?, started = started - ?, finished = finished - ? "
                         "WHERE id = ?", (milliseconds, milliseconds, milliseconds, job))
    database.execute("UPDATE sweeps SET finished = finished - ? WHERE finished > 0", (milliseconds,))
    database.commit()
    database.close()


def size_of(data):
    return sum(os.path.getsize(os.path.join(folder, name)) for folder, _, names in os.walk(data) for name in names
               if not name.startswith("vampd.db"))


def test_a_bound_on_what_is_stored(start, tmp_path):
    """--max-disk-mb: nothing is forgotten that could hardly have been fetched yet; then the oldest go first."""
    data, clip, jobs = tmp_path / "data", make_wav(5), []
    params = {"sampling": {"coarse_steps": 1}, "mask": {"mask_ratio": 0.1}}
    with start("--max-disk-mb", "8", data=data) as daemon:
        while (answer := daemon.post_jobs(clip, params)).status == 202:
            jobs += answer.json()["jobs"]
            daemon.done(jobs[-1])
            assert len(jobs) < 30 and size_of(data) <= 8 << 20
        problem(answer, 507, "disk-full")
        assert len(jobs) > 2
        daemon.done(*jobs)
    names = [job["id"] for job in jobs]
    age(data, 3600, *names[:2])
    with start("--max-disk-mb", "8", data=data) as daemon:
        (job,) = daemon.submit(clip, params)
        daemon.done(job)
        kept = [job["id"] for job in daemon.get("/v1/jobs?limit=1000").json()["jobs"]]
        assert names[0] not in kept and set(names[2:]) < set(kept) and size_of(data) <= 8 << 20
        problem(daemon.get(f"/v1/jobs/{names[0]}/audio"), 404, "not-found")


def test_age(start, tmp_path, clip):
    """A day passes, as far as the store can tell: what is older than --keep-hours is gone, with its files."""
    data = tmp_path / "data"
    with start(data=data) as daemon:
        old, new = daemon.submit(clip, {"seed": 1}), daemon.submit(clip, {"seed": 2})
        daemon.done(*old, *new)
        sweep = daemon.submit_sweep(clip, {"grid": {"seed": [1, 2]}}).json()
        daemon.wait_for_sweep(sweep["id"])
    points = [point["job"] for point in sweep["points"]]
    age(data, 86400, old[0]["id"], *points)
    with start("--keep-hours", "0", data=data) as daemon:  # for ever
        assert daemon.job(old[0]["id"])["state"] == "done"
    with start("--keep-hours", "23", data=data) as daemon:
        deadline = time.monotonic() + 30
        while daemon.get(f"/v1/jobs/{old[0]['id']}").status != 404:
            assert time.monotonic() < deadline, "retention does not come round"
            time.sleep(0.1)
        problem(daemon.get(f"/v1/sweeps/{sweep['id']}"), 404, "not-found")
        problem(daemon.get(f"/v1/jobs/{points[0]}"), 404, "not-found")
        assert daemon.job(new[0]["id"])["state"] == "done"
        while os.listdir(data / "jobs") != [new[0]["id"]]:  # rows go before files
            assert time.monotonic() < deadline, os.listdir(data / "jobs")
            time.sleep(0.1)
