"""Which model of a swarm a request means."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

TAG = ":latest"  # Ollama's clients put it behind every name


@dataclass(frozen=True)
class SwarmEntry:
    """A model of the swarm as its replicas describe it."""

    name: str
    position: int
    served: tuple[Mapping[str, Any], ...]  # as /v1/models lists them

    @property
    def personas(self) -> set[str]:
        return {str(one["id"]) for one in self.served} - {self.name}


class Catalog:
    """The models that answer now, in the order of the swarm's file."""

    def __init__(self, entries: Sequence[SwarmEntry] = ()):
        self.entries = sorted(entries, key=lambda entry: (entry.position, entry.name))

    def find(self, asked: str | None) -> tuple[SwarmEntry, str | None] | None:
        """(the model, the name that its replicas know for what was asked); None where the swarm is empty.

        NAME is the bare model, PERSONA is with the first model that has it, PERSONA@NAME with that one. What is not known is left to the
        first model, whose server answers as it does alone: with the bare model and a warning, or with 404 where it is strict.
        """
        if not self.entries:
            return None
        for name in dict.fromkeys([asked, (asked or "").removesuffix(TAG)]):
            if name is None:
                break
            persona, _, where = name.rpartition("@")
            for entry in self.entries:
                if name == entry.name or name in entry.personas:
                    return entry, name
                if where == entry.name and persona in entry.personas:
                    return entry, persona
        return self.entries[0], asked

    def listed(self) -> list[dict[str, Any]]:
        """For /v1/models: each bare model by its name, personas once by their own name, those of other models as PERSONA@NAME."""
        found: dict[str, dict[str, Any]] = {}
        for entry in self.entries:
            for one in entry.served:
                name = str(one["id"])
                name = f"{name}@{entry.name}" if name in found and name != entry.name else name
                found.setdefault(name, {**one, "id": name})
        return list(found.values())
