"""Flags, environment, configuration file, key file, SIGHUP, and what --check-config and --new-key print."""
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import time

import pytest

from harness import ENVIRONMENT, ROOT, VAMPD

SECONDS = 30


def vampd(*flags, program=VAMPD, folder=ROOT, **variables):
    return subprocess.run([str(program), *map(str, flags)], capture_output=True, text=True, timeout=60, cwd=folder,
                          env={**ENVIRONMENT, **variables})


def checked(result):
    """What --check-config said: name -> (value, source)."""
    assert result.returncode == 0, result.stderr
    rows = re.findall(r"^(\S+) = (.*?) *; (.*)$", result.stdout, re.M)
    return {name: (value, source) for name, value, source in rows}


def new_key(name):
    """A fresh key and its section."""
    result = vampd("--new-key", name)
    assert result.returncode == 0, result.stderr
    key, section = re.fullmatch(r"(vk_[0-9a-f]{64})\n(.*)", result.stdout, re.S).groups()
    assert key not in section
    return key, section


def write_keys(path, *sections):
    path.write_text("\n".join(sections))
    path.chmod(0o600)
    return path


def wait_for_line(daemon, text, since=0):
    deadline = time.monotonic() + SECONDS
    while True:
        found = [line for line in daemon.log[since:] if text in line]
        if found:
            return found[-1]
        assert time.monotonic() < deadline, f"the log never said {text}:\n" + "".join(daemon.log)
        time.sleep(0.01)


def reload(daemon, expect=" reload "):
    since = len(daemon.log)
    daemon.process.send_signal(signal.SIGHUP)
    return wait_for_line(daemon, expect, since)


# ---- before serving --------------------------------------------------------------------------------------------


def test_a_model_is_found_by_its_name(model, tmp_path):
    """From any working folder, as the command line finds it: vampd alone looked for models/small in the current one."""
    for folder in ("bin", "share/vampd/models", "elsewhere"):
        (tmp_path / folder).mkdir(parents=True)
    program = shutil.copy(VAMPD, tmp_path / "bin" / "vampd")
    (tmp_path / "share/vampd/models/mine").symlink_to(model)
    asked = {"program": program, "folder": tmp_path / "elsewhere"}
    assert checked(vampd("--check-config", "--model", "mine", **asked))["model"] == ("mine", "flag")
    assert vampd("--check-config", "--model", model, **asked).returncode == 0
    for name, why in [("other", "found no model 'other'"), ("./mine", "there is none of this path"), (tmp_path, "no model.json"),
                      ("x" * 5000, "is not a model folder")]:
        refused = vampd("--check-config", "--model", name, **asked)
        assert refused.returncode == 2 and why in refused.stderr, refused.stderr


def test_check_config(model, tmp_path):
    config = tmp_path / "vampd.ini"
    config.write_text(f"# a lab\nmodel = {model}\nmax-queue = 5\nmax-seconds = 50\ntimeout = 6\n")
    result = vampd("--check-config", "--config", config, "--timeout", 8, VAMPD_MAX_SECONDS="70", VAMPD_TIMEOUT="7")
    values = checked(result)
    assert values["max-queue"] == ("5", f"{config}:3")
    assert values["max-seconds"] == ("70", "environment")
    assert values["timeout"] == ("8", "flag")
    assert values["grace"] == ("20", "default")
    assert checked(vampd("--check-config", VAMPD_CONFIG=str(config)))["timeout"] == ("6", f"{config}:5")
    again = tmp_path / "again.ini"
    again.write_text(result.stdout)
    assert {name: value for name, (value, _) in checked(vampd("--check-config", "--config", again)).items()} == \
        {name: value for name, (value, _) in values.items()}


def test_every_option_is_flag_variable_and_key(tmp_path):
    """Whatever --check-config lists can be given in all three ways, and --help has it."""
    values = checked(vampd("--check-config"))
    help_text = vampd("--help").stdout
    assert len(values) >= 20
    for name, (value, _) in values.items():
        assert f"--{name}" in help_text
        variable = "VAMPD_" + name.upper().replace("-", "_")
        config = tmp_path / f"{name}.ini"
        config.write_text(f"{name} = {value}\n")
        assert checked(vampd("--check-config", f"--{name}={value}"))[name] == (value, "flag")
        assert checked(vampd("--check-config", **{variable: value}))[name] == (value, "environment")
        assert checked(vampd("--check-config", "--config", config))[name] == (value, f"{config}:1")


