"""What sources put into prompts: where it stands, what the receipt says of it, and what the next prompt still shares with the last."""

from dataclasses import dataclass, field

import pytest

from app.models.llama.sampling_params import SamplingParams
from tests.townhall.fake import CHATML, FakeLlama, FakeTokenizer
from townhall.context.source import NoteSource, PromptSources, SourceItem, SourcePlace, SourceSpot, SourceText, SourceTurn, shares
from townhall.context.strategies import STRATEGIES
from townhall.conversation import Conversation
from townhall.errors import ContextError
from townhall.formats.prompt_pieces import PromptTurn
from townhall.logbook.log_reader import read_log
from townhall.logbook.logged_chat import LoggedChat
from townhall.logbook.recording_model import RecordedModel
from townhall.logbook.replayer import RehearsedModel, replay
from townhall.persona import Example, Persona
from townhall.prompt_builder import open_window
from townhall.transcript import lay_out

PERSONA = Persona("Stacy", "Stacy raps.", examples=(Example("Your name?", "Stacy."),))
# depends on the number of messages, so that no turn stands by itself
NUMBERED = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + ' ' + messages|length|string + '\n' + m['content'] + '<|im_end|>' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


@dataclass
class Counting:
    """Says how often it was asked, by what it remembers; one text of the head."""

    place: SourcePlace = SourcePlace(SourceSpot.NEWEST)
    pinned: str = ""
    size: int = 12
    name: str = "counting"
    remembers: bool = True
    seen: list[list[tuple[str, str]]] = field(default_factory=list)

    def budget(self, capacity, count):
        return self.size + 4

    def head(self, count):
        return [SourceText(self.name, SourcePlace(SourceSpot.AFTER_CHARACTER), self.pinned)] if self.pinned else []

    def turn(self, request):
        self.seen.append(list(request.messages))
        number = request.state.get("times", 0) + 1
        text = " ".join([f"turn {number}", *["x"] * (self.size - 3)])
        items = (SourceItem("a number", f"turn {number}", request.count(text)),)
        return SourceTurn((SourceText(self.name, self.place, text, items),), {"times": number}, (SourceItem("other", "not asked for"),))


def model(script=("Fine.",), template=CHATML, **settings):
    return FakeLlama(script, tokenizer=FakeTokenizer(chat_template=template), **settings)


def talk(llama, *sources, persona=PERSONA, **settings):
    sampling = SamplingParams(seed=1)
    return Conversation(llama, persona, sampling=sampling, sources=PromptSources(sources, llama.tokenizer), **settings)


def ask(conversation, text):
    said = "".join(conversation.reply(text))
    assert_adds_up(conversation)
    return said


def assert_adds_up(conversation):
    receipt = conversation.last.receipt
    by_name = {part.name: part.tokens for part in receipt.parts}
    assert sum(part.tokens for part in receipt.parts) == receipt.prompt_tokens
    assert all(part.tokens >= 0 for part in receipt.parts)
    assert by_name.get("memory", 0) == receipt.memory_tokens
    if conversation.prompt.format.turn_by_turn:  # then the parts can be counted one by one
        newest = conversation.exchanges[-1]
        pinned = ("head", "before the character", "after the character")
        assert sum(part.tokens for part in receipt.parts if part.place in pinned) == receipt.pinned_tokens
        assert by_name["turn"] == len(newest.user.ids)
        assert by_name["history"] == sum(exchange.tokens for exchange in conversation.plan.kept[:-1])


def receipt_tokens(conversation, name):
    return sum(part.tokens for part in conversation.last.receipt.parts if part.name == name)


def shown(llama, at=-1):
    return llama.tokenizer.show(llama.prompts[at])


@pytest.mark.parametrize(
    "place, expected",
    [
        (SourcePlace(SourceSpot.NEWEST), "NOTE\n\nthree"),
        (SourcePlace(SourceSpot.AT_DEPTH, 0), "three\n\nNOTE"),
        (SourcePlace(SourceSpot.AT_DEPTH, 1), "NOTE\n\nthree"),
        (SourcePlace(SourceSpot.AT_DEPTH, 2), "two\n\nNOTE"),
        (SourcePlace(SourceSpot.AT_DEPTH, 3), "NOTE\n\ntwo"),
        (SourcePlace(SourceSpot.AT_DEPTH, 4), "one\n\nNOTE"),
        (SourcePlace(SourceSpot.AT_DEPTH, 99), "NOTE\n\none"),
        (SourcePlace(SourceSpot.AT_DEPTH, 0, from_start=True), "NOTE\n\none"),
        (SourcePlace(SourceSpot.AT_DEPTH, 1, from_start=True), "one\n\nNOTE"),
        (SourcePlace(SourceSpot.AT_DEPTH, 99, from_start=True), "three\n\nNOTE"),
    ],
)
@pytest.mark.parametrize("template", [CHATML, None, NUMBERED], ids=["chatml", "chat_log", "numbered"])
def test_a_text_stands_at_its_depth_in_every_format(place, expected, template):
    llama = model(template=template)
    conversation = talk(llama)
    for text in ("one", "two"):
        ask(conversation, text)
    conversation.use(PromptSources([At(place)], llama.tokenizer))
    ask(conversation, "three")
    assert expected in shown(llama) and shown(llama).count("NOTE") == 1
    assert "NOTE" not in conversation.history()


