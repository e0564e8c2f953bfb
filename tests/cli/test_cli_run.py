"""vamp run: what comes out, what it is called, and that it depends on nothing but its own input."""
import json

import numpy
import pytest

from support import read_wav, tone, write_wav

STEPS = ["--steps", "3", "--fine-steps", "1"]                 # quick


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return write_wav(tmp_path_factory.mktemp("clip") / "song.wav", tone(1.2))


@pytest.fixture
def run(vamp, tiny_model):
    def call(*arguments, **options):
        return vamp("run", "-m", tiny_model, *STEPS, *arguments, **options)
    return call


def results(done):
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_a_variation(run, clip, tmp_path):
    out = tmp_path / "out.wav"
    (result,) = results(run(clip, "-o", out, "--seed", 11, "--json", "--mask-png", tmp_path / "m.png", "--mask-svg",
                            tmp_path / "m.svg", "--mask-json", tmp_path / "m.json", "--tokens", tmp_path / "t.npy"))
    samples, rate = read_wav(out)
    assert rate == 44100 and len(samples) == int(1.2 * 44100)
    assert numpy.isfinite(samples).all() and numpy.abs(samples).max() > 0
    assert result["seed"] == 11 and result["input"] == str(clip) and result["output"] == str(out)
    assert result["duration_s"] == pytest.approx(1.2, abs=1e-3)
    assert set(result["seconds"]) == {"queued", "encode", "coarse", "fine", "decode", "total"}
    assert all(value >= 0 for value in result["seconds"].values())
    document = json.loads((tmp_path / "m.json").read_text())
    assert document["seed"] == 11 and document["density"] == result["density"]
    assert (tmp_path / "m.png").read_bytes().startswith(b"\x89PNG") and "<svg" in (tmp_path / "m.svg").read_text()
    tokens = numpy.load(tmp_path / "t.npy")
    assert tokens.dtype == numpy.int32 and tokens.shape == (14, result["frames"])


def test_kept_tokens_are_kept_and_masked_ones_change(run, vamp, tiny_model, clip, tmp_path):
    run(clip, "-o", tmp_path / "o.wav", "--seed", 2, "--tokens", tmp_path / "t.npy")
    vamp("encode", "-m", tiny_model, clip, tmp_path / "codes.npy")
    vamp("mask", "-m", tiny_model, clip, "--seed", 2, "--npy", tmp_path / "mask.npy")
    tokens, codes = numpy.load(tmp_path / "t.npy"), numpy.load(tmp_path / "codes.npy")
    masked = numpy.load(tmp_path / "mask.npy").astype(bool)
    assert (tokens[~masked] == codes[~masked]).all()
    assert (tokens[masked] != codes[masked]).mean() > 0.5
    assert tokens.min() >= 0 and tokens.max() < 48


def test_nothing_masked_is_the_round_trip(run, vamp, tiny_model, clip, tmp_path):
    run(clip, "-o", tmp_path / "a.wav", "--format", "wavfloat", "--mask-ratio", 0, "--upper-codebook-mask", 14)
    gain = json.loads(vamp("encode", "-m", tiny_model, clip, tmp_path / "c.npy", "--json").stdout)["gain"]
    vamp("decode", "-m", tiny_model, "--raw", tmp_path / "c.npy", tmp_path / "b.wav")
    a, b = read_wav(tmp_path / "a.wav")[0], read_wav(tmp_path / "b.wav")[0]
    numpy.testing.assert_allclose(a, numpy.clip(b[:len(a)] / gain, -1, 1), atol=1e-4)


def test_the_same_bytes_alone_twice_and_in_a_batch(run, clip, tmp_path):
    for name in ("one.wav", "two.wav"):
        run(clip, "-o", tmp_path / name, "--seed", 5)
    batch = [clip]
    for i in range(7):
        batch.append(write_wav(tmp_path / f"other{i}.wav", tone(0.3 + 0.35 * i, pitch=100.0 + 40 * i)))
    run(*batch, "-o", tmp_path / "batch", "--seed", 5)
    one = (tmp_path / "one.wav").read_bytes()
    assert one == (tmp_path / "two.wav").read_bytes()
    assert one == (tmp_path / "batch" / "song.wav").read_bytes()
    assert len(list((tmp_path / "batch").iterdir())) == 8


def test_another_seed_is_another_variation(run, clip, tmp_path):
    for seed in (1, 2):
        run(clip, "-o", tmp_path / f"{seed}.wav", "--seed", seed)
    assert (tmp_path / "1.wav").read_bytes() != (tmp_path / "2.wav").read_bytes()


