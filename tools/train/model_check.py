"""What model.py does as a program: comparing its stages with reference tensors, and timing them on random weights.
model.py runs `main`; the words above --help are its own."""
import argparse
import json
import math
import os
import time

import torch

import model as definitions
from model import DIMS, Codec, Transformer, fold, generate, initialise, load_codec, load_transformer


@torch.no_grad()
def check(folder):
    """Compare every stage with the tensors in `folder`; returns whether all are within their tolerances."""
    import numpy

    def tensor(name):
        return torch.from_numpy(numpy.load(os.path.join(folder, name + ".npy")).astype("float64")).float()

    good = True

    def report(what, value, unit, ok):
        nonlocal good
        good = good and ok
        print(f"{'ok  ' if ok else 'FAIL'} {what:20s} {value:.6g} {unit}")

    def relative(got, want):
        return float((got - want).norm() / want.norm())

    codec = load_codec(os.path.join(folder, "codec.pth"))
    latent, codes = codec.encode(tensor("audio")[None, None])
    want_codes = tensor("codes").long()
    difference = relative(latent[0], tensor("encoder_out"))
    report("encoder_out", difference, "relative difference", difference < 1e-4)
    same = float((codes[0] == want_codes).float().mean())
    report("codes", same, "equal", same >= 0.999)
    quantized = codec.quantizer.decode(want_codes[None])
    difference = relative(quantized[0], tensor("quantized"))
    report("quantized", difference, "relative difference", difference < 1e-4)
    decibels = -20 * math.log10(max(relative(codec.decoder(quantized)[0, 0], tensor("decoded").flatten()), 1e-12))
    report("decoded", decibels, "dB signal to difference", decibels >= 60)

    codebooks = codec.quantizer.codebooks()
    for name, steps in (("coarse", 12), ("c2f", 2)):
        model = load_transformer(os.path.join(folder, name + ".pth"))
        tokens, mask = want_codes[:model.n_codebooks], tensor(name + "_mask").bool()
        logits = model(tokens.masked_fill(mask, model.mask_token)[None], codebooks[:model.n_codebooks])[0]
        difference = float((logits - tensor(name + "_logits")).abs().max())
        report(name + "_logits", difference, "largest difference", difference < 1e-2)
        greedy = generate(model, codebooks[:model.n_codebooks], tokens, mask, steps, greedy=True)
        same = float((greedy == tensor(name + "_greedy").long()).float().mean())
        report(name + "_greedy", same, "equal", same >= 0.99)
    return good


@torch.no_grad()
def bench(dims, precision, seconds, coarse_steps, fine_steps, runs):
    """-> seconds of wall clock per stage for one clip, chunked as vampd does it; the best of `runs`."""
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    codec = fold(initialise(Codec(**DIMS[dims]["codec"]))).eval().to(dtype)
    coarse = fold(initialise(Transformer(**DIMS[dims]["coarse"]))).eval().to(dtype)
    c2f = fold(initialise(Transformer(**DIMS[dims]["c2f"]))).eval().to(dtype)
    codebooks = codec.quantizer.codebooks()
    audio = torch.randn(1, 1, int(seconds * codec.sample_rate)).mul_(0.1).to(dtype)
    rate = codec.sample_rate / codec.hop
    chunks = {coarse: math.ceil(10 * rate), c2f: math.ceil(3 * rate)}

    def regenerate(model, tokens, steps):
        tables = codebooks[:model.n_codebooks]
        pieces = tokens[:model.n_codebooks].split(chunks[model], 1)
        return torch.cat([generate(model, tables, p, torch.ones_like(p), steps) for p in pieces], 1)

    best = {}
    for _ in range(runs):
        times, start = {}, time.perf_counter()

        def lap(stage):
            nonlocal start
            times[stage], start = time.perf_counter() - start, time.perf_counter()

        codes = codec.encode(audio)[1][0]
        lap("encode")
        codes = torch.cat([regenerate(coarse, codes, coarse_steps), codes[4:]])
        lap("coarse")
        codes = regenerate(c2f, codes, fine_steps)
        lap("fine")
        codec.decode(codes[None])
        lap("decode")
        times["total"] = sum(times.values())
        if not best or times["total"] < best["total"]:
            best = times
    return {"dims": dims, "precision": precision, "seconds": seconds, "frames": codes.shape[1],
            "coarse_steps": coarse_steps, "fine_steps": fine_steps, "threads": torch.get_num_threads(),
            "torch": torch.__version__, "runs": runs, "wall_s": best}


def main():
    parser = argparse.ArgumentParser(prog="model.py", description=definitions.__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", metavar="FOLDER", help="compare with the reference tensors in FOLDER")
    parser.add_argument("--bench", action="store_true", help="time random weights")
    parser.add_argument("--dims", choices=sorted(DIMS), default="small")
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32")
    parser.add_argument("--seconds", type=float, default=10, help="length of the clip (default 10)")
    parser.add_argument("--coarse-steps", type=int, default=12)
    parser.add_argument("--fine-steps", type=int, default=2)
    parser.add_argument("--runs", type=int, default=1, help="time this many runs and report the best (default 1)")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--json", action="store_true", help="print the timings as one JSON object")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    if arguments.check:
        return 0 if check(arguments.check) else 1
    if arguments.bench:
        result = bench(arguments.dims, arguments.precision, arguments.seconds, arguments.coarse_steps,
                       arguments.fine_steps, arguments.runs)
        if arguments.json:
            print(json.dumps(result))
        else:
            for stage, value in result["wall_s"].items():
                print(f"{stage:8s} {value:8.3f} s")
        return 0
    parser.print_help()
    return 2
