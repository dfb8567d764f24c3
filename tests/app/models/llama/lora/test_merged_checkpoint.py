"""Adapters merged into their base, written as GGUF and loaded: peft's logits (python -m bench.adapters)."""

from pathlib import Path

import numpy as np
import pytest

from app.models.llama import Llama
from app.models.llama.checkpoint import open_checkpoint
from app.models.llama.checkpoint.conversion import convert
from app.models.llama.lora.merged_checkpoint import MergedCheckpoint
from app.models.llama.lora.peft_folder import read_peft
from tests.reference.adapters import CASES, DATA, LENGTH, POSITIONS, stored_cases, write_adapter
from tests.reference.families import CONTEXT, ids_of, write_family

pytestmark = pytest.mark.slow

EXPECTED = np.load(DATA / "adapters.npz")


@pytest.mark.parametrize("name", CASES)
def test_a_merged_model_has_the_logits_of_peft(name: str, tmp_path: Path) -> None:
    base = open_checkpoint(write_family(CASES[name][0], tmp_path / "base"))
    adapter = read_peft(write_adapter(stored_cases()[name], tmp_path / "adapter"), base.config)
    merged = convert(MergedCheckpoint(base, [(adapter, 1.0)]), tmp_path / "merged.gguf", "f32")
    found = Llama.load(merged, CONTEXT).logits(ids_of(LENGTH))[list(POSITIONS)]
    np.testing.assert_allclose(found, EXPECTED[name], rtol=0, atol=1e-4 * np.abs(EXPECTED[name]).max())


def test_without_a_share_it_is_the_base(tmp_path: Path) -> None:
    base = open_checkpoint(write_family("qwen3", tmp_path / "base"))
    adapter = read_peft(write_adapter(stored_cases()["tied-head"], tmp_path / "adapter"), base.config)
    same = MergedCheckpoint(base, [(adapter, 0.0)])
    assert same.config == base.config
    assert MergedCheckpoint(base, [(adapter, 1.0)]).config.tied is False
    for name in base.tensor_names:
        if name.endswith("wk.weight"):
            np.testing.assert_array_equal(same.matrix(name).data, base.matrix(name).data)
