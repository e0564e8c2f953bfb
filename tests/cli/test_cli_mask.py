"""vamp mask: shares, seeds, outputs. It needs no weights, so it is quick."""
import json
import re

import numpy
import pytest

from support import tone, write_wav

FRAMES = 574                                                  # ten seconds


def mask(vamp, tmp_path, *arguments, frames=FRAMES):
    """-> the mask as an array [codebooks, frames], and its document."""
    array, document = tmp_path / "mask.npy", tmp_path / "mask.json"
    vamp("mask", "--frames", frames, "--npy", array, "--json", document, *arguments)
    return numpy.load(array), json.loads(document.read_text())


@pytest.mark.parametrize("preset, share", [
    ("vampnet/subtle", 0.943), ("vampnet/improvise", 0.990), ("vampnet/remix", 0.998), ("vampnet/texture", 0.969),
    ("vampnet/generate", 1.000)])
def test_published_presets_have_the_published_shares(vamp, tmp_path, preset, share):
    array, document = mask(vamp, tmp_path, "--preset", preset, "--seed", "1")
    assert document["density"]["overall"] == pytest.approx(array.mean(), abs=1e-6)
    assert round(array.mean(), 3) == share


def test_densities_are_those_of_the_array(vamp, tmp_path):
    array, document = mask(vamp, tmp_path, "--preset", "creative", "--seed", "3")
    assert array.shape == (14, FRAMES) and array.dtype == numpy.uint8
    assert document["seed"] == 3
    assert document["density"]["coarse"] == pytest.approx(array[:4].mean(), abs=1e-6)
    assert document["density"]["codebooks"] == pytest.approx(array.mean(1), abs=1e-6)


def test_keep_and_mask(vamp, tmp_path):
    keep, _ = mask(vamp, tmp_path, "--upper-codebook-mask", 2, "--upper-codebooks", "keep", "--seed", 1)
    masked, _ = mask(vamp, tmp_path, "--upper-codebook-mask", 2, "--upper-codebooks", "mask", "--seed", 1)
    assert not keep[2:4].any() and masked[2:4].all()
    assert keep[4:].all() and masked[4:].all()
    assert (keep[:2] == masked[:2]).all()


def test_flags_override_a_preset_and_a_mask(vamp, tmp_path):
    a, _ = mask(vamp, tmp_path, "--preset", "creative", "--periodic-prompt", 0, "--mask-ratio", 0.25, "--seed", 1)
    assert a[:4].sum() == round(0.25 * 4 * FRAMES)
    (tmp_path / "m.json").write_text('{"mask_ratio": 1, "periodic_prompt": 0, "upper_codebook_mask": 4}')
    b, _ = mask(vamp, tmp_path, "--mask", f"@{tmp_path}/m.json", "--periodic-prompt", 2, "--periodic-offset", 0)
    assert not b[:4, ::2].any() and b[:4, 1::2].all()


def test_the_tree_of_the_help_page(vamp, tmp_path):
    example = vamp("mask", "--help").stdout.split("example:")[1]
    tree = example.split("--mask '")[1].split("'")[0]
    a, _ = mask(vamp, tmp_path, "--mask", tree)
    start, end = round(2 * 44100 / 768), round(4 * 44100 / 768)
    assert not a[:, start + 1:end - 1].any() and a[:, :start - 1].mean() > 0.7


def test_prefix_and_suffix_are_kept(vamp, tmp_path):
    a, _ = mask(vamp, tmp_path, "--mask-ratio", 1, "--periodic-prompt", 0, "--upper-codebook-mask", 14, "--prefix-s", 1,
                "--suffix-s", 0.5)
    second = 44100 / 768
    kept = numpy.flatnonzero(~a[0].astype(bool))
    assert abs((kept < FRAMES / 2).sum() - second) <= 1 and abs((kept > FRAMES / 2).sum() - second / 2) <= 1
    assert a[:, 100:500].all()


def test_a_seed_decides_everything(vamp, tmp_path):
    one, _ = mask(vamp, tmp_path, "--seed", 7)
    same, _ = mask(vamp, tmp_path, "--seed", 7)
    other, _ = mask(vamp, tmp_path, "--seed", 8)
    assert (one == same).all() and (one != other).any()


def test_a_random_seed_is_reported_and_repeats(vamp, tmp_path):
    one, document = mask(vamp, tmp_path)
    again, _ = mask(vamp, tmp_path, "--seed", document["seed"])
    assert (one == again).all()


