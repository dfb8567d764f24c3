"""How much memory the models of one process may take on which device, as planned from their headers."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from townhall.server.errors import APIError

if TYPE_CHECKING:
    from app.models.llama.memory_plan import DeviceRoom, ModelDemand
    from townhall.server.model_pool import PooledModel

HOST = "CPU"
FIRST = ""  # the name of the first model's device, in `memory`


class ModelRooms:
    """The devices by name, in the order of preference, and what is planned for each."""

    def __init__(self, memory: Mapping[str, int], context: int, slots: int, kv: str = "f16"):
        """`memory`: bytes by device, FIRST for that of the first model; a device that is not named there is not used, but for that one,
        whose own size counts. `context`, `slots` and `kv` are those that each model is served with."""
        self._memory, self._context, self._slots, self._kv = dict(memory), context, slots, kv
        self._devices: dict[str, DeviceRoom] = {}
        self._demands: dict[Path, tuple[tuple[int, int], ModelDemand]] = {}  # by what their files were like

    def first_device(self, opened: Any) -> str:
        """The name of the device that holds the first model, which settles the devices."""
        from app.models.llama.memory_plan import DeviceRoom
        from townhall.device_rooms import host_memory

        about = opened.backend.to_json()
        name, host = str(about.get("device") or HOST), about.get("kind") in (None, "cpu")
        given = self._memory.pop(FIRST, None) or self._memory.get(name)
        if name not in self._devices:
            size = given or (host_memory() if host else int(about.get("memory") or 0))
            self._devices[name] = DeviceRoom.of(name, size, 0 if given else None, host)
            for other, size in self._memory.items():
                self._devices.setdefault(other, DeviceRoom.of(other, size, 0, other == HOST))
        return name

    def planned(self, pooled: "PooledModel", device: str) -> int:
        """Bytes that a model takes there, beside a process that is there anyway; TownhallError for headers that cannot be read."""
        from app.models.llama.memory_plan import PROCESS

        if pooled.path is None or (room := self._devices.get(device)) is None:
            return 0
        return self._demand(pooled.path).nbytes(room.host) - (PROCESS if room.host else 0)

    def missing(self, pooled: "PooledModel", device: str, models: Iterable["PooledModel"]) -> int:
        """Bytes that it lacks there beside those that are in memory."""
        others = [one for one in models if one is not pooled]
        return self.planned(pooled, device) + self.used(device, others) - self._room(device)

    def used(self, device: str, models: Iterable["PooledModel"]) -> int:
        """Planned bytes of what is there."""
        return sum(self.planned(one, device) for one in models if one.device == device)

    def place(self, pooled: "PooledModel", models: Iterable["PooledModel"]) -> str:
        """The first device with room for it, else the first that would have room if others left. APIError 503 where there is none."""
        models, pinned = list(models), [one for one in models if one.pinned]
        possible = [device for device in self._devices if self.missing(pooled, device, pinned) <= 0]
        if not possible:
            missing, device = min((self.missing(pooled, device, pinned), device) for device in self._devices)
            raise self.does_not_fit(pooled, device, missing, pinned)
        return next((device for device in possible if self.missing(pooled, device, models) <= 0), possible[0])

    def does_not_fit(self, pooled: "PooledModel", device: str, missing: int, beside: Iterable["PooledModel"]) -> APIError:
        """Names what is missing, and what would fit, as `townhall fit` finds it."""
        from dataclasses import replace

        from app.models.llama.memory_plan import plan

        assert pooled.path is not None
        stay = [one for one in beside if one is not pooled and one.device == device]
        room = self._devices[device]
        room = replace(room, memory=max(0, room.memory - self.used(device, stay)))
        unplaced = plan([self._demand(pooled.path)], [room]).unplaced
        remedies = [text.replace("--context", "--max-context") for one in unplaced for text in one.remedies]
        would = (
            f"what would fit: {'; or '.join(remedies)}" if remedies else "no smaller form of it would fit: take another one, or add memory"
        )
        kept = f" beside {', '.join(one.id for one in stay)}" if stay else ""
        size = f"{self.planned(pooled, device) / 1e6:.0f} MB"
        said = f"{pooled.id} needs {size} of {device}'s memory, {missing / 1e6:.0f} MB more than there is for models{kept}; {would}"
        return APIError(503, said, "model", "does_not_fit")

    @property
    def names(self) -> tuple[str, ...]:
        """Of the devices; none before the first model is loaded."""
        return tuple(self._devices)

    def to_json(self, models: Iterable["PooledModel"]) -> list[dict[str, Any]]:
        """Each device's budget, and how much of it is planned for what is there."""
        models = list(models)
        return [{"name": name, "budget": self._room(name), "used": self.used(name, models)} for name in self._devices]

    def _room(self, device: str) -> int:
        from app.models.llama.memory_plan import PROCESS

        room = self._devices[device]
        return max(0, room.room - (PROCESS if room.host else 0))

    def _demand(self, path: Path) -> "ModelDemand":
        """Of a file that is gone, as it was."""
        from app.models.llama.memory_plan import ModelDemand

        known = self._demands.get(path)
        try:
            stamp = (found := path.stat()).st_mtime_ns, found.st_size
        except OSError as error:
            if known:
                return known[1]
            raise APIError(404, f"{path.name} is gone", "model", "model_not_found") from error
        if known is None or known[0] != stamp:
            known = self._demands[path] = stamp, ModelDemand.of(path, self._context, self._slots, self._kv)
        return known[1]
