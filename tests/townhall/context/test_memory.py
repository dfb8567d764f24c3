"""Shift and summarize over the scripted model: what is moved, what is written down, and what of that is believed."""

import pytest

from tests.townhall.fake import FakeCache, FakeLlama, FakeTokenizer
from tests.townhall.test_conversation import PERSONA, ask, chat_state, log_model, words
from townhall.context.summarizer import REQUEST, SUMMARIZER, goes_round, invents, repeats, without_questions
from townhall.persona import Persona

NOTE = "Tom lives in Lisbon with a dog."
TOLD = "My name is Tom, who lives in Lisbon with a dog and with three boats, of which two leak."


def model(note=NOTE, length=40, capacity=512, make=FakeLlama):
    """Answers in a few dozen words; asked to write something down, it writes `note`."""
    return make(lambda prompt: note if REQUEST in prompt else words(length), max_context=capacity)


def turn(conversation, text=TOLD):
    ask(conversation, text)
    return conversation.after_reply()


def until_fold(conversation, most=40):
    for _ in range(most):
        if fold := turn(conversation):
            return fold
    raise AssertionError("nothing was ever folded")


@pytest.mark.parametrize("make", [FakeLlama, log_model])
def test_a_shift_computes_nothing_again(make, monkeypatch):
    removed = []
    remove = FakeCache.remove
    monkeypatch.setattr(FakeCache, "remove", lambda self, start, stop: removed.append((start, stop)) or remove(self, start, stop))
    llama = model(make=make)
    conversation = chat_state(llama, context="shift")
    conversation.prepare()
    overflows = 0
    for _ in range(40):
        computed = llama.computed
        ask(conversation, words(20))
        receipt, exchange = conversation.last.receipt, conversation.exchanges[-1]
        overflows += bool(receipt.dropped)
        assert receipt.recomputed_tokens == 0
        # its own tokens, and of the answer before it the last sampled id and the end marker
        assert llama.computed - computed <= len(exchange.user.ids) + 4
        assert llama.prompts[-1][: conversation.window.pinned] == list(conversation.prompt.head_ids)
    assert overflows >= 4 and len(removed) == overflows
    assert len(conversation.exchanges) == 40


