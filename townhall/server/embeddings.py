"""POST /v1/embeddings: vectors of texts, from the table that libraries are searched with, or from the served model itself."""

import base64
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field, model_validator

from townhall.library.embedder import NAME, StaticEmbedder, Vectors, default_embedder
from townhall.server.errors import APIError
from townhall.server.requests import FLOATS, Id, Listed, RequestModel

MOST = 2048  # texts of a request, as OpenAI has it
DIM = 256  # of the table


class EmbeddingsRequest(RequestModel):
    """`dimensions` keeps the first numbers of a vector: the table was trained so that those say most, a LLaMA was not."""

    model: Annotated[str, Field(max_length=256)] | None = None
    input: Annotated[str | Listed[str] | Listed[Id] | Listed[Listed[Id]], Field(union_mode="left_to_right")]
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: Annotated[int, Field(ge=1, le=1 << 16), FLOATS] | None = None

    @model_validator(mode="after")
    def _some_text(self) -> "EmbeddingsRequest":
        if not 1 <= len(self.inputs) <= MOST or not all(self.inputs):
            raise ValueError(f"input: pass 1 to {MOST} texts, none of them empty")
        return self

    @property
    def inputs(self) -> list[str | list[int]]:
        """Each text, as text or ids."""
        if isinstance(self.input, str):
            return [self.input]
        if self.input and isinstance(self.input[0], int):
            return [self.input]
        return list(self.input)  # type: ignore[arg-type]


def embeddings(asked: EmbeddingsRequest) -> dict[str, Any]:
    """OpenAI's object; APIError 400 where the embedder is not installed, and for ids that it does not have."""
    embedder = default_embedder()
    if embedder is None:
        raise APIError(
            400, "embeddings need the table in wordllama's wheel; pip install 'townhall[library]' where the server runs", "model"
        )
    vectors, tokens = _vectors(embedder, asked.inputs)
    return embedding_list(asked, vectors, tokens, NAME)


def embedding_list(asked: EmbeddingsRequest, vectors: Vectors, tokens: int, model: str) -> dict[str, Any]:
    """OpenAI's object for vectors (inputs, D) of length 1; APIError 400 for more `dimensions` than they have."""
    vectors = shortened(vectors, asked.dimensions, model)
    data = [{"object": "embedding", "index": n, "embedding": _encoded(row, asked.encoding_format)} for n, row in enumerate(vectors)]
    return {"object": "list", "data": data, "model": model, "usage": {"prompt_tokens": tokens, "total_tokens": tokens}}


def shortened(vectors: Vectors, dimensions: int | None, model: str) -> Vectors:
    """The first `dimensions` numbers of each, at length 1."""
    if dimensions and dimensions > vectors.shape[1]:
        raise APIError(400, f"dimensions: {model} makes vectors of {vectors.shape[1]} numbers; pass that many or fewer", "dimensions")
    return _unit(vectors[:, :dimensions]) if dimensions else vectors


def _vectors(embedder: StaticEmbedder, inputs: list[str | list[int]]) -> tuple[Vectors, int]:
    """(inputs, D), and how many tokens they have together."""
    ids = [text if isinstance(text, list) else None for text in inputs]
    size = len(embedder.table)
    if wrong := [n for row in ids if row for n in row if not 0 <= n < size]:
        mend = "send text (LangChain: check_embedding_ctx_length=False)"
        raise APIError(400, f"input: {wrong[0]} is no token of {NAME}, which has {size}; {mend}", "input")
    texts = [text if isinstance(text, str) else "" for text in inputs]
    out = embedder.embed(texts)
    for row, own in enumerate(ids):
        if own:
            out[row] = _unit(embedder.table.take(own, axis=0).sum(axis=0, keepdims=True))[0]
    return out, sum(len(own) for own in ids if own) + sum(embedder.token_count(text) for text in texts if text)


def _unit(vectors: Vectors) -> Vectors:
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.divide(vectors, norms, out=np.zeros_like(vectors), where=norms > 0)


def _encoded(vector: Vectors, encoding: str | None) -> list[float] | str:
    return base64.b64encode(vector.astype("<f4").tobytes()).decode() if encoding == "base64" else vector.tolist()
