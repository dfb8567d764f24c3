"""What caches are kept as, and how many rows they have."""

from dataclasses import replace
from pathlib import Path

import pytest
from tinygrad import dtypes

from app.models.llama import Llama
from app.models.llama.cache_type import SUB_BUFFER, cache_rows
from app.models.llama.checkpoint import open_checkpoint
from app.models.llama.pass_sizes import CHUNKS
from ext.tinygrad.kernels.quantised_rows import QUANTISED, row_elements
from tests.reference.tiny import make_tiny_gguf


@pytest.mark.parametrize("heads, head_dim", [(1, 32), (3, 64), (5, 96), (8, 128), (2, 80), (1, 256)])
def test_a_cache_ends_where_a_part_of_a_buffer_may_begin(tmp_path, heads, head_dim):
    config = open_checkpoint(make_tiny_gguf(tmp_path / "tiny.gguf")).config
    config = replace(config, n_kv_heads=heads, head_dim=head_dim)
    for type in (dtypes.float16, dtypes.float32, *[QUANTISED] * (head_dim % 32 == 0)):
        one = heads * row_elements(head_dim, type) * type.itemsize
        for window in (*range(1, 600, 7), 1000, 1024, 4096):
            rows = cache_rows(window, config, type)
            assert rows * one % SUB_BUFFER == 0
            assert window + max(CHUNKS) <= rows < window + max(CHUNKS) + SUB_BUFFER


def test_windows_of_the_usual_sizes_have_no_row_more(tmp_path):
    config = replace(open_checkpoint(make_tiny_gguf(tmp_path / "tiny.gguf")).config, n_kv_heads=3, head_dim=64)
    for type in (dtypes.float16, QUANTISED):
        assert cache_rows(1024, config, type) == 1024 + max(CHUNKS)


@pytest.mark.slow
@pytest.mark.parametrize("window", [90, 97])  # before, 97 + 128 rows of 34 bytes: no multiple of what any driver asks for
def test_opencl_shares_passes_whatever_the_window(opencl, tmp_path: Path, monkeypatch, window):
    monkeypatch.setenv("TUNE", "0")
    monkeypatch.setenv("KERNELS", "gpu")
    path = make_tiny_gguf(tmp_path / "tiny.gguf", type="Q4_0", dim=128, n_heads=4, n_kv_heads=1, hidden_dim=256)
    llama = Llama.load(path, max_context=window, device="CL", kv="q8_0")
    llama.share_passes(3, rows=2)
    assert llama.most_rows == 2
    caches = [llama.new_cache() for _ in range(3)]
    assert [cache.slot for cache in caches] == [0, 1, 2]
