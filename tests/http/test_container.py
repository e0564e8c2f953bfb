"""As the first process of a container, which has to take leave of every process that nobody else waits for."""
import os
import signal
import subprocess
import time

import pytest

UNSHARE = ["unshare", "--pid", "--fork", "--mount-proc"]


def children(process):
    """-> {process: (name, state)}, the children of all its threads."""
    found = {}
    for task in os.listdir(f"/proc/{process}/task"):
        with open(f"/proc/{process}/task/{task}/children", encoding="ascii") as file:
            for child in file.read().split():
                try:
                    with open(f"/proc/{child}/stat", encoding="ascii") as stat:
                        name, rest = stat.read().split("(", 1)[1].rsplit(")", 1)
                except OSError:
                    continue  # it has just gone
                found[int(child)] = name, rest.split()[0]
    return found


def wait_for(condition, what):
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, what()
        time.sleep(0.05)


@pytest.fixture
def contained(start):
    """-> a daemon that is process 1, and its number out here."""
    try:
        subprocess.run([*UNSHARE, "true"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("a namespace of processes is not permitted here")
    daemon = start(prefix=[*UNSHARE, "--kill-child"])
    (process,) = children(daemon.process.pid)
    yield daemon, process
    if daemon.process.poll() is None:
        os.kill(process, signal.SIGKILL)
    daemon.kill()


def test_nothing_is_left_unreaped(contained, clip):
    daemon, process = contained
    for _ in range(3):
        assert daemon.vamp(clip, {"seed": 1, "sampling": {"coarse_steps": 1}}).status == 200
        wait_for(lambda: len(children(process)) == 1, lambda: children(process))
        (decoder,) = children(process)
        wait_for(lambda: children(decoder), lambda: "there is no spare")
        os.kill(decoder, signal.SIGKILL)
        wait_for(lambda: not children(process), lambda: children(process))
    assert daemon.vamp(clip, {"seed": 1, "sampling": {"coarse_steps": 1}}).status == 200
    os.kill(process, signal.SIGTERM)
    assert daemon.process.wait(60) == 0, "".join(daemon.log)
