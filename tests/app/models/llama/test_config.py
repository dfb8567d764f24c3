"""LlamaConfig from a GGUF's metadata: sizes right, defaults right, everything that cannot be honoured refused by name."""

import dataclasses
from typing import Any

import numpy as np
import pytest

from app.models.llama.config import ConfigError, LlamaConfig
from app.models.llama.config_gguf import config_from_gguf
from app.models.llama.config_hf import config_from_hf
from app.models.llama.config_meta import config_from_meta

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
    return config_from_gguf({key: value for key, value in metadata.items() if value is not None}, tensor_names, "x.gguf")


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


@pytest.mark.parametrize("architecture, named", [("gpt2", "'gpt2'"), ("bert", "'bert'"), (None, "no architecture")])
def test_another_architecture_is_named_with_what_is_supported(architecture: str | None, named: str) -> None:
    with pytest.raises(ConfigError, match=f"{named}.*Townhall runs llama"):
        config(general__architecture=architecture)


def test_all_missing_keys_are_named_at_once() -> None:
    with pytest.raises(ConfigError, match=r"x\.gguf lacks llama\.embedding_length, llama\.block_count in its metadata"):
        config(llama__embedding_length=None, llama__block_count=None)


@pytest.mark.parametrize(
    "changes, named",
    [
        ({"llama__rope__scaling__type": "longrope"}, "rope scaling 'longrope'"),
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
        ({"llama__rope__freq_base": 1.0}, "freq_base as 1"),
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


def test_a_sliding_window_is_each_layers() -> None:
    short = config(llama__attention__sliding_window=4096)
    assert (short.context_length, short.traits.windows) == (8192, (4096,) * 30)


def test_a_mixture_says_how_many_experts_a_token_uses() -> None:
    mixture = config(llama__expert_count=8, llama__expert_used_count=2).traits.experts
    assert mixture is not None and (mixture.count, mixture.used, mixture.hidden_dim) == (8, 2, 1536)
    with pytest.raises(ConfigError, match="expert_used_count as None"):
        config(llama__expert_count=8)


@pytest.mark.parametrize(
    "changes", [{"llama__rope__scaling__type": "linear", "llama__rope__scaling__factor": 4.0}, {"llama__rope__scale_linear": 4.0}]
)
def test_linear_scaling_divides_every_frequency(changes: dict[str, Any]) -> None:
    assert config(**changes).rope_factors == (4.0,) * 32


def test_yarn_leaves_short_waves_alone_and_raises_attention() -> None:
    made = config(llama__rope__scaling__type="yarn", llama__rope__scaling__factor=4.0, llama__rope__scaling__original_context_length=2048)
    assert made.rope_factors[0] == 1 and made.rope_factors[-1] == pytest.approx(4)
    assert made.rope_scale == pytest.approx(0.1 * np.log(4) + 1)


@pytest.mark.parametrize(
    "changes, expected",
    [
        ({"yarn_attn_factor": 1.5}, 1.5),  # a config.json's attention_factor, as llama.cpp's converter writes it
        ({"attn_factor": 1.5}, 1.5 * (0.1 * np.log(4) + 1)),
        ({"yarn_log_multiplier": 1.0}, 1.0),  # Mistral's: the scale is undone
        ({"yarn_log_multiplier": 0.0}, 0.1 * np.log(4) + 1),
    ],
)
def test_what_a_file_says_of_yarns_scale(changes: dict[str, float], expected: float) -> None:
    named = {f"llama__rope__scaling__{key}": value for key, value in changes.items()}
    made = config(llama__rope__scaling__type="yarn", llama__rope__scaling__factor=4.0, **named)
    assert made.rope_scale == pytest.approx(expected)


HF: dict[str, Any] = {
    "model_type": "llama",
    "hidden_size": 4096,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "intermediate_size": 14336,
    "max_position_embeddings": 131072,
    "rms_norm_eps": 1e-5,
    "rope_theta": 500000.0,
    "rope_scaling": {
        "factor": 8.0,
        "high_freq_factor": 4.0,
        "low_freq_factor": 1.0,
        "original_max_position_embeddings": 8192,
        "rope_type": "llama3",
    },
}


def hf(**changes: Any) -> LlamaConfig:
    return config_from_hf(HF | changes, 128256, "config.json")


def test_llama_3_1_stretches_as_metas_code_does() -> None:
    """llama-models' apply_scaling, frequency by frequency."""
    factors = hf().rope_factors
    for i, factor in enumerate(factors):
        frequency = 500000.0 ** (-2 * i / 128)
        wavelength = 2 * np.pi / frequency
        if wavelength < 8192 / 4:
            expected = frequency
        elif wavelength > 8192:
            expected = frequency / 8
        else:
            smooth = (8192 / wavelength - 1) / (4 - 1)
            expected = (1 - smooth) * frequency / 8 + smooth * frequency
        assert frequency / factor == pytest.approx(expected, rel=1e-12)
    assert factors[0] == 1 and factors[-1] == 8 and len(factors) == 64


def test_metas_params_mean_the_same_as_hugging_faces_config() -> None:
    params = {
        "dim": 4096,
        "n_layers": 32,
        "n_heads": 32,
        "n_kv_heads": 8,
        "norm_eps": 1e-5,
        "rope_theta": 500000.0,
        "use_scaled_rope": True,
    }
    meta = config_from_meta(params | {"vocab_size": 128256}, 14336, 128256, False, "params.json")
    assert dataclasses.replace(meta, name="") == hf()


@pytest.mark.parametrize(
    "params, context",
    [
        ({"norm_eps": 1e-6}, 2048),
        ({"norm_eps": 1e-5}, 4096),
        ({"norm_eps": 1e-5, "dim": 8192, "n_heads": 64}, 2048),  # LLaMA 1 of 65B
        ({"norm_eps": 1e-5, "dim": 8192, "n_heads": 64, "n_kv_heads": 8}, 4096),  # LLaMA 2 of 70B
        ({"norm_eps": 1e-5, "rope_theta": 1e6}, 16384),
        ({"norm_eps": 1e-5, "rope_theta": 5e5}, 8192),
        ({"norm_eps": 1e-5, "rope_theta": 5e5, "use_scaled_rope": True}, 131072),
        ({"norm_eps": 1e-5, "max_seq_len": 512}, 512),
        ({"norm_eps": 1e-5, "rope_theta": 1e6, "sliding_window": 4096}, 16384),  # Mistral's own
        ({"norm_eps": 1e-5, "sliding_window": None}, 4096),
    ],
)
def test_the_context_of_metas_models_is_told_by_what_params_json_does_say(params: dict[str, Any], context: int) -> None:
    base = {"dim": 64, "n_layers": 1, "n_heads": 4}
    assert config_from_meta(base | params, 128, 100, False, "params.json").context_length == context


def test_a_vocabulary_that_params_json_contradicts_is_named() -> None:
    params = {"dim": 64, "n_layers": 1, "n_heads": 4, "norm_eps": 1e-5, "vocab_size": 99}
    with pytest.raises(ConfigError, match="99 tokens, where the embedding has 100 rows"):
        config_from_meta(params, 128, 100, False, "params.json")


@pytest.mark.parametrize(
    "changes, named",
    [
        ({"model_type": "bert"}, "model type 'bert'"),
        ({"model_type": "cohere", "use_qk_norm": True}, "norm of its own for each head"),
        ({"model_type": "gemma3_text", "use_bidirectional_attention": True}, "attention to later tokens"),
        ({"model_type": "qwen3_moe", "mlp_only_layers": [0]}, "layers without experts"),
        ({"num_local_experts": 8}, "a mixture of 8 experts"),
        ({"hidden_act": "gelu"}, "the activation 'gelu'"),
        ({"quantization_config": {"quant_method": "gptq"}}, "quantised by another program"),
        ({"rope_scaling": {"type": "ntk", "factor": 2.0}}, "rope scaling 'ntk'"),
        ({"rope_scaling": {"type": "longrope", "short_factor": [1.0], "long_factor": [1.0]}}, "short_factor as something else"),
        ({"rope_scaling": {"type": "longrope"}, "original_max_position_embeddings": [None]}, "original_max_position_embeddings as"),
        ({"rope_scaling": {"rope_type": "llama3", "factor": 8.0}}, "low_freq_factor as 'None'"),
        ({"rope_scaling": {"type": "linear", "factor": -1}}, "factor as '-1'"),
        ({"rope_scaling": [1]}, "rope_scaling as"),
        ({"hidden_size": None}, "lacks hidden_size"),
        ({"num_hidden_layers": 1e9}, "num_hidden_layers as 1000000000.0"),
        ({"model_type": "phi3", "partial_rotary_factor": 0.005, "rope_scaling": None}, "turns 0 entries"),
        ({"model_type": "mistral", "layer_types": ["full_attention"]}, "layer_types that are not 32"),
    ],
)
def test_what_a_config_json_asks_for_in_vain_is_named(changes: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        hf(**changes)


def test_mistrals_window_is_each_layers() -> None:
    mistral = hf(model_type="mistral", sliding_window=4096, rope_scaling=None)
    assert (mistral.context_length, mistral.traits.windows) == (131072, (4096,) * 32)
    assert hf(model_type="mistral", sliding_window=None, rope_scaling=None).traits.windows == ()


def test_keys_that_change_nothing_and_keys_that_are_not_known_are_told_apart() -> None:
    assert hf(torch_dtype="bfloat16", use_cache=True, partial_rotary_factor=0.5, shiny=1).unknown_keys == ("partial_rotary_factor", "shiny")
    assert hf(shiny=None, dull=False).unknown_keys == ()
    assert hf(partial_rotary_factor=0.5).rope_dim == 128  # transformers' LLaMA passes it over


def test_a_null_rope_type_leaves_the_older_type_standing() -> None:
    assert set(hf(rope_scaling={"rope_type": None, "type": "linear", "factor": 2.0}).rope_factors) == {2.0}


def test_yarn_of_a_config_json_is_transformers_own_formula() -> None:
    """_compute_yarn_parameters of transformers' modeling_rope_utils, written out."""
    made = hf(rope_scaling={"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 4096}, rope_theta=10000.0)
    dim, base, length, factor = 128, 10000.0, 4096, 4.0
    position = base ** (np.arange(0, dim, 2) / dim)
    extrapolation, interpolation = 1 / position, 1 / (factor * position)
    low, high = (dim * np.log(length / (turns * 2 * np.pi)) / (2 * np.log(base)) for turns in (32, 1))
    low, high = max(np.floor(low), 0), min(np.ceil(high), dim - 1)
    mask = 1 - np.clip((np.arange(dim // 2) - low) / (high - low), 0, 1)
    expected = interpolation * (1 - mask) + extrapolation * mask
    np.testing.assert_allclose(1 / position / np.array(made.rope_factors), expected, rtol=1e-12)
    assert made.rope_scale == pytest.approx(0.1 * np.log(4.0) + 1)
