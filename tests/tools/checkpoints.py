"""Checkpoints made by hand, for tests: no PyTorch, every byte of the pickle and the zip under control.

A pickle is made of Python values and of the four classes below, which say what PyTorch's pickler would have written.
"""
import array
import random
import struct
import zipfile


class Name:
    """A global: module.name."""
    def __init__(self, module, name):
        self.module, self.name = module, name


class Call:
    """REDUCE: function(*arguments)."""
    def __init__(self, function, *arguments):
        self.function, self.arguments = function, arguments


class Instance:
    """NEWOBJ and BUILD: an object of a class, with a state."""
    def __init__(self, kind, state):
        self.kind, self.state = kind, state


class Storage:
    """A persistent id; `data` becomes the archive's file of that key."""
    def __init__(self, key, kind, data, count=None):
        self.key, self.kind, self.data = key, kind, data
        size = {"DoubleStorage": 8, "FloatStorage": 4, "LongStorage": 8}.get(kind, 2)
        self.count = len(data) // size if count is None else count


class Raw:
    """Instructions, as they are."""
    def __init__(self, code):
        self.code = code


def pickled(value):
    """The instructions that make a value (protocol 2)."""
    if isinstance(value, Raw):
        return value.code
    if value is None or value is True or value is False:
        return {None: b"N", True: b"\x88", False: b"\x89"}[value]
    if isinstance(value, int):
        encoded = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
        return b"\x8a" + bytes([len(encoded)]) + encoded
    if isinstance(value, float):
        return b"G" + struct.pack(">d", value)
    if isinstance(value, str):
        encoded = value.encode()
        return b"X" + struct.pack("<I", len(encoded)) + encoded
    if isinstance(value, tuple):
        return b"(" + b"".join(map(pickled, value)) + b"t"
    if isinstance(value, list):
        return b"](" + b"".join(map(pickled, value)) + b"e"
    if isinstance(value, dict):
        return b"}(" + b"".join(pickled(key) + pickled(item) for key, item in value.items()) + b"u"
    if isinstance(value, Name):
        return f"c{value.module}\n{value.name}\n".encode()
    if isinstance(value, Call):
        return pickled(value.function) + pickled(tuple(value.arguments)) + b"R"
    if isinstance(value, Instance):
        return pickled(value.kind) + b")\x81" + pickled(value.state) + b"b"
    if isinstance(value, Storage):
        return pickled(("storage", Name("torch", value.kind), value.key, "cpu", value.count)) + b"Q"
    raise TypeError(type(value))


