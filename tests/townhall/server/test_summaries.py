"""Memories of conversations that clients keep."""

import re

import httpx
import pytest

from tests.townhall.fake import FakeLlama
from townhall.context.summarizer import REQUEST

pytestmark = pytest.mark.slow

FACTS = ["My dog is called Rex.", "I live in Ghent.", "My car is green.", "I was born in May.", "I play the harp.", "My aunt is a baker."]
TOLD = [*FACTS, *(f"{fact[:-1]} as well." for fact in FACTS)]
FILLER = "Then we talk of other things for a good long while so that room is used up."


def summarizer(prompt):
    """Copies what it is told, as the scribe should; says little otherwise."""
    if REQUEST not in prompt.rsplit("<|im_start|>user", 1)[-1]:
        return "Nice to hear that."
    return re.split(r"\s+Copy what", prompt.rsplit("<|im_start|>user\n", 1)[-1])[0].split(". ")[0].rstrip(".") + "."


class Talk:
    """A client that sends the whole list again each time."""

    def __init__(self, server, **fields):
        self.server, self.fields, self.messages = server, fields, []

    def say(self, text, wait=True):
        self.messages.append({"role": "user", "content": text})
        body = {"model": "double", "messages": self.messages, "context": "summarize", "max_tokens": 20, **self.fields}
        response = httpx.post(f"{self.server.url}/chat/completions", json=body, timeout=60)
        assert response.status_code == 200, response.text
        reply = response.json()
        self.messages.append({"role": "assistant", "content": reply["choices"][0]["message"]["content"]})
        if wait:
            self.server.wait(lambda: self.server.service.scheduler.active == self.server.service.scheduler.waiting == 0)
        return reply


@pytest.fixture
def talked(serve):
    llama = FakeLlama(summarizer, max_context=300)
    chat_state = Talk(serve(llama))
    return chat_state, llama, [chat_state.say(f"{fact} {FILLER}") for fact in TOLD]


def test_what_leaves_the_window_is_remembered_and_the_receipt_says_of_what(talked):
    chat_state, llama, replies = talked
    last = replies[-1]["townhall"]
    assert last["strategy"] == "summarize" and last["dropped"] and last["memory_tokens"] > 10
    assert set(last["memory_of"]) <= set(last["dropped"]) and all(index % 2 == 0 for index in last["memory_of"])
    noted = [chat_state.messages[index]["content"].split(". ")[0] + "." for index in last["memory_of"]]
    assert noted and last["memory"].split(". ")[-1] in noted[-1]
    shown = llama.tokenizer.show([ids for ids in llama.prompts if REQUEST not in llama.tokenizer.show(ids)][-1])
    assert last["memory"] in shown and shown.index(last["memory"]) < shown.index(FILLER)
    assert all(chat_state.messages[index]["content"] not in shown for index in last["dropped"] if index % 2 == 0)


def test_a_memory_is_written_between_turns_so_that_a_turn_reads_its_own_words_only(talked):
    replies = talked[2]
    read = [reply["usage"]["prompt_tokens"] - reply["usage"]["prompt_tokens_details"]["cached_tokens"] for reply in replies[1:]]
    assert len({reply["townhall"]["memory"] for reply in replies}) > 3 and max(read) <= 40, read


def test_no_turn_of_a_long_conversation_is_refused_or_overflows(talked):
    chat_state, _, replies = talked
    assert all(reply["usage"]["total_tokens"] <= 300 and reply["choices"][0]["finish_reason"] == "stop" for reply in replies)
    assert max(reply["townhall"]["memory_tokens"] for reply in replies) <= 300 // 8


def test_who_edits_what_was_said_is_not_told_of_what_was_never_said(talked, serve):
    chat_state, llama, _ = talked
    edited = Talk(chat_state.server)
    edited.messages = [*chat_state.messages]
    edited.messages[0] = {"role": "user", "content": f"My dog is called Fido. {FILLER}"}
    assert edited.say("Well?")["townhall"]["memory"] is None
    again = Talk(chat_state.server)
    again.messages = chat_state.messages[:-2]
    assert again.say("Well?")["townhall"]["memory"]


def test_an_older_conversation_is_summarised_after_its_first_answer(talked, serve):
    info = talked[0].messages
    other = Talk(serve(FakeLlama(summarizer, max_context=300)))
    other.messages = [*info]
    first = other.say("Well?")["townhall"]
    assert first["memory"] is None and first["dropped"]
    assert other.say("And now?")["townhall"]["memory"]


def test_nobody_waits_for_a_memory_that_fails(serve):
    def failing(prompt):
        return [ZeroDivisionError("a bug")] if REQUEST in prompt.rsplit("<|im_start|>user", 1)[-1] else "Nice."

    chat_state = Talk(serve(FakeLlama(failing, max_context=300)))
    replies = [chat_state.say(f"{fact} {FILLER}") for fact in TOLD]
    assert replies[-1]["townhall"]["dropped"] and replies[-1]["townhall"]["memory"] is None


def test_many_conversations_at_once_each_keep_their_own(serve):
    server = serve(FakeLlama(summarizer, max_context=300), slots=2)
    names = ["Ann", "Bob", "Cem", "Dot"]
    talks = [Talk(server) for _ in names]
    for fact in TOLD:
        for name, chat_state in zip(names, talks):
            chat_state.say(f"I am {name} {fact} {FILLER}", wait=False)
    server.wait(lambda: server.service.scheduler.active == server.service.scheduler.waiting == 0)
    for name, chat_state in zip(names, talks):
        memory = chat_state.say("Well?")["townhall"]["memory"]
        assert memory and name in memory and not any(other in memory for other in names if other != name)
