"""Music that nobody wrote: random but orderly pieces as lists of notes, and their form as standard MIDI files.

A piece is drawn from a seed: tempo, key, mode, a chord progression, a drum pattern, and some of the parts bass, chords,
arpeggio, melody and pad. The aim is not beauty but variety with the statistics of music: a steady beat, repeated bars,
harmony that agrees between parts, loud and soft, dense and sparse.
"""
import random
import struct
from dataclasses import dataclass, field

MODES = {
    "major": (0, 2, 4, 5, 7, 9, 11), "minor": (0, 2, 3, 5, 7, 8, 10), "dorian": (0, 2, 3, 5, 7, 9, 10),
    "mixolydian": (0, 2, 4, 5, 7, 9, 10), "phrygian": (0, 1, 3, 5, 7, 8, 10), "harmonic": (0, 2, 3, 5, 7, 8, 11),
}
PROGRESSIONS = (  # scale degrees, one chord a bar
    (0, 4, 5, 3), (0, 5, 3, 4), (0, 3, 4, 3), (5, 3, 0, 4), (0, 0, 3, 4), (1, 4, 0, 0), (0, 6, 5, 4), (0, 2, 3, 4),
    (0, 3, 0, 4), (0, 5, 1, 4), (0, 3, 6, 2), (0, 0, 0, 0), (5, 4, 3, 4), (3, 4, 2, 5), (0, 4, 1, 3), (0, 0, 5, 5),
)
KICK, SNARE, CLOSED_HAT, OPEN_HAT, CRASH, RIDE, CLAP, LOW_TOM, MID_TOM, HIGH_TOM = 36, 38, 42, 46, 49, 51, 39, 45, 47, 50
DRUM_PATTERNS = (  # sixteenth steps of a bar per drum
    {KICK: "x...x...x...x...", SNARE: "....x.......x...", CLOSED_HAT: "..x...x...x...x."},
    {KICK: "x.......x.......", SNARE: "....x.......x...", CLOSED_HAT: "x.x.x.x.x.x.x.x."},
    {KICK: "x.....x.x.......", SNARE: "....x.......x..x", CLOSED_HAT: "xxxxxxxxxxxxxxxx"},
    {KICK: "x..x..x...x.....", SNARE: "....x..x.x..x...", CLOSED_HAT: "x.x.x.x.x.x.x.x."},
    {KICK: "x.........x.....", SNARE: "........x.......", CLOSED_HAT: "x...x...x...x..."},
    {KICK: "x.x.......x.x...", CLAP: "....x.......x...", CLOSED_HAT: "..x...x...x...xx", OPEN_HAT: "......x........."},
    {KICK: "x.......x..x....", SNARE: "....x.......x...", RIDE: "x..xx..xx..xx..x"},
    {KICK: "x...............", LOW_TOM: "......x...x.....", MID_TOM: "..........x.x...", HIGH_TOM: "...x.......x...."},
)
# General MIDI programs by the part that they can play
PROGRAMS = {
    "bass": (32, 33, 34, 35, 36, 37, 38, 39, 43, 58, 67, 87),
    "chords": (0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 21, 24, 25, 26, 27, 28, 29, 48, 61, 62, 81, 88),
    "arpeggio": (0, 4, 5, 7, 9, 11, 12, 13, 15, 24, 25, 45, 46, 80, 81, 84, 98, 104, 106, 107, 108),
    "melody": (0, 4, 11, 12, 22, 24, 26, 29, 30, 40, 41, 42, 56, 57, 59, 60, 64, 65, 66, 68, 71, 73, 74, 75, 78, 79, 80,
               81, 85, 104, 105, 110),
    "pad": (48, 49, 50, 51, 52, 53, 54, 88, 89, 90, 91, 92, 93, 94, 95, 16, 19),
}
DRUM_CHANNEL = 9


@dataclass
class Note:
    start: float      # seconds
    length: float     # seconds
    pitch: int        # MIDI note; for drums, which drum
    velocity: int     # 1 .. 127


@dataclass
class Part:
    role: str         # drums, bass, chords, arpeggio, melody, pad
    program: int
    notes: list = field(default_factory=list)


def chord_pitches(mode, key, degree, low):
    """A triad of the scale, sometimes called for with its seventh, moved into the octave above `low`."""
    scale = MODES[mode]
    pitches = [key + scale[(degree + step) % 7] for step in (0, 2, 4)]
    return sorted(low + (pitch - low) % 12 for pitch in pitches)


