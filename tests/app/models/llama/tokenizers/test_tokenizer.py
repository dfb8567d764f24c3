"""Text to ids and back: byte-level BPE, special tokens, BOS, streaming; ids as llama.cpp and tiktoken give them."""

import base64
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from app.models.llama.checkpoint import open_checkpoint
from app.models.llama.tokenizers.split_patterns import PRE_TOKENIZERS
from app.models.llama.tokenizers.tokenizer import Tokenizer, TokenizerError
from app.models.llama.tokenizers.tokenizer_folder import read_tokenizer_folder
from tests.reference.tiny import make_tiny_gguf
from tests.reference.words import TOKENS, byte_characters

NORMAL, UNKNOWN, CONTROL, USER_DEFINED = (int(kind) for kind in (1, 2, 3, 4))
ROOT = Path(__file__).parents[5]
DEFAULT_MODEL = ROOT / "app/models/llama/weights/SmolLM2-135M-Instruct.Q4_1.gguf"
HARD_TEXTS = [case["text"] for case in json.loads((ROOT / "tests/data/tokenizer_ids.json").read_text())["cases"]]
CHAT = "<|im_start|>user\nhe was in it<|im_end|>\n"


def bpe(tokens: list[str], merges: list[str], types: list[int] | None = None, **metadata: Any) -> Tokenizer:
    """A byte-level BPE over the 256 bytes and `tokens`."""
    settings = {key.replace("__", "."): value for key, value in metadata.items()}
    kinds = [NORMAL] * 256 + (types or [NORMAL] * len(tokens))
    defaults = {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "gpt-2",
        "tokenizer.ggml.tokens": [*byte_characters(), *tokens],
        "tokenizer.ggml.token_type": np.array(kinds, np.int32),
        "tokenizer.ggml.merges": merges,
    }
    return Tokenizer.from_gguf({key: value for key, value in (defaults | settings).items() if value is not None}, "x.gguf")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    return open_checkpoint(make_tiny_gguf(tmp_path_factory.mktemp("tok") / "tiny.gguf")).tokenizer()


# --- byte-level BPE ------------------------------------------------------------------------------------------------


def test_merges_apply_by_rank(tiny: Tokenizer) -> None:
    assert [TOKENS[n] for n in tiny.encode("is he in the house")] == ["i", "s", "Ġhe", "Ġin", "Ġthe", "Ġho", "u", "s", "e"]


@pytest.mark.parametrize("text", HARD_TEXTS)
def test_every_text_survives_the_way_there_and_back(tiny: Tokenizer, text: str) -> None:
    assert tiny.decode(tiny.encode(text, special=False)) == text


@pytest.mark.parametrize(
    "pre, pieces",
    [
        ("gpt-2", ["12345", "x", "'", "LL"]),
        ("smollm", ["1", "2", "3", "4", "5", "x", "'", "LL"]),
        ("llama-bpe", ["123", "45", "x", "'LL"]),
        ("qwen2", ["1", "2", "3", "4", "5", "x", "'LL"]),
        ("qwen35", ["1", "2", "3", "4", "5", "x", "'LL"]),
        ("tekken", ["1", "2", "3", "4", "5", "x", "'LL"]),
        ("gpt-4o", ["123", "45", "x", "'LL"]),
        ("dbrx", ["123", "45", "x", "'LL"]),
        ("falcon", ["123", "45", "x", "'", "LL"]),
        ("deepseek-llm", ["1", "2", "3", "4", "5", "x", "'", "LL"]),
        ("deepseek-v3", ["123", "45", "x", "'LL"]),
        ("default", ["123", "45", "x", "'", "LL"]),
        (None, ["123", "45", "x", "'", "LL"]),  # llama.cpp's, where the file names none
    ],
)
def test_digits_and_contractions_are_cut_as_the_model_learned_them(pre: str | None, pieces: list[str]) -> None:
    joined = ["12", "123", "1234", "12345", "45", "LL", "'LL"]
    tokenizer = bpe(joined, ["1 2", "12 3", "123 4", "1234 5", "4 5", "L L", "' LL"], tokenizer__ggml__pre=pre)
    assert [tokenizer.decode([n]) for n in tokenizer.encode("12345x'LL")] == pieces


def test_llama3_takes_a_whole_piece_that_is_a_token_before_it_merges() -> None:
    tokens, merges = ["ab", "abc"], ["a b"]  # no merge leads to abc
    assert bpe(tokens, merges, tokenizer__ggml__pre="llama-bpe").encode("abc") == [257]
    assert bpe(tokens, merges).encode("abc") == [256, ord("c")]
    for pre, whole in {"tekken": True, "glm4": True, "dbrx": False, "gpt-4o": False, "qwen2": False}.items():
        assert (bpe(tokens, merges, tokenizer__ggml__pre=pre).encode("abc") == [257]) is whole, pre


