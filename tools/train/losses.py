"""Losses of the codec on spectra and on the waveform."""
import torch

from describe import mel_points


def mel_filters(n_bins, n_mels, sample_rate):
    """Triangles, equally spaced in mel (HTK's formula); [n_mels, n_bins]."""
    edges, frequency = mel_points(0, sample_rate / 2, n_mels + 2), torch.linspace(0, sample_rate / 2, n_bins)
    rise = (frequency - edges[:-2, None]) / (edges[1:-1] - edges[:-2])[:, None]
    fall = (edges[2:, None] - frequency) / (edges[2:] - edges[1:-1])[:, None]
    return torch.minimum(rise, fall).clamp(min=0)


class SpectralLoss:
    """How different two signals sound, from spectra at several resolutions, and how far apart their waveforms are."""

    def __init__(self, sample_rate, windows=(2048, 512, 128), mels=(120, 40, 10)):
        self.scales = [(torch.hann_window(w), mel_filters(w // 2 + 1, m, sample_rate)) for w, m in zip(windows, mels)]

    def to(self, device):
        self.scales = [(window.to(device), filters.to(device)) for window, filters in self.scales]
        return self

    def __call__(self, got, want):                            # [B, n] each -> log-mel, magnitude, waveform losses
        mel = magnitude = 0.0
        for window, filters in self.scales:
            w = len(window)

            def spectrum(x):                                  # [B, bins, frames], a sine of amplitude 1 peaks near 1
                power = torch.view_as_real(torch.stft(x, w, w // 4, w, window, return_complex=True)).square().sum(-1)
                return (power + 1e-10).sqrt() * (2 / w)

            with torch.no_grad():
                target = spectrum(want)
                target_mel = (filters @ target).clamp(min=1e-4).log()
            result = spectrum(got)
            mel = mel + ((filters @ result).clamp(min=1e-4).log() - target_mel).abs().mean()
            magnitude = magnitude + relative_distance(result, target)
        # Energy decides in the waveform's part, as it does for whether a bass keeps its phase. An absolute difference
        # of spectra would be ruled by a thousand faint bins at high frequencies, where phase can be neither coded nor heard.
        return mel / len(self.scales), magnitude / len(self.scales), relative_distance(got, want)


def relative_distance(got, want):
    """1 for silence in place of `want`; over the batch as one, so that a silent example does not outweigh the rest."""
    return (got - want).norm() / (want.norm() + 1e-3)