@dataclass
class At:
    """One text at one place."""

    place: SourcePlace
    name = "at"
    remembers = False

    def budget(self, capacity, count):
        return 20

    def head(self, count):
        return ()

    def turn(self, request):
        return SourceTurn((SourceText(self.name, self.place, "NOTE"),))


def test_texts_that_meet_keep_their_order_and_the_newest_words_come_last():
    llama = model()
    newest, deep = Counting(size=4), NoteSource("note", "be kind", depth=1)
    ask(talk(llama, newest, deep, NoteSource("last", "in one word", depth=0)), "hello")
    assert "[be kind]\n\nturn 1 x\n\nhello\n\n[in one word]<|im_end|>" in shown(llama)


@pytest.mark.parametrize("role, expected", [("system", "[be kind]"), ("user", "be kind"), ("assistant", " Stacy: be kind")])
def test_a_note_by_its_role_and_nobody_speaks_out_of_turn(role, expected):
    llama = model(template=None)
    ask(talk(llama, NoteSource("note", "be kind", 0, role, speaker="Stacy")), "hello")
    assert shown(llama).endswith(f"User: hello\n\n{expected}\nStacy:")


def test_a_note_at_every_third_message():
    llama = model()
    conversation = talk(llama, NoteSource("reminder", "you are Stacy", depth=0, every=3))
    for text in "abcdef":
        ask(conversation, text)
    assert ["you are Stacy" in shown(llama, at) for at in range(6)] == [False, False, True, False, False, True]


@pytest.mark.parametrize("template", [CHATML, None, NUMBERED], ids=["chatml", "chat_log", "numbered"])
def test_pinned_texts_stand_around_the_description_and_count_as_the_head(template):
    llama = model(template=template)
    source = Counting(pinned="The sea is near.")
    conversation = talk(llama, source, persona=PERSONA)
    ask(conversation, "hello")
    assert "Stacy raps.\nThe sea is near." in shown(llama)
    part = next(part for part in conversation.last.receipt.parts if part.place == "after the character")
    assert part.tokens == len(llama.tokenizer.encode("The sea is near.\n", bos=False))


@pytest.mark.slow
@pytest.mark.parametrize("template", [CHATML, None, NUMBERED], ids=["chatml", "chat_log", "numbered"])
@pytest.mark.parametrize("context", sorted(STRATEGIES))
def test_every_strategy_keeps_head_and_sums_through_a_long_talk(context, template):
    llama = model(["Fine, I think. " * 3], max_context=256, template=template)
    deep = Counting(SourcePlace(SourceSpot.AT_DEPTH, 3), size=10, name="deep")
    conversation = talk(llama, Counting(pinned="By the sea.", size=20), deep, context=context, max_tokens=20)
    head, dropped = list(conversation.prompt.head_ids), 0
    for number in range(30):
        try:
            ask(conversation, f"My number is {number}.")
        except ContextError:
            assert context == "stop"
            break
        assert llama.prompts[-1][: len(head)] == head
        assert f"turn {number + 1} x" in shown(llama)
        conversation.after_reply()
        dropped += conversation.last.receipt.dropped_tokens
    assert dropped or context == "stop"


def test_only_the_last_exchange_is_read_again_for_what_stood_beside_it():
    llama = model()
    conversation = talk(llama, Counting())
    conversation.prepare()
    ask(conversation, "hello")
    assert conversation.last.receipt.recomputed_tokens == 0
    for text in ("one", "two", "three"):
        held, last = list(conversation.cache.tokens), conversation.exchanges[-1]
        ask(conversation, text)
        receipt, reply = conversation.last.receipt, conversation.last
        start = llama.prompts[-2].index(llama.tokenizer.id("turn"), len(conversation.prompt.head_ids))
        assert reply.cached_tokens == start and llama.prompts[-1][:start] == held[:start]
        # all of that exchange but what stands before the text, and but what the model had not read yet: the end of its answer
        unread = len(conversation.prompt.close_ids)
        whole = len(llama.prompts[-2]) - receipt_tokens(conversation, "counting") + len(last.reply.ids)
        assert receipt.recomputed_tokens == whole - start - unread


def test_what_is_read_again_is_counted_after_the_sources_have_changed():
    llama = model()
    conversation = talk(llama, Counting())
    conversation.prepare()
    ask(conversation, "hello")
    last, unread = conversation.exchanges[-1], len(conversation.prompt.close_ids)
    conversation.use(conversation.sources.adding([NoteSource("note", "be kind", depth=1)]))
    ask(conversation, "one")
    start = llama.prompts[0].index(llama.tokenizer.id("turn"), len(conversation.prompt.head_ids))
    assert conversation.last.cached_tokens == start
    assert conversation.last.receipt.recomputed_tokens == len(conversation.prompt.head_ids) + last.tokens - start - unread


