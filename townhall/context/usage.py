"""How a window is filled, for a person to look at."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from townhall.context.strategy import WindowPlan
from townhall.message import Exchange


@dataclass(frozen=True)
class Usage:
    """Tokens: `recent` are the exchanges the model still sees, `reserve` is kept for the next answer."""

    window: int
    pinned: int
    memory: int
    recent: int
    reserve: int

    @property
    def free(self) -> int:
        """What a next turn may take before something must go."""
        return max(0, self.window - self.pinned - self.memory - self.recent - self.reserve)

    def describe(self, width: int = 48) -> str:
        """A bar and its legend."""
        shares = {"#": self.pinned, "m": self.memory, "=": self.recent, "r": self.reserve}
        bar = "".join(mark * round(tokens / self.window * width) for mark, tokens in shares.items())[:width]
        memory = f"m memory {self.memory}  " if self.memory else ""
        return (
            f"[{bar:.<{width}}] {self.window} tokens\n"
            f"# persona {self.pinned}  {memory}= recent {self.recent}  r kept for the answer {self.reserve}  . free {self.free}"
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
