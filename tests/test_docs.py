"""What the documents name exists, and what they show runs."""

import ast
import doctest
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
REFERENCE = re.compile(r"`((?:ext|app|townhall|tests|bench)/[\w./]+?\.py)(?::(\w+))?`")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_files_and_names_that_a_page_refers_to_exist(page: Path) -> None:
    missing = []
    for path, name in REFERENCE.findall(page.read_text()):
        file = ROOT / path
        if not file.is_file():
            missing.append(path)
        elif name:
            defined = {
                node.name
                for node in ast.walk(ast.parse(file.read_text()))
                if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef))
            }
            if name not in defined:
                missing.append(f"{path}:{name}")
    assert not missing


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\((?!https?:|#)([^)#\s]+)", page.read_text())
    assert not [link for link in links if not (page.parent / link).exists()]


def test_the_readme_stays_short() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= 90


def test_the_examples_for_python_run() -> None:
    result = doctest.testfile(str(ROOT / "docs/python.md"), module_relative=False)
    assert result.attempted >= 6 and not result.failed


def test_modules_that_a_docstring_or_comment_refers_to_exist() -> None:
    known = {path.name for path in ROOT.rglob("*.py") if ".venv" not in path.parts}
    missing = []
    for room in ("ext", "app", "townhall", "bench"):
        for path in sorted(ROOT.joinpath(room).rglob("*.[pch]*")):
            if path.suffix in (".py", ".c", ".h"):
                missing += [
                    f"{path.relative_to(ROOT)}: {name}" for name in re.findall(r"\b\w+\.py\b", path.read_text()) if name not in known
                ]
    assert not missing
