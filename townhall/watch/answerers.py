"""Answerers of watched files: a conversation kept equal to the file, or text completion.

Both keep their KV caches between saves, in a pool with a memory budget.
"""

from collections import OrderedDict
from collections.abc import Callable, Generator, Hashable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from townhall.answer import EdgeTrim
from townhall.conversation import Conversation
from townhall.language_model import LanguageModel
from townhall.prompt_builder import LONGEST_TOKEN
from townhall.reply import Reply
from townhall.text_completion import TextCompletion
from townhall.watch.tasks import History, Task

if TYPE_CHECKING:
    from app.models.llama import SamplingParams


class Answerer(Protocol):
    """A task in, words out; `last` has the figures afterwards."""

    @property
    def last(self) -> Reply | None: ...
    @property
    def nbytes(self) -> int: ...  # that the cache takes
    def begin(self, task: Task) -> Generator[str, None, None]:
        """The words that follow `task.base`; TownhallError where there can be none."""
        ...

    def rest(self, stopped: Callable[[], bool]) -> None:
        """The reply has been written; work that delays no reader goes here."""
        ...


class ConversationAnswerer:
    """Only what follows the first changed token of the file is computed."""

    def __init__(self, conversation: Conversation):
        self.conversation = conversation

    @property
    def last(self) -> Reply | None:
        return self.conversation.last

    @property
    def nbytes(self) -> int:
        return getattr(self.conversation.cache, "nbytes", 0)

    def begin(self, task: Task) -> Generator[str, None, None]:
        *history, (question, _) = task.history
        self._recall(tuple(history))
        return _after(self.conversation.reply(question, task.said), len(task.said))

    def rest(self, stopped: Callable[[], bool]) -> None:
        self.conversation.after_reply(stopped)

    def _recall(self, history: History) -> None:
        """Make the conversation's history this one. Where it is so already, what the strategy made of it stays, memories included."""
        conversation = self.conversation
        present = tuple((exchange.user.text, exchange.reply.text) for exchange in conversation.exchanges)
        if history == present[: len(history)]:
            conversation.undo(len(present) - len(history))
        else:
            conversation.recall(history)


class TextAnswerer:
    """The text goes on from its last word. Without `trim` the model's own white space at the end stays."""

    def __init__(self, llama: LanguageModel, sampling: "SamplingParams", max_tokens: int, context: str = "slide", trim: bool = True):
        self.llama, self.sampling, self.max_tokens, self.context, self.trim = llama, sampling, max_tokens, context, trim
        self.cache: Any = llama.new_cache()
        self.last: Reply | None = None

    @property
    def nbytes(self) -> int:
        return getattr(self.cache, "nbytes", 0)

    def begin(self, task: Task) -> Generator[str, None, None]:
        # of a book, no more than the window could hold is worth tokenising
        text = task.base[-self.cache.capacity * LONGEST_TOKEN :]
        return self._pieces(TextCompletion(self.llama, text, self.sampling, self.max_tokens, self.context, self.cache))

    def rest(self, stopped: Callable[[], bool]) -> None:
        pass

    def _pieces(self, completion: TextCompletion) -> Generator[str, None, None]:
        trim, pieces = EdgeTrim(begun=True), iter(completion)
        try:
            for piece in pieces:
                if shown := trim.push(piece) if self.trim else piece:
                    yield shown
        finally:
            pieces.close()
            self.last = completion.last


def _after(pieces: Generator[str, None, None], length: int) -> Generator[str, None, None]:
    """The pieces without their first `length` characters."""
    try:
        for piece in pieces:
            if shown := piece[length:]:
                yield shown
            length = max(0, length - len(piece))
    finally:
        pieces.close()


MOST_BYTES = 2 << 30  # of all caches


class ConversationPool:
    """`open` makes an answerer; the least recently used ones go when there are more than `most`, or their caches are too large."""

    def __init__(self, open: Callable[[Any], Answerer], most: int, most_bytes: int = MOST_BYTES):
        self._open, self.most, self.most_bytes = open, most, most_bytes
        self._seats: OrderedDict[Path, tuple[Hashable, Answerer]] = OrderedDict()

    def seat(self, path: Path, key: Hashable) -> Answerer:
        """The answerer of the file at `path`; a new one where `key`, all that it is opened with, is another than before."""
        if path not in self._seats or self._seats[path][0] != key:
            self.leave(path)
            self._let_go(self.most - 1)  # before another takes the memory
            self._seats[path] = key, self._open(key)
        self._seats.move_to_end(path)
        self._let_go(self.most)
        return self._seats[path][1]

    def leave(self, path: Path) -> None:
        """The file is gone."""
        self._seats.pop(path, None)

    def clear(self) -> None:
        """All that is kept goes."""
        self._seats.clear()

    def __len__(self) -> int:
        return len(self._seats)

    def _let_go(self, most: int) -> None:
        while len(self._seats) > max(0, most) or (len(self._seats) > 1 and self._bytes() > self.most_bytes):
            self._seats.popitem(last=False)

    def _bytes(self) -> int:
        return sum(answerer.nbytes for _, answerer in self._seats.values())
