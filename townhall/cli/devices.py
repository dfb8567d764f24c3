"""`townhall devices`: which devices work here, and why the others do not."""

import json
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from ext.tinygrad.backend import Backend


@click.command(help="List the devices that work here, and why the others do not.", epilog="Example: GPU=1 townhall devices")
@click.option("--json", "as_json", is_flag=True, help="print one JSON object instead of lines")
@click.option("--device", "wanted", metavar="NAME", help="which one --device NAME would choose; part of a name will do")
def devices(as_json: bool, wanted: str | None) -> None:
    from ext.tinygrad import device_selection, numa
    from ext.tinygrad.backend import Backend, choose  # tinygrad is imported only by commands that compute
    from ext.tinygrad.device_selection import select
    from ext.tinygrad.toolchain import prepare_environment

    select(wanted)
    request = prepare_environment()
    found = device_selection.list_devices()
    chosen = choose(request, {device: answer for device, answer in found if isinstance(answer, Backend)})
    if as_json:
        entries: list[dict[str, object]] = []
        for device, answer in found:
            if isinstance(answer, Backend):
                info = answer.to_json()
                words = {key: info[key] for key in ("driver", "name", "kind", "memory", "extensions", "description")}
                more = {"numa": numa.placement().to_json(), "kernels": _kernels()} if device == "CPU" else {}
                entries.append({"device": device, "usable": True, "chosen": device == chosen, **words, **more})
            else:
                entries.append({"device": device, "usable": False, "reason": answer})
        click.echo(json.dumps({"requested": request.text, "chosen": chosen, "devices": entries}, ensure_ascii=False, indent=2))
        return
    for device, answer in found:
        if isinstance(answer, Backend):
            click.echo(f"{'*' if device == chosen else '+'} {answer.describe()}")
            for detail in _details(answer, [numa.placement().describe(), _kernels_in_words()] if device == "CPU" else []):
                click.echo(f"    {detail}")
        else:
            click.secho(f"- {device}: not usable, {answer}", dim=True)
    if chosen:
        click.echo(f"* is what Townhall uses now ({request.text}); CPU=1, GPU=1 or DEV=NAME before a command chooses another")
    else:
        click.echo(f"none of them is what {request.text} asks for")


def _details(backend: "Backend", more: list[str]) -> list[str]:
    """What else its driver says, and `more` that is not empty, a line each."""
    size = [f"{backend.kind}, {backend.memory / 1e9:.1f} GB of memory"] if backend.memory else []
    return size + [line for line in more if line] + ([f"extensions: {' '.join(backend.extensions)}"] if backend.extensions else [])


def _kernels() -> dict[str, object] | None:
    """Which of the CPU's kernels serve, on how many threads, and how each format's weights are read; None where none can run."""
    from ext.tinygrad.graph.pool import thread_count
    from ext.tinygrad.kernels.cpu import cpu_source, weight_reading

    if cpu_source.missing_instructions() is not None:
        return None
    return {"instructions": cpu_source.instruction_set(), "threads": thread_count(), "readings": weight_reading.known_readings()}


READINGS = {"default": "prefetched", "far": "prefetched far ahead", "plain": "not prefetched"}


def _kernels_in_words() -> str:
    if (found := _kernels()) is None:
        return ""
    readings: Any = found["readings"]
    ways = [(words, [name.upper() for name, way in readings.items() if way == key]) for key, words in READINGS.items()]
    measured = ", ".join(f"{' and '.join(names)} weights {words}" for words, names in ways if names)
    threads = f"{found['threads']} thread{'' if found['threads'] == 1 else 's'}"
    return f"kernels for {found['instructions']}, {threads}" + (f"; {measured}, as measured" if measured else "")
