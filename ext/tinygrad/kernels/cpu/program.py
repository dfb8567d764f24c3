"""C source as a kernel of tinygrad's: compiled by its compiler, scheduled, captured and launched like any of its own."""

from collections.abc import Sequence

from tinygrad import Tensor, UOp
from tinygrad.uop.ops import KernelInfo, Ops

from ext.tinygrad.kernels.cpu.features import tag

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
    program = UOp(Ops.PROGRAM, src=(sink, UOp(Ops.LINEAR, src=(*sink.src, sink)), UOp(Ops.SOURCE, arg=f"// {tag()}\n{source}")))
    call = program.call(*operands, *bound)
    return [Tensor(t.uop.after(call)) for t in outputs]
