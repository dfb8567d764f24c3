"""Adapters over a model whose weights stay packed: peft's logits, on every kernel set; switched, scaled and put together."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from app.models.llama import Llama
from app.models.llama.lora.adapter import AdapterError
from app.models.llama.lora.merged_checkpoint import MergedCheckpoint
from tests.app.models.llama.conftest import KERNELS
from tests.reference.adapters import CASES, DATA, LENGTH, POSITIONS, stored_cases, write_adapter
from tests.reference.families import CONTEXT, ids_of, write_family

pytestmark = pytest.mark.slow

STORED, EXPECTED = stored_cases(), np.load(DATA / "adapters.npz")
IDS = ids_of(LENGTH)
SETS = [("CPU", "twins"), ("CPU", "fused"), ("CL", "fused"), ("CL", "gpu")]
EVERYWHERE = ("all", "dora", "dora-embedding", "saved")  # cases that go through all that a kernel set has


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("adapters")


def paths(name: str, folders: Path) -> tuple[Path, Path]:
    family = CASES[name][0]
    return write_family(family, folders / family), write_adapter(STORED[name], folders / f"{name}-adapter")


def load(name: str, folders: Path, device: str = "CPU", kernels: str = "fused", scale: float = 1.0, **options: Any) -> Llama:
    if device == "CL":
        from ext.tinygrad.backend import describe_device
        from ext.tinygrad.toolchain import BackendError

        try:
            describe_device(device)
        except BackendError as error:
            pytest.skip(str(error))
    base, adapter = paths(name, folders)
    return Llama.load(base, CONTEXT, device=device, kernels=KERNELS[kernels](device), adapters=[(adapter, scale)], **options)


def close(found: np.ndarray, name: str, share: float = 1e-4) -> None:
    expected = EXPECTED[name]
    np.testing.assert_allclose(found, expected, rtol=0, atol=share * np.abs(expected).max())


@pytest.mark.parametrize("name", CASES)
def test_logits_are_those_of_peft(name: str, folders: Path) -> None:
    llama = load(name, folders)
    close(llama.logits(IDS)[list(POSITIONS)], name)
    cache = llama.new_cache()
    llama.prefill(IDS[:31], cache)
    steps = [llama.engine.step(token, cache).copy() for token in IDS[31:]]
    assert np.abs(steps[-1] - EXPECTED[name][-1]).max() < 1e-4 * np.abs(EXPECTED[name]).max()


@pytest.mark.sweep
@pytest.mark.parametrize("name", EVERYWHERE)
@pytest.mark.parametrize("device, kernels", [place for place in SETS if place != ("CPU", "fused")])
def test_logits_are_those_of_peft_on_every_kernel_set(name: str, device: str, kernels: str, folders: Path) -> None:
    llama = load(name, folders, device, kernels)
    close(llama.logits(IDS)[list(POSITIONS)], name)
    cache = llama.new_cache()
    llama.prefill(IDS[:46], cache)
    steps = [llama.engine.step(token, cache).copy() for token in IDS[46:]]
    assert np.abs(steps[-1] - EXPECTED[name][-1]).max() < 1e-4 * np.abs(EXPECTED[name]).max()


@pytest.mark.parametrize("name", ["all", "dora", "head"])
def test_over_eight_bit_weights_it_is_as_near_as_the_base_is(name: str, folders: Path) -> None:
    """What peft computes over floats, within what quantising the weights and the activations moves."""
    llama = load(name, folders, quantize=True)
    base, _ = paths(name, folders)
    moved = np.abs(llama.adapted([]).logits(IDS) - Llama.load(base, CONTEXT).logits(IDS)).max()
    assert np.abs(llama.logits(IDS)[list(POSITIONS)] - EXPECTED[name]).max() < 2 * moved


def test_one_copy_of_the_base_serves_every_set_of_adapters(folders: Path) -> None:
    base, adapter = paths("all", folders)
    _, other = paths("dora", folders)
    llama = Llama.load(base, CONTEXT)
    plain = llama.logits(IDS)
    one, both = llama.adapted([(adapter, 1.0)]), llama.adapted([(adapter, 0.5), (other, 1.0)])
    again = llama.adapted([(other, 1.0), (adapter, 0.5)])
    assert again.adapters is both.adapters  # whatever the order
    assert llama.adapted([]) is llama
    assert both.adapted([(adapter, 0.0)]).adapters is None
    close(one.logits(IDS)[list(POSITIONS)], "all")
    assert one.adapters is not None
    assert one.adapters.model.blocks[0].wq.tensors[0] is llama.model.blocks[0].wq.tensors[0]
    assert 0 < one.adapters.nbytes < llama.model.nbytes
    merged = MergedCheckpoint(_open(base), [(llama.adapter(adapter), 0.5), (llama.adapter(other), 1.0)])
    from app.models.llama.checkpoint.conversion import convert

    expected = Llama.load(convert(merged, folders / "both.gguf", "f32"), CONTEXT).logits(IDS)
    np.testing.assert_allclose(both.logits(IDS), expected, rtol=0, atol=1e-4 * np.abs(expected).max())
    np.testing.assert_array_equal(llama.logits(IDS), plain)


def _open(path: Path) -> Any:
    from app.models.llama.checkpoint import open_checkpoint

    return open_checkpoint(path)


def test_a_scale_of_zero_is_the_base_to_the_bit(folders: Path) -> None:
    llama = load("all", folders, scale=0.0)
    assert llama.adapters is None
    np.testing.assert_array_equal(llama.logits(IDS), Llama.load(paths("all", folders)[0], CONTEXT).logits(IDS))


def test_caches_keep_what_filled_them(folders: Path, tmp_path: Path) -> None:
    """Two conversations by turns, one with an adapter and one without; a snapshot of one is foreign to the other."""
    from app.models.llama.snapshot import SnapshotError

    llama = load("all", folders)
    bare = llama.adapted([])
    adapted, plain = llama.new_cache(), bare.new_cache()
    for cache in (adapted, plain):
        llama.prefill(IDS[:20], cache)
    first = [llama.engine.step(IDS[20], cache).copy() for cache in (adapted, plain)]
    assert np.abs(first[0] - first[1]).max() > 1e-2
    adapted.snapshot(tmp_path / "snapshot")
    with pytest.raises(SnapshotError, match="another identity"):
        plain.restore(tmp_path / "snapshot")
    again = llama.new_cache()
    again.restore(tmp_path / "snapshot")
    np.testing.assert_array_equal(llama.engine.step(IDS[21], again), llama.engine.step(IDS[21], adapted))
    with pytest.raises(SnapshotError, match="another identity"):
        llama.adapted([(paths("all", folders)[1], 0.5)]).new_cache().restore(tmp_path / "snapshot")


def test_an_adapter_of_another_model_is_refused(folders: Path) -> None:
    llama = Llama.load(write_family("mixtral", folders / "mixtral"), CONTEXT)
    with pytest.raises(AdapterError, match="use the base that it was trained on"):
        llama.adapted([(paths("all", folders)[1], 1.0)])
    with pytest.raises(AdapterError, match="does not exist"):
        llama.adapted([(folders / "nothing", 1.0)])
