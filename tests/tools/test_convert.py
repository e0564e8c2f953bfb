"""tools/convert: checkpoints of every form it reads come out with the values that went in, and what a hostile file
asks for does not happen."""
import array
import hashlib
import json
import math
import os
import pickle
import struct
import subprocess
import sys
import zipfile

import pytest

import checkpoints as made
from checkpoints import Call, Name, Raw, Tensors

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
CONVERT = os.path.join(ROOT, "tools", "convert")
REFERENCE = os.path.join(ROOT, "..", "shared", "reference")


# ---- helpers

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


@pytest.fixture
def model(tmp_path):
    return Model(tmp_path)


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


# ---- checkpoints that do not fit

def test_parts_that_do_not_fit(model):
    model.write()
    model.paths["coarse"], model.paths["c2f"] = model.paths["c2f"], model.paths["coarse"]
    must_fail(model.convert(), model, "exchanged")
    model.paths["coarse"] = model.paths["codec"]
    must_fail(model.convert(), model, "codec.pth", "no coarse model")


@pytest.mark.parametrize("part, kwargs, text", [
    ("coarse", {"n_layers": 3}, "n_layers is 3"), ("coarse", {"r_cond_dim": 64}, "r_cond_dim"),
    ("coarse", {"ctrl_dims": {"rms": 1}}, "ctrl_dims"),
    ("c2f", {"noise_mode": "random"}, "noise_mode"), ("codec", {"encoder_rates": [2, 2]}, "encoder_rates"),
    ("codec", {"codebook_dim": 8}, "codebook_dim")])
def test_hyperparameters_that_contradict_the_tensors(model, part, kwargs, text):
    model.kwargs[part] = {**model.kwargs[part], **kwargs}
    must_fail(model.write().convert(), model, f"{part}.pth", text)


@pytest.mark.parametrize("part, name", [
    ("codec", "encoder.block.0.weight_v"), ("codec", "decoder.model.1.block.1.weight_v"),
    ("coarse", "embedding.out_proj.weight"), ("c2f", "classifier.layers.0.weight_v"),
    ("c2f", "transformer.layers.0.self_attn.relative_attention_bias.weight"),
    ("coarse", "transformer.layers.1.self_attn.w_qs.lora_A")])
def test_missing_tensors(model, part, name):
    del model.states[part][name]
    must_fail(model.write().convert(), model, f"{part}.pth", "tensor '")


# ---- broken tensors

def tensor(storage, offset, shape, strides):
    return Call(made.REBUILD, storage, offset, shape, strides, False, {})


@pytest.mark.parametrize("offset, shape, strides", [
    (0, (9,), (1,)), (1, (8,), (1,)), (-1, (8,), (1,)), (0, (8,), (-1,)), (0, (-8,), (1,)), (0, (2, 4), (1 << 62, 1)),
    (0, (1 << 31, 1 << 31, 1 << 31), (0, 0, 0)), (0, (16,), (0,)), (0, (8,), ()), (0, (2.0,), (1,)), (0, (True,), (1,)),
    (1 << 70, (1,), (1,)), (0, (1,) * 9, (1,) * 9), (0, "8", (1,)), (None, (8,), (1,))])
def test_tensors_beyond_their_storage(model, offset, shape, strides):
    storage = model.tensors["coarse"].storage(bytes(32))
    model.states["coarse"]["transformer.norm.weight"] = tensor(storage, offset, shape, strides)
    must_fail(model.write().convert(), model, "coarse.pth: tensor 'transformer.norm.weight'")


def test_storages_that_lie(model):
    tensors, state = model.tensors["coarse"], model.states["coarse"]
    for storage, text in ((tensors.storage(bytes(28), count=8), "28 bytes"),
                          (tensors.storage(bytes(32), "QInt8Storage", 8), "unknown type"),
                          (Raw(b"N"), "plain storage"), (Call(Name("torch", "load"), "x"), "plain storage")):
        state["transformer.norm.weight"] = tensor(storage, 0, (8,), (1,))
        must_fail(model.write().convert(), model, "coarse.pth", text)
    absent = tensors.storage(bytes(32))
    state["transformer.norm.weight"] = Raw(made.pickled(tensor(absent, 0, (8,), (1,))))
    must_fail(model.write().convert(), model, "coarse.pth", "no storage")


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_values_that_are_not_finite(model, value):
    storage = model.tensors["c2f"].storage(struct.pack("<8f", 1, 2, 3, 4, 5, 6, 7, value))
    model.states["c2f"]["transformer.norm.weight"] = tensor(storage, 0, (8,), (1,))
    must_fail(model.write().convert(), model, "c2f.pth: tensor 'transformer.norm.weight'", "NaN or infinity")


