"""A pickle as data.

A pickle is a program for a small stack machine, and its instructions include "import this" and "call that". The
usual advice, a pickle.Unpickler whose find_class refuses most names, still leaves the machine in charge: it calls
what find_class lets through, it looks up __setstate__, append and extend on whatever lies on the stack, and it
hashes keys. Here the machine is written again, in the only form a checkpoint needs: instructions come from
pickletools.genops, which merely decodes them; a name becomes a Global, a call becomes a Record of who was to be
called with what, and that is all. There is no import, no getattr and no call of a value anywhere in this file.

What the machine makes:

    None, bool, int, float, str, bytes, list, tuple     themselves
    dict, OrderedDict                                   Mapping, a list of pairs: a stranger's keys are never hashed
    set, frozenset                                      list
    a name                                              Global
    a tensor or parameter                               Tensor, once gather or archive asks: see below
    any other call or instance                          Record

Four callables are understood, because a state dict is made of them: collections.OrderedDict and PyTorch's
_rebuild_tensor (with its variants), _rebuild_parameter and storage references. They become descriptions; sizes are
checked in values.check, where there is a name to put in the error.

Bounds. Each instruction pushes at most one object, so that the number of instructions bounds time and memory; the
pickle's size bounds its texts. References make a graph in which a bomb of nested lists stays small; whoever walks
it must remember where it has been (gather does). Nothing here recurses.
"""
import pickletools

from . import CheckpointError

MAX_BYTES = 64 << 20
MAX_INSTRUCTIONS = 1_000_000


class Mapping:
    """A dict or OrderedDict: pairs in the order they were set."""
    __slots__ = ("pairs",)

    def __init__(self):
        self.pairs = []

    def texts(self):
        """A dict of the entries whose keys are texts."""
        return {key: value for key, value in self.pairs if type(key) is str}

    def get(self, name):
        found = None
        for key, value in self.pairs:
            if type(key) is str and key == name:
                found = value
        return found


class Global:
    """module.name, not looked up."""
    __slots__ = ("module", "name")

    def __init__(self, module, name):
        self.module = module
        self.name = name


class Record:
    """A call that was not made: of what, with what, and what was to be done with the result."""
    __slots__ = ("of", "arguments", "states", "items", "pairs")

    def __init__(self, of, arguments):
        self.of = of
        self.arguments = arguments
        self.states = []   # BUILD
        self.items = []    # APPEND, ADDITEMS
        self.pairs = []    # SETITEM


class Storage:
    """A persistent id: `count` elements of `kind` (a class of PyTorch's, by name) in the archive's file `key`."""
    __slots__ = ("kind", "key", "count")

    def __init__(self, kind, key, count):
        self.kind = kind
        self.key = key
        self.count = count


class Tensor:
    """A view of a storage, in elements. Nothing in it has been checked."""
    __slots__ = ("storage", "offset", "shape", "strides", "kind")

    def __init__(self, storage, offset, shape, strides, kind=None):
        self.storage = storage
        self.offset = offset
        self.shape = shape
        self.strides = strides
        self.kind = kind   # where the storage is untyped: the element's type, by name


REBUILD_TENSOR = ("_rebuild_tensor", "_rebuild_tensor_v2", "_rebuild_tensor_v3")
REBUILD_PARAMETER = ("_rebuild_parameter", "_rebuild_parameter_with_state")


def call(function, arguments):
    """What stands for function(*arguments)."""
    if type(function) is Global and type(arguments) is tuple:
        module, name = function.module, function.name
        if module == "collections" and name == "OrderedDict":
            return ordered_dict(arguments)
        if module == "torch._utils" and name in REBUILD_TENSOR and len(arguments) >= 4:
            kind = arguments[6] if name.endswith("v3") and len(arguments) > 6 else None
            return Tensor(*arguments[:4], kind=kind.name if type(kind) is Global else None)
        if module == "torch._utils" and name in REBUILD_PARAMETER and arguments:
            return arguments[0]
        if module == "torch._tensor" and name == "_rebuild_from_type_v2" and len(arguments) >= 3:
            # (function, class, arguments, state): a subclass of Tensor; one level, since these do not nest
            inner, inner_arguments = arguments[0], arguments[2]
            if type(inner) is Global and inner.name in REBUILD_TENSOR + REBUILD_PARAMETER:
                return call(inner, inner_arguments)
    return Record(function, arguments)