def test_a_random_seed_is_reported_and_repeats(run, clip, tmp_path):
    (result,) = results(run(clip, "-o", tmp_path / "a.wav", "--json"))
    run(clip, "-o", tmp_path / "b.wav", "--seed", result["seed"])
    assert (tmp_path / "a.wav").read_bytes() == (tmp_path / "b.wav").read_bytes()


def test_variations(run, clip, tmp_path):
    found = results(run(clip, "-o", tmp_path / "v", "--variations", 3, "--seed", 20, "--json", "--mask-json",
                        tmp_path / "masks"))
    assert sorted(result["seed"] for result in found) == [20, 21, 22]
    assert sorted(path.name for path in (tmp_path / "v").iterdir()) == ["song-1.wav", "song-2.wav", "song-3.wav"]
    assert sorted(path.name for path in (tmp_path / "masks").iterdir()) == ["song-1.json", "song-2.json", "song-3.json"]
    run(clip, "-o", tmp_path / "alone.wav", "--seed", 21)
    assert (tmp_path / "alone.wav").read_bytes() == (tmp_path / "v" / "song-2.wav").read_bytes()


def test_one_bad_input_among_many(run, clip, tmp_path):
    bad = tmp_path / "bad.wav"
    bad.write_text("this is no audio")
    done = run(bad, clip, tmp_path / "missing.flac", "-o", tmp_path / "out", "--json", code=1)
    assert "bad.wav" in done.stderr and "missing.flac" in done.stderr and "2 of 3 failed" in done.stderr
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["song.wav"]
    found = results(done)
    assert sum("error" in result for result in found) == 2 and sum("output" in result for result in found) == 1


@pytest.mark.parametrize("name, arguments, head", [
    ("o.wav", [], b"RIFF"), ("o.wav", ["--format", "wav24"], b"RIFF"), ("o.wav", ["--format", "wavfloat"], b"RIFF"),
    ("o.flac", [], b"fLaC"), ("o.ogg", [], b"OggS"), ("odd.name", ["--format", "flac"], b"fLaC")])
def test_formats(run, clip, tmp_path, name, arguments, head):
    run(clip, "-o", tmp_path / name, *arguments)
    assert (tmp_path / name).read_bytes().startswith(head)


def test_a_folder_takes_one_input_too(run, clip, tmp_path):
    run(clip, "-o", f"{tmp_path}/made/", "--format", "flac")
    run(clip, "-o", tmp_path / "made", "--format", "ogg")
    assert sorted(path.name for path in (tmp_path / "made").iterdir()) == ["song.flac", "song.ogg"]


def test_an_input_is_never_overwritten(run, tmp_path):
    clip = write_wav(tmp_path / "song.wav", tone(0.3))
    before = clip.read_bytes()
    for arguments in (["-o", tmp_path], ["-o", clip], ["-o", tmp_path / "o.wav", "--mask-png", clip],
                      ["-o", tmp_path / "o.wav", "--tokens", tmp_path / "." / "song.wav"]):
        done = run(clip, *arguments, code=2)
        assert "is read and would be overwritten" in done.stderr, arguments
    numbered = write_wav(tmp_path / "song-1.wav", tone(0.3))
    assert "song-1.wav is read" in run(numbered, clip, "-o", tmp_path, "--variations", 2, code=2).stderr
    assert clip.read_bytes() == before and sorted(tmp_path.iterdir()) == [numbered, clip]


def test_two_results_are_never_one_file(run, clip, tmp_path):
    done = run(clip, "-o", tmp_path / "o.wav", "--mask-png", tmp_path / "o.wav", code=2)
    assert "-o" in done.stderr and "--mask-png" in done.stderr and "both" in done.stderr
    done = run(clip, "-o", tmp_path / "o.wav", "--mask-svg", tmp_path / "m", "--mask-json", tmp_path / "m", code=2)
    assert "--mask-svg" in done.stderr and "--mask-json" in done.stderr
    assert not list(tmp_path.iterdir())
    run(clip, "-o", tmp_path / "o.wav", "--mask-png", "/dev/null", "--mask-json", "/dev/null")


def test_several_results_do_not_make_a_folder_called_like_a_file(run, clip, tmp_path):
    for arguments in (["-o", tmp_path / "o.wav"], ["-o", tmp_path / "o", "--mask-png", tmp_path / "m.png"]):
        done = run(clip, *arguments, "--variations", 2, code=2)
        assert "2 results need a folder" in done.stderr
    assert not list(tmp_path.iterdir())
    (tmp_path / "really.wav").mkdir()
    run(clip, "-o", tmp_path / "really.wav", "--variations", 2)


