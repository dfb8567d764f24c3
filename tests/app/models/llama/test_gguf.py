"""GGUF files at the door: sound ones open with their tensors exact, every other one ends in a sentence."""

import struct
from pathlib import Path

import gguf
import numpy as np
import pytest

from app.models.llama.checkpoint import CheckpointError, open_checkpoint
from app.models.llama.checkpoint.gguf import GGUFFile
from ext.tinygrad.errors import TownhallError
from tests.reference.tiny import make_tiny_gguf, random_weights

pytestmark = pytest.mark.slow

U32, STRING, ARRAY = 4, 8, 9
MAX = 2**64 - 1


def text(value: str) -> bytes:
    return struct.pack("<Q", len(value.encode())) + value.encode()


def entry(key: str, kind: int, payload: bytes) -> bytes:
    return text(key) + struct.pack("<I", kind) + payload


def tensor(name: str, dims: tuple[int, ...], kind: int = 0, offset: int = 0, n_dims: int | None = None) -> bytes:
    return text(name) + struct.pack(f"<I{len(dims)}QIQ", len(dims) if n_dims is None else n_dims, *dims, kind, offset)


def header(
    entries: list[bytes] | None = None,
    tensors: list[bytes] | None = None,
    version: int = 3,
    n_tensors: int | None = None,
    n_entries: int | None = None,
    data: bytes = b"",
) -> bytes:
    entries, tensors = entries or [], tensors or []
    counts = (len(tensors) if n_tensors is None else n_tensors, len(entries) if n_entries is None else n_entries)
    head = b"GGUF" + struct.pack("<IQQ", version, *counts) + b"".join(entries) + b"".join(tensors)
    return head + b"\0" * (-len(head) % 32) + data


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_gguf(tmp_path_factory.mktemp("gguf") / "tiny.gguf")


def write(folder: Path, data: bytes) -> Path:
    path = folder / "crafted.gguf"
    path.write_bytes(data)
    return path


def test_metadata_of_every_type_reads_as_the_gguf_package_reads_it(tmp_path: Path) -> None:
    path = tmp_path / "types.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_uint8("u8", 200)
    writer.add_int8("i8", -100)
    writer.add_uint16("u16", 60_000)
    writer.add_int16("i16", -30_000)
    writer.add_uint32("u32", 4_000_000_000)
    writer.add_int32("i32", -2_000_000_000)
    writer.add_uint64("u64", 2**63)
    writer.add_int64("i64", -(2**62))
    writer.add_float32("f32", 0.5)
    writer.add_float64("f64", 0.1)
    writer.add_bool("yes", True)
    writer.add_string("text", "Grüße, 世界")
    writer.add_array("strings", ["a", "", "ß", "🎉"])
    writer.add_array("numbers", [1, -2, 3])
    writer.add_array("flags", [True, False])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()

    metadata = GGUFFile.open(path).metadata
    reader = gguf.GGUFReader(path)
    for name, field in reader.fields.items():
        if not name.startswith("GGUF."):
            value = metadata[name]
            assert (list(value) if isinstance(field.contents(), list) else value) == field.contents(), name
    assert metadata["strings"][3] == "🎉" and len(metadata["strings"]) == 4


def test_version_2_reads_like_version_3(tiny: Path, tmp_path: Path) -> None:
    data = bytearray(tiny.read_bytes())
    data[4:8] = struct.pack("<I", 2)
    assert GGUFFile.open(write(tmp_path, bytes(data))).tensors == GGUFFile.open(tiny).tensors


def test_bytes_that_are_not_utf8_do_not_stop_a_file(tmp_path: Path) -> None:
    bad = struct.pack("<Q", 2) + b"\xff\xfe"
    array = struct.pack("<IQ", STRING, 1) + bad
    metadata = GGUFFile.open(write(tmp_path, header([entry("a", STRING, bad), entry("b", ARRAY, array)]))).metadata
    assert metadata["a"] == metadata["b"][0] == r"\xff\xfe"


