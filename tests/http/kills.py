#!/usr/bin/env python3
"""kill -9 at random instants, again and again, on one data folder: no accepted job may be lost, none may be done twice
with different bytes, and the store must never be corrupt.

    kills.py [--kills 200] [--life 2] [--seed 1] [--vampd build/vampd]

Each round starts the daemon, which goes on with what the last one left, sends it new jobs and a sweep now and then,
fetches, cancels and forgets some of them, and whole sweeps, and kills it after a random time: often while it starts, often while it works. What
the daemon has promised by an answer is noted here; at the start of every round, and after the last one, it is held to
it. The order of events is random, the seed is printed; but the instant of a kill is real time, so a run cannot be
repeated exactly.
"""
import argparse
import hashlib
import http.client
import os
import random
import shutil
import sqlite3
import sys
import tempfile
import threading
import time

KINDS = 6  # of requests, whose bytes are known before
MOST_OPEN = 24  # jobs that are not known to be finished


def digest(data):
    return hashlib.sha256(data).hexdigest()


def check_database(folder):
    """A copy, so that nothing is repaired behind the daemon's back: the database with its log, as the kill left it."""
    with tempfile.TemporaryDirectory() as copies:
        for name in os.listdir(folder):
            if name.startswith("vampd.db") and not name.endswith("-shm"):
                shutil.copy(os.path.join(folder, name), copies)
        path = os.path.join(copies, "vampd.db")
        if not os.path.exists(path):
            return
        database = sqlite3.connect(path)
        (verdict,) = database.execute("PRAGMA integrity_check").fetchone()
        orphans = database.execute("PRAGMA foreign_key_check").fetchall()
        database.close()
    assert verdict == "ok" and not orphans, f"the database is corrupt: {verdict} {orphans}"


class Ledger:
    """What the daemon has promised. A job is expected to be at least what was last heard of it."""

    def __init__(self, expected):
        self.expected = expected  # for each kind: the digest of its audio
        self.jobs = {}            # id -> kind
        self.done = set()         # heard to be done
        self.cancelled = set()    # heard to be cancelled
        self.asked = set()        # a cancellation was accepted
        self.unsure = set()       # a request to cancel or forget had no answer
        self.forgotten = set()
        self.sweeps, self.sweep_of = {}, {}  # id -> its jobs, and back
        self.unsure_sweeps, self.forgotten_sweeps = set(), set()
        self.rounds = self.attempts = 0
        self.lock = threading.Lock()

    def accept_sweep(self, identifier, jobs, kind):
        for job in jobs:
            self.sweep_of[job] = identifier
            self.jobs[job] = kind
        self.sweeps[identifier] = jobs

    def unanswered(self, identifier):
        """Whether a request that would end or forget this job had no answer yet, or never will."""
        return identifier in self.unsure or self.sweep_of.get(identifier) in self.unsure_sweeps

    def may_be_gone(self, identifier):
        return self.unanswered(identifier) or identifier in self.forgotten

    def check(self, daemon, identifier):
        """-> whether it is finished. Another client may delete it at this moment, so what was promised before the
        question is held against what may have been allowed until the answer."""
        gone, done, cancelled = (identifier in known for known in (self.forgotten, self.done, self.cancelled))
        answer = daemon.get(f"/v1/jobs/{identifier}")
        if answer.status == 404 and self.may_be_gone(identifier):
            return True
        assert not gone, f"{identifier} was forgotten and is there again"
        assert answer.status == 200, f"{identifier} is lost: {answer.status} {answer.body}"
        job = answer.json()
        state = job["state"]
        assert not done or state == "done", f"{identifier} was done and is {state}"
        assert not cancelled or state == "cancelled", f"{identifier} was cancelled and is {state}"
        assert state != "failed", f"{identifier} failed: {job.get('problem')}"
        if state == "cancelled":
            assert identifier in self.asked or self.unanswered(identifier), f"{identifier} was cancelled by nobody"
            self.cancelled.add(identifier)
        elif state == "done":
            audio = daemon.get(f"/v1/jobs/{identifier}/audio")
            if audio.status == 404 and self.may_be_gone(identifier):
                return True
            found = digest(audio.body)
            assert audio.status == 200 and found == self.expected[self.jobs[identifier]], f"{identifier} is different"
            self.done.add(identifier)
        return state in ("done", "cancelled")

    def delete(self, daemon, identifier):
        with self.lock:
            if identifier in self.forgotten | self.unsure:
                return
            self.unsure.add(identifier)
        answer = daemon.request("DELETE", f"/v1/jobs/{identifier}")
        if answer.status == 202:
            self.asked.add(identifier)
        elif answer.status == 204:
            self.forgotten.add(identifier)
        elif answer.status == 404:  # it went with its sweep meanwhile
            sweep = self.sweep_of.get(identifier)
            assert sweep in self.unsure_sweeps or sweep in self.forgotten_sweeps, f"{identifier} is lost: {answer.body}"
        else:
            assert answer.status == 409, answer.body
        self.unsure.discard(identifier)

    def check_sweep(self, daemon, identifier):
        """A sweep is there with its jobs, but those forgotten one by one, or it is gone and all of them with it."""
        with self.lock:  # so that nobody deletes a sweep meanwhile
            kept = {job for job in self.sweeps[identifier] if job not in self.forgotten | self.unsure}
            gone = identifier in self.forgotten_sweeps
            answer = daemon.get(f"/v1/sweeps/{identifier}")
            if answer.status == 404 and identifier in self.forgotten_sweeps | self.unsure_sweeps:
                for job in self.sweeps[identifier]:
                    assert daemon.get(f"/v1/jobs/{job}").status == 404, f"{job} is there without its sweep {identifier}"
                return
            assert not gone, f"the sweep {identifier} was forgotten and is there again"
            assert answer.status == 200, f"the sweep {identifier} is lost: {answer.status} {answer.body}"
            sweep = answer.json()
            there = {point["job"] for point in sweep["points"]}
            kept -= self.forgotten | self.unsure  # what another client has forgotten until the answer
            assert kept <= there <= set(self.sweeps[identifier]), f"the sweep {identifier} has jobs {there}, not {kept}"
            assert sum(sweep["states"].values()) == len(there), sweep

    def delete_sweep(self, daemon, identifier):
        with self.lock:
            if identifier in self.forgotten_sweeps | self.unsure_sweeps:
                return
            self.unsure_sweeps.add(identifier)
        jobs = self.sweeps[identifier]
        answer = daemon.request("DELETE", f"/v1/sweeps/{identifier}")
        if answer.status == 202:
            self.asked.update(jobs)
            self.cancelled.update(point["job"] for point in answer.json()["points"] if point["state"] == "cancelled")
        elif answer.status == 204:
            self.forgotten.update(jobs)
            self.forgotten_sweeps.add(identifier)
        else:
            assert answer.status == 409, answer.body
        self.unsure_sweeps.discard(identifier)


