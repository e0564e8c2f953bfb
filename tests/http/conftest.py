"""Fixtures of the daemon's tests: a model, a clip, a running daemon.

The model is a tiny one with random weights, made here, so that a generation takes milliseconds; test_small_model.py
uses the weights that ship.
"""
import importlib.util
import math
import os
import signal
import time

import pytest

import tiny_model
from harness import ROOT, VAMPD, Daemon, make_wav

TEST_SECONDS = 100


@pytest.fixture(autouse=True)
def time_limit():
    """A daemon that does not answer is a failure, not a test that never ends; and no test leaves one behind."""
    def give_up(number, frame):
        raise TimeoutError(f"the test took longer than {TEST_SECONDS} s")
    before = signal.signal(signal.SIGALRM, give_up)
    signal.alarm(TEST_SECONDS)
    held = list(Daemon.running)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)
    for daemon in set(Daemon.running) - set(held):
        daemon.kill()  # a test that failed has left it


@pytest.fixture(scope="session")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model") / "tiny"
    tiny_model.write(str(folder))
    return str(folder)


@pytest.fixture(scope="session")
def start(model):
    """start(*flags) runs another daemon."""
    assert os.path.exists(VAMPD), f"{VAMPD} is missing: make build"
    return lambda *flags, **options: Daemon(model, *flags, **options)


@pytest.fixture(scope="session")
def python_client():
    """The module clients/python/vampd.py."""
    path = os.path.join(ROOT, "clients", "python", "vampd.py")
    specification = importlib.util.spec_from_file_location("vampd_client", path)
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def daemon(start):
    with start("--max-seconds", "30", "--max-body-mb", "4") as running:
        yield running


@pytest.fixture(scope="session")
def clip():
    return make_wav()


@pytest.fixture(scope="session")
def long_job(daemon):
    """long_job(seconds): audio and parameters of a job that takes about that long, or longer."""
    audio = make_wav(8.0, seed=9)
    params = {"seed": 1, "mask": {"mask_ratio": 1.0, "upper_codebook_mask": 4}}

    def timed(steps):
        started = time.monotonic()
        answer = daemon.vamp(audio, {**params, "sampling": {"coarse_steps": steps}})
        assert answer.status == 200
        return time.monotonic() - started
    timed(2)
    step = max((timed(34) - timed(2)) / 32, 1e-4)

    def make(seconds):
        steps = math.ceil(seconds / step)
        passes = min(16, math.ceil(steps / 256))
        each = min(256, max(1, math.ceil(steps / passes)))
        return audio, {"seed": 1, "mask": {"passes": [params["mask"]] * passes}, "sampling": {"coarse_steps": each}}
    return make
