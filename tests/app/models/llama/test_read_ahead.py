"""Reading ahead: in the file's order, so far and no further, whatever is taken first."""

import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from app.models.llama import weight_cache
from app.models.llama.checkpoint import open_checkpoint
from app.models.llama.checkpoint.gguf_checkpoint import GGUFCheckpoint
from app.models.llama.weight_cache import ReadAhead
from tests.reference.tiny import make_tiny_gguf


class Watched(GGUFCheckpoint):
    """Knows what was read by a thread other than the test's."""

    def prefetch(self, name: str) -> None:
        super().prefetch(name)
        if threading.current_thread() is not threading.main_thread():
            self.__dict__.setdefault("ahead", []).append(name)


@pytest.fixture
def checkpoint(tmp_path: Path) -> Watched:
    found = open_checkpoint(make_tiny_gguf(tmp_path / "tiny.gguf"))
    assert isinstance(found, GGUFCheckpoint)
    return Watched(found.parts)


def eventually(condition: Callable[[], bool]) -> bool:
    """Whether it comes true; what comes too much after it has a moment to show itself."""
    until = time.monotonic() + 60
    while not condition() and time.monotonic() < until:
        time.sleep(0.001)
    time.sleep(0.01)
    return condition()


def test_it_reads_the_bytes_that_were_taken_and_so_many_more(checkpoint: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    names = list(checkpoint.tensor_names)
    sizes = [checkpoint.stored(name).nbytes for name in names]
    monkeypatch.setattr(weight_cache, "AHEAD", sum(sizes[:3]))
    ahead = ReadAhead(checkpoint)
    assert eventually(lambda: checkpoint.__dict__.get("ahead", []) == names[:3])
    ahead.take(names[3])  # out of its turn; its bytes count all the same
    assert eventually(lambda: len(checkpoint.__dict__["ahead"]) > 3)
    for name in names:
        ahead.take(name)
    assert eventually(lambda: checkpoint.__dict__["ahead"] == names)


def test_it_ends_when_it_is_closed_or_forgotten(checkpoint: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weight_cache, "AHEAD", 1)
    before = threading.active_count()
    ahead = ReadAhead(checkpoint)
    assert eventually(lambda: len(checkpoint.__dict__.get("ahead", [])) == 1)
    ahead.close()
    assert eventually(lambda: threading.active_count() == before)
    monkeypatch.setattr(weight_cache, "PATIENCE", 0.01)
    ReadAhead(checkpoint)
    assert eventually(lambda: threading.active_count() == before)
