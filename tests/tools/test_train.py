"""The training tools, where PyTorch is there (Debian: python3-torch); skipped elsewhere. Small sizes, seconds in all.

VAMP_TRAIN_SMOKE=1 adds the whole pipeline on a minute of audio (make train-smoke), which needs the packages that
tools/train/data names."""
import importlib.machinery
import importlib.util
import json
import math
import os
import subprocess
import sys

import numpy
import pytest

from support import ROOT

torch = pytest.importorskip("torch", reason="PyTorch is not installed (Debian: python3-torch)")
TRAIN = ROOT / "tools" / "train"
sys.path.insert(0, str(TRAIN))

import augment  # noqa: E402
import describe  # noqa: E402
import model  # noqa: E402
import quantise  # noqa: E402
import transform  # noqa: E402
import transformer_stage  # noqa: E402

HOP, RATE = 768, 44100


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    torch.set_num_threads(1)


def music(examples=8, frames=32, seed=0):
    """Tones that begin, decay and change, over some noise: enough to have levels."""
    draw = numpy.random.default_rng(seed)
    out = numpy.zeros((examples, frames * HOP), numpy.float32)
    t = numpy.arange(frames * HOP) / RATE
    for row in out:
        for _ in range(12):
            start, frequency = draw.uniform(0, t[-1]), 55 * 2 ** draw.uniform(0, 7)
            since = numpy.maximum(t - start, 0)
            row += (t >= start) * numpy.sin(2 * numpy.pi * frequency * since) * numpy.exp(-since * draw.uniform(1, 12)) * 0.1
        row += draw.normal(size=len(row)) * 10 ** draw.uniform(-4, -1.5)
    return torch.from_numpy(out)


@pytest.fixture(scope="module")
def built():
    """A codec as training begins with it, and the music that it was made from."""
    torch.manual_seed(0)
    codec = model.initialise(model.Codec(encoder_dim=12, decoder_dim=256))
    audio, description = music(24), describe.Description(HOP, RATE)
    left = describe.construct(codec.encoder, audio, description, RATE)
    with torch.no_grad():
        latents = codec.encoder(audio[:, None]).transpose(0, 1).flatten(1)
    return codec, audio, description, left, latents


