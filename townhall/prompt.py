"""From pieces to ids: what stays the same in every prompt is encoded once, what was said is encoded when it is said."""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from townhall.context.source import PromptPart, SourceText
from townhall.context.strategy import WindowPlan
from townhall.errors import PrefillError
from townhall.formats.prompt_pieces import Piece, PromptFormat, PromptTurn, text_of
from townhall.language_model import TextTokenizer
from townhall.message import NOT_SAID, Exchange, Memory, Message, Note, messages_of
from townhall.thoughts import CLOSE, OPEN, left_open

REMINDER, NOD = "Remember what I told you:", "I remember."
_ANY_WORD = "\ue000"  # which no text holds: it is for private use
_END_OF_THOUGHTS = [Piece(CLOSE, special=True), Piece("\n\n", special=False)]


class Prompt:
    """Builds the ids of a prompt so that each one begins with all that the last one and its answer had in common with it."""

    def __init__(self, format: PromptFormat, tokenizer: TextTokenizer, head_texts: Sequence[SourceText] = ()):
        """`head_texts` are what sources put into the head of `format`'s persona."""
        self.format, self.tokenizer, self.head_texts = format, tokenizer, tuple(head_texts)
        self._special = frozenset(tokenizer.special_ids.values())
        self._head = format.head() if format.fixed_head else self._up_to_control(format.head())
        self.head_ids = tuple(self._encode(self._head, bos=True))
        # a turn follows the close of an answer or the head, which ends the same way
        self.close_ids = tuple(self._encode(format.close(), continued=True))
        self._after_close = self._goes_on(self.close_ids, default=True)
        self._after_cue = self._goes_on(self.turn_ids(""), default=True)
        self._lead = text_of(format.reply(""))
        self.opens_thoughts = left_open(text_of(format.turn("")))
        self.think_tags = {tokenizer.special_ids[tag]: tag for tag in (OPEN, CLOSE) if tag in tokenizer.special_ids}
        self.thoughts_end = tuple(self._encode([Piece("\n", special=False), *_END_OF_THOUGHTS], continued=True))
        self.stop_ids, self.stop = self._ends()

    def turn_ids(self, text: str) -> tuple[int, ...]:
        """The user's words with their markers, up to where the answer begins."""
        return tuple(self._encode(self.format.turn(text), continued=self._after_close))

    def turns_ids(self, turns: Iterable[PromptTurn], spoken: Callable[[str], Sequence[int] | None]) -> tuple[int, ...]:
        """Several turns with their markers; `spoken` gives the ids of an answer where they are known.

        Of turns that only the template can lay out these are about as many as they take.
        """
        ids: list[int] = []
        for turn in turns:
            if turn.role != "assistant":
                ids += self.turn_ids(turn.text)
            elif not turn.calls and (sampled := spoken(turn.text)) is not None:
                ids += (*sampled, *self.close_ids)
            else:
                ids += self.reply_ids(turn.spelled)
        return tuple(ids)

    def words(self, text: str) -> list[int]:
        """Ids of words within an answer."""
        return self._encode([Piece(text, special=False)], continued=True) if text else []

    def reply_ids(self, text: str) -> tuple[int, ...]:
        """An answer that the model did not sample, as the format lays it out, with what closes it."""
        return (*self._encode(self.format.reply(text), continued=self._after_cue), *self.close_ids)

    def begun_ids(self, text: str) -> tuple[int, ...]:
        """An answer that is to be carried on where it ends."""
        ended = _END_OF_THOUGHTS if self.opens_thoughts else []
        return tuple(self._encode([*ended, *self.format.reply(text)], continued=self._after_cue))

    def opening_ids(self, text: str) -> list[int]:
        """What an answer begins with that the model is to carry on; PrefillError where that would be its end.

        The space after the last word is left to the model: tokenizers put it into the next one.
        """
        text = self._lead + text.lstrip().rstrip(" ")
        if met := next((stop for stop in self.stop if stop in text), None):
            raise PrefillError(f"a reply cannot begin with a text that holds {met!r}, for that ends a reply; leave it out")
        ended = _END_OF_THOUGHTS if self.opens_thoughts else []
        return self._encode([*ended, Piece(text, special=False)], continued=self._after_cue) if text.strip() else []

    def continued_ids(self, ids: Sequence[int]) -> list[int]:
        """The beginning of an answer that the model is to carry on, from the ids that its words have."""
        ended = self._encode(_END_OF_THOUGHTS, continued=self._after_cue) if self.opens_thoughts and ids else []
        return [*ended, *ids]

    def ids(self, plan: WindowPlan, turn: Message) -> list[int]:
        """The whole prompt: head, memory, kept exchanges, the new turn. TemplateError where the format refuses it."""
        messages = [*self._messages(plan), turn]
        turns = [(message, one) for message in messages for one in message.laid_out]
        pieces = self.format.whole([one for _, one in turns])
        parts = [] if any(one.structured for _, one in turns) else [self._laid_out(one) for _, one in turns]
        if self.format.turn_by_turn and parts and text_of(pieces) == text_of(self._head) + "".join(parts):
            return [*self.before(plan), *turn.ids]
        return self._whole([message for message, _ in turns], pieces)

    def user_cue_ids(self, plan: WindowPlan) -> list[int]:
        """A prompt that ends where the user's next words begin, for the model to write them."""
        messages = [*self._messages(plan), Message(NOT_SAID, "user", _ANY_WORD, ())]
        pieces = self.format.whole([PromptTurn(message.role, message.text, message.reasoning) for message in messages])
        words = max(at for at, piece in enumerate(pieces) if _ANY_WORD in piece.text)
        # tokenizers put the space before a word into the word
        cue = replace(pieces[words], text=pieces[words].text.rpartition(_ANY_WORD)[0].rstrip(" "), turn=None)
        if cue.text or not words:
            return self._whole(messages, [*pieces[:words], cue])
        return self._whole(messages, [*pieces[: words - 1], replace(pieces[words - 1], text=pieces[words - 1].text.rstrip(" "))])

    def before(self, plan: WindowPlan) -> list[int]:
        """What a prompt after `plan` begins with, up to the new turn; where turns depend on each other, the head alone."""
        messages = self._messages(plan) if self.format.turn_by_turn else ()
        return [*self.head_ids, *(token for message in messages for token in message.ids)]

    def memory(self, notes: Sequence[Note]) -> Memory:
        """A memory as the model will read it: the user reminds, the persona nods, which every format can lay out."""
        reminder = " ".join([REMINDER, *(note.text for note in notes)])
        nod = Message(NOT_SAID, "assistant", NOD, self.reply_ids(NOD))
        return Memory(tuple(notes), Exchange(Message(NOT_SAID, "user", reminder, self.turn_ids(reminder)), nod))

    def head_parts(self) -> list[PromptPart]:
        """The head's lines of a receipt: a source's texts are counted by themselves, the persona is the rest.

        Where turns depend on each other, little of it is pinned, and the persona counts as history.
        """
        parts = [
            PromptPart(text.source, text.place.describe(), len(self._encode([Piece(f"{text.text}\n", special=False)])), text.items)
            for text in self.head_texts
        ]
        return [PromptPart("persona", "head", max(0, len(self.head_ids) - sum(part.tokens for part in parts))), *parts]

    def _messages(self, plan: WindowPlan) -> tuple[Message, ...]:
        return messages_of([plan.memory.exchange, *plan.kept] if plan.memory else plan.kept)

    def _laid_out(self, turn: PromptTurn) -> str:
        """A turn as it reads where turns stand by themselves."""
        if turn.role == "user":
            return text_of(self.format.turn(turn.text))
        return text_of([*self.format.reply(turn.text), *self.format.close()])

    def _whole(self, messages: Sequence[Message], pieces: Sequence[Piece]) -> list[int]:
        """The prompt that reads as `pieces`; a sampled answer that stands in it unchanged keeps its ids."""
        ids: list[int] = []
        if (rest := _without(pieces, text_of(self._head))) is not None:
            ids, pieces = list(self.head_ids), rest
        parts = Counter(piece.turn for piece in pieces)
        run: list[Piece] = []
        for piece in pieces:
            message = None if piece.turn is None else messages[piece.turn]
            if message and message.sampled and parts[piece.turn] == 1 and piece.text.strip() == message.text.strip():
                ids += self._encode(self._up_to_cue(run), bos=not ids, continued=self._goes_on(ids))
                ids += message.ids[: len(message.ids) - len(self.close_ids)]
                run = []
            else:
                run.append(piece)
        return ids + self._encode(run, bos=not ids, continued=self._goes_on(ids))

    def _up_to_cue(self, run: list[Piece]) -> list[Piece]:
        """Without the white space before an answer, which its ids begin with."""
        if not self._lead or not run or not run[-1].special or not run[-1].text.endswith(self._lead):
            return run
        return [*run[:-1], Piece(run[-1].text.removesuffix(self._lead), special=True)]

    def _up_to_control(self, pieces: Sequence[Piece]) -> list[Piece]:
        """Up to the last control token: the next text begins there whatever it is, so that its ids are the same in every prompt."""
        for at in range(len(pieces) - 1, -1, -1):
            text = pieces[at].text if pieces[at].special else ""
            if end := max((text.rfind(token) + len(token) for token in self.tokenizer.special_ids if token in text), default=0):
                return [*pieces[:at], Piece(text[:end], special=True)]
        return []

    def _ends(self) -> tuple[frozenset[int], tuple[str, ...]]:
        """What ends an answer: the model's stop ids, every marker of a turn, and the format's stop strings.

        Ids that the user chose stand alone; the strings still keep the model from speaking for others.
        """
        markers = self._special.intersection((*self.close_ids, *self.turn_ids(""))) - self.think_tags.keys()
        stop = self.format.stop
        close = text_of(self.format.close()).strip()
        if close and not self._special.intersection(self.close_ids):
            stop = tuple(dict.fromkeys((close, *stop)))  # an end marker that is spelled in ordinary text
        return self.tokenizer.stop_ids if self.tokenizer.stop_is_chosen else self.tokenizer.stop_ids | markers, stop

    def _encode(self, pieces: Iterable[Piece], bos: bool = False, continued: bool = False) -> list[int]:
        return self.tokenizer.encode_pieces([(piece.text, piece.special) for piece in pieces], bos=bos, continued=continued)

    def _goes_on(self, ids: Sequence[int], default: bool = False) -> bool:
        """Does what follows the ids begin without the space that SentencePiece puts before a text?"""
        return bool(ids) and not self.tokenizer.space_after_special or self._ends_plain(ids, default)

    def _ends_plain(self, ids: Sequence[int], default: bool = False) -> bool:
        """Do the ids end in ordinary text, so that what follows continues it?"""
        return ids[-1] not in self._special if ids else default


def _without(pieces: Sequence[Piece], start: str) -> list[Piece] | None:
    """What is left of the pieces after `start`; None where they do not begin so."""
    left = list(pieces)
    while start and left and start.startswith(left[0].text):
        start = start.removeprefix(left.pop(0).text)
    if start and (not left or not left[0].text.startswith(start)):
        return None
    return [replace(left[0], text=left[0].text.removeprefix(start)), *left[1:]] if start else left
