"""OpenCL C source as a kernel of tinygrad's: built by the driver, scheduled, captured and launched like any of its own."""

from collections.abc import Sequence
from dataclasses import replace

from tinygrad import Tensor, UOp, dtypes
from tinygrad.uop.ops import KernelInfo, Ops

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
