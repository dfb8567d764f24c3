"""Targets of the fuzzer beside checkpoints: requests of clients, conversations in chat templates, thoughts, and stored KV entries."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import strategies as st

from ext.tinygrad.errors import TownhallError
from tests.reference import fuzz_cases as cases

Target = tuple[st.SearchStrategy[Any], Callable[[Any], object]]
CALL = {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": '{"town": "Ulm"}'}}
TOOL = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object", "properties": {"town": {"type": "string"}}}}}
CHAT: dict[str, Any] = {
    "model": "m", "max_tokens": -1, "max_completion_tokens": 5.0, "temperature": 0.7, "top_p": 1, "seed": 3, "stop": ["\n"], "n": 1,
    "logprobs": True, "top_logprobs": 2, "stream": True, "stream_options": {"include_usage": True}, "logit_bias": {"5": -100}, "user": "u",
    "chat_template_kwargs": {"enable_thinking": False}, "tools": [TOOL], "tool_choice": "auto", "min_p": 0.1, "dry_multiplier": 0.8,
    "response_format": {"type": "json_schema", "schema": {"type": "object", "properties": {"a": {"type": "integer"}}}},
    "messages": [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": [{"type": "input_text", "text": "a"}, {"type": "text", "text": "b"}]},
        {"role": "assistant", "content": None, "tool_calls": [CALL], "reasoning_content": "hm"},
        {"role": "function", "name": "weather", "content": "rain"}, {"role": "tool", "tool_call_id": "c1", "content": "rain"},
    ],
}  # fmt: skip
TEXT: dict[str, Any] = {
    "model": "m", "prompt": ["one", "two"], "max_tokens": 0, "echo": True, "logprobs": 3, "best_of": 1, "n": 1, "suffix": None, "stop": "x",
}  # fmt: skip
OLLAMA: dict[str, Any] = {
    "model": "m:latest", "stream": False, "format": {"type": "object"}, "options": {"num_predict": -2, "num_ctx": 9, "stop": ["a"]},
    "think": True, "keep_alive": "5m", "tools": [TOOL],
    "messages": [
        {"role": "user", "content": "hi", "images": []},
        {"role": "assistant", "content": "", "thinking": "t", "tool_calls": [{"function": {"name": "weather", "arguments": {}}}]},
        {"role": "tool", "tool_name": "weather", "content": "rain"},
    ],
}  # fmt: skip
RESPONSES: dict[str, Any] = {
    "model": "m", "instructions": "Be brief.", "input": [{"role": "user", "content": [{"type": "input_text", "text": "a"}]}],
    "max_output_tokens": 9, "text": {"format": {"type": "json_schema", "name": "x", "schema": {"type": "object"}}}, "store": False,
    "tools": [{"type": "function", "name": "weather", "parameters": {"type": "object"}}], "tool_choice": "auto",
}  # fmt: skip


def api_request(folder: Path) -> Target:
    """Bodies of OpenAI's and Ollama's calls with values replaced, removed, renamed, given twice, or broken as JSON."""
    from townhall.characters import bounded_json
    from townhall.server.ollama_requests import OllamaChat
    from townhall.server.requests import ChatRequest, CompletionRequest, parse
    from townhall.server.responses_api import ResponsesRequest

    def chat(asked: ChatRequest) -> None:
        assert asked.limit is None or isinstance(asked.limit, int)
        json.dumps([asked.think, asked.stops, asked.shape, asked.strategy, asked.with_usage])
        for message in asked.messages:
            assert isinstance(message.text, str) and all(call.function.name for call in message.calls)

    kinds: dict[str, tuple[dict[str, Any], Callable[[bytes], object]]] = {
        "chat": (CHAT, lambda body: chat(parse(ChatRequest, body))),
        "text": (TEXT, lambda body: json.dumps(parse(CompletionRequest, body).prompts)),
        "ollama": (OLLAMA, lambda body: chat(parse(OllamaChat, body).chat())),
        "responses": (RESPONSES, lambda body: chat(parse(ResponsesRequest, body).chat())),
    }

    def run(case: tuple[str, bytes]) -> None:
        kind, body = case
        bounded_json.parse(body, "the body")
        kinds[kind][1](body)

    for kind, (sound, _) in kinds.items():
        run((kind, json.dumps(sound).encode()))
    return st.sampled_from(sorted(kinds)).flatmap(lambda kind: cases.changed(kinds[kind][0]).map(lambda body: (kind, body))), run


def thoughts(folder: Path) -> Target:
    """Whatever a model writes, in pieces: no text is lost, and what is shown does not hang on where it is cut."""
    from townhall.thoughts import ThoughtFilter

    piece = st.one_of(
        st.sampled_from(["<think>", "</think>", "<", "think>", "</", "\n", " ", "a", "<thinking>", "<think", ">"]), st.text(max_size=3)
    )

    def filtered(parts: list[str], thinking: bool) -> tuple[str, str]:
        found, filter_ = ["", ""], ThoughtFilter(thinking)
        for words in (*(filter_.push(part) for part in parts), filter_.flush()):
            found = [found[0] + words[0], found[1] + words[1]]
        return found[0], found[1]

    def run(case: tuple[list[str], bool]) -> None:
        parts, thinking = case
        whole = "".join(parts)
        assert filtered(parts, thinking) == filtered([whole], thinking) == filtered(list(whole), thinking)
        if not whole.strip():
            raise TownhallError("nothing was said")

    return st.tuples(st.lists(piece, max_size=12), st.booleans()), run


def stored_entries(folder: Path) -> Target:
    """KV entries on disk, damaged, or with a sound digest over tensors and gaps of any shape; a cache that refuses them stays as it was."""
    from tinygrad import dtypes

    from app.models.llama import snapshot
    from app.models.llama.key_shift import CHUNK, Shifter
    from app.models.llama.kv_cache import KVCache
    from ext.tinygrad import buffers
    from ext.tinygrad.kernels.protocol import rope_table
    from tests.app.models.llama.test_kv_cache import CONFIG

    capacity, window, heads, head_dim = 2400, 20, CONFIG.n_kv_heads, CONFIG.head_dim
    rope = buffers.upload(rope_table(capacity + CHUNK, head_dim, head_dim, 1e4), "CPU")
    cache = KVCache(
        CONFIG, capacity, capacity + CHUNK, dtypes.float16, "CPU", Shifter([rope] * 2, capacity + CHUNK), {"a": "b"}, None, (window, 0)
    )
    cache.extend(list(range(2000)))
    path = folder / "entries.safetensors"
    cache.snapshot(path)
    sound, entries = path.read_bytes(), cache.entries(2000)
    assert entries.gap[0] < entries.gap[1]

    def restore() -> None:
        held = cache.tokens
        try:
            cache.restore(path)
        except snapshot.SnapshotError as error:
            assert cache.tokens is held
            raise TownhallError(str(error)) from None
        assert cache.reachable(len(cache.tokens)) == len(cache.tokens)
        cache.restore_sound()  # type: ignore[attr-defined]

    def run(case: bytes | tuple[int, list[int], int, int]) -> None:
        path.unlink(missing_ok=True)
        if isinstance(case, bytes):
            path.write_bytes(case)
        else:
            n, gap, first, other = case
            tensors = {
                f"layers.{i}.{part}": np.zeros((heads, rows, head_dim), np.float16) for i, rows in ((0, first), (1, other)) for part in "kv"
            }
            snapshot.save(path, {"a": "b"}, capacity, list(range(n)), tensors | {"gap": np.array(gap, np.int32)})
        restore()

    cache.restore_sound = lambda: cache.fill(entries)  # type: ignore[attr-defined]
    run(sound)
    rows = st.one_of(st.integers(0, 2500), st.sampled_from([2000, 2000 - (entries.gap[1] - entries.gap[0]), 100]))
    bounds = st.one_of(st.integers(-5, 2500), st.sampled_from([0, 1024, *entries.gap, 2**31 - 1, -(2**31)]))
    crafted = st.tuples(
        rows, st.one_of(st.lists(bounds, min_size=2, max_size=2), st.just(list(entries.gap)), st.lists(bounds, max_size=4)), rows, rows
    )
    fitting = st.tuples(st.integers(0, 2400), bounds, bounds).map(
        lambda c: (c[0], [c[1], c[2]], max(0, min(2400, c[0] - c[2] + c[1])), c[0])
    )
    return st.one_of(cases.damaged(sound, 0, 1500), cases.damaged(sound), crafted, fitting), run


TARGETS: tuple[Callable[[Path], Target], ...] = (api_request, thoughts, stored_entries)
