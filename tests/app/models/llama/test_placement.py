"""The planner's placement against every placement there is."""

import itertools
import random

import numpy as np
import pytest

from app.models.llama.placement import EXACT, exact, first_fit_decreasing, place


def instance(rng: random.Random, most_models: int = 8):
    models, devices = rng.randint(1, most_models), rng.randint(1, 3)
    kind = rng.randrange(3)
    sizes = [[rng.randint(1, 60) for _ in range(devices)] for _ in range(models)]
    if kind:  # about the same on every device, as models are
        sizes = [[size[0] + (device and kind == 2) for device in range(devices)] for size in sizes]
    total = sum(max(size) for size in sizes)
    return sizes, [rng.randint(0, max(1, int(total * rng.uniform(0.2, 1.2)) // devices + 1)) for _ in range(devices)]


def key(sizes, rooms, places):
    """What the best placement has most of; None for one that does not fit."""
    loads = [sum(size[device] for size, where in zip(sizes, places) if where == device) for device in range(len(rooms))]
    if any(load > room for load, room in zip(loads, rooms)):
        return None
    return (sum(where is not None for where in places), *loads)


def best_by_trying_all(sizes, rooms):
    """Over all (devices + 1) ** models placements at once."""
    models, devices = len(sizes), len(rooms)
    places = np.indices((devices + 1,) * models).reshape(models, -1)  # the last number is: nowhere
    loads = [sum((places[model] == device) * sizes[model][device] for model in range(models)) for device in range(devices)]
    fits = np.all([load <= room for load, room in zip(loads, rooms)], axis=0)
    order = np.lexsort([*(load[fits] for load in reversed(loads)), (places < devices).sum(0)[fits]])
    last = np.flatnonzero(fits)[order[-1]]
    return (int((places[:, last] < devices).sum()), *(int(load[last]) for load in loads))


@pytest.mark.parametrize("count, most", [(300, 6), pytest.param(10_000, 8, marks=pytest.mark.slow)])
def test_no_placement_is_better(count, most):
    rng = random.Random(7)
    for _ in range(count):
        sizes, rooms = instance(rng, most)
        places = exact(sizes, rooms)
        assert key(sizes, rooms, places) == best_by_trying_all(sizes, rooms), (sizes, rooms, places)


def test_trying_all_finds_the_best_by_hand():
    sizes, rooms = [[5, 5], [4, 4], [3, 3]], [7, 5]
    keys = [key(sizes, rooms, places) for places in itertools.product((0, 1, None), repeat=3)]
    assert max(one for one in keys if one) == best_by_trying_all(sizes, rooms) == (3, 7, 5)
    assert exact(sizes, rooms) == [1, 0, 0]


def test_first_fit_decreasing_never_overfills_and_exact_is_never_worse():
    rng = random.Random(8)
    for _ in range(500):
        sizes, rooms = instance(rng)
        placed = key(sizes, rooms, first_fit_decreasing(sizes, rooms))
        assert placed and placed[0] <= key(sizes, rooms, exact(sizes, rooms))[0]


def test_many_models_are_placed_by_first_fit_decreasing():
    sizes = [[1 + n % 7] for n in range(EXACT + 20)]
    assert place(sizes, [60]) == first_fit_decreasing(sizes, [60]) and sum(size[0] for size in sizes) > 60
    assert key(sizes, [60], place(sizes, [60]))


def test_the_largest_exact_search_is_done_in_a_moment():
    rng = random.Random(9)
    sizes = [[size := rng.randint(10, 99), size + 1, size, size] for _ in range(EXACT)]
    rooms = [sum(size[0] for size in sizes) // 5] * 4
    assert key(sizes, rooms, exact(sizes, rooms))


@pytest.mark.parametrize("sizes, rooms", [([], [10]), ([[5]], []), ([], [])])
def test_nothing_to_place_and_nowhere_to_place_it(sizes, rooms):
    assert place([size[: len(rooms)] for size in sizes], rooms) == [None] * len(sizes)
