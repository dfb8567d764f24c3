"""Which checkpoints folders hold, and what their headers say; nothing else on the disk can be named through a listing."""

from collections.abc import Iterable, Iterator
from functools import lru_cache
from pathlib import Path

from ext.tinygrad.errors import TownhallError
from townhall.server.endpoints import JSON

MOST_MODELS = 200
DEPTH = 2  # folders below one that is looked at: weights/LLaMA-2/7B


def listing(folders: Iterable[Path], loaded: Path | None = None) -> dict[str, Path]:
    """Every checkpoint by its name: its path from its folder on; first the `loaded` one, by its own name."""
    found = {loaded.name: loaded} if loaded else {}
    known = {path.resolve() for path in found.values()}
    for folder in folders:
        for one in checkpoints(folder):
            name = one.relative_to(folder).as_posix() if one != folder else folder.name
            if (real := one.resolve()) not in known:
                known.add(real)
                found[name if name not in found else f"{folder.name}/{name}"] = one
    return dict(list(found.items())[:MOST_MODELS])


def described(path: Path) -> JSON:
    """What its headers say; read once for each state of the file."""
    return _read(path, _stamp(path))


def checkpoints(folder: Path, depth: int = DEPTH) -> Iterator[Path]:
    """GGUF files (of a split one its first part) and folders of Hugging Face or Meta, in a folder and those below it, sorted."""
    try:
        if any((folder / name).is_file() for name in ("config.json", "params.json")):
            yield folder
            return
        entries = sorted(folder.iterdir())
    except OSError:
        return
    for path in entries:
        if path.suffix == ".gguf" and path.is_file() and int(_part(path) or 1) == 1:
            yield path
        elif path.is_dir() and depth and not path.name.startswith("."):
            yield from checkpoints(path, depth - 1)


def _part(path: Path) -> str:
    """The number of a split file's part (model-00002-of-00005.gguf); "" of a whole one."""
    parts = path.stem.rsplit("-", 3)
    return parts[1] if len(parts) == 4 and parts[2] == "of" and parts[1].isdecimal() and parts[3].isdecimal() else ""


def _stamp(path: Path) -> tuple[int, int]:
    """Changes with a file, or with what is in a folder."""
    try:
        stat = path.stat()
    except OSError:
        return 0, 0
    return stat.st_mtime_ns, stat.st_size


@lru_cache(MOST_MODELS * 2)
def _read(path: Path, stamp: tuple[int, int]) -> JSON:
    """What its headers say; read once for each `stamp`."""
    from app.models.llama.checkpoint import open_checkpoint
    from app.models.llama.checkpoint.checkpoint import parameters

    empty: JSON = {"format": "", "architecture": "", "parameters": 0, "bytes": 0, "types": [], "context_length": 0, "fault": ""}
    try:
        checkpoint = open_checkpoint(path)
        config = checkpoint.config
        sizes: dict[str, int] = {}
        for name in checkpoint.tensor_names:
            stored = checkpoint.stored(name)
            sizes[stored.type] = sizes.get(stored.type, 0) + stored.nbytes
        return {
            "format": checkpoint.format,
            "architecture": config.architecture,
            "parameters": parameters(config),
            "bytes": checkpoint.nbytes,
            "types": sorted(sizes, key=lambda type: -sizes[type]),
            "context_length": config.context_length,
            "fault": "",
        }
    except TownhallError as error:
        return empty | {"fault": str(error).replace(str(path), path.name)}
