"""The settings of the sampler, each declared once: a field makes the flag, the settings files' key, the API's field and the page's control.

Nothing is imported here that a command line would wait for. A new setting is a field here and its use in `app/models/llama/sampler.py`,
or in `app/models/llama/full_chain.py` where most people leave it off. docs/samplers.md says what each does.
"""

import json
import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

BREAKERS = ("\n", ":", '"', "*")  # llama.cpp's
MOST_TEXTS, LONGEST_TEXT = 64, 100  # of a list: entries, and characters of one


@dataclass(frozen=True)
class Declared:
    """One setting: a number, or a list of texts. Bounds are pydantic's: ge, gt, le."""

    kind: type  # int, float or tuple
    default: Any
    allowed: str  # the range in words: "from 0 to 1"
    bounds: Mapping[str, float]
    help: str  # of the flag
    metavar: str
    label: str  # on the page
    slider: tuple[float, float, float] = (0, 1, 0.01)  # there: least, most, step
    info: str | None = None  # there
    place: int = 0  # there, from the top
    api: Mapping[str, float] | None = None  # bounds of the API where clients may send more
    least: float | None = None  # what a smaller value of the API means
    aliases: tuple[str, ...] = ()  # names of other APIs
    flags: tuple[str, ...] = ()  # the flag's names, where they are not the setting's own
    rare: bool = False  # most people leave it alone: --help-samplers names its flag, the page shows it on demand, logs where it was changed

    def holds(self, value: Any) -> bool:
        """Is the value in range?"""
        if self.kind is tuple:
            return len(value) <= MOST_TEXTS and all(isinstance(text, str) and 0 < len(text) <= LONGEST_TEXT for text in value)
        bounds = self.bounds
        return (
            abs(value) <= sys.float_info.max  # false of NaN; math.isfinite fails where an int is larger
            and value >= bounds.get("ge", -math.inf)
            and value > bounds.get("gt", -math.inf)
            and value <= bounds.get("le", math.inf)
        )

    @property
    def description(self) -> str:
        return f"{ {int: 'a whole number', float: 'a number', tuple: 'a list'}[self.kind] } {self.allowed}"


def _setting(kind: type, default: Any, allowed: str, bounds: Mapping[str, float], help: str, metavar: str, **page: Any) -> Any:
    return field(default=default, metadata={"declared": Declared(kind, default, allowed, bounds, help, metavar, **page)})