def ordered_dict(arguments):
    made = Mapping()
    items = arguments[0] if arguments else []
    if type(items) in (list, tuple):   # protocol 0 and 1: OrderedDict([[key, value], ...])
        made.pairs.extend(tuple(item) for item in items if type(item) in (list, tuple) and len(item) == 2)
    return made


def storage(identity):
    """A persistent id: ("storage", class, key, device, elements)."""
    if type(identity) is tuple and len(identity) >= 5 and identity[0] == "storage":
        _, kind, key, _, count = identity[:5]
        if type(key) is int and 0 <= key < 1 << 63:   # packages number their storages
            key = str(key)
        if type(key) is str and type(count) is int:
            return Storage(kind.name if type(kind) is Global else "", key, count)
    return Record("persistent id", identity)


class Machine:
    """The stack machine. `stack` is what has been pushed since the last MARK, `marks` the stacks below it."""

    def __init__(self):
        self.stack = []
        self.marks = []
        self.memo = {}

    def pop(self):
        if not self.stack:
            raise CheckpointError("its pickle takes from an empty stack")
        return self.stack.pop()

    def top(self):
        if not self.stack:
            raise CheckpointError("its pickle takes from an empty stack")
        return self.stack[-1]

    def since_mark(self):
        if not self.marks:
            raise CheckpointError("its pickle looks for a mark that is not there")
        items, self.stack = self.stack, self.marks.pop()
        return items

    def set_pairs(self, items):
        target = self.top()
        if type(target) not in (Mapping, Record) or len(items) % 2:
            raise CheckpointError("its pickle sets an entry of something that is no dict")
        target.pairs.extend(zip(items[::2], items[1::2]))

    def add_items(self, items):
        target = self.top()
        if type(target) is list:
            target.extend(items)
        elif type(target) is Record:
            target.items.extend(items)
        else:
            raise CheckpointError("its pickle adds to something that is no list")

    def run(self, data):
        count = 0
        for opcode, argument, _ in pickletools.genops(data):
            count += 1
            if count > MAX_INSTRUCTIONS:
                raise CheckpointError(f"its pickle has more than {MAX_INSTRUCTIONS} instructions")
            if opcode.name in PUSH:
                self.stack.append(argument)
                continue
            if opcode.name == "STOP":
                return self.pop()
            step = STEPS.get(opcode.name)
            if step is None:
                raise CheckpointError(f"its pickle uses {opcode.name}, which no checkpoint needs")
            step(self, argument)
        raise CheckpointError("its pickle has no end")

    # ---- instructions that push something made of nothing

    def none(self, _):
        self.stack.append(None)

    def true(self, _):
        self.stack.append(True)

    def false(self, _):
        self.stack.append(False)

    def empty_list(self, _):
        self.stack.append([])

    def empty_tuple(self, _):
        self.stack.append(())

    def empty_dict(self, _):
        self.stack.append(Mapping())

    # ---- containers

    def append(self, _):
        item = self.pop()
        self.add_items([item])

    def append_all(self, _):
        items = self.since_mark()
        self.add_items(items)

    def set_item(self, _):
        value = self.pop()
        key = self.pop()
        self.set_pairs([key, value])

    def set_items(self, _):
        items = self.since_mark()
        self.set_pairs(items)

    def make_list(self, _):
        items = self.since_mark()
        self.stack.append(items)

    def make_tuple(self, _):
        items = self.since_mark()
        self.stack.append(tuple(items))

    def make_dict(self, _):
        items = self.since_mark()
        self.stack.append(Mapping())
        self.set_pairs(items)

    def tuple_of(self, length):
        items = [self.pop() for _ in range(length)]
        self.stack.append(tuple(reversed(items)))

    # ---- the stack and the memo

    def mark(self, _):
        self.marks.append(self.stack)
        self.stack = []

    def pop_one(self, _):
        if self.stack:
            self.stack.pop()
        else:
            self.since_mark()

    def pop_mark(self, _):
        self.since_mark()

    def duplicate(self, _):
        self.stack.append(self.top())

    def get(self, index):
        index = int(index)
        if index not in self.memo:
            raise CheckpointError("its pickle refers to something it has not made")
        self.stack.append(self.memo[index])

    def put(self, index):
        if not 0 <= index <= MAX_INSTRUCTIONS:   # also: small keys cannot be chosen to collide
            raise CheckpointError("its pickle numbers an object beyond all it can make")
        self.memo[int(index)] = self.top()

    def memoize(self, _):
        self.memo[len(self.memo)] = self.top()

    def nothing(self, _):
        pass

    # ---- names and calls, none of which happen

    def global_name(self, argument):
        module, _, name = argument.partition(" ")
        self.stack.append(Global(module, name))

    def stack_global(self, _):
        name = self.pop()
        module = self.pop()
        if type(name) is not str or type(module) is not str:
            raise CheckpointError("its pickle names something with what is no text")
        self.stack.append(Global(module, name))

    def reduce(self, _):
        arguments = self.pop()
        function = self.pop()
        self.stack.append(call(function, arguments))

    def new_object(self, _):
        arguments = self.pop()
        kind = self.pop()
        self.stack.append(call(kind, arguments))

    def new_object_keywords(self, _):
        keywords = self.pop()
        arguments = self.pop()
        kind = self.pop()
        self.stack.append(Record(kind, (arguments, keywords)))

    def instance(self, argument):
        arguments = self.since_mark()
        module, _, name = argument.partition(" ")
        self.stack.append(call(Global(module, name), tuple(arguments)))

    def object(self, _):
        items = self.since_mark()
        if not items:
            raise CheckpointError("its pickle makes an instance of nothing")
        self.stack.append(call(items[0], tuple(items[1:])))

    def build(self, _):
        state = self.pop()
        if type(self.top()) is Record:
            self.top().states.append(state)

    def persistent(self, _):
        self.stack.append(storage(self.pop()))

    def persistent_text(self, argument):
        self.stack.append(Record("persistent id", argument))


