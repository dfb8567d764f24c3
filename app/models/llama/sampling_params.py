"""How ids are to be drawn: the settings alone, which a program can check and write down before it loads anything."""

from dataclasses import dataclass

from app.sampler_settings import DECLARED, SamplerSettings
from ext.tinygrad.errors import TownhallError


class SamplingError(TownhallError):
    """A sampling setting outside its range: names the flag, the fault and the mend."""


@dataclass(frozen=True)
class SamplingParams(SamplerSettings):
    """How ids are drawn; out-of-range values raise SamplingError."""

    repeat_last_n: int = 64  # ids the penalty looks back on; -1: all, 0: none
    seed: int | None = None  # None: a fresh one each time

    def __post_init__(self) -> None:
        for name, declared in DECLARED.items():
            if not declared.holds(value := getattr(self, name)):
                raise SamplingError(f"--{name.replace('_', '-')} {value} is out of range; pass {declared.description}")
        if self.repeat_last_n < -1:
            raise SamplingError(f"--repeat-last-n {self.repeat_last_n} is out of range; pass -1 or more")
        if self.seed is not None and self.seed < 0:
            raise SamplingError(f"--seed {self.seed} is out of range; pass 0 or more")