def test_tensors_come_out_as_they_went_in(tiny: Path) -> None:
    file = GGUFFile.open(tiny)
    for name, values in random_weights(2, 64, 4, 2, 16, 128, 352, tied=False, seed=0).items():
        assert file.tensors[name].shape == values.shape
        np.testing.assert_array_equal(file.dequantize(name), values)


@pytest.mark.parametrize("kind", ["F16", "BF16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0"])
def test_quantised_matrices_keep_their_bytes(tmp_path: Path, kind: str) -> None:
    checkpoint = open_checkpoint(make_tiny_gguf(tmp_path / "q.gguf", type=kind, tied=True))
    weights = random_weights(2, 64, 4, 2, 16, 128, 352, tied=True, seed=0)
    expected = gguf.quants.quantize(weights["blk.1.ffn_down.weight"], gguf.GGMLQuantizationType[kind])
    matrix = checkpoint.matrix("layers.1.feed_forward.w2.weight")
    assert (matrix.type, matrix.shape) == (kind, (64, 128))
    np.testing.assert_array_equal(matrix.data, expected.view(np.uint8).reshape(64, -1))
    assert not matrix.data.flags.owndata and not matrix.data.flags.writeable  # a view of the map, not a copy
    np.testing.assert_allclose(matrix.dequantize(), weights["blk.1.ffn_down.weight"], atol=0.1)
    assert checkpoint.vector("norm.weight").dtype == np.float32


def test_names_are_metas_and_a_tied_head_is_absent(tmp_path: Path) -> None:
    checkpoint = open_checkpoint(make_tiny_gguf(tmp_path / "tied.gguf", n_layers=1, tied=True))
    assert set(checkpoint.tensor_names) == {
        "tok_embeddings.weight",
        "norm.weight",
        *(f"layers.0.{name}.weight" for name in ("attention_norm", "ffn_norm")),
        *(f"layers.0.attention.{name}.weight" for name in ("wq", "wk", "wv", "wo")),
        *(f"layers.0.feed_forward.{name}.weight" for name in ("w1", "w2", "w3")),
    }
    assert checkpoint.config.tied
    assert checkpoint.nbytes == sum(info.nbytes for info in GGUFFile.open(tmp_path / "tied.gguf").tensors.values())


def test_fingerprint_follows_the_content_not_the_name(tiny: Path, tmp_path: Path) -> None:
    copy = write(tmp_path, tiny.read_bytes())
    assert open_checkpoint(copy).fingerprint() == open_checkpoint(tiny).fingerprint()
    data = bytearray(tiny.read_bytes())
    data[-1] ^= 1
    changed = open_checkpoint(write(tmp_path, bytes(data))).fingerprint()
    assert changed != open_checkpoint(tiny).fingerprint()


def test_a_large_vocabulary_is_only_decoded_when_looked_at(tmp_path: Path) -> None:
    tokens = b"".join(text(f"token{n}") for n in range(150_000))
    array = struct.pack("<IQ", STRING, 150_000) + tokens
    path = write(tmp_path, header([entry("tokens", ARRAY, array)]))
    file = GGUFFile.open(path)
    assert file.metadata["tokens"]._strings is None  # nothing was decoded: only lengths were walked
    assert file.metadata["tokens"][149_999] == "token149999"


