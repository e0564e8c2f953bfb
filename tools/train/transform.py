"""A codec that works before it has learnt anything.

A network that starts from random weights needs a great many steps until its output is in phase with its input. But the
architecture can represent a classic transform codec exactly: strided convolutions cut the signal into blocks, the last one
takes the lowest coefficients of a lapped transform (MDCT), and the decoder is its transpose. These functions set the
weights so, with the residual branches and the curvature of the snakes small, and let the channels that are left over measure
how loud the higher frequencies are; training goes on from there.
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
    """Give a weight-normalised convolution this weight. A row of zeros keeps a direction, with length 0."""
    norm = weight.flatten(1).norm(dim=1).view(-1, 1, 1)
    conv.weight_v.data = torch.where(norm > 0, weight, conv.weight_v.data)
    conv.weight_g.data = norm
    conv.bias.data.fill_(bias)


BANDS, PARTS = 8, 4                                           # of the spectrum above the transform's, of a frame's time


def measure_bands(unit, strided, first, coefficients, curvature, steepness=12.0):
    """Latent channels from `coefficients` on: how loud each of BANDS bands is in each of PARTS parts of a frame.

    What lies above the transform's coefficients cannot be coded as a waveform at this rate, but its loudness can. The
    last residual unit before the last stride squares frequency channels from `first` on: for the snakes of x and -x,
    x cancels in the sum and twice sin²(ax)/a is left. It adds the sums over bands to the highest channels, which hold
    next to nothing, and the strided convolution takes them from there."""
    outer, inwards, inner, outwards = unit.block
    channels = inwards.in_channels
    pairs = min(channels // 2, channels - BANDS - first) // BANDS * BANDS
    outer.alpha.data.fill_(curvature)
    inner.alpha.data.fill_(steepness)
    weight, sums = torch.zeros_like(inwards.weight_v), torch.zeros_like(outwards.weight_v)
    for i in range(pairs):
        weight[2 * i, first + i, 3], weight[2 * i + 1, first + i, 3] = 1, -1
        sums[channels - BANDS + i * BANDS // pairs, 2 * i:2 * i + 2, 0] = 1
    set_weight(inwards, weight)
    set_weight(outwards, sums)
    (stride,), (pad,) = strided.stride, strided.padding
    weight = strided.weight_v.data * strided.weight_g.data / strided.weight_v.data.flatten(1).norm(dim=1).view(-1, 1, 1)
    weight[coefficients:coefficients + BANDS * PARTS] = 0
    for band in range(BANDS):
        for part in range(PARTS):
            taps = slice(pad + part * stride // PARTS, pad + (part + 1) * stride // PARTS)
            weight[coefficients + band * PARTS + part, channels - BANDS + band, taps] = 1
    weight[:coefficients, channels - BANDS:] = 0
    set_weight(strided, weight)


def start_as_transform(codec, coefficients, gain=4.0, curvature=0.01, branch=0.05):
    """Set the weights of `codec` so that its first `coefficients` latent channels are those of the lapped transform.

    gain: what the audio is multiplied by inside the network; curvature: the trunk's snakes' alpha; branch: the share of
    its random size that each residual branch keeps."""
    for name, module in codec.named_modules():
        if name.endswith((".block.3", ".layer.3")) and hasattr(module, "weight_g"):   # last in a residual branch
            module.weight_g.data *= branch

    encoder = list(codec.encoder.block)
    weight = encoder[0].weight_v.data.clone()
    weight[0] = 0
    weight[0, 0, 3] = gain
    set_weight(encoder[0], weight)
    basis = torch.ones(1, 1)                                  # [used channels, samples]: what a channel sees of a block
    for i, block in enumerate(encoder[1:-2]):
        *_, snake, conv = block.block
        snake.alpha.data.fill_(curvature)
        (stride,), (pad,), used = conv.stride, conv.padding, len(basis)
        samples = basis.shape[1] * stride
        weight = conv.weight_v.data.clone()
        if i < len(encoder) - 4:
            # Blocks side by side: all their samples while there are channels for them, then their lowest frequencies.
            whole = torch.block_diag(*[basis] * stride)       # [stride * used, samples], taps outermost
            following = whole if len(whole) <= conv.out_channels else cosine_basis(samples, conv.out_channels)
            taps = (following @ whole.t()).view(len(following), stride, used)
            weight[:len(taps)] = 0
            weight[:len(taps), :used, pad:pad + stride] = taps.transpose(1, 2)
            basis = (following @ whole.t()) @ whole
        else:
            lapped = lapped_basis(samples, coefficients).view(coefficients, 2 * stride, -1)
            weight[:coefficients] = 0
            weight[:coefficients, :used] = (lapped @ basis.t()).transpose(1, 2)
        set_weight(conv, weight)
    first = coefficients * basis.shape[1] // samples + 2      # frequency channel just above the coefficients
    if coefficients + BANDS * PARTS <= conv.out_channels and first + 2 * BANDS <= conv.in_channels:
        measure_bands(block.block[2], conv, first, coefficients, curvature)
    snake, conv = encoder[-2:]
    snake.alpha.data.fill_(curvature)
    weight = torch.zeros_like(conv.weight_v)
    weight[:, :, 1] = torch.eye(len(weight))
    set_weight(conv, weight)

    decoder = list(codec.decoder.model)
    weight = decoder[0].weight_v.data.clone()
    weight[:coefficients] = 0
    weight[range(coefficients), range(coefficients), 3] = 1
    set_weight(decoder[0], weight)
    used, samples = coefficients, codec.hop
    for i, block in enumerate(decoder[1:-3]):
        snake, conv, _ = block.block
        snake.alpha.data.fill_(curvature)
        (stride,), (pad,) = conv.stride, conv.padding
        samples //= stride                                    # of the signal in one time step after this stage
        if samples > conv.out_channels:
            raise ValueError("the decoder has too few channels to hold every sample of a block")
        weight = conv.weight_v.data * 0.3                     # [in, out, 2 * stride]
        weight[:, :samples] *= 0.05                           # a faint way in for what the other channels will learn
        weight[:used] = 0
        if i == 0:
            lapped = lapped_basis(codec.hop, coefficients).view(coefficients, 2 * stride, samples)
            weight[:used, :samples] = lapped.transpose(1, 2)
        else:
            for step in range(stride):
                weight[range(step * samples, (step + 1) * samples), range(samples), pad + step] = 1
        set_weight(conv, weight)
        used = samples
    snake, conv, _ = decoder[-3:]
    snake.alpha.data.fill_(curvature)
    weight = torch.zeros_like(conv.weight_v)
    weight[0, 0, 3] = 1 / gain
    set_weight(conv, weight)


def balance(codec, latents, coefficients, exponent=0.5):
    """Scale the coefficients by a power of their size in `latents` [L, N], in the encoder and back in the decoder, so
    that the quantiser spreads its noise below the signal at all frequencies and not evenly over them."""
    size = latents[:coefficients].std(1)
    scale = (size + 1e-4) ** -exponent
    scale /= (size * scale).square().mean().sqrt()            # latents of about unit size
    codec.encoder.block[-1].weight_g.data[:coefficients] *= scale.view(-1, 1, 1)
    rest = latents[coefficients:].std(1) if len(latents) > coefficients else None
    if rest is not None:
        codec.encoder.block[-1].weight_g.data[coefficients:] *= (0.3 / (rest + 1e-4)).view(-1, 1, 1)
    first = codec.decoder.model[0]
    first.weight_g.data[:coefficients] *= (1 / scale).view(-1, 1, 1)
