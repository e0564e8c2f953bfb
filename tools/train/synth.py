"""A small synthesiser in NumPy: tones from a few classic methods, drums from recorded or synthetic hits.

It owes nothing to any recording but the drum hits that a caller passes in, so what it renders can be given away freely.
Everything is mono float32 at 44.1 kHz.
"""
import numpy as np

RATE = 44100


def envelope(n, attack, decay, sustain, release, held):
    """Attack, decay to sustain, held until `held` samples, then an exponential release; [n]."""
    t = np.arange(n, dtype=np.float32)
    curve = np.minimum(t / max(attack * RATE, 1), 1) * (sustain + (1 - sustain) * np.exp(-t / max(decay * RATE, 1)))
    return curve * np.exp(-np.maximum(t - held, 0) / max(release * RATE, 1))


def fm(pitch, n, velocity, ratio=1.0, index=3.0, decay=0.4):
    """Two-operator frequency modulation: electric pianos, bells, basses, by ratio and index."""
    f = 440 * 2 ** ((pitch - 69) / 12)
    t = np.arange(n) / RATE
    depth = index * velocity * np.exp(-t / decay) * min(1, 3000 / (f * max(ratio, 1)))
    return np.sin(2 * np.pi * f * t + depth * np.sin(2 * np.pi * f * ratio * t)).astype(np.float32)


def harmonics(pitch, n, velocity, slope=1.0, odd=False, detune=0.0, bright=0.5):
    """Additive saw or (odd) square waves, harmonics falling with frequency and time: strings, pads, leads."""
    f = 440 * 2 ** ((pitch - 69) / 12)
    t = np.arange(n) / RATE
    out = np.zeros(n, np.float32)
    for cents in ((0,) if detune == 0 else (-detune, 0, detune)):
        g = f * 2 ** (cents / 1200)
        for h in range(1, max(2, min(24, int(14000 / g)) + 1), 2 if odd else 1):
            strength = h ** -slope * np.exp(-t * h * (1 - bright) * 1.5) * velocity ** (0.15 * h)
            out += (strength * np.sin(2 * np.pi * g * h * t + 0.7 * h * cents)).astype(np.float32)
    return out / (1 if detune == 0 else 2.2)


def pluck(pitch, n, velocity, damping=0.5, seed=0):
    """Karplus-Strong: a burst of noise in a delay line that averages itself; a period at a time."""
    period = max(4, int(round(RATE / (440 * 2 ** ((pitch - 69) / 12)))))
    line = np.random.default_rng(seed).uniform(-1, 1, period)
    for _ in range(int(6 * (1 - velocity)) + 1):
        line = 0.5 * (line + np.roll(line, 1))
    rows = []
    for _ in range(n // period + 1):
        rows.append(line)
        line = 0.998 * ((1 - damping / 2) * line + damping / 2 * np.roll(line, 1))
    out = np.concatenate(rows)[:n]
    return (out / (np.abs(out).max() + 1e-9)).astype(np.float32)


def synthetic_drum(drum, velocity, rng):
    """A drum hit out of sine sweeps and filtered noise."""
    if drum in (35, 36):
        t = np.arange(int(0.35 * RATE)) / RATE
        return (np.sin(2 * np.pi * (50 * t + 6 * (1 - np.exp(-t * 25)))) * np.exp(-t * 11) * velocity).astype(np.float32)
    if drum in (45, 47, 50):
        t = np.arange(int(0.4 * RATE)) / RATE
        return (np.sin(2 * np.pi * ((drum - 20) * 4 * t + 3 * (1 - np.exp(-t * 20)))) * np.exp(-t * 9) * velocity).astype(np.float32)
    length, rate, tone = {38: (0.25, 18, 0.5), 39: (0.2, 22, 0), 42: (0.08, 60, 0), 46: (0.4, 9, 0)}.get(drum, (1.0, 4, 0))
    t = np.arange(int(length * RATE)) / RATE
    noise = rng.standard_normal(len(t)).astype(np.float32)
    if drum not in (38, 39):
        noise = np.diff(noise, prepend=0) * 0.7                           # brighter: cymbals
    return ((noise * 0.5 + tone * np.sin(2 * np.pi * 190 * t)) * np.exp(-t * rate) * velocity * 0.7).astype(np.float32)


def random_voice(role, rng):
    """-> function (pitch, samples, velocity) -> [samples], and envelope settings, drawn for a part."""
    kind = rng.choice(("fm", "harmonics", "pluck")) if role != "pad" else "harmonics"
    if kind == "fm":
        ratio, index, decay = rng.choice((0.5, 1, 1, 2, 3, 3.5, 7, 14)), rng.uniform(0.5, 5), rng.uniform(0.1, 1.5)
        return (lambda p, n, v: fm(p, n, v, ratio, index, decay)), (0.003, rng.uniform(0.2, 2), rng.uniform(0, 0.7), 0.08)
    if kind == "pluck":
        damping = rng.uniform(0.1, 0.9)
        return (lambda p, n, v: pluck(p, n, v, damping, p)), (0.001, 3.0, 0.5, 0.05)
    slope, odd, detune, bright = rng.uniform(0.8, 2), rng.random() < 0.3, rng.choice((0, 4, 8, 14)), rng.uniform(0.3, 1)
    attack = rng.uniform(0.1, 0.5) if role == "pad" else rng.uniform(0.003, 0.05)
    return (lambda p, n, v: harmonics(p, n, v, slope, odd, detune, bright)), (attack, rng.uniform(0.2, 2), rng.uniform(0.3, 0.9), 0.15)


def render(parts, seed, hits=None, voices=None, levels=None):
    """Parts (see compose.py) -> [n] float32. hits: {MIDI drum: [samples]} to use in place of synthetic drums;
    voices: {role: (function, envelope)} to use in place of random ones; levels: {role: gain}."""
    rng = np.random.default_rng(seed)
    end = max((note.start + note.length for part in parts for note in part.notes), default=0) + 1.0
    out = np.zeros(int(end * RATE) + RATE, np.float32)
    for part in parts:
        level = (levels or {}).get(part.role, 1.0 if part.role == "drums" else 0.35)
        voice, settings = (voices or {}).get(part.role) or random_voice(part.role, rng)
        for note in part.notes:
            start, velocity = int(note.start * RATE), note.velocity / 127
            if part.role == "drums":
                sound = hits[note.pitch] * velocity if hits and note.pitch in hits else synthetic_drum(note.pitch, velocity, rng)
            else:
                held = int(note.length * RATE)
                n = held + int(settings[3] * 4 * RATE)
                sound = voice(note.pitch, n, velocity) * envelope(n, *settings, held) * velocity
                sound *= np.minimum(1, np.arange(n, 0, -1) / 200)
            sound = sound[:len(out) - start]
            out[start:start + len(sound)] += level * sound
    return out[:int(end * RATE)]


def room(audio, seed, amount=0.15, seconds=0.8):
    """A little reverberation: convolution with exponentially decaying noise."""
    rng = np.random.default_rng(seed)
    t = np.arange(int(seconds * RATE)) / RATE
    impulse = rng.standard_normal(len(t)) * np.exp(-t * 6 / seconds) * np.minimum(1, t / 0.008)
    impulse /= np.sqrt((impulse ** 2).sum())
    size = 1 << int(np.ceil(np.log2(len(audio) + len(impulse))))
    wet = np.fft.irfft(np.fft.rfft(audio, size) * np.fft.rfft(impulse, size), size)[:len(audio)]
    return (audio + amount * wet).astype(np.float32)
