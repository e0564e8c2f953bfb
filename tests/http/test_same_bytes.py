"""The same clip, parameters and seed give the same bytes through both doors: vamp run and vampd."""
import json
import os
import subprocess

import pytest

from harness import ROOT, VAMPD, make_wav

VAMP = os.path.join(os.path.dirname(VAMPD), "vamp")

CASES = [
    ("subtle", ["--preset", "subtle", "--seed", "5"], {"preset": "subtle", "seed": 5}),
    ("ratio", ["--mask-ratio", "0.8", "--periodic-prompt", "5", "--upper-codebook-mask", "4", "--seed", "12"],
     {"mask": {"mask_ratio": 0.8, "periodic_prompt": 5, "upper_codebook_mask": 4}, "seed": 12}),
    ("tree", ["--mask", '{"not": {"pattern": "range", "start_s": 0.2, "end_s": 0.6}}', "--seed", "0"],
     {"mask": {"not": {"pattern": "range", "start_s": 0.2, "end_s": 0.6}}, "seed": 0}),
]


@pytest.mark.parametrize("name,flags,params", CASES)
def test_vamp_run_and_vampd_agree(daemon, model, tmp_path, name, flags, params):
    source, target = tmp_path / "in.wav", tmp_path / "out.wav"
    source.write_bytes(make_wav(1.3, 48000, 2, seed=3))
    subprocess.run([VAMP, "run", str(source), "-o", str(target), "-m", model, *flags], check=True, cwd=ROOT)
    answer = daemon.vamp(source.read_bytes(), params)
    assert answer.status == 200 and answer.body == target.read_bytes()


def test_mask_documents_agree(daemon, model, tmp_path):
    target = tmp_path / "mask.json"
    subprocess.run([VAMP, "mask", "--frames", "300", "-m", model, "--preset", "vampnet/large", "--seed", "8", "--json",
                    str(target)], check=True, cwd=ROOT)
    answer = daemon.post("/v1/masks", {"frames": 300, "preset": "vampnet/large", "seed": 8})
    assert answer.json()["passes"] == json.loads(target.read_text())["passes"]
