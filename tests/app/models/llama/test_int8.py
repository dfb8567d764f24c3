"""Quantising at load: the logits of a Q8_0 file of the same weights, whatever the format was."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from app.models.llama import Llama
from app.models.llama.checkpoint import open_checkpoint
from app.models.llama.checkpoint.conversion import convert
from app.models.llama.checkpoint.quantization import Int8Checkpoint
from ext.tinygrad.kernels.reference import ReferenceKernels
from tests.reference.tiny import make_tiny_gguf
from tests.reference.tiny_formats import tiny_weights, write_hf, write_meta

IDS = [5, 90, 17, 17, 0, 63, 2, 300]


@pytest.mark.parametrize("write", [write_hf, write_meta])
def test_quantising_at_load_is_converting_to_q8_0_first(write: Callable[..., Path], tmp_path: Path) -> None:
    plain = open_checkpoint(write(tmp_path / "model", tiny_weights(), kind="F16"))
    made, file = Int8Checkpoint(plain), open_checkpoint(convert(plain, tmp_path / "q8.gguf", "q8_0"))
    assert len(made.quantised) == 16 and made.nbytes < 0.54 * plain.nbytes  # 34 bytes for 32 weights; norms stay
    assert made.fingerprint() != plain.fingerprint()
    for name in made.quantised:
        np.testing.assert_array_equal(made.matrix(name).data, file.matrix(name).data)


@pytest.mark.slow
def test_a_model_quantised_at_load_answers_as_the_converted_one(tmp_path: Path) -> None:
    folder = write_meta(tmp_path / "model", tiny_weights(), kind="F16")
    file = convert(open_checkpoint(folder), tmp_path / "q8.gguf", "q8_0")
    now = Llama.load(folder, 64, device="CPU", kernels=ReferenceKernels(), quantize=True)
    then = Llama.load(file, 64, device="CPU", kernels=ReferenceKernels())
    assert now.quantised == 16
    np.testing.assert_array_equal(now.logits(IDS), then.logits(IDS))


def test_what_is_quantised_already_stays(tmp_path: Path) -> None:
    plain = open_checkpoint(make_tiny_gguf(tmp_path / "a.gguf", type="Q4_0", embedding_type="F16"))
    made = Int8Checkpoint(plain)
    assert made.quantised == {"tok_embeddings.weight", "output.weight"}
    for name in ("layers.0.attention.wq.weight", "output.weight"):
        assert made.stored(name).type == made.matrix(name).type and made.stored(name).nbytes == made.matrix(name).nbytes
    np.testing.assert_array_equal(made.matrix("output.weight", slice(3, 9)).data, made.matrix("output.weight").data[3:9])
    nothing = open_checkpoint(make_tiny_gguf(tmp_path / "b.gguf", type="Q4_0"))
    assert not Int8Checkpoint(nothing).quantised and Int8Checkpoint(nothing).fingerprint() == nothing.fingerprint()
