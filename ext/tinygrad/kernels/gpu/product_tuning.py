"""Which work-groups suit the products of one token, measured over a model's own weights: what `GPUKernels.tune` does."""

import math
import os
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from tinygrad import Tensor

from ext.tinygrad.buffers import upload
from ext.tinygrad.kernels.gpu.operands import activation_bytes
from ext.tinygrad.kernels.gpu.tuner import LAYERS, Tuner, candidates
from ext.tinygrad.kernels.gpu.tuning import DecodeShape
from ext.tinygrad.kernels.packed.packed_matrix import PackedMatrix
from ext.tinygrad.kernels.protocol import OneTokenProduct
from ext.tinygrad.kernels.quantised_rows import QUANTISED, row_elements

if TYPE_CHECKING:
    from ext.tinygrad.kernels.gpu.gpu_kernels import GPUKernels


def product_key(name: str, weights: Sequence[PackedMatrix], blocks: bool = False) -> str:
    """What a product's speed depends on."""
    return f"{name}{' in blocks' * blocks} {' '.join(f'{w.format.name} {w.shape[0]}' for w in weights)} x {weights[0].shape[1]}"


def tune_products(kernels: "GPUKernels", products: Sequence[OneTokenProduct], seconds: float | None) -> None:
    """Set kernels.shapes to what was measured in so many seconds at most; None: as long as it takes."""
    tuning = kernels.tuning
    if tuning.kind != "gpu" or not products or os.environ.get("TUNE", "1") == "0":
        return
    tuner = Tuner(products[0].weights[0][0].data.device, tuning)
    until = math.inf if seconds is None else time.perf_counter() + seconds
    numbers = _Numbers(tuner.device)
    for product in sorted(products, key=lambda p: -sum(w.nbytes for w in p.weights[0]) * len(p.weights)):
        weights = product.weights[0]
        key, cols = product_key(product.name, weights, product.blocks), weights[0].shape[1]
        default = kernels.shape(product.name, weights, product.blocks)
        shapes = candidates(default, tuning.most_warps(cols, any(w.format.element for w in weights)), tuning.most_items)

        def run(shape: DecodeShape, product: OneTokenProduct = product, key: str = key) -> list[Tensor]:
            kernels.shapes[key] = shape
            layers = enumerate(product.weights[:LAYERS])
            return [tensor for i, layer in layers for tensor in _launched(kernels, product, layer, i, numbers)]

        kernels.shapes[key] = tuner.choose(key, default, shapes, run, until)
    tuner.save()


class _Numbers:
    """Buffers of zeros, each made once."""

    def __init__(self, device: str):
        self.device, self._made = device, dict[tuple[object, ...], Tensor]()

    def __call__(self, name: str, *shape: int, dtype: type[np.generic] = np.float32) -> Tensor:
        if (name, shape) not in self._made:
            self._made[name, shape] = upload(np.zeros(shape, dtype), self.device)
        return self._made[name, shape]


def _launched(
    kernels: "GPUKernels", product: OneTokenProduct, weights: Sequence[PackedMatrix], layer: int, zeros: _Numbers
) -> list[Tensor]:
    """A product of a layer over numbers that mean nothing."""
    cols = weights[0].shape[1]
    x = zeros("x", 1, cols)
    if product.name == "qkv":
        heads = [w.shape[0] // product.head_dim for w in weights]
        row, kind = (row_elements(product.head_dim, QUANTISED), np.uint8) if product.blocks else (product.head_dim, np.float16)
        k, v = (zeros(f"{name} {layer}", heads[1], 2, row, dtype=kind) for name in "kv")
        wq, wk, wv = weights
        return list(kernels.norm_qkv(x, x, 1.0, wq, wk, wv, zeros("rope", 2, product.head_dim // 2, 2), k, v, 0))
    if product.name == "gated":
        return [kernels.norm_gated(x, x, 1.0, weights[0], weights[1])]
    if product.norm:
        return [kernels.norm_linear(x, x, 1.0, weights[0])]
    activations = zeros("activations", 1, activation_bytes(cols), dtype=np.uint8)
    return [kernels.linear_residual(activations, weights[0], zeros("residual", 1, weights[0].shape[0]))]
