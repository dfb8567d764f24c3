"""SentencePiece vocabularies out of GGUF and tokenizer.model: ids as the sentencepiece package and llama.cpp give them."""

import io
import json
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import sentencepiece

from app.models.llama.checkpoint.gguf import GGUFFile
from app.models.llama.tokenizers.tokenizer import Tokenizer
from app.models.llama.tokenizers.tokenizer_folder import read_tokenizer_folder

UNKNOWN, CONTROL, USER_DEFINED = 2, 3, 4
ROOT = Path(__file__).parents[5]
HARD_TEXTS = [case["text"] for case in json.loads((ROOT / "tests/data/tokenizer_ids.json").read_text())["cases"]]


SENTENCES = [
    "The quick brown fox jumps over the lazy dog near the river bank.",
    "She sells sea shells by the sea shore, and the shells she sells are sea shells for sure.",
    "How much wood would a woodchuck chuck if a woodchuck could chuck wood?",
    "In the beginning the universe was created; this has made a lot of people very angry.",
]


def gguf_of(processor: sentencepiece.SentencePieceProcessor, path: Path, added: tuple[str, ...] = ()) -> Path:
    """The vocabulary of a SentencePiece model as llama.cpp's converter writes it."""
    ids = range(processor.get_piece_size())
    kinds = {"is_unknown": 2, "is_control": 3, "is_unused": 5, "is_byte": 6}
    types = [next((kind for test, kind in kinds.items() if getattr(processor, test)(n)), 1) for n in ids]
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_tokenizer_model("llama")
    writer.add_token_list([*(processor.id_to_piece(n) for n in ids), *added])
    writer.add_token_scores([*(processor.get_score(n) for n in ids), *([-1000.0] * len(added))])
    writer.add_token_types([*types, *([USER_DEFINED] * len(added))])
    writer.add_bos_token_id(processor.bos_id())
    writer.add_eos_token_id(processor.eos_id())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def train(sentences: list[str], size: int) -> sentencepiece.SentencePieceProcessor:
    """A LLaMA-like SentencePiece model: BPE, byte fallback, no normalisation."""
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(sentences),
        model_writer=model,
        model_type="bpe",
        vocab_size=size,
        byte_fallback=True,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        character_coverage=0.9995,
        minloglevel=2,
    )
    return sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())


@pytest.fixture(scope="module")
def trained() -> sentencepiece.SentencePieceProcessor:
    return train(SENTENCES * 5, 400)


def library_lines() -> list[str]:
    """Some hundred kilobytes of English and Python that every machine has: the standard library's own words."""
    folder = Path(sysconfig.get_path("stdlib"))
    files = [folder / name for name in ("argparse.py", "typing.py", "inspect.py", "tarfile.py", "turtle.py", "subprocess.py")]
    return [line for file in files if file.exists() for line in file.read_text("utf-8").splitlines() if line.strip()]


@pytest.fixture(scope="module", params=["of 400 pieces", "of 4,000 pieces"])
def sp(
    request: pytest.FixtureRequest, trained: sentencepiece.SentencePieceProcessor, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[sentencepiece.SentencePieceProcessor, Tokenizer]]:
    """A SentencePiece model as its makers' library reads it, and the same rebuilt from a GGUF."""
    processor = trained if request.param == "of 400 pieces" else train(library_lines(), 4000)
    path = gguf_of(processor, tmp_path_factory.mktemp("sp") / "sp.gguf")
    yield processor, Tokenizer.from_gguf(GGUFFile.open(path).metadata, path)


def test_a_rebuilt_sentencepiece_model_gives_the_originals_ids(sp: tuple[sentencepiece.SentencePieceProcessor, Tokenizer]) -> None:
    original, rebuilt = sp
    for text in [*HARD_TEXTS, *SENTENCES, " leading", "  two", "trailing ", "<s>", "<unk></s>"]:
        ids = rebuilt.encode(text, special=False)
        assert ids == [original.bos_id(), *original.encode(text)], text
        assert rebuilt.decode(ids) == text
    assert rebuilt.stop_ids == {original.eos_id()} and rebuilt.vocab_size == original.get_piece_size()


