"""A pickle machine that can only describe tensors: no callable is ever looked up, imported or called.

Opcodes after Python's pickletools. Whatever a checkpoint of plain tensors does not need (other callables, objects with state, persistent
ids that are no storages) is refused by name. tinygrad's torch_load, in contrast, runs code from crafted files.
"""

import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from app.models.llama.checkpoint.files import CheckpointError
from app.models.llama.sanitize import quoted

# torch's storage classes → element types as safetensors names them
STORAGES = {
    "FloatStorage": "F32",
    "HalfStorage": "F16",
    "BFloat16Storage": "BF16",
    "DoubleStorage": "F64",
    "LongStorage": "I64",
    "IntStorage": "I32",
    "ShortStorage": "I16",
    "CharStorage": "I8",
    "ByteStorage": "U8",
    "BoolStorage": "BOOL",
}
ORDERED_DICT = "collections.OrderedDict"
REBUILD_TENSOR = "torch._utils._rebuild_tensor_v2"
REBUILD_PARAMETER = "torch._utils._rebuild_parameter"
PARAMETER = "torch.nn.parameter.Parameter"
ALLOWED = {ORDERED_DICT, REBUILD_TENSOR, REBUILD_PARAMETER, PARAMETER} | {f"torch.{name}" for name in STORAGES}
MAX_PICKLE = 1 << 22  # a LLaMA of 65B has 150 KB


@dataclass(frozen=True)
class Callee:
    """The name of something a pickle would call."""

    name: str


@dataclass(frozen=True)
class Storage:
    type: str  # element type
    key: str  # names the archive member that holds the bytes
    numel: int


@dataclass(frozen=True)
class TorchTensor:
    storage: Storage
    offset: int  # in elements
    shape: tuple[Any, ...]
    stride: tuple[Any, ...]


class _Mark:
    pass


_MARK = _Mark()


def unpickle(data: bytes, where: str) -> Any:
    """The pickled value: str, numbers, tuples, lists, dicts with str keys, TorchTensor. CheckpointError for anything else."""
    if len(data) > MAX_PICKLE:
        size = f"{len(data):,} bytes, more than any sound checkpoint has ({MAX_PICKLE:,})"
        raise CheckpointError(f"{where} holds a pickle of {size}; download it again")
    machine = _Machine(data, where)
    try:
        return machine.run()
    except (IndexError, struct.error, KeyError, UnicodeDecodeError, AttributeError, TypeError, ValueError):
        raise machine.fail("holds a damaged pickle", "download it again") from None