def test_the_model_writes_down_what_is_about_to_leave():
    llama = model()
    conversation = chat_state(llama, context="summarize")
    fold = until_fold(conversation)
    gone = conversation.exchanges[: len(fold.messages) // 2]
    assert fold.messages == tuple(m.id for e in gone for m in e.messages)
    # said in every turn and noted once, from what the user told
    assert fold.memory.text == NOTE and fold.memory.sources == tuple(e.user.id for e in gone)
    assert conversation.plan.memory is fold.memory and conversation.plan.kept == tuple(conversation.exchanges[len(gone) :])
    # all of it is read between the turns, so the next one costs its own tokens
    at = conversation.window.pinned
    assert conversation.cache.tokens[at : at + len(fold.memory.ids)] == list(fold.memory.ids)
    computed = llama.computed
    ask(conversation, "And now?")
    last = conversation.last
    assert last.receipt.dropped == fold.messages and last.receipt.memory_of == fold.memory.sources
    assert last.receipt.memory_tokens == len(fold.memory.ids) <= 512 // 8
    assert last.receipt.recomputed_tokens == sum(e.tokens for e in conversation.plan.kept[:-1])
    assert llama.computed - computed <= len(conversation.exchanges[-1].user.ids)
    shown = llama.tokenizer.show(llama.prompts[-1])
    assert NOTE in shown and shown.index(PERSONA.instructions) < shown.index(NOTE) < shown.index("And now?")
    assert "for a memory of" in last.receipt.describe()


def test_only_evicted_text_is_written_down_each_message_once():
    llama = model()
    conversation = chat_state(llama, context="summarize")
    requests, folds = [], []
    for n in range(60):
        ask(conversation, f"turn {n} {TOLD} Right?")
        known = len(llama.prompts)
        if fold := conversation.after_reply():
            folds.append(fold)
            requests.append([llama.tokenizer.show(prompt) for prompt in llama.prompts[known:]])
    assert len(folds) >= 3
    seen = 0
    for fold, request in zip(folds, requests, strict=True):
        assert fold.messages == tuple(range(seen, seen + len(fold.messages)))  # each message once, in order
        leaving = conversation.exchanges[seen // 2 : (seen + len(fold.messages)) // 2]
        assert len(request) == len(leaving)
        for text, exchange in zip(request, leaving, strict=True):
            assert exchange.user.text.removesuffix(" Right?") in text and text.count("turn ") == 1
        assert fold.memory.sources == tuple(range(0, seen + len(fold.messages), 2))
        seen += len(fold.messages)
    assert len(conversation.exchanges) == 60


@pytest.mark.parametrize(
    "note, why",
    [
        ("", "wrote nothing"),
        ("...", "wrote nothing"),
        (" ".join(f"n{chr(97 + i % 26)}{chr(97 + i // 26)}" for i in range(100)), "longer than 64 tokens"),
        ("Stacy raps.", "pinned"),
        (SUMMARIZER.examples[0].reply, "pinned"),
        ("Eleven elephants dance through museums.", "not told"),
        (words(20), "circles"),
    ],
)
def test_a_bad_summary_is_rejected_and_slide_serves(note, why):
    llama = model(note)
    conversation = chat_state(llama, context="summarize")
    fold = until_fold(conversation)
    assert fold.memory is None and why in fold.rejected and why in fold.describe()
    assert conversation.plan.memory is None and not conversation.last.receipt.dropped
    folds, dropped = 0, 0
    for _ in range(30):
        folds += bool(turn(conversation))
        dropped += bool(conversation.last.receipt.dropped)
        assert conversation.last.receipt.memory_tokens == 0
    assert dropped >= 3 and folds <= dropped + 1  # it does not try again what it gave up


def test_a_rejected_memory_leaves_the_one_before_it():
    notes = [NOTE]
    llama = FakeLlama(lambda prompt: notes[-1] if REQUEST in prompt else words(40), max_context=512)
    conversation = chat_state(llama, context="summarize")
    kept = until_fold(conversation).memory
    notes.append("")
    assert until_fold(conversation).memory is None
    assert conversation.plan.memory is kept
    for _ in range(10):
        turn(conversation)
    assert conversation.plan.memory is kept and conversation.last.receipt.memory_of == kept.sources


def test_a_long_turn_is_served_by_slide_and_summarised_after_it():
    llama = model()
    conversation = chat_state(llama, context="summarize")
    for _ in range(3):
        assert turn(conversation) is None
    ask(conversation, words(conversation.window.budget - 120))
    dropped = conversation.last.receipt.dropped
    assert dropped and conversation.plan.memory is None
    fold = conversation.after_reply()
    assert fold.memory and fold.messages[: len(dropped)] == dropped
    assert fold.memory.sources == (0, 2, 4)  # and nothing of the long one, which says one word again and again


def test_an_interrupted_memory_changes_nothing():
    conversation = chat_state(model(), context="summarize")
    while not (fold := (ask(conversation, words(20)), conversation.after_reply(lambda: True))[1]):
        pass
    assert fold.memory is None and "interrupted" in fold.rejected and conversation.plan.memory is None
    assert ask(conversation, "Hi") == words(40)


def test_a_memory_goes_before_a_turn_is_refused():
    conversation = chat_state(model(), context="summarize")
    memory = until_fold(conversation).memory
    message = words(conversation.window.budget - len(conversation.prompt.turn_ids("")))
    ask(conversation, message)
    receipt = conversation.last.receipt
    assert conversation.plan.memory is None and receipt.memory_tokens == 0
    assert receipt.dropped_tokens == sum(e.tokens for e in conversation.exchanges[:-1]) + len(memory.ids)


def test_a_conversation_without_memory_has_nothing_to_do_after_a_reply():
    for context in ("slide", "shift", "stop"):
        conversation = chat_state(FakeLlama([words(10)]), context=context)
        for _ in range(10):
            assert turn(conversation) is None


def test_a_memory_reaches_a_template_whose_turns_depend_on_each_other():
    counting = "{% for m in messages %}{{ loop.index }}{{ m.content }}<|im_end|>{% endfor %}{{ 'assistant:' if add_generation_prompt }}"
    llama = FakeLlama(lambda prompt: NOTE if REQUEST in prompt else words(40), max_context=512, tokenizer=FakeTokenizer(counting))
    conversation = chat_state(llama, context="summarize")
    assert until_fold(conversation).memory
    ask(conversation, "And now?")
    assert NOTE in llama.tokenizer.show(llama.prompts[-1])


def test_reset_forgets_the_memory_too():
    conversation = chat_state(model(), context="summarize")
    until_fold(conversation)
    conversation.reset()
    ask(conversation, "Hi")
    assert conversation.plan.memory is None and not conversation.last.receipt.dropped


@pytest.mark.parametrize(
    "text, source, answer",
    [
        ("Stacy raps about history.", "Stacy raps about history all day.", True),
        ("stacy RAPS, about history", "Stacy raps about history all day.", True),
        ("Tom asked Stacy to rap about his dog.", "Stacy raps about history all day.", False),
        ("Yes", "Oh yes, indeed", True),
        ("Yes", "yesterday", False),
        ("Stacy raps about history and Tom", "Stacy raps about history all day.", True),  # half of it
    ],
)
def test_what_counts_as_repeating(text, source, answer):
    assert repeats(text, source) == answer


def test_the_oldest_notes_go_when_there_are_too_many():
    """Six sentences of which about four fit: the memory stays within its bound, and its ids are those of the notes that are left."""
    names = ["Ann", "Ben", "Cleo", "Dora", "Emil", "Fay", "Gus", "Hal", "Ida", "Jan", "Kim", "Lou"]
    facts = [f"The friend called {name} likes to travel by train." for name in names]

    def script(prompt):
        return next(fact for fact in reversed(facts) if fact in prompt) if REQUEST in prompt else words(40)

    conversation = chat_state(FakeLlama(script, max_context=512), context="summarize")
    for fact in facts:
        turn(conversation, fact)
    memory = conversation.plan.memory
    assert 1 < len(memory.notes) < len(facts) - len(conversation.plan.kept) and len(memory.ids) <= 64
    for note in memory.notes:
        assert conversation.exchanges[note.sources[0] // 2].user.text == note.text
    assert memory.sources == tuple(sorted(memory.sources)) and len(memory.sources) == len(memory.notes)


def test_questions_tell_nothing_and_the_model_is_not_asked_about_them():
    llama = model()
    conversation = chat_state(llama, context="summarize")
    for _ in range(20):
        ask(conversation, "Do you know where Tom lives, who has a dog and who is said to live in Lisbon?")
        known = len(llama.prompts)
        fold = conversation.after_reply()
        assert len(llama.prompts) == known and (fold is None or fold.rejected == "nothing was told in them")
    assert conversation.plan.memory is None


@pytest.mark.parametrize(
    "text, rest",
    [
        ("I am Tom. Who are you?", "I am Tom."),
        ("Who? Me?", ""),
        ("No full stop", "No full stop"),
        ("A list:\none!\ntwo?\nthree", "A list:\none!\n\nthree"),
    ],
)
def test_what_tells_something(text, rest):
    assert without_questions(text) == rest


@pytest.mark.parametrize(
    "text, answer",
    [
        ("Tom lives in Lisbon.", False),  # lives, live
        ("He lives in Lisbon with 3 dogs.", True),
        ("Tom likes to live with elephants.", True),
        ("I am Tom.", False),
        ("I am Bob.", True),
    ],
)
def test_what_counts_as_invented(text, answer):
    assert invents(text, "My name is Tom and I live in Lisbon with my 2 dogs.") == answer


def test_going_round():
    assert goes_round("He loves to sleep all day. He loves to sleep all day. He loves to sleep all day.")
    assert not goes_round("Tom lives in Lisbon with a dog, and the dog lives with Tom.") and not goes_round("Hi")


def test_the_whole_history_can_be_looked_at():
    conversation = chat_state(model(), Persona("Stacy", "Stacy raps."), context="summarize")
    fold = until_fold(conversation)
    text = conversation.history()
    assert f"out of the window: {len(fold.messages)} messages" in text and NOTE in text
    assert text.count("(in the memory)") == len(fold.messages) // 2 and f"#{2 * len(conversation.exchanges) - 1} Stacy: word" in text
