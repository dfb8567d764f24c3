"""`townhall swarm`: models with several replicas, on one machine or many."""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import yaml

from townhall.cli import terminal
from townhall.swarm.errors import SwarmError
from townhall.swarm.swarm_file import SwarmModel, SwarmPlan, parse_model, read_swarm

EPILOG = """\b
A swarm runs on Ray Serve (extra `swarm`); docs/swarm.md goes from one laptop to a cluster. One server without it: `townhall serve`.
\b
Examples:
  townhall swarm up swarm.yaml
  townhall swarm add small model=small.gguf replicas=2 max_context=2048
  townhall swarm status
  townhall swarm down
"""


@click.group(help="Serve models from several processes or machines, as one API.", epilog=EPILOG)
def swarm() -> None:
    pass


@swarm.command(
    "up",
    help="Start the swarm that FILE describes, or make the one that runs be so; without FILE one replica of the default model.",
    epilog="Example: townhall swarm up swarm.yaml",
)
@click.argument("file", required=False, type=click.Path(path_type=Path))
@click.option("--cluster-host", default="127.0.0.1", show_default=True, metavar="IP", help="this machine's address for others that join")
@click.option("--cluster-port", type=click.IntRange(0, 65535), default=0, help="port for them  [default: any that is free]")
@click.option("--cpus", type=click.IntRange(min=0), help="cores that replicas may count on here  [default: all]")
@click.option("--gpus", type=click.IntRange(min=0), help="GPUs that replicas may count on here  [default: all]")
def start_swarm(file: Path | None, cluster_host: str, cluster_port: int, cpus: int | None, gpus: int | None) -> None:
    operations = _operations()
    plan = read_swarm(file) if file else SwarmPlan((SwarmModel("default"),))
    cluster = operations.up(plan, terminal.note, cluster_host, cluster_port, cpus, gpus)
    names = ", ".join(model.name for model in plan.models)
    terminal.note(f"the swarm serves {names} at {cluster.url}/v1; `townhall swarm down` ends it")
    if cluster_host != "127.0.0.1":
        terminal.note(f"on another machine, with a copy of the token file: townhall swarm join {cluster.address} --token-file FILE")


@swarm.command("status", help="Say which models and replicas there are, and how they do.", epilog="Example: townhall swarm status --json")
@click.option("--json", "as_json", is_flag=True, help="print one JSON object")
def show_status(as_json: bool) -> None:
    found = _operations().status()
    if as_json:
        terminal.say(json.dumps(found, ensure_ascii=False, indent=2) + "\n")
        return
    lines = [f"{found['url']}  (Ray at {found['cluster']})"]
    for node in found["machines"]:
        lines.append(f"machine {node['address']}: {node['cpus']:g} CPUs, {node['gpus']:g} GPUs{'' if node['alive'] else ', gone'}")
    for model in found["models"]:
        lines.append(f"{model['name']}: {model['state'].lower().replace('_', ' ')}")
        for replica in model["replicas"]:
            health = replica["health"]
            slots, queue = health["slots"], health["queue"]
            lines.append(
                f"  {replica['replica']} on {replica['node']}, process {replica['pid']}: {health['status']}, {slots['active']} of "
                f"{slots['most']} slots busy, {queue['waiting']} waiting; {health['description']}"
            )
    lines += [f"requests: {found['requests']}", f"logs of processes: {found['logs']}"]
    terminal.say("\n".join(lines) + "\n")


@swarm.command(
    "add",
    help="Start model NAME beside the others; one that runs is rolled over to what is said now, a replica at a time.",
    epilog="Example: townhall swarm add small model=small.gguf replicas=1-4 slots=8 temperature=0.5",
)
@click.argument("name")
@click.argument("settings", metavar="[KEY=VALUE]...", nargs=-1)
def add_model(name: str, settings: tuple[str, ...]) -> None:
    model = parse_model(name, _pairs(settings), position=1000)
    cluster = _operations().add(model, terminal.note)
    terminal.note(f"{name} answers at {cluster.url}/v1")


@swarm.command("remove", help="Take a model down when its answers are finished.", epilog="Example: townhall swarm remove small")
@click.argument("name")
def remove_model(name: str) -> None:
    _operations().remove(name)
    terminal.note(f"{name} is removed")


@swarm.command("down", help="End the swarm, and Ray on this machine.", epilog="Example: townhall swarm down")
def end_swarm() -> None:
    from townhall.swarm import ray_cluster

    logs = ray_cluster.stop(ray_cluster.needed())
    terminal.note(f"the swarm has ended; its logs are in {logs}")


@swarm.command(
    "join",
    help="Lend this machine to a swarm whose head is at ADDRESS (host:port), until Ctrl-C.",
    epilog="Example: townhall swarm join 10.0.0.5:6379 --token-file token",
)
@click.argument("address")
@click.option("--token-file", type=click.Path(path_type=Path), required=True, help="copy of the head's token file")
@click.option("--cpus", type=click.IntRange(min=0), help="cores that replicas may count on here  [default: all]")
@click.option("--gpus", type=click.IntRange(min=0), help="GPUs that replicas may count on here  [default: all]")
def join_swarm(address: str, token_file: Path, cpus: int | None, gpus: int | None) -> None:
    _operations()
    from townhall.swarm import ray_cluster

    if not token_file.is_file():
        raise SwarmError(f"--token-file {token_file} does not exist; copy the head's, {ray_cluster.folder() / 'token'} there")
    terminal.note(f"joining {address}; Ctrl-C ends that")
    ray_cluster.join(address, token_file, cpus, gpus)


def _pairs(settings: Sequence[str]) -> dict[str, Any]:
    """KEY=VALUE, the value as YAML reads it. SwarmError names a pair that is none."""
    found: dict[str, Any] = {}
    for pair in settings:
        key, sign, value = pair.partition("=")
        if not sign or not key:
            raise SwarmError(f"{pair[:80]!r} is no KEY=VALUE; write such as replicas=2")
        try:
            found[key.replace("-", "_")] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise SwarmError(f"{key}: its value cannot be read ({str(error).splitlines()[0]}); put it in quotes") from error
    return found


def _operations() -> Any:
    """The module that needs Ray. SwarmError where that is not installed."""
    from townhall.swarm import operations, ray_cluster

    os.environ.update(ray_cluster.environment())  # Ray reads it when it is imported
    try:
        import ray.serve  # noqa: F401
        import starlette  # noqa: F401
    except ModuleNotFoundError as error:
        raise ray_cluster.missing(error) from error
    return operations
