"""The CUDA backend through the command line, on the emulator of tests/cuda/emulator: a whole variation in fp32 makes the
tokens that the CPU backend makes; a job's bytes depend on nothing but the job, neither on the batch nor on the order in
which a device happens to run blocks and threads. And what the program says where there is no GPU.

The emulator checks every access of every kernel meanwhile; a fault fails the run.
"""
import ctypes
import json
import os
import re
import shutil
import subprocess

import numpy
import pytest

from support import read_wav, tone, write_wav

EMULATED = ["--backend", "cuda-emulated"]
STEPS = ["--steps", "3", "--fine-steps", "1", "--format", "wavfloat"]


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    """Lengths that are not whole frames, one of a few frames only."""
    folder = tmp_path_factory.mktemp("clips")
    return [write_wav(folder / f"{i}.wav", tone(seconds, pitch=200 + 37 * i))
            for i, seconds in enumerate((0.31, 0.12, 0.2))]


@pytest.fixture(scope="module")
def run(vamp, tiny_model):
    def call(*arguments, **options):
        return vamp("run", "-m", tiny_model, *STEPS, *arguments, **options)
    return call


SAMPLING = {"plain": [], "filtered": ["--top-p", "0.8", "--top-k", "20", "--temperature", "1.3"],
            "typical": ["--typical-mass", "0.4", "--typical-min-tokens", "8"]}


@pytest.mark.parametrize("sampling", sorted(SAMPLING))
def test_tokens_of_a_variation_are_those_of_the_cpu(run, clips, tmp_path, sampling):
    tokens, audio = [], []
    for backend in ("cpu", "cuda-emulated"):
        run(clips[0], "-o", tmp_path / "o.wav", "--tokens", tmp_path / "t.npy", "--seed", 5, "--precision", "fp32",
            "--backend", backend, *SAMPLING[sampling])
        tokens.append(numpy.load(tmp_path / "t.npy"))
        audio.append(read_wav(tmp_path / "o.wav")[0])
    assert tokens[0].shape == (14, 18) and (tokens[0] == tokens[1]).all()
    difference = numpy.linalg.norm(audio[0] - audio[1]) / numpy.linalg.norm(audio[0])
    assert -20 * numpy.log10(difference) >= 60


@pytest.mark.parametrize("precision", ["fp32", "tf32", "bf16"])
def test_bytes_do_not_depend_on_batch_or_order(run, clips, tmp_path, precision):
    def outputs(name, files, seed):
        folder = tmp_path / name
        folder.mkdir()
        run(*files, "-o", folder, "--seed", 9, "--precision", precision, *EMULATED,
            environment={"VAMP_EMULATOR_SEED": str(seed)})
        return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}

    together = outputs("together", clips, 1)
    assert len(together) == len(clips)
    alone = {}
    for i, clip in enumerate(clips):
        alone.update(outputs(f"alone{i}", [clip], 2 + i))
    assert alone == together
    audio, _ = read_wav(tmp_path / "together" / sorted(together)[0])
    assert numpy.isfinite(audio).all() and numpy.abs(audio).max() > 0


def test_no_room_on_the_device_is_an_error(run, clips, tmp_path):
    done = run(clips[0], "-o", tmp_path / "o.wav", *EMULATED, code=1, environment={"VAMP_CUDA_MEMORY_MIB": "2"})
    assert "memory" in done.stderr and not (tmp_path / "o.wav").exists()


def test_a_plugin_for_other_devices(run, clips, tmp_path):
    done = run(clips[0], "-o", tmp_path / "o.wav", *EMULATED, code=1, environment={"VAMP_EMULATOR_NO_IMAGE": "1"})
    assert "has no kernels that run on emulated device" in done.stderr and "CUDA_TARGETS" in done.stderr


# ---- which backend is taken --------------------------------------------------------------------------------

@pytest.fixture
def alone(build, tmp_path):
    """vamp without plugins beside it: run(arguments...) -> CompletedProcess."""
    shutil.copy(build / "vamp", tmp_path / "vamp")

    def call(*arguments, **environment):
        inherited = {key: value for key, value in os.environ.items() if not key.startswith("VAMP_")}
        return subprocess.run([str(tmp_path / "vamp"), *map(str, arguments)], capture_output=True, text=True,
                              timeout=300, env={**inherited, **environment}, stdin=subprocess.DEVNULL)
    return call


def test_without_a_plugin(alone, tiny_model, clips, tmp_path):
    asked = ["encode", "-m", tiny_model, clips[1], tmp_path / "t.npy", "--backend"]
    assert alone(*asked, "auto").returncode == 0
    refused = alone(*asked, "cuda")
    assert refused.returncode == 1 and "libvamp_cuda.so is not installed" in refused.stderr
    assert str(tmp_path) in refused.stderr and "VAMP_PLUGIN_PATH" in refused.stderr
    tf32 = alone(*asked, "cpu", "--precision", "tf32")
    assert tf32.returncode == 1 and "tf32 is a precision of GPUs" in tf32.stderr
    wrong = alone(*asked, "metal")
    assert wrong.returncode == 2 and "--backend" in wrong.stderr and "cuda-emulated" in wrong.stderr


