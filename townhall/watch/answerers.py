"""Answerers of watched files: a conversation kept equal to the file, or text completion; both keep their KV cache between saves."""

from collections.abc import Callable, Generator
from typing import TYPE_CHECKING, Any, Protocol

from townhall.conversation import Conversation
from townhall.language_model import LanguageModel
from townhall.prompt_builder import LONGEST_TOKEN
from townhall.reply import Reply
from townhall.stream import EdgeTrim
from townhall.text_completion import TextCompletion
from townhall.watch.tasks import Asked, Task

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
        *history, (question, _) = task.asked
        self._recall(tuple(history))
        return _after(self.conversation.reply(question, task.said), len(task.said))

    def rest(self, stopped: Callable[[], bool]) -> None:
        self.conversation.after_reply(stopped)

    def _recall(self, history: Asked) -> None:
        """Make the conversation's history this one. Where it is so already, what the strategy made of it stays, memories included."""
        chat_state = self.conversation
        present = tuple((exchange.user.text, exchange.reply.text) for exchange in chat_state.exchanges)
        if history == present[: len(history)]:
            chat_state.undo(len(present) - len(history))
        else:
            chat_state.recall(history)


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