def test_every_option_is_on_the_page():
    """docs/operating.md has the options, their defaults, and which of them a reload changes."""
    with open(os.path.join(ROOT, "docs", "operating.md"), encoding="utf-8") as file:
        page = re.findall(r"^\| `([a-z-]+)` \| (?:`(.*?)`)? ?\| (\*?)", file.read(), re.M)
    help_text = vampd("--help").stdout
    live = re.findall(r"^  --([a-z-]+) .* \* ", help_text, re.M)
    assert [(name, value) for name, value, _ in page] == \
        [(name, value) for name, (value, _) in checked(vampd("--check-config")).items()]
    assert [name for name, _, mark in page if mark] == live


@pytest.mark.parametrize("text,said", [
    ("max-queue = 5\nmax-que = 6\n", ":2: max-que"), ("port = eighty\n", ":1: port"), ("port 80\n", ":1: "),
    ("[vampd]\nport = 80\n", "section"), ("keys = nowhere.ini\n", "nowhere.ini"), ("host = 0.0.0.0\n", "--keys"),
    ("devices = 0,0\n", ":1: devices"), ("devices = 1;2\n", ":1: devices"), ("devices = 64\n", ":1: devices"),
    ("devices = all,1\n", ":1: devices"), ("devices =\n", ":1: devices"),
    ("cors-origins = example.org\n", "example.org"), ("model = /nowhere\n", "/nowhere"), ("port = 1\nport = 2\n", ":2: port"),
])
def test_wrong_file(tmp_path, text, said):
    config = tmp_path / "vampd.ini"
    config.write_text(text)
    for flags in (["--check-config"], ["--port", "0"]):
        result = vampd("--config", config, *flags)
        assert result.returncode == (1 if "model" in text and flags != ["--check-config"] else 2)
        assert said in result.stderr and "listening" not in result.stderr


def test_wrong_variable():
    result = vampd("--check-config", VAMPD_MAX_QUEUES="5")
    assert result.returncode == 2 and "VAMPD_MAX_QUEUES" in result.stderr


def test_key_file_that_others_may_write_to(tmp_path):
    keys = write_keys(tmp_path / "keys.ini", new_key("lab")[1])
    assert "; 1 key in" in vampd("--check-config", "--keys", keys).stdout
    keys.chmod(0o666)
    result = vampd("--check-config", "--keys", keys)
    assert result.returncode == 2 and "chmod go-w" in result.stderr


def test_new_key():
    key, section = new_key("a.lab")
    assert key != new_key("a.lab")[0]
    digest = subprocess.run(["sha256sum"], input=key, capture_output=True, text=True, check=True).stdout.split()[0]
    assert f"[a.lab]\nhash = sha256:{digest}\n" in section
    assert vampd("--new-key", "a lab").returncode == 2


def test_public_address_needs_keys(start, model, tmp_path):
    assert vampd("--model", model, "--port", "0", "--host", "0.0.0.0").returncode == 2
    keys = write_keys(tmp_path / "keys.ini", new_key("lab")[1])
    for flags in (["--keys", str(keys)], ["--allow-remote"]):
        with start("--host", "0.0.0.0", *flags, wait=False) as daemon:
            wait_for_line(daemon, "vampd listening on http://0.0.0.0:")


# ---- keys ------------------------------------------------------------------------------------------------------


def ask(daemon, key=None, path="/v1/models", **headers):
    if key:
        headers["Authorization"] = f"Bearer {key}"
    return daemon.request("GET", path, headers={name.replace("_", "-"): value for name, value in headers.items()})


def test_keys(start, tmp_path):
    (lab, lab_section), (studio, studio_section) = new_key("lab"), new_key("studio")
    keys = write_keys(tmp_path / "keys.ini", lab_section)
    with start("--keys", str(keys)) as daemon:
        for path in ("/healthz", "/readyz", "/openapi.json"):
            assert ask(daemon, path=path).status == 200
        refused = ask(daemon)
        assert refused.status == 401 and refused.json()["type"] == "/problems/unauthorized"
        assert refused.headers["WWW-Authenticate"].startswith("Bearer")
        assert ask(daemon, studio).status == 401
        assert ask(daemon, lab).status == 200

        write_keys(keys, studio_section, "priority = 11\n")
        assert "keys.ini" in reload(daemon, "nothing is changed")
        assert ask(daemon, lab).status == 200

        write_keys(keys, studio_section)
        assert "keys=1" in reload(daemon)
        assert ask(daemon, lab).status == 401
        assert ask(daemon, studio).status == 200


