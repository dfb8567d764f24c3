"""How ids are to be drawn: the settings alone, which a program can check and write down before it loads anything."""

import math
from dataclasses import dataclass

from ext.tinygrad.errors import TownhallError


class SamplingError(TownhallError):
    """A sampling setting outside its range: names the flag, the fault and the mend."""


@dataclass(frozen=True)
class SamplingParams:
    """How ids are drawn; out-of-range values raise SamplingError."""

    temperature: float = 0.7  # 0: always the likeliest id
    top_k: int = 40  # 0: off
    top_p: float = 0.95  # 1: off
    min_p: float = 0.0  # 0: off; a share of the likeliest id's probability
    repeat_penalty: float = 1.0  # 1: off
    repeat_last_n: int = 64  # ids the penalty looks back on; -1: all, 0: none
    seed: int | None = None  # None: a fresh one each time

    def __post_init__(self) -> None:
        checks = {
            ("temperature", "0 or more"): 0 <= self.temperature < math.inf,
            ("top-k", "0 or more"): self.top_k >= 0,
            ("top-p", "above 0 and up to 1"): 0 < self.top_p <= 1,
            ("min-p", "0 to 1"): 0 <= self.min_p <= 1,
            ("repeat-penalty", "above 0"): 0 < self.repeat_penalty < math.inf,
            ("repeat-last-n", "-1 or more"): self.repeat_last_n >= -1,
            ("seed", "0 or more"): self.seed is None or self.seed >= 0,
        }
        for (flag, allowed), holds in checks.items():
            if not holds:
                value = getattr(self, flag.replace("-", "_"))
                raise SamplingError(f"--{flag} {value} is out of range; pass {allowed}")
