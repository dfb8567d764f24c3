"""The twins serve CUDA, METAL and AMD: there a quantised weight must be dequantised inside the kernels that use it, never into memory.

tinygrad schedules for its NULL device as for any other with work-groups and local memory; no such driver is needed to see which buffers
a step would fill.
"""

import numpy as np
import pytest
from tinygrad import Device, Tensor, UOp, dtypes
from tinygrad.uop.ops import Ops

from ext.tinygrad.kernels.matrix import QuantMatrix
from ext.tinygrad.kernels.protocol import rope_table
from ext.tinygrad.kernels.reference import ReferenceKernels

pytestmark = pytest.mark.slow

DEVICE, DIM, HIDDEN, VOCAB, HEAD_DIM, ROWS = "NULL", 256, 512, 1024, 32, 64
TWINS = ReferenceKernels()


@pytest.fixture(scope="module", autouse=True)
def _null_device() -> None:
    try:
        Device[DEVICE]
    except Exception as error:  # its renderers may ask for libraries of their own
        pytest.skip(f"tinygrad's NULL device does not open here: {error}")


def matrix(rows: int, cols: int, type: str) -> QuantMatrix:
    if type == "Q6_K":
        return QuantMatrix(type, (rows, cols), np.zeros((rows, cols // 256 * 210), np.uint8))
    return QuantMatrix.from_float32(np.ones((rows, cols), np.float32), type)


def empty(*shape: int) -> Tensor:
    return Tensor.empty(*shape, device=DEVICE)


def filled(*outputs: Tensor) -> list[int]:
    """How many entries each buffer has that the kernels of these results write to or read, float32 ones only."""
    linear, _ = outputs[0].linear_with_vars(*outputs[1:])
    buffers = {u for call in linear.src for u in call.toposort() if u.op is Ops.BUFFER and u.dtype == dtypes.float32}
    return sorted(int(np.prod(u.shape)) for u in buffers)


@pytest.mark.parametrize("type", ["Q4_1", "Q8_0", "Q6_K", "F16"])
@pytest.mark.parametrize("T", [1, 32])
def test_no_kernel_leaves_a_weight_in_floats(type: str, T: int) -> None:
    position = UOp.variable("start_pos", 0, ROWS - T).bind(3)
    x, norm = empty(T, DIM), empty(DIM)
    wq, wk, gate, down, head = (TWINS.pack(matrix(*shape, type), DEVICE) for shape in (
        (DIM, DIM), (HEAD_DIM * 2, DIM), (HIDDEN, DIM), (DIM, HIDDEN), (VOCAB, DIM)
    ))  # fmt: skip
    rope = Tensor(rope_table(ROWS, HEAD_DIM, HEAD_DIM, 1e4), device=DEVICE)
    cache = [Tensor.empty(2, ROWS, HEAD_DIM, dtype=dtypes.float16, device=DEVICE) for _ in range(2)]
    results: dict[tuple[int, int], list[Tensor]] = {
        wq.shape: list(TWINS.norm_qkv(x, norm, 1e-5, wq, wk, wk, rope, *cache, position)),
        gate.shape: [TWINS.norm_gated(x, norm, 1e-5, gate, gate)],
        down.shape: [TWINS.linear_residual(empty(T, HIDDEN), down, x)],
        head.shape: [TWINS.norm_linear(x, norm, 1e-5, head)],
    }
    for (rows, cols), outputs in results.items():
        sizes = filled(*outputs)
        assert sizes and max(sizes) < rows * cols, f"{rows} x {cols}: {sizes}"


def test_an_expanded_weight_would_be_seen() -> None:
    weight = TWINS.pack(matrix(DIM, DIM, "Q4_1"), DEVICE)
    assert max(filled(empty(1, DIM) @ weight.to_tensor().contiguous().T)) == DIM * DIM
