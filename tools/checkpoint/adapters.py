"""LoRA adapters: NAME.lora_A [r, in] and NAME.lora_B [out, r] beside NAME.weight [out, in], meaning
weight + lora_B · lora_A / r.

A checkpoint may have its own; a fine-tuned one comes as a file of its own with nothing but adapters in it, and takes
the place of the checkpoint's. Whose it is shows in the names and shapes; where both transformers would fit (they may
have equal layers), the file's name decides, or the user does with coarse=FILE.

Merging is arithmetic in plain Python: a matter of seconds for small models and of several minutes at the size of the
published ones. vampd merges at load, in a second; --merge-lora is for whom the folder has to hold final weights.
"""
import array
import os

from . import printable, safetensors, values


# How the tensors of an adapter file are called, as a regular expression.
ANCHOR = r"transformer\.layers\.\d+\.\w+\.\w+\.lora_[AB]"


def split(name):
    """("NAME", "lora_A") of an adapter's tensor, (None, None) of any other."""
    stem, _, last = name.rpartition(".")
    return (stem, last) if last in ("lora_A", "lora_B") else (None, None)


def fits(adapter, target):
    """Whether every tensor of an adapter has its place in the state dict `target`, and its last layer is the last."""
    layers = [0, 0]
    for name, view in adapter.tensors.items():
        stem, last = split(name)
        weight = target.tensors.get(f"{stem}.weight")
        if weight is None or len(weight.shape) < 2 or len(view.shape) != 2:
            return False
        if view.shape[1 if last == "lora_A" else 0] != weight.shape[1 if last == "lora_A" else 0]:
            return False
    for index, state in enumerate((adapter, target)):
        layers[index] = max((int(part) for name in state.tensors for part in name.split(".") if part.isdigit()),
                            default=0)
    return layers[0] == layers[1]


def choose(adapter, parts, given):
    """The name of the part ("coarse", "c2f") that an adapter belongs to. `given` is what the user said, or None."""
    fitting = [part for part, target in parts.items() if fits(adapter, target)]
    if given:
        if given not in fitting:
            adapter.archive.fail(f"does not fit {given}: it has tensors that {given} has no place for")
        return given
    if not fitting:
        adapter.archive.fail("fits neither coarse nor c2f; is it an adapter for another model?")
    if len(fitting) > 1:
        base = os.path.basename(adapter.archive.path).lower()
        fitting = ["c2f" if "c2f" in base or "coarse2fine" in base else "coarse" if "coarse" in base else None]
    if fitting[0] is None:
        adapter.archive.fail("fits both coarse and c2f; say which with --lora coarse=FILE or --lora c2f=FILE")
    return fitting[0]


def check_pairs(tensors):
    """Every lora_A has a lora_B of the same rank, and a weight."""
    for name, view in tensors.items():
        stem, last = split(name)
        if stem is None:
            continue
        a, b, weight = (tensors.get(f"{stem}.{part}") for part in ("lora_A", "lora_B", "weight"))
        if a is None or b is None or weight is None:
            view.archive.fail(f"tensor '{printable(name)}': stands without its other half or its weight")
        if (len(a.shape), len(b.shape)) != (2, 2) or a.shape[0] == 0 or b.shape != (weight.shape[0], a.shape[0]) \
                or weight.shape != (b.shape[0], a.shape[1]):
            view.archive.fail(f"tensor '{printable(name)}': shapes {list(a.shape)} and {list(b.shape)} do not make a "
                              f"weight of {list(weight.shape)}")


def floats(view):
    """All values of a tensor as one array."""
    out = array.array("f")
    for chunk in values.converted(view, view.kind):
        out.extend(values.to_floats(view.kind, chunk))
    return out


def merged(weight, a, b, kind):
    """Yields the bytes of weight + b · a / r, as `kind`."""
    rank, width = a.shape
    base, down, up = floats(weight), floats(a), floats(b)
    directions = [down[r * width:(r + 1) * width] for r in range(rank)]
    for row in range(weight.shape[0]):
        out = base[row * width:(row + 1) * width]
        for r in range(rank):
            factor = up[row * rank + r] / rank
            if factor:
                out = [value + factor * step for value, step in zip(out, directions[r])]
        try:
            chunk = values.from_floats(array.array("f", out), kind)
        except OverflowError:
            chunk = None
        if chunk is None or not values.all_finite(kind, chunk):
            weight.archive.fail(f"tensor '{printable(weight.name)}': is beyond {kind} once its adapter is merged")
        yield chunk


def merged_entry(name, weight, a, b, kind):
    return safetensors.Entry(name, kind, weight.shape, lambda: merged(weight, a, b, kind))
