"""Chats that were held, in a file of JSON lines: a run that was stopped goes on where it was, and prints what there is so far."""

import json
import threading
import time
from pathlib import Path
from typing import Any

Key = tuple[str, str, str, int]  # column, kind of chat, persona, number


class HeldChats:
    """Results by key. Each is written as soon as it is there; `begin` says whether there is time for one more."""

    def __init__(self, path: Path | None, run: dict[str, Any], seconds: float | None = None):
        """`run` says what all results have in common, and is the file's first line. ValueError where a file is another run's."""
        self._path, self._run = path, run
        self._ends = time.monotonic() + seconds if seconds is not None else None
        self._results: dict[Key, Any] = {}
        self._lock = threading.Lock()
        lines = path.read_text().splitlines() if path and path.exists() else []
        if lines and json.loads(lines[0]) != run:
            raise ValueError(f"--resume {path} holds another run ({lines[0]}); name another file")
        for line in lines[1:]:
            try:
                entry = json.loads(line)
            except ValueError:
                continue  # its writer was killed within it
            self._results[tuple(entry["key"])] = entry["result"]
        if path and not lines:
            path.write_text(json.dumps(run) + "\n")

    def get(self, key: Key) -> Any:
        """None where it is still to be held."""
        return self._results.get(key)

    def put(self, key: Key, result: Any) -> None:
        """From any thread."""
        with self._lock:
            self._results[key] = result
            if self._path:
                with self._path.open("a") as file:
                    file.write(json.dumps({"key": key, "result": result}, ensure_ascii=False) + "\n")

    def begin(self) -> bool:
        """Is there time for one more?"""
        return self._ends is None or time.monotonic() < self._ends
