"""peft's folders: every form that tests/reference/adapters.py has is read, and written again; faults are named."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from app.models.llama.checkpoint import CheckpointError, open_checkpoint
from app.models.llama.lora.adapter import Adapter, AdapterError
from app.models.llama.lora.merged_checkpoint import MergedCheckpoint
from app.models.llama.lora.peft_folder import read_peft, write_peft
from tests.reference.adapters import CASES, stored_cases, write_adapter
from tests.reference.families import write_family

STORED = stored_cases()
WRITABLE = [name for name in CASES if not STORED[name]["config"].get("modules_to_save") and not name.startswith(("bias", "fused"))]


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("adapters")


def base_of(name: str, folders: Path) -> Any:
    family = CASES[name][0]
    return open_checkpoint(write_family(family, folders / family))


def adapter_of(name: str, folders: Path) -> Adapter:
    return read_peft(write_adapter(STORED[name], folders / name), base_of(name, folders).config)


@pytest.mark.parametrize("name", CASES)
def test_safetensors_and_bin_hold_the_same(name: str, folders: Path) -> None:
    found = adapter_of(name, folders)
    again = read_peft(write_adapter(STORED[name], folders / f"{name}-bin", torch=True), base_of(name, folders).config)
    assert again.digest == found.digest
    assert found.base == CASES[name][0]


@pytest.mark.parametrize("name", WRITABLE)
def test_what_is_written_is_read_again_to_the_bit(name: str, folders: Path) -> None:
    adapter, config = adapter_of(name, folders), base_of(name, folders).config
    written = write_peft(adapter, folders / f"{name}-again", config)
    again = read_peft(written, config)
    assert again.matrices.keys() == adapter.matrices.keys()
    for key, change in adapter.matrices.items():
        assert again.matrices[key].scale == pytest.approx(change.scale, rel=1e-12)
        np.testing.assert_array_equal(again.matrices[key].a, change.a)
        np.testing.assert_array_equal(again.matrices[key].b, change.b)
    assert not list(written.glob("*.part"))


def spoiled(folders: Path, tmp_path: Path, config: dict[str, Any] | None = None, **tensors: np.ndarray | None) -> None:
    """The case `all` with changes of its configuration and of its tensors (None: left out), read."""
    case = STORED["all"]
    folder = write_adapter(case | {"config": case["config"] | (config or {})}, tmp_path / "spoiled")
    if tensors:
        kept = load_file(folder / "adapter_model.safetensors") | tensors
        save_file({key: value for key, value in kept.items() if value is not None}, folder / "adapter_model.safetensors")
    read_peft(folder, base_of("all", folders).config)


Q = "base_model.model.model.layers.0.self_attn.q_proj."


@pytest.mark.parametrize(
    "config, tensors, words",
    [
        ({}, {f"{Q}lora_A.weight": None}, "lacks lora_A of model.layers.0.self_attn.q_proj"),
        ({}, {f"{Q}lora_B.weight": None}, "lacks lora_B"),
        ({}, {f"{Q}lora_A.weight": np.zeros((7, 64), np.float32)}, "the rank 8"),
        ({}, {f"{Q}lora_B.weight": np.zeros((60, 8), np.float32)}, "the model needs (64, 64)"),
        ({}, {f"{Q}lora_B.weight": np.full((64, 8), np.nan, np.float32)}, "NaN"),
        ({}, {f"{Q}lora_B.weight": np.zeros((64, 8), np.int32)}, "as I32"),
        ({}, {f"{Q}lora_B.bias": np.zeros(64, np.float32)}, "no use for"),
        (
            {},
            {"base_model.model.model.layers.0.self_attn.r_proj.lora_A.weight": np.zeros((8, 64), np.float32)},
            "has not or Townhall cannot adapt",
        ),
        ({}, {"base_model.model.model.layers.9.self_attn.q_proj.lora_A.weight": np.zeros((8, 64), np.float32)}, "layers.9"),
        ({}, {"base_model.model.lm_head.weight": np.zeros((352, 64), np.float32)}, "which nothing reads"),
        ({"target_modules": ["q_proj"]}, {}, "target_modules of its adapter_config.json leave out"),
        ({"target_modules": ["nothing"]}, {}, "leave out"),
        ({"target_modules": "(?!x).*"}, {}, "list the modules by name"),
        ({"r": 4}, {}, "the rank 4"),
        ({"r": 0}, {}, "a whole number"),
        ({"r": True}, {}, "a whole number"),
        ({"lora_alpha": "8"}, {}, "no number"),
        ({"alpha_pattern": {"q_proj": 10**400}}, {}, "no number"),
        ({"use_rslora": "yes"}, {}, "neither true nor false"),
        ({"peft_type": "IA3"}, {}, "'IA3'"),
        ({"task_type": "SEQ_CLS"}, {}, "'SEQ_CLS'"),
        ({"alora_invocation_tokens": [1]}, {}, "alora_invocation_tokens"),
        ({"layer_replication": [[0, 1]]}, {}, "layer_replication"),
        ({"trainable_token_indices": [3]}, {}, "trainable_token_indices"),
        ({"lora_bias": True}, {}, "lora_bias"),
        ({"use_qalora": True}, {}, "use_qalora"),
        ({"ensure_weight_tying": True}, {}, "ensure_weight_tying"),
        ({"init_lora_weights": "pissa_niter_4"}, {}, "changed the base"),
        ({"use_dora": True}, {}, "lacks lora_magnitude_vector"),
    ],
)
def test_faults_are_named(folders: Path, tmp_path: Path, config: dict[str, Any], tensors: dict[str, Any], words: str) -> None:
    with pytest.raises(AdapterError, match=".+; .+") as caught:
        spoiled(folders, tmp_path, config, **tensors)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_no_tensors_at_all_are_named(folders: Path, tmp_path: Path) -> None:
    folder = write_adapter(STORED["all"], tmp_path / "empty")
    save_file({}, folder / "adapter_model.safetensors")
    with pytest.raises(AdapterError, match="no tensors at all"):
        read_peft(folder, base_of("all", folders).config)
    (folder / "adapter_model.safetensors").unlink()
    with pytest.raises(AdapterError, match="no adapter_model"):
        read_peft(folder, base_of("all", folders).config)
    (folder / "adapter_config.json").write_text("[]")
    with pytest.raises(CheckpointError, match="no JSON object"):
        read_peft(folder, base_of("all", folders).config)


def test_other_spellings_of_names_are_read(folders: Path, tmp_path: Path) -> None:
    """Without one `model.` (peft issue 1579), and with the adapter's name as in a state_dict."""
    adapter, config = adapter_of("all", folders), base_of("all", folders).config
    for before, after in (("base_model.model.model.", "base_model.model."), (".weight", ".default.weight")):
        folder = write_adapter(STORED["all"], tmp_path / after)
        path = folder / "adapter_model.safetensors"
        save_file({key.replace(before, after): value for key, value in load_file(path).items()}, path)
        assert read_peft(folder, config).digest == adapter.digest


def test_a_resized_vocabulary_is_refused(folders: Path, tmp_path: Path) -> None:
    folder = write_adapter(STORED["saved"], tmp_path / "resized")
    path = folder / "adapter_model.safetensors"
    save_file(load_file(path) | {"base_model.model.lm_head.weight": np.zeros((353, 64), np.float32)}, path)
    with pytest.raises(AdapterError, match="its vocabulary was resized"):
        read_peft(folder, base_of("saved", folders).config)


def test_two_adapters_that_replace_one_tensor_are_refused(folders: Path) -> None:
    base, saved = base_of("saved", folders), adapter_of("saved", folders)
    with pytest.raises(AdapterError, match="both replace"):
        MergedCheckpoint(base, [(saved, 1.0), (saved, 1.0)])
    with pytest.raises(AdapterError, match="0 or 1"):
        MergedCheckpoint(base, [(saved, 0.5)])
    assert MergedCheckpoint(base, [(saved, 0.0)]).matrix("output.weight").data is not None
