"""A conversation that another server's model answers: persona, history, strategies, sources and log stay ours."""

import pytest

from tests.townhall.fake import FakeLlama
from tests.townhall.server.conftest import serve  # noqa: F401  (a fixture)
from tests.townhall.via.misbehaving import Misbehaving, fails, says
from townhall.context.source import NoteSource, PromptSources
from townhall.conversation import Conversation
from townhall.persona import Example, Persona
from townhall.via.endpoint import RemoteEndpoint, TokenPrice
from townhall.via.errors import RemoteError
from townhall.via.remote_model import RemoteModel

pytestmark = pytest.mark.slow

PERSONA = Persona("Stacy", "You are Stacy.", examples=(Example("Who?", "Stacy."),), stop=("END",))


def conversation(url, llama=None, **fields):
    llama = llama or FakeLlama(["Local words."], max_context=fields.pop("max_context", 400))
    price = TokenPrice(1.0, 2.0)
    made = Conversation(llama, fields.pop("persona", PERSONA), max_tokens=fields.pop("max_tokens", 30), **fields)
    made.elsewhere = RemoteModel(RemoteEndpoint(url, "big", price=price))
    made.prepare()
    return made


def say(talk, text):
    return "".join(talk.reply(text))


def test_the_server_gets_the_persona_the_talk_and_what_sources_add():
    note = NoteSource("reminder", "Be brief.", depth=1, after=1)
    with Misbehaving(says("I am", " fine."), says("Still fine.")) as server:
        talk = conversation(server.url, sources=PromptSources([note], FakeLlama().tokenizer))
        assert say(talk, "How are you?") == "I am fine." and say(talk, "And now?") == "Still fine."
        first, second = ([(m["role"], m["content"]) for m in body["messages"]] for _, body in server.asked)
    head = [("system", "You are Stacy."), ("user", "Who?"), ("assistant", "Stacy.")]
    assert first == [*head, ("user", "How are you?")]
    assert second == [*head, ("user", "How are you?"), ("assistant", "I am fine."), ("user", "[Be brief.]\n\nAnd now?")]
    receipt = talk.last.receipt
    assert sum(part.tokens for part in receipt.parts) == receipt.prompt_tokens == receipt.sent.sent_tokens == receipt.sent.whole_tokens
    assert receipt.to_json()["sent"]["model"] == "big" and "sent to big" in receipt.describe_parts()
    assert talk.llama.prompts == []  # the local model said nothing


def test_the_local_model_answers_where_the_server_is_away_and_says_so():
    with Misbehaving(says("Remote words."), fails(503), fails(503), fails(503), says("Back again.")) as server:
        talk, told = conversation(server.url), []
        talk.away = told.append
        assert say(talk, "One") == "Remote words."
        assert say(talk, "Two") == "Local words." and len(told) == 1 and "failed (503)" in told[0]
        assert talk.last.receipt.sent is None and "Remote words." in talk.llama.tokenizer.show(talk.llama.prompts[-1])
        assert say(talk, "Three") == "Back again." and len(told) == 1
        assert [m["content"] for m in server.asked[-1][1]["messages"]][-3:] == ["Two", "Local words.", "Three"]


def test_what_is_refused_leaves_the_talk_as_it_was_and_a_break_keeps_what_came():
    with Misbehaving(fails(401), says("One", " two", finish=None), says("Fine.")) as server:
        talk = conversation(server.url)
        with pytest.raises(RemoteError) as refused:
            say(talk, "Hi")
        assert not refused.value.kept and talk.exchanges == [] and talk.llama.prompts == []
        with pytest.raises(RemoteError) as broken:
            say(talk, "Hi")
        assert broken.value.kept and talk.last.text == "One two" and talk.last.finish_reason == "interrupted"
        assert say(talk, "On") == "Fine."
        assert [exchange.reply.text for exchange in talk.exchanges] == ["One two", "Fine."]


def test_closing_the_answer_keeps_what_was_shown():
    with Misbehaving(says("One", " two", " three"), says("Fine.")) as server:
        talk = conversation(server.url)
        pieces = talk.reply("Count")
        while not (next(pieces)):
            pass
        pieces.close()
        assert talk.exchanges[0].reply.text.startswith("One") and talk.last.finish_reason == "interrupted"
        assert say(talk, "Go on") == "Fine."


def test_a_carried_on_answer_and_a_prefill_begin_as_they_were_begun():
    with Misbehaving(says("far away.")) as server:
        talk = conversation(server.url)
        assert "".join(talk.reply("How far?", prefill="The moon is")) == "The moon is far away."
        roles = [m["role"] for m in server.asked[0][1]["messages"]]
    assert roles[-3:] == ["user", "assistant", "user"]


def scribe(prompt):
    """Copies what it is asked to note."""
    asked = prompt.rsplit("<|im_start|>user\n", 1)[-1].split("<|im_end|>")[0]
    return asked.split("\n")[0] if "Copy what" in asked else "Local words."


@pytest.mark.parametrize("most", [64, 120])
def test_compressed_history_keeps_its_bound_and_the_receipt_adds_up(most):
    with Misbehaving(says("Nice to hear that from you.")) as server:
        talk = conversation(server.url, FakeLlama(scribe, max_context=2000), history=most, context="summarize")
        for number in range(12):
            say(talk, f"My dog number {number} is called Rex and lives in town {number}.")
            talk.after_reply()
            parts = {part.name: part.tokens for part in talk.last.receipt.parts}
            assert parts.get("memory", 0) + parts["history"] <= most
            assert sum(parts.values()) == talk.last.receipt.prompt_tokens
        sent = talk.last.receipt.sent
        # the whole history: every exchange in full, and no memory
        said = sum(exchange.tokens for exchange in talk.exchanges[:-1])
        assert sent.whole_tokens == parts["persona"] + said + parts["turn"] and sent.sent_tokens < sent.whole_tokens // 2
        assert sent.whole_cost > sent.cost
        contents = [m["content"] for m in server.asked[-1][1]["messages"]]
    assert any("Remember what I told you" in text and "Rex" in text for text in contents)


def test_our_own_server_answers_a_talk_of_ours(serve):  # noqa: F811
    served = serve(FakeLlama(["Served words."]))
    talk = conversation(served.url)
    talk.elsewhere = RemoteModel(RemoteEndpoint(served.url, "double"))
    assert say(talk, "Hello") == "Served words." and talk.last.receipt.sent.server_tokens > 0
    assert talk.last.finish_reason == "stop" and talk.last.device == talk.last.receipt.sent.host
