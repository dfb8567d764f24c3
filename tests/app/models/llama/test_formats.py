"""One tiny LLaMA in every format: the same logits from each, to the last bit where nothing is rounded."""

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from app.models.llama import Llama
from app.models.llama.checkpoint import CheckpointError, open_checkpoint
from app.models.llama.config import ConfigError
from ext.tinygrad.kernels.reference import ReferenceKernels
from tests.reference.tiny import make_tiny_gguf
from tests.reference.tiny_formats import CONTEXT, hf_config, tiny_weights, write_hf, write_meta, write_split
from tests.reference.words import TOKENS

pytestmark = pytest.mark.slow

IDS = [5, 90, 17, 17, 0, 63, 2, 300]


def logits(path: Path) -> np.ndarray:
    return Llama.load(path, 64, device="CPU", kernels=ReferenceKernels()).logits(IDS)


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> Callable[[int, str], np.ndarray]:
    """Logits of the same weights in a GGUF, by number of key/value heads and element type."""
    folder = tmp_path_factory.mktemp("gguf")

    @cache
    def make(n_kv_heads: int, kind: str) -> np.ndarray:
        path = folder / f"{n_kv_heads}{kind}.gguf"
        return logits(make_tiny_gguf(path, n_kv_heads=n_kv_heads, weights=tiny_weights(n_kv_heads), context_length=CONTEXT, type=kind))

    return make


LOSSLESS: dict[str, tuple[str, Callable[[Path, dict[str, np.ndarray], int], Path]]] = {
    "safetensors": ("F32", lambda p, w, n: write_hf(p, w, n_kv_heads=n)),
    "safetensors F16": ("F16", lambda p, w, n: write_hf(p, w, kind="F16", n_kv_heads=n)),
    "safetensors sharded": ("F32", lambda p, w, n: write_hf(p, w, shards=3, n_kv_heads=n)),
    "bin": ("F32", lambda p, w, n: write_hf(p, w, torch=True, n_kv_heads=n)),
    "bin sharded": ("F16", lambda p, w, n: write_hf(p, w, torch=True, shards=3, kind="F16", n_kv_heads=n)),
    "pth": ("F32", lambda p, w, n: write_meta(p, w)),
    "pth F16": ("F16", lambda p, w, n: write_meta(p, w, kind="F16")),
    "pth in 2 shards": ("F32", lambda p, w, n: write_meta(p, w, shards=2)),
    "pth in 8 shards": ("F16", lambda p, w, n: write_meta(p, w, shards=8, kind="F16")),
    "pth in 2 shards, LLaMA 3's embedding": ("F32", lambda p, w, n: write_meta(p, w, shards=2, embedding_axis=0)),
    "GGUF in 3 parts": ("F32", lambda p, w, n: write_split(p, w, n, 3)),
}
CASES = [(case, 2) for case in LOSSLESS] + [(case, 4) for case in ("safetensors", "bin sharded", "pth in 2 shards")]


@pytest.mark.parametrize("case, n_kv_heads", CASES)
def test_a_lossless_format_gives_the_same_logits_to_the_last_bit(
    case: str, n_kv_heads: int, expected: Callable[[int, str], np.ndarray], tmp_path: Path
) -> None:
    kind, write = LOSSLESS[case]
    np.testing.assert_array_equal(logits(write(tmp_path / "model", tiny_weights(n_kv_heads), n_kv_heads)), expected(n_kv_heads, kind))


@pytest.mark.parametrize("write", [write_hf, write_meta])
def test_bfloat16_is_read_exactly(write: Any, tmp_path: Path) -> None:
    weights = tiny_weights()
    checkpoint = open_checkpoint(write(tmp_path / "model", weights, kind="BF16"))
    rounded = (weights["blk.0.attn_q.weight"].view(np.uint32) >> 16 << 16).view(np.float32)
    matrix = checkpoint.matrix("layers.0.attention.wq.weight")
    assert matrix.type == "BF16"
    np.testing.assert_allclose(matrix.dequantize(), rounded, rtol=2**-8)
    assert checkpoint.vector("norm.weight").dtype == np.float32


