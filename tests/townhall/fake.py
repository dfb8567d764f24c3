"""A scripted model behind the façade: a word is a token, the cache checks what is reused, answers come from a list."""

import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ext.tinygrad.errors import TownhallError

CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
SPECIALS = ("<s>", "</s>", "<|im_start|>", "<|im_end|>")

Script = Sequence[str | BaseException]  # an answer in tokens; an exception among them is raised when its turn comes


class FakeTokenizer:
    """One token per word with its leading space, per digit and per other character; ids are given out as they are first met."""

    def __init__(self, chat_template: str | None = CHATML, add_bos: bool = True, prefix_space: bool = False):
        self.chat_template, self.add_bos, self.prefix_space = chat_template, add_bos, prefix_space
        self.texts: list[str] = list(SPECIALS)
        self.special_ids = {text: n for n, text in enumerate(SPECIALS)}
        self._ids: dict[str, int] = {}
        self.bos_token, self.eos_token, self.bos_id, self.eos_id = "<s>", "</s>", 0, 1
        self.stop_ids, self.stop_is_chosen = frozenset({1, 3}), False

    def id(self, text: str) -> int:
        if text in self.special_ids:
            return self.special_ids[text]
        if text not in self._ids:
            self._ids[text] = len(self.texts)
            self.texts.append(text)
        return self._ids[text]

    def encode(self, text: str, bos: bool = True, special: bool = True) -> list[int]:
        return self.encode_pieces([(text, special)], bos)

    def encode_pieces(self, pieces: Iterable[tuple[str, bool]], bos: bool = True, continued: bool = False) -> list[int]:
        ids: list[int] = []
        plain, fresh = "", not continued

        def settle() -> None:
            nonlocal plain, fresh
            if plain:
                text = " " + plain if fresh and self.prefix_space else plain
                ids.extend(self.id(word) for word in re.findall(r" ?[^\W\d]+| ?\d| ?[^\w\s]|\s", text))
                plain, fresh = "", False

        for text, special in pieces:
            for part in re.split(f"({'|'.join(map(re.escape, SPECIALS))})", text) if special else [text]:
                if special and part in self.special_ids:
                    settle()
                    ids.append(self.special_ids[part])
                    fresh = True
                else:
                    plain += part
        settle()
        return [0, *ids] if bos and self.add_bos and ids[:1] != [0] else ids

    def decode(self, ids: Iterable[int]) -> str:
        return "".join("" if n < len(SPECIALS) else self.texts[n] for n in ids)

    def show(self, ids: Iterable[int]) -> str:
        """Every token by its spelling, special ones too."""
        return "".join(self.texts[n] for n in ids)

    def stream(self, continued: bool = False) -> "FakeStream":
        return FakeStream(self)


class FakeStream:
    def __init__(self, tokenizer: FakeTokenizer):
        self._tokenizer = tokenizer

    def push(self, token: int) -> str:
        return self._tokenizer.decode([token])

    def flush(self) -> str:
        return ""


@dataclass
class FakeCache:
    capacity: int
    tokens: list[int] = field(default_factory=list)
    identity: dict[str, str] = field(default_factory=lambda: {"model": "fake"})

    def prepare_remove(self) -> None:
        pass

    def remove(self, start: int, stop: int) -> None:
        assert 0 <= start < stop <= len(self.tokens)
        del self.tokens[start:stop]

    def snapshot(self, path: Path) -> None:
        path.write_text(json.dumps(self.tokens))

    def restore(self, path: Path) -> None:
        from app.models.llama.snapshot import SnapshotError

        try:
            self.tokens = json.loads(path.read_text())
        except ValueError as error:
            raise SnapshotError(f"{path} cannot be read ({error})") from error


@dataclass(frozen=True)
class FakeStats:
    prompt_tokens: int
    cached_tokens: int
    seconds: float = 0.0


class FakeOverflow(TownhallError):
    pass


