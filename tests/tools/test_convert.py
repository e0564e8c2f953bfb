"""tools/convert: checkpoints of every form it reads come out with the values that went in."""
import array
import hashlib
import json
import math
import os
import pickle
import struct
import zipfile

import pytest

import checkpoints as made
from checkpoints import Call, Raw, Tensors
from conversion import ROOT, Model, convert, must_fail, must_work, read_safetensors

REFERENCE = os.path.join(ROOT, "..", "shared", "reference")


# ---- what goes in comes out

def test_plain_checkpoints(model):
    must_work(model.write().convert("--license", "CC0-1.0", "--name", "tiny"))
    model.must_be_equal()
    config = json.loads((model.out / "model.json").read_text())
    assert (config["format"], config["name"], config["license"]) == (1, "tiny", "CC0-1.0")
    assert config["codec"] == made.CODEC_KWARGS
    assert config["coarse"] == {"n_codebooks": 2, "n_conditioning_codebooks": 0, "n_layers": 2, "n_heads": 2,
                                "embedding_dim": 8, "vocab_size": 16, "latent_dim": 3}
    assert config["c2f"] == {**config["coarse"], "n_codebooks": 5, "n_conditioning_codebooks": 2, "n_layers": 1}
    with open(model.paths["codec"], "rb") as file:
        assert config["provenance"]["codec.pth"]["sha256"] == hashlib.sha256(file.read()).hexdigest()
    assert sorted(os.listdir(model.out)) == ["c2f.safetensors", "coarse.safetensors", "codec.safetensors",
                                             "model.json"]
    assert os.stat(model.out).st_mode & 0o500 == 0o500


def test_packages(tmp_path):
    model = Model(tmp_path, package=True)
    for part in ("codec", "coarse", "c2f"):
        metadata = b"\x80\x02" + made.pickled({"kwargs": model.kwargs[part]}) + b"."
        made.write(model.paths[part], made.module(model.states[part]), package=True,
                   extra=[("archive/LAC/LAC.metadata", metadata), ("archive/lac/model.py", "import os\n"),
                          ("archive/.data/extern_modules", "torch\n")])
    must_work(model.convert())
    model.must_be_equal()
    assert json.loads((model.out / "model.json").read_text())["codec"] == made.CODEC_KWARGS


def test_a_modules_own_attributes_are_hyperparameters(model):
    model.write(lambda part, state: made.module(state, attributes=[("sample_rate", 16000)]))
    must_work(model.convert())
    assert json.loads((model.out / "model.json").read_text())["codec"]["sample_rate"] == 16000


def test_prefixes_and_wrappers(model):
    model.write(lambda part, state: {"epoch": 3, "model": {f"module.{name}": tensor for name, tensor in state.items()}})
    result = model.convert()
    must_work(result)
    model.must_be_equal()
    assert "sample rate" in result.stderr


def test_newer_weight_norm_names(model):
    model.write(lambda part, state: {
        name.replace("weight_g", "parametrizations.weight.original0")
            .replace("weight_v", "parametrizations.weight.original1"): tensor for name, tensor in state.items()})
    must_work(model.convert())
    model.must_be_equal()


def test_protocol_4_with_memo(model):
    """What a newer pickler writes: frames, MEMOIZE, STACK_GLOBAL."""
    name = "torch._utils"
    stacked = Raw(b"\x8c" + bytes([len(name)]) + name.encode() + b"\x94\x8c\x12_rebuild_tensor_v2\x94\x93\x94")

    def form(part, state):
        for tensor in state.values():
            tensor.function = stacked
        return state

    must_work(model.write(form).convert())
    model.must_be_equal()


def test_compressed_archives(model):
    must_work(model.write(compression=zipfile.ZIP_DEFLATED).convert())
    model.must_be_equal()


def test_views_of_a_storage(model):
    """Offsets, transposed matrices, and two tensors in one storage."""
    tensors = model.tensors["coarse"]
    shape, values = tensors.values["transformer.layers.0.feed_forward.w_2.weight"]   # [8, 16]
    columns = array.array("f", [9, 9, 9] + [values[row * 16 + column] for column in range(16) for row in range(8)])
    shared = tensors.storage(columns.tobytes())
    state = model.states["coarse"]
    state["transformer.layers.0.feed_forward.w_2.weight"] = Call(made.REBUILD, shared, 3, (8, 16), (1, 8), False, {})
    state["transformer.layers.0.norm_1.weight"] = Call(made.REBUILD, shared, 0, (3,), (1,), False, {})
    tensors.values["transformer.layers.0.norm_1.weight"] = ([3], array.array("f", [9, 9, 9]))
    must_work(model.write().convert())
    model.must_be_equal()