def test_tied_embeddings_need_no_head_and_ignore_a_second_copy(tmp_path: Path) -> None:
    weights = tiny_weights(tied=True)
    expected = logits(make_tiny_gguf(tmp_path / "tied.gguf", tied=True, weights=weights))
    assert open_checkpoint(write_hf(tmp_path / "a", weights, tied=True)).config.tied
    np.testing.assert_array_equal(logits(tmp_path / "a"), expected)
    twice = weights | {"output.weight": weights["token_embd.weight"]}
    np.testing.assert_array_equal(logits(write_hf(tmp_path / "b", twice, tied=True)), expected)
    np.testing.assert_array_equal(logits(write_meta(tmp_path / "c", weights)), expected)


def test_heads_may_be_wider_than_their_share_of_dim(tmp_path: Path) -> None:
    weights = tiny_weights(head_dim=32)
    expected = logits(make_tiny_gguf(tmp_path / "wide.gguf", head_dim=32, weights=weights))
    folder = write_hf(tmp_path / "hf", weights, head_dim=32)
    (folder / "config.json").write_text(json.dumps(hf_config() | {"head_dim": 32}))
    np.testing.assert_array_equal(logits(folder), expected)


def test_scaled_rope_means_the_same_in_every_format(tmp_path: Path) -> None:
    weights = tiny_weights()
    scaling = {
        "rope_type": "llama3",
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    }
    hf = write_hf(tmp_path / "hf", weights, rope_scaling=scaling, rope_theta=500_000.0)
    factors = np.array(open_checkpoint(hf).config.rope_factors, np.float32)
    assert factors[0] == 1 and factors[-1] == 8
    theta = {"rope_theta": 500_000.0}
    gguf = make_tiny_gguf(tmp_path / "g.gguf", weights=weights | {"rope_freqs.weight": factors}, **theta)
    meta = write_meta(tmp_path / "meta", weights, use_scaled_rope=True, rope_scaling_factor=8, **theta)
    plain = make_tiny_gguf(tmp_path / "plain.gguf", weights=weights, **theta)
    np.testing.assert_array_equal(logits(hf), logits(meta))
    np.testing.assert_allclose(logits(hf), logits(gguf), atol=1e-5)
    assert np.abs(logits(hf) - logits(plain)).max() > 1e-4


def test_linear_scaling_is_the_plain_model_at_closer_positions(tmp_path: Path) -> None:
    """At a factor of 2, position 2 p turns as p does in the plain model: two ids 2 apart attend as neighbours do."""
    scaled = open_checkpoint(write_hf(tmp_path / "hf", tiny_weights(), rope_scaling={"type": "linear", "factor": 2.0})).config
    from app.models.llama.transformer import rope_angles

    plain = open_checkpoint(write_hf(tmp_path / "plain", tiny_weights())).config
    np.testing.assert_allclose(rope_angles(scaled.rope(0), 16, 64)[::2], rope_angles(plain.rope(0), 16, 32), atol=1e-6)


def test_a_file_of_a_checkpoint_stands_for_its_folder(tmp_path: Path) -> None:
    hf, meta = write_hf(tmp_path / "hf", tiny_weights(), shards=2), write_meta(tmp_path / "meta", tiny_weights())
    for path in (hf / "model-00002-of-00002.safetensors", hf / "config.json", meta / "consolidated.00.pth", meta / "params.json"):
        assert open_checkpoint(path).path == path.parent


def test_a_file_without_its_folder_is_told_what_it_lacks(tmp_path: Path) -> None:
    meta = write_meta(tmp_path / "meta", tiny_weights())
    (tmp_path / "alone").mkdir()
    alone = (meta / "consolidated.00.pth").rename(tmp_path / "alone" / "x.pth")
    make_tiny_gguf(tmp_path / "alone" / "other.gguf")  # a model beside it is not meant
    with pytest.raises(CheckpointError, match=r"x\.pth needs the config\.json or params\.json that came with it"):
        open_checkpoint(alone)
    other = write_hf(tmp_path / "hf", tiny_weights())
    with pytest.raises(CheckpointError, match=r"x\.pth is none of the weights of .*hf, which are model\.safetensors"):
        open_checkpoint(alone.rename(other / "x.pth"))