def test_a_tokenizer_model_read_by_hand_gives_its_ids(sp: tuple[sentencepiece.SentencePieceProcessor, Tokenizer], tmp_path: Path) -> None:
    original, rebuilt = sp
    (tmp_path / "tokenizer.model").write_bytes(original.serialized_model_proto())
    files = read_tokenizer_folder(tmp_path)
    read = Tokenizer.from_gguf(files.metadata, tmp_path, files.stop_ids)
    for text in [*HARD_TEXTS, *SENTENCES, *library_lines()[:500], " leading", "", "  "]:
        assert read.encode(text, bos=False, special=False) == original.encode(text) == rebuilt.encode(text, bos=False, special=False)
    assert read.bos_id == original.bos_id() and read.eos_id == original.eos_id() and read.stop_ids == {original.eos_id()}


def test_sentencepiece_puts_its_space_after_special_tokens_and_at_the_start_only(
    sp: tuple[sentencepiece.SentencePieceProcessor, Tokenizer],
) -> None:
    original, rebuilt = sp
    bos, eos = original.bos_id(), original.eos_id()
    assert rebuilt.encode("<s>the dog</s>she") == [bos, *original.encode("the dog"), eos, *original.encode("she")]
    whole = rebuilt.encode("the dog and she")
    assert rebuilt.encode_pieces([("the dog", True), (" and", False), (" she", False)]) == whole
    # a text that goes on: the space in front is the text's own
    continued = rebuilt.encode_pieces([("\nthe", False)], bos=False, continued=True)
    assert rebuilt.decode([*rebuilt.encode("dog"), *continued]) == "dog\nthe"


def test_a_sentencepiece_stream_drops_one_leading_space_unless_it_continues(
    sp: tuple[sentencepiece.SentencePieceProcessor, Tokenizer],
) -> None:
    _, rebuilt = sp
    for text in ("the dog", "  the dog", "日本"):
        ids = rebuilt.encode(text)
        fresh, continued = rebuilt.stream(), rebuilt.stream(continued=True)
        assert "".join(map(fresh.push, ids)) + fresh.flush() == text
        assert "".join(map(continued.push, ids)) + continued.flush() == " " + text


def test_bytes_outside_the_vocabulary_stream_as_whole_characters(trained: sentencepiece.SentencePieceProcessor, tmp_path: Path) -> None:
    path = gguf_of(trained, tmp_path / "sp.gguf")
    tokenizer = Tokenizer.from_gguf(GGUFFile.open(path).metadata, path)
    ids = tokenizer.encode("日🎉", bos=False)
    assert len(ids) == 1 + 3 + 4  # ▁ and UTF-8's bytes
    stream = tokenizer.stream()
    assert [stream.push(n) for n in ids] == ["", "", "", "日", "", "", "", "🎉"]


def test_added_chat_tokens_of_a_sentencepiece_model(trained: sentencepiece.SentencePieceProcessor, tmp_path: Path) -> None:
    path = gguf_of(trained, tmp_path / "sp.gguf", added=("<|im_start|>", "<|im_end|>"))
    tokenizer = Tokenizer.from_gguf(GGUFFile.open(path).metadata, path)
    start, end = 400, 401
    assert tokenizer.encode("<|im_start|>the<|im_end|>", bos=False) == [start, *trained.encode("the"), end]
    assert not {start, end} & set(tokenizer.encode("<|im_start|>the<|im_end|>", special=False))
    assert tokenizer.stop_ids == {trained.eos_id(), end}


def converted(processor: sentencepiece.SentencePieceProcessor, **changes: Any) -> dict[str, Any]:
    """Metadata of a GGUF by converters old and new."""
    ids = range(processor.get_piece_size())
    kinds = {"is_unknown": 2, "is_control": 3, "is_byte": 6}
    defaults = {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": [processor.id_to_piece(n) for n in ids],
        "tokenizer.ggml.scores": np.array([processor.get_score(n) for n in ids], np.float32),
        "tokenizer.ggml.token_type": np.array(
            [next((kind for test, kind in kinds.items() if getattr(processor, test)(n)), 1) for n in ids], np.int32
        ),
    }
    return defaults | {key.replace("__", "."): value for key, value in changes.items()}


