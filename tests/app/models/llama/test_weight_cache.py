"""Packed weights kept on disk: the same numbers, from fewer bytes read, whatever happened to the file."""

import mmap
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from app.models.llama import Llama, packed_file, weight_cache
from app.models.llama.checkpoint import open_checkpoint
from app.models.llama.weight_cache import WeightCache
from ext.tinygrad import cache_files
from ext.tinygrad.kernels.cpu.cpu_kernels import CPUKernels
from ext.tinygrad.kernels.gpu.gpu_kernels import GPUKernels
from ext.tinygrad.kernels.gpu.tuning import Tuning
from ext.tinygrad.kernels.matrix import QuantMatrix
from ext.tinygrad.kernels.reference import ReferenceKernels
from tests.reference.tiny import make_tiny_gguf

pytestmark = pytest.mark.slow

IDS = [5, 90, 17, 17, 0, 63, 2, 300]
NAMES = ("tok_embeddings.weight", "layers.0.attention.wq.weight", "layers.1.feed_forward.w2.weight")


class CountingKernels(CPUKernels):
    def __init__(self):
        self.packed = 0

    def pack(self, matrix: QuantMatrix, device: str):
        self.packed += 1
        return super().pack(matrix, device)


def quantised(path: Path, seed: int = 0) -> Path:
    return make_tiny_gguf(path, dim=128, type="Q4_0", embedding_type="Q8_0", seed=seed)


@pytest.fixture
def checkpoint(tmp_path: Path):
    return open_checkpoint(quantised(tmp_path / "tiny.gguf"))


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache folder of the test's own, for checkpoints of every size, in pieces so small that matrices straddle them."""
    if reason := CPUKernels.available():
        pytest.skip(reason)
    folder = tmp_path / "weights"
    monkeypatch.delenv("WEIGHT_CACHE", raising=False)
    monkeypatch.setattr(weight_cache, "folder", lambda: folder)
    monkeypatch.setattr(weight_cache, "WORTH_IT", 0)
    monkeypatch.setattr(packed_file, "PIECE", 1 << 16)
    return folder


def load(checkpoint) -> tuple[list[np.ndarray], int]:
    """The matrices' values, and how many of them had to be packed."""
    kernels = CountingKernels()
    cache = WeightCache(checkpoint, kernels, "CPU")
    found = [cache.matrix(name) for name in NAMES]
    assert [nbytes for _, nbytes in found] == [checkpoint.matrix(name).nbytes for name in NAMES]
    cache.close()
    weight_cache.settle()
    return [weight.to_tensor().numpy() for weight, _ in found], kernels.packed


def test_the_second_start_packs_nothing_and_has_the_same_numbers(checkpoint):
    first, packed = load(checkpoint)
    assert packed == len(NAMES)
    second, packed = load(checkpoint)
    assert packed == 0
    for a, b in zip(first, second):
        np.testing.assert_array_equal(a, b)


def test_the_kernels_of_a_gpu_read_the_file_that_the_cpus_wrote(checkpoint, device: str, own_cache):
    first, _ = load(checkpoint)
    kernels = GPUKernels(Tuning("gpu", units=16, most_items=256, local_bytes=32 << 10))
    cache = WeightCache(checkpoint, kernels, device)
    assert cache._stored is not None
    for name, values in zip(NAMES, first):
        np.testing.assert_array_equal(cache.matrix(name)[0].to_tensor().numpy(), values)
    assert cache._ahead is None  # nothing was packed


def test_the_packed_file_of_a_large_checkpoint_is_read_where_it_is(checkpoint, monkeypatch):
    monkeypatch.setattr(weight_cache, "IN_PLACE", checkpoint.nbytes)
    first, packed = load(checkpoint)
    assert packed == len(NAMES)
    cache = WeightCache(checkpoint, CPUKernels(), "CPU")
    stored = cache._stored
    assert stored is not None
    owner = stored._data.base.base
    assert isinstance(owner.obj if isinstance(owner, memoryview) else owner, mmap.mmap)
    for name, values in zip(NAMES, first):
        weight, _ = cache.matrix(name)
        there = stored._data.ctypes.data + stored.entries[name].start
        assert weight.tensors[0].uop.base.realized._buf.va_addr == there, "it was copied"
        np.testing.assert_array_equal(weight.to_tensor().numpy(), values)


