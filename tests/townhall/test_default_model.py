"""The whole path on the default model: skipped where it is not pulled."""

import os
import re
import subprocess
import sys

import pytest

from townhall import Conversation, load_persona
from townhall.formats.piece import Turn
from townhall.persona import list_personas
from townhall.prompt import Prompt
from townhall.template import FORMATS, open_format

pytestmark = pytest.mark.weights


@pytest.fixture(scope="module")
def llama(default_model):
    from app.models.llama import Llama

    return Llama.load(default_model, max_context=1024)


def greedy():
    from app.models.llama import Sampling

    return Sampling(temperature=0)


@pytest.fixture(scope="module")
def tokenizer(default_model):
    from app.models.llama.checkpoint import open_checkpoint

    return open_checkpoint(default_model).tokenizer()


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("name", list_personas())
def test_the_parts_of_a_prompt_are_the_tokens_of_the_page_as_a_whole(tokenizer, name, format):
    prompt = Prompt(open_format(format, load_persona(name), tokenizer), tokenizer)
    lead = " " if format == "chat_log" else ""
    exchange = [*prompt.turn_ids("How are you?"), *prompt.words(f"{lead}I'm fine."), *prompt.close_ids]
    parts = [*prompt.head_ids, *exchange, *prompt.turn_ids("Bye")]
    whole = prompt.format.whole([Turn("user", "How are you?"), Turn("assistant", "I'm fine."), Turn("user", "Bye")])
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
