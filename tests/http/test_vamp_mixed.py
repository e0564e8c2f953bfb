"""POST /v1/vamp with Accept: multipart/mixed: the document and the file, the audio as it is."""
import email.parser
import email.policy
import json
import re

import pytest

MIXED = "multipart/mixed"


def parts_of(answer):
    """As the RFC has it, by hand: a parser for mail may touch binary parts."""
    boundary = re.search(r'boundary="?([^";]+)"?', answer.headers["Content-Type"]).group(1).encode()
    assert len(boundary) <= 70
    pieces = (b"\r\n" + answer.body).split(b"\r\n--" + boundary)
    assert pieces[-1] in (b"--\r\n", b"--") and pieces[0] == b""
    parts = []
    for piece in pieces[1:-1]:
        head, body = piece.removeprefix(b"\r\n").split(b"\r\n\r\n", 1)
        headers = email.parser.BytesHeaderParser(policy=email.policy.HTTP).parsebytes(head + b"\r\n\r\n")
        parts.append((headers, body))
    return parts


@pytest.mark.parametrize("form,media_type", [(None, "audio/wav"), ("flac", "audio/flac"), ("ogg", "audio/ogg")])
def test_mixed(daemon, clip, form, media_type):
    params = {"preset": "subtle", "seed": 6, **({"format": form} if form else {})}
    answer = daemon.vamp(clip, params, MIXED)
    assert answer.status == 200 and answer.headers["Content-Type"].startswith(MIXED)
    (head, document), (audio_head, audio) = parts_of(answer)
    assert head.get_content_type() == "application/json" and audio_head.get_content_type() == media_type
    assert audio_head.get_content_disposition() == "attachment" and audio_head.get_filename().startswith("variation.")
    assert audio == daemon.vamp(clip, params).body
    mixed, plain = json.loads(document), daemon.vamp(clip, params, "application/json").json()
    assert mixed["audio"]["part"] == "audio" and not {"data", "encoding"} & set(mixed["audio"])
    assert mixed["mask"] == plain["mask"] and mixed["seed"] == plain["seed"] == int(answer.headers["Vampd-Seed"])


def test_job_id(daemon, clip):
    first, second = (daemon.vamp(clip, {"seed": 1}).headers["Vampd-Job-Id"] for _ in range(2))
    assert first != second and re.fullmatch("[0-9a-f]{24}", first)
