"""The YAML of a swarm: where it listens, and its models with their replicas."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from townhall.swarm.errors import SwarmError
from townhall.yaml_file import Fields, YamlFile

MOST_MODELS, MOST_REPLICAS, MOST_SLOTS = 100, 1000, 256
SLOTS = 8
TOP = ("host", "port", "api_key_file", "no_auth", "cors", "grace", "models")
OWN = ("replicas", "cpus", "gpus", "slots", "queue")  # of a model; the rest are flags of `townhall serve`
# of `townhall serve`, but for the whole swarm, or for one process only
NOT_OF_A_MODEL = ("host", "port", "api_key", "api_key_file", "no_auth", "cors", "grace", "chats", "log_to", "help_samplers")
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


@dataclass(frozen=True)
class SwarmModel:
    """A model of the swarm; `flags` are those of `townhall serve` by their keys in settings files."""

    name: str
    flags: Mapping[str, Any] = field(default_factory=dict)
    replicas: tuple[int, int] = (1, 1)  # least and most; where they differ the queue decides
    cpus: float = 1.0  # of each replica, as Ray counts them
    gpus: float = 0.0
    slots: int = SLOTS  # conversations at a time of each replica
    queue: float = 0.0  # requests under way for each replica that autoscaling aims at; 0: as many as slots
    position: int = 0  # in the file: the first answers for names that are not served

    def arguments(self) -> list[str]:
        """The command line of `townhall serve` that serves this."""
        words = [f"--slots={self.slots}"]
        for key, value in self.flags.items():
            flag = f"--{key.replace('_', '-')}"
            for one in value if isinstance(value, list) else [value]:
                words.append(flag if one is True else f"--no-{flag[2:]}" if one is False else f"{flag}={one}")
        return words

    def described(self) -> dict[str, Any]:
        """As JSON has it; what is compared to tell whether a running model has changed."""
        own = {key: list(value) if isinstance(value := getattr(self, key), tuple) else value for key in OWN}
        return {"name": self.name, **own, "flags": dict(self.flags)}


@dataclass(frozen=True)
class SwarmPlan:
    """All of a swarm's file."""

    models: tuple[SwarmModel, ...]
    host: str = "127.0.0.1"
    port: int = 8000
    api_key_file: Path | None = None
    no_auth: bool = False
    cors: tuple[str, ...] = ()
    grace: float = 60.0  # seconds that answers have to be finished in where their replica is to go


def read_swarm(path: Path) -> SwarmPlan:
    """The plan of a file; SwarmError names file, line and fault."""
    return YamlFile("swarm", path, SwarmError).load(_plan, TOP, empty="it needs a mapping 'models'")


def parse_model(name: str, values: Mapping[str, Any], position: int = 0) -> SwarmModel:
    """A model of what is said of it by key; SwarmError names the key."""
    if not NAME.fullmatch(name):
        raise SwarmError(f"model {name[:80]!r}: a name is letters, digits, '.', '_' and '-', at most 64, the first a letter or digit")
    if wrong := [key for key in values if key in NOT_OF_A_MODEL]:
        raise SwarmError(f"model {name}: {wrong[0]!r} is of the whole swarm or of `townhall serve` alone; leave it out here")
    least, most = _replicas(name, values.get("replicas", 1))
    return SwarmModel(
        name,
        {str(key): value for key, value in values.items() if key not in OWN},
        (least, most),
        _number(name, values, "cpus", 1.0, 1024),
        _number(name, values, "gpus", 0.0, 64),
        _whole(name, "slots", values.get("slots", SLOTS), 1, MOST_SLOTS),
        _number(name, values, "queue", 0.0, 1e6),
        position,
    )


def _plan(fields: Fields) -> SwarmPlan:
    node = fields.values.get("models")
    if not isinstance(node, yaml.MappingNode) or not node.value:
        raise fields.fault("models", "'models' must map each model's name to its keys, one at least")
    if len(node.value) > MOST_MODELS:
        raise fields.fault("models", f"'models' has {len(node.value)} models, more than {MOST_MODELS}")
    models: list[SwarmModel] = []
    for position, (name, values) in enumerate(fields.plain("models").items()):
        try:
            if not isinstance(values or {}, dict):
                raise SwarmError(f"model {name}: it must be a mapping, such as {{model: path.gguf, replicas: 2}}")
            models.append(parse_model(str(name), values or {}, position))
        except SwarmError as error:
            raise fields.file.fault(str(error), node.value[position][0].start_mark.line + 1) from None
    key_file = fields.text("api_key_file")
    return SwarmPlan(
        tuple(models),
        fields.text("host") or "127.0.0.1",
        int(fields.number("port", 65535, 8000)),
        Path(key_file).expanduser() if key_file else None,
        _flag(fields, "no_auth"),
        fields.strings("cors", 100),
        fields.number("grace", 3600, 60),
    )


def _flag(fields: Fields, key: str) -> bool:
    value = fields.plain(key) if key in fields.values else False
    if not isinstance(value, bool):
        raise fields.fault(key, f"{key!r} must be true or false")
    return value


def _replicas(name: str, value: Any) -> tuple[int, int]:
    """2, "1-4" or {min: 1, max: 4}."""
    if isinstance(value, str) and (found := re.fullmatch(r"(\d{1,4})-(\d{1,4})", value)):
        value = {"min": int(found[1]), "max": int(found[2])}
    if isinstance(value, dict) and set(value) == {"min", "max"}:
        least = _whole(name, "replicas", value["min"], 0, MOST_REPLICAS)
        return least, _whole(name, "replicas", value["max"], max(1, least), MOST_REPLICAS)
    number = _whole(name, "replicas", value, 1, MOST_REPLICAS)
    return number, number


def _whole(name: str, key: str, value: Any, least: int, most: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        more = ", or a range such as 1-4" if key == "replicas" else ""
        raise SwarmError(f"model {name}: {key!r} must be a whole number from {least} to {most}{more}, not {str(value)[:40]!r}")
    return value


def _number(name: str, values: Mapping[str, Any], key: str, default: float, most: float) -> float:
    value = values.get(key, default)
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value <= most:
        raise SwarmError(f"model {name}: {key!r} must be a number from 0 to {most:g}, not {str(value)[:40]!r}")
    return float(value)
