"""The source of a GPU kernel: its dialect, its constants as macros, the formats of its weights and its own files; and its launch.

`launch` makes of such a source a kernel of tinygrad's: built by the driver, scheduled, captured and launched like any of its own.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

from tinygrad import Tensor, UOp, dtypes
from tinygrad.uop.ops import KernelInfo, Ops

from ext.tinygrad.kernels.gpu.tuning import Tuning
from ext.tinygrad.kernels.packed.formats import Format

HIDDEN = "-1e30f"  # the score of a position that does not count: finite, so that a difference of two is a number
# macros that are 0 unless given
ABSENT = (
    *("CACHE_HALF", "QUANTISED", "MATRIX", "ROW_TABLE", "BIAS", "SCALED", "CAPPED", "WINDOW", "GELU", "EXPERT_TILES", "GATHERED"),
    *("ADAPTED", "GAIN"),
)
FOLDER = Path(__file__).parent / "c"


@cache
def _read(name: str) -> str:
    """A file of c/ with the files that it includes in their places."""
    text = (FOLDER / name).read_text()
    return re.sub(r'^#include "(\S+)".*$', lambda match: _read(match[1]), text, flags=re.MULTILINE)


def _format(form: Format) -> str:
    """The functions of one weight format: group_<name>, weights4_<name>, multiply_<name> …"""
    macros: dict[str, int] = {
        "ELEMENT_BYTES": {"": 0, "f16": 2, "f32": 4}[form.element],
        "BITS": form.bits,
        "SETS": form.scale_sets,
        "HAS_MIN": int(form.has_min),
        "ZERO": form.zero,
        "SUPER": int(form.k_scales),
        "NIBBLE_SCALES": int(form.nibble_scales),
        "CODEBOOK": int(form.codebook),
    }
    lines = [f"#define FORMAT(x) x##_{form.name}", *(f"#define {k} {v}" for k, v in macros.items()), _read("format.h")]
    return "\n".join([*lines, "#undef FORMAT", *(f"#undef {k}" for k in macros)])


def decode_source(tuning: Tuning, file: str, entry: str, formats: Sequence[Format], macros: Mapping[str, object]) -> str:
    """A product of one token, or of few: decode.h."""
    weights = _dispatch(
        "MULTIPLY_OF(part, group, split, lane, to, ...)", "multiply_{format}({group}, split, lane, to, __VA_ARGS__)", formats
    )
    weights |= _dispatch("WEIGHTS_OF(part, group)", "{group}", formats)
    inputs = {"INT_INPUT": int(any(f.bits for f in formats)), "FLOAT_INPUT": int(any(f.element for f in formats))}
    files = ["activations.h", "norm.h", "decode.h"]
    return _with_weights(tuning, files, file, entry, formats, {"DECODE": 1, **inputs, **macros, **weights})


def tile_source(tuning: Tuning, file: str, entry: str, formats: Sequence[Format], macros: Mapping[str, object]) -> str:
    """A product of many tokens in plain floats: prefill.h."""
    weights = _dispatch("WEIGHTS4_OF(part, group, b, c, r)", "weights4_{format}({group}, b, c, r)", formats)
    return _with_weights(tuning, ["input.h", "prefill.h"], file, entry, formats, {"DECODE": 0, **macros, **weights})


def matrix_source(tuning: Tuning, file: str, entry: str, formats: Sequence[Format], macros: Mapping[str, object]) -> str:
    """A product of many tokens on the matrix instruction: matrix.h."""
    weights = _dispatch("PIECE_OF(part, group, b, i)", "piece_{format}({group}, b, i)", formats)
    weights |= _dispatch("LAY_OF(part, piece, to, i)", "lay_{format}(piece, to, i)", formats)
    pieces = max(32 if f.element else 16 for f in formats)
    return _with_weights(tuning, ["matrix.h"], file, entry, formats, {"DECODE": 0, "MATRIX": 1, "PIECES": pieces, **macros, **weights})


def embed_source(tuning: Tuning, form: Format, macros: Mapping[str, object]) -> str:
    names = {f"{function}_0": f"{function}_{form.name}" for function in ("group", "weights4")}
    return _with_weights(tuning, [], "embed.c", "embed", [form], {"DECODE": 0, **names, **macros})


def plain_source(tuning: Tuning, file: str, entry: str, macros: Mapping[str, object], files: Sequence[str] = ()) -> str:
    """A kernel without weights, over the headers `files`."""
    return "\n".join([_head(tuning, {"HIDDEN": HIDDEN, "ENTRY": entry, **macros}), *map(_read, files), _read(file)])


def _with_weights(
    tuning: Tuning, files: Sequence[str], file: str, entry: str, formats: Sequence[Format], macros: Mapping[str, object]
) -> str:
    distinct = {f.name: f for f in formats}.values()
    head = _head(tuning, {"ENTRY": entry, **macros})
    # the product's body comes last: a macro of it uses what the core's header defines
    return "\n".join([head, *map(_read, files), *map(_format, distinct), _read("product.h"), _read(file)])


def _head(tuning: Tuning, macros: Mapping[str, object]) -> str:
    instructions = {"PTX": tuning.ptx, "HAS_SHUFFLE": int(tuning.has_shuffle), "HAS_MATRIX": int(tuning.has_matrix)}
    macros = dict.fromkeys(ABSENT, 0) | instructions | dict(macros)
    defines = "\n".join(f"#define {name} {f'{value!r}f' if isinstance(value, float) else value}" for name, value in macros.items())
    return "\n".join([defines, _read(f"{tuning.dialect}.h"), _read("common.h")])


def _dispatch(signature: str, call: str, formats: Sequence[Format]) -> dict[str, object]:
    """A macro that calls a function of weight `part`'s {format}, perhaps with a {group} of it; weights of one format share a call."""
    by_format: dict[str, list[int]] = {}
    for part, form in enumerate(formats):
        by_format.setdefault(form.name, []).append(part)
    calls = {}
    for name, parts in by_format.items():
        group = f"group_{name}({_choose({part: f'w{part}' for part in parts})}, group)"
        calls[tuple(parts)] = call.format(format=name, group=group)
    return {signature: _choose(calls)}


