"""Element types, and tensors as streams of bytes in row-major order.

Conversions work on whole chunks at once. Python has no arrays to compute with, but it has integers of any length:
a chunk of floats, read as one long integer, is a row of 32-bit lanes, and masks and sums apply to all lanes at once.
That is how values are narrowed to bfloat16 and looked through for NaN, at hundreds of megabytes a second.
"""
import array
import functools
import struct
import sys

from . import pickles, printable

CHUNK = 4 << 20          # bytes read at a time; a multiple of every element size
MAX_RANK = 8
MAX_ELEMENTS = 1 << 31
MAX_GATHER = 1 << 30     # bytes of a storage held to bring a strided tensor into order

# PyTorch's names of storage classes and of element types -> safetensors' names.
KINDS = {
    "DoubleStorage": "F64", "FloatStorage": "F32", "HalfStorage": "F16", "BFloat16Storage": "BF16",
    "LongStorage": "I64", "IntStorage": "I32", "ShortStorage": "I16", "CharStorage": "I8", "ByteStorage": "U8",
    "BoolStorage": "BOOL",
    "float64": "F64", "double": "F64", "float32": "F32", "float": "F32", "float16": "F16", "half": "F16",
    "bfloat16": "BF16", "int64": "I64", "int32": "I32", "int16": "I16", "int8": "I8", "uint8": "U8", "bool": "BOOL",
}
SIZES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1}
FLOATS = ("F64", "F32", "F16", "BF16")


class View:
    """A tensor that has been checked: `count` elements of `kind`, in a storage of an archive."""
    __slots__ = ("archive", "name", "kind", "key", "storage_count", "offset", "shape", "strides", "count")

    @property
    def item_size(self):
        return SIZES[self.kind]


def whole_numbers(values):
    return type(values) in (tuple, list) and all(type(value) is int and 0 <= value < 1 << 48 for value in values)


def check(archive, name, tensor):
    """A View of a pickles.Tensor, or CheckpointError."""
    def fail(message):
        archive.fail(f"tensor '{printable(name)}': {message}")

    view = View()
    view.archive = archive
    view.name = name
    if type(tensor.storage) is not pickles.Storage:
        fail("is not kept as plain storage in this file")
    view.kind = KINDS.get(tensor.kind or tensor.storage.kind)
    if view.kind is None:
        fail(f"has elements of an unknown type '{printable(tensor.kind or tensor.storage.kind)}'")
    shape = tensor.shape.arguments[0] if is_size(tensor.shape) else tensor.shape
    if not whole_numbers(shape) or not whole_numbers(tensor.strides) or not whole_numbers([tensor.offset]):
        fail("its shape, strides or offset are not whole numbers of 0 or more")
    if len(shape) != len(tensor.strides) or len(shape) > MAX_RANK:
        fail(f"has {len(shape)} dimensions and {len(tensor.strides)} strides; at most {MAX_RANK} are read")
    view.key = tensor.storage.key
    view.storage_count = tensor.storage.count
    if tensor.kind:   # an untyped storage counts bytes
        view.storage_count //= view.item_size
    view.shape, view.strides, view.offset = tuple(shape), tuple(tensor.strides), tensor.offset
    view.count = 1
    last = view.offset
    for dimension, stride in zip(view.shape, view.strides):
        view.count *= dimension
        last += (dimension - 1) * stride
    if view.count > MAX_ELEMENTS:
        fail(f"has {view.count} elements; at most {MAX_ELEMENTS} are read")
    if view.count and (last >= view.storage_count or view.count > view.storage_count):
        fail(f"reaches beyond the {view.storage_count} elements of its storage")
    return view


def is_size(shape):
    """torch.Size((2, 3)), as some pickles have it."""
    return (type(shape) is pickles.Record and type(shape.of) is pickles.Global and shape.of.name == "Size"
            and type(shape.arguments) is tuple and len(shape.arguments) == 1)


def is_contiguous(view):
    expected = 1
    for dimension, stride in zip(reversed(view.shape), reversed(view.strides)):
        if dimension != 1 and stride != expected:
            return False
        expected *= dimension
    return True


def stream(view):
    """Yields the tensor's bytes in row-major order, in chunks of whole elements."""
    if view.count == 0:
        return
    storage = view.archive.storage(view.key)
    try:
        size = view.item_size
        if storage.size < view.storage_count * size:
            view.archive.fail(f"tensor '{printable(view.name)}': its storage {printable(view.key)} has {storage.size} "
                              f"bytes, not the {view.storage_count * size} it should have")
        if is_contiguous(view):
            yield from whole_elements(storage.chunks(view.offset * size, view.count * size, CHUNK), size)
        else:
            yield from gathered(view, storage)
    finally:
        storage.close()


