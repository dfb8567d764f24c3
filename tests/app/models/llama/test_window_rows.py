"""Layers with a window give back what is older, and nothing that is computed changes: to the bit as with a cache that keeps all."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tinygrad import dtypes
from tinygrad.dtype import DType

from app.models.llama import Llama, window_rows
from app.models.llama.cache_type import cache_rows
from app.models.llama.checkpoint import open_checkpoint
from app.models.llama.footprint import Footprint
from app.models.llama.key_shift import CHUNK, Shifter
from app.models.llama.kv_cache import CacheArena, CacheError, KVCache
from app.models.llama.memory_plan import ModelDemand
from app.models.llama.pass_sizes import CHUNKS
from app.models.llama.shared_passes import NextTokens
from app.models.llama.snapshot import SnapshotError
from ext.tinygrad import buffers
from ext.tinygrad.kernels.packed import memory
from ext.tinygrad.kernels.protocol import rope_table
from ext.tinygrad.kernels.quantised_rows import QUANTISED, row_elements
from tests.app.models.llama.test_kv_cache import CONFIG
from tests.reference.families import VOCAB, write_family

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not memory.GIVES_BACK, reason="memory is given back on Linux alone")]

CONTEXT, WINDOW = 900, 20


@pytest.fixture(autouse=True)
def little_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, tokens in (("BEGINNING", 48), ("MARGIN", 40), ("STEP", 16)):
        monkeypatch.setattr(window_rows, name, tokens)


def longer(name: str, folder: Path, **others: int) -> Path:
    """A tiny model of that family with room for many windows."""
    write_family(name, folder)
    config = json.loads((folder / "config.json").read_text()) | {"max_position_embeddings": 2048, **others}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.fixture(scope="module", params=["gemma3", "mistral", "qwen2-window", "8-bit blocks"])
def llama(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Llama:
    if request.param == "8-bit blocks":
        path = longer("mistral", tmp_path_factory.mktemp("windows") / "blocks", num_attention_heads=2, num_key_value_heads=1, head_dim=32)
        return Llama.load(path, CONTEXT, device="CPU", kv="q8_0")
    return Llama.load(longer(request.param, tmp_path_factory.mktemp("windows") / request.param), CONTEXT, device="CPU")


def keeping_all(llama: Llama) -> KVCache:
    return KVCache(llama.config, CONTEXT, llama.model.rows, llama._cache_dtype, "CPU", llama._shifter, llama._identity)


def ids_from(seed: int, n: int) -> list[int]:
    return np.random.default_rng(seed).integers(3, VOCAB, n).tolist()


def after(llama: Llama, cache: KVCache) -> np.ndarray:
    """The logits after one more token, which is taken back again."""
    held = len(cache.tokens)
    logits = llama.engine.step(7, cache).copy()
    cache.truncate(held)
    return logits


def gap(cache: KVCache) -> tuple[int, int]:
    assert cache._few is not None
    return cache._few.start, cache._few.stop


def test_prompts_edits_and_rewinds_compute_what_they_would_with_everything_kept(llama: Llama) -> None:
    few, whole, rng, again = llama.new_cache(), keeping_all(llama), np.random.default_rng(5), 0
    ids = ids_from(1, 600)
    for _ in range(40):
        assert llama.prefill(ids, whole).cached_tokens >= (found := llama.prefill(ids, few)).cached_tokens
        again += found.cached_tokens < len(ids) - 60
        assert few.tokens == whole.tokens == ids
        np.testing.assert_array_equal(after(llama, few), after(llama, whole))
        back = int(rng.integers(0, len(ids))) if rng.random() < 0.4 else len(ids) - int(rng.integers(0, 50))  # far, or within the margin
        ids = ids[:back] + ids_from(int(rng.integers(1 << 30)), int(rng.integers(1, CONTEXT - 1 - back)))
    assert again > 5  # prompts that had to be read from the beginning on


def test_what_is_too_old_reads_as_zeros_and_a_margin_can_be_gone_back(llama: Llama) -> None:
    cache, ids = llama.new_cache(), ids_from(2, 700)
    llama.prefill(ids, cache)
    start, stop = gap(cache)
    assert start == 48 and 700 - WINDOW - 40 - 16 - 10 < stop <= 700 - WINDOW - 40 or llama.config.window(0) > WINDOW
    windowed = [bool(block.attention.window) for block in llama.model.blocks]
    for layer, few in zip(cache.layers, windowed, strict=True):
        for tensor in (layer.k, layer.v):
            held = buffers.view(tensor)
            assert held[:, :start].any(-1).all() and held[:, stop:700].any(-1).all() and held[:, start:stop].any() != few
    assert cache.reachable(660) == 660 and cache.reachable(stop + 5) == start and cache.reachable(30) == 30
    with pytest.raises(CacheError, match=f"only be gone on from up to {start}"):
        cache.truncate(300)
    assert len(cache.tokens) == 700


def test_entries_and_snapshots_hold_what_counts(llama: Llama, tmp_path: Path) -> None:
    cache, whole, ids = llama.new_cache(), keeping_all(llama), ids_from(3, 500)
    llama.prefill(ids, cache), llama.prefill(ids, whole)
    cache.snapshot(tmp_path / "few"), whole.snapshot(tmp_path / "whole")
    assert (tmp_path / "few").stat().st_size < (tmp_path / "whole").stat().st_size
    expected = after(llama, whole)
    for n in (500, 480):
        other = llama.new_cache()
        llama.prefill(ids_from(4, 800), other)  # of another conversation, with another gap
        other.fill(cache.entries(n))
        llama.prefill(ids, other)
        np.testing.assert_array_equal(after(llama, other), expected)
    with pytest.raises(CacheError, match="entries"):
        cache.entries(300)
    for file in ("few", "whole"):
        other = llama.new_cache()
        other.restore(tmp_path / file)
        np.testing.assert_array_equal(after(llama, other), expected)
        llama.prefill(more := ids + ids_from(5, 300), other)
        llama.prefill(more, whole)
        np.testing.assert_array_equal(after(llama, other), after(llama, whole))
        llama.prefill(ids, whole)
    with pytest.raises(SnapshotError, match="lacks positions"):
        keeping_all(llama).restore(tmp_path / "few")


@pytest.mark.parametrize("start, stop", [(30, 450), (30, 200), (40, 320), (100, 470)])
def test_moved_entries_are_those_of_a_cache_that_keeps_all(llama: Llama, start: int, stop: int) -> None:
    """Out of the beginning and of what is kept, out of the gap alone, and across all three."""
    few, whole, ids = llama.new_cache(), keeping_all(llama), ids_from(6, 500)
    for cache in (few, whole):
        llama.prefill(ids, cache)
        cache.remove(start, stop)
    left = len(few.tokens)
    if left == 500 - (stop - start):
        np.testing.assert_array_equal(after(llama, few), after(llama, whole))
        more = few.tokens + ids_from(7, 400)
        for cache in (few, whole):
            llama.prefill(more, cache)
        np.testing.assert_array_equal(after(llama, few), after(llama, whole))
    else:  # what stood before is gone: from the beginning on it is computed as for a new conversation
        assert start > 48 and left == 48
        fresh, kept = keeping_all(llama), whole.tokens
        llama.prefill(kept, few), llama.prefill(kept, fresh)
        np.testing.assert_array_equal(after(llama, few), after(llama, fresh))


def test_many_shifts_and_growth_in_turns(llama: Llama) -> None:
    few, whole, rng = llama.new_cache(), keeping_all(llama), np.random.default_rng(9)
    ids = ids_from(8, 850)
    for _ in range(12):
        for cache in (few, whole):
            llama.prefill(ids, cache)
        np.testing.assert_array_equal(after(llama, few), after(llama, whole))
        stop = int(rng.integers(60, 400))
        for cache in (few, whole):
            cache.remove(40, stop)
        assert few.tokens == whole.tokens
        ids = few.tokens + ids_from(int(rng.integers(1 << 30)), 850 - len(few.tokens))


def test_steps_of_several_conversations_in_one_pass_compute_the_same(llama: Llama) -> None:
    llama.share_passes(2)
    if not llama.most_rows:
        pytest.skip("no such passes here")
    whole = keeping_all(llama)
    for round_ in range(2):  # in slots that are used again
        caches = [llama.new_cache() for _ in range(2)]
        assert all(cache.arena for cache in caches)
        for n, cache in enumerate(caches):
            llama.prefill(ids_from(20 + n + 2 * round_, 300 + 200 * n), cache)
        for token in ids_from(10, 70):
            llama.compute_ahead([NextTokens(cache, [token], llama.model) for cache in caches])
            logits = [llama.engine.step(token, cache).copy() for cache in caches]
        assert min(gap(cache)[1] for cache in caches) > 200
        llama.prefill(ids_from(20 + 2 * round_, 300), whole)
        for token in ids_from(10, 70):
            expected = llama.engine.step(token, whole).copy()
        np.testing.assert_array_equal(logits[0], expected)
        del caches, cache


def resident(cache: KVCache) -> int:
    """Bytes of the cache that the system has given it (/proc/self/pagemap)."""
    total = 0
    with open("/proc/self/pagemap", "rb") as pagemap:
        for tensor in cache.tensors:
            array = buffers.view(tensor)
            first, last = array.ctypes.data // 4096, (array.ctypes.data + array.nbytes) // 4096
            pagemap.seek(8 * first)
            total += 4096 * int((np.frombuffer(pagemap.read(8 * (last - first)), np.uint64) >> np.uint64(63)).sum())
    return total


@pytest.fixture
def as_shipped(little_kept: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.undo()
    yield


@pytest.mark.parametrize("kind", [dtypes.float16, QUANTISED])
def test_memory_stays_below_what_is_foretold_however_long_the_context(as_shipped: None, kind: DType) -> None:
    capacity, head_dim, window = 16_384, 64, 512
    config = replace(CONFIG, n_kv_heads=2, head_dim=head_dim, rope_dim=head_dim, context_length=capacity)
    rows = capacity + CHUNK
    shifter = Shifter([buffers.upload(rope_table(rows, head_dim, head_dim, 1e4), "CPU")] * 2, rows)
    arena = CacheArena(1, 2, (2, rows, head_dim), kind, "CPU", (window, 0))
    caches = [KVCache(config, capacity, rows, kind, "CPU", shifter, {}, *more, (window, 0)) for more in ((None,), (arena,))]
    whole = 2 * 2 * rows * row_elements(head_dim, kind) * kind.itemsize  # bytes of a layer
    for cache in caches:
        most = 0
        for first in range(0, capacity, CHUNK):
            for tensor in cache.tensors:
                buffers.view(tensor)[:, first : first + CHUNK] = 1
            most = max(most, resident(cache))
            cache.extend([1] * CHUNK)
        assert whole < most <= cache.nbytes < whole * 1.2
        assert most > 0.95 * cache.nbytes


def test_the_plan_counts_what_is_held(as_shipped: None, tmp_path: Path) -> None:
    path = longer("gemma3", tmp_path / "gemma3")
    checkpoint = open_checkpoint(path)
    rows = cache_rows(2048, checkpoint.config, dtypes.float32)
    held, all_of_it = (Footprint.of(checkpoint, 2048, rows, CHUNKS, dtypes.float32, device).cache for device in ("CPU", "CUDA"))
    assert held == Llama.load(path, 2048, device="CPU").new_cache().nbytes < all_of_it
    demand = ModelDemand.of(path, 2048, 1)
    assert demand.parts(True)["cache"] == held * demand.caches and demand.parts(False)["cache"] == all_of_it * demand.caches