@pytest.mark.parametrize("in_place", [False, True])
def test_a_flipped_bit_costs_the_matrices_around_it_and_nothing_else(checkpoint, own_cache, in_place, monkeypatch):
    monkeypatch.setattr(weight_cache, "IN_PLACE", 0 if in_place else weight_cache.IN_PLACE)
    first, _ = load(checkpoint)
    (file,) = own_cache.iterdir()
    data = bytearray(file.read_bytes())
    data[-100] ^= 1  # in the last matrix
    file.write_bytes(data)
    again, packed = load(checkpoint)
    assert 1 <= packed < len(NAMES)
    for a, b in zip(first, again):
        np.testing.assert_array_equal(a, b)
    assert load(checkpoint)[1] == 0, "the file was mended"


@pytest.mark.parametrize(
    "damage", [lambda d: d[:-1], lambda d: d[:50], lambda d: b"", lambda d: b"x" + d[1:], lambda d: d[:30] + b"}" + d[31:]]
)
def test_a_file_that_is_truncated_or_no_cache_is_rebuilt(checkpoint, own_cache, damage):
    load(checkpoint)
    (file,) = own_cache.iterdir()
    file.write_bytes(damage(file.read_bytes()))
    assert load(checkpoint)[1] == len(NAMES)
    assert load(checkpoint)[1] == 0


def test_of_a_file_that_is_given_up_nothing_is_left(checkpoint, own_cache):
    pack = CPUKernels().pack
    matrices = {name: weight_cache._packed(pack(checkpoint.matrix(name), "CPU"), 1) for name in NAMES}
    answers = iter([False, True])
    with pytest.raises(InterruptedError):
        packed_file.write(own_cache / "a.packed", matrices, lambda: next(answers))
    assert list(own_cache.iterdir()) == []
    packed_file.write(own_cache / "a.packed", matrices, lambda: False)
    assert [file.name for file in own_cache.iterdir()] == ["a.packed"]


