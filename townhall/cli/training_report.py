"""What a training shows: a line a step, a plot in the terminal, one as SVG beside the adapter, and figures at the end."""

import json
import time
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

from townhall.cli import terminal

if TYPE_CHECKING:
    from app.models.llama.training.trainer import StepReport, Trainer

BARS = "▁▂▃▄▅▆▇█"
WIDTH, HEIGHT, LEFT, TOP, BOTTOM = 720, 300, 60, 30, 40  # of the plot, in its units


class TrainingReport:
    """Progress on stderr, where a person looks; one JSON object a step on stdout where a program reads."""

    def __init__(self, trainer: "Trainer", as_json: bool):
        self._trainer, self._json = trainer, as_json
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
        """training.svg beside the adapter, and the loss in the terminal."""
        history = self._trainer.history
        if not history:
            return
        out.mkdir(parents=True, exist_ok=True)
        part = out / "training.svg.part"
        part.write_text(svg(history), encoding="utf-8")
        part.replace(out / "training.svg")
        losses = [entry["loss"] for entry in history]
        terminal.note(f"loss {losses[0]:.3f} {sparkline(losses)} {losses[-1]:.3f}")

    def end(self, out: Path) -> None:
        rate = self._tokens / self._seconds if self._seconds else 0.0
        seconds = time.perf_counter() - self._started
        terminal.note(f"{out} holds the adapter and training.svg: {self._tokens:,} tokens in {clock(seconds)}, {rate:.0f} tokens/s")
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


def svg(history: Sequence[dict[str, float]]) -> str:
    """Loss, held-out loss and learning rate by step."""
    steps = [entry["step"] for entry in history]
    series = [
        ("loss", "#1f6feb", [(entry["step"], entry["loss"]) for entry in history]),
        ("held out", "#d1242f", [(entry["step"], entry["held_out"]) for entry in history if "held_out" in entry]),
    ]
    top = max(value for _, _, points in series for _, value in points)
    rate_top = max(entry["rate"] for entry in history) or 1.0
    right, floor = WIDTH - 70, HEIGHT - BOTTOM

    def x(step: float) -> float:
        return LEFT + (step - steps[0]) / max(1, steps[-1] - steps[0]) * (right - LEFT)

    def y(value: float, most: float) -> float:
        return floor - value / most * (floor - TOP)

    def line(colour: str, points: Sequence[tuple[float, float]], most: float) -> str:
        path = " ".join(f"{x(step):.1f},{y(value, most):.1f}" for step, value in points)
        return f'<polyline fill="none" stroke="{colour}" stroke-width="1.5" points="{path}"/>'

    def text(at: float, height: float, said: str, anchor: str = "middle", colour: str = "#444") -> str:
        return f'<text x="{at:.1f}" y="{height:.1f}" text-anchor="{anchor}" fill="{colour}">{escape(said)}</text>'

    parts = [line("#aaa", [(entry["step"], entry["rate"]) for entry in history], rate_top)]
    parts += [line(colour, points, top) for _, colour, points in series if points]
    parts += [text(LEFT - 6, y(top * i / 4, top) + 4, f"{top * i / 4:.2f}", "end") for i in range(5)]
    parts += [text(right + 6, y(rate_top * i / 4, rate_top) + 4, f"{rate_top * i / 4:.1e}", "start", "#888") for i in (0, 2, 4)]
    parts += [text(x(step), floor + 16, f"{step:.0f}") for step in (steps[0], steps[len(steps) // 2], steps[-1])]
    names = [(name, colour) for name, colour, points in series if points] + [("learning rate", "#888")]
    parts += [text(LEFT + 90 * i, 18, name, "start", colour) for i, (name, colour) in enumerate(names)]
    parts.append(f'<path d="M{LEFT},{TOP} V{floor} H{right}" fill="none" stroke="#444"/>')
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" font-size="11">'
    return head + f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>' + "".join(parts) + "</svg>\n"
