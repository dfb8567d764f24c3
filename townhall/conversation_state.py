"""The immutable state of a conversation between two turns, so that a turn can be undone."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from townhall.context.strategy import ContextStrategy, Window, WindowPlan
from townhall.message import Exchange, Memory
from townhall.transcript import plans

NOTED = 16  # exchanges at most that a memory is made of when a whole history is brought back


@dataclass(frozen=True)
class ConversationState:
    """`plan` is what the window holds; the others are what the next receipt and the next memory have to account for."""

    plan: WindowPlan = WindowPlan(())
    left: tuple[Exchange, ...] = ()  # went out of the window since the last prompt
    recomputed: int = 0  # tokens computed again since the last prompt
    unfolded: tuple[Exchange, ...] = ()  # dropped before a memory could be made of them
    given_up: tuple[Exchange, ...] = ()  # no memory came of them
    recalled: bool = False  # restored from a log: exchanges outside the window have left it, and are not listed one by one

    def said(self, plan: WindowPlan, exchange: Exchange | None, remembers: bool) -> "ConversationState":
        """After a prompt of `plan`, and what came of it; None where not a word was shown."""
        late = tuple(gone for gone in plan.dropped if gone not in self.given_up) if remembers else ()
        kept = plan.kept if exchange is None else (*plan.kept, exchange)
        return ConversationState(WindowPlan(kept, plan.dropped, plan.memory), (), 0, (*self.unfolded, *late), self.given_up)

    def folded(self, leaving: Sequence[Exchange], memory: Memory, recomputed: int) -> "ConversationState":
        """After `memory` took the place of `leaving`, and what moved up for it was computed again."""
        kept = self.plan.kept[len(leaving) :]
        return replace(
            self, plan=WindowPlan(kept, (), memory), left=(*self.left, *leaving), recomputed=self.recomputed + recomputed, unfolded=()
        )

    def unmemorable(self, leaving: Sequence[Exchange]) -> "ConversationState":
        """After no memory came of `leaving`."""
        return replace(self, given_up=tuple(leaving), unfolded=())


def states(strategy: ContextStrategy, window: Window, exchanges: Sequence[Exchange]) -> list[ConversationState]:
    """Before each of `exchanges`, as if they had been said one after the other, and after the last. ContextError where they may not be."""
    return [ConversationState(WindowPlan(plan.kept), recalled=True) for plan in plans(strategy, window, exchanges)]


def settled(state: ConversationState, exchanges: Sequence[Exchange], remembers: bool) -> ConversationState:
    """A state that was recalled, ready to be gone on from: whatever of `exchanges` is not in the window has to be accounted for."""
    if not state.recalled:
        return state
    out = tuple(exchanges[: len(exchanges) - len(state.plan.kept)])
    return replace(state, left=out, unfolded=out[-NOTED:] if remembers else (), recalled=False)
