"""Every kernel in every format, compiled by NVRTC for each generation of cards: no spills where it counts.

Needs NVRTC and no card: pip install -e '.[cuda]'."""

import re
from functools import cache

import pytest

from ext.tinygrad.kernels.gpu.tuning import STATIC_LOCAL_BYTES, Tuning
from tests.ext.tinygrad.kernels.gpu.nvrtc import compile_cuda, nvrtc_version
from tests.ext.tinygrad.kernels.gpu.sources import PACKED, sources

pytestmark = [pytest.mark.cuda_compile, pytest.mark.slow]

SHAPES = {  # dim, hidden, heads, kv_heads, vocab, rows of the cache
    "7b": (4096, 11008, 32, 32, 32000, 2048),
    "1.1b": (2048, 5632, 32, 4, 32000, 2048),
}
ARCHITECTURES = (70, 75, 80, 90)


@pytest.fixture(autouse=True, scope="module")
def _needs_nvrtc() -> None:
    if nvrtc_version() is None:
        pytest.skip("NVRTC is not installed: pip install -e '.[cuda]'")


@cache
def compiled(source: str, architecture: int) -> tuple[int, int, int]:
    """(registers, bytes of local memory that registers are spilled to, bytes of shared memory) of a kernel."""
    _, log = compile_cuda(source, f"sm_{architecture}")
    used = re.search(r"Used (\d+) registers", log)
    assert used, log
    spilled = sum(int(n) for n in re.findall(r"(\d+) bytes spill", log))
    shared = re.search(r"(\d+) bytes smem", log)
    return int(used[1]), spilled, int(shared[1]) if shared else 0


@pytest.mark.sweep
@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("T", [1, 8, 32, 512])
@pytest.mark.parametrize("form", PACKED, ids=lambda form: form.name)
def test_no_product_and_no_attention_spills(form: object, T: int, architecture: int) -> None:
    name: str = form.name  # type: ignore[attr-defined]
    if T > 1 and name not in ("q4_0", "q6_k", "f16", "f32") and (architecture, T) not in ((90, 512), (90, 8)):
        pytest.skip("formats differ in what decode reads; one architecture compiles the tiles of all")
    if architecture == 75 and (name, T) not in (("q4_0", 32), ("f16", 512)):
        pytest.skip("differs from the others in the matrix instruction alone")
    tuning = Tuning("gpu", 132, 1024, STATIC_LOCAL_BYTES, "cuda", architecture)
    for model, shape in SHAPES.items() if name in ("q4_0", "f16") else [("7b", SHAPES["7b"])]:
        for served, (source, _) in sources(tuning, form, T, *shape).items():  # type: ignore[arg-type]
            registers, spilled, shared = compiled(source, architecture)
            assert not spilled, f"{model}: {served} spills {spilled} bytes"
            assert registers <= 255 and shared <= STATIC_LOCAL_BYTES


def test_a_refused_source_says_why() -> None:
    with pytest.raises(RuntimeError, match='identifier "nothing" is undefined'):
        compile_cuda('extern "C" __global__ void k(int* x) { x[0] = nothing; }', "sm_80")
