"""The samplers beside llama.cpp's own, over random logits, and what each costs a token.

    python -m bench.samplers [--cases N] [--against llama.cpp]

llama.cpp's chain is asked for what it leaves of the logits, with their probabilities; ours is then given random numbers in the middle of
each of those shares, and must draw the id that lies there. Sequence breakers come out of the default model's vocabulary, on both sides.
Ties are left out: llama.cpp puts equal logits in no certain order. So is top-n-sigma before typical-p: what the former leaves out gives
the latter an entropy there that is no number.
"""

import argparse
import ctypes
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from app.models.llama.checkpoint import open_checkpoint
from app.models.llama.sampler import Sampler, SamplingParams
from app.models.llama.sequence_breakers import SequenceBreakers, breakers_for
from townhall.cli.chat_options import ChatOptions

NEUTRAL = SamplingParams(temperature=1.0, top_k=0, top_p=1.0)
PASSAGE = (
    'User: Tell me of the sea.\nStacy: The sea is deep and the sea is blue, and the sea is "wide".\nUser: Tell me of the sky and the sea.'
)
SETTINGS: dict[str, dict[str, Any]] = {
    "penalties": {
        "repeat_penalty": (1.0, 1.5),
        "presence_penalty": (0.01, 1.0),
        "frequency_penalty": (0.0, 1.0),
        "temperature": (0.5, 1.5),
    },
    "dry": {"dry_multiplier": (0.1, 2.0), "dry_base": (1.1, 2.5)},
    "typical-p": {"typical_p": (0.05, 0.99)},
    "xtc": {"xtc_probability": 1.0, "xtc_threshold": (0.01, 0.5)},
    "dynamic temperature": {"temperature": (0.3, 1.5), "dynatemp_range": (0.1, 1.0), "dynatemp_exponent": (0.5, 2.0)},
    "mirostat 1": {"mirostat": 1, "mirostat_tau": (0.5, 6.0), "temperature": (0.5, 1.5)},
    "mirostat 2": {"mirostat": 2, "mirostat_tau": (0.5, 6.0), "temperature": (0.5, 1.5)},
}
SETTINGS["all of the chain"] = {
    name: value for kind in ("penalties", "dry", "typical-p", "xtc", "dynamic temperature") for name, value in SETTINGS[kind].items()
} | {"top_k": 40, "top_p": (0.5, 0.99), "min_p": (0.0, 0.1)}
SETTINGS["top-n-sigma, penalties"] = {"top_n_sigma": (0.8, 3.0)} | SETTINGS["penalties"]
FEW = {"typical-p": 5000}  # ids: over a whole vocabulary llama.cpp's entropy, a float32, decides otherwise for one choice in twenty
TIMED: dict[str, dict[str, Any]] = {
    "as a chat draws": {"temperature": 0.3, "repeat_penalty": 1.1, "top_k": 40, "top_p": 0.95},
    "and penalties": {"presence_penalty": 0.2, "frequency_penalty": 0.2},
    "and DRY": {"dry_multiplier": 0.8},
    "and XTC": {"xtc_probability": 0.5},
    "and typical-p": {"typical_p": 0.9},
    "and dynamic temperature": {"dynatemp_range": 0.2},
    "and DRY and XTC, min-p in the place of top-k": {
        "dry_multiplier": 0.8,
        "xtc_probability": 0.5,
        "top_k": 0,
        "top_p": 1.0,
        "min_p": 0.05,
    },
    "and Mirostat 1": {"mirostat": 1},
    "and Mirostat 2": {"mirostat": 2},
}


class Chosen:
    """A random number that is chosen."""

    def __init__(self, at: float):
        self.at = at

    def random(self, dtype: Any = None) -> float:
        return self.at


