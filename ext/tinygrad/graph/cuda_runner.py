"""CUDAGraphRunner: captured graphs of CUDA kernels, launched by one native call each."""

from typing import Any

from ext.tinygrad.graph.cuda_queue import CUDAQueue
from ext.tinygrad.graph.driver_runner import DriverGraphRunner


def address(buffer: Any) -> int:
    """Where a buffer is in the device's memory, allocated if need be."""
    place: int = buffer.get_buf(buffer.device).value
    return place


class CUDAGraphRunner(DriverGraphRunner):
    """One captured graph of kernels of one CUDA device."""

    place = staticmethod(address)
    queue = CUDAQueue
