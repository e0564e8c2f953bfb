"""Writing WAV files, 16 bit, mono, 44.1 kHz."""
import struct

import numpy as np

RATE = 44100


def write_wav(path, audio):
    data = (np.clip(audio, -1, 1) * 32767).round().astype("<i2").tobytes()
    with open(path, "wb") as file:
        file.write(b"RIFF" + struct.pack("<I", 36 + len(data)) + b"WAVEfmt " +
                   struct.pack("<IHHIIHH", 16, 1, 1, RATE, 2 * RATE, 2, 16) +
                   b"data" + struct.pack("<I", len(data)) + data)
