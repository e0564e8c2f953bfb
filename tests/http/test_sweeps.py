"""Sweeps: a grid over any parameters on one clip. Every answer is also checked against the contract."""
import base64
import csv
import io
import json
import time
import zipfile

import pytest

from harness import make_wav
from test_access import LAB, write_keys
from test_errors import problem
from test_events import Stream
from test_metrics import scrape, total

NOBODY = "0123456789abcdef01234567"
GRID = {"mask.mask_ratio": [0.2, 0.8], "mask.periodic_prompt": [3, 7, 13]}
PARAMS = {"seed": 4, "sampling": {"coarse_steps": 2}}


@pytest.fixture(scope="module")
def sweep(daemon, clip):
    """One that is finished."""
    made = daemon.submit_sweep(clip, {**PARAMS, "grid": GRID})
    assert made.status == 202, made.body
    assert made.headers["Location"] == f"/v1/sweeps/{made.json()['id']}" == made.json()["links"]["self"]
    assert made.json()["points_total"] == 6
    return daemon.wait_for_sweep(made.json()["id"])


def test_points(sweep):
    assert sweep["states"] == {"queued": 0, "running": 0, "done": 6, "failed": 0, "cancelled": 0}
    assert sweep["progress"] == 1 and sweep["estimate_seconds"] is None and sweep["grid"] == GRID
    expected = [{"mask.mask_ratio": ratio, "mask.periodic_prompt": prompt}
                for ratio in (0.2, 0.8) for prompt in (3, 7, 13)]
    assert [point["values"] for point in sweep["points"]] == expected
    assert [point["point"] for point in sweep["points"]] == list(range(6))
    density = [point["density"]["overall"] for point in sweep["points"]]
    assert all(density[i] < density[i + 3] for i in range(3)) and density[:3] == sorted(density[:3])
    assert all(point["measures"] and point["changed"] for point in sweep["points"])


def test_each_point_is_what_it_would_be_alone(daemon, clip, sweep):
    for point in sweep["points"]:
        mask = {name.removeprefix("mask."): value for name, value in point["values"].items()}
        job = daemon.job(point["job"])
        assert job["sweep"] == {"id": sweep["id"], "point": point["point"], "values": point["values"]}
        assert job["seed"] == 4 and job["measures"] == point["measures"]
        assert daemon.get(job["links"]["audio"]).body == daemon.vamp(clip, {**PARAMS, "mask": mask}).body


def test_the_clip_is_encoded_once(daemon, sweep):
    """All but the first point find the tokens there."""
    times = sorted(daemon.job(point["job"])["timings"]["encode"] for point in sweep["points"])
    assert times[0] == 0 or sum(times[:5]) < times[5]


def test_a_seed_for_every_point(daemon, clip):
    made = daemon.submit_sweep(clip, {"grid": {"preset": ["subtle", "creative"]}, "sampling": {"coarse_steps": 1}})
    seeds = {daemon.job(point["job"])["seed"] for point in made.json()["points"]}
    assert len(seeds) == 1
    made = daemon.submit_sweep(clip, {"grid": {"seed": [5, 6, 7]}, "sampling": {"coarse_steps": 1}}).json()
    assert [daemon.job(point["job"])["seed"] for point in made["points"]] == [5, 6, 7]
    assert daemon.wait_for_sweep(made["id"])["states"]["done"] == 3


def test_from_json(daemon, clip):
    answer = daemon.post("/v1/sweeps", {"audio": base64.b64encode(clip).decode(), "seed": 1,
                                        "grid": {"sampling.temperature": [0.5, 1.5]}})
    assert answer.status == 202 and daemon.wait_for_sweep(answer.json()["id"])["states"]["done"] == 2


def test_jobs_of_a_sweep(daemon, sweep):
    jobs = daemon.get(f"/v1/jobs?sweep={sweep['id']}&limit=1000").json()["jobs"]
    assert {job["id"] for job in jobs} == {point["job"] for point in sweep["points"]}


