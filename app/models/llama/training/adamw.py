"""AdamW (arXiv 1711.05101) over the adapters' flat buffers, and the learning rate by step."""

import math
from collections.abc import Sequence

import numpy as np
from tinygrad import Tensor, UOp

from app.models.llama.forward import POSITION, CapturedGraph
from app.models.llama.training.errors import TrainingError
from app.models.llama.training.training_pass import Adapters, Replayed
from ext.tinygrad.buffers import read, upload, write

BETA1, BETA2, EPS = 0.9, 0.999, 1e-8
SCHEDULES = ("cosine", "linear", "constant")


def learning_rate(peak: float, step: int, steps: int, warmup: int, schedule: str) -> float:
    """Of step 0 … steps - 1: rises over the first `warmup`, then falls towards zero, or stays."""
    if step < warmup:
        return peak * (step + 1) / warmup
    done = (step - warmup) / max(1, steps - warmup)
    if schedule == "cosine":
        return peak * (1 + math.cos(math.pi * done)) / 2
    return peak * (1 - done) if schedule == "linear" else peak


class AdamW:
    """Moments beside the adapters' parameters, and the step that uses them; one graph, replayed for each layer."""

    def __init__(self, adapters: Adapters, device: str, weight_decay: float = 0.0):
        zeros = np.zeros(adapters.layout.size, np.float32)
        self.adapters, self._decay = adapters, weight_decay
        self.means, self.squares = ([upload(zeros, device) for _ in adapters.params] for _ in range(2))
        self._numbers = upload(np.zeros(4, np.float32), device)  # factor of the gradients, learning rate, two bias corrections
        self._zeros = zeros
        self._replay: Replayed | None = None

    def step(self, rate: float, number: int, clip: float) -> float:
        """Apply and clear the gradients, as the `number`-th step (from 1); -> their norm before it was clipped to `clip` (0: it is not).

        TrainingError where the norm is no number."""
        norm = math.sqrt(sum(float(np.square(values, dtype=np.float64).sum()) for values in self.values(self.adapters.gradients)))
        if not math.isfinite(norm):
            raise TrainingError(f"the gradients of step {number} are no numbers; lower --lr or --clip, and go on with --resume")
        factor = min(1.0, clip / norm) if clip and norm else 1.0
        numbers = [factor, rate, 1 - BETA1**number, 1 - BETA2**number]
        if self._replay is None:
            self._replay = self._captured()
        write(self._numbers, np.array(numbers, np.float32))
        self._replay()
        self.clear()
        return norm

    def clear(self) -> None:
        """Forget the gradients."""
        for gradient in self.adapters.gradients:
            write(gradient, self._zeros)

    @staticmethod
    def values(tensors: Sequence[Tensor]) -> list[np.ndarray]:
        """On the host."""
        return [read(tensor, np.empty(tensor.shape, np.float32)) for tensor in tensors]

    @staticmethod
    def load(tensors: Sequence[Tensor], values: np.ndarray) -> None:
        """Overwrite tensors by layer."""
        for tensor, layer in zip(tensors, values, strict=True):
            write(tensor, layer)

    def _captured(self) -> Replayed:
        """One step over every layer. Capturing runs it once, so it is captured with numbers that change nothing that counts."""
        layers = list(zip(self.adapters.params, self.adapters.gradients, self.means, self.squares, strict=True))
        kept = [self.values(tensors) for tensors in layers[0:1]][0]
        write(self._numbers, np.ones(4, np.float32))
        inputs = [[*tensors, self._numbers] for tensors in layers]
        graph = CapturedGraph("AdamW", lambda _: self._update(*layers[0]), UOp.variable(POSITION, 0, 1))
        graph.capture(inputs[0], 0)
        for tensor, values in zip(layers[0], kept, strict=True):
            write(tensor, values)
        return Replayed([(graph, tensors) for tensors in inputs])

    def _update(self, params: Tensor, gradient: Tensor, mean: Tensor, square: Tensor) -> list[Tensor]:
        factor, rate, first, second = (self._numbers[i] for i in range(4))
        clipped = gradient * factor
        new_mean = (mean * BETA1 + clipped * (1 - BETA1)).contiguous()
        new_square = (square * BETA2 + clipped * clipped * (1 - BETA2)).contiguous()
        new = params * (1 - rate * self._decay) - rate * (new_mean / first) / ((new_square / second).sqrt() + EPS)
        pairs = ((params, new.contiguous()), (mean, new_mean), (square, new_square))
        return [Tensor(target.uop.after(target.uop.store(values.uop))) for target, values in pairs]
