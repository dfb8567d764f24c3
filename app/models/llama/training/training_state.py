"""Checkpoints of a training: all that the next step depends on, in one file that is whole or is not there.

A line of JSON, then float32 arrays, then the SHA-256 of both. A file is written beside its place, flushed to the disk and renamed; the
newest two stay, so that one is whole whatever happens.
"""

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from app.models.llama.training.errors import TrainingError

FOLDER, SUFFIX, KEPT = "checkpoints", ".state", 2
MAGIC = b"townhall training 1\n"
MAX_HEADER = 64 << 20  # a line per step of a long training


@dataclass(frozen=True)
class TrainingState:
    """After `step` steps."""

    step: int
    settings: dict[str, Any]  # what the numbers depend on: settings, base and data
    history: list[dict[str, float]]  # by step, what was reported
    arrays: Mapping[str, np.ndarray]  # params, means and squares: float32 (layers, floats of a layer)


def save(state: TrainingState, out: Path) -> Path:
    """Write it into `out`, whole. OSError where the disk does not take it."""
    folder = out / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    shapes = {name: list(values.shape) for name, values in state.arrays.items()}
    head = json.dumps({"step": state.step, "settings": state.settings, "history": state.history, "arrays": shapes}).encode() + b"\n"
    path = folder / f"step-{state.step:08}{SUFFIX}"
    part, digest = path.with_name(f"{path.name}.part"), hashlib.sha256()
    with part.open("wb") as file:
        for data in (MAGIC, head, *(np.ascontiguousarray(values, "<f4").tobytes() for values in state.arrays.values())):
            file.write(data)
            digest.update(data)
        file.write(digest.digest())
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)
    _sync_folder(folder)
    for old in sorted(folder.glob(f"step-*{SUFFIX}"))[:-KEPT]:
        old.unlink(missing_ok=True)
    for left in folder.glob(f"step-*{SUFFIX}.part"):
        left.unlink(missing_ok=True)
    return path


def newest(out: Path) -> TrainingState | None:
    """The newest checkpoint that is whole; None where there is none at all. TrainingError where there are some and all are damaged."""
    files = sorted((out / FOLDER).glob(f"step-*{SUFFIX}"), reverse=True)
    for path in files:
        if (state := _read(path)) is not None:
            return state
    if files:
        raise TrainingError(f"{files[0]} is damaged, and no older checkpoint is whole; start the training anew in another --out")
    return None


def _read(path: Path) -> TrainingState | None:
    try:
        data = path.read_bytes()
    except OSError:
        return None
    body, found = data[:-32], data[-32:]
    if not body.startswith(MAGIC) or hashlib.sha256(body).digest() != found:
        return None
    end = body.find(b"\n", len(MAGIC), len(MAGIC) + MAX_HEADER) + 1
    head, at, arrays = json.loads(body[len(MAGIC) : end]), end, {}
    for name, shape in head["arrays"].items():
        n = int(np.prod(shape))
        arrays[name] = np.frombuffer(body, "<f4", n, at).reshape(shape).astype(np.float32)
        at += 4 * n
    return TrainingState(head["step"], head["settings"], head["history"], arrays)


def _sync_folder(folder: Path) -> None:
    """The rename itself is on the disk."""
    if os.name != "nt":
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
