"""Checkpoint files: whole, or as if they were not there."""

from pathlib import Path

import numpy as np
import pytest

from app.models.llama.training import training_state
from app.models.llama.training.errors import TrainingError
from app.models.llama.training.training_state import TrainingState


def state(step: int) -> TrainingState:
    return TrainingState(step, {"lr": 0.1}, [{"step": float(step), "loss": 2.5}], {"params": np.full((2, 3), step, np.float32)})


def test_the_newest_is_read_and_two_are_kept(tmp_path: Path) -> None:
    assert training_state.newest(tmp_path) is None
    for step in (1, 2, 10):
        training_state.save(state(step), tmp_path)
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == ["step-00000002.state", "step-00000010.state"]
    found = training_state.newest(tmp_path)
    assert found is not None and found.step == 10 and found.history == [{"step": 10.0, "loss": 2.5}]
    np.testing.assert_array_equal(found.arrays["params"], np.full((2, 3), 10, np.float32))


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty", "header"])
def test_a_damaged_one_is_passed_over(tmp_path: Path, damage: str) -> None:
    training_state.save(state(1), tmp_path)
    path = training_state.save(state(2), tmp_path)
    data = bytearray(path.read_bytes())
    data[-40] ^= damage == "flipped"
    path.write_bytes({"cut": data[:-9], "flipped": data, "empty": b"", "header": b"x" + data}[damage])
    found = training_state.newest(tmp_path)
    assert found is not None and found.step == 1


def test_where_all_are_damaged_it_says_so(tmp_path: Path) -> None:
    training_state.save(state(1), tmp_path).write_bytes(b"")
    with pytest.raises(TrainingError, match="is damaged"):
        training_state.newest(tmp_path)


def test_what_a_killed_writer_left_is_tidied_up(tmp_path: Path) -> None:
    training_state.save(state(1), tmp_path)
    left = tmp_path / "checkpoints" / "step-00000002.state.part"
    left.write_bytes(b"half")
    found = training_state.newest(tmp_path)
    assert found is not None and found.step == 1
    training_state.save(state(3), tmp_path)
    assert not left.exists()
