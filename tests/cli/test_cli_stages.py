"""encode, decode, logits, generate: shapes, and errors for arrays that do not fit."""
import json

import numpy
import pytest

from support import read_wav, tone, write_wav

FRAMES, VOCABULARY = 40, 48                                   # of the tiny model


@pytest.fixture(scope="module")
def codes():
    return numpy.random.default_rng(1).integers(0, VOCABULARY, (14, FRAMES)).astype("int32")


@pytest.fixture
def save(tmp_path):
    def write(name, array):
        numpy.save(tmp_path / name, array)
        return tmp_path / name
    return write


def test_encode_and_decode(vamp, tiny_model, tmp_path):
    clip = write_wav(tmp_path / "in.wav", tone(0.8, rate=22050, channels=2), 22050)
    said = json.loads(vamp("encode", "-m", tiny_model, "--json", clip, tmp_path / "c.npy").stdout)
    codes = numpy.load(tmp_path / "c.npy")
    frames = -(-int(0.8 * 44100) // 768)
    assert codes.dtype == numpy.int32 and codes.shape == (14, frames) and said["frames"] == frames
    vamp("decode", "-m", tiny_model, tmp_path / "c.npy", tmp_path / "out.flac")
    assert (tmp_path / "out.flac").read_bytes().startswith(b"fLaC")
    vamp("decode", "-m", tiny_model, "--raw", tmp_path / "c.npy", tmp_path / "out.wav")
    assert len(read_wav(tmp_path / "out.wav")[0]) == frames * 768


def test_raw_takes_samples_as_they_are(vamp, tiny_model, tmp_path):
    clip = write_wav(tmp_path / "in.wav", tone(0.5, level=0.01))
    vamp("encode", "-m", tiny_model, clip, tmp_path / "normal.npy")
    vamp("encode", "-m", tiny_model, "--raw", clip, tmp_path / "raw.npy", "--encoder-out", tmp_path / "e.npy")
    vamp("encode", "-m", tiny_model, "--raw", clip, tmp_path / "raw2.npy")
    raw = numpy.load(tmp_path / "raw.npy")
    assert (raw == numpy.load(tmp_path / "raw2.npy")).all(), "with and without --encoder-out"
    assert (raw != numpy.load(tmp_path / "normal.npy")).any()
    latent = numpy.load(tmp_path / "e.npy")
    assert latent.dtype == numpy.float32 and latent.shape[1] == raw.shape[1]
    for samples, rate in ((tone(0.5, channels=2), 44100), (tone(0.5, rate=48000), 48000)):
        write_wav(clip, samples, rate)
        assert "--raw takes mono at the model's 44100 Hz" in vamp(
            "encode", "-m", tiny_model, "--raw", clip, tmp_path / "x.npy", code=1).stderr


def test_latent_does_not_change_the_audio(vamp, tiny_model, save, tmp_path, codes):
    path = save("codes.npy", codes)
    vamp("decode", "-m", tiny_model, "--raw", path, tmp_path / "a.wav")
    vamp("decode", "-m", tiny_model, "--raw", path, tmp_path / "b.wav", "--latent", tmp_path / "l.npy")
    assert (tmp_path / "a.wav").read_bytes() == (tmp_path / "b.wav").read_bytes()
    assert numpy.load(tmp_path / "l.npy").shape[1] == FRAMES


@pytest.mark.parametrize("stage, predicted, first", [("coarse", 4, 0), ("fine", 10, 4)])
def test_logits(vamp, tiny_model, save, tmp_path, codes, stage, predicted, first):
    count = first + predicted
    mask = numpy.zeros((count, FRAMES), "uint8")
    mask[first:, 10:20] = 1
    vamp("logits", "-m", tiny_model, "--stage", stage, save("c.npy", codes), save("m.npy", mask), tmp_path / "l.npy")
    logits = numpy.load(tmp_path / "l.npy")
    assert logits.dtype == numpy.float32 and logits.shape == (predicted, FRAMES, VOCABULARY)
    assert numpy.isfinite(logits).all()
    # masked in the codes already: the same
    marked = numpy.where(mask.astype(bool), VOCABULARY, codes[:count]).astype("int32")
    vamp("logits", "-m", tiny_model, "--stage", stage, save("c.npy", marked), save("m.npy", 0 * mask), tmp_path / "k.npy")
    assert (logits == numpy.load(tmp_path / "k.npy")).all()


@pytest.mark.parametrize("stage, first, count", [("coarse", 0, 4), ("fine", 4, 14)])
def test_generate(vamp, tiny_model, save, tmp_path, codes, stage, first, count):
    mask = numpy.zeros((14, FRAMES), bool)
    mask[:, 5:30] = True
    arguments = ["generate", "-m", tiny_model, "--stage", stage, "--steps", 4, save("c.npy", codes), save("m.npy", mask)]
    vamp(*arguments, tmp_path / "a.npy", "--seed", 3)
    vamp(*arguments, tmp_path / "b.npy", "--seed", 3)
    vamp(*arguments, tmp_path / "c2.npy", "--seed", 4)
    a, b, c = (numpy.load(tmp_path / name) for name in ("a.npy", "b.npy", "c2.npy"))
    assert a.dtype == numpy.int32 and a.shape == (count, FRAMES)
    kept = ~mask[:count]
    kept[:first] = True                                       # conditioning is never changed
    assert (a[kept] == codes[:count][kept]).all()
    assert a.min() >= 0 and a.max() < VOCABULARY
    assert (a == b).all() and (a != c).any()


def test_greedy_needs_no_seed(vamp, tiny_model, save, tmp_path, codes):
    mask = numpy.ones((4, FRAMES), "uint8")
    for name in ("a.npy", "b.npy"):
        vamp("generate", "-m", tiny_model, "--stage", "coarse", "--greedy", save("c.npy", codes), save("m.npy", mask),
             tmp_path / name)
    assert (tmp_path / "a.npy").read_bytes() == (tmp_path / "b.npy").read_bytes()


@pytest.mark.parametrize("codes_change, complaint", [
    (lambda c: c.astype("float32"), "must be int32"),
    (lambda c: c.astype("uint8"), "must be int32"),
    (lambda c: c[:3], "[4 or more codebooks, frames]"),
    (lambda c: c[0], "[4 or more codebooks, frames]"),
    (lambda c: c[:, :0], "[4 or more codebooks, frames]"),
    (lambda c: c - 1000, "out of range"),
    (lambda c: c + 1000, "out of range"),
    (lambda c: c.astype("int64") + 2**40, "codes.npy")])
def test_codes_that_do_not_fit(vamp, tiny_model, save, tmp_path, codes, codes_change, complaint):
    mask = save("mask.npy", numpy.ones((4, FRAMES), "uint8"))
    done = vamp("logits", "-m", tiny_model, "--stage", "coarse", save("codes.npy", codes_change(codes)), mask,
                tmp_path / "l.npy", code=1)
    assert complaint in done.stderr and "codes.npy" in done.stderr and not (tmp_path / "l.npy").exists()


@pytest.mark.parametrize("mask, complaint", [
    (numpy.ones((4, FRAMES), "float32"), "uint8 or bool"),
    (numpy.ones((4, FRAMES - 1), "uint8"), "39 frames and the codes have 40"),
    (numpy.ones((3, FRAMES), "uint8"), "[4 or more codebooks, frames]"),
    (numpy.full((4, FRAMES), 2, "uint8"), "0 (keep) or 1 (regenerate)")])
def test_masks_that_do_not_fit(vamp, tiny_model, save, tmp_path, codes, mask, complaint):
    done = vamp("generate", "-m", tiny_model, "--stage", "coarse", save("codes.npy", codes), save("mask.npy", mask),
                tmp_path / "o.npy", code=1)
    assert complaint in done.stderr and "mask.npy" in done.stderr


def test_decode_takes_just_its_codebooks(vamp, tiny_model, save, tmp_path, codes):
    assert "[14 codebooks, frames]" in vamp("decode", "-m", tiny_model, save("c.npy", codes[:4]), tmp_path / "o.wav",
                                            code=1).stderr
    masked = codes.copy()
    masked[3, 3] = VOCABULARY
    assert "[3, 3] is out of range" in vamp("decode", "-m", tiny_model, save("c.npy", masked), tmp_path / "o.wav",
                                            code=1).stderr


def test_a_kept_token_must_be_a_token(vamp, tiny_model, save, tmp_path, codes):
    masked = codes.copy()
    masked[1, 7] = VOCABULARY
    done = vamp("generate", "-m", tiny_model, "--stage", "coarse", save("c.npy", masked),
                save("m.npy", numpy.zeros((4, FRAMES), "uint8")), tmp_path / "o.npy", code=1)
    assert "[1, 7] is masked already" in done.stderr
