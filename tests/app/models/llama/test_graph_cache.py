"""A pass restored from the disk against the pass that was captured."""

from pathlib import Path

import numpy as np
import pytest
from tinygrad import TinyJit

from app.models.llama import Llama, forward
from ext.tinygrad import cache_files
from tests.reference.tiny import make_tiny_gguf

pytestmark = pytest.mark.slow

IDS = [(7 * i + 3) % 250 for i in range(40)]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(cache_files, "folder", lambda name: tmp_path / name)
    monkeypatch.setattr(forward, "WORTH_IT", 0)
    monkeypatch.setenv("WEIGHT_CACHE", "0")
    return tmp_path / "graphs"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    make_tiny_gguf(path := tmp_path / "tiny.gguf", type="Q4_0")
    return path


def answers(model: Path) -> tuple[np.ndarray, list[int]]:
    """Scores of a text and ids that follow it: prefill of both sizes' kind, decode, and the scoring pass."""
    llama = Llama.load(model, max_context=128, device="CPU")
    return llama.logits(IDS).copy(), list(llama.generate(IDS, 6))


@pytest.fixture
def captures(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Grows by one with every TinyJit that is captured."""
    captured: list[int] = []
    call = TinyJit(lambda: None).__class__.__call__

    def counted(self: object, *args: object) -> object:
        captured.append(1)
        return call(self, *args)

    monkeypatch.setattr(TinyJit(lambda: None).__class__, "__call__", counted)
    return captured


@pytest.mark.parametrize("kernels", ["1", "0"])
def test_the_second_start_traces_nothing_and_answers_alike(kernels, model, folder, captures, monkeypatch) -> None:
    monkeypatch.setenv("KERNELS", kernels)
    scores, ids = answers(model)
    assert captures and list(folder.glob("*.graphs"))
    captures.clear()
    again, ids_again = answers(model)
    assert not captures
    np.testing.assert_array_equal(scores, again)
    assert ids == ids_again


def test_damaged_files_are_captured_and_written_anew(model, folder, captures) -> None:
    scores, _ = answers(model)
    for file in folder.iterdir():
        file.write_bytes(file.read_bytes()[:-3])
    captures.clear()
    np.testing.assert_array_equal(scores, answers(model)[0])
    assert captures
    captures.clear()
    answers(model)
    assert not captures


def test_another_window_is_another_graph(model, folder, captures) -> None:
    answers(model)
    captures.clear()
    llama = Llama.load(model, max_context=64, device="CPU")
    list(llama.generate(IDS, 2))
    assert captures


def test_graph_cache_0_leaves_the_disk_alone(model, folder, monkeypatch) -> None:
    monkeypatch.setenv("GRAPH_CACHE", "0")
    answers(model)
    assert not folder.exists()
