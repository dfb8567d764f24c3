"""What one model is: its sizes and its family's traits, read from a file's metadata and checked once (config_hf.py, config_gguf.py …)."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from app.models.llama.config_reader import ConfigError
from app.models.llama.traits import LLAMA, Rope, Traits

__all__ = ["ConfigError", "LlamaConfig"]


@dataclass(frozen=True)
class LlamaConfig:
    dim: int
    n_layers: int
    n_heads: int
    n_kv_heads: int  # equals n_heads without GQA
    head_dim: int  # dim / n_heads unless the file says otherwise
    hidden_dim: int  # of the feed-forward
    vocab_size: int  # rows of the embedding; the tokenizer may know fewer
    norm_eps: float
    rope_theta: float
    context_length: int  # tokens the model was trained for
    rope_dim: int  # leading entries of each head that RoPE turns; the rest pass through
    tied: bool  # the output head is the embedding
    architecture: str = "llama"
    name: str = ""
    rope_factors: tuple[float, ...] = ()  # what each of RoPE's frequencies is divided by, where the model stretches them
    rope_scale: float = 1.0  # of RoPE's cosines and sines (YaRN)
    traits: Traits = LLAMA
    unknown_keys: tuple[str, ...] = field(default=(), repr=False, compare=False)  # of the metadata: what they ask for is not done

    def window(self, layer: int) -> int:
        """Tokens that the layer's attention sees; 0: all."""
        return self.traits.windows[layer] if self.traits.windows else 0

    def rope(self, layer: int, max_context: int = 0) -> Rope:
        """Of a layer, in a model that is loaded for `max_context` tokens."""
        t = self.traits
        if layer in t.unrotated:
            return Rope()
        if t.local_rope is not None and self.window(layer):
            return t.local_rope
        factors = self.rope_factors
        if t.long_rope is not None and max_context > t.long_rope.original:
            factors = t.long_rope.long_factors
        return Rope(self.rope_theta, self.rope_dim, factors, self.rope_scale)


def without_idle_windows(traits: Traits, context_length: int) -> Traits:
    """A window as long as the context hides nothing; where such layers have a RoPE of their own it still says which they are."""
    idle = traits.local_rope is None and all(window == 0 or window >= context_length for window in traits.windows)
    return replace(traits, windows=()) if idle else traits


def layer_windows(n_layers: int, window: int, has_window: Callable[[int], bool]) -> tuple[int, ...]:
    """The window by layer; empty where no layer has one."""
    windows = tuple(window if has_window(i) else 0 for i in range(n_layers))
    return windows if any(windows) else ()


def gemma_scale(dim: int) -> float:
    """What Gemma multiplies its embeddings by."""
    return math.sqrt(dim)
