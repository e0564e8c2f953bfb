"""The command line itself: help, exit codes, and errors that say what to do."""
import pytest

COMMANDS = ["run", "mask", "encode", "decode", "logits", "generate", "measure", "bench", "info"]


def test_overview_lists_every_command(vamp):
    text = vamp("--help").stdout
    for command in COMMANDS:
        assert f"  {command} " in text
    assert "exit code" in text


def test_version(vamp):
    assert vamp("--version").stdout.startswith("vamp ")


@pytest.mark.parametrize("command", COMMANDS)
def test_help_has_usage_and_an_example(vamp, command):
    text = vamp(command, "--help").stdout
    assert text.startswith(f"usage: vamp {command} ")
    assert f"  vamp {command} " in text.split("example:")[1]
    assert "exit code" in text
    assert max(map(len, text.splitlines())) <= 120


def test_help_wins_over_missing_arguments(vamp):
    assert vamp("run", "--help").stderr == ""
    assert vamp("run", "-h").stderr == ""


def test_nothing_is_a_usage_error(vamp):
    assert "usage:" in vamp(code=2).stderr


@pytest.mark.parametrize("arguments, complaint", [
    (["dance"], "no command 'dance'"),
    (["run"], "too few arguments"),
    (["run", "a.wav"], "-o says where"),
    (["run", "a.wav", "-o"], "-o needs a value"),
    (["run", "a.wav", "--output"], "--output needs a value"),
    (["run", "a.wav", "-o", ""], "must not be empty"),
    (["run", "a.wav", "-o", "b.wav", "--wobble", "3"], "no option --wobble"),
    (["run", "a.wav", "-o", "b.wav", "-z"], "no option -z"),
    (["run", "a.wav", "-o", "b.wav", "--json=yes"], "--json takes no value"),
    (["run", "a.wav", "-o", "b.wav", "--mask-ratio", "many"], "--mask-ratio takes a number"),
    (["run", "a.wav", "-o", "b.wav", "--mask-ratio", "nan"], "--mask-ratio takes a number"),
    (["run", "a.wav", "-o", "b.wav", "--mask-ratio", "1.5"], "--mask-ratio: "),
    (["run", "a.wav", "-o", "b.wav", "--seed", "-1"], "--seed: "),
    (["run", "a.wav", "-o", "b.wav", "--seed", "1.5"], "--seed takes a whole number"),
    (["run", "a.wav", "-o", "b.wav", "--seed", "99999999999999999999"], "--seed takes a whole number"),
    (["run", "a.wav", "-o", "b.wav", "--top-p", "0"], "--top-p: "),
    (["run", "a.wav", "-o", "b.wav", "--steps", "0"], "--steps: "),
    (["run", "a.wav", "-o", "b.wav", "--temperature", "0"], "--temperature: "),
    (["run", "a.wav", "-o", "b.wav", "--preset", "cosy"], "--preset: "),
    (["run", "a.wav", "-o", "b.wav", "--upper-codebooks", "drop"], "--upper-codebooks: "),
    (["run", "a.wav", "-o", "b.wav", "--mask", "{"], "--mask: the text is not valid JSON"),
    (["run", "a.wav", "-o", "b.wav", "--mask", "[]"], "--mask: a mask is a JSON object"),
    (["run", "a.wav", "-o", "b.wav", "--mask", "@/nowhere.json"], "cannot open /nowhere.json: No such file"),
    (["run", "a.wav", "-o", "b.wav", "--params", "@/nowhere.json"], "--params: cannot open /nowhere.json: No such"),
    (["run", "a.wav", "-o", "b.wav", "--params", "{"], "--params: the text is not valid JSON"),
    (["run", "a.wav", "-o", "b.wav", "--params", "[]"], "--params: parameters are a JSON object"),
    (["run", "a.wav", "-o", "b.wav", "--params", '{"mask": {}}', "--mask", "{}"], "both have a mask"),
    (["run", "a.wav", "-o", "b.wav", "--params", '{"mask_ratio": 1}'], 'it belongs in "mask"'),
    (["run", "a.wav", "-o", "b.wav", "--params", '{"top_k": 1}'], 'it belongs in "sampling"'),
    (["run", "a.wav", "-o", "b.flac", "--params", '{"format": "wav"}'], "the format is wav, but b.flac"),
    (["run", "a.wav", "-o", "b.wav", "-mask-ratio", "0.5"], "no option -mask-ratio; it is spelt --mask-ratio"),
    (["run", "a.wav", "-o", "b.wav", "-seed=3"], "it is spelt --seed"),
    (["run", "a.wav", "-o", "b.wav", "--periodic-prompt", "bat"], 'it must be an integer, or "beat"'),
    (["run", "a.wav", "-o", "b.wav", "--periodic-offset", "rand"], 'it must be an integer, or "random"'),
    (["run", "a.wav", "-o", "b.wav", "--mask", '{"mask_ration": 1}'], "/mask/mask_ration"),
    (["run", "a.wav", "-o", "b.wav", "--variations", "0"], "--variations takes a whole number from 1"),
    (["run", "a.wav", "-o", "b.xyz"], "b.xyz"),
    (["run", "a.wav", "-o", "b.wav", "--format", "mp3"], "--format: "),
    (["run", "a.wav", "-o", "b.wav", "--format", "flac"], "b.wav is named otherwise"),
    (["run", "a/x.wav", "b/x.flac", "-o", "out"], "would both be written to out/x.wav"),
    (["run", "a.wav", "-o", "b.wav", "--precision", "fp8", "-m", "tiny"], "--precision: it is auto, fp32, tf32 or bf16"),
    (["mask"], "either an audio file or --frames"),
    (["mask", "a.wav", "--frames", "10"], "either an audio file or --frames"),
    (["mask", "--frames", "0"], "--frames takes a whole number from 1"),
    (["mask", "--frames", "99999999999"], "--frames takes a whole number from 1"),
    (["encode", "a.wav"], "too few arguments"),
    (["encode", "a.wav", "b.npy", "c.npy"], "too many arguments"),
    (["decode", "a.npy", "b.xyz"], "b.xyz"),
    (["logits", "a", "b", "c"], "--stage must be coarse or fine"),
    (["generate", "--stage", "middle", "a", "b", "c"], "--stage must be coarse or fine"),
    (["bench", "--dims", "huge"], "--dims: "),
    (["bench", "--dims", "small", "-m", "tiny"], "either -m or --dims"),
])
def test_usage_errors(vamp, tmp_path, arguments, complaint):
    done = vamp(*arguments, code=2, folder=tmp_path)
    assert complaint in done.stderr
    assert done.stdout == ""
    assert not list(tmp_path.iterdir()), "a usage error must not write anything"


@pytest.mark.parametrize("arguments", [["run", "a.wav", "-o", "b.wav"], ["info"], ["encode", "a.wav", "b.npy"]])
def test_a_model_that_is_not_there(vamp, tmp_path, arguments):
    done = vamp(*arguments, *([] if arguments[0] == "info" else ["-m"]), "./nowhere", code=1, folder=tmp_path)
    assert "./nowhere is not a model folder" in done.stderr
    done = vamp(*arguments, code=1, folder=tmp_path, environment={"VAMP_MODEL": "no-such-model"})
    assert "no-such-model" in done.stderr and "VAMP_MODEL" in done.stderr


def test_a_folder_that_is_no_model(vamp, tmp_path):
    (tmp_path / "weights").mkdir()
    done = vamp("info", "weights", code=1, folder=tmp_path)
    assert "weights is not a model folder: it has no model.json" in done.stderr


def test_full_disk_is_an_error(vamp, build):
    import subprocess
    with open("/dev/full", "w") as full:
        done = subprocess.run([str(build / "vamp"), "--help"], stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 1 and "standard output" in done.stderr