def test_a_folder_that_is_not_there_is_found_before_anything_is_computed(run, clip, tmp_path):
    for option in ("--mask-png", "--mask-svg", "--mask-json", "--tokens"):
        done = run(clip, "-o", tmp_path / "o.wav", option, tmp_path / "nowhere" / "x", code=1)
        assert "nowhere/x" in done.stderr and "create its folder first" in done.stderr
    assert not list(tmp_path.iterdir())


def test_params_are_those_of_the_daemon(run, clip, tmp_path):
    """A job's params, as vampd reports them, say all that the flags do; flags go over them."""
    flags = ["--preset", "creative", "--mask-ratio", 0.6, "--periodic-prompt", 5, "--temperature", 0.9, "--seed", 7]
    run(clip, "-o", tmp_path / "flags.wav", *flags)
    params = {"preset": "creative", "mask": {"mask_ratio": 0.6, "periodic_prompt": 5}, "format": "wav", "seed": 7.0,
              "sampling": {"temperature": 0.9}}
    (tmp_path / "params.json").write_text(json.dumps(params))
    run(clip, "-o", tmp_path / "params.wav", "--params", f"@{tmp_path}/params.json")
    assert (tmp_path / "params.wav").read_bytes() == (tmp_path / "flags.wav").read_bytes()
    other = json.dumps({**params, "seed": 1, "mask": {"mask_ratio": 0.1, "periodic_prompt": 5}})
    run(clip, "-o", tmp_path / "over.wav", "--params", other, "--seed", 7, "--mask-ratio", 0.6)
    assert (tmp_path / "over.wav").read_bytes() == (tmp_path / "flags.wav").read_bytes()
    run(clip, "-o", tmp_path / "x.wav", "--params", json.dumps({**params, "model": "another"}))     # -m is given
    for seeds in ([], ["--variations", 2]):
        (result, *_) = results(run(clip, "-o", f"{tmp_path}/made/", "--params", json.dumps(params), "--json", *seeds))
        assert result["seed"] == 7


def test_params_name_their_model(vamp, tiny_model, clip, tmp_path):
    name = json.loads((tiny_model / "model.json").read_text())["name"]
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / name).symlink_to(tiny_model)
    vamp("run", clip, "-o", "x.wav", *STEPS, "--params", json.dumps({"model": name}), folder=tmp_path,
         environment={"VAMP_MODEL": "nowhere"})
    done = vamp("run", clip, "-o", "x.wav", "--params", '{"model": "elsewhere"}', folder=tmp_path, code=1)
    assert "found no model 'elsewhere'" in done.stderr


def test_no_input_is_overwritten_by_another_ones_variation(run, tmp_path):
    song, other = (write_wav(tmp_path / name, tone(0.3)) for name in ("song.wav", "song-2.wav"))
    before = other.read_bytes()
    done = run(song, other, "-o", tmp_path, "--variations", 2, code=2)
    assert f"{other} is read and would be overwritten" in done.stderr
    assert other.read_bytes() == before and len(list(tmp_path.iterdir())) == 2


def test_output_that_cannot_be_written(run, clip, tmp_path):
    assert "nowhere" in run(clip, "-o", tmp_path / "nowhere" / "o.wav", code=1).stderr
    (tmp_path / "file").write_text("")
    assert "cannot make the folder" in run(clip, clip.parent / "x.wav", "-o", tmp_path / "file", code=1).stderr


def test_passes(run, clip, tmp_path):
    passes = {"passes": [{"mask_ratio": 1, "periodic_prompt": 5}, {"mask_ratio": 0.3}]}
    run(clip, "-o", tmp_path / "o.wav", "--mask", json.dumps(passes), "--mask-json", tmp_path / "m.json")
    assert len(json.loads((tmp_path / "m.json").read_text())["passes"]) == 2


def test_loudness_of_the_input_is_kept(run, tmp_path):
    for name, level in (("loud", 0.5), ("soft", 0.005)):
        write_wav(tmp_path / f"{name}.wav", tone(1.0, level=level))
        run(tmp_path / f"{name}.wav", "-o", tmp_path / f"{name}-out.wav", "--format", "wavfloat", "--seed", 1)
    loud, soft = (numpy.std(read_wav(tmp_path / f"{name}-out.wav")[0]) for name in ("loud", "soft"))
    assert loud > 20 * soft


def test_quiet_says_nothing(run, clip, tmp_path):
    done = run(clip, "-o", tmp_path / "o.wav", "--quiet")
    assert done.stdout == "" and done.stderr == ""


def test_threads_do_not_change_the_result(run, clip, tmp_path):
    for threads in (1, 3):
        run(clip, "-o", tmp_path / f"{threads}.wav", "--seed", 1, "--threads", threads)
    assert (tmp_path / "1.wav").read_bytes() == (tmp_path / "3.wav").read_bytes()
