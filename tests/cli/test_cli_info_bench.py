"""info and bench."""
import json
import shutil

import pytest


def test_info(vamp, tiny_model):
    facts = json.loads(vamp("info", tiny_model, "--json").stdout)
    assert facts["codec"]["hop_length"] == 768 and facts["codec"]["sample_rate"] == 44100
    assert facts["coarse"]["n_codebooks"] == 4 and facts["c2f"]["n_conditioning_codebooks"] == 4
    assert all(size > 0 for size in facts["bytes"].values())
    text = vamp("info", tiny_model, "--check").stdout
    assert "every tensor is there" in text and "44100 Hz" in text


def test_the_environment_names_the_model(vamp, tiny_model, tmp_path):
    facts = json.loads(vamp("info", "--json", folder=tmp_path, environment={"VAMP_MODEL": str(tiny_model)}).stdout)
    assert facts["folder"] == str(tiny_model)


def test_a_model_is_found_by_name(vamp, tiny_model, tmp_path):
    shutil.copytree(tiny_model, tmp_path / "models" / "pet")
    facts = json.loads(vamp("info", "pet", "--json", folder=tmp_path).stdout)
    assert facts["folder"] == "models/pet"


def test_a_broken_model_is_named(vamp, tiny_model, tmp_path):
    broken = tmp_path / "broken"
    shutil.copytree(tiny_model, broken)
    weights = broken / "coarse.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    assert "coarse.safetensors" in vamp("info", "--check", broken, code=1).stderr
    (broken / "model.json").write_text("{}")
    assert "model.json" in vamp("info", broken, code=1).stderr


def test_bench(vamp, tiny_model):
    facts = json.loads(vamp("bench", "-m", tiny_model, "--seconds", 0.5, "--batch", 2, "--repeat", 3, "--coarse-steps", 2,
                            "--fine-steps", 1, "--json").stdout)
    assert set(facts["wall_s"]) == {"encode", "coarse", "fine", "decode", "total"}
    assert all(value > 0 for value in facts["wall_s"].values()) and facts["peak_memory_mib"] > 0
    assert facts["audio_seconds_per_second"] == pytest.approx(2 * 0.5 / facts["wall_s"]["total"])
    table = vamp("bench", "-m", tiny_model, "--seconds", 0.5, "--coarse-steps", 1).stdout
    for row in ("load", "encode", "coarse", "fine", "decode", "total", "peak memory"):
        assert row in table
