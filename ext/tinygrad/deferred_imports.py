"""Imports tinygrad without the modules that a start does not use."""

import contextlib
import gc
import sys
from collections.abc import Iterator
from types import ModuleType
from typing import Any

# tinygrad's CPU device imports a renderer for each compiler that it could use. These two, 0.04 s of each start, are the ones asked last;
# a stand-in of the same name brings the real one as soon as one is made (DEV=CPU:LVP, DEV=CPU:X86).
POSTPONED = {"tinygrad.renderer.nir": "LVPRenderer", "tinygrad.renderer.isa.x86": "X86Renderer"}


@contextlib.contextmanager
def light_imports() -> Iterator[None]:
    """Within it, modules are imported as `kept_imports` does, and tinygrad's CPU device without POSTPONED."""
    stand_ins = {name: _stand_in(name, part) for name, part in POSTPONED.items() if name not in sys.modules}
    sys.modules.update(stand_ins)
    try:
        with kept_imports():
            yield
    finally:
        for name, module in stand_ins.items():
            if sys.modules.get(name) is module:
                del sys.modules[name]


@contextlib.contextmanager
def kept_imports() -> Iterator[None]:
    """Within it, modules are imported: they stay, so the garbage collector walks them neither meanwhile nor later, 0.03 s of each start."""
    before = len(sys.modules)
    with paused_collector():
        yield
        if len(sys.modules) > before:
            gc.freeze()  # while it is paused: the first collection afterwards would walk them all


@contextlib.contextmanager
def paused_collector() -> Iterator[None]:
    """Within it nothing is looked over for cycles: for work that makes a lot and leaves it all in use."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _stand_in(module: str, part: str) -> ModuleType:
    def __new__(cls: type, *args: Any, **kwargs: Any) -> Any:
        from importlib import import_module

        return getattr(import_module(module), part)(*args, **kwargs)

    stand_in = ModuleType(module)
    setattr(stand_in, part, type(part, (), {"__new__": __new__}))
    return stand_in
