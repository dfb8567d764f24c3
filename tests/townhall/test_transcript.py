"""A list of messages leads to the prompt that a session would have come to."""

import pytest

from tests.townhall.fake import FakeLlama, FakeTokenizer
from townhall import Conversation
from townhall.context.strategies import open_strategy
from townhall.errors import ContextError
from townhall.formats.prompt_pieces import PromptTurn
from townhall.persona import Example, Persona
from townhall.prompt import Prompt
from townhall.prompt_builder import open_window
from townhall.template import open_format
from townhall.transcript import lay_out

PERSONA = Persona("Stacy", "Stacy raps.", examples=(Example("Your name?", "Stacy."),))


def prompt_of(tokenizer, persona=PERSONA):
    return Prompt(open_format("auto", persona, tokenizer), tokenizer)


def show(messages, persona=PERSONA, capacity=200, **settings):
    tokenizer = FakeTokenizer(**settings)
    prompt = prompt_of(tokenizer, persona)
    prompt_plan = lay_out(prompt, open_strategy("slide"), open_window(prompt, capacity, 10), messages)
    return tokenizer.show(prompt_plan.ids[len(prompt.head_ids) :])


@pytest.mark.parametrize("strategy", ["slide", "shift"])
@pytest.mark.parametrize("template", [True, False], ids=["chat_template", "chat_log"])
def test_every_prompt_is_the_one_that_a_session_makes(strategy, template):
    settings = {} if template else {"chat_template": None}
    llama = FakeLlama([f"Answer {n} " + "la " * (n % 7) for n in range(40)], max_context=160, tokenizer=FakeTokenizer(**settings))
    conversation = Conversation(llama, PERSONA, sampling=object(), context=strategy, max_tokens=30)
    turns, spoken, dropped = [], {}, 0
    for n in range(40):
        turns.append(PromptTurn("user", f"Question {n} " + "well " * (n % 5)))
        prompt_plan = lay_out(conversation.prompt, open_strategy(strategy), conversation.window, turns, spoken.get)
        turns.append(PromptTurn("assistant", "".join(conversation.reply(turns[-1].text))))
        assert list(prompt_plan.ids) == llama.prompts[-1]
        spoken[turns[-1].text] = conversation.exchanges[-1].reply.ids[: -len(conversation.prompt.close_ids)]
        newly = conversation.last.receipt.dropped
        assert prompt_plan.dropped[len(prompt_plan.dropped) - len(newly) :] == tuple(newly)
        if newly:
            start, stop = prompt_plan.removed
            assert [*prompt_plan.before[:start], *prompt_plan.before[stop:]] == list(prompt_plan.ids)
        dropped = len(prompt_plan.dropped)
    assert dropped > 20


def test_who_speaks_twice_is_heard_as_once_and_a_greeting_answers_silence():
    said = show(
        [
            PromptTurn("assistant", "Yo!"),
            PromptTurn("user", "One."),
            PromptTurn("user", "Two."),
            PromptTurn("assistant", "A."),
            PromptTurn("user", "Q"),
        ]
    )
    assert said == (
        "<|im_start|>user\n<|im_end|>\n<|im_start|>assistant\nYo!<|im_end|>\n"
        "<|im_start|>user\nOne.\n\nTwo.<|im_end|>\n<|im_start|>assistant\nA.<|im_end|>\n"
        "<|im_start|>user\nQ<|im_end|>\n<|im_start|>assistant\n"
    )


@pytest.mark.parametrize("settings", [{}, {"chat_template": None}], ids=["chat_template", "chat_log"])
def test_an_answer_at_the_end_is_carried_on(settings):
    said = show([PromptTurn("user", "Is the sky blue?"), PromptTurn("assistant", "The sky is")], **settings)
    assert said.endswith(("assistant\nThe sky is", "Stacy: The sky is"))


def test_nobodys_head_is_empty_and_ends_at_nobodys_cue():
    prompt = prompt_of(FakeTokenizer(), Persona("Assistant", ""))
    assert prompt.format.head() == [] and prompt.stop == ()
    assert show([PromptTurn("user", "Hi")], Persona("Assistant", "")) == "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"


def test_a_conversation_that_does_not_fit_is_refused_where_nothing_may_go():
    tokenizer = FakeTokenizer()
    prompt = prompt_of(tokenizer)
    turns = [PromptTurn("user" if n % 2 == 0 else "assistant", "word " * 30) for n in range(9)]
    with pytest.raises(ContextError, match="more than fit"):
        lay_out(prompt, open_strategy("stop"), open_window(prompt, 150, 10), turns)
    with pytest.raises(ContextError, match="far more than a window"):
        lay_out(prompt, open_strategy("slide"), open_window(prompt, 150, 10), [PromptTurn("user", "x" * 100_000)])
