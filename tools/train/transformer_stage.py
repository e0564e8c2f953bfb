"""Training of the two masked transformers on tokens, and the tokens.

Masks follow the published schedule: a share cos(pi r / 2) of the tokens for r uniform in 0 to 1, label smoothing 0.1; for a
part of the examples they have the shapes that vampd offers. Three things about the start make the first thousand steps
worth several times as much as from random weights (200 steps on four codebooks: 8.7 bits a token instead of 9.6):
attention begins local, each head with its own reach; the classifier begins with the codebooks' own geometry, so that a
hidden state which points at a place in the codebook's space gives probability to the tokens around it; its biases begin at
the tokens' frequencies."""
import math
import os
import subprocess
import tempfile

import numpy as np
import torch
import torch.nn.functional as F

import augment
from common import ANY, Schedule, compiled, generator, half_precision, load_audio, log, prefetch
from export import export
from model import Transformer, initialise, load_folder
from wav import write_wav


@torch.no_grad()
def encode_samples(codec, samples, device, window=1024, context=16):
    """float32 [n] -> int16 tokens [C, frames]. Windows with more context than the encoder sees on each side: the same
    tokens as from the whole, out of memory that fits the cache."""
    out, frames = [], -(-len(samples) // codec.hop)
    for at in range(0, frames, window):
        a, b = max(0, at - context), min(frames, at + window + context)
        piece = torch.from_numpy(samples[a * codec.hop:b * codec.hop]).to(device)
        codes = codec.encode(piece[None, None])[1][0]
        out.append(codes[:, at - a:at - a + min(window, frames - at)].to(torch.int16).cpu())
    return torch.cat(out, 1)


def encode_with(program, model, versions, hop, gap=32, most=9 * 60 * 44100):
    """The same through `program`, which is vamp: several times as fast on a CPU as PyTorch, and the same tokens.
    Many pieces go into one file, with silence between that the encoder does not see across."""
    def flush(batch):
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "a.wav")
            write_wav(path, np.concatenate(batch))
            subprocess.run([program, "encode", "-m", model, "--raw", "--precision", "fp32", "--threads",
                            str(torch.get_num_threads()), path, path + ".npy"], check=True)
            codes, at = torch.from_numpy(np.load(path + ".npy")).to(torch.int16), 0
        for samples in batch:
            frames = len(samples) // hop - gap
            yield codes[:, at:at + frames]
            at += frames + gap

    batch = []
    for samples in versions:
        samples = np.pad(samples, (0, -len(samples) % hop + gap * hop))
        if batch and sum(map(len, batch)) + len(samples) > most:
            yield from flush(batch)
            batch = []
        batch.append(samples)
    if batch:
        yield from flush(batch)


def encode_pieces(codec, audio, pieces, device="cpu", workers=0, program=None, model=None):
    """pieces: [(start, samples)] or [(start, samples, speed)] -> tokens [C, all frames], [(start, frames)]."""
    out, index, total = [], [], 0
    versions = [piece if len(piece) == 3 else (*piece, 1.0) for piece in pieces]
    sounds = prefetch(lambda piece: augment.version(audio, *piece), versions, workers)
    if program:
        coded = encode_with(program, model, sounds, codec.hop)
    else:
        coded = (encode_samples(codec, samples, device) for samples in sounds)
    for codes in coded:
        out.append(codes)
        index.append((total, out[-1].shape[1]))
        total += out[-1].shape[1]
    return torch.cat(out, 1), index


def make_tokens(arguments):
    """Tokens as the exported codec gives them, rounding included."""
    path = os.path.join(arguments.out, "tokens.pt")
    if os.path.exists(path) and not arguments.again:
        log("tokens are there; --again makes them anew")
        return
    export(arguments, os.path.join(arguments.out, "codec_only"), ("codec",))
    codec = load_folder(os.path.join(arguments.out, "codec_only"))[0].to(arguments.device)
    result = {}
    for name in ("train", "heldout"):
        audio, pieces = load_audio(arguments.data, name)
        if name == "train":
            pieces = augment.versions(pieces, arguments.token_hours, generator(arguments.seed, 0, 3))
        tokens, index = encode_pieces(codec, audio, pieces, arguments.device, arguments.workers, arguments.encoder,
                                      os.path.join(arguments.out, "codec_only"))
        result[name] = {"tokens": tokens, "pieces": index}
        use = [len(torch.unique(row)) for row in tokens]
        log(f"{name}: {tokens.shape[1]} frames, {tokens.shape[1] * codec.hop / 44100 / 3600:.2f} h; codebook entries in use {use}")
    torch.save(result, path)