def test_values_too_large_for_the_type(model):
    storage = model.tensors["c2f"].storage(struct.pack("<8f", 1, 2, 3, 4, 5, 6, 7, 1e30))
    model.states["c2f"]["transformer.norm.weight"] = tensor(storage, 0, (8,), (1,))
    model.write()
    must_fail(model.convert("--dtype", "fp16"), model, "transformer.norm.weight", "F16")
    must_work(model.convert("--dtype", "bf16"))


# ---- hostile pickles

def calls(marker):
    """Ways of having `marker` created, as instructions that leave one value."""
    command = made.pickled(f"touch {marker}")
    system, evil = b"cos\nsystem\n", made.pickled(f"open({marker!r}, 'w')")
    return {
        "reduce": system + command + b"\x85R",
        "stack global": b"\x8c\x02os\x8c\x06system\x93" + command + b"\x85R",
        "inst": b"(" + command + b"ios\nsystem\n",
        "obj": b"(" + system + command + b"o",
        "newobj": system + command + b"\x85\x81",
        "newobj_ex": system + command + b"\x85}\x92",
        "eval": b"cbuiltins\neval\n" + evil + b"\x85R",
        "exec": b"c__builtin__\nexec\n" + evil + b"\x85R",
        "getattr": b"cbuiltins\ngetattr\ncos\n__dict__\nX\x06\0\0\0system\x86R" + command + b"\x85R",
        "dotted": b"\x8c\x02os\x8c\x0fpath.os.popen__\x93" + command + b"\x85R",
        "state": b"cos\nsystem\n)\x81" + command + b"b",
        "setstate": b"cfunctools\npartial\n" + system + b"\x85R(" + system + b"(" + command + b"t}Ntb)R",
        "append": b"ccollections\ndeque\n)R(" + system + command + b"\x85Re",
        "entry": b"ccollections\nOrderedDict\n)R(X\1\0\0\0a" + system + command + b"\x85Ru",
        "ordered dict of calls": b"ccollections\nOrderedDict\n](](X\1\0\0\0a" + system + command + b"\x85Ree\x85R",
        "in a parameter": b"ctorch._utils\n_rebuild_parameter\n" + system + command + b"\x85R\x88}\x87R",
        "in a type": b"ctorch._tensor\n_rebuild_from_type_v2\n(" + system + b"N" + command + b"\x85NtR",
        "persistent": b"(X\7\0\0\0storage" + system + command + b"X\3\0\0\0cpuK\1tQ",
        "persistent text": b"Ptouch\n",
        "load": b"ctorch.storage\n_load_from_bytes\n" + command + b"\x85R",
        "import": b"cprobe_of_a_hostile_pickle\nanything\n",
        "import and call": b"cprobe_of_a_hostile_pickle\nanything\n)R",
    }


@pytest.mark.parametrize("way", calls(""))
def test_nothing_a_pickle_names_is_run(model, way, tmp_path):
    """Beside a whole state dict, a call: the model is converted, the call is not made, the module not imported."""
    marker = tmp_path / "marker.pth"
    probe = tmp_path / "modules.pth"
    probe.mkdir()
    (probe / "probe_of_a_hostile_pickle.py").write_text(f"open({str(marker)!r}, 'w').close()\nanything = int\n")
    code = calls(str(marker))[way]
    model.write(lambda part, state: {"evil": Raw(code), "state_dict": state, "more": [Raw(code), (Raw(code),)]})
    must_work(model.convert(environment={"PYTHONPATH": str(probe)}))
    assert not marker.exists()
    model.must_be_equal()


