"""The weights that ship, and the bundled clip, through the daemon."""
import os
import time

import pytest

from harness import ROOT, Daemon

SMALL = os.path.join(ROOT, "models", "small")


@pytest.mark.skipif(not os.path.exists(os.path.join(SMALL, "model.json")), reason="models/small is not there")
def test_demo_clip():
    with open(os.path.join(SMALL, "demo.flac"), "rb") as file:
        clip = file.read()
    with Daemon(SMALL) as daemon:
        first = daemon.vamp(clip, {"preset": "balanced", "seed": 1})
        assert first.status == 200 and first.body.startswith(b"RIFF")
        assert daemon.vamp(clip, {"preset": "balanced", "seed": 1}).body == first.body
        assert daemon.vamp(clip, {"preset": "balanced", "seed": 2}).body != first.body


@pytest.mark.skipif(not os.path.exists(os.path.join(SMALL, "model.json")), reason="models/small is not there")
def test_start_is_quick():
    started = time.monotonic()
    with Daemon(SMALL):
        assert time.monotonic() - started < 5
