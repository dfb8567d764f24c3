"""Which cases of a sweep `make test` runs: enough for every value, or every pair of values; `make test-all` runs the others as well.

`@pytest.mark.sweep` says of a parametrised test that its parameters hardly depend on each other: the cases that add no value of a parameter
which another case has not, are marked `exhaustive`. `@pytest.mark.sweep(2)` keeps every pair of two parameters' values, which is where
most faults of combinations lie (Kuhn, Wallace, Gallo: "Software Fault Interactions and Implications for Software Testing", 2004).
`@pytest.mark.sweep(1, "kernels, T")` keeps, beside each value, every combination of those parameters: ways through the code that only they
lead to. Of cases that add as much, those are kept that are not marked `costly`: PoCL takes 2 to 13 s where the emulated driver takes one.
"""

from collections import Counter, defaultdict
from collections.abc import Collection
from itertools import combinations

import pytest

Value = tuple[tuple[str, ...], tuple[int, ...]]  # names that are parametrised together, and which values they have
Case = frozenset[tuple[Value, ...]]


def mark_exhaustive(items: list[pytest.Item]) -> None:
    """Mark the cases of sweeps that others cover. Which ones depends on the tests collected and on nothing else."""
    sweeps: dict[str, list[pytest.Function]] = defaultdict(list)
    for item in items:
        if isinstance(item, pytest.Function) and hasattr(item, "callspec") and item.get_closest_marker("sweep"):
            sweeps[item.nodeid.partition("[")[0]].append(item)
    for cases in sweeps.values():
        cases.sort(key=lambda case: case.get_closest_marker("slow") is not None)  # what `make check` runs comes first
        marker = cases[0].get_closest_marker("sweep")
        assert marker is not None
        strength, *paths = marker.args or (1,)
        costly = {index for index, case in enumerate(cases) if case.get_closest_marker("costly")}
        kept = cover([parts(values(case), strength) | together(case, paths) for case in cases], costly)
        for index, case in enumerate(cases):
            if index not in kept:
                case.add_marker(pytest.mark.exhaustive)


def values(case: pytest.Function) -> list[Value]:
    """What a case has of each decorator `parametrize`, and of each fixture with parameters. Values are compared by identity, for not
    all of them compare: pytest hands every case the same objects."""
    left = dict(case.callspec.params)
    found = list[Value]()
    for marker in case.iter_markers("parametrize"):
        named = marker.args[0]
        names = tuple(name.strip() for name in named.split(",")) if isinstance(named, str) else tuple(named)
        found.append((names, tuple(id(left.pop(name)) for name in names)))
    return found + [((name,), (id(value),)) for name, value in sorted(left.items())]


def parts(values: list[Value], strength: int) -> Case:
    """The combinations of `strength` values that a case has; all of it where it has fewer."""
    return frozenset(combinations(values, min(strength, len(values))))


def together(case: pytest.Function, paths: list[str]) -> Case:
    """What a case has of the parameters that each of `paths` names, as one combination each."""
    split = [tuple(name.strip() for name in path.split(",")) for path in paths]
    if unknown := {name for names in split for name in names} - case.callspec.params.keys():
        raise pytest.UsageError(f"{case.nodeid} has no parameter {', '.join(sorted(unknown))}; correct its mark sweep")
    return frozenset(((names, tuple(id(case.callspec.params[name]) for name in names)),) for names in split)


def cover(cases: list[Case], costly: Collection[int] = ()) -> set[int]:
    """Indices of cases that together have all that any case has: greedily, the one that adds most first; of equals one that is not costly,
    then the one whose parts are in fewest others so far, so that the values of a short list take turns beside those of a long one."""
    left, kept, uses = set[tuple[Value, ...]]().union(*cases), set[int](), Counter[tuple[Value, ...]]()
    while left:
        best = max(range(len(cases)), key=lambda i: (len(cases[i] & left), i not in costly, -sum(uses[part] for part in cases[i]), -i))
        kept.add(best)
        left -= cases[best]
        uses.update(cases[best])
    return kept
