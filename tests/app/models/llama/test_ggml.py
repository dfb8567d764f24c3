"""Our tables of ggml's types against the gguf package's."""

import gguf
import numpy as np
import pytest

from app.models.llama.checkpoint import ggml


def test_the_tables_are_ggufs() -> None:
    theirs = {kind.name: (int(kind), gguf.GGML_QUANT_SIZES[kind]) for kind in gguf.GGMLQuantizationType}
    ours = {kind.name: (int(kind), ggml.BLOCKS[kind]) for kind in ggml.QuantType}
    assert {name: theirs[name] for name in ours} == ours
    assert {kind.name: int(kind) for kind in ggml.TokenType} == {kind.name: int(kind) for kind in gguf.TokenType}


@pytest.mark.parametrize("kind", ["F32", "F16", "Q4_1", "Q8_0"])
def test_values_are_ggufs(kind: str) -> None:
    values = np.random.default_rng(0).standard_normal((3, 64)).astype(np.float32)
    data = gguf.quants.quantize(values, gguf.GGMLQuantizationType[kind]).view(np.uint8).reshape(3, -1)
    decoded = ggml.dequantize(data, ggml.QuantType[kind])
    assert decoded.dtype == np.float32 and decoded.shape == (3, 64)
    np.testing.assert_array_equal(decoded, gguf.quants.dequantize(data, gguf.GGMLQuantizationType[kind]))
