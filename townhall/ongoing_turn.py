"""A turn that is being answered: its prompt, what the conversation was before it, and the reply with its receipt."""

from collections.abc import Sequence
from dataclasses import dataclass

from townhall.answer import Answer
from townhall.answer_loop import AnswerLoop
from townhall.context.receipt import Receipt
from townhall.context.strategy import Window
from townhall.conversation_state import ConversationState
from townhall.message import Message, messages_of
from townhall.prompt_builder import BuiltPrompt, memory_tokens
from townhall.reply import Reply


@dataclass(frozen=True)
class OngoingTurn:
    """`found` is the state before the turn; `uncomputed` tokens before it had never been computed."""

    built: BuiltPrompt
    found: ConversationState
    strategy: str
    window: Window
    uncomputed: int

    def reply(self, answer: Answer, loop: AnswerLoop[str], finish: str, device: str) -> Reply:
        """The text and figures of the answer so far."""
        built, found, memory = self.built, self.found, self.built.plan.memory
        gone = (*found.left, *built.plan.dropped)
        forgotten = found.plan.memory if memory is None else None
        again = len(built.prompt) - len(built.turn.ids) - loop.cached - self.uncomputed
        receipt = Receipt(
            strategy=self.strategy,
            window=self.window.capacity,
            prompt_tokens=len(built.ids),
            pinned_tokens=self.window.pinned,
            dropped=_ids(messages_of(gone)),
            dropped_tokens=sum(exchange.tokens for exchange in gone) + memory_tokens(forgotten),
            recomputed_tokens=found.recomputed + max(0, again),
            memory_tokens=memory_tokens(memory),
            memory_of=memory.sources if memory else (),
        )
        return Reply(
            text=answer.shown,
            tokens=max(0, len(answer.ids) - len(built.opening)),
            prompt_tokens=len(built.ids),
            cached_tokens=loop.cached,
            finish_reason=finish,
            prefill_seconds=loop.read_seconds + loop.generation.prefill_seconds,
            decode_seconds=loop.generation.decode_seconds,
            device=device,
            receipt=receipt,
        )


def _ids(messages: Sequence[Message]) -> tuple[int, ...]:
    return tuple(message.id for message in messages)
