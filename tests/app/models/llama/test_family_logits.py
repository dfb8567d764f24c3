"""Tiny random models of every family against transformers' logits (python -m bench.families)."""

import json
from pathlib import Path

import numpy as np
import pytest

from app.models.llama import Llama
from ext.tinygrad.kernels.cpu.cpu_kernels import CPUKernels
from ext.tinygrad.kernels.reference import ReferenceKernels
from tests.reference.families import CONTEXT, FAMILIES, POSITIONS, ids_of, write

pytestmark = pytest.mark.slow

DATA = Path(__file__).resolve().parents[3] / "data"
SHAPES = {name: {t: tuple(s) for t, s in shapes.items()} for name, shapes in json.loads((DATA / "families.json").read_text()).items()}
EXPECTED = np.load(DATA / "families.npz")


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("kernels", [ReferenceKernels, CPUKernels])
def test_logits_are_those_of_transformers(name: str, kernels: type, tmp_path: Path) -> None:
    llama = Llama.load(write(name, SHAPES[name], tmp_path / name), CONTEXT, device="CPU", kernels=kernels())
    expected = EXPECTED[name]
    np.testing.assert_allclose(llama.logits(ids_of())[list(POSITIONS)], expected, rtol=0, atol=1e-4 * np.abs(expected).max())