class LlamaCppChain:
    """What llama.cpp's default chain leaves."""

    def __init__(self, model: str, breakers: Sequence[str]):
        from llama_cpp import llama_cpp

        self.lib = llama_cpp
        self._quiet = llama_cpp.llama_log_callback(lambda level, text, data: None)
        llama_cpp.llama_log_set(self._quiet, ctypes.c_void_p(0))
        parameters = llama_cpp.llama_model_default_params()
        parameters.vocab_only = True
        loaded = llama_cpp.llama_model_load_from_file(model.encode(), parameters)
        self.vocabulary = llama_cpp.llama_model_get_vocab(loaded)
        self.breakers = (ctypes.c_char_p * len(breakers))(*(text.encode() for text in breakers))

    def __call__(self, logits: np.ndarray, said: Sequence[int], s: SamplingParams) -> list[tuple[int, float]]:
        """(id, probability), falling."""
        lib, size = self.lib, logits.size
        chain = lib.llama_sampler_chain_init(lib.llama_sampler_chain_default_params())
        everything = len(said) + 1  # it knows no -1
        lately, dry_lately = (everything if n < 0 else n for n in (s.repeat_last_n, s.dry_penalty_last_n))
        dry = s.dry_multiplier, s.dry_base, s.dry_allowed_length, dry_lately
        samplers = [
            lib.llama_sampler_init_penalties(size, lately, s.repeat_penalty, s.frequency_penalty, s.presence_penalty),
            lib.llama_sampler_init_dry(self.vocabulary, *dry, self.breakers, len(self.breakers)),
        ]
        if s.mirostat:
            samplers.append(lib.llama_sampler_init_temp(s.temperature))
            if s.mirostat == 1:
                samplers.append(lib.llama_sampler_init_mirostat(size, 1, s.mirostat_tau, s.mirostat_eta, 100))
            else:
                samplers.append(lib.llama_sampler_init_mirostat_v2(1, s.mirostat_tau, s.mirostat_eta))
        else:
            samplers += [
                lib.llama_sampler_init_top_n_sigma(s.top_n_sigma),
                lib.llama_sampler_init_top_k(s.top_k),
                lib.llama_sampler_init_typical(s.typical_p, 0),
                lib.llama_sampler_init_top_p(s.top_p, 0),
                lib.llama_sampler_init_min_p(s.min_p, 0),
                lib.llama_sampler_init_xtc(s.xtc_probability, s.xtc_threshold, 0, 1),
                lib.llama_sampler_init_temp_ext(s.temperature, s.dynatemp_range, s.dynatemp_exponent),
                lib.llama_sampler_init_dist(1),
            ]
        for sampler in samplers:
            lib.llama_sampler_chain_add(chain, sampler)
        for n in said:
            lib.llama_sampler_accept(chain, n)
        entries = np.zeros(size, [("id", np.int32), ("logit", np.float32), ("p", np.float32)])
        entries["id"], entries["logit"] = np.arange(size), logits
        array = lib.llama_token_data_array(ctypes.cast(entries.ctypes.data, ctypes.POINTER(lib.llama_token_data)), size, -1, False)
        lib.llama_sampler_apply(chain, ctypes.byref(array))
        lib.llama_sampler_free(chain)
        first = (ctypes.addressof(array.data.contents) - entries.ctypes.data) // entries.itemsize  # XTC moves it
        left = entries[first : first + array.size]
        left = left[np.argsort(-left["logit"], kind="stable")]
        shares = np.exp(left["logit"].astype(np.float64) - left["logit"][0])
        return [(int(n), float(share)) for n, share in zip(left["id"], shares / shares.sum()) if share]


def cases(count: int, size: int, passage: Sequence[int], random: np.random.Generator) -> Iterator[tuple[np.ndarray, list[int]]]:
    """Logits over `size` ids, and a text of some of them that repeats itself."""
    for _ in range(count):
        said = list(passage[: int(random.integers(4, len(passage)))])
        while random.random() < 0.7:
            start = int(random.integers(len(said)))
            said += said[start : start + int(random.integers(1, 12))]
        yield (2.5 * random.standard_normal(size)).astype(np.float32), said


def compare(count: int) -> None:
    """Print how many ids are drawn where llama.cpp's shares lie."""
    path = ChatOptions().model_path()
    tokenizer = open_checkpoint(path).tokenizer()
    random, passage = np.random.default_rng(0), tokenizer.encode(PASSAGE, bos=False)
    peer = LlamaCppChain(str(path), NEUTRAL.dry_sequence_breakers)
    found = breakers_for(tokenizer, replace(NEUTRAL, dry_multiplier=1.0))
    # ends of an answer are no breakers there
    breakers = SequenceBreakers(frozenset(ids for ids in found.sequences if ids[0] not in tokenizer.stop_ids))
    print(f"{'':<24}{'logits':>8}{'ids':>10}{'the same':>10}")
    for name, settings in SETTINGS.items():
        seen = same = 0
        for logits, said in cases(count, tokenizer.vocab_size, passage, random):
            logits = logits[: FEW.get(name)]
            values: dict[str, Any] = {
                key: float(random.uniform(*value)) if isinstance(value, tuple) else value for key, value in settings.items()
            }
            values |= {"repeat_last_n": int(random.choice([-1, 0, 5, 64])), "dry_penalty_last_n": int(random.choice([-1, 5, 30]))}
            sampling = replace(NEUTRAL, seed=1, dry_allowed_length=int(random.integers(1, 4)), **values)
            expected, total = peer(logits, [] if sampling.mirostat else said, sampling), 0.0
            sampler = Sampler(sampling, breakers)
            assert (chain := sampler._chain)
            for n, share in expected:
                if share > 1e-3:
                    chain._random, chain._chances = Chosen(total + share / 2), Chosen(0.0)  # type: ignore[assignment]
                    chain._surprise = 2 * sampling.mirostat_tau
                    seen += 1
                    same += sampler(logits, [] if sampling.mirostat else said) == n
                total += share
        print(f"{name:<24}{count:>8}{seen:>10}{same / seen:>10.2%}", flush=True)


def measure(size: int, context: int) -> None:
    """Print what a token costs."""
    random = np.random.default_rng(0)
    logits = [(2.5 * random.standard_normal(size)).astype(np.float32) for _ in range(20)]
    print(f"microseconds a token, {size} ids, {context} tokens before them")
    for name, settings in TIMED.items():
        sampler = Sampler(SamplingParams(**TIMED["as a chat draws"] | settings, seed=1))
        text = random.integers(0, 2000, context).tolist()
        sampler(logits[0], text)
        times = []
        for turn in range(200):
            started = time.perf_counter()
            token = sampler(logits[turn % len(logits)], text)
            times.append(time.perf_counter() - started)
            text.append(token)
        print(f"{name:<48}{1e6 * float(np.median(times)):>10.0f}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=200, help="random logits for each sampler")
    parser.add_argument("--against", choices=["llama.cpp"], help="compare with it (the extra `bench`)")
    parser.add_argument("--context", type=int, default=1024)
    options = parser.parse_args()
    if options.against:
        compare(options.cases)
    measure(49152, options.context)


if __name__ == "__main__":
    main()
