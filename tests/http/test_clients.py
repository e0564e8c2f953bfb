"""The clients that are made from the contract: clients/python and clients/js, against a running daemon."""
import http.server
import json
import os
import shutil
import subprocess
import sys
import threading
import zipfile

import pytest

from harness import FINISHED, HERE, ROOT, make_wav

PYTHON_CLIENT = os.path.join(ROOT, "clients", "python", "vampd.py")


@pytest.fixture(scope="module")
def client(daemon, python_client):
    return python_client.Vampd(daemon.address)


@pytest.fixture(scope="module")
def folder(tmp_path_factory, clip):
    made = tmp_path_factory.mktemp("clients")
    (made / "song.wav").write_bytes(clip)
    return made


# ---- Python ----------------------------------------------------------------------------------------------------


def test_every_operation_is_a_method(client, daemon):
    names = {operation["operationId"] for item in daemon.document["paths"].values()
             for method, operation in item.items() if method != "parameters"}
    assert len(names) > 20 and names <= set(dir(client))
    for name in names:
        assert callable(getattr(client, name))
    with pytest.raises(AttributeError):
        client.no_such_operation


def test_vamp(client, daemon, clip, folder):
    answer = client.vamp(folder / "song.wav", preset="subtle", seed=7)
    assert answer.body == daemon.vamp(clip, {"preset": "subtle", "seed": 7}).body
    assert answer.seed == 7 and answer.media_type == "audio/wav"
    with open(folder / "song.wav", "rb") as file:
        assert client.vamp(file, params={"preset": "subtle"}, seed=7).body == answer.body
    document = client.vamp(clip, seed=7, accept="application/json")
    assert document["seed"] == 7 and document["mask"]["passes"]
    answer.save(folder / "saved.wav")
    assert (folder / "saved.wav").read_bytes() == answer.body and len(list(folder.glob("saved.wav*"))) == 1


def test_mixed(client, clip):
    mixed = client.vamp(clip, seed=7, accept="multipart/mixed")
    (json_type, document), (media_type, audio) = mixed.parts()
    assert (json_type, media_type) == ("application/json", "audio/wav")
    assert json.loads(document)["seed"] == 7 and audio == client.vamp(clip, seed=7).body


@pytest.mark.parametrize("arguments,pointer", [
    ({"mask": {"mask_ratio": 2}}, "/mask/mask_ratio"), ({"sed": 1}, "/sed"), ({"seed": -1}, "/seed"),
    ({"format": "mp3"}, "/format"), ({"sampling": {"steps": 1}}, "/sampling/steps"), ({"seed": "1"}, "/seed"),
    ({"mask": {"periodic_prompt": "bar"}}, "/mask/periodic_prompt"), ({"preset": 7}, "/preset"),
])
def test_arguments_are_checked_before_anything_is_sent(client, daemon, clip, arguments, pointer):
    with pytest.raises(ValueError, match=f"^{pointer} "):
        client.vamp(clip, **arguments)


@pytest.mark.parametrize("name,positional,arguments", [
    ("get_job", ("../x",), {}), ("list_jobs", (), {"limit": 0}), ("list_jobs", (), {"state": "finished"}),
    ("vamp", (), {"seed": 1}), ("vamp", ([b"", b""],), {}), ("create_sweep", (b"",), {"seed": 1}),
    ("create_sweep", (b"",), {"grid": {"seed": []}}),
])
def test_more_that_is_checked(client, name, positional, arguments):
    with pytest.raises(ValueError):
        client.call(name, *positional, **arguments)


def test_wrong_calls(client):
    for name, positional, arguments in (("get_job", (), {}), ("get_job", ("0" * 24, "x"), {}),
                                        ("models", (), {"colour": 1})):
        with pytest.raises(TypeError):
            client.call(name, *positional, **arguments)


def test_problems(client, clip, python_client):
    with pytest.raises(python_client.Problem) as caught:
        client.call("vamp", clip, mask={"mask_ratio": 2}, check=False)
    assert caught.value.status == 400 and caught.value.type == "/problems/invalid-field"
    assert caught.value.pointer == "/mask/mask_ratio" and "mask_ratio" in str(caught.value)
    with pytest.raises(python_client.Problem) as caught:
        client.get_job("0" * 24)
    assert caught.value.status == 404


