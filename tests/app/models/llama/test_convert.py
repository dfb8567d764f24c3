"""Conversions: the same logits after the round trip, as close as the type allows, read by the gguf package and by llama.cpp alike."""

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import gguf
import numpy as np
import pytest

from app.models.llama import Llama
from app.models.llama.checkpoint import CheckpointError, open_checkpoint
from app.models.llama.checkpoint.conversion import FILE_TYPES, convert
from app.models.llama.checkpoint.names import gguf_from_canonical
from ext.tinygrad.kernels.matrix import QuantMatrix
from ext.tinygrad.kernels.quantize import quantize_q4_k
from ext.tinygrad.kernels.reference import ReferenceKernels
from tests.reference import llama_numpy
from tests.reference.tiny import make_tiny_gguf
from tests.reference.tiny_formats import tiny_weights, write_hf, write_meta
from tests.reference.words import TOKENS
from townhall.cli.main import main

pytestmark = pytest.mark.slow

IDS = [5, 90, 17, 17, 0, 63, 2, 300]
WIDE = {"dim": 256, "hidden_dim": 256, "head_dim": 64}  # rows that fill the blocks of Q4_K


def logits(path: Path) -> np.ndarray:
    return Llama.load(path, 64, device="CPU", kernels=ReferenceKernels()).logits(IDS)


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("sources")
    return {
        "hf": write_hf(folder / "hf", tiny_weights(), shards=2),
        "meta": write_meta(folder / "meta", tiny_weights(), shards=4),
        "bin": write_hf(folder / "bin", tiny_weights(), torch=True),
        "gguf": make_tiny_gguf(folder / "tiny.gguf", weights=tiny_weights()),
    }


@pytest.mark.parametrize("source", ["hf", "meta", "bin", "gguf"])
def test_a_lossless_round_trip_gives_the_same_logits(source: str, sources: dict[str, Path], tmp_path: Path) -> None:
    checkpoint = open_checkpoint(sources[source])
    path = convert(checkpoint, tmp_path / "out.gguf", "f32")
    np.testing.assert_array_equal(logits(path), logits(sources["gguf"]))
    ours, theirs = open_checkpoint(path).tokenizer(), checkpoint.tokenizer()
    text = "they said <|im_end|> the other way, 12 times ßé"
    assert ours.encode(text) == theirs.encode(text) and ours.stop_ids == theirs.stop_ids and ours.chat_template == theirs.chat_template
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("kind", FILE_TYPES)
def test_every_type_gives_the_logits_of_its_dequantised_weights(kind: str, tmp_path: Path) -> None:
    weights = tiny_weights(**WIDE)
    source = make_tiny_gguf(tmp_path / "source.gguf", weights=weights, **WIDE)
    path = convert(open_checkpoint(source), tmp_path / "out.gguf", kind)
    sizes, stored = llama_numpy.read_gguf(path)  # by the gguf package's own reader
    assert {name: values.shape for name, values in stored.items()} == {name: values.shape for name, values in weights.items()}
    kept = open_checkpoint(path)
    for name in kept.tensor_names:  # what is loaded is what the gguf package reads
        read = kept.vector(name) if name.endswith("norm.weight") else kept.matrix(name).dequantize()
        np.testing.assert_array_equal(read, stored[gguf_from_canonical(name)])
    if kind == "q4_k":  # test_int8.py has q8_0's
        np.testing.assert_allclose(logits(path), llama_numpy.logits(IDS, sizes, stored), atol=0.02)
    assert kept.stored("layers.0.attention.wq.weight").type == kind.upper()
    assert kept.stored("output.weight").type == ("Q8_0" if kind.startswith("q4") else kind.upper())
    exact = llama_numpy.logits(IDS, sizes, weights)
    drift = np.abs(llama_numpy.logits(IDS, sizes, stored) - exact).mean() / exact.std()
    assert drift < {"f32": 1e-6, "f16": 1e-3, "bf16": 0.02, "q8_0": 0.02}.get(kind, 0.25)


