"""Passes over rows of several conversations: which caches and models they are prepared for, and one run."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from app.models.llama.forward import RowPass
from app.models.llama.kv_cache import CacheArena, KVCache
from app.models.llama.lora.mixed_adapters import MixedAdapters, mixes
from app.models.llama.transformer import Transformer


@dataclass(frozen=True)
class NextTokens:
    """What a conversation's next step will put into its cache: a token that is certain, and perhaps guesses of those after it."""

    cache: KVCache
    tokens: Sequence[int]
    model: Transformer  # that fills the cache: SharedPasses.together says whose share a pass

    @property
    def alone(self) -> "NextTokens":
        """Without guesses."""
        return self if len(self.tokens) == 1 else replace(self, tokens=self.tokens[:1])

    @property
    def computed(self) -> bool:
        """Has a pass over rows done it already?"""
        return bool(self.cache.ahead) and self.cache.ahead[0].token == self.tokens[0]


class SharedPasses:
    """Of an engine's model, and of models that adapters over it make."""

    def __init__(self, model: Transformer, device: str):
        self._model, self._device = model, device
        self._passes: list[RowPass] = []  # by size
        self._arena: CacheArena | None = None  # of the caches that they can take
        self._shared: dict[int, Transformer] = {}  # that they are prepared for, by id
        self._mixed: MixedAdapters | None = None  # those of them whose rows may share a pass

    def share(self, arena: CacheArena, rows: int, model: Transformer) -> None:
        """Make `run` able to take up to `rows` tokens of caches of this arena that `model` fills, as far as the kernel set can.

        All is captured here; adapters laid over the engine's model make one of its own, which has no such passes where a row would be
        rounded otherwise than alone."""
        if model is not self._model and not self._model.kernels.changes_alike:
            return
        sizes = self._model.kernels.row_sizes(self._model.config.head_dim)
        needed = [T for i, T in enumerate(sizes) if i == 0 or sizes[i - 1] < rows]
        if self._arena is not arena:
            self._arena = arena
            self._passes = [RowPass(self._model, T, arena, self._device) for T in needed]
            self._shared, self._mixed = {}, None
        for run in self._passes:
            run.prepare(model)
        if id(model) not in self._shared:
            self._shared[id(model)] = model
            if model is not self._model and self._model.kernels.changes_by_row and mixes(self._model, model):
                self._mix()

    def _mix(self) -> None:
        """Prepare passes whose rows go through the base or through any model of adapters that passes are prepared for."""
        former, models = self._mixed, [one for one in self._shared.values() if one is not self._model and mixes(self._model, one)]
        self._mixed = MixedAdapters(self._model, models, self._device)
        for run in self._passes:
            run.prepare(self._mixed.model)
            if former:
                run.forget(former.model)

    def together(self, one: NextTokens, other: NextTokens) -> bool:
        """May a pass take both? Those of one model, and of adapters that change nothing but matrices over one base."""
        return one.model is other.model or (self._mixed is not None and self._mixed.takes(one.model) and self._mixed.takes(other.model))

    def shares(self, cache: KVCache) -> bool:
        """May `run` take this cache's tokens?"""
        return self._arena is not None and cache.arena is self._arena and id(cache.model or self._model) in self._shared

    @property
    def most_rows(self) -> int:
        """Tokens that `run` takes at most; 0 where it cannot be used."""
        return self._passes[-1].T if self._passes else 0

    def size_for(self, rows: int) -> int:
        """Tokens of the pass that takes so many, padding included."""
        return next((run.T for run in self._passes if rows <= run.T), rows)

    def run(self, wanted: Sequence[NextTokens], capacity: int) -> RowPass:
        """One pass over these tokens, in their order, those left out that a window of `capacity` has no room for."""
        ids, slots, positions, through = list[int](), list[int](), list[int](), list[Transformer]()
        for one in wanted:
            cache, first = one.cache, len(one.cache.tokens)
            assert self.shares(cache) and self.together(one, wanted[0]), "caches that cannot share a pass"
            kept = one.tokens[: capacity - first]
            ids += kept
            slots += [cache.slot] * len(kept)
            positions += range(first, first + len(kept))
            through += [one.model] * len(kept)
        model = through[0]
        if self._mixed is not None and any(other is not model for other in through):
            self._mixed.choose(through)
            model = self._mixed.model
        run = next(run for run in self._passes if len(ids) <= run.T)
        run.run(model, ids, slots, positions)
        return run
