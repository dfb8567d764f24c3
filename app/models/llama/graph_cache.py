"""A pass's captured graphs kept on disk, one small file each: later starts read what the first one traced. GRAPH_CACHE=0 does without."""

import contextlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tinygrad import Tensor

from app.models.llama.transformer import Transformer
from app.models.llama.weight_cache import WORTH_IT
from ext.tinygrad import cache_files
from ext.tinygrad.graph import saved_graph
from ext.tinygrad.graph.saved_graph import StoredGraph

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
            name = saved_graph.key(model.config, model.kernels.name, layouts, texts, *facts)
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
        """A captured TinyJit and the tensors that it was captured with; see stored.describe."""
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
