"""The source of a CPU kernel: its constants as macros, the headers, the formats of its weights and its own file; and its launch.

`launch` makes of such a source a kernel of tinygrad's: compiled by tinygrad's compiler, scheduled, captured and launched like any of
its own. `missing_instructions` says which instructions that compiler can use on this machine.
"""

import hashlib
import subprocess
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

from tinygrad import Tensor, UOp
from tinygrad.device import Device
from tinygrad.helpers import getenv
from tinygrad.uop.ops import KernelInfo, Ops

from ext.tinygrad.kernel_cache import compiler_says
from ext.tinygrad.kernels.cpu.cpu_low_rank import NO_CHANGES
from ext.tinygrad.kernels.packed.formats import Format

X86_NEEDS = ("AVX2", "FMA", "F16C")
# which inner loops c/simd.h has for what the compiler defines, in its order
AVX2_ALONE = "AVX2"
INSTRUCTIONS = (
    ("AVX-512 VNNI", {"__AVX512VNNI__", "__AVX512BW__"}),
    ("AVX-VNNI", {"__AVXVNNI__"}),
    ("NEON i8mm", {"__ARM_FEATURE_DOTPROD", "__ARM_FEATURE_MATMUL_INT8"}),
    ("NEON dotprod", {"__ARM_FEATURE_DOTPROD"}),
    ("NEON", {"__ARM_NEON"}),
    (AVX2_ALONE, {"__AVX2__"}),
)


@cache
def _macros(command: tuple[str, ...]) -> frozenset[str]:
    """Lines `#define …` that the compiler predefines for its target."""
    listing = compiler_says(command)
    return frozenset(line for line in listing.splitlines() if line.startswith("#define "))


def _compiler_macros() -> frozenset[str]:
    compiler = Device["CPU"].renderer.compiler
    target = f"--target={compiler.arch}-none-unknown-elf"
    return _macros((str(getenv("CC", "clang")), target, *compiler.args, "-dM", "-E", "-x", "c", "-"))


def missing_instructions() -> str | None:
    """Why the kernels cannot run here, or None."""
    from tinygrad.runtime.support.compiler_cpu import ClangCompiler

    compiler = Device["CPU"].renderer.compiler
    if not isinstance(compiler, ClangCompiler):
        return f"tinygrad's CPU device compiles with {type(compiler).__name__}, the C kernels need clang"
    try:
        macros = _compiler_macros()
    except (OSError, subprocess.SubprocessError) as error:
        return f"the C compiler cannot be asked for its target: {error}"
    if compiler.arch == "x86_64" and (lacks := [n for n in X86_NEEDS if f"#define __{n}__ 1" not in macros]):
        return f"this CPU has no {', '.join(lacks)}"
    return None


@cache
def compiler_tag() -> str:
    """A word that differs between CPUs and compilers whose object code may: part of every source, and so of tinygrad's compile cache."""
    return hashlib.sha256("\n".join(sorted(_compiler_macros())).encode()).hexdigest()[:16]


@cache
def instruction_set() -> str:
    """What products of integers are computed with here, in words."""
    defined = {line.split()[1] for line in _compiler_macros()}
    return next((name for name, needed in INSTRUCTIONS if needed <= defined), "plain C")


def streams() -> int:
    """Stretches of an integer weight that a task of one token reads at once unless PLAIN_READ or FAR_READ: STREAMS of c/tile.h."""
    return 2 if instruction_set() == AVX2_ALONE else 1


AHEAD = 8192  # bytes that weights are prefetched ahead, into the second-level cache
FAR_AHEAD = 12288  # and into the first-level one, where that is faster


@cache
def _read(name: str) -> str:
    return (Path(__file__).parent / "c" / name).read_text()


def _format(form: Format, more: Sequence[str] = (), suffix: str = "") -> str:
    """The functions of one weight format, tile_<name><suffix> and row_<name><suffix>, and what `more` files define of it."""
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
            "NIBBLE_SCALES": int(form.nibble_scales),
            "CODEBOOK": int(form.codebook),
        }
        header = "integer_tile.h"
    lines = [f"#define FORMAT(x) x##_{form.name}{suffix}", *(f"#define {k} {v}" for k, v in macros.items()), _read(header)]
    lines += [_read(name) for name in more]
    return "\n".join([*lines, "#undef FORMAT", *(f"#undef {k}" for k in macros)])


OWN_HEADERS = {"qkv.c": ("cache.h", "place.h", "rotate.h"), "training/linear_backward.c": ("training/wide.h", "training/tiles.h")}


