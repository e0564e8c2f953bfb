"""Writing .safetensors files: 8 bytes of header length, a JSON header, the tensors end to end.

The header comes first and says where everything is, so that shapes and types have to be known before the first value
is written; values then pass through in chunks. Wider elements come first: every tensor begins at a multiple of its
element's size.
"""
import json
import struct

from . import CheckpointError, printable, values


class Entry:
    """A tensor to write: `chunks` is a function that yields its bytes."""

    def __init__(self, name, kind, shape, chunks):
        self.name = name
        self.kind = kind
        self.shape = list(shape)
        self.chunks = chunks
        self.size = values.SIZES[kind]
        for dimension in shape:
            self.size *= dimension


def write(path, entries, progress):
    """Writes the file. progress(bytes) is told of every chunk."""
    entries = sorted(entries, key=lambda entry: (-values.SIZES[entry.kind], entry.name))
    header = {"__metadata__": {"format": "pt"}}
    at = 0
    for entry in entries:
        header[entry.name] = {"dtype": entry.kind, "shape": entry.shape, "data_offsets": [at, at + entry.size]}
        at += entry.size
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for entry in entries:
            written = 0
            for chunk in entry.chunks():
                file.write(chunk)
                written += len(chunk)
                progress(len(chunk))
            if written != entry.size:
                raise CheckpointError(f"tensor '{printable(entry.name)}': came out at {written} bytes instead of "
                                      f"{entry.size}")
