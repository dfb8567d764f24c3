"""CLGraphRunner: captured graphs of OpenCL kernels, enqueued by one native call each."""

import ctypes
from typing import Any

from tinygrad import UOp
from tinygrad.device import Compiled
from tinygrad.helpers import is_image_shape
from tinygrad.uop.ops import Ops

from ext.tinygrad.graph import driver_runner
from ext.tinygrad.graph.driver_runner import DriverGraphRunner
from ext.tinygrad.graph.opencl_queue import OpenCLQueue


def why_not(batch_devs: list[Compiled], call: UOp) -> str | None:
    """The reason why a call cannot be part of a graph, None if it can."""
    if (reason := driver_runner.why_not(batch_devs, call)) is not None:
        return reason
    if any(is_image_shape(u.shape) for u in call.src[0].src[0].toposort() if u.op is Ops.PARAM and u._shape is not None):
        return "it reads an image"
    return None


def handle(buffer: Any) -> int:
    """The cl_mem of a buffer, allocated if need be."""
    opaque = buffer.get_buf(buffer.device)
    return ctypes.cast(opaque, ctypes.c_void_p).value or 0


class CLGraphRunner(DriverGraphRunner):
    """One captured graph of kernels of one OpenCL device."""

    place = staticmethod(handle)
    why_not = staticmethod(why_not)
    queue = OpenCLQueue
