"""Where the adapters of a layer lie in one flat buffer, how they begin, and their way to an Adapter and back."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from app.models.llama.checkpoint.checkpoint import expected_shapes
from app.models.llama.config import LlamaConfig
from app.models.llama.lora.adapter import Adapter, LowRank
from app.models.llama.training.errors import TrainingError
from ext.tinygrad.kernels.training_kernels import AdapterPlace

ATTENTION = ("wq", "wk", "wv", "wo")
MODULES = {name: f"attention.{name}" for name in ATTENTION} | {name: f"feed_forward.{name}" for name in ("w1", "w3", "w2")}
# as transformers and peft call them
PEFT_NAMES = dict(zip(MODULES, ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"), strict=True))


def modules_of(targets: str) -> tuple[str, ...]:
    """What --targets means: `attention`, `all`, or names with commas between them, ours or peft's. TrainingError."""
    if targets in ("attention", "all"):
        return ATTENTION if targets == "attention" else tuple(MODULES)
    by_name = {name: name for name in MODULES} | {theirs: ours for ours, theirs in PEFT_NAMES.items()}
    wanted = [name.strip() for name in targets.split(",")]
    if unknown := next((name for name in wanted if name not in by_name), None):
        raise TrainingError(
            f"--targets {unknown!r} is no matrix of a block; pass attention, all, or some of {', '.join(PEFT_NAMES.values())}"
        )
    chosen = {by_name[name] for name in wanted}
    return tuple(name for name in MODULES if name in chosen)


@dataclass(frozen=True)
class AdapterLayout:
    """Adapters of one rank on some of a block's matrices. `up` is the transpose of peft's B, so that kernels read along rows."""

    config: LlamaConfig
    modules: tuple[str, ...]
    rank: int
    alpha: float

    @cached_property
    def shapes(self) -> dict[str, tuple[int, int]]:
        """(rows, cols) of the matrices that are adapted."""
        expected = expected_shapes(self.config)
        found = {name: expected[f"layers.0.{MODULES[name]}.weight"] for name in self.modules}
        return {name: (shape[0], shape[1]) for name, shape in found.items()}

    @cached_property
    def places(self) -> dict[str, AdapterPlace]:
        found, at = {}, 0
        for name, (rows, cols) in self.shapes.items():
            found[name] = AdapterPlace(self.rank, at, at + self.rank * cols, self.alpha / self.rank)
            at += self.rank * (rows + cols)
        return found

    @property
    def size(self) -> int:
        """Floats of a layer."""
        return sum(self.rank * (rows + cols) for rows, cols in self.shapes.values())

    def initial(self, seed: int) -> list[np.ndarray]:
        """By layer: A uniform within 1 / sqrt(in), which is Kaiming's with a = sqrt(5), and B zero, as peft begins."""
        layers = []
        for layer in range(self.config.n_layers):
            random, flat = np.random.default_rng([seed, layer]), np.zeros(self.size, np.float32)
            for name, place in self.places.items():
                cols = self.shapes[name][1]
                flat[place.down : place.down + self.rank * cols] = random.uniform(-(cols**-0.5), cols**-0.5, self.rank * cols)
            layers.append(flat)
        return layers

    def to_adapter(self, layers: Sequence[np.ndarray], base: str = "") -> Adapter:
        matrices: dict[str, LowRank] = {}
        for layer, flat in enumerate(layers):
            for name, (rows, cols) in self.shapes.items():
                place = self.places[name]
                a = flat[place.down : place.down + self.rank * cols].reshape(self.rank, cols).copy()
                b = np.ascontiguousarray(flat[place.up : place.up + self.rank * rows].reshape(self.rank, rows).T)
                matrices[f"layers.{layer}.{MODULES[name]}.weight"] = LowRank(a, b, place.scale)
        return Adapter(matrices, base=base)

    def from_adapter(self, adapter: Adapter, scale: float) -> list[np.ndarray]:
        """By layer, the numbers of an adapter that changes just these matrices. TrainingError, naming what differs."""
        wanted = {f"layers.{layer}.{MODULES[name]}.weight": name for layer in range(self.config.n_layers) for name in self.modules}
        if other := sorted({*wanted} ^ {*adapter.matrices, *adapter.replaced}):
            raise TrainingError(f"--lora: the adapter and --targets differ in {other[0]}; pass the --targets that it was trained with")
        for name, change in adapter.matrices.items():
            if change.magnitude is not None:
                raise TrainingError("--lora: the adapter is DoRA, which is not trained here; pass one of LoRA")
            if len(change.a) != self.rank:
                raise TrainingError(f"--lora: {name} has rank {len(change.a)}, not {self.rank}; pass --rank {len(change.a)}")
        share = {name: scale * change.scale / self.places[wanted[name]].scale for name, change in adapter.matrices.items()}
        return self.from_arrays({name: (change.a, np.float32(share[name]) * change.b) for name, change in adapter.matrices.items()})

    def from_arrays(self, arrays: Mapping[str, tuple[np.ndarray, np.ndarray]]) -> list[np.ndarray]:
        """By layer, from (A, B) by a matrix's name."""
        layers = [np.zeros(self.size, np.float32) for _ in range(self.config.n_layers)]
        for layer, flat in enumerate(layers):
            for name, (rows, cols) in self.shapes.items():
                a, b = arrays[f"layers.{layer}.{MODULES[name]}.weight"]
                place = self.places[name]
                flat[place.down : place.down + self.rank * cols] = a.reshape(-1)
                flat[place.up : place.up + self.rank * rows] = b.T.reshape(-1)
        return layers
