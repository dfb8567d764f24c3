"""What a training shows: a line a step, a plot in the terminal, plots beside the adapter, and figures at the end."""

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from townhall.cli import terminal, training_plot

if TYPE_CHECKING:
    from app.models.llama.training.trainer import StepReport, Trainer

BARS = "▁▂▃▄▅▆▇█"


class TrainingReport:
    """Progress on stderr, where a person looks; one JSON object a step on stdout where a program reads."""

    def __init__(self, trainer: "Trainer", as_json: bool):
        self._trainer, self._json = trainer, as_json
        self._plots = list[str]()
        self._started, self._first, self._tokens, self._seconds = time.perf_counter(), trainer.step, 0, 0.0
        layout = trainer.layout
        parameters = layout.size * trainer.llama.config.n_layers
        terminal.note(
            f"{trainer.steps} steps of {trainer.rows_per_step} rows; rank {layout.rank} on {len(layout.modules)} matrices of "
            f"{trainer.llama.config.n_layers} layers, {parameters:,} parameters"
        )

    def step(self, report: "StepReport") -> None:
        self._tokens += report.tokens
        self._seconds += report.seconds
        rate = self._tokens / self._seconds if self._seconds else 0.0
        left = (report.steps - report.step) * self._seconds / max(1, report.step - self._first)
        if self._json:
            terminal.say(json.dumps(report.as_dict() | {"tokens_per_second": round(rate, 1), "seconds_left": round(left, 1)}) + "\n")
        held_out = "" if report.held_out is None else f", held out {report.held_out:.3f}"
        line = f"step {report.step}/{report.steps}  loss {report.loss:.3f}{held_out}  lr {report.rate:.2e}"
        line += f"  {rate:.0f} tokens/s  {clock(left)} left"
        terminal.progress(line)
        if report.held_out is not None or report.step % max(1, report.steps // 10) == 0:
            terminal.note(line)

    def plot(self, out: Path) -> None:
        """training.svg and training.png beside the adapter, and the loss in the terminal."""
        history = self._trainer.history
        if not history:
            return
        self._plots = [file.name for file in training_plot.write(history, out)]
        losses = [entry["loss"] for entry in history]
        terminal.note(f"loss {losses[0]:.3f} {sparkline(losses)} {losses[-1]:.3f}")

    def end(self, out: Path) -> None:
        rate = self._tokens / self._seconds if self._seconds else 0.0
        seconds = time.perf_counter() - self._started
        held = ", ".join(["the adapter", *self._plots])
        terminal.note(f"{out} holds {held}: {self._tokens:,} tokens in {clock(seconds)}, {rate:.0f} tokens/s")
        if not training_plot.draws_png():
            terminal.note("pip install 'townhall[train]' brings what draws the plot as PNG as well")
        terminal.note(f"townhall chat --lora {out} talks with it")


def clock(seconds: float) -> str:
    """Minutes and seconds, or hours."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}" if minutes >= 60 else f"{minutes}:{rest:02}"


def sparkline(values: Sequence[float], width: int = 40) -> str:
    """Means of stretches of the values, as bars."""
    n = min(width, len(values))
    means = [sum(part) / len(part) for part in (values[len(values) * i // n : len(values) * (i + 1) // n] for i in range(n))]
    low, high = min(means), max(means)
    return "".join(BARS[round((mean - low) / (high - low) * (len(BARS) - 1)) if high > low else 0] for mean in means)
