"""The cache's operations against what a fresh prefill would hold: a key is a function of its token and its position."""

import resource
import signal
import sys
from pathlib import Path

import numpy as np
import pytest
from tinygrad import Tensor, dtypes

from app.models.llama import snapshot
from app.models.llama.config import LlamaConfig
from app.models.llama.key_shift import CHUNK, Shifter
from app.models.llama.kv_cache import CacheError, KVCache
from ext.tinygrad import buffers
from ext.tinygrad.kernels.protocol import rope_table

pytestmark = pytest.mark.slow

KV_HEADS, HEAD_DIM, CAPACITY, THETA = 2, 16, 300, 1e4
ROWS = CAPACITY + CHUNK
CONFIG = LlamaConfig(
    dim=64, n_layers=2, n_heads=4, n_kv_heads=KV_HEADS, head_dim=HEAD_DIM, hidden_dim=64, vocab_size=100, norm_eps=1e-5,
    rope_theta=THETA, context_length=CAPACITY, rope_dim=HEAD_DIM, tied=True,
)  # fmt: skip
IDENTITY = {"model": "test"}


def rotated(keys: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """RoPE in float64 on adjacent pairs, keys (KvH, n, Hd)."""
    angles = np.outer(positions, THETA ** (-np.arange(0, HEAD_DIM, 2) / HEAD_DIM))
    pairs = (keys[..., 0::2] + 1j * keys[..., 1::2]) * np.exp(1j * angles)
    return np.stack([pairs.real, pairs.imag], axis=-1).reshape(keys.shape)


class Conversation:
    """A cache filled as a prefill would fill it, and the same kept as plain numbers."""

    def __init__(self, device: str, n: int):
        random = np.random.default_rng(7)
        self.cache = KVCache(
            CONFIG, CAPACITY, ROWS, dtypes.float16, device,
            Shifter([buffers.upload(rope_table(ROWS, HEAD_DIM, HEAD_DIM, THETA), device)] * CONFIG.n_layers, ROWS), IDENTITY,
        )  # fmt: skip
        self.keys = [random.normal(0, 0.4, (KV_HEADS, n, HEAD_DIM)) for _ in self.cache.layers]
        self.values = [random.normal(0, 1, (KV_HEADS, n, HEAD_DIM)).astype(np.float16) for _ in self.cache.layers]
        for layer, keys, values in zip(self.cache.layers, self.keys, self.values, strict=True):
            put(layer.k, rotated(keys, np.arange(n)))
            put(layer.v, values)
        self.cache.tokens = list(range(n))

    def remove(self, start: int, stop: int) -> None:
        self.cache.remove(start, stop)
        self.keys = [np.delete(k, slice(start, stop), axis=1) for k in self.keys]
        self.values = [np.delete(v, slice(start, stop), axis=1) for v in self.values]

    def worst_key(self) -> float:
        n = len(self.cache.tokens)
        return max(
            float(np.abs(get(c.k)[:, :n] - rotated(k, np.arange(n))).max()) for c, k in zip(self.cache.layers, self.keys, strict=True)
        )

    def values_moved_exactly(self) -> bool:
        n = len(self.cache.tokens)
        return all(np.array_equal(get(c.v)[:, :n], v) for c, v in zip(self.cache.layers, self.values, strict=True))


def put(tensor: Tensor, values: np.ndarray) -> None:
    padded = np.zeros((KV_HEADS, ROWS, HEAD_DIM), np.float16)
    padded[:, : values.shape[1]] = values
    buffers.write(tensor, padded)


def get(tensor: Tensor) -> np.ndarray:
    return buffers.read(tensor, np.empty((KV_HEADS, ROWS, HEAD_DIM), np.float16))


def test_fifty_shifts_leave_keys_as_a_fresh_prefill_would_write_them(device: str) -> None:
    conversation, random = Conversation(device, CAPACITY), np.random.default_rng(3)
    for n in range(1, 51):
        start = int(random.integers(0, len(conversation.cache.tokens) - 5))
        conversation.remove(start, start + int(random.integers(1, 5)))
        if n in (1, 2, 10, 50):
            assert conversation.worst_key() < 1e-3
            assert conversation.values_moved_exactly()


@pytest.mark.parametrize("span", [(0, 200), (10, 11), (100, 300), (299, 300), (0, 300)])
def test_a_shift_moves_what_follows_and_forgets_the_ids(span: tuple[int, int]) -> None:
    conversation = Conversation("CPU", CAPACITY)
    conversation.remove(*span)
    assert conversation.cache.tokens == [t for t in range(CAPACITY) if not span[0] <= t < span[1]]
    if conversation.cache.tokens:
        assert conversation.worst_key() < 1e-3
        assert conversation.values_moved_exactly()


def test_tokens_that_come_after_a_shift_are_shifted_from_their_own_keys() -> None:
    conversation = Conversation("CPU", 200)
    conversation.remove(20, 120)
    # as a decode would: new entries behind the moved ones, where lifted keys of the past still lie
    for i, layer in enumerate(conversation.cache.layers):
        new = np.random.default_rng(i).normal(0, 0.4, (KV_HEADS, 50, HEAD_DIM))
        keys, values = get(layer.k).copy(), get(layer.v).copy()
        keys[:, 100:150], values[:, 100:150] = rotated(new, np.arange(100, 150)), new
        buffers.write(layer.k, keys)
        buffers.write(layer.v, values)
        conversation.keys[i] = np.concatenate([conversation.keys[i], new], axis=1)
        conversation.values[i] = np.concatenate([conversation.values[i], new.astype(np.float16)], axis=1)
    conversation.cache.tokens += range(1000, 1050)
    conversation.remove(10, 60)
    assert conversation.worst_key() < 1e-3
    assert conversation.values_moved_exactly()


@pytest.mark.parametrize("span", [(5, 5), (6, 5), (-1, 3), (0, 51), (50, 51)])
def test_an_impossible_shift_is_refused_and_changes_nothing(span: tuple[int, int]) -> None:
    conversation = Conversation("CPU", 50)
    before = [get(t).copy() for t in conversation.cache.tensors]
    with pytest.raises(CacheError, match=rf"remove\({span[0]}, {span[1]}\) of a cache that holds 50 tokens"):
        conversation.cache.remove(*span)
    assert conversation.cache.tokens == list(range(50))
    assert all(np.array_equal(get(t), b) for t, b in zip(conversation.cache.tensors, before, strict=True))


def test_truncate_forgets_from_n_on_and_refuses_what_is_not_there() -> None:
    cache = Conversation("CPU", 50).cache
    cache.truncate(20)
    assert cache.tokens == list(range(20))
    for n in (-1, 21):
        with pytest.raises(CacheError):
            cache.truncate(n)


@pytest.mark.parametrize("ids, held", [([], 0), ([0, 1, 2], 3), ([0, 1, 9], 2), ([9], 0), (list(range(60)), 50)])
def test_common_prefix_counts_the_ids_already_held(ids: list[int], held: int) -> None:
    assert Conversation("CPU", 50).cache.common_prefix(ids) == held


def test_a_snapshot_comes_back_to_the_last_bit(device: str, tmp_path: Path) -> None:
    source, path = Conversation(device, 40).cache, tmp_path / "head.safetensors"
    source.snapshot(path)
    target = Conversation(device, 10).cache
    target.restore(path)
    assert target.tokens == source.tokens
    assert all(np.array_equal(get(a)[:, :40], get(b)[:, :40]) for a, b in zip(source.tensors, target.tensors, strict=True))
    assert [p.name for p in tmp_path.iterdir()] == ["head.safetensors"]


def test_a_damaged_or_foreign_snapshot_is_refused_and_the_cache_is_as_it_was(tmp_path: Path) -> None:
    cache, path = Conversation("CPU", 40).cache, tmp_path / "head.safetensors"
    cache.snapshot(path)
    whole = path.read_bytes()
    flipped = bytearray(whole)
    flipped[-100] ^= 1
    before = [get(t).copy() for t in cache.tensors]
    for damaged in (b"", whole[:50], whole[: len(whole) // 2], bytes(flipped), b"not a snapshot" * 100):
        path.write_bytes(damaged)
        with pytest.raises(snapshot.SnapshotError, match=str(path)):
            cache.restore(path)
    path.write_bytes(whole + bytes(1 << 22))
    with pytest.raises(snapshot.SnapshotError, match="more than this cache can hold"):
        cache.restore(path)
    path.unlink()
    with pytest.raises(snapshot.SnapshotError):
        cache.restore(path)
    path.write_bytes(whole)
    other = Conversation("CPU", 5).cache
    other.identity = {"model": "another"}
    with pytest.raises(snapshot.SnapshotError, match="identity"):
        other.restore(path)
    assert cache.tokens == list(range(40)) and other.tokens == list(range(5))
    assert all(np.array_equal(get(t), b) for t, b in zip(cache.tensors, before, strict=True))


def test_a_snapshot_that_cannot_be_written_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "dont_write_bytecode", True)  # it would be cut
    cache = Conversation("CPU", 5).cache
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))  # the kernel refuses the bytes past it, as a full disk does
    try:
        with pytest.raises(OSError, match="File too large"):
            cache.snapshot(tmp_path / "head.safetensors")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, ignored)
    assert list(tmp_path.iterdir()) == []