def test_calls_where_tensors_belong(model, tmp_path):
    marker = tmp_path / "marker.pth"
    for code in calls(str(marker)).values():
        model.states["coarse"]["transformer.norm.weight"] = Raw(code)
        model.states["coarse"]["transformer.layers.1.norm_1.weight"] = Call(made.REBUILD, Raw(code), 0, (8,), (1,),
                                                                            False, {})
        must_fail(model.write().convert(), model, "coarse.pth", "tensor 'transformer.layers.1.norm_1.weight'")
        assert not marker.exists()


def codes():
    """Pickles that are no pickles, or that ask for more than there is."""
    nested = b"]" + b"".join(b"q" + bytes([level]) + b"](h" + bytes([level]) + b"h" + bytes([level]) + b"e"
                             for level in range(200))
    return {
        "empty": (b"", "pickle"),
        "no end": (b"\x80\x02N", "pickle"),
        "unknown instruction": (b"\x80\x02\xff.", "pickle"),
        "empty stack": (b"\x80\x020.", "pickle"),
        "stop on nothing": (b"\x80\x02.", "empty stack"),
        "no mark": (b"\x80\x02t.", "mark"),
        "extension": (b"\x80\x02\x82\x01.", "EXT1"),
        "extension 4": (b"\x80\x02\x84\x01\0\0\0.", "EXT4"),
        "buffer": (b"\x80\x05\x97.", "NEXT_BUFFER"),
        "unset memo": (b"\x80\x02h\x05.", "has not made"),
        "far memo": (b"\x80\x02Nr\xff\xff\xff\xff.", "numbers an object"),
        "text memo": (b"\x80\x02Np" + b"9" * 4000 + b"\n.", "numbers an object"),
        "long number": (b"\x80\x02L" + b"9" * 5_000_000 + b"L\n.", "damaged"),
        "huge text": (b"\x80\x02X\xff\xff\xff\xff.", "damaged"),
        "huge bytes": (b"\x80\x04\x8e\xff\xff\xff\xff\xff\xff\xff\x7f.", "damaged"),
        "huge frame": (b"\x80\x04\x95\xff\xff\xff\xff\xff\xff\xff\xffN.", "no coarse model"),
        "negative long": (b"\x80\x02\x8b\xff\xff\xff\xff.", "damaged"),
        "bad text": (b"\x80\x02X\2\0\0\0\xc3\x28.", "damaged"),
        "append to a number": (b"\x80\x02K\1K\1a.", "no list"),
        "entry of a list": (b"\x80\x02]K\1K\1s.", "no dict"),
        "name of numbers": (b"\x80\x04K\1K\1\x93.", "no text"),
        "billion laughs": (b"\x80\x02" + nested + b".", "no coarse model"),
        "deep lists": (b"\x80\x02" + b"](" * 300_000 + b"e" * 300_000 + b".", "no coarse model"),
        "deep tuples": (b"\x80\x02" + b"N" + b"\x85" * 900_000 + b".", "no coarse model"),
        "deep states": (b"\x80\x02" + b"cos\nsystem\n" + b"q\0)\x81" + b"h\0)\x81" * 200_000 + b"b" * 200_000 + b".",
                        "no coarse model"),
        "marks": (b"\x80\x02" + b"(" * 900_000 + b".", ""),
        "too many instructions": (b"\x80\x02" + b"N" * 3_000_000 + b".", "instructions"),
        "copies": (b"\x80\x02" + b"](" + b"N" * 1000 + b"e" + b"2" * 900_000 + b".", "no coarse model"),
        "colliding keys": (b"\x80\x02}(" + b"".join(b"\x8a\x0b" + ((2 ** 61 - 1) * key).to_bytes(11, "little") + b"N"
                                                   for key in range(1, 200_000)) + b"u.", "no coarse model"),
        "a list in itself": (b"\x80\x02]q\0h\0a.", "no coarse model"),
        "a dict in itself": (b"\x80\x02}q\0h\0h\0s.", "no coarse model"),
    }


@pytest.mark.parametrize("what", codes())
def test_broken_pickles_and_bombs(model, what):
    code, text = codes()[what]
    model.write()
    made.write(model.paths["coarse"], None, code=code)
    must_fail(model.convert(), model, "coarse.pth", text)


