#!/usr/bin/env python3
"""What a request costs when the store is full of other jobs: every GET and DELETE is timed, with thousands of durable
jobs waiting, running and finished.

    scale.py [--jobs 10000] [--repeat 9] [--vampd build/vampd]

The rows are copies of a few that the daemon itself has written, added to its database while it is stopped; then it is
started on them. So there are a sweep of 4,096 points that waits, one that is finished, sweeps of 10 points, and single
jobs on clips of their own. Meanwhile the device is kept busy by the first of those that wait. Times are milliseconds:
from request to the last byte, as a client on this machine sees it, the smallest and the median of some; and the least
that the daemon's threads, but for those of the device, have spent on a processor, which says more on a busy machine.
"""
import argparse
import json
import os
import random
import re
import sqlite3
import statistics
import sys
import tempfile
import threading
import time

POINTS = 4096
LONG = {"seed": 1, "mask": {"passes": [{"mask_ratio": 1.0, "upper_codebook_mask": 4}] * 16},
        "sampling": {"coarse_steps": 256}}
SHORT = {"seed": 1, "sampling": {"coarse_steps": 1}}


class Copies:
    """Adds copies of rows to a stopped daemon's database."""

    def __init__(self, data):
        self.database = sqlite3.connect(os.path.join(data, "vampd.db"))
        self.database.row_factory = sqlite3.Row
        self.draw = random.Random(1)

    def row(self, table, identifier):
        return dict(self.database.execute(f"SELECT * FROM {table} WHERE id = ?", (identifier,)).fetchone())

    def add(self, table, row, **changes):
        row = {**row, "id": f"{self.draw.getrandbits(96):024x}", **changes}
        row.pop("number", None)
        names = ", ".join(row)
        self.database.execute(f"INSERT INTO {table}({names}) VALUES({', '.join('?' * len(row))})", list(row.values()))
        return row["id"]

    def add_sweep(self, sweep, job, points):
        row = self.row("sweeps", sweep)
        job = self.row("jobs", job)
        left = points if job["state"] == 0 else 0
        grid = json.dumps({"seed": list(range(points))})
        made = self.add("sweeps", row, points=points, unfinished=left, bytes=0, grid=grid)
        for point in range(points):
            self.add("jobs", job, sweep=made, point=point, bytes=0)
        return made


