"""Byte-level BPE (GPT-2's scheme): text as bytes, bytes as printable characters, split by a pattern, merged by rank."""

from collections.abc import Collection, Sequence

from tokenizers import Regex, Tokenizer, models, pre_tokenizers
from tokenizers.pre_tokenizers import PreTokenizer

from app.models.llama.sanitize import clipped, quoted
from app.models.llama.tokenizers.normalizer import normalizer
from app.models.llama.tokenizers.vocabulary import Vocabulary

CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
REST = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
LLAMA3 = CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}" + REST
QWEN2 = CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}" + REST
UPPER, LOWER = r"\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}", r"\p{Ll}\p{Lm}\p{Lo}\p{M}"
TEKKEN = rf"[^\r\n\p{{L}}\p{{N}}]?[{UPPER}]*[{LOWER}]+|[^\r\n\p{{L}}\p{{N}}]?[{UPPER}]+[{LOWER}]*|\p{{N}}"
TEKKEN += REST.replace(r"[\r\n]*|", r"[\r\n/]*|", 1)
DIGIT = r"\p{N}"

# How text is cut before merging, by the name a GGUF gives it (tokenizer.ggml.pre): patterns, each applied to the pieces the last one left
PRE_TOKENIZERS: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("gpt-2", "phi-2", "olmo", "mpt", "jais", "trillion"), (GPT2,)),
    **dict.fromkeys(("smollm", "starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b"), (DIGIT, GPT2)),
    **dict.fromkeys(("llama-bpe", "llama-v3", "llama3", "falcon3", "smaug-bpe", "dbrx"), (LLAMA3,)),
    **dict.fromkeys(("qwen2", "deepseek-r1-qwen", "stablelm2", "megrez"), (QWEN2,)),
    "deepseek-coder": (r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", r"[一-龥ࠀ-一가-퟿]+", DIGIT),
    "tekken": (TEKKEN,),
}
# a piece that is a token as it stands is taken whole, before any merging
WHOLE_PIECES = {"llama-bpe", "llama-v3", "llama3", "falcon3", "tekken"}
# begin with BOS unless the file says otherwise
BOS_BY_DEFAULT = WHOLE_PIECES


def byte_alphabet() -> dict[str, int]:
    """GPT-2's table, character → byte: printable Latin-1 stands for itself, the other 68 bytes for U+0100 and up."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in set(printable)]
    return {chr(byte): byte for byte in printable} | {chr(256 + n): byte for n, byte in enumerate(others)}


ALPHABET = byte_alphabet()


class ByteLevelBPE:
    """Encodes plain text; control tokens are the caller's business, and left out here so that no text can spell one."""

    prefix_space = prefix_after_special = False

    def __init__(self, vocabulary: Vocabulary, merges: Sequence[str], pre: str, control: Collection[int], rule: str | None = None) -> None:
        if pre not in PRE_TOKENIZERS:
            known = ", ".join(sorted(PRE_TOKENIZERS))
            raise vocabulary.fail(f"splits text as {quoted(pre)} (tokenizer.ggml.pre)", f"Townhall supports {known}")
        self._tokens = vocabulary.tokens
        vocab = dict(vocabulary.ids)
        for n in control:
            del vocab[vocabulary.tokens[n]]
        try:
            pairs = [(left, right) for left, right in (merge.split(" ", 1) for merge in merges)]
            model = models.BPE(vocab, pairs, ignore_merges=pre in WHOLE_PIECES)
        except Exception as error:  # the tokenizers package raises bare Exception for a merge of unknown tokens
            raise vocabulary.fail(f"has merges that do not fit its vocabulary ({clipped(error)})") from None
        self._tokenizer = Tokenizer(model)
        steps: list[PreTokenizer] = [pre_tokenizers.Split(Regex(pattern), "isolated") for pattern in PRE_TOKENIZERS[pre]]
        steps.append(pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False))
        self._tokenizer.pre_tokenizer = pre_tokenizers.Sequence(steps)
        self._normalise = normalizer(rule)

    def encode(self, text: str, begins: bool = False) -> list[int]:
        # a batch of one: it takes half the time, for it keeps no offsets, and lets other threads run meanwhile, which encode does not
        return list(self._tokenizer.encode_batch_fast([self._normalise(text)], add_special_tokens=False)[0].ids)

    def token_bytes(self, n: int) -> bytes:
        """The bytes of an ordinary token; characters outside the alphabet, which no sound file has, stand for themselves."""
        token = self._tokens[n]
        try:
            return bytes([ALPHABET[char] for char in token])
        except KeyError:
            return token.encode("utf-8", "replace")