def test_jobs(client, daemon, clip):
    seen = []
    jobs = client.create_jobs([clip, make_wav(0.5)], seed=1, variations=2)["jobs"]
    assert len(jobs) == 4
    finished = [client.wait(job, seen.append) for job in jobs]
    assert all(job["state"] == "done" for job in finished) and seen[-1].name == "done"
    assert client.wait(jobs[0]["id"])["state"] == "done"
    audio = client.job_audio(jobs[0]["id"])
    assert audio.body == client.vamp(clip, seed=1).body
    assert client.job_audio(jobs[0]["id"], format="flac").body.startswith(b"fLaC")
    assert client.job_audio(jobs[0]["id"], range="bytes=0-3").body == b"RIFF"
    assert client.job_input(jobs[0]["id"]).body == clip
    assert {job["id"] for job in client.list_jobs(limit=4)["jobs"]} == {job["id"] for job in jobs}
    assert client.delete_job(jobs[0]["id"]) is None


def test_sweeps(client, clip):
    seen = []
    sweep = client.sweep(clip, {"preset": ["subtle", "creative"], "seed": [1, 2]}, seen.append,
                         sampling={"coarse_steps": 2})
    assert sweep["states"]["done"] == 4 and seen[-1] == sweep
    assert client.sweep_archive(sweep["id"]).media_type == "application/zip"
    assert client.wait(sweep)["points"] == sweep["points"]


def test_codec(client, clip):
    tokens = client.encode(clip).body
    assert client.decode(tokens, format="flac").body.startswith(b"fLaC")


class Unreliable(http.server.BaseHTTPRequestHandler):
    """A door before the daemon that breaks event streams after a few hundred bytes, later each time, and is busy at first."""

    def do_GET(self):
        connection = self.server.daemon.connect()
        headers = {name: self.headers[name] for name in ("Last-Event-ID", "Accept") if self.headers[name]}
        self.server.resumed += "Last-Event-ID" in headers
        if self.path.startswith("/v1") and self.server.away > 0:
            self.server.away -= 1
            self.close_connection = True
            return
        if self.path.startswith("/v1") and self.server.busy > 0:
            self.server.busy -= 1
            self.send_response(503)
            self.send_header("Retry-After", "1")
            self.end_headers()
            return
        connection.request("GET", self.path, headers=headers)
        response = connection.getresponse()
        self.send_response(response.status)
        for name in ("Content-Type", "Retry-After"):
            if response.headers[name]:
                self.send_header(name, response.headers[name])
        self.end_headers()
        if "/events" not in self.path:
            self.wfile.write(response.read())
            return
        left = 400 + 200 * self.server.resumed  # in the middle of a line, mostly
        while left > 0 and (line := response.readline()):
            self.wfile.write(line.replace(b"retry: 2000", b"retry: 50")[:left])
            left -= len(line)
        connection.close()

    def log_message(self, *arguments):
        pass


@pytest.fixture
def unreliable(daemon):
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Unreliable)
    server.daemon, server.resumed, server.busy, server.away = daemon, 0, 0, 0
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def test_events_are_resumed(daemon, python_client, unreliable, long_job):
    (job,) = daemon.submit(*long_job(1))
    client = python_client.Vampd(f"http://127.0.0.1:{unreliable.server_address[1]}")
    events = list(client.events(job))
    assert unreliable.resumed > 1 and events[-1].name == "done"
    identifiers = [event.id for event in events]
    assert len(set(identifiers)) == len(identifiers)


def test_a_sweep_is_waited_for_while_the_daemon_is_away(daemon, python_client, unreliable, clip):
    client = python_client.Vampd(f"http://127.0.0.1:{unreliable.server_address[1]}")
    made = daemon.submit_sweep(clip, {"grid": {"seed": [1, 2]}, "sampling": {"coarse_steps": 1}}).json()
    client.models()
    unreliable.away, unreliable.busy = 1, 1
    assert client.wait(made)["states"]["done"] == 2 and unreliable.away == unreliable.busy == 0
    unreliable.away = 1
    with pytest.raises(OSError):
        client.wait(made, patience=-1)
    with pytest.raises(python_client.Problem):
        client.wait({**made, "id": "0" * 24})


def test_nobody_at_the_address(python_client, monkeypatch):
    with pytest.raises(ConnectionRefusedError, match="no daemon answers at http://127.0.0.1:1"):
        python_client.Vampd("http://127.0.0.1:1").models()
    monkeypatch.setenv("VAMPD", "127.0.0.1:8765")
    with pytest.raises(ValueError, match="'127.0.0.1:8765' is not the address"):
        python_client.Vampd()


