"""Both doors lead to the same room: the same clip, parameters and seed give the same bytes through vamp and vampd."""
import json
import re
import subprocess

import numpy
import pytest

from support import tone, write_wav

PARAMETERS = {"preset": "creative", "mask": {"periodic_prompt": 5, "dropout": 0.1}, "seed": 77, "format": "wav",
              "sampling": {"coarse_steps": 4, "fine_steps": 2, "temperature": 0.9, "top_p": 0.95, "typical_mass": 0.5}}
FLAGS = ["--preset", "creative", "--periodic-prompt", 5, "--dropout", 0.1, "--seed", 77, "--format", "wav", "--steps", 4,
         "--fine-steps", 2, "--temperature", 0.9, "--top-p", 0.95, "--typical-mass", 0.5]


@pytest.fixture
def daemon(build, tiny_model, tmp_path):
    """-> the address of a vampd that is running."""
    with open(tmp_path / "vampd.log", "w+") as log:
        process = subprocess.Popen([str(build / "vampd"), "--port", "0", "--model", str(tiny_model),
                                    "--data-dir", str(tmp_path / "data")], stderr=log)
        try:
            for _ in range(600):
                address = re.search(r"^vampd listening on (\S+)$", (tmp_path / "vampd.log").read_text(), re.M)
                if address or process.poll() is not None:
                    break
                try:
                    process.wait(0.05)
                except subprocess.TimeoutExpired:
                    pass
            assert address, (tmp_path / "vampd.log").read_text()
            yield address.group(1)
        finally:
            process.terminate()
            assert process.wait(30) == 0


def test_the_same_bytes(vamp, tiny_model, daemon, tmp_path):
    clip = write_wav(tmp_path / "clip.wav", tone(1.5))
    vamp("run", "-m", tiny_model, clip, "-o", tmp_path / "vamp.wav", "--mask-json", tmp_path / "vamp.json", *FLAGS)

    def ask(accept, out):
        subprocess.run(["curl", "-fsS", "-H", f"Accept: {accept}", "-F", f"audio=@{clip}", "-F",
                        f"params={json.dumps(PARAMETERS)}", "-o", str(out), f"{daemon}/v1/vamp"], check=True)
        return out

    assert ask("audio/wav", tmp_path / "vampd.wav").read_bytes() == (tmp_path / "vamp.wav").read_bytes()
    answer = json.loads(ask("application/json", tmp_path / "vampd.json").read_text())
    mine = json.loads((tmp_path / "vamp.json").read_text())
    assert answer["mask"]["density"]["codebooks"] == pytest.approx(mine["density"]["codebooks"])
    assert answer["seed"] == mine["seed"] == 77
    assert numpy.size(answer["mask"]["passes"]) == numpy.size(mine["passes"]) == 1
