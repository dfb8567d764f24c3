"""Models that were loaded once and are kept while there is room: the least recently used goes first, the one in use never."""

import os
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from contextlib import suppress
from typing import Any, Generic, Protocol, TypeVar

from ext.tinygrad import garbage
from townhall.errors import ModelError

SHARE = 2  # of the machine's memory, one part in so many may be models


class ModelRequest(Protocol):
    """What says which model is meant."""

    @property
    def device(self) -> str | None: ...
    def model_key(self) -> Hashable:
        """Equal for all that one loaded model serves. ModelError where there is no such model."""
        ...

    def model_bytes(self) -> int:
        """About what it will take in memory."""
        ...


class CachedModel(Protocol):
    """A model in memory."""

    @property
    def llama(self) -> Any: ...


W = TypeVar("W", bound=ModelRequest)
L = TypeVar("L", bound=CachedModel)


class ModelCache(Generic[W, L]):
    """`load` opens a model, `again` makes what it gave fit for other options of the same model; `budget` is in bytes of weights.

    What was opened last is in use, and so is what was in use before it until `settle` is called.
    """

    def __init__(self, load: Callable[[W], L], again: Callable[[L, W], L] = lambda loaded, options: loaded, budget: int | None = None):
        self._load, self._again, self.budget = load, again, affordable() if budget is None else budget
        self._models: OrderedDict[Hashable, L] = OrderedDict()  # the least recently used first
        self._leaving: Hashable | None = None
        self._device: str | None = None

    def __len__(self) -> int:
        return len(self._models)

    def __contains__(self, options: W) -> bool:
        return options.model_key() in self._models

    def __iter__(self) -> Iterator[L]:
        """All that are kept, the newest in use first."""
        return reversed(self._models.values())

    @property
    def nbytes(self) -> int:
        return sum(map(weights, self._models.values()))

    def open(self, options: W) -> L:
        """The model that `options` mean, from memory where it is there. Raises what `load` raises; the model in use stays.

        A process has one device, that of its first model: ModelError for another.
        """
        if self._models and options.device != self._device:
            raise ModelError(f"--device {options.device}: the device cannot change while the program runs; leave, and start it there")
        self._device = options.device
        key = options.model_key()
        current = next(reversed(self._models), None)
        if key in self._models:
            loaded = self._models[key] = self._again(self._models[key], options)
        else:
            self._make_room(self.budget - options.model_bytes(), {current})
            loaded = self._models[key] = self._load_or_make_room(options, current)
        self._models.move_to_end(key)
        if key != current:
            self._leaving = current
        self._make_room(self.budget, {key, self._leaving})
        return loaded

    def settle(self) -> None:
        """The model that was used before the last `open` is no longer needed."""
        self._leaving = None
        self._make_room(self.budget, {next(reversed(self._models), None)})

    def _load_or_make_room(self, options: W, current: Hashable) -> L:
        try:
            return self._load(options)
        except (MemoryError, RuntimeError):  # drivers of accelerators raise the second
            if not self._make_room(0, {current}):
                raise
        return self._load(options)

    def _make_room(self, budget: int, keep: set[Hashable]) -> int:
        """Let go of models outside of `keep` until the rest is within the budget; how many went."""
        gone = 0
        for key in [key for key in self._models if key not in keep]:
            if self.nbytes <= max(0, budget):
                break
            release(self._models.pop(key))
            gone += 1
        return gone


def weights(loaded: CachedModel) -> int:
    """Bytes of weights on the device; a double has none."""
    return int(getattr(getattr(loaded.llama, "model", None), "nbytes", 0))


def release(loaded: CachedModel) -> None:
    """Give the memory of a model back to the machine; one that is still in use stays."""
    device = loaded.llama.device if weights(loaded) else None
    del loaded
    garbage.collect()
    if device:
        from tinygrad import Device

        with suppress(AttributeError):  # allocators that keep nothing for later
            Device[device].allocator.free_cache()


def affordable() -> int:
    """Bytes of weights that this machine may hold."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // SHARE
    except (ValueError, OSError, AttributeError):  # a system that does not say
        return 4 << 30
