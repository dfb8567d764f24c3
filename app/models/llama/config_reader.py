"""Checked access to a model's metadata, whatever format it comes from: every wrong value ends in a sentence."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from app.models.llama.sanitize import quoted
from ext.tinygrad.errors import TownhallError

# no real dimension comes near these; larger ones would only fail later, as a failed allocation
MAX_SIZE = 1 << 24
MAX_LAYERS = 1 << 10
MAX_HEAD_DIM = 1 << 12


class ConfigError(TownhallError):
    """Metadata that describes no model Townhall can run."""


class MetadataReader:
    """The values below one prefix."""

    def __init__(
        self, metadata: Mapping[str, Any], prefix: str, path: Path | str, mend: str = "use a file that a current llama.cpp converted"
    ) -> None:
        self.metadata, self.prefix, self.path, self.mend = metadata, prefix, path, mend

    def __contains__(self, key: str) -> bool:
        return self.metadata.get(self.prefix + key) is not None

    def fail(self, fault: str) -> ConfigError:
        return ConfigError(f"{self.path} {fault}; {self.mend}")

    def unsupported(self, feature: str) -> ConfigError:
        """A feature that changes the result is refused by name, never ignored."""
        return ConfigError(f"{self.path} needs {feature}, which Townhall does not support yet; use a plain LLaMA without it")

    def require(self, *keys: str) -> None:
        if missing := [self.prefix + key for key in keys if key not in self]:
            raise self.fail(f"lacks {', '.join(missing)} in its metadata")

    def scalar(self, key: str, default: Any) -> Any:
        """The value; of a per-layer array, the one value that all layers share."""
        value = self.metadata.get(self.prefix + key)
        if value is None:  # JSON's null says as much as a missing key
            return default
        if isinstance(value, np.ndarray):
            if len(set(value.tolist())) != 1:
                raise self.fail(f"gives {self.prefix + key} per layer, which Townhall does not support")
            value = value.tolist()[0]
        return value

    def size(self, key: str, default: int | None = None, limit: int = MAX_SIZE) -> int:
        value = self.scalar(key, default)
        if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= limit:
            raise self.fail(f"gives {self.prefix + key} as {quoted(value)}; a whole number from 1 to {limit:,} is needed")
        return value

    def positive(self, key: str, default: float | None = None) -> float:
        value = self.scalar(key, default)
        if not isinstance(value, int | float) or isinstance(value, bool) or not 0 < value < 1e30 or not math.isfinite(value):
            raise self.fail(f"gives {self.prefix + key} as {quoted(value)}; a positive number is needed")
        return float(value)

    def rope_base(self, key: str, default: float = 10_000.0) -> float:
        if (theta := self.positive(key, default=default)) <= 1:
            raise self.fail(f"gives {self.prefix + key} as {theta:g}; a base above 1 is needed")
        return theta

    def head_dim(self, key: str, dim: int, n_heads: int) -> int:
        if key not in self and dim % n_heads:
            raise self.fail(f"has dim {dim}, which {n_heads} heads cannot share evenly")
        return self.size(key, default=dim // n_heads, limit=MAX_HEAD_DIM if key in self else MAX_SIZE)

    def kv_heads(self, key: str, n_heads: int) -> int:
        n_kv_heads = self.size(key, default=n_heads)
        if n_heads % n_kv_heads:
            raise self.fail(f"has {n_heads} query heads, which {n_kv_heads} key/value heads cannot share evenly")
        return n_kv_heads

    def rope_dim(self, rope_dim: int, head_dim: int) -> int:
        if rope_dim % 2 or not 0 < rope_dim <= head_dim:
            raise self.fail(f"turns {rope_dim} entries of heads of {head_dim} by RoPE; an even number up to {head_dim} is possible")
        return rope_dim