def storages(value):
    """All storages within a value."""
    if isinstance(value, Storage):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from storages(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from storages(item)
    elif isinstance(value, Call):
        yield from storages(value.arguments)
    elif isinstance(value, Instance):
        yield from storages(value.state)


def write(path, value, package=False, code=None, extra=(), compression=zipfile.ZIP_STORED):
    """A checkpoint of `value`, or of the pickle `code`. extra: further (name, bytes) entries."""
    code = code if code is not None else b"\x80\x02" + pickled(value) + b"."
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("archive/LAC/LAC.pth" if package else "archive/data.pkl", code)
        for storage in {id(storage): storage for storage in storages(value)}.values():
            archive.writestr(f"archive/.data/{storage.key}.storage" if package else f"archive/data/{storage.key}",
                             storage.data)
        archive.writestr("archive/.data/version" if package else "archive/version", "3\n")
        for name, data in extra:
            archive.writestr(name, data)
    return path


def row_major(shape):
    strides, step = [], 1
    for dimension in reversed(shape):
        strides.insert(0, step)
        step *= dimension
    return tuple(strides)


REBUILD = Name("torch._utils", "_rebuild_tensor_v2")


class Tensors:
    """Makes tensors with storages of their own and remembers their values."""

    def __init__(self, package=False, seed=1):
        self.package = package
        self.random = random.Random(seed)
        self.number = 0
        self.values = {}

    def storage(self, data, kind="FloatStorage", count=None):
        self.number += 1
        return Storage(self.number - 1 if self.package else str(self.number - 1), kind, data, count)

    def make(self, name, shape):
        count = 1
        for dimension in shape:
            count *= dimension
        values = array.array("f", (self.random.gauss(0, 1) for _ in range(count)))
        self.values[name] = (list(shape), values)
        return Call(REBUILD, self.storage(values.tobytes()), 0, tuple(shape), row_major(shape), False, {})


def convolution(tensors, name, out, inside, kernel, out_first=True):
    first = out if out_first else inside
    second = inside if out_first else out
    return {f"{name}.bias": tensors.make(f"{name}.bias", [out]),
            f"{name}.weight_g": tensors.make(f"{name}.weight_g", [first, 1, 1]),
            f"{name}.weight_v": tensors.make(f"{name}.weight_v", [first, second, kernel])}


# A model of the right names and of no use: strides 2 and 3, 5 codebooks of 16 codes, 2 of them coarse.
CODEC_KWARGS = {"sample_rate": 22050, "encoder_dim": 2, "encoder_rates": [2, 3], "decoder_dim": 4,
                "decoder_rates": [3, 2], "n_codebooks": 5, "codebook_size": 16, "codebook_dim": 3}


def codec(tensors):
    found = convolution(tensors, "encoder.block.0", 2, 1, 7)
    found.update(convolution(tensors, "encoder.block.1.block.4", 4, 2, 4))
    found.update(convolution(tensors, "encoder.block.2.block.4", 8, 4, 6))
    found["encoder.block.3.alpha"] = tensors.make("encoder.block.3.alpha", [1, 8, 1])
    for index in range(5):
        stem = f"quantizer.quantizers.{index}"
        found.update(convolution(tensors, f"{stem}.in_proj", 3, 8, 1))
        found.update(convolution(tensors, f"{stem}.out_proj", 8, 3, 1))
        found[f"{stem}.codebook.weight"] = tensors.make(f"{stem}.codebook.weight", [16, 3])
    found.update(convolution(tensors, "decoder.model.0", 4, 8, 7))
    found.update(convolution(tensors, "decoder.model.1.block.1", 2, 4, 6, out_first=False))
    found.update(convolution(tensors, "decoder.model.2.block.1", 1, 2, 4, out_first=False))
    return found


def transformer(tensors, codebooks, conditioning, layers, lora=True):
    found = {"embedding.special.MASK": tensors.make("embedding.special.MASK", [codebooks, 3]),
             "embedding.out_proj.weight": tensors.make("embedding.out_proj.weight", [8, 3 * codebooks, 1]),
             "embedding.out_proj.bias": tensors.make("embedding.out_proj.bias", [8])}
    for layer in range(layers):
        stem = f"transformer.layers.{layer}"
        for name, shape in (("norm_1", [8]), ("self_attn.w_qs", [8, 8]), ("self_attn.w_ks", [8, 8]),
                            ("norm_3", [8]), ("feed_forward.w_1", [32, 8]), ("feed_forward.w_2", [8, 16])):
            found[f"{stem}.{name}.weight"] = tensors.make(f"{stem}.{name}.weight", shape)
        if lora:
            found.update(adapter(tensors, [layer]))
        if layer == 0:
            name = f"{stem}.self_attn.relative_attention_bias.weight"
            found[name] = tensors.make(name, [32, 2])
    found["transformer.norm.weight"] = tensors.make("transformer.norm.weight", [8])
    found.update(convolution(tensors, "classifier.layers.0", 16 * (codebooks - conditioning), 8, 1))
    return found


def adapter(tensors, layers):
    found = {}
    for layer in layers:
        for name, out, inside in (("self_attn.w_qs", 8, 8), ("feed_forward.w_2", 8, 16)):
            stem = f"transformer.layers.{layer}.{name}"
            found[f"{stem}.lora_A"] = tensors.make(f"{stem}.lora_A", [2, inside])
            found[f"{stem}.lora_B"] = tensors.make(f"{stem}.lora_B", [out, 2])
    return found


def module(state, kind=Name("torch.nn.modules.module", "Module"), attributes=()):
    """A pickled module whose state dict is `state`."""
    own = {name: Call(Name("torch._utils", "_rebuild_parameter"), tensor, True, {})
           for name, tensor in state.items() if "." not in name}
    children = {}
    for name, tensor in state.items():
        first, dot, rest = name.partition(".")
        if dot:
            children.setdefault(first, {})[rest] = tensor
    # OrderedDict() and its entries, as PyTorch's modules have them.
    return Instance(kind, {"training": False, **dict(attributes), "_parameters": own, "_buffers": {},
                           "_non_persistent_buffers_set": Call(Name("builtins", "set"), []),
                           "_modules": {name: module(inside) for name, inside in children.items()}})
