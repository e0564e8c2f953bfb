"""What the pytest suites share: where things are, tools/convert as a function, and small WAV files with numpy alone.

$VAMP_BUILD names the build folder (`make pytest` sets it); without it, build/ of the repository is taken.
"""
import os
import pathlib
import struct
import subprocess
import sys

import numpy

ROOT = pathlib.Path(__file__).resolve().parent.parent
BUILD = pathlib.Path(os.environ.get("VAMP_BUILD", ROOT / "build")).resolve()


def convert(checkpoints, folder):
    """Published-style checkpoints -> a model folder, with tools/convert."""
    done = subprocess.run([sys.executable, str(ROOT / "tools" / "convert"), "--codec", str(checkpoints / "codec.pth"),
                           "--coarse", str(checkpoints / "coarse.pth"), "--c2f", str(checkpoints / "c2f.pth"),
                           "--out", str(folder)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def tone(seconds, rate=44100, channels=1, level=0.3, pitch=220.0):
    """A decaying chord that is not periodic in the frames of the codec; [n] or [n, channels] float32."""
    time = numpy.arange(int(seconds * rate)) / rate
    wave = sum(numpy.sin(2 * numpy.pi * pitch * factor * time + factor) for factor in (1, 1.26, 1.5, 2.01))
    wave = level * wave / 4 * (0.5 + 0.5 * numpy.cos(2 * numpy.pi * 1.7 * time))
    return wave.astype("float32") if channels == 1 else numpy.stack([wave] * channels, 1).astype("float32")


def write_wav(path, samples, rate=44100):
    """samples [n] or [n, channels] as a float WAV."""
    samples = numpy.asarray(samples, "<f4")
    channels = 1 if samples.ndim == 1 else samples.shape[1]
    data = samples.tobytes()
    header = struct.pack("<HHIIHHH", 3, channels, rate, rate * channels * 4, channels * 4, 32, 0)
    chunks = b"fmt " + struct.pack("<I", len(header)) + header + b"data" + struct.pack("<I", len(data)) + data
    path.write_bytes(b"RIFF" + struct.pack("<I", 4 + len(chunks)) + b"WAVE" + chunks)
    return path


def read_wav(path):
    """-> samples [n] or [n, channels] as float, rate."""
    blob = path.read_bytes()
    assert blob[:4] == b"RIFF" and blob[8:12] == b"WAVE", blob[:12]
    at, layout, data = 12, None, None
    while at + 8 <= len(blob):
        name, size = blob[at:at + 4], struct.unpack("<I", blob[at + 4:at + 8])[0]
        body = blob[at + 8:at + 8 + size]
        if name == b"fmt ":
            layout = struct.unpack("<HHIIHH", body[:16])
            if layout[0] == 0xFFFE:                           # extensible: the format stands in the sub-format
                layout = struct.unpack("<H", body[24:26]) + layout[1:]
        elif name == b"data":
            data = body
        at += 8 + size + size % 2
    kind, channels, rate, _, _, bits = layout
    if kind == 3:
        samples = numpy.frombuffer(data, "<f4").astype(float)
    elif bits == 16:
        samples = numpy.frombuffer(data, "<i2") / 32768
    else:
        assert bits == 24, bits
        triples = numpy.frombuffer(data, "u1").reshape(-1, 3).astype("int32")
        samples = ((triples[:, 0] << 8 | triples[:, 1] << 16 | triples[:, 2] << 24) >> 8) / 8388608
    return (samples if channels == 1 else samples.reshape(-1, channels)), rate
