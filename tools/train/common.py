"""What every stage of training needs: the log, the random numbers, the audio, checkpoints, the device."""
import concurrent.futures
import datetime
import json
import math
import os
import time

import numpy as np
import torch

# since PyTorch 2.6 a file that may hold more than tensors must be asked for
ANY = {"weights_only": False} if torch.__version__ >= "2" else {}
WARM_UP = 100                                                 # steps to reach the full learning rate


def log(*words):
    print(datetime.datetime.now().strftime("%H:%M:%S"), *words, flush=True)


def generator(seed, step, stage):
    """The random numbers of one step."""
    return torch.Generator().manual_seed((seed * 1_000_003 + step) * 8 + stage)


def pick_device(name):
    return torch.device(("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name)


def half_precision(device):
    """A context in which matrix products and convolutions run in bf16 on a GPU; nothing on a CPU."""
    return torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda")


def compiled(arguments, module):
    """`module` through torch.compile where there is a GPU to gain from it and a PyTorch that has it."""
    if arguments.device.type == "cuda" and arguments.compile and hasattr(torch, "compile"):
        import torch._dynamo
        torch._dynamo.config.suppress_errors = True           # what cannot be compiled runs as it is
        return torch.compile(module)
    return module


def prefetch(function, steps, workers):
    """-> function(step) for every one of steps, in order, made ahead by `workers` threads."""
    if not workers:
        yield from map(function, steps)
        return
    with concurrent.futures.ThreadPoolExecutor(workers) as pool:
        waiting = []
        for step in steps:
            waiting.append(pool.submit(function, step))
            if len(waiting) > 2 * workers:
                yield waiting.pop(0).result()
        while waiting:
            yield waiting.pop(0).result()


def load_audio(data, name):
    """-> int16 [n] (memory-mapped), [(start, samples)] of the pieces in it."""
    audio = np.load(os.path.join(data, name + ".npy"), mmap_mode="r")
    with open(os.path.join(data, name + ".json"), encoding="utf-8") as file:
        return audio, [(piece["start"], piece["samples"]) for piece in json.load(file)]


class Schedule:
    """Checkpointing, logging and the learning rate of one stage. Its time counts steps, not the clock: a process that
    is stopped for a while loses nothing."""

    def __init__(self, arguments, stage, module, optimiser, steps, rate):
        self.path = os.path.join(arguments.out, stage + ".pt")
        self.module, self.optimiser, self.steps, self.rate = module, optimiser, steps, rate
        self.step, self.sums, self.every, self.extra = 0, {}, arguments.log_every, {}
        self.save_every = arguments.checkpoint_seconds
        self.saved = self.told = time.monotonic()
        if os.path.exists(self.path):
            state = torch.load(self.path, map_location="cpu", **ANY)
            module.load_state_dict(state["model"])            # in place, wherever the module is
            optimiser.load_state_dict(state["optimiser"])
            self.step, self.extra = state["step"], state["extra"]
            log(f"{stage}: goes on from step {self.step}")

    @staticmethod
    def exists(arguments, stage):
        return os.path.exists(os.path.join(arguments.out, stage + ".pt"))

    def save(self):
        torch.save({"model": self.module.state_dict(), "optimiser": self.optimiser.state_dict(), "step": self.step,
                    "extra": self.extra}, self.path + ".new")
        os.replace(self.path + ".new", self.path)
        self.saved = time.monotonic()

    def __iter__(self):
        while self.step < self.steps:
            progress = self.step / self.steps
            rate = self.rate * min(1, (self.step + 1) / WARM_UP) * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * progress)))
            for group in self.optimiser.param_groups:
                group["lr"] = rate * group["scale"]
            yield self.step
            self.step += 1
            if time.monotonic() - self.saved > self.save_every:
                self.save()
        self.save()

    def descend(self, loss):
        """One step of the optimiser down `loss`."""
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(self.module.parameters(), 1.0)
        if torch.isfinite(norm):                              # one bad step must not spoil the weights
            self.optimiser.step()
        self.note(norm=norm)

    def note(self, **values):
        for name, value in values.items():
            self.sums.setdefault(name, []).append(float(value))

    def tell(self):
        if (self.step + 1) % self.every == 0:
            now = time.monotonic()
            log(f"step {self.step + 1}/{self.steps}", f"{(now - self.told) / self.every:.2f} s/step",
                *(f"{name} {np.mean(values):.4g}" for name, values in self.sums.items()))
            self.sums, self.told = {}, now
