"""The masking study's curves on this model: what changes in a clip with density, interval, depth, pattern and preset.

Each held-out clip is encoded and decoded unchanged, and varied with one parameter after the other moved and all others
left at vampd's defaults, by the real `vamp` program. Compared with the unchanged one, on the same level:

    tokens   share of all tokens that are others
    log-mel  mean distance in dB
    chroma   1 - cosine between the frames' energies in the twelve pitch classes, frames weighted by energy
    onsets   1 - F measure of onset times, 50 ms apart at most
"""
import concurrent.futures
import json
import os
import shutil
import subprocess

import numpy as np
import torch

RATE = 44100
DENSITIES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95)
INTERVALS = (2, 3, 5, 7, 10, 14, 20, 30, 50, 70, 100)
DEPTHS = (0, 1, 2, 3, 4)
PRESETS = ("subtle", "balanced", "creative", "rhythm", "texture", "vampnet/timbre", "vampnet/small", "vampnet/medium",
           "vampnet/large", "vampnet/unconditional", "vampnet/improvise", "vampnet/remix", "vampnet/generate")
PATTERNS = {                                                  # about half of all tokens each
    "random tokens": {"pattern": "random", "ratio": 0.5, "per": "token"},
    "random frames": {"pattern": "random", "ratio": 0.5, "per": "frame"},
    "periodic": {"pattern": "periodic", "interval": 2},
    "blocks": {"pattern": "block", "size": 29, "ratio": 0.5, "arrangement": "random"},
    "alternating": {"pattern": "block", "size": 29, "ratio": 0.5, "arrangement": "alternating"},
    "strided": {"pattern": "strided", "stride": 58, "length": 29},
    "one half": {"pattern": "range", "start_s": 3.0, "end_s": 6.0},
}
MEASURES = ("tokens", "log-mel", "chroma", "onsets")
UNITS = {"tokens": "share that changed", "log-mel": "distance, dB", "chroma": "1 - cosine", "onsets": "1 - F measure"}


def settings():
    """-> {curve: [(value, command line options)]}"""
    return {
        "density": [(value, ["--mask-ratio", str(value)]) for value in DENSITIES],
        "interval": [(value, ["--periodic-prompt", str(value)]) for value in INTERVALS],
        "depth": [(value, ["--upper-codebook-mask", str(value)]) for value in DEPTHS],
        "pattern": [(name, ["--mask", json.dumps(mask)]) for name, mask in PATTERNS.items()],
        "preset": [(name, ["--preset", name]) for name in PRESETS],
    }


def spectra(audio, size, hop):
    return torch.stft(audio, size, hop, size, torch.hann_window(size), return_complex=True).abs()


