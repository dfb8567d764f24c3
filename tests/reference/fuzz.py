"""Every reader of untrusted files against damaged and crafted ones: each case opens or ends in one typed sentence.

python -m tests.reference.fuzz TARGET CASES SEED: one target in this process, its memory capped and each case's time bounded. The suite
runs a few hundred cases, bench/fuzz.py thousands.
"""

import gc
import json
import resource
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from app.models.llama.checkpoint import open_checkpoint
from app.models.llama.checkpoint.conversion import convert
from app.models.llama.checkpoint.inspection import inspect
from app.models.llama.tokenizers.vocabulary import Vocabulary
from ext.tinygrad.errors import TownhallError
from tests.reference import adapter_fuzz, card_fuzz, serving_fuzz
from tests.reference import fuzz_cases as cases
from tests.reference.families import FAMILIES, config_of, write_family
from tests.reference.tiny import CHAT_TEMPLATE, make_tiny_gguf
from tests.reference.tiny_formats import tiny_weights, to_meta, write_hf, write_meta, write_split
from tests.reference.torch_writer import dictionary, encode, pickle, tensor, write_archive
from tests.reference.words import TOKENS

SECONDS = 30  # for one case; a sound one takes some milliseconds
MEMORY = 1 << 30  # address space beyond what the process holds when it begins
ROUND = 500  # cases between which everything is forgotten
MESSAGE = 1500  # characters; a path is part of it
Put = Callable[[bytes], Path]  # writes a file of the checkpoint, gives what to open


class Hang(BaseException):
    pass


def use(path: Path) -> None:
    """Whatever Townhall does with a checkpoint before tensors reach a device."""
    checkpoint = open_checkpoint(path)
    json.dumps(inspect(checkpoint))
    checkpoint.fingerprint()
    for name in checkpoint.tensor_names:
        if len(checkpoint.stored(name).shape) == 1:
            checkpoint.vector(name)
        else:
            checkpoint.matrix(name, slice(0, 2)).dequantize()
    tokenizer = checkpoint.tokenizer()
    tokenizer.decode(tokenizer.encode("they said <|im_end|> ▁ß\n 12"))
    tokenizer.undecodable(checkpoint.config.vocab_size)


def refused(case: Callable[[], object]) -> bool:
    """Whether it ended in a sentence; whatever else it raises is a bug."""
    try:
        case()
    except TownhallError as error:
        text = str(error)
        assert text.isprintable() and 0 < len(text) < MESSAGE, text
        return True
    return False


# --- targets: each makes a sound checkpoint and gives (strategy, what to do with a case) -----------------------------

WEIGHTS = tiny_weights(n_layers=1)
Target = tuple[st.SearchStrategy[Any], Callable[[Any], object]]


def _file(path: Path, open_: Path | None = None) -> Callable[[bytes], None]:
    """Replace one file and use the checkpoint. A new file each time: the one before may still be mapped."""
    use(open_ or path)  # sound as it stands, or every case would be refused for something else

    def run(data: bytes) -> None:
        path.unlink(missing_ok=True)
        path.write_bytes(data)
        use(open_ or path)

    return run


def gguf_header(folder: Path) -> Target:
    from app.models.llama.checkpoint.gguf import GGUFFile

    path = make_tiny_gguf(folder / "tiny.gguf", n_layers=1, weights=WEIGHTS, only=True)
    data, end = path.read_bytes(), GGUFFile.open(path).header_nbytes
    tables = data.index(b"token_embd.weight") - 8
    # the vocabulary is most of a header: what stands before and after it has a strategy of its own
    vocabulary = data.index(b"tokenizer.ggml.tokens")
    return st.one_of(cases.damaged(data, 0, vocabulary), cases.damaged(data, tables, end), cases.damaged(data, 0, end)), _file(path)