def whole_elements(chunks, size):
    """The same bytes, each chunk a multiple of `size` long."""
    rest = b""
    for chunk in chunks:
        chunk = rest + chunk if rest else chunk
        end = len(chunk) - len(chunk) % size
        rest = chunk[end:]
        yield chunk[:end] if rest else chunk


def gathered(view, storage):
    """A tensor whose strides are not those of its shape, a transposed one for instance: row by row."""
    size = view.item_size
    extent = 1 + sum((dimension - 1) * stride for dimension, stride in zip(view.shape, view.strides))
    if extent * size > MAX_GATHER:
        view.archive.fail(f"tensor '{printable(view.name)}': is not contiguous and spans {extent * size} bytes; at "
                          f"most {MAX_GATHER} are brought into order")
    held = b"".join(storage.chunks(view.offset * size, extent * size, CHUNK))
    elements = memoryview(held).cast({1: "B", 2: "H", 4: "I", 8: "Q"}[size])
    *outer, length = view.shape
    *outer_strides, step = view.strides
    index = [0] * len(outer)
    start = 0
    out = bytearray()
    for _ in range(view.count // length):
        stop = start + (length - 1) * step + 1
        out += elements[start:stop:step].tobytes() if step else elements[start:start + 1].tobytes() * length
        if len(out) >= CHUNK:
            yield bytes(out)
            out.clear()
        for axis in reversed(range(len(outer))):   # the next row, like an odometer
            index[axis] += 1
            start += outer_strides[axis]
            if index[axis] < outer[axis]:
                break
            start -= index[axis] * outer_strides[axis]
            index[axis] = 0
    yield bytes(out)


# ---- lanes

@functools.lru_cache(maxsize=32)
def lanes(pattern, width, count):
    """An integer of `count` lanes of `width` bytes, each holding `pattern`."""
    return int.from_bytes(pattern.to_bytes(width, "little") * count, "little")


# kind -> lane width, exponent mask, one above the mask's lowest bit, sign bit
EXPONENTS = {"F32": (4, 0x7F800000, 0x00800000), "F16": (2, 0x7C00, 0x0400), "BF16": (2, 0x7F80, 0x0080),
             "F64": (8, 0x7FF << 52, 1 << 52)}


def all_finite(kind, chunk):
    """No exponent has all its bits set: adding one to it would carry into the sign's place."""
    width, mask, one = EXPONENTS[kind]
    count = len(chunk) // width
    exponents = int.from_bytes(chunk, "little") & lanes(mask, width, count)
    return not (exponents + lanes(one, width, count)) & lanes(1 << (8 * width - 1), width, count)


def to_floats(kind, chunk):
    """array('f') of a chunk. A double beyond the range of float becomes infinite."""
    if kind == "F32":
        values = array.array("f", chunk)
    elif kind == "BF16":
        wide = bytearray(2 * len(chunk))
        wide[2::4], wide[3::4] = chunk[0::2], chunk[1::2]
        values = array.array("f", wide)
    elif kind == "F16":
        return array.array("f", struct.unpack(f"<{len(chunk) // 2}e", chunk))
    else:
        doubles = array.array("d", chunk)
        if sys.byteorder == "big":
            doubles.byteswap()
        return array.array("f", doubles)
    if sys.byteorder == "big":
        values.byteswap()
    return values


def from_floats(values, kind):
    """A chunk of `kind` of array('f'), rounded to nearest, ties to even. OverflowError beyond the range of F16."""
    if kind == "F16":
        return struct.pack(f"<{len(values)}e", *values)
    if sys.byteorder == "big":
        values = values[:]
        values.byteswap()
    chunk = values.tobytes()
    if kind == "F32":
        return chunk
    count = len(values)
    bits = int.from_bytes(chunk, "little")
    odd = bits >> 16 & lanes(1, 4, count)
    rounded = (bits + odd + lanes(0x7FFF, 4, count)).to_bytes(len(chunk) + 4, "little")
    narrow = bytearray(2 * count)
    narrow[0::2], narrow[1::2] = rounded[2:len(chunk):4], rounded[3:len(chunk):4]
    return bytes(narrow)


def converted(view, kind):
    """Yields the tensor's bytes as `kind`, in order. Values have to be finite, before and after."""
    for chunk in stream(view):
        if not all_finite(view.kind, chunk):
            view.archive.fail(f"tensor '{printable(view.name)}': holds NaN or infinity")
        if kind != view.kind:
            try:
                chunk = from_floats(to_floats(view.kind, chunk), kind)
            except OverflowError:
                chunk = None
            if chunk is None or not all_finite(kind, chunk):
                view.archive.fail(f"tensor '{printable(view.name)}': holds values that {kind} cannot; choose a wider "
                                  "--dtype")
        yield chunk
