"""Townhall as a subject."""

import os
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from app.models.llama import Llama, SamplingParams
from app.models.llama.checkpoint import open_checkpoint
from app.models.llama.pass_sizes import chunks_of
from app.models.llama.sampler import Sampler
from app.models.llama.shared_passes import NextTokens
from bench import breakdown
from bench.weight_read import PlainRead
from bench.worker import prompt_ids
from ext.tinygrad import bandwidth
from ext.tinygrad.backend import open_backend
from ext.tinygrad.graph.pool import thread_count


class Townhall:
    """Engine steps as a generation makes them, sampling left out as it is on the other side."""

    def __init__(self, model: Path, capacity: int, adapters: Sequence[tuple[Path | str, float]] = (), kv: str = "f16"):
        self.backend = open_backend()
        capacity = min(capacity, open_checkpoint(model).config.context_length)
        self.llama = Llama.load(model, max_context=capacity, adapters=adapters, kv=kv)
        self.ids = prompt_ids(capacity, self.llama.config.vocab_size)
        self.cache, self.scratch = self.llama.new_cache(), self.llama.new_cache()
        self._read: PlainRead | None = None

    def describe(self) -> dict[str, Any]:
        c, model = self.llama.config, self.llama.model
        decode_weights = [w for block in model.blocks for w in block.matrices] + [model.output]
        return {
            "runtime": "Townhall on tinygrad",
            "backend": self.backend.describe(),
            "kernels": model.kernels.name,
            "default_threads": thread_count(),
            "packed_bytes": model.nbytes,
            "decode_weight_bytes": sum(w.nbytes for w in decode_weights) + (self.llama.adapters.nbytes if self.llama.adapters else 0),
            # keys and values of one position, all layers
            "kv_bytes_per_position": sum(tensor.nbytes() // tensor.shape[1] for tensor in self.cache.tensors),
            "cache_bytes": self.cache.nbytes,
            "context_length": c.context_length,
            "shape": {
                name: getattr(c, name) for name in ("dim", "n_layers", "n_heads", "n_kv_heads", "head_dim", "hidden_dim", "vocab_size")
            },
        }

    def threads(self, n: int) -> None:
        if self.llama.device == "CPU":
            from ext.tinygrad.graph import install

            install(n)
            os.environ["THREADS"] = str(n)  # and passes as large as who sets it gets
            self.llama.engine.chunks = chunks_of(self.llama.model.kernels, self.llama.engine.rows)

    def prefill(self, tokens: int) -> float:
        # to the logits after the last id, as a generation does it: the last id goes the way of decoding
        self.scratch.truncate(0)
        started = time.perf_counter()
        self.llama.prefill(self.ids[: tokens - 1], self.scratch)
        self.llama.engine.step(self.ids[tokens - 1], self.scratch)
        return time.perf_counter() - started

    def decode(self, context: int, tokens: int) -> float:
        self._fill(context)
        started = time.perf_counter()
        for token in self.ids[context : context + tokens]:
            self.llama.engine.step(token, self.cache)
        seconds = time.perf_counter() - started
        self.cache.truncate(context)
        return seconds

    def together(self, conversations: int, context: int, tokens: int) -> float:
        """Seconds that so many conversations take for `tokens` each from `context` on: in shared passes where the kernel set has them."""
        if conversations > 1:
            self.llama.share_passes(conversations)
        caches = [self.llama.new_cache() for _ in range(conversations)]
        for cache in caches:
            self.llama.prefill(self.ids[:context], cache)
        most = self.llama.most_rows if conversations > 1 else 0
        started = time.perf_counter()
        for token in self.ids[context : context + tokens]:
            for first in range(0, conversations, most or 1):
                some = caches[first : first + most] if most else [caches[first]]
                if most:
                    self.llama.compute_ahead([NextTokens(cache, [token], self.llama.model) for cache in some])
                for cache in some:
                    self.llama.engine.step(token, cache)
        return time.perf_counter() - started

    def sampling(self, context: int, tokens: int) -> dict[str, float]:
        """Seconds that a step, a greedy choice and the default choice take, medians over `tokens` steps from `context` on."""
        self._fill(context)
        samplers = {"greedy": Sampler(SamplingParams(temperature=0)), "default": Sampler(SamplingParams(seed=0))}
        seconds: dict[str, list[float]] = {name: [] for name in ("step", *samplers)}
        for position in range(context, context + tokens):
            started = time.perf_counter()
            logits = self.llama.engine.step(self.ids[position], self.cache)
            seconds["step"].append(time.perf_counter() - started)
            for name, sampler in samplers.items():
                started = time.perf_counter()
                sampler(logits, self.ids[: position + 1])
                seconds[name].append(time.perf_counter() - started)
        self.cache.truncate(context)
        return {name: statistics.median(values) for name, values in seconds.items()}

    def plain_read(self) -> float:
        """Bytes a second at which code that does nothing else reads a token's weights, on the threads set; 0 where that is unknown."""
        if self.llama.device != "CPU" or self.llama.model.kernels.name != "cpu":
            return 0.0
        self._read = self._read or PlainRead(self.llama.model)
        return self._read()

    def weight_bandwidth(self) -> float:
        """Bytes a second at which the canary reads the weights where they lie."""
        return bandwidth.bandwidth([tensor for weight in self.llama.model.weights for tensor in weight.tensors])

    def breakdown(self, tokens: int, context: int) -> list[dict[str, Any]]:
        """Kernels of a pass over `tokens` (1, or a chunk) that starts at `context`; empty where passes are no native graphs."""
        self._fill(context)
        return breakdown.of_pass(self.llama, self.cache, tokens, context)

    def _fill(self, context: int) -> None:
        self.llama.prefill(self.ids[:context], self.cache)
        self.cache.truncate(context)
