"""How a window is filled, for a person to look at."""

from dataclasses import dataclass


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
