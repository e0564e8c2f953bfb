"""`make install` into a temporary folder: what is there, that it is whole, and that it runs."""
import os
import re
import shutil
import subprocess

import pytest

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BUILD = os.path.abspath(os.environ.get("VAMP_BUILD", os.path.join(ROOT, "build")))


def make_install(**variables):
    # Built already: -o build keeps make from doing it again, with other flags than whoever built it.
    return subprocess.run(["make", "-o", "build", "install", f"BUILD={BUILD}",
                           *(f"{name}={value}" for name, value in variables.items())],
                          cwd=ROOT, capture_output=True, text=True, timeout=120)


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """A prefix of its own, so that all paths in the files are real."""
    folder = tmp_path_factory.mktemp("install")
    variables = {"PREFIX": folder / "usr", "SYSCONFDIR": folder / "etc", "UNITDIR": folder / "units"}
    result = make_install(**variables)
    assert result.returncode == 0, result.stderr
    return folder, variables


def vampd(folder, *flags):
    return subprocess.run([folder / "usr/bin/vampd", *flags], capture_output=True, text=True, timeout=60, cwd=folder)


def test_everything_is_there(installed):
    folder, _ = installed
    for name in ("usr/bin/vamp", "usr/bin/vampd", "usr/share/vampd/models/small/model.json",
                 "usr/share/man/man1/vamp.1", "usr/share/man/man8/vampd.8", "units/vampd.service",
                 "usr/share/doc/vampd/operating.md", "etc/vampd/vampd.ini", "etc/vampd/keys.ini"):
        path = folder / name
        assert path.is_file() and path.stat().st_size > 0, name
        assert path.stat().st_mode & 0o777 == (0o755 if "/bin/" in name else 0o644), name
    for top, _, names in os.walk(folder):
        for name in names:
            if name.endswith((".ini", ".service", ".1", ".8")):
                with open(os.path.join(top, name), encoding="utf-8") as file:
                    assert not re.search(r"@[A-Z]+@", file.read()), name


def test_destdir_is_put_before_and_nowhere_else(tmp_path):
    result = make_install(DESTDIR=tmp_path)
    assert result.returncode == 0, result.stderr
    assert sorted(os.listdir(tmp_path)) == ["etc", "usr"]
    unit = (tmp_path / "usr/local/lib/systemd/system/vampd.service").read_text()
    assert "ExecStart=/usr/local/bin/vampd --config /etc/vampd/vampd.ini" in unit
    assert str(tmp_path) not in unit + (tmp_path / "etc/vampd/vampd.ini").read_text()


def test_what_an_operator_changed_stays(tmp_path):
    assert make_install(DESTDIR=tmp_path).returncode == 0
    for name in ("vampd.ini", "keys.ini"):
        (tmp_path / "etc/vampd" / name).write_text("; mine\n")
    assert make_install(DESTDIR=tmp_path).returncode == 0
    for name in ("vampd.ini", "keys.ini"):
        assert (tmp_path / "etc/vampd" / name).read_text() == "; mine\n"
    assert "max-queue" in (tmp_path / "usr/local/share/doc/vampd/vampd.ini").read_text()


def rows_of(text):
    return re.findall(r"^(\S+) = (.*?) *; (.*)$", text, re.M)


def test_installed_configuration(installed):
    folder, _ = installed
    config = folder / "etc/vampd/vampd.ini"
    result = vampd(folder, "--config", config, "--check-config")
    assert result.returncode == 0, result.stderr
    rows = {name: (value, source) for name, value, source in rows_of(result.stdout)}
    assert rows["model"][0] == str(folder / "usr/share/vampd/models/small")
    assert [name for name, (_, source) in rows.items() if source != "default"] == ["model"]
    # What is commented out shows the default, of every option but two; or an example where there is none.
    shown = dict(re.findall(r"^;?([a-z-]+) = (.*)$", config.read_text(), re.M))
    assert set(rows) - set(shown) == {"allow-remote", "data-dir"} and set(shown) <= set(rows)
    for name, value in shown.items():
        assert rows[name][0] in (value, ""), name
    # And the marks for what a reload changes are those of --help.
    live = {name for name in rows if re.search(rf"^  --{name} +(?:\S+ +)?\* ", vampd(folder, "--help").stdout, re.M)}
    marked, mark = set(), False
    for line in config.read_text().splitlines():
        option = re.match(r";?([a-z-]+) = ", line)
        if option:
            marked |= {option[1]} if mark else set()
        else:
            mark = line.startswith("; *")
    assert marked == live


def test_installed_key_file(installed):
    folder, _ = installed
    keys = folder / "etc/vampd/keys.ini"
    result = vampd(folder, "--config", folder / "etc/vampd/vampd.ini", "--keys", keys, "--check-config")
    assert result.returncode == 0 and "; 0 keys in" in result.stdout, result.stderr
    # Its example, uncommented, is one.
    example = keys.parent / "example.ini"
    example.write_text(re.sub(r"^;(?=\[|[a-z-]+ = )", "", keys.read_text(), flags=re.M))
    example.chmod(0o644)
    result = vampd(folder, "--config", folder / "etc/vampd/vampd.ini", "--keys", example, "--check-config")
    assert result.returncode == 0 and "; 1 key in" in result.stdout, result.stderr


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="no systemd-analyze")
def test_unit(installed):
    folder, _ = installed
    unit = folder / "units/vampd.service"
    result = subprocess.run(["systemd-analyze", "verify", "--man=no", unit], capture_output=True, text=True, timeout=60)
    assert result.returncode == 0 and "vampd" not in result.stderr, result.stderr
    result = subprocess.run(["systemd-analyze", "security", "--offline=true", "--threshold=20", unit],
                            capture_output=True, text=True, timeout=60)
    assert result.returncode == 0, result.stdout


@pytest.mark.skipif(not shutil.which("man"), reason="no man")
@pytest.mark.parametrize("page", ["man1/vamp.1", "man8/vampd.8"])
def test_man_pages(installed, page):
    folder, _ = installed
    result = subprocess.run(["man", "--warnings", "-l", folder / "usr/share/man" / page], capture_output=True, text=True,
                            timeout=60, env={**os.environ, "LC_ALL": "C.UTF-8", "MANWIDTH": "100"})
    assert result.returncode == 0 and result.stderr == "" and "SYNOPSIS" in result.stdout
