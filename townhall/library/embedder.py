"""Sentence vectors from a table: the mean of a text's token vectors. No network, no model runs, a million tokens a second.

Table and tokenizer lie in the wheel of wordllama (MIT): 32,000 rows of 256, trained from the token embeddings of models that share
LLaMA 2's vocabulary. Its code is not imported: its two files are read with our own packages, so that nothing is downloaded.
"""

import hashlib
from collections.abc import Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from townhall.library.errors import LibraryError

if TYPE_CHECKING:
    from tokenizers import Tokenizer

Vectors = npt.NDArray[np.float32]
NAME = "wordllama-l2-supercat-256"
_TABLE, _TOKENIZER = "weights/l2_supercat_256.safetensors", "tokenizers/l2_supercat_tokenizer_config.json"
_BATCH = 256  # texts at a time
_KNOWN = 100_000  # words whose ids are remembered, some 20 MB


class StaticEmbedder:
    """`table` (V, D) holds a vector for each id of `tokenizer`. `id` changes where vectors would."""

    def __init__(self, table: Vectors, tokenizer: "Tokenizer", id: str):
        self.table, self.id = table, id
        self._tokenizer = tokenizer
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        self._tokenizer.encode_special_tokens = True  # "<s>" in a document is three characters
        self._known: dict[str, list[int]] = {}  # ids of words
        self._lock = Lock()  # a server's threads share the embedder

    @classmethod
    def from_files(cls, table: Path, tokenizer: Path, name: str) -> "StaticEmbedder":
        """Of a safetensors file with the one matrix `embedding.weight`, and a tokenizer of the `tokenizers` package."""
        from safetensors.numpy import load_file
        from tokenizers import Tokenizer

        try:
            weights = load_file(table)["embedding.weight"].astype(np.float32)
            words = Tokenizer.from_file(str(tokenizer))
        except Exception as error:  # tokenizers raises plain Exception
            raise LibraryError(f"the embedder's files beside {table} cannot be used ({error}); install wordllama again") from error
        return cls(weights, words, f"{name}:{hashlib.sha256(weights[::97].tobytes()).hexdigest()[:12]}")

    @property
    def dim(self) -> int:
        return int(self.table.shape[1])

    def embed(self, texts: Sequence[str]) -> Vectors:
        """(texts, D) vectors of length 1; of a text without tokens, zeros. Line ends and runs of spaces count as one space."""
        out = np.zeros((len(texts), self.dim), np.float32)
        for start in range(0, len(texts), _BATCH):
            for row, ids in enumerate(self._ids(texts[start : start + _BATCH]), start):
                if ids:
                    out[row] = self.table.take(ids, axis=0).sum(axis=0)  # no product: its threads would spin while others want the cores
        norms = np.linalg.norm(out, axis=1, keepdims=True)
        return np.divide(out, norms, out=out, where=norms > 0)

    def token_count(self, text: str) -> int:
        """How many ids it has."""
        return len(self._ids([text])[0])

    def _ids(self, texts: Sequence[str]) -> list[list[int]]:
        """The ids of each text. No token of this vocabulary goes on after a space, so words are tokenised once and remembered."""
        words = [text.split() for text in texts]
        with self._lock:
            return self._looked_up(words)

    def _looked_up(self, words: list[list[str]]) -> list[list[int]]:
        unseen = list({word for row in words for word in row if word not in self._known})
        if len(self._known) + len(unseen) > _KNOWN:
            self._known.clear()
            unseen = list({word for row in words for word in row})
        for word, encoding in zip(unseen, self._tokenizer.encode_batch_fast(unseen, add_special_tokens=False)):
            self._known[word] = encoding.ids
        return [[id for word in row for id in self._known[word]] for row in words]


@cache
def default_embedder() -> StaticEmbedder | None:
    """wordllama's, or None where it is not installed: then words alone are searched for."""
    spec = find_spec("wordllama")
    if spec is None or not spec.submodule_search_locations:
        return None
    folder = Path(spec.submodule_search_locations[0])
    return StaticEmbedder.from_files(folder / _TABLE, folder / _TOKENIZER, NAME)
