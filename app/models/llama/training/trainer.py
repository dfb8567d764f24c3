"""The training loop: rows, gradients, AdamW, held-out loss, checkpoints. One seed gives one adapter, stopped and resumed or not."""

import dataclasses
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from app.models.llama.llama import Llama
from app.models.llama.lora.adapter import Adapter, checked
from app.models.llama.training import training_state
from app.models.llama.training.adamw import SCHEDULES, AdamW, learning_rate
from app.models.llama.training.adapter_layout import AdapterLayout, modules_of
from app.models.llama.training.errors import TrainingError
from app.models.llama.training.samples import Sample, bucket, check_samples, digest, epochs, row_of, steps_of_epoch
from app.models.llama.training.training_pass import Adapters, Row, TrainingPass, check_trainable
from app.models.llama.training.training_state import TrainingState

VERSION = 1  # of the numbers: a checkpoint of another version is not gone on with


@dataclass(frozen=True)
class TrainingSettings:
    """What the adapter depends on, beside base and data."""

    rank: int = 8
    alpha: float = 16.0
    targets: str = "all"
    lr: float = 2e-4
    steps: int = 0  # 0: `epochs` decide
    epochs: float = 3.0
    batch: int = 4  # rows of a step …
    accumulate: int = 1  # … times this; rows run one by one, and the gradient is that of them all
    max_length: int = 256
    warmup: int = 10
    schedule: str = "cosine"
    dropout: float = 0.0
    weight_decay: float = 0.0
    clip: float = 1.0
    packing: bool = True
    seed: int = 0

    def check(self) -> None:
        """TrainingError for what makes no sense."""
        positive = {"rank": self.rank, "batch": self.batch, "accumulate": self.accumulate, "alpha": self.alpha, "lr": self.lr}
        for name, value in positive.items():
            if not value > 0 or not math.isfinite(value):
                raise TrainingError(f"--{name} {value} is out of range; pass a number above 0")
        for name, number in (("steps", self.steps), ("warmup", self.warmup), ("clip", self.clip), ("weight-decay", self.weight_decay)):
            if not number >= 0 or not math.isfinite(number):
                raise TrainingError(f"--{name} {number} is out of range; pass 0 or more")
        if self.rank > 256:
            raise TrainingError(f"--rank {self.rank} is more than 256, which no adapter gains by; pass less")
        if not 0 <= self.dropout < 1:
            raise TrainingError(f"--dropout {self.dropout} is out of range; pass a share from 0 to below 1")
        if not self.steps and not 0 < self.epochs <= 10_000:
            raise TrainingError(f"--epochs {self.epochs} is out of range; pass a number above 0")
        if self.schedule not in SCHEDULES:
            raise TrainingError(f"--schedule {self.schedule} is none; pass one of {', '.join(SCHEDULES)}")
        if not 32 <= self.max_length <= 4096:
            raise TrainingError(f"--max-length {self.max_length} is out of range; pass 32 to 4096 tokens")


@dataclass(frozen=True)
class StepReport:
    """What a step did."""

    step: int  # from 1
    steps: int
    loss: float  # mean over what was learnt, nats per token
    rate: float
    norm: float  # of the gradients, before clipping
    tokens: int  # of its rows, fillers left out
    seconds: float
    held_out: float | None = None  # loss of the evaluation samples, where they were looked at

    def as_dict(self) -> dict[str, float]:
        """What is kept of it in a checkpoint."""
        kept = {"step": self.step, "loss": self.loss, "rate": self.rate, "norm": self.norm, "tokens": self.tokens}
        return kept | ({} if self.held_out is None else {"held_out": self.held_out})


