"""From the records of a pickle to a state dict: names, tensors, hyperparameters.

Three things are recognised, wherever in the graph of records they lie:

    a state dict     a Mapping that has Tensors under text keys
    a module         a Record whose state has _parameters and _modules: its state dict is what PyTorch's state_dict()
                     would say, parameters under their names, submodules' under NAME.
    hyperparameters  a Mapping under the key "kwargs"; and the plain numbers that the module itself keeps

A checkpoint may hold several (a model and its average, an optimiser's state); the caller says by a name that has to
be among them which it wants, and what stands before that name is the prefix that wrappers put there.

The graph is a stranger's: it can have cycles, and paths without number through few objects. Every walk here keeps a
list of what is still to visit and a set of what has been seen.
"""
import re

from . import printable, values
from .pickles import Mapping, Record, Tensor

MAX_STEPS = 1_000_000   # modules and entries walked in one archive
MAX_NAME = 1000


class StateDict:
    """Names and tensors, with the hyperparameters found beside them."""

    def __init__(self, archive, tensors, kwargs):
        self.archive = archive
        self.tensors = tensors   # name -> values.View
        self.kwargs = kwargs     # name -> anything that a pickle can hold


def children(node):
    """What a record is made of, in order."""
    if type(node) is Mapping:
        return [part for pair in node.pairs for part in pair]
    if type(node) is Record:
        return [node.arguments, *node.states, *node.items, *(part for pair in node.pairs for part in pair)]
    if type(node) in (list, tuple):
        return node
    return ()


def everything(roots):
    """All containers that can be reached, each once, nearest first."""
    seen = set()
    queue = list(roots)
    at = 0
    while at < len(queue):
        node = queue[at]
        at += 1
        if type(node) in (Mapping, Record, list, tuple) and id(node) not in seen:
            seen.add(id(node))
            yield node
            queue.extend(children(node))


def attributes(record):
    """The attributes that a record's state would set, as a dict."""
    found = {}
    for state in record.states:
        # With __slots__ a state is (dict, slots).
        for part in (state if type(state) is tuple else (state,)):
            if type(part) is Mapping:
                found.update(part.texts())
    return found


def entries(value):
    """A dict of a Mapping's entries, or of an ordered dict that came as a Record."""
    if type(value) is Mapping:
        return value.texts()
    if type(value) is Record:
        return {key: item for key, item in value.pairs if type(key) is str}
    return {}


class Modules:
    """Modules among the records of one archive. Modules may share parts, and PyTorch names a shared part once for each
    way to it; ways can be without number, so all walks together have a budget."""

    def __init__(self, archive):
        self.archive = archive
        self.tables = {}   # id of a record -> its tables, or None where it is no module
        self.inner = set()   # ids of modules that lie within one that was walked
        self.budget = MAX_STEPS

    def of(self, record):
        """({name: Tensor}, {name: child}) of a module, None of any other object."""
        if type(record) is not Record:
            return None
        if id(record) not in self.tables:
            state = attributes(record)
            tables = None
            if "_parameters" in state and "_modules" in state:
                own = {name: value for table in ("_parameters", "_buffers")
                       for name, value in entries(state.get(table)).items() if type(value) is Tensor}
                tables = own, entries(state["_modules"])
            self.tables[id(record)] = tables
        return self.tables[id(record)]

    def tensors(self, module):
        """name -> Tensor of a module and all within it."""
        found = {}
        stack = [("", module)]
        while stack:
            prefix, node = stack.pop()
            tables = self.of(node)
            if tables is None:
                continue
            own, inside = tables
            self.inner.add(id(node))
            self.budget -= 1 + len(own) + len(inside)
            if self.budget < 0 or len(prefix) > MAX_NAME:
                self.archive.fail("its modules contain each other without end")
            for name, value in own.items():
                found[prefix + name] = value
            # Reversed: the stack hands the first child out first, and names come in the model's order.
            stack.extend((prefix + name + ".", child) for name, child in reversed(inside.items()))
        return found


def plain(value):
    """A hyperparameter as Python has it: numbers, texts, lists of them, True for a dict that is not empty; anything
    else is None."""
    if type(value) in (bool, int, float, str):
        return value
    if type(value) in (list, tuple) and len(value) <= 64:
        return [item if type(item) in (bool, int, float, str) else None for item in value]
    if type(value) is Mapping and value.pairs:
        return True
    return None


def candidates(archive, roots):
    """Yields (name -> Tensor, the module's own attributes) of each state dict and each outermost module."""
    modules = Modules(archive)
    for node in everything(roots):
        if type(node) is Mapping:
            tensors = {name: value for name, value in node.texts().items() if type(value) is Tensor}
            if tensors:
                yield tensors, {}
        elif modules.of(node) is not None and id(node) not in modules.inner:
            tensors = modules.tensors(node)
            if tensors:
                yield tensors, {name: plain(value) for name, value in attributes(node).items()}


def hyperparameters(roots):
    found = {}
    for node in everything(roots):
        for name, value in entries(node).items():
            if name == "kwargs" and type(value) is Mapping:
                for key, item in value.texts().items():
                    found.setdefault(key, plain(item))
    return found


def modern_name(name):
    """PyTorch's newer weight norm calls g and v original0 and original1."""
    return (name.replace(".parametrizations.weight.original0", ".weight_g")
                .replace(".parametrizations.weight.original1", ".weight_v"))


def state_dict(archive, anchor, what):
    """The StateDict in `archive` that has a name ending in something that the regular expression `anchor` matches; the
    largest where there are several. Names lose what stands before the anchor, and tensors without that prefix are left
    out."""
    roots = [value for _, value in archive.pickles()]
    best, best_attributes = {}, {}
    for tensors, found in candidates(archive, roots):
        tensors = {modern_name(name): tensor for name, tensor in tensors.items()}
        prefix = shortest_prefix(tensors, anchor)
        if prefix is None:
            continue
        tensors = {name[len(prefix):]: tensor for name, tensor in tensors.items() if name.startswith(prefix)}
        if len(tensors) > len(best):
            best, best_attributes = tensors, found
    if not best:
        archive.fail(f"has no {what} in it: no tensor is called " + anchor.replace("\\", ""))
    kwargs = {**best_attributes, **hyperparameters(roots)}
    views = {}
    for name, tensor in best.items():
        if not name.isprintable() or len(name) > 256:
            archive.fail(f"has a tensor with an unreadable name, '{printable(name)}'")
        views[name] = values.check(archive, name, tensor)
    return StateDict(archive, views, kwargs)


def shortest_prefix(tensors, anchor):
    """What stands before the anchor; None where no name has it."""
    pattern = re.compile(rf"(?:|.*\.)(?=(?:{anchor})\Z)", re.DOTALL)
    prefixes = [found.group() for found in map(pattern.match, tensors) if found]
    return min(prefixes, key=len, default=None)