def populate(daemon, make_wav, data, jobs):
    """-> ids by what they are of. The daemon is stopped."""
    ids = {}
    clip, audio = make_wav(0.5), make_wav(8.0)
    ids["done"] = daemon.submit(clip, SHORT)[0]["id"]
    done_sweep = daemon.submit_sweep(clip, {**SHORT, "grid": {"seed": [1, 2]}}).json()
    daemon.wait_for(ids["done"])
    daemon.wait_for_sweep(done_sweep["id"])
    ids["running"] = daemon.submit(audio, LONG)[0]["id"]
    queued_sweep = daemon.submit_sweep(audio, {**LONG, "grid": {"seed": [1, 2]}}).json()
    daemon.kill()
    copies = Copies(data)
    with copies.database:
        ids["small sweep"] = copies.add_sweep(done_sweep["id"], done_sweep["points"][0]["job"], 10)
        for _ in range(19):
            copies.add_sweep(done_sweep["id"], done_sweep["points"][0]["job"], 10)
        ids["finished sweep"] = copies.add_sweep(done_sweep["id"], done_sweep["points"][0]["job"], POINTS)
        ids["waiting sweep"] = copies.add_sweep(queued_sweep["id"], queued_sweep["points"][0]["job"], POINTS)
        left = max(2, jobs - 2 * POINTS - 206)
        queued, done = copies.row("jobs", ids["running"]), copies.row("jobs", ids["done"])
        clip = copies.row("inputs", queued["input"])
        for index in range(left // 2):
            ids["queued"] = copies.add("jobs", queued, input=copies.add("inputs", clip, bytes=0))
            ids["other done"] = copies.add("jobs", done, bytes=0)
        ids["failed"] = copies.add("jobs", done, state=2, outcome='{"type": "/problems/internal", "title": "x", '
                                   '"status": 500, "detail": "x"}', number=None)
    copies.database.execute("UPDATE jobs SET number = 0 WHERE id = ?", (ids["failed"],))  # the oldest of all
    copies.database.commit()
    copies.database.close()
    return ids


class Processor:
    """Milliseconds that a daemon's threads have run, without those that are busy while nobody asks for anything."""

    def __init__(self, daemon):
        self.tasks = f"/proc/{daemon.process.pid}/task"
        before = self.read()
        time.sleep(1)
        self.busy = {task for task, spent in self.read().items() if spent - before.get(task, 0) > 10}

    def read(self):
        spent = {}
        for task in os.listdir(self.tasks):
            with open(os.path.join(self.tasks, task, "schedstat"), encoding="ascii") as file:
                spent[task] = int(file.read().split()[0]) / 1e6
        return spent

    def total(self):
        return sum(spent for task, spent in self.read().items() if task not in self.busy)


def timed(daemon, processor, method, path, expected):
    """-> milliseconds until the answer was there, those on a processor, bytes."""
    before, started = processor.total(), time.monotonic()
    answer = daemon.request(method, path, check=False)
    elapsed = time.monotonic() - started
    assert answer.status == expected, (method, path, answer.status, answer.body[:300])
    return 1e3 * elapsed, processor.total() - before, len(answer.body)


def cases(ids):
    job, queued = f"/v1/jobs/{ids['done']}", f"/v1/jobs/{ids['queued']}"
    return [
        ("a job that is done", job, 200), ("a job that waits", queued, 200),
        ("a job that runs", f"/v1/jobs/{ids['running']}", 200), ("audio", f"{job}/audio", 200),
        ("input", f"{job}/input", 200), ("mask", f"{job}/mask", 200), ("mask.png, kept", f"{job}/mask.png", 200),
        ("tokens", f"{job}/tokens", 200), ("50 jobs", "/v1/jobs", 200), ("1,000 jobs", "/v1/jobs?limit=1000", 200),
        ("50 jobs, all done", "/v1/jobs?state=done", 200), ("50 jobs, all waiting", "/v1/jobs?state=queued", 200),
        ("the one that failed", "/v1/jobs?state=failed", 200), ("none cancelled", "/v1/jobs?state=cancelled", 200),
        ("50 jobs of a sweep", f"/v1/jobs?sweep={ids['waiting sweep']}", 200),
        ("2 sweeps, of 4,096", "/v1/sweeps?limit=2", 200), ("20 sweeps, two of 4,096", "/v1/sweeps", 200),
        ("a sweep of 10", f"/v1/sweeps/{ids['small sweep']}", 200),
        ("4,096, finished", f"/v1/sweeps/{ids['finished sweep']}", 200),
        ("4,096, waiting", f"/v1/sweeps/{ids['waiting sweep']}", 200),
        ("its table.csv", f"/v1/sweeps/{ids['waiting sweep']}/table.csv", 200), ("metrics", "/metrics", 200),
        ("readyz", "/readyz", 200), ("models", "/v1/models", 200), ("openapi.json", "/openapi.json", 200),
    ]


def report(method, path, what, found):
    times, spent, sizes = zip(*found)
    shown = re.sub("[0-9a-f]{24}", "ID", path)
    print(f"{method:6} {shown:28} {what:24} {min(times):8.1f} {statistics.median(times):8.1f} {min(spent):8.1f} "
          f"{sizes[0]:9}", flush=True)


def ends(daemon, processor, ids):
    """The DELETEs, each once; beside the long ones another client asks after a job."""
    for what, path, expected in [
            ("one that waits", f"/v1/jobs/{ids['queued']}", 202), ("one that is done", f"/v1/jobs/{ids['other done']}", 204),
            ("cancels 4,096", f"/v1/sweeps/{ids['waiting sweep']}", 202),
            ("forgets 4,096", f"/v1/sweeps/{ids['waiting sweep']}", 204),
            ("forgets 4,096, done", f"/v1/sweeps/{ids['finished sweep']}", 204)]:
        stop, slowest = threading.Event(), [0, 0]

        def ask(index, other):
            while not stop.wait(0.002):
                slowest[index] = max(slowest[index], timed(daemon, processor, "GET", other, 200)[0])
        clients = [threading.Thread(target=ask, args=pair)
                   for pair in enumerate((f"/v1/jobs/{ids['done']}", "/v1/sweeps?limit=1"))]
        for client in clients:
            client.start()
        if expected == 204:  # what ran has to end first
            deadline = time.monotonic() + 60
            while time.monotonic() < deadline and "sweeps" in path and any(
                    daemon.get(path).json()["states"][state] for state in ("queued", "running")):
                time.sleep(0.1)
            slowest[:] = [0, 0]
        found = timed(daemon, processor, "DELETE", path, expected)
        stop.set()
        for client in clients:
            client.join()
        report("DELETE", path, what, [found])
        print(f"       meanwhile: a job {slowest[0]:.1f} ms, the list of sweeps {slowest[1]:.1f} ms at most", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--jobs", type=int, default=10000)
    parser.add_argument("--repeat", type=int, default=9)
    parser.add_argument("--vampd")
    options = parser.parse_args()
    if options.vampd:
        os.environ["VAMP_BUILD"] = os.path.dirname(os.path.abspath(options.vampd))
    from harness import Daemon, make_wav
    import tiny_model
    with tempfile.TemporaryDirectory(prefix="vampd-scale-") as folder:
        model, data = os.path.join(folder, "model"), os.path.join(folder, "data")
        tiny_model.write(model)
        flags = ("--keep-hours", "0", "--max-jobs-queued", "100000", "--threads", "1", "--grace", "0")
        ids = populate(Daemon(model, *flags, data=data), make_wav, data, options.jobs)
        started = time.monotonic()
        daemon = Daemon(model, *flags, data=data)
        try:
            print(f"started in {time.monotonic() - started:.2f} s with {daemon.jobs()} jobs that are not finished\n")
            daemon.wait_for(ids["running"], "generating")
            processor = Processor(daemon)
            print(f"{'':60} smallest   median processor   bytes")
            daemon.get(f"/v1/jobs/{ids['done']}/mask.png")
            for what, path, expected in cases(ids):
                report("GET", path, what, [timed(daemon, processor, "GET", path, expected)
                                           for _ in range(options.repeat)])
            ends(daemon, processor, ids)
        finally:
            daemon.kill()


if __name__ == "__main__":
    sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
    main()