@pytest.mark.parametrize("kind, size", [("F16", 2), ("BF16", 2), ("F32", 4)])
def test_element_types(model, kind, size):
    must_work(model.write().convert("--dtype", {"F16": "fp16", "BF16": "bf16", "F32": "fp32"}[kind]))
    for part in model.states:
        for name, (found, shape, data) in model.written(part).items():
            expected, values = model.tensors[part].values[name]
            assert (found, shape, len(data)) == (kind, expected, size * len(values))
            if kind == "F16":
                assert data == struct.pack(f"<{len(values)}e", *values)
            elif kind == "BF16":
                assert [half for half, in struct.iter_unpack("<H", data)] == [bfloat(value) for value in values]


def bfloat(value):
    """Round to nearest even, one value at a time."""
    bits = struct.unpack("<I", struct.pack("<f", value))[0]
    return (bits + 0x7FFF + (bits >> 16 & 1)) >> 16


def test_narrower_and_wider_inputs(model):
    state, tensors = model.states["coarse"], model.tensors["coarse"]
    name = "transformer.norm.weight"
    doubles = [1.5, -2.25, 1e-3, 0, 3, 4, 5, 6.0625]
    for kind, data, expected in (
            ("DoubleStorage", struct.pack("<8d", *doubles), ("F32", struct.pack("<8f", *doubles))),
            ("HalfStorage", struct.pack("<8e", *doubles), ("F16", struct.pack("<8e", *doubles))),
            ("BFloat16Storage", b"\x80\x3f" * 8, ("BF16", b"\x80\x3f" * 8))):
        state[name] = Call(made.REBUILD, tensors.storage(data, kind), 0, (8,), (1,), False, {})
        must_work(model.write().convert("--force"))
        assert model.written("coarse")[name] == (expected[0], [8], expected[1])
    must_work(model.convert("--force", "--dtype", "fp32"))
    assert model.written("coarse")[name] == ("F32", [8], struct.pack("<8f", *[1] * 8))


def test_tensors_that_are_no_weights_are_left_out(model):
    model.states["codec"]["encoder.steps"] = Call(
        made.REBUILD, model.tensors["codec"].storage(b"\1" + bytes(7), "LongStorage"), 0, (), (), False, {})
    must_work(model.write().convert())
    model.must_be_equal()


# ---- adapters

def merged(model, part, name, source=None):
    """weight + B A / r with the adapter of `source`, worked out one element at a time."""
    stem = name[:-len(".weight")]
    (out, inside), weight = model.tensors[part].values[name]
    source = source or model.tensors[part].values
    (rank, _), down = source[f"{stem}.lora_A"]
    _, up = source[f"{stem}.lora_B"]
    return [weight[o * inside + i] + sum(up[o * rank + r] * down[r * inside + i] for r in range(rank)) / rank
            for o in range(out) for i in range(inside)]


def floats(entry):
    return array.array("f", entry[2])


def test_merging_the_checkpoints_own_adapters(model):
    must_work(model.write().convert("--merge-lora"))
    for part in ("coarse", "c2f"):
        written = model.written(part)
        assert not any("lora" in name for name in written)
        for name in written:
            if name.endswith(("w_qs.weight", "w_2.weight")):
                assert all(math.isclose(a, b, rel_tol=1e-5, abs_tol=1e-6)
                           for a, b in zip(floats(written[name]), merged(model, part, name), strict=True))
            else:
                assert written[name] == model.expected(part)[name]


def test_adapter_files(model, tmp_path):
    model.write()
    other = Tensors(seed=9)
    made.write(tmp_path / "style-c2f.pth", made.adapter(other, [0]))
    must_work(model.convert("--lora", tmp_path / "style-c2f.pth"))
    assert model.written("coarse") == model.expected("coarse")
    expected = {**model.expected("c2f"),
                **{name: ("F32", shape, values.tobytes()) for name, (shape, values) in other.values.items()}}
    assert model.written("c2f") == expected

    must_work(model.convert("--force", "--merge-lora", "--lora", f"c2f={tmp_path}/style-c2f.pth"))
    name = "transformer.layers.0.self_attn.w_qs.weight"
    assert all(math.isclose(a, b, rel_tol=1e-5, abs_tol=1e-6) for a, b in
               zip(floats(model.written("c2f")[name]), merged(model, "c2f", name, other.values), strict=True))


