"""How long a 7B-shaped checkpoint takes to load: cold and from the page cache, beside safetensors' own loader and llama.cpp's.

python -m bench.load [--layers 32] [--only q4_0] [--folder DIR]    (13.5 GB of disk at a time; 7.6 for Q4_0 alone)

Every measurement is a process of its own. "ready": Townhall's model is loaded and could take a prompt; "first token": it has read every
weight once. Float weights of large files are used where they are mapped, so that ready means nothing was copied; others are packed, and
the packed form is kept on disk, where the next start maps it. Before each of them another process touches as much memory as it will take:
a virtual machine may give what is free back to its host, and then taking it anew costs more than everything that is measured here.
"""

import argparse
import json
import os
import resource
import shutil
import struct
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from app.models.llama.checkpoint.checkpoint import expected_shapes
from app.models.llama.config import LlamaConfig
from bench.fresh_memory import claim

GB, LIMIT = 1e9, 540
SHAPE = {"dim": 4096, "n_heads": 32, "n_kv_heads": 32, "head_dim": 128, "hidden_dim": 11_008, "vocab_size": 32_000}
PIECE = 1 << 24


def shapes(layers: int) -> dict[str, tuple[int, ...]]:
    sizes: dict[str, Any] = SHAPE | {"norm_eps": 1e-5, "rope_theta": 1e4, "context_length": 2048, "rope_dim": 128, "tied": False}
    return expected_shapes(LlamaConfig(n_layers=layers, **sizes))


