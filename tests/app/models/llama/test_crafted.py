"""Files made to run code, to fill the memory or to reach elsewhere: each ends in one sentence, and nothing was run.

GGUF headers have their cases in test_gguf.py, chat templates in tests/townhall/formats/test_sandbox.py.
"""

import json
import os
import pickle
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from app.models.llama.checkpoint import CheckpointError, open_checkpoint
from app.models.llama.checkpoint.safetensors import read_safetensors
from app.models.llama.checkpoint.torch_file import read_torch
from app.models.llama.checkpoint.unpickler import ALLOWED, MAX_PICKLE, unpickle
from ext.tinygrad.errors import TownhallError
from tests.reference.tiny_formats import tiny_weights, write_hf, write_meta, write_split
from tests.reference.torch_writer import call, dictionary, number, numbers, storage, tensor, text, write_archive
from tests.reference.torch_writer import pickle as program

pytestmark = pytest.mark.slow

SOUND = tensor("F32", "0", (2, 3))
DATA = {"data/0": np.arange(6, dtype=np.float32).tobytes()}


def archive(folder: Path, pickled: bytes, members: dict[str, bytes] | None = None) -> Path:
    return write_archive(folder / "model.pth", {"data.pkl": pickled, **(DATA if members is None else members)})


def refuse(path: Path, fault: str, read: Callable[[Path], Any] = read_torch) -> None:
    with pytest.raises(CheckpointError, match=fault) as caught:
        read(path)
    message = str(caught.value)
    assert message.startswith(str(path)) and message.isprintable() and "; " in message  # names the file, the fault and the mend


# --- pickles -------------------------------------------------------------------------------------------------------


