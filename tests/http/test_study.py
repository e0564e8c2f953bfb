"""clients/python/study.py: sweeps over several clips as one table, interrupted and taken up again."""
import csv
import json
import os
import statistics
import subprocess
import sys
import zipfile

import pytest

from harness import ROOT, make_wav

STUDY = os.path.join(ROOT, "clients", "python", "study.py")
GRID = {"mask.mask_ratio": [0.2, 0.8], "preset": ["subtle", "vampnet/small"], "mask.periodic_prompt": [3, 7]}
PARAMS = {"sampling": {"coarse_steps": 1, "fine_steps": 1}}
CLIPS = ["one/song.wav", "two/song.wav"]


@pytest.fixture
def folder(tmp_path):
    for number, name in enumerate(CLIPS):
        path = tmp_path / name
        path.parent.mkdir()
        path.write_bytes(make_wav(0.4 + 0.2 * number, seed=number))
    return tmp_path


def study(address, folder, *clips, grid=GRID, params=PARAMS, code=0, more=()):
    done = subprocess.run([sys.executable, STUDY, *clips, "-o", "out", "--grid", json.dumps(grid), "--params",
                           json.dumps(params), "--address", address, *more], cwd=folder, capture_output=True, text=True,
                          timeout=120, env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"})
    assert done.returncode == code, done.stderr
    return done


def rows(folder, name="table.csv"):
    with open(folder / "out" / name, newline="") as file:
        return list(csv.DictReader(file))


def test_a_table_of_all_clips(daemon, folder):
    assert study(daemon.address, folder, *CLIPS).stdout == "out/table.csv\n"
    table, means = rows(folder), rows(folder, "means.csv")
    assert [row["clip"] for row in table] == [CLIPS[0]] * 8 + [CLIPS[1]] * 8
    assert {row["state"] for row in table} == {"done"} and len({row["seed"] for row in table}) == 1
    for row in table[::5]:
        job = daemon.job(row["job"])
        assert job["params"]["mask"]["mask_ratio"] == float(row["mask.mask_ratio"]) and job["params"]["sampling"]
        assert float(row["log_mel_db"]) == pytest.approx(job["measures"]["log_mel_db"], rel=1e-6)
    assert [(row["axis"], row["value"]) for row in means] == [
        ("clip", CLIPS[0]), ("clip", CLIPS[1]), ("mask.mask_ratio", "0.2"), ("mask.mask_ratio", "0.8"),
        ("preset", "subtle"), ("preset", "vampnet/small"), ("mask.periodic_prompt", "3"),
        ("mask.periodic_prompt", "7")]
    for row in means[2:]:
        group = [one for one in table if one[row["axis"]] == row["value"]]
        assert int(row["points"]) == len(group) == 8
        for name in ("density_overall", "changed_coarse", "log_mel_db"):
            assert float(row[name]) == pytest.approx(statistics.mean(float(one[name]) for one in group), rel=1e-5)


def test_interrupted_it_goes_on(daemon, folder):
    study(daemon.address, folder, CLIPS[0])
    first, state = rows(folder), json.loads((folder / "out" / "study.json").read_text())
    assert len(first) == 8
    # What is finished needs no daemon any more.
    study("http://127.0.0.1:1", folder, CLIPS[0])
    # A table that was not fetched yet: the sweep is taken up, and no other is made.
    (table,) = (folder / "out" / "tables").iterdir()
    table.unlink()
    study(daemon.address, folder, *CLIPS)
    assert rows(folder)[:8] == first and rows(folder)[8]["seed"] == first[0]["seed"]
    # A sweep that was forgotten is made again, with the same seed and so with the same results.
    assert daemon.request("DELETE", f"/v1/sweeps/{state['clips'][CLIPS[0]]['sweep']}").status == 204
    table.unlink()
    assert "made again" in study(daemon.address, folder, *CLIPS, more=["--archives"]).stderr
    again = rows(folder)
    assert [row["log_mel_db"] for row in again[:8]] == [row["log_mel_db"] for row in first]
    assert again[0]["job"] != first[0]["job"]
    zips = sorted((folder / "out" / "tables").glob("*.zip"))
    assert len(zips) == 2 and "point-0007.wav" in zipfile.ZipFile(zips[0]).namelist()


def test_one_table_has_one_meaning(daemon, folder):
    assert "1.5" in study(daemon.address, folder, CLIPS[0], grid={"mask.mask_ratio": [1.5]}, code=1).stderr
    assert not (folder / "out").exists()                                  # so that it can be said again, rightly
    grid = {"mask.mask_ratio": [0.5]}
    study(daemon.address, folder, CLIPS[0], grid=grid)
    before = rows(folder)
    for other in ({"grid": {"mask.mask_ratio": [0.6]}}, {"params": {**PARAMS, "seed": 1}}, {"params": {}}):
        assert "another folder" in study(daemon.address, folder, CLIPS[0], **{"grid": grid, **other}, code=1).stderr
    (folder / CLIPS[0]).write_bytes(make_wav(0.3))
    assert "not the file that it was" in study(daemon.address, folder, CLIPS[0], grid=grid, code=1).stderr
    assert "nowhere.wav" in study(daemon.address, folder, "nowhere.wav", grid=grid, code=1).stderr
    assert rows(folder) == before
