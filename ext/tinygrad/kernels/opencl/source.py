"""Puts the OpenCL C of one kernel together: what it is specialised for as macros, the formats of its weights, its own files."""

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

from ext.tinygrad.kernels.cpu.formats import Format

HIDDEN = "-1e30f"  # the score of a position that does not count: finite, so that a difference of two is a number


@cache
def _read(name: str) -> str:
    return (Path(__file__).parent / "cl" / name).read_text()


def _format(form: Format) -> str:
    """The functions of one weight format: group_<name>, weights4_<name>, multiply_<name> …"""
    macros: dict[str, int] = {
        "ELEMENT_BYTES": {"": 0, "f16": 2, "f32": 4}[form.element],
        "BITS": form.bits,
        "SETS": form.scale_sets,
        "HAS_MIN": int(form.has_min),
        "ZERO": form.zero,
        "SUPER": int(form.k_scales),
    }
    lines = [f"#define FORMAT(x) x##_{form.name}", *(f"#define {k} {v}" for k, v in macros.items()), _read("format.cl")]
    return "\n".join([*lines, "#undef FORMAT", *(f"#undef {k}" for k in macros)])


def product_source(core: str, file: str, entry: str, formats: Sequence[Format], macros: Mapping[str, object]) -> str:
    """A kernel that multiplies; `core` is decode.cl or prefill.cl."""
    weights = _dispatch("BLOCK_OF(part, group, b, r)", "block", "b, r, INPUT", formats)
    weights |= _dispatch("WEIGHTS4_OF(part, group, b, c, r)", "weights4", "b, c, r", formats)
    return _with_weights(["input.cl", core, "product.cl"], file, entry, formats, {**macros, **weights})


def embed_source(form: Format, macros: Mapping[str, object]) -> str:
    names = {f"{function}_0": f"{function}_{form.name}" for function in ("group", "weights4")}
    return _with_weights(["input.cl"], "embed.cl", "embed", [form], {"NORM": 0, **names, **macros})


def _with_weights(files: Sequence[str], file: str, entry: str, formats: Sequence[Format], macros: Mapping[str, object]) -> str:
    distinct = {f.name: f for f in formats}.values()
    defines = _defines({"CACHE_HALF": 0, "ENTRY": entry, **macros})
    return "\n".join([defines, *map(_read, ["common.cl", *files]), *map(_format, distinct), _read(file)])


def _dispatch(signature: str, function: str, arguments: str, formats: Sequence[Format]) -> dict[str, object]:
    """A macro that calls the function of weight `part`'s format with that weight, w<part>; alike formats share their code."""

    def call(name: str, weight: str) -> str:
        return f"{function}_{name}(group_{name}({weight}, group), {arguments})"

    weights = [f"w{i}" for i in range(len(formats))]
    if len({f.name for f in formats}) == 1:
        return {signature: call(formats[0].name, _choose(weights))}
    return {signature: _choose([call(f.name, w) for f, w in zip(formats, weights)])}


def _choose(by_part: Sequence[str]) -> str:
    *others, last = by_part
    return f"({''.join(f'(part) == {i} ? {one} : ' for i, one in enumerate(others))}{last})"


def plain_source(file: str, entry: str, macros: Mapping[str, object]) -> str:
    """A kernel without weights."""
    return "\n".join([_defines({"CACHE_HALF": 0, "HIDDEN": HIDDEN, "ENTRY": entry, **macros}), _read("common.cl"), _read(file)])


def _defines(macros: Mapping[str, object]) -> str:
    return "\n".join(f"#define {name} {f'{value!r}f' if isinstance(value, float) else value}" for name, value in macros.items())
