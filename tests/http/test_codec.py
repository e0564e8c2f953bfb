"""The codec alone: POST /v1/tokens and POST /v1/audio. Every answer is also checked against the contract."""
import base64
import io
import json
import wave

import numpy
import pytest

from harness import make_wav
from test_errors import problem

BINARY = "application/octet-stream"


def npy(array):
    file = io.BytesIO()
    numpy.save(file, array)
    return file.getvalue()


@pytest.fixture(scope="module")
def tokens(daemon, clip):
    answer = daemon.form("/v1/tokens", ("audio", clip))
    assert answer.status == 200 and answer.headers["Content-Type"] == BINARY
    return numpy.load(io.BytesIO(answer.body))


def test_tokens(daemon, clip, tokens):
    assert tokens.shape == (14, 58) and tokens.dtype == numpy.int32 and tokens.min() >= 0 and tokens.max() < 1024
    result = daemon.form("/v1/tokens", ("audio", clip), accept="application/json").json()
    assert (numpy.array(result["tokens"]) == tokens).all()
    assert (result["codebooks"], result["frames"]) == (14, 58)
    assert result["frame_rate"] == pytest.approx(44100 / 768)
    document = daemon.post("/v1/tokens", {"audio": base64.b64encode(clip).decode()}, accept=BINARY)
    assert (numpy.load(io.BytesIO(document.body)) == tokens).all()


def test_tokens_are_those_of_a_job_that_changes_nothing(daemon, clip, tokens):
    (job,) = daemon.submit(clip, {"mask": {"pattern": "fill", "value": 0}, "seed": 1})
    assert daemon.wait_for(job["id"])["state"] == "done"
    assert (numpy.load(io.BytesIO(daemon.get(f"/v1/jobs/{job['id']}/tokens").body)) == tokens).all()


@pytest.mark.parametrize("form,media_type,magic", [
    ("wav", "audio/wav", b"RIFF"), ("flac", "audio/flac", b"fLaC"), ("ogg", "audio/ogg", b"OggS"),
])
def test_audio(daemon, tokens, form, media_type, magic):
    parts = [("tokens", npy(tokens)), ("params", json.dumps({"format": form}).encode())]
    answer = daemon.form("/v1/audio", *parts)
    assert answer.status == 200 and answer.headers["Content-Type"] == media_type and answer.body.startswith(magic)
    document = daemon.post("/v1/audio", {"tokens": tokens.tolist(), "format": form})
    assert document.body == answer.body
    assert daemon.form("/v1/audio", ("tokens", npy(tokens)), accept=media_type).body == answer.body


def test_audio_is_as_long_as_the_tokens(daemon, tokens):
    answer = daemon.form("/v1/audio", ("tokens", npy(tokens)))
    with wave.open(io.BytesIO(answer.body)) as file:
        assert (file.getframerate(), file.getnchannels()) == (44100, 1)
        assert abs(file.getnframes() - 58 * 768) < 768


@pytest.mark.parametrize("array", [
    numpy.zeros((14, 0), "<i4"), numpy.zeros((13, 58), "<i4"), numpy.zeros((14,), "<i4"),
    numpy.full((14, 58), 1024, "<i4"), numpy.full((14, 58), -1, "<i4"), numpy.zeros((14, 58), "<f4"),
    numpy.zeros((14, 58, 2), "<i4"), numpy.zeros((14, 10000), "<i4"),
], ids=lambda array: f"{array.shape} {array.dtype} {array.flat[0] if array.size else ''}")
def test_tokens_that_are_none(daemon, array):
    answer = daemon.form("/v1/audio", ("tokens", npy(array)))
    assert answer.status in (400, 413) and answer.json()["pointer"].startswith("/tokens"), answer.body


@pytest.mark.parametrize("blob", [b"", b"\x93NUMPY", b"\x93NUMPY\x01\x00\xff\xff{", npy(numpy.zeros((14, 58), "<i4"))[:-1],
                                  make_wav(0.1)], ids=["empty", "magic", "header", "truncated", "WAV"])
def test_files_that_are_none(daemon, blob):
    answer = daemon.form("/v1/audio", ("tokens", blob))
    assert answer.status == 400 and answer.json()["pointer"] == "/tokens", answer.body


@pytest.mark.parametrize("value", [None, "x", [], [[]], [[1, 2], [3]], [[1.5] * 4] * 14, [["1"] * 4] * 14, [[1] * 4] * 13,
                                   [[5000] * 4] * 14, [[True] * 4] * 14])
def test_lists_that_are_none(daemon, value):
    answer = daemon.post("/v1/audio", {"tokens": value})
    assert answer.status == 400 and answer.json()["pointer"].startswith("/tokens"), answer.body


def test_other_errors(daemon, clip, tokens):
    problem(daemon.form("/v1/tokens", ("params", b"{}")), 400, "invalid-field", "/audio")
    problem(daemon.form("/v1/tokens", ("audio", clip), ("params", b'{"seed": 1}')), 400, "invalid-field", "/seed")
    problem(daemon.form("/v1/tokens", ("audio", clip), accept="audio/wav"), 406, "not-acceptable")
    problem(daemon.form("/v1/audio", ("params", b"{}")), 400, "invalid-field", "/tokens")
    problem(daemon.form("/v1/audio", ("audio", clip)), 400, "invalid-field", "/audio")
    problem(daemon.form("/v1/audio", ("tokens", npy(tokens)), accept="application/json"), 406, "not-acceptable")
    problem(daemon.form("/v1/audio", ("tokens", npy(tokens)), ("params", b'{"format": "mp3"}')), 400, "invalid-field",
            "/format")
    problem(daemon.request("POST", "/v1/audio", b"x", {"Content-Type": "text/plain"}), 415, "unsupported-media-type")
    answer = daemon.form("/v1/tokens", ("audio", b"This is not a sound."))
    assert answer.status == 400 and answer.json()["pointer"] == "/audio"
