"""Jobs: accepted, listed, looked at, fetched, cancelled, forgotten. Every answer is also checked against the contract."""
import base64
import io
import json
import threading
import time
import wave
import xml.etree.ElementTree

import numpy
import pytest

from harness import encode_form, make_wav
from test_errors import problem

NOBODY = "0123456789abcdef01234567"
MAGIC = {"wav": b"RIFF", "wav24": b"RIFF", "wavfloat": b"RIFF", "flac": b"fLaC", "ogg": b"OggS"}
RESULTS = ("audio", "mask", "mask.png", "mask.svg", "tokens")


@pytest.fixture(scope="module")
def job(daemon, clip):
    """One that is done."""
    (made,) = daemon.submit(clip, {"preset": "subtle", "seed": 5})
    return daemon.wait_for(made["id"])


# ---- accepting -------------------------------------------------------------------------------------------------


def test_a_job_gives_what_vamp_gives(daemon, clip, job):
    assert job["state"] == "done" and job["progress"] == 1 and job["seed"] == 5 and job["attempts"] == 1
    assert job["params"]["seed"] == 5 and job["params"]["preset"] == "subtle"
    assert job["place"] is None and job["estimate_seconds"] is None
    assert job["created"] <= job["started"] <= job["finished"]
    assert job["clip_seconds"] == pytest.approx(1.0)
    assert set(job["links"]) == {"self", "events", "input", "audio", "mask", "mask_png", "mask_svg", "tokens"}
    now = daemon.vamp(clip, {"preset": "subtle", "seed": 5})
    assert daemon.get(job["links"]["audio"]).body == now.body
    assert job["density"]["overall"] == pytest.approx(float(now.headers["Vampd-Density"]), abs=1e-6)
    assert job["changed"]["codebooks"][9] > 0.5 and job["changed"]["codebooks"][3] == 0
    assert job["timings"]["total"] >= job["timings"]["decode"] > 0


def test_accepted(daemon, clip):
    answer = daemon.post_jobs(clip)
    (job,) = answer.json()["jobs"]
    assert answer.status == 202 and answer.headers["Location"] == f"/v1/jobs/{job['id']}"
    assert job["state"] not in ("done", "failed", "cancelled") or job["finished"]
    audio = daemon.done(job)
    assert audio == [daemon.vamp(clip, {"seed": job["seed"]}).body]


def test_variations(daemon, clip):
    jobs = daemon.submit(clip, {"seed": 2 ** 53 - 2, "variations": 4, "sampling": {"coarse_steps": 2}})
    assert [job["seed"] for job in jobs] == [2 ** 53 - 2, 2 ** 53 - 1, 0, 1]
    assert len(set(daemon.done(*jobs))) == 4
    drawn = [job["seed"] for job in daemon.submit(clip, {"variations": 3, "sampling": {"coarse_steps": 1}})]
    assert drawn == [(drawn[0] + i) % 2 ** 53 for i in range(3)]


def test_several_clips(daemon):
    clips = [make_wav(0.4 + 0.2 * i, seed=i) for i in range(3)]
    params = {"seed": 3, "variations": 2, "sampling": {"coarse_steps": 2}}
    jobs = daemon.submit(clips, params)
    assert len({job["id"] for job in jobs}) == 6
    single = {key: value for key, value in params.items() if key != "variations"}
    expected = {daemon.vamp(clip, {**single, "seed": seed}).body for clip in clips for seed in (3, 4)}
    assert set(daemon.done(*jobs)) == expected and len(expected) == 6
    assert sorted({round(job["clip_seconds"], 1) for job in jobs}) == [0.4, 0.6, 0.8]


def test_from_json(daemon, clip):
    one, two = (base64.b64encode(audio).decode() for audio in (clip, make_wav(0.5, seed=4)))
    answer = daemon.post("/v1/jobs", {"audio": [one, two], "seed": 1, "preset": "creative"})
    jobs = answer.json()["jobs"]
    assert answer.status == 202 and len(jobs) == 2
    (single,) = daemon.post("/v1/jobs", {"audio": one, "seed": 1, "preset": "creative"}).json()["jobs"]
    audio = daemon.done(*jobs, single)
    assert audio[0] == audio[2] != audio[1]