def test_modules_that_contain_each_other(model):
    """Modules as a ladder, each holding the next one twice: 2^60 ways down."""
    kind = b"ctorch.nn\nModule\n"
    code = b"\x80\x02Nq\xff"
    for level in range(60):
        code += kind + b")\x81" + made.pickled({"_parameters": {"w": model.states["coarse"]["transformer.norm.weight"]},
                                                "_modules": {"a": Raw(b"h\xff"), "b": Raw(b"h\xff")}}) + b"bq\xff"
    model.write()
    made.write(model.paths["coarse"], model.states["coarse"], code=code + b".")
    must_fail(model.convert(), model, "coarse.pth", "without end")
    code = b"\x80\x02" + kind + b")\x81q\xfe" + made.pickled(
        {"_parameters": {}, "_modules": {"self": Raw(b"h\xfe")}}) + b"b."
    made.write(model.paths["coarse"], model.states["coarse"], code=code)
    must_fail(model.convert(), model, "coarse.pth", "without end")


# ---- hostile archives

def rewrite(path, change):
    with open(path, "r+b") as file:
        data = bytearray(file.read())
        data = change(data) or data
        file.seek(0)
        file.truncate()
        file.write(data)


def test_files_that_are_no_checkpoints(model):
    model.write()
    path = model.paths["c2f"]
    for data, text in ((b"", "not a PyTorch checkpoint"), (b"<html>404</html>", "not a PyTorch checkpoint"),
                       (b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M\xe9\x03.", "before 1.6"),
                       (b"PK\x03\x04" + bytes(100), "zip")):
        with open(path, "wb") as file:
            file.write(data)
        must_fail(model.convert(), model, "c2f.pth", text)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("notes.txt", "nothing here")
    must_fail(model.convert(), model, "c2f.pth", "no pickle")


def test_truncated_and_damaged_archives(model):
    model.write()
    path = model.paths["coarse"]
    with open(path, "rb") as file:
        whole = file.read()
    for length in (10, len(whole) // 2, len(whole) - 1):
        with open(path, "wb") as file:
            file.write(whole[:length])
        must_fail(model.convert(), model, "coarse.pth")
    values = next(iter(model.tensors["coarse"].values.values()))[1].tobytes()
    at = whole.index(values)
    with open(path, "wb") as file:
        file.write(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1:])
    must_fail(model.convert(), model, "coarse.pth", "checksum")


def test_big_endian_archives(model):
    model.write(extra=[("archive/byteorder", "big")])
    must_fail(model.convert(), model, "big-endian")
    must_work(model.write(extra=[("archive/byteorder", "little")]).convert())


def test_zip_bombs(model):
    model.write()
    made.write(model.paths["coarse"], model.states["coarse"], compression=zipfile.ZIP_DEFLATED,
               extra=[("archive/data/bomb", bytes(300 << 20))])
    must_fail(model.convert(), model, "coarse.pth", "would unpack")
    # a pickle of zeros, small when compressed, and within what the archive as a whole may unpack to
    made.write(model.paths["coarse"], model.states["coarse"], code=b"\x80\x02X\0\0\0\x04" + bytes(64 << 20) + b".",
               compression=zipfile.ZIP_DEFLATED, extra=[("archive/filling", os.urandom(8 << 20))])
    must_fail(model.convert(), model, "coarse.pth", "its pickle")


def test_archives_with_too_much(model):
    model.write()
    made.write(model.paths["coarse"], model.states["coarse"],
               extra=[(f"archive/{number}.pkl", b"\x80\x02N.") for number in range(100)])
    must_fail(model.convert(), model, "coarse.pth", "pickles")


def test_entries_that_reach_beyond_the_file(model):
    def change(data):
        # the last local size in the central directory: one storage claims to be larger than the file
        at = data.rindex(b"PK\x01\x02", 0, data.rindex(b"PK\x01\x02"))
        data[at + 20:at + 28] = struct.pack("<II", 900_000, 900_000)

    model.write()
    rewrite(model.paths["coarse"], change)
    assert model.convert().returncode == 1


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
