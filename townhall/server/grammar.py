"""Answers of a given shape: llguidance says which tokens may come next, so that the text is valid JSON whatever the model would like."""

import json
from collections.abc import Callable
from typing import Any

import numpy as np

from app.models.llama.logits_processors import Grammar
from townhall.server.errors import APIError

MAX_SCHEMA = 64 << 10  # characters
# one space after each colon and comma: where white space is free, small models write nothing else
STYLE: Any = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}


class JSONGrammar:
    """One answer in the making."""

    def __init__(self, matcher: Any):
        self._matcher = matcher

    def allowed(self) -> np.ndarray:
        """bool (V,): what the text may go on with; after its end, the stop tokens alone."""
        bits = np.frombuffer(self._matcher.compute_bitmask(), np.uint8)
        self._check()
        return np.unpackbits(bits, bitorder="little").astype(bool)

    def take(self, token: int) -> None:
        """The text goes on with this token."""
        self._matcher.consume_token(token)
        self._check()

    def _check(self) -> None:
        if self._matcher.is_error():
            raise APIError(400, f"the schema cannot be followed any further: {_brief(self._matcher.get_error())}", "response_format")


class Grammars:
    """Makes grammars for one tokenizer."""

    def __init__(self, tokenizer: Any):
        self._tokenizer = tokenizer
        self._llg: Any = None

    def prepare(self) -> None:
        """Have the vocabulary looked through now, not at the first request: it takes a while, and nothing else runs meanwhile."""
        if hasattr(self._tokenizer, "token_bytes"):
            self._open()

    def of_schema(self, schema: dict[str, Any]) -> Callable[[], Grammar]:
        """A maker of fresh grammars; APIError 400 for a schema that cannot be honoured, in llguidance's words."""
        if len(json.dumps(schema)) > MAX_SCHEMA:
            raise APIError(400, f"the schema is longer than {MAX_SCHEMA} characters", "response_format")
        from llguidance import LLMatcher

        tokenizer = self._open()
        try:
            grammar = LLMatcher.grammar_from_json_schema(json.dumps(schema), overrides=STYLE)
        except ValueError as error:
            raise APIError(400, f"the schema cannot be honoured: {_brief(str(error))}", "response_format") from error
        matcher = LLMatcher(tokenizer, grammar, log_level=0)
        if matcher.is_error():
            raise APIError(400, f"the schema cannot be honoured: {_brief(matcher.get_error())}", "response_format")
        return lambda: JSONGrammar(matcher.deep_copy())

    def _open(self) -> Any:
        if self._llg is None:
            if not hasattr(self._tokenizer, "token_bytes"):
                raise APIError(400, "this model has no vocabulary to hold to a schema", "response_format")
            from llguidance import LLTokenizer

            self._llg = LLTokenizer(_Vocabulary(self._tokenizer))  # type: ignore[arg-type]  # what it asks of a TokenizerWrapper is there
        return self._llg


class _Vocabulary:
    """Our tokenizer as llguidance wants it."""

    is_tokenizer_wrapper = True

    def __init__(self, tokenizer: Any):
        special = {*tokenizer.special_ids.values(), *tokenizer.stop_ids}
        spelled = {n: text for text, n in tokenizer.special_ids.items()}
        self.eos_token_id = min(tokenizer.stop_ids)
        self.bos_token_id = tokenizer.bos_id
        self.tokens = [spelled.get(n, "").encode() if n in special else tokenizer.token_bytes(n) for n in range(tokenizer.vocab_size)]
        self.special_token_ids = sorted(special)
        self._encode = tokenizer.encode

    def __call__(self, text: bytes | str) -> list[int]:
        if isinstance(text, bytes):
            text = text.decode("utf-8", "replace")
        ids: list[int] = self._encode(text, bos=False, special=False)
        return ids


def _brief(message: str) -> str:
    return (message.strip().splitlines() or ["no reason given"])[0][:300]
