"""No kernel touches a byte outside its buffers, and none cares which thread runs which task, or when."""

from dataclasses import replace

import numpy as np
import pytest
from tinygrad import Tensor, dtypes

from ext.tinygrad.kernels.cpu.cpu_kernels import CPUKernels
from ext.tinygrad.kernels.packed.packed_matrix import PackedMatrix
from ext.tinygrad.kernels.protocol import rope_table
from tests.reference import guarded, oracles

pytestmark = [pytest.mark.slow, pytest.mark.sweep]

KERNELS, EPS = CPUKernels(), 1e-5
HEADS, KV_HEADS, HEAD_DIM, DIM, HIDDEN, VOCAB, ROWS = 6, 3, 64, 256, 1600, 4001, 100


def layer(type: str, T: int, start_pos: int) -> list[Tensor]:
    """Every operation once; the last chunk of the cache is used to its last row."""
    rng = np.random.default_rng(T)

    def put(*shape: int) -> Tensor:
        return Tensor(rng.standard_normal(shape).astype(np.float32), device="CPU").realize()

    def weight(rows: int, cols: int):  # type: ignore[no-untyped-def]
        if type.endswith("_rows"):  # as a file has them: rows in whole groups
            return PackedMatrix.in_place(oracles.random_matrix(rng, type.removesuffix("_rows"), rows // 16 * 16, cols), "CPU")
        return KERNELS.pack(oracles.random_matrix(rng, type, rows, cols), "CPU")

    x, norm = put(T, DIM), put(DIM)
    caches = [put(KV_HEADS, ROWS, HEAD_DIM).cast(dtypes.float16).contiguous().realize() for _ in range(2)]
    rope = Tensor(rope_table(ROWS, HEAD_DIM, HEAD_DIM, 1e4), device="CPU").realize()
    projections = [weight(n * HEAD_DIM, DIM) for n in (HEADS, KV_HEADS, KV_HEADS)]
    table = weight(VOCAB, DIM)
    q, k, v = KERNELS.norm_qkv(x, norm, EPS, *projections, rope, *caches, start_pos)
    attended = KERNELS.attend(q, k, v, start_pos)
    out = KERNELS.linear_residual(put(T, 512), weight(DIM, 512), x)
    hidden = KERNELS.norm_gated(x, norm, EPS, weight(HIDDEN, DIM), weight(HIDDEN, DIM))
    logits = KERNELS.norm_linear(x, norm, EPS, table)
    rows = KERNELS.embed(Tensor(np.array([0, table.shape[0] - 1] * T, np.int32)[:T], device="CPU").realize(), table)
    return [attended, out, hidden, logits, rows]


@pytest.mark.parametrize("type", ["Q4_1", "Q4_0", "Q5_1", "Q8_0", "Q6_K", "F16", "F32", "F16_rows", "BF16_rows"])
@pytest.mark.parametrize("T", [1, 35])
def test_no_byte_outside_a_buffer_is_touched_and_no_order_of_tasks_matters(type: str, T: int) -> None:
    plan = guarded.launches(*layer(type, T, ROWS - T))
    assert len(plan) >= 6 and max(launch.tasks for launch in plan) > 4
    by_name = {launch.name: launch for launch in plan}
    attention = by_name["attend_decode" if T == 1 else "attend_prefill"]
    assert by_name["qkv"].buffers[0] is attention.buffers[1]  # the kernels are chained: what is compared below went through all of them
    first = guarded.run(plan, at_end=True)
    assert all(np.abs(first[id(launch.buffers[0])].view(np.int32)).max() > 0 for launch in plan if launch.name != "prepare")
    for others in (
        guarded.run(plan, at_end=False, backwards=True),
        guarded.run(plan, at_end=True, threads=2),
        guarded.run(plan, at_end=False, threads=5),
    ):
        for key, expected in first.items():
            np.testing.assert_array_equal(others[key], expected)


@pytest.mark.parametrize("T", [16, 32, 128, 256])
def test_no_cache_line_of_activations_is_written_by_two_tasks(T: int) -> None:
    """Cores that write to one line in turn wait for it: as integers, rows of 16 took a third longer in a whole pass."""
    rng = np.random.default_rng(T)
    x = Tensor(rng.standard_normal((T, DIM)).astype(np.float32), device="CPU").realize()
    weight = KERNELS.pack(oracles.random_matrix(rng, "Q4_0", 64, DIM), "CPU")
    (prepare,) = (one for one in guarded.launches(KERNELS.norm_linear(x, None, EPS, weight)) if one.name == "prepare")
    before, owner = rng.integers(0, 256, prepare.buffers[0].nbytes, np.uint8), dict[int, int]()
    # what a task leaves differs from this somewhere in each line
    np.frombuffer(prepare.buffers[0].as_memoryview(force_zero_copy=True), np.uint8)[:] = before
    for task in range(prepare.tasks):
        after = guarded.run([replace(prepare, tasks=task + 1)])[id(prepare.buffers[0])]
        for line in np.unique(np.nonzero(after != before)[0] // 64).tolist():
            assert owner.setdefault(line, task) == task
        before = after
    empty = max(1, T // KERNELS.span_tokens) * DIM // 32  # a line of each block
    assert prepare.tasks == T // 16 and len(owner) == before.size // 64 - empty


def test_the_guard_notices() -> None:
    """The fence itself: the byte after a guarded buffer is nobody's."""
    copy = guarded.Guarded(100, at_end=True)
    assert (copy.address + 100) % guarded.PAGE == 0 and guarded.Guarded(100, at_end=False).address % guarded.PAGE == 0
    with open("/proc/self/maps") as maps:
        rights = {line.split("-")[0]: line.split()[1] for line in maps}
    assert rights[f"{copy.address + 100:x}"].startswith("---")