def test_audio_and_its_frames_give_the_same_mask(vamp, tmp_path):
    clip = write_wav(tmp_path / "clip.wav", tone(2.0))
    vamp("mask", clip, "--seed", 5, "--npy", tmp_path / "a.npy")
    b, _ = mask(vamp, tmp_path, "--seed", 5, frames=-(-88200 // 768))
    assert (numpy.load(tmp_path / "a.npy") == b).all()


def test_masks_that_listen(vamp, tmp_path):
    """Clicks at 120 to the minute, every beat the same: kept beats stand half a second apart."""
    clicks = numpy.zeros(8 * 44100, "float32")
    burst = 0.5 * numpy.sin(numpy.arange(800) / 7) * numpy.exp(-numpy.arange(800) / 200)
    for beat in range(15):
        clicks[11025 + beat * 22050:][:800] = burst
    clip = write_wav(tmp_path / "clicks.wav", clicks)
    tree = '{"pattern": "beat", "before_ms": 0, "after_ms": 0}'
    vamp("mask", clip, "--mask", tree, "--npy", tmp_path / "beats.npy")
    beats = numpy.flatnonzero(numpy.load(tmp_path / "beats.npy")[0] == 0) * 768 / 44100
    assert len(beats) == 15 and abs(beats - 0.25 - 0.5 * numpy.arange(15)).max() < 0.07
    for preset in (["--preset", "rhythm"], ["--mask-ratio", 1, "--periodic-prompt", "beat"]):
        vamp("mask", clip, *preset, "--seed", 3, "--npy", tmp_path / "heard.npy")
        vamp("mask", clip, *preset, "--periodic-prompt", 29, "--seed", 3, "--npy", tmp_path / "told.npy")
        assert (numpy.load(tmp_path / "heard.npy") == numpy.load(tmp_path / "told.npy")).all()
    vamp("mask", clip, "--mask", '{"pattern": "adaptive", "ratio": 0.2}', "--npy", tmp_path / "loud.npy")
    loud = numpy.load(tmp_path / "loud.npy")
    assert loud[0].sum() == round(0.2 * loud.shape[1])


def test_what_listens_needs_a_clip(vamp):
    for mask_text in ('{"pattern": "onset"}', '{"preset": "rhythm"}', '{"periodic_prompt": "beat"}'):
        assert "listens" in vamp("mask", "--frames", 50, "--mask", mask_text, code=2).stderr


def test_pictures(vamp, tmp_path):
    vamp("mask", "--frames", 200, "--png", tmp_path / "m.png", "--svg", tmp_path / "m.svg")
    assert (tmp_path / "m.png").read_bytes().startswith(b"\x89PNG\r\n")
    assert "<svg" in (tmp_path / "m.svg").read_text()


def test_standard_output(vamp):
    document = json.loads(vamp("mask", "--frames", 100, "--json", "-").stdout)
    assert document["passes"] and 0 < document["density"]["overall"] <= 1
    summary = vamp("mask", "--frames", 100, "--seed", 4).stdout
    assert "14 codebooks x 100 frames" in summary and "seed 4" in summary


@pytest.mark.parametrize("option", ["json", "svg", "png", "npy"])
def test_a_link_is_written_through(vamp, tmp_path, option):
    (tmp_path / "file").write_text("before")
    (tmp_path / "link").symlink_to("file")
    vamp("mask", "--frames", 10, f"--{option}", tmp_path / "link")
    assert (tmp_path / "link").is_symlink() and (tmp_path / "file").stat().st_size > 100
    assert len(list(tmp_path.iterdir())) == 2


def test_presets_are_listed(vamp):
    text = vamp("mask", "--presets").stdout
    for name in ("balanced", "subtle", "creative", "vampnet/generate"):
        assert name in text


def test_dimensions_come_from_the_model(vamp, tiny_model, tmp_path):
    array, document = mask(vamp, tmp_path, "-m", tiny_model)
    assert array.shape[0] == json.loads(vamp("info", tiny_model, "--json").stdout)["codec"]["n_codebooks"]


def test_docs_masks_says_what_is(vamp, root, tmp_path, monkeypatch):
    """Every mask on the page is one, and its way to decode an answer gives the array."""
    page = (root / "docs" / "masks.md").read_text()
    clip = write_wav(tmp_path / "song.wav", tone(9))
    masks = [json.JSONDecoder().raw_decode(block[found.start():])[0]
             for block in re.findall(r"```\n(.*?)```", page, re.S) for found in re.finditer(r"^\{\"", block, re.M)]
    assert len(masks) >= 9
    for mask in masks:
        vamp("mask", clip, "--mask", json.dumps(mask), "--npy", tmp_path / "mask.npy")
    vamp("mask", clip, "--seed", 1, "--json", tmp_path / "mask.json", "--npy", tmp_path / "mask.npy")
    monkeypatch.chdir(tmp_path)
    (snippet,) = re.findall(r"```python\n(.*?)```", page, re.S)
    names = {}
    exec(snippet.split("steps =")[0], names)                               # a mask alone has no steps
    assert (names["mask"] == numpy.load(tmp_path / "mask.npy")).all()


def test_nothing_is_overwritten(vamp, tmp_path):
    clip = write_wav(tmp_path / "song.wav", tone(0.3))
    before = clip.read_bytes()
    assert "song.wav is read" in vamp("mask", clip, "--png", clip, code=2).stderr
    assert "both be written" in vamp("mask", clip, "--png", tmp_path / "x", "--npy", tmp_path / "x", code=2).stderr
    assert "song.wav is read" in vamp("encode", clip, clip, code=2).stderr
    assert clip.read_bytes() == before and list(tmp_path.iterdir()) == [clip]


def test_output_that_cannot_be_written(vamp, tmp_path):
    for option in ("--png", "--json", "--npy"):
        assert "nowhere" in vamp("mask", "--frames", 50, option, tmp_path / "nowhere" / "x", code=1).stderr