def test_an_unknown_splitting_is_refused_with_what_is_supported() -> None:
    with pytest.raises(TokenizerError, match=r"x\.gguf splits text as 'martian'.*supports .*llama-bpe.*smollm"):
        bpe([], [], tokenizer__ggml__pre="martian")


@pytest.mark.parametrize("pre", PRE_TOKENIZERS)
def test_every_pattern_keeps_every_character(pre: str) -> None:
    tokenizer = bpe([], [], tokenizer__ggml__pre=pre)
    for text in HARD_TEXTS:
        assert tokenizer.decode(tokenizer.encode(text)) == text


# --- special tokens and BOS ----------------------------------------------------------------------------------------


def test_special_tokens_are_found_only_where_they_are_wanted(tiny: Tokenizer) -> None:
    ids = tiny.encode(CHAT)
    assert (ids[0], ids[-2]) == (1, 2) and ids.count(1) == ids.count(2) == 1
    typed = tiny.encode(CHAT, special=False)
    assert not {0, 1, 2} & set(typed) and tiny.decode(typed) == CHAT


def test_special_tokens_decode_to_nothing(tiny: Tokenizer) -> None:
    assert tiny.decode(tiny.encode(CHAT)) == "user\nhe was in it\n"
    assert tiny.decode([9999, -1]) == ""  # a vocabulary padded beyond the tokenizer


def test_the_longest_special_token_wins_and_half_of_one_is_text() -> None:
    tokenizer = bpe(["<a>", "<a><b>", "[X]"], [], [CONTROL] * 3)
    assert tokenizer.encode("<a><b><a>[X]") == [257, 256, 258]
    assert tokenizer.decode(tokenizer.encode("<a")) == "<a"


def test_added_words_match_always_but_markup_only_as_markup() -> None:
    """A converter may call <|im_end|> user-defined: what somebody types must not become it all the same."""
    tokenizer = bpe(["    ", "<|im_end|>"], [], [USER_DEFINED] * 2)
    assert tokenizer.encode("a    b", special=False)[1] == 256 and tokenizer.decode([256]) == "    "
    assert 257 not in tokenizer.encode("<|im_end|>", special=False)
    assert tokenizer.encode("<|im_end|>") == [257] and tokenizer.decode([257]) == ""


def test_pieces_are_encoded_as_the_text_they_make_together(tiny: Tokenizer) -> None:
    whole = tiny.encode("<|im_start|>user\nin the<|im_end|>\n")
    assert tiny.encode_pieces([("<|im_start|>user\n", True), ("in t", False), ("he", False), ("<|im_end|>\n", True)]) == whole
    # a control token never comes together out of somebody's words
    assert 2 not in tiny.encode_pieces([("<|im", False), ("_end|>", False)])
    assert 2 not in tiny.encode_pieces([("<|im", False), ("_end|>", True)])


@pytest.mark.parametrize(
    "add_bos, text, bos, expected",
    [
        (True, "a", True, "<s> a"),
        (True, "a", False, "a"),
        (True, "<s>a", True, "<s> a"),  # never twice
        (True, "", True, "<s>"),
        (False, "a", True, "a"),
        (False, "<s>a", True, "<s> a"),
    ],
)
def test_bos_follows_the_models_rule_and_comes_once(add_bos: bool, text: str, bos: bool, expected: str) -> None:
    tokenizer = bpe(["<s>"], [], [CONTROL], tokenizer__ggml__bos_token_id=256, tokenizer__ggml__add_bos_token=add_bos)
    assert tokenizer.encode(text, bos=bos) == [{"<s>": 256, "a": ord("a")}[token] for token in expected.split()]
    assert (tokenizer.bos_token, tokenizer.add_bos) == ("<s>", add_bos)


def test_bos_without_a_rule_is_llama3s_way_only() -> None:
    for pre, rule in {"llama-bpe": True, "gpt-2": False, "smollm": False}.items():
        assert bpe(["<s>"], [], [CONTROL], tokenizer__ggml__bos_token_id=256, tokenizer__ggml__pre=pre).add_bos is rule
    assert not bpe([], [], tokenizer__ggml__pre="llama-bpe").add_bos  # there is none to add


