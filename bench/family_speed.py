"""Families beside a LLaMA of the same bytes: python -m bench.family_speed [--only qwen2.5-0.5b,gemma3-1b,mixtral] [--type Q4_0]

Random weights in the shapes of published models. Both models are loaded at once and take turns, so that what the machine does meanwhile
meets both; medians and their ratio. A mixture is compared with a dense model of as many weights as a token uses.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from tinygrad import dtypes

from app.models.llama import Llama
from app.models.llama.cache_type import cache_rows
from app.models.llama.checkpoint.checkpoint import StoredMatrix, expected_shapes
from app.models.llama.config import LlamaConfig
from app.models.llama.config_hf import config_from_hf
from app.models.llama.traits import LLAMA
from app.models.llama.transformer import Transformer
from bench.shapes import random_rows
from ext.tinygrad.backend import open_backend
from ext.tinygrad.kernels import kernels_for
from ext.tinygrad.kernels.matrix import QuantMatrix

WINDOW = 1024
SHAPES: dict[str, dict[str, Any]] = {
    "qwen2.5-0.5b": {
        "model_type": "qwen2", "hidden_size": 896, "num_hidden_layers": 24, "num_attention_heads": 14, "num_key_value_heads": 2,
        "intermediate_size": 4864, "vocab_size": 151936, "tie_word_embeddings": True,
    },
    "gemma3-1b": {
        "model_type": "gemma3_text", "hidden_size": 1152, "num_hidden_layers": 26, "num_attention_heads": 4, "num_key_value_heads": 1,
        "head_dim": 256, "intermediate_size": 6912, "vocab_size": 262144, "sliding_window": 512,
    },
    "qwen3-0.6b": {
        "model_type": "qwen3", "hidden_size": 1024, "num_hidden_layers": 28, "num_attention_heads": 16, "num_key_value_heads": 8,
        "head_dim": 128, "intermediate_size": 3072, "vocab_size": 151936, "tie_word_embeddings": True,
    },
    "mixtral": {
        "model_type": "mixtral", "hidden_size": 1024, "num_hidden_layers": 12, "num_attention_heads": 16, "num_key_value_heads": 4,
        "intermediate_size": 3584, "vocab_size": 32000, "num_local_experts": 8, "num_experts_per_tok": 2,
    },
}  # fmt: skip


@dataclass
class RandomCheckpoint:
    """Random weights of one type, in the shapes of a configuration."""

    config: LlamaConfig
    type: str
    path: Path = Path("random")
    format: str = "random"
    nbytes: int = 0
    files: Sequence[Path] = ()

    def __post_init__(self) -> None:
        self._shapes = expected_shapes(self.config)

    @property
    def tensor_names(self) -> Collection[str]:
        return self._shapes.keys()

    def matrix(self, name: str, wanted: slice = slice(None)) -> QuantMatrix:
        rows, cols = self._shapes[name]
        data = random_rows(self.type, rows, cols)[wanted]
        return QuantMatrix(self.type, (len(data), cols), data)

    def vector(self, name: str) -> np.ndarray:
        return np.ones(self._shapes[name], np.float32)

    def stored(self, name: str) -> StoredMatrix:
        return StoredMatrix(self.type, self._shapes[name], 0)

    def prefetch(self, name: str) -> None: ...
    def release(self, name: str) -> None: ...
    def tokenizer(self) -> Any: ...

    @property
    def tokenizer_metadata(self) -> Mapping[str, Any]:
        return {}

    def token_roles(self) -> Mapping[str, Mapping[str, Sequence[int]]]:
        return {}

    def fingerprint(self) -> str:
        return "random"


def load(config: LlamaConfig, type: str, device: str) -> Llama:
    kernels = kernels_for(device)
    rows = cache_rows(WINDOW, config, dtypes.float16)
    model = Transformer.from_checkpoint(RandomCheckpoint(config, type), kernels, device, rows, max_context=WINDOW)
    tokenizer: Any = SimpleNamespace(stop_ids=frozenset(), undecodable=lambda rows: ())
    return Llama(model, tokenizer, WINDOW, device, dtypes.float16, "random")


def plain(config: LlamaConfig) -> LlamaConfig:
    """A LLaMA of the same bytes; of a mixture, one with as many weights as a token uses."""
    experts = config.traits.experts
    hidden = experts.used * experts.hidden_dim if experts else config.hidden_dim
    return replace(config, traits=LLAMA, hidden_dim=hidden)


class Contender:
    """One model and its cache."""

    def __init__(self, llama: Llama, clock: Callable[[], float]):
        self.llama, self.cache, self.clock = llama, llama.new_cache(), clock
        self.ids = [int(i) for i in np.random.default_rng(1).integers(3, 1000, WINDOW)]

    def decode(self, context: int, steps: int = 24) -> float:
        """Tokens per second from `context` on."""
        self.llama.prefill(self.ids[:context], self.cache)
        started = self.clock()
        for token in self.ids[context : context + steps]:
            self.llama.engine.step(token, self.cache)
        return steps / (self.clock() - started)

    def prefill(self, tokens: int = 512) -> float:
        self.cache.truncate(0)
        started = self.clock()
        self.llama.prefill(self.ids[:tokens], self.cache)
        return tokens / (self.clock() - started)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", help="shapes, with commas between")
    parser.add_argument("--type", default="Q4_0")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument(
        "--processor-time", action="store_true", help="count it, not the time that passes: for a busy machine, with THREADS=1"
    )
    options = parser.parse_args()
    clock = time.process_time if options.processor_time else time.perf_counter
    device = open_backend().device
    for name in options.only.split(",") if options.only else SHAPES:
        config = config_from_hf(SHAPES[name], SHAPES[name]["vocab_size"], name)
        pair = [Contender(load(one, options.type, device), clock) for one in (config, plain(config))]
        cases: dict[str, Callable[[Contender], float]] = {
            "decode at 32": lambda s: s.decode(32),
            "decode at 600": lambda s: s.decode(600),
            "prefill of 512": lambda s: s.prefill(),
        }
        for case, run in cases.items():
            for contender in pair:
                run(contender)
            samples = [[run(contender) for contender in pair] for _ in range(options.rounds)]
            ours, dense = (statistics.median(row[i] for row in samples) for i in (0, 1))
            ratio = statistics.median(row[0] / row[1] for row in samples)
            print(f"{name:<14} {options.type} {case:<15} {ours:8.1f} tok/s, LLaMA {dense:8.1f}, ratio {ratio:.2f}", flush=True)
        del pair
    return 0


if __name__ == "__main__":
    sys.exit(main())
