"""Weights read without prefetches or with far ones: the same bits, and a choice that is measured once."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from ext.tinygrad import cache_files
from ext.tinygrad.buffers import upload
from ext.tinygrad.graph import installation
from ext.tinygrad.kernels.cpu import weight_reading
from ext.tinygrad.kernels.cpu.cpu_kernels import CPUKernels
from ext.tinygrad.kernels.protocol import OneTokenProduct, Tunable, rope_table
from tests.ext.tinygrad.kernels.cpu.test_matmul import TYPES
from tests.reference import oracles

SIZES = 75, 256  # rows that fill no tile, and no even number of groups


# one of floats, one of integers, one of 256 columns a block: the others are make test's
@pytest.mark.parametrize(
    "type", [type if type in ("F16", "Q4_1", "Q6_K") else pytest.param(type, marks=pytest.mark.slow) for type in TYPES]
)
def test_a_token_s_products_are_to_the_bit_the_same_however_weights_are_read(type: str) -> None:
    rng, kernels = np.random.default_rng(0), [CPUKernels() for _ in range(1 + len(weight_reading.WAYS))]
    packed = [kernels[0].pack(oracles.random_matrix(rng, type, *SIZES), "CPU") for _ in range(2)]
    heads = [kernels[0].pack(oracles.random_matrix(rng, type, rows, 256), "CPU") for rows in (128, 64, 64)]
    x, norm, residual = (upload(rng.standard_normal((1, n)).astype(np.float32), "CPU") for n in (256, 256, 75))
    q = upload(rng.standard_normal((1, 2, 64)).astype(np.float32), "CPU")
    rope = upload(rope_table(64, 64, 64, 1e4), "CPU")
    for other, way in zip(kernels[1:], weight_reading.WAYS, strict=True):
        other.readings = {packed[0].format.name: way}

    def results(one: CPUKernels) -> list[np.ndarray]:
        k, v = (upload(np.ones((1, 64, 64), np.float16), "CPU") for _ in range(2))
        made = [
            one.linear_residual(x, packed[0], residual),
            one.norm_gated(x, norm, 1e-5, packed[0], packed[1]),
            *one.norm_qkv(x, norm, 1e-5, heads[0], heads[1], heads[2], rope, k, v, 40),
            one.attend(q, k, v, 40),
        ]
        return [tensor.numpy() for tensor in made]

    default = results(kernels[0])
    for other in kernels[1:]:
        for one, same in zip(results(other), default, strict=True):
            np.testing.assert_array_equal(one, same)


class TestTheChoice:
    @pytest.fixture(autouse=True)
    def folder(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
        monkeypatch.setattr(cache_files, "folder", lambda name: tmp_path / name)
        monkeypatch.setattr(weight_reading, "LEAST_BYTES", 1)
        installation.install()
        yield tmp_path / "tuning"
        installation.uninstall()

    @pytest.fixture
    def timed(self, monkeypatch: pytest.MonkeyPatch) -> list[list[float]]:
        """Gains that measuring finds for the ways of a format, taken from the end."""
        gains = list[list[float]]()
        monkeypatch.setattr(weight_reading, "_gains", lambda *rest: gains.pop())
        return gains

    def products(self, kernels: CPUKernels) -> list[OneTokenProduct]:
        rng = np.random.default_rng(0)

        def weights(type: str, *shape: int) -> tuple:
            return (kernels.pack(oracles.random_matrix(rng, type, *shape), "CPU"),)

        down, head = (weights("Q4_1", 64, 256), weights("Q4_1", 64, 256)), (weights("Q8_0", 96, 64),)
        return [OneTokenProduct("linear", True, head, eps=1e-5), OneTokenProduct("linear", False, down)]

    def test_is_measured_for_each_format_and_kept(self, timed: list[list[float]], folder: Path) -> None:
        kernels = CPUKernels()
        assert isinstance(kernels, Tunable)
        timed += [[0.9, 1.2], [1.01, 0.8]]
        assert not weight_reading.known_readings()
        kernels.tune(self.products(kernels))
        assert list(kernels.readings.values()) == ["far"] and not timed
        assert sorted(weight_reading.known_readings().values()) == ["default", "far"]
        again = CPUKernels()
        again.tune(self.products(again))  # measures nothing: there are no gains left
        assert again.readings == kernels.readings
        (file,) = folder.iterdir()
        assert sorted(gains["plain"] for gains in json.loads(file.read_text()).values()) == [0.9, 1.01]

    @pytest.mark.parametrize("damaged", ["[1]", '{"q4_1": 1.2}', '{"q4_1": {"plain": 1.2}}'])
    def test_is_measured_again_where_the_file_is_damaged(self, damaged: str, timed: list[list[float]], folder: Path) -> None:
        kernels = CPUKernels()
        timed += [[1.2, 1.1], [1.2, 1.3]]
        kernels.tune(self.products(kernels))
        assert sorted(kernels.readings.values()) == ["far", "plain"]
        (file,) = folder.iterdir()
        file.write_text(damaged)
        timed += [[0.9, 1.0], [0.9, 1.0]]
        kernels.tune(self.products(kernels))
        assert not kernels.readings and not timed

    @pytest.mark.parametrize("obstacle", ["TUNE=0", "no time", "too small"])
    def test_is_the_default_where_nothing_can_be_measured(
        self, obstacle: str, timed: list[list[float]], folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("TUNE", "0" if obstacle == "TUNE=0" else "1")
        if obstacle == "too small":
            monkeypatch.setattr(weight_reading, "LEAST_BYTES", 1 << 20)
        kernels = CPUKernels()
        kernels.tune(self.products(kernels), 0.0 if obstacle == "no time" else None)
        assert not kernels.readings and not (folder.exists() and list(folder.iterdir()))

    def test_is_made_with_a_clock(self, folder: Path) -> None:
        kernels = CPUKernels()
        kernels.tune(self.products(kernels), 0.01)
        (file,) = folder.iterdir()
        gains = json.loads(file.read_text())
        assert len(gains) == 2 and all(gain[way] > 0 for gain in gains.values() for way in weight_reading.WAYS)