class Trainer:
    """A model, its adapters and where the training stands."""

    def __init__(
        self,
        llama: Llama,
        samples: Sequence[Sample],
        settings: TrainingSettings,
        held_out: Sequence[Sample] = (),
        where: str = "the data",
        recompute: bool | None = None,
    ):
        """TrainingError for settings, samples or a model that cannot be trained with; `where` names the data in messages."""
        settings.check()
        if settings.max_length > llama.max_context:
            raise TrainingError(
                f"--max-length {settings.max_length} exceeds the {llama.max_context} tokens of the model; pass that or less"
            )
        check_trainable(llama.model, settings.max_length)
        check_samples(samples, settings.max_length, where)
        if held_out:
            check_samples(held_out, settings.max_length, "the evaluation data")
        self.llama, self.settings, self._samples, self._held_out = llama, settings, list(samples), list(held_out)
        self.layout = AdapterLayout(llama.config, modules_of(settings.targets), settings.rank, settings.alpha)
        self.adapters = Adapters.upload(self.layout, self.layout.initial(settings.seed), llama.device)
        self.optimizer = AdamW(self.adapters, llama.device, settings.weight_decay)
        self.rows_per_step = settings.batch * settings.accumulate
        a_pass = (self._samples, settings.max_length, self.rows_per_step, settings.packing, settings.seed)
        self.steps = settings.steps or max(1, math.ceil(steps_of_epoch(*a_pass) * settings.epochs))
        self.step, self.history = 0, list[dict[str, float]]()
        self._rows = epochs(*a_pass)
        self._passes: dict[int, TrainingPass] = {}
        self._recompute = recompute
        self._began = ""  # with which adapter, where it was not nothing

    def identity(self) -> dict[str, Any]:
        """What a checkpoint must agree in to be gone on with."""
        facts = dataclasses.asdict(self.settings) | {"steps": self.steps, "version": VERSION}
        facts |= {"lora": self._began} if self._began else {}
        return facts | {"base": self.llama.fingerprint, "data": digest(self._samples), "kernels": self.llama.model.kernels.name}

    def run(self, eval_every: int = 0, stop: Callable[[], bool] = lambda: False) -> Iterator[StepReport]:
        """Train to the last step, a report a step; `stop` is asked after every row, and a step that it interrupts leaves no trace."""
        while self.step < self.steps:
            started, rows = time.perf_counter(), next(self._rows)
            learnt = sum(row.learnt for row in rows)
            losses = []
            for at, row in enumerate(rows):
                if stop():
                    self.optimizer.clear()
                    return
                losses.append(self._pass_for(row).gradients(row, 1 / learnt, self._dropout_seed(at)))
            loss = float(np.concatenate(losses).sum() / learnt)
            if not math.isfinite(loss):
                raise TrainingError(
                    f"the loss of step {self.step + 1} is no number; lower --lr, and go on with --resume from the last checkpoint"
                )
            rate = learning_rate(self.settings.lr, self.step, self.steps, self.settings.warmup, self.settings.schedule)
            norm = self.optimizer.step(rate, self.step + 1, self.settings.clip)
            self.step += 1
            seconds = time.perf_counter() - started
            due = eval_every and self._held_out and (self.step % eval_every == 0 or self.step == self.steps)
            report = StepReport(
                self.step,
                self.steps,
                loss,
                rate,
                norm,
                sum(len(row.ids) for row in rows),
                seconds,
                self.evaluate(self._held_out) if due else None,
            )
            self.history.append(report.as_dict())
            yield report

    def evaluate(self, samples: Sequence[Sample]) -> float:
        """Mean loss over what replies of `samples` hold, nats per token, without dropout."""
        losses = [self._pass_for(row).losses(row) for row in (row_of([sample]) for sample in samples)]
        return float(np.concatenate(losses).mean())

    def adapter(self) -> Adapter:
        """As it is now."""
        return self.layout.to_adapter(self.optimizer.values(self.adapters.params), base=self.llama.config.name)

    def save(self, out: Path) -> Path:
        """A checkpoint into `out`."""
        tensors = {"params": self.adapters.params, "means": self.optimizer.means, "squares": self.optimizer.squares}
        arrays = {name: np.stack(self.optimizer.values(group)) for name, group in tensors.items()}
        return training_state.save(TrainingState(self.step, self.identity(), self.history, arrays), out)

    def resume(self, state: TrainingState) -> None:
        """Go on where a checkpoint stands. TrainingError where it is of another training, naming what differs."""
        mine = self.identity()
        if differing := [name for name in {**mine, **state.settings} if state.settings.get(name) != mine.get(name)]:
            name = differing[0]
            raise TrainingError(
                f"--resume: the checkpoint was made with {name} {state.settings.get(name)!r}, this training has {mine.get(name)!r}; "
                "repeat the flags it was started with, or pass another --out"
            )
        groups = {"params": self.adapters.params, "means": self.optimizer.means, "squares": self.optimizer.squares}
        for name, tensors in groups.items():
            self.optimizer.load(tensors, state.arrays[name])
        self.step, self.history = state.step, list(state.history)
        for _ in islice(self._rows, self.step):
            pass

    def begin_with(self, adapter: Adapter, scale: float = 1.0) -> None:
        """Before the first step: an adapter's numbers in place of those that the seed draws.

        AdapterError or TrainingError where it does not fit."""
        assert self.step == 0
        self.optimizer.load(self.adapters.params, np.stack(self.layout.from_adapter(checked(adapter, self.llama.config), scale)))
        self._began = f"{adapter.digest}@{scale!r}"

    def _pass_for(self, row: Row) -> TrainingPass:
        T = bucket(len(row.ids), self.settings.max_length)
        if T not in self._passes:
            made = TrainingPass(self.llama.model, self.adapters, T, self.llama.device, self.settings.dropout, self._recompute)
            self._passes[T] = made
        return self._passes[T]

    def _dropout_seed(self, row: int) -> int:
        """Of a row's pass: another for each step and row."""
        return int(np.random.SeedSequence([self.settings.seed, 2, self.step, row]).generate_state(1)[0])
