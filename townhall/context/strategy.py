"""The protocol that every context strategy fills, the plan of a window that it makes, and how full that window is."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from townhall.language_model import Cache
from townhall.message import Exchange, Memory

RECENT = 4  # exchanges whose questions say how long the next one may be


@dataclass(frozen=True)
class Window:
    """The space a prompt has, in tokens."""

    capacity: int  # what the KV cache holds
    pinned: int  # the persona's head, in every prompt
    reserve: int  # kept free for the answer
    beside: int = 0  # kept free for what sources put into a turn's prompt
    history: int | None = None  # at most so many for memory and kept exchanges; None: as many as there is room for

    @property
    def budget(self) -> int:
        """Tokens for everything between the pinned head and the answer but the sources' texts."""
        return self.capacity - self.pinned - self.reserve - self.beside

    @property
    def span(self) -> int:
        """Tokens of which a strategy frees a share at once."""
        return self.capacity if self.history is None else min(self.capacity, self.history)

    def memory_bound(self, most: int) -> int:
        """Tokens that a memory may take, where a strategy's has `most`."""
        return min(most, self.capacity // 8, self.span // 2)

    def holds(self, tokens: int, turn: int) -> bool:
        """Is there room for so many tokens of memory and exchanges beside a turn of so many?"""
        return tokens + turn <= self.budget and (self.history is None or tokens <= self.history)


@dataclass(frozen=True)
class WindowPlan:
    """The next prompt: pinned head, memory, kept exchanges, then the new turn; `dropped` were in the window until now."""

    kept: tuple[Exchange, ...]
    dropped: tuple[Exchange, ...] = ()
    memory: Memory | None = None

    @property
    def tokens(self) -> int:
        """Tokens of memory and kept exchanges."""
        return sum(exchange.tokens for exchange in self.kept) + (len(self.memory.ids) if self.memory else 0)


class ContextStrategy(Protocol):
    """Chooses what the model will see; never edits the stored history."""

    name: str
    label: str  # what it does, in a few words
    memory: int  # tokens that a memory of evicted exchanges may take; 0: none is kept

    def prepare(self, cache: Cache) -> None:
        """A conversation begins: set up what would make its first overflow slower than the others."""
        ...

    def choose(self, window: Window, current: WindowPlan, turn: int) -> WindowPlan:
        """The plan for a prompt that adds `turn` tokens to `current`, whose dropped exchanges are gone for good.

        A turn that cannot fit whatever is dropped is refused before a strategy is asked; ContextError refuses any other.
        """
        ...

    def settle(self, cache: Cache, removed: tuple[int, int] | None) -> None:
        """The plan holds: make the cache ready for its prompt; `removed` are the positions [start, stop) that left it.

        Doing nothing is right: the engine keeps the common prefix and computes the rest again.
        """
        ...


def fold_ahead(window: Window, current: WindowPlan, memory: int) -> tuple[Exchange, ...]:
    """The exchanges that a next turn like the recent ones would push out, were there a memory of `memory` tokens."""
    turn = max([window.span // 16, *(len(exchange.user.ids) for exchange in current.kept[-RECENT:])])
    more = max(0, memory - (len(current.memory.ids) if current.memory else 0))
    room = None if window.history is None else max(0, window.history - more)
    return evict(replace(window, history=room), current, turn + more)


def evict(window: Window, current: WindowPlan, turn: int, goal: int | None = None) -> tuple[Exchange, ...]:
    """Whole exchanges, the oldest first, and at least `goal` tokens (a quarter of the window) at once; none where the turn fits.

    Only the newest exchange is spared for as long as it fits, since a follow-up question hangs on it: `Slide` says what that costs.
    """
    freed, dropped = 0, 0
    goal = 0 if window.holds(current.tokens, turn) else window.span // 4 if goal is None else goal
    while dropped < len(current.kept) and (
        not window.holds(current.tokens - freed, turn) or (freed < goal and dropped < len(current.kept) - 1)
    ):
        freed += current.kept[dropped].tokens
        dropped += 1
    return current.kept[:dropped]


def refusal(needed: int, window: Window, help: str) -> str:
    """The sentence for a turn that does not fit."""
    over = needed + window.reserve + window.beside - window.capacity
    beside = f", {window.beside} for what its sources add" if window.beside else ""
    return (
        f"this turn makes a prompt of {needed} tokens, {over} more than fit: the window holds {window.capacity}, "
        f"of which {window.reserve} are kept for the answer{beside} and {window.pinned} are the persona's; {help}"
    )


@dataclass(frozen=True)
class Usage:
    """Tokens: `recent` are the exchanges the model still sees, `reserve` is kept for the next answer."""

    window: int
    pinned: int
    memory: int
    recent: int
    reserve: int
    beside: int = 0  # kept for what sources add
    history: int | None = None  # at most so many for memory and recent exchanges

    @classmethod
    def of(cls, window: Window, memory: int, recent: int) -> "Usage":
        return cls(window.capacity, window.pinned, memory, recent, window.reserve, window.beside, window.history)

    @property
    def free(self) -> int:
        """What a next turn may take before something must go."""
        free = self.window - self.pinned - self.memory - self.recent - self.beside - self.reserve
        return max(0, free if self.history is None else min(free, self.history - self.memory - self.recent))

    def describe(self, width: int = 48) -> str:
        """A bar and its legend."""
        shares = {"#": self.pinned, "m": self.memory, "=": self.recent, "s": self.beside, "r": self.reserve}
        bar = "".join(mark * round(tokens / self.window * width) for mark, tokens in shares.items())[:width]
        memory = f"m memory {self.memory}  " if self.memory else ""
        sources = f"s kept for sources {self.beside}  " if self.beside else ""
        return (
            f"[{bar:.<{width}}] {self.window} tokens\n"
            f"# persona {self.pinned}  {memory}= recent {self.recent}  {sources}r kept for the answer {self.reserve}  . free {self.free}"
        )


def describe_history(exchanges: Sequence[Exchange], plan: WindowPlan, user: str, name: str) -> str:
    """Every message with its id, what left the window above what is in it, and the memory between them."""
    out = exchanges[: len(exchanges) - len(plan.kept)]
    remembered = set(plan.memory.sources) if plan.memory else set()
    lines = [f"out of the window: {2 * len(out)} messages, {sum(exchange.tokens for exchange in out)} tokens"] if out else []
    lines += [_said(exchange, user, name, remembered) for exchange in out]
    if plan.memory:
        lines.append(f"memory, {len(plan.memory.ids)} tokens: {plan.memory.text}")
    lines.append(f"in the window: {2 * len(plan.kept)} messages, {sum(exchange.tokens for exchange in plan.kept)} tokens")
    return "\n".join([*lines, *(_said(exchange, user, name) for exchange in plan.kept)])


def _said(exchange: Exchange, user: str, name: str, remembered: Collection[int] = ()) -> str:
    speakers = zip((user, name), exchange.messages, strict=True)
    return "\n".join(f"  #{said.id}{' (in the memory)' if said.id in remembered else ''} {who}: {said.text}" for who, said in speakers)
