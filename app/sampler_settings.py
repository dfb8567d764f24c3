"""The settings of the sampler, each declared once: a field makes the flag, the settings files' key, the API's field and the page's control.

Nothing is imported here that a command line would wait for. A new setting is a field here and its use in `app/models/llama/sampler.py`.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any


@dataclass(frozen=True)
class Declared:
    """One setting. Bounds are pydantic's: ge, gt, le."""

    kind: type
    default: float
    allowed: str  # the range in words: "from 0 to 1"
    bounds: Mapping[str, float]
    help: str  # of the flag
    metavar: str
    label: str  # on the page
    slider: tuple[float, float, float]  # there: least, most, step
    info: str | None = None  # there
    place: int = 0  # there, from the top
    api: Mapping[str, float] | None = None  # bounds of the API where clients may send more
    least: float | None = None  # what a smaller value of the API means
    aliases: tuple[str, ...] = ()  # names of other APIs

    def holds(self, value: float) -> bool:
        """Is the value in range?"""
        bounds = self.bounds
        return (
            math.isfinite(value)
            and value >= bounds.get("ge", -math.inf)
            and value > bounds.get("gt", -math.inf)
            and value <= bounds.get("le", math.inf)
        )

    @property
    def description(self) -> str:
        return f"{'a whole number' if self.kind is int else 'a number'} {self.allowed}"


def _setting(kind: type, default: float, allowed: str, bounds: Mapping[str, float], help: str, metavar: str, **page: Any) -> Any:
    return field(default=default, metadata={"declared": Declared(kind, default, allowed, bounds, help, metavar, **page)})


@dataclass(frozen=True)
class SamplerSettings:
    """Base of whatever holds these settings. Defaults are llama.cpp's but for the temperature."""

    temperature: float = _setting(
        float, 0.7, "from 0", {"ge": 0}, "0: always the likeliest token", "T",
        label="Temperature", slider=(0, 2, 0.05), info="0 always takes the likeliest word", place=0, api={"ge": 0, "le": 100},
    )  # fmt: skip
    top_k: int = _setting(
        int, 40, "from 0", {"ge": 0}, "draw from the K likeliest tokens; 0: off", "K",
        label="Top k", slider=(0, 200, 1), info="0 asks all", place=2, api={"ge": -1, "le": 1 << 31}, least=0,
    )  # fmt: skip
    top_p: float = _setting(
        float, 0.95, "above 0 and up to 1", {"gt": 0, "le": 1}, "draw from the likeliest that make up P; 1: off", "P",
        label="Top p", slider=(0, 1, 0.01), place=1, api={"ge": 0, "le": 1}, least=1e-6,  # 0 asks for the likeliest token alone
    )  # fmt: skip
    min_p: float = _setting(
        float, 0.0, "from 0 to 1", {"ge": 0, "le": 1}, "least share of the best one's chance; 0: off", "P",
        label="Min p", slider=(0, 1, 0.01), place=3,
    )  # fmt: skip
    top_n_sigma: float = _setting(
        float, 0.0, "from 0", {"ge": 0}, "draw from what is within N standard deviations of the best; 0: off", "N",
        label="Top n sigma", slider=(0, 5, 0.1), info="0 asks all", place=5, api={"ge": 0, "le": 100},
    )  # fmt: skip
    repeat_penalty: float = _setting(
        float, 1.0, "above 0", {"gt": 0}, "hold back tokens said lately; 1: off", "R",
        label="Repeat penalty", slider=(0.5, 2, 0.05), place=4, api={"gt": 0, "le": 10}, aliases=("repetition_penalty",),
    )  # fmt: skip


DECLARED: Mapping[str, Declared] = {one.name: one.metadata["declared"] for one in fields(SamplerSettings)}


def sampler_values(settings: Any) -> dict[str, Any]:
    """The settings that an object has, by name."""
    return {name: getattr(settings, name) for name in DECLARED}