def gguf_metadata(folder: Path) -> Target:
    path = folder / "tiny.gguf"
    keys = """general.architecture general.alignment general.name llama.context_length llama.embedding_length llama.block_count
    llama.feed_forward_length llama.attention.head_count llama.attention.head_count_kv llama.attention.key_length llama.vocab_size
    llama.attention.value_length llama.attention.layer_norm_rms_epsilon llama.rope.freq_base llama.rope.dimension_count llama.expert_count
    llama.rope.scaling.type llama.rope.scaling.factor llama.rope.scaling.original_context_length llama.rope.scaling.attn_factor
    llama.rope.scaling.yarn_beta_fast llama.rope.scaling.yarn_attn_factor llama.rope.scaling.yarn_log_multiplier llama.rope.scale_linear
    llama.attention.sliding_window split.count split.no split.tensors.count
    tokenizer.ggml.model tokenizer.ggml.pre tokenizer.ggml.tokens tokenizer.ggml.token_type tokenizer.ggml.merges tokenizer.ggml.scores
    tokenizer.ggml.bos_token_id tokenizer.ggml.eos_token_id tokenizer.ggml.eot_token_id tokenizer.ggml.padding_token_id
    tokenizer.ggml.add_bos_token tokenizer.chat_template general.license tokenizer.ggml.unknown_token_id tokenizer.townhall.merges
    tokenizer.townhall.lstrip tokenizer.townhall.rstrip tokenizer.townhall.single_word tokenizer.townhall.normalized
    tokenizer.townhall.added_only tokenizer.townhall.ignore_merges tokenizer.townhall.unknown_characters""".split()
    number = st.one_of(st.integers(-(2**31), 2**32 - 1), st.sampled_from([0, 1, 2, 3, 4, 16, 32, 64, 256, 2**31, 2**32 - 1]))
    words = st.one_of(
        st.sampled_from(["llama", "gpt2", "linear", "yarn", "none", "llama-bpe", "", "x\n", "\x1b["]),
        st.text(st.characters(codec="utf-8"), max_size=9),
    )
    small = st.floats(width=32)
    vocabulary = st.one_of(
        st.lists(words, max_size=9), st.just(TOKENS[:300]), st.just([*TOKENS[:-1], "the"]), st.just([f"t{n}" for n in range(len(TOKENS))])
    )
    lists = st.one_of(st.lists(st.integers(-(2**31), 2**31 - 1), max_size=5), st.lists(small, max_size=5))
    value = st.one_of(st.none(), st.booleans(), number, small, words, vocabulary, lists)

    def run(overrides: dict[str, Any]) -> None:
        path.unlink(missing_ok=True)
        make_tiny_gguf(path, n_layers=1, weights=WEIGHTS, only=True, overrides={k: v for k, v in overrides.items() if v != []})
        use(path)

    run({})
    # a file without an architecture cannot be written by the gguf package
    return st.dictionaries(st.sampled_from(keys), value, min_size=1, max_size=4).filter(
        lambda d: (
            isinstance(d.get("general.architecture", ""), str) and not isinstance(d.get("general.alignment"), bool | float | str | list)
        )
    ), run


def split(folder: Path) -> Target:
    first = write_split(folder, tiny_weights(), 2, 2)
    second = folder / "tiny-00002-of-00002.gguf"
    return cases.damaged(second.read_bytes(), 0, 1200), _file(second, first)


def safetensors_header(folder: Path) -> Target:
    path = write_hf(folder, WEIGHTS, kind="F16", num_hidden_layers=1) / "model.safetensors"
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    sound = json.loads(data[8 : 8 + length])
    rewritten = cases.changed(sound).map(lambda text: len(text).to_bytes(8, "little") + text + data[8 + length :])
    return st.one_of(cases.damaged(data, 0, 8 + length), rewritten, rewritten), _file(path)


def torch_pickle(folder: Path) -> Target:
    tensors = to_meta(WEIGHTS)
    path = write_meta(folder, WEIGHTS, n_layers=1) / "consolidated.00.pth"
    members = {f"data/{n}": encode(values, "F32") for n, values in enumerate(tensors.values())}
    sound = pickle(dictionary({name: tensor("F32", str(n), values.shape) for n, (name, values) in enumerate(tensors.items())}))

    def run(program: bytes) -> None:
        path.unlink(missing_ok=True)
        write_archive(path, {"data.pkl": program, **members})
        use(path)

    run(sound)
    return cases.pickles(list(tensors), sound), run


def torch_archive(folder: Path) -> Target:
    path = write_meta(folder, WEIGHTS, n_layers=1) / "consolidated.00.pth"
    data = path.read_bytes()
    directory = data.index(b"PK\1\2")
    return st.one_of(cases.damaged(data, directory), cases.damaged(data, 0, 3000), cases.damaged(data, len(data) - 30)), _file(path)


def index(folder: Path) -> Target:
    path = write_hf(folder, WEIGHTS, shards=2, num_hidden_layers=1) / "model.safetensors.index.json"
    return cases.changed(json.loads(path.read_text())), _file(path, folder)


def config_json(folder: Path) -> Target:
    scaling = {"rope_type": "yarn", "factor": 2.0, "original_max_position_embeddings": 64, "beta_fast": 32, "beta_slow": 1}
    scaling |= {"low_freq_factor": 1.0, "high_freq_factor": 4.0, "mscale": 1.0, "mscale_all_dim": 1.0}
    path = write_hf(folder, WEIGHTS, num_hidden_layers=1, rope_scaling=scaling, head_dim=16) / "config.json"
    sound = json.loads(path.read_text()) | {"head_dim": 16, "sliding_window": None, "partial_rotary_factor": 1.0}
    return cases.changed(sound), _file(path, folder)


