"""Fixtures of every pytest suite: the binaries that were built, and a tiny model to run them on."""
import os
import subprocess

import pytest

from support import BUILD, ROOT, convert


@pytest.fixture(scope="session")
def root():
    return ROOT


@pytest.fixture(scope="session")
def build():
    """The build folder, with the binaries in it."""
    if not (BUILD / "vamp").exists():
        pytest.exit(f"{BUILD}/vamp is missing: run `make build` first, or set VAMP_BUILD", 2)
    return BUILD


@pytest.fixture(scope="session")
def vamp(build):
    """vamp(arguments..., code=0) runs the command line and checks its exit code."""

    def run(*arguments, code=0, environment=None, folder=None):
        done = subprocess.run([str(build / "vamp"), *map(str, arguments)], capture_output=True, text=True, timeout=300,
                              env={**os.environ, **(environment or {})}, cwd=folder, stdin=subprocess.DEVNULL)
        assert done.returncode == code, f"exit code {done.returncode}, not {code}:\n{done.stdout}\n{done.stderr}"
        return done

    return run


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory):
    """A model folder of a few megabytes with random weights: the parity fixture, converted."""
    return convert(ROOT / "tests" / "parity" / "fixture", tmp_path_factory.mktemp("model") / "tiny")