def test_pages_of_jobs_of_a_sweep(daemon, sweep):
    found, path = [], f"/v1/jobs?sweep={sweep['id']}&limit=2"
    while path and len(found) < 20:
        page = daemon.get(path).json()
        found, path = found + [job["sweep"]["point"] for job in page["jobs"]], page.get("next")
    assert found == [5, 4, 3, 2, 1, 0]
    done = daemon.get(f"/v1/jobs?sweep={sweep['id']}&state=done&limit=3").json()["jobs"]
    assert [job["sweep"]["point"] for job in done] == [5, 4, 3]
    assert daemon.get(f"/v1/jobs?sweep={sweep['id']}&state=failed").json() == {"jobs": []}


def test_listed_as_it_is(daemon, sweep, clip, long_job):
    """A finished one, and one of which some points run."""
    def listed(identifier):
        return {one["id"]: one for one in daemon.get("/v1/sweeps?limit=200").json()["sweeps"]}[identifier]
    assert listed(sweep["id"]) == {name: value for name, value in sweep.items() if name != "points"}
    audio, params = long_job(60)
    made = daemon.submit_sweep(audio, {**params, "grid": {"seed": list(range(20))}}).json()
    daemon.wait_for(made["points"][0]["job"], "generating")
    answers = []
    while len(answers) < 3 or answers[-3]["states"] != answers[-1]["states"]:  # nothing has changed between
        answers += [daemon.get(made["links"]["self"]).json(), listed(made["id"]),
                    daemon.get(made["links"]["self"]).json()]
    before, entry, after = answers[-3:]
    assert entry["states"] == after["states"] and 1 <= entry["states"]["running"] < 20
    assert sum(point["state"] != "queued" for point in after["points"]) == after["states"]["running"]
    assert before["progress"] <= entry["progress"] <= after["progress"] and entry["estimate_seconds"] > 0
    daemon.request("DELETE", made["links"]["self"])
    daemon.wait_for_sweep(made["id"])
    daemon.request("DELETE", made["links"]["self"])


def test_a_long_grid_is_not_listed(daemon, clip):
    grid = {"mask.seed": list(range(10 ** 8, 10 ** 8 + 1000))}
    made = daemon.submit_sweep(clip, {**PARAMS, "grid": grid}).json()
    entry = daemon.get("/v1/sweeps?limit=1").json()["sweeps"][0]
    assert entry["id"] == made["id"] and entry["grid"] == {} and entry["points_total"] == 1000
    assert made["grid"] == grid == daemon.get(made["links"]["self"]).json()["grid"]
    daemon.request("DELETE", made["links"]["self"])
    daemon.wait_for_sweep(made["id"])
    daemon.request("DELETE", made["links"]["self"])


def test_list(daemon, sweep):
    sweeps = daemon.get("/v1/sweeps?limit=200").json()["sweeps"]
    assert sweep["id"] in {one["id"] for one in sweeps} and not any("points" in one for one in sweeps)
    page = daemon.get("/v1/sweeps?limit=1").json()
    assert len(page["sweeps"]) == 1
    if len(sweeps) > 1:
        following = daemon.get(page["next"]).json()["sweeps"]
        assert following[0]["number"] < page["sweeps"][0]["number"]


def test_table(daemon, sweep):
    answer = daemon.get(f"/v1/sweeps/{sweep['id']}/table.csv")
    rows = list(csv.DictReader(io.StringIO(answer.body.decode())))
    assert len(rows) == 6
    for row, point in zip(rows, sweep["points"]):
        assert int(row["point"]) == point["point"] and row["job"] == point["job"] and row["state"] == "done"
        for name, value in point["values"].items():
            assert float(row[name]) == value
        for name, value in point["measures"].items():
            assert row[name] == "" if value is None else float(row[name]) == pytest.approx(value, rel=1e-4, abs=1e-6)


def test_no_column_is_there_twice(daemon, clip, sweep):
    made = daemon.submit_sweep(clip, {"grid": {"seed": [5, 6]}, "sampling": {"coarse_steps": 1}}).json()
    daemon.wait_for_sweep(made["id"])
    for one, seeds in ((made["id"], ["5", "6"]), (sweep["id"], ["4"] * 6)):
        header, *rows = csv.reader(io.StringIO(daemon.get(f"/v1/sweeps/{one}/table.csv").body.decode()))
        assert len(set(header)) == len(header)
        assert [row[header.index("seed")] for row in rows] == seeds and {len(row) for row in rows} == {len(header)}


