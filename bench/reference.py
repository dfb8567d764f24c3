"""Reference logits of the default model, and llama.cpp's distance from them: writes tests/data/reference_logits.npz.

    python -m bench.reference --model app/models/llama/weights/SmolLM2-135M-Instruct.Q4_1.gguf

The reference is the plain float32 NumPy LLaMA of tests/reference over the file's dequantised weights, teacher-forced over the prompts of
bench/reference_prompts.txt, each cut to as many tokens as its name says; llama.cpp's are taken twice, once token by token. That takes some
minutes, 3 GB of memory and the extra `bench` (llama-cpp-python). tests/reference/compare.py says what is stored and how it is compared.
"""

import argparse
import hashlib
import json
import re
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from tests.reference.compare import DATA, Prompt, average, distance, log_softmax, summarize
from tests.reference.compare import Reference as Stored
from tests.reference.llama_numpy import logits as float32_logits
from tests.reference.llama_numpy import read_gguf


def read_prompts(path: Path) -> dict[str, str]:
    """Name → text; the name is the number of tokens to take."""
    parts = re.split(r"^== (\d+)\n", path.read_text(), flags=re.MULTILINE)[1:]
    return {name: text.rstrip("\n") for name, text in zip(parts[::2], parts[1::2], strict=True)}


class LlamaCppLogits:
    """llama.cpp on the CPU with its default settings: int8 activations, float16 cache."""

    def __init__(self, model: Path, threads: int) -> None:
        import llama_cpp

        # No repacked weights: the numbers are those of a machine with AVX2, where Q4_1 is never repacked, and the AMX layout was seen to
        # crash in a virtual machine.
        defaults = llama_cpp.llama_cpp.llama_model_default_params

        def without_repacking() -> Any:
            params = defaults()
            params.use_extra_bufts = False
            return params

        llama_cpp.llama_cpp.llama_model_default_params = without_repacking
        self.llama = llama_cpp.Llama(str(model), n_ctx=1024, logits_all=True, n_threads=threads, n_threads_batch=threads, verbose=False)

    def ids(self, text: str) -> list[int]:
        found: list[int] = self.llama.tokenize(text.encode(), add_bos=True, special=True)
        return found

    def logits(self, ids: list[int], batch: int | None = None) -> np.ndarray:
        """(T, V) logits, the prompt fed in pieces of `batch` (None: as llama.cpp likes)."""
        self.llama.reset()
        for start in range(0, len(ids), batch or len(ids)):
            self.llama.eval(ids[start : start + (batch or len(ids))])
        return np.array(self.llama.scores[: len(ids)], np.float32)


def exact_kl(reference: np.ndarray, logits: np.ndarray) -> float:
    """Mean KL over the whole vocabulary."""
    p, q = log_softmax(reference), log_softmax(logits)
    return float((np.exp(p) * (p - q)).sum(-1).mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=DATA)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()

    other = LlamaCppLogits(options.model, options.threads)
    sizes, weights = read_gguf(options.model)
    arrays: dict[str, np.ndarray] = {}
    prompts: dict[str, Prompt] = {}
    rows: dict[str, dict[str, float]] = {}
    decoded: dict[str, tuple[float, float]] = {}
    for name, text in read_prompts(Path(__file__).with_name("reference_prompts.txt")).items():
        ids = other.ids(text)[: int(name)]
        assert len(ids) == int(name), f"prompt {name} has only {len(ids)} tokens"
        reference = float32_logits(ids, sizes, weights)
        top, logprobs, rest = summarize(reference)
        prompts[name] = Prompt(ids, top, logprobs, rest)
        arrays |= {f"ids_{name}": np.array(ids, np.uint16), f"top_ids_{name}": top.astype(np.uint16)}
        arrays |= {f"top_logprobs_{name}": logprobs, f"rest_{name}": rest}
        stored = Stored(prompts, {}, "", {})
        theirs = other.logits(ids)
        top1, kl = distance(theirs, stored, name)
        rows[name] = {"top1": top1, "kl": kl, "kl_exact": exact_kl(reference, theirs)}
        self_kl = distance(reference, stored, name)[1]
        print(f"{name:>4} tokens: top-1 {top1:.4f}, KL {kl:.3e}, over the whole vocabulary {rows[name]['kl_exact']:.3e}; ", end="")
        print(f"tail holds {np.exp(rest).mean():.3f} of the mass, reference against itself {self_kl:.1e}")
        decoded[name] = distance(other.logits(ids, batch=1), stored, name)
    lengths = {name: len(prompt.ids) for name, prompt in prompts.items()}
    rows["all"] = {key: sum(rows[n][key] * lengths[n] for n in lengths) / sum(lengths.values()) for key in ("top1", "kl", "kl_exact")}
    top1, kl = average(decoded, lengths)
    rows["all, token by token"] = {"top1": top1, "kl": kl}
    print("\n".join(f"{name}: {row}" for name, row in rows.items() if name.startswith("all")))

    about: dict[str, Any] = {
        "prompts": list(prompts),
        "llama_cpp": rows,
        "llama_cpp_python": version("llama-cpp-python"),
        "model": options.model.name,
        "model_sha256": hashlib.sha256(options.model.read_bytes()).hexdigest(),
    }
    np.savez_compressed(options.out, allow_pickle=False, **arrays, about=np.array(json.dumps(about)))
    print(f"{options.out}: {options.out.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