def test_a_folder_with_one_gguf_is_that_gguf(tmp_path: Path) -> None:
    path = make_tiny_gguf(tmp_path / "a.gguf")
    assert open_checkpoint(tmp_path).path == path
    make_tiny_gguf(tmp_path / "b.gguf")
    with pytest.raises(CheckpointError, match="holds 2 GGUF models; pass one of them, such as a.gguf"):
        open_checkpoint(tmp_path)


def test_what_is_read_stays_a_view_of_the_file(tmp_path: Path) -> None:
    for path in (write_hf(tmp_path / "hf", tiny_weights()), write_meta(tmp_path / "meta", tiny_weights())):
        matrix = open_checkpoint(path).matrix("layers.0.feed_forward.w1.weight")
        assert not matrix.data.flags.owndata and not matrix.data.flags.writeable


def test_fingerprints_follow_the_content(tmp_path: Path) -> None:
    a = open_checkpoint(write_hf(tmp_path / "a", tiny_weights())).fingerprint()
    assert open_checkpoint(write_hf(tmp_path / "b", tiny_weights())).fingerprint() == a
    assert open_checkpoint(write_hf(tmp_path / "c", tiny_weights(seed=1))).fingerprint() != a
    assert open_checkpoint(write_hf(tmp_path / "d", tiny_weights(), rope_theta=5e5)).fingerprint() != a


def damage_index(folder: Path, name: object) -> None:
    path = folder / "model.safetensors.index.json"
    index = json.loads(path.read_text())
    index["weight_map"][next(iter(index["weight_map"]))] = name
    path.write_text(json.dumps(index))


@pytest.mark.parametrize(
    "name", ["../outside.safetensors", "/etc/passwd", "a/b.safetensors", "..", "a\\b.safetensors", 7, "x\n.safetensors", "x.py"]
)
def test_an_index_that_points_elsewhere_is_refused(name: object, tmp_path: Path) -> None:
    folder = write_hf(tmp_path / "hf", tiny_weights(), shards=2)
    (tmp_path / "outside.safetensors").write_bytes((folder / "model-00001-of-00002.safetensors").read_bytes())
    damage_index(folder, name)
    with pytest.raises(CheckpointError, match="index.json points at"):
        open_checkpoint(folder)


def test_a_missing_shard_is_named(tmp_path: Path) -> None:
    folder = write_hf(tmp_path / "hf", tiny_weights(), shards=3)
    (folder / "model-00002-of-00003.safetensors").unlink()
    with pytest.raises(CheckpointError, match="lacks model-00002-of-00003.safetensors"):
        open_checkpoint(folder)
    folder = write_meta(tmp_path / "meta", tiny_weights(), shards=4)
    (folder / "consolidated.02.pth").unlink()
    with pytest.raises(CheckpointError, match=r"lacks consolidated\.02\.pth, but has consolidated\.03\.pth"):
        open_checkpoint(folder)
    folder = write_meta(tmp_path / "short", tiny_weights(), shards=4)
    (folder / "consolidated.03.pth").unlink()
    with pytest.raises(CheckpointError, match="which do not make|cuts"):
        open_checkpoint(folder)


@pytest.mark.parametrize("torch, name", [(False, "model.safetensors.index.json"), (True, "pytorch_model.bin.index.json")])
def test_shards_without_their_index_are_told_what_they_lack(torch: bool, name: str, tmp_path: Path) -> None:
    folder = write_hf(tmp_path / "hf", tiny_weights(), shards=2, torch=torch)
    (folder / name).unlink()
    with pytest.raises(CheckpointError, match=f"hf holds parts of a model, but not {name}"):
        open_checkpoint(folder)


def test_a_tensor_in_two_shards_is_named(tmp_path: Path) -> None:
    folder = write_hf(tmp_path / "hf", tiny_weights(), shards=2)
    (folder / "model-00002-of-00002.safetensors").write_bytes((folder / "model-00001-of-00002.safetensors").read_bytes())
    with pytest.raises(CheckpointError, match="model-00001-of-00002.safetensors and in model-00002"):
        open_checkpoint(folder)


