"""Which replica a conversation goes to: digests of its beginnings, and the order of replicas made of them."""

from collections import Counter

import pytest

from townhall.swarm.affinity import Affinity
from townhall.swarm.prefix_digests import BLOCK, prefix_digests, with_reply
from townhall.swarm.reply_reader import ReplyReader

IDLE = {"a": 0, "b": 0, "c": 0}


def chat(*texts, system=None, **fields):
    messages = [{"role": "user" if n % 2 == 0 else "assistant", "content": text} for n, text in enumerate(texts)]
    return {"model": "m", "messages": [*([{"role": "system", "content": system}] if system else []), *messages], **fields}


def route(affinity, body, loads=IDLE, reply=None):
    """As the router does it; returns (replica, outcome)."""
    digests = prefix_digests(body)
    replica = affinity.rank(digests, loads)[0]
    outcome = affinity.outcome(digests, replica)
    affinity.remember(digests[-1], replica)
    if reply is not None:
        affinity.remember(with_reply(digests[-1], reply), replica)
    return replica, outcome


def test_the_next_request_of_a_chat_begins_with_the_digests_of_the_last():
    first, second = prefix_digests(chat("Hi", system="Be brief.")), prefix_digests(chat("Hi", "Yo!", "Why?", system="Be brief."))
    assert len(first) == 1 and len(second) == 3 and second[0] == first[0]
    assert with_reply(first[-1], "Yo!") == second[1]
    assert with_reply(first[-1], " Yo!\n") == second[1]  # clients differ in white space


@pytest.mark.parametrize(
    "other",
    [
        chat("Ho", system="Be brief."),
        chat("Hi", system="Be long."),
        chat("Hi"),
        chat("Hi", system="Be brief.", model="n"),
        chat("Hi", system="Be brief.", lora=[{"id": "pirate", "scale": 1}]),
    ],
)
def test_what_fills_a_cache_otherwise_has_other_digests(other):
    assert not set(prefix_digests(chat("Hi", system="Be brief."))) & set(prefix_digests(other))


def test_the_same_conversation_in_the_words_of_other_apis():
    parts = {"model": "m", "messages": [{"role": "user", "content": [{"type": "text", "text": "Hi"}]}]}
    assert prefix_digests(parts) == prefix_digests(chat("Hi")) == prefix_digests({"model": "m", "input": "Hi"})
    items = {"model": "m", "input": [{"role": "user", "content": [{"type": "input_text", "text": "Hi"}]}]}
    assert prefix_digests(items) == prefix_digests(chat("Hi"))
    assert prefix_digests({"input": ["a", "b"]}) == [] == prefix_digests({"messages": "no list", "prompt": 3})
    named = {"prompt_cache_key": "visitor 7"}
    assert prefix_digests({**chat("Hi"), **named}) == prefix_digests({**chat("Ho"), **named})


def test_a_raw_prompt_that_grows_keeps_its_first_blocks():
    short, long = prefix_digests({"prompt": "x" * BLOCK + "y"}), prefix_digests({"prompt": "x" * BLOCK * 3})
    assert short[0] == long[0] and short[1] != long[1] and len(long) == 3


def test_a_conversation_stays_and_goes_elsewhere_where_its_replica_is_gone_or_full():
    affinity = Affinity(slots=2)
    home, outcome = route(affinity, chat("Hi"), reply="Yo!")
    assert outcome == "new"
    talk = chat("Hi", "Yo!", "Why?")
    busy = {name: 1 if name == home else 0 for name in IDLE}
    assert route(affinity, talk, busy) == (home, "kept")  # though others have less to do
    longer = chat("Hi", "Yo!", "Why?", "So.", "And?")
    full = {name: 2 if name == home else 0 for name in IDLE}
    moved, outcome = route(affinity, longer, full)
    assert moved != home and outcome == "moved"
    assert affinity.rank(prefix_digests(talk), dict.fromkeys(IDLE, 2))[0] == home  # all are full: it waits where its entries are
    gone = {name: 0 for name in IDLE if name != home}
    assert affinity.rank(prefix_digests(talk), gone)[0] in gone
    assert affinity.rank([], {"a": 3, "b": 1}) == ["b", "a"] and affinity.rank([b"x"], {}) == []


def test_two_routers_agree_on_a_conversation_that_neither_knows():
    for n in range(50):
        digests = prefix_digests(chat(f"question {n}"))
        assert Affinity(8).rank(digests, IDLE)[0] == Affinity(8).rank(digests, dict(reversed(IDLE.items())))[0]


def test_conversations_spread_even_where_all_begin_alike():
    loads = Counter(dict(IDLE))
    affinity = Affinity(slots=100)
    for _ in range(60):
        loads[route(affinity, chat("Hi"), loads)[0]] += 1
    assert max(loads.values()) <= 1.25 * 61 / 3 + 1


def test_chats_that_begin_alike_return_by_what_was_answered():
    affinity, homes = Affinity(slots=100), {}
    loads = Counter(dict(IDLE))
    for n in range(60):
        homes[n], _ = route(affinity, chat("Hi"), loads, reply=f"answer {n}")
        loads[homes[n]] += 1
    assert len(set(homes.values())) == 3
    assert all(route(affinity, chat("Hi", f"answer {n}", "And?")) == (homes[n], "kept") for n in range(60))


def test_the_oldest_beginnings_are_forgotten():
    affinity = Affinity(slots=2, most=3)
    for digest in (b"1", b"2", b"3", b"4"):
        affinity.remember(digest, "a")
    assert affinity.outcome([b"1"], "a") == "new" and affinity.outcome([b"4"], "a") == "kept"


def test_a_replys_text_is_read_from_a_stream_however_it_is_cut():
    lines = b'data: {"choices":[{"index":0,"delta":{"role":"assistant"}}]}\n\n'
    for piece in ("Yo", "!", " caf\u00e9"):
        lines += b'data: {"choices":[{"index":0,"delta":{"content":"%s"}}]}\n\n' % piece.encode()
    lines += b'data: {"choices":[{"index":1,"delta":{"content":"other"}}]}\n\ndata: {"choices":[],"usage":{}}\n\ndata: [DONE]\n\n'
    for size in (1, 7, len(lines)):
        reader = ReplyReader()
        for at in range(0, len(lines), size):
            reader.push(lines[at : at + size])
        assert reader.text == "Yo! caf\u00e9"
    reader = ReplyReader()
    reader.whole(b'{"choices":[{"index":0,"message":{"content":"Yo"}}]}')
    reader.whole(b"{broken")
    assert reader.text == "Yo"
