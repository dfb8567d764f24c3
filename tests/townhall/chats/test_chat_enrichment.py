"""A chat's next question, rewritten for a client that shows both."""

import pytest

from tests.townhall.fake import FakeLlama
from townhall.library.indexer import update
from townhall.library.libraries import Library

pytestmark = pytest.mark.slow


def test_a_question_is_rewritten_and_the_chat_stays_as_it_is(chats):
    chat = chats("Madrid.")
    chat.say("What is the capital of Spain?")
    before = chat.call("GET")
    found = chat.call("POST", "/enrich", 200, text="and of Italy?")
    assert found == {
        "own": "and of Italy?",
        "text": "What is the capital of Italy?",
        "question": "What is the capital of Italy?",
        "changed": True,
        "reason": None,
        "facts": [],
        "form": "",
        "model": "double",
        "tokens": 0,
    }
    after = chat.call("GET")
    assert (after["messages"], after["event"], after["enrich"]) == (before["messages"], before["event"], "off")
    same = chat.call("POST", "/enrich", 200, text="What is the capital of Italy?")
    assert not same["changed"] and same["text"] == same["own"] and same["reason"]


def test_the_model_writes_on_the_engine_and_both_wordings_are_kept(chats):
    chat = chats("Fleming discovered penicillin.", "When did Fleming discover penicillin?", "In 1928.")
    chat.say("Who discovered penicillin?")
    found = chat.call("POST", "/enrich", 200, text="When did he discover it?")
    assert found["question"] == "When did Fleming discover penicillin?" and found["tokens"] > 0
    words = {"own": "When did he discover it?", "offered": found["text"]}
    chat.say(found["text"], enriched=words)
    assert chat.call("GET")["messages"][2]["enriched"] == words and chat.call("GET")["messages"][0]["enriched"] is None
    assert chat.log().turns[2].facts["enriched"] == words and found["text"] in chat.prompt()


def test_facts_of_the_chats_libraries_are_added(chats, tmp_path):
    (tmp_path / "bread.md").write_text("# Bread\n\nRye dough rests overnight in the fridge.\n")
    with Library.open("kitchen", create=True) as library:
        update(library, [tmp_path / "bread.md"])
    chat = chats(fields={"settings": {"libraries": ["kitchen"], "enrich": "ask"}})
    assert chat.call("GET")["enrich"] == "ask"
    found = chat.call("POST", "/enrich", 200, text="How long does rye dough rest?")
    assert found["facts"] == ["My documents say: Rye dough rests overnight in the fridge."] and found["form"] == "Answer with a number."


def test_notes_of_the_memory_are_added(chats):
    def scribe(prompt):
        """Copies what it is asked to note, and says little otherwise."""
        asked = prompt.rsplit("<|im_start|>user\n", 1)[-1].split("<|im_end|>")[0]
        return asked.split("\n")[0] if "Copy what" in asked else "Nice."

    chat = chats(llama=FakeLlama(scribe, max_context=400), max_tokens=20, fields={"settings": {"context": "summarize"}})
    fact = "Rex is the dog of this house."  # no statement of the user's about themselves, which would be found without a memory
    chat.say(fact)
    asked = {"text": "What is the name of my dog?"}
    assert chat.call("POST", "/enrich", 200, **asked)["facts"] == []
    scheduler = chat.server.service.scheduler
    for number in range(12):
        chat.say(f"Is there other talk for a good long while, so that room is used up, in round {number}?")  # a question is not noted
        chat.server.wait(lambda: scheduler.active == scheduler.waiting == 0)
    assert chat.call("POST", "/enrich", 200, **asked)["facts"] == [f"I said: {fact}"]


@pytest.mark.parametrize("body", [{"text": " "}, {"text": "Why?", "more": 1}, {}, {"text": 7}])
def test_what_is_no_question_is_refused(chats, body):
    chats().call("POST", "/enrich", 400, **body)
