"""GGUF adapters and mlx-lm's: written and read, scales folded, faults named; and which reader a path is given to."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from safetensors.numpy import save_file

from app.models.llama.checkpoint import open_checkpoint
from app.models.llama.lora.adapter import EMBEDDING, HEAD, Adapter, AdapterError, LowRank, adaptable_shapes
from app.models.llama.lora.adapter_summary import summarise
from app.models.llama.lora.gguf_adapter import read_gguf_adapter, write_gguf_adapter
from app.models.llama.lora.open_adapter import open_adapter
from app.models.llama.lora.peft_folder import write_peft
from tests.reference.families import write_family

FAMILIES = ("llama", "qwen2", "qwen3", "phi3", "cohere")  # pairs of RoPE side by side in a GGUF, or not; tied; fused


@pytest.fixture(scope="session")
def config_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Any]:
    folder = tmp_path_factory.mktemp("bases")
    return lambda family: open_checkpoint(write_family(family, folder / family)).config


def random_adapter(config: Any, ranks: tuple[int, ...] = (4,), scales: tuple[float, ...] = (2.0,), ends: bool = False) -> Adapter:
    """Of every matrix; what a fused module holds shares its A."""
    matrices, narrow = {}, dict[str, np.ndarray]()
    for n, (name, (rows, cols)) in enumerate(adaptable_shapes(config).items()):
        if name in (EMBEDDING, HEAD) and not ends:
            continue
        rng = np.random.default_rng(n)
        fused = config.architecture == "phi3"
        rank = ranks[0 if fused else n % len(ranks)]
        whole = name.replace("wk", "wq").replace("wv", "wq").replace("w3", "w1") if fused else name
        a = narrow.setdefault(whole, rng.standard_normal((rank, cols)).astype(np.float32))
        matrices[name] = LowRank(a, rng.standard_normal((rows, rank)).astype(np.float32), scales[0 if fused else n % len(scales)])
    return Adapter(matrices, base="the base")


def same(found: Adapter, expected: Adapter, rtol: float = 1e-5) -> None:
    assert found.matrices.keys() == expected.matrices.keys()
    for name, change in expected.matrices.items():
        np.testing.assert_allclose(found.matrices[name].delta(), change.delta(), rtol=rtol, atol=rtol * np.abs(change.delta()).max())


@pytest.mark.parametrize("family", FAMILIES)
def test_a_gguf_adapter_is_read_as_it_was_written(family: str, config_of: Callable[[str], Any], tmp_path: Path) -> None:
    config = config_of(family)
    adapter = random_adapter(config, (4, 8), (2.0, 0.25), ends=not config.tied and family == "llama")
    same(open_adapter(write_gguf_adapter(adapter, tmp_path / "a.gguf", config), config), adapter)
    assert summarise(tmp_path / "a.gguf")["base"] == "the base"


def test_a_scale_that_llama_cpp_would_not_compute_is_folded_into_b(config_of: Callable[[str], Any], tmp_path: Path) -> None:
    """rslora: alpha / sqrt(r), where a GGUF says alpha / r; ranks and scales of their own (rank_pattern, alpha_pattern)."""
    config = config_of("llama")
    adapter = random_adapter(config, (4, 16), (8 / 4**0.5, 8 / 16**0.5))
    path = write_gguf_adapter(adapter, tmp_path / "a.gguf", config)
    reader = gguf.GGUFReader(path)
    alpha = float(reader.fields["adapter.lora.alpha"].contents())
    tensors = {tensor.name: np.array(tensor.data) for tensor in reader.tensors}
    assert reader.fields["general.type"].contents() == "adapter"
    for n, name in enumerate(("attn_k", "ffn_down")):
        a, b = tensors[f"blk.0.{name}.weight.lora_a"], tensors[f"blk.0.{name}.weight.lora_b"]
        ours = adapter.matrices[f"layers.0.{('attention.wk', 'feed_forward.w2')[n]}.weight"]
        np.testing.assert_allclose(alpha / len(a) * b @ a, ours.delta(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "change, words",
    [
        ({"general.type": "model"}, "no adapter but a model"),
        ({"adapter.type": "alora"}, "'alora'"),
        ({"general.architecture": "qwen2"}, "'qwen2'"),
        ({"adapter.lora.alpha": "two"}, "no number"),
    ],
)
def test_faults_of_a_gguf_adapter_are_named(change: dict[str, str], words: str, config_of: Callable[[str], Any], tmp_path: Path) -> None:
    writer = gguf.GGUFWriter(tmp_path / "a.gguf", change.get("general.architecture", "llama"))
    writer.add_type(change.get("general.type", "adapter"))
    writer.add_string("adapter.type", change.get("adapter.type", "lora"))
    if "adapter.lora.alpha" in change:
        writer.add_string("adapter.lora.alpha", change["adapter.lora.alpha"])
    writer.add_tensor("blk.0.attn_q.weight.lora_a", np.zeros((4, 64), np.float32))
    write(writer)
    with pytest.raises(AdapterError, match=words):
        read_gguf_adapter(tmp_path / "a.gguf", config_of("llama"))


@pytest.mark.parametrize(
    "tensors, words",
    [
        ({"blk.0.attn_q.weight.lora_a": (4, 64)}, "lacks lora_b"),
        ({"blk.0.attn_q.weight.lora_a": (4, 64), "blk.0.attn_q.weight.lora_b": (64, 3)}, "do not go together"),
        ({"blk.0.attn_q.weight.lora_a": (4, 60), "blk.0.attn_q.weight.lora_b": (64, 4)}, "the model needs"),
        ({"blk.7.attn_q.weight.lora_a": (4, 64), "blk.7.attn_q.weight.lora_b": (64, 4)}, "has not"),
        ({"blk.0.attn_norm.weight.lora_a": (4, 64), "blk.0.attn_norm.weight.lora_b": (64, 4)}, "has not"),
        ({"nothing.lora_a": (4, 64), "nothing.lora_b": (64, 4)}, "has not"),
        ({"blk.0.attn_q.weight": (64, 64)}, "no half"),
    ],
)
def test_tensors_of_a_gguf_adapter_that_do_not_fit_are_named(
    tensors: dict[str, tuple[int, int]], words: str, config_of: Callable[[str], Any], tmp_path: Path
) -> None:
    writer = gguf.GGUFWriter(tmp_path / "a.gguf", "llama")
    writer.add_type("adapter")
    writer.add_string("adapter.type", "lora")
    writer.add_float32("adapter.lora.alpha", 4.0)
    for name, shape in tensors.items():
        writer.add_tensor(name, np.zeros(shape, np.float32))
    write(writer)
    with pytest.raises(AdapterError, match=words):
        read_gguf_adapter(tmp_path / "a.gguf", config_of("llama"))


def write(writer: gguf.GGUFWriter) -> None:
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def test_what_a_gguf_adapter_cannot_say_is_refused(config_of: Callable[[str], Any], tmp_path: Path) -> None:
    config = config_of("qwen3")
    tied = random_adapter(config, ends=True)
    with pytest.raises(AdapterError, match="which are one"):
        write_gguf_adapter(tied, tmp_path / "a.gguf", config)
    one = {
        "layers.0.attention.wq.weight": LowRank(np.ones((1, 64), np.float32), np.ones((64, 1), np.float32), 1.0, np.ones(64, np.float32))
    }
    with pytest.raises(AdapterError, match="magnitudes"):
        write_gguf_adapter(Adapter(one), tmp_path / "a.gguf", config)
    with pytest.raises(AdapterError, match="replaces"):
        write_gguf_adapter(Adapter({}, {"norm.weight": np.ones(64, np.float32)}), tmp_path / "a.gguf", config)
    assert not list(tmp_path.iterdir())


def write_mlx(folder: Path, adapter: Adapter, config: Any, **changes: Any) -> Path:
    """As mlx_lm.lora does: A (in, r) and B (r, out), rows of queries and keys as transformers has them."""
    from app.models.llama.checkpoint.checkpoint import adjacent_entries
    from app.models.llama.checkpoint.names import hf_from_canonical

    folder.mkdir(exist_ok=True)
    tensors = {}
    for name, change in adapter.matrices.items():
        module = hf_from_canonical(name, config.architecture).removesuffix(".weight")
        order = adjacent_entries(name, len(change.b), config.head_dim, config.rope_dim)
        b = change.b if order is None else change.b[np.argsort(order)]
        tensors |= {f"{module}.lora_a": np.ascontiguousarray(change.a.T), f"{module}.lora_b": np.ascontiguousarray(b.T)}
    save_file(tensors, folder / "adapters.safetensors")
    settings = {"fine_tune_type": "lora", "model": "m", "lora_parameters": {"rank": 4, "scale": 2.0, "dropout": 0.0}} | changes
    (folder / "adapter_config.json").write_text(json.dumps(settings))
    return folder


def test_an_adapter_of_mlx_is_read(config_of: Callable[[str], Any], tmp_path: Path) -> None:
    config = config_of("llama")
    adapter = random_adapter(config)
    same(open_adapter(write_mlx(tmp_path / "mlx", adapter, config), config), adapter)
    assert summarise(tmp_path / "mlx")["scale"] == 2.0
    default = write_mlx(tmp_path / "default", adapter, config, lora_parameters={"rank": 4})
    assert {change.scale for change in open_adapter(default, config).matrices.values()} == {20.0}


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"fine_tune_type": "full"}, "'full'"),
        ({"fine_tune_type": "dora"}, "needs lora_a, lora_b and m"),
        ({"lora_parameters": {"scale": "x"}}, "no number"),
        ({"lora_parameters": {"scale": 10**400}}, "no number"),
        ({"lora_parameters": None}, "no number"),
    ],
)
def test_faults_of_an_adapter_of_mlx_are_named(
    changes: dict[str, Any], words: str, config_of: Callable[[str], Any], tmp_path: Path
) -> None:
    config = config_of("llama")
    with pytest.raises(AdapterError, match=words):
        open_adapter(write_mlx(tmp_path / "mlx", random_adapter(config), config, **changes), config)


def test_a_path_is_read_by_what_it_holds(config_of: Callable[[str], Any], tmp_path: Path) -> None:
    config = config_of("llama")
    adapter = random_adapter(config)
    folder = write_peft(adapter, tmp_path / "peft", config)
    same(open_adapter(folder, config), adapter)
    same(open_adapter(folder / "adapter_model.safetensors", config), adapter)
    assert summarise(folder)["ranks"] == [4]
    write_gguf_adapter(adapter, tmp_path / "one.gguf", config)
    same(open_adapter(tmp_path, config), adapter)
    (tmp_path / "x").write_text("not an adapter")
    for path, words in ((tmp_path / "x", "no adapter by its first bytes"), (tmp_path / "y", "does not exist")):
        with pytest.raises(AdapterError, match=words):
            open_adapter(path, config)
    (tmp_path / "empty").mkdir()
    for read in (lambda: open_adapter(tmp_path / "empty", config), lambda: summarise(tmp_path / "empty")):
        with pytest.raises(AdapterError, match=r"no adapter_config\.json"):
            read()
