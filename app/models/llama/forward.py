"""A forward pass over a fixed number of tokens: one block captured as a graph and replayed for every layer, the position a Variable.

The captured graphs of a pass are kept on disk, one small file each, so that later starts read what the first one traced. GRAPH_CACHE=0
traces at every start.
"""

import contextlib
import os
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
from tinygrad import Tensor, TinyJit, UOp

from app.models.llama.kv_cache import CacheArena, KVCache, LayerCache
from app.models.llama.transformer import Transformer
from app.models.llama.weight_cache import WORTH_IT
from ext.tinygrad import buffers, cache_files
from ext.tinygrad.errors import TownhallError
from ext.tinygrad.graph import saved_graph
from ext.tinygrad.graph.compose import Composite, compose
from ext.tinygrad.graph.profile import KernelTime
from ext.tinygrad.graph.saved_graph import StoredGraph, known_buffers
from ext.tinygrad.kernels.protocol import Position, Ranking, RowPositions

MOST_BYTES = 16 << 20  # of all files together; one has 20 to 100 KB
SOURCES = ("forward.py", "transformer.py", "kv_cache.py")  # beside this one, what decides how a pass is traced


class GraphCache:
    """The file of one kind of pass over one shape of model; `load` what is there, `add` what was captured instead, `save` it."""

    def __init__(self, model: Transformer, device: str, *facts: object):
        """`facts` are what else the graphs depend on."""
        self._path: Path | None = None
        self._graphs: dict[str, dict[str, Any] | None] = {}
        self._binaries: list[bytes] = []
        # a model smaller than that belongs to a test: it is there to be traced
        if device == "CPU" and model.nbytes >= WORTH_IT and os.environ.get("GRAPH_CACHE", "1") != "0":
            texts = [Path(__file__).with_name(name).read_bytes() for name in SOURCES]
            layouts = [model.tok_embeddings.layout, *(block.layout for block in model.blocks), model.output.layout]
            measured = sorted(getattr(model.kernels, "readings", {}).items())  # of the CPU's kernels: changes their code, not their results
            name = saved_graph.key(model.config, model.kernels.name, measured, layouts, texts, *facts)
            self._path = cache_files.folder("graphs") / f"{name}.graphs"

    def load(self) -> Mapping[str, StoredGraph]:
        """The graphs by name; empty where there is no sound file."""
        if self._path is None:
            return {}
        try:
            graphs = saved_graph.unpack(self._path.read_bytes())
        except (OSError, ValueError, KeyError, TypeError, IndexError):
            return {}
        cache_files.touch(self._path)
        return graphs

    def add(self, name: str, jit: Any, inputs: list[Tensor], known: frozenset[int]) -> None:
        """A captured TinyJit and the tensors that it was captured with; see saved_graph.describe."""
        if self._path is not None:
            self._graphs[name] = saved_graph.describe(jit, inputs, known, self._binaries)

    def save(self) -> None:
        """Keep what was added, if all of it can be kept; a disk that is full or may not be written costs the next start its speed."""
        graphs = {name: graph for name, graph in self._graphs.items() if graph is not None}
        if self._path is None or len(graphs) < len(self._graphs):
            return
        content = saved_graph.pack(graphs, self._binaries)
        with contextlib.suppress(OSError):
            cache_files.make_room(self._path, len(content), MOST_BYTES)
            with cache_files.written(self._path) as part:
                part.write_bytes(content)


POSITION = "start_pos"


class CompileFailure(TownhallError):
    """The C compiler would not have one of our kernels, or one that tinygrad generated."""

    def __init__(self, piece: str, error: subprocess.CalledProcessError):
        super().__init__(
            f"{error.cmd[0]} cannot compile the kernels of the model's {piece} (exit code {error.returncode}; what it says is above): "
            "point CC at another clang, or set KERNELS=0 to run on tinygrad's generated code"
        )


class CapturedGraph:
    """One piece of a pass, captured at its first use or kept from an earlier start; `inputs` are the buffers that it works on.

    Each replay may have other inputs. A buffer that it uses and that is none of them is the same for ever, and keeps the graph from being
    kept: so there should be none."""

    def __init__(self, name: str, function: Callable[[Position], Tensor | Sequence[Tensor]], position: UOp | RowPositions):
        self.name, self.position = name, position
        self.kept: StoredGraph | None = None

        def run(start_pos: UOp | None, *inputs: Tensor) -> Any:
            # TinyJit finds the inputs' buffers wherever the function met them; it need not take them from here
            result = function(position if start_pos is None else start_pos)
            Tensor.realize(*([result] if isinstance(result, Tensor) else result))
            return result

        self.jit = TinyJit(run)

    @property
    def ready(self) -> bool:
        return self.kept is not None or self.jit.captured is not None

    @property
    def results(self) -> Sequence[Tensor]:
        """What the function returned, as the last replay left it."""
        if self.kept is not None:
            return [result for result in self.kept.results if result is not None]
        returned: Tensor | Sequence[Tensor] = self.jit.captured.ret
        return [returned] if isinstance(returned, Tensor) else returned

    def capture(self, inputs: Sequence[Tensor], start_pos: int) -> None:
        """Capture, which runs it once as well. CompileFailure where the compiler gives up."""
        # every buffer is realized by now, so nothing needs the eager first call that TinyJit makes by itself
        self.jit.cnt = 1
        try:
            self.jit(self.position.bind(start_pos) if isinstance(self.position, UOp) else None, *inputs)
        except subprocess.CalledProcessError as error:
            raise CompileFailure(self.name, error) from error

    def __call__(self, inputs: Sequence[Tensor], start_pos: int) -> None:
        # TinyJit itself would look at each input again at every call
        self.jit.captured([t.uop.base for t in inputs], {POSITION: start_pos} if isinstance(self.position, UOp) else {})


