"""llama.cpp as a subject, driven as its own llama-bench does: llama_decode of batches, logits of the last token, synchronise."""

import ctypes
import time
from pathlib import Path
from typing import Any

from bench.worker import BenchError, prompt_ids


def available() -> bool:
    """Is llama-cpp-python installed?"""
    import importlib.util

    return importlib.util.find_spec("llama_cpp") is not None


class LlamaCppPeer:
    """Library defaults (they are llama-bench's: batches of 2048 in pieces of 512, float16 cache, flash attention decided by itself,
    weights repacked where it knows a layout) but for `kv`, with a context as large as ours and the threads that are asked for."""

    def __init__(self, model: Path, capacity: int, kv: str = "f16"):
        if not available():
            raise BenchError("--against llama.cpp needs llama-cpp-python: pip install 'townhall[bench]' (it compiles llama.cpp)")
        from llama_cpp import __version__, llama_cpp

        self.lib, self.version = llama_cpp, __version__
        self._quiet = llama_cpp.llama_log_callback(lambda level, text, data: None)
        llama_cpp.llama_log_set(self._quiet, ctypes.c_void_p(0))
        llama_cpp.llama_backend_init()
        self.model = llama_cpp.llama_model_load_from_file(str(model).encode(), llama_cpp.llama_model_default_params())
        if not self.model:
            raise BenchError(f"llama.cpp cannot load {model}")
        parameters = llama_cpp.llama_context_default_params()
        parameters.n_ctx = capacity
        if kv == "q8_0":
            parameters.type_k = parameters.type_v = llama_cpp.GGML_TYPE_Q8_0
        self.context = llama_cpp.llama_init_from_model(self.model, parameters)
        if not self.context:
            raise BenchError(f"llama.cpp cannot make a context of {capacity} tokens for {model}")
        self.memory = llama_cpp.llama_get_memory(self.context)
        self.parameters = parameters
        self.vocab_size = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(self.model))
        ids = prompt_ids(capacity, self.vocab_size)
        self.ids = (llama_cpp.llama_token * len(ids))(*ids)
        self.held = 0

    def describe(self) -> dict[str, Any]:
        p = self.parameters
        return {
            "runtime": f"llama.cpp in llama-cpp-python {self.version}",
            "build": self.lib.llama_print_system_info().decode().strip(" |"),
            "settings": {name: getattr(p, name) for name in ("n_ctx", "n_batch", "n_ubatch", "flash_attn_type", "type_k", "type_v")},
        }

    def threads(self, n: int) -> None:
        self.lib.llama_set_n_threads(self.context, n, n)

    def prefill(self, tokens: int) -> float:
        self._truncate(0)
        started = time.perf_counter()
        self._decode(0, tokens)
        return time.perf_counter() - started

    def decode(self, context: int, tokens: int) -> float:
        self._truncate(min(context, self.held))
        if self.held < context:
            self._decode(self.held, context - self.held)
        started = time.perf_counter()
        for position in range(context, context + tokens):
            self._decode(position, 1)
        seconds = time.perf_counter() - started
        self._truncate(context)
        return seconds

    def _decode(self, start: int, count: int) -> None:
        piece = ctypes.cast(ctypes.byref(self.ids, start * ctypes.sizeof(self.lib.llama_token)), ctypes.POINTER(self.lib.llama_token))
        if code := self.lib.llama_decode(self.context, self.lib.llama_batch_get_one(piece, count)):
            raise BenchError(f"llama_decode of {count} tokens at {start} failed with {code}")
        self.lib.llama_synchronize(self.context)
        self.held = start + count

    def _truncate(self, position: int) -> None:
        if position == 0:
            self.lib.llama_memory_clear(self.memory, False)
        else:
            self.lib.llama_memory_seq_rm(self.memory, 0, position, -1)
        self.held = position