def compose(seed, seconds, roles=None):
    """-> list of Part, a piece of about `seconds`. The same arguments give the same piece."""
    rng = random.Random(seed)
    tempo = rng.uniform(60, 180)
    step = 60 / tempo / 4
    swing = rng.choice((0, 0, 0, 0.15, 0.3)) * step
    key, mode = rng.randrange(12), rng.choice(sorted(MODES))
    progression = rng.choice(PROGRESSIONS)
    bars = max(1, int(seconds / (16 * step)))
    if roles is None:
        # A quarter of the pieces is one instrument alone: there is nothing to hide behind.
        roles = [rng.choice(("drums", "chords", "arpeggio", "melody", "pad", "bass"))] if rng.random() < 0.25 else \
            [role for role, share in (("drums", 0.85), ("bass", 0.85), ("chords", 0.7), ("arpeggio", 0.4),
                                      ("melody", 0.7), ("pad", 0.35)) if rng.random() < share] or ["chords"]
    parts = []

    def at(bar, sixteenth):
        late = swing if int(sixteenth) % 2 else 0
        return (bar * 16 + sixteenth) * step + late + max(0, rng.gauss(0, 0.004))

    def velocity(mean):
        return max(20, min(127, int(rng.gauss(mean, 9))))

    for role in roles:
        part = Part(role, 0 if role == "drums" else rng.choice(PROGRAMS[role]))
        parts.append(part)
        loud = rng.randint(65, 110)
        if role == "drums":
            pattern = rng.choice(DRUM_PATTERNS)
            part.program = rng.choice((0, 0, 8, 16, 24, 25, 32, 40))      # GM drum kits
            for bar in range(bars):
                if bar % 4 == 0 and rng.random() < 0.6:
                    part.notes.append(Note(at(bar, 0), 1.0, CRASH, velocity(loud)))
                for drum, steps in pattern.items():
                    for i, mark in enumerate(steps):
                        if (mark == "x") != (rng.random() < 0.03):        # now and then a hit more or less
                            part.notes.append(Note(at(bar, i), 0.2, drum, velocity(loud + (8 if i % 4 == 0 else -8))))
        elif role == "bass":
            rhythm = rng.choice(((0, 8), (0, 4, 8, 12), (0, 2, 4, 6, 8, 10, 12, 14), (0, 3, 6, 8, 11, 14), (0, 6, 8)))
            leap = rng.choice((0, 0, 12, 7))
            for bar in range(bars):
                root = chord_pitches(mode, key, progression[bar % 4], 0)
                root = 28 + (key + MODES[mode][progression[bar % 4]] - 28) % 12
                for i, s in enumerate(rhythm):
                    following = rhythm[i + 1] if i + 1 < len(rhythm) else 16
                    pitch = root + (leap if i % 2 else 0)
                    part.notes.append(Note(at(bar, s), (following - s) * step * rng.uniform(0.6, 0.98), pitch, velocity(loud)))
        elif role in ("chords", "pad"):
            rhythm = (0,) if role == "pad" else rng.choice(((0,), (0, 8), (0, 6, 12), (4, 12), (2, 6, 10, 14), (0, 3, 6, 10)))
            low = rng.randint(48, 62)
            for bar in range(bars):
                pitches = chord_pitches(mode, key, progression[bar % 4], low)
                for i, s in enumerate(rhythm):
                    following = rhythm[i + 1] if i + 1 < len(rhythm) else 16
                    held = (following - s) * step * (1.0 if role == "pad" else rng.uniform(0.4, 0.95))
                    strum = rng.choice((0, 0, 0.012))
                    for j, pitch in enumerate(pitches):
                        part.notes.append(Note(at(bar, s) + j * strum, held, pitch, velocity(loud - 15)))
        elif role == "arpeggio":
            low, every = rng.randint(52, 72), rng.choice((1, 2, 2, 4))
            shape = rng.choice(((0, 1, 2, 1), (0, 1, 2, 3), (2, 1, 0, 1), (0, 2, 1, 3), (0, 1, 2, 3, 4, 3, 2, 1)))
            for bar in range(bars):
                pitches = chord_pitches(mode, key, progression[bar % 4], low)
                pitches += [pitch + 12 for pitch in pitches]
                for i, s in enumerate(range(0, 16, every)):
                    part.notes.append(Note(at(bar, s), every * step * 0.9, pitches[shape[i % len(shape)]], velocity(loud - 10)))
        elif role == "melody":
            low = rng.randint(57, 74)
            scale = sorted(low + (key + tone - low) % 12 for tone in MODES[mode]) * 1
            scale += [pitch + 12 for pitch in scale]
            place = rng.randrange(3, 9)
            phrase = []                                                   # two bars that come back with changes
            s = 0
            while s < 32:
                length = rng.choice((1, 2, 2, 2, 3, 4, 4, 6, 8))
                if rng.random() < 0.8:
                    place = max(0, min(len(scale) - 1, place + rng.choice((-3, -2, -1, -1, 0, 1, 1, 2, 4))))
                    phrase.append((s, length, place))
                s += length
            for bar in range(0, bars, 2):
                shift = rng.choice((0, 0, 0, 1, -1))
                for s, length, where in phrase:
                    if rng.random() < 0.12:
                        where += rng.choice((-1, 1))
                    where = max(0, min(len(scale) - 1, where + shift))
                    if (bar * 16 + s) < bars * 16:
                        part.notes.append(Note(at(bar, s), length * step * rng.uniform(0.6, 1), scale[where], velocity(loud)))
        part.notes.sort(key=lambda note: note.start)
    return parts


def write_midi(parts, path):
    """A standard MIDI file, format 0, at 1000 ticks a second."""
    events = []
    channel = 0
    for part in parts:
        if part.role == "drums":
            where = DRUM_CHANNEL
        else:
            where = channel
            channel += 2 if channel + 1 == DRUM_CHANNEL else 1
        events.append((0, 0, bytes((0xC0 | where, part.program))))
        for note in part.notes:
            start, end = round(note.start * 1000), round((note.start + note.length) * 1000)
            events.append((start, 2, bytes((0x90 | where, note.pitch, note.velocity))))
            events.append((max(end, start + 1), 1, bytes((0x80 | where, note.pitch, 0))))
    events.sort(key=lambda event: event[:2])                              # at one instant, notes end before others begin

    def variable_length(value):
        digits = [value & 0x7F]
        while value := value >> 7:
            digits.insert(0, value & 0x7F | 0x80)
        return bytes(digits)

    track = bytearray(b"\x00\xff\x51\x03" + (500000).to_bytes(3, "big"))  # half a second a quarter, 500 ticks a quarter
    now = 0
    for tick, _, message in events:
        track += variable_length(tick - now) + message
        now = tick
    track += b"\x00\xff\x2f\x00"
    with open(path, "wb") as file:
        file.write(b"MThd" + struct.pack(">IHHH", 6, 0, 1, 500) + b"MTrk" + struct.pack(">I", len(track)) + bytes(track))
