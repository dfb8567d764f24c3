"""LlamaConfig from a GGUF's metadata: sizes right, defaults right, everything that cannot be honoured refused by name."""

from typing import Any

import numpy as np
import pytest

from app.models.llama.config import ConfigError, LlamaConfig

SMOLLM2: dict[str, Any] = {
    "general.architecture": "llama",
    "general.name": "SmolLM2",
    "llama.block_count": 30,
    "llama.context_length": 8192,
    "llama.embedding_length": 576,
    "llama.feed_forward_length": 1536,
    "llama.attention.head_count": 9,
    "llama.attention.head_count_kv": 3,
    "llama.rope.freq_base": 100_000.0,
    "llama.attention.layer_norm_rms_epsilon": 1e-5,
    "llama.vocab_size": 49152,
    "llama.rope.dimension_count": 64,
}


def config(tensor_names: tuple[str, ...] = (), **changes: Any) -> LlamaConfig:
    metadata = SMOLLM2 | {key.replace("__", "."): value for key, value in changes.items()}
    return LlamaConfig.from_gguf({key: value for key, value in metadata.items() if value is not None}, tensor_names, "x.gguf")


def test_the_default_models_sizes() -> None:
    assert config() == LlamaConfig(
        dim=576,
        n_layers=30,
        n_heads=9,
        n_kv_heads=3,
        head_dim=64,
        hidden_dim=1536,
        vocab_size=49152,
        norm_eps=1e-5,
        rope_theta=100_000.0,
        context_length=8192,
        rope_dim=64,
        tied=True,
        architecture="llama",
        name="SmolLM2",
    )


def test_what_old_files_leave_out_has_llamas_own_values() -> None:
    old = config(
        llama__attention__head_count_kv=None,
        llama__rope__freq_base=None,
        llama__rope__dimension_count=None,
        llama__vocab_size=None,
        tokenizer__ggml__tokens=["a", "b"],
    )
    assert (old.n_kv_heads, old.rope_theta, old.rope_dim, old.vocab_size) == (9, 10_000.0, 64, 2)


def test_head_dim_may_differ_from_dim_over_heads() -> None:
    wide = config(llama__attention__key_length=128, llama__attention__value_length=128, llama__rope__dimension_count=128)
    assert (wide.head_dim, wide.rope_dim) == (128, 128)


def test_a_separate_output_head_is_not_tied() -> None:
    assert not config(("token_embd.weight", "output.weight")).tied


def test_a_value_per_layer_is_taken_where_all_layers_agree() -> None:
    assert config(llama__attention__head_count_kv=np.array([3] * 30)).n_kv_heads == 3
    with pytest.raises(ConfigError, match="head_count_kv per layer"):
        config(llama__attention__head_count_kv=np.array([3, 1] * 15))


@pytest.mark.parametrize("architecture, named", [("gpt2", "'gpt2'"), ("qwen2", "'qwen2'"), (None, "no architecture")])
def test_another_architecture_is_named_with_what_is_supported(architecture: str | None, named: str) -> None:
    with pytest.raises(ConfigError, match=f"{named}.*Townhall runs llama"):
        config(general__architecture=architecture)


def test_all_missing_keys_are_named_at_once() -> None:
    with pytest.raises(ConfigError, match=r"x\.gguf lacks llama\.embedding_length, llama\.block_count in its metadata"):
        config(llama__embedding_length=None, llama__block_count=None)


@pytest.mark.parametrize(
    "changes, named",
    [
        ({"llama__rope__scaling__type": "yarn", "llama__rope__scaling__factor": 4.0}, "rope scaling 'yarn'"),
        ({"llama__rope__scaling__type": "longrope"}, "rope scaling 'longrope'"),
        ({"llama__rope__scaling__type": "linear", "llama__rope__scaling__factor": 2.0}, "rope scaling 'linear'"),
        ({"llama__rope__scale_linear": 4.0}, "rope scaling 'linear'"),
        ({"tensor_names": ("rope_freqs.weight",)}, "rope scaling 'llama3'"),
        ({"llama__expert_count": 8}, "a mixture of 8 experts"),
        ({"llama__attention__sliding_window": 4096}, "a sliding window of 4096"),
    ],
)
def test_what_cannot_be_honoured_is_refused_by_name(changes: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigError, match=f"x.gguf needs {named}"):
        config(**changes)


@pytest.mark.parametrize(
    "changes",
    [
        {"llama__rope__scaling__type": "none"},
        {"llama__rope__scaling__type": "linear", "llama__rope__scaling__factor": 1.0},
        {"llama__rope__scaling__type": "linear", "llama__rope__scaling__factor": 0.0},
        {"llama__attention__sliding_window": 8192},
        {"llama__expert_count": 0},
    ],
)
def test_a_feature_that_is_switched_off_is_no_obstacle(changes: dict[str, Any]) -> None:
    assert config(**changes) == config()


@pytest.mark.parametrize(
    "changes, named",
    [
        ({"llama__embedding_length": 0}, "embedding_length as 0"),
        ({"llama__embedding_length": "576"}, "embedding_length as '576'"),
        ({"llama__block_count": 2**31}, "block_count"),
        ({"llama__block_count": True}, "block_count as True"),
        ({"llama__attention__head_count_kv": 2}, "9 query heads, which 2"),
        ({"llama__embedding_length": 577}, "dim 577, which 9 heads"),
        ({"llama__rope__dimension_count": 63}, "turns 63 entries"),
        ({"llama__rope__dimension_count": 66}, "turns 66 entries"),
        ({"llama__rope__freq_base": float("nan")}, "freq_base as nan"),
        ({"llama__attention__layer_norm_rms_epsilon": 0.0}, "epsilon as 0.0"),
        ({"llama__attention__value_length": 32}, "keys of 64 and values of 32"),
        ({"llama__vocab_size": None}, "neither llama.vocab_size nor tokenizer.ggml.tokens"),
        ({"llama__rope__scaling__type": ["yarn"]}, "rope scaling"),
    ],
)
def test_absurd_values_are_named(changes: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        config(**changes)
