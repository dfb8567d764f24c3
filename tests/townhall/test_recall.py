"""A history that is brought back, taken back or begun for the persona leads to the prompts that talking would have led to."""

import itertools

import pytest

from tests.townhall.fake import FakeLlama, FakeTokenizer
from tests.townhall.test_conversation import ask, chat_state, words
from townhall.errors import ContextError, PrefillError

FORMATS = {"chat_template": {}, "chat_log": {"chat_template": None}}


def model(script=(), format="chat_template", capacity=1024, tokenizer=None):
    script = script or [f"Answer {n} {words(n % 5)}" for n in range(60)]
    return FakeLlama(script, capacity, tokenizer or FakeTokenizer(**FORMATS[format]))


def turns(conversation):
    return [(exchange.user.text, exchange.reply.text) for exchange in conversation.exchanges]


def sampled(conversation):
    close = len(conversation.prompt.close_ids)
    return [exchange.reply.ids[: len(exchange.reply.ids) - close] for exchange in conversation.exchanges]


@pytest.mark.parametrize("strategy", ["slide", "shift"])
@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("said", [1, 3, 17, 40])
def test_what_is_recalled_leads_to_the_prompt_of_having_said_it(strategy, format, said):
    llama = model(format=format, capacity=160)
    other = model(capacity=160, tokenizer=llama.tokenizer)
    spoken, recalled = (chat_state(one, context=strategy, max_tokens=30) for one in (llama, other))
    for n in range(said):
        ask(spoken, f"Question {n} {words(n % 3)}")
    recalled.recall(turns(spoken), sampled(spoken))
    assert recalled.exchanges == spoken.exchanges and recalled.plan.kept == spoken.plan.kept
    for one in (spoken, recalled):
        ask(one, "And now?")
    assert llama.prompts[-1] == other.prompts[-1]
    out = 2 * (said - len(recalled.plan.kept) + 1)
    assert recalled.last.receipt.dropped == tuple(range(out)) and (out > 0) == (said > 8)
    assert recalled.last.receipt.dropped_tokens == sum(e.tokens for e in recalled.exchanges[: out // 2])
    assert recalled.last.receipt.recomputed_tokens == 0  # nothing of it was ever computed here


def test_only_what_follows_the_first_changed_token_is_read_again():
    llama = model([["Pa", "ris", "."], "Fine.", "Good.", "So it is."])  # no tokenizer would cut the first answer so
    conversation = chat_state(llama)
    for text in ("Where?", "How?", "Why?"):
        ask(conversation, text)
    before = list(conversation.cache.tokens)
    conversation.recall(turns(conversation))
    ask(conversation, "And?")
    assert conversation.last.cached_tokens == len(before)
    changed = [*turns(conversation)[:1], ("How?", "Badly."), *turns(conversation)[2:]]
    conversation.recall(changed)
    ask(conversation, "And then?")
    ids, first = llama.prompts[-1], llama.prompts[1]  # up to the question whose answer is another now
    assert ids[: len(first)] == first and conversation.last.cached_tokens == len(first)
    assert "assistant\nBadly.<|im_end|>" in llama.tokenizer.show(ids) and "Fine." not in llama.tokenizer.show(ids)


def test_a_recall_of_nothing_is_a_fresh_conversation_and_one_of_too_much_is_refused():
    llama = model(capacity=160)
    conversation = chat_state(llama, context="stop", max_tokens=30)
    ask(conversation, "Hi")
    with pytest.raises(ContextError, match="begin anew with /reset"):
        conversation.recall([("word " * 20, "word " * 20)] * 5)
    with pytest.raises(ContextError, match="far more than a window"):
        conversation.recall([("x" * 10**6, "")])
    assert [e.user.text for e in conversation.exchanges] == ["Hi"]
    conversation.recall([])
    ask(conversation, "Hi")
    assert llama.prompts[0] == llama.prompts[1] and len(conversation.exchanges) == 1


@pytest.mark.parametrize("strategy", ["slide", "shift", "summarize"])
@pytest.mark.parametrize("back", [1, 2, 5, 30])
def test_what_is_taken_back_was_never_said(strategy, back):
    llama, other = model(["Fine."], capacity=200), model(["Fine."], capacity=200)
    talked, short = (chat_state(one, context=strategy, max_tokens=20) for one in (llama, other))
    for n in range(20):
        for one in (talked, short)[: 1 + (n < 20 - back)]:
            ask(one, f"My name is Tom and that is my sentence number {n}.")
            one.after_reply()
    taken = talked.undo(back)
    assert [e.user.text[-3:-1] for e in taken] == [f"{n:2}" for n in range(max(0, 20 - back), 20)]
    assert talked.plan.kept == short.plan.kept and talked.plan.memory == short.plan.memory and talked.exchanges == short.exchanges
    for one in (talked, short):
        ask(one, "And now?")
    assert llama.prompts[-1] == other.prompts[-1]
    assert talked.undo(99) and not talked.undo()


def test_another_answer_takes_the_place_of_the_last_and_costs_its_own_tokens():
    llama = model(["Fine.", "Good.", "Better.", "And so on."])
    conversation = chat_state(llama)
    ask(conversation, "Hi")
    ask(conversation, "How are you?")
    assert "".join(conversation.reply("How are you?", instead=1)) == "Better."
    assert turns(conversation) == [("Hi", "Fine."), ("How are you?", "Better.")]
    assert llama.prompts[2] == llama.prompts[1] and conversation.last.cached_tokens == len(llama.prompts[1]) - 1
    assert conversation.last.receipt.recomputed_tokens == 0 and [m.id for e in conversation.exchanges for m in e.messages] == [0, 1, 2, 3]
    with pytest.raises(ContextError):
        conversation.reply(words(2000), instead=1)
    assert turns(conversation)[-1] == ("How are you?", "Better.")
    ask(conversation, "Well")
    assert "Better.<|im_end|>" in llama.tokenizer.show(llama.prompts[-1]) and "Good." not in llama.tokenizer.show(llama.prompts[-1])


@pytest.mark.parametrize("format, cue", [("chat_template", "assistant\n"), ("chat_log", "Stacy: ")])
def test_a_reply_begins_as_it_was_told_to(format, cue):
    llama = model([" is far away. Very.", "Yes."], format)
    conversation = chat_state(llama)
    pieces = list(conversation.reply("Say something", prefill="  The moon "))
    assert "".join(pieces) == "The moon is far away. Very." == conversation.last.text and pieces[0].startswith("The moon")
    assert llama.tokenizer.show(llama.prompts[0]).endswith(f"{cue}The moon")
    assert conversation.last.tokens == len(" is far away . Very .".split())
    ask(conversation, "Sure?")
    assert f"{cue}The moon is far away. Very." in llama.tokenizer.show(llama.prompts[1])
    assert conversation.last.cached_tokens >= len(llama.prompts[0])


def test_what_was_only_begun_for_the_persona_and_never_carried_on_was_not_said():
    llama = model([[KeyboardInterrupt()], " are", []])
    conversation = chat_state(llama)
    with pytest.raises(KeyboardInterrupt):
        ask(conversation, "Hi")
    assert not conversation.exchanges
    pieces = conversation.reply("Hi", prefill="We")
    assert next(pieces) == "We are"
    pieces.close()
    assert turns(conversation) == [("Hi", "We are")]
    assert "".join(itertools.chain(conversation.reply("And?", prefill="So"))) == "So" and conversation.last.tokens == 0


def test_a_beginning_that_would_be_the_end_is_refused():
    conversation = chat_state(model(format="chat_log"))
    for bad in ("Well [EOS]", "Well\nUser: me"):
        with pytest.raises(PrefillError, match="ends a reply; leave it out"):
            conversation.reply("Hi", prefill=bad)
    with pytest.raises(ContextError):
        conversation.reply("Hi", prefill=words(2000))
    assert not conversation.exchanges


def test_what_a_recall_left_out_is_accounted_for_after_an_undo_as_well():
    llama = model(["Fine."], capacity=160)
    conversation = chat_state(llama, max_tokens=30)
    conversation.recall([(f"Question {n}", "Fine.") for n in range(40)])
    conversation.undo(3)
    ask(conversation, "And now?")
    out = len(conversation.exchanges) - len(conversation.plan.kept)
    assert out > 20 and conversation.last.receipt.dropped == tuple(range(2 * out))
    ask(conversation, "And now?")
    assert not conversation.last.receipt.dropped and conversation.last.receipt.recomputed_tokens == 0


def test_a_history_of_thousands_takes_memory_for_what_was_said_only():
    conversation = chat_state(model(["Fine."], capacity=160), max_tokens=30)
    conversation.recall([("Hi", "Fine.")] * 4000)
    summary_checkpoints = [*conversation._before, conversation._now]
    held = sum(len(one.left) + len(one.unfolded) + len(one.plan.kept) for one in summary_checkpoints)
    assert len(summary_checkpoints) == 4001 and held < 30 * 4001
