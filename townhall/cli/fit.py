"""`townhall fit`: which models go into which device's memory, as a picture, before anything is loaded."""

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING

import click

from townhall.cli import terminal
from townhall.errors import ModelError

if TYPE_CHECKING:
    from app.models.llama.memory_plan import DeviceRoom, MemoryPlan, ModelDemand, PlannedDevice

WIDTH = 72  # characters of a device's bar
SIGNS = {"cache": "▒", "scratch": "░", "process": "·"}  # of a model's parts; its weights are drawn with its letter
RESERVED, FREE = "/", " "
UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "KI": 1 << 10, "MI": 1 << 20, "GI": 1 << 30, "TI": 1 << 40}
EPILOG = """\b
Only headers are read. In a bar a letter is a model's weights, ▒ its KV caches, ░ buffers of its passes, · its process, / the reserve.
\b
Examples:
  townhall fit model.gguf
  townhall fit small.gguf large.gguf --context 4096 --slots 8
  townhall fit llama-70b/ --memory 80GB --memory 80GB
"""


class Size(click.ParamType):
    """Bytes: 24GB, 16GiB, 500MB, with a device's name before it or not (CUDA=24GB)."""

    name = "size"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, int]:
        """(name or "", bytes)."""
        found = re.fullmatch(r"(?:([\w:-]{1,40})=)?(\d+(?:\.\d+)?)\s*([KMGT]?I?)B?", str(value).strip(), re.IGNORECASE)
        unit = found[3].upper() if found else "?"
        if found is None or unit not in UNITS:
            self.fail(f"{value!r} is no size; pass one such as 24GB, 16GiB or CUDA=24GB", param, ctx)
        return found[1] or "", int(float(found[2]) * UNITS[unit])


@click.command(help="Plan what goes where: which models fit which device's memory, and what would make the others fit.", epilog=EPILOG)
@click.argument("models", metavar="[MODEL]...", nargs=-1, type=click.Path(path_type=Path))
@click.option("--context", type=click.IntRange(min=1), default=1024, show_default=True, metavar="N", help="context window in tokens")
@click.option("--kv", type=click.Choice(["f16", "q8_0"]), default="f16", show_default=True, help="what contexts are kept as")
@click.option("--slots", type=click.IntRange(1, 256), default=4, show_default=True, metavar="N", help="conversations at a time")
@click.option(
    "--memory",
    type=Size(),
    multiple=True,
    metavar="SIZE",
    help="plan for a device of this memory (24GB, or CUDA=24GB; CPU=16GB is the host) instead of those here; may be repeated",
)
@click.option("--reserve", type=Size(), metavar="SIZE", help="of each device, left to others  [default: a tenth, at most 4 GB]")
@click.option("--json", "as_json", is_flag=True, help="print one JSON object instead of a picture")
def fit(
    models: tuple[Path, ...],
    context: int,
    kv: str,
    slots: int,
    memory: tuple[tuple[str, int], ...],
    reserve: tuple[str, int] | None,
    as_json: bool,
) -> int:
    from app.models.llama.memory_plan import ModelDemand, plan
    from townhall.cli.chat_options import ChatOptions

    demands = [ModelDemand.of(path, context, slots, kv) for path in models or (ChatOptions().model_path(),)]
    for demand in demands:
        if demand.context < context:
            terminal.note(f"{demand.name} was trained for {demand.context} tokens, so that is its context window instead of {context}")
    rooms = _rooms(memory, reserve[1] if reserve else None)
    found = plan(demands, rooms)
    terminal.say(json.dumps(found.to_json(), ensure_ascii=False, indent=2) + "\n" if as_json else draw(found, demands) + "\n")
    return 0


def _rooms(memory: tuple[tuple[str, int], ...], reserve: int | None) -> "list[DeviceRoom]":
    from app.models.llama.memory_plan import DeviceRoom
    from townhall.device_rooms import device_rooms

    if memory:
        names = [name or f"device {number}" for number, (name, _) in enumerate(memory, 1)]
        return [DeviceRoom.of(name, size, reserve, name.upper() == "CPU") for name, (_, size) in zip(names, memory)]
    from ext.tinygrad import device_selection
    from ext.tinygrad.toolchain import prepare_environment

    prepare_environment()
    rooms = device_rooms(device_selection.list_devices(), reserve)
    if not rooms:
        raise ModelError("no device here says how much memory it has; pass --memory SIZE")
    return rooms


def draw(plan: "MemoryPlan", demands: "list[ModelDemand]") -> str:
    """A bar for each device, to the scale of the largest, and its models below it; then what has no room."""
    letters = {id(demand): chr(ord("A") + number % 26) for number, demand in enumerate(demands)}
    largest = max(one.device.memory for one in plan.devices)
    lines = []
    for one in plan.devices:
        device = one.device
        about = f"  {device.about.partition(': ')[2]}" if device.about else ""
        lines.append(f"{device.name}  {_size(device.memory)}, {_size(max(0, one.free))} free{about}")
        lines.append(f"[{_bar(one, letters, max(8, round(WIDTH * device.memory / largest)))}]")
        for model in one.models:
            parts = model.parts(device.host)
            caches = f"{model.caches} caches of {model.context:,} tokens"
            process = f", process {_size(parts['process'])}" if parts["process"] else ""
            lines.append(
                f"  {letters[id(model)]} {model.name}  {_size(model.nbytes(device.host))}: weights {_size(parts['weights'])}, KV "
                f"{_size(parts['cache'])} ({caches}), passes {_size(parts['scratch'])}{process}"
            )
        lines.append(f"  / reserve {_size(device.reserve)}")
    for missing in plan.unplaced:
        needed, lacking = _size(missing.model.nbytes(missing.host)), _size(missing.missing)
        lines.append(f"- {missing.model.name} does not fit: it needs {needed}, {lacking} more than {missing.device} has left")
        remedies = "; or ".join(missing.remedies)
        lines.append(
            f"  what would fit: {remedies}" if remedies else "  no smaller form of it fits beside the others: leave one out, or add memory"
        )
    return "\n".join(lines)


def _bar(planned: "PlannedDevice", letters: dict[int, str], width: int) -> str:
    """One character for each share of the memory; what is there at all has one at least, while there is room."""
    pieces = [
        (SIGNS.get(part, letters[id(model)]), nbytes)
        for model in planned.models
        for part, nbytes in model.parts(planned.device.host).items()
        if nbytes
    ]
    pieces.append((RESERVED, planned.device.reserve))
    bar, done, memory = "", 0, max(1, planned.device.memory)
    for sign, nbytes in pieces[:-1]:
        done += nbytes
        bar += sign * max(1 if nbytes * width * 4 > memory else 0, round(done * width / memory) - len(bar))
    reserve = max(1 if pieces[-1][1] else 0, round(pieces[-1][1] * width / memory))
    return (bar + FREE * (width - reserve - len(bar)) + RESERVED * reserve)[:width]


def _size(nbytes: int) -> str:
    return f"{nbytes / 1e9:.2f} GB" if nbytes >= 1e9 else f"{nbytes / 1e6:.0f} MB"
