"""The training tools, where PyTorch is there (Debian: python3-torch); skipped elsewhere. Small sizes, seconds in all.

VAMP_TRAIN_SMOKE=1 adds the whole pipeline on a minute of audio (make train-smoke), which needs vamp and sox too."""
import argparse
import importlib.machinery
import importlib.util
import json
import math
import os
import re
import shutil
import signal
import subprocess
import sys

import numpy
import pytest

from support import BUILD, ROOT, read_wav, write_wav

torch = pytest.importorskip("torch", reason="PyTorch is not installed (Debian: python3-torch)")
TRAIN = ROOT / "tools" / "train"
sys.path.insert(0, str(TRAIN))

import augment  # noqa: E402
import common  # noqa: E402
import describe  # noqa: E402
import model  # noqa: E402
import quantise  # noqa: E402
import study  # noqa: E402
import transform  # noqa: E402
import transformer_stage  # noqa: E402

HOP, RATE = 768, 44100


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    torch.set_num_threads(1)


def script(name):
    """A script of tools/train as a module."""
    loader = importlib.machinery.SourceFileLoader(name, str(TRAIN / name))
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader(name, loader))
    loader.exec_module(module)
    return module


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
    data = script("data")
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


def test_own_music_is_its_seeds_and_nothing_held_out_is_trained_on():
    data = script("data")
    train, heldout = data.synthetic_jobs(1, 5)
    assert len(train) == 6 and len(heldout) == 2
    assert not {job[2][0] for job in train} & {job[2][0] for job in heldout}
    once, again, other = (data.own_music(seed, 2, voices) for seed, voices in
                          ((1, None), (1, None), (1, data.HELDOUT_VOICES)))
    assert (once == again).all() and numpy.isfinite(once).all() and once.std() > 0.01
    n = min(len(once), len(other))
    assert abs(numpy.corrcoef(once[:n], other[:n])[0, 1]) < 0.9          # the same notes (and drums) in other voices


def test_a_stage_that_was_interrupted_ends_as_if_it_had_not_been(tmp_path):
    def run(folder, steps, stop=None):
        folder.mkdir(exist_ok=True)
        torch.manual_seed(3)
        module = torch.nn.Linear(4, 1)
        optimiser = torch.optim.AdamW([{"params": list(module.parameters()), "scale": 1.0}])
        arguments = argparse.Namespace(out=str(folder), log_every=100, checkpoint_seconds=0)
        schedule = common.Schedule(arguments, "stage", module, optimiser, steps, 0.1)
        began = schedule.step
        for step in schedule:
            if step == stop:
                return began, module
            x = torch.randn(8, 4, generator=common.generator(0, step, 0))
            schedule.descend((module(x) - x.sum(1, keepdim=True)).square().mean())
        return began, module

    assert run(tmp_path / "whole", 12)[0] == 0
    whole = run(tmp_path / "whole", 12)
    assert whole[0] == 12                                     # nothing is left to do
    run(tmp_path / "parts", 12, stop=7)
    began, parts = run(tmp_path / "parts", 12)
    assert began == 7
    assert torch.equal(parts.weight, whole[1].weight) and torch.equal(parts.bias, whole[1].bias)


def test_some_points_of_a_curve():
    assert study.spread(list(range(10)), 3) == [0, 4, 9]
    assert study.spread([1, 2], 3) == [1, 2]
    assert study.spread([1, 2, 3], 2) == [1, 3]


def test_evaluation_without_opus(built, tmp_path, monkeypatch, capsys):
    evaluate = script("evaluate")
    monkeypatch.setenv("PATH", str(tmp_path))
    sound = (music(1, 64)[0].numpy() * 20000).astype(numpy.int16)
    others = evaluate.Opus(str(tmp_path / "opus.json"), sound)
    assert "opus-tools" in capsys.readouterr().err
    with torch.no_grad():
        lines, codes = evaluate.measure_codec(built[0], sound, [(0, len(sound))], ["Cho"], others, None)
    assert codes[0].shape == (14, 64)
    table = [line for line in lines[:8] if line.startswith("|")]
    assert not any("Opus" in line for line in lines)
    assert {line.count("|") for line in table} == {5}         # music, pieces, two figures


def interrupted(command, line):
    """Start the command and kill it and its children once it prints what the pattern `line` matches."""
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True) as process:
        try:
            for said in process.stdout:
                if re.search(line, said):
                    return True
        finally:
            os.killpg(process.pid, signal.SIGKILL)
    return False


def figures(log, name):
    """What the lines of training say of a loss."""
    lines = "\n".join(re.findall(r"(?m)^\d\d:\d\d:\d\d .*", log))
    return [float(value) for value in re.findall(rf"(?m)\b{name} (-?(?:nan|inf|[\d.e+-]+))(?=\s|$)", lines)]


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory):
    """tools/train/all --smoke, killed in the midst of the coarse transformer and started again -> its folder and what
    the second start printed."""
    if not os.environ.get("VAMP_TRAIN_SMOKE"):
        pytest.skip("set VAMP_TRAIN_SMOKE=1 to run the whole pipeline")
    out = tmp_path_factory.mktemp("pipeline")
    readme = out / "figures.md"
    readme.write_text("before\n<!-- figures -->\nold\n<!-- end of figures -->\nafter\n")
    command = [str(TRAIN / "all"), "--smoke", "--out", str(out), "--vamp", str(BUILD / "vamp"), "--readme", str(readme)]
    assert interrupted(command, "held out, step 4: bits")
    assert not (out / "model").exists()
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=900)
    assert done.returncode == 0, done.stdout[-3000:]
    return out, done.stdout


