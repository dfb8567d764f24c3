"""RoPE stretched beyond the context a model was first trained for: each frequency divided by a factor of its own.

Every scheme here ends as factors for the RoPE table and one scale for its cosines and sines, so that nothing else need know of it.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from app.models.llama.traits import LongRope, Yarn

KINDS = ("linear", "llama3", "yarn", "longrope", "su")


def linear(rope_dim: int, factor: float) -> tuple[float, ...]:
    """Positions interpolated (Chen et al. 2023, arXiv 2306.15595): (rope_dim / 2,) factors."""
    return (factor,) * (rope_dim // 2)


def llama3(rope_dim: int, theta: float, factor: float, low: float, high: float, original: int) -> tuple[float, ...]:
    """LLaMA 3.1's: long waves are stretched, short ones left alone, those between blended (llama-models, `apply_scaling`)."""
    frequencies = theta ** (-np.arange(0, rope_dim, 2, dtype=np.float64) / rope_dim)
    wavelengths = 2 * math.pi / frequencies
    blend = (original / wavelengths - low) / (high - low)
    between = 1 / ((1 - blend) / factor + blend)
    factors = np.where(wavelengths < original / high, 1.0, np.where(wavelengths > original / low, factor, between))
    return tuple(factors.tolist())


def yarn(
    rope_dim: int, theta: float, factor: float, original: int, beta_fast: float = 32.0, beta_slow: float = 1.0, extrapolation: float = 1.0
) -> tuple[float, ...]:
    """YaRN's "NTK by parts" (Peng et al. 2023, arXiv 2309.00071): a ramp from untouched short waves to interpolated long ones."""

    def correction(turns: float) -> float:
        return rope_dim * math.log(original / (turns * 2 * math.pi)) / (2 * math.log(theta))

    low = max(math.floor(correction(beta_fast)), 0)
    high = min(math.ceil(correction(beta_slow)), rope_dim - 1)
    ramp = np.clip((np.arange(rope_dim // 2) - low) / max(0.001, high - low), 0, 1)
    untouched = (1 - ramp) * extrapolation
    factors = 1 / (untouched + (1 - untouched) / factor)
    return tuple(factors.tolist())


def yarn_scale(factor: float, mscale: float = 1.0) -> float:
    """What YaRN multiplies cosines and sines by: a temperature for attention."""
    return 1.0 if factor <= 1 else 0.1 * mscale * math.log(factor) + 1.0


def longrope_scale(factor: float, original: int) -> float:
    """What LongRoPE (arXiv 2402.13753) multiplies cosines and sines by, stretched by `factor` beyond `original` tokens."""
    return 1.0 if factor <= 1 else math.sqrt(1 + math.log(factor) / math.log(original))


def from_hf(
    scaling: Mapping[str, Any], rope_dim: int, theta: float, context: int, config: Mapping[str, Any], fail: Callable[[str], Exception]
) -> tuple[tuple[float, ...], float, LongRope | Yarn | None]:
    """(factors, scale, what else is to be known) of a config.json's rope scaling, as transformers' modeling_rope_utils computes them."""
    kind = scaling.get("rope_type") or scaling.get("type") or "default"
    if kind in ("default", "none", "dynamic"):  # "dynamic" stretches nothing up to the trained length, where contexts end here
        return (), 1.0, None
    if kind not in KINDS:
        raise fail(f"needs rope scaling {str(kind)[:20]!r}, which Townhall does not support")

    def number(key: str, default: Any = None) -> float:
        value = scaling.get(key, default)
        if value is None and default is not None:
            value = default
        least = 1 if key == "original_max_position_embeddings" else 0  # tokens: half a one is none
        if not isinstance(value, int | float) or isinstance(value, bool) or not least <= value < 1e9 or not value:
            raise fail(f"gives the rope scaling's {key} as {str(value)[:20]!r}; a positive number is needed")
        return float(value)

    if kind in ("longrope", "su"):
        original = int(number("original_max_position_embeddings", config.get("original_max_position_embeddings") or context))
        short, long = (_factors(scaling.get(key), key, rope_dim, fail) for key in ("short_factor", "long_factor"))
        scale = number("attention_factor") if scaling.get("attention_factor") is not None else longrope_scale(context / original, original)
        return short, scale, LongRope(original, long)
    factor = number("factor")
    if kind == "linear":
        return linear(rope_dim, factor), 1.0, None
    original = int(number("original_max_position_embeddings", float(context)))
    if kind == "llama3":
        low, high = number("low_freq_factor"), number("high_freq_factor")
        if high <= low:
            raise fail(f"gives rope scaling a high_freq_factor of {high} that is not above its low_freq_factor of {low}")
        return llama3(rope_dim, theta, factor, low, high, original), 1.0, None
    if scaling.get("truncate", True) is not True:
        raise fail("needs rope scaling 'yarn' without truncation, which Townhall does not support")
    if scaling.get("attention_factor") is not None:
        scale = number("attention_factor")
    elif scaling.get("mscale") and scaling.get("mscale_all_dim"):
        scale = yarn_scale(factor, number("mscale")) / yarn_scale(factor, number("mscale_all_dim"))
    else:
        scale = yarn_scale(factor)
    described = Yarn(factor, original, number("beta_fast", 32.0), number("beta_slow", 1.0))
    return yarn(rope_dim, theta, factor, original, described.beta_fast, described.beta_slow), scale, described


def _factors(values: Any, key: str, rope_dim: int, fail: Callable[[str], Exception]) -> tuple[float, ...]:
    sound = isinstance(values, list) and all(isinstance(n, int | float) and not isinstance(n, bool) and 0 < n < 1e9 for n in values)
    if not sound or len(values) != rope_dim // 2:
        raise fail(f"gives the rope scaling's {key} as something else than {rope_dim // 2} positive numbers")
    return tuple(map(float, values))
