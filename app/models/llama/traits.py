"""What distinguishes one family of decoders from LLaMA: each trait named, and handled once in the seam's operations.

Defaults are LLaMA's (arXiv 2302.13971). Which family has which is in config_hf.py and config_gguf.py; docs/models.md lists them.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Rope:
    """Rotary position embedding (arXiv 2104.09864) of a layer."""

    theta: float = 10_000.0
    dim: int = 0  # leading entries of each head that are turned; 0: none are (a layer without positions)
    factors: tuple[float, ...] = ()  # what each frequency is divided by, where the model stretches them: (dim / 2,)
    scale: float = 1.0  # of cosines and sines (YaRN, LongRoPE)


@dataclass(frozen=True)
class LongRope:
    """LongRoPE (arXiv 2402.13753): other factors for a context beyond the one that the model was first trained for."""

    original: int  # tokens
    long_factors: tuple[float, ...]


@dataclass(frozen=True)
class Yarn:
    """YaRN (arXiv 2309.00071), as it is described: what comes of it is in the configuration's factors and scale."""

    factor: float
    original: int  # tokens
    beta_fast: float = 32.0
    beta_slow: float = 1.0


@dataclass(frozen=True)
class Experts:
    """A mixture of experts in place of the feed-forward (arXiv 2401.04088)."""

    count: int
    used: int  # by each token
    hidden_dim: int  # of one
    normalize: bool = True  # the weights of those that are used sum to 1


@dataclass(frozen=True)
class Traits:
    """Of a decoder block and of what is around all of them."""

    qkv_bias: bool = False
    output_bias: bool = False  # of attention's output
    mlp_bias: bool = False
    head_norm: str = ""  # RMSNorm of queries and keys before RoPE: "head", each by itself, or "all" heads of a token together
    layer_norm: bool = False  # LayerNorm (arXiv 1607.06450) where the others have RMSNorm
    norm_bias: bool = False
    pre_norm: bool = True
    post_norm: bool = False  # of what attention and feed-forward give, before it is added
    parallel: bool = False  # attention and feed-forward read the same normed input
    activation: str = "silu"
    attention_scale: float = 0.0  # of queries times keys; 0: head_dim ** -0.5
    attention_softcap: float = 0.0
    logit_softcap: float = 0.0
    embedding_scale: float = 1.0
    residual_scale: float = 1.0
    logit_scale: float = 1.0
    windows: tuple[int, ...] = ()  # by layer: tokens that its attention sees; 0: all. Empty: all layers see all
    local_rope: Rope | None = None  # of layers with a window, where it is another
    unrotated: tuple[int, ...] = ()  # layers without RoPE
    long_rope: LongRope | None = None
    yarn: Yarn | None = None
    experts: Experts | None = None


LLAMA = Traits()
