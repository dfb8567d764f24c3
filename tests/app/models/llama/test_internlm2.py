"""InternLM 2, whose code lives beside its weights: what it computes is LLaMA's, with queries, keys and values packed by groups of heads.

modeling_internlm2.py rearranges the rows of `wqkv` as "(groups, queries of a group + 2, head_dim)": the queries of a key/value head, its
keys, its values. With a LLaMA's matrices laid out so, its logits must be those that transformers computes for the LLaMA.
"""

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from app.models.llama import Llama
from app.models.llama.checkpoint import CheckpointError, open_checkpoint
from app.models.llama.checkpoint.conversion import convert
from app.models.llama.config import ConfigError
from tests.app.models.llama.test_family_logits import EXPECTED
from tests.reference.families import CONTEXT, POSITIONS, config_of, ids_of, write_family
from tests.reference.tiny_formats import write_tokenizer_json

pytestmark = pytest.mark.slow

NAMES = {
    "model.embed_tokens.weight": "model.tok_embeddings.weight",
    "lm_head.weight": "output.weight",
    "input_layernorm": "attention_norm",
    "post_attention_layernorm": "ffn_norm",
    "self_attn.o_proj": "attention.wo",
    "mlp.gate_proj": "feed_forward.w1",
    "mlp.up_proj": "feed_forward.w3",
    "mlp.down_proj": "feed_forward.w2",
}
# as internlm2-chat-7b's config.json has them
CONFIG = {
    "architectures": ["InternLM2ForCausalLM"],
    "auto_map": {"AutoConfig": "configuration_internlm2.InternLM2Config", "AutoModel": "modeling_internlm2.InternLM2ForCausalLM"},
    "attn_implementation": "eager",
    "bias": False,
    "hidden_act": "silu",
    "model_type": "internlm2",
    "pretraining_tp": 1,
    "rope_scaling": {"factor": 2.0, "type": "dynamic"},
    "rope_theta": 10000.0,
    "tie_word_embeddings": False,
}


def write_internlm2(folder: Path) -> Path:
    """The tiny LLaMA of tests/reference/families.py under InternLM 2's names and in its order."""
    tensors = load_file(write_family("llama", folder / "llama") / "model.safetensors")
    heads, groups, head_dim = (config_of("llama")[key] for key in ("num_attention_heads", "num_key_value_heads", "head_dim"))
    written = {}
    for name, values in tensors.items():
        if "self_attn" in name and "o_proj" not in name:
            continue
        new = name
        for theirs, its in NAMES.items():
            new = new.replace(theirs, its)
        written[new] = values
    for layer in range(config_of("llama")["num_hidden_layers"]):
        q, k, v = (tensors[f"model.layers.{layer}.self_attn.{part}_proj.weight"] for part in "qkv")
        parts = (q.reshape(groups, heads // groups, head_dim, -1), *(one.reshape(groups, 1, head_dim, -1) for one in (k, v)))
        packed = np.concatenate(parts, axis=1)  # (groups, queries of a group + 2, head_dim, dim)
        written[f"model.layers.{layer}.attention.wqkv.weight"] = np.ascontiguousarray(packed.reshape(-1, q.shape[1]))
    target = folder / "internlm2"
    target.mkdir()
    config = {key: value for key, value in config_of("llama").items() if key not in ("partial_rotary_factor", "model_type")}
    (target / "config.json").write_text(json.dumps(config | CONFIG))
    save_file(written, target / "model.safetensors")
    write_tokenizer_json(target)
    return target


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_internlm2(tmp_path_factory.mktemp("internlm2"))


def check(path: Path) -> None:
    found, expected = Llama.load(path, CONTEXT, device="CPU").logits(ids_of())[list(POSITIONS)], EXPECTED["llama"]
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4 * np.abs(expected).max())


def test_logits_are_those_of_the_llama_whose_matrices_were_packed(folder: Path) -> None:
    checkpoint = open_checkpoint(folder)
    assert checkpoint.config.architecture == "internlm2" and not checkpoint.config.unknown_keys
    check(folder)


def test_a_gguf_of_it_computes_the_same(folder: Path, tmp_path: Path) -> None:
    path = convert(open_checkpoint(folder), tmp_path / "internlm2.gguf", "f32")
    assert open_checkpoint(path).config.architecture == "internlm2"
    check(path)


def test_biases_and_a_matrix_of_other_groups_are_refused(folder: Path, tmp_path: Path) -> None:
    for changes, named in (({"bias": True}, "biases"), ({"num_key_value_heads": 4}, "wqkv.weight has the shape")):
        other = tmp_path / named[:4]
        other.mkdir()
        for file in folder.iterdir():
            (other / file.name).write_bytes(file.read_bytes())
        (other / "config.json").write_text(json.dumps(json.loads((folder / "config.json").read_text()) | changes))
        with pytest.raises((CheckpointError, ConfigError), match=named):
            open_checkpoint(other)
