"""Documents are parsed in a process of their own, bounded in memory and time: a file that breaks a parser costs one sentence.

The child is `python -m townhall.library.reading_process`. A line of JSON asks for a file, a line of JSON answers with its blocks.
"""

import hashlib
import json
import os
import resource
import selectors
import signal
import stat
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from townhall.library.blocks import TextBlock
from townhall.library.document_formats import DOCX, FORMATS, MAX_BYTES, PDF, format_of
from townhall.library.errors import UnreadableFile

SECONDS = 20.0  # for one document
OFFICE_SECONDS = 120.0  # for one of hundreds of pages
MEMORY = 768 << 20  # bytes of the child, all that it maps
ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Reading:
    """What a document holds; `sha256` is of the bytes that were parsed, "" where it could not even be opened."""

    sha256: str
    blocks: list[TextBlock]
    fault: str | None = None


class ReadingProcess:
    """Reads one document at a time: `start` a path, then `finish` it. It is restarted where a document ends it."""

    def __init__(self, seconds: float | None = None, memory: int = MEMORY):
        self._allowed, self._memory = seconds, memory
        self._child: subprocess.Popen[bytes] | None = None
        self._seconds = self._deadline = 0.0

    def __enter__(self) -> "ReadingProcess":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def read(self, path: Path) -> Reading:
        """`start` and `finish`."""
        self.start(path)
        return self.finish()

    def start(self, path: Path) -> None:
        """Let the child read `path`, while the caller does something else."""
        if self._child is None or self._child.poll() is not None:
            self._child = _spawned(self._memory)
        assert self._child.stdin
        try:
            self._child.stdin.write(json.dumps(os.fsdecode(path)).encode() + b"\n")
            self._child.stdin.flush()
        except BrokenPipeError:
            pass  # `finish` sees it
        usual = OFFICE_SECONDS if FORMATS.get(path.suffix.lower()) in (PDF, DOCX) else SECONDS
        self._seconds = usual if self._allowed is None else self._allowed
        self._deadline = time.monotonic() + self._seconds

    def finish(self) -> Reading:
        """What the child makes of the file it was started on."""
        child = self._child
        assert child and child.stdout
        answer = bytearray()
        with selectors.DefaultSelector() as selector:
            selector.register(child.stdout, selectors.EVENT_READ)
            while not answer.endswith(b"\n"):
                if not selector.select(max(0.0, self._deadline - time.monotonic())):
                    self._end()
                    return Reading("", [], f"reading it takes more than {self._seconds:.0f} s")
                if not (piece := os.read(child.stdout.fileno(), 1 << 20)):
                    self._end()
                    return Reading("", [], "its reader ended, perhaps for want of memory")
                answer += piece
        found: dict[str, Any] = json.loads(answer)
        if found["full"]:
            self._end()  # what a failed allocation left behind is nothing to go on with
        return Reading(found["sha256"], [TextBlock.from_json(row) for row in found["blocks"]], found["fault"])

    def close(self) -> None:
        if self._child:
            self._end()

    def _end(self) -> None:
        assert self._child
        self._child.kill()
        self._child.communicate()
        self._child = None


def _spawned(memory: int) -> "subprocess.Popen[bytes]":
    environment = {
        name: os.environ[name] for name in ("PATH", "LANG", "LC_ALL", "HOME", "VIRTUAL_ENV", "COVERAGE_PROCESS_START") if name in os.environ
    }
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    environment["OPENBLAS_NUM_THREADS"] = "1"
    command = [sys.executable, "-m", "townhall.library.reading_process", str(memory)]
    # what a parser has to say goes nowhere: pypdf warns of every slip of a file's maker
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment)


# --- the child ------------------------------------------------------------------------------------------------------


def confine(memory: int) -> None:
    """No more memory than that, no file written, no core dump; Ctrl-C is the parent's."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for limit, value in ((resource.RLIMIT_AS, memory), (resource.RLIMIT_FSIZE, 0), (resource.RLIMIT_CORE, 0)):
        _, most = resource.getrlimit(limit)
        try:
            resource.setrlimit(limit, (value, value) if most == resource.RLIM_INFINITY or value <= most else (most, most))
        except (OSError, ValueError):
            pass  # macOS takes no bound on address space; the deadline holds there, too


def answer_to(path: Path) -> dict[str, Any]:
    """The blocks of `path`, or its fault, as JSON has it; `full` where memory ran out."""
    from townhall.library.readers import blocks_of, checked

    answer: dict[str, Any] = {"sha256": "", "blocks": [], "fault": None, "full": False}
    try:
        data = contents(path)
        answer["sha256"] = hashlib.sha256(data).hexdigest()
        answer["blocks"] = [block.to_json() for block in checked(blocks_of(data, format_of(path, data[:4096])))]
        if not answer["blocks"]:
            answer["fault"] = "it holds no text"
    except UnreadableFile as error:
        answer["fault"] = str(error)
    except OSError as error:
        answer["fault"] = f"it cannot be read: {error.strerror or error}"
    except MemoryError:
        answer |= {"blocks": [], "fault": "reading it takes too much memory", "full": True}
    except Exception as error:  # a parser's own ways to fail on a damaged file
        answer["fault"] = f"it is damaged: {' '.join(str(error).split())[:200] or type(error).__name__}"
    return answer


def contents(path: Path) -> bytes:
    """All bytes of a regular file, within MAX_BYTES; a pipe or a device is not waited for."""
    with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb") as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise UnreadableFile("it is not a regular file")
        data = file.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise UnreadableFile(f"it is larger than {MAX_BYTES >> 20} MB")
    return data


def main() -> None:
    confine(int(sys.argv[1]))
    answers, sys.stdout = sys.stdout.buffer, sys.stderr  # a parser that prints does not speak to the parent
    for line in sys.stdin.buffer:
        answers.write(json.dumps(answer_to(Path(json.loads(line)))).encode() + b"\n")
        answers.flush()


if __name__ == "__main__":
    main()