Steps = Composite | list[tuple[CapturedGraph, list[Tensor]]]  # of a pass: one native call, or graph by graph


class Pass:
    """T tokens (fewer are padded) from their ids into a cache, and on to logits where those are wanted.

    The residual stream is one buffer that every block reads and overwrites: so one captured block serves all layers of its
    layout, tracing costs what one layer costs, and intermediate results stay where the processor's cache has them.
    """

    position: UOp | RowPositions

    def __init__(self, model: Transformer, T: int, capacity: int, device: str, with_logits: bool):
        self.model, self.T = model, T
        # a pass that begins within the window may not write beyond a cache's rows, of which the RoPE table has as many
        self.position = UOp.variable(POSITION, 0, min(capacity - 1, model.rows - T))
        self._make(device, with_logits)

    def _make(self, device: str, with_logits: bool) -> None:
        model, T = self.model, self.T
        self.ids = buffers.upload(np.zeros(T, np.int32), device)
        self.x = buffers.upload(np.zeros((T, model.config.dim), np.float32), device)
        self._graphs: dict[tuple, CapturedGraph] = {}  # by what they are of, and its layout
        self.with_logits = with_logits
        self._head: CapturedGraph | None = None  # of the last call
        self._steps: WeakKeyDictionary[KVCache, Steps] = WeakKeyDictionary()

    def __call__(self, ids: Sequence[int], start_pos: int, cache: KVCache) -> None:
        """Run over ids at start_pos; the caller keeps count of what is in the cache."""
        padded = np.zeros(self.T, np.int32)
        padded[: len(ids)] = ids
        buffers.write(self.ids, padded)
        steps = self._steps.get(cache) or self._prepare(cache, start_pos)
        if self.with_logits:
            self._head = self._head_of(cache.model or self.model)
        if isinstance(steps, Composite):
            steps({POSITION: start_pos}, then={POSITION: start_pos + self.T})
        else:
            for graph, inputs in steps:
                graph(inputs, start_pos)

    def prepared(self, cache: KVCache) -> bool:
        """Is there nothing left to be captured, or settled, before it runs over this cache?"""
        return cache in self._steps

    def bind(self, cache: KVCache, start_pos: int) -> bool:
        """Have it prepared: 10 to 20 ms of Python for 30 layers; False where it was not yet. What stands from start_pos on may be lost."""
        if self.prepared(cache):
            return True
        self._prepare(cache, start_pos)
        return False

    def profile(self, start_pos: int, cache: KVCache, replays: int) -> list[KernelTime] | None:
        """Time each kernel over ids that mean nothing, from start_pos on; None where the pass is no native graph."""
        self([], start_pos, cache)
        steps = self._steps[cache]
        return steps.profile({POSITION: start_pos}, replays) if isinstance(steps, Composite) else None

    @property
    def logits(self) -> Tensor:
        """float32 (T, V) after the last call; a pass made without them has none."""
        assert self._head is not None
        return self._head.results[0]

    @property
    def largest(self) -> Tensor | None:
        """Of the logits after the last call (Ranking.largest), where the device found them."""
        assert self._head is not None
        return self._head.results[1] if len(self._head.results) > 1 else None

    @property
    def _also(self) -> list[Tensor]:
        """What else every block reads."""
        return [self.position.table] if isinstance(self.position, RowPositions) else []

    def _prepare(self, cache: KVCache, start_pos: int) -> Steps:
        """The pieces in their order with this cache's buffers, as one native call where the device has such a thing."""
        self._steps[cache] = self._compose(cache.model or self.model, cache.layers, start_pos)
        return self._steps[cache]

    def _compose(self, model: Transformer, layers: Sequence[LayerCache], start_pos: int) -> Steps:
        # what could not be captured was made of buffers that may be others by now
        self._graphs = {key: graph for key, graph in self._graphs.items() if graph.ready}
        steps = [(self._embed_of(model), [self.ids, self.x, *model.tok_embeddings.tensors])]
        layouts = list(dict.fromkeys(block.layout for block in model.blocks))
        for i, (block, layer) in enumerate(zip(model.blocks, layers, strict=True)):
            name = f"block {layouts.index(block.layout)}"
            graph = self._graph("block", block.layout, name, self._block_function(model, i, layer))
            steps.append((graph, distinct([self.x, layer.k, layer.v, *self._also, *block.tensors])))
        if self.with_logits:
            steps.append((self._head_of(model), [self.x, *model.norm.tensors, *model.output.tensors]))
        missing: dict[str, tuple[CapturedGraph, list[Tensor]]] = {}
        for graph, inputs in steps:
            if not graph.ready:
                missing.setdefault(graph.name, (graph, inputs))  # of several layers the first, whose block it was made of
        if missing:
            self._make_ready(missing, model, layers, start_pos)
        return compose([(graph.kept or graph.jit, inputs) for graph, inputs in steps]) or steps

    def _make_ready(
        self, missing: dict[str, tuple[CapturedGraph, list[Tensor]]], model: Transformer, layers: Sequence[LayerCache], start_pos: int
    ) -> None:
        """From the disk, all of them, or by capturing: what that computes is computed again in its turn, from the right input then."""
        rows, kind = layers[0].k.shape, layers[0].k.dtype
        position = self.position if isinstance(self.position, UOp) else "rows"
        files = GraphCache(model, self.x.device, self.T, position, self.with_logits, rows, kind, self.model.rows)
        kept = files.load()
        if missing.keys() <= kept.keys():
            for name, (graph, _) in missing.items():
                graph.kept = kept[name]
            return
        for name, (graph, inputs) in missing.items():
            known = known_buffers()
            graph.capture(inputs, start_pos)
            files.add(name, graph.jit, inputs, known)
        files.save()

    def _graph(self, kind: str, layout: tuple, name: str, function: Callable[[Position], Tensor | Sequence[Tensor]]) -> CapturedGraph:
        if (kind, layout) not in self._graphs:
            self._graphs[kind, layout] = CapturedGraph(name, function, self.position)
        return self._graphs[kind, layout]

    def _embed_of(self, model: Transformer) -> CapturedGraph:
        return self._graph("embed", model.tok_embeddings.layout, "embed", lambda _: _overwrite(self.x, model.embed(self.ids)))

    def _head_of(self, model: Transformer) -> CapturedGraph:
        return self._graph("head", model.output.layout, "head", lambda _: self._logits_and_largest(model))

    def _logits_and_largest(self, model: Transformer) -> list[Tensor]:
        kernels, logits = model.kernels, model.head(self.x)
        if self.T == 1 and isinstance(kernels, Ranking) and kernels.most_largest:
            return [logits, kernels.largest(logits)]
        return [logits]

    def _block_function(self, model: Transformer, i: int, layer: LayerCache) -> Callable[[Position], list[Tensor]]:
        def function(start_pos: Position) -> list[Tensor]:
            x, stored = model.block(i, self.x, layer, start_pos)
            return [x, stored.k, stored.v]

        return function


