"""Conversations without end on a real (tiny) engine: the numbers after an overflow, constant memory, the persona whole."""

import os
import resource
import statistics
import sys
import time
from collections.abc import Callable, Generator
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from tinygrad import helpers

from app.models.llama import Llama, SamplingParams
from ext.tinygrad import buffers
from tests.reference.tiny import make_tiny_gguf
from townhall import Conversation, Persona
from townhall.context.strategies import STRATEGIES
from townhall.errors import ContextError
from townhall.persona import Example
from townhall.prefix_cache import PrefixCache

pytestmark = pytest.mark.slow

PERSONA = Persona("Stacy", "Stacy raps about history and the sea.", examples=(Example("Who are you?", "I am Stacy."),))
CAPACITY = 1024


@pytest.fixture(scope="module")
def llama_on(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Llama]:
    """A tiny model on a device. Its weights are not quantised: rounding activations to int8 makes 1e-2 of logits out of 1e-7."""
    folder = tmp_path_factory.mktemp("tiny")

    @cache
    def load(device: str, type: str = "F16") -> Llama:
        path = folder / f"{type}.gguf"
        if not path.exists():
            make_tiny_gguf(path, type=type, context_length=CAPACITY)
        return Llama.load(path, CAPACITY, device=device)

    return load


def chat_state(llama: Llama, context: str, seed: int = 1, max_tokens: int = 24, **settings: object) -> Conversation:
    return Conversation(
        llama, PERSONA, context=context, sampling=SamplingParams(temperature=1.0, seed=seed), max_tokens=max_tokens, **settings
    )


def turn(conversation: Conversation, n: int) -> None:
    for _ in conversation.reply(f"Tell me {'much ' * 15}more about number {n}, please."):
        pass
    conversation.after_reply()