def test_several_unknown_tokens_or_none_are_read(trained: sentencepiece.SentencePieceProcessor) -> None:
    """Old converters call every added token unknown, and where bytes stand for all else, none is needed."""
    metadata = converted(trained)
    metadata["tokenizer.ggml.tokens"] += ["<|user|>", "<|end|>"]
    metadata["tokenizer.ggml.scores"] = np.append(metadata["tokenizer.ggml.scores"], [-1000.0, -1000.0])
    types = np.append(metadata["tokenizer.ggml.token_type"], [UNKNOWN, UNKNOWN])
    for declared in (None, 0, 400, 7):
        unknown = {} if declared is None else {"tokenizer.ggml.unknown_token_id": declared}
        for first in (UNKNOWN, CONTROL):
            types[0] = first
            tokenizer = Tokenizer.from_gguf(metadata | unknown | {"tokenizer.ggml.token_type": types.copy()}, "x.gguf")
            assert [tokenizer.encode(text, bos=False, special=False) for text in HARD_TEXTS] == trained.encode(HARD_TEXTS)
            assert tokenizer.encode("<|user|>the<|end|>", bos=False) == [400, *trained.encode("the"), 401]
    types[[400, 401]] = CONTROL
    tokenizer = Tokenizer.from_gguf(metadata | {"tokenizer.ggml.token_type": types}, "x.gguf")  # there is none at all
    assert [tokenizer.encode(text, bos=False, special=False) for text in HARD_TEXTS] == trained.encode(HARD_TEXTS)


def test_user_defined_spaces_decode_to_spaces(trained: sentencepiece.SentencePieceProcessor) -> None:
    """Gemma has them: pieces of ▁ that are user-defined."""
    metadata = converted(trained)
    metadata["tokenizer.ggml.tokens"] += ["▁▁▁", "▁the▁dog"]
    metadata["tokenizer.ggml.scores"] = np.append(metadata["tokenizer.ggml.scores"], [0.0, 0.0])
    metadata["tokenizer.ggml.token_type"] = np.append(metadata["tokenizer.ggml.token_type"], [USER_DEFINED, USER_DEFINED])
    tokenizer = Tokenizer.from_gguf(metadata, "x.gguf")
    assert tokenizer.token_bytes(400) == b"   " and tokenizer.token_bytes(401) == b" the dog"
    assert 400 in tokenizer.encode("a    b") and tokenizer.decode(tokenizer.encode("a    b the dog")) == "a    b the dog"


def test_phi_3s_markers_take_white_space_with_them_by_its_name(trained: sentencepiece.SentencePieceProcessor) -> None:
    """As in llama.cpp, for no GGUF says so; "<s>" does not."""
    metadata = converted(trained)
    metadata["tokenizer.ggml.tokens"] = [*metadata["tokenizer.ggml.tokens"], "<|user|>"]
    for key, value in (("scores", -1000.0), ("token_type", CONTROL)):
        metadata[f"tokenizer.ggml.{key}"] = np.append(metadata[f"tokenizer.ggml.{key}"], value)
    text, start = "<|user|>\n the<s>\n", 400
    for name in ("Phi3", "microsoft_Phi-3.5-mini-instruct"):
        tokenizer = Tokenizer.from_gguf(metadata | {"general.name": name}, "x.gguf")
        assert tokenizer.encode(text, bos=False) == [start, *trained.encode("the"), 1, *trained.encode("\n")]
    plain = Tokenizer.from_gguf(metadata | {"general.name": "Llama 2"}, "x.gguf")
    assert plain.encode(text, bos=False) == [start, *trained.encode("\n the"), 1, *trained.encode("\n")]