def halves(count: int) -> Iterator[bytes]:
    """Random float16 numbers of a weight's size, the same block again and again."""
    block = (np.random.default_rng(0).standard_normal(PIECE // 2) * 0.02).astype(np.float16).tobytes()
    left = count * 2
    while left:
        yield block[: min(left, PIECE)]
        left -= min(left, PIECE)


# --- the files ------------------------------------------------------------------------------------------------------


def write_pth(folder: Path, layers: int) -> Path:
    from tests.reference.tiny_formats import write_tokenizer_json
    from tests.reference.torch_writer import dictionary, pickle, tensor

    params = {"dim": 4096, "n_layers": layers, "n_heads": 32, "norm_eps": 1e-5, "vocab_size": -1, "multiple_of": 256}
    (folder / "params.json").write_text(json.dumps(params))
    write_tokenizer_json(folder)
    items = {}
    with zipfile.ZipFile(folder / "consolidated.00.pth", "w", zipfile.ZIP_STORED) as archive:
        for n, (name, shape) in enumerate(shapes(layers).items()):
            items[name] = tensor("F16", str(n), shape)
            with archive.open(f"consolidated/data/{n}", "w", force_zip64=True) as member:
                for block in halves(int(np.prod(shape))):
                    member.write(block)
        archive.writestr("consolidated/data.pkl", pickle(dictionary(items)))
    return folder


def write_safetensors(folder: Path, layers: int) -> Path:
    from app.models.llama.checkpoint.names import HF_LAYER_NAMES, HF_NAMES
    from tests.reference.tiny_formats import hf_config, write_tokenizer_json

    config = hf_config(n_kv_heads=32, hidden_size=4096, intermediate_size=11_008, num_hidden_layers=layers, num_attention_heads=32)
    (folder / "config.json").write_text(json.dumps(config | {"max_position_embeddings": 2048}))
    write_tokenizer_json(folder)
    plain, layer = {ours: theirs for theirs, ours in HF_NAMES.items()}, {ours: theirs for theirs, ours in HF_LAYER_NAMES.items()}
    header, at = {}, 0
    for name, shape in shapes(layers).items():
        _, number, part = (name.split(".", 2) + ["", ""])[:3]
        theirs = plain[name] if name in plain else f"model.layers.{number}.{layer[part]}"
        header[theirs] = {"dtype": "F16", "shape": shape, "data_offsets": [at, at := at + 2 * int(np.prod(shape))]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with (folder / "model.safetensors").open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for block in halves(at // 2):
            file.write(block)
    return folder


def write_gguf(path: Path, layers: int) -> Path:
    """Q4_0 throughout, of random blocks: the same ones again and again."""
    import gguf

    from app.models.llama.checkpoint.names import gguf_from_canonical
    from tests.reference.tiny import add_metadata, tiny_metadata

    sizes, kind, plain = shapes(layers), gguf.GGMLQuantizationType.Q4_0, gguf.GGMLQuantizationType.F32
    blocks = np.random.default_rng(0).integers(0, 256, (1 << 16, 18), dtype=np.uint8)
    blocks[:, :2] = np.array([0.002], np.float16).view(np.uint8)
    block, writer = blocks.tobytes(), gguf.GGUFWriter(path, "llama")
    metadata = tiny_metadata(layers, **SHAPE, context_length=2048)
    del metadata["general.architecture"]  # the writer says it itself
    add_metadata(writer, metadata)
    nbytes = {name: int(np.prod(shape)) * 4 if len(shape) == 1 else int(np.prod(shape)) // 32 * 18 for name, shape in sizes.items()}
    for name, shape in sizes.items():
        vector = len(shape) == 1
        stored = shape if vector else (*shape[:-1], shape[-1] // 32 * 18)
        writer.add_tensor_info(
            gguf_from_canonical(name), stored, np.dtype(np.float32 if vector else np.uint8), nbytes[name], plain if vector else kind
        )
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    assert writer.fout is not None
    out = writer.fout[0]
    out.write(bytes(-out.tell() % writer.data_alignment))
    for name, shape in sizes.items():
        if len(shape) == 1:
            out.write(np.ones(shape, np.float32).data)
        for at in range(0, nbytes[name] if len(shape) > 1 else 0, len(block)):
            out.write(block[: nbytes[name] - at])
        out.write(bytes(-nbytes[name] % writer.data_alignment))
    writer.close()
    return path


# --- measurements, each in a process of its own -----------------------------------------------------------------------


def peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / GB


def townhall(path: Path) -> dict[str, float]:
    import app.models.llama.llama  # noqa: F401  (imports are not loading)
    from app.models.llama import Llama, SamplingParams

    started = time.perf_counter()
    llama = Llama.load(path, 64, device="CPU")
    ready, held = time.perf_counter() - started, peak()
    llama.logits([1])  # compiles; the second pass reads every weight once more
    first = time.perf_counter() - started
    again = time.perf_counter()
    next(llama.generate([1, 2], 1, SamplingParams(temperature=0)), None)
    return {"ready": ready, "first token": first, "one more pass": time.perf_counter() - again, "GB at ready": held, "GB": peak()}


def settled(path: Path) -> dict[str, float]:
    from app.models.llama.weight_cache import settle

    result = townhall(path)
    started = time.perf_counter()
    settle()
    return {"ready": result["ready"], "kept after": time.perf_counter() - started}


def safetensors(path: Path) -> dict[str, float]:
    from safetensors import safe_open

    started, kept = time.perf_counter(), []
    with safe_open(path / "model.safetensors", framework="np") as file:
        for name in file.keys():
            kept.append(file.get_tensor(name))
    return {"ready": time.perf_counter() - started, "GB at ready": peak()}


def llama_cpp(path: Path) -> dict[str, float]:
    import llama_cpp

    started = time.perf_counter()
    model = llama_cpp.Llama(str(path), n_ctx=64, verbose=False)
    ready, held = time.perf_counter() - started, peak()
    model.eval([1])
    return {"ready": ready, "first token": time.perf_counter() - started, "GB at ready": held, "GB": peak()}


def convert(path: Path, target: Path) -> dict[str, float]:
    from app.models.llama.checkpoint import open_checkpoint
    from app.models.llama.checkpoint.conversion import convert as run

    started = time.perf_counter()
    run(open_checkpoint(path), target, "q4_0")
    return {"ready": time.perf_counter() - started, "GB": peak()}


MEASURES: dict[str, Callable[..., dict[str, float]]] = {f.__name__: f for f in (townhall, settled, safetensors, llama_cpp, convert)}


def child(name: str, *paths: Path) -> Any:
    claim(3 * size(paths[0]))
    command = [sys.executable, "-m", "bench.load", "--child", name, *map(str, paths)]
    environment = os.environ | {"DEV": "CPU", "HOME": str(paths[0].parent), "XDG_CACHE_HOME": str(paths[0].parent / "cache")}
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT, env=environment)
    except subprocess.TimeoutExpired:
        return f"took more than {LIMIT} s"
    return json.loads(done.stdout.splitlines()[-1]) if done.returncode == 0 else (done.stderr.strip().splitlines() or ["died"])[-1]


def files_of(path: Path) -> list[Path]:
    """The checkpoint's, and those of packed weights."""
    own = [path] if path.is_file() else [file for file in path.iterdir() if file.is_file()]
    return own + list((path.parent / "cache").rglob("*.packed"))


def evict(path: Path) -> None:
    """Out of the page cache, as far as no other process holds it."""
    for file in files_of(path):
        descriptor = os.open(file, os.O_RDONLY)
        os.fsync(descriptor)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)


def warm(path: Path) -> None:
    for file in files_of(path):
        with file.open("rb", buffering=0) as source:
            while source.read(PIECE):
                pass


def size(path: Path) -> int:
    return sum(file.stat().st_size for file in ([path] if path.is_file() else path.iterdir()) if file.is_file())


def report(what: str, result: Any, nbytes: int) -> None:
    if isinstance(result, str):
        print(f"{what:<44} {result}", flush=True)
        return
    parts = [f"{result['ready']:7.2f} s {nbytes / result['ready'] / GB:8.2f} GB/s"]
    parts += [f"{key} {result[key]:.2f} s" for key in ("first token", "one more pass", "kept after") if key in result]
    parts += [f"{key.replace('GB', 'peak', 1)} {result[key]:.2f} GB" for key in ("GB at ready", "GB") if key in result]
    print(f"{what:<44} {', '.join(parts)}", flush=True)


def both(what: str, name: str, path: Path) -> None:
    if name == "townhall":
        child("settled", path)  # compiles what these shapes need, once, and keeps what it packs
    for state, prepare in (("cold", evict), ("page cache", warm)):
        prepare(path)
        report(f"{what}, {state}", child(name, path), size(path))


def quantised(path: Path) -> None:
    """A file that has to be packed first."""
    shapes_only = write_gguf(path.with_name("shapes.gguf"), 1)
    child("settled", shapes_only)  # compiles what these shapes need: one layer has them all
    evict(path)
    report("Q4_0 GGUF, Townhall, cold, never packed", child("settled", path), size(path))
    both("Q4_0 GGUF, Townhall, packed before", "townhall", path)
    both("Q4_0 GGUF, llama.cpp", "llama_cpp", path)


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure how fast 7B-shaped checkpoints load.")
    parser.add_argument("--layers", type=int, default=32, help="32 are all of a 7B's; fewer make a smaller file")
    parser.add_argument("--only", choices=["q4_0"], help="measure this one, made of random blocks")
    parser.add_argument("--folder", type=Path, help="where the files are made  [default: the system's temporary folder]")
    parser.add_argument("--child", nargs="+", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(json.dumps(MEASURES[options.child[0]](*map(Path, options.child[1:]))))
        return
    total = 2 * sum(int(np.prod(shape)) for shape in shapes(options.layers).values())
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        root = Path(name)
        if (free := shutil.disk_usage(root).free) < (0.8 if options.only else 1.6) * total:
            parser.error(f"{total / GB:.1f} GB and as much as half again are needed, {free / GB:.1f} GB are free; pass fewer --layers")
        scaled = "" if options.layers == 32 else f" (scaled: {options.layers} of 32 layers)"
        if options.only:
            quantised(write_gguf(root / "model.gguf", options.layers))
            return
        print(f"7B-shaped float16, {total / GB:.1f} GB{scaled}")
        (root / "hf").mkdir()
        both("safetensors, Townhall", "townhall", write_safetensors(root / "hf", options.layers))
        both("safetensors, its own loader into NumPy", "safetensors", root / "hf")
        shutil.rmtree(root / "hf")
        (root / "meta").mkdir()
        both(".pth, Townhall", "townhall", write_pth(root / "meta", options.layers))
        report(".pth to Q4_0 GGUF, townhall convert", child("convert", root / "meta", root / "model.gguf"), total)
        shutil.rmtree(root / "meta")
        if (root / "model.gguf").exists():
            quantised(root / "model.gguf")


if __name__ == "__main__":
    main()
