"""Reads matrices off the disk ahead of who lays them out: otherwise the disk rests while weights are packed, and cores while it reads."""

import threading

from app.models.llama.checkpoint.checkpoint import Checkpoint

PATIENCE = 60.0  # seconds without anything taken, after which the reader is taken to have given up
AHEAD = 1 << 28  # bytes: enough to keep a disk busy, too little to drive other pages out of a small memory


class ReadAhead:
    """A thread that reads in the file's order, `AHEAD` bytes before what was taken in all. It may be taken in any order."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self._checkpoint, self._left = checkpoint, AHEAD
        self._changed, self._closed = threading.Condition(), False
        threading.Thread(target=self._read, name="read ahead", daemon=True).start()

    def take(self, name: str) -> None:
        """Have this matrix read, whether its turn has come or not."""
        self._checkpoint.prefetch(name)
        with self._changed:
            self._left += self._checkpoint.stored(name).nbytes
            self._changed.notify()

    def close(self) -> None:
        """Nothing more is read."""
        with self._changed:
            self._closed = True
            self._changed.notify()

    def _read(self) -> None:
        for name in self._checkpoint.tensor_names:
            with self._changed:
                if not self._changed.wait_for(lambda: self._closed or self._left > 0, PATIENCE) or self._closed:
                    return
                self._left -= self._checkpoint.stored(name).nbytes
            self._checkpoint.prefetch(name)
