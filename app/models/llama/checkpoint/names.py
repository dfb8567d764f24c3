"""One table of tensor names: what each format calls a tensor, and what the model (as Meta did) calls it."""

GGUF_NAMES = {"token_embd.weight": "tok_embeddings.weight", "output_norm.weight": "norm.weight", "output.weight": "output.weight"}
GGUF_LAYER_NAMES = {
    "attn_norm.weight": "attention_norm.weight",
    "attn_q.weight": "attention.wq.weight",
    "attn_k.weight": "attention.wk.weight",
    "attn_v.weight": "attention.wv.weight",
    "attn_output.weight": "attention.wo.weight",
    "ffn_norm.weight": "ffn_norm.weight",
    "ffn_gate.weight": "feed_forward.w1.weight",
    "ffn_down.weight": "feed_forward.w2.weight",
    "ffn_up.weight": "feed_forward.w3.weight",
}

HF_NAMES = {"model.embed_tokens.weight": "tok_embeddings.weight", "model.norm.weight": "norm.weight", "lm_head.weight": "output.weight"}
HF_LAYER_NAMES = {
    "input_layernorm.weight": "attention_norm.weight",
    "self_attn.q_proj.weight": "attention.wq.weight",
    "self_attn.k_proj.weight": "attention.wk.weight",
    "self_attn.v_proj.weight": "attention.wv.weight",
    "self_attn.o_proj.weight": "attention.wo.weight",
    "post_attention_layernorm.weight": "ffn_norm.weight",
    "mlp.gate_proj.weight": "feed_forward.w1.weight",
    "mlp.down_proj.weight": "feed_forward.w2.weight",
    "mlp.up_proj.weight": "feed_forward.w3.weight",
}
META_NAMES = {name: name for name in HF_NAMES.values()}
META_LAYER_NAMES = {name: name for name in HF_LAYER_NAMES.values()}
# tables that can be computed and old programs saved along: RoPE's frequencies, causal masks
COMPUTED = (".attn_rot_embd", "rope.freqs", ".rotary_emb.inv_freq", ".inner_attention.rope.freqs", ".masked_bias", ".attn.bias")


def canonical_from_gguf(name: str) -> str | None:
    """`blk.3.attn_q.weight` → `layers.3.attention.wq.weight`; None for a tensor the model has no place for."""
    return GGUF_NAMES.get(name) or _layer(name, "blk.", GGUF_LAYER_NAMES)


def canonical_from_hf(name: str) -> str | None:
    """`model.layers.3.self_attn.q_proj.weight` → `layers.3.attention.wq.weight`."""
    return HF_NAMES.get(name) or _layer(name, "model.layers.", HF_LAYER_NAMES)


def canonical_from_meta(name: str) -> str | None:
    """Meta's names are the canonical ones."""
    return META_NAMES.get(name) or _layer(name, "layers.", META_LAYER_NAMES)


def gguf_from_canonical(name: str) -> str:
    """The name that a GGUF gives a tensor of this model."""
    if not name.startswith("layers."):
        return next(theirs for theirs, ours in GGUF_NAMES.items() if ours == name)
    _, layer, part = name.split(".", 2)
    return f"blk.{layer}.{next(theirs for theirs, ours in GGUF_LAYER_NAMES.items() if ours == part)}"


def _layer(name: str, prefix: str, parts: dict[str, str]) -> str | None:
    if not name.startswith(prefix):
        return None
    layer, _, part = name.removeprefix(prefix).partition(".")
    # only the plain spelling of a number, so that two names never mean one tensor
    if layer.isdecimal() and layer.isascii() and str(int(layer[:9])) == layer and part in parts:
        return f"layers.{layer}.{parts[part]}"
    return None
