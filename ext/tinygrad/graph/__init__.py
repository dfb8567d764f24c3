"""Captured graphs replayed by one native call: CPU kernels on several threads, OpenCL's and CUDA's through their drivers."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tinygrad import Tensor, UOp

    from ext.tinygrad.graph.captured import Replay


# tinygrad is imported only when one of these is called: graph.threads is asked before there is a device
def install(threads: int | None = None) -> bool:
    """Have every TinyJit captured on device CPU from now on replayed natively; see installation.install."""
    from ext.tinygrad.graph.installation import install

    return install(threads)


def install_on(device: str) -> bool:
    """Have every TinyJit captured on this device from now on replayed natively; see installation.install_on."""
    from ext.tinygrad.graph.installation import install_on

    return install_on(device)


def fast_replay(jit: Any, inputs: "Sequence[Tensor | UOp]" = ()) -> "Replay | None":
    """A captured TinyJit as a plain callable; see fast.fast_replay."""
    from ext.tinygrad.graph.captured import fast_replay

    return fast_replay(jit, inputs)
