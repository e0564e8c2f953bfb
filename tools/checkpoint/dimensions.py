"""What the shapes of a checkpoint's tensors say about its model, and the model.json that says it to vampd.

Nearly every hyperparameter shows in a shape: widths directly, numbers of layers by counting, a stride as half of its
convolution's kernel, heads in the table of relative positions, predicted codebooks in the classifier. So the shapes
are believed, and the hyperparameters in the checkpoint (its "kwargs") serve to find out where the two disagree:
that would be a model of another architecture under the same names, and is refused. Only the sample rate shows nowhere.
"""
import re

# A tensor that every model of the kind has, as a regular expression; gather finds models by it.
CODEC_ANCHOR = r"quantizer\.quantizers\.0\.codebook\.weight"
TRANSFORMER_ANCHOR = r"embedding\.special\.MASK"
DEFAULT_SAMPLE_RATE = 44100

# Hyperparameters of the published code that change what is computed: what they must be, where they are given.
REQUIRED = {"r_cond_dim": (0, None), "cond_dim": (0, None), "ctrl_dims": (None,), "noise_mode": ("mask", None)}


class Shapes:
    """The shapes of a state dict, looked up with errors that name the file and the tensor."""

    def __init__(self, state):
        self.state = state

    def of(self, name, rank):
        """The shape of the tensor `name`, which may be weight-normalised."""
        view = self.find(name)
        if view is None:
            self.state.archive.fail(f"tensor '{name}' is missing")
        if len(view.shape) != rank or not all(view.shape):
            self.state.archive.fail(f"tensor '{name}': shape is {list(view.shape)}; {rank} dimensions were expected")
        return view.shape

    def find(self, name):
        tensors = self.state.tensors
        return tensors.get(name) or (tensors.get(name + "_v") if name.endswith(".weight") else None)

    def count(self, pattern):
        """How many N, from 0 without a gap, have a tensor that `pattern` matches with N in its group."""
        numbers = {int(found.group(1)) for found in (re.fullmatch(pattern, name) for name in self.state.tensors)
                   if found}
        count = 0
        while count in numbers:
            count += 1
        return count

    def strides(self, pattern):
        """Those of the convolutions called 1, 2, ... in the pattern: at least one."""
        found = []
        while not found or self.find(pattern.format(len(found) + 1)):
            name = pattern.format(len(found) + 1)
            kernel = self.of(name, 3)[2]
            if kernel % 2:
                self.state.archive.fail(f"tensor '{name}': a kernel of {kernel} is not twice its stride")
            found.append(kernel // 2)
        return found


def codec(state):
    """The "codec" part of model.json."""
    shapes = Shapes(state)
    size, width = shapes.of("quantizer.quantizers.0.codebook.weight", 2)
    found = {
        "sample_rate": whole(state.kwargs.get("sample_rate")) or DEFAULT_SAMPLE_RATE,
        "encoder_dim": shapes.of("encoder.block.0.weight", 3)[0],
        "encoder_rates": shapes.strides("encoder.block.{}.block.4.weight"),
        "decoder_dim": shapes.of("decoder.model.0.weight", 3)[0],
        "decoder_rates": shapes.strides("decoder.model.{}.block.1.weight"),
        "n_codebooks": shapes.count(r"quantizer\.quantizers\.(\d{1,3})\.codebook\.weight"),
        "codebook_size": size,
        "codebook_dim": width,
    }
    compare(state, found)
    return found


def transformer(state, vocabulary):
    """The "coarse" or "c2f" part; `vocabulary` is the codec's codebook_size."""
    shapes = Shapes(state)
    codebooks, latent = shapes.of("embedding.special.MASK", 2)
    channels = shapes.of("classifier.layers.0.weight", 3)[0]
    if channels % vocabulary or channels // vocabulary > codebooks:
        state.archive.fail(f"tensor 'classifier.layers.0.weight': {channels} channels do not make tokens of "
                           f"{vocabulary} for at most {codebooks} codebooks; is the codec from the same model?")
    found = {
        "n_codebooks": codebooks,
        "n_conditioning_codebooks": codebooks - channels // vocabulary,
        "n_layers": shapes.count(r"transformer\.layers\.(\d{1,4})\.norm_1\.weight"),
        "n_heads": shapes.of("transformer.layers.0.self_attn.relative_attention_bias.weight", 2)[1],
        "embedding_dim": shapes.of("embedding.out_proj.weight", 3)[0],
        "vocab_size": vocabulary,
        "latent_dim": latent,
    }
    compare(state, found)
    for name, allowed in REQUIRED.items():
        if state.kwargs.get(name) not in allowed:
            state.archive.fail(f"its hyperparameter {name} is {str(state.kwargs[name])[:40]!r}, a kind of model that "
                               "vampd does not run")
    return found


def whole(value):
    return value if type(value) is int and value > 0 else None


def compare(state, found):
    for name, value in found.items():
        given = state.kwargs.get(name)
        if type(given) in (int, float, list) and given != value:
            state.archive.fail(f"its hyperparameter {name} is {str(given)[:60]}, but its tensors have {value}")


def check_together(codec_part, coarse, c2f, names):
    """The same consistency that vampd asks for, while there is a file's name to blame. Returns an error or None."""
    if coarse["n_conditioning_codebooks"] != 0:
        return f"{names['coarse']}: predicts only some of its codebooks; are --coarse and --c2f exchanged?"
    if c2f["n_codebooks"] != codec_part["n_codebooks"]:
        return (f"{names['c2f']}: has {c2f['n_codebooks']} codebooks, the codec {codec_part['n_codebooks']}; they are "
                "not from one model")
    if c2f["n_conditioning_codebooks"] != coarse["n_codebooks"]:
        return (f"{names['c2f']}: builds on {c2f['n_conditioning_codebooks']} codebooks, but coarse makes "
                f"{coarse['n_codebooks']}; they are not from one model")
    for part, name in ((coarse, "coarse"), (c2f, "c2f")):
        if part["latent_dim"] != codec_part["codebook_dim"]:
            return (f"{names[name]}: its codes have {part['latent_dim']} dimensions, those of the codec "
                    f"{codec_part['codebook_dim']}; they are not from one model")
    return None