def test_a_source_remembers_through_undo_and_retry():
    llama, source = model(), Counting()
    conversation = talk(llama, source)
    for text in ("a", "b", "c"):
        ask(conversation, text)
    assert conversation.source_states[-1] == {"counting": {"times": 3}}
    conversation.undo(2)
    ask(conversation, "d")
    assert "turn 2 x" in shown(llama)
    "".join(conversation.reply("e", instead=1))
    assert "turn 2 x" in shown(llama)
    assert source.seen[-1] == [("user", "a"), ("assistant", "Fine."), ("user", "e")]


def test_what_finds_no_room_is_left_out_and_named():
    llama = model(max_context=128)
    conversation = talk(llama, Counting(size=20), max_tokens=16)
    assert conversation.window.beside == 24
    long = "word " * (conversation.window.capacity - conversation.window.pinned - 30)
    ask(conversation, long)
    assert "turn 1" not in shown(llama)
    assert [item.label for item in conversation.last.receipt.passed_over] == ["other", "counting"]


def test_a_window_keeps_at_most_half_of_its_room_for_sources():
    llama = model(max_context=128)
    conversation = talk(llama, Counting(size=500), max_tokens=16)
    free = 128 - conversation.window.pinned - conversation.window.reserve
    assert conversation.window.beside == free // 2 == free - conversation.window.budget


@pytest.mark.parametrize(
    "wishes, room, given", [([], 9, []), ([5, 5], 20, [5, 5]), ([40, 128, 256], 259, [40, 109, 110]), ([9, 9, 9], 2, [0, 1, 1])]
)
def test_small_wishes_are_met_and_large_ones_share(wishes, room, given):
    assert shares(wishes, room) == given


@pytest.mark.slow
@pytest.mark.parametrize("template", [CHATML, None], ids=["chatml", "chat_log"])
def test_a_transcript_comes_to_the_prompt_of_the_conversation(template):
    llama = model(template=template, max_context=256)
    sources = [Counting(pinned="By the sea.", size=20), Counting(SourcePlace(SourceSpot.AT_DEPTH, 3), size=10, name="deep")]
    conversation = talk(llama, *sources, max_tokens=20)
    turns: list[PromptTurn] = []
    for number in range(20):
        turns.append(PromptTurn("user", f"My number is {number}."))
        ask(conversation, turns[-1].text)
        set_of = PromptSources(sources, llama.tokenizer)
        window = open_window(conversation.prompt, 256, 20, set_of)
        spoken = {exchange.reply.text: exchange.reply.ids[: -len(conversation.prompt.close_ids)] for exchange in conversation.exchanges}
        plan = lay_out(conversation.prompt, conversation.strategy, window, turns, spoken.get, sources=set_of, seed=1)
        assert llama.tokenizer.show(plan.ids) == shown(llama) and list(plan.ids) == llama.prompts[-1]
        assert sum(part.tokens for part in plan.parts) == len(plan.ids)
        assert [part.to_json() for part in plan.parts] == [part.to_json() for part in conversation.last.receipt.parts]
        turns.append(PromptTurn("assistant", conversation.exchanges[-1].reply.text))


@pytest.mark.slow
@pytest.mark.parametrize("template", [CHATML, None, NUMBERED], ids=["chatml", "chat_log", "numbered"])
@pytest.mark.parametrize("context", ["slide", "shift", "summarize"])
def test_a_log_repeats_itself_without_its_sources(tmp_path, template, context):
    """The files that a source read may be gone or changed when the log is replayed."""
    settings = {"context": context, "max_tokens": 20}
    recorded = RecordedModel(model(["Fine, I think. " * 3], template=template, max_context=256))

    def open_talk():
        conversation = talk(recorded, Counting(pinned="By the sea.", size=20), **settings)
        place = tmp_path / "log.md"
        note = conversation.sources.note(256)
        return conversation, LoggedChat.begin(place, recorded, PERSONA, conversation.cache.identity, {}, sources=note)

    def say(conversation, log, text):
        pieces = conversation.reply(text)
        log.asked(text)
        "".join(pieces)
        log.answered(conversation.last, max_tokens=20)
        conversation.after_reply()

    conversation, log = open_talk()
    conversation.prepare()
    for number in range(12):
        say(conversation, log, f"My number is {number}.")
    conversation.undo(2)
    log.undone(2)
    changed = PromptSources([*conversation.sources.sources, NoteSource("note", "be kind", depth=2)], recorded.tokenizer)
    conversation.use(changed)
    log.sourced(changed.note(256))
    for number in range(3):
        say(conversation, log, f"My name is {number}.")
    log.close()

    from townhall.logbook import restore

    conversation, log = open_talk()  # without the note, as another start of the program
    conversation.prepare()
    restore.recall(conversation, restore.exchanges(restore.standing(log.found.events)))
    say(conversation, log, "And now?")
    assert conversation.last.gathered.texts[0].text.startswith("turn 14 x")
    log.close()

    rehearsed = RehearsedModel(model(["Fine, I think. " * 3], template=template, max_context=256))
    again = Conversation(rehearsed, PERSONA, **settings)
    again.prepare()
    result = replay(read_log(tmp_path / "log.md"), rehearsed, again)
    assert result.difference is None and result.replies == 16