def test_the_encoder_begins_as_the_transform(built):
    codec, audio, _, _, _ = built
    basis = transform.lapped_basis(HOP, describe.COEFFICIENTS)
    pieces = torch.nn.functional.pad(audio, (HOP // 2, HOP // 2)).unfold(1, 2 * HOP, HOP)
    want = (pieces @ basis.t()).transpose(1, 2) * describe.GAIN
    with torch.no_grad():
        got = codec.encoder(audio[:, None])[:, :describe.COEFFICIENTS]
    assert (got - want).square().sum() < 0.05 * want.square().sum()


def test_the_encoder_begins_with_the_description(built):
    _, _, _, left, _ = built
    assert left < 0.2


def test_codebooks_are_used_and_describe(built):
    codec, _, _, _, latents = built
    left = quantise.construct(codec.quantizer, latents, torch.Generator().manual_seed(0))
    codes = codec.quantizer.encode(latents[None])[0]
    assert codes.shape == (14, latents.shape[1])
    assert left[0] < 0.2 and left[1] < 0.5
    # every coefficient is in one codebook, and a codebook writes to its own channels alone
    waveform = [channels for channels in quantise.CHANNELS if channels != quantise.DESCRIPTION]
    assert sorted(c for channels in waveform for c in range(*channels)) == list(range(describe.COEFFICIENTS))
    for q, (first, last) in zip(codec.quantizer.quantizers, quantise.CHANNELS):
        weight = model.fold(q).out_proj.weight[:, :, 0]
        assert (weight[first:last] != 0).any() and (weight[:first] == 0).all() and (weight[last:] == 0).all()


def test_the_decoder_begins_as_the_inverse_transform():
    codec = model.initialise(model.Codec(encoder_dim=12, decoder_dim=256))
    n = describe.COEFFICIENTS
    edges = describe.mel_points(30, 0.95 * RATE / 2, describe.BANDS + 2).tolist()
    transform.start_as_transform(codec.decoder, codec.rates, n, describe.BANDS, edges,
                                 (torch.full((describe.BANDS,), -50.0), 15.0), torch.full((n,), 0.3), RATE, describe.GAIN)
    t = torch.arange(64 * HOP) / RATE
    tone = 0.005 * torch.sin(2 * math.pi * 440 * t)
    pieces = torch.nn.functional.pad(tone[None], (HOP // 2, HOP // 2)).unfold(1, 2 * HOP, HOP)
    latent = torch.zeros(1, 192, 64)
    latent[:, :n] = (pieces @ transform.lapped_basis(HOP, n).t()).transpose(1, 2) * describe.GAIN
    latent[:, n:n + describe.BANDS] = -2.0                    # all bands silent: no noise
    with torch.no_grad():
        out = codec.decoder(latent)[0, 0]
    middle = slice(4 * HOP, -4 * HOP)
    assert (out - tone)[middle].norm() < 0.5 * tone[middle].norm()


@pytest.mark.parametrize("speed", [0.85, 1.0, 1.19])
def test_speed_moves_pitch(speed):
    t = numpy.arange(3 * RATE) / RATE
    tone = numpy.sin(2 * numpy.pi * 1000 * t).astype(numpy.float32)
    out = augment.at_speed(tone, speed, RATE)
    assert len(out) == RATE
    peak = numpy.abs(numpy.fft.rfft(out * numpy.hanning(RATE))).argmax()
    assert abs(peak - 1000 * speed) <= 1.5
    assert abs(numpy.sqrt((out[2000:-2000] ** 2).mean()) - math.sqrt(0.5)) < 0.01


def test_versions_fill_the_hours_and_are_the_seeds():
    pieces = [(0, 30 * RATE), (30 * RATE, 60 * RATE), (90 * RATE, 90 * RATE)]

    def made(hours, seed):
        return augment.versions(pieces, hours, torch.Generator().manual_seed(seed))

    assert sorted(made(0, 1)) == [(*piece, 1.0) for piece in pieces]
    some = made(0.5, 1)
    assert some == made(0.5, 1) != made(0.5, 2)
    assert 0.5 * 3600 * RATE <= sum(length / speed for _, length, speed in some) < 0.55 * 3600 * RATE
    assert len({speed for *_, speed in some}) > 10


def test_training_masks_leave_and_take_something():
    for seed in range(50):
        mask = transformer_stage.training_mask(2, 4, 64, 0.5, torch.Generator().manual_seed(seed))
        assert mask.shape == (2, 4, 64) and mask.dtype == torch.bool and mask.flatten(1).any(1).all()


def test_losses_are_the_models():
    """The loss by codebook on masked frames alone is that of the model's own logits."""
    torch.manual_seed(1)
    net = model.initialise(model.Transformer(n_codebooks=6, n_conditioning_codebooks=2, n_layers=1, n_heads=2, embedding_dim=32,
                                             vocab_size=50))
    tables = torch.randn(6, 50, 8)
    tokens = torch.randint(50, (2, 6, 20))
    transformer_stage.start(net, tables, tokens.transpose(0, 1).flatten(1), 0)
    mask = torch.rand(2, 6, 20) < 0.5
    mask[:, :2] = False
    with torch.no_grad():
        loss, plain = transformer_stage.losses(net, net.transformer, tokens, mask, tables)
        log_p = net(tokens.masked_fill(mask, 50), tables)[mask[:, 2:]].log_softmax(-1)
    right = -log_p.gather(-1, tokens[mask][:, None]).mean()
    assert abs(float(plain - right)) < 1e-4
    assert abs(float(loss - (0.9 * right - 0.1 * log_p.mean()))) < 1e-4


def test_the_adversary_learns_and_judges():
    import argparse
    import discriminators
    arguments = argparse.Namespace(seed=0, discriminator_width=2, device=torch.device("cpu"), discriminator_rate=1e-3)
    adversary = discriminators.Adversary(arguments, None)
    want = music(2, 8, seed=3)
    got = (want + 0.05 * torch.randn(want.shape)).requires_grad_()
    losses = [float(adversary.learn(got.detach(), want)) for _ in range(8)]
    assert losses[-1] < losses[0]
    passing, matching = adversary.judge(got, want)
    (passing + matching).backward()
    assert got.grad.abs().sum() > 0 and float(matching) > 0
    again = discriminators.Adversary(arguments, adversary.state())
    assert float(again.judge(got, want)[1]) == pytest.approx(float(matching))


def test_packed_audio_comes_back(tmp_path):
    loader = importlib.machinery.SourceFileLoader("data", str(TRAIN / "data"))
    data = importlib.util.module_from_spec(importlib.util.spec_from_loader("data", loader))
    loader.exec_module(data)
    import shutil
    if not shutil.which("opusenc") or not shutil.which("opusdec"):
        pytest.skip("opus-tools is not installed")
    sound = (music(1, 200)[0].numpy() * 20000).astype(numpy.int16)
    for name in ("train", "heldout"):
        numpy.save(tmp_path / f"{name}.npy", sound)
        (tmp_path / f"{name}.json").write_text(json.dumps([{"what": "x", "start": 0, "samples": len(sound)}]))
    data.pack(str(tmp_path), str(tmp_path / "packed.tar"), 96)
    data.unpack(str(tmp_path / "packed.tar"), str(tmp_path / "back"))
    back = numpy.load(tmp_path / "back" / "train.npy")
    assert back.shape == sound.shape
    a, b = sound.astype(float)[5000:-5000], back.astype(float)[5000:-5000]
    assert (a @ b) / (numpy.linalg.norm(a) * numpy.linalg.norm(b)) > 0.9


@pytest.mark.skipif(not os.environ.get("VAMP_TRAIN_SMOKE"), reason="set VAMP_TRAIN_SMOKE=1 to run the whole pipeline")
def test_the_whole_pipeline():
    subprocess.run([str(TRAIN / "all"), "--smoke", "--root", os.environ.get("VAMP_TRAIN_ROOT", "/")], check=True, timeout=600)