def test_patience(daemon, python_client, unreliable):
    address = f"http://127.0.0.1:{unreliable.server_address[1]}"
    unreliable.busy = 1
    with pytest.raises(python_client.Problem) as caught:
        python_client.Vampd(address).models()
    assert caught.value.status == 503 and caught.value.retry_after == 1
    unreliable.busy = 2
    assert python_client.Vampd(address, patience=10).models()["models"][0]["name"] == "tiny"


# ---- Python's command line -------------------------------------------------------------------------------------


def run(daemon, folder, *arguments, code=0):
    environment = {**os.environ, "VAMPD": daemon.address, "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run([sys.executable, PYTHON_CLIENT, *arguments], cwd=folder, env=environment,
                          capture_output=True, timeout=60)
    assert done.returncode == code, done.stderr.decode()
    return done


def test_command_vamp(daemon, folder, clip):
    done = run(daemon, folder, "vamp", "song.wav", "-o", "out.wav", "--params", '{"preset": "subtle", "seed": 3}')
    assert b"seed 3" in done.stderr
    assert (folder / "out.wav").read_bytes() == daemon.vamp(clip, {"preset": "subtle", "seed": 3}).body
    (folder / "params.json").write_text('{"seed": 3}')
    run(daemon, folder, "vamp", "song.wav", "-o", "out.json", "--params", "@params.json")
    assert json.loads((folder / "out.json").read_text())["seed"] == 3
    failed = run(daemon, folder, "vamp", "song.wav", "-o", "new.wav", "--params", '{"sed": 3}', code=1)
    assert b"/sed" in failed.stderr and not (folder / "new.wav").exists()
    for params, complaint in (("@nowhere.json", b"nowhere.json"), ("{bad", b"{bad is not JSON: ")):
        refused = run(daemon, folder, "vamp", "song.wav", "-o", "new.wav", "--params", params, code=2).stderr
        assert complaint in refused and b"Traceback" not in refused
    assert b"nowhere.wav" in run(daemon, folder, "vamp", "nowhere.wav", "-o", "new.wav", code=1).stderr


def test_command_job(daemon, folder, clip):
    (folder / "other.wav").write_bytes(make_wav(0.5))
    done = run(daemon, folder, "job", "song.wav", "other.wav", "-o", "made", "--params", '{"seed": 1, "format": "flac"}')
    paths = done.stdout.decode().split()
    assert len(paths) == 2 and all((folder / path).read_bytes().startswith(b"fLaC") for path in paths)


def test_command_sweep(daemon, folder):
    run(daemon, folder, "sweep", "song.wav", "-o", "sweep.zip", "--grid", '{"mask.periodic_prompt": [3, 7]}')
    assert "point-0001.wav" in zipfile.ZipFile(folder / "sweep.zip").namelist()


def test_command_call(daemon, folder):
    assert json.loads(run(daemon, folder, "call", "health").stdout)["status"] == "ok"
    run(daemon, folder, "call", "masks", "frames=100", 'preset="rhythm"', "--accept", "image/png", "-o", "mask.png",
        code=1)  # it listens, so it needs a clip
    run(daemon, folder, "call", "masks", "audio=song.wav", 'preset="subtle"', "--accept", "image/png", "-o", "mask.png")
    assert (folder / "mask.png").read_bytes().startswith(b"\x89PNG")
    assert json.loads(run(daemon, folder, "call", "list_jobs", "limit=1", "state=done").stdout)["jobs"]
    assert b"no operation" in run(daemon, folder, "call", "frobnicate", code=1).stderr


# ---- JavaScript ------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not shutil.which("node"), reason="node is not installed")
def test_javascript(start, tmp_path, clip, long_job):
    """tests/http/js_client.mjs does the work; it prints a line for each thing it has seen to be right."""
    (tmp_path / "song.wav").write_bytes(clip)
    audio, params = long_job(1)
    (tmp_path / "long.wav").write_bytes(audio)
    (tmp_path / "long.json").write_text(json.dumps(params))
    with start("--max-queue", "4") as daemon:
        done = subprocess.run(["node", os.path.join(HERE, "js_client.mjs"), daemon.address, str(tmp_path)],
                              capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stdout + done.stderr
        assert done.stdout.splitlines()[-1] == "all"
        assert (tmp_path / "out.wav").read_bytes() == daemon.vamp(clip, {"preset": "subtle", "seed": 7}).body


def test_states_are_those_of_the_contract(daemon, python_client):
    states = daemon.document["components"]["schemas"]["State"]["enum"]
    assert tuple(states[-3:]) == FINISHED == python_client.FINISHED
