"""What each endpoint answers when all is well. Every answer is also checked against the contract, in harness.py."""
import base64
import io
import json
import struct
import subprocess
import wave
import xml.etree.ElementTree

import pytest

from harness import ROOT, make_wav


def frames_of(wav):
    with wave.open(io.BytesIO(wav)) as file:
        assert (file.getframerate(), file.getnchannels(), file.getsampwidth()) == (44100, 1, 2)
        return file.getnframes()


def expand(runs):
    bits = []
    for index, count in enumerate(runs):
        bits += [index % 2] * count
    return bits


def test_health(daemon):
    answer = daemon.request("GET", "/healthz")
    assert answer.status == 200 and answer.json()["status"] == "ok"


def test_ready(daemon):
    assert daemon.request("GET", "/readyz").json() == {"status": "ready", "jobs": 0}


def test_head_has_no_body(daemon):
    answer = daemon.request("HEAD", "/healthz")
    assert answer.status == 200 and answer.body == b"" and int(answer.headers["Content-Length"]) > 0


def test_models(daemon):
    (model,) = daemon.request("GET", "/v1/models").json()["models"]
    assert model["name"] == "tiny" and model["hop_length"] == 768 and model["backend"] == "cpu"


def test_presets(daemon):
    presets = {preset["name"] for preset in daemon.request("GET", "/v1/presets").json()["presets"]}
    assert {"subtle", "balanced", "creative", "rhythm", "texture", "vampnet/small"} <= presets


def test_contract_is_the_one_in_the_tree():
    pytest.importorskip("yaml")
    subprocess.run(["/usr/bin/python3", "proto/embed.py", "--check"], cwd=ROOT, check=True)


def test_request_ids_differ(daemon):
    first, second = (daemon.request("GET", "/healthz").headers["Vampd-Request-Id"] for _ in range(2))
    assert first != second


def test_vamp_wav(daemon, clip):
    answer = daemon.vamp(clip, {"preset": "subtle", "seed": 5})
    assert answer.status == 200 and answer.headers["Content-Type"] == "audio/wav"
    assert frames_of(answer.body) == 44100
    assert answer.headers["Vampd-Seed"] == "5"
    density = [float(share) for share in answer.headers["Vampd-Density-Codebooks"].split(", ")]
    assert len(density) == 14 and density[2:4] == [0, 0] and density[4:] == [1] * 10
    assert float(answer.headers["Vampd-Density"]) == pytest.approx(sum(density) / 14, abs=1e-4)
    assert float(answer.headers["Vampd-Density-Coarse"]) == pytest.approx(sum(density[:4]) / 4, abs=1e-4)


def test_vamp_without_params(daemon, clip):
    first, second = daemon.vamp(clip), daemon.vamp(clip)
    assert first.status == second.status == 200
    assert first.headers["Vampd-Seed"] != second.headers["Vampd-Seed"]
    again = daemon.vamp(clip, {"seed": int(first.headers["Vampd-Seed"])})
    assert again.body == first.body


def test_vamp_json(daemon, clip):
    params = {"preset": "balanced", "seed": 7, "picture": "png"}
    answer = daemon.vamp(clip, params, accept="application/json")
    result = answer.json()
    assert answer.status == 200 and result["seed"] == 7 and result["model"] == "tiny"
    audio = base64.b64decode(result["audio"]["data"], validate=True)
    assert audio == daemon.vamp(clip, {"preset": "balanced", "seed": 7}).body
    assert result["audio"]["samples"] == frames_of(audio)
    (mask,) = result["mask"]["passes"]
    masked = [expand(runs) for runs in mask["mask"]]
    assert len(masked) == 14 and all(len(row) == mask["frames"] == 58 for row in masked)
    assert sum(map(sum, masked)) / (14 * 58) == pytest.approx(result["mask"]["density"]["overall"])
    # What was masked has a step, what was not has none; but the coarse stage keeps the edges of a chunk.
    steps = struct.unpack(f"<{14 * 58}h", base64.b64decode(mask["committed_step"]["data"]))
    for codebook, row in enumerate(masked):
        for frame, bit in enumerate(row):
            kept_edge = codebook < 4 and frame in (0, 57)
            assert (steps[codebook * 58 + frame] >= 0) == (bit == 1 and not kept_edge), (codebook, frame)
    assert mask["changed"]["codebooks"][3] == 0 and mask["changed"]["codebooks"][9] > 0.5
    assert base64.b64decode(result["picture"]["data"]).startswith(b"\x89PNG")
    assert result["timings"]["total"] > 0


def test_vamp_from_a_json_document(daemon, clip):
    params = {"preset": "creative", "seed": 9, "sampling": {"coarse_steps": 3, "temperature": 0.9}}
    document = {"audio": base64.b64encode(clip).decode(), **params}
    answer = daemon.post("/v1/vamp", document)
    assert answer.status == 200 and answer.body == daemon.vamp(clip, params).body


