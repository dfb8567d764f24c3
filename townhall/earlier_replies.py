"""What the next reply is not to say again: earlier replies and the persona's introduction, unless its question asks for them."""

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from townhall.message import Exchange
from townhall.persona import Persona
from townhall.prompt import Prompt

if TYPE_CHECKING:
    from app.models.llama.sampling_params import SamplingParams

ASKED = 4  # words: a question of as many that comes again may have its answer again, and "why?" may not
_WORD = re.compile(r"\w+")
_IDENTITY = re.compile(r"\b(?:who are you|who you are|your (?:\w+ )?name|what are you|about yourself|introduce yourself)\b", re.IGNORECASE)


def asks_identity(question: str) -> bool:
    """Does it ask who the persona is?"""
    return bool(_IDENTITY.search(question))


def asked_again(question: str, before: str) -> bool:
    """Is it a question that was there before, or another one of who the persona is?"""
    if asks_identity(question) and asks_identity(before):
        return True
    words = _WORD.findall(question.casefold())
    return len(words) >= ASKED and words == _WORD.findall(before.casefold())


def beside_earlier(
    sampling: "SamplingParams", prompt: Prompt, persona: Persona, exchanges: Sequence[Exchange], question: str, start: int
) -> "SamplingParams":
    """The sampling that knows what was said before a reply to `question`, which begins at place `start` of its prompt's ids.

    What the persona's examples answer to "Who are you?" was said, too: it is for those who ask.
    """
    if not getattr(sampling, "reply_ngram_penalty", 0):
        return sampling
    from dataclasses import replace

    from app.models.llama.reply_repetition import EarlierReplies

    close = len(prompt.close_ids)
    replies = [one.reply.ids[: len(one.reply.ids) - close] for one in exchanges if not asked_again(question, one.user.text)]
    introductions = [tuple(prompt.words(one.reply)) for one in persona.examples if asks_identity(one.user) and not asks_identity(question)]
    return replace(sampling, earlier=EarlierReplies(start, (*introductions, *replies), prompt.tokenizer.token_bytes))
