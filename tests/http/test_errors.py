"""Every way to be wrong, and what is said about it. Every answer is also checked against the contract."""
import base64
import json

import pytest

from harness import encode_form, make_wav

JSON = "application/json"


def problem(answer, status, kind, pointer=None):
    assert answer.status == status, answer.body
    value = answer.json()
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert value["type"] == f"/problems/{kind}" and value["status"] == status and value["detail"]
    assert value.get("pointer") == pointer, value
    return value["detail"]


@pytest.mark.parametrize("path", ["/v1", "/v1/vamp/", "/V1/vamp", "/v1/job", "/../etc/passwd", "/%2e%2e/x", "*"])
def test_not_found(daemon, path):
    problem(daemon.request("GET", path), 404, "not-found")


@pytest.mark.parametrize("method,path,allowed", [
    ("GET", "/v1/vamp", "POST"), ("PUT", "/v1/masks", "POST"), ("DELETE", "/v1/models", "GET, HEAD"),
    ("POST", "/healthz", "GET, HEAD"), ("PATCH", "/readyz", "GET, HEAD"), ("PUT", "/v1/jobs", "POST, GET, HEAD"),
])
def test_method_not_allowed(daemon, method, path, allowed):
    answer = daemon.request(method, path)
    problem(answer, 405, "method-not-allowed")
    assert answer.headers["Allow"] == allowed


@pytest.mark.parametrize("path", ["/v1/vamp", "/v1/masks"])
@pytest.mark.parametrize("content_type", [None, "text/plain", "application/x-www-form-urlencoded", "audio/wav",
                                          "application/jsonp", ""])
def test_unsupported_media_type(daemon, path, content_type):
    headers = {} if content_type is None else {"Content-Type": content_type}
    problem(daemon.request("POST", path, b"x" * 1000, headers), 415, "unsupported-media-type")


@pytest.mark.parametrize("path,accept", [
    ("/v1/vamp", "text/html"), ("/v1/vamp", "audio/mpeg"), ("/v1/vamp", "*/*;q=0"), ("/v1/masks", "audio/wav"),
    ("/v1/masks", "image/jpeg"),
])
def test_not_acceptable(daemon, clip, path, accept):
    detail = problem(daemon.form(path, ("audio", clip), accept=accept), 406, "not-acceptable")
    assert ("audio/flac" if path == "/v1/vamp" else "image/svg+xml") in detail


@pytest.mark.parametrize("name,value,place", [("mask_ratio", 0.5, "mask"), ("coarse_steps", 4, "sampling"),
                                              ("pattern", "fill", "mask"), ("steps", 4, None)])
def test_a_field_on_the_wrong_level(daemon, clip, name, value, place):
    detail = problem(daemon.vamp(clip, {name: value}), 400, "invalid-field", "/" + name)
    assert f'it belongs in "{place}"' in detail if place else "known here" in detail


def test_format_and_accept_disagree(daemon, clip):
    problem(daemon.vamp(clip, {"format": "flac"}, "audio/wav"), 406, "not-acceptable", "/format")


@pytest.mark.parametrize("params,pointer", [
    ({"mask_ratio": 0.5}, "/mask_ratio"),
    ({"presets": "subtle"}, "/presets"),
    ({"preset": "subtil"}, "/preset"),
    ({"preset": None}, "/preset"),
    ({"mask": {"mask_ratio": 1.5}}, "/mask/mask_ratio"),
    ({"mask": {"mask_ratio": "0.5"}}, "/mask/mask_ratio"),
    ({"mask": {"periodc_prompt": 3}}, "/mask/periodc_prompt"),
    ({"mask": {"upper_codebook_mask": 15}}, "/mask/upper_codebook_mask"),
    ({"mask": {"pattern": "spiral"}}, "/mask/pattern"),
    ({"mask": {"all": [{"pattern": "random", "ratio": 2}]}}, "/mask/all/0/ratio"),
    ({"mask": {"pattern": "range", "start_s": 0, "end_s": 99}}, "/mask/end_s"),
    ({"mask": []}, "/mask"),
    ({"sampling": {"temperature": -1}}, "/sampling/temperature"),
    ({"sampling": {"steps": 12}}, "/sampling/steps"),
    ({"sampling": {"coarse_steps": 100000}}, "/sampling/coarse_steps"),
    ({"sampling": {"top_k": 1025}}, "/sampling/top_k"),
    ({"seed": -1}, "/seed"),
    ({"seed": 2 ** 53}, "/seed"),
    ({"seed": True}, "/seed"),
    ({"model": "official"}, "/model"),
    ({"model": "x" * 64}, "/model"),
    ({"format": "mp3"}, "/format"),
    ({"picture": "gif"}, "/picture"),
    ({"picture": True}, "/picture"),
    ({"frames": 100}, "/frames"),
    ({"audio": "UklGRg=="}, "/audio"),
])
def test_fields(daemon, clip, params, pointer):
    problem(daemon.vamp(clip, params), 400, "invalid-field", pointer)


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b"null", b'"x"', b'{"seed": 1, "seed": 2}', b"{\"a\": \xff}",
                                  b"\xef\xbb\xbf{}", b"{} x", b"{'seed': 1}", b'{"seed": 123456789012345678901}',
                                  b'{"seed": 1e999}', b"\x00", b'{"a\\u0000b": 1}'])
