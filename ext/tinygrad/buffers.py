"""Host bytes in and out of a tensor's buffer, without the graph that Tensor.assign and Tensor.numpy would build for each."""

import ctypes
import threading
from typing import Any

import numpy as np
from tinygrad import Tensor, UOp
from tinygrad.device import Buffer, BufferSpec
from tinygrad.dtype import _from_np_dtype, _to_np_dtype
from tinygrad.uop.ops import buffers

from ext.tinygrad.kernels.packed import memory

# tinygrad's CUDA device stages what is copied in, and gives the staging memory to the next copy at the next synchronize(): a thread that
# waits for a result would take it away from another in the middle of its copy
_copying = threading.Lock()


def _buffer(tensor: Tensor) -> Buffer:
    buffer = buffers.get(tensor.uop.base)  # UOp.realized takes 5 µs to find the same, twice a token
    assert isinstance(buffer, Buffer), "the tensor must be realized on one device"
    return buffer.ensure_allocated()


def upload(values: np.ndarray, device: str) -> Tensor:
    """A realized tensor that holds a copy of `values`; on the CPU in huge pages, where reading it costs no page walks."""
    if device == "CPU":
        tensor = memory.as_tensor(memory.allocate(values.nbytes), device, _from_np_dtype(values.dtype), values.shape)
        write(tensor, values)
        return tensor
    tensor = Tensor.empty(*values.shape, dtype=_from_np_dtype(values.dtype), device=device)  # realizing a copy would be scheduled: 2.5 ms
    tensor.uop.base.buffer.ensure_allocated()
    write(tensor, values)
    return tensor


def parts(whole: Tensor, device: str) -> list[Tensor] | None:
    """The slices of a realized contiguous tensor along its first axis, on an OpenCL or CUDA device: realized tensors over the same memory,
    which is `whole`'s to keep. None where the driver has no buffer that begins there."""
    n, *shape = whole.shape
    buffer = _buffer(whole)
    nbytes = buffer.nbytes // n
    found = []
    for i in range(n):
        if (opaque := _part(buffer, device, i * nbytes, nbytes)) is None:
            return None
        uop = UOp.new_buffer(buffer.device, nbytes // whole.dtype.itemsize, whole.dtype)
        uop.buffer.options = BufferSpec(nolru=True, external_ptr=1)  # freed as what it is, never kept for another tensor
        uop.buffer.allocate(opaque)
        found.append(Tensor(uop.reshape(tuple(shape))))
    return found


def _part(buffer: Buffer, device: str, offset: int, nbytes: int) -> Any:
    if device.split(":")[0] == "CUDA":
        return buffer.allocator._offset(buffer._buf, nbytes, offset)
    from tinygrad.runtime.autogen import opencl as cl

    region, status = cl.struct__cl_buffer_region(origin=offset, size=nbytes), ctypes.c_int32()
    where = ctypes.cast(ctypes.byref(region), ctypes.c_void_p)
    opaque = cl.clCreateSubBuffer(buffer._buf, cl.CL_MEM_READ_WRITE, cl.CL_BUFFER_CREATE_TYPE_REGION, where, ctypes.byref(status))
    return None if status.value else opaque  # a multiple of CL_DEVICE_MEM_BASE_ADDR_ALIGN is asked for


def write(tensor: Tensor, values: np.ndarray) -> None:
    """Overwrite a realized contiguous tensor."""
    buffer = _buffer(tensor)
    assert values.nbytes == buffer.nbytes, f"{values.nbytes} bytes into {buffer.nbytes}"
    # OpenCL takes the array's address, which ctypes gives only for a writable one: a view of a memory map is none
    data = np.require(values, requirements=["C", "W"]).reshape(-1).view(np.uint8).data
    with _copying:
        buffer.allocator._copyin(buffer._buf, data)


def view(tensor: Tensor) -> np.ndarray:
    """The memory of a realized contiguous tensor of the CPU, in its shape; no copy. What wrote to it must be done."""
    buffer = _buffer(tensor)
    assert buffer.device == "CPU", f"{buffer.device} has memory of its own"
    return np.frombuffer(buffer.as_memoryview(force_zero_copy=True, no_sync=True), _to_np_dtype(tensor.dtype)).reshape(tensor.shape)


def read(tensor: Tensor, out: np.ndarray) -> np.ndarray:
    """Wait for a realized contiguous tensor and copy it into `out`, which is returned."""
    buffer = _buffer(tensor)
    assert out.nbytes == buffer.nbytes and out.flags.c_contiguous, f"{buffer.nbytes} bytes into {out.nbytes}"
    with _copying:
        buffer.allocator._copyout(out.reshape(-1).view(np.uint8).data, buffer._buf)
    return out