# Instructions that push their own argument.
PUSH = frozenset("""INT BININT BININT1 BININT2 LONG LONG1 LONG4 STRING BINSTRING SHORT_BINSTRING BINBYTES
    SHORT_BINBYTES BINBYTES8 BYTEARRAY8 UNICODE SHORT_BINUNICODE BINUNICODE BINUNICODE8 FLOAT BINFLOAT""".split())

# All others a checkpoint may have. Absent: the extension registry (EXT1, EXT2, EXT4) and out-of-band buffers.
STEPS = {
    "NONE": Machine.none, "NEWTRUE": Machine.true, "NEWFALSE": Machine.false,
    "EMPTY_LIST": Machine.empty_list, "EMPTY_TUPLE": Machine.empty_tuple, "EMPTY_DICT": Machine.empty_dict,
    "EMPTY_SET": Machine.empty_list, "APPEND": Machine.append, "APPENDS": Machine.append_all,
    "ADDITEMS": Machine.append_all, "SETITEM": Machine.set_item, "SETITEMS": Machine.set_items,
    "LIST": Machine.make_list, "FROZENSET": Machine.make_list, "TUPLE": Machine.make_tuple, "DICT": Machine.make_dict,
    "TUPLE1": lambda machine, _: machine.tuple_of(1), "TUPLE2": lambda machine, _: machine.tuple_of(2),
    "TUPLE3": lambda machine, _: machine.tuple_of(3),
    "MARK": Machine.mark, "POP": Machine.pop_one, "POP_MARK": Machine.pop_mark, "DUP": Machine.duplicate,
    "GET": Machine.get, "BINGET": Machine.get, "LONG_BINGET": Machine.get,
    "PUT": Machine.put, "BINPUT": Machine.put, "LONG_BINPUT": Machine.put, "MEMOIZE": Machine.memoize,
    "PROTO": Machine.nothing, "FRAME": Machine.nothing,
    "GLOBAL": Machine.global_name, "STACK_GLOBAL": Machine.stack_global,
    "REDUCE": Machine.reduce, "NEWOBJ": Machine.new_object, "NEWOBJ_EX": Machine.new_object_keywords,
    "INST": Machine.instance, "OBJ": Machine.object, "BUILD": Machine.build,
    "BINPERSID": Machine.persistent, "PERSID": Machine.persistent_text,
}


def read(data):
    """The object that a pickle (bytes) describes. CheckpointError, whatever is wrong with it."""
    if len(data) > MAX_BYTES:
        raise CheckpointError(f"its pickle has {len(data)} bytes; at most {MAX_BYTES} are read")
    try:
        return Machine().run(data)
    except (ValueError, OverflowError, UnicodeError) as error:   # from pickletools: bytes that are no pickle
        raise CheckpointError(f"its pickle is damaged: {str(error)[:120]}") from None
