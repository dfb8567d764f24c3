"""Thoughts: told from the answer, kept apart, and sent again only where the template asks for them."""

import itertools

import pytest

from tests.townhall.fake import CHATML, FakeLlama, FakeTokenizer
from townhall import Conversation
from townhall.answer import Answer
from townhall.persona import Persona
from townhall.thoughts import ThoughtFilter

PERSONA = Persona("Stacy", "Stacy raps.")
THINKING = "<think>\nTwo and two.\n</think>\n\nFour."
OPENING = CHATML.replace("<|im_start|>assistant\n' }}", "<|im_start|>assistant\n<think>\n' }}")
KEEPING = CHATML.replace(
    "message['content'] +",
    "('<think>' + message.reasoning_content + '</think>' if message.reasoning_content else '') + message['content'] +",
)
SWITCHED = CHATML.replace(
    "<|im_start|>assistant\n' }}", "<|im_start|>assistant\n' + ('' if enable_thinking | default(true) else '<think>\n\n</think>\n\n') }}"
)


class ThinkingTokenizer(FakeTokenizer):
    """The tags are tokens, as in most reasoning models: they say nothing when they are decoded."""

    def __init__(self, template):
        super().__init__(template)
        for n, tag in ((10, "<think>"), (11, "</think>")):
            self.texts[n] = tag
            self.special_ids = self.special_ids | {tag: n}

    def encode_pieces(self, pieces, bos=True, continued=False):
        ids = []
        for text, special in pieces:
            for part in [text] if not special else [part for part in _cut(text) if part]:
                ids += (
                    [self.special_ids[part]]
                    if special and part in ("<think>", "</think>")
                    else super().encode_pieces([(part, special)], bos=False)
                )
        return [0, *ids] if bos and ids[:1] != [0] else ids

    def decode(self, ids):
        return super().decode(n for n in ids if n not in (10, 11))


def _cut(text):
    for tag in ("<think>", "</think>"):
        text = text.replace(tag, f"\0{tag}\0")
    return text.split("\0")


def talk(script, template=CHATML, tokenizer=FakeTokenizer, **settings):
    llama = FakeLlama(script, tokenizer=tokenizer(template))
    return Conversation(llama, PERSONA, sampling=object(), **settings), llama


def tokens(llama, text):
    return [llama.tokenizer.show([n]) for n in llama.tokenizer.encode(text, bos=False)]


@pytest.mark.parametrize(
    "text, thinking, expected",
    [
        ("Hello.", False, ("", "Hello.")),
        ("<think>a</think>b", False, ("a", "b")),
        (" \n<think>a<b</think></think>", False, ("a<b", "</think>")),
        ("a</think>b<think>c", True, ("a", "b<think>c")),
        ("<thin", False, ("", "<thin")),
        ("  ", False, ("", "  ")),
        ("<thinner>", False, ("", "<thinner>")),
        ("a</thi", True, ("a</thi", "")),
        ("<think></think>", False, ("", "")),
        ("\n<think>a</think>b", True, ("a", "b")),
        ("Is <think> a tag?", False, ("", "Is <think> a tag?")),
    ],
)
def test_thoughts_are_told_from_words_however_the_text_is_cut(text, thinking, expected):
    for cuts in itertools.chain.from_iterable(itertools.combinations(range(1, len(text)), n) for n in range(3)):
        parts = [text[a:b] for a, b in itertools.pairwise((0, *cuts, len(text)))]
        told = ThoughtFilter(thinking)
        pieces = [*map(told.push, parts), told.flush()]
        assert tuple(map("".join, zip(*pieces, strict=True))) == expected


@pytest.mark.parametrize("tokenizer", [FakeTokenizer, ThinkingTokenizer])
@pytest.mark.parametrize("template, said", [(CHATML, THINKING), (OPENING, THINKING.removeprefix("<think>\n"))])
def test_an_answer_comes_without_its_thoughts(tokenizer, template, said):
    conversation, llama = talk([said, "Yes."], template, tokenizer)
    heard = []
    assert "".join(conversation.reply("2 + 2?", on_reasoning=heard.append)) == "Four."
    assert "".join(heard) == "Two and two." == conversation.last.reasoning and conversation.last.text == "Four."
    assert not {10, 11} & conversation.prompt.stop_ids
    "".join(conversation.reply("Sure?"))
    shown = llama.tokenizer.show(llama.prompts[-1])
    cue = "<|im_start|>assistant\n" + ("<think>\n" if template is OPENING else "")
    assert shown.endswith(f"2 + 2?<|im_end|>\n<|im_start|>assistant\nFour.<|im_end|>\n<|im_start|>user\nSure?<|im_end|>\n{cue}")