@pytest.mark.parametrize("params,accept,media_type,magic", [
    ({}, "*/*", "audio/wav", b"RIFF"),
    ({}, "audio/flac", "audio/flac", b"fLaC"),
    ({}, "audio/ogg;q=0.9, audio/wav;q=0.1", "audio/ogg", b"OggS"),
    ({}, "audio/x-wav", "audio/wav", b"RIFF"),
    ({"format": "flac"}, None, "audio/flac", b"fLaC"),
    ({"format": "ogg"}, "audio/*", "audio/ogg", b"OggS"),
    ({"format": "wav24"}, "audio/wav", "audio/wav", b"RIFF"),
    ({"format": "wavfloat"}, "*/*;q=0.1", "audio/wav", b"RIFF"),
])
def test_formats(daemon, clip, params, accept, media_type, magic):
    answer = daemon.vamp(clip, params, accept)
    assert answer.status == 200 and answer.headers["Content-Type"] == media_type
    assert answer.body.startswith(magic)


def test_format_inside_json(daemon, clip):
    result = daemon.vamp(clip, {"format": "flac"}, "application/json").json()
    assert result["audio"]["media_type"] == "audio/flac" and result["audio"]["format"] == "flac"
    assert base64.b64decode(result["audio"]["data"]).startswith(b"fLaC")


@pytest.mark.parametrize("rate,channels", [(8000, 1), (48000, 2), (96000, 6)])
def test_any_rate_and_channels(daemon, rate, channels):
    answer = daemon.vamp(make_wav(0.5, rate, channels), {"seed": 1})
    assert answer.status == 200 and abs(frames_of(answer.body) - 22050) <= 1


def test_masks_of_frames(daemon):
    answer = daemon.post("/v1/masks", {"frames": 574, "preset": "vampnet/small", "seed": 3})
    document = answer.json()
    assert answer.status == 200 and document["seed"] == 3
    assert document["density"]["overall"] == pytest.approx(0.943, abs=5e-4)
    assert float(answer.headers["Vampd-Density"]) == pytest.approx(document["density"]["overall"], abs=1e-6)
    assert document["passes"][0]["frames"] == 574


def test_masks_are_those_of_the_generation(daemon, clip):
    params = {"seed": 11, "mask": {"mask_ratio": 0.6, "dropout": 0.2}}
    parts = [("audio", clip), ("params", json.dumps(params).encode())]
    preview = daemon.form("/v1/masks", *parts).json()
    result = daemon.vamp(clip, params, "application/json").json()["mask"]
    assert preview["passes"][0]["mask"] == result["passes"][0]["mask"]
    assert preview["density"] == result["density"]
    assert "changed" not in preview["passes"][0] and "changed" in result["passes"][0]


def test_mask_pictures(daemon):
    png = daemon.post("/v1/masks", {"frames": 200}, accept="image/png")
    assert png.headers["Content-Type"] == "image/png" and png.body.startswith(b"\x89PNG")
    svg = daemon.post("/v1/masks", {"frames": 200}, accept="image/svg+xml")
    assert svg.headers["Content-Type"] == "image/svg+xml"
    assert xml.etree.ElementTree.fromstring(svg.body).tag.endswith("svg")
    inside = daemon.post("/v1/masks", {"frames": 200, "picture": "svg"}).json()["picture"]
    assert xml.etree.ElementTree.fromstring(inside["data"]).tag.endswith("svg")


def test_passes_and_trees(daemon, clip):
    tree = {"all": [{"pattern": "random", "ratio": 0.5}, {"not": {"pattern": "range", "start_s": 0.2, "end_s": 0.5}}]}
    result = daemon.vamp(clip, {"seed": 2, "mask": {"passes": [tree, {"preset": "subtle"}]}}, "application/json").json()
    assert len(result["mask"]["passes"]) == 2
    assert result["mask"]["density"] == result["mask"]["passes"][1]["density"]


def test_keep_alive(daemon, clip):
    connection = daemon.connect()
    for _ in range(3):
        connection.request("GET", "/healthz")
        assert connection.getresponse().read()
        connection.request("POST", "/v1/masks", json.dumps({"frames": 10}), {"Content-Type": "application/json"})
        response = connection.getresponse()
        assert response.status == 200 and response.read()
    connection.close()


def test_curl_upload(daemon, clip, tmp_path):
    """The way most people will use it: curl's own multipart, and its Expect header for a large body."""
    source, target = tmp_path / "in.wav", tmp_path / "out.wav"
    source.write_bytes(make_wav(15))
    assert source.stat().st_size > 1 << 20
    url = f"http://127.0.0.1:{daemon.port}/v1/vamp"
    subprocess.run(["curl", "-sS", "--fail", "-F", f"audio=@{source}", "-F", 'params={"preset":"subtle","seed":1}',
                    "-o", target, url], check=True)
    assert frames_of(target.read_bytes()) == 15 * 44100
