"""A KV cache of 8-bit blocks (--kv q8_0) beside one of float16: what it changes, how fast it is, what it takes.

    python -m bench.kv [--model PATH] [--text FILE] [--tokens 4000] [--contexts 512,4000,16000] [--samples 15]

Divergence: both caches read the same text; KL divergence of the distributions after each token to those over float16, for tokens of a
prompt and for the last ones as they are decoded, and how often the likeliest token is the same. Speed: decoding at several positions,
samples of both in turn, wall clock and processor time of all threads. A cache is filled with copies of what 512 tokens left, and
positions beyond the model's window are only there to be timed.
"""

import argparse
import json
import statistics
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from tinygrad import Device

from app.models.llama import Llama
from app.models.llama.cache_type import F16, Q8_0, cache_rows, cache_type
from app.models.llama.checkpoint import open_checkpoint
from app.models.llama.kv_cache import KVCache
from app.models.llama.transformer import Transformer
from bench import machine
from bench.worker import prompt_ids
from ext.tinygrad.backend import open_backend
from ext.tinygrad.kernels import kernels_for
from townhall.cli.chat_options import ChatOptions

ROOT = Path(__file__).resolve().parents[1]
FILLED = 512  # tokens that are read; the rest of a cache are copies
DECODED = 256  # of the text's last tokens
STEPS = 16  # of a sample
TEXTS = ("docs/architecture.md", "docs/kernels.md", "docs/characters.md", "docs/server.md", "docs/training.md", "docs/notes.md")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--text", type=Path, help="what is read for the divergence  [default: Townhall's documents]")
    parser.add_argument("--tokens", type=int, default=4000)
    parser.add_argument("--contexts", default="512,4000,16000")
    parser.add_argument("--samples", type=int, default=15)
    options = parser.parse_args()
    path = ChatOptions(model=options.model).model_path()
    text = options.text.read_text() if options.text else "\n".join((ROOT / name).read_text() for name in TEXTS)
    backend = open_backend()
    out: dict[str, Any] = {"device": backend.describe(), "machine": machine.describe(), "model": path.name}
    if options.tokens:
        out["divergence"] = divergence(path, text, options.tokens)
    contexts = [int(context) for context in options.contexts.split(",") if context]
    if contexts:
        out["speed"], out["memory"] = speed(path, contexts, options.samples)
    print(json.dumps(out, indent=1))


def divergence(path: Path, text: str, tokens: int) -> dict[str, Any]:
    """KL of q8_0 to f16, in nats, over the tokens of a text."""
    window = min(tokens, open_checkpoint(path).config.context_length)
    llamas = [Llama.load(path, window, kv=kv) for kv in (F16, Q8_0)]
    ids = llamas[0].tokenizer.encode(text)[:window]
    read, decoded = ids[:-DECODED], ids[-DECODED:]
    caches = [llama.new_cache() for llama in llamas]
    prompt = Divergence()
    for exact, ours in zip(*(llama.score(read, cache) for llama, cache in zip(llamas, caches, strict=True)), strict=True):
        prompt.add(exact, ours)
    steps = Divergence()
    for token in decoded:
        exact, ours = (llama.engine.step(token, cache).copy() for llama, cache in zip(llamas, caches, strict=True))
        steps.add(exact[None], ours[None])
    return {"prompt": prompt.to_json(), "decoded": steps.to_json()}


class Divergence:
    """Of two models' logits after the same tokens."""

    def __init__(self) -> None:
        self.kl: list[float] = []
        self.same = 0

    def add(self, exact: np.ndarray, ours: np.ndarray) -> None:
        for one, other in zip(exact.astype(np.float64), ours.astype(np.float64), strict=True):
            seen = np.isfinite(one) & np.isfinite(other)
            p, q = _log_softmax(one[seen]), _log_softmax(other[seen])
            self.kl.append(float(np.sum(np.exp(p) * (p - q))))
            self.same += int(np.argmax(p) == np.argmax(q))

    def to_json(self) -> dict[str, Any]:
        kl = np.array(self.kl)
        figures = {"mean": kl.mean(), "median": np.median(kl), "p99": np.quantile(kl, 0.99), "most": kl.max()}
        return {"tokens": len(kl), **{name: float(f"{value:.3g}") for name, value in figures.items()}, "same_top": self.same / len(kl)}


def _log_softmax(logits: np.ndarray) -> np.ndarray:
    shifted = logits - logits.max()
    found: np.ndarray = shifted - np.log(np.exp(shifted).sum())
    return found


def beyond(path: Path, window: int, kv: str) -> Llama:
    """The model with a window that may be longer than its own."""
    checkpoint, device = open_checkpoint(path), Device.canonicalize(None)
    kernels = kernels_for(device)
    cache = cache_type(checkpoint, kv)
    model = Transformer.from_checkpoint(checkpoint, kernels, device, cache_rows(window, checkpoint.config, cache), max_context=window)
    return Llama(model, checkpoint.tokenizer(), window, device, cache, "")


def fill(llama: Llama, cache: KVCache, tokens: int) -> None:
    """Have a cache hold so many tokens, the first of which were read."""
    if len(cache.tokens) < FILLED:
        llama.prefill(prompt_ids(FILLED, llama.config.vocab_size), cache)
    cache.truncate(FILLED)
    entries, times = cache.entries(FILLED), -(-tokens // FILLED)
    tensors = {name: np.tile(values, (1, times, 1))[:, :tokens] for name, values in entries.tensors.items()}
    cache.fill(replace(entries, tokens=(entries.tokens * times)[:tokens], tensors=tensors))


def speed(path: Path, contexts: Sequence[int], samples: int) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Decoding at each of these positions, and bytes of a thousand tokens."""
    window = max(contexts) + STEPS + 1
    llamas = {kv: beyond(path, window, kv) for kv in (F16, Q8_0)}
    caches = {kv: llama.new_cache() for kv, llama in llamas.items()}
    figures = []
    for context in contexts:
        for kv, llama in llamas.items():
            fill(llama, caches[kv], context)
            _sample(llama, caches[kv], context)
        taken: dict[str, list[tuple[float, float]]] = {kv: [] for kv in llamas}
        for _ in range(samples):
            for kv, llama in llamas.items():
                taken[kv].append(_sample(llama, caches[kv], context))
        wall, cpu = ({kv: statistics.median(one[i] for one in of) for kv, of in taken.items()} for i in (0, 1))
        figures.append(
            {
                "context": context,
                "tokens_per_second": {kv: round(1 / seconds, 1) for kv, seconds in wall.items()},
                "processor_ms_per_token": {kv: round(1e3 * seconds, 2) for kv, seconds in cpu.items()},
                "ratio_wall": round(statistics.median(a[0] / b[0] for a, b in zip(taken[F16], taken[Q8_0], strict=True)), 3),
                "ratio_processor": round(statistics.median(a[1] / b[1] for a, b in zip(taken[F16], taken[Q8_0], strict=True)), 3),
            }
        )
        print(json.dumps(figures[-1]), flush=True)
    return figures, {
        f"bytes_per_1000_tokens_{kv}": sum(t.nbytes() * 1000 // t.shape[1] for t in cache.tensors) for kv, cache in caches.items()
    }


def _sample(llama: Llama, cache: KVCache, context: int) -> tuple[float, float]:
    """Seconds of a token: by the clock, and of all threads."""
    started, busy = time.perf_counter(), time.process_time()
    for token in prompt_ids(STEPS, llama.config.vocab_size):
        llama.engine.step(token, cache)
    taken = (time.perf_counter() - started) / STEPS, (time.process_time() - busy) / STEPS
    cache.truncate(context)
    return taken


if __name__ == "__main__":
    main()
