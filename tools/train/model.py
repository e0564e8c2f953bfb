#!/usr/bin/python3
"""The model of vampd in PyTorch: a codec, two masked transformers, and the loop that generates with them.

This is the executable version of the mathematics: short, slow and readable. The C code is checked against it,
training starts from it, and `--bench` times it as the thing to beat. Module and parameter names are chosen so that
`state_dict()` has exactly the names of the published checkpoints.

Letters in shapes: B batch, n samples, T frames, C codebooks, V vocabulary, D model width, H heads, L latent channels,
P predicted codebooks (those that are not conditioning).

    model.py --check FOLDER   compare with the reference tensors in FOLDER (codec.pth, codes.npy, ...)
    model.py --bench          build random weights and time encode, coarse, fine, decode

Those two are in model_check.py. This file imports nothing of its folder, so that a program may load it by its path.
"""
import json
import math
import os
import sys

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import remove_weight_norm, weight_norm

# ---------------------------------------------------------------------------------------------------------- codec


def conv(in_channels, out_channels, kernel, stride=1, dilation=1, padding=0):
    return weight_norm(nn.Conv1d(in_channels, out_channels, kernel, stride, padding, dilation))


class SnakeFunction(torch.autograd.Function):
    """snake and its gradient in a few passes over memory: autograd would keep every intermediate signal, and on a
    CPU this elementwise function is as expensive as the convolutions beside it."""

    @staticmethod
    def forward(ctx, x, alpha):
        ctx.save_for_backward(x, alpha)
        return (x * alpha).sin_().square_().mul_(1 / (alpha + 1e-9)).add_(x)

    @staticmethod
    def backward(ctx, gradient):
        x, alpha = ctx.saved_tensors
        inverse = 1 / (alpha + 1e-9)
        sin2 = (x * (2 * alpha)).sin_()                       # d/dx = 1 + sin(2ax) · a/(a + eps)
        dx = sin2.mul(alpha * inverse).add_(1).mul_(gradient)
        # d/da = x sin(2ax)/(a + eps) - sin²(ax)/(a + eps)²
        first = sin2.mul_(x).mul_(gradient).sum((0, 2), keepdim=True)
        second = (x * alpha).sin_().square_().mul_(gradient).sum((0, 2), keepdim=True)
        return dx, first * inverse - second * inverse * inverse


