"""A turn that is being answered: its prompt, and the receipt that follows."""

from collections.abc import Sequence
from dataclasses import dataclass

from townhall.answer import Answer
from townhall.context.receipt import Receipt
from townhall.context.strategy import Window, WindowPlan
from townhall.conversation_state import ConversationState
from townhall.language_model import TokenStream
from townhall.message import Message, messages_of
from townhall.reply import Reply
from townhall.transcript import memory_tokens


@dataclass(frozen=True)
class OngoingTurn:
    """`ids` is the whole prompt, and ends in `opening`, what the answer is to begin with."""

    turn: Message
    plan: WindowPlan
    ids: list[int]
    opening: list[int]

    @property
    def prompt(self) -> list[int]:
        """Up to where the answer begins."""
        return self.ids[: len(self.ids) - len(self.opening)]

    @property
    def before(self) -> list[int]:
        """What stands before the turn, where turns stand by themselves."""
        return self.prompt[: len(self.prompt) - len(self.turn.ids)]

    def reply(
        self,
        answer: Answer,
        generation: TokenStream,
        cached: int,
        read_seconds: float,
        finish: str,
        device: str,
        strategy: str,
        window: Window,
        found: ConversationState,
        uncomputed: int,
    ) -> Reply:
        """The figures. The prompt had been read, `cached` tokens of it earlier, when `generation` began. The turn found the conversation as
        `found`; `uncomputed` tokens before it had never been computed."""
        gone = (*found.left, *self.plan.dropped)
        forgotten = found.plan.memory if self.plan.memory is None else None
        again = len(self.ids) - len(self.turn.ids) - len(self.opening) - cached - uncomputed
        receipt = Receipt(
            strategy=strategy,
            window=window.capacity,
            prompt_tokens=len(self.ids),
            pinned_tokens=window.pinned,
            dropped=_ids(messages_of(gone)),
            dropped_tokens=sum(exchange.tokens for exchange in gone) + memory_tokens(forgotten),
            recomputed_tokens=found.recomputed + max(0, again),
            memory_tokens=memory_tokens(self.plan.memory),
            memory_of=self.plan.memory.sources if self.plan.memory else (),
        )
        return Reply(
            text=answer.shown,
            tokens=max(0, len(answer.ids) - len(self.opening)),
            prompt_tokens=len(self.ids),
            cached_tokens=cached,
            finish_reason=finish,
            prefill_seconds=read_seconds + generation.prefill_seconds,
            decode_seconds=generation.decode_seconds,
            device=device,
            receipt=receipt,
        )


def _ids(messages: Sequence[Message]) -> tuple[int, ...]:
    return tuple(message.id for message in messages)
