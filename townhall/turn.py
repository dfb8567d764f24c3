"""The state of a conversation between two turns, immutable so that a turn can be undone, and a turn that is being answered."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from townhall.answer import Answer
from townhall.answer_loop import AnswerLoop
from townhall.context.source import SourceState
from townhall.context.strategy import ContextStrategy, Window, WindowPlan
from townhall.message import Exchange, Memory, Message, messages_of
from townhall.prompt_builder import BuiltPrompt, memory_tokens
from townhall.reply import Receipt, Reply
from townhall.transcript import plans
from townhall.via.answering import ArrivingAnswer, SentFigures

NOTED = 16  # exchanges at most that a memory is made of when a whole history is brought back


@dataclass(frozen=True)
class ConversationState:
    """`plan` is what the window holds; the others are what the next receipt and the next memory have to account for."""

    plan: WindowPlan = WindowPlan(())
    left: tuple[Exchange, ...] = ()  # went out of the window since the last prompt
    recomputed: int = 0  # tokens computed again since the last prompt
    unfolded: tuple[Exchange, ...] = ()  # dropped before a memory could be made of them
    given_up: tuple[Exchange, ...] = ()  # no memory came of them
    sources: Mapping[str, SourceState] = field(default_factory=dict)  # what each source remembers, by its name
    recalled: bool = False  # restored from a log: exchanges outside the window have left it, and are not listed one by one

    def said(
        self, plan: WindowPlan, exchange: Exchange | None, remembers: bool, sources: Mapping[str, SourceState] | None = None
    ) -> "ConversationState":
        """After a prompt of `plan`, and what came of it; None where not a word was shown. `sources`: what they remember now."""
        late = tuple(gone for gone in plan.dropped if gone not in self.given_up) if remembers else ()
        kept = plan.kept if exchange is None else (*plan.kept, exchange)
        now = self.sources if sources is None else sources
        return ConversationState(WindowPlan(kept, plan.dropped, plan.memory), (), 0, (*self.unfolded, *late), self.given_up, now)

    def folded(self, leaving: Sequence[Exchange], memory: Memory, recomputed: int) -> "ConversationState":
        """After `memory` took the place of `leaving`, and what moved up for it was computed again."""
        kept = self.plan.kept[len(leaving) :]
        return replace(
            self, plan=WindowPlan(kept, (), memory), left=(*self.left, *leaving), recomputed=self.recomputed + recomputed, unfolded=()
        )

    def unmemorable(self, leaving: Sequence[Exchange]) -> "ConversationState":
        """After no memory came of `leaving`."""
        return replace(self, given_up=tuple(leaving), unfolded=())


def states(
    strategy: ContextStrategy, window: Window, exchanges: Sequence[Exchange], sources: Sequence[Mapping[str, SourceState]] = ()
) -> list[ConversationState]:
    """Before each of `exchanges`, as if they had been said one after the other, and after the last. ContextError where they may not be.

    `sources`: what these remembered after each of them, where that is known.
    """
    remembered = [{}, *sources[: len(exchanges)], *({} for _ in exchanges[len(sources) :])]
    planned = plans(strategy, window, exchanges)
    return [ConversationState(WindowPlan(plan.kept), sources=then, recalled=True) for plan, then in zip(planned, remembered, strict=True)]


def settled(state: ConversationState, exchanges: Sequence[Exchange], remembers: bool) -> ConversationState:
    """A state that was recalled, ready to be gone on from: whatever of `exchanges` is not in the window has to be accounted for."""
    if not state.recalled:
        return state
    out = tuple(exchanges[: len(exchanges) - len(state.plan.kept)])
    return replace(state, left=out, unfolded=out[-NOTED:] if remembers else (), recalled=False)


@dataclass(frozen=True)
class OngoingTurn:
    """`found` is the state before the turn; `uncomputed` tokens before it had never been computed."""

    built: BuiltPrompt
    found: ConversationState
    strategy: str
    window: Window
    uncomputed: int

    def receipt(self, cached: int) -> Receipt:
        """Of a prompt that the local model reads, with `cached` tokens in its cache already."""
        again = len(self.built.prompt) - self.built.turn_tokens - cached - self.uncomputed
        return self._receipt(self.found.recomputed + max(0, again))

    def reply(self, answer: Answer, loop: AnswerLoop[str], finish: str, device: str) -> Reply:
        """The text and figures of the answer so far."""
        built = self.built
        return Reply(
            text=answer.shown,
            tokens=max(0, len(answer.ids) - len(built.opening)),
            prompt_tokens=len(built.ids),
            cached_tokens=loop.cached,
            finish_reason=finish,
            prefill_seconds=loop.read_seconds + loop.generation.prefill_seconds,
            decode_seconds=loop.generation.decode_seconds,
            device=device,
            receipt=self.receipt(loop.cached).with_citations(answer.shown),
            reasoning=answer.reasoning,
            gathered=built.gathered,
        )

    def reply_elsewhere(self, answer: ArrivingAnswer, finish: str) -> Reply:
        """The same of an answer that another model gives: nothing is read here."""
        return Reply(
            text=answer.text,
            tokens=answer.tokens,
            prompt_tokens=len(self.built.ids),
            cached_tokens=0,
            finish_reason=finish,
            prefill_seconds=answer.first_seconds,
            decode_seconds=answer.seconds,
            device=answer.place,
            receipt=self._receipt(self.found.recomputed, answer.figures).with_citations(answer.text),
            reasoning=answer.reasoning,
            gathered=self.built.gathered,
        )

    def _receipt(self, recomputed: int, sent: SentFigures | None = None) -> Receipt:
        built, found, memory = self.built, self.found, self.built.plan.memory
        gone = (*found.left, *built.plan.dropped)
        forgotten = found.plan.memory if memory is None else None
        return Receipt(
            strategy=self.strategy,
            window=self.window.capacity,
            prompt_tokens=len(built.ids),
            pinned_tokens=self.window.pinned,
            dropped=_ids(messages_of(gone)),
            dropped_tokens=sum(exchange.tokens for exchange in gone) + memory_tokens(forgotten),
            recomputed_tokens=recomputed,
            memory_tokens=memory_tokens(memory),
            memory_of=memory.sources if memory else (),
            parts=built.parts,
            passed_over=built.gathered.passed_over,
            sent=sent,
        )


def _ids(messages: Sequence[Message]) -> tuple[int, ...]:
    return tuple(message.id for message in messages)
