"""What a lorebook remembers from turn to turn: entries that stay, entries that are silent, entries that have fired.

Everything is counted in messages, so that a reply that is asked for again finds what it found the first time: an effect that began at this
very message is forgotten, as in SillyTavern.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class TimedEffect:
    """From the message `start` on, until there are `end` messages. A `kept` one outlives a chat that does not advance."""

    start: int
    end: int
    kept: bool = False


@dataclass(frozen=True)
class LoreState:
    """By the ids of entries."""

    sticky: Mapping[str, TimedEffect] = field(default_factory=dict)
    cooldown: Mapping[str, TimedEffect] = field(default_factory=dict)
    fired: Mapping[str, int] = field(default_factory=dict)  # how many messages there were when an entry first fired

    def to_json(self) -> dict[str, Any]:
        """For a log."""
        timed = {name: {id: [e.start, e.end, e.kept] for id, e in getattr(self, name).items()} for name in ("sticky", "cooldown")}
        return {**timed, "fired": dict(self.fired)}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "LoreState":
        """What `to_json` wrote."""
        sticky, cooldown = ({id: TimedEffect(*effect) for id, effect in values[name].items()} for name in ("sticky", "cooldown"))
        return cls(sticky, cooldown, dict(values["fired"]))

    def before(self, messages: int) -> "LoreState":
        """Without what began at this very message or later, which a retry or an undo takes back."""

        def kept(effects: Mapping[str, TimedEffect]) -> dict[str, TimedEffect]:
            return {id: effect for id, effect in effects.items() if effect.kept or effect.start < messages}

        return LoreState(kept(self.sticky), kept(self.cooldown), {id: at for id, at in self.fired.items() if at < messages})