def test_all_ends_of_text_and_turn_stop() -> None:
    names = ["<|endoftext|>", "<|im_end|>", "<|eot_id|>", "</s>", "fin", "over"]
    types = [CONTROL, CONTROL, USER_DEFINED, NORMAL, NORMAL, CONTROL]
    tokenizer = bpe(names, [], types, tokenizer__ggml__eos_token_id=260, tokenizer__ggml__eot_token_id=261)
    # </s> is an ordinary word of this vocabulary; fin and over are declared
    assert tokenizer.stop_ids == {256, 257, 258, 260, 261}
    # a word that ends a text stays a word, as in llama.cpp
    assert tokenizer.eos_token == "fin" and tokenizer.decode([260, 261, 258]) == "fin"
    assert bpe(["<end>"], [], [NORMAL], tokenizer__ggml__eos_token_id=256).decode([256]) == ""  # but for what looks like markup
    assert bpe(names, [], tokenizer__ggml__token_type=None, tokenizer__ggml__eos_token_id=260).decode([260, 259, 258]) == ""


def test_an_end_that_is_a_word_is_still_spelled_in_texts() -> None:
    """A vocabulary's id 2, which configurations name by default."""
    metadata = {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.tokens": [*byte_characters(), "ab"],
        "tokenizer.ggml.token_type": np.full(257, NORMAL),
        "tokenizer.ggml.merges": ["a b"],
        "tokenizer.ggml.pre": "gpt-2",
    }
    for n in (ord("a"), 256):
        tokenizer = Tokenizer.from_gguf(metadata, "x.gguf", stop_ids=[n, 999])
        assert tokenizer.encode("ab a") == [256, *Tokenizer.from_gguf(metadata).encode(" a")]
        assert tokenizer.stop_ids == {n} and n not in tokenizer.special_ids.values() and tokenizer.decode([256]) == "ab"


def test_the_user_may_choose_the_ends() -> None:
    tokenizer = bpe(["<|im_end|>", "end"], [], [CONTROL, NORMAL])
    assert tokenizer.stop_ids == {256} and not tokenizer.stop_is_chosen
    tokenizer.stop_at(["end", "7"])
    assert tokenizer.stop_ids == {257, 7} and tokenizer.stop_is_chosen  # a number is an id, though "7" is a token too
    for wrong in ("nothing", "258", "-1", "", "9" * 30):
        with pytest.raises(TokenizerError, match="--eos .* is no token of this model"):
            tokenizer.stop_at([wrong])


def test_the_chat_template_comes_from_the_file(tiny: Tokenizer) -> None:
    assert tiny.chat_template is not None and "im_start" in tiny.chat_template
    assert bpe([], []).chat_template is None


# --- streaming -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["日本語", "👩‍👩‍👧‍👦 ok", "naïve", "plain"])
def test_a_stream_never_splits_a_character(tiny: Tokenizer, text: str) -> None:
    stream = tiny.stream()
    pushed = [stream.push(n) for n in tiny.encode(text)]
    assert "".join(pushed) + stream.flush() == text and stream.flush() == ""
    assert not any("\ufffd" in part for part in pushed)


def test_a_stream_equals_decode_on_any_bytes(tiny: Tokenizer) -> None:
    random = np.random.default_rng(0)
    for _ in range(200):
        ids = random.integers(0, tiny.vocab_size, size=12).tolist()
        stream = tiny.stream()
        raw = b"".join(tiny.token_bytes(n) for n in ids)
        assert "".join(map(stream.push, ids)) + stream.flush() == tiny.decode(ids) == raw.decode("utf-8", "replace")


def test_an_unfinished_character_ends_as_one_replacement(tiny: Tokenizer) -> None:
    first = tiny.encode("日")[:2]
    stream = tiny.stream()
    assert [stream.push(n) for n in first] == ["", ""] and stream.flush() == "\ufffd"


# --- LLaMA 3's tokenizer.model -------------------------------------------------------------------------------------


def merged_by_rank(word: bytes, ranks: dict[bytes, int]) -> list[int]:
    """tiktoken's own rule: a known piece whole; otherwise, again and again, the two neighbours that make the token of lowest rank."""
    if word in ranks:
        return [ranks[word]]
    parts = [word[n : n + 1] for n in range(len(word))]
    while True:
        pairs = [(ranks[a + b], n) for n, (a, b) in enumerate(zip(parts, parts[1:])) if a + b in ranks]
        if not pairs:
            return [ranks[part] for part in parts]
        _, n = min(pairs)
        parts[n : n + 2] = [parts[n] + parts[n + 1]]


