"""`Llama`: a checkpoint, opened, on a device, ready to be asked. Run as a script it starts the session with Stacy."""

if (
    __name__ == "__main__"
):  # python3 app/models/llama/llama.py: the house is two floors up, and this folder's names must not shadow packages
    import sys
    from pathlib import Path

    sys.path[0] = str(Path(__file__).resolve().parents[3])
    from townhall.cli.main import main  # the one import upward

    sys.exit(main(["chat", *sys.argv[1:]]))

import copy
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from tinygrad import Device, Tensor, dtypes
from tinygrad.dtype import DType

from app.models.llama.cache_type import F16, cache_rows, cache_type, cache_word
from app.models.llama.checkpoint import Checkpoint, open_checkpoint
from app.models.llama.config import ConfigError, LlamaConfig
from app.models.llama.engine import ContextOverflow, Draw, Engine, Generation, PrefillStats
from app.models.llama.footprint import Footprint, check_fit
from app.models.llama.key_shift import Shifter
from app.models.llama.kv_cache import CacheArena, CacheError, KVCache
from app.models.llama.lora.adapter import Adapter
from app.models.llama.lora.adapter_set import AdapterSet, key_of, lay_over
from app.models.llama.lora.open_adapter import open_adapter
from app.models.llama.pass_sizes import chunks_of
from app.models.llama.sampler import Sampler, SamplingParams
from app.models.llama.sequence_breakers import breakers_for
from app.models.llama.shared_passes import NextTokens
from app.models.llama.speculation import Drafter, DraftModel, Speculation, SpeculationCount
from app.models.llama.tokenizers.tokenizer import Tokenizer
from app.models.llama.traits import Rope
from app.models.llama.transformer import Transformer, rope_angles
from app.models.llama.weight_cache import WeightCache
from ext.tinygrad.backend import Backend, describe_device
from ext.tinygrad.buffers import upload
from ext.tinygrad.deferred_imports import paused_collector
from ext.tinygrad.graph import pool
from ext.tinygrad.kernels import kernels_for
from ext.tinygrad.kernels.protocol import Kernels, Tunable

__all__ = ["ContextOverflow", "Generation", "KVCache", "Llama", "PrefillStats", "SamplingParams"]

Progress = Callable[[int, int], None]  # (done, total)
FIRST_TUNE = 2.0  # seconds
REPLY = 512  # positions beyond a prompt whose memory is taken along with the prompt's
MOST_SETS = 8  # of adapters that are kept on the device
VERSION = "2"  # of the numbers this runtime computes: raise it when a change makes older KV snapshots differ from a fresh prefill


