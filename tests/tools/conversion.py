"""What the tests of tools/convert share: three small checkpoints, their conversion, and what came of it."""
import json
import os
import struct
import subprocess
import sys

import checkpoints as made
from checkpoints import Tensors

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
CONVERT = os.path.join(ROOT, "tools", "convert")


def convert(*arguments, environment=None):
    return subprocess.run([sys.executable, "-B", CONVERT, *map(str, arguments)], capture_output=True, text=True,
                          timeout=60, env={**os.environ, **(environment or {})}, check=False)


def read_safetensors(path):
    """name -> (dtype, shape, bytes)."""
    with open(path, "rb") as file:
        data = file.read()
    length = struct.unpack("<Q", data[:8])[0]
    assert length % 8 == 0
    header = json.loads(data[8:8 + length])
    assert header.pop("__metadata__") == {"format": "pt"}
    body = data[8 + length:]
    spans = sorted(entry["data_offsets"] for entry in header.values())
    assert [begin for begin, _ in spans] == [0] + [end for _, end in spans[:-1]] and spans[-1][1] == len(body)
    return {name: (entry["dtype"], entry["shape"], body[slice(*entry["data_offsets"])])
            for name, entry in header.items()}


class Model:
    """Three checkpoints of the small model, and the values in them."""

    def __init__(self, folder, package=False, lora=True):
        self.folder = folder
        self.tensors = {part: Tensors(package, seed) for seed, part in enumerate(("codec", "coarse", "c2f"))}
        self.states = {"codec": made.codec(self.tensors["codec"]),
                       "coarse": made.transformer(self.tensors["coarse"], 2, 0, 2, lora),
                       "c2f": made.transformer(self.tensors["c2f"], 5, 2, 1, lora)}
        self.kwargs = {"codec": made.CODEC_KWARGS, "coarse": {"n_layers": 2, "noise_mode": "mask", "r_cond_dim": 0},
                       "c2f": {"n_heads": 2}}
        self.paths = {part: str(folder / f"{part}.pth") for part in self.states}

    def write(self, form=None, **options):
        for part, state in self.states.items():
            value = form(part, state) if form else {"state_dict": state, "metadata": {"kwargs": self.kwargs[part]}}
            made.write(self.paths[part], value, **options)
        return self

    def convert(self, *arguments, out=None, **options):
        self.out = out or self.folder / "model"
        return convert(*(argument for part, path in self.paths.items() for argument in (f"--{part}", path)),
                       "--out", self.out, *arguments, **options)

    def written(self, part):
        return read_safetensors(self.out / f"{part}.safetensors")

    def expected(self, part):
        return {name: ("F32", shape, values.tobytes()) for name, (shape, values) in self.tensors[part].values.items()}

    def must_be_equal(self):
        for part in self.states:
            assert self.written(part) == self.expected(part)


def must_fail(result, model, *texts, status=1):
    """One line, the right status, and nothing left behind."""
    assert result.returncode == status, result.stderr
    assert result.stderr.count("\n") == 1 and "Traceback" not in result.stderr, result.stderr
    for text in texts:
        assert text in result.stderr
    assert not model.out.exists()
    assert all(name.endswith(".pth") for name in os.listdir(model.folder)), os.listdir(model.folder)


def must_work(result):
    assert result.returncode == 0, result.stderr