def test_params_that_are_not_json(daemon, clip, text):
    problem(daemon.form("/v1/vamp", ("audio", clip), ("params", text)), 400, "invalid-body")
    problem(daemon.post("/v1/vamp", text), 400, "invalid-body")


def test_json_too_deep(daemon, clip):
    deep = b'{"mask": ' + b'{"not": ' * 40 + b"1" + b"}" * 40 + b"}"
    problem(daemon.form("/v1/vamp", ("audio", clip), ("params", deep)), 413, "too-large")
    problem(daemon.post("/v1/vamp", b"[" * 1000000), 413, "too-large")


def test_json_with_a_million_objects(daemon):
    problem(daemon.post("/v1/vamp", b"[" + b"{}," * 1000000 + b"{}]"), 413, "too-large")


@pytest.mark.parametrize("audio", ["UklGRg", "UklG*g==", "UklGRh==", "UklG\nRg==", "data:audio/wav;base64,UklGRg=="])
def test_bad_base64(daemon, audio):
    detail = problem(daemon.post("/v1/vamp", {"audio": audio}), 400, "invalid-field", "/audio")
    assert ("data: URL" in detail) == audio.startswith("data:")


@pytest.mark.parametrize("audio", [None, 7, ["UklGRg=="], {}])
def test_base64_that_is_no_string(daemon, audio):
    problem(daemon.post("/v1/vamp", {"audio": audio}), 400, "invalid-field", "/audio")


