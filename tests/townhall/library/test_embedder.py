"""Vectors are wordllama's own, read without its code."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file
from tokenizers import Tokenizer

from townhall.library import embedder as module
from townhall.library.embedder import StaticEmbedder, default_embedder
from townhall.library.errors import LibraryError

wordllama = pytest.importorskip("wordllama")
FOLDER = Path(wordllama.__file__).parent


@pytest.fixture(scope="module")
def embedder():
    return default_embedder()


@pytest.fixture(scope="module")
def reference():
    from wordllama.inference import WordLlamaInference

    return WordLlamaInference(load_file(FOLDER / module._TABLE)["embedding.weight"], Tokenizer.from_file(str(FOLDER / module._TOKENIZER)))


@pytest.mark.parametrize(
    "text", ["How far is the moon?", "x", "Über Straßen, käse 🧀 und 漢字", "def f(x): return x", "a  b\n\tc", "The fox " * 200]
)
def test_a_vector_is_the_one_that_wordllama_gives(embedder, reference, text):
    wanted = reference.embed([" ".join(text.split())], norm=True)
    assert np.allclose(embedder.embed([text]), wanted, atol=1e-6)


@given(texts=st.lists(st.text(st.characters(codec="utf-8"), min_size=1).filter(str.strip), min_size=1, max_size=5))
def test_any_texts_have_wordllamas_vectors(embedder, reference, texts):
    wanted = reference.embed([" ".join(text.split()) for text in texts], norm=True)
    assert np.allclose(embedder.embed(texts), wanted, atol=1e-5)


def test_related_sentences_are_nearer_than_others(embedder):
    cat, kitten, tax = embedder.embed(["The cat sleeps on the sofa.", "A kitten naps on the couch.", "The tax return is due in May."])
    assert cat @ kitten > 0.4 > 0.1 > cat @ tax


def test_what_looks_like_a_special_token_is_text(embedder):
    assert embedder.token_count("<s>") == 3 and embedder.token_count("</s>") > 1


def test_no_text_has_no_direction(embedder):
    assert not embedder.embed(["", " \n"]).any() and embedder.embed([]).shape == (0, 256)
    assert np.allclose(np.linalg.norm(embedder.embed(["a", "b c"]), axis=1), 1)


def test_tokens_are_counted(embedder):
    tokenizer = Tokenizer.from_file(str(FOLDER / module._TOKENIZER))
    for text in ("How far is the moon?", "Käse und 漢字", "x"):
        assert embedder.token_count(text) == len(tokenizer.encode(text, add_special_tokens=False).ids)


def test_remembered_words_stay_within_their_bound(embedder, monkeypatch):
    monkeypatch.setattr(module, "_KNOWN", 50)
    before = embedder.embed(["same words"])
    embedder.embed([f"w{n} x{n}" for n in range(100)])
    embedder.embed(["same"])
    assert len(embedder._known) <= 50 and np.allclose(embedder.embed(["same words"]), before)


def test_without_wordllama_there_is_none(monkeypatch):
    monkeypatch.setattr(module, "find_spec", lambda name: None)
    assert default_embedder.__wrapped__() is None


def test_damaged_files_are_said_in_one_sentence(tmp_path):
    (tmp_path / "t").write_bytes(b"nothing")
    with pytest.raises(LibraryError, match="install wordllama again"):
        StaticEmbedder.from_files(tmp_path / "t", FOLDER / module._TOKENIZER, "x")
    save_file({"other": np.zeros((2, 2), np.float32)}, tmp_path / "t")
    with pytest.raises(LibraryError, match="install wordllama again"):
        StaticEmbedder.from_files(tmp_path / "t", FOLDER / module._TOKENIZER, "x")