@pytest.mark.parametrize("params,pointer", [
    ({"variations": 0}, "/variations"), ({"variations": 65}, "/variations"), ({"variations": "2"}, "/variations"),
    ({"picture": "png"}, "/picture"), ({"grid": {}}, "/grid"), ({"frames": 10}, "/frames"), ({"seed": -1}, "/seed"),
    ({"mask": {"mask_ratio": 1.5}}, "/mask/mask_ratio"), ({"mask": {"pattern": "range", "end_s": 99}}, "/mask/end_s"),
    ({"model": "official"}, "/model"), ({"sampling": {"top_k": 1025}}, "/sampling/top_k"), ({"preset": "x"}, "/preset"),
])
def test_what_cannot_be_done_is_not_accepted(daemon, clip, params, pointer):
    before = daemon.get("/v1/jobs?limit=1").json()["jobs"]
    problem(daemon.post_jobs(clip, params), 400, "invalid-field", pointer)
    assert daemon.get("/v1/jobs?limit=1").json()["jobs"][:1] == before


def test_hostile_bodies(daemon, clip):
    for audio in (b"", b"This is not a sound.\n" * 100, clip[:44], clip[:20]):
        answer = daemon.post_jobs(audio)
        assert answer.status in (400, 413) and answer.json()["pointer"].startswith("/audio"), answer.body
        answer = daemon.post_jobs([clip, audio])
        assert answer.status in (400, 413) and answer.json()["pointer"].startswith("/audio"), answer.body
    problem(daemon.form("/v1/jobs", ("params", b"{}")), 400, "invalid-field", "/audio")
    problem(daemon.post("/v1/jobs", {"audio": []}), 400, "invalid-field", "/audio")
    problem(daemon.post("/v1/jobs", b"{"), 400, "invalid-body")
    problem(daemon.request("POST", "/v1/jobs", b"x", {"Content-Type": "text/plain"}), 415, "unsupported-media-type")
    problem(daemon.form("/v1/jobs", ("audio", clip), accept="audio/wav"), 406, "not-acceptable")
    problem(daemon.post_jobs(make_wav(40, 8000)), 413, "too-large", "/audio")


def test_too_many_at_once(daemon):
    short = make_wav(0.1, 8000)
    answer = daemon.post_jobs([short] * 5, {"variations": 64})  # 320
    assert answer.status in (400, 413), answer.body
    assert daemon.post_jobs([short] * 65).status in (400, 413)