class RowPass(Pass):
    """T tokens (fewer leave rows unused), each of a conversation of its own or several of one, in slots of an arena; logits of all."""

    position: RowPositions

    def __init__(self, model: Transformer, T: int, arena: CacheArena, device: str):
        self.model, self.T, self._arena = model, T, arena
        self._table = np.full((2, T), -1, np.int32)
        self.position = RowPositions(buffers.upload(self._table, device))
        self._make(device, with_logits=True)
        self._steps_of: dict[int, tuple[Transformer, Steps]] = {}
        self._logits: np.ndarray | None = None

    def prepare(self, model: Transformer) -> None:
        """Capture, or read from the disk, what a model of this shape needs, so that no request waits. CompileFailure where it cannot be."""
        if id(model) not in self._steps_of:
            self._steps_of[id(model)] = (model, self._compose(model, self._arena.layers, 0))

    def forget(self, model: Transformer) -> None:
        """A model that it is not run over again."""
        self._steps_of.pop(id(model), None)

    def run(self, model: Transformer, ids: Sequence[int], slots: Sequence[int], positions: Sequence[int]) -> None:
        """A prepared model over these tokens, at most T; `slots` and `positions` say where each stands."""
        n = len(ids)
        padded = np.zeros(self.T, np.int32)
        padded[:n] = ids
        self._table[:] = -1
        self._table[:, :n] = slots, positions
        buffers.write(self.ids, padded)
        buffers.write(self.position.table, self._table)
        _, steps = self._steps_of[id(model)]
        self._head = self._head_of(model)
        if isinstance(steps, Composite):
            steps({})
        else:
            for graph, inputs in steps:
                graph(inputs, 0)
        self._logits = None

    def logits_of(self, row: int) -> np.ndarray:
        """float32 (V,) after one of the tokens of the last run, where they were computed: valid until the next one."""
        if self._logits is None:
            of_cpu = self.logits.device == "CPU"
            self._logits = buffers.view(self.logits) if of_cpu else buffers.read(self.logits, np.empty(self.logits.shape, np.float32))
        found: np.ndarray = self._logits[row]
        return found


def distinct(tensors: Sequence[Tensor]) -> list[Tensor]:
    """Each once, in their order: weights whose changes differ by row share a buffer."""
    return list({id(tensor): tensor for tensor in tensors}.values())


def _overwrite(target: Tensor, values: Tensor) -> Tensor:
    """`values` stored into the buffer of `target`, where the next graph finds them."""
    return Tensor(target.uop.after(target.uop.store(values.uop)))
