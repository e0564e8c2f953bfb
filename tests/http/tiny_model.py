#!/usr/bin/env python3
"""Writes a model folder with random weights, small enough that a generation takes milliseconds: for tests of
everything around the model. Standard library only.

    tiny_model.py FOLDER

The names and shapes are those of docs/model.md. It makes noise, deterministically.
"""
import array
import json
import math
import os
import random
import struct
import sys

ENCODER_DIM, ENCODER_RATES = 4, [2, 6, 8, 8]
DECODER_DIM, DECODER_RATES = 64, [6, 4, 4, 2, 2, 2]
CODEBOOKS, COARSE, ENTRIES, CODE_DIM = 14, 4, 1024, 8
WIDTH, HEADS, LAYERS = 64, 1, 1


class Tensors(dict):
    """Name -> (shape, values)."""

    def __init__(self, seed):
        super().__init__()
        self.random = random.Random(seed)

    def noise(self, name, *shape, fan_in, gain=1.0):
        count = math.prod(shape)
        bound = gain * math.sqrt(3 / fan_in)
        self[name] = shape, array.array("f", (self.random.uniform(-bound, bound) for _ in range(count)))

    def constant(self, name, *shape, value):
        self[name] = shape, array.array("f", [value] * math.prod(shape))

    def conv(self, name, into, out, kernel, transposed=False):
        shape = (into, out, kernel) if transposed else (out, into, kernel)
        self.noise(name + ".weight", *shape, fan_in=into * kernel)
        self.noise(name + ".bias", out, fan_in=100)

    def snake(self, name, channels):
        self.constant(name + ".alpha", 1, channels, 1, value=1.0)

    def save(self, path):
        header, offset = {}, 0
        for name, (shape, values) in self.items():
            end = offset + 4 * len(values)
            header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [offset, end]}
            offset = end
        text = json.dumps(header).encode()
        text += b" " * (-len(text) % 8)
        with open(path, "wb") as file:
            file.write(struct.pack("<Q", len(text)) + text)
            for _, values in self.values():
                if sys.byteorder == "big":
                    values.byteswap()
                file.write(values.tobytes())


def codec():
    tensors, channels = Tensors(1), ENCODER_DIM
    tensors.conv("encoder.block.0", 1, channels, 7)
    for i, stride in enumerate(ENCODER_RATES, 1):
        block = f"encoder.block.{i}.block"
        for unit in range(3):
            tensors.snake(f"{block}.{unit}.block.0", channels)
            tensors.conv(f"{block}.{unit}.block.1", channels, channels, 7)
            tensors.snake(f"{block}.{unit}.block.2", channels)
            tensors.conv(f"{block}.{unit}.block.3", channels, channels, 1)
        tensors.snake(f"{block}.3", channels)
        tensors.conv(f"{block}.4", channels, 2 * channels, 2 * stride)
        channels *= 2
    tensors.snake(f"encoder.block.{len(ENCODER_RATES) + 1}", channels)
    tensors.conv(f"encoder.block.{len(ENCODER_RATES) + 2}", channels, channels, 3)
    latent = channels
    for i in range(CODEBOOKS):
        tensors.conv(f"quantizer.quantizers.{i}.in_proj", latent, CODE_DIM, 1)
        tensors.conv(f"quantizer.quantizers.{i}.out_proj", CODE_DIM, latent, 1)
        tensors.noise(f"quantizer.quantizers.{i}.codebook.weight", ENTRIES, CODE_DIM, fan_in=3)
    channels = DECODER_DIM
    tensors.conv("decoder.model.0", latent, channels, 7)
    for i, stride in enumerate(DECODER_RATES, 1):
        block = f"decoder.model.{i}.block"
        tensors.snake(f"{block}.0", channels)
        tensors.conv(f"{block}.1", channels, channels // 2, 2 * stride, transposed=True)
        channels //= 2
        for j, kernel in enumerate((3, 7, 11)):
            for layer in range(3):
                stem = f"{block}.2.mrf_blocks.{j}.block.{layer}.layer"
                tensors.snake(f"{stem}.0", channels)
                tensors.conv(f"{stem}.1", channels, channels, kernel)
                tensors.snake(f"{stem}.2", channels)
                tensors.conv(f"{stem}.3", channels, channels, kernel)
    tensors.snake(f"decoder.model.{len(DECODER_RATES) + 1}", channels)
    tensors.conv(f"decoder.model.{len(DECODER_RATES) + 2}", channels, 1, 7)
    return tensors


def transformer(codebooks, conditioning, seed):
    tensors = Tensors(seed)
    tensors.noise("embedding.special.MASK", codebooks, CODE_DIM, fan_in=3)
    tensors.noise("embedding.out_proj.weight", WIDTH, CODE_DIM * codebooks, 1, fan_in=CODE_DIM * codebooks)
    tensors.noise("embedding.out_proj.bias", WIDTH, fan_in=100)
    for i in range(LAYERS):
        layer = f"transformer.layers.{i}"
        tensors.constant(f"{layer}.norm_1.weight", WIDTH, value=1.0)
        for name in ("w_qs", "w_ks", "w_vs", "fc"):
            tensors.noise(f"{layer}.self_attn.{name}.weight", WIDTH, WIDTH, fan_in=WIDTH)
        if i == 0:
            tensors.noise(f"{layer}.self_attn.relative_attention_bias.weight", 32, HEADS, fan_in=3)
        tensors.constant(f"{layer}.norm_3.weight", WIDTH, value=1.0)
        tensors.noise(f"{layer}.feed_forward.w_1.weight", 4 * WIDTH, WIDTH, fan_in=WIDTH)
        tensors.noise(f"{layer}.feed_forward.w_2.weight", WIDTH, 2 * WIDTH, fan_in=2 * WIDTH)
    tensors.constant("transformer.norm.weight", WIDTH, value=1.0)
    outputs = ENTRIES * (codebooks - conditioning)
    tensors.noise("classifier.layers.0.weight", outputs, WIDTH, 1, fan_in=WIDTH, gain=2.0)
    tensors.noise("classifier.layers.0.bias", outputs, fan_in=100)
    return tensors


def configuration():
    def part(codebooks, conditioning):
        return {"n_codebooks": codebooks, "n_conditioning_codebooks": conditioning, "n_layers": LAYERS,
                "n_heads": HEADS, "embedding_dim": WIDTH, "vocab_size": ENTRIES, "latent_dim": CODE_DIM}
    return {"format": 1, "name": "tiny", "license": "MIT", "description": "Random weights, for tests.",
            "codec": {"sample_rate": 44100, "encoder_dim": ENCODER_DIM, "encoder_rates": ENCODER_RATES,
                      "decoder_dim": DECODER_DIM, "decoder_rates": DECODER_RATES, "n_codebooks": CODEBOOKS,
                      "codebook_size": ENTRIES, "codebook_dim": CODE_DIM},
            "coarse": part(COARSE, 0), "c2f": part(CODEBOOKS, COARSE)}


def write(folder):
    os.makedirs(folder, exist_ok=True)
    codec().save(os.path.join(folder, "codec.safetensors"))
    transformer(COARSE, 0, 2).save(os.path.join(folder, "coarse.safetensors"))
    transformer(CODEBOOKS, COARSE, 3).save(os.path.join(folder, "c2f.safetensors"))
    with open(os.path.join(folder, "model.json"), "w", encoding="utf-8") as file:
        json.dump(configuration(), file, indent=2)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    write(sys.argv[1])