def test_an_archive_says_how_to_repeat_its_points(daemon, sweep, vamp, model, tmp_path):
    """From the archive alone, without the daemon: the same bytes, from the command line."""
    with zipfile.ZipFile(io.BytesIO(daemon.get(sweep["links"]["archive"]).body)) as archive:
        archive.extractall(tmp_path)
    for point in json.loads((tmp_path / "sweep.json").read_text())["points"][::5]:
        assert point["params"] == daemon.job(point["job"])["params"]
        (tmp_path / "params.json").write_text(json.dumps(point["params"]))
        vamp("run", tmp_path / "input", "-o", tmp_path / "again.wav", "--params", f"@{tmp_path}/params.json",
             "-m", model, "--backend", point["backend"], "--precision", point["precision"])
        stored = (tmp_path / f"point-{point['point']:04}.wav").read_bytes()
        assert (tmp_path / "again.wav").read_bytes() == stored


def test_archive(daemon, clip, sweep):
    answer = daemon.get(sweep["links"]["archive"])
    assert answer.headers["Content-Type"] == "application/zip"
    with zipfile.ZipFile(io.BytesIO(answer.body)) as archive:
        assert archive.testzip() is None
        names = set(archive.namelist())
        expected = {"sweep.csv", "sweep.json"}
        for point in sweep["points"]:
            stem = f"point-{point['point']:04}"
            expected |= {stem + ".wav", stem + ".mask.png"}
            assert archive.read(stem + ".wav") == daemon.get(f"/v1/jobs/{point['job']}/audio?format=wav").body
            assert archive.read(stem + ".mask.png").startswith(b"\x89PNG")
        (source,) = names - expected
        assert source.startswith("input") and archive.read(source) == clip and names > expected
        assert archive.read("sweep.csv") == daemon.get(f"/v1/sweeps/{sweep['id']}/table.csv").body
        inside = json.loads(archive.read("sweep.json"))
        assert inside["id"] == sweep["id"] and len(inside["points"]) == 6


def test_ranges_of_the_archive(daemon, sweep):
    whole = daemon.get(sweep["links"]["archive"])
    assert daemon.get(sweep["links"]["archive"]).body == whole.body
    part = daemon.get(sweep["links"]["archive"], Range="bytes=100-199")
    assert part.status == 206 and part.body == whole.body[100:200]
    assert daemon.get(sweep["links"]["archive"], If_None_Match=whole.headers["ETag"]).status == 304
    head = daemon.request("HEAD", sweep["links"]["archive"])
    assert int(head.headers["Content-Length"]) == len(whole.body)


@pytest.mark.parametrize("grid,pointer", [
    (None, "/grid"), ({}, "/grid"), ([], "/grid"), ({"mask.mask_ratio": []}, "/grid/mask.mask_ratio"),
    ({"mask.mask_ratio": 0.5}, "/grid/mask.mask_ratio"), ({"mask.mask_ratio": [0.5, 1.5]}, "/grid/mask.mask_ratio"),
    ({"mask.ratio": [0.5]}, "/grid/mask.ratio"), ({"colour": ["red"]}, "/grid/colour"),
    ({"sampling.temperature": [1, "hot"]}, "/grid/sampling.temperature"), ({"preset": ["subtil"]}, "/grid/preset"),
    ({"seed": [-1]}, "/grid/seed"), ({"": [1]}, "/grid"), ({"mask..x": [1]}, "/grid/mask..x"),
    ({"seed": list(range(4097))}, "/grid"), ({"seed": list(range(100)), "mask.seed": list(range(100))}, "/grid"),
    ({"variations": [1, 2]}, "/grid/variations"), ({"audio": ["x"]}, "/grid/audio"),
])
def test_what_cannot_be_done_is_not_accepted(daemon, clip, grid, pointer):
    before = daemon.get("/v1/sweeps?limit=1").json()["sweeps"]
    answer = daemon.submit_sweep(clip, {} if grid is None else {"grid": grid})
    assert answer.status in (400, 413), answer.body
    assert answer.json()["type"] in ("/problems/invalid-field", "/problems/too-large"), answer.body
    found = answer.json()["pointer"]
    assert found == pointer or found.startswith(pointer + "/"), answer.body
    assert daemon.get("/v1/sweeps?limit=1").json()["sweeps"] == before