def test_the_first_positions_can_be_given_to_another_cache(device: str) -> None:
    info, other = Conversation(device, 200), Conversation(device, 30)
    other.cache.fill(info.cache.entries(120))
    assert other.cache.tokens == list(range(120))
    for mine, theirs in zip(other.cache.tensors, info.cache.tensors, strict=True):
        assert (get(mine)[:, :120] == get(theirs)[:, :120]).all()
    with pytest.raises(CacheError, match=r"entries\(201\)"):
        info.cache.entries(201)


def faults() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt


@pytest.mark.skipif(sys.platform != "linux", reason="the system is not asked elsewhere")
def test_memory_is_taken_in_parts_and_then_no_write_waits_for_it() -> None:
    conversation, capacity = Conversation("CPU", 0), 200_000
    rows, cache = capacity + CHUNK, conversation.cache
    cache = KVCache(CONFIG, capacity, rows, dtypes.float16, "CPU", cache._shifter, IDENTITY)
    parts = 1
    while not cache.take_memory(capacity, 0.0):
        parts += 1
    assert parts == len(cache.tensors) and cache.take_memory(100, 0.0)
    before = faults()
    for tensor in cache.tensors:
        buffers.view(tensor)[:, :capacity] = 1  # 50 MB in all: 25 faults with the largest pages
    assert faults() - before < 12


def test_what_stands_in_a_cache_stays_when_its_memory_is_taken() -> None:
    conversation = Conversation("CPU", 200)
    assert conversation.cache.take_memory(CAPACITY, float("inf"))
    assert conversation.worst_key() < 1e-3
    assert all(
        (get(layer.v)[:, :200] == values).all() for layer, values in zip(conversation.cache.layers, conversation.values, strict=True)
    )
