"""A decoder that works before it has learnt anything, and what it shares with the encoder: a lapped transform.

A network that starts from random weights needs a great many steps until its output is in phase with its input. But the
architecture can represent any linear synthesis exactly: the first transposed convolution holds 12 x 128 = 1536 samples
for each of its input channels, two frames, and the later ones only lay blocks side by side. So the decoder starts as the
inverse of the encoder's MDCT (describe.py) for the lowest frequencies, with the residual branches and the curvature of the
snakes small.

For the frequencies above, whose loudness alone is coded, it starts with bursts of noise. A snake adds ax², so a pair of
channels u + v and u - v, one burst with a plus and one with a minus, makes 2v (1 + sin 2au): with u the level of a band and
v one of the low coefficients, whose sign changes from frame to frame, the burst is louder the louder the band and never
the same twice. What that misses, training has to learn.
"""
import math

import torch


def lapped_basis(hop, count):
    """[count, 2 * hop]: the lowest functions of the MDCT, sine window. Orthonormal with their shifts by `hop`."""
    n, k = torch.arange(2 * hop, dtype=torch.float64), torch.arange(count, dtype=torch.float64)[:, None]
    window = torch.sin(math.pi * (n + 0.5) / (2 * hop))
    return (window * math.sqrt(2 / hop) * torch.cos(math.pi / hop * (n + 0.5 + hop / 2) * (k + 0.5))).float()


def cosine_basis(size, count):
    """[count, size]: the lowest functions of the DCT-II, orthonormal."""
    n, k = torch.arange(size, dtype=torch.float64), torch.arange(count, dtype=torch.float64)[:, None]
    basis = torch.cos(math.pi / size * (n + 0.5) * k) * math.sqrt(2 / size)
    basis[0] /= math.sqrt(2)
    return basis.float()


def set_weight(conv, weight, bias=0.0):
    """Give a weight-normalised convolution this weight and, unless None, bias. A row of zeros keeps a direction, with
    length 0."""
    norm = weight.flatten(1).norm(dim=1).view(-1, 1, 1)
    conv.weight_v.data = torch.where(norm > 0, weight, conv.weight_v.data)
    conv.weight_g.data = norm
    if bias is not None:
        conv.bias.data.fill_(bias)


def noise_burst(hop, low, high, sample_rate, generator):
    """[2 * hop]: noise between two frequencies under a sine window, of unit energy."""
    n = 2 * hop
    spectrum = torch.fft.rfft(torch.randn(n, generator=generator))
    frequency = torch.linspace(0, sample_rate / 2, n // 2 + 1)
    spectrum = torch.where((frequency >= low) & (frequency <= high), spectrum, torch.zeros_like(spectrum))
    burst = torch.fft.irfft(spectrum, n) * torch.sin(math.pi * (torch.arange(n) + 0.5) / n)
    return burst / burst.norm()


@torch.no_grad()
def start_as_transform(decoder, rates, coefficients, bands, edges, levels, sizes, sample_rate, gain,
                       curvature=0.01, branch=0.05, seed=0):
    """Set the weights of `decoder` for latent channels of which the first are MDCT coefficients, in the size that they
    have for audio times `gain`, and the next `bands` levels of bands with `edges` [bands + 2] in Hz.
    levels: (mean [bands], spread) of those levels in dB, as the channels are (level - mean) / spread;
    sizes [coefficients]: root mean squares of the coefficients."""
    generator = torch.Generator().manual_seed(seed)
    hop = math.prod(rates)
    for name, module in decoder.named_modules():
        if name.endswith(".layer.3"):                         # last in a residual branch
            module.weight_g.data *= branch
    first, *blocks, last_snake, last, _ = list(decoder.model)
    width = first.out_channels
    weight = first.weight_v.data.clone() * first.weight_g.data / first.weight_v.data.flatten(1).norm(dim=1).view(-1, 1, 1)
    weight[:coefficients] = 0
    weight[range(coefficients), range(coefficients), 3] = 1
    blocks[0].block[0].alpha.data.fill_(curvature)
    mean, spread = levels
    high = [band for band in range(bands) if edges[band] > (coefficients - 4) / hop * sample_rate / 2]
    pairs = min((width - coefficients) // 2 - 8, 3 * len(high))
    bursts = torch.zeros(width, 2 * hop)
    for pair in range(pairs):
        band, at = high[pair % len(high)], coefficients + 2 * pair
        carrier = int(torch.randint(2, min(coefficients, 40), (1,), generator=generator))
        steep = 0.3
        slope = math.pi / (2 * steep) / 75                    # of u in dB: 2au goes from -pi/2 at -80 dB to pi/2 at -5 dB
        weight[at:at + 2] = 0
        weight[at:at + 2, coefficients + band, 3] = slope * spread
        first.bias.data[at:at + 2] = slope * (float(mean[band]) + 80) - math.pi / (4 * steep)
        weight[at, carrier, 3], weight[at + 1, carrier, 3] = 1, -1
        blocks[0].block[0].alpha.data[:, at:at + 2] = steep
        # A burst a frame of this energy is noise of the band's mean level; its pairs share the work.
        wide = edges[band + 2] - edges[band]
        loud = 10 ** (float(mean[band]) / 20) * hop * math.sqrt(2 * wide / (3 * sample_rate) * len(high) / pairs)
        burst = noise_burst(hop, edges[band], edges[band + 2], sample_rate, generator) * loud * gain / (2 * float(sizes[carrier]))
        bursts[at], bursts[at + 1] = burst, -burst
    set_weight(first, weight, None)
    used, samples = coefficients, hop
    for i, block in enumerate(blocks):
        snake, conv, _ = block.block
        if i:
            snake.alpha.data.fill_(curvature)
        (stride,), (pad,) = conv.stride, conv.padding
        samples //= stride                                    # of the signal in one time step after this stage
        if samples > conv.out_channels:
            raise ValueError("the decoder has too few channels to hold every sample of a block")
        weight = conv.weight_v.data * 0.3                     # [in, out, 2 * stride]
        weight[:, :samples] *= 0.05                           # a faint way in for what the other channels will learn
        weight[:used] = 0
        if i == 0:
            lapped = lapped_basis(hop, coefficients).view(coefficients, 2 * stride, samples)
            weight[:used, :samples] = lapped.transpose(1, 2)
            top = used + 2 * pairs
            weight[used:top] *= 0.05
            weight[used:top, :samples] = bursts[used:top].view(2 * pairs, 2 * stride, samples).transpose(1, 2)
        else:
            for step in range(stride):
                weight[range(step * samples, (step + 1) * samples), range(samples), pad + step] = 1
        set_weight(conv, weight)
        used = samples
    last_snake.alpha.data.fill_(curvature)
    weight = torch.zeros_like(last.weight_v)
    weight[0, 0, 3] = 1 / gain
    set_weight(last, weight)


def balance(encoder, decoder, latents, coefficients, exponent=0.5):
    """Scale the coefficients by a power of their size in `latents` [L, N], in the encoder and back in the decoder, so
    that the quantiser spreads its noise below the signal at all frequencies and not evenly over them."""
    size = latents[:coefficients].std(1)
    scale = (size + 1e-4) ** -exponent
    scale /= (size * scale).square().mean().sqrt()            # latents of about unit size
    encoder.block[-1].weight_g.data[:coefficients] *= scale.view(-1, 1, 1)
    first = decoder.model[0]
    weight = first.weight_v.data * first.weight_g.data / first.weight_v.data.flatten(1).norm(dim=1).view(-1, 1, 1)
    weight[:, :coefficients] /= scale.view(1, -1, 1)
    set_weight(first, weight, None)
