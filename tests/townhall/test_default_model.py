"""The whole path on the default model: skipped where it is not pulled."""

import os
import re
import subprocess
import sys

import numpy as np
import pytest

from ext.tinygrad import buffers
from townhall import Conversation, load_persona
from townhall.formats.prompt_pieces import PromptTurn
from townhall.persona import list_personas
from townhall.prefix_cache import PrefixCache
from townhall.prompt import Prompt
from townhall.template import FORMATS, open_format

pytestmark = pytest.mark.weights


@pytest.fixture(scope="module")
def llama(default_model):
    from app.models.llama import Llama

    return Llama.load(default_model, max_context=1024)


def greedy():
    from app.models.llama import SamplingParams

    return SamplingParams(temperature=0)


@pytest.fixture(scope="module")
def tokenizer(default_model):
    from app.models.llama.checkpoint import open_checkpoint

    return open_checkpoint(default_model).tokenizer()


@pytest.mark.parametrize("format", [name for name in FORMATS if name != "alpaca_roleplay"])  # whose turns do not follow each other
@pytest.mark.parametrize("name", list_personas())
def test_the_parts_of_a_prompt_are_the_tokens_of_the_page_as_a_whole(tokenizer, name, format):
    prompt = Prompt(open_format(format, load_persona(name), tokenizer), tokenizer)
    lead = " " if format == "chat_log" else ""
    exchange = [*prompt.turn_ids("How are you?"), *prompt.words(f"{lead}I'm fine."), *prompt.close_ids]
    parts = [*prompt.head_ids, *exchange, *prompt.turn_ids("Bye")]
    whole = prompt.format.whole([PromptTurn("user", "How are you?"), PromptTurn("assistant", "I'm fine."), PromptTurn("user", "Bye")])
    assert parts == tokenizer.encode("".join(piece.text for piece in whole))
    assert 130 <= len(prompt.head_ids) <= 250


@pytest.mark.slow
@pytest.mark.parametrize("format", FORMATS)
def test_three_piped_questions_are_answered_cleanly(default_model, format):
    questions = "What is your name?\nWhat is the capital of France?\nWhy do cats purr?\n"
    command = [sys.executable, "-m", "townhall", "chat", "--model", str(default_model), "--format", format, "--seed", "1", "--count", "80"]
    done = subprocess.run(command, input=questions, capture_output=True, text=True, env=os.environ | {"DEV": "CPU"})
    assert done.returncode == 0, done.stderr
    assert re.search(r"^Stacy is ready: \d+ tokens in \d+\.\d s$", done.stderr, re.M)
    assert "Stacy" in done.stdout and "Paris" in done.stdout and "purr" in done.stdout
    assert not re.search(r"\[EOS\]|EOS\]|User:|<\||\|>|</s>", done.stdout)


@pytest.mark.slow
def test_three_thousand_tokens_in_a_window_of_1024(llama):
    conversation = Conversation(llama, load_persona("stacy"), sampling=greedy(), max_tokens=32)
    conversation.prepare()
    head, overflows = list(conversation.prompt.head_ids), 0
    while sum(exchange.tokens for exchange in conversation.exchanges) < 3200:
        turn = len(conversation.exchanges)
        story = "and then we walked on and on, " * (3 + turn % 7)
        "".join(conversation.reply(f"Here is my long story, part {turn}: {story}so what?"))
        assert conversation.cache.tokens[: len(head)] == head
        overflows += bool(conversation.last.receipt.dropped)
    assert overflows >= 3


def first_keys(cache):
    """The first layer's keys of all held tokens, (KvH, n, Hd)."""
    tensor = cache.layers[0].k
    return buffers.read(tensor, np.empty(tensor.shape, np.float16))[:, : len(cache.tokens)].astype(np.float32)


@pytest.mark.slow
def test_after_fifty_shifts_the_first_layers_keys_are_those_of_a_fresh_prefill(llama):
    random, cache, step = np.random.default_rng(5), llama.new_cache(), 16
    llama.prefill([int(n) for n in random.integers(0, llama.config.vocab_size, 400)], cache)
    for shift in range(1, 51):
        start = int(random.integers(1, 300))
        cache.remove(start, start + step)
        llama.prefill([*cache.tokens, *(int(n) for n in random.integers(0, llama.config.vocab_size, step))], cache)
        if shift in (1, 2, 10, 50):
            fresh = llama.new_cache()
            llama.prefill(list(cache.tokens), fresh)
            ours, theirs = first_keys(cache), first_keys(fresh)
            # half a unit of float16 is more than 1e-3 for keys beyond 2: there the bound is relative
            assert np.all(np.abs(ours - theirs) <= 1e-3 * np.maximum(1, np.abs(theirs))), (shift, np.abs(ours - theirs).max())


def test_a_restored_persona_answers_with_the_same_logits_to_the_last_bit(llama, tmp_path):
    heads = PrefixCache(tmp_path / "heads")
    read, restored = (Conversation(llama, load_persona("stacy"), sampling=greedy(), heads=heads) for _ in range(2))
    assert read.prepare().restore_seconds is None and restored.prepare().restore_seconds is not None
    for token in read.prompt.turn_ids("Who are you?"):
        logits = [llama.engine.step(token, conversation.cache).copy() for conversation in (read, restored)]
        assert np.array_equal(*logits)
