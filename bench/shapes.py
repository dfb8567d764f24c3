"""A LLaMA of 1.1B's shape in several quantisations, measured as `townhall bench` measures: python -m bench.shapes [--types Q4_0,Q6_K]

Speed does not depend on what the weights say, so they are random blocks, valid for both runtimes; the files are written to a temporary
folder and removed again. --shape tiny is for tests.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np


@dataclass(frozen=True)
class Shape:
    layers: int
    dim: int
    hidden: int
    heads: int
    kv_heads: int
    vocab: int


SHAPES = {
    "1.1b": Shape(22, 2048, 5632, 32, 4, 32000),
    "7b": Shape(32, 4096, 11008, 32, 32, 32000),
    "tiny": Shape(2, 256, 512, 4, 2, 1024),
}
CONTEXT = 2048
TILE = 1 << 23  # random bytes; longer tensors repeat them


def random_rows(type: str, rows: int, cols: int) -> np.ndarray:
    """uint8 (rows, row bytes) of blocks whose values have a standard deviation of about 0.02."""
    import gguf

    if type == "F16":
        tile = (np.random.default_rng(0).standard_normal(TILE // 2, np.float32) * np.float32(0.02)).astype(np.float16)
        return np.resize(tile, (rows, cols)).view(np.uint8)
    size, nbytes = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[type]]
    blocks = np.resize(np.random.default_rng(0).integers(0, 256, (TILE // nbytes, nbytes), dtype=np.uint8), (rows * cols // size, nbytes))
    scales = {
        "Q4_0": {0: 0.02 / 4.6},
        "Q8_0": {0: 0.02 / 74},
        "Q4_K": {0: 1e-4, 2: 7.5e-4},  # scale and minimum of a super-block, each to be multiplied by a random 6-bit number
        "Q6_K": {208: 0.02 / (74 * 18.5)},  # to be multiplied by a random 8-bit scale
    }[type]
    for at, scale in scales.items():
        blocks[:, at : at + 2] = np.array([scale], np.float16).view(np.uint8)
    return blocks.reshape(rows, -1)


def write(path: Path, shape: Shape, type: str, context: int = CONTEXT) -> None:
    """A GGUF file of this shape with every matrix of one type, and a SentencePiece vocabulary of made-up words."""
    import gguf

    head_dim = shape.dim // shape.heads
    kv_dim = shape.kv_heads * head_dim
    out = gguf.GGUFWriter(path, "llama")
    out.add_name(f"random {type}")
    out.add_context_length(context)
    out.add_embedding_length(shape.dim)
    out.add_block_count(shape.layers)
    out.add_feed_forward_length(shape.hidden)
    out.add_head_count(shape.heads)
    out.add_head_count_kv(shape.kv_heads)
    out.add_rope_dimension_count(head_dim)
    out.add_layer_norm_rms_eps(1e-5)
    out.add_vocab_size(shape.vocab)
    words = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    kinds = [gguf.TokenType.UNKNOWN, gguf.TokenType.CONTROL, gguf.TokenType.CONTROL, *[gguf.TokenType.BYTE] * 256]
    words += [f"▁{i:x}" for i in range(shape.vocab - len(words))]
    out.add_tokenizer_model("llama")
    out.add_token_list(words)
    out.add_token_scores([-float(i) for i in range(shape.vocab)])
    out.add_token_types(kinds + [gguf.TokenType.NORMAL] * (shape.vocab - len(kinds)))
    out.add_bos_token_id(1)
    out.add_eos_token_id(2)

    def matrix(name: str, rows: int, cols: int) -> None:
        out.add_tensor(name, random_rows(type, rows, cols), raw_dtype=gguf.GGMLQuantizationType[type])

    def norm(name: str) -> None:
        out.add_tensor(name, np.ones(shape.dim, np.float32))

    matrix("token_embd.weight", shape.vocab, shape.dim)
    for i in range(shape.layers):
        norm(f"blk.{i}.attn_norm.weight")
        for name, rows in (("q", shape.dim), ("k", kv_dim), ("v", kv_dim), ("output", shape.dim)):
            matrix(f"blk.{i}.attn_{name}.weight", rows, shape.dim)
        norm(f"blk.{i}.ffn_norm.weight")
        matrix(f"blk.{i}.ffn_gate.weight", shape.hidden, shape.dim)
        matrix(f"blk.{i}.ffn_up.weight", shape.hidden, shape.dim)
        matrix(f"blk.{i}.ffn_down.weight", shape.dim, shape.hidden)
    norm("output_norm.weight")
    matrix("output.weight", shape.vocab, shape.dim)
    out.write_header_to_file()
    out.write_kv_data_to_file()
    out.write_tensors_to_file()
    out.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--types", default="Q4_0,Q4_K,Q6_K,Q8_0")
    parser.add_argument("--shape", choices=SHAPES, default="1.1b")
    parser.add_argument("--threads", type=int, default=0, help="default: every core")
    parser.add_argument("--alternations", type=int, default=5)
    parser.add_argument("--tokens", type=int, default=128, help="of a prefill")
    parser.add_argument("--seconds", type=float, default=140, help="for each type at most")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--out", type=Path, help="folder for the results")
    options = parser.parse_args()

    from bench import peer, report
    from bench.measure import BenchPlan, run
    from ext.tinygrad.graph.pool import default_threads

    os.environ["WEIGHT_CACHE"] = "0"  # this model is used once
    every = []
    for type in options.types.split(","):
        with tempfile.TemporaryDirectory(prefix="townhall-bench-") as folder:
            path = Path(folder) / f"llama-{options.shape}-{type}.gguf"
            started = time.perf_counter()
            write(path, SHAPES[options.shape], type)
            print(f"{path.name}: {path.stat().st_size / 1e6:.0f} MB, written in {time.perf_counter() - started:.1f} s", file=sys.stderr)
            plan = BenchPlan(
                path,
                peer.available(),
                (options.threads or default_threads(),),
                contexts=(32, 512),
                prefill=options.tokens,
                alternations=options.alternations,
                busy=False,
                starts=0,
                seconds=options.seconds,
            )
            every.append(run(plan))
        if not options.json:
            print(report.table(every[-1]) + "\n")
    if options.json:
        print(json.dumps(every))
    if options.out:
        for results in every:
            report.save(results, options.out)


if __name__ == "__main__":
    main()
