"""A line of JSON for each request as it begins and as it ends, written at once: what is in the file outlives every process."""

import json
import logging
import time
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import Any

MAX_BYTES, BACKUPS = 64 << 20, 3


class RequestLog:
    """Who answered what, when and how it ended; nothing of what was said, and no keys."""

    def __init__(self, path: Path):
        """`path` is continued; beyond 64 MB it is renamed (`.1` to `.3`) and begun anew."""
        path.parent.mkdir(parents=True, exist_ok=True)
        self._handler = RotatingFileHandler(path, maxBytes=MAX_BYTES, backupCount=BACKUPS, encoding="utf-8")
        self._logger = logging.Logger("townhall.swarm.requests")
        self._logger.addHandler(self._handler)

    def write(self, event: str, id: str, **fields: Any) -> None:
        """`event` is begin, retry or end."""
        line = {"time": round(time.time(), 3), "event": event, "id": id, **fields}
        self._logger.info(json.dumps(line, ensure_ascii=True, separators=(",", ":")))

    def close(self) -> None:
        self._handler.close()
