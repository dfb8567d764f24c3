"""Answers of a given shape: llguidance says which tokens may come next, so that the text is valid JSON whatever the model would like."""

import json
import re
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from app.models.llama.logits_processors import Grammar
from townhall.formats.call_syntax import ID, ID_LENGTH, CallSyntax
from townhall.prompt import Prompt
from townhall.server.errors import APIError
from townhall.server.tool_requests import FunctionDefinition
from townhall.server.tools import CallReading
from townhall.thoughts import OPEN, ThoughtFilter

MAX_SCHEMA = 64 << 10  # characters
MOST_CALLS = 16  # in an answer
MOST_TOKENS = 1 << 24  # of a vocabulary that is looked through; a double's ids may be any number
# keywords beside which "no other properties" would say more than their author meant
OPEN_ENDED = {"additionalProperties", "patternProperties", "unevaluatedProperties", "allOf", "anyOf", "oneOf", "if", "$ref"}
# one space after each colon and comma: where white space is free, small models write nothing else
STYLE: Any = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}


class JSONGrammar:
    """One answer in the making. `stops`: all the tokens that may end it, where it may end; without them, llguidance's own."""

    def __init__(self, matcher: Any, stops: Sequence[int] = ()):
        self._matcher, self._stops = matcher, stops

    def allowed(self) -> np.ndarray:
        """bool (V,): what the text may go on with; after its end, the stop tokens alone."""
        bits = np.frombuffer(self._matcher.compute_bitmask(), np.uint8)
        self._check()
        allowed = np.unpackbits(bits, bitorder="little").astype(bool)
        if self._stops and allowed[self._stops].any():
            allowed[self._stops] = True
        return allowed

    def take(self, token: int) -> None:
        """The text goes on with this token."""
        if token not in self._stops:
            self._matcher.consume_token(token)
            self._check()

    def begin(self, ids: Sequence[int]) -> bool:
        """Take all of these, if the text may begin so; else none of them."""
        return bool(self._matcher.try_consume_tokens(list(ids)) == len(ids))

    def _check(self) -> None:
        if self._matcher.is_error():
            raise APIError(400, f"the schema cannot be followed any further: {_brief(self._matcher.get_error())}", "response_format")


class CallGrammar:
    """Text as the model likes until it calls a function; from there on the call's grammar.

    `calls` makes that. Where the answer must call, it begins after the thoughts, or at once where none begin.
    """

    def __init__(self, calls: Callable[[], JSONGrammar], reading: CallReading, tokenizer: Any, prompt: Prompt, must: bool):
        self._calls, self._must, self._encode = calls, must, tokenizer.encode_pieces
        self._trigger, self._leads = reading.syntax.trigger, reading.syntax.leads
        self._tags = {**prompt.think_tags, **reading.tags}
        self._decoder = tokenizer.stream(continued=True)
        self._thoughts = ThoughtFilter(prompt.opens_thoughts)
        self._everything = np.ones(tokenizer.vocab_size, bool)
        self._said = ""
        self._over = False  # no call can come any more
        self._call: JSONGrammar | None = None
        self._fresh = False  # white space after the thoughts may still come
        opening = self._encode([(OPEN, True)], bos=False, continued=True)
        # the token that begins thoughts, while nothing has come yet and the answer must call
        self._thought = opening[0] if must and len(opening) == 1 and not prompt.opens_thoughts else None
        if must and self._thought is None and not prompt.opens_thoughts:
            self._call = calls()

    def allowed(self) -> np.ndarray:
        """bool (V,): everything before a call."""
        if self._thought is not None:
            allowed = self._calls().allowed()
            allowed[self._thought] = True
            return allowed
        return self._call.allowed() if self._call else self._everything

    def take(self, token: int) -> None:
        """The text goes on with this token."""
        thought, self._thought = self._thought, None
        if thought is not None and token != thought:
            self._call = self._calls()
        if self._call:
            self._continue(self._call, token)
        elif not self._over:
            text = self._decoder.push(token) or self._tags.get(token, "")
            self._said += self._thoughts.push(text)[1]
            self._look()

    def _continue(self, call: JSONGrammar, token: int) -> None:
        # white space that was forced after the thoughts, as their end is, is no part of the call
        space = self._fresh and not (self._decoder.push(token) or self._tags.get(token, "")).strip()
        if space and not call.allowed()[token]:
            return
        self._fresh = False
        call.take(token)

    def _look(self) -> None:
        """Has a call begun?"""
        if self._must:
            if self._thoughts.over:
                self._call, self._fresh = self._calls(), True
                self._call.begin(self._encode([(self._said.lstrip(), True)], bos=False, continued=True))
            return
        while (at := self._said.find(self._trigger)) >= 0:
            if self._leads and self._said[:at].strip():
                break
            call = self._calls()
            # what the last token said beyond the trigger belongs to the call, if it can
            if call.begin(self._encode([(self._said[at:], True)], bos=False, continued=True)):
                self._call = call
                return
            self._said = self._said[at + 1 :]
        said = self._said.lstrip()
        self._over = self._leads and not self._trigger.startswith(said[: len(self._trigger)])
        if not self._leads:
            self._said = self._said[-len(self._trigger) :]


