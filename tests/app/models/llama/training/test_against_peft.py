"""Gradients and losses beside peft's and torch's, which bench/lora_training.py stored."""

from pathlib import Path

import numpy as np
import pytest

from app.models.llama.llama import Llama
from app.models.llama.training.adamw import AdamW, learning_rate
from app.models.llama.training.adapter_layout import AdapterLayout, modules_of
from app.models.llama.training.samples import Sample, row_of
from app.models.llama.training.training_pass import Adapters, TrainingPass
from ext.tinygrad.kernels.cpu.cpu_kernels import CPUKernels
from ext.tinygrad.kernels.reference import ReferenceKernels
from tests.reference import lora_reference as ref
from tests.reference.tiny import make_tiny_gguf

STORED = Path(__file__).resolve().parents[4] / "data" / "lora_training.npz"


@pytest.fixture(scope="module")
def stored() -> dict[str, np.ndarray]:
    with np.load(STORED) as file:
        return dict(file)


@pytest.fixture(params=[CPUKernels, pytest.param(ReferenceKernels, marks=pytest.mark.slow)], ids=["cpu", "plain"])
def llama(request: pytest.FixtureRequest, tmp_path: Path) -> Llama:
    if request.param is CPUKernels and (reason := CPUKernels.available()):
        pytest.skip(reason)
    path = make_tiny_gguf(tmp_path / "tiny.gguf", weights=ref.weights(), only=True)
    return Llama.load(path, max_context=64, device="CPU", kernels=request.param())


def started(llama: Llama) -> Adapters:
    layout = AdapterLayout(llama.config, modules_of("all"), ref.RANK, ref.ALPHA)
    return Adapters.upload(layout, layout.from_arrays(ref.adapters()), "CPU")


ROW = row_of([Sample(tuple(ids.tolist()), tuple(learnt.tolist())) for ids, learnt in ref.samples()])


def test_gradients_of_one_step_are_pefts(llama: Llama, stored: dict[str, np.ndarray]) -> None:
    adapters = started(llama)
    losses = TrainingPass(llama.model, adapters, 64, "CPU").gradients(ROW, 1 / ROW.learnt)
    assert losses.mean() == pytest.approx(stored["losses"][0], rel=1e-5)
    found = adapters.layout.to_adapter(AdamW.values(adapters.gradients)).matrices
    assert len(found) == len(ref.adapters())
    for name, change in found.items():
        for half, values in (("a", change.a), ("b", change.b)):
            expected = stored[f"{name}.{half}"]
            assert np.abs(expected).max() > 1e-4, "a gradient of nothing proves nothing"
            np.testing.assert_allclose(values, expected, atol=1e-4 * np.abs(expected).max(), rtol=0, err_msg=f"{name} {half}")


def test_twenty_steps_of_adamw_give_the_same_losses(llama: Llama, stored: dict[str, np.ndarray]) -> None:
    adapters = started(llama)
    a_pass, optimizer = TrainingPass(llama.model, adapters, 64, "CPU"), AdamW(adapters, "CPU", ref.DECAY)
    losses = []
    for step in range(ref.STEPS):
        losses.append(float(a_pass.gradients(ROW, 1 / ROW.learnt).mean()))
        optimizer.step(learning_rate(ref.RATE, step, ref.STEPS, 0, "cosine"), step + 1, ref.CLIP)
    assert losses[-1] < 0.8 * losses[0]
    np.testing.assert_allclose(losses, stored["losses"], rtol=0.01)