def _rare(*args: Any, **page: Any) -> Any:
    return _setting(*args, rare=True, **page)


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
        label="Top n sigma", slider=(0, 5, 0.1), info="0 asks all", place=5, api={"ge": 0, "le": 100}, aliases=("nsigma",),
    )  # fmt: skip
    repeat_penalty: float = _setting(
        float, 1.0, "above 0", {"gt": 0}, "hold back tokens said lately; 1: off", "R",
        label="Repeat penalty", slider=(0.5, 2, 0.05), place=4, api={"gt": 0, "le": 10}, aliases=("repetition_penalty", "rep_pen"),
    )  # fmt: skip
    repeat_last_n: int = _rare(
        int, 64, "from -1", {"ge": -1}, "tokens that the three penalties look back on; -1: all, 0: none", "N",
        label="Repeat last n", slider=(-1, 2048, 1), info="-1 looks at all, 0 at none", place=10, api={"ge": -1, "le": 1 << 31},
        aliases=("repetition_penalty_range", "rep_pen_range"),
    )  # fmt: skip
    presence_penalty: float = _rare(
        float, 0.0, "from -2 to 2", {"ge": -2, "le": 2}, "taken off what was said lately, once; 0: off", "P",
        label="Presence penalty", slider=(-2, 2, 0.05), place=11,
    )  # fmt: skip
    frequency_penalty: float = _rare(
        float, 0.0, "from -2 to 2", {"ge": -2, "le": 2}, "taken off what was said lately, for each time; 0: off", "P",
        label="Frequency penalty", slider=(-2, 2, 0.05), place=12,
    )  # fmt: skip
    dry_multiplier: float = _rare(
        float, 0.0, "from 0", {"ge": 0}, "DRY: hold back what would go on repeating a passage, 0.8 is usual; 0: off", "M",
        label="DRY multiplier", slider=(0, 5, 0.05), info="0 is off, 0.8 usual", place=13, api={"ge": 0, "le": 1000},
    )  # fmt: skip
    dry_base: float = _rare(
        float, 1.75, "from 1", {"ge": 1}, "DRY: how the penalty grows with each repeated token", "B",
        label="DRY base", slider=(1, 4, 0.05), place=14, api={"ge": 1, "le": 1000},
    )  # fmt: skip
    dry_allowed_length: int = _rare(
        int, 2, "from 0", {"ge": 0}, "DRY: tokens that may be repeated freely", "N",
        label="DRY allowed length", slider=(0, 20, 1), place=15, api={"ge": 0, "le": 1 << 31},
    )  # fmt: skip
    dry_penalty_last_n: int = _rare(
        int, -1, "from -1", {"ge": -1}, "DRY: tokens that it looks back on; -1: all, 0: none", "N",
        label="DRY last n", slider=(-1, 2048, 1), info="-1 looks at all, 0 at none", place=16, api={"ge": -1, "le": 1 << 31},
        aliases=("dry_range",),
    )  # fmt: skip
    dry_sequence_breakers: tuple[str, ...] = _rare(
        tuple, BREAKERS, f"of at most {MOST_TEXTS} texts of 1 to {LONGEST_TEXT} characters, each in quotes", {},
        "DRY: no repetition reaches across this text; may be repeated, none: no text", "TEXT",
        label="DRY sequence breakers", info="a JSON list; no repetition reaches across one", place=17, flags=("--dry-sequence-breaker",),
    )  # fmt: skip
    reply_ngram_penalty: float = _rare(
        float, 0.0, "from 0", {"ge": 0}, "hold back what would go on as an earlier reply of the chat did; 0: off", "P",
        label="Reply n-gram penalty", slider=(0, 10, 0.5), info="against saying again what was said; 0 is off", place=6,
        api={"ge": 0, "le": 1000},
    )  # fmt: skip
    reply_ngram_size: int = _rare(
        int, 6, "from 1", {"ge": 1}, "tokens that may be as in an earlier reply, one after another", "N",
        label="Reply n-gram size", slider=(1, 20, 1), place=7, api={"ge": 1, "le": 1 << 31},
    )  # fmt: skip
    xtc_probability: float = _rare(
        float, 0.0, "from 0 to 1", {"ge": 0, "le": 1}, "XTC: how often only the last of the likely choices is kept; 0: off", "P",
        label="XTC probability", place=18,
    )  # fmt: skip
    xtc_threshold: float = _rare(
        float, 0.1, "from 0 to 1", {"ge": 0, "le": 1}, "XTC: the chance that makes a likely choice; above 0.5: off", "P",
        label="XTC threshold", slider=(0, 0.5, 0.01), place=19,
    )  # fmt: skip
    typical_p: float = _rare(
        float, 1.0, "above 0 and up to 1", {"gt": 0, "le": 1}, "draw from the most typical that make up P; 1: off", "P",
        label="Typical p", place=20, api={"ge": 0, "le": 1}, least=1e-6, aliases=("typical", "typ_p"),
        flags=("--typical-p", "--typical"),
    )  # fmt: skip
    dynatemp_range: float = _rare(
        float, 0.0, "from 0", {"ge": 0}, "let the temperature go so far up and down, with the entropy; 0: off", "R",
        label="Dynatemp range", slider=(0, 2, 0.05), info="0 is off", place=21, api={"ge": 0, "le": 100},
    )  # fmt: skip
    dynatemp_exponent: float = _rare(
        float, 1.0, "from 0", {"ge": 0}, "of the entropy's share in that", "E",
        label="Dynatemp exponent", slider=(0, 5, 0.05), place=22, api={"ge": 0, "le": 100},
        flags=("--dynatemp-exponent", "--dynatemp-exp"),
    )  # fmt: skip
    mirostat: int = _rare(
        int, 0, "from 0 to 2", {"ge": 0, "le": 2}, "Mirostat 1 or 2 in the place of top-k to XTC; 0: off", "N",
        label="Mirostat", slider=(0, 2, 1), info="0 is off", place=23, aliases=("mirostat_mode",),
    )  # fmt: skip
    mirostat_tau: float = _rare(
        float, 5.0, "from 0", {"ge": 0}, "Mirostat: the surprise to aim at, in bits a token", "T",
        label="Mirostat tau", slider=(0, 10, 0.1), place=24, api={"ge": 0, "le": 100}, flags=("--mirostat-tau", "--mirostat-ent"),
    )  # fmt: skip
    mirostat_eta: float = _rare(
        float, 0.1, "from 0 to 1", {"ge": 0, "le": 1}, "Mirostat: how fast it learns", "E",
        label="Mirostat eta", place=25, flags=("--mirostat-eta", "--mirostat-lr"),
    )  # fmt: skip


DECLARED: Mapping[str, Declared] = {one.name: one.metadata["declared"] for one in fields(SamplerSettings)}
# in plain values: what a log leaves out
RARE_DEFAULTS = {name: list(one.default) if one.kind is tuple else one.default for name, one in DECLARED.items() if one.rare}


def flags_of(name: str) -> tuple[str, ...]:
    """The names of a setting's flag."""
    return DECLARED[name].flags or (f"--{name.replace('_', '-')}",)


def sampler_values(settings: Any) -> dict[str, Any]:
    """The settings that an object has, by name."""
    return {name: getattr(settings, name) for name in DECLARED}


def worth_noting(values: Mapping[str, Any]) -> dict[str, Any]:
    """Settings as a log notes them: plain, and without those that few people change, where they are as they always were."""
    plain = {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}
    return {name: value for name, value in plain.items() if name not in RARE_DEFAULTS or value != RARE_DEFAULTS[name]}


def parse_texts(given: str) -> list[Any]:
    """A list as other servers' clients write it into a text: JSON, with or without its brackets. ValueError for anything else."""
    given = given.strip()
    try:
        found: list[Any] = json.loads(given if given.startswith("[") else f"[{given}]")
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    return found
