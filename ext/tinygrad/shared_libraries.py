"""Where shared libraries are: on the loader's path and in other folders, read from files; no program (`ldconfig -p`) is started."""

import functools
import os
import re
import sys
import sysconfig
from collections.abc import Iterable, Sequence
from pathlib import Path

LOADER_CACHE = Path("/etc/ld.so.cache")
MULTIARCH = sysconfig.get_config_var("MULTIARCH") or "x86_64-linux-gnu"
# where tinygrad looks for a library of the system
SYSTEM_FOLDERS = ("/usr/lib64", "/usr/lib", "/usr/local/lib", "/usr/lib/wsl/lib", "/lib", "/lib64", f"/lib/{MULTIARCH}")


def find(name: str, folders: Sequence[str] = ()) -> Path | None:
    """The first library of that file name: on LD_LIBRARY_PATH, in `folders`, in the system's folders, in the loader's cache."""
    given = [folder for folder in os.environ.get("LD_LIBRARY_PATH", "").split(os.pathsep) if folder]
    here = (os.path.join(folder, name) for folder in (*given, *folders, *SYSTEM_FOLDERS))
    return _first_usable(here) or _first_usable(_cached(name))


def _first_usable(paths: Iterable[str]) -> Path | None:
    return next((Path(path) for path in paths if os.path.isfile(path) and built_for_this_python(path)), None)


def _cached(name: str) -> list[str]:
    """What the loader's cache has under a file name. Its format is a table of offsets into strings that end with a zero byte."""
    try:
        data = LOADER_CACHE.read_bytes()
    except OSError:
        return []
    if os.fsencode(name) not in data:  # the usual case
        return []
    return [os.fsdecode(path) for path in re.findall(rb"\0(/[^\0]*/" + re.escape(os.fsencode(name)) + rb")(?=\0)", data)]


def built_for_this_python(path: str | Path) -> bool:
    """Is the file an ELF library of this process's word size and processor? A system may have 32-bit libraries beside the others."""
    return _kind(str(path)) == _own_kind()


@functools.cache
def _own_kind() -> bytes | None:
    return _kind("/proc/self/exe") or _kind(sys.executable)


def _kind(path: str) -> bytes | None:
    """Class, byte order and machine of an ELF file, None for any other."""
    try:
        with open(path, "rb") as file:
            head = file.read(20)
    except OSError:
        return None
    return head[4:6] + head[18:20] if head[:4] == b"\x7fELF" and len(head) == 20 else None
