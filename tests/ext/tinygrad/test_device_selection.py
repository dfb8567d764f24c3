"""--device: tinygrad's names as they are, other words by what the drivers say."""

import os

import pytest

from ext.tinygrad import device_selection
from ext.tinygrad.backend import Backend
from ext.tinygrad.device_selection import select
from ext.tinygrad.toolchain import BackendError

FOUND = [
    ("METAL", "it needs macOS"),
    ("CUDA", "no NVIDIA driver is loaded"),
    ("CL", Backend("CL", "Vendor 1.2", "Big Card", "gpu", "")),
    ("CL:1", Backend("CL:1", "PoCL 3.0", "pthread-Processor X", "cpu", "")),
    ("CPU", Backend("CPU", "tinygrad CPU, clang 23", "Processor X", "cpu", "")),
]


@pytest.fixture(autouse=True)
def _found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device_selection, "list_devices", lambda: FOUND)
    monkeypatch.setenv("GPU", "1")
    monkeypatch.setenv("DEV", "")


@pytest.mark.parametrize(
    "words, device",
    [("CL:1", "CL:1"), ("cpu", "CPU"), ("CUDA", "CUDA"), ("big card", "CL"), ("pocl", "CL:1"), ("Processor X", "CL:1"), ("clang", "CPU")],
)
def test_a_device_is_known_by_tinygrads_name_or_by_a_part_of_its_own(words: str, device: str) -> None:
    select(words)
    assert os.environ["DEV"] == device and "GPU" not in os.environ


def test_what_fits_nothing_is_refused_with_what_there_is() -> None:
    with pytest.raises(BackendError, match=r"--device H300 fits no device here; there is CL: Big Card, Vendor 1.2; CL:1: pthread"):
        select("H300")
    assert os.environ["GPU"] == "1"


def test_no_words_leave_the_choice_to_the_environment() -> None:
    select(None)
    assert os.environ["GPU"] == "1" and os.environ["DEV"] == ""