def family_config(folder: Path) -> Target:
    """The config.json of every family, each with the keys that its type reads."""
    more: dict[str, Any] = {
        "layer_types": ["full_attention"] * 2,
        "query_pre_attn_scalar": 16,
        "no_rope_layers": [1, 0],
        "sliding_window": 9,
    }
    more |= {"attn_logit_softcapping": 1.0, "final_logit_softcapping": None, "use_sliding_window": True, "max_window_layers": 1}
    for name in FAMILIES:
        use(write_family(name, folder / name))

    def run(case: tuple[str, bytes]) -> None:
        name, data = case
        (folder / name / "config.json").write_bytes(data)
        use(folder / name)

    def of(name: str) -> st.SearchStrategy[tuple[str, bytes]]:
        return st.one_of(cases.changed(config_of(name)), cases.changed(more | config_of(name))).map(lambda data: (name, data))

    return st.sampled_from(sorted(FAMILIES)).flatmap(of), run


def family_gguf(folder: Path) -> Target:
    """Headers of GGUF files of families whose tensors are fused, permuted, experts' or RoPE's factors."""
    sound: dict[str, tuple[bytes, int]] = {}
    for name in ("phi4-mini", "mixtral", "gemma3", "granite", "stablelm-parallel", "qwen3-moe"):
        path = convert(open_checkpoint(write_family(name, folder / name)), folder / f"{name}.gguf", "f32")
        data = path.read_bytes()
        sound[name] = data, data.index(b"tokenizer.ggml.tokens")
        use(path)
    tried = folder / "tried.gguf"

    def run(data: bytes) -> None:
        tried.unlink(missing_ok=True)
        tried.write_bytes(data)
        use(tried)

    return st.sampled_from(sorted(sound)).flatmap(lambda name: cases.damaged(sound[name][0], 0, sound[name][1])), run


def params_json(folder: Path) -> Target:
    path = write_meta(folder, WEIGHTS, shards=2, n_layers=1, use_scaled_rope=True, rope_theta=5e5) / "params.json"
    return cases.changed(json.loads(path.read_text())), _file(path, folder)


def tokenizer_json(folder: Path) -> Target:
    path = write_hf(folder, WEIGHTS, num_hidden_layers=1) / "tokenizer.json"
    byte_level = json.loads(path.read_text())
    byte_level["model"] |= {"unk_token": None, "byte_fallback": False, "ignore_merges": False}
    metaspace = byte_level | {
        "model": byte_level["model"] | {"byte_fallback": True, "unk_token": TOKENS[0]},
        "pre_tokenizer": {"type": "Metaspace", "prepend_scheme": "first"},
        "post_processor": {"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": TOKENS[1]}}]},
        "decoder": {"type": "Sequence", "decoders": [{"type": "ByteFallback"}]},
    }
    rules = {"lstrip": True, "rstrip": True, "single_word": True, "normalized": True}
    added = [{"id": n, "content": TOKENS[n], "special": n < 3} | rules for n in (0, 1, 2, len(TOKENS) - 1)]
    spaces = [{"type": "Prepend", "prepend": "▁"}, {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}]
    legacy = metaspace | {"added_tokens": added, "pre_tokenizer": None, "normalizer": {"type": "Sequence", "normalizers": spaces}}
    return st.one_of(*map(cases.changed, (byte_level, metaspace, byte_level | {"added_tokens": added}, legacy))), _file(path, folder)


def tokenizer_model(folder: Path) -> Target:
    """SentencePiece's protocol buffer and tiktoken's list."""
    path = write_hf(folder, tiny_weights(n_layers=1, vocab_size=520), num_hidden_layers=1) / "tokenizer.model"
    for sound in (small_tiktoken(), small_sentencepiece()):
        path.write_bytes(sound)
        use(folder)
    return st.one_of(
        cases.damaged(small_sentencepiece()), cases.damaged(small_sentencepiece(), 4000), cases.damaged(small_tiktoken())
    ), _file(path, folder)


def small_sentencepiece() -> bytes:
    """A tokenizer.model of 300 pieces."""
    from app.models.llama.tokenizers.sentencepiece import model_proto

    pieces = [
        "<unk>",
        "<s>",
        "</s>",
        *(f"<0x{byte:02X}>" for byte in range(256)),
        "▁",
        *"abcdefghij",
        *(f"▁{a}{b}" for a in "abcde" for b in "abcdef"),
    ]
    kinds = [2, 3, 3] + [6] * 256 + [1] * (len(pieces) - 259)
    metadata = {
        "tokenizer.ggml.tokens": pieces,
        "tokenizer.ggml.scores": -np.arange(len(pieces), dtype=np.float32),
        "tokenizer.ggml.token_type": np.array(kinds, np.int32),
    }
    return model_proto(Vocabulary.from_gguf(metadata, "pieces"))