def matmul_source(file: str, entry: str, formats: Sequence[Format], macros: Mapping[str, object]) -> str:
    """A kernel whose weights have these formats: TILE_i, ROW_i and INPUT_i stand for those of weight i."""
    defines = _inputs(entry, formats) | NO_CHANGES | dict(macros)
    for i, form in enumerate(formats):
        defines |= {f"TILE_{i}": f"tile_{form.name}", f"ROW_{i}": f"row_{form.name}"}
    distinct = {f.name: f for f in formats}.values()
    head = [_defines(defines), *map(_read, ["simd.h", "activations.h", "tile.h"] + ["low_rank.h"] * ("CHANGE" in macros))]
    own = [_read(name) for name in OWN_HEADERS.get(file, ())]
    more = ("training/columns.h",) if file == "training/linear_backward.c" else ()
    return "\n".join([*head, *(_format(f, more) for f in distinct), _read("inputs.h"), *own, _read(file)])


def experts_source(formats: Sequence[Format], sizes: Sequence[int], place_bytes: Sequence[int], macros: Mapping[str, object]) -> str:
    """experts.c over weights of these formats, whose tiles take each of `sizes` pairs; a pair takes `place_bytes` of each one's input."""
    defines = _inputs("experts", formats) | {"PREPARED": 1, "TOKENS": sizes[0]} | dict(macros)
    inputs = [f"INPUT_{i} + (p) * {nbytes}L" for i, nbytes in enumerate(place_bytes)] + ["0"]
    call = f"(out, p, pairs, shares, group, w, up, {inputs[0]}, {inputs[1]});"
    calls = " else ".join(f"if (size == {size}) multiply_{size}{call}" for size in sizes)
    defines["EACH_SIZE(size, out, p, pairs, shares, group, w, up)"] = calls
    parts = [_defines(defines), *map(_read, ["simd.h", "activations.h", "tile.h"])]
    distinct = {f.name: f for f in formats}.values()
    for size in sizes:
        of_size = {"TOKENS": size, "SIZED(x)": f"x##_{size}"} | {f"TILE_{i}": f"tile_{f.name}_{size}" for i, f in enumerate(formats)}
        parts += [f"#undef {name.split('(')[0]}" for name in of_size]
        parts += [_defines(of_size), *(_format(f, suffix=f"_{size}") for f in distinct), _read("experts_group.h")]
    return "\n".join([*parts, _read("inputs.h"), _read("experts.c")])


def _inputs(entry: str, formats: Sequence[Format]) -> dict[str, object]:
    """What every kernel with weights of these formats defines."""
    integer, floating = any(f.bits for f in formats), any(f.element for f in formats)
    defines: dict[str, object] = {
        "ENTRY": entry,
        "AHEAD": AHEAD,
        "FAR_AHEAD": FAR_AHEAD,
        "PLAIN_READ": 0,
        "FAR_READ": 0,
        "INTEGER_INPUT": int(integer),
        "FLOAT_INPUT": int(floating),
        "PREPARED": 0,
    }
    return defines | {f"INPUT_{i}": "float_input" if form.element else "integer_input" for i, form in enumerate(formats)}


def plain_source(entry: str, files: Sequence[str], macros: Mapping[str, object]) -> str:
    """A kernel without weights."""
    return "\n".join([_defines({"ENTRY": entry, **macros}), _read("simd.h"), *(_read(f) for f in files)])


def _defines(macros: Mapping[str, object]) -> str:
    return "\n".join(f"#define {name} {_literal(value)}" for name, value in macros.items())


def _literal(value: object) -> str:
    return f"{value!r}f" if isinstance(value, float) else str(value)


MAX_POSITION = 2**31 - 1


def launch(
    source: str, entry: str, tasks: int, outputs: Sequence[Tensor], inputs: Sequence[Tensor] = (), start_pos: int | UOp | None = None
) -> list[Tensor]:
    """Call `void entry(outputs…, inputs…, [long start_pos,] long core_id)` once for every core_id below `tasks`; -> the outputs after it.

    The entry must be the first function of the source that is not inlined: tinygrad jumps to where the code begins. Every buffer is
    handed over from its start; outputs may be read as well.
    """
    operands = [t.uop for t in (*outputs, *inputs)]
    params = [UOp.placeholder_like(u, slot=i).base for i, u in enumerate(operands)]
    variables, bound = [UOp.variable("core_id", 0, tasks - 1, param=True)], []
    if start_pos is not None:
        variables.insert(0, UOp.variable("start_pos", 0, MAX_POSITION, param=True))
        bound = [UOp.variable("start_pos", 0, MAX_POSITION).bind(start_pos) if isinstance(start_pos, int) else start_pos]
    sink = UOp.sink(*params, *variables, arg=KernelInfo(entry))
    program = UOp(Ops.PROGRAM, src=(sink, UOp(Ops.LINEAR, src=(*sink.src, sink)), UOp(Ops.SOURCE, arg=f"// {compiler_tag()}\n{source}")))
    call = program.call(*operands, *bound)
    return [Tensor(t.uop.after(call)) for t in outputs]