CRAFTED = {
    "not a GGUF": (b"PK\3\4" + b"\0" * 100, "not a GGUF"),
    "an error page": (b"<html>404 Not Found</html>", "not a GGUF"),
    "only the magic": (b"GGUF", "truncated"),
    "version 1": (header(version=1), "version 1"),
    "big-endian": (b"GGUF" + struct.pack(">I", 3) + b"\0" * 64, "big-endian"),
    "absurd tensor count": (header(n_tensors=MAX), "number of tensors"),
    "absurd entry count": (header(n_entries=2**40), "number of metadata entries"),
    "more entries than there are": (header(n_entries=5), "truncated"),
    "absurd key length": (header([struct.pack("<Q", MAX)]), "length of a metadata key"),
    "absurd string length": (header([entry("k", STRING, struct.pack("<Q", MAX))]), "length of"),
    "string beyond the end": (header([entry("k", STRING, struct.pack("<Q", 1000))]), "truncated"),
    "unknown value type": (header([entry("k", 99, b"")]), "value type 99"),
    "array in an array": (header([entry("k", ARRAY, struct.pack("<IQ", ARRAY, 1))]), "array of value type 9"),
    "absurd array of numbers": (header([entry("k", ARRAY, struct.pack("<IQ", U32, MAX))]), "truncated"),
    "absurd array of strings": (header([entry("k", ARRAY, struct.pack("<IQ", STRING, MAX))]), "strings"),
    "array of strings beyond the end": (header([entry("k", ARRAY, struct.pack("<IQ", STRING, 9) + text("a"))], data=b""), "truncated"),
    "string lengths that overflow": (header([entry("k", ARRAY, struct.pack("<IQQ", STRING, 3, MAX - 7) + b"\0" * 64)]), "truncated"),
    "a tensor name that would steer a terminal": (header(tensors=[tensor("\x1b[2J", (8,))], data=b"\0" * 64), "not printable"),
    "a key of two lines": (header([entry("a\nb", U32, b"\1\0\0\0")]), "not printable"),
    "a key twice": (header([entry("k", U32, b"\1\0\0\0")] * 2), "'k' twice"),
    "alignment 0": (header([entry("general.alignment", U32, struct.pack("<I", 0))]), "alignment 0"),
    "alignment 24": (header([entry("general.alignment", U32, struct.pack("<I", 24))]), "alignment 24"),
    "absurd alignment": (header([entry("general.alignment", U32, struct.pack("<I", 2**31))]), "alignment"),
    "alignment of text": (header([entry("general.alignment", STRING, text("32"))]), "alignment '32'"),
    "a tensor twice": (header(tensors=[tensor("t", (8,))] * 2, data=b"\0" * 64), "tensor t twice"),
    "no dimensions": (header(tensors=[tensor("t", ())]), "0 dimensions"),
    "absurd number of dimensions": (header(tensors=[tensor("t", (1,), n_dims=2**31)]), "dimensions"),
    "a dimension of 0": (header(tensors=[tensor("t", (0, 4))], data=b"\0" * 64), "empty shape"),
    "dimensions whose product wraps": (header(tensors=[tensor("t", (2**32, 2**32))], data=b"\0" * 64), "truncated"),
    "absurd offset": (header(tensors=[tensor("t", (8,), offset=2**63)], data=b"\0" * 64), "truncated"),
    "offset off its alignment": (header(tensors=[tensor("t", (8,), offset=4)], data=b"\0" * 64), "multiple of its alignment"),
    "unknown tensor type": (header(tensors=[tensor("t", (8,), kind=4711)], data=b"\0" * 64), "type 4711"),
    "columns that do not fill a block": (header(tensors=[tensor("t", (33,), kind=8)], data=b"\0" * 64), "blocks hold 32"),
    "data cut short": (header(tensors=[tensor("t", (64,))], data=b"\0" * 64), "truncated"),
}


@pytest.mark.parametrize("case", CRAFTED)
def test_a_crafted_header_ends_in_one_sentence(tmp_path: Path, case: str) -> None:
    data, fault = CRAFTED[case]
    path = write(tmp_path, data)
    with pytest.raises(CheckpointError) as raised:
        GGUFFile.open(path)
    message = str(raised.value)
    assert fault in message
    assert str(path) in message and "; " in message and "\n" not in message  # the file, the mend, one line


@pytest.mark.parametrize("keep", [0.0, 0.001, 0.05, 0.5, 0.999])
def test_a_truncated_file_is_named(tiny: Path, tmp_path: Path, keep: float) -> None:
    data = tiny.read_bytes()
    with pytest.raises(CheckpointError, match="truncated|empty"):
        open_checkpoint(write(tmp_path, data[: int(len(data) * keep)]))


