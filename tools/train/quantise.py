"""The residual quantiser: where its codebooks begin, and how they are trained along with a codec.

`construct` gives four codebooks to the description of the spectrum (describe.py), as a residual quantiser, and splits the
transform's coefficients between the ten others, each a few neighbouring frequencies. Split, because a code then tells how
loud its frequencies are, which the description tells as well: from the one the other can be predicted in part, whereas
the later stages of a residual quantiser are nearly noise to any model. The price is precision of the waveform.

Two codebooks of the description come first, then the waveform of the bass and of the fundamentals above it. Most presets
regenerate all fine codebooks and keep the last coarse one: without phases there every tone would become a band of noise.
And what is loud in the waveform tells much of the description, so the coarse transformer has less to guess.

Tried for codes that tell more of the loudness: means weighted towards the quiet, and a smaller constant (construct_stage).
Frequencies alone then tell more of the codes and the description no more, and the waveform is worse (SI-SDR 5.3 dB, with
weights of energy to the power of -0.5 and a constant of 0.5: 4.3).
"""
import torch

from describe import BANDS, COEFFICIENTS, PARTS
from transform import set_weight

CONSTANT = 1.5                  # see construct_stage
DESCRIPTION = (COEFFICIENTS, COEFFICIENTS + BANDS + PARTS)
# The latent channels, first and behind the last, that each codebook codes; coefficients are 28.7 Hz each.
CHANNELS = (DESCRIPTION, DESCRIPTION, (0, 5), (5, 10), DESCRIPTION, DESCRIPTION, (10, 16), (16, 22), (22, 28), (28, 35),
            (35, 42), (42, 49), (49, 56), (56, COEFFICIENTS))


def counts_of(codes, size):
    return torch.bincount(codes, minlength=size).to(torch.float32)


def construct_stage(quantizer, residual, channels, draw, rounds=12):
    """One codebook from the (up to) 7 directions in which the `channels` of residual [L, N] vary most, by k-means on
    their projections. The last number is a constant: entries are compared by direction alone, and beside a constant the
    direction shows how large the others are. -> what is left of residual."""
    part = residual[channels]
    mean = part.mean(1, keepdim=True)
    _, vectors = torch.linalg.eigh((part - mean) @ (part - mean).t() / part.shape[1])
    size, dim = quantizer.codebook.weight.shape
    used = min(dim - 1, len(part))
    basis = torch.zeros(len(residual), dim)
    basis[channels, :used] = vectors[:, -used:].flip(1)
    centre = torch.zeros(len(residual), 1)
    centre[channels] = mean
    scale = 1 / ((basis[:, :used].t() @ (residual - centre)).std() + 1e-9)            # entries of about unit size
    set_weight(quantizer.in_proj, (basis.t() * scale)[:, :, None])
    constant = torch.zeros(dim)
    constant[-1] = CONSTANT
    quantizer.in_proj.bias.data = -scale * (basis.t() @ centre)[:, 0] + constant
    set_weight(quantizer.out_proj, (basis / scale)[:, :, None])
    quantizer.out_proj.bias.data = centre[:, 0].clone()
    z = quantizer.in_proj(residual[None])[0]                  # [8, N]
    table = quantizer.codebook.weight.data
    some = z[:, torch.randperm(z.shape[1], generator=draw)[:100_000]]
    table.copy_(some[:, torch.randint(some.shape[1], (size,), generator=draw)].t())
    for _ in range(rounds):
        code = quantizer.nearest(some[None])[0]
        count = counts_of(code, size)
        total = torch.zeros_like(table).index_add_(0, code, some.t())
        fresh = some[:, torch.randint(some.shape[1], (size,), generator=draw)].t()
        table.copy_(torch.where((count > 0)[:, None], total / count.clamp(min=1)[:, None], fresh))
    return residual - quantizer.out_proj(quantizer.rows(quantizer.nearest(z[None])))[0]


@torch.no_grad()
def construct(quantizer, latents, draw):
    """Set the codebooks from latents [L, N]. -> the shares of variance left of the description and the coefficients."""
    described, transformed = slice(*DESCRIPTION), slice(0, COEFFICIENTS)
    residual = latents
    for stage, channels in zip(quantizer.quantizers, CHANNELS):
        residual = construct_stage(stage, residual, torch.arange(*channels), draw)
    return tuple(float(residual[part].var(1).sum() / latents[part].var(1).sum()) for part in (described, transformed))


class CodebookTrainer:
    """Keeps each codebook at the running mean of what is assigned to it and replaces entries that nothing meets: for a
    codec whose encoder is trained too."""

    def __init__(self, codec, saved, decay=0.998):
        self.codec, self.decay = codec, decay
        tables = codec.quantizer.codebooks()
        self.count = saved.get("count", torch.ones(tables.shape[:2])).to(tables.device)              # [C, V]
        self.total = saved.get("total", tables.detach().clone()).to(tables.device)                   # [C, V, 8]
        self.idle = saved.get("idle", torch.zeros(tables.shape[:2])).to(tables.device)               # vectors since last used

    def state(self):
        return {"count": self.count, "total": self.total, "idle": self.idle}

    @torch.no_grad()
    def update(self, i, z, code, draw):                       # z [N, 8], code [N]
        table = self.codec.quantizer.quantizers[i].codebook.weight.data
        hits = counts_of(code, len(table))
        self.count[i] = self.decay * self.count[i] + (1 - self.decay) * hits
        self.total[i] = self.decay * self.total[i] + (1 - self.decay) * torch.zeros_like(table).index_add_(0, code, z)
        # the mean of few vectors is no mean yet: entries move once enough has been seen of them
        table.copy_(torch.where((self.count[i] > 1e-3)[:, None], self.total[i] / self.count[i].clamp(min=1e-3)[:, None], table))
        self.idle[i] = torch.where(hits > 0, torch.zeros_like(hits), self.idle[i] + len(code))
        dead = self.idle[i] > 20 * len(table)                 # unused where 20 uses would be average
        fresh = z[torch.randint(len(z), (len(table),), generator=draw).to(z.device)]
        table.copy_(torch.where(dead[:, None], fresh, table))
        weight = len(z) / len(table) * 0.5
        self.count[i] = torch.where(dead, torch.full_like(hits, weight), self.count[i])
        self.total[i] = torch.where(dead[:, None], fresh * weight, self.total[i])
        self.idle[i] = torch.where(dead, torch.zeros_like(hits), self.idle[i])


def quantise(codec, latent, trainer, keep, draw):
    """The residual quantiser with gradients passed straight through. keep [B]: codebooks in use for each example.
    -> quantised latent [B, L, T], commitment loss."""
    residual, quantised, commitment = latent, 0.0, 0.0
    for i, quantizer in enumerate(codec.quantizer.quantizers):
        z = quantizer.in_proj(residual)                       # [B, 8, T]
        code = quantizer.nearest(z.detach())
        row = quantizer.rows(code).detach()
        used = (i < keep).to(z.dtype)[:, None, None]
        commitment = commitment + ((z - row).square() * used).mean() / row.square().mean().clamp(min=1e-6)
        q = quantizer.out_proj(z + (row - z).detach()) * used
        residual = residual - q
        quantised = quantised + q
        trainer.update(i, z.detach().float().transpose(1, 2).flatten(0, 1), code.flatten(), draw)
    return quantised, commitment / len(codec.quantizer.quantizers)