class Grammars:
    """Makes grammars for one tokenizer."""

    def __init__(self, tokenizer: Any):
        self._tokenizer = tokenizer
        self._llg: Any = None
        self._opening = threading.Lock()

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

    def of_calls(
        self, syntax: CallSyntax, functions: Sequence[FunctionDefinition], parallel: bool, otherwise: dict[str, Any] | None = None
    ) -> Callable[[], JSONGrammar]:
        """Of calls of these functions, several where that is `parallel` and the syntax knows it; or an `otherwise`.

        APIError 400 for parameters that cannot be honoured.
        """
        from llguidance import LLMatcher

        tokenizer, special = self._open(), self._tokenizer.special_ids
        matchers, rules = {}, []
        for at, function in enumerate(functions):
            schema = arguments_schema(function)
            rules.append(f"call_{at}: {_literal(function.name + syntax.middle, special)} %json {json.dumps(schema)}")
            matchers[function.name] = LLMatcher(tokenizer, LLMatcher.grammar_from_lark(f"start: %json {json.dumps(schema)}"), log_level=0)
            if matchers[function.name].is_error():
                fault = _brief(matchers[function.name].get_error())
                raise APIError(400, f"the parameters of {function.name} cannot be honoured: {fault}", "tools")
        more = f" ({_literal(syntax.joint, special)} call){{0,{MOST_CALLS - 1}}}" if parallel and syntax.joint is not None else ""
        lark = [
            "start: calls" + (" | content" if otherwise else ""),
            f"calls: {_literal(syntax.opening, special)} call{more} {_literal(syntax.closing, special)}",
            f"call: {' | '.join(f'call_{at}' for at in range(len(functions)))}",
            *rules,
            *([f"content: %json {json.dumps({**otherwise, 'x-guidance': STYLE})}"] if otherwise else []),
        ]
        matcher = LLMatcher(tokenizer, LLMatcher.grammar_from_lark("\n".join(lark)), log_level=0)
        if matcher.is_error():
            raise APIError(400, f"the tools' parameters cannot be honoured: {_brief(matcher.get_error())}", "tools")
        stops = sorted(self._tokenizer.stop_ids)
        return lambda: JSONGrammar(matcher.deep_copy(), stops)

    @property
    def possible(self) -> bool:
        """Has the tokenizer a vocabulary that a text can be held to?"""
        return self._tokenizer.vocab_size <= MOST_TOKENS

    def _open(self) -> Any:
        """llguidance's view of the vocabulary. Made at the first grammar: it takes 0.1 s and 20 MB, and few models need it."""
        with self._opening:
            if self._llg is None:
                if not self.possible:
                    raise APIError(400, "this model has no vocabulary to hold to a schema", "response_format")
                from llguidance import LLTokenizer

                # Both calls hold the interpreter's lock: with 49,152 tokens for 37 and 60 ms, a single call with slices for 85 ms. Between
                # them other threads get it, for example the event loop's, which answers /health.
                plain = LLTokenizer(_Vocabulary(self._tokenizer), slices=[])  # type: ignore[arg-type]  # a TokenizerWrapper in all that is used
                time.sleep(0.001)
                self._llg = plain.with_slices(LLTokenizer.general_slices())
        return self._llg


def arguments_schema(function: FunctionDefinition) -> dict[str, Any]:
    """What a call's arguments are held to: an object of the parameters, and of no others unless the schema speaks of them.

    APIError 400 where the schema is too long.
    """
    schema = {"type": "object", **(function.parameters or {"properties": {}})}
    if len(json.dumps(schema)) > MAX_SCHEMA:
        raise APIError(400, f"the parameters of {function.name} are longer than {MAX_SCHEMA} characters", "tools")
    if not OPEN_ENDED & schema.keys():
        schema["additionalProperties"] = False
    return {**schema, "x-guidance": {**STYLE, "lenient": not function.strict}}


def _literal(text: str, special_ids: Mapping[str, int]) -> str:
    """A text in llguidance's grammar language, control tokens by their ids."""
    parts = []
    for part in re.split(f"({'|'.join(map(re.escape, [ID, *special_ids]))})", text):
        if part == ID:
            parts.append(f"/[a-zA-Z0-9]{{{ID_LENGTH}}}/")
        elif part in special_ids:
            parts.append(f"<[{special_ids[part]}]>")
        elif part:
            parts.append(json.dumps(part, ensure_ascii=False))
    return " ".join(parts)


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
