"""Families other than LLaMA: losses of the engine, and gradients by differences; what has no gradients is refused."""

from pathlib import Path

import numpy as np
import pytest

from app.models.llama.llama import Llama
from app.models.llama.training.adamw import AdamW
from app.models.llama.training.adapter_layout import AdapterLayout, modules_of
from app.models.llama.training.errors import TrainingError
from app.models.llama.training.samples import Sample, row_of
from app.models.llama.training.training_pass import Adapters, Row, TrainingPass, check_trainable
from tests.reference.families import CONTEXT, ids_of, write_family

pytestmark = pytest.mark.slow


def flat_losses(adapters: Adapters, layers: list[np.ndarray], a_pass: TrainingPass, row: Row) -> float:
    """The sum of the row's losses with these numbers."""
    AdamW.load(adapters.params, np.stack(layers))
    return float(a_pass.losses(row).sum())


@pytest.mark.parametrize("family", ["llama-biased", "qwen2", "qwen3", "gemma", "gemma3", "granite", "olmo2", "phi3", "smollm3"])
def test_losses_are_the_engines_and_gradients_their_differences(family: str, tmp_path: Path) -> None:
    ids = ids_of(20 if family == "gemma3" else 30)  # within its window
    row = row_of([Sample(tuple(ids), tuple(i % 3 > 0 for i in range(len(ids))))])
    llama = Llama.load(write_family(family, tmp_path), CONTEXT, device="CPU")
    layout = AdapterLayout(llama.config, modules_of("all"), 4, 8.0)
    layers = layout.initial(0)
    adapters = Adapters.upload(layout, layers, "CPU")
    a_pass = TrainingPass(llama.model, adapters, 64, "CPU")
    logits = llama.logits(ids).astype(np.float64)
    at = np.flatnonzero(row.targets >= 0)
    expected = (np.log(np.exp(logits - logits.max(-1, keepdims=True)).sum(-1)) + logits.max(-1))[at] - logits[at, row.targets[at]]
    np.testing.assert_allclose(a_pass.losses(row), expected, atol=2e-4)  # B is zero: the base's own

    random = np.random.default_rng(1)
    layers = [values + 0.05 * random.standard_normal(values.shape).astype(np.float32) for values in layers]
    AdamW.load(adapters.params, np.stack(layers))
    a_pass.gradients(row, 1.0)
    found = AdamW.values(adapters.gradients)
    for layer, name in ((0, "wq"), (0, "wk"), (1, "wv"), (0, "wo"), (1, "w1"), (0, "w2")):
        place = layout.places[name]
        for start, size in ((place.down, 4 * layout.shapes[name][1]), (place.up, 4 * layout.shapes[name][0])):
            entry = start + int(np.abs(found[layer][start : start + size]).argmax())
            # far enough that the losses differ by more than their rounding
            far, sides = float(np.clip(1e-3 / abs(found[layer][entry]), 0.01, 0.2)), []
            for step in (far, -far):
                moved = [values.copy() for values in layers]
                moved[layer][entry] += step
                sides.append(flat_losses(adapters, moved, a_pass, row))
            difference = (sides[0] - sides[1]) / (2 * far)
            assert found[layer][entry] == pytest.approx(difference, rel=0.02), f"{name} at {entry}"


@pytest.mark.parametrize(
    "family, named",
    [("gemma2", "softcap"), ("qwen3-moe", "experts"), ("stablelm", "layer_norm, norm_bias"), ("cohere", "layer_norm, parallel")],
)
def test_what_has_no_gradients_is_refused_by_name(family: str, named: str, tmp_path: Path) -> None:
    llama = Llama.load(write_family(family, tmp_path), CONTEXT, device="CPU")
    with pytest.raises(TrainingError, match="cannot be trained yet") as refused:
        check_trainable(llama.model)
    assert all(trait in str(refused.value) for trait in named.split(", "))