class Llama:
    """One model on one device; any number of caches, one for each conversation."""

    def __init__(
        self,
        model: Transformer,
        tokenizer: Tokenizer,
        max_context: int,
        device: str,
        cache: DType,
        fingerprint: str,
        exact: bool = False,
    ):
        """`cache`: the type of its tensors; `exact`: of a float32 file, whose adapters stay float32, too."""
        self.model, self.tokenizer, self.max_context, self.device = model, tokenizer, max_context, device
        self.config: LlamaConfig = (config := model.config)
        self._unscaled: dict[Rope, Tensor] = {}
        self.fingerprint = fingerprint  # of the checkpoint's content
        self.engine = Engine(model, max_context, device)
        self._cache_dtype = cache
        self._windows = tuple(block.attention.window for block in model.blocks)
        self._shifter = Shifter([self._turning(layer) for layer in range(config.n_layers)], model.rows)
        self._identity = {"model": fingerprint, "device": device, "kernels": model.kernels.name} | {
            "cache": cache_word(cache),
            "townhall": VERSION,
        }
        self._undecodable = tokenizer.undecodable(config.vocab_size)
        self._scratch: KVCache | None = None
        self._arena: CacheArena | None = None
        self._drafter: Callable[[], Drafter] | None = None
        self.speculated = SpeculationCount()
        self.quantised = 0  # matrices that were floats in the file
        self._exact = exact
        self.adapters: AdapterSet | None = None  # that fill new caches
        self._adapters: dict[Path, Adapter] = {}
        self._sets: dict[str, AdapterSet | None] = {}

    def _turning(self, layer: int) -> Tensor:
        """The RoPE table that shifts a layer's keys: they carry YaRN's scale already, and may only be turned."""
        rope = self.config.rope(layer, self.max_context)
        if rope.scale == 1:
            return self.model.blocks[layer].rope
        if rope not in self._unscaled:
            self._unscaled[rope] = upload(rope_angles(rope, self.config.head_dim, self.model.rows, scaled=False), self.device)
        return self._unscaled[rope]

    @classmethod
    @paused_collector()
    def load(
        cls,
        path: Path | str,
        max_context: int = 1024,
        progress: Progress | None = None,
        device: str | None = None,
        kernels: Kernels | None = None,
        quantize: bool = False,
        stop: Sequence[str] = (),
        tune: float | None = FIRST_TUNE,
        adapters: Sequence[tuple[Path | str, float]] = (),
        kv: str = F16,
    ) -> "Llama":
        """Open, lay out and place the weights; `progress(bytes done, bytes in all)` is called along the way.

        The device is tinygrad's default, the kernel set the fastest that serves it, unless they are named. `quantize` makes float
        matrices 8-bit integers; `stop`, tokens or their ids, takes the place of what the files declare as ends.
        `adapters` are laid over the model, each with its scale (`adapted`). `kv`: what caches keep, "f16" (float32 for a float32 file) or
        "q8_0", 8-bit blocks that take about half.
        `tune`: seconds that a kernel set may measure which launches suit this device, where it has not yet (None: as long as it takes).

        Raises CheckpointError, ConfigError or TokenizerError for a file that cannot serve, ConfigError for a window beyond the model's or a
        `kv` that it cannot have, and
        DoesNotFit where the device tells that it has less memory available than the model needs: nothing is read by then.
        """
        checkpoint: Checkpoint = open_checkpoint(path)
        quantised = 0
        if quantize:
            from app.models.llama.checkpoint.quantization import Int8Checkpoint

            checkpoint = eight_bit = Int8Checkpoint(checkpoint)
            quantised = len(eight_bit.quantised)
        config = checkpoint.config
        if not 1 <= max_context <= config.context_length:
            raise ConfigError(
                f"--max-context {max_context} exceeds the {config.context_length} tokens that {Path(path).name} was trained for; "
                f"pass {config.context_length} or less"
                if max_context > 0
                else f"--max-context {max_context} holds no token; pass a number from 1 to {config.context_length}"
            )
        device, done, given = Device.canonicalize(device), 0, kernels
        kernels = kernels or kernels_for(device)
        cache = cache_type(checkpoint, kv)
        rows = cache_rows(max_context, config, cache)
        footprint = partial(Footprint.of, checkpoint, max_context, rows, chunks_of(kernels, rows), cache, device)
        check_fit(footprint, Path(path).name, kernels, device)
        matrices = WeightCache(checkpoint, kernels, device)  # is read by a thread of its own, in the meantime
        tokenizer = checkpoint.tokenizer()  # before the weights are packed: it may refuse
        if stop:
            tokenizer.stop_at(stop)

        def count(nbytes: int) -> None:
            nonlocal done
            done += nbytes
            if progress:
                progress(done, checkpoint.nbytes)

        model = Transformer.from_checkpoint(checkpoint, kernels, device, rows, count, matrices, max_context)
        matrices.close()
        exact = cache_type(checkpoint, F16) == dtypes.float32
        llama = cls(model, tokenizer, max_context, device, cache, checkpoint.fingerprint(), exact)
        llama.quantised = quantised
        if given is None and isinstance(kernels, Tunable):
            kernels.tune(model.one_token_products(cache), tune)  # the engine has put its graph runner in place, and captured nothing yet
        return llama.adapted(adapters) if adapters else llama

    def adapted(self, adapters: Sequence[tuple[Path | str | Adapter, float]]) -> "Llama":
        """The same model with these adapters, each with its scale, and no others laid over it: caches that it makes are filled by them.

        Weights, passes and tokenizer are this one's; an adapter's file is read once. AdapterError for one that does not fit.
        """
        scaled = [(self.adapter(one), scale) for one, scale in adapters if scale]
        key = key_of(scaled)
        if key == ("" if self.adapters is None else self.adapters.key):
            return self
        if key not in self._sets:
            while len(self._sets) >= MOST_SETS:
                del self._sets[next(iter(self._sets))]
            self._sets[key] = lay_over(self.model, scaled, self.device, self._exact)
        view = copy.copy(self)
        view.adapters, view._scratch = self._sets[key], None
        return view

    def adapter(self, path: Path | str | Adapter) -> Adapter:
        """The adapter at a path, read once."""
        if isinstance(path, Adapter):
            return path
        if (found := Path(path).resolve()) not in self._adapters:
            self._adapters[found] = open_adapter(path, self.config)
        return self._adapters[found]

    @property
    def backend(self) -> Backend:
        """The device that holds the weights, as its driver describes it."""
        return describe_device(self.device)

    def new_cache(self) -> KVCache:
        """An empty cache for one conversation."""
        rows, identity = self.model.rows, self._identity
        if self.adapters is not None:
            identity = identity | {"adapters": self.adapters.key}
        cache = KVCache(
            self.config, self.max_context, rows, self._cache_dtype, self.device, self._shifter, identity, self._arena, self._windows
        )
        cache.model = None if self.adapters is None else self.adapters.model
        return cache

    def share_passes(self, conversations: int, rows: int = 0) -> None:
        """Let so many caches, of those made from now on, have their next steps computed in one pass by `compute_ahead`.

        `rows`: tokens of such a pass, by default one of each. Everything is captured here; where the kernel set has no such passes
        nothing changes."""
        if not self.model.kernels.row_sizes(self.config.head_dim):
            return
        if self._arena is None or self._arena.slots < conversations:
            shape = (self.config.n_kv_heads, self.model.rows, self.config.head_dim)
            try:
                self._arena = CacheArena(conversations, self.config.n_layers, shape, self._cache_dtype, self.device, self._windows)
            except CacheError:
                return
        self.engine.sharing.share(self._arena, rows or conversations, self.model if self.adapters is None else self.adapters.model)

    def speculate(self, drafter: Callable[[], Drafter]) -> None:
        """From now on guess what comes next, by a `drafter` for each generation, where a cache's passes can be shared (`share_passes`)."""
        self._drafter = drafter

    def draft_with(self, draft: "Llama") -> None:
        """`speculate` with a smaller model. ConfigError for one of another vocabulary."""
        ours, theirs = (dict(llama.tokenizer.spellings()) for llama in (self, draft))
        if ours != theirs or self.tokenizer.special_ids != draft.tokenizer.special_ids:
            raise ConfigError("--draft needs a model of the same vocabulary; pass a smaller model of the same family")
        self.speculate(lambda: DraftModel(draft))

    @property
    def most_rows(self) -> int:
        """Tokens that `compute_ahead` takes at most; 0 where it cannot be used."""
        return self.engine.sharing.most_rows

    def compute_ahead(self, wanted: Sequence[NextTokens]) -> None:
        """The next steps of several conversations (`Generation.upcoming`) in one pass: each finds its own done when it goes on."""
        self.engine.ahead(wanted)

    def together(self, one: NextTokens, other: NextTokens) -> bool:
        """May `compute_ahead` take both at once? Adapters that change nothing but matrices share passes with each other and the base."""
        return self.engine.sharing.together(one, other)

    def offer_cores(self, offered: bool) -> None:
        """While offered, and until the next pass on the CPU ends, its helper threads let waiting threads run between two tasks."""
        pool.offer_cores(offered)

    def make_ready(self, cache: KVCache, tokens: int, seconds: float) -> bool:
        """Before so many tokens are read into a cache, do a part of what their passes would wait for: take memory for about so many
        seconds, or settle a pass. True once nothing is left to do."""
        return cache.take_memory(tokens + REPLY, seconds) and self.engine.bind(tokens, cache)

    def warm(self, cache: KVCache) -> None:
        """Compile and prepare every pass that reads a prompt into this cache, and the step of decoding; what it holds may be lost."""
        self.engine.warm(cache)

    def pass_tokens(self, tokens: int, cache: KVCache) -> int:
        """Of so many that are to be read into a cache, how many the next pass takes."""
        return self.engine.pass_tokens(tokens, cache)

    @property
    def patience(self) -> float | None:
        """Seconds that a pass of a prompt may take, as far as its sizes allow; None: as long as they like."""
        return self.engine.patience

    @patience.setter
    def patience(self, seconds: float | None) -> None:
        self.engine.patience = seconds

    def prefill(self, ids: list[int], cache: KVCache, on_progress: Progress | None = None) -> PrefillStats:
        """Make the cache hold exactly `ids`, computing only what follows the prefix it already holds. ContextOverflow beyond the window."""
        return self.engine.prefill(ids, cache, on_progress)

    def generate(
        self,
        ids: list[int],
        max_tokens: int,
        sampling: SamplingParams | Draw = SamplingParams(temperature=0),
        cache: KVCache | None = None,
        stop_ids: frozenset[int] | None = None,
    ) -> Generation:
        """Continue `ids`, at least one; stop_ids default to the tokenizer's. ContextOverflow for a prompt beyond the window.

        `sampling` says how ids are drawn, or is what draws them.
        """
        if not ids:
            raise ValueError("generate needs at least one id to continue")
        if len(ids) > self.max_context:
            raise ContextOverflow(len(ids), self.max_context)
        stops = self.tokenizer.stop_ids if stop_ids is None else stop_ids
        cache = self.new_cache() if cache is None else cache
        draw = Sampler(sampling, breakers_for(self.tokenizer, sampling)) if isinstance(sampling, SamplingParams) else sampling
        guesses = Speculation(self._drafter(), self.engine.row_cost, self.speculated) if self._drafter else None
        return Generation(self.engine, cache, list(ids), draw, max_tokens, stops, self._undecodable, guesses)

    def logits(self, ids: list[int]) -> np.ndarray:
        """Teacher-forced logits after each of `ids`, float32 (len(ids), V)."""
        if self._scratch is None:
            self._scratch = self.new_cache()
        return self.engine.score(ids, self._scratch)

    def score(self, ids: list[int], cache: KVCache) -> Iterator[np.ndarray]:
        """The same a pass at a time, through a cache of the caller's, which ends up holding ids; ids that are never sampled have -inf."""
        for rows in self.engine.score_steps(ids, cache):
            rows[:, self._undecodable] = -np.inf
            yield rows

    def hidden(self, ids: list[int], cache: KVCache) -> Iterator[np.ndarray]:
        """The last hidden states after each of `ids`, float32 (tokens, D) a pass at a time, normed as the head reads them."""
        return self.engine.hidden_steps(ids, cache)
