"""What families of LLaMA met in practice do to a vocabulary, and the types of GGUF that have to be decoded to be used."""

import json
from pathlib import Path

import gguf
import numpy as np
import pytest

from app.models.llama import Llama
from app.models.llama.checkpoint import CheckpointError, open_checkpoint
from app.models.llama.checkpoint.inspection import inspect
from ext.tinygrad.kernels.reference import ReferenceKernels
from tests.reference import llama_numpy
from tests.reference.tiny import make_tiny_gguf
from tests.reference.tiny_formats import tiny_weights, write_hf, write_meta
from tests.reference.words import TOKENS

pytestmark = pytest.mark.slow

IDS = [5, 90, 17, 17, 0, 63, 2, 300]


def vocabulary_of(path: Path) -> dict:
    found: dict = inspect(open_checkpoint(path))["vocabulary"]
    return found


def test_alpacas_pad_token_has_a_row_of_its_own(tmp_path: Path) -> None:
    """Alpaca adds [PAD] as id 32,000, and one row to both matrices."""
    folder = write_hf(tmp_path / "alpaca", tiny_weights(vocab_size=len(TOKENS) + 1), pad_token_id=len(TOKENS))
    (folder / "added_tokens.json").write_text(json.dumps({"[PAD]": len(TOKENS)}))
    found, tokenizer = vocabulary_of(folder), open_checkpoint(folder).tokenizer()
    assert found["added_tokens"][str(len(TOKENS))] == "[PAD]" and not [d for d in found["disagreements"] if "rows" in d]
    assert found["sources"]["config.json"]["pad"] == {str(len(TOKENS)): "[PAD]"}
    assert tokenizer.decode([len(TOKENS)]) == "" and len(TOKENS) not in tokenizer.stop_ids
    assert len(tokenizer.encode("[PAD]", special=False)) > 1


def test_ziyas_padded_embedding_loads_and_the_padding_is_never_sampled(tmp_path: Path) -> None:
    """Ziya-LLaMA-13B has 39,424 rows for 39,410 tokens, so that they divide by its GPUs."""
    rows = len(TOKENS) + 14
    folder = write_hf(tmp_path / "ziya", tiny_weights(vocab_size=rows))
    assert "14 rows of the embedding have no token; they are never sampled" in vocabulary_of(folder)["disagreements"]
    checkpoint = open_checkpoint(folder)
    np.testing.assert_array_equal(checkpoint.tokenizer().undecodable(checkpoint.config.vocab_size), np.arange(len(TOKENS), rows))


def test_chinese_llamas_larger_vocabulary_on_the_old_weights_is_refused(tmp_path: Path) -> None:
    """49,953 tokens belong to matrices that were merged with the extension, not to the 32,000 rows of the original."""
    folder = write_hf(tmp_path / "chinese", tiny_weights())
    (folder / "added_tokens.json").write_text(json.dumps({f"字{n}": len(TOKENS) + n for n in range(20)}))
    with pytest.raises(CheckpointError, match="has 372 tokens but only 352 rows in its embedding; use the tokenizer that belongs"):
        Llama.load(folder, 64, device="CPU", kernels=ReferenceKernels())
    path = make_tiny_gguf(tmp_path / "more.gguf", overrides={"tokenizer.ggml.tokens": [*TOKENS, "more"]})
    with pytest.raises(CheckpointError, match="has 353 tokens but only 352 rows"):
        open_checkpoint(path)


def test_output_rows_that_differ_from_the_embeddings_are_named(tmp_path: Path) -> None:
    weights = tiny_weights()
    weights["output.weight"] = weights["output.weight"][:-1]
    for write in (write_hf, write_meta):
        with pytest.raises(CheckpointError, match=r"stores output\.weight as \(351, 64\), where .* needs \(352, 64\)"):
            open_checkpoint(write(tmp_path / write.__name__, weights))