def hostile_audio():
    wav = make_wav(0.5)
    yield "empty", b""
    yield "text", b"This is not a sound.\n" * 100
    yield "a header and no more", wav[:44]
    yield "half a header", wav[:20]
    yield "truncated", wav[:len(wav) // 2]
    yield "zeros", bytes(4096)
    yield "a rate of zero", wav[:24] + bytes(4) + wav[28:]
    yield "a thousand channels", wav[:22] + b"\xe8\x03" + wav[24:]


HOSTILE = dict(hostile_audio())


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_audio(daemon, name):
    audio = HOSTILE[name]
    for answer in (daemon.vamp(audio), daemon.post("/v1/vamp", {"audio": base64.b64encode(audio).decode()}),
                   daemon.form("/v1/masks", ("audio", audio))):
        assert answer.status in (400, 413), (name, answer.status)
        assert answer.json()["pointer"] == "/audio"


def test_too_many_seconds(daemon):
    problem(daemon.vamp(make_wav(40, 8000)), 413, "too-large", "/audio")


def test_no_audio(daemon):
    problem(daemon.form("/v1/vamp", ("params", b"{}")), 400, "invalid-field", "/audio")
    problem(daemon.post("/v1/vamp", {}), 400, "invalid-field", "/audio")


def test_parts(daemon, clip):
    problem(daemon.form("/v1/vamp", ("audio", clip), ("audio", clip)), 400, "invalid-field", "/audio")
    problem(daemon.form("/v1/vamp", ("params", b"{}"), ("params", b"{}")), 400, "invalid-field", "/params")
    problem(daemon.form("/v1/vamp", ("audio", clip), ("seed", b"1")), 400, "invalid-field", "/seed")
    problem(daemon.form("/v1/vamp", *[("audio", b"")] * 67), 413, "too-large")


def test_broken_multipart(daemon, clip):
    body, content_type = encode_form([("audio", clip)])
    for wrong in (b"", b"garbage", body[:-30], body[:100], body.replace(b'name="audio"', b""), body[50:-30]):
        answer = daemon.request("POST", "/v1/vamp", wrong, {"Content-Type": content_type})
        problem(answer, 400, "invalid-body")
    for wrong in ("multipart/form-data", "multipart/form-data; boundary=", "multipart/form-data; boundary=other"):
        problem(daemon.request("POST", "/v1/vamp", body, {"Content-Type": wrong}), 400, "invalid-body")


@pytest.mark.parametrize("frames", [0, -1, 1.5, "574", 10 ** 9, None])
def test_frames(daemon, frames):
    problem(daemon.post("/v1/masks", {"frames": frames}), 400, "invalid-field", "/frames")


def test_masks_need_one_length(daemon, clip):
    problem(daemon.post("/v1/masks", {}), 400, "invalid-field", "/frames")
    parts = [("audio", clip), ("params", json.dumps({"frames": 10}).encode())]
    problem(daemon.form("/v1/masks", *parts), 400, "invalid-field", "/frames")


def test_announced_body_is_too_large(daemon):
    """Nothing is sent but the headers: the answer must come at once."""
    with daemon.socket() as connection:
        connection.sendall(b"POST /v1/vamp HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
                           b"Content-Length: 99999999999\r\n\r\n")
        answer = connection.recv(65536)
    assert answer.startswith(b"HTTP/1.1 413 ")


def test_chunked_body_is_too_large(daemon):
    chunk = b"10000\r\n" + b" " * 65536 + b"\r\n"
    with daemon.socket() as connection:
        connection.sendall(b"POST /v1/vamp HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
                           b"Transfer-Encoding: chunked\r\n\r\n")
        for _ in range(80):  # 5 MiB, over the limit of 4
            connection.sendall(chunk)
        connection.sendall(b"0\r\n\r\n")
        assert connection.recv(65536).startswith(b"HTTP/1.1 413 ")


def test_endless_chunked_body_is_cut(daemon):
    chunk = b"10000\r\n" + b" " * 65536 + b"\r\n"
    with daemon.socket() as connection:
        connection.sendall(b"POST /v1/vamp HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
                           b"Transfer-Encoding: chunked\r\n\r\n")
        with pytest.raises((ConnectionError, BrokenPipeError)):
            for _ in range(2000):
                connection.sendall(chunk)


def test_chunked_body_in_order(daemon):
    body = json.dumps({"frames": 10}).encode()
    chunks = b"".join(b"1\r\n" + body[i:i + 1] + b"\r\n" for i in range(len(body)))
    with daemon.socket() as connection:
        connection.sendall(b"POST /v1/masks HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
                           b"Transfer-Encoding: chunked\r\n\r\n" + chunks + b"0\r\n\r\n")
        assert connection.recv(65536).startswith(b"HTTP/1.1 200 ")


GET = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n"
POST = b"POST /v1/vamp HTTP/1.1\r\nHost: localhost\r\n"
BROKEN = {
    "empty lines": b"\r\n\r\n\r\n", "garbage": b"GARBAGE\r\n\r\n", "no path": b"GET\r\n\r\n",
    "version": b"GET /healthz HTTP/9.9\r\n\r\n", "no host": b"GET /healthz HTTP/1.1\r\n\r\n",
    "long path": b"GET /" + b"x" * 100000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "long header": GET + b"X-Y: " + b"z" * 200000 + b"\r\n\r\n",
    "many headers": GET + b"".join(b"H%d: x\r\n" % i for i in range(5000)) + b"\r\n",
    "negative length": POST + b"Content-Length: -5\r\n\r\n",
    "length that is none": POST + b"Content-Length: 5x\r\n\r\nabcde",
    "chunk that is none": POST + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(range(256)),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_http(daemon, name):
    """Whatever comes, it is answered with an error or cut off, and the next client is served."""
    with daemon.socket() as connection:
        connection.settimeout(5)
        try:
            connection.sendall(BROKEN[name])
            connection.shutdown(1)
            answer = connection.recv(65536)
        except OSError:
            answer = b""
    assert answer == b"" or answer.startswith((b"HTTP/1.1 4", b"HTTP/1.0 4", b"HTTP/1.1 505", b"HTTP/1.1 200 OK"))
    assert daemon.request("GET", "/healthz").status == 200


def test_a_log_line_cannot_be_forged(daemon):
    with daemon.socket() as connection:
        connection.sendall(b"GET /%0a2026-01-01%20forged HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        while connection.recv(65536):
            pass
    daemon.request("GET", "/healthz")
    assert not any(line.startswith("2026-01-01 forged") for line in daemon.log)
