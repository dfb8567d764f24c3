"""Which models go on which devices: each whole on one device, as many as there is room for.

Of all placements of the same number of models the one is best that fills the first device most, then the second, and so on: devices are
given in the order of preference. Up to EXACT models the best is found by dynamic programming over subsets; beyond that first-fit
decreasing (Johnson 1973) places the largest model first on the first device that has room for it.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

EXACT = 12  # models; 2^12 subsets for each device
Masks = npt.NDArray[np.int64]


def place(sizes: Sequence[Sequence[int]], rooms: Sequence[int]) -> list[int | None]:
    """For each model its device, or None. `sizes[model][device]` and `rooms[device]` are bytes."""
    return exact(sizes, rooms) if len(sizes) <= EXACT else first_fit_decreasing(sizes, rooms)


def first_fit_decreasing(sizes: Sequence[Sequence[int]], rooms: Sequence[int]) -> list[int | None]:
    """Largest first, each on the first device with room; what fits nowhere is passed over."""
    left, found = list(rooms), [None] * len(sizes)  # type: list[int], list[int | None]
    for model in sorted(range(len(sizes)), key=lambda model: -max(sizes[model], default=0)):
        device = next((device for device, room in enumerate(left) if sizes[model][device] <= room), None)
        if device is not None:
            left[device] -= sizes[model][device]
            found[model] = device
    return found


def exact(sizes: Sequence[Sequence[int]], rooms: Sequence[int]) -> list[int | None]:
    """The best placement."""
    models, masks = len(sizes), np.arange(1 << len(sizes))
    loads = [sum((masks >> model & 1) * sizes[model][device] for model in range(models)) + 0 * masks for device in range(len(rooms))]
    # can[d]: subsets that devices d, d + 1, … hold together; every part of such a subset is one, too
    can = [masks == 0]
    for device in reversed(range(len(rooms))):
        behind, here = can[0], np.zeros(len(masks), bool)
        for subset in _maximal(masks[loads[device] <= rooms[device]], models):
            here |= behind[masks & ~subset]
        can.insert(0, here)
    count = np.bitwise_count(masks)
    # what is left to be placed → the parts that earlier devices took, the same loads in all of them
    taken: dict[int, tuple[int, ...]] = {int(mask): () for mask in masks[can[0] & (count == count[can[0]].max())]}
    for device, room in enumerate(rooms):
        fits, most, best = loads[device] <= room, -1, dict[int, tuple[int, ...]]()
        for mask, parts in taken.items():
            subsets = masks[(masks & ~mask) == 0]
            subsets = subsets[fits[subsets] & can[device + 1][mask & ~subsets]]
            load = int(loads[device][subsets].max(initial=-1))
            if load > most:
                most, best = load, {}
            if load == most:
                for subset in subsets[loads[device][subsets] == load]:
                    best.setdefault(mask & ~int(subset), (*parts, int(subset)))
        taken = best
    parts = taken[0]
    return [next((device for device, part in enumerate(parts) if part >> model & 1), None) for model in range(models)]


def _maximal(subsets: Masks, models: int) -> Masks:
    """Those that no other one contains, where every part of one is among them."""
    among = np.zeros(1 << models, bool)
    among[subsets] = True
    grows = np.zeros(len(subsets), bool)
    for model in range(models):
        bit = 1 << model
        grows |= ((subsets & bit) == 0) & among[subsets | bit]
    return subsets[~grows]
