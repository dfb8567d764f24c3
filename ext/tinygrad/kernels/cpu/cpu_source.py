"""Puts the C source of one kernel together: what it is specialised for as macros, the headers, the formats of its weights, its own file."""

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

from ext.tinygrad.kernels.packed.formats import Format

AHEAD = 8192  # bytes that weights are prefetched ahead, into the second-level cache


@cache
def _read(name: str) -> str:
    return (Path(__file__).parent / "c" / name).read_text()


def _format(form: Format) -> str:
    """The functions of one weight format, tile_<name> and row_<name>."""
    macros: dict[str, object]
    if form.as_stored:
        macros, header = {"KIND": ("f32", "f16", "bf16").index(form.element)}, "rows_tile.h"
    elif form.element:
        macros, header = {"ELEMENT": form.element}, "float_tile.h"
    else:
        macros = {
            "BITS": form.bits,
            "GROUP": form.scale_cols,
            "HAS_MIN": int(form.has_min),
            "ZERO": form.zero,
            "SUPER": int(form.k_scales),
        }
        header = "integer_tile.h"
    lines = [f"#define FORMAT(x) x##_{form.name}", *(f"#define {k} {v}" for k, v in macros.items()), _read(header)]
    return "\n".join([*lines, "#undef FORMAT", *(f"#undef {k}" for k in macros)])


def matmul_source(file: str, entry: str, formats: Sequence[Format], macros: Mapping[str, object]) -> str:
    """A kernel whose weights have these formats: TILE_i, ROW_i and INPUT_i stand for those of weight i."""
    integer, floating = any(f.bits for f in formats), any(f.element for f in formats)
    defines: dict[str, object] = {
        "ENTRY": entry,
        "AHEAD": AHEAD,
        "INTEGER_INPUT": int(integer),
        "FLOAT_INPUT": int(floating),
        **macros,
    }
    for i, form in enumerate(formats):
        defines |= {f"TILE_{i}": f"tile_{form.name}", f"ROW_{i}": f"row_{form.name}"}
        defines[f"INPUT_{i}"] = "float_input" if form.element else "integer_input"
    distinct = {f.name: f for f in formats}.values()
    head = [_defines(defines), _read("simd.h"), _read("activations.h"), _read("tile.h")]
    return "\n".join([*head, *(_format(f) for f in distinct), _read("inputs.h"), _read(file)])


def plain_source(entry: str, files: Sequence[str], macros: Mapping[str, object]) -> str:
    """A kernel without weights."""
    return "\n".join([_defines({"ENTRY": entry, **macros}), _read("simd.h"), *(_read(f) for f in files)])


def _defines(macros: Mapping[str, object]) -> str:
    return "\n".join(f"#define {name} {_literal(value)}" for name, value in macros.items())


def _literal(value: object) -> str:
    return f"{value!r}f" if isinstance(value, float) else str(value)
