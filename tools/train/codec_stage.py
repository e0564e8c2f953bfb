"""Training of the codec: its start, its losses, and looks at held-out music.

The encoder and the quantiser are constructed (describe.py, quantise.py) and stay so unless --front-rate is given; the
decoder starts as an inverse transform with bursts of noise (transform.py) and is trained. From --adversarial steps on,
discriminators (discriminators.py) join the losses: worth it where there is a GPU.
"""

import torch

import augment
import describe
import quantise
import transform
from common import Schedule, compiled, generator, half_precision, load_audio, log, prefetch
from discriminators import Adversary
from losses import SpectralLoss
from model import Codec, initialise


def parameter_groups(codec, front):
    """Parameter groups, one a tensor, whose steps are in proportion to the parameters' size. Adam's steps are as large for
    a weight of 0.3, as in the few channels at audio rate, as for one of 0.02, as in the many at frame rate: with one
    learning rate for all, either the former hardly move or the latter diverge. The encoder's detectors have weights in
    the thousands that must cancel: they take part only on top of `front`."""
    groups = []
    for name, parameter in codec.named_parameters():
        trained = name.startswith("decoder.") or front > 0
        parameter.requires_grad_(trained and not name.endswith("codebook.weight"))        # CodebookTrainer moves those
        if not parameter.requires_grad:
            continue
        size = float(parameter.detach().square().mean().sqrt())
        scale = max(size, 0.02) if name.endswith("weight_v") else max(0.1, min(size, 1.0))
        if not name.startswith("decoder."):
            scale *= front
        groups.append({"params": [parameter], "scale": scale})
    return groups


@torch.no_grad()
def construct(codec, crops_of, batches, seed):
    """Encoder, codebooks and the decoder's start from music alone. crops_of(number, stage) -> [B, n]."""
    coefficients, rate = describe.COEFFICIENTS, codec.sample_rate
    description = describe.Description(codec.hop, rate)
    some = torch.cat([crops_of(i, 5) for i in range(max(2, batches // 5))])
    left = describe.construct(codec.encoder, some, description, rate, seed)
    log(f"the encoder's description: {100 * left:.1f} % of the variance is missing")
    levels = description(some)[:, :describe.BANDS]
    latents = torch.cat([codec.encoder(some[i:i + 8, None]) for i in range(0, len(some), 8)]).transpose(0, 1).flatten(1)
    sizes = latents[:coefficients].square().mean(1).sqrt()
    edges = describe.mel_points(30, 0.95 * rate / 2, describe.BANDS + 2).tolist()
    transform.start_as_transform(codec.decoder, codec.rates, coefficients, describe.BANDS, edges,
                                 (levels.mean((0, 2)), float(levels.std())), sizes, rate, describe.GAIN, seed=seed)
    transform.balance(codec.encoder, codec.decoder, latents, coefficients)
    del latents
    latents = torch.cat([codec.encoder(crops_of(i, 4)[:, None]) for i in range(batches)]).transpose(0, 1).flatten(1)
    left = quantise.construct(codec.quantizer, latents, generator(seed, 0, 6))
    log(f"codebooks set from {latents.shape[1]} frames; variance left of the description {100 * left[0]:.1f} %, "
        f"of the coefficients {100 * left[1]:.1f} %")


def train(arguments, dims, steps):
    device = arguments.device
    audio, pieces = load_audio(arguments.data, "train")
    codec = initialise(Codec(**dims), arguments.seed)
    samples = arguments.frames * codec.hop

    def crops_of(number, stage, batch=8, length=64 * codec.hop):
        return augment.crops(audio, pieces, batch, length, generator(arguments.seed, number, stage), vary=True)

    loss_of = SpectralLoss(codec.sample_rate).to(device)
    if not Schedule.exists(arguments, "codec"):
        construct(codec, crops_of, arguments.init_batches, arguments.seed)
    codec.to(device)
    groups = parameter_groups(codec, arguments.front_rate)
    optimiser = torch.optim.AdamW(groups, lr=arguments.codec_rate, betas=(0.8, 0.99), weight_decay=0)
    schedule = Schedule(arguments, "codec", codec, optimiser, steps, arguments.codec_rate)
    trainer = quantise.CodebookTrainer(codec, schedule.extra.get("codebooks", {}))
    adversary = None
    if arguments.adversarial < steps:
        adversary = Adversary(arguments, schedule.extra.get("adversary"))
    heldout, heldout_pieces = load_audio(arguments.data, "heldout")
    probe = augment.crops(heldout, heldout_pieces, arguments.probe_crops, 48 * codec.hop, generator(0, 0, 7)).to(device)
    encoder, decoder = compiled(arguments, codec.encoder), compiled(arguments, codec.decoder)
    codebooks = len(codec.quantizer.quantizers)

    def look(step):
        with torch.no_grad():
            rows = [codec.decoder(codec.quantizer.decode(codec.quantizer.encode(codec.encoder(some[:, None]))))[:, 0]
                    for some in probe.split(4)]
            mel, magnitude, waveform = loss_of(torch.cat(rows), probe)
            log(f"held out, step {step}: mel {mel:.4f} magnitude {magnitude:.4f} waveform {waveform:.4f}")

    if schedule.step == 0:
        look(0)
        schedule.save()
    batches = prefetch(lambda step: crops_of(step, 0, arguments.batch, samples), range(schedule.step, steps), arguments.workers)
    for step, want in zip(schedule, batches):
        draw, want = generator(arguments.seed, step, 1), want.to(device)
        commitment = torch.zeros((), device=device)
        if arguments.front_rate == 0:
            with torch.no_grad():                             # in full precision: what decides between codes
                latent = codec.quantizer.decode(codec.quantizer.encode(encoder(want[:, None])))
        else:
            keep = torch.randint(1, codebooks + 1, (len(want),), generator=draw)
            keep[torch.rand(len(want), generator=draw) >= arguments.quantiser_dropout] = codebooks
            latent, commitment = quantise.quantise(codec, encoder(want[:, None]), trainer, keep.to(device), draw)
        with half_precision(device):
            got = decoder(latent)[:, 0].float()
        mel, magnitude, waveform = loss_of(got, want)
        loss = arguments.mel_weight * mel + magnitude + 2 * waveform + 0.25 * commitment
        if adversary is not None and step >= arguments.adversarial:
            schedule.note(discriminators=adversary.learn(got.detach(), want))
            generated, matching = adversary.judge(got, want)
            loss = loss + arguments.adversarial_weight * (generated + 2 * matching)
            schedule.note(generated=generated, matching=matching)
        schedule.descend(loss)
        schedule.extra = {"codebooks": trainer.state(), "adversary": adversary.state() if adversary else None}
        schedule.note(mel=mel, magnitude=magnitude, waveform=waveform)
        schedule.tell()
        if (step + 1) % arguments.probe_every == 0:
            look(step + 1)
