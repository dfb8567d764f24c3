"""What a reply is not to say again: what was said before it in the chat, unless its question asks for that."""

import pytest

from tests.townhall.fake import FakeLlama
from townhall import Conversation
from townhall.conversation import REPLY_NGRAM_PENALTY, default_sampling
from townhall.earlier_replies import asked_again, asks_identity
from townhall.persona import Example, Persona

PERSONA = Persona("Stacy", "Stacy raps.", examples=(Example("What is your name?", "Stacy."), Example("Is it cold?", "No.")))


class Listener(FakeLlama):
    """Keeps how each reply was to be drawn, and its prompt."""

    def generate(self, ids, max_tokens, sampling=None, cache=None, stop_ids=None):
        self.drawn = (sampling, list(ids))
        return super().generate(ids, max_tokens, sampling, cache, stop_ids)


@pytest.fixture
def talk():
    """A conversation, and what asks it and says what was known of earlier replies: their texts, and where the answer begins."""
    llama = Listener(lambda prompt: f"Reply {len(llama.prompts)} is this.")
    conversation = Conversation(llama, PERSONA)

    def ask(text, *given, **more):
        list(conversation.reply(text, *given, **more))
        sampling, ids = llama.drawn
        begun = ids[sampling.earlier.start :]
        said = [llama.tokenizer.decode(reply) for reply in sampling.earlier.replies]
        assert ("Stacy." in said[:1]) is not asks_identity(text)
        return [text for text in said if text != "Stacy."], llama.tokenizer.decode(begun)

    ask.conversation = conversation
    return ask


def test_all_earlier_replies_count_and_of_the_examples_the_introduction(talk):
    assert default_sampling().reply_ngram_penalty == REPLY_NGRAM_PENALTY > 0
    assert talk("Hello") == ([], "")
    assert talk("why?") == (["Reply 1 is this."], "")
    assert talk("why?") == (["Reply 1 is this.", "Reply 2 is this."], "")
    assert talk("And now?", "So") == (["Reply 1 is this.", "Reply 2 is this.", "Reply 3 is this."], "So")


def test_a_reply_in_the_place_of_another_may_be_like_it(talk):
    talk("Hello")
    talk("why?")
    assert talk("why?", instead=1) == (["Reply 1 is this."], "")


def test_a_question_that_comes_again_may_have_its_answer_again(talk):
    talk("What is the capital of France?")
    talk("Who are you?")
    assert talk("what is the capital of France")[0] == ["Reply 2 is this."]
    assert talk("Tell me, what is your name?")[0] == ["Reply 1 is this.", "Reply 3 is this."]
    for question, before, same in (
        ("why?", "Why?", False),
        ("Explain it again.", "Explain it again.", False),
        ("How many days are in a week?", "How many days are in a week", True),
        ("How many days are in a year?", "How many days are in a week?", False),
        ("What is your name?", "who are you", True),
        ("who are you", "What is a name?", False),
    ):
        assert asked_again(question, before) is same


def test_where_the_penalty_is_off_nothing_is_known(talk):
    from dataclasses import replace

    talk.conversation.sampling = replace(default_sampling(), reply_ngram_penalty=0.0)
    list(talk.conversation.reply("Hello"))
    assert talk.conversation.llama.drawn[0].earlier is None


def test_what_was_recalled_counts_as_what_was_said_here(talk):
    said = [talk("Hello"), talk("why?"), talk("so?")]
    fresh = Conversation(talk.conversation.llama, PERSONA)
    fresh.recall([(one.user.text, one.reply.text) for one in talk.conversation.exchanges[:2]])
    list(fresh.reply("so?"))
    sampling, _ = fresh.llama.drawn
    assert [fresh.llama.tokenizer.decode(reply) for reply in sampling.earlier.replies] == ["Stacy.", *said[-1][0]]
