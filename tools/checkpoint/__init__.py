"""Reading PyTorch checkpoints without PyTorch, and without trusting them.

    pickles      a pickle's opcodes become inert records; nothing it names is ever imported or called
    archive      the zip file around the pickle, and the bytes of its tensors
    gather       records -> a state dict (names and tensors) and hyperparameters
    values       element types, and tensors as streams of contiguous bytes
    dimensions   what the shapes say about the model; model.json
    adapters     LoRA files: which model they belong to, keeping or merging them
    safetensors  the file that is written

tools/convert is the command line. Standard library only.
"""


class CheckpointError(Exception):
    """Something is wrong with what the user gave; the message is one line and says what to do."""


def printable(text, limit=80):
    """A name from a stranger's file, fit for one line of a terminal."""
    text = "".join(c if c.isprintable() else "?" for c in str(text)[:limit + 1])
    return text if len(text) <= limit else text[:limit] + "…"
