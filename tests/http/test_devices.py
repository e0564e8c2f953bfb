"""Several devices behind one door: each runs a batch loop of its own, jobs go to whichever has the least left to do, and
no byte tells where a job ran. On two emulated GPUs (tests/cuda/emulator), which share a processor: nothing is faster here.
"""
import os
import re
import subprocess

import pytest

from harness import ENVIRONMENT, ROOT, VAMPD, make_wav

PLUGIN = os.path.join(os.path.dirname(VAMPD), "libvamp_cuda_emulated.so")
pytestmark = pytest.mark.skipif(not os.path.exists(PLUGIN), reason="make cuda-emulated")

EMULATED = ("--backend", "cuda-emulated", "--precision", "fp32")
TWO = {"VAMP_EMULATOR_DEVICES": "2", "VAMP_EMULATOR_UNCHECKED": "1"}
PARAMS = {"seed": 4, "sampling": {"coarse_steps": 1, "fine_steps": 1}}


def busy(daemon):
    """Seconds that each device has worked, by its number."""
    text = daemon.get("/metrics").body.decode()
    return {int(number): float(value) for number, value in
            re.findall(r'^vampd_device_busy_seconds_total\{device="(\d+)"\} (\S+)$', text, re.M)}


def refused(model, *flags, **variables):
    result = subprocess.run([VAMPD, "--model", model, "--port", "0", "--data-dir", "", *flags], capture_output=True, text=True,
                            timeout=60, cwd=ROOT, env={**ENVIRONMENT, **variables})
    assert result.returncode == 1, result.stderr
    return result.stderr


def test_jobs_run_on_all_devices_and_none_can_tell(start):
    clips = [make_wav(0.1, seed=i) for i in range(3)]
    with start(*EMULATED, environment=TWO) as one:
        expected = [one.vamp(clip, PARAMS).body for clip in clips]
        assert sorted(busy(one)) == [0]
    with start(*EMULATED, "--devices", "all", environment=TWO) as two:
        model = two.get("/v1/models").json()["models"][0]
        assert model["device"].startswith("2 devices: cuda-emulated")
        assert len([line for line in two.log if "as asked for" in line]) == 2
        assert two.done(*two.submit(clips, PARAMS)) == expected
        seconds = busy(two)
        assert sorted(seconds) == [0, 1] and min(seconds.values()) > 0, seconds
        assert [two.vamp(clip, PARAMS).body for clip in clips[:2]] == expected[:2]


def test_devices_by_number(start):
    """The second alone; a job on it is cancelled, and the next runs."""
    with start(*EMULATED, "--devices", "1", environment=TWO) as daemon:
        job, = daemon.submit(make_wav(1.0), {"seed": 1, "sampling": {"coarse_steps": 200}})
        daemon.wait_for(job["id"], "encoding", "generating")
        assert daemon.request("DELETE", job["links"]["self"]).status in (200, 202)
        assert daemon.wait_for(job["id"])["state"] == "cancelled"
        daemon.done(*daemon.submit(make_wav(0.1), PARAMS))


def test_devices_that_are_not_there(model):
    assert "the CUDA devices here are 0 to 1: there is no number 2" in refused(model, *EMULATED, "--devices", "2", **TWO)
    assert "there is no number 2" in refused(model, *EMULATED, "--devices", "0,2", **TWO)
    assert "the processor is one device, number 0" in refused(model, "--backend", "cpu", "--devices", "0,1")
    assert "there is no device number 1" in refused(model, "--backend", "auto", "--devices", "1", VAMP_BACKEND="", VAMP_PLUGIN_PATH="/nowhere")


def test_devices_of_several_kinds_are_refused(model):
    said = refused(model, *EMULATED, "--devices", "0,1", **TWO, VAMP_EMULATOR_MIXED="1")
    assert "not of one kind" in said and "--devices" in said
