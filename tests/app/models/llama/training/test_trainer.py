"""The loop: one seed, one adapter; stopped and resumed to the bit; what cannot be trained is refused in a sentence."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from app.models.llama.llama import Llama
from app.models.llama.lora.peft_folder import read_peft, write_peft
from app.models.llama.training import training_state
from app.models.llama.training.adamw import AdamW, learning_rate
from app.models.llama.training.errors import TrainingError
from app.models.llama.training.samples import Sample, bucket, epochs, pack, row_of, steps_of_epoch
from app.models.llama.training.trainer import Trainer, TrainingSettings
from tests.reference.tiny import make_tiny_gguf

SETTINGS = TrainingSettings(rank=4, alpha=8, lr=1e-2, steps=6, batch=2, max_length=64, warmup=2)


def trained(tiny: Llama, samples: Sequence[Sample], settings: TrainingSettings, **options: bool) -> tuple[list[np.ndarray], list[float]]:
    trainer = Trainer(tiny, samples, settings, **options)
    losses = [report.loss for report in trainer.run()]
    return AdamW.values(trainer.adapters.params), losses


def same(one: list[np.ndarray], other: list[np.ndarray]) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("dropout", [pytest.param(0.0, marks=pytest.mark.slow), 0.2])
def test_resumed_is_what_went_on_to_the_bit(tiny: Llama, samples: list[Sample], tmp_path: Path, dropout: float) -> None:
    settings = dataclasses.replace(SETTINGS, dropout=dropout)
    whole, losses = trained(tiny, samples, settings)
    first = Trainer(tiny, samples, settings)
    stopped = [report.loss for _, report in zip(range(3), first.run(), strict=False)]
    first.save(tmp_path)
    state = training_state.newest(tmp_path)
    assert state is not None and state.step == 3
    second = Trainer(tiny, samples, settings)
    second.resume(state)
    assert stopped + [report.loss for report in second.run()] == losses
    assert same(AdamW.values(second.adapters.params), whole)
    assert [entry["step"] for entry in second.history] == [1, 2, 3, 4, 5, 6]


def test_a_seed_decides(tiny: Llama, samples: list[Sample]) -> None:
    one, losses = trained(tiny, samples, SETTINGS)
    again, _ = trained(tiny, samples, SETTINGS)
    other, _ = trained(tiny, samples, dataclasses.replace(SETTINGS, seed=1))
    assert same(one, again) and not same(one, other)
    assert losses[-1] < losses[0]


@pytest.mark.slow
def test_blocks_that_are_run_twice_give_the_same_numbers(tiny: Llama, samples: list[Sample]) -> None:
    settings = dataclasses.replace(SETTINGS, steps=2, dropout=0.1)
    assert same(trained(tiny, samples, settings, recompute=False)[0], trained(tiny, samples, settings, recompute=True)[0])


def test_packed_samples_do_not_see_each_other(tiny: Llama, samples: list[Sample]) -> None:
    trainer = Trainer(tiny, samples, SETTINGS)
    a, b = samples[0], samples[1]
    together = trainer._pass_for(row_of([a, b])).losses(row_of([a, b]))
    apart = [trainer._pass_for(row_of([one])).losses(row_of([one])) for one in (a, b)]
    np.testing.assert_allclose(together, np.concatenate(apart), atol=1e-5)


def test_losses_are_those_of_the_engine(samples: list[Sample], tmp_path: Path) -> None:
    """B begins at zero: the loss is the base's own, which the engine's logits give."""
    exact = Llama.load(make_tiny_gguf(tmp_path / "tiny.gguf"), max_context=128, device="CPU")  # floats throughout
    sample = max(samples, key=lambda sample: len(sample.ids))
    logits = exact.logits(list(sample.ids)).astype(np.float64)
    at, peak = np.flatnonzero(sample.targets >= 0), logits.max(-1)
    expected = (np.log(np.exp(logits - peak[:, None]).sum(-1)) + peak)[at] - logits[at, sample.targets[at]]
    trainer = Trainer(exact, samples, SETTINGS)
    np.testing.assert_allclose(trainer._pass_for(row_of([sample])).losses(row_of([sample])), expected, atol=1e-4)


@pytest.mark.parametrize("targets, modules", [("attention", 4), ("all", 7), ("q_proj, v_proj", 2)])
def test_only_targets_are_trained(tiny: Llama, samples: list[Sample], targets: str, modules: int) -> None:
    trainer = Trainer(tiny, samples, dataclasses.replace(SETTINGS, targets=targets, steps=2))
    list(trainer.run())
    changes = trainer.adapter().matrices
    assert len(changes) == 2 * modules
    assert all(np.abs(change.b).max() > 0 for change in changes.values())


def test_a_training_begins_with_an_adapter(tiny: Llama, samples: list[Sample], tmp_path: Path) -> None:
    first = Trainer(tiny, samples, SETTINGS)
    list(first.run())
    adapter = read_peft(write_peft(first.adapter(), tmp_path / "first", tiny.config), tiny.config)
    second = Trainer(tiny, samples, dataclasses.replace(SETTINGS, alpha=4.0, steps=2))
    second.begin_with(adapter)
    assert second.evaluate(samples) == pytest.approx(loss := first.evaluate(samples), abs=1e-6)
    assert loss < Trainer(tiny, samples, SETTINGS).evaluate(samples)
    second.save(tmp_path)
    state = training_state.newest(tmp_path)
    assert state is not None
    with pytest.raises(TrainingError, match="made with lora"):  # the same flags, but not what it began with
        Trainer(tiny, samples, dataclasses.replace(SETTINGS, alpha=4.0, steps=2)).resume(state)
    for change, said in (({"rank": 2}, "pass --rank 4"), ({"targets": "attention"}, "differ in layers.0.feed_forward.w1")):
        with pytest.raises(TrainingError, match=said):
            Trainer(tiny, samples, dataclasses.replace(SETTINGS, **change)).begin_with(adapter)


def test_an_interrupted_step_leaves_no_trace(tiny: Llama, samples: list[Sample]) -> None:
    trainer, rows = Trainer(tiny, samples, SETTINGS), 0

    def stop() -> bool:
        nonlocal rows
        rows += 1
        return rows == 4  # in the middle of the second step

    assert [report.step for report in trainer.run(stop=stop)] == [1]
    assert all(not values.any() for values in AdamW.values(trainer.adapters.gradients))


def test_held_out_loss_is_reported_and_changes_nothing(tiny: Llama, samples: list[Sample]) -> None:
    plain, _ = trained(tiny, samples[:16], SETTINGS)
    trainer = Trainer(tiny, samples[:16], SETTINGS, held_out=samples[16:])
    reports = list(trainer.run(eval_every=4))
    assert [report.step for report in reports if report.held_out is not None] == [4, 6]
    assert same(plain, AdamW.values(trainer.adapters.params))


@pytest.mark.parametrize(
    "change, said",
    [
        ({"rank": 0}, "--rank 0"),
        ({"lr": float("nan")}, "--lr"),
        ({"dropout": 1.0}, "--dropout"),
        ({"schedule": "none"}, "--schedule"),
        ({"targets": "head"}, "--targets"),
        ({"max_length": 32}, "--max-length 32"),
        ({"max_length": 4000}, "exceeds the 128 tokens"),
        ({"batch": 0}, "--batch"),
    ],
)
def test_settings_that_make_no_sense_are_refused(tiny: Llama, samples: list[Sample], change: dict, said: str) -> None:
    with pytest.raises(TrainingError, match=said):
        Trainer(tiny, samples, dataclasses.replace(SETTINGS, **change))


def test_samples_without_a_target_are_refused(tiny: Llama) -> None:
    with pytest.raises(TrainingError, match="no reply to learn"):
        Trainer(tiny, [Sample((3, 4, 5), (True, False, False))], SETTINGS)
    with pytest.raises(TrainingError, match="holds no conversation"):
        Trainer(tiny, [], SETTINGS)


def test_a_loss_that_is_no_number_ends_it(tiny: Llama, samples: list[Sample]) -> None:
    trainer = Trainer(tiny, samples, SETTINGS)
    trainer.adapters.params[0].assign(float("nan")).realize()
    AdamW.load(trainer.adapters.params[:1], np.full((1, trainer.layout.size), np.nan, np.float32))
    with pytest.raises(TrainingError, match="is no number"):
        next(trainer.run())


def test_another_training_is_not_resumed(tiny: Llama, samples: list[Sample], tmp_path: Path) -> None:
    trainer = Trainer(tiny, samples, SETTINGS)
    trainer.save(tmp_path)
    state = training_state.newest(tmp_path)
    assert state is not None
    with pytest.raises(TrainingError, match="lr 0.01, this training has 0.02"):
        Trainer(tiny, samples, dataclasses.replace(SETTINGS, lr=0.02)).resume(state)
    with pytest.raises(TrainingError, match="made with data"):
        Trainer(tiny, samples[1:], SETTINGS).resume(state)


def test_rows_are_packed_within_the_length_and_lose_nothing(samples: list[Sample]) -> None:
    rows = pack(samples, 64)
    assert sorted(id(s) for row in rows for s in row) == sorted(map(id, samples))
    assert all(sum(len(s.ids) for s in row) <= 64 for row in rows) and len(rows) < len(samples) * 0.7
    steps = epochs(samples, 64, 2, True, 3)
    first = [next(steps) for _ in range(steps_of_epoch(samples, 64, 2, True, 3))]
    assert sum(len(row.ids) for rows in first for row in rows) == sum(len(s.ids) for s in samples)


def test_buckets() -> None:
    assert [bucket(n, 300) for n in (1, 64, 65, 200, 257)] == [64, 64, 128, 256, 320]


def test_learning_rates() -> None:
    assert [learning_rate(1.0, step, 10, 2, "constant") for step in range(4)] == [0.5, 1.0, 1.0, 1.0]
    assert [learning_rate(1.0, step, 4, 0, "linear") for step in range(4)] == [1.0, 0.75, 0.5, 0.25]
    assert learning_rate(1.0, 2, 4, 0, "cosine") == pytest.approx(0.5)
