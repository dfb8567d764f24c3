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


def canonical_from_gguf(name: str) -> str | None:
    """`blk.3.attn_q.weight` → `layers.3.attention.wq.weight`; None for a tensor the model has no place for."""
    if name in GGUF_NAMES:
        return GGUF_NAMES[name]
    prefix, _, rest = name.partition(".")
    layer, _, part = rest.partition(".")
    # only the plain spelling of a number, so that two names never mean one tensor
    if prefix == "blk" and layer.isdecimal() and layer.isascii() and str(int(layer[:9])) == layer and part in GGUF_LAYER_NAMES:
        return f"layers.{layer}.{GGUF_LAYER_NAMES[part]}"
    return None
