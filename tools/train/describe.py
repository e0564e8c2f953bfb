"""An encoder that works before it has learnt anything: a spectral description first, then a lapped transform.

What the first codebooks say decides what a masked transformer can predict. The coefficients of a transform with 57 frames
a second change sign from frame to frame as the phases of partials run on; tokens made from them alone have the entropy of
noise whatever the model (measured: 9.8 of 10.0 bits). How loud each part of the spectrum is goes on from frame to frame.
So the latent channels are, in this order,

    COEFFICIENTS   of the MDCT with this hop, its lowest frequencies: the waveform up to about 1.8 kHz
    BANDS          logarithms of the energy in bands of equal width in mel, over a window of two frames
    PARTS          logarithms of the energy of the signal's difference in each quarter of the frame: attacks

and four codebooks code the last two, the ten others the first (quantise.py says which).

The architecture can represent the MDCT exactly: strided convolutions cut the signal into blocks, the last one takes the
coefficients. A logarithm it can approximate: for a signal x that oscillates, the mean of sin²(ax) over time rises from 0
to 1/2 where the size of x passes 1/a. The snake of a residual unit adds sin²(ax)/a, so a sum over filters of one band
with steep and flat snakes grows by a constant for every octave of level; one more filter takes away again what the snakes
let pass unchanged. The strided convolutions after it average over time, and the last convolution is fitted by least
squares to the description computed from spectra. Nothing of this is trained.

Rejected: training the encoder for the description by gradient descent from random weights (after 1900 steps its errors
were 6.1 dB, where this has 3.8: the quiet is invisible to it), and squares alone, whose range is too great to quantise.
Training on from here with Adam makes it worse at first, for the large weights that cancel then do not.
"""
import math

import torch
import torch.nn.functional as F

from transform import cosine_basis, lapped_basis, set_weight

COEFFICIENTS, BANDS, PARTS = 64, 40, 4
FLOOR_DB = -80.0
GAIN = 4.0                      # what the audio is multiplied by inside the network
LEVELS, SPAN, TOP = 4, 4.0, 6.0  # snakes for one band: how many, their ratio, the loudest one's level in rms of the band
SPLIT_HZ = 3300                 # bands below are measured in blocks of 96 samples, those above in blocks of 12


def mel_points(low, high, count):
    """`count` frequencies from low to high, equally spaced in mel."""
    def mel(f):
        return 2595 * math.log10(1 + f / 700)
    return 700 * (10 ** (torch.linspace(mel(low), mel(high), count) / 2595) - 1)


