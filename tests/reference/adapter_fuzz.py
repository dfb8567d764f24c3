"""Targets of fuzz.py for the readers of adapters: a damaged or crafted file of each format over a sound base."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import strategies as st

from app.models.llama.checkpoint import open_checkpoint
from app.models.llama.lora.adapter import Adapter, LowRank, adaptable_shapes
from app.models.llama.lora.adapter_summary import summarise
from app.models.llama.lora.gguf_adapter import write_gguf_adapter
from app.models.llama.lora.merged_checkpoint import MergedCheckpoint
from app.models.llama.lora.name_pattern import NamePatternError, fullmatch
from app.models.llama.lora.open_adapter import open_adapter
from tests.reference import fuzz_cases as cases
from tests.reference.adapters import stored_cases, write_adapter
from tests.reference.families import write_family

Target = tuple[st.SearchStrategy[Any], Callable[[Any], object]]


class _Opened:
    """A base, and what is done with an adapter before its tensors reach a device."""

    def __init__(self, folder: Path, case: str) -> None:
        self.base = open_checkpoint(write_family(stored_cases()[case]["config"]["base_model_name_or_path"], folder / "base"))
        self.adapter = write_adapter(stored_cases()[case], folder / "adapter")
        self.use(self.adapter)

    def use(self, path: Path) -> None:
        json.dumps(summarise(path))
        adapter = open_adapter(path, self.base.config)
        assert len(adapter.digest) == 64
        merged = MergedCheckpoint(self.base, [(adapter, 1.0)])
        for name in list(merged.tensor_names)[:9]:
            merged.stored(name)
        merged.matrix("layers.0.attention.wq.weight", slice(0, 2)).dequantize()

    def replacing(self, file: Path, path: Path | None = None) -> Callable[[bytes], None]:
        def run(data: bytes) -> None:
            file.unlink(missing_ok=True)
            file.write_bytes(data)
            self.use(path or self.adapter)

        return run


def adapter_config(folder: Path) -> Target:
    """peft's configuration, with the keys that Townhall honours."""
    opened = _Opened(folder, "patterns")
    path = opened.adapter / "adapter_config.json"
    sound = json.loads(path.read_text()) | {
        "exclude_modules": [],
        "layers_to_transform": None,
        "modules_to_save": None,
        "layers_pattern": None,
    }
    return cases.changed(sound), opened.replacing(path)


def adapter_tensors(folder: Path) -> Target:
    opened = _Opened(folder, "dora")
    path = opened.adapter / "adapter_model.safetensors"
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    rewritten = cases.changed(json.loads(data[8 : 8 + length])).map(
        lambda text: len(text).to_bytes(8, "little") + text + data[8 + length :]
    )
    return st.one_of(cases.damaged(data), rewritten, rewritten), opened.replacing(path)


def adapter_gguf(folder: Path) -> Target:
    opened = _Opened(folder, "attention")
    shapes = {name: shape for name, shape in adaptable_shapes(opened.base.config).items() if "attention" in name}
    matrices = {name: LowRank(np.ones((2, cols), np.float32), np.ones((rows, 2), np.float32), 1.0) for name, (rows, cols) in shapes.items()}
    path = write_gguf_adapter(Adapter(matrices), folder / "adapter.gguf", opened.base.config)
    opened.use(path)
    data = path.read_bytes()
    return st.one_of(cases.damaged(data, 0, 1500), cases.damaged(data)), opened.replacing(path, path)


def adapter_mlx(folder: Path) -> Target:
    opened = _Opened(folder, "attention")
    from safetensors.numpy import save_file

    mlx = folder / "mlx"
    mlx.mkdir()
    module = "model.layers.0.self_attn.v_proj"
    save_file(
        {f"{module}.lora_a": np.ones((64, 2), np.float32), f"{module}.lora_b": np.ones((2, 32), np.float32)}, mlx / "adapters.safetensors"
    )
    sound = {
        "fine_tune_type": "lora",
        "num_layers": 1,
        "lora_parameters": {"rank": 2, "scale": 20.0, "keys": ["self_attn.v_proj"]},
        "model": "m",
    }
    (mlx / "adapter_config.json").write_text(json.dumps(sound))
    opened.use(mlx)
    return cases.changed(sound), opened.replacing(mlx / "adapter_config.json", mlx)


def name_pattern(folder: Path) -> Target:
    """Expressions over names: matched, or refused, in bounded time."""
    piece = st.sampled_from(
        ["a", ".", r"\.", "(", ")", "|", "*", "+", "?", "{2}", "{,9}", "[", "]", "^", "$", r"\d", "(?:", "layers", "-", "\\"]
    )

    def run(pattern: str) -> None:
        try:
            fullmatch(pattern, "model.layers.11.self_attn.q_proj" + "a" * 60, True)
        except NamePatternError as error:
            from ext.tinygrad.errors import TownhallError

            raise TownhallError(str(error)) from None

    return st.lists(piece, max_size=40).map("".join), run


TARGETS: tuple[Callable[[Path], Target], ...] = (adapter_config, adapter_tensors, adapter_gguf, adapter_mlx, name_pattern)
