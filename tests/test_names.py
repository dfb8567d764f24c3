"""What a stranger reads first: no two things of one name, no import circle, imports one way, none of the names that were given up."""

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FLOORS = ("ext", "app", "townhall")  # imports point to the left
# each package may have its errors; a kernel set, a command and a bench are named as what they are about
SHARED = {"errors", "__init__", "__main__"}
GIVEN_UP = re.compile(
    r"\b(asked|attended|desk|pen|scene|held|settle|shelf|asking|voices|scribe|wording|steering|remembered|starting|canary|twins|"
    r"facade|fitting|memories|replies)\.py\b|\b(Scribe|Desk|Pen|Attended|Shelf|Shield|Twin\w*|Steer\w*|Voices?|Standings?|Scene)\b"
)


@cache
def modules() -> dict[str, Path]:
    files = [path for package in (*FLOORS, "bench") for path in (ROOT / package).rglob("*.py")]
    return {".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path for path in files}


@cache
def tree(name: str) -> ast.Module:
    return ast.parse(modules()[name].read_text())


def runs(node: ast.AST) -> Iterator[ast.AST]:
    """Everything in a module but what only type checkers read, and what runs where the file is a program."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and re.search("TYPE_CHECKING|__main__", ast.unparse(child.test)):
            continue
        yield child
        yield from runs(child)


def words(name: str) -> Iterator[str]:
    """Names and docstrings of a module; strings that it computes with are nobody's name."""
    for node in ast.walk(tree(name)):
        for field in ("id", "attr", "name", "arg"):
            if isinstance(word := getattr(node, field, None), str):
                yield word
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)):
            yield ast.get_docstring(node) or ""


def imported(name: str) -> set[str]:
    found = set()
    for node in runs(tree(name)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {full if (full := f"{node.module}.{alias.name}") in modules() else node.module for alias in node.names}
    return found & modules().keys() - {name}


def test_no_two_modules_have_one_name() -> None:
    places = defaultdict(list)
    for name, path in modules().items():
        if path.stem not in SHARED and not name.startswith("bench."):
            places[path.stem].append(name)
    assert not {stem: names for stem, names in places.items() if len(names) > 1}


def test_no_two_public_classes_have_one_name() -> None:
    places = defaultdict(list)
    for name in modules():
        for node in tree(name).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                places[node.name].append(name)
    assert not {label: names for label, names in places.items() if len(names) > 1}


def test_no_imports_form_a_circle() -> None:
    """However deep in a function they stand."""
    arrows = {name: imported(name) for name in modules()}
    while ends := [name for name, to in arrows.items() if not to & arrows.keys()]:
        for name in ends:
            del arrows[name]
    while starts := arrows.keys() - set().union(*arrows.values()) if arrows else set():
        for name in starts:
            del arrows[name]
    assert not {name: sorted(to & arrows.keys()) for name, to in arrows.items()}


@pytest.mark.parametrize("floor", FLOORS)
def test_imports_point_one_way(floor: str) -> None:
    above = FLOORS[FLOORS.index(floor) + 1 :]
    up = {name: to for name in modules() if name.startswith(floor) for to in imported(name) if to.split(".")[0] in above}
    assert not up


def test_no_name_that_was_given_up_comes_back() -> None:
    texts = {str(path.relative_to(ROOT)): path.read_text() for path in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]}
    texts |= {name: " ".join(words(name)) for name in modules()}
    found = {name: sorted({hit[0] for hit in GIVEN_UP.finditer(text)}) for name, text in texts.items()}
    assert not {name: hits for name, hits in found.items() if hits}


def test_names_of_tests_are_short_enough_to_read() -> None:
    names = re.findall(r"^\s*def (test_\w+)", "\n".join(path.read_text() for path in (ROOT / "tests").rglob("*.py")), re.MULTILINE)
    assert not [name for name in names if len(name) >= 80]


def test_old_turns_of_phrase_stay_rare() -> None:
    """They stood 370 times; what is left are messages and prompts."""
    texts = [path.read_text() for name, path in modules().items() if not name.startswith("bench")]
    assert len(re.findall(r"\b(?:told|nobody|somebody|whoever|anybody)\b", "\n".join(texts), re.IGNORECASE)) <= 24