def test_what_was_sampled_of_the_answer_stays_as_it_was_sampled():
    script = ["<think>", "hm", "</think>", "\n", "\n", "F", "our", "."]  # no tokenizer would make these of "Four."
    conversation, llama = talk([script, "Yes."], tokenizer=ThinkingTokenizer)
    assert "".join(conversation.reply("2 + 2?")) == "Four." and conversation.last.reasoning == "hm"
    sampled = [llama.tokenizer.id(part) for part in ("F", "our", ".")]
    assert conversation.exchanges[0].reply.ids == (*sampled, *conversation.prompt.close_ids)


def test_a_token_that_ends_thoughts_and_begins_the_answer_is_cut_between_them():
    conversation, llama = talk([["<", "think", ">", "hm", "</think>\n\nFour", "."]])
    llama.tokenizer.id("</think>\n\nFour")
    assert "".join(conversation.reply("2 + 2?")) == "Four."
    ids = conversation.exchanges[0].reply.ids
    assert llama.tokenizer.show(ids) == "Four.<|im_end|>\n"


def test_ids_of_thoughts_are_counted_apart_from_those_of_the_answer():
    conversation, llama = talk([""])
    answer = Answer(llama, conversation.prompt)
    counts = []
    for part in ["<think>", "hm", "</think>", "\n", "Four", "."]:
        answer.push(llama.tokenizer.id(part))
        counts.append((answer.first, answer.whole))
    assert counts[-3:] == [(4, 0), (4, 5), (4, 6)]


def test_a_template_that_keeps_thoughts_gets_them():
    conversation, llama = talk([THINKING, "Yes."], KEEPING)
    for question in ("2 + 2?", "Sure?"):
        "".join(conversation.reply(question))
    assert "assistant\n<think>Two and two.</think>Four.<|im_end|>" in llama.tokenizer.show(llama.prompts[-1])


@pytest.mark.parametrize("think, cue", [(None, ""), (True, ""), (False, "<think>\n\n</think>\n\n")])
def test_the_templates_switch_is_set_where_the_user_set_it(think, cue):
    conversation, llama = talk(["Four."], SWITCHED, think=think)
    assert "".join(conversation.reply("2 + 2?")) == "Four."
    assert llama.tokenizer.show(llama.prompts[-1]).endswith(f"<|im_start|>assistant\n{cue}")


@pytest.mark.parametrize("tokenizer", [FakeTokenizer, ThinkingTokenizer])
def test_thoughts_end_where_their_budget_does(tokenizer):
    conversation, _ = talk([[*([" hm"] * 5), *([" so"] * 50)]], OPENING, tokenizer, think_tokens=5, max_tokens=20)
    answer = "".join(conversation.reply("2 + 2?"))
    assert conversation.last.reasoning == "hm hm hm hm hm"
    assert answer.startswith("so so so") and conversation.last.tokens == 20


def test_thoughts_that_never_end_leave_an_empty_answer():
    conversation, _ = talk(["<think> one two three four"], max_tokens=6)
    assert "".join(conversation.reply("2 + 2?")) == "" and conversation.last.finish_reason == "length"
    assert conversation.last.reasoning == "one two three"[: len(conversation.last.reasoning)] and conversation.last.reasoning
    assert conversation.exchanges[0].reply.ids == conversation.prompt.close_ids


def test_an_interrupt_is_heard_while_the_model_thinks():
    conversation, _ = talk(["<think>" + " hm" * 50 + "</think> Four."])
    thoughts = []
    pieces = conversation.reply("2 + 2?", stopped=lambda: len(thoughts) > 3, on_reasoning=thoughts.append)
    assert "".join(pieces) == "" and conversation.last.finish_reason == "interrupted" and len(thoughts) == 4
    assert not conversation.exchanges


def test_stop_strings_do_not_end_thoughts():
    conversation, _ = talk(["<think>What would\nUser: say? [EOS]</think>Four. [EOS] No"])
    assert "".join(conversation.reply("2 + 2?")) == "Four."
    assert conversation.last.reasoning == "What would\nUser: say? [EOS]"


def test_words_that_an_answer_is_to_begin_with_are_no_thoughts():
    conversation, llama = talk([" five."], OPENING)
    assert "".join(conversation.reply("2 + 3?", prefill="It is")) == "It is five." and conversation.last.reasoning == ""
    assert llama.tokenizer.show(llama.prompts[-1]).endswith("assistant\n<think>\n</think>\n\nIt is")