class _Machine:
    """A stack, a memo and one method for each opcode; the opcodes of _SIMPLE and _METHODS are all there are."""

    def __init__(self, data: bytes, where: str) -> None:
        self.data, self.where, self.pos = data, where, 0
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}

    def fail(self, fault: str, mend: str = "use a checkpoint that holds nothing but tensors, such as a safetensors one") -> CheckpointError:
        return CheckpointError(f"{self.where} {fault}; {mend}")

    def run(self) -> Any:
        methods, simple, data = _METHODS, _SIMPLE, self.data
        while True:
            op = data[self.pos]
            self.pos += 1
            if op == 0x2E:  # STOP
                return self.stack.pop()
            if (make := simple.get(op)) is not None:
                self.stack.append(make())
            elif (method := methods.get(op)) is not None:
                method(self)
            else:
                raise self.fail(f"uses the pickle opcode {op:#04x}, which no checkpoint of tensors needs")

    def take(self, n: int) -> bytes:
        if n < 0 or n > len(self.data) - self.pos:
            raise IndexError
        self.pos += n
        return self.data[self.pos - n : self.pos]

    def number(self, code: str) -> Any:
        (value,) = struct.unpack(code, self.take(struct.calcsize(code)))
        return value

    def line(self) -> str:
        end = self.data.index(b"\n", self.pos)
        text = self.data[self.pos : end].decode()
        self.pos = end + 1
        return text

    def since_mark(self) -> list[Any]:
        at = len(self.stack) - 1
        while self.stack[at] is not _MARK:
            at -= 1
            if at < 0:
                raise IndexError
        items = self.stack[at + 1 :]
        del self.stack[at:]
        return items

    def frame(self) -> None:
        self.number("<Q")

    def proto(self) -> None:
        if (version := self.number("<B")) > 5:
            raise self.fail(f"uses pickle protocol {version}")

    def text(self, length_code: str) -> None:
        self.stack.append(self.take(self.number(length_code)).decode("utf-8", "surrogatepass"))

    def long1(self) -> None:
        self.stack.append(int.from_bytes(self.take(self.number("<B")), "little", signed=True))

    def push_number(self, code: str) -> None:
        self.stack.append(self.number(code))

    def put(self, key: int) -> None:
        self.memo[key] = self.stack[-1]

    def get(self, key: int) -> None:
        self.stack.append(self.memo[key])

    def tuple_of(self, n: int) -> None:
        items = self.stack[len(self.stack) - n :]
        if len(items) != n or any(item is _MARK for item in items):
            raise IndexError
        del self.stack[len(self.stack) - n :]
        self.stack.append(tuple(items))

    def callee(self, module: Any, name: Any) -> None:
        if not isinstance(module, str) or not isinstance(name, str):
            raise TypeError
        if (full := f"{module}.{name}") not in ALLOWED:
            raise self.fail(f"asks to call {quoted(full)} while it is read, which no checkpoint of tensors needs; nothing was called")
        self.stack.append(Callee(full))

    def global_(self) -> None:
        module = self.line()
        self.callee(module, self.line())

    def stack_global(self) -> None:
        name, module = self.stack.pop(), self.stack.pop()
        self.callee(module, name)

    def persistent(self) -> None:
        """("storage", class, key, device, numel), as torch.save writes it."""
        match self.stack.pop():
            case ("storage", Callee(name), str(key), _, int(numel)) if name.removeprefix("torch.") in STORAGES and numel >= 0:
                self.stack.append(Storage(STORAGES[name.removeprefix("torch.")], key, numel))
            case other:
                raise self.fail(f"refers to {quoted(type(other).__name__)}, which is no tensor's storage")

    def reduce(self) -> None:
        arguments, callee = self.stack.pop(), self.stack.pop()
        if not isinstance(callee, Callee) or not isinstance(arguments, tuple):
            raise self.fail("asks to call what is no callable")
        match callee.name, arguments:
            case "collections.OrderedDict", ():
                self.stack.append({})
            case "collections.OrderedDict", (list(items),):
                made: dict[str, Any] = {}
                for key, value in items:
                    self.store(made, key, value)
                self.stack.append(made)
            case "torch._utils._rebuild_tensor_v2", (Storage() as storage, int(offset), tuple(shape), tuple(stride), *_):
                self.stack.append(TorchTensor(storage, offset, shape, stride))
            case (("torch._utils._rebuild_parameter" | "torch.nn.parameter.Parameter"), (TorchTensor() as tensor, *_)):
                self.stack.append(tensor)
            case _:
                raise self.fail(f"calls {callee.name} with arguments that are no tensor's")

    def build(self) -> None:
        """State set on an object: of no use to tensors, and OrderedDicts carry only _metadata."""
        self.stack.pop()
        if not isinstance(self.stack[-1], dict | TorchTensor):
            raise self.fail("sets the state of an object that is no tensor")

    def store(self, target: Any, key: Any, value: Any) -> None:
        # str alone: hashing a nested tuple may take for ever
        if not isinstance(target, dict):
            raise TypeError
        if isinstance(key, str):
            target[key] = value
        elif type(key) is not int:  # optimizer states number their entries; nothing here reads those
            raise self.fail(f"has a dictionary key that is no text but a {quoted(type(key).__name__)}")

    def set_item(self) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self.store(self.stack[-1], key, value)

    def set_items(self) -> None:
        items = self.since_mark()
        for key, value in zip(items[::2], items[1::2], strict=True):
            self.store(self.stack[-1], key, value)

    def append(self) -> None:
        value = self.stack.pop()
        self.list_on_top().append(value)

    def appends(self) -> None:
        items = self.since_mark()
        self.list_on_top().extend(items)

    def list_on_top(self) -> list[Any]:
        if not isinstance(self.stack[-1], list):
            raise TypeError
        return self.stack[-1]


_SIMPLE: dict[int, Callable[[], Any]] = {
    ord("N"): lambda: None,
    ord("}"): dict,
    ord("]"): list,
    ord(")"): tuple,
    ord("("): lambda: _MARK,
    0x88: lambda: True,
    0x89: lambda: False,
}
_METHODS: dict[int, Callable[[_Machine], Any]] = {
    0x80: _Machine.proto,
    0x95: _Machine.frame,
    ord("X"): lambda m: m.text("<I"),
    0x8C: lambda m: m.text("<B"),
    0x8D: lambda m: m.text("<Q"),
    ord("J"): lambda m: m.push_number("<i"),
    ord("K"): lambda m: m.push_number("<B"),
    ord("M"): lambda m: m.push_number("<H"),
    ord("G"): lambda m: m.push_number(">d"),
    0x8A: _Machine.long1,
    ord("q"): lambda m: m.put(m.number("<B")),
    ord("r"): lambda m: m.put(m.number("<I")),
    0x94: lambda m: m.put(len(m.memo)),
    ord("h"): lambda m: m.get(m.number("<B")),
    ord("j"): lambda m: m.get(m.number("<I")),
    0x85: lambda m: m.tuple_of(1),
    0x86: lambda m: m.tuple_of(2),
    0x87: lambda m: m.tuple_of(3),
    ord("t"): lambda m: m.stack.append(tuple(m.since_mark())),
    ord("c"): _Machine.global_,
    0x93: _Machine.stack_global,
    ord("Q"): _Machine.persistent,
    ord("R"): _Machine.reduce,
    ord("b"): _Machine.build,
    ord("s"): _Machine.set_item,
    ord("u"): _Machine.set_items,
    ord("a"): _Machine.append,
    ord("e"): _Machine.appends,
    ord("0"): lambda m: m.stack.pop(),
}
