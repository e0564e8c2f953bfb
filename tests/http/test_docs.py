"""docs/api.md does what it says: every `sh` block is run as it stands, against a daemon on the port it names."""
import os
import re
import subprocess

import pytest

from harness import ROOT, make_wav
from test_access import LAB, write_keys

with open(os.path.join(ROOT, "docs", "api.md"), encoding="utf-8") as file:
    PAGE = file.read()
BLOCKS = re.findall(r"```sh\n(.*?)```", PAGE, re.S)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = tmp_path_factory.mktemp("docs")
    (made / "song.wav").write_bytes(make_wav(1.0, 48000, 2))
    return made


def run(daemon, folder, script):
    address = f"http://127.0.0.1:{daemon.port}"
    script = script.replace("http://127.0.0.1:8765", address)
    environment = {**os.environ, "VAMPD": address, "CLIENTS": os.path.join(ROOT, "clients")}
    return subprocess.run(["bash", "-e", "-o", "pipefail", "-c", script], cwd=folder, env=environment, timeout=120,
                          capture_output=True, text=True)


@pytest.mark.parametrize("number", range(len(BLOCKS)))
def test_example(daemon, folder, number):
    for name in re.findall(r"-o (\S+)", BLOCKS[number]):
        (folder / name).unlink(missing_ok=True)
    result = run(daemon, folder, BLOCKS[number])
    assert result.returncode == 0, result.stderr
    for name in re.findall(r"-o (\S+)", BLOCKS[number]):
        assert (folder / name).stat().st_size > 0


def test_the_density_on_the_page(daemon, folder):
    (block,) = [block for block in BLOCKS if "574" in block]
    assert round(float(run(daemon, folder, block).stdout.split()[0]), 3) == 0.943


def test_every_problem_is_on_the_page(daemon):
    types = daemon.document["components"]["schemas"]["Problem"]["properties"]["type"]["enum"]
    assert all(kind in PAGE for kind in types)


def test_every_endpoint_is_on_the_page(daemon):
    assert [path for path in daemon.document["paths"] if path.replace("{id}", "ID") not in PAGE] == []


def test_script_with_a_key(start, folder, tmp_path, monkeypatch):
    with start("--keys", write_keys(tmp_path / "keys", lab=(LAB, {}))) as daemon:
        script = '"$CLIENTS/curl/vamp.sh" song.wav keyed.wav'
        refused = run(daemon, folder, script)
        assert refused.returncode == 1 and "unauthorized" in refused.stderr and not (folder / "keyed.wav").exists()
        monkeypatch.setenv("VAMP_KEY", LAB)
        assert run(daemon, folder, script).returncode == 0 and (folder / "keyed.wav").exists()


def test_script(daemon, folder):
    script = '"$CLIENTS/curl/vamp.sh" '
    assert run(daemon, folder, script).returncode == 2
    assert run(daemon, folder, script + "song.wav out.mp3").returncode == 2
    assert run(daemon, folder, script + "song.wav out.json '{\"seed\": 1}'").returncode == 0
    odd = 'a, b; "c" \\ d.wav'
    (folder / odd).write_bytes((folder / "song.wav").read_bytes())
    assert run(daemon, folder, script + f"'{odd}' out.json").returncode == 0
    (folder / "params.json").write_text('{"seed": 1, "preset": "subtle"}')
    assert run(daemon, folder, script + "song.wav out.wav @params.json").returncode == 0
    assert (folder / "out.wav").read_bytes().startswith(b"RIFF")
    failed = run(daemon, folder, script + "song.wav new.wav '{\"sed\": 1}'")
    assert failed.returncode == 1 and "/sed" in failed.stderr and not (folder / "new.wav").exists()
    assert not [name for name in os.listdir(folder) if name.startswith("new.wav")]
