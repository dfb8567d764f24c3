"""What models will take of which device, from the headers of their files: weights, KV caches, buffers of the passes, and what stays free.

On the CPU a process of `townhall serve` takes memory of its own beside its model: the interpreter and its packages, and about so many bytes
for each token of the vocabulary (tokenizer, and the masks of structured output). These and what shared passes take were measured;
tests/townhall/cli/test_fit.py holds the sum to 5 % of a server's resident memory.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from app.models.llama.cache_type import F16, Q8_0, cache_rows, cache_type
from app.models.llama.checkpoint import open_checkpoint
from app.models.llama.checkpoint.checkpoint import Checkpoint
from app.models.llama.footprint import Footprint, packed_nbytes
from app.models.llama.placement import place
from ext.tinygrad.kernels.quantised_rows import BLOCK

PROCESS = 114_000_000  # bytes: Python, tinygrad, NumPy and the server's packages, captured graphs
PER_TOKEN = 1100  # bytes of the vocabulary's tokens in memory, 700 of them once a reply was held to a grammar
BESIDE = 2  # caches of a server beside its slots': the background lane's, and the one that its passes were captured with
SHARING = 1  # and one more where several slots share passes
PER_ROW = 2_000_000  # bytes of such a pass for each conversation that it has room for
CONTEXT, SLOTS = 1024, 4
LEAST_CONTEXT = 256  # a shorter window is no remedy
SMALLER = ("Q8_0", "Q6_K", "Q5_K", "Q4_K")  # types that a model could be converted to, largest first
RESERVE, MOST_RESERVE = 0.1, 4 << 30  # of a device: a tenth, at most 4 GB
CPU_CHUNKS, GPU_CHUNKS = (512, 256, 128, 32), (512, 128, 32)


@dataclass(frozen=True)
class DeviceRoom:
    """A device's memory; `reserve` of it is left to others. On the `host` a model takes its process's memory, too."""

    name: str
    memory: int
    reserve: int
    host: bool = False
    about: str = ""  # its driver's words

    @classmethod
    def of(cls, name: str, memory: int, reserve: int | None = None, host: bool = False, about: str = "") -> "DeviceRoom":
        """With the usual reserve where none is given."""
        return cls(name, memory, min(int(memory * RESERVE), MOST_RESERVE) if reserve is None else reserve, host, about)

    @property
    def room(self) -> int:
        return max(0, self.memory - self.reserve)


@dataclass(frozen=True)
class ModelDemand:
    """A checkpoint that is to be served with so many conversations at a time."""

    checkpoint: Checkpoint
    name: str
    context: int
    slots: int
    type: str = ""  # the matrices as this ggml type; "" as they are
    kv: str = F16  # what caches keep

    @classmethod
    def of(cls, path: Path | str, context: int = CONTEXT, slots: int = SLOTS, kv: str = F16) -> "ModelDemand":
        """Of a file or folder, whose headers are read; CheckpointError or ConfigError for what is none, or cannot keep such caches.

        The window is no larger than the one the model was trained for.
        """
        checkpoint = open_checkpoint(path)
        cache_type(checkpoint, kv)
        return cls(checkpoint, Path(path).name.removesuffix(".gguf"), min(context, checkpoint.config.context_length), slots, kv=kv)

    @cached_property
    def _footprints(self) -> dict[bool, Footprint]:
        return {host: self._footprint(CPU_CHUNKS if host else GPU_CHUNKS, "CPU" if host else "") for host in (True, False)}

    def _footprint(self, chunks: tuple[int, ...], device: str) -> Footprint:
        cache = cache_type(self.checkpoint, self.kv)
        rows = cache_rows(self.context, self.checkpoint.config, cache)
        found = Footprint.of(self.checkpoint, self.context, rows, tuple(T for T in chunks if T <= rows), cache, device)
        return replace(found, weights=found.weights + self._difference()) if self.type else found

    def _difference(self) -> int:
        """Bytes that the matrices take more in `type`; those whose rows do not fill its blocks stay as they are."""
        config = self.checkpoint.config
        names = [name for name in self.checkpoint.tensor_names if not (config.tied and name == "output.weight")]
        stored = [one for name in names if len((one := self.checkpoint.stored(name)).shape) == 2]
        block = 256 if self.type.endswith("K") else 32
        changed = [one for one in stored if one.shape[1] % block == 0]
        return sum(packed_nbytes(self.type, one.shape) - packed_nbytes(one.type, one.shape) for one in changed)

    def parts(self, host: bool) -> dict[str, int]:
        """Bytes by what they are for."""
        found = self._footprints[host]
        process = PROCESS + PER_TOKEN * self.checkpoint.config.vocab_size if host else 0
        scratch = found.scratch + (PER_ROW << self.slots.bit_length() if host and self.slots > 1 else 0)
        return {"weights": found.weights, "cache": found.cache * self.caches, "scratch": scratch, "process": process}

    @property
    def caches(self) -> int:
        """KV caches in memory once every slot was used."""
        return self.slots + BESIDE + (SHARING if self.slots > 1 else 0)

    def nbytes(self, host: bool) -> int:
        return sum(self.parts(host).values())


@dataclass(frozen=True)
class PlannedDevice:
    """A device and the models that go there."""

    device: DeviceRoom
    models: tuple[ModelDemand, ...]

    @property
    def used(self) -> int:
        return sum(model.nbytes(self.device.host) for model in self.models)

    @property
    def free(self) -> int:
        """Beside the reserve."""
        return self.device.room - self.used


@dataclass(frozen=True)
class Unplaced:
    """A model without room: what it needs and misses on the device that comes nearest, and what would help, each in a few words."""

    model: ModelDemand
    missing: int
    device: str
    host: bool
    remedies: tuple[str, ...]


@dataclass(frozen=True)
class MemoryPlan:
    """What goes where."""

    devices: tuple[PlannedDevice, ...]
    unplaced: tuple[Unplaced, ...]

    def to_json(self) -> dict[str, Any]:
        """Everything in bytes."""

        def listed(model: ModelDemand, host: bool) -> dict[str, Any]:
            about = {"name": model.name, "path": str(model.checkpoint.path), "context": model.context, "slots": model.slots}
            return about | {"nbytes": model.nbytes(host)} | model.parts(host)

        devices = [
            {"name": one.device.name, "about": one.device.about, "memory": one.device.memory, "reserve": one.device.reserve}
            | {"used": one.used, "free": one.free, "models": [listed(model, one.device.host) for model in one.models]}
            for one in self.devices
        ]
        unplaced = [
            listed(one.model, True) | {"missing": one.missing, "device": one.device, "remedies": list(one.remedies)}
            for one in self.unplaced
        ]
        return {"devices": devices, "unplaced": unplaced}


def plan(models: Sequence[ModelDemand], devices: Sequence[DeviceRoom]) -> MemoryPlan:
    """The best placement on at least one device, and for each model without room what would make it fit."""
    places = _places(models, devices)
    planned = tuple(
        PlannedDevice(device, tuple(model for model, where in zip(models, places) if where == at)) for at, device in enumerate(devices)
    )
    return MemoryPlan(planned, tuple(_unplaced(models, at, devices, planned) for at, where in enumerate(places) if where is None))


def _places(models: Sequence[ModelDemand], devices: Sequence[DeviceRoom]) -> list[int | None]:
    return place([[model.nbytes(device.host) for device in devices] for model in models], [device.room for device in devices])


def _unplaced(models: Sequence[ModelDemand], at: int, devices: Sequence[DeviceRoom], planned: Iterable[PlannedDevice]) -> Unplaced:
    model = models[at]
    nearest = min(planned, key=lambda one: model.nbytes(one.device.host) - one.free)
    # the other models that have no room are another question
    kept = [one for one, where in zip(models, _places(models, devices)) if where is not None]

    def fits(other: ModelDemand) -> bool:
        return None not in _places([*kept, other], devices)

    remedies = []
    if slots := next((n for n in range(model.slots - 1, 0, -1) if fits(replace(model, slots=n))), 0):
        remedies.append(f"--slots {slots}")
    windows = [model.context >> shift for shift in range(1, 12) if model.context >> shift >= LEAST_CONTEXT]
    if window := next((n for n in windows if fits(replace(model, context=n))), 0):
        remedies.append(f"--context {window}")
    if model.kv == F16 and not model.checkpoint.config.head_dim % BLOCK and fits(replace(model, kv=Q8_0)):
        remedies.append(f"--kv {Q8_0}")
    for type in SMALLER:
        smaller = replace(model, type=type)
        if smaller._difference() < 0 and fits(smaller):
            remedies.append(f"its weights as {type}, {smaller.parts(True)['weights'] / 1e9:.2f} GB instead of {_gigabytes(model)}")
            break
    missing = model.nbytes(nearest.device.host) - nearest.free
    return Unplaced(model, missing, nearest.device.name, nearest.device.host, tuple(remedies))


def _gigabytes(model: ModelDemand) -> str:
    return f"{model.parts(True)['weights'] / 1e9:.2f}"
