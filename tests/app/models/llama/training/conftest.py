import numpy as np
import pytest

from app.models.llama.llama import Llama
from app.models.llama.training.samples import Sample
from ext.tinygrad.kernels.cpu.cpu_kernels import CPUKernels
from tests.reference.tiny import make_tiny_gguf


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Llama:
    """Two layers of 8-bit integers."""
    if reason := CPUKernels.available():
        pytest.skip(reason)
    path = make_tiny_gguf(tmp_path_factory.mktemp("training") / "tiny.gguf", type="Q8_0")
    return Llama.load(path, max_context=128, device="CPU")


@pytest.fixture(scope="session")
def samples(tiny: Llama) -> list[Sample]:
    """Twenty of 8 to 40 tokens; the second half of each is learnt."""
    random = np.random.default_rng(2)
    found = []
    for n in random.integers(8, 41, 20):
        ids = random.integers(3, tiny.config.vocab_size, n)
        found.append(Sample(tuple(ids.tolist()), tuple(i >= n // 2 for i in range(n))))
    return found
