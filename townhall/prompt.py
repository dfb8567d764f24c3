"""From pieces to ids: what stays the same in every prompt is encoded once, what was said is encoded when it is said."""

from collections.abc import Iterable, Sequence

from townhall.context.strategy import WindowPlan
from townhall.errors import PrefillError
from townhall.formats.prompt_pieces import Piece, PromptFormat, PromptTurn
from townhall.language_model import TextTokenizer
from townhall.message import NOT_SAID, Exchange, Memory, Message, Note, messages_of

REMINDER, NOD = "Remember what I told you:", "I remember."


class Prompt:
    """Builds the ids of a prompt so that each one begins with all that the last one and its answer had in common with it."""

    def __init__(self, format: PromptFormat, tokenizer: TextTokenizer):
        self.format, self.tokenizer = format, tokenizer
        self._special = frozenset(tokenizer.special_ids.values())
        self._head = format.head()
        self.head_ids = tuple(self._encode(self._head, bos=True))
        # a turn follows the close of an answer or the head, which ends the same way
        self.close_ids = tuple(self._encode(format.close(), continued=True))
        self._after_close = self._goes_on(self.close_ids, default=True)
        self.stop_ids, self.stop = self._ends()

    def turn_ids(self, text: str) -> tuple[int, ...]:
        """The user's words with their markers, up to where the answer begins."""
        return tuple(self._encode(self.format.turn(text), continued=self._after_close))

    def words(self, text: str) -> list[int]:
        """Ids of words within an answer."""
        return self._encode([Piece(text, special=False)], continued=True) if text else []

    def reply_ids(self, text: str) -> tuple[int, ...]:
        """An answer that the model did not sample, as it would have, with what closes it."""
        return (*self.words(self._lead() + text), *self.close_ids)

    def opening_ids(self, text: str) -> list[int]:
        """What an answer begins with that the model is to carry on; PrefillError where that would be its end.

        The space after the last word is left to the model: tokenizers put it into the next one.
        """
        text = text.lstrip().rstrip(" ")
        if met := next((stop for stop in self.stop if stop in self._lead() + text), None):
            raise PrefillError(f"a reply cannot begin with a text that holds {met!r}, for that ends a reply; leave it out")
        return self.words(self._lead() + text) if text else []

    def _lead(self) -> str:
        """Formats may leave the space after the cue to the answer."""
        cue = "".join(piece.text for piece in self.format.turn("")[-1:])
        return "" if not cue or cue[-1].isspace() or not self._ends_plain(self.turn_ids("")) else " "

    def ids(self, plan: WindowPlan, turn: Message) -> list[int]:
        """The whole prompt: head, memory, kept exchanges, the new turn."""
        if not self.format.turn_by_turn:
            return self._whole([*self._messages(plan), turn])
        return [*self.before(plan), *turn.ids]

    def before(self, plan: WindowPlan) -> list[int]:
        """What a prompt after `plan` begins with, up to the new turn; where turns depend on each other, the head alone."""
        messages = self._messages(plan) if self.format.turn_by_turn else ()
        return [*self.head_ids, *(token for message in messages for token in message.ids)]

    def memory(self, notes: Sequence[Note]) -> Memory:
        """A memory as the model will read it: the user reminds, the persona nods, which every format can lay out."""
        reminder = " ".join([REMINDER, *(note.text for note in notes)])
        nod = Message(NOT_SAID, "assistant", NOD, self.reply_ids(NOD))
        return Memory(tuple(notes), Exchange(Message(NOT_SAID, "user", reminder, self.turn_ids(reminder)), nod))

    def _messages(self, plan: WindowPlan) -> tuple[Message, ...]:
        return messages_of([plan.memory.exchange, *plan.kept] if plan.memory else plan.kept)

    def _whole(self, messages: Sequence[Message]) -> list[int]:
        """The prompt of a format whose turns depend on each other; answers keep the ids that were sampled."""
        pieces = self.format.whole([PromptTurn(message.role, message.text) for message in messages])
        ids: list[int] = []
        if pieces[: len(self._head)] == self._head:
            ids, pieces = list(self.head_ids), pieces[len(self._head) :]
        run: list[Piece] = []
        for piece in pieces:
            if piece.turn is not None and messages[piece.turn].role == "assistant":
                ids += self._encode(run, bos=not ids, continued=self._goes_on(ids))
                ids += messages[piece.turn].ids
                run = []
            else:
                run.append(piece)
        return ids + self._encode(run, bos=not ids, continued=self._goes_on(ids))

    def _ends(self) -> tuple[frozenset[int], tuple[str, ...]]:
        """What ends an answer: the model's stop ids, every marker of a turn, and the format's stop strings.

        Ids that the user chose stand alone; the strings still keep the model from speaking for others.
        """
        markers = self._special.intersection((*self.close_ids, *self.turn_ids("")))
        stop = self.format.stop
        close = "".join(piece.text for piece in self.format.close()).strip()
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
