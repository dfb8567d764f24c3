"""Conversations on a model whose layers have windows say what they would say with everything kept, under every context strategy."""

from pathlib import Path

import pytest

from app.models.llama import Llama, SamplingParams, window_rows
from ext.tinygrad.kernels.packed import memory
from tests.app.models.llama.test_window_rows import CONTEXT, longer
from townhall import Conversation, Persona
from townhall.context.strategies import STRATEGIES
from townhall.persona import Example
from townhall.prefix_cache import PrefixCache

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not memory.GIVES_BACK, reason="memory is given back on Linux alone")]

PERSONA = Persona("Stacy", "Stacy raps about history and the sea.", examples=(Example("Who are you?", "I am Stacy."),))


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Llama:
    return Llama.load(longer("gemma3", tmp_path_factory.mktemp("windowed") / "gemma3"), CONTEXT, device="CPU")


def held(llama: Llama, context: str, heads: Path) -> tuple[list[str], int]:
    """What is said in a long conversation with steps back, and the last position that was ever given back."""
    sampling = SamplingParams(temperature=1.0, seed=3)
    conversation = Conversation(llama, PERSONA, context=context, sampling=sampling, max_tokens=40, heads=PrefixCache(heads))
    conversation.prepare()
    said, furthest = [], 0
    for n in range(16):
        said.append("".join(conversation.reply(f"Tell me {'much ' * 12}more about number {n}, please.")))
        conversation.after_reply()
        few = conversation.cache._few
        furthest = max(furthest, few.stop if few else 0)
        if n in (4, 9):
            conversation.undo(1 if n == 4 else 3)
    return said, furthest


@pytest.mark.parametrize("context", [name for name in STRATEGIES if name != "stop"])
def test_every_strategy_says_the_same(llama: Llama, context: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, tokens in (("BEGINNING", 320), ("MARGIN", 40), ("STEP", 16)):
        monkeypatch.setattr(window_rows, name, tokens)
    few, furthest = held(llama, context, tmp_path / "few")
    assert furthest > 400
    monkeypatch.setattr(memory, "GIVES_BACK", False)
    whole, nothing = held(llama, context, tmp_path / "whole")
    assert nothing == 0 and few == whole