def test_the_pipeline_goes_on_where_it_was_killed(pipeline):
    _, said = pipeline
    assert "train/data" not in said.split("+")[1].split()[0]  # the audio is not made again, nor are the tokens
    assert "tokens are there" in said
    assert "codec: goes on from step 8" in said
    assert int(re.search(r"coarse: goes on from step (\d+)", said)[1]) in (3, 4, 5, 6)
    assert "c2f: goes on" not in said


def test_the_pipelines_losses(pipeline):
    log = (pipeline[0] / "all.log").read_text()
    for name in ("norm", "mel", "magnitude", "waveform", "discriminators", "generated", "matching", "loss", "bits",
                 "bits at half masked"):
        values = figures(log, name)
        assert values and all(math.isfinite(value) and value > 0 for value in values), name
    heldout = figures("\n".join(re.findall(r".*held out.*mel.*", log)), "mel")
    assert len(heldout) == 3 and heldout[-1] < heldout[0]     # eight steps, but from a good start
    c2f = figures(log[log.index("stage c2f"):], "bits")
    assert c2f[-1] < c2f[0] < 11


def test_the_pipelines_audio(pipeline):
    for name in ("train", "heldout"):
        audio = numpy.load(pipeline[0] / "data" / f"{name}.npy")
        pieces = json.loads((pipeline[0] / "data" / f"{name}.json").read_text())
        assert sum(piece["samples"] for piece in pieces) == len(audio)
        assert all(audio[piece["start"]:][:piece["samples"]].std() > 500 for piece in pieces)
    assert 0.8 * 60 * RATE < len(numpy.load(pipeline[0] / "data" / "train.npy")) < 1.3 * 60 * RATE


def test_the_pipelines_model_in_vamp(pipeline, tmp_path):
    """vamp reads the exported folder, finds the tokens that training found, and gives the music back."""
    out, vamp = pipeline[0], str(BUILD / "vamp")
    piece = json.loads((out / "data" / "heldout.json").read_text())[0]
    audio = numpy.load(out / "data" / "heldout.npy")[:piece["samples"]].astype(numpy.float32) / 32768
    write_wav(tmp_path / "a.wav", audio)
    options = ["-m", str(out / "model"), "--precision", "fp32", "--threads", "1"]
    for command in (["info", str(out / "model"), "--check"],
                    ["encode", "--raw", *options, str(tmp_path / "a.wav"), str(tmp_path / "a.npy")],
                    ["decode", "--raw", *options, str(tmp_path / "a.npy"), str(tmp_path / "b.wav")]):
        done = subprocess.run([vamp, *command], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    codes = numpy.load(tmp_path / "a.npy")
    tokens = torch.load(out / "tokens.pt", **common.ANY)["heldout"]
    start, frames = tokens["pieces"][0]
    assert codes.shape == (14, frames) and codes.min() >= 0 and codes.max() < 1024
    assert (codes == tokens["tokens"][:, start:start + frames].numpy()).mean() > 0.99
    back = read_wav(tmp_path / "b.wav")[0][:len(audio)]
    assert len(back) == len(audio) and numpy.isfinite(back).all()
    assert numpy.corrcoef(audio, back)[0, 1] > 0.7
    steps = json.loads((out / "model" / "model.json").read_text())["provenance"]["steps"]
    assert steps == {"codec": 8, "coarse": 6, "c2f": 6}


def test_the_pipelines_figures(pipeline):
    text = (pipeline[0] / "figures.md").read_text()
    assert text.startswith("before\n<!-- figures -->\nMeasured ") and text.endswith("<!-- end of figures -->\nafter\n")
    assert "old" not in text.split("figures -->")[1].split()
    for table, columns in (("held-out music", None), ("codebook", 15), ("coarse", 6), ("c2f", 12), ("density", 4),
                           ("interval", 4), ("depth", 4), ("pattern", 4), ("preset", 4)):
        found = re.search(rf"(?m)^\| {table} \|.*\n(\|---)+\|\n((\|.*\|\n)+)", text)
        assert found, table
        rows = [row.split("|")[1:-1] for row in found[2].splitlines()]
        assert len(rows) >= 2 and (not columns or {len(row) for row in rows} == {columns})
        assert all(math.isfinite(float(cell.split("(")[0])) for row in rows for cell in row[1:]), table
    assert ("Opus 8" in text) == bool(shutil.which("opusenc") and shutil.which("opusdec"))
    assert "Spearman" in text
    assert (pipeline[0] / "study.svg").exists() == bool(importlib.util.find_spec("matplotlib"))