@pytest.mark.parametrize("awaited, left", [(1 << 28, [".packed"]), (0, [])])
def test_who_leaves_waits_for_a_small_file_and_leaves_nothing_of_a_large_one(checkpoint, own_cache, awaited, left):
    """Ctrl-C while the file is being written, in a process of its own."""
    script = f"""
from pathlib import Path
from app.models.llama import packed_file, weight_cache
from app.models.llama.checkpoint import open_checkpoint
from ext.tinygrad.kernels.cpu.cpu_kernels import CPUKernels
weight_cache.folder = lambda: Path({str(own_cache)!r})
weight_cache.WORTH_IT, weight_cache.SOON_WRITTEN, packed_file.PIECE = 0, {awaited}, 1 << 12
cache = weight_cache.WeightCache(open_checkpoint({str(checkpoint.path)!r}), CPUKernels(), "CPU")
for name in {NAMES}:
    cache.matrix(name)
pieces, started = packed_file._pieces, __import__("threading").Event()
def slowly(*arrays):
    for piece in pieces(*arrays):
        yield piece
        started.set()
        __import__("time").sleep(0.001)
packed_file._pieces = slowly
cache.close()
started.wait()
raise KeyboardInterrupt
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=Path(__file__).parents[4], capture_output=True, text=True, timeout=60)
    assert done.stderr.rstrip().endswith("KeyboardInterrupt"), done.stderr
    assert [file.suffix for file in own_cache.iterdir()] == left


def test_another_checkpoint_has_a_file_of_its_own(checkpoint, tmp_path, own_cache):
    load(checkpoint)
    other = open_checkpoint(quantised(tmp_path / "other.gguf", seed=1))
    assert load(other)[1] == len(NAMES)
    assert load(checkpoint)[1] == load(other)[1] == 0
    assert len(list(own_cache.iterdir())) == 2


def test_the_files_used_longest_ago_make_room(checkpoint, tmp_path, own_cache, monkeypatch):
    load(checkpoint)
    (old,) = own_cache.iterdir()
    os.utime(old, (time.time() - 100,) * 2)
    monkeypatch.setattr(weight_cache, "MOST_BYTES", int(old.stat().st_size * 1.5))
    load(open_checkpoint(quantised(tmp_path / "other.gguf", seed=1)))
    assert not old.exists() and len(list(own_cache.iterdir())) == 1


def test_what_a_dead_writer_left_is_swept(checkpoint, own_cache):
    own_cache.mkdir()
    left, recent = own_cache / "a.packed.1.part", own_cache / "b.packed.2.part"
    for file in (left, recent):
        file.write_bytes(b"half")
    os.utime(left, (time.time() - 2 * cache_files.STALE_SECONDS,) * 2)
    load(checkpoint)
    assert not left.exists() and recent.exists()


def test_a_folder_that_may_not_be_written_is_no_error(checkpoint, own_cache):
    own_cache.write_bytes(b"a file where the folder should be")
    assert load(checkpoint)[1] == len(NAMES)


def test_weight_cache_0_leaves_the_disk_alone(checkpoint, own_cache, monkeypatch):
    monkeypatch.setenv("WEIGHT_CACHE", "0")
    load(checkpoint)
    assert not own_cache.exists()


def test_other_kernel_sets_are_not_cached(checkpoint, own_cache):
    cache = WeightCache(checkpoint, ReferenceKernels(), "CPU")
    cache.matrix(NAMES[0])
    cache.close()
    assert not own_cache.exists()


@pytest.mark.parametrize("kind", ["F32", "F16", "BF16"])
def test_a_large_checkpoint_of_floats_is_read_where_it_is(
    kind: str, tmp_path: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = open_checkpoint(make_tiny_gguf(tmp_path / "floats.gguf", dim=128, type=kind))
    monkeypatch.setattr(weight_cache, "IN_PLACE", checkpoint.nbytes)
    values, packed = load(checkpoint)
    assert packed == 0 and not own_cache.exists()
    for name, value in zip(NAMES, values):
        np.testing.assert_array_equal(value, checkpoint.matrix(name).dequantize())
    weight, _ = WeightCache(checkpoint, CPUKernels(), "CPU").matrix(NAMES[1])
    assert weight.tensors[0].uop.base.realized._buf.va_addr == checkpoint.matrix(NAMES[1]).data.ctypes.data  # the map itself


def test_a_large_checkpoint_gives_the_logits_of_a_packed_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = make_tiny_gguf(tmp_path / "floats.gguf", dim=128, type="F16", embedding_type="Q8_0")  # some packed, some not
    packed = Llama.load(path, 64, device="CPU", kernels=CPUKernels()).logits(IDS)
    monkeypatch.setattr(weight_cache, "IN_PLACE", 0)
    np.testing.assert_allclose(
        Llama.load(path, 64, device="CPU", kernels=CPUKernels()).logits(IDS), packed, atol=0.03
    )  # an int8 activation may round otherwise


CUT_SHORT = """
import os, sys
from app.models.llama import Llama, weight_cache
from ext.tinygrad.toolchain import prepare_environment

prepare_environment()
weight_cache.IN_PLACE = 0  # as a checkpoint of a gigabyte
llama = Llama.load(sys.argv[1], 64, device="CPU")
llama.logits([5, 90])
os.truncate(sys.argv[1], 0)
llama.logits([17, 17])
"""


def test_a_large_checkpoint_that_is_cut_short_while_it_is_used_is_named(tmp_path: Path) -> None:
    path = make_tiny_gguf(tmp_path / "floats.gguf", dim=128, type="F16")
    command = [sys.executable, "-c", CUT_SHORT, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"DEV": "CPU"}, cwd=Path(__file__).parents[4])
    assert done.returncode == -signal.SIGBUS and f"{path} can no longer be read" in done.stderr