class Snake(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.alpha = nn.Parameter(torch.ones(1, channels, 1))

    def forward(self, x):                                     # [B, channels, n] -> the same
        if torch.is_grad_enabled() and x.device.type == "cpu":
            return SnakeFunction.apply(x, self.alpha)
        return x + torch.sin(x * self.alpha).square() / (self.alpha + 1e-9)


class ResidualUnit(nn.Module):
    def __init__(self, channels, dilation):
        super().__init__()
        self.block = nn.Sequential(
            Snake(channels), conv(channels, channels, 7, dilation=dilation, padding=3 * dilation),
            Snake(channels), conv(channels, channels, 1))

    def forward(self, x):
        return x + self.block(x)


class EncoderBlock(nn.Module):
    def __init__(self, channels, stride):
        super().__init__()
        self.block = nn.Sequential(
            *(ResidualUnit(channels, dilation) for dilation in (1, 3, 9)),
            Snake(channels), conv(channels, 2 * channels, 2 * stride, stride, padding=stride // 2))

    def forward(self, x):
        return self.block(x)


class Encoder(nn.Module):
    def __init__(self, channels, rates):
        super().__init__()
        blocks = [conv(1, channels, 7, padding=3)]
        for stride in rates:
            blocks.append(EncoderBlock(channels, stride))
            channels *= 2
        self.block = nn.Sequential(*blocks, Snake(channels), conv(channels, channels, 3, padding=1))
        self.latent_channels = channels

    def forward(self, audio):                                 # [B, 1, n] -> [B, L, T]
        return self.block(audio)


class MrfLayer(nn.Module):
    def __init__(self, channels, kernel, dilation):
        super().__init__()
        self.layer = nn.Sequential(
            Snake(channels), conv(channels, channels, kernel, dilation=dilation, padding=(kernel - 1) * dilation // 2),
            Snake(channels), conv(channels, channels, kernel, padding=(kernel - 1) // 2))

    def forward(self, x):
        return x + self.layer(x)


class MrfChain(nn.Module):
    def __init__(self, channels, kernel):
        super().__init__()
        self.block = nn.Sequential(*(MrfLayer(channels, kernel, dilation) for dilation in (1, 3, 5)))

    def forward(self, x):
        return self.block(x)


class Mrf(nn.Module):
    """Multi-receptive-field block: the mean of three chains with different kernels."""

    def __init__(self, channels):
        super().__init__()
        self.mrf_blocks = nn.ModuleList(MrfChain(channels, kernel) for kernel in (3, 7, 11))

    def forward(self, x):
        return sum(chain(x) for chain in self.mrf_blocks) / len(self.mrf_blocks)


class UpConv(nn.ConvTranspose1d):
    def forward(self, x):
        if x.dtype == torch.bfloat16 and x.device.type == "cpu":          # PyTorch 1.13 cannot do this one on a CPU in bf16
            return F.conv_transpose1d(x.float(), self.weight.float(), self.bias.float(), self.stride, self.padding).bfloat16()
        return super().forward(x)


class DecoderBlock(nn.Module):
    def __init__(self, channels, stride):
        super().__init__()
        self.block = nn.Sequential(
            Snake(channels),
            weight_norm(UpConv(channels, channels // 2, 2 * stride, stride, stride // 2)),
            Mrf(channels // 2))

    def forward(self, x):
        return self.block(x)


class Decoder(nn.Module):
    def __init__(self, latent_channels, channels, rates):
        super().__init__()
        blocks = [conv(latent_channels, channels, 7, padding=3)]
        for stride in rates:
            blocks.append(DecoderBlock(channels, stride))
            channels //= 2
        self.model = nn.Sequential(*blocks, Snake(channels), conv(channels, 1, 7, padding=3), nn.Tanh())

    def forward(self, latent):                                # [B, L, T] -> [B, 1, T * hop]
        return self.model(latent)


class VectorQuantizer(nn.Module):
    def __init__(self, latent_channels, size, dim):
        super().__init__()
        self.in_proj = conv(latent_channels, dim, 1)
        self.out_proj = conv(dim, latent_channels, 1)
        self.codebook = nn.Embedding(size, dim)

    def nearest(self, z):
        """z [B, 8, T] -> codes [B, T]: the nearest codebook row after both are normalised to unit length."""
        rows = F.normalize(z.transpose(1, 2).float(), dim=-1, eps=1e-12)                     # [B, T, 8]
        table = F.normalize(self.codebook.weight.float(), dim=-1, eps=1e-12)                  # [V, 8]
        distance = (rows.square().sum(-1, keepdim=True) - 2 * rows @ table.t() + table.square().sum(-1))
        return distance.argmin(-1)

    def rows(self, codes):                                    # [B, T] -> [B, 8, T]
        return F.embedding(codes, self.codebook.weight).transpose(1, 2)


class ResidualQuantizer(nn.Module):
    def __init__(self, latent_channels, n_codebooks, size, dim):
        super().__init__()
        self.quantizers = nn.ModuleList(VectorQuantizer(latent_channels, size, dim) for _ in range(n_codebooks))

    def encode(self, latent):                                 # [B, L, T] -> [B, C, T]
        residual, codes = latent, []
        for quantizer in self.quantizers:
            code = quantizer.nearest(quantizer.in_proj(residual))
            residual = residual - quantizer.out_proj(quantizer.rows(code))
            codes.append(code)
        return torch.stack(codes, 1)

    def decode(self, codes):                                  # [B, C, T] -> [B, L, T]
        return sum(quantizer.out_proj(quantizer.rows(codes[:, i])) for i, quantizer in enumerate(self.quantizers))

    def codebooks(self):
        """[C, V, 8]: what the transformers' embedding looks tokens up in."""
        return torch.stack([quantizer.codebook.weight for quantizer in self.quantizers])


class Codec(nn.Module):
    def __init__(self, encoder_dim=64, encoder_rates=(2, 6, 8, 8), decoder_dim=1536, decoder_rates=(6, 4, 4, 2, 2, 2),
                 n_codebooks=14, codebook_size=1024, codebook_dim=8, sample_rate=44100, **_):
        super().__init__()
        self.encoder = Encoder(encoder_dim, encoder_rates)
        latent_channels = self.encoder.latent_channels
        self.quantizer = ResidualQuantizer(latent_channels, n_codebooks, codebook_size, codebook_dim)
        self.decoder = Decoder(latent_channels, decoder_dim, decoder_rates)
        self.rates, self.hop = decoder_rates, math.prod(decoder_rates)
        self.sample_rate = sample_rate

    def encode(self, audio):                                  # [B, 1, n] -> latent [B, L, T], codes [B, C, T]
        audio = F.pad(audio, (0, -audio.shape[-1] % self.hop))
        latent = self.encoder(audio)
        return latent, self.quantizer.encode(latent)

    def decode(self, codes):                                  # [B, C, T] -> [B, 1, T * hop]
        return self.decoder(self.quantizer.decode(codes))


# --------------------------------------------------------------------------------------------------- transformers


class LoraLinear(nn.Module):
    """A linear map without bias and, where rank > 0, a low-rank correction: W + lora_B · lora_A / rank."""

    def __init__(self, in_features, out_features, rank=0):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(out_features, in_features))
        self.rank = rank
        if rank:
            self.lora_A = nn.Parameter(torch.empty(rank, in_features))
            self.lora_B = nn.Parameter(torch.empty(out_features, rank))

    def fold(self):
        if self.rank:
            self.weight.data += self.lora_B.data @ self.lora_A.data / self.rank
            del self.lora_A, self.lora_B
            self.rank = 0

    def forward(self, x):
        if self.rank:
            return F.linear(x, self.weight) + F.linear(F.linear(x, self.lora_A), self.lora_B) / self.rank
        return F.linear(x, self.weight)


class RmsNorm(nn.Module):
    def __init__(self, dim):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))

    def forward(self, x):
        return self.weight * x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-6)


def relative_buckets(n_frames):
    """[T, T] bucket of (key - query): exact up to 7 frames, then logarithmic up to 128, each way."""
    position = torch.arange(n_frames)
    relative = position[None, :] - position[:, None]
    distance = relative.abs()
    far = 8 + (torch.log(distance.clamp(min=1).float() / 8) / math.log(128 / 8) * 8).long()
    return torch.where(relative > 0, 16, 0) + torch.where(distance < 8, distance, far.clamp(max=15))


class Attention(nn.Module):
    def __init__(self, dim, n_heads, rank, has_bias_table):
        super().__init__()
        self.n_heads = n_heads
        self.w_qs = LoraLinear(dim, dim, rank)
        self.w_ks = LoraLinear(dim, dim)
        self.w_vs = LoraLinear(dim, dim, rank)
        self.fc = LoraLinear(dim, dim, rank)
        if has_bias_table:
            self.relative_attention_bias = nn.Embedding(32, n_heads)

    def forward(self, x, bias):                               # x [B, T, D], bias [H, T, T]
        batch, frames, dim = x.shape
        q, k, v = (w(x).view(batch, frames, self.n_heads, -1).transpose(1, 2) for w in (self.w_qs, self.w_ks, self.w_vs))
        scores = q @ k.transpose(-1, -2) / math.sqrt(dim // self.n_heads) + bias
        mixed = scores.softmax(-1) @ v                        # [B, H, T, D/H]
        return self.fc(mixed.transpose(1, 2).reshape(batch, frames, dim))


class FeedForward(nn.Module):
    def __init__(self, dim, rank):
        super().__init__()
        self.w_1 = LoraLinear(dim, 4 * dim, rank)
        self.w_2 = LoraLinear(2 * dim, dim, rank)

    def forward(self, x):
        value, gate = self.w_1(x).chunk(2, -1)
        # The tanh form of GELU, written out: this version of PyTorch computes it with one thread otherwise.
        gate = 0.5 * gate * (1 + torch.tanh(math.sqrt(2 / math.pi) * (gate + 0.044715 * gate * gate * gate)))
        return self.w_2(value * gate)


class Layer(nn.Module):
    def __init__(self, dim, n_heads, rank, has_bias_table):
        super().__init__()
        self.norm_1 = RmsNorm(dim)
        self.self_attn = Attention(dim, n_heads, rank, has_bias_table)
        self.norm_3 = RmsNorm(dim)
        self.feed_forward = FeedForward(dim, rank)

    def forward(self, x, bias, dropout):
        x = x + F.dropout(self.self_attn(self.norm_1(x), bias), dropout, self.training)
        return x + F.dropout(self.feed_forward(self.norm_3(x)), dropout, self.training)


class Stack(nn.Module):
    def __init__(self, dim, n_layers, n_heads, rank):
        super().__init__()
        self.layers = nn.ModuleList(Layer(dim, n_heads, rank, i == 0) for i in range(n_layers))
        self.norm = RmsNorm(dim)

    def forward(self, x, dropout=0.0):                        # [B, T, D]
        table = self.layers[0].self_attn.relative_attention_bias
        bias = table(relative_buckets(x.shape[1]).to(x.device)).permute(2, 0, 1)
        for layer in self.layers:
            x = layer(x, bias, dropout)
        return self.norm(x)


class Embedding(nn.Module):
    def __init__(self, n_codebooks, latent_dim, dim):
        super().__init__()
        self.special = nn.ParameterDict({"MASK": nn.Parameter(torch.empty(n_codebooks, latent_dim))})
        self.out_proj = nn.Conv1d(n_codebooks * latent_dim, dim, 1)

    def forward(self, tokens, codebooks):                     # tokens [B, C, T], codebooks [C, V, 8]
        rows = []
        for i in range(tokens.shape[1]):
            table = torch.cat([codebooks[i], self.special["MASK"][i:i + 1]])          # [V + 1, 8]
            rows.append(F.embedding(tokens[:, i], table))     # [B, T, 8]
        return F.linear(torch.cat(rows, -1), self.out_proj.weight[:, :, 0], self.out_proj.bias)


class Classifier(nn.Module):
    def __init__(self, dim, n_outputs):
        super().__init__()
        self.layers = nn.Sequential(conv(dim, n_outputs, 1))

    def forward(self, x):                                     # [B, T, D] -> [B, V * P, T]
        return self.layers(x.transpose(1, 2))


class Transformer(nn.Module):
    def __init__(self, n_codebooks=4, n_conditioning_codebooks=0, n_layers=20, n_heads=20, embedding_dim=1280,
                 vocab_size=1024, latent_dim=8, lora_rank=0, dropout=0.0, **_):
        super().__init__()
        self.n_codebooks = n_codebooks
        self.n_conditioning_codebooks = n_conditioning_codebooks
        self.vocab_size = self.mask_token = vocab_size
        self.dropout = dropout
        self.embedding = Embedding(n_codebooks, latent_dim, embedding_dim)
        self.transformer = Stack(embedding_dim, n_layers, n_heads, lora_rank)
        self.classifier = Classifier(embedding_dim, vocab_size * (n_codebooks - n_conditioning_codebooks))

    def forward(self, tokens, codebooks):                     # tokens [B, C, T] -> logits [B, P, T, V]
        hidden = self.transformer(self.embedding(tokens, codebooks), self.dropout)
        logits = self.classifier(hidden)                      # output channel = token * P + codebook
        return logits.unflatten(1, (self.vocab_size, -1)).permute(0, 2, 3, 1)


# ----------------------------------------------------------------------------------------------------- generation


def filter_logits(logits, top_k=0, top_p=0.0, typical_mass=0.0, typical_min_tokens=64):
    """Set the logits [..., V] of tokens that must not be sampled to -inf. 0 switches a filter off."""
    if top_k:
        logits = logits.masked_fill(logits < logits.topk(top_k, -1).values[..., -1:], -math.inf)
    if top_p:
        ordered, index = logits.sort(-1, descending=True)
        before = ordered.softmax(-1).cumsum(-1) - ordered.softmax(-1)                 # mass before each token
        logits = logits.masked_fill((before >= top_p).gather(-1, index.argsort(-1)), -math.inf)
    if typical_mass:
        log_p = logits.log_softmax(-1)
        entropy = -(log_p.exp() * log_p.masked_fill(log_p == -math.inf, 0)).sum(-1, keepdim=True)
        _, index = (-log_p - entropy).abs().sort(-1)
        mass = log_p.gather(-1, index).exp()
        surplus = mass.cumsum(-1) - mass >= typical_mass
        surplus[..., :typical_min_tokens] = False
        logits = logits.masked_fill(surplus.gather(-1, index.argsort(-1)), -math.inf)
    return logits


@torch.no_grad()
def generate(model, codebooks, tokens, mask, steps, greedy=False, temperature=1.0, mask_temperature=10.5,
             sample_cutoff=1.0, generator=None, **filters):
    """Fill the masked positions of one sequence: tokens [C, T], mask [C, T] (1 = regenerate) -> tokens [C, T]."""
    first = model.n_conditioning_codebooks
    tokens = tokens.clone()
    masked = mask.bool().clone()
    masked[:first] = False
    tokens[masked] = model.mask_token
    total = int(masked.sum())
    for i in range(steps):
        if not masked.any():
            break
        r = torch.tensor((i + 1) / steps, dtype=torch.float32)
        logits = model(tokens[None], codebooks)[0].float()    # [P, T, V]
        logits = filter_logits(logits, **filters) / temperature
        probability = logits.softmax(-1)
        if greedy or i / steps > sample_cutoff:
            choice = probability.argmax(-1)
        else:
            # argmax of p / Exp(1) is a sample of p; argmax of a tensor is faster than multinomial
            noise = torch.empty_like(probability).exponential_(generator=generator)
            choice = (probability / noise).argmax(-1)
        confidence = probability.gather(-1, choice[..., None])[..., 0].log()          # [P, T]
        if not greedy:
            uniform = torch.rand(confidence.shape, generator=generator).clamp(1e-20, 1 - 1e-7)
            confidence = confidence - mask_temperature * (1 - r) * torch.log(-torch.log(uniform))
        confidence = confidence.masked_fill(~masked[first:], math.inf)

        now = int(masked.sum())
        keep = int(torch.floor(torch.cos(r * torch.tensor(math.pi / 2)) * total))
        keep = 0 if i == steps - 1 else max(1, min(keep, now - 1))
        # where only one token is masked the clamp leaves nothing to commit before the last step
        order = confidence.flatten().argsort()
        again = torch.zeros_like(masked[first:]).flatten()
        again[order[:keep]] = True
        again = again.view_as(masked[first:])
        tokens[first:] = torch.where(masked[first:], choice, tokens[first:])
        tokens[first:][again] = model.mask_token
        masked[first:] = again
    return tokens


# ------------------------------------------------------------------------------------------------------ utilities


def initialise(model, seed=0):
    """Random weights that neither vanish nor explode: every layer of the trunk keeps about unit variance, and
    branches that are added to the trunk start small."""
    generator = torch.Generator().manual_seed(seed)

    def normal(shape, std):
        return torch.randn(shape, generator=generator) * std

    for name, module in model.named_modules():
        if isinstance(module, (nn.Conv1d, nn.ConvTranspose1d)):
            transposed = isinstance(module, nn.ConvTranspose1d)
            weight = module.weight_v if hasattr(module, "weight_v") else module.weight
            fan_in = weight.shape[0] * 2 if transposed else weight[0].numel()
            branch = name.endswith((".block.3", ".layer.3"))  # the last conv of a residual branch
            weight.data = normal(weight.shape, (0.4 if branch else 1.0) / math.sqrt(fan_in))
            module.bias.data.zero_()
            if hasattr(module, "weight_g"):
                module.weight_g.data = weight.data.flatten(1).norm(dim=1).view(-1, 1, 1)
        elif isinstance(module, LoraLinear):
            std = 1 / math.sqrt(module.weight.shape[1])
            module.weight.data = normal(module.weight.shape, std)
            if module.rank:
                module.lora_A.data = normal(module.lora_A.shape, std)
                module.lora_B.data.zero_()                    # no correction until it is trained
        elif isinstance(module, nn.Embedding):
            small = name.endswith("relative_attention_bias")
            module.weight.data = normal(module.weight.shape, 0.1 if small else 1.0)
        elif isinstance(module, Embedding):
            module.special["MASK"].data = normal(module.special["MASK"].shape, 1.0)
    return model


def fold(model):
    """Replace weight_g, weight_v and LoRA pairs by the plain weights that they stand for."""
    for module in model.modules():
        if hasattr(module, "weight_g"):
            remove_weight_norm(module)
        elif isinstance(module, LoraLinear):
            module.fold()
    return model


def load_checkpoint(path):
    """-> (kwargs, state_dict) of a checkpoint saved as the published ones are."""
    checkpoint = torch.load(path, map_location="cpu")
    return checkpoint["metadata"]["kwargs"], checkpoint["state_dict"]


def load_folder(folder):
    """-> (codec, coarse, c2f) with the weights of a model folder as vampd reads it: model.json and safetensors."""
    with open(os.path.join(folder, "model.json"), encoding="utf-8") as file:
        configuration = json.load(file)
    models = []
    for name, kind in (("codec", Codec), ("coarse", Transformer), ("c2f", Transformer)):
        model = fold(kind(**configuration[name]))
        model.load_state_dict(read_safetensors(os.path.join(folder, name + ".safetensors")), strict=True)
        models.append(model.eval())
    return models


# safetensors: the header's length (8 bytes, little-endian), a JSON header, the tensors' bytes one after the other
SAFETENSORS_TYPES = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


def write_safetensors(path, tensors):
    names = {dtype: name for name, dtype in SAFETENSORS_TYPES.items()}
    header, offset = {}, 0
    for name, tensor in tensors.items():
        size = tensor.numel() * tensor.element_size()
        header[name] = {"dtype": names[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [offset, offset + size]}
        offset += size
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)                           # so that the data begins on a multiple of 8
    with open(path, "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for tensor in tensors.values():
            file.write(tensor.detach().contiguous().numpy().tobytes())


def read_safetensors(path):
    """-> {name: fp32 tensor}"""
    with open(path, "rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
        data = bytearray(file.read())
    return {name: torch.frombuffer(data, dtype=SAFETENSORS_TYPES[entry["dtype"]], offset=entry["data_offsets"][0],
                                   count=math.prod(entry["shape"])).view(entry["shape"]).float()
            for name, entry in header.items() if name != "__metadata__"}


def load_codec(path):
    kwargs, state = load_checkpoint(path)
    codec = Codec(**kwargs)
    codec.load_state_dict(state, strict=True)
    return codec.eval()


def load_transformer(path):
    kwargs, state = load_checkpoint(path)
    ranks = [tensor.shape[0] for name, tensor in state.items() if name.endswith("lora_A")]
    model = Transformer(**kwargs, lora_rank=ranks[0] if ranks else 0)
    model.load_state_dict(state, strict=True)
    return model.eval()


DIMS = {
    "official": {
        "codec": {},
        "coarse": {"n_codebooks": 4, "n_layers": 20, "n_heads": 20, "embedding_dim": 1280},
        "c2f": {"n_codebooks": 14, "n_conditioning_codebooks": 4, "n_layers": 16, "n_heads": 20, "embedding_dim": 1280},
    },
    # what fits 32 MB beside that codec, and half an hour of a data-centre GPU
    "medium": {
        "codec": {"encoder_dim": 12, "decoder_dim": 256},
        "coarse": {"n_codebooks": 4, "n_layers": 7, "n_heads": 4, "embedding_dim": 256},
        "c2f": {"n_codebooks": 14, "n_conditioning_codebooks": 4, "n_layers": 4, "n_heads": 3, "embedding_dim": 192},
    },
    "small": {
        "codec": {"encoder_dim": 12, "decoder_dim": 256},
        "coarse": {"n_codebooks": 4, "n_layers": 4, "n_heads": 3, "embedding_dim": 192},
        "c2f": {"n_codebooks": 14, "n_conditioning_codebooks": 4, "n_layers": 3, "n_heads": 3, "embedding_dim": 192},
    },
}


if __name__ == "__main__":
    from model_check import main
    sys.exit(main())
