"""tinygrad's insides are where the table of what we rely on says."""

import ast
import re
import tomllib
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace

import pytest

from ext.tinygrad import tinygrad_patches
from ext.tinygrad.tinygrad_patches import INTERNALS, TESTED, Internal, replace, version_warning

ROOT = Path(__file__).resolve().parents[3]
PRIVATE = re.compile(r"_[a-z]\w*")


def test_the_pinned_tinygrad_is_the_one_that_was_read() -> None:
    dependencies = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    assert f"tinygrad=={TESTED}" in dependencies
    assert version_warning() is None


@pytest.mark.parametrize("internal", INTERNALS, ids=lambda internal: internal.name)
def test_each_name_is_there_and_used_where_the_table_says(internal: Internal) -> None:
    module, _, path = internal.name.partition(":")
    found = import_module(module)
    for part in path.split("."):
        if not hasattr(found, part) and part in getattr(found, "__slots__", getattr(found, "__annotations__", ())):
            break
        found = getattr(found, part)
    for file in internal.files:
        assert path.split(".")[-1].removeprefix("__init__") in (ROOT / "ext/tinygrad" / file).read_text()
    assert len(internal.reason) > 10


def test_no_private_name_is_imported_from_tinygrad_beside_the_table() -> None:
    known = {internal.name for internal in INTERNALS}
    for path in [path for package in ("ext", "app", "townhall") for path in (ROOT / package).rglob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "tinygrad":
                for alias in node.names:
                    assert not PRIVATE.match(alias.name) or f"{node.module}:{alias.name}" in known, f"{path}: {alias.name}"


def test_what_is_replaced_is_replaced_once() -> None:
    owner = SimpleNamespace(answer=lambda: 1)

    def more(there):  # type: ignore[no-untyped-def]
        return lambda: there() + 1

    replace(owner, "answer", more)
    replace(owner, "answer", more)
    assert owner.answer() == 2


def test_another_tinygrad_is_named_with_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tinygrad_patches, "installed_version", lambda: "0.15.0")
    warning = version_warning()
    assert warning and "tinygrad 0.15.0" in warning and f"pip install tinygrad=={TESTED}" in warning
    monkeypatch.setattr(tinygrad_patches, "installed_version", lambda: None)
    assert version_warning() is None
