"""Nothing of the user's own is touched or read: what a session stores, and its settings, lie in folders of the test's."""

from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def user_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where personas are stored; the compiler's own cache stays where it is. Settings and logs have folders beside it."""
    folder = tmp_path / "user_cache"
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "user_config"))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "user_data"))
    return folder