def requests_of(make_wav):
    """(clip, params): short ones and long ones, so that a kill finds jobs in every state."""
    found = []
    for kind in range(KINDS):
        clip = make_wav(0.3 + 0.5 * kind, seed=kind)
        params = {"seed": kind, "preset": ["subtle", "balanced", "creative"][kind % 3],
                  "sampling": {"coarse_steps": [2, 8, 40][kind // 2]}}
        found.append((clip, params))
    return found


def work(daemon, ledger, requests, draw, stop):
    """One client, until the daemon is killed under it."""
    while not stop.is_set():
        try:
            choice = draw.random()
            left = sorted(set(ledger.jobs) - ledger.done - ledger.cancelled - ledger.forgotten)
            if len(left) >= MOST_OPEN:
                ledger.check(daemon, draw.choice(left))
            elif choice < 0.45:
                kind = draw.randrange(KINDS)
                for job in daemon.submit(*requests[kind]):
                    ledger.jobs[job["id"]] = kind
            elif choice < 0.55:
                kind = draw.randrange(KINDS)
                clip, params = requests[kind]
                steps = params["sampling"]["coarse_steps"]
                answer = daemon.submit_sweep(clip, {**params, "grid": {"sampling.coarse_steps": [steps, steps]}})
                assert answer.status == 202, answer.body
                sweep = answer.json()
                ledger.accept_sweep(sweep["id"], [point["job"] for point in sweep["points"]], kind)
            elif ledger.jobs and choice < 0.75:
                ledger.check(daemon, draw.choice(sorted(ledger.jobs)))
            elif ledger.sweeps and choice < 0.85:
                ask = draw.choice([ledger.check_sweep, ledger.delete_sweep])
                ask(daemon, draw.choice(sorted(ledger.sweeps)[-8:] + sorted(ledger.sweeps)))
            elif ledger.jobs:
                ledger.delete(daemon, draw.choice(sorted(ledger.jobs)))
            stop.wait(draw.random() * 0.03)
        except (OSError, http.client.HTTPException):
            if not stop.wait(5):
                raise


def run_round(make_daemon, folder, ledger, requests, draw, life):
    """A life of the daemon, from its start to its kill, at most so many seconds after it was ready."""
    stop, faults = threading.Event(), []
    daemon = make_daemon(folder, wait=False)
    if draw.random() < 0.15:  # while it starts
        time.sleep(draw.random() * 0.2)
        daemon.kill()
        return

    def client(seed):
        try:
            work(daemon, ledger, requests, random.Random(seed), stop)
        except BaseException as fault:  # noqa: B902  reported by the main thread
            faults.append(fault)
    try:
        daemon.wait()
        for identifier in draw.sample(sorted(ledger.jobs), min(10, len(ledger.jobs))):
            ledger.check(daemon, identifier)
        for identifier in draw.sample(sorted(ledger.sweeps), min(5, len(ledger.sweeps))):
            ledger.check_sweep(daemon, identifier)
        threads = [threading.Thread(target=client, args=(draw.random(),)) for _ in range(3)]
        for thread in threads:
            thread.start()
        time.sleep(draw.random() * draw.choice([0.1, 1]) * life)
    finally:
        stop.set()
        daemon.kill()
    for thread in threads:
        thread.join()
    assert not faults, faults[0]


def settle(make_daemon, folder, ledger):
    """Everything that was accepted comes to its end, and is what it should be."""
    daemon = make_daemon(folder)
    try:
        deadline = time.monotonic() + 300
        left = set(ledger.jobs)
        while left:
            left = {identifier for identifier in left if not ledger.check(daemon, identifier)}
            assert time.monotonic() < deadline, f"{len(left)} jobs do not end"
            time.sleep(0.1)
        listed, path = set(), "/v1/jobs?limit=1000"
        while path:
            page = daemon.get(path).json()
            listed |= {job["id"] for job in page["jobs"]}
            path = page.get("next")
        kept = {identifier for identifier in ledger.jobs if not ledger.may_be_gone(identifier)}
        assert kept <= listed and not listed & ledger.forgotten
        ledger.attempts = max(daemon.job(identifier)["attempts"] for identifier in kept)
        for identifier in ledger.sweeps:
            ledger.check_sweep(daemon, identifier)
        assert daemon.stop() == 0
    finally:
        if daemon.process.poll() is None:
            daemon.kill()


def run(make_daemon, make_wav, folder, kills, life, seed, say=lambda text: None):
    """make_daemon(folder, wait=True) starts a daemon on a data folder -> the ledger, when all has held."""
    draw, requests = random.Random(seed), requests_of(make_wav)
    daemon = make_daemon(folder)
    answers = [daemon.vamp(*request) for request in requests]
    assert all(answer.status == 200 for answer in answers)
    ledger = Ledger([digest(answer.body) for answer in answers])
    daemon.kill()
    for number in range(kills):
        run_round(make_daemon, folder, ledger, requests, draw, life)
        check_database(folder)
        ledger.rounds += 1
        if number % 10 == 9:
            say(f"{number + 1} kills, {len(ledger.jobs)} jobs accepted, {len(ledger.done)} seen done, "
                f"{len(ledger.cancelled)} cancelled, {len(ledger.forgotten)} forgotten, of {len(ledger.sweeps)} sweeps "
                f"{len(ledger.forgotten_sweeps)}")
    settle(make_daemon, folder, ledger)
    check_database(folder)
    return ledger


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--life", type=float, default=2, metavar="S", help="the longest time between start and kill (2)")
    parser.add_argument("--seed", type=int, default=random.randrange(10 ** 6))
    parser.add_argument("--vampd")
    options = parser.parse_args()
    if options.vampd:
        os.environ["VAMP_BUILD"] = os.path.dirname(os.path.abspath(options.vampd))
    from harness import Daemon, make_wav
    import tiny_model
    print(f"seed {options.seed}", flush=True)
    with tempfile.TemporaryDirectory(prefix="vampd-kills-") as folder:
        model, data = os.path.join(folder, "model"), os.path.join(folder, "data")
        tiny_model.write(model)

        def make_daemon(data, wait=True):
            return Daemon(model, "--keep-hours", "0", "--max-jobs-queued", "100000", data=data, wait=wait)
        started = time.monotonic()
        ledger = run(make_daemon, make_wav, data, options.kills, options.life, options.seed,
                     lambda text: print(text, flush=True))
    print(f"{ledger.rounds} kills in {time.monotonic() - started:.0f} s: {len(ledger.jobs)} jobs accepted, "
          f"{len(ledger.done)} done with the right bytes, {len(ledger.cancelled)} cancelled, {len(ledger.forgotten)} "
          f"forgotten, of {len(ledger.sweeps)} sweeps {len(ledger.forgotten_sweeps)}, none lost; the most begun one was begun {ledger.attempts} times; the store is sound")


if __name__ == "__main__":
    sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
    main()
