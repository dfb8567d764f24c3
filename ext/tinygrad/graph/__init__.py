"""Captured graphs of CPU kernels replayed by one native call on several threads."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tinygrad import Tensor, UOp

    from ext.tinygrad.graph.fast import Replay


# tinygrad is imported only when one of these is called: graph.threads is asked before there is a device
def install(threads: int | None = None) -> bool:
    """Have every TinyJit captured on device CPU from now on replayed natively; see installation.install."""
    from ext.tinygrad.graph.installation import install

    return install(threads)


def fast_replay(jit: Any, inputs: "Sequence[Tensor | UOp]" = ()) -> "Replay | None":
    """A captured TinyJit as a plain callable; see fast.fast_replay."""
    from ext.tinygrad.graph.fast import fast_replay

    return fast_replay(jit, inputs)