def test_biases_are_refused_by_name(tmp_path: Path) -> None:
    folder = write_hf(tmp_path / "hf", tiny_weights())
    from tests.reference.tiny_formats import save_safetensors, to_hf

    save_safetensors(
        folder / "model.safetensors", to_hf(tiny_weights()) | {"model.layers.0.self_attn.q_proj.bias": np.zeros(64, np.float32)}
    )
    with pytest.raises(CheckpointError, match=r"carries the tensor model\.layers\.0\.self_attn\.q_proj\.bias"):
        open_checkpoint(folder)


def test_a_config_that_contradicts_the_tensors_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"stores layers\.0\.feed_forward\.w\d\.weight as .* needs .*256"):
        open_checkpoint(write_hf(tmp_path / "hf", tiny_weights(), intermediate_size=256))
    with pytest.raises(CheckpointError, match="lacks the tensor layers.2"):
        open_checkpoint(write_meta(tmp_path / "meta", tiny_weights(), n_layers=3))
    with pytest.raises((ConfigError, CheckpointError), match="tok_embeddings|vocabulary"):
        open_checkpoint(write_meta(tmp_path / "dim", tiny_weights(), dim=128))


def test_a_tokenizer_with_more_ids_than_rows_is_refused(tmp_path: Path) -> None:
    folder = write_hf(tmp_path / "hf", tiny_weights())
    (folder / "added_tokens.json").write_text(json.dumps({"[PAD]": len(TOKENS)}))
    with pytest.raises(CheckpointError, match=f"has {len(TOKENS) + 1} tokens but only {len(TOKENS)} rows"):
        open_checkpoint(folder).tokenizer()


def test_ids_beyond_the_tokenizer_are_never_sampled(tmp_path: Path) -> None:
    """The embedding padded by 32 rows that would win every time."""
    weights = tiny_weights(vocab_size=len(TOKENS) + 32)
    weights["output.weight"][len(TOKENS) :] = 40 * weights["output.weight"][7]
    weights["output.weight"][len(TOKENS) + 1 :: 2] *= -1  # one of them is large, whatever the sign
    llama = Llama.load(write_hf(tmp_path / "hf", weights), 64, device="CPU", kernels=ReferenceKernels())
    assert (llama.logits(IDS).argmax(-1) >= len(TOKENS)).all()
    assert all(token < len(TOKENS) for token in llama.generate(IDS, 20, stop_ids=frozenset()))


def test_stop_tokens_are_the_union_of_what_all_files_declare(tmp_path: Path) -> None:
    folder = write_hf(tmp_path / "hf", tiny_weights(), eos_token_id=77)
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": [88, 99, 10**6, -1, "x"]}))
    assert {2, 77, 88, 99} <= open_checkpoint(folder).tokenizer().stop_ids
    assert open_checkpoint(folder).tokenizer().eos_id == 2  # tokenizer_config.json's word counts first


@pytest.fixture
def split(tmp_path: Path) -> Path:
    return write_split(tmp_path / "split", tiny_weights(), 2, 3)


def test_any_part_of_a_split_model_opens_the_whole(split: Path) -> None:
    first = open_checkpoint(split)
    assert set(first.tensor_names) == set(open_checkpoint(split.with_name("tiny-00001-of-00003.gguf")).tensor_names)
    assert open_checkpoint(split.parent).fingerprint() == first.fingerprint()


def test_a_missing_renamed_or_repeated_part_is_named(split: Path) -> None:
    second = split.with_name("tiny-00002-of-00003.gguf")
    data = second.read_bytes()
    second.unlink()
    with pytest.raises(CheckpointError, match="lacks tiny-00002-of-00003.gguf, one of the model's 3 parts"):
        open_checkpoint(split)
    second.write_bytes(split.with_name("tiny-00003-of-00003.gguf").read_bytes())
    with pytest.raises(CheckpointError, match="says that it is part 3 of 3"):
        open_checkpoint(split)
    second.write_bytes(data)
    moved = split.rename(split.with_name("model.gguf"))
    with pytest.raises(CheckpointError, match="is one of 3 parts, but is not called NAME-00001-of-00003.gguf"):
        open_checkpoint(moved)
