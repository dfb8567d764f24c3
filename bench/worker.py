"""A runtime in a process of its own that stays loaded and measures on demand: JSON lines in, JSON lines out.

Two runtimes with their threads in one process are no fair witness. Each stays loaded, so that a sample is short and samples of both can
alternate: what the machine does in between then hits both.
"""

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any, Protocol

from ext.tinygrad.errors import TownhallError

ROOT = Path(__file__).resolve().parents[1]


class BenchError(TownhallError):
    """A measurement that cannot be made."""


class Subject(Protocol):
    """What is measured. Times are seconds of wall clock; prompts are the same ids for everybody."""

    def describe(self) -> dict[str, Any]: ...
    def threads(self, n: int) -> None: ...
    def prefill(self, tokens: int) -> float:
        """From an empty cache to the logits after `tokens` ids."""
        ...

    def decode(self, context: int, tokens: int) -> float:
        """That many ids one at a time, the first of them at position `context`, logits after each."""
        ...


def prompt_ids(n: int, vocab_size: int) -> list[int]:
    """Any ids will do, as long as everybody gets the same; a multiplicative walk over the vocabulary."""
    return [(i * 7919 + 13) % min(vocab_size, 30_000) for i in range(1, n + 1)]


def peak_memory() -> int:
    """Most bytes that this process had resident; 0 where the system does not tell."""
    try:
        with open("/proc/self/status") as status:
            return next((int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM:")), 0)
    except OSError:
        import resource

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024


def adapter_arguments(adapters: Sequence[tuple[Path, float]]) -> list[str]:
    """Adapters and scales as a process of ours takes them behind its other arguments."""
    return [str(one) for adapter in adapters for one in adapter]


def adapters_of(arguments: Sequence[str]) -> list[tuple[Path | str, float]]:
    """Back from `adapter_arguments`."""
    return [(Path(path), float(scale)) for path, scale in zip(arguments[::2], arguments[1::2], strict=True)]


class Worker:
    """The process of one subject, "townhall" or "llama.cpp"."""

    def __init__(
        self,
        subject: str,
        model: Path,
        capacity: int,
        environment: Mapping[str, str] | None = None,
        adapters: Sequence[tuple[Path, float]] = (),
        kv: str = "f16",
    ):
        """`adapters` with their scales, which only our own subject takes; `kv`: what the context is kept as."""
        self.subject = subject
        command = [sys.executable, "-m", "bench.worker_process", subject, str(model), str(capacity), kv, *adapter_arguments(adapters)]
        paths = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE if subject != "townhall" else None,
            text=True,
            env={**os.environ, **(environment or {}), "PYTHONPATH": paths},
        )
        self.about: dict[str, Any] = self._answer()

    def __call__(self, method: str, *arguments: Any) -> Any:
        """Have the subject's `method` called; BenchError where the process has died, with the last it said."""
        try:
            self._pipe(self._process.stdin).write(json.dumps([method, *arguments]) + "\n")
            self._pipe(self._process.stdin).flush()
        except BrokenPipeError:
            pass  # what it said last is in its answer
        return self._answer()

    def close(self) -> None:
        """End the process."""
        self._pipe(self._process.stdin).close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _answer(self) -> Any:
        line = self._pipe(self._process.stdout).readline()
        if not line:
            last = (self._process.communicate()[1] or "").strip().splitlines()[-1:]
            code = self._process.wait()
            raise BenchError(f"the process that measures {self.subject} ended with code {code}{': ' + last[0] if last else ''}")
        answer = json.loads(line)
        if "error" in answer:
            raise BenchError(f"{self.subject}: {answer['error']}")
        return answer["result"]

    @staticmethod
    def _pipe(pipe: IO[str] | None) -> IO[str]:
        assert pipe is not None
        return pipe