@dataclass(frozen=True)
class FakeBackend:
    kind: str = "cpu"
    is_gpu: bool = False

    def describe(self) -> str:
        return "FAKE: a scripted double"

    def to_json(self) -> dict[str, Any]:
        return {"device": "FAKE", "kind": self.kind}


class FakeLlama:
    """Answers from `script`: a list that is used up (and begins again) or a function of the prompt's text."""

    device = "FAKE"

    def __init__(
        self,
        script: Sequence[str | Script] | Callable[[str], str | Script] = ("Fine, thanks.",),
        max_context: int = 1024,
        tokenizer: FakeTokenizer | None = None,
    ):
        self.script, self.max_context = script, max_context
        self.tokenizer = tokenizer or FakeTokenizer()
        self.backend = FakeBackend()
        self.prompts: list[list[int]] = []  # of every generation
        self.stop_ids: frozenset[int] | None = None
        self.computed = 0  # tokens that went through the "model"

    def new_cache(self) -> FakeCache:
        return FakeCache(self.max_context)

    def prefill(self, ids: list[int], cache: FakeCache, on_progress: Callable[[int, int], None] | None = None) -> FakeStats:
        if len(ids) > cache.capacity:
            raise FakeOverflow(f"{len(ids)} tokens do not fit {cache.capacity}")
        cached = next((n for n, (a, b) in enumerate(zip(ids, cache.tokens, strict=False)) if a != b), min(len(ids), len(cache.tokens)))
        self.computed += len(ids) - cached
        cache.tokens = list(ids)
        if on_progress:
            on_progress(len(ids) - cached, len(ids) - cached)
        return FakeStats(len(ids), cached)

    def generate(
        self,
        ids: list[int],
        max_tokens: int,
        sampling: Any = None,
        cache: FakeCache | None = None,
        stop_ids: frozenset[int] | None = None,
    ) -> "FakeGeneration":
        if len(ids) > self.max_context:
            raise FakeOverflow(f"{len(ids)} tokens do not fit {self.max_context}")
        self.prompts.append(list(ids))
        self.stop_ids = stop_ids
        said = self.script(self.tokenizer.show(ids)) if callable(self.script) else self.script[(len(self.prompts) - 1) % len(self.script)]
        tokens: Script = [self.tokenizer.texts[n] for n in self.tokenizer.encode(said, bos=False)] if isinstance(said, str) else said
        return FakeGeneration(self, list(ids), tokens, max_tokens, cache or self.new_cache(), stop_ids or self.tokenizer.stop_ids)


class FakeGeneration(Iterator[int]):
    """As the real one: the prompt is prefilled at the first id, an id enters the cache when the one after it is asked for."""

    def __init__(self, llama: FakeLlama, ids: list[int], script: Script, max_tokens: int, cache: FakeCache, stop_ids: frozenset[int]):
        self._llama, self._ids, self._script, self._max_tokens = llama, ids, script, max_tokens
        self._cache, self._stop_ids = cache, stop_ids
        self.finish_reason: str | None = None
        self.prompt_tokens, self.cached_tokens, self.tokens = len(ids), 0, 0
        self.prefill_seconds = self.decode_seconds = 0.0
        self.closed = False

    def __next__(self) -> int:
        if self.closed or self.finish_reason:
            raise StopIteration
        if self.tokens >= self._max_tokens or len(self._ids) > self._cache.capacity:
            self.finish_reason = "length"
            raise StopIteration
        if self.tokens == 0:
            self.cached_tokens = self._llama.prefill(self._ids[:-1], self._cache).cached_tokens
        self._cache.tokens.append(self._ids[-1])
        assert len(self._cache.tokens) <= self._cache.capacity
        said = self._script[self.tokens] if self.tokens < len(self._script) else "</s>"
        if isinstance(said, BaseException):
            raise said
        token = self._llama.tokenizer.id(said)
        if token in self._stop_ids:
            self.finish_reason = "stop"
            raise StopIteration
        self.tokens += 1
        self._ids.append(token)
        return token

    def close(self) -> None:
        self.closed = True
