"""A model over a KV cache of 8-bit blocks: shifts, copies, snapshots, and what cannot have one."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from tinygrad import Tensor

from app.models.llama import Llama, SamplingParams
from app.models.llama.config import ConfigError, LlamaConfig
from app.models.llama.key_shift import CHUNK, Shifter
from app.models.llama.kv_cache import CacheArena, KVCache
from app.models.llama.snapshot import SnapshotError
from ext.tinygrad import buffers
from ext.tinygrad.kernels.protocol import rope_table
from ext.tinygrad.kernels.quantised_rows import QUANTISED, row_elements
from ext.tinygrad.kernels.reference import ReferenceKernels
from tests.app.models.llama.conftest import KERNELS
from tests.reference.cuda_emulator.fixtures import cuda_emulator  # noqa: F401
from tests.reference.quantised_rows import dequantise, quantise, scales_of
from tests.reference.tiny import make_tiny_gguf

IDS = [int(i) for i in np.random.default_rng(0).integers(0, 250, 90)]
SIZES = {"dim": 128, "n_heads": 4, "n_kv_heads": 2, "hidden_dim": 256}


@pytest.fixture(scope="module")
def load(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Llama]:
    path = make_tiny_gguf(tmp_path_factory.mktemp("blocks") / "tiny.gguf", type="Q8_0", **SIZES)
    return lambda kv="q8_0", **others: Llama.load(path, 128, device="CPU", kv=kv, **others)


@pytest.mark.slow
def test_logits_are_near_those_over_floats_on_every_device(place: tuple[str, str], tmp_path: Path) -> None:
    device, kernels = place
    path = make_tiny_gguf(tmp_path / "tiny.gguf", type="F32", **SIZES)  # whose products are not rounded, too
    over_floats = Llama.load(path, 128, device="CPU").logits(IDS)
    plain = Llama.load(path, 128, device="CPU", kv="q8_0", kernels=ReferenceKernels()).logits(IDS)
    llama = Llama.load(path, 128, device=device, kv="q8_0", kernels=KERNELS[kernels](device))
    cache = llama.new_cache()
    llama.prefill(IDS[:60], cache)
    ours = np.concatenate([llama.logits(IDS)[:60], *([llama.engine.step(token, cache).copy()] for token in IDS[60:])])
    away = np.abs(ours - over_floats).mean()
    assert 0 < away < 0.02 * over_floats.std()
    assert np.abs(ours - plain).mean() < away / 10


def test_one_token_after_another_is_what_a_prompt_gives(tmp_path: Path) -> None:
    llama = Llama.load(make_tiny_gguf(tmp_path / "tiny.gguf", type="F32", **SIZES), 128, device="CPU", kv="q8_0")
    cache, whole = llama.new_cache(), llama.logits(IDS)
    llama.prefill(IDS[:30], cache)
    steps = np.stack([llama.engine.step(token, cache).copy() for token in IDS[30:]])
    assert np.abs(steps - whole[30:]).mean() < 1e-3 * whole.std()


def test_a_float32_file_can_have_one_and_keeps_its_adapters_exact(tmp_path: Path) -> None:
    path = make_tiny_gguf(tmp_path / "tiny.gguf", type="F32", **SIZES)
    halved, whole = Llama.load(path, 128, device="CPU", kv="q8_0"), Llama.load(path, 128, device="CPU")
    assert halved._exact and halved.new_cache().nbytes * 64 == whole.new_cache().nbytes * 17


def test_what_cannot_have_one_says_so_in_a_sentence(tmp_path: Path) -> None:
    narrow, wide = make_tiny_gguf(tmp_path / "narrow.gguf"), make_tiny_gguf(tmp_path / "wide.gguf", **SIZES)
    with pytest.raises(ConfigError, match=r"--kv q8_0 keeps blocks of 32 values, and this model's heads of 16 .* pass --kv f16"):
        Llama.load(narrow, 64, device="CPU", kv="q8_0")
    with pytest.raises(ConfigError, match="--kv q4_0 is no type of a KV cache; pass f16 or q8_0"):
        Llama.load(wide, 64, device="CPU", kv="q4_0")


def test_entries_and_files_are_exact_and_never_read_by_a_cache_of_floats(load: Callable[..., Llama], tmp_path: Path) -> None:
    llama, floats = load(), load("f16")
    cache, path = llama.new_cache(), tmp_path / "head.safetensors"
    llama.prefill(IDS, cache)
    other, restored = llama.new_cache(), llama.new_cache()
    other.fill(cache.entries(70))
    cache.snapshot(path)
    restored.restore(path)
    for one, mine, theirs in zip(cache.tensors, other.tensors, restored.tensors, strict=True):
        np.testing.assert_array_equal(buffers.view(one)[:, :70], buffers.view(mine)[:, :70])
        np.testing.assert_array_equal(buffers.view(one)[:, :90], buffers.view(theirs)[:, :90])
    with pytest.raises(SnapshotError, match="another identity"):
        floats.new_cache().restore(path)
    floats_cache = floats.new_cache()
    floats.prefill(IDS, floats_cache)
    floats_cache.snapshot(path)
    with pytest.raises(SnapshotError, match="another identity"):
        llama.new_cache().restore(path)


@pytest.mark.slow
@pytest.mark.parametrize("device", ["CL", "CUDA"])
def test_entries_and_files_of_a_gpus_cache_are_exact(device: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    request.getfixturevalue("opencl" if device == "CL" else "cuda_emulator")
    file, path = make_tiny_gguf(tmp_path / "tiny.gguf", type="Q8_0", **SIZES), tmp_path / "head.safetensors"
    llama = Llama.load(file, 128, device=device, kv="q8_0", kernels=KERNELS["gpu" if device == "CL" else "fused"](device))
    cache, other, restored = (llama.new_cache() for _ in range(3))
    llama.prefill(IDS, cache)
    expected = cache.entries(90).tensors
    assert {values.dtype.name for values in expected.values()} == {"uint8"} and all(values.any() for values in expected.values())
    other.fill(cache.entries(90))
    cache.snapshot(path)
    restored.restore(path)
    steps = [llama.engine.step(5, one).copy() for one in (cache, other, restored)]
    for one, logits in zip((other, restored), steps[1:], strict=True):
        np.testing.assert_array_equal(logits, steps[0])
        for name, values in one.entries(90).tensors.items():
            np.testing.assert_array_equal(values, expected[name])


def test_a_conversation_goes_on_beyond_its_window(load: Callable[..., Llama]) -> None:
    llama = load()
    cache = llama.new_cache()
    tokens = list(IDS)
    for n in range(3):
        llama.prefill(tokens, cache)
        tokens = list(cache.tokens)
        cache.remove(4, 60)
        tokens = [*tokens[:4], *tokens[60:], *(int(i) for i in np.random.default_rng(n).integers(0, 250, 50))]
    said = list(llama.generate(tokens, 20, SamplingParams(temperature=0), cache, frozenset()))
    assert len(said) == 20 and cache.common_prefix(tokens) == len(tokens)


KV_HEADS, HEAD_DIM, CAPACITY = 2, 64, 300
ROWS = CAPACITY + CHUNK
CONFIG = LlamaConfig(
    dim=256, n_layers=2, n_heads=4, n_kv_heads=KV_HEADS, head_dim=HEAD_DIM, hidden_dim=64, vocab_size=100, norm_eps=1e-5,
    rope_theta=1e4, context_length=CAPACITY, rope_dim=HEAD_DIM, tied=True,
)  # fmt: skip


def rotated(keys: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """RoPE in float64 on adjacent pairs, keys (KvH, n, Hd)."""
    angles = np.outer(positions, 1e4 ** (-np.arange(0, HEAD_DIM, 2) / HEAD_DIM))
    pairs = (keys[..., 0::2] + 1j * keys[..., 1::2]) * np.exp(1j * angles)
    return np.stack([pairs.real, pairs.imag], axis=-1).reshape(keys.shape)


def of_rows(tensor: Tensor, device: str) -> np.ndarray:
    return buffers.read(tensor, np.empty(tensor.shape, np.uint8))


@pytest.mark.slow
def test_keys_that_move_often_are_rounded_twice_and_values_not_at_all(device: str) -> None:
    random = np.random.default_rng(7)
    shifter = Shifter([buffers.upload(rope_table(ROWS, HEAD_DIM, HEAD_DIM, 1e4), device)] * 2, ROWS)
    cache = KVCache(CONFIG, CAPACITY, ROWS, QUANTISED, device, shifter, {})
    keys = [random.normal(0, 0.4, (KV_HEADS, CAPACITY, HEAD_DIM)) for _ in cache.layers]
    values = [quantise(random.normal(0, 1, (KV_HEADS, CAPACITY, HEAD_DIM))) for _ in cache.layers]
    for layer, k, v in zip(cache.layers, keys, values, strict=True):
        for tensor, rows in ((layer.k, quantise(rotated(k, np.arange(CAPACITY)))), (layer.v, v)):
            padded = np.zeros((KV_HEADS, ROWS, row_elements(HEAD_DIM, QUANTISED)), np.uint8)
            padded[:, :CAPACITY] = rows
            buffers.write(tensor, padded)
    cache.tokens = list(range(CAPACITY))
    for n in range(1, 21):
        start = int(random.integers(0, len(cache.tokens) - 5))
        stop = start + int(random.integers(1, 5))
        cache.remove(start, stop)
        keys, values = ([np.delete(one, slice(start, stop), axis=1) for one in what] for what in (keys, values))
        if n not in (1, 20):
            continue
        held = len(cache.tokens)
        for layer, k, v in zip(cache.layers, keys, values, strict=True):
            rows = of_rows(layer.k, device)[:, :held]
            # half a step when it was stored, turned: of two entries, and half a step of where it stands now
            most = scales_of(rows).max() * (0.5 + 0.5 * 2**0.5) * 1.2
            assert np.abs(dequantise(rows) - rotated(k, np.arange(held))).max() < most
            np.testing.assert_array_equal(of_rows(layer.v, device)[:, :held], v)


def test_a_slot_of_an_arena_is_cleared_before_another_conversation_has_it() -> None:
    arena = CacheArena(1, 1, (KV_HEADS, ROWS, HEAD_DIM), QUANTISED, "CPU")
    taken = arena.take()
    assert taken is not None and arena.take() is None
    slot, tensors = taken
    assert [tensor.shape for tensor in tensors] == [(KV_HEADS, ROWS, 68)] * 2
    for tensor in tensors:
        buffers.view(tensor)[:] = 1
    arena.give_back(slot)
    again = arena.take()
    assert again is not None and not any(buffers.view(tensor).any() for tensor in again[1])
