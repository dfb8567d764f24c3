"""Inclusion groups of a lorebook: of the entries that would fire together, one does."""

import random
from collections.abc import Callable, Sequence, Set

from townhall.characters.lorebook import LoreEntry

Losers = dict[str, str]  # ids of entries, and why each does not fire


def losers(
    candidates: Sequence[LoreEntry],
    fired: Sequence[LoreEntry],
    sticky: Set[str],
    score: Callable[[LoreEntry], int],
    scoring: bool,
    rng: random.Random,
) -> Losers:
    """Who gives way, in SillyTavern's order: to entries that stay, to one that fired, by the number of keys, to an override, by weight.

    `score` counts the keys that are found; `scoring` is what entries go by that do not say themselves.
    """
    lost: Losers = {}
    groups: dict[str, list[LoreEntry]] = {}
    for entry in candidates:
        for group in entry.groups:
            groups.setdefault(group, []).append(entry)
    for group, members in groups.items():
        members = [entry for entry in members if entry.id not in lost]
        if staying := [entry for entry in members if entry.id in sticky]:
            _lose(lost, members, staying, f"another of group {group!r} stays")
        elif any(group in entry.groups for entry in fired):
            _lose(lost, members, [], f"another of group {group!r} fired before")
        elif len(members) > 1:
            if scoring or any(entry.group_scoring for entry in members):
                scores = {entry.id: score(entry) for entry in members}
                scored = [entry for entry in members if (scoring if entry.group_scoring is None else entry.group_scoring)]
                weaker = [entry for entry in scored if scores[entry.id] < max(scores.values())]
                _lose(lost, weaker, [], f"another of group {group!r} has more keys")
                members = [entry for entry in members if entry not in weaker]
            first = [entry for entry in members if entry.group_override]
            if first:
                _lose(lost, members, [max(first, key=lambda entry: entry.order)], f"another of group {group!r} comes first")
            elif len(members) > 1:
                _lose(lost, members, [_drawn(members, rng)], f"another of group {group!r} was drawn")
    return lost


def _lose(lost: Losers, members: Sequence[LoreEntry], winners: Sequence[LoreEntry], why: str) -> None:
    lost |= {entry.id: why for entry in members if entry not in winners}


def _drawn(members: Sequence[LoreEntry], rng: random.Random) -> LoreEntry:
    weights = [entry.group_weight for entry in members]
    return rng.choices(members, weights)[0] if sum(weights) > 0 else members[0]
