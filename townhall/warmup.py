"""Filling the caches that a first start would wait for: compiled kernels, packed weights."""

from collections.abc import Callable
from pathlib import Path

from app.models.llama import Llama, SamplingParams
from app.models.llama.weight_cache import settle
from ext.tinygrad.backend import open_backend


def warm(model: Path, max_context: int = 1024, progress: Callable[[int, int], None] | None = None) -> str:
    """Load the model and make every pass once that a conversation makes; -> the device it was done for."""
    backend = open_backend()
    llama = Llama.load(model, max_context, progress, tune=None)
    cache = llama.new_cache()
    for tokens in llama.prefill_sizes:
        cache.truncate(0)
        llama.prefill([1] * min(tokens, max_context), cache)
    cache.truncate(0)
    next(llama.generate([1], 1, SamplingParams(temperature=0), cache), None)
    settle()
    return backend.describe()
