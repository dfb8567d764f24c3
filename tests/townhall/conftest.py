"""Nothing of the user's own is touched: what a session stores goes to a folder of the test's."""

from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def user_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where personas are stored; the compiler's own cache stays where it is."""
    folder = tmp_path / "user_cache"
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder))
    return folder