def chroma(audio):                                            # [n] -> [12, frames]
    size = 8192
    power = spectra(audio, size, 2048).square()
    frequency = torch.arange(size // 2 + 1) * RATE / size
    heard = (frequency > 60) & (frequency < 5000)
    classes = (12 * torch.log2(frequency.clamp(min=1) / 440)).round().long() % 12
    return torch.zeros(12, power.shape[1]).index_add_(0, classes[heard], power[heard]).sqrt()


def chroma_change(got, want):
    a, b = chroma(got), chroma(want)
    weight = b.norm(dim=0)
    return float(1 - (torch.cosine_similarity(a, b, dim=0) * weight).sum() / weight.sum().clamp(min=1e-9))


def onsets(audio, hop=256):
    """-> times of onsets in seconds: peaks of the rise of the logarithmic spectrum that stand out of their surroundings."""
    level = torch.log1p(1000 * spectra(audio, 1024, hop) / 512)
    flux = (level[:, 1:] - level[:, :-1]).clamp(min=0).mean(0).numpy()
    times, reach = [], int(0.03 * RATE / hop)
    for t in range(len(flux)):
        near, around = flux[max(0, t - reach):t + reach + 1], flux[max(0, t - 5 * reach):t + 3 * reach + 1]
        if flux[t] == near.max() and flux[t] > around.mean() + 0.04:
            times.append(t * hop / RATE)
    return np.array(times)


def onset_change(got, want):
    a, b = onsets(got), onsets(want)
    if not len(a) and not len(b):
        return 0.0
    if not len(a) or not len(b):
        return 1.0
    hit = (np.abs(a[:, None] - b[None]) <= 0.05)
    precision, recall = hit.any(1).mean(), hit.any(0).mean()
    return float(1 - 2 * precision * recall / max(precision + recall, 1e-9))


def read(path, read_audio):
    return torch.from_numpy(read_audio(path).copy())


def ranks(values):
    order = np.argsort(np.argsort(values))
    return order.astype(float)


def spearman(x, y):
    return float(np.corrcoef(ranks(x), ranks(y))[0, 1])


def spread(points, most):
    """`most` of the points, the first and the last among them; all where there are no more."""
    if len(points) <= most:
        return points
    return [points[i * (len(points) - 1) // (most - 1)] for i in range(most)]


def run(program, model, clips, folder, distance, read_audio, seed=1, workers=2, most=1000):
    """clips: {name: path of a WAV file} -> {curve: [(value, {measure: [one a clip]})]}, at most so many points a curve"""
    sources, plain, codes, quiet = [], {}, {}, {"stdout": subprocess.DEVNULL, "check": True}
    common = ["-m", model, "--precision", "fp32", "--threads", "1"]
    for name, path in clips.items():
        codes_path, plain_path = os.path.join(folder, name + ".npy"), os.path.join(folder, name + ".plain.wav")
        said = subprocess.run([program, "encode", *common, "--json", path, codes_path], check=True, stdout=subprocess.PIPE)
        subprocess.run([program, "decode", *common, "--raw", codes_path, plain_path], **quiet)
        codes[name] = np.load(codes_path)
        plain[name] = read(plain_path, read_audio) / float(json.loads(said.stdout)["gain"])
        sources.append(path)

    def measure(job):
        number, options = job
        out, tokens = os.path.join(folder, f"out{number}"), os.path.join(folder, f"tokens{number}")
        os.makedirs(out)
        os.makedirs(tokens)
        subprocess.run([program, "run", *common, "--quiet", *sources, "-o", out, "--tokens", tokens, "--format", "wavfloat",
                        "--seed", str(seed), *options], **quiet)
        values = {measure: [] for measure in MEASURES}
        for name in clips:
            got, want = read(os.path.join(out, name + ".wav"), read_audio), plain[name]
            n = min(len(got), len(want))
            got, want = got[:n], want[:n]
            values["tokens"].append(float((np.load(os.path.join(tokens, name + ".npy")) != codes[name]).mean()))
            values["log-mel"].append(distance(got, want))
            values["chroma"].append(chroma_change(got, want))
            values["onsets"].append(onset_change(got, want))
        shutil.rmtree(out)
        return values

    points = [(curve, value, options) for curve, some in settings().items()
              for value, options in spread(some, most)]
    curves = {}
    with concurrent.futures.ThreadPoolExecutor(workers) as pool:
        results = pool.map(measure, [(number, options) for number, (*_, options) in enumerate(points)])
        for (curve, value, _), values in zip(points, results):
            curves.setdefault(curve, []).append((value, values))
    return curves


def table(curves):
    """-> lines of Markdown"""
    lines = []
    for curve, points in curves.items():
        lines += ["", f"| {curve} | " + " | ".join(str(value) for value, _ in points) + " |", "|---" * (len(points) + 1) + "|"]
        for measure in MEASURES:
            digits = 1 if measure == "log-mel" else 2
            lines.append(f"| {measure} | " + " | ".join(f"{np.mean(row[measure]):.{digits}f}" for _, row in points) + " |")
    density = curves["density"]
    means = [np.mean(row["log-mel"]) for _, row in density]
    each = [spearman([value for value, _ in density], [row["log-mel"][i] for _, row in density])
            for i in range(len(density[0][1]["log-mel"]))]
    overall = spearman([value for value, _ in density], means)
    lines += ["", f"Spearman's rank correlation of log-mel change with density: {overall:.3f} for the mean over clips, "
              f"{np.median(each):.3f} in the middle clip, {min(each):.3f} in the worst."]
    return lines


def plot(curves, path):
    import matplotlib
    matplotlib.use("Agg")
    import matplotlib.pyplot as pyplot
    matplotlib.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "vampd", "font.size": 8, "axes.spines.top": False,
                                "axes.spines.right": False})
    figure, axes = pyplot.subplots(len(MEASURES), len(curves), figsize=(15, 9), constrained_layout=True)
    for column, (curve, points) in enumerate(curves.items()):
        names = [value for value, _ in points]
        numbers = not isinstance(names[0], str)
        for row, measure in enumerate(MEASURES):
            axis = axes[row][column]
            values = np.array([point[measure] for _, point in points])                # [points, clips]
            if numbers:
                axis.plot(names, values, color="#b0b0b0", linewidth=0.6)
                axis.plot(names, values.mean(1), color="#1f5fa8", linewidth=2, marker="o", markersize=3)
                if curve == "interval":
                    axis.set_xscale("log")
                    axis.set_xticks([2, 5, 10, 20, 50, 100], labels=["2", "5", "10", "20", "50", "100"])
            else:
                axis.bar(range(len(names)), values.mean(1), color="#1f5fa8")
                axis.set_xticks(range(len(names)))
                axis.set_xticklabels(names if row == len(MEASURES) - 1 else [], rotation=90)
            axis.set_ylim(bottom=0)
            if column == 0:
                axis.set_ylabel(f"{measure}: {UNITS[measure]}")
            if row == 0:
                axis.set_title(curve)
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)
