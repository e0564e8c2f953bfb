"""Discriminators after the DAC paper (arXiv 2306.06546): multi-period, on the waveform folded at prime periods, and
multi-band complex STFT, on real and imaginary parts of spectrograms cut into bands. They learn to tell decoded music from
the original by least squares; the codec is told how far it is from passing and how far its features are from the
original's. Width is an option: the paper's 32 on a GPU, a few channels to try it on a CPU."""
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import weight_norm

from common import half_precision

PERIODS = (2, 3, 5, 7, 11)
WINDOWS = (2048, 1024, 512)
BANDS = ((0.0, 0.1), (0.1, 0.25), (0.25, 0.5), (0.5, 0.75), (0.75, 1.0))


def conv2d(inputs, outputs, kernel, stride, padding):
    return weight_norm(nn.Conv2d(inputs, outputs, kernel, stride, padding))


class Period(nn.Module):
    def __init__(self, period, width):
        super().__init__()
        self.period = period
        sizes = (1, width, 4 * width, 8 * width, 16 * width, 16 * width)
        self.layers = nn.ModuleList(conv2d(a, b, (5, 1), (3 if i < 4 else 1, 1), (2, 0))
                                    for i, (a, b) in enumerate(zip(sizes, sizes[1:])))
        self.last = conv2d(sizes[-1], 1, (3, 1), 1, (1, 0))

    def forward(self, x):                                     # [B, n] -> features of every layer, verdicts last
        x = F.pad(x, (0, -x.shape[1] % self.period), mode="reflect").view(len(x), 1, -1, self.period)
        features = []
        for layer in self.layers:
            x = F.leaky_relu(layer(x), 0.1)
            features.append(x)
        return features + [self.last(x)]


class Spectrogram(nn.Module):
    def __init__(self, window, width):
        super().__init__()
        self.size = window
        self.register_buffer("window", torch.hann_window(window))
        bins = window // 2 + 1
        self.bands = [(int(low * bins), int(high * bins)) for low, high in BANDS]
        self.stacks = nn.ModuleList(nn.ModuleList((
            conv2d(2, width, (3, 9), 1, (1, 4)), conv2d(width, width, (3, 9), (1, 2), (1, 4)),
            conv2d(width, width, (3, 9), (1, 2), (1, 4)), conv2d(width, width, (3, 9), (1, 2), (1, 4)),
            conv2d(width, width, (3, 3), 1, (1, 1)))) for _ in BANDS)
        self.last = conv2d(width, 1, (3, 3), 1, (1, 1))

    def forward(self, x):                                     # [B, n] -> the same
        with torch.autocast(x.device.type, enabled=False):    # spectra in fp32
            spectrum = torch.view_as_real(torch.stft(x, self.size, self.size // 4, self.size, self.window, return_complex=True))
            spectrum = spectrum.permute(0, 3, 2, 1) / self.size ** 0.5                # [B, 2, frames, bins]
        features, ends = [], []
        for (low, high), stack in zip(self.bands, self.stacks):
            band = spectrum[..., low:high]
            for layer in stack:
                band = F.leaky_relu(layer(band), 0.1)
                features.append(band)
            ends.append(band)
        return features + [self.last(torch.cat(ends, -1))]


class Adversary:
    """All discriminators with their optimiser."""

    def __init__(self, arguments, saved):
        torch.manual_seed(arguments.seed)
        width, self.device = arguments.discriminator_width, arguments.device
        self.modules = nn.ModuleList([Period(period, width) for period in PERIODS] +
                                     [Spectrogram(window, width) for window in WINDOWS]).to(self.device)
        self.optimiser = torch.optim.AdamW(self.modules.parameters(), lr=arguments.discriminator_rate, betas=(0.8, 0.99))
        if saved:
            self.modules.load_state_dict(saved["modules"])
            self.optimiser.load_state_dict(saved["optimiser"])

    def state(self):
        return {"modules": self.modules.state_dict(), "optimiser": self.optimiser.state_dict()}

    def learn(self, got, want):
        """One step of the discriminators; got and want [B, n], got detached. -> their loss."""
        with half_precision(self.device):
            loss = sum((module(got)[-1].float().square().mean() + (1 - module(want)[-1].float()).square().mean())
                       for module in self.modules) / len(self.modules)
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.modules.parameters(), 10.0)
        self.optimiser.step()
        return loss.detach()

    def judge(self, got, want):
        """-> how far `got` is from passing, and how far its features are from those of `want`."""
        passing = matching = 0.0
        for parameter in self.modules.parameters():
            parameter.requires_grad_(False)
        with half_precision(self.device):
            for module in self.modules:
                with torch.no_grad():
                    wanted = module(want)
                features = module(got)
                passing = passing + (1 - features[-1].float()).square().mean()
                matching = matching + sum((a.float() - b.float()).abs().mean() / (b.float().abs().mean() + 1e-3)
                                          for a, b in zip(features[:-1], wanted[:-1])) / len(wanted[:-1])
        for parameter in self.modules.parameters():
            parameter.requires_grad_(True)
        return passing / len(self.modules), matching / len(self.modules)