def keys(llama: Llama, cache: object, layer: int = 0) -> np.ndarray:
    """Layer keys of all held tokens, (KvH, n, Hd)."""
    tensor = cache.layers[layer].k
    return buffers.read(tensor, np.empty(tensor.shape, np.float32 if tensor.nbytes() // tensor.numel() == 4 else np.float16))[
        :, : len(cache.tokens)
    ].astype(np.float32)


def fresh(llama: Llama, tokens: list[int]) -> object:
    cache = llama.new_cache()
    llama.prefill(list(tokens), cache)
    return cache


def test_after_many_shifts_the_first_layers_keys_equal_a_fresh_prefill(llama_on, device: str) -> None:
    llama = llama_on(device)
    random, cache, step = np.random.default_rng(5), llama.new_cache(), 20
    ids = [int(n) for n in random.integers(0, llama.config.vocab_size, 200)]
    llama.prefill(ids, cache)
    for shift in range(1, 51):
        start = int(random.integers(1, 150))
        cache.remove(start, start + step)
        llama.prefill([*cache.tokens, *(int(n) for n in random.integers(0, llama.config.vocab_size, step))], cache)
        if shift in (1, 2, 10, 50):
            ours, theirs = keys(llama, cache), keys(llama, fresh(llama, cache.tokens))
            # half a unit of float16 is more than 1e-3 for keys beyond 2: there the bound is relative
            assert np.all(np.abs(ours - theirs) <= 1e-3 * np.maximum(1, np.abs(theirs))), np.abs(ours - theirs).max()


def _more(*args: object) -> Generator[None, None, str]:
    yield
    return "More about the number, please."


@pytest.mark.parametrize("context", ["slide", "summarize"])
def test_logits_after_an_overflow_are_those_of_a_fresh_run(llama_on, device: str, context: str, monkeypatch: pytest.MonkeyPatch) -> None:
    llama = llama_on(device)
    conversation = chat_state(llama, context)
    if context == "summarize":  # what a tiny random model writes is no memory: let it have written this
        monkeypatch.setattr("townhall.context.summarizer.Summarizer._answer", _more)
    overflows = summaries = 0
    for n in range(30):
        turn(conversation, n)
        if conversation.last.receipt.dropped or (summaries < 3 and conversation.plan.memory):
            overflows += bool(conversation.last.receipt.dropped)
            summaries += bool(conversation.plan.memory)
            held = list(conversation.cache.tokens)
            last = held.pop()
            conversation.cache.truncate(len(held))
            ours = llama.engine.step(last, conversation.cache).copy()
            theirs = llama.engine.step(last, fresh(llama, held))
            np.testing.assert_allclose(ours, theirs, atol=1e-3)
            np.testing.assert_allclose(ours, llama.logits([*held, last])[-1], atol=1e-3)
            if overflows >= 3:
                break
    assert overflows >= 3 and (summaries >= 3) == (context == "summarize")


def test_a_restored_persona_gives_the_same_bits_as_a_prefilled_one(llama_on, device: str, tmp_path: Path) -> None:
    llama, said = llama_on(device), []
    heads = PrefixCache(tmp_path / "heads", say=said.append)
    first, second = chat_state(llama, "slide", heads=heads), chat_state(llama, "slide", heads=heads)
    assert first.prepare().restore_seconds is None and second.prepare().restore_seconds is not None
    for layer in range(llama.config.n_layers):
        assert np.array_equal(keys(llama, first.cache, layer), keys(llama, second.cache, layer))
    for n in range(3):
        a, b = (llama.engine.step(7 + n, conversation.cache).copy() for conversation in (first, second))
        assert np.array_equal(a, b)
    assert not said


def test_a_snapshot_of_another_model_is_no_snapshot_of_this_one(llama_on, tmp_path: Path) -> None:
    heads, said = tmp_path / "heads", []
    for type in ("F16", "F32"):
        assert chat_state(llama_on("CPU", type), "slide", heads=PrefixCache(heads, say=said.append)).prepare().restore_seconds is None
    one, other = sorted(heads.iterdir())
    other.write_bytes(one.read_bytes())  # under a name that is not its own
    restored = [
        chat_state(llama_on("CPU", type), "slide", heads=PrefixCache(heads, say=said.append)).prepare().restore_seconds
        for type in ("F16", "F32")
    ]
    assert restored.count(None) == 1 and len(said) == 1 and "made under another identity" in said[0]


@pytest.mark.parametrize("damage", [lambda data: data[: len(data) // 2], lambda data: data[:-9] + bytes([data[-9] ^ 1]) + data[-8:]])
def test_a_damaged_persona_is_said_in_one_line_and_read_anew(llama_on, tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    llama, said = llama_on("CPU"), []
    heads = PrefixCache(tmp_path / "heads", say=said.append)
    whole = chat_state(llama, "slide", heads=heads)
    whole.prepare()
    (path,) = heads.folder.iterdir()
    path.write_bytes(damage(path.read_bytes()))
    again = chat_state(llama, "slide", heads=heads)
    assert again.prepare().restore_seconds is None
    assert len(said) == 1 and "read anew" in said[0] and "\n" not in said[0]
    assert np.array_equal(keys(llama, whole.cache), keys(llama, again.cache))
    assert chat_state(llama, "slide", heads=heads).prepare().restore_seconds is not None and len(said) == 1


def test_a_full_disk_costs_the_stored_persona_and_not_the_conversation(llama_on, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    llama, said = llama_on("CPU"), []
    # bytecode would be cut; and a kernel that could not be stored would have this process, and those of later tests, keep none any more
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.setattr(helpers, "_db_connection", helpers._db_connection)
    monkeypatch.setenv("CACHELEVEL", "2")
    conversation = chat_state(llama, "shift", heads=PrefixCache(tmp_path / "heads", say=said.append))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))  # the kernel refuses what goes beyond, as a full disk does
    try:
        conversation.prepare()
        for n in range(20):
            turn(conversation, n)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert len(conversation.exchanges) == 20 and len(said) == 1 and "could not be stored" in said[0]
    assert list((tmp_path / "heads").iterdir()) == []


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_reply_that_reaches_the_window_ends_with_length(llama_on, strategy: str) -> None:
    llama = llama_on("CPU")
    conversation = chat_state(llama, strategy, max_tokens=10_000)
    conversation.prompt.stop_ids, conversation.prompt.stop = frozenset({llama.config.vocab_size + 1}), ()
    for n in range(3):
        try:
            turn(conversation, n)
        except ContextError:
            assert strategy == "stop"
            break
        assert conversation.last.finish_reason == "length"
        assert conversation.last.prompt_tokens + conversation.last.tokens == CAPACITY + 1
    assert conversation.cache.tokens[: conversation.window.pinned] == list(conversation.prompt.head_ids)


def resident() -> float:
    """Megabytes of memory that this process holds."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def head_entries(cache: object, n: int) -> list[bytes]:
    """Keys and values of the first n positions, byte for byte."""
    return [buffers.read(tensor, np.empty(tensor.shape, np.float16))[:, :n].tobytes() for tensor in cache.tensors]


SOAK_TOKENS = 20_000


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads resident memory from /proc")
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_twenty_thousand_tokens_in_a_window_of_1024(llama_on, strategy: str, capsys, monkeypatch: pytest.MonkeyPatch) -> None:
    llama = llama_on("CPU")
    conversation = chat_state(llama, strategy, max_tokens=100)
    conversation.prompt.stop_ids = frozenset({10**6})  # every answer takes its 100 tokens
    # a random model's likeliest text never ends: draw it, so that some memories are kept and some are not
    monkeypatch.setattr("townhall.context.summarizer._greedy", lambda: SamplingParams(temperature=1.5, seed=3))
    conversation.prepare()
    head, generated, resets, summaries = list(conversation.prompt.head_ids), 0, 0, set()
    entries = head_entries(conversation.cache, len(head))
    plain: list[float] = []  # seconds of turns without an overflow
    overflowing: list[float] = []
    memory: list[float] = []
    while generated < SOAK_TOKENS:
        started = time.perf_counter()
        try:
            turn(conversation, len(plain))
        except ContextError:
            assert strategy == "stop"
            conversation.reset()
            resets += 1
            continue
        seconds = time.perf_counter() - started
        last = conversation.last
        generated += last.tokens
        (overflowing if last.receipt.dropped else plain).append(seconds / max(1, last.tokens))
        assert conversation.cache.tokens[: len(head)] == head and len(conversation.cache.tokens) <= 1024
        assert strategy != "shift" or last.receipt.recomputed_tokens == 0
        summaries.add(last.receipt.memory_of)
        memory.append(resident())
    assert (resets if strategy == "stop" else len(overflowing)) >= 20
    assert (len(summaries) > 1) == (strategy == "summarize")
    assert head_entries(conversation.cache, len(head)) == entries
    warm = memory[len(memory) // 5 :]
    assert max(warm) <= 1.02 * warm[0], f"resident memory went from {warm[0]:.0f} to {max(warm):.0f} MB"
    fifth = len(plain) // 5
    with capsys.disabled():  # figures for people: a busy machine must not decide a test
        ratio = statistics.median(plain[-fifth:]) / statistics.median(plain[:fifth])
        over = f"{statistics.median(overflowing) / statistics.median(plain):.2f} ×" if overflowing else "-"
        print(f"\n{strategy}: {generated} tokens, {warm[0]:.0f} to {max(warm):.0f} MB, last fifth {ratio:.2f} ×, overflow {over}")
