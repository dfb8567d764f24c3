"""An adapter out of the difference of two checkpoints: NumPy's SVD is the reference."""

from pathlib import Path

import numpy as np
import pytest

from app.models.llama.checkpoint import open_checkpoint
from app.models.llama.lora.adapter import AdapterError, LowRank
from app.models.llama.lora.extraction import extract, low_rank
from tests.reference.tiny_formats import tiny_weights, write_hf


def test_the_product_is_nearly_the_best_of_its_rank() -> None:
    rng = np.random.default_rng(0)
    u, v = np.linalg.qr(rng.standard_normal((96, 60)))[0], np.linalg.qr(rng.standard_normal((60, 60)))[0]
    matrix = (u * 0.8 ** np.arange(60) @ v.T).astype(np.float32)
    for rank in (1, 8, 60, 100):
        a, b = low_rank(matrix, rank)
        kept = min(rank, 60)
        best = np.sqrt((0.8 ** (2 * np.arange(kept, 60))).sum())
        assert a.shape == (kept, 60) and b.shape == (96, kept)
        assert np.linalg.norm(matrix - b @ a) < 1.02 * best + 1e-5


@pytest.mark.parametrize("tied", [False, True])
def test_what_one_checkpoint_has_beyond_another_is_found(tied: bool, tmp_path: Path) -> None:
    weights = tiny_weights(tied=tied)
    rng = np.random.default_rng(1)
    tuned, changes = dict(weights), {}
    for name in ("blk.0.attn_q.weight", "blk.1.ffn_down.weight", "token_embd.weight"):
        rows, cols = weights[name].shape
        changes[name] = (0.1 * rng.standard_normal((rows, 3)) @ rng.standard_normal((3, cols))).astype(np.float32)
        tuned[name] = weights[name] + changes[name]
    tuned["output_norm.weight"] = weights["output_norm.weight"] + 1
    base = open_checkpoint(write_hf(tmp_path / "base", weights, tied=tied))
    found = extract(base, open_checkpoint(write_hf(tmp_path / "tuned", tuned, tied=tied)), 3)
    names = {"layers.0.attention.wq.weight", "layers.1.feed_forward.w2.weight", "tok_embeddings.weight"}
    assert found.adapter.matrices.keys() == names | ({"output.weight"} if tied else set())
    assert found.kept_out == ("norm.weight",)
    assert all(error.left_out < 1e-3 < error.size for error in found.errors)

    def is_change(change: LowRank, expected: np.ndarray) -> None:
        np.testing.assert_allclose(change.delta(), expected, atol=1e-4 * np.abs(expected).max() + 1e-6)

    is_change(found.adapter.matrices["layers.0.attention.wq.weight"], changes["blk.0.attn_q.weight"])
    is_change(found.adapter.matrices["tok_embeddings.weight"], changes["token_embd.weight"].T)


def test_checkpoints_that_cannot_be_compared_are_refused(tmp_path: Path) -> None:
    base = open_checkpoint(write_hf(tmp_path / "base", tiny_weights()))
    with pytest.raises(AdapterError, match="the same matrices"):
        extract(base, base, 2)
    other = open_checkpoint(write_hf(tmp_path / "other", tiny_weights(n_kv_heads=4), n_kv_heads=4))
    with pytest.raises(AdapterError, match="of other sizes"):
        extract(base, other, 2)
