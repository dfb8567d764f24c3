"""What `make test` leaves out of a sweep is covered by what it runs."""

from itertools import combinations, product
from pathlib import Path

import pytest

from tests.reference.sweeps import cover

pytest_plugins = ["pytester"]

CONFTEST = """
import pytest
from tests.reference.sweeps import mark_exhaustive


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    mark_exhaustive(items)
"""
SWEEP = """
import pytest


@pytest.fixture(params=["CPU", "CL"])
def device(request):
    return request.param


@pytest.mark.sweep{strength}
@pytest.mark.parametrize("T", [1, 32])
@pytest.mark.parametrize("type, rows", [("F32", 1), ("F32", 7), ("Q4_1", 1)])
def test_it(device, type, rows, T):
    pass


@pytest.mark.parametrize("T", [1, 32])
@pytest.mark.parametrize("type", ["F32", "F16"])
def test_no_sweep(type, T):
    pass
"""


def collected(pytester: pytest.Pytester, strength: str) -> list[tuple[str, ...]]:
    """The values of each case of `test_it`."""
    pytester.makeconftest(CONFTEST)
    pytester.makeini("[pytest]\nmarkers = sweep\n exhaustive")
    pytester.syspathinsert(Path(__file__).parents[2])
    pytester.makepyfile(SWEEP.replace("{strength}", strength))
    items, _ = pytester.inline_genitems("--strict-markers")
    names = [item.name for item in items if item.get_closest_marker("exhaustive") is None]
    assert len([name for name in names if name.startswith("test_no_sweep")]) == 4
    cases = [name.removeprefix("test_it[").removesuffix("]").split("-") for name in names if name.startswith("test_it")]
    return [(case[0], "-".join(case[1:3]), case[3]) for case in cases]


AXES = [("CPU", "CL"), ("F32-1", "F32-7", "Q4_1-1"), ("1", "32")]


@pytest.fixture(autouse=True)
def _no_plugins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")


@pytest.mark.parametrize("strength, values, most", [("", 1, 3), ("(2)", 2, 7), ("(3)", 3, 12)])
def test_every_combination_of_values_stays(pytester: pytest.Pytester, strength: str, values: int, most: int) -> None:
    cases = collected(pytester, strength)
    assert len(cases) == len(set(cases)) <= most
    for axes in combinations(range(3), values):
        wanted = set(product(*(AXES[axis] for axis in axes)))
        assert {tuple(case[axis] for axis in axes) for case in cases} == wanted


def test_a_short_list_takes_turns_beside_a_long_one() -> None:
    cases = [frozenset({("long", a), ("short", b)}) for a in range(12) for b in range(3)]
    kept = [cases[index] for index in cover(cases)]
    assert len(kept) == 12 and all(sum(("short", b) in case for case in kept) == 4 for b in range(3))


def test_a_costly_case_is_taken_where_no_other_adds_as_much() -> None:
    cases = [frozenset({("long", a), ("short", b)}) for a in range(12) for b in range(3)]
    costly = {index for index, case in enumerate(cases) if ("short", 0) in case}
    kept = cover(cases, costly)
    assert len(kept) == 12 and len(kept & costly) == 1
