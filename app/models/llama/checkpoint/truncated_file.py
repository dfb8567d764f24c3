"""Mapped files that are truncated, or whose disk fails: the system raises SIGBUS, which would end the process without a word.

Python's own handlers run after the instruction, which never succeeds. What ctypes makes of a Python function runs in its place, in the
thread that met the page; there is no way to go on, but one to say why. It serves threads that Python knows; for those of a graph, which
read weights while a model is in use, there is ext/tinygrad/sigbus.py.
"""

import ctypes
import os
import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

EXIT_CODE = 2  # of every fault that a sentence names


@contextmanager
def report_truncation(files: Sequence[Path], part: Path | None = None) -> Iterator[None]:
    """Where a page of `files`, mapped, cannot be read in this block, standard error names the file, `part` is removed and the process ends.

    Nothing is said where there is no such signal, or where it has another handler.
    """
    number = getattr(signal, "SIGBUS", None)
    if number is None or signal.getsignal(number) != signal.SIG_DFL:
        yield
        return
    sizes = {path: path.stat().st_size for path in files}
    first = threading.Lock()

    def speak(_: int) -> None:
        first.acquire()  # a second thread that meets such a page waits here for the end
        with suppress(Exception):
            shorter = [path for path, size in sizes.items() if not path.is_file() or path.stat().st_size < size]
            names = " or ".join(map(str, shorter or list(sizes)[:4]))
            names = "".join(letter if letter.isprintable() else "?" for letter in names)
            fault = "was cut short" if shorter else "could not be read (cut short, or a failing disk)"
            os.write(
                2, f"\ntownhall: {names} {fault} while it was in use; copy it again, then run the command again\n".encode(errors="replace")
            )
            if part is not None:
                part.unlink(missing_ok=True)
        os._exit(EXIT_CODE)

    handler = ctypes.CFUNCTYPE(None, ctypes.c_int)(speak)
    library = ctypes.CDLL(None)
    library.signal.argtypes, library.signal.restype = (ctypes.c_int, ctypes.c_void_p), ctypes.c_void_p
    before = library.signal(number, ctypes.cast(handler, ctypes.c_void_p))
    if before:  # not by way of Python, such as faulthandler
        library.signal(number, before)
    try:
        yield
    finally:
        library.signal(number, before)
