"""What keys and values are kept as: floats, or 8-bit blocks that take about half; and how many rows of them."""

import math

from tinygrad import dtypes
from tinygrad.dtype import DType

from app.models.llama.checkpoint.checkpoint import Checkpoint
from app.models.llama.config import ConfigError, LlamaConfig
from app.models.llama.pass_sizes import CHUNKS
from ext.tinygrad.kernels.quantised_rows import BLOCK, QUANTISED, row_elements

F16, Q8_0 = "f16", "q8_0"  # what --kv takes
SUB_BUFFER = 512  # bytes: the coarsest step at which OpenCL drivers let a part of a buffer begin (CL_DEVICE_MEM_BASE_ADDR_ALIGN)


def cache_type(checkpoint: Checkpoint, kv: str) -> DType:
    """Of a cache's tensors. ConfigError where heads take no 8-bit blocks."""
    if kv == F16:
        # a float32 file asks for float32 throughout; every other is coarser than a float16 cache
        return dtypes.float32 if checkpoint.stored("tok_embeddings.weight").type == "F32" else dtypes.float16
    if kv != Q8_0:
        raise ConfigError(f"--kv {kv} is no type of a KV cache; pass {F16} or {Q8_0}")
    if (head_dim := checkpoint.config.head_dim) % BLOCK:
        raise ConfigError(
            f"--kv {kv} keeps blocks of {BLOCK} values, and this model's heads of {head_dim} are no multiple of that; pass --kv {F16}"
        )
    return QUANTISED


def cache_word(cache: DType) -> str:
    """As a cache's identity has it."""
    return Q8_0 if cache == QUANTISED else "float32" if cache == dtypes.float32 else "float16"


def cache_rows(max_context: int, config: LlamaConfig, cache: DType) -> int:
    """Rows of a cache of this type, and of the RoPE table: a padded chunk may begin at the last position of the window, and where caches
    lie side by side each begins where OpenCL has a buffer begin.

    Larger chunks than CHUNKS are taken only where there is room for them."""
    row = config.n_kv_heads * row_elements(config.head_dim, cache) * cache.itemsize  # bytes, of all heads
    step = SUB_BUFFER // math.gcd(SUB_BUFFER, row)
    return -(-(max_context + max(CHUNKS)) // step) * step
