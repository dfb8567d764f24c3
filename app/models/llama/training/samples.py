"""Samples of ids with what is learnt of them, packed into rows; which rows make a step follows from the seed alone."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from app.models.llama.training.errors import TrainingError
from app.models.llama.training.training_pass import Row

OPEN_ROWS = 64  # rows that a sample may still join


@dataclass(frozen=True)
class Sample:
    """`learnt[i]`: is id i to be learnt from what stands before it?"""

    ids: tuple[int, ...]
    learnt: tuple[bool, ...]

    @property
    def targets(self) -> np.ndarray:
        """The next id where it is learnt, else -1."""
        following = np.array([*self.ids[1:], -1], np.int32)
        return np.where(np.array([*self.learnt[1:], False]), following, -1).astype(np.int32)


def check_samples(samples: Sequence[Sample], max_length: int, where: str) -> None:
    """TrainingError for samples that cannot be trained on: none at all, too long, or without a token to learn."""
    if not samples:
        raise TrainingError(f"{where} holds no conversation with a reply; townhall data check says what it holds")
    longest = max(len(sample.ids) for sample in samples)
    if longest > max_length:
        count = sum(len(sample.ids) > max_length for sample in samples)
        raise TrainingError(
            f"{count} of {len(samples)} conversations in {where} do not fit --max-length {max_length}, the longest has {longest} tokens; "
            f"pass --max-length {-(-longest // 32) * 32}, or leave them out with --skip-long"
        )
    if empty := sum(not (sample.targets >= 0).any() for sample in samples):
        raise TrainingError(f"{empty} of {len(samples)} conversations in {where} have no reply to learn; take them out")


def digest(samples: Sequence[Sample]) -> str:
    """Of their numbers, in their order."""
    content = hashlib.sha256()
    for sample in samples:
        content.update(np.array([len(sample.ids), *sample.ids], "<i4").tobytes() + np.array(sample.learnt, bool).tobytes())
    return content.hexdigest()


def row_of(samples: Sequence[Sample]) -> Row:
    """Side by side; each sees only itself."""
    lengths = [len(sample.ids) for sample in samples]
    starts = np.cumsum([0, *lengths[:-1]])
    return Row(
        np.concatenate([np.array(sample.ids, np.int32) for sample in samples]),
        np.concatenate([sample.targets for sample in samples]),
        np.repeat(starts, lengths).astype(np.int32),
    )


def pack(samples: Sequence[Sample], max_length: int) -> list[list[Sample]]:
    """Into rows of at most max_length tokens: each sample, in order, joins the first of the open rows that has room."""
    rows: list[list[Sample]] = []
    room: list[int] = []
    for sample in samples:
        n = len(sample.ids)
        start = max(0, len(rows) - OPEN_ROWS)
        at = next((i for i in range(start, len(rows)) if room[i] >= n), None)
        if at is None:
            rows.append([sample])
            room.append(max_length - n)
        else:
            rows[at].append(sample)
            room[at] -= n
    return rows


def epochs(samples: Sequence[Sample], max_length: int, rows_per_step: int, packing: bool, seed: int) -> Iterator[list[Row]]:
    """The rows of one step after another, for ever: each epoch in an order of its own. The last step of an epoch may have fewer."""
    epoch = 0
    while True:
        order = np.random.default_rng([seed, 1, epoch]).permutation(len(samples))
        shuffled = [samples[i] for i in order]
        rows = pack(shuffled, max_length) if packing else [[sample] for sample in shuffled]
        for start in range(0, len(rows), rows_per_step):
            yield [row_of(row) for row in rows[start : start + rows_per_step]]
        epoch += 1


def steps_of_epoch(samples: Sequence[Sample], max_length: int, rows_per_step: int, packing: bool, seed: int) -> int:
    """How many steps the first epoch has."""
    order = np.random.default_rng([seed, 1, 0]).permutation(len(samples))
    rows = len(pack([samples[i] for i in order], max_length)) if packing else len(samples)
    return -(-rows // rows_per_step)


def bucket(tokens: int, max_length: int) -> int:
    """The length of the pass that a row of so many tokens takes: few lengths, so that few are captured."""
    length = 64
    while length < tokens:
        length *= 2
    return min(length, -(-max_length // 32) * 32)
