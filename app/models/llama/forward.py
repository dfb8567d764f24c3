"""A forward pass over a fixed number of tokens: one block captured as a graph and replayed for every layer, the position a Variable."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import numpy as np
from tinygrad import Tensor, TinyJit, UOp

from app.models.llama.kv_cache import KVCache, LayerCache
from app.models.llama.transformer import Transformer
from ext.tinygrad import buffers
from ext.tinygrad.graph.compose import Composite, compose
from ext.tinygrad.graph.profile import KernelTime

if TYPE_CHECKING:
    from ext.tinygrad.graph.opencl import CLComposite

POSITION = "start_pos"


class Graph:
    """One piece of a pass, captured at its first use; `inputs` are the buffers that may be others at each replay."""

    def __init__(self, function: Callable[[UOp], Tensor | Sequence[Tensor]], position: UOp):
        self.position = position

        def run(start_pos: UOp, *inputs: Tensor) -> Any:
            # TinyJit finds the inputs' buffers wherever the function met them; it need not take them from here
            result = function(start_pos)
            Tensor.realize(*([result] if isinstance(result, Tensor) else result))
            return result

        self.jit = TinyJit(run)

    def capture(self, inputs: Sequence[Tensor], start_pos: int) -> None:
        """Capture, which runs it once as well."""
        # every buffer is realized by now, so nothing needs the eager first call that TinyJit makes by itself
        self.jit.cnt = 1
        self.jit(self.position.bind(start_pos), *inputs)

    def __call__(self, inputs: Sequence[Tensor], start_pos: int) -> None:
        # TinyJit itself would look at each input again at every call
        self.jit.captured([t.uop.base for t in inputs], {POSITION: start_pos})


class Pass:
    """T tokens (fewer are padded) from their ids into a cache, and on to logits where those are wanted.

    The residual stream is one buffer that every block reads and overwrites: so one captured block serves all layers of its
    layout, tracing costs what one layer costs, and intermediate results stay where the processor's cache has them.
    """

    def __init__(self, model: Transformer, T: int, capacity: int, device: str, with_logits: bool):
        self.model, self.T = model, T
        self.position = UOp.variable(POSITION, 0, capacity - 1)
        self.ids = buffers.upload(np.zeros(T, np.int32), device)
        self.x = buffers.upload(np.zeros((T, model.config.dim), np.float32), device)
        self._blocks: dict[tuple, Graph] = {}
        self._embed = Graph(lambda _: _overwrite(self.x, model.embed(self.ids)), self.position)
        self._head = Graph(lambda _: model.head(self.x), self.position) if with_logits else None
        self._steps: WeakKeyDictionary[KVCache, Composite | CLComposite | list[tuple[Graph, list[Tensor]]]] = WeakKeyDictionary()

    def __call__(self, ids: Sequence[int], start_pos: int, cache: KVCache) -> None:
        """Run over ids at start_pos; the caller keeps count of what is in the cache."""
        padded = np.zeros(self.T, np.int32)
        padded[: len(ids)] = ids
        buffers.write(self.ids, padded)
        steps = self._steps.get(cache) or self._prepare(cache, start_pos)
        if not isinstance(steps, list):
            steps({POSITION: start_pos})
        else:
            for graph, inputs in steps:
                graph(inputs, start_pos)

    def profile(self, start_pos: int, cache: KVCache, replays: int) -> list[KernelTime] | None:
        """Time each kernel over ids that mean nothing, from start_pos on; None where passes are no native graphs."""
        self([], start_pos, cache)
        steps = self._steps[cache]
        return steps.profile({POSITION: start_pos}, replays) if isinstance(steps, Composite) else None

    @property
    def logits(self) -> Tensor:
        """float32 (T, V) after the last call; a pass made without them has none."""
        assert self._head is not None
        return self._head.jit.captured.ret

    def _prepare(self, cache: KVCache, start_pos: int) -> "Composite | CLComposite | list[tuple[Graph, list[Tensor]]]":
        """The pieces in their order with this cache's buffers, as one native call where the device has such a thing."""
        steps = [(self._embed, [self.ids, self.x, *self.model.tok_embeddings.tensors])]
        for i, (block, layer) in enumerate(zip(self.model.blocks, cache.layers, strict=True)):
            inputs = [self.x, layer.k, layer.v, *block.tensors]
            if (graph := self._blocks.get(block.layout)) is None:
                graph = self._blocks[block.layout] = Graph(self._block_function(i, layer), self.position)
            steps.append((graph, inputs))
        if self._head is not None:
            steps.append((self._head, [self.x, *self.model.output.tensors]))
        for graph, inputs in steps:
            if graph.jit.captured is None:
                # what it computes now is computed again in its turn: into the same rows of the cache, from the right input then
                graph.capture(inputs, start_pos)
        self._steps[cache] = compose([(graph.jit, inputs) for graph, inputs in steps]) or steps
        return self._steps[cache]

    def _block_function(self, i: int, layer: LayerCache) -> Callable[[UOp], list[Tensor]]:
        def function(start_pos: UOp) -> list[Tensor]:
            x, stored = self.model.block(i, self.x, layer, start_pos)
            return [_overwrite(self.x, x), stored.k, stored.v]

        return function


def _overwrite(target: Tensor, values: Tensor) -> Tensor:
    """`values` stored into the buffer of `target`, where the next graph finds them."""
    return Tensor(target.uop.after(target.uop.store(values.uop)))