def test_adapters_of_nobody(model, tmp_path):
    model.write()
    made.write(tmp_path / "deep.pth", made.adapter(Tensors(), [0, 1, 2]))
    must_fail(model.convert("--lora", tmp_path / "deep.pth"), model, "deep.pth", "neither")
    made.write(tmp_path / "one.pth", made.adapter(Tensors(), [0, 1]))
    must_fail(model.convert("--lora", f"c2f={tmp_path}/one.pth"), model, "one.pth", "c2f")
    must_fail(model.convert("--lora", tmp_path / "one.pth", tmp_path / "one.pth"), model, "one of the two")
    half = {name: tensor for name, tensor in made.adapter(Tensors(), [0]).items() if "w_qs.lora_A" in name}
    for state in (model.states["c2f"],):
        for name in [name for name in state if "lora" in name]:
            del state[name]
    model.write()
    made.write(tmp_path / "half.pth", half)
    must_fail(model.convert("--lora", f"c2f={tmp_path}/half.pth"), model, "half.pth", "other half")


# ---- the output folder

def test_never_overwrites_by_accident(model):
    model.write()
    out = model.folder / "kept"
    out.mkdir()
    (out / "song.wav").write_text("mine")
    for arguments in ([], ["--force"]):
        result = model.convert(*arguments, out=out)
        assert result.returncode == 1 and "exists already" in result.stderr
        assert os.listdir(out) == ["song.wav"]
    (out / "song.wav").unlink()
    must_work(model.convert(out=out))   # an empty folder is nobody's work
    assert model.convert(out=out).returncode == 1
    (out / "old").write_text("")
    must_work(model.convert("--force", out=out))
    assert "old" not in os.listdir(out)
    assert sorted(os.listdir(model.folder)) == ["c2f.pth", "coarse.pth", "codec.pth", "kept"]


def test_failures_leave_the_old_folder(model):
    must_work(model.write().convert())
    before = sorted((name, (model.out / name).read_bytes()) for name in os.listdir(model.out))
    with open(model.paths["c2f"], "r+b") as file:
        file.truncate(1000)
    assert model.convert("--force").returncode == 1
    assert before == sorted((name, (model.out / name).read_bytes()) for name in os.listdir(model.out))
    assert len(os.listdir(model.folder)) == 4


def test_usage_errors(model):
    model.write()
    for arguments in (["--dtype", "int3"], ["--name", "x" * 64], ["--license", "a\nb"], ["--name", ""]):
        assert model.convert(*arguments).returncode == 2
    must_fail(model.convert(out=model.folder / "no" / "where"), model, "create it first")
    os.unlink(model.paths["c2f"])
    must_fail(model.convert(), model, "c2f.pth", "No such file")


# ---- the tensors that the project was given

class Dictionary(dict):
    """Takes the attributes that PyTorch sets on a state dict."""


class Independent(pickle.Unpickler):
    """Another reading of the reference checkpoints, which are our own: names and storage keys only."""

    def find_class(self, module, name):
        if (module, name) == ("collections", "OrderedDict"):
            return Dictionary
        if name == "_rebuild_tensor_v2":
            return lambda storage, offset, shape, *rest: (storage, offset, shape)
        return name

    def persistent_load(self, identity):
        return identity[2]


@pytest.mark.skipif(not os.path.isdir(REFERENCE), reason="shared/reference is not here")
def test_the_reference(tmp_path):
    parts = ("codec", "coarse", "c2f")
    result = convert(*(item for part in parts for item in (f"--{part}", os.path.join(REFERENCE, f"{part}.pth"))),
                     "--out", tmp_path / "model")
    must_work(result)
    for part in parts:
        written = read_safetensors(tmp_path / "model" / f"{part}.safetensors")
        with zipfile.ZipFile(os.path.join(REFERENCE, f"{part}.pth")) as archive:
            with archive.open(f"{part}/data.pkl") as file:
                state = Independent(file).load()["state_dict"]
            assert set(state) == set(written)
            for name, (key, offset, shape) in state.items():
                assert offset == 0 and written[name] == ("F32", list(shape), archive.read(f"{part}/data/{key}"))


def test_packages_made_by_pytorch(model, tmp_path):
    torch = pytest.importorskip("torch")
    from torch import package   # noqa: PLC0415
    for part in model.states:
        root = torch.nn.Module()
        for name, (shape, values) in model.tensors[part].values.items():
            node = root
            *path, last = name.split(".")
            for step in path:
                if step not in node._modules:
                    node.add_module(step, torch.nn.Module())
                node = node._modules[step]
            node.register_parameter(last, torch.nn.Parameter(torch.tensor(values.tolist()).reshape(shape)))
        with package.PackageExporter(model.paths[part]) as exporter:
            exporter.extern("**")
            exporter.save_pickle("VampNet", "VampNet.pth", root)
            exporter.save_pickle("VampNet", "VampNet.metadata", {"kwargs": model.kwargs[part]})
    must_work(model.convert())
    model.must_be_equal()
