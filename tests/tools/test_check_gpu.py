"""tests/cuda/check-gpu, as far as no GPU is needed: a failing test is named and does not keep the others from running."""
import os
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]


def program(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("#!/bin/sh\n" + text, encoding="utf-8")
    path.chmod(0o755)


def check(folder, *arguments):
    environment = {**os.environ, "PATH": f"{folder / 'bin'}:{os.environ['PATH']}", "PYTHON": sys.executable}
    return subprocess.run([ROOT / "tests" / "cuda" / "check-gpu", "--build", folder, *arguments], env=environment,
                          capture_output=True, text=True, timeout=60, check=False)


def test_one_sanitizer_alone_goes_on_after_a_failure(tmp_path):
    log = tmp_path / "log"
    program(tmp_path / "vamp", "exit 0\n")
    program(tmp_path / "libvamp_cuda.so", "exit 0\n")
    program(tmp_path / "tests/cuda/test_one", f"echo one >>{log}; exit 3\n")
    program(tmp_path / "tests/cuda/test_two", f"echo two >>{log}\n")
    program(tmp_path / "bin/compute-sanitizer", f'echo "$2" >>{log}; shift 4; exec "$@"\n')
    done = check(tmp_path, "--tool", "racecheck")
    assert done.returncode == 1
    assert log.read_text(encoding="utf-8").split() == ["racecheck", "one", "racecheck", "two"]
    assert "test_one" in done.stderr and "test_two" not in done.stderr
    program(tmp_path / "tests/cuda/test_one", f"echo one >>{log}\n")
    done = check(tmp_path, "--tool", "racecheck")
    assert done.returncode == 0 and "all is well" in done.stdout