def small_tiktoken() -> bytes:
    """A list of the 256 bytes and some words, as LLaMA 3's tokenizer.model is one."""
    import base64

    words = [bytes([n]) for n in range(256)] + [b"th", b"the", b" the"]
    return b"".join(base64.b64encode(word) + f" {n}\n".encode() for n, word in enumerate(words))


def tokenizer_folder(folder: Path) -> Target:
    """The small files beside a tokenizer, one of them changed."""
    write_hf(folder, WEIGHTS, num_hidden_layers=1)
    sound = {
        "tokenizer_config.json": json.loads((folder / "tokenizer_config.json").read_text())
        | {"added_tokens_decoder": {"2": {"content": "<|im_end|>", "special": True}}, "pad_token": {"content": "<|endoftext|>"}},
        "added_tokens.json": {"<|im_end|>": 2},
        "special_tokens_map.json": {"eos_token": "<|im_end|>", "bos_token": {"content": "<|im_start|>"}},
        "generation_config.json": {"eos_token_id": [2, 0], "bos_token_id": 1, "pad_token_id": None},
    }
    plain = {name: json.dumps(content).encode() for name, content in sound.items()}

    def run(case: tuple[str, bytes]) -> None:
        for name, data in plain.items():
            (folder / name).write_bytes(data)
        _file(folder / case[0], folder)(case[1])

    return st.sampled_from(sorted(sound)).flatmap(lambda name: st.tuples(st.just(name), cases.changed(sound[name]))), run


def chat_template(folder: Path) -> Target:
    from townhall.formats.chat_template import ChatTemplate
    from townhall.persona import Example, Persona

    persona = Persona("Stacy", "Stacy raps.", examples=(Example("Your name?", "Stacy."),))

    def run(source: str) -> None:
        template = ChatTemplate(persona, source, bos_token="<s>", eos_token="</s>")
        template.head(), template.turn("hello {{ x }}"), template.close()

    run(CHAT_TEMPLATE)
    return cases.templates(CHAT_TEMPLATE), run


TARGETS: dict[str, Callable[[Path], Target]] = {
    target.__name__: target
    for target in (
        gguf_header, gguf_metadata, split, safetensors_header, torch_pickle, torch_archive, index, config_json, family_config, family_gguf,
        params_json, tokenizer_json,
        tokenizer_model, tokenizer_folder, chat_template, *adapter_fuzz.TARGETS, *card_fuzz.TARGETS, *serving_fuzz.TARGETS,
    )
}  # fmt: skip


# --- the process ----------------------------------------------------------------------------------------------------


def cap_memory(beyond: int) -> None:
    """Address space: what is mapped now and `beyond` bytes more."""
    with suppress(FileNotFoundError):  # no /proc, no cap
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        limit = pages * resource.getpagesize() + beyond
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def run(name: str, count: int, seed_: int) -> dict[str, Any]:
    """`count` cases of one target; raises what a case raises, with the case shrunk by hypothesis."""
    outcome: dict[str, Any] = {"target": name, "cases": 0, "refused": 0, "slowest": 0.0}

    def late(signum: int, frame: FrameType | None) -> None:
        raise Hang(f"a case of {name} took more than {SECONDS} s")

    signal.signal(signal.SIGALRM, late)
    with tempfile.TemporaryDirectory() as folder:
        strategy, act = TARGETS[name](Path(folder))
        for first in range(0, count, ROUND):  # hypothesis remembers every case of a run
            _round(strategy, act, min(ROUND, count - first), seed_ + first, outcome)
            gc.collect()
    return outcome | {"peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024}


def _round(strategy: st.SearchStrategy[Any], act: Callable[[Any], object], count: int, seed_: int, outcome: dict[str, Any]) -> None:
    @seed(seed_)
    @settings(
        max_examples=count,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
        phases=(Phase.generate, Phase.shrink),
        print_blob=False,
    )
    @given(strategy)
    def attempt(case: Any) -> None:
        started = time.perf_counter()
        signal.setitimer(signal.ITIMER_REAL, SECONDS)
        try:
            was_refused = refused(lambda: act(case))
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
        outcome["cases"] += 1
        outcome["refused"] += was_refused
        outcome["slowest"] = max(outcome["slowest"], time.perf_counter() - started)

    attempt()


def main(names: str, count: int, seed_: int) -> None:
    """One JSON line for each target."""
    cap_memory(MEMORY)
    for name in TARGETS if names == "all" else names.split(","):
        print(json.dumps(run(name, count, seed_)), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
