"""How far logits are from the float32 reference that bench/reference.py stored: top-1 agreement and mean KL divergence, in nats.

Stored for every position are the 64 likeliest ids with their log-probabilities and the log of the mass that is left. The KL divergence
is taken over these 64 ids and one bucket for all others. That is never more than the divergence over the whole vocabulary (merging
outcomes only loses information), and less by what the tail hides within itself: `llama_cpp` holds both numbers for llama.cpp's logits,
so that the loss can be seen. Comparisons with llama.cpp use the same bucketed measure on both sides.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

DATA = Path(__file__).parents[1] / "data/reference_logits.npz"
TOP = 64


@dataclass(frozen=True)
class Prompt:
    ids: list[int]  # T token ids, fed in this order
    top_ids: np.ndarray  # (T, 64) the likeliest next ids, falling
    top_logprobs: np.ndarray  # (T, 64) float32
    rest: np.ndarray  # (T,) float32, log of the probability of all other ids


@dataclass(frozen=True)
class Reference:
    prompts: dict[str, Prompt]  # by name: the number of its tokens
    llama_cpp: dict[str, dict[str, float]]  # prompt, or "all" → top1, kl (bucketed), kl_exact
    model_sha256: str  # of the file that the reference was computed from
    about: dict[str, Any]

    @classmethod
    def load(cls, path: Path = DATA) -> "Reference":
        with np.load(path, allow_pickle=False) as data:
            about = json.loads(str(data["about"]))
            prompts = {
                name: Prompt(
                    data[f"ids_{name}"].tolist(),
                    data[f"top_ids_{name}"].astype(np.int64),
                    data[f"top_logprobs_{name}"],
                    data[f"rest_{name}"],
                )
                for name in about["prompts"]
            }
        return cls(prompts, about["llama_cpp"], about["model_sha256"], about)


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """float64 (T, V): differences of 1e-5 must survive sums over 49k ids."""
    shifted = logits.astype(np.float64) - logits.max(-1, keepdims=True)
    out: np.ndarray = shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))
    return out


def summarize(logits: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(top ids, their log-probabilities, log of the rest's mass) of (T, V) logits, as the reference stores them."""
    logprobs = log_softmax(logits)
    top = np.argsort(-logprobs, -1, kind="stable")[:, :TOP]
    found = np.take_along_axis(logprobs, top, -1)
    rest = np.log1p(-np.exp(found).sum(-1).clip(max=1 - 1e-12))
    return top, found.astype(np.float32), rest.astype(np.float32)


def divergences(logits: np.ndarray, prompt: Prompt) -> np.ndarray:
    """KL(reference ‖ logits) at every position (T,), over the stored ids and one bucket for the rest."""
    logprobs = np.take_along_axis(log_softmax(logits), prompt.top_ids, -1)  # (T, 64)
    rest = np.log1p(-np.exp(logprobs).sum(-1).clip(max=1 - 1e-12))
    p, p_rest = prompt.top_logprobs.astype(np.float64), prompt.rest.astype(np.float64)
    out: np.ndarray = (np.exp(p) * (p - logprobs)).sum(-1) + np.exp(p_rest) * (p_rest - rest)
    return out


def distance(logits: np.ndarray, reference: Reference, prompt_name: str) -> tuple[float, float]:
    """(share of positions with the reference's likeliest id, mean KL) of teacher-forced logits (T, V) on one prompt."""
    prompt = reference.prompts[prompt_name]
    if logits.shape[0] != len(prompt.ids):
        raise ValueError(f"prompt {prompt_name} has {len(prompt.ids)} positions, the logits {logits.shape[0]}")
    agree = logits.argmax(-1) == prompt.top_ids[:, 0]
    return float(agree.mean()), float(divergences(logits, prompt).mean())


def overall(score: Callable[[list[int]], np.ndarray], reference: Reference) -> tuple[float, float]:
    """(top-1 agreement, mean KL) over every position of every prompt; `score(ids)` gives the logits (T, V)."""
    weights = {name: len(prompt.ids) for name, prompt in reference.prompts.items()}
    found = {name: distance(score(prompt.ids), reference, name) for name, prompt in reference.prompts.items()}
    return average(found, weights)


def average(found: Mapping[str, tuple[float, float]], weights: Mapping[str, int]) -> tuple[float, float]:
    """Mean over positions of per-prompt means."""
    total = sum(weights.values())
    return sum(found[n][0] * weights[n] for n in found) / total, sum(found[n][1] * weights[n] for n in found) / total
