"""The engine against the published implementation's own tensors, stage by stage, in fp32, through tools/convert and vamp.

Two sets: the repository's own (tests/parity/fixture, made by tools/train/fixture with dimensions that are not the
published ones), and, where it is at hand, the reference of the published architecture in ../shared/reference. How close
is right is stated there: encoder_out and quantized 1e-4 relative, codes equal in 99.9 % of tokens, decoded 60 dB
signal-to-difference, logits within 1e-2 (they are stored in fp16), greedy tokens equal in 99 %.

Both backends have to be as close: the CPU's, and CUDA's under the emulator of tests/cuda; or, where VAMP_BACKEND names
another than the CPU's (tests/cuda/check-gpu), that one.
"""
import os

import numpy
import pytest

from support import ROOT, convert, read_wav

SETS = {"own": ROOT / "tests" / "parity" / "fixture", "reference": ROOT.parent / "shared" / "reference"}
STEPS = {"coarse": 12, "c2f": 2}
NAMED = os.environ.get("VAMP_BACKEND", "cpu")
BACKENDS = ["cpu", "cuda-emulated"] if NAMED in ("cpu", "auto") else [NAMED]


@pytest.fixture(scope="module", params=sorted(SETS))
def tensors(request):
    folder = SETS[request.param]
    if not (folder / "codec.pth").exists():
        pytest.skip(f"{folder} is not here")
    return folder


@pytest.fixture(scope="module")
def model(tensors, tmp_path_factory):
    return convert(tensors, tmp_path_factory.mktemp("parity") / "model")


@pytest.fixture(params=BACKENDS)
def fp32(vamp, model, request):
    def run(command, *arguments):
        return vamp(command, "-m", model, "--precision", "fp32", "--backend", request.param, *arguments)
    return run


def relative(got, wanted):
    assert got.shape == wanted.shape
    return numpy.linalg.norm(got.astype(float) - wanted) / numpy.linalg.norm(wanted.astype(float))


def test_encode(fp32, tensors, tmp_path):
    fp32("encode", "--raw", tensors / "audio.wav", tmp_path / "codes.npy", "--encoder-out", tmp_path / "latent.npy")
    assert relative(numpy.load(tmp_path / "latent.npy"), numpy.load(tensors / "encoder_out.npy")) < 1e-4
    codes, wanted = numpy.load(tmp_path / "codes.npy"), numpy.load(tensors / "codes.npy")
    assert codes.shape == wanted.shape and (codes == wanted).mean() >= 0.999


def test_decode(fp32, tensors, tmp_path):
    fp32("decode", "--raw", tensors / "codes.npy", tmp_path / "audio.wav", "--latent", tmp_path / "latent.npy")
    assert relative(numpy.load(tmp_path / "latent.npy"), numpy.load(tensors / "quantized.npy")) < 1e-4
    audio, rate = read_wav(tmp_path / "audio.wav")
    assert rate == 44100
    assert -20 * numpy.log10(relative(audio, numpy.load(tensors / "decoded.npy").reshape(-1))) >= 60


@pytest.mark.parametrize("name, stage", [("coarse", "coarse"), ("c2f", "fine")])
def test_logits(fp32, tensors, tmp_path, name, stage):
    fp32("logits", "--stage", stage, tensors / "codes.npy", tensors / f"{name}_mask.npy", tmp_path / "logits.npy")
    logits, wanted = numpy.load(tmp_path / "logits.npy"), numpy.load(tensors / f"{name}_logits.npy")
    assert logits.dtype == numpy.float32 and logits.shape == wanted.shape
    assert numpy.abs(logits - wanted.astype("float32")).max() < 1e-2


@pytest.mark.parametrize("name, stage", [("coarse", "coarse"), ("c2f", "fine")])
def test_greedy(fp32, tensors, tmp_path, name, stage):
    fp32("generate", "--stage", stage, "--greedy", "--steps", STEPS[name], tensors / "codes.npy",
         tensors / f"{name}_mask.npy", tmp_path / "tokens.npy")
    tokens, wanted = numpy.load(tmp_path / "tokens.npy"), numpy.load(tensors / f"{name}_greedy.npy")
    assert tokens.shape == wanted.shape and (tokens == wanted).mean() >= 0.99