def test_random_damage_is_refused_or_harmless(tiny: Path, tmp_path: Path) -> None:
    """Any bytes of the header changed: a typed error or a checkpoint, never anything else."""
    data, random = tiny.read_bytes(), np.random.default_rng(0)
    end = GGUFFile.open(tiny).header_nbytes
    outcomes = set()
    for _ in range(300):
        damaged = bytearray(data)
        for position in random.integers(4, end, size=random.integers(1, 4)):
            damaged[position] = random.choice([0, 1, 0x7F, 0xFF, int(random.integers(256))])
        path = write(tmp_path, bytes(damaged))
        try:
            open_checkpoint(path).tokenizer()
            outcomes.add("opened")
        except TownhallError as error:
            assert str(path) in str(error)
            outcomes.add("refused")
    assert outcomes == {"opened", "refused"}


def test_what_is_no_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="does not exist"):
        open_checkpoint(tmp_path / "nowhere.gguf")
    with pytest.raises(CheckpointError, match="is a folder without a checkpoint"):
        open_checkpoint(tmp_path)
    with pytest.raises(CheckpointError, match="not a regular file"):
        open_checkpoint("/dev/null")


def test_a_missing_tensor_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"lacks the tensor layers\.2\.attention\.wq\.weight and 8 more"):
        open_checkpoint(make_tiny_gguf(tmp_path / "t.gguf", overrides={"llama.block_count": 3}))


def test_a_layer_too_many_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"carries the tensor blk\.1\..*describes only 1 layers"):
        open_checkpoint(make_tiny_gguf(tmp_path / "t.gguf", overrides={"llama.block_count": 1}))


@pytest.mark.parametrize("name", ["blk.00.attn_q.weight", "blk.0.attn_q_norm.weight", "something"])
def test_a_tensor_that_the_model_has_no_place_for_is_named(tmp_path: Path, name: str) -> None:
    path = make_tiny_gguf(tmp_path / "t.gguf", weights={name: np.zeros(64, np.float32)})
    with pytest.raises(CheckpointError, match=f"carries the tensor {name}"):
        open_checkpoint(path)


def test_a_bias_on_queries_alone_lacks_the_others(tmp_path: Path) -> None:
    path = make_tiny_gguf(tmp_path / "t.gguf", weights={"blk.0.attn_q.bias": np.zeros(64, np.float32)})
    with pytest.raises(CheckpointError, match=r"lacks the tensor layers\.0\.attention\.wk\.bias"):
        open_checkpoint(path)


def test_a_tensor_of_the_wrong_shape_is_named(tmp_path: Path) -> None:
    path = make_tiny_gguf(tmp_path / "t.gguf", weights={"blk.0.attn_k.weight": np.zeros((64, 64), np.float32)})
    with pytest.raises(CheckpointError, match=r"stores blk\.0\.attn_k\.weight as \(64, 64\), where its metadata needs \(32, 64\)"):
        open_checkpoint(path)


def test_the_embedding_decides_how_large_the_vocabulary_is(tmp_path: Path) -> None:
    wrong = open_checkpoint(make_tiny_gguf(tmp_path / "w.gguf", overrides={"llama.vocab_size": 300}))
    assert wrong.config.vocab_size == 352
    padded = make_tiny_gguf(tmp_path / "p.gguf", weights={"token_embd.weight": np.zeros((384, 64), np.float32)}, tied=True)
    assert open_checkpoint(padded).config.vocab_size == 384  # more rows than tokens: harmless
    short = make_tiny_gguf(tmp_path / "s.gguf", weights={"token_embd.weight": np.zeros((300, 64), np.float32)}, tied=True)
    with pytest.raises(CheckpointError, match="352 tokens but only 300 rows"):
        open_checkpoint(short)


def test_one_part_of_a_split_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="one of 4 parts"):
        open_checkpoint(make_tiny_gguf(tmp_path / "t.gguf", overrides={"split.count": 4}))
