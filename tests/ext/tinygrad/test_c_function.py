"""A function in C, wherever it is asked for; none where nothing compiles."""

import ctypes
from concurrent.futures import ThreadPoolExecutor

import pytest

from ext.tinygrad.c_function import compiled

TWICE = '__attribute__((visibility("default"))) long twice(long x) { return 2 * x; }'
PROTOTYPE = ctypes.CFUNCTYPE(ctypes.c_long, ctypes.c_long)


def test_a_function_is_compiled_and_called_by_any_thread() -> None:
    with ThreadPoolExecutor(4) as pool:
        functions = list(pool.map(lambda n: compiled("twice", f"// {n}\n{TWICE}", PROTOTYPE), range(4)))
    assert [function and function(21) for function in functions] == [42] * 4


def test_what_does_not_compile_is_none(capfd: pytest.CaptureFixture[str]) -> None:
    assert compiled("twice", "no C at all", PROTOTYPE) is None
    capfd.readouterr()  # the compiler says why


def test_there_is_none_without_a_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    from tinygrad import helpers

    monkeypatch.setenv("CC", "/nowhere/clang")
    helpers.getenv.cache_clear()
    try:
        assert compiled("twice", f"// another one\n{TWICE}", PROTOTYPE) is None
    finally:
        monkeypatch.undo()
        helpers.getenv.cache_clear()
