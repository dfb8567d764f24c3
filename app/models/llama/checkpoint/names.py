"""What each format calls a tensor, and what the model (as Meta did, where Meta has it) calls it."""

from app.models.llama.traits import Traits

_ATTENTION = {"q": "wq", "k": "wk", "v": "wv"}
_MLP = {"gate": "w1", "down": "w2", "up": "w3"}
_KINDS = ("weight", "bias")

GGUF_NAMES = {
    "token_embd.weight": "tok_embeddings.weight",
    **{f"output_norm.{kind}": f"norm.{kind}" for kind in _KINDS},
    "output.weight": "output.weight",
}
GGUF_LAYER_NAMES = {
    **{f"attn_norm.{kind}": f"attention_norm.{kind}" for kind in _KINDS},
    **{f"attn_{theirs}.{kind}": f"attention.{ours}.{kind}" for theirs, ours in _ATTENTION.items() for kind in _KINDS},
    **{f"attn_output.{kind}": f"attention.wo.{kind}" for kind in _KINDS},
    **{f"attn_{part}_norm.weight": f"attention.{part}_norm.weight" for part in "qk"},
    "post_attention_norm.weight": "attention_post_norm.weight",
    **{f"ffn_norm.{kind}": f"ffn_norm.{kind}" for kind in _KINDS},
    **{f"ffn_{theirs}.{kind}": f"feed_forward.{ours}.{kind}" for theirs, ours in _MLP.items() for kind in _KINDS},
    "post_ffw_norm.weight": "ffn_post_norm.weight",
    "ffn_gate_inp.weight": "feed_forward.router.weight",
    **{f"ffn_{theirs}_exps.weight": f"feed_forward.experts.{ours}.weight" for theirs, ours in _MLP.items()},
}
# one tensor of several, by rows
GGUF_FUSED: dict[str, tuple[str, ...]] = {"attn_qkv.weight": ("attention.wq.weight", "attention.wk.weight", "attention.wv.weight")}
GGUF_FUSED |= {"attn_qkv.bias": ("attention.wq.bias", "attention.wk.bias", "attention.wv.bias")}
GGUF_FUSED |= {"ffn_up.weight": ("feed_forward.w1.weight", "feed_forward.w3.weight")}

HF_NAMES = {
    "model.embed_tokens.weight": "tok_embeddings.weight",
    **{f"model.norm.{kind}": f"norm.{kind}" for kind in _KINDS},
    "lm_head.weight": "output.weight",
}
HF_LAYER_NAMES = {
    **{f"input_layernorm.{kind}": f"attention_norm.{kind}" for kind in _KINDS},
    **{f"self_attn.{theirs}_proj.{kind}": f"attention.{ours}.{kind}" for theirs, ours in _ATTENTION.items() for kind in _KINDS},
    **{f"self_attn.o_proj.{kind}": f"attention.wo.{kind}" for kind in _KINDS},
    **{f"self_attn.{part}_norm.weight": f"attention.{part}_norm.weight" for part in "qk"},
    **{f"post_attention_layernorm.{kind}": f"ffn_norm.{kind}" for kind in _KINDS},
    **{f"mlp.{theirs}_proj.{kind}": f"feed_forward.{ours}.{kind}" for theirs, ours in _MLP.items() for kind in _KINDS},
    "mlp.gate.weight": "feed_forward.router.weight",
}
# as InternLM 2 and Mixtral call them
HF_OTHER_NAMES = {"model.tok_embeddings.weight": "tok_embeddings.weight", "output.weight": "output.weight"}
HF_OTHER_LAYER_NAMES = {
    "block_sparse_moe.gate.weight": "feed_forward.router.weight",
    "attention.wo.weight": "attention.wo.weight",
    **{f"feed_forward.{name}.weight": f"feed_forward.{name}.weight" for name in ("w1", "w2", "w3")},
    **{f"{name}.weight": f"{name}.weight" for name in ("attention_norm", "ffn_norm")},
}
# where what follows a sublayer is normed, before it is added
HF_POST_NORMS = {
    "post_attention_layernorm.weight": "attention_post_norm.weight",
    "pre_feedforward_layernorm.weight": "ffn_norm.weight",
    "post_feedforward_layernorm.weight": "ffn_post_norm.weight",
}
HF_EXPERTS = {f"mlp.experts.{{}}.{theirs}_proj.weight": ours for theirs, ours in _MLP.items()}
HF_EXPERTS |= {f"block_sparse_moe.experts.{{}}.{ours}.weight": ours for ours in _MLP.values()}