def test_the_queue_is_never_longer_than_it_may_be(start):
    """Many at once: as many as there is room for are let in, and no more; who is refused for something else takes no
    place."""
    room = 8
    clip = make_wav(25.0, 8000)  # so long that the second one waits for the first
    params = {"seed": 1, "mask": {"passes": [{"mask_ratio": 1.0, "upper_codebook_mask": 4}] * 16},
              "sampling": {"coarse_steps": 256}}
    with start("--max-jobs-queued", str(room), "--workers", "12", "--grace", "0") as daemon:
        (first,) = daemon.submit(clip, params)
        daemon.wait_for(first["id"], "encoding", "generating")
        for _ in range(3):
            problem(daemon.post_jobs([clip] * 3 + [b"no audio"], params), 400, "invalid-audio", "/audio/3")
        answers = []
        threads = [threading.Thread(target=lambda: answers.append(daemon.post_jobs(clip, params))) for _ in range(24)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        accepted = [answer for answer in answers if answer.status == 202]
        assert len(accepted) == room
        for answer in answers:
            if answer not in accepted:
                problem(answer, 429, "queue-full")
                assert int(answer.headers["Retry-After"]) >= 1
        assert daemon.request("DELETE", accepted[0].json()["jobs"][0]["links"]["self"]).status == 202
        assert daemon.post_jobs(clip, params).status == 202
        problem(daemon.post_jobs(clip, params), 429, "queue-full")


# ---- looking ---------------------------------------------------------------------------------------------------


def test_list(daemon, clip):
    jobs = daemon.submit(clip, {"variations": 5, "seed": 0, "sampling": {"coarse_steps": 1}})
    daemon.done(*jobs)
    found, path = [], "/v1/jobs?limit=2&state=done"
    while path and len(found) < 6:
        page = daemon.get(path).json()
        assert len(page["jobs"]) <= 2 and all(job["state"] == "done" for job in page["jobs"])
        found, path = found + page["jobs"], page.get("next")
    numbers = [job["number"] for job in found]
    assert numbers == sorted(set(numbers), reverse=True)
    assert [job["id"] for job in found[:5]] == [job["id"] for job in reversed(jobs)]
    everything, path = [], "/v1/jobs?limit=1000"
    while path:
        page = daemon.get(path).json()
        everything, path = everything + [job["number"] for job in page["jobs"]], page.get("next")
    assert everything == sorted(set(everything), reverse=True) and set(numbers) <= set(everything)
    assert daemon.get(f"/v1/jobs?before={numbers[0]}&limit=1").json()["jobs"][0]["number"] < numbers[0]


@pytest.mark.parametrize("query,name", [
    ("limit=0", "limit"), ("limit=1001", "limit"), ("limit=x", "limit"), ("limit=", "limit"), ("before=-1", "before"),
    ("before=1e3", "before"), ("state=finished", "state"), ("sweep=1", "sweep"), ("page=2", "page"), ("x", "x"),
    ("limit=1&limit=2", "limit"),
])
def test_queries(daemon, query, name):
    problem(daemon.get(f"/v1/jobs?{query}"), 400, "invalid-field", f"/query/{name}")


@pytest.mark.parametrize("path", ["/healthz", "/v1/models", "/v1/presets", "/metrics", "/readyz", "/openapi.json",
                                  "/v1/jobs/ID", "/v1/jobs/ID/audio", "/v1/jobs/ID/mask", "/v1/jobs/ID/events"])
def test_unknown_queries_everywhere(daemon, job, path):
    problem(daemon.get(path.replace("ID", job["id"]) + "?colour=red"), 400, "invalid-field", "/query/colour")


@pytest.mark.parametrize("path", ["", *(f"/{name}" for name in RESULTS), "/events", "/input"])
@pytest.mark.parametrize("name", [NOBODY, NOBODY.upper(), NOBODY[1:], NOBODY + "0", "..", "%2e%2e", "x" * 500])
def test_nobody(daemon, path, name):
    problem(daemon.get(f"/v1/jobs/{name}{path}"), 404, "not-found")


def test_methods(daemon, job):
    answer = daemon.request("POST", job["links"]["self"], b"", {"Content-Type": "application/json"})
    problem(answer, 405, "method-not-allowed")
    assert set(answer.headers["Allow"].split(", ")) >= {"GET", "HEAD", "DELETE"}


def test_place_and_estimate(start, long_job):
    """Of more jobs than can be on their way at once, those that wait know their places."""
    audio, params = long_job(60)
    with start() as daemon:
        jobs = [job for _ in range(2) for job in daemon.submit(audio, {**params, "variations": 64})]
        daemon.wait_for(jobs[0]["id"], "generating")
        for _ in range(50):  # until no more of them come on their way between two answers
            seen = [daemon.job(job["id"]) for job in jobs]
            waiting = [job for job in seen if job["state"] == "queued"]
            places = [job["place"] for job in waiting]
            if places == list(range(len(waiting))) and seen[0]["progress"] > 0:
                break
            time.sleep(0.1)
        assert len(waiting) > 10 and places == list(range(len(waiting)))
        assert all(job["place"] is None for job in seen if job["state"] != "queued")
        assert 0 < seen[0]["progress"] < 1 and seen[0]["attempts"] == 1 and waiting[0]["attempts"] == 0
        late = daemon.job(jobs[-1]["id"])
        assert late["estimate_seconds"] > daemon.job(jobs[0]["id"])["estimate_seconds"] > 0
        for job in jobs:
            assert daemon.request("DELETE", job["links"]["self"]).status == 202
        assert {daemon.wait_for(job["id"])["state"] for job in jobs} == {"cancelled"}


# ---- fetching --------------------------------------------------------------------------------------------------


def test_input(daemon, clip, job):
    answer = daemon.get(job["links"]["input"])
    assert answer.status == 200 and answer.body == clip and answer.headers["Content-Type"].startswith("audio/")


@pytest.mark.parametrize("form", MAGIC)
def test_formats(daemon, clip, job, form):
    answer = daemon.get(f"{job['links']['audio']}?format={form}")
    assert answer.status == 200 and answer.body.startswith(MAGIC[form])
    assert job["id"] in answer.headers["Content-Disposition"]
    assert answer.body == daemon.get(f"{job['links']['audio']}?format={form}").body
    assert answer.body == daemon.vamp(clip, {"preset": "subtle", "seed": 5, "format": form}).body


def test_the_job_s_own_format(daemon, clip):
    (job,) = daemon.submit(clip, {"seed": 1, "format": "flac"})
    daemon.wait_for(job["id"])
    answer = daemon.get(f"/v1/jobs/{job['id']}/audio")
    assert answer.headers["Content-Type"] == "audio/flac" and ".flac" in answer.headers["Content-Disposition"]
    problem(daemon.get(f"/v1/jobs/{job['id']}/audio?format=mp3"), 400, "invalid-field", "/query/format")


def test_mask(daemon, clip, job):
    mask = daemon.get(job["links"]["mask"]).json()
    now = daemon.vamp(clip, {"preset": "subtle", "seed": 5}, "application/json").json()["mask"]
    assert mask == now
    assert daemon.get(job["links"]["mask_png"]).body.startswith(b"\x89PNG")
    svg = daemon.get(job["links"]["mask_svg"]).body
    assert xml.etree.ElementTree.fromstring(svg).tag.endswith("svg")


def test_tokens(daemon, job):
    tokens = numpy.load(io.BytesIO(daemon.get(job["links"]["tokens"]).body))
    assert tokens.shape == (14, 58) and tokens.dtype == numpy.int32 and tokens.min() >= 0 and tokens.max() < 1024


def test_tokens_changed_as_much_as_is_said(daemon, clip, job):
    tokens = numpy.load(io.BytesIO(daemon.get(job["links"]["tokens"]).body))
    original = numpy.load(io.BytesIO(daemon.form("/v1/tokens", ("audio", clip)).body))
    assert (tokens != original).mean(axis=1) == pytest.approx(job["changed"]["codebooks"], abs=1e-6)


def test_head(daemon, job):
    for name in RESULTS:
        path = f"/v1/jobs/{job['id']}/{name}"
        answer, whole = daemon.request("HEAD", path), daemon.get(path)
        assert answer.status == 200 and answer.body == b""
        assert int(answer.headers["Content-Length"]) == len(whole.body)
        assert answer.headers["Content-Type"] == whole.headers["Content-Type"]


# ---- ranges ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("what", ["audio", "input", "audio?format=ogg"])
def test_ranges(daemon, job, what):
    path = f"/v1/jobs/{job['id']}/{what}"
    whole = daemon.get(path).body
    size = len(whole)
    for text, piece in (("0-0", whole[:1]), ("0-99", whole[:100]), ("100-299", whole[100:300]), ("44-", whole[44:]),
                        ("-100", whole[-100:]), (f"{size - 1}-", whole[-1:]), (f"0-{size * 2}", whole),
                        (f"-{size * 2}", whole)):
        answer = daemon.get(path, Range=f"bytes={text}")
        assert answer.status == 206 and answer.body == piece, text
        first, last = (len(whole) - len(piece), size - 1) if text.startswith("-") else (int(text.split("-")[0]), None)
        last = first + len(piece) - 1 if last is None else last
        assert answer.headers["Content-Range"] == f"bytes {first}-{last}/{size}"
    for text in (f"{size}-", f"{size * 2}-{size * 3}", "-0"):
        answer = daemon.get(path, Range=f"bytes={text}")
        problem(answer, 416, "range-not-satisfiable")
        assert answer.headers["Content-Range"] == f"bytes */{size}"
    for text in ("bytes=5-1", "bytes=x-y", "lines=1-2", "bytes=", "bytes=0-1,5-6"):
        answer = daemon.get(path, Range=text)
        assert answer.status == 200 and answer.body == whole, text


def test_slices_make_the_whole(daemon, job):
    path = f"/v1/jobs/{job['id']}/audio"
    whole, pieces = daemon.get(path).body, b""
    while len(pieces) < len(whole):
        pieces += daemon.get(path, Range=f"bytes={len(pieces)}-{len(pieces) + 9999}").body
    assert pieces == whole


def test_head_of_a_range(daemon, job):
    answer = daemon.request("HEAD", f"/v1/jobs/{job['id']}/audio", headers={"Range": "bytes=0-99"})
    assert answer.status in (200, 206) and answer.body == b""


def test_etags(daemon, job):
    path = f"/v1/jobs/{job['id']}/audio"
    whole = daemon.get(path)
    etag = whole.headers["ETag"]
    assert daemon.get(path).headers["ETag"] == etag
    assert daemon.get(path + "?format=flac").headers["ETag"] != etag
    for matching in (etag, f'"x", {etag}', f"W/{etag}", "*"):
        assert daemon.get(path, If_None_Match=matching).status == 304
    assert daemon.get(path, If_None_Match='"x"').body == whole.body
    assert daemon.get(path, Range="bytes=0-9", If_Range=etag).body == whole.body[:10]
    changed = daemon.get(path, Range="bytes=0-9", If_Range='"x"')
    assert changed.status == 200 and changed.body == whole.body


def test_a_browser_s_player_can_seek(daemon, job):
    """What an <audio> element does: the head, then a range from somewhere to the end, on one connection."""
    connection = daemon.connect()
    path = f"/v1/jobs/{job['id']}/audio"
    whole = daemon.get(path).body
    for first in (0, 40000, 70000):
        connection.request("GET", path, headers={"Range": f"bytes={first}-"})
        response = connection.getresponse()
        assert response.status == 206 and response.read() == whole[first:]
    connection.close()


# ---- cancelling and forgetting ---------------------------------------------------------------------------------


def test_results_are_not_there_yet(daemon, long_job):
    (job,) = daemon.submit(*long_job(60))
    for name in RESULTS:
        problem(daemon.get(f"/v1/jobs/{job['id']}/{name}"), 409, "not-finished")
    assert daemon.get(job["links"]["input"]).status == 200
    assert set(daemon.job(job["id"])["links"]) == {"self", "events", "input"}
    daemon.wait_for(job["id"], "generating")
    started = time.monotonic()
    answer = daemon.request("DELETE", job["links"]["self"])
    assert answer.status == 202 and answer.json()["id"] == job["id"]
    cancelled = daemon.wait_for(job["id"])
    assert cancelled["state"] == "cancelled" and time.monotonic() - started < 5
    for name in RESULTS:
        problem(daemon.get(f"/v1/jobs/{job['id']}/{name}"), 404, "not-found")
    assert daemon.request("DELETE", job["links"]["self"]).status == 204
    problem(daemon.get(job["links"]["self"]), 404, "not-found")


def test_forgetting(daemon, clip):
    one, two = daemon.submit(clip, {"seed": 1, "variations": 2, "sampling": {"coarse_steps": 1}})
    daemon.done(one, two)
    answer = daemon.request("DELETE", one["links"]["self"])
    assert answer.status == 204
    for path in ("", "/audio", "/input", "/events", "/mask"):
        problem(daemon.get(one["links"]["self"] + path), 404, "not-found")
    problem(daemon.request("DELETE", one["links"]["self"]), 404, "not-found")
    assert one["id"] not in {job["id"] for job in daemon.get("/v1/jobs").json()["jobs"]}
    assert daemon.get(two["links"]["input"]).body == clip  # which both were made from
    assert daemon.get(f"/v1/jobs/{two['id']}/audio").status == 200


def test_a_job_outlives_its_client(daemon, clip):
    """Nobody waits for the answer to POST /v1/jobs; what was accepted is done all the same."""
    body, content_type = encode_form([("audio", clip), ("params", json.dumps({"seed": 77777}).encode())])
    with daemon.socket() as connection:
        head = f"POST /v1/jobs HTTP/1.1\r\nHost: localhost\r\nContent-Type: {content_type}\r\nContent-Length: {len(body)}\r\n\r\n"
        connection.sendall(head.encode() + body)
        assert connection.recv(12) == b"HTTP/1.1 202"
    (job,) = [job for job in daemon.get("/v1/jobs").json()["jobs"] if job["seed"] == 77777]
    assert daemon.done(job) == [daemon.vamp(clip, {"seed": 77777}).body]


def test_any_rate_and_channels(daemon):
    (job,) = daemon.submit(make_wav(0.5, 48000, 2), {"seed": 1})
    (audio,) = daemon.done(job)
    with wave.open(io.BytesIO(audio)) as file:
        assert (file.getframerate(), file.getnchannels(), file.getnframes()) == (44100, 1, 22050)