def test_rows_that_fill_no_block_take_the_next_type(sources: dict[str, Path], tmp_path: Path) -> None:
    kept = open_checkpoint(convert(open_checkpoint(sources["hf"]), tmp_path / "out.gguf", "q4_k"))
    assert kept.stored("layers.0.attention.wq.weight").type == "Q4_1"  # 64 columns


def test_a_type_that_is_there_is_copied_bit_by_bit(tmp_path: Path) -> None:
    source = open_checkpoint(make_tiny_gguf(tmp_path / "a.gguf", type="Q8_0"))
    copy = open_checkpoint(convert(source, tmp_path / "b.gguf", "q8_0"))
    for name in source.tensor_names:
        if source.stored(name).type == "Q8_0":
            np.testing.assert_array_equal(copy.matrix(name).data, source.matrix(name).data)


def test_padding_added_ends_and_scaled_rope_come_along(tmp_path: Path) -> None:
    scaling = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64}
    weights = tiny_weights(vocab_size=len(TOKENS) + 5)
    folder = write_hf(tmp_path / "hf", weights, rope_scaling=scaling, eos_token_id=77)
    path = convert(open_checkpoint(folder), tmp_path / "out.gguf", "f32")
    made = open_checkpoint(path)
    assert made.config.rope_scale == pytest.approx(open_checkpoint(folder).config.rope_scale)
    assert made.tokenizer().stop_ids >= {0, 2, 77}
    assert len(made.tokenizer().undecodable(made.config.vocab_size)) == 5
    np.testing.assert_allclose(logits(path), logits(folder), atol=1e-5)


def test_q4_k_is_no_worse_than_q4_1_and_never_far_off() -> None:
    def error(values: np.ndarray) -> np.ndarray:
        return np.abs(QuantMatrix("Q4_K", values.shape, quantize_q4_k(values)).dequantize() - values)

    random = np.random.default_rng(0)
    for values in (random.standard_normal((8, 512)), np.zeros((1, 256)), random.standard_cauchy((4, 256))):
        values = values.astype(np.float32)
        q4_1 = np.abs(QuantMatrix.from_float32(values, "Q4_1").dequantize() - values).mean()
        assert error(values).mean() <= 1.1 * q4_1 + 1e-9
    # all on one side: the format's grid begins at zero or below, so that fifteen steps span more than the values do
    assert error((random.random((8, 512)) + 3).astype(np.float32)).mean() <= 4 / 15 / 4


def test_what_cannot_be_written_is_named(sources: dict[str, Path], tmp_path: Path) -> None:
    checkpoint = open_checkpoint(sources["gguf"])
    with pytest.raises(CheckpointError, match="is a folder"):
        convert(checkpoint, tmp_path, "f16")
    with pytest.raises(CheckpointError, match="is the checkpoint itself"):
        convert(checkpoint, sources["gguf"], "f16")
    with pytest.raises(CheckpointError, match="cannot be written"):
        convert(checkpoint, tmp_path / "nowhere" / "out.gguf", "f16")
    folder = write_hf(tmp_path / "hf", tiny_weights())
    (folder / "added_tokens.json").write_text(json.dumps({"[PAD]": len(TOKENS)}))
    with pytest.raises(CheckpointError, match="more|tokens but only"):
        convert(open_checkpoint(folder), tmp_path / "out.gguf", "f16")
    assert not list(tmp_path.glob("*.gguf*"))


