"""What a model will take of a device is known before it is read, and too much is refused with both numbers."""

from pathlib import Path

import gguf
import numpy as np
import pytest
from tinygrad import dtypes
from tinygrad.helpers import GlobalCounters

from app.models.llama import Llama, footprint
from app.models.llama.cache_type import cache_rows, cache_type
from app.models.llama.checkpoint import open_checkpoint
from app.models.llama.checkpoint.quantization import Int8Checkpoint
from app.models.llama.footprint import DoesNotFit, Footprint
from app.models.llama.pass_sizes import chunks_of
from ext.tinygrad.kernels.cpu.cpu_kernels import CPUKernels
from ext.tinygrad.kernels.gpu.gpu_kernels import GPUKernels
from ext.tinygrad.kernels.gpu.tuning import Tuning
from ext.tinygrad.kernels.matrix import QuantMatrix
from ext.tinygrad.kernels.packed.packed_matrix import pack
from ext.tinygrad.kernels.quantised_rows import QUANTISED
from tests.reference.tiny import make_tiny_gguf

pytestmark = pytest.mark.slow

CONTEXT = 300
TYPES = ("F32", "F16", "BF16", "Q4_0", "Q8_0", "Q5_1")


@pytest.fixture(scope="module", params=TYPES)
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("model") / f"{request.param}.gguf"
    return make_tiny_gguf(file, type=request.param, dim=256, hidden_dim=512, context_length=512)


def footprint_of(path: Path, quantize: bool = False, kv: str = "f16") -> Footprint:
    checkpoint = Int8Checkpoint(open_checkpoint(path)) if quantize else open_checkpoint(path)
    cache = cache_type(checkpoint, kv)
    rows = cache_rows(CONTEXT, checkpoint.config, cache)
    return Footprint.of(checkpoint, CONTEXT, rows, chunks_of(CPUKernels(), rows), cache)


def test_a_cache_of_8_bit_blocks_is_foretold_to_the_byte(tmp_path):
    path = make_tiny_gguf(tmp_path / "tiny.gguf", type="Q8_0", dim=256, hidden_dim=512, n_heads=8, n_kv_heads=2, context_length=512)
    halves, blocks = footprint_of(path).cache, footprint_of(path, kv="q8_0").cache
    assert blocks == Llama.load(path, CONTEXT, device="CPU", kv="q8_0").new_cache().nbytes
    config = open_checkpoint(path).config
    rows, rounded = (cache_rows(CONTEXT, config, type) for type in (dtypes.float16, QUANTISED))
    assert blocks * rows * 32 == halves * rounded * 17  # a row has 34 bytes in place of 64


@pytest.mark.parametrize("quantize", [False, True])
def test_weights_and_cache_are_foretold_to_the_byte(model, quantize):
    llama = Llama.load(model, CONTEXT, device="CPU", quantize=quantize)
    info, model_ = footprint_of(model, quantize), llama.model
    norms = [model_.norm, *(norm for block in model_.blocks for norm in (block.attention_norm, block.ffn_norm))]
    assert info.weights == model_.nbytes + sum(t.nbytes() for t in (*(norm.weight for norm in norms), model_.blocks[0].rope))
    assert info.cache == llama.new_cache().nbytes


def test_what_a_gpus_kernels_take_while_they_run_is_foretold_with_little_to_spare(device, tmp_path):
    if device == "CPU":
        pytest.skip("the CPU's memory is not refused")
    path = make_tiny_gguf(tmp_path / "model.gguf", type="Q4_0", dim=256, hidden_dim=512, context_length=512)
    kernels = GPUKernels(Tuning("gpu", units=16, most_items=256, local_bytes=32 << 10))
    before = GlobalCounters.mem_used_per_device[device]
    llama = Llama.load(path, CONTEXT, device=device, kernels=kernels)
    cache = llama.new_cache()
    assert list(llama.generate([i % 100 for i in range(200)], 3, cache=cache))
    used, info = GlobalCounters.mem_used_per_device[device] - before, footprint_of(path)
    assert info.weights + info.cache < used < info.nbytes + (1 << 20)


@pytest.mark.parametrize("type", ["F32", "F16", "BF16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q2_K", "Q4_K", "Q5_K", "Q6_K", "IQ4_NL"])
@pytest.mark.parametrize("rows, cols", [(64, 256), (37, 512)])
def test_every_type_of_matrix_is_as_large_as_its_packing(type, rows, cols):
    block, nbytes = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[type]]
    matrix = QuantMatrix(type, (rows, cols), np.zeros((rows, cols // block * nbytes), np.uint8))
    assert footprint.packed_nbytes(type, (rows, cols)) == pack(matrix)[1].nbytes


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A device that has 50 kB available; the names of weights that were read."""
    read: list[str] = []
    monkeypatch.setattr(footprint, "available_memory", lambda device: 50_000)
    monkeypatch.setattr("app.models.llama.weight_cache.WeightCache.matrix", lambda self, name: read.append(name))
    return read


def test_what_does_not_fit_is_refused_before_anything_is_read(small, tmp_path):
    path = make_tiny_gguf(tmp_path / "model.gguf", type="Q4_0", dim=256, hidden_dim=512, context_length=512)
    with pytest.raises(DoesNotFit) as refused:
        Llama.load(path, CONTEXT, device="CPU")
    assert small == []
    assert (refused.value.needed, refused.value.available) == (footprint_of(path).nbytes, 50_000)
    words = str(refused.value)
    assert words.startswith("model.gguf needs ") and "(weights " in words and "a context of 300 tokens" in words
    assert "0 MB are available" in words and "--max-context" in words and "CPU=1" in words and "\n" not in words


def test_a_device_that_tells_nothing_refuses_nothing(monkeypatch, tmp_path):
    monkeypatch.setattr(footprint, "available_memory", lambda device: None)
    path = make_tiny_gguf(tmp_path / "model.gguf")
    assert Llama.load(path, 64, device="CPU").max_context == 64