def structured_mask(codebooks, frames, draw):
    """A mask of the kind that people ask for (MASKS.md): a random share of tokens, a share of them in blocks or strides,
    or all, but for periodic prompts; on the lower codebooks only or on all. [C, T] bool."""
    def uniform(low, high):
        return float(torch.rand((), generator=draw)) * (high - low) + low

    kind = int(torch.randint(4, (1,), generator=draw))
    t = torch.arange(frames)
    if kind == 0:                                             # blocks
        size = int(uniform(4, 64))
        mask = (torch.rand(frames // size + 1, generator=draw) < uniform(0.2, 0.9)).repeat_interleave(size)[:frames]
    elif kind == 1:                                           # strides
        stride = int(uniform(4, 80))
        mask = (t + int(uniform(0, stride))) % stride < max(1, int(stride * uniform(0.2, 0.9)))
    else:
        mask = torch.ones(frames, dtype=torch.bool)
    mask = mask.expand(codebooks, frames).clone()
    if kind >= 2:                                             # periodic prompts, full or with a random share
        interval = int(math.exp(uniform(math.log(2), math.log(100))))
        mask &= (t + int(uniform(0, interval))) % interval >= 1
        if kind == 3:
            mask &= torch.rand(codebooks, frames, generator=draw) < uniform(0.3, 1)
    if uniform(0, 1) < 0.5:                                   # depth: above it everything is kept, or everything masked
        depth = int(uniform(0, codebooks + 1))
        mask[depth:] = uniform(0, 1) < 0.5
    return mask


def training_mask(batch, codebooks, frames, structured, draw):
    """[B, C, T] bool: cos(pi r / 2) of the tokens at r ~ U(0, 1), or for a share of examples a structured mask."""
    masks = []
    for _ in range(batch):
        share = math.cos(math.pi / 2 * float(torch.rand((), generator=draw)))
        mask = torch.rand(codebooks, frames, generator=draw) < share
        if float(torch.rand((), generator=draw)) < structured:
            shaped = structured_mask(codebooks, frames, draw)
            # In the course of generation part of a structured mask is filled in already.
            mask = shaped & mask if float(torch.rand((), generator=draw)) < 0.5 else shaped
        if not mask.any():
            mask[:, frames // 2] = True
        masks.append(mask)
    return torch.stack(masks)


def token_crops(data, batch, frames, codebooks, draw):
    pieces = [piece for piece in data["pieces"] if piece[1] >= frames]
    if not pieces:
        raise SystemExit(f"no piece of the training audio has {frames} frames")
    weights = torch.tensor([float(piece[1]) for piece in pieces])
    out = []
    for i in torch.multinomial(weights, batch, True, generator=draw).tolist():
        start, length = pieces[i]
        offset = start + int(torch.randint(length - frames + 1, (1,), generator=draw))
        out.append(data["tokens"][:codebooks, offset:offset + frames])
    return torch.stack(out).long()


@torch.no_grad()
def start(transformer, tables, tokens, seed):
    """The start described above. tables [C, V, 8] codebooks, tokens [C, N] of the training music."""
    draw = torch.Generator().manual_seed(seed)
    first, codebooks, size = transformer.n_conditioning_codebooks, transformer.n_codebooks, transformer.vocab_size
    transformer.embedding.special["MASK"].copy_(tables.mean(1))
    transformer.embedding.out_proj.weight /= tables.std()
    layer = transformer.classifier.layers[0]
    dim = layer.in_channels
    weight = torch.randn(size, codebooks - first, dim, generator=draw) * 0.08 / math.sqrt(dim)
    counts = torch.stack([torch.bincount(row.long(), minlength=size) for row in tokens[first:codebooks]]).float() + 0.5
    for p in range(codebooks - first):
        places = (tables[first + p] - tables[first + p].mean(0)) / tables[first + p].std()
        directions = torch.linalg.qr(torch.randn(dim, places.shape[1], generator=draw))[0]
        weight[:, p] += places @ directions.t() * 0.5 / math.sqrt(places.shape[1])
    layer.weight_v.copy_(weight.view(-1, dim, 1))
    layer.weight_g.copy_(weight.view(-1, dim).norm(dim=1).view(-1, 1, 1))
    layer.bias.copy_((counts / counts.sum(1, keepdim=True)).log().t().reshape(-1))
    bias = transformer.transformer.layers[0].self_attn.relative_attention_bias.weight              # [32, H]
    bucket = torch.arange(32)
    near = bucket % 16
    distance = torch.where(near < 8, near.float(), 8 * 16 ** ((near - 8).float() / 8))
    later = bucket >= 16
    for head in range(bias.shape[1]):
        reach = (3.0, 1.0, 1.0, 0.4, 1.8, 0.15)[head % 6]     # how fast attention falls with distance
        bias[:, head] = -reach * torch.log2(1 + distance)
        if head % 6 == 1:                                     # one head looks back, one ahead
            bias[:, head] -= torch.where(later | (bucket == 0), 2.0, 0.0)
        elif head % 6 == 2:
            bias[:, head] -= torch.where(later, 0.0, 2.0)


def losses(transformer, stack, tokens, mask, tables):
    """tokens, mask [B, C, T] -> loss with label smoothing, and plain, in nats a masked token. Each codebook's classifier
    runs on its masked frames alone."""
    first = transformer.n_conditioning_codebooks
    hidden = stack(transformer.embedding(tokens.masked_fill(mask, transformer.mask_token), tables), transformer.dropout)
    layer = transformer.classifier.layers[0]
    flat = layer.weight_v.flatten(1)
    weight = (flat * (layer.weight_g.flatten(1) / flat.norm(dim=1, keepdim=True))).unflatten(0, (transformer.vocab_size, -1))
    bias = layer.bias.unflatten(0, (transformer.vocab_size, -1))
    total = plain = 0.0
    for p in range(transformer.n_codebooks - first):
        here = mask[:, first + p]
        log_p = F.linear(hidden[here], weight[:, p], bias[:, p]).float().log_softmax(-1)
        right = -log_p.gather(-1, tokens[:, first + p][here][:, None]).sum()
        total, plain = total + 0.9 * right - 0.1 * log_p.mean(-1).sum(), plain + right
    count = mask.sum()
    return total / count, plain / count


def train(arguments, stage, dims, steps, frames, batch):
    device = arguments.device
    data = torch.load(os.path.join(arguments.out, "tokens.pt"), **ANY)
    codec = load_folder(os.path.join(arguments.out, "codec_only"))[0]
    transformer = initialise(Transformer(**dims, dropout=arguments.dropout), arguments.seed)
    first, codebooks = transformer.n_conditioning_codebooks, transformer.n_codebooks
    tables = codec.quantizer.codebooks().detach()[:codebooks]
    if not Schedule.exists(arguments, stage):
        start(transformer, tables, data["train"]["tokens"], arguments.seed)
    transformer.to(device)
    tables = tables.to(device)
    table = transformer.transformer.layers[0].self_attn.relative_attention_bias.weight
    others = [parameter for parameter in transformer.parameters() if parameter is not table]
    optimiser = torch.optim.AdamW([{"params": others, "scale": 1.0}, {"params": [table], "scale": 5.0, "weight_decay": 0.0}],
                                  lr=arguments.transformer_rate, betas=(0.9, 0.98), weight_decay=0.01)
    schedule = Schedule(arguments, stage, transformer, optimiser, steps, arguments.transformer_rate)
    stack = compiled(arguments, transformer.transformer)
    transformer.train()

    def example(name, size, draw, structured):
        tokens = token_crops(data[name], size, frames, codebooks, draw)
        mask = training_mask(size, codebooks - first, frames, structured, draw)
        return tokens, F.pad(mask, (0, 0, first, 0))          # conditioning codebooks are never masked

    def make(step):
        return example("train", batch, generator(arguments.seed, step, 1 if stage == "coarse" else 2), arguments.structured)

    def look(step):
        transformer.eval()
        draw, bits = generator(0, 0, 6), []
        with torch.no_grad():
            for _ in range(arguments.probe_batches):
                tokens = token_crops(data["heldout"], 2, min(frames, 288), codebooks, draw)
                mask = torch.rand(tokens.shape, generator=draw) < 0.5
                mask[:, :first] = False
                bits.append(float(losses(transformer, transformer.transformer, tokens.to(device), mask.to(device), tables)[1]))
        log(f"held out, step {step}: bits at half masked {np.mean(bits) / math.log(2):.3f}")
        transformer.train()

    batches = prefetch(make, range(schedule.step, steps), arguments.workers)
    for step, (tokens, mask) in zip(schedule, batches):
        with half_precision(device):
            loss, plain = losses(transformer, stack, tokens.to(device), mask.to(device), tables)
        schedule.descend(loss)
        schedule.note(loss=loss, bits=plain / math.log(2))
        schedule.tell()
        if (step + 1) % arguments.probe_every == 0:
            look(step + 1)
    look(steps)
