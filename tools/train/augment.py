"""More music out of the same: what is drawn from the training audio is played faster or slower, and higher or lower with
it, by up to a few semitones, sometimes laid over another piece, tilted in its spectrum and made louder or softer.

All of it depends on the generator passed in alone. Ten hours and more come of the four and a half that are rendered:
tokens are made of several such versions of each piece (`versions`), and the codec sees another at every step."""
import math

import numpy as np
import torch

SEMITONES = 3.0


def at_speed(audio, speed, samples):
    """audio [n] -> [samples]: played at `speed` times its rate, by cutting or padding the spectrum of exactly what is
    needed and a little more; what the new rate cannot hold is cut off with it."""
    margin = 256
    need = int(round((samples + 2 * margin) * speed))
    piece = np.zeros(need, np.float32)
    piece[:min(len(audio), need)] = audio[:need]
    size = samples + 2 * margin
    spectrum = np.fft.rfft(piece)
    out = np.zeros(size // 2 + 1, spectrum.dtype)
    kept = min(len(out), len(spectrum))
    out[:kept] = spectrum[:kept]
    return (np.fft.irfft(out, size) * (size / need))[margin:margin + samples].astype(np.float32)


def tilt(audio, decibels):
    """Change [.., n] by so much an octave around 1 kHz."""
    frequency = torch.fft.rfftfreq(audio.shape[-1], 1 / 44100).clamp(min=30)
    gain = 10 ** (decibels / 20 * torch.log2(frequency / 1000))
    return torch.fft.irfft(torch.fft.rfft(audio) * gain, audio.shape[-1])


def uniform(draw, low, high):
    return float(torch.rand((), generator=draw)) * (high - low) + low


def excerpt(audio, pieces, samples, draw, vary):
    """-> [samples] float32 of a piece drawn by its length, from a random place."""
    weights = torch.tensor([float(max(length - samples, samples // 4)) for _, length in pieces])
    start, length = pieces[int(torch.multinomial(weights, 1, generator=draw))]
    speed = 2 ** (uniform(draw, -SEMITONES, SEMITONES) / 12) if vary and uniform(draw, 0, 1) < 0.7 else 1.0
    need = int((samples + 600) * speed) + 1
    offset = int(torch.randint(max(1, length - need + 1), (1,), generator=draw))
    piece = audio[start + offset:start + min(length, offset + need)].astype(np.float32) / 32768
    if speed != 1:
        return at_speed(piece, speed, samples)
    out = np.zeros(samples, np.float32)
    out[:min(samples, len(piece))] = piece[:samples]
    return out


def crops(audio, pieces, batch, samples, draw, vary=False):
    """-> [B, samples]"""
    rows = []
    for _ in range(batch):
        row = torch.from_numpy(excerpt(audio, pieces, samples, draw, vary))
        if vary and uniform(draw, 0, 1) < 0.15:
            row = 0.8 * row + uniform(draw, 0.2, 0.8) * torch.from_numpy(excerpt(audio, pieces, samples, draw, vary))
        if vary and uniform(draw, 0, 1) < 0.3:
            row = tilt(row, uniform(draw, -2, 2))
        rows.append(row)
    gain = 10 ** ((torch.rand(batch, 1, generator=draw) * 8 - 5) / 20)    # -5 to +3 dB
    return (torch.stack(rows) * gain).clamp(-1, 1)


def versions(pieces, hours, draw):
    """-> [(start, samples, speed)] of about so many hours: the pieces in random order as they are, then all again and
    again at other speeds. 0 hours: every piece once."""
    out, total, goal, first = [], 0.0, hours * 3600 * 44100, True
    while first or total < goal:
        for i in torch.randperm(len(pieces), generator=draw).tolist():
            start, length = pieces[i]
            speed = 1.0 if first else 2 ** (uniform(draw, -SEMITONES, SEMITONES) / 12)
            out.append((start, length, speed))
            total += length / speed
            if hours and total >= goal:
                return out
        first = False
    return out


def version(audio, start, length, speed):
    """-> [n] float32, one piece at one speed."""
    piece = audio[start:start + length].astype(np.float32) / 32768
    if speed == 1:
        return piece
    step = 20 * 44100                                         # in parts: one transform over minutes would be slow
    parts, at, samples = [], 0, math.floor(length / speed)
    while at < samples:
        count = min(step, samples - at)
        begin = int(round((at - 256) * speed))                # at_speed leaves out its first 256 samples
        padded = np.concatenate([np.zeros(max(0, -begin), np.float32), piece[max(0, begin):]])
        parts.append(at_speed(padded, speed, count))
        at += count
    return np.concatenate(parts)