def test_where_plugins_are_looked_for(alone, build, tiny_model, clips, tmp_path):
    asked = ["encode", "-m", tiny_model, clips[1], tmp_path / "t.npy"]
    emulated = [*asked, *EMULATED]
    assert alone(*emulated).returncode == 1
    found = alone(*emulated, VAMP_PLUGIN_PATH=f"{tmp_path}/nowhere::{build}")
    assert found.returncode == 0 and "backend cuda-emulated" in found.stderr and "as asked for" in found.stderr
    assert alone(*asked, VAMP_PLUGIN_PATH=str(build), VAMP_BACKEND="cuda-emulated").stderr == found.stderr
    beside = tmp_path / "libvamp_cuda_emulated.so"
    shutil.copy(build / "libvamp_cuda_emulated.so", beside)
    assert alone(*emulated).returncode == 0
    (tmp_path.parent / "lib" / "vampd").mkdir(parents=True, exist_ok=True)
    installed = tmp_path.parent / "lib" / "vampd" / beside.name
    beside.rename(installed)
    try:
        assert alone(*emulated).returncode == 0
    finally:
        installed.unlink()


def has_driver():
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        return False
    return True


PLUGIN = """
#include "vamp/backend.h"
static int refuse(const struct vamp_device_options *options, struct vamp_device **device, struct vamp_error *error) {
  (void)options; (void)device;
  __builtin_memcpy(error->message, "no CUDA device: the test says so", 33);
  return error->status = VAMP_UNSUPPORTED;
}
const struct vamp_plugin vamp_plugin = {%s, "%s", refuse};
"""


@pytest.mark.parametrize("abi, name, reason", [
    ("VAMP_PLUGIN_ABI", "cuda", "no CUDA device: the test says so"),
    ("VAMP_PLUGIN_ABI + 1", "cuda", "is of another version of this program"),
    ("VAMP_PLUGIN_ABI", "opencl", "is the backend 'opencl', not 'cuda'"),
    (None, None, "libvamp_cuda.so cannot be loaded"),
])
def test_plugins_that_cannot_be_used(alone, root, tiny_model, clips, tmp_path, abi, name, reason):
    library = tmp_path / "libvamp_cuda.so"
    if abi:
        (tmp_path / "plugin.c").write_text(PLUGIN % (abi, name))
        subprocess.run([os.environ.get("CC", "gcc"), "-shared", "-fPIC", f"-I{root}/include", str(tmp_path / "plugin.c"),
                        "-o", str(library)], check=True)
    else:
        library.write_bytes(b"\x7fELF and nothing more")
    asked = ["encode", "-m", tiny_model, clips[1], tmp_path / "t.npy", "--backend"]
    refused = alone(*asked, "cuda")
    assert refused.returncode == 1 and reason in refused.stderr
    assert alone(*asked, "auto").returncode == 0


@pytest.mark.skipif(has_driver(), reason="NVIDIA's driver is here")
def test_unasked_no_plugin_is_opened_without_a_driver(alone, root, tiny_model, clips, tmp_path):
    """What it brings along would stay in memory for nothing."""
    source = PLUGIN % ("VAMP_PLUGIN_ABI", "cuda") + """
#include <stdlib.h>
__attribute__((constructor)) static void opened(void) { exit(77); }
"""
    (tmp_path / "plugin.c").write_text(source)
    subprocess.run([os.environ.get("CC", "gcc"), "-shared", "-fPIC", f"-I{root}/include", str(tmp_path / "plugin.c"),
                    "-o", str(tmp_path / "libvamp_cuda.so")], check=True)
    asked = ["encode", "-m", tiny_model, clips[1], tmp_path / "t.npy", "--backend"]
    assert alone(*asked, "cuda").returncode == 77
    assert alone(*asked, "auto").returncode == 0


def test_the_daemon_says_what_it_took_and_why(build, tiny_model, tmp_path):
    shutil.copy(build / "vampd", tmp_path / "vampd")
    environment = {key: value for key, value in os.environ.items() if not key.startswith("VAMP_")}
    flags = ["--port", "0", "--model", str(tiny_model)]
    for backend, plugins, line in [("auto", "", r"backend cpu \(.*\): no GPU is used: libvamp_cuda\.so is not installed"),
                                   ("cuda-emulated", build, r"backend cuda-emulated \(.*emulated device.*\): as asked for")]:
        daemon = subprocess.Popen([str(tmp_path / "vampd"), *flags, "--backend", backend], stderr=subprocess.PIPE,
                                  stdout=subprocess.DEVNULL, text=True,
                                  env={**environment, "VAMP_PLUGIN_PATH": str(plugins)})
        log = []
        for text in daemon.stderr:                             # until the model is loaded, which comes after
            log.append(text)
            if " loaded in " in text:
                break
        daemon.terminate()
        daemon.communicate(timeout=60)
        assert len([text for text in log if re.search(line, text)]) == 1, log
    done = subprocess.run([str(tmp_path / "vampd"), *flags, "--backend", "cuda"], capture_output=True, text=True,
                          timeout=60, env=environment)
    assert done.returncode != 0 and "libvamp_cuda.so is not installed" in done.stderr


def test_info_of_a_choice(vamp, tiny_model):
    """bench tells the device it ran on."""
    done = vamp("bench", "-m", tiny_model, "--seconds", "0.1", "--steps", "1", "--fine-steps", "1", "--json", *EMULATED)
    assert "emulated device" in json.loads(done.stdout)["device"]
