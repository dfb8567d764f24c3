"""How products are cut into tasks: threads find enough of them, and none is empty."""

from types import SimpleNamespace

import pytest

from ext.tinygrad.kernels.cpu.cpu_tasks import MAX_TASKS, prepare_tasks, product_tasks

SHAPES = {  # rows of the matrices, columns: of the default model's products
    "q, k and v": ((576, 192, 192), 576),
    "after attention": ((576,), 576),
    "gate and up": ((1536, 1536), 576),
    "down": ((576,), 1536),
    "head": ((49152,), 576),
}


def weights(name: str):  # type: ignore[no-untyped-def]
    rows, cols = SHAPES[name]
    return [SimpleNamespace(shape=(n, cols), nbytes=n * cols * 5 // 8) for n in rows]  # Q4_1


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("T", [1, 2, 4, 8, 16, 32, 128])
def test_every_product_is_shared_between_threads(name: str, T: int) -> None:
    """Also of a few tokens, which are read by as many threads as one token is."""
    tasks, groups = product_tasks(T, weights(name)), sum(w.shape[0] // 16 for w in weights(name))
    assert 3 <= tasks <= min(MAX_TASKS, groups)
    assert tasks == 3 or tasks % 4 == 0


@pytest.mark.parametrize("T", [1, 8, 16, 32, 35, 128, 256])
def test_no_task_is_without_a_token(T: int) -> None:
    assert 1 <= prepare_tasks(T) <= T
