"""How ids are to be drawn: the settings alone, which a program can check and write down before it loads anything."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import NoneType
from typing import Any

from app.models.llama.reply_repetition import EarlierReplies
from app.sampler_settings import DECLARED, SamplerSettings, flags_of, sampler_values, worth_noting
from ext.tinygrad.errors import TownhallError


class SamplingError(TownhallError):
    """A sampling setting outside its range: names the flag, the fault and the mend."""


@dataclass(frozen=True)
class SamplingParams(SamplerSettings):
    """How ids are drawn; out-of-range values raise SamplingError."""

    seed: int | None = None  # None: a fresh one each time
    # no setting, and not written down: the replies before the one that is drawn, where there is a conversation
    earlier: EarlierReplies | None = field(default=None, compare=False, repr=False)

    def __post_init__(self) -> None:
        for name, declared in DECLARED.items():
            if not declared.holds(value := getattr(self, name)):
                raise SamplingError(f"{flags_of(name)[0]} {value} is out of range; pass {declared.description}")
        if self.seed is not None and self.seed < 0:
            raise SamplingError(f"--seed {self.seed} is out of range; pass 0 or more")

    def noted(self) -> dict[str, Any]:
        """In plain values, as a log notes it: `from_note` has the same of it."""
        return worth_noting({**sampler_values(self), "seed": self.seed})

    @classmethod
    def from_note(cls, noted: Mapping[str, Any]) -> "SamplingParams":
        """What `noted` gave; TypeError for what it cannot have given, SamplingError for a value out of range."""
        kinds: dict[str, tuple[type, ...]] = {"seed": (int, NoneType)}
        kinds |= {name: {float: (int, float), int: (int,), tuple: (list,)}[one.kind] for name, one in DECLARED.items()}
        for name, value in noted.items():
            if type(value) not in kinds.get(name, ()):
                raise TypeError(f"{name} cannot be {value!r}")
        values: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in noted.items()}
        return cls(**values)
