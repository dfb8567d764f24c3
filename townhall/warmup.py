"""Filling the caches that a first start would wait for: compiled kernels, packed weights."""

from collections.abc import Callable, Sequence
from pathlib import Path

from app.models.llama import SamplingParams
from app.models.llama.weight_cache import settle
from ext.tinygrad.backend import open_backend
from townhall.default_window import load_llama


def warm(
    model: Path,
    max_context: int | None,
    kv: str,
    adapters: Sequence[tuple[Path, float]],
    progress: Callable[[int, int], None],
    note: Callable[[str], object],
) -> str:
    """Load the model and make every pass once that a conversation makes, through these adapters as well; -> the device it was done for.

    `kv` as for `Llama.load`. `note` gets a sentence where a default window has to fit itself to the model.
    """
    backend = open_backend()
    llama = load_llama(model, max_context, note, progress=progress, tune=None, kv=kv)
    for one in dict.fromkeys([llama, llama.adapted(adapters)]):
        cache = one.new_cache()
        one.warm(cache)
        next(one.generate([1], 1, SamplingParams(temperature=0), cache), None)
    settle()
    return backend.describe()
