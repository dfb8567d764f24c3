"""One sentence before a process ends by SIGBUS: a file that is mapped into memory was cut short, or its disk failed.

There is no way to go on, so that only the sentence is ours: the process ends by the signal all the same, and shells put terminals in order.
"""

import ctypes
import functools
import signal
from collections.abc import Callable
from pathlib import Path

from ext.tinygrad.c_function import compiled

SOURCE = Path(__file__).with_suffix(".c")
MOST = 4  # names in the sentence: the newest


class _Facts(ctypes.Structure):
    _fields_ = (("write", ctypes.c_void_p), ("on_signal", ctypes.c_void_p), ("sentence", ctypes.c_char_p), ("length", ctypes.c_ulong))


_mapped: dict[str, None] = {}


def expect(path: Path) -> None:
    """The file, or a file of the folder, at `path` is mapped from now on: where its pages cannot be read, standard error says so.

    Nothing is said where there is no such signal or no C compiler, or where it has another handler.
    """
    facts = _armed()
    if facts is None:
        return
    _mapped.pop(str(path), None)
    _mapped[str(path)] = None
    *others, newest = list(_mapped)[-MOST:]
    name = f"{newest} (or {', '.join(others)})" if others else newest
    name = "".join(letter if letter.isprintable() else "?" for letter in name)
    fault = "can no longer be read: it was cut short, or its disk failed, while its weights were in use"
    line = f"\n{name} {fault}; copy it again, then start anew\n".encode(errors="replace")
    facts.length = 0  # never more than is there, whenever the signal comes
    facts.sentence = line
    facts.length = len(line)


@functools.cache
def _armed() -> _Facts | None:
    number = getattr(signal, "SIGBUS", None)
    handler = _compiled()
    if number is None or handler is None or signal.getsignal(number) != signal.SIG_DFL:
        return None
    library = ctypes.CDLL(None)
    library.signal.argtypes, library.signal.restype = (ctypes.c_int, ctypes.c_void_p), ctypes.c_void_p
    write, on_signal = (ctypes.cast(function, ctypes.c_void_p) for function in (library.write, library.signal))
    facts = _Facts(write, on_signal, b"", 0)
    before = library.signal(number, handler(ctypes.addressof(facts)))
    if before:  # not by way of Python, such as faulthandler
        library.signal(number, before)
        return None
    return facts


@functools.cache
def _compiled() -> Callable[[int], int] | None:
    return compiled("handler", SOURCE.read_text(), ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p))
