"""tools/convert: what does not fit, is broken or hostile is refused in one line, what it asks for does not happen, and nothing
is left behind."""
import math
import os
import struct
import zipfile

import pytest

import checkpoints as made
from checkpoints import Call, Name, Raw
from conversion import must_fail, must_work


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