def test_rate_of_a_key(start, tmp_path):
    (slow, slow_section), (free, free_section) = new_key("slow"), new_key("free")
    slow_section = slow_section.replace("requests-per-minute = 0", "requests-per-minute = 3")
    keys = write_keys(tmp_path / "keys.ini", slow_section, free_section)
    with start("--keys", str(keys)) as daemon:
        assert [ask(daemon, slow).status for _ in range(3)] == [200] * 3
        refused = ask(daemon, slow)
        assert refused.status == 429 and refused.json()["type"] == "/problems/rate-limited"
        assert 18 <= int(refused.headers["Retry-After"]) <= 20
        assert ask(daemon, free).status == 200
        reload(daemon)  # does not fill the bucket again
        assert ask(daemon, slow).status == 429


def test_cors(start, tmp_path):
    config = tmp_path / "vampd.ini"
    config.write_text("cors-origins = https://studio.example.org\n")
    with start("--config", str(config)) as daemon:
        allowed = ask(daemon, Origin="https://studio.example.org")
        assert allowed.headers["Access-Control-Allow-Origin"] == "https://studio.example.org"
        assert "Vampd-" in allowed.headers["Access-Control-Expose-Headers"] and allowed.headers["Vary"] == "Origin"
        assert "Access-Control-Allow-Origin" not in ask(daemon, Origin="https://evil.example").headers
        config.write_text("cors-origins = https://evil.example\n")
        reload(daemon)
        assert ask(daemon, Origin="https://evil.example").headers["Access-Control-Allow-Origin"] == \
            "https://evil.example"


# ---- SIGHUP ----------------------------------------------------------------------------------------------------


def test_reload(start, tmp_path):
    config = tmp_path / "vampd.ini"
    config.write_text("max-queue = 1\nkeep-hours = 5\n")
    with start("--config", str(config)) as daemon:
        config.write_text("max-queue = 2\nworkers = 3\ntimeout = 9\n")
        assert reload(daemon, "need a restart").endswith("need a restart: workers, timeout\n")
        assert wait_for_line(daemon, "setting name=max-queue").endswith("value=2 before=1\n")
        assert wait_for_line(daemon, "setting name=keep-hours").endswith("value=168 before=5\n")
        config.write_text("max-queue = 3\nnonsense = 1\n")
        assert "vampd.ini:2: nonsense" in reload(daemon, "nothing is changed")
        config.unlink()
        assert "vampd.ini" in reload(daemon, "nothing is changed")
        assert daemon.request("GET", "/healthz").status == 200
        assert not [line for line in daemon.log if "value=3" in line]


def test_reload_under_load(start, clip, tmp_path):
    """Reloads while requests run change nothing about them."""
    config = tmp_path / "vampd.ini"
    config.write_text("max-queue = 8\n")
    with start("--config", str(config)) as daemon:
        alone = daemon.vamp(clip, {"seed": 3}).body
        for number in range(8):
            config.write_text(f"max-queue = {8 + number}\nlog-format = {'json' if number % 2 else 'plain'}\n")
            daemon.process.send_signal(signal.SIGHUP)
            assert daemon.vamp(clip, {"seed": 3}).body == alone


# ---- the log ---------------------------------------------------------------------------------------------------


def test_json_log(start, clip):
    daemon = start("--log-format", "json", wait=False)
    line = wait_for_line(daemon, '"listening"')
    daemon.port = int(json.loads(line)["address"].rsplit(":", 1)[1])
    daemon.document = daemon.request("GET", "/openapi.json", check=False).json()
    name = daemon.vamp(clip).headers["Vampd-Request-Id"]
    request = json.loads(wait_for_line(daemon, name))
    assert daemon.stop() == 0
    lines = [json.loads(line) for line in daemon.log]
    assert all(set(line) > {"time", "event"} for line in lines)
    assert {"message", "listening", "request"} <= {line["event"] for line in lines}
    assert request["id"] == name and request["status"] == 200 and isinstance(request["seconds"], float)


# ---- the supervisor --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("abstract", [False, True])
def test_supervisor_is_told(model, tmp_path, abstract):
    name = f"@vampd-test-{os.getpid()}" if abstract else str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind("\0" + name[1:] if abstract else name)
        listener.settimeout(60)
        process = subprocess.Popen([VAMPD, "--model", model, "--port", "0"], stderr=subprocess.DEVNULL, cwd=ROOT,
                                   env={**ENVIRONMENT, "NOTIFY_SOCKET": name})
        try:
            assert listener.recv(100) == b"READY=1"
            process.terminate()
            assert listener.recv(100) == b"STOPPING=1"
            assert process.wait(60) == 0
        finally:
            process.kill()
            process.wait()