def test_other_errors(daemon, clip):
    problem(daemon.submit_sweep(clip, {"grid": GRID, "variations": 2}), 400, "invalid-field", "/variations")
    problem(daemon.submit_sweep(clip, {"grid": GRID, "mask": {"mask_ratio": 2}}), 400, "invalid-field",
            "/mask/mask_ratio")
    problem(daemon.form("/v1/sweeps", ("params", json.dumps({"grid": GRID}).encode())), 400, "invalid-field", "/audio")
    problem(daemon.form("/v1/sweeps", ("audio", clip), ("audio", clip)), 400, "invalid-field", "/audio")
    for path in ("", "/archive.zip", "/table.csv"):
        problem(daemon.get(f"/v1/sweeps/{NOBODY}{path}"), 404, "not-found")
    problem(daemon.request("DELETE", f"/v1/sweeps/{NOBODY}"), 404, "not-found")
    for limit in ("0", "201", "x"):
        problem(daemon.get(f"/v1/sweeps?limit={limit}"), 400, "invalid-field", "/query/limit")
    problem(daemon.get("/v1/sweeps?state=done"), 400, "invalid-field", "/query/state")


def test_cancelling_and_forgetting(daemon, long_job):
    audio, params = long_job(60)
    made = daemon.submit_sweep(audio, {**params, "grid": {"seed": [1, 2, 3]}}).json()
    problem(daemon.get(made["links"]["archive"]), 409, "not-finished")
    assert daemon.get(f"/v1/sweeps/{made['id']}/table.csv").status == 200
    point = made["points"][0]
    daemon.wait_for(point["job"], "generating")
    running = daemon.get(made["links"]["self"]).json()
    assert running["states"]["running"] >= 1 and running["progress"] < 1
    started = time.monotonic()
    assert daemon.request("DELETE", made["links"]["self"]).status == 202
    cancelled = daemon.wait_for_sweep(made["id"])
    assert cancelled["states"]["cancelled"] == 3 and time.monotonic() - started < 10
    assert daemon.request("DELETE", made["links"]["self"]).status == 204
    problem(daemon.get(made["links"]["self"]), 404, "not-found")
    problem(daemon.get(f"/v1/jobs/{point['job']}"), 404, "not-found")


def test_cancelling_many(start, tmp_path):
    """Events, metrics, what the key may have, and a store that is started again: as if cancelled one by one. There are
    more points than one commit takes."""
    points = 600
    keys = write_keys(tmp_path / "keys", lab=(LAB, {"jobs": points}))
    clip = make_wav(8.0)
    params = {"mask": {"passes": [{"mask_ratio": 1.0, "upper_codebook_mask": 4}] * 16},
              "sampling": {"coarse_steps": 256}, "grid": {"seed": list(range(points))}}
    data = tmp_path / "data"
    with start("--keys", keys, key=LAB, data=data) as daemon:
        made = daemon.submit_sweep(clip, params).json()
        problem(daemon.post_jobs(clip), 429, "rate-limited")
        streams = [Stream(daemon, made["points"][index]["job"]) for index in (points - 1, points // 2, 0)]
        daemon.wait_for(made["points"][0]["job"], "generating")
        answer = daemon.request("DELETE", made["links"]["self"])
        assert answer.status == 202 and answer.json()["states"]["cancelled"] > points / 2  # all but those that ran
        for stream in streams:
            name, job = list(stream)[-1][1:]
            assert name == job["state"] == "cancelled" and job["sweep"]["id"] == made["id"] and job["finished"]
        cancelled = daemon.wait_for_sweep(made["id"])
        assert cancelled["states"]["cancelled"] == points and cancelled["progress"] == 1
        daemon.wait_for_jobs(0)
        assert total(scrape(daemon)[1], "vampd_jobs_total", state="cancelled") == points
        again = daemon.submit_sweep(clip, params)
        assert again.status == 202, again.body
        daemon.wait_for(again.json()["points"][0]["job"], "generating")
        daemon.request("DELETE", again.json()["links"]["self"])
    with start("--keys", keys, key=LAB, data=data) as daemon:
        for identifier in (made["id"], again.json()["id"]):
            assert daemon.wait_for_sweep(identifier)["states"]["cancelled"] == points
            assert daemon.request("DELETE", f"/v1/sweeps/{identifier}").status == 204
        assert daemon.get("/v1/jobs").json() == {"jobs": []}