META_NAMES = {name: name for name in ("tok_embeddings.weight", "norm.weight", "output.weight")}
META_LAYER_NAMES = {f"attention.{name}.weight": f"attention.{name}.weight" for name in ("wq", "wk", "wv", "wo")}
META_LAYER_NAMES |= {f"feed_forward.{name}.weight": f"feed_forward.{name}.weight" for name in ("w1", "w2", "w3")}
META_LAYER_NAMES |= {f"{name}.weight": f"{name}.weight" for name in ("attention_norm", "ffn_norm")}
# tables that can be computed and old programs saved along: RoPE's frequencies, causal masks
COMPUTED = (".attn_rot_embd", "rope.freqs", ".rotary_emb.inv_freq", ".inner_attention.rope.freqs", ".masked_bias", ".attn.bias")


def canonical_from_gguf(name: str) -> str | None:
    """`blk.3.attn_q.weight` → `layers.3.attention.wq.weight`; None for a tensor the model has no place for."""
    return GGUF_NAMES.get(name) or _layer(name, "blk.", GGUF_LAYER_NAMES)


def canonical_from_hf(name: str, traits: Traits) -> str | None:
    """`model.layers.3.self_attn.q_proj.weight` → `layers.3.attention.wq.weight`."""
    names = HF_LAYER_NAMES | HF_OTHER_LAYER_NAMES | (HF_POST_NORMS if traits.post_norm else {})
    return HF_NAMES.get(name) or HF_OTHER_NAMES.get(name) or _layer(name, "model.layers.", names)


def canonical_from_meta(name: str) -> str | None:
    """Meta's names are the canonical ones."""
    return META_NAMES.get(name) or _layer(name, "layers.", META_LAYER_NAMES)


def gguf_from_canonical(name: str) -> str:
    """The name that a GGUF gives a tensor of this model."""
    if not name.startswith("layers."):
        return next(theirs for theirs, ours in GGUF_NAMES.items() if ours == name)
    _, layer, part = name.split(".", 2)
    return f"blk.{layer}.{next(theirs for theirs, ours in GGUF_LAYER_NAMES.items() if ours == part)}"


def hf_from_canonical(name: str, architecture: str) -> str:
    """The name that transformers gives a tensor of this model, experts and fused matrices left aside."""
    other = architecture == "internlm2"
    if not name.startswith("layers."):
        return next(theirs for theirs, ours in (HF_OTHER_NAMES | HF_NAMES if other else HF_NAMES).items() if ours == name)
    _, layer, part = name.split(".", 2)
    names = HF_OTHER_LAYER_NAMES | HF_LAYER_NAMES if other else HF_LAYER_NAMES
    return f"model.layers.{layer}.{next(theirs for theirs, ours in names.items() if ours == part)}"


def split_layer(name: str, prefix: str) -> tuple[str, str] | None:
    """(number, what follows) of a layer's tensor."""
    if not name.startswith(prefix):
        return None
    layer, _, part = name.removeprefix(prefix).partition(".")
    # only the plain spelling of a number, so that two names never mean one tensor
    return (layer, part) if layer.isdecimal() and layer.isascii() and str(int(layer[:9])) == layer else None


def _layer(name: str, prefix: str, parts: dict[str, str]) -> str | None:
    found = split_layer(name, prefix)
    return f"layers.{found[0]}.{parts[found[1]]}" if found and found[1] in parts else None
