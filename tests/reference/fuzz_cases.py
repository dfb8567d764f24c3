"""Hypothesis strategies for files that somebody damaged or crafted: bytes, JSON, pickles and templates."""

import copy
import json
import struct
from collections.abc import Sequence
from typing import Any

from hypothesis import strategies as st

from tests.reference import torch_writer as torch

# where parsers go wrong: the borders of every integer width, and what was meant as "none"
NUMBERS: tuple[int, ...] = (
    0,
    1,
    2,
    3,
    4,
    7,
    8,
    9,
    12,
    31,
    127,
    128,
    255,
    256,
    65_535,
    65_536,
    1 << 24,
    1 << 31,
    (1 << 31) - 1,
    (1 << 32) - 1,
    1 << 40,
)
NUMBERS += (1 << 62, (1 << 63) - 1, 1 << 63, (1 << 64) - 1)
STRINGS: tuple[str, ...] = (
    "",
    " ",
    "../up.safetensors",
    "/etc/passwd",
    "..\\up.bin",
    "a\nb",
    "\x1b[2J",
    "\ud800",
    "llama",
    "yarn",
    "linear",
    "llama3",
    "∞",
    "٣",
)
STRINGS += ("<0x0A>", "▁", "x" * 3000, "model.safetensors", "__proto__", "NaN", "1e999")

numbers = st.one_of(
    st.sampled_from(NUMBERS), st.sampled_from(NUMBERS).map(int.__neg__), st.integers(-1000, 1000), st.sampled_from([10**30, 10**400])
)
floats = st.one_of(st.floats(), st.sampled_from([0.0, -0.0, 0.5, 1e-300, 1e300, 1.0000000000000002]))
scalars = st.one_of(st.none(), st.booleans(), numbers, floats, st.sampled_from(STRINGS), st.text(max_size=12))
values = st.recursive(
    scalars, lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=6), inner, max_size=3)), max_leaves=6
)


@st.composite
def damaged(draw: st.DrawFn, data: bytes, start: int = 0, stop: int | None = None) -> bytes:
    """`data` with up to four changes between `start` and `stop`: bytes and numbers overwritten, put in, taken out, repeated, cut off."""
    out = bytearray(data)
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(min(start, len(out)), min(len(out) if stop is None else stop, len(out))))
        number = st.tuples(st.sampled_from(NUMBERS), st.sampled_from("BHIQ")).map(
            lambda n: struct.pack(f"<{n[1]}", n[0] % (1 << 8 * struct.calcsize(n[1])))
        )
        payload = draw(st.one_of(st.binary(min_size=1, max_size=8), number))
        length = draw(st.integers(1, 64))
        match draw(st.sampled_from(("set", "set", "set", "insert", "delete", "repeat", "cut"))):
            case "set":
                out[at : at + len(payload)] = payload
            case "insert":
                out[at:at] = payload
            case "delete":
                del out[at : at + length]
            case "repeat":
                out[at:at] = out[at : at + length] * draw(st.integers(1, 50))
            case "cut":
                del out[at:]
    return bytes(out)


def _places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Where something stands in a JSON value, at most sixty places of each list or object."""
    inner = list(value.items()) if isinstance(value, dict) else list(enumerate(value)) if isinstance(value, list) else []
    found = [] if not path else [path]
    for key, part in inner[:60]:
        found += _places(part, (*path, key))
    return found


@st.composite
def changed(draw: st.DrawFn, sound: Any) -> bytes:
    """The JSON text of `sound` with up to three values replaced, removed, renamed or given twice; now and then damaged as text."""
    value = copy.deepcopy(sound)
    for _ in range(draw(st.integers(1, 3))):
        places = _places(value)
        if not places:
            break
        *path, key = draw(st.sampled_from(places))
        holder = value
        for step in path:
            holder = holder[step]
        match draw(st.sampled_from(("replace", "replace", "replace", "remove", "rename", "deepen"))):
            case "replace":
                holder[key] = draw(values)
            case "remove":
                del holder[key]
            case "rename" if isinstance(holder, dict):
                holder[draw(st.one_of(st.sampled_from(STRINGS), st.text(max_size=8)))] = holder.pop(key)
            case _:
                for _ in range(draw(st.integers(1, 60))):
                    holder[key] = [holder[key]]
    text = json.dumps(value).encode()
    return draw(st.one_of(st.just(text), st.just(text), damaged(text), twice(text)))


@st.composite
def twice(draw: st.DrawFn, text: bytes) -> bytes:
    """JSON with its members listed a second time, or nested deeper than any parser's stack."""
    if draw(st.booleans()):
        return text[:-1] + b", " + text[1:]
    depth = draw(st.sampled_from([100, 5000, 200_000]))
    return b'{"a":' + b"[" * depth