def test_nothing_but_an_older_result_is_replaced(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_hf(tmp_path / "hf", tiny_weights())
    checkpoint, before = open_checkpoint(folder), (folder / "config.json").read_bytes()
    os.mkfifo(tmp_path / "pipe")
    for target in (folder / "config.json", tmp_path / "pipe", Path(os.devnull)):
        with pytest.raises(CheckpointError, match=f"{target} is there and is no GGUF file"):
            convert(checkpoint, target, "f16")
    assert (folder / "config.json").read_bytes() == before and not Path(os.devnull).is_file()
    made = tmp_path / "made.gguf"
    made.write_bytes(b"")
    assert convert(checkpoint, made, "f16") == convert(checkpoint, made, "f32") == made
    (tmp_path / "made.gguf.part").mkdir()
    with pytest.raises(CheckpointError, match=r"made.gguf cannot be written \(Is a directory\)"):
        convert(checkpoint, made, "f16")
    with pytest.raises(CheckpointError, match=r"made.gguf/x cannot be written \(Not a directory\)"):
        convert(checkpoint, made / "x", "f16")
    assert main(["convert", str(folder), str(tmp_path / ("n" * 300))]) == 2
    assert "File name too long" in capsys.readouterr().err


def test_the_command(sources: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = tmp_path / "out.gguf"
    assert main(["convert", str(sources["meta"]), str(target), "--type", "q8_0"]) == 0
    assert capsys.readouterr().out.strip() == str(target)
    assert gguf.GGUFReader(target).get_field("general.file_type").contents() == 7  # type: ignore[union-attr]
    assert main(["convert", str(tmp_path / "nothing"), str(target)]) == 2


THEIRS = """
import sys, numpy, llama_cpp
model = llama_cpp.Llama(sys.argv[1], n_ctx=64, logits_all=True, verbose=False, n_threads=1)
ids = list(map(int, sys.argv[3:]))
model.eval(ids)
numpy.save(sys.argv[2], numpy.array(model.scores[: len(ids)]))
"""


@pytest.mark.parametrize("source, kind", [("hf", "f32"), ("meta", "q8_0")])
def test_llama_cpp_reads_what_was_written(source: str, kind: str, sources: dict[str, Path], tmp_path: Path) -> None:
    if find_spec("llama_cpp") is None:
        pytest.skip("llama-cpp-python is not installed; it comes with the extra [bench], which needs a C++ compiler")
    path = convert(open_checkpoint(sources[source]), tmp_path / "out.gguf", kind)
    # in a process of its own: another program's crash must not end the tests
    command = [sys.executable, "-c", THEIRS, str(path), str(tmp_path / "theirs.npy"), *map(str, IDS)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    np.testing.assert_allclose(np.load(tmp_path / "theirs.npy"), llama_numpy.logits(IDS, *llama_numpy.read_gguf(path)), atol=0.1)


MEMORY = """
import resource, sys
from pathlib import Path
from app.models.llama.checkpoint import open_checkpoint
from app.models.llama.checkpoint.conversion import convert
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
convert(open_checkpoint(sys.argv[1]), Path(sys.argv[2]), "q8_0")
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def test_peak_memory_does_not_grow_with_the_checkpoint(tmp_path: Path) -> None:
    """Twice the layers, as much memory; whole sizes are bench/load.py's to measure."""
    peaks = []
    for n_layers in (2, 16):
        sizes = {"n_layers": n_layers, "dim": 512, "hidden_dim": 4096, "head_dim": 128}
        weights = {name: np.zeros(values.shape, np.float16) for name, values in tiny_weights(**(sizes | {"n_layers": 1})).items()}
        weights |= {name.replace("blk.0.", f"blk.{n}."): values for name, values in weights.items() for n in range(n_layers)}
        config = {"num_hidden_layers": n_layers, "hidden_size": 512, "intermediate_size": 4096}
        folder = write_hf(tmp_path / f"{n_layers}", weights, kind="F16", head_dim=128, **config)
        command = [sys.executable, "-c", MEMORY, str(folder), str(tmp_path / "out.gguf")]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=Path(__file__).parents[4])
        assert done.returncode == 0, done.stderr[-2000:]
        peaks.append(int(done.stdout) // 1024)
    larger = (folder / "model.safetensors").stat().st_size >> 20
    assert peaks[1] < peaks[0] + larger // 2, f"{peaks} MB for files of which the larger has {larger} MB"
