"""Loss and learning rate by step as files: SVG by itself, PNG where matplotlib is installed (extra `train`)."""

from collections.abc import Sequence
from html import escape
from importlib.util import find_spec
from pathlib import Path

WIDTH, HEIGHT, LEFT, TOP, BOTTOM = 720, 300, 60, 30, 40  # of the SVG, in its units
LOSS, HELD_OUT, RATE = "#1f6feb", "#d1242f", "#aaaaaa"
DPI = 150

History = Sequence[dict[str, float]]  # of each step: step, loss, rate, and held_out where it was measured


def draws_png() -> bool:
    """Is matplotlib installed?"""
    return find_spec("matplotlib") is not None


def write(history: History, folder: Path) -> list[Path]:
    """training.svg, and training.png where it can be drawn; -> what was written."""
    folder.mkdir(parents=True, exist_ok=True)
    drawn = {"training.svg": svg, "training.png": png} if draws_png() else {"training.svg": svg}
    for name, draw in drawn.items():
        part = folder / f"{name}.part"
        draw(history, part)
        part.replace(folder / name)
    return [folder / name for name in drawn]


def png(history: History, path: Path) -> None:
    """Loss, held-out loss and learning rate by step, 1080 x 450 pixels."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.2, 3.0), dpi=DPI, layout="constrained")
    losses = figure.subplots()
    rates = losses.twinx()
    losses.set_zorder(rates.get_zorder() + 1)  # the rate lies behind
    losses.patch.set_visible(False)
    for axes in (losses, rates):
        axes.spines["top"].set_visible(False)
    marker = "o" if len(history) == 1 else None  # a line of one point shows nothing
    rates.plot([e["step"] for e in history], [e["rate"] for e in history], color=RATE, label="learning rate", marker=marker)
    losses.plot([e["step"] for e in history], [e["loss"] for e in history], color=LOSS, label="loss", marker=marker)
    if looked := [e for e in history if "held_out" in e]:
        losses.plot(
            [e["step"] for e in looked], [e["held_out"] for e in looked], color=HELD_OUT, label="held out", marker="o", markersize=4
        )
    losses.set(xlabel="step", ylabel="loss, nats a token")
    rates.set(ylabel="learning rate")
    losses.set_ylim(bottom=0)
    rates.set_ylim(bottom=0)
    rates.ticklabel_format(axis="y", style="sci", scilimits=(0, 0))
    lines = [*losses.get_lines(), *rates.get_lines()]
    losses.legend(lines, [str(line.get_label()) for line in lines], loc="lower left", bbox_to_anchor=(0, 1), ncols=3, frameon=False)
    figure.savefig(path, format="png")


def svg(history: History, path: Path) -> None:
    """Loss, held-out loss and learning rate by step."""
    steps = [entry["step"] for entry in history]
    series = [
        ("loss", LOSS, [(entry["step"], entry["loss"]) for entry in history]),
        ("held out", HELD_OUT, [(entry["step"], entry["held_out"]) for entry in history if "held_out" in entry]),
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

    parts = [line(RATE, [(entry["step"], entry["rate"]) for entry in history], rate_top)]
    parts += [line(colour, points, top) for _, colour, points in series if points]
    parts += [text(LEFT - 6, y(top * i / 4, top) + 4, f"{top * i / 4:.2f}", "end") for i in range(5)]
    parts += [text(right + 6, y(rate_top * i / 4, rate_top) + 4, f"{rate_top * i / 4:.1e}", "start", "#888") for i in (0, 2, 4)]
    parts += [text(x(step), floor + 16, f"{step:.0f}") for step in (steps[0], steps[len(steps) // 2], steps[-1])]
    names = [(name, colour) for name, colour, points in series if points] + [("learning rate", "#888")]
    parts += [text(LEFT + 90 * i, 18, name, "start", colour) for i, (name, colour) in enumerate(names)]
    parts.append(f'<path d="M{LEFT},{TOP} V{floor} H{right}" fill="none" stroke="#444"/>')
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" font-size="11">'
    picture = head + f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>' + "".join(parts) + "</svg>\n"
    path.write_text(picture, encoding="utf-8")