def pickles(names: Sequence[str], sound: bytes) -> st.SearchStrategy[bytes]:
    """Programs of opcodes: those of a sound checkpoint, calls of whatever can be called, and any other byte."""
    callables = (
        "os.system posix.system builtins.eval builtins.exec builtins.getattr subprocess.Popen numpy.load numpy.testing.runstring "
        "numpy.distutils.exec_command.exec_command numpy.core.multiarray._reconstruct numpy.lib.npyio.load collections.OrderedDict "
        "collections.namedtuple collections.Counter torch.load torch.hub.load torch.FloatStorage torch._utils._rebuild_tensor_v2 "
        "torch._utils._rebuild_parameter torch.nn.parameter.Parameter torch.storage._load_from_bytes torch.jit.load a.b"
    ).split()
    word = st.one_of(st.sampled_from([*names, "storage", "0", "1", "99", "cpu", "echo owned", *STRINGS[:9]]), st.text(max_size=8))
    small = st.one_of(st.integers(-3, 300), st.sampled_from(NUMBERS))
    shape = st.lists(small, max_size=4).map(tuple)
    argument = st.one_of(
        word.map(lambda s: s.encode("utf-8", "replace").decode()).map(torch.text), small.map(torch.number), shape.map(torch.numbers)
    )
    tensor = st.builds(
        lambda kind, key, shape, offset, stride: torch.tensor(kind, key, shape, offset, stride, numel=9),
        st.sampled_from(sorted(torch.STORAGES)), st.sampled_from(["0", "1", "99"]), shape, small, st.one_of(st.just((1,)), shape),
    )  # fmt: skip
    called = st.builds(
        lambda name, arguments: torch.call(name, b"".join(arguments)), st.sampled_from(callables), st.lists(argument, max_size=4)
    )
    nested = st.recursive(called, lambda inner: st.builds(torch.call, st.sampled_from(callables), inner), max_leaves=4)
    opcode = st.one_of(
        st.sampled_from([bytes([n]) for n in b"}])(tueasbR0Q.NlqhcX\x80\x81\x85\x86\x87\x88\x94\x93\x95"]), st.binary(max_size=3)
    )
    memo = st.one_of(st.integers(0, 9).map(lambda n: b"q" + bytes([n])), st.integers(0, 9).map(lambda n: b"h" + bytes([n])))
    entry = st.builds(lambda name, value: torch.text(name) + value, st.sampled_from(list(names)), st.one_of(tensor, nested, argument))
    soup = st.lists(st.one_of(opcode, memo, argument, tensor, nested), max_size=30).map(b"".join)
    table = st.lists(st.one_of(entry, entry, soup), max_size=6).map(lambda items: b"}(" + b"".join(items) + b"u")
    return st.one_of(damaged(sound), st.one_of(soup, table).map(torch.pickle))


def templates(sound: str) -> st.SearchStrategy[str]:
    """A chat template with foreign statements in it, or made of nothing else."""
    values_ = """messages messages[0] messages|length bos_token ''.__class__ cycler.__init__.__globals__ range(99999999) 'a'*9**9 9**9**9
    loop x ns ns.a messages|tojson messages|map(attribute='role')|list 'a'.join(messages) namespace(a=1) raise_exception('no') lipsum()
    dict() self caller() [x,x,x] x~x x|replace('a','aaaaaaaaaa') messages|sort|reverse|list '%99999999d'%1 strftime_now('%'*99)
    undefined.a.b 1/0 m() messages[0].items()|list x|upper (x,)*99 ''|attr('__class__') joiner.__globals__ x[::-1]
    'x'|batch(9)|list""".split()
    names = st.sampled_from(["x", "y", "messages", "ns.a", "loop"])
    expression = st.sampled_from(values_)

    def wrap(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
        return st.one_of(
            st.builds("{{% for {} in {} %}}{}{{% endfor %}}".format, names, expression, inner),
            st.builds("{{% if {} %}}{}{{% else %}}{}{{% endif %}}".format, expression, inner, inner),
            st.builds("{{% macro m(x) %}}{}{{{{ m(x) }}}}{{% endmacro %}}{{{{ m({}) }}}}".format, inner, expression),
            st.builds("{{% set {} %}}{}{{% endset %}}".format, names, inner),
            st.lists(inner, max_size=3).map("".join),
        )

    leaf = st.one_of(
        expression.map("{{{{ {} }}}}".format),
        st.builds("{{% set {} = {} %}}".format, names, expression),
        st.sampled_from(
            ["{% import 'os' as x %}", "{% include '/etc/passwd' %}", "{% extends x %}", "{%", "}}", "{# ", "{% break %}", "text\n"]
        ),
        st.text(max_size=6),
    )
    made = st.recursive(leaf, wrap, max_leaves=6)
    text = damaged(sound.encode()).map(lambda data: data.decode("utf-8", "replace"))
    return st.one_of(text, made, made.map(lambda part: part + sound), made.map(lambda part: sound + part))