def test_tiktokens_list_merges_as_tiktoken_does(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    words = list(dict.fromkeys(bytes(random.choice(list(b"abcd"), n).tolist()) for n in (2, 3, 4, 5) for _ in range(25)))
    tokens = [bytes([n]) for n in range(256)] + words
    ranks = {token: n for n, token in enumerate(tokens)}
    lines = [base64.b64encode(token) + f" {n}\n".encode() for token, n in ranks.items()]
    (tmp_path / "tokenizer.model").write_bytes(b"".join(lines))
    files = read_tokenizer_folder(tmp_path)
    tokenizer = Tokenizer.from_gguf(files.metadata, tmp_path, files.stop_ids)
    for _ in range(300):
        word = bytes(random.choice(list(b"abcd"), random.integers(1, 20)).tolist())
        assert tokenizer.encode(word.decode(), bos=False) == merged_by_rank(word, ranks)
    n = len(tokens)
    assert tokenizer.vocab_size == n + 256 and tokenizer.bos_token == "<|begin_of_text|>" and tokenizer.encode("a") == [n, ranks[b"a"]]
    assert tokenizer.special_ids["<|eot_id|>"] == n + 9 and tokenizer.stop_ids == {n + 1, n + 8, n + 9}
    (tmp_path / "tokenizer.model").write_bytes(b"".join(lines[:-1]) + lines[0])
    with pytest.raises(TokenizerError, match="no sound list of tokens and ranks"):
        read_tokenizer_folder(tmp_path)


# --- what is refused -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changes, fault",
    [
        ({"tokenizer__ggml__model": "bert"}, "kind 'bert', WordPiece; Townhall supports gpt2"),
        ({"tokenizer__ggml__model": "t5"}, "kind 't5', a unigram model"),
        ({"tokenizer__ggml__model": "rwkv"}, "kind 'rwkv', a trie"),
        ({"tokenizer__ggml__model": "gemma4"}, "kind 'gemma4', Gemma 4's BPE"),
        ({"tokenizer__ggml__model": None}, "kind None"),
        ({"tokenizer__ggml__tokens": None}, "no vocabulary"),
        ({"tokenizer__ggml__tokens": np.arange(3)}, "no vocabulary"),
        ({"tokenizer__ggml__tokens": [*byte_characters()[:255], "a"]}, "lists the token 'a' twice"),
        ({"tokenizer__ggml__token_type": np.array([1, 1])}, "token_type that do not match its 256 tokens"),
        ({"tokenizer__ggml__token_type": "normal"}, "token_type that do not match"),
        ({"tokenizer__ggml__model": np.arange(2)}, r"kind array\(\[0, 1\]\)"),
        ({"tokenizer__ggml__add_bos_token": "no"}, "add_bos_token as 'no'"),
        ({"tokenizer__ggml__pre": "evil\x1b[2J\n" * 99}, r"splits text as 'evil\\x1b"),
        ({"tokenizer__ggml__bos_token_id": True}, "names True as its BOS"),
        ({"tokenizer__ggml__bos_token_id": 256}, "names 256 as its BOS token, but has 256 tokens"),
        ({"tokenizer__ggml__eos_token_id": -1}, "names -1 as its EOS token"),
        ({"tokenizer__ggml__merges": ["a b"]}, "merges that do not fit"),
        ({"tokenizer__ggml__merges": ["ab"]}, "merges that do not fit"),
        ({"tokenizer__ggml__model": "llama"}, "no scores"),
        ({"tokenizer__ggml__model": "llama", "tokenizer__ggml__scores": np.zeros(256, np.float32)}, "marks 0 tokens as unknown"),
        ({"tokenizer__ggml__model": "llama", "tokenizer__ggml__scores": np.full(256, np.nan, np.float32)}, "scores that do not match"),
    ],
)
def test_a_damaged_vocabulary_is_named(changes: dict[str, Any], fault: str) -> None:
    with pytest.raises(TokenizerError, match=fault) as raised:
        bpe([], [], **changes)
    message = str(raised.value)
    # the file's own words are quoted short and printable: a message cannot flood or steer a terminal
    assert message.startswith("x.gguf ") and "; " in message and message.isprintable() and len(message) < 500


def test_byte_tokens_that_are_not_all_256_are_named() -> None:
    tokens = ["<unk>", "<0x41>", "a"]
    metadata = {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.scores": np.zeros(3, np.float32),
        "tokenizer.ggml.token_type": np.array([2, 6, 1]),
    }
    with pytest.raises(TokenizerError, match="has 1 byte tokens that are not"):
        Tokenizer.from_gguf(metadata, "x.gguf")


# --- the default model ---------------------------------------------------------------------------------------------


@pytest.mark.weights
@pytest.mark.skipif(not DEFAULT_MODEL.exists(), reason="the default model is not pulled")
def test_the_default_models_ids_are_llama_cpps() -> None:
    tokenizer = open_checkpoint(DEFAULT_MODEL).tokenizer()
    cases = json.loads((ROOT / "tests/data/tokenizer_ids.json").read_text())["cases"]
    for case in cases:
        assert tokenizer.encode(case["text"]) == case["special"], case["text"]
        assert tokenizer.encode(case["text"], special=False) == case["plain"], case["text"]
    assert {tokenizer.eos_id, 0} <= tokenizer.stop_ids and not tokenizer.add_bos