class Runs:
    """What pickle would do with it: run a shell command."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> Any:
        return os.system, (self.command,)


@pytest.mark.parametrize("protocol", range(2, 6))
@pytest.mark.parametrize("place", ["alone", "as a tensor", "as a key's tuple", "in a list"])
def test_a_pickle_that_would_run_a_command_is_refused_by_its_name(protocol: int, place: str, tmp_path: Path) -> None:
    marker = tmp_path / "owned"
    value: Any = Runs(f"touch {marker}")
    value = {"alone": value, "as a tensor": {"w": value}, "as a key's tuple": {("a", value): 1}, "in a list": {"w": [[value]]}}[place]
    refuse(archive(tmp_path, pickle.dumps(value, protocol)), r"asks to call 'posix\.system' .* nothing was called")
    assert not marker.exists()


GADGETS = """
os.system posix.system nt.system subprocess.Popen builtins.eval builtins.exec builtins.getattr builtins.__import__
__builtin__.eval numpy.testing._private.utils.runstring numpy.testing.runstring numpy.distutils.exec_command.exec_command
numpy.f2py.capi_maps.load_f2cmap_file numpy.load numpy.core.multiarray._reconstruct numpy._core.multiarray.scalar numpy.ndarray
collections.namedtuple collections.Counter collections.defaultdict functools.partial operator.attrgetter torch.load torch.hub.load
torch.storage._load_from_bytes torch.ops.load_library torch.utils.cpp_extension.load torch._utils._rebuild_sparse_tensor
torch._utils._rebuild_tensor_v2.__globals__ torch.nn.Module torch.Size codecs.encode pip.main runpy.run_path pydoc.locate
webbrowser.open
""".split()


@pytest.mark.parametrize("name", GADGETS)
def test_no_callable_beyond_the_list_can_even_be_named(name: str, tmp_path: Path) -> None:
    assert name not in ALLOWED
    module, _, attribute = name.rpartition(".")
    for named in (call(name, text("touch x")), text(module) + text(attribute) + b"\x93" + b"(tR", f"c{module}\n{attribute}\n".encode()):
        refuse(archive(tmp_path, program(dictionary({"w": SOUND, "x": named}))), "asks to call ")


REDUCE_OF_A_REDUCE = call("collections.OrderedDict", b"") + b"(" + text("x") + b"tR"
NESTED = {
    "the result of a call is called": (REDUCE_OF_A_REDUCE, "asks to call what is no callable"),
    "a tensor is called": (SOUND + b")R", "asks to call what is no callable"),
    "a name is called with a list": (b"ccollections\nOrderedDict\n]R", "asks to call what is no callable"),
    "a dictionary of pairs that are none": (call("collections.OrderedDict", b"](" + text("abc") + b"e"), "damaged pickle"),
    "a tensor of a callable": (call("torch._utils._rebuild_tensor_v2", b"ctorch\nFloatStorage\n" + number(0) + b"))"), "with arguments"),
    "a parameter of text": (call("torch.nn.parameter.Parameter", text("x")), "with arguments that are no tensor's"),
    "a storage called as a function": (call("torch.FloatStorage", number(1 << 40)), "calls torch.FloatStorage with arguments"),
    "the state of a name": (b"ccollections\nOrderedDict\n}b", "sets the state of an object"),
    "the state of a list": (b"]}b", "sets the state of an object"),
    "an object of a class": (b"\x80\x02ccollections\nOrderedDict\n)\x81", "opcode 0x81"),
    "Python 1's instances": (b"(icollections\nOrderedDict\n", "opcode 0x69"),
    "an extension's code": (b"\x82\x01", "opcode 0x82"),
    "a number as text": (b"I99\n", "opcode 0x49"),
    "a string that Python evaluates": (b"S'x'\n", "opcode 0x53"),
    "bytes": (b"B\xff\xff\xff\xff", "opcode 0x42"),
    "another persistent id": (text("storage") + b"Q", "no tensor's storage"),
    "a class given as text": (b"(" + b"".join(map(text, ("storage", "FloatStorage", "0", "cpu"))) + number(1) + b"tQ", "no tensor's"),
    "a key that is a tuple": (b"}((" + number(1) + number(2) + b"t" + SOUND + b"u", "dictionary key that is no text"),
}  # fmt: skip


@pytest.mark.parametrize("case", NESTED)
def test_what_a_checkpoint_never_does_is_named(case: str, tmp_path: Path) -> None:
    crafted, fault = NESTED[case]
    refuse(archive(tmp_path, program(dictionary({"w": SOUND, "x": crafted}))), fault)


TENSORS = {
    "a stride that goes back": (tensor("F32", "0", (2, 3), stride=(-3, 1)), "with strides"),
    "a stride that stands still": (tensor("F32", "0", (2, 3), stride=(0, 0)), "with strides"),
    "strides of fewer dimensions": (tensor("F32", "0", (2, 3), stride=(1,)), "with strides"),
    "a negative size": (tensor("F32", "0", (-2, 3), stride=(3, 1), numel=6), "the shape"),
    "a size of 2^62": (tensor("F32", "0", (1 << 62,), stride=(1,)), "the shape"),
    "sizes whose product wraps around": (tensor("F32", "0", (1 << 32, 1 << 32), stride=(1 << 32, 1)), "needs 73,786,976,294,8"),
    "a negative offset": (tensor("F32", "0", (2, 3), offset=-1, stride=(3, 1)), "of a storage of 24:"),
    "an offset of 2^63": (tensor("F32", "0", (2, 3), offset=1 << 63, stride=(3, 1)), "of a storage of 24:"),
    "more than its storage": (tensor("F32", "0", (3, 3)), "needs 36 bytes for w, of a storage of 24:"),
    "a storage that is not there": (tensor("F32", "../0", (2, 3)), "which it lacks"),
    "nine dimensions": (tensor("F32", "0", (1,) * 9), "the shape"),
    "a size that is text": (
        call("torch._utils._rebuild_tensor_v2", storage("F32", "0", 6) + number(0) + b"(" + text("x") + b"t" + numbers((1,)) + b"\x89}"),
        "the shape",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", TENSORS)
def test_a_tensor_beyond_its_bytes_is_named(case: str, tmp_path: Path) -> None:
    made, fault = TENSORS[case]
    refuse(archive(tmp_path, program(dictionary({"w": made}))), fault)


def test_pickles_that_grow_stay_small(tmp_path: Path) -> None:
    """Tuples that hold each other twice, forty deep: a trillion leaves for whoever walks, compares or prints them."""
    bomb = text("x") + b"q\x00" + b"".join(b"h" + bytes([n]) + b"h" + bytes([n]) + b"\x86q" + bytes([n + 1]) for n in range(40))
    refuse(archive(tmp_path, program(bomb)), "holds 'tuple' where a checkpoint has tensors by name")
    refuse(archive(tmp_path, program(b"}(" + bomb + SOUND + b"u")), "damaged pickle|no text")
    refuse(archive(tmp_path, program(bomb + b"Q")), "no tensor's storage")
    refuse(archive(tmp_path, b"\x80\x02" + b"]" * (MAX_PICKLE + 1)), "a pickle of")
    with pytest.raises(CheckpointError, match="damaged pickle"):
        unpickle(b"\x80\x02" + b"(" * 1_000_000, "x")  # a million marks and no end
    deep = b"\x80\x02" + b")" + b"\x85" * 1_000_000 + b"."
    assert isinstance(unpickle(deep, "x"), tuple)  # and let go of again without a recursion


def test_an_older_or_foreign_format_is_named(tmp_path: Path) -> None:
    path = tmp_path / "model.pth"
    path.write_bytes(pickle.dumps({"w": Runs("touch owned")}))
    refuse(path, "format of PyTorch before 1.6")
    write_archive(path, {"data.pkl": program(dictionary({"w": SOUND})), "byteorder": b"big", **DATA})
    refuse(path, "big-endian")
    write_archive(path, {"code/__torch__.py": b"import os", "constants.pkl": b"."})
    refuse(path, "holds 0 files called data.pkl")
    write_archive(path, {"data.pkl": program(dictionary({"w": SOUND})), "x/data.pkl": b".", **DATA})
    refuse(path, "holds 2 files called data.pkl")


# --- archives ------------------------------------------------------------------------------------------------------


def test_a_compressed_archive_is_not_unpacked(tmp_path: Path) -> None:
    members = {"data.pkl": program(dictionary({"w": SOUND})), "data/0": bytes(50_000_000)}
    refuse(write_archive(tmp_path / "bomb.pth", members, method=zipfile.ZIP_DEFLATED), "compressed or encrypted")
    assert (tmp_path / "bomb.pth").stat().st_size < 100_000


def patched(path: Path, find: bytes, at: int, value: bytes) -> Path:
    data = bytearray(path.read_bytes())
    start = data.rindex(find) + at
    data[start : start + len(value)] = value
    path.write_bytes(data)
    return path


END, ENTRY = b"PK\5\6", b"PK\1\2"
DIRECTORIES = {
    "more members than bytes": (END, 8, struct.pack("<HH", 60_000, 60_000), "damaged zip directory"),
    "a directory beyond the end": (END, 16, struct.pack("<I", 1 << 31), "which no sound file has"),
    "a directory of 2 GB": (END, 12, struct.pack("<I", 1 << 31), "which no sound file has"),
    "a member beyond the end": (ENTRY, 42, struct.pack("<I", 1 << 30), "places .* beyond its end"),
    "a member larger than the file": (ENTRY, 20, struct.pack("<II", 1 << 30, 1 << 30), "places .* beyond its end"),
    "a name longer than the directory": (ENTRY, 28, struct.pack("<H", 65_535), "damaged zip directory"),
    "an encrypted member": (ENTRY, 8, struct.pack("<H", 1), "compressed or encrypted"),
    "no directory": (END, 0, b"XXXX", "without a zip directory"),
}


@pytest.mark.parametrize("case", DIRECTORIES)
def test_a_crafted_zip_directory_is_named(case: str, tmp_path: Path) -> None:
    find, at, value, fault = DIRECTORIES[case]
    refuse(patched(archive(tmp_path, program(dictionary({"w": SOUND}))), find, at, value), fault)


# --- safetensors ---------------------------------------------------------------------------------------------------


def safetensors(folder: Path, header: Any, body: bytes = bytes(24), length: int | None = None) -> Path:
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    path = folder / "model.safetensors"
    path.write_bytes(struct.pack("<Q", len(raw) if length is None else length) + raw + body)
    return path


def entry(start: Any = 0, end: Any = 24, shape: Any = (2, 3), dtype: Any = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}


HEADERS: dict[str, tuple[Any, str]] = {
    "offsets beyond the end": ({"w": entry(8, 32)}, "truncated or damaged"),
    "offsets that go back": ({"w": entry(24, 0)}, "places w at bytes"),
    "a negative offset": ({"w": entry(-24, 0)}, "places w at bytes"),
    "an offset of 2^64": ({"w": entry(2**64, 2**64 + 24)}, "truncated or damaged"),
    "offsets that are true": ({"w": entry(False, True, (1,), "U8")}, "places w at"),
    "offsets that are fractions": ({"w": entry(0.0, 24.0)}, "places w at"),
    "fewer bytes than the shape": ({"w": entry(0, 20)}, "needs 24"),
    "sizes whose product wraps around": ({"w": entry(0, 0, (2**32, 2**32))}, "needs 73,786,976,294,838,206,464"),
    "a negative size": ({"w": entry(0, 24, (-2, -3))}, "the shape"),
    "a size of 2^80": ({"w": entry(0, 24, (2**80,))}, "the shape"),
    "nine dimensions": ({"w": entry(0, 4, (1,) * 9)}, "the shape"),
    "overlapping tensors": ({"v": entry(0, 24), "w": entry(8, 16, (2,))}, "lets v and w overlap"),
    "the same tensor twice": (b'{"w": %b, "w": %b}' % ((json.dumps(entry()).encode(),) * 2), "lists w twice"),
    "a type that is none": ({"w": entry(dtype="F33")}, "no type that Townhall knows"),
    "a type that is a list": ({"w": entry(dtype=["F32"])}, "no type that Townhall knows"),
    "a name that steers the terminal": ({"\x1b[2J": entry()}, "which is no name"),
    "a name of a megabyte": ({"w" * 1_000_000: entry()}, "which is no name"),
    "a number for an entry": ({"w": 7}, "describes w by 7"),
    "a list for a header": ([1], "holds no JSON object"),
    "braces without end": (b'{"a":' * 1_000_000, "nested too deep|not sound JSON"),
    "a number of a million digits": (b'{"w": ' + b"9" * 1_000_000 + b"}", "not sound JSON"),
    "bytes that are no text": (b'{"\xff": 1}', "not sound JSON"),
    "tensors without number": (dict.fromkeys(map(str, range(70_000)), entry(0, 0, (0,))), "more than any sound file has"),
}


@pytest.mark.parametrize("case", HEADERS)
def test_a_crafted_safetensors_header_is_named(case: str, tmp_path: Path) -> None:
    header, fault = HEADERS[case]
    refuse(safetensors(tmp_path, header), fault, read_safetensors)


@pytest.mark.parametrize("length", [2**24 + 1, 2**63, 2**64 - 1, 1 << 20])
def test_a_header_longer_than_the_file_is_named(length: int, tmp_path: Path) -> None:
    refuse(safetensors(tmp_path, {"w": entry()}, length=length), "claims a header of|ends inside its header", read_safetensors)


# --- folders -------------------------------------------------------------------------------------------------------


def test_a_tensor_in_two_parts_of_a_split_model_is_named(tmp_path: Path) -> None:
    first = write_split(tmp_path, tiny_weights(), 2, 2)
    second = first.with_name("tiny-00002-of-00002.gguf")
    data = second.read_bytes()
    second.write_bytes(data.replace(b"blk.0.attn_k.weight", b"blk.0.attn_q.weight"))
    with pytest.raises(CheckpointError, match="holds the tensor .* which tiny-00001-of-00002.gguf has too"):
        open_checkpoint(first)


@pytest.mark.parametrize("count", [2, 65_535])
def test_a_split_names_only_files_beside_it(count: int, tmp_path: Path) -> None:
    """The names of the other parts come from the name of this one, never out of the file."""
    from tests.reference.tiny import make_tiny_gguf

    path = make_tiny_gguf(tmp_path / "a.gguf", overrides={"split.count": count, "split.no": 0, "split.file": "../../etc/passwd"})
    with pytest.raises(CheckpointError, match=f"one of {count:,} parts, but is not called"):
        open_checkpoint(path)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json"])
def test_a_pipe_is_not_waited_for(name: str, tmp_path: Path) -> None:
    folder = write_hf(tmp_path / "hf", tiny_weights())
    (folder / name).unlink()
    os.mkfifo(folder / name)
    with pytest.raises(TownhallError, match="not a regular file"):
        open_checkpoint(folder).tokenizer()
    os.mkfifo(tmp_path / "pipe.gguf")
    with pytest.raises(CheckpointError, match="not a regular file"):
        open_checkpoint(tmp_path / "pipe.gguf")


def test_a_pipe_among_metas_shards_is_not_waited_for(tmp_path: Path) -> None:
    folder = write_meta(tmp_path / "meta", tiny_weights(), shards=2)
    (folder / "consolidated.01.pth").unlink()
    os.mkfifo(folder / "consolidated.01.pth")
    with pytest.raises(CheckpointError, match="not a regular file"):
        open_checkpoint(folder)
