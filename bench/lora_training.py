"""LoRA training beside peft and torch: gradients, speed, and what is left after kill -9.

python -m bench.lora_training --oracle: gradients and losses of peft to tests/data/lora_training.npz; needs torch, transformers, peft
python -m bench.lora_training --speed --peft PYTHON [--model FILE]: tokens per second in alternating runs; PYTHON has torch and peft
python -m bench.lora_training --kills 50: a training that is killed at random moments and resumed
"""

import argparse
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
DATA = ROOT / "tests" / "data" / "lora_training.npz"
LENGTH, RANK, LEARNT = 256, 8, 128  # tokens of a row, and how many of them are learnt
VOCAB = 40_000  # ids are drawn below


def oracle() -> None:
    """peft's gradients of one step, and its losses over twenty steps of torch's AdamW."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import LlamaConfig, LlamaForCausalLM

    from tests.reference import lora_reference as ref

    config = LlamaConfig(
        vocab_size=ref.VOCAB,
        hidden_size=ref.DIM,
        intermediate_size=ref.HIDDEN,
        num_hidden_layers=ref.LAYERS,
        num_attention_heads=ref.HEADS,
        num_key_value_heads=ref.KV_HEADS,
        rms_norm_eps=ref.EPS,
        rope_parameters={"rope_type": "default", "rope_theta": ref.THETA},
        tie_word_embeddings=False,
        attn_implementation="eager",
    )
    model = LlamaForCausalLM(config)
    given = ref.weights()
    named = {"model.embed_tokens.weight": "token_embd.weight", "model.norm.weight": "output_norm.weight", "lm_head.weight": "output.weight"}
    for n in range(ref.LAYERS):
        theirs = {"input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm"}
        theirs |= {
            "self_attn.q_proj": "attn_q",
            "self_attn.k_proj": "attn_k",
            "self_attn.v_proj": "attn_v",
            "self_attn.o_proj": "attn_output",
        }
        theirs |= {"mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down"}
        named |= {f"model.layers.{n}.{hf}.weight": f"blk.{n}.{ours}.weight" for hf, ours in theirs.items()}
    turned = ("attn_q", "attn_k")
    state = {hf: torch.tensor(ref.half_split(given[ours]) if any(t in ours for t in turned) else given[ours]) for hf, ours in named.items()}
    model.load_state_dict(state)
    targets = [module.rpartition(".")[2] for module, _, _ in ref.MODULES.values()]
    tuned = get_peft_model(model, LoraConfig(r=ref.RANK, lora_alpha=ref.ALPHA, target_modules=targets, lora_dropout=0.0))
    parameters = dict(tuned.named_parameters())
    by_name = {}
    for name, (a, b) in ref.adapters().items():
        _, layer, module, *_ = [*name.split(".")[:2], ".".join(name.split(".")[2:4])]
        where = f"base_model.model.model.layers.{layer}.{ref.MODULES[module][0]}"
        by_name[name] = parameters[f"{where}.lora_A.default.weight"], parameters[f"{where}.lora_B.default.weight"]
        b = ref.half_split(b) if module in ("attention.wq", "attention.wk") else b
        by_name[name][0].data, by_name[name][1].data = torch.tensor(a), torch.tensor(b)

    def loss() -> "torch.Tensor":
        total, count = torch.zeros(()), 0
        for ids, learnt in ref.samples():
            logits = tuned(input_ids=torch.tensor(ids)[None]).logits[0, :-1]
            labels = torch.tensor(np.where(learnt, ids, -100)[1:])
            total = total + torch.nn.functional.cross_entropy(logits, labels, ignore_index=-100, reduction="sum")
            count += int((labels >= 0).sum())
        return total / count

    loss().backward()
    found: dict[str, np.ndarray] = {}
    for name, halves in by_name.items():
        a, b = (half.grad.numpy() for half in halves)
        if "wq" in name or "wk" in name:  # back to pairs side by side
            b = b.reshape(-1, 2, ref.HEAD_DIM // 2, ref.RANK).transpose(0, 2, 1, 3).reshape(b.shape)
        found |= {f"{name}.a": a, f"{name}.b": b}
    trained = [half for halves in by_name.values() for half in halves]
    tuned.zero_grad()
    optimizer = torch.optim.AdamW(trained, lr=ref.RATE, weight_decay=ref.DECAY)
    losses = []
    for step in range(ref.STEPS):
        now = loss()
        losses.append(now.item())
        now.backward()
        torch.nn.utils.clip_grad_norm_(trained, ref.CLIP)
        optimizer.param_groups[0]["lr"] = ref.RATE * (1 + np.cos(np.pi * step / ref.STEPS)) / 2
        optimizer.step()
        optimizer.zero_grad()
    np.savez_compressed(DATA, losses=np.array(losses), **found)  # type: ignore[arg-type]
    print(f"{DATA.relative_to(ROOT)}: {DATA.stat().st_size:,} bytes; loss {losses[0]:.4f} to {losses[-1]:.4f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--oracle", action="store_true")
    options = parser.parse_args()
    if options.oracle:
        oracle()


if __name__ == "__main__":
    main()
