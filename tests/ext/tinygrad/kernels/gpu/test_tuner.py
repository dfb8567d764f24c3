"""The tuner: what it measures decides, what it found is kept, and any choice computes the same."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from ext.tinygrad import cache_files
from ext.tinygrad.buffers import upload
from ext.tinygrad.kernels.gpu import tuner
from ext.tinygrad.kernels.gpu.gpu_kernels import GPUKernels
from ext.tinygrad.kernels.gpu.tuner import Tuner, candidates
from ext.tinygrad.kernels.gpu.tuning import DecodeShape, Tuning
from ext.tinygrad.kernels.protocol import OneTokenProduct, Tunable
from tests.reference import oracles

TUNING = Tuning("gpu", units=16, most_items=256, local_bytes=32 << 10)
DEFAULT = DecodeShape(1, 4, 4)
OTHERS = [DecodeShape(1, 2, 4), DecodeShape(2, 4, 4), DecodeShape(1, 8, 2)]


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache_files, "folder", lambda name: tmp_path / name)
    monkeypatch.delenv("TUNE", raising=False)


def timed(monkeypatch: pytest.MonkeyPatch, seconds: dict[DecodeShape, float]) -> list[DecodeShape]:
    """Let shapes take these times; -> those that were measured, as they come."""
    measured: list[DecodeShape] = []

    def take(device: str, launches: object, clock: object = None) -> float:
        measured.append(launches())  # type: ignore[operator]
        if (time := seconds[measured[-1]]) < 0:
            raise RuntimeError("too many resources requested for launch")
        return time

    monkeypatch.setattr(tuner, "seconds", take)
    return measured


def new_tuner(ticks: Iterator[float] | None = None) -> Tuner:
    return Tuner("CL", TUNING) if ticks is None else Tuner("CL", TUNING, lambda: next(ticks))


def choose(one: Tuner, until: float = 1e9) -> DecodeShape:
    return one.choose("qkv", DEFAULT, OTHERS, lambda shape: shape, until)  # type: ignore[arg-type, return-value]


def test_the_fastest_shape_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    timed(monkeypatch, {DEFAULT: 3.0, OTHERS[0]: 4.0, OTHERS[1]: 1.0, OTHERS[2]: 2.0})
    assert choose(new_tuner()) == OTHERS[1]


def test_a_shape_that_the_device_refuses_is_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    timed(monkeypatch, {DEFAULT: 3.0, OTHERS[0]: -1.0, OTHERS[1]: -1.0, OTHERS[2]: 4.0})
    assert choose(new_tuner()) == DEFAULT


def test_what_was_found_is_kept_for_the_next_start(monkeypatch: pytest.MonkeyPatch) -> None:
    measured = timed(monkeypatch, {DEFAULT: 3.0, OTHERS[0]: 4.0, OTHERS[1]: 1.0, OTHERS[2]: 2.0})
    first = new_tuner()
    choose(first)
    first.save()
    before = len(measured)
    assert choose(new_tuner()) == OTHERS[1] and len(measured) == before


def test_no_measurement_begins_after_the_time_is_up_and_the_rest_is_tried_later(monkeypatch: pytest.MonkeyPatch) -> None:
    measured = timed(monkeypatch, {DEFAULT: 3.0, OTHERS[0]: 2.5, OTHERS[1]: 1.0, OTHERS[2]: 2.0})
    first = new_tuner(iter([0.0, 1.0, 2.0]))
    assert choose(first, until=2.0) == OTHERS[0] and measured == [DEFAULT, OTHERS[0]]
    first.save()
    assert choose(new_tuner()) == OTHERS[1]


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"shapes": {"qkv": [0, 1, 1]}, "finished": ["qkv"]}', '{"shapes": 3, "finished": []}'])
def test_a_damaged_file_is_measured_anew(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    timed(monkeypatch, {DEFAULT: 3.0, OTHERS[0]: 4.0, OTHERS[1]: 1.0, OTHERS[2]: 2.0})
    path = new_tuner().path
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    assert choose(new_tuner()) == OTHERS[1]


def test_candidates_leave_no_warp_without_columns_and_fit_the_device() -> None:
    for default in (DecodeShape(1, 8, 4), DecodeShape(4, 2, 4), DecodeShape(2, 1, 1)):
        shapes = candidates(default, most_warps=8, most_items=256)
        assert default not in shapes and len(set(shapes)) == len(shapes) > 3
        for shape in shapes:
            assert shape.slots % default.slots == 0 and shape.splits * shape.loads <= 8 and 64 <= shape.items <= 256


def products(kernels: GPUKernels, rng: np.random.Generator) -> list[OneTokenProduct]:
    def weights(*shapes: tuple[int, int]) -> tuple:
        return tuple(kernels.pack(oracles.random_matrix(rng, "Q4_0", *shape), "CL") for shape in shapes)

    return [
        OneTokenProduct("linear", False, (weights((64, 256)), weights((64, 256)))),
        OneTokenProduct("qkv", True, (weights((64, 256), (32, 256), (32, 256)),) * 2, head_dim=32),
        OneTokenProduct("gated", True, (weights((96, 256), (96, 256)),)),
        OneTokenProduct("linear", True, (weights((100, 256)),)),
    ]


@pytest.mark.slow
def test_a_tuned_set_computes_what_it_computed_before(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tuner, "REPLAYS", 1)
    monkeypatch.setattr("ext.tinygrad.kernels.gpu.product_tuning.candidates", lambda *rest: candidates(*rest)[-2:])  # far from the default
    monkeypatch.setattr(Tuner, "seconds", lambda self, run, shape, real=Tuner.seconds: -real(self, run, shape))  # the slowest wins
    rng, kernels = np.random.default_rng(0), GPUKernels(TUNING)
    assert isinstance(kernels, Tunable)
    made = products(kernels, rng)
    x, norm = (upload(rng.standard_normal((1, 256)).astype(np.float32), "CL") for _ in range(2))

    def results() -> list[np.ndarray]:
        (w,), (gate, up), (head,) = made[0].weights[0], made[2].weights[0], made[3].weights[0]
        residual = upload(np.ones((1, 64), np.float32), "CL")
        gated, logits = kernels.norm_gated(x, norm, 1e-5, gate, up), kernels.norm_linear(x, norm, 1e-5, head)
        values = [t.numpy() for t in (kernels.linear_residual(x, w, residual), gated, logits)]
        return [values[0][0], values[1][: 4 * 96].view(np.float32), values[2][0]]

    before = results()
    kernels.tune(made)
    assert len(json.loads(Tuner("CL", TUNING).path.read_text())["finished"]) == 4
    for ours, expected in zip(results(), before, strict=True):
        np.testing.assert_allclose(ours, expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())


def test_tune_0_measures_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNE", "0")
    measured = timed(monkeypatch, {})
    kernels = GPUKernels(TUNING)
    kernels.tune(products(kernels, np.random.default_rng(0)))
    assert not measured
