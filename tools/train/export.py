"""From checkpoints to a model folder that vampd reads."""
import datetime
import json
import os

import torch

from common import ANY, log
from model import DIMS, Codec, Transformer, fold, initialise, write_safetensors


def rounded(name, tensor):
    """Half precision for the big weights; what decides between tokens and what costs nothing stays in fp32."""
    # The encoder's detectors have large weights that cancel (describe.py), and its rounding would decide between tokens.
    keep = name.startswith(("quantizer.", "encoder.")) or "MASK" in name or tensor.numel() < 2048
    return tensor if keep else tensor.half()


def export(arguments, folder, trained=("codec", "coarse", "c2f")):
    """Write a model folder. Stages that are not in `trained` get random weights."""
    os.makedirs(folder, exist_ok=True)
    configuration = {"format": 1, "name": arguments.name, "license": "CC0-1.0",
                     "description": "A small VampNet and its codec, trained on freely licensed, mostly synthetic music.",
                     "provenance": {"date": datetime.date.today().isoformat(), "seed": arguments.seed,
                                    "command": "tools/train/all", "steps": {}}}
    if arguments.provenance:
        configuration["provenance"].update(json.loads(arguments.provenance))
    codec_defaults = {"sample_rate": 44100, "encoder_dim": 64, "encoder_rates": [2, 6, 8, 8], "decoder_dim": 1536,
                      "decoder_rates": [6, 4, 4, 2, 2, 2], "n_codebooks": 14, "codebook_size": 1024, "codebook_dim": 8}
    defaults = {"n_codebooks": 4, "n_conditioning_codebooks": 0, "n_layers": 20, "n_heads": 20, "embedding_dim": 1280,
                "vocab_size": 1024, "latent_dim": 8}
    for stage in ("codec", "coarse", "c2f"):
        dims = {**(codec_defaults if stage == "codec" else defaults), **DIMS[arguments.dims][stage]}
        network = initialise(Codec(**dims) if stage == "codec" else Transformer(**dims), arguments.seed)
        if stage in trained:
            state = torch.load(os.path.join(arguments.out, stage + ".pt"), map_location="cpu", **ANY)
            network.load_state_dict(state["model"])
            configuration["provenance"]["steps"][stage] = state["step"]
        configuration[stage] = dims
        write_safetensors(os.path.join(folder, stage + ".safetensors"),
                          {name: rounded(name, tensor.detach()) for name, tensor in fold(network).state_dict().items()})
    with open(os.path.join(folder, "model.json"), "w", encoding="utf-8") as file:
        json.dump(configuration, file, indent=2)
        file.write("\n")
    size = sum(os.path.getsize(os.path.join(folder, name)) for name in os.listdir(folder) if name.endswith(".safetensors"))
    log(f"{folder}: {size / 1e6:.1f} MB of weights")