def _choose(by_part: Mapping[Any, str]) -> str:
    """The expression of `part`, which is one of the keys, or in one of them; the last needs no test."""
    *others, (_, last) = by_part.items()

    def test(key: int | tuple[int, ...]) -> str:
        return " || ".join(f"(part) == {i}" for i in ((key,) if isinstance(key, int) else key))

    return f"({''.join(f'({test(key)}) ? {one} : ' for key, one in others)}{last})"


MAX_POSITION = 2**31 - 1


def launch(
    source: str,
    entry: str,
    groups: Sequence[int],
    local: int,
    outputs: Sequence[Tensor],
    inputs: Sequence[Tensor] = (),
    start_pos: int | UOp | None = None,
) -> list[Tensor]:
    """Call `__kernel void entry(outputs…, inputs…[, int start_pos])` with work-groups of `local` items; -> the outputs after it.

    `groups` are the work-groups of up to three dimensions. Every buffer is handed over from its start: OpenCL has no views here.
    """
    operands = [t.uop for t in (*outputs, *inputs)]
    params = [UOp.placeholder_like(u, slot=i).base for i, u in enumerate(operands)]
    sizes = [UOp.special(n, f"gidx{i}") for i, n in enumerate(groups)] + [UOp.special(local, "lidx0")]
    variables, bound = [], []
    if start_pos is not None:
        variable = UOp.variable("start_pos", 0, MAX_POSITION, dtype=dtypes.int32, param=True)
        # tinygrad's OpenCL program finds an argument by its slot: the variable follows the buffers
        variables = [variable.replace(arg=replace(variable.arg, slot=len(params)))]
        bound = [UOp.variable("start_pos", 0, MAX_POSITION).bind(start_pos) if isinstance(start_pos, int) else start_pos]
    sink = UOp.sink(*params, *variables, *sizes, arg=KernelInfo(entry))
    program = UOp(Ops.PROGRAM, src=(sink, UOp(Ops.LINEAR, src=(*sink.src, sink)), UOp(Ops.SOURCE, arg=source)))
    call = program.call(*operands, *bound)
    return [Tensor(t.uop.after(call)) for t in outputs]