class Description:
    """The description that the encoder is to give, from spectra."""

    def __init__(self, hop, sample_rate):
        size = 1 << math.ceil(math.log2(2 * hop))
        edges, frequency = mel_points(30, 0.95 * sample_rate / 2, BANDS + 2), torch.linspace(0, sample_rate / 2, size // 2 + 1)
        rise = (frequency - edges[:-2, None]) / (edges[1:-1] - edges[:-2])[:, None]
        fall = (edges[2:, None] - frequency) / (edges[2:] - edges[1:-1])[:, None]
        filters = torch.minimum(rise, fall).clamp(min=0)
        self.hop, self.size, self.filters = hop, size, filters / filters.sum(1, keepdim=True).clamp(min=1e-9)
        self.window, self.short = torch.hann_window(2 * hop), torch.hann_window(hop // 2)

    def __call__(self, audio):                                # [B, n] -> [B, BANDS + PARTS, T] in dB
        hop, frames = self.hop, audio.shape[1] // self.hop
        pieces = F.pad(audio, (hop // 2, hop // 2)).unfold(1, 2 * hop, hop)
        power = torch.fft.rfft(pieces * self.window, n=self.size).abs().square() * (2 / self.window.sum()) ** 2
        bands = 10 * (self.filters @ power.transpose(1, 2)).clamp(min=10 ** (FLOOR_DB / 10)).log10()
        change = audio - F.pad(audio, (1, 0))[:, :-1]
        step = hop // PARTS
        pieces = F.pad(change, (step // 2, step // 2)).unfold(1, 2 * step, step) * self.short
        parts = 10 * pieces.square().mean(-1).clamp(min=10 ** (FLOOR_DB / 10 - 1)).log10()
        return torch.cat([bands, parts.unflatten(1, (frames, PARTS)).transpose(1, 2)], 1)


def log_detectors(unit, signal, basis, frequencies, first, sample_rate, generator):
    """Make one residual unit measure levels in dB: band i adds to trunk channel first + i. signal [B, ch, n] is what the
    unit will see, basis [used, samples] what its first channels are of a block."""
    outer, inwards, inner, outwards = unit.block
    used, size = basis.shape
    channels = inwards.out_channels
    weight, sums = torch.zeros_like(inwards.weight_v), torch.zeros_like(outwards.weight_v)
    alpha = torch.ones(channels)
    n = torch.arange(7 * size) + 0.5
    window = torch.hann_window(7 * size + 2)[1:-1]
    for i, frequency in enumerate(frequencies.tolist()):
        filters = []
        for level in range(LEVELS):                           # each in another phase: together they miss nothing
            tone = window * torch.cos(2 * math.pi * frequency / sample_rate * n + level * math.pi / 2 + i)
            filters.append((tone.view(7, size) @ basis.t()).t())                      # [used, 7]
            filters[-1] /= filters[-1].norm()
        size_of = F.conv1d(signal[:, :used], torch.stack(filters), padding=3).square().mean().sqrt() + 1e-6
        passed = torch.zeros(used, 7)
        at = i * (LEVELS + 1)
        for level in range(LEVELS):
            steep = min(4000.0, SPAN ** level / (TOP * float(size_of)))
            alpha[at + level] = steep
            weight[at + level, :used] = filters[level]
            sums[first + i, at + level, 0] = steep * 0.5
            passed += steep * 0.5 * filters[level]
        alpha[at + LEVELS] = 1e-3
        weight[at + LEVELS, :used] = passed / passed.norm()
        sums[first + i, at + LEVELS, 0] = -passed.norm()
    for at in range(len(frequencies) * (LEVELS + 1), channels):
        weight[at] = torch.randn(channels, 7, generator=generator) * 1e-3
    outer.alpha.data.fill_(0.02)
    inner.alpha.data.copy_(alpha.view(1, -1, 1))
    set_weight(inwards, weight)
    set_weight(outwards, sums)


def silence(unit, generator):
    """A residual unit that hardly does anything, but could learn to."""
    set_weight(unit.block[3], torch.randn(unit.block[3].weight_v.shape, generator=generator) * 1e-4)


@torch.no_grad()
def construct(encoder, audio, description, sample_rate, seed=0):
    """Set the weights of `encoder`; audio [B, n] is music to scale by and to fit to. -> what is left of the
    description's variance, 0 to 1."""
    generator = torch.Generator().manual_seed(seed)
    head, *blocks, last_snake, last = list(encoder.block)
    signal = audio[:len(audio) // 8 + 1, None]                # enough to know how loud bands are
    weight = head.weight_v.data.clone()
    weight[0] = 0
    weight[0, 0, 3] = GAIN
    set_weight(head, weight)
    signal = head(signal)
    basis = torch.ones(1, 1)                                  # [used channels, samples]: what a channel sees of a block
    for i, block in enumerate(blocks):
        *units, snake, conv = block.block
        channels, used = conv.in_channels, len(basis)
        spare = used
        for unit in units:
            silence(unit, generator)
        if i >= len(blocks) - 2:                              # long enough to have frequencies
            bands = min(channels // (LEVELS + 1), channels - used)
            low, high = (30, SPLIT_HZ) if i == len(blocks) - 1 else (SPLIT_HZ, 0.93 * sample_rate / 2)
            log_detectors(units[0], signal, basis, mel_points(low, high, bands), used, sample_rate, generator)
            spare += bands
        snake.alpha.data.fill_(0.02)
        (stride,), (pad,) = conv.stride, conv.padding
        samples = basis.shape[1] * stride
        weight = torch.zeros_like(conv.weight_v)
        if i < len(blocks) - 1:
            # Blocks side by side: all their samples while there are channels for them, then their lowest frequencies.
            whole = torch.block_diag(*[basis] * stride)       # [stride * used, samples], taps outermost
            count = len(whole) if len(whole) <= conv.out_channels // 2 else conv.out_channels * 5 // 8
            following = whole if len(whole) == count else cosine_basis(samples, count)
            taps = (following @ whole.t()).view(count, stride, used)
            weight[:count, :used, pad:pad + stride] = taps.transpose(1, 2)
            average = torch.sin(math.pi * (torch.arange(2 * stride) + 0.5) / (2 * stride))
            for k in range(spare - used):                     # levels go on in the highest channels
                weight[conv.out_channels - 1 - k, used + k] = average / average.sum()
            basis = (following @ whole.t()) @ whole
        else:
            lapped = lapped_basis(samples, COEFFICIENTS).view(COEFFICIENTS, 2 * stride, -1)
            weight[:COEFFICIENTS, :used] = (lapped @ basis.t()).transpose(1, 2)
            at = COEFFICIENTS
            for part in range(3):                             # three views of the window: before, amid, after
                where = (torch.arange(2 * stride) + 0.5 - stride * (0.5 + 0.5 * part)) / (0.35 * stride)
                view = torch.exp(-0.5 * where.square())
                for k in range(used, channels):
                    if at < conv.out_channels:
                        weight[at, k] = view / view.sum()
                        at += 1
        set_weight(conv, weight)
        signal = block(signal)
    last_snake.alpha.data.fill_(0.6)
    last_snake.alpha.data[:, :COEFFICIENTS] = 0.01
    return fit_last(encoder, last, audio, description)


def fit_last(encoder, last, audio, description):
    """The last convolution: passes the coefficients on, gives the description by least squares from everything else."""
    rows, wanted = [], []
    for some in audio.split(8):
        features = F.pad(encoder.block[:-1](some[:, None]), (1, 1)).unfold(2, 3, 1)   # [B, L, T, 3]
        rows.append(features.permute(0, 2, 1, 3).flatten(2)[:, 2:-2].flatten(0, 1))
        wanted.append(description(some).transpose(1, 2)[:, 2:-2].flatten(0, 1))
    rows, wanted = torch.cat(rows).double(), torch.cat(wanted).double()
    centre, mean = rows.mean(0), wanted.mean(0)
    spread = torch.cat([wanted[:, :BANDS].std().expand(BANDS), wanted[:, BANDS:].std().expand(PARTS)])
    rows, wanted = rows - centre, (wanted - mean) / spread
    squares = rows.t() @ rows / len(rows)
    squares += 1e-4 * squares.diag().mean() * torch.eye(len(squares), dtype=squares.dtype)
    solution = torch.linalg.solve(squares, rows.t() @ wanted / len(rows))
    left = (rows @ solution - wanted).square().mean() / wanted.square().mean()
    weight = torch.zeros_like(last.weight_v)
    weight[range(COEFFICIENTS), range(COEFFICIENTS), 1] = 1
    rest = slice(COEFFICIENTS, COEFFICIENTS + BANDS + PARTS)
    weight[rest] = solution.t().view(BANDS + PARTS, -1, 3).float()
    set_weight(last, weight)
    last.bias.data[rest] = -(centre @ solution).float()
    return float(left)