def test_holes_in_the_vocabulary_are_never_sampled(tmp_path: Path) -> None:
    folder = write_hf(tmp_path / "holes", tiny_weights(vocab_size=len(TOKENS) + 4))
    (folder / "added_tokens.json").write_text(json.dumps({"<|extra|>": len(TOKENS) + 2}))
    checkpoint = open_checkpoint(folder)
    n = len(TOKENS)
    np.testing.assert_array_equal(checkpoint.tokenizer().undecodable(checkpoint.config.vocab_size), [n, n + 1, n + 3])


# bytes of a block, and where in it f16 scales are: all else may be anything
BLOCKS = {"IQ4_NL": (32, 18, (0,)), "IQ4_XS": (256, 136, (0,)), "Q2_K": (256, 84, (80, 82)), "Q3_K": (256, 110, (108,))}
BLOCKS |= {"Q5_K": (256, 176, (0, 2)), "Q6_K": (256, 210, (208,)), "TQ2_0": (256, 66, (64,))}
WIDE = {"n_layers": 1, "dim": 256, "hidden_dim": 256, "head_dim": 64}


def random_blocks(kind: str, shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    size, nbytes, halves = BLOCKS[kind]
    data = rng.integers(0, 256, (shape[0], shape[1] // size, nbytes), dtype=np.uint8)
    for at in halves:
        scales = rng.uniform(0.5, 1, data.shape[:2]) * (1e-2 if kind == "TQ2_0" else 1e-4)
        data[..., at : at + 2] = scales.astype(np.float16)[..., None].view(np.uint8)
    return data.reshape(shape[0], -1)


@pytest.mark.parametrize("kind", BLOCKS)
def test_types_that_the_gguf_package_only_reads_load(kind: str, tmp_path: Path) -> None:
    """Those without a layout of ours are decoded and quantised again to 8 bits, which loses less than they did."""
    rng, type_ = np.random.default_rng(0), gguf.GGMLQuantizationType[kind]
    path, base = tmp_path / "model.gguf", make_tiny_gguf(tmp_path / "base.gguf", weights=tiny_weights(**WIDE), **WIDE)
    reader, writer = gguf.GGUFReader(base), gguf.GGUFWriter(path, "llama")
    for field in reader.fields.values():
        if not field.name.startswith("GGUF.") and field.name != "general.architecture":
            item = field.types[-1] if field.types[0] == gguf.GGUFValueType.ARRAY else None
            writer.add_key_value(field.name, field.contents(), field.types[0], item)
    for tensor in reader.tensors:
        if len(tensor.shape) == 2 and tensor.name.startswith("blk."):
            writer.add_tensor(tensor.name, random_blocks(kind, tensor.data.shape, rng), raw_dtype=type_)
        else:
            writer.add_tensor(tensor.name, tensor.data)
    for write in (writer.write_header_to_file, writer.write_kv_data_to_file, writer.write_tensors_to_file, writer.close):
        write()
    checkpoint = open_checkpoint(path)
    assert checkpoint.stored("layers.0.attention.wq.weight").type == kind
    stored = llama_numpy.read_gguf(path)[1]["blk.0.ffn_up.weight"]  # by the gguf package's own reader
    np.testing.assert_array_equal(checkpoint.matrix("layers.0.feed_forward.w3.weight").dequantize(), stored)
    llama = Llama.load(path, 64, device="CPU")  # the fastest kernels that run here
    loaded = llama.model.blocks[0].w3.to_tensor().numpy()
    exact = kind != "TQ2_0"
    assert np.abs(loaded - stored).max() <= (1e-9 if exact else np.abs(stored).max() / 127 / 1.9)
    assert inspect(checkpoint)["requantised"] == ([] if exact else [kind])
    expected = llama_numpy.logits(IDS, *llama_numpy.read_gguf(path))
    ours = Llama.load(path, 64, device="CPU", kernels=ReferenceKernels()).logits(IDS)
    np.testing.assert_allclose(ours, expected, atol=(2e-3 if exact else 2e-2) * np.abs(expected).max())
