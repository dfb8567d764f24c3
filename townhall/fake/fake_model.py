"""A scripted model behind the façade, with a tokenizer for which a word is a token: no weights, no tinygrad.

It says an echo of the question, or the replies of a YAML file one after another. Its cache checks what is reused, as the real one does.
"""

import hashlib
import json
import re
import time
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from ext.tinygrad.errors import TownhallError
from townhall.errors import ModelError
from townhall.yaml_file import Fields, YamlFile

PREFIX = "fake:"
MOST_REPLIES = 10_000
LONGEST_PAUSE = 60.0  # seconds
_KNOWN, _REPLY = ("replies", "pause", "prefill"), ("text", "tokens", "pause", "prefill")


CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
SPECIALS = ("<s>", "</s>", "<|im_start|>", "<|im_end|>")


class FakeTokenizer:
    """One token per word with its leading space, per digit and per other character; a text's id is its checksum."""

    def __init__(self, chat_template: str | None = CHATML, add_bos: bool = True, prefix_space: bool = False):
        self.chat_template, self.add_bos, self.prefix_space = chat_template, add_bos, prefix_space
        self.space_after_special = prefix_space
        self.texts: dict[int, str] = dict(enumerate(SPECIALS))
        self.special_ids = {text: n for n, text in enumerate(SPECIALS)}
        self._ids: dict[str, int] = {}
        self.bos_token, self.eos_token, self.bos_id, self.eos_id = "<s>", "</s>", 0, 1
        self.stop_ids, self.stop_is_chosen = frozenset({1, 3}), False

    @property
    def vocab_size(self) -> int:
        return 1 << 31  # any id may turn out to be a word's

    def id(self, text: str) -> int:
        """The id of a token's text: the same in every process, so that what was kept can be repeated."""
        if text in self.special_ids:
            return self.special_ids[text]
        if text not in self._ids:
            number = zlib.crc32(text.encode(errors="replace")) >> 1
            while number in self.texts:  # another text's, or a special token's
                number += 1
            self._ids[text], self.texts[number] = number, text
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

    def spellings(self) -> Iterator[tuple[int, bytes]]:
        """Every id that a text has had so far, and what it adds to one."""
        return ((n, b"" if n < len(SPECIALS) else text.encode(errors="replace")) for n, text in list(self.texts.items()))

    def token_bytes(self, n: int) -> bytes:
        return self.decode([n]).encode(errors="replace")

    def decode(self, ids: Iterable[int]) -> str:
        return "".join("" if n < len(SPECIALS) else self.texts.get(n, "") for n in ids)

    def show(self, ids: Iterable[int]) -> str:
        """Every token by its spelling, special ones too; an id that no word has come to says nothing."""
        return "".join(self.texts.get(n, "") for n in ids)

    def stream(self, continued: bool = False) -> "FakeStream":
        return FakeStream(self)


class FakeStream:
    """Tokens are whole characters here: nothing is ever held back."""

    def __init__(self, tokenizer: FakeTokenizer):
        self._tokenizer = tokenizer

    def push(self, token: int) -> str:
        return self._tokenizer.decode([token])

    def flush(self) -> str:
        return ""


@dataclass(frozen=True)
class ScriptedReply:
    """What the model is to say: a text, which is cut into words, or the very tokens; pauses in seconds before each and before the first."""

    text: str = ""
    tokens: tuple[str, ...] | None = None
    pause: float = 0.0
    prefill: float = 0.0


class FakeOverflow(TownhallError):
    """A prompt beyond the window."""


@dataclass
class FakeCache:
    """Tokens in place of keys and values."""

    capacity: int
    tokens: list[int] = field(default_factory=list)
    identity: dict[str, str] = field(default_factory=lambda: {"model": "fake"})

    def reachable(self, n: int) -> int:
        return n

    def prepare_remove(self) -> None:
        pass

    def remove(self, start: int, stop: int) -> None:
        assert 0 <= start < stop <= len(self.tokens)
        del self.tokens[start:stop]

    def entries(self, n: int) -> list[int]:
        return self.tokens[:n]

    def fill(self, entries: list[int]) -> None:
        self.tokens = list(entries)

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


@dataclass(frozen=True)
class FakeBackend:
    """The device that there is not."""

    kind: str = "cpu"
    is_gpu: bool = False

    def describe(self) -> str:
        return "FAKE: a scripted double"

    def to_json(self) -> dict[str, Any]:
        return {"device": "FAKE", "kind": self.kind}


class FakeGeneration(Iterator[int]):
    """As the real one: the prompt is prefilled at the first id, an id enters the cache when the one after it is asked for."""

    def __init__(
        self, model: "FakeModel", ids: list[int], line: ScriptedReply, max_tokens: int, cache: FakeCache, stop_ids: frozenset[int]
    ):
        self._model, self._ids, self._line, self._max_tokens = model, ids, line, max_tokens
        self._cache, self._stop_ids = cache, stop_ids
        tokenizer = model.tokenizer
        self._said = tokenizer.encode(line.text, bos=False) if line.tokens is None else [tokenizer.id(token) for token in line.tokens]
        self.finish_reason: str | None = None
        self.prompt_tokens, self.cached_tokens, self.tokens = len(ids), 0, 0
        self.prefill_seconds = self.decode_seconds = 0.0
        self.closed = False
        self._forced: list[int] = []
        self._was_forced = 0

    @property
    def upcoming(self) -> None:
        """There is nothing to compute."""

    @property
    def shared_seconds(self) -> float:
        return 0.0

    def __next__(self) -> int:
        if self.closed or self.finish_reason:
            raise StopIteration
        if self.tokens >= self._max_tokens or len(self._ids) > self._cache.capacity:
            return self._finish("length")
        if self.tokens == 0:
            time.sleep(self._line.prefill)
            self.cached_tokens = self._model.prefill(self._ids[:-1], self._cache).cached_tokens
        self._cache.tokens.append(self._ids[-1])
        assert len(self._cache.tokens) <= self._cache.capacity
        if self._line.pause:
            time.sleep(self._line.pause)
        token = self._forced.pop(0) if self._forced else self._token(self.tokens - self._was_forced)
        if token is None or token in self._stop_ids:
            return self._finish("stop")
        self.tokens += 1
        self._ids.append(token)
        return token

    def _token(self, n: int) -> int | None:
        """The answer's token at position n; None after its end."""
        return self._said[n] if n < len(self._said) else None

    def _finish(self, reason: str) -> int:
        self.finish_reason = reason
        raise StopIteration

    def force(self, ids: Iterable[int]) -> None:
        before = len(self._forced)
        self._forced += ids
        self._was_forced += len(self._forced) - before

    def close(self) -> None:
        self.closed = True


class FakeModel:
    """Says what `script` makes of the prompt's text, token by token; `source` is all that its answers depend on."""

    device = "FAKE"
    prefill_sizes = (128, 32)  # tokens
    generation = FakeGeneration  # what a subclass may want to do otherwise

    def __init__(
        self, script: Callable[[str], ScriptedReply], max_context: int = 1024, tokenizer: FakeTokenizer | None = None, source: str = ""
    ):
        self.script, self.max_context = script, max_context
        self.tokenizer = tokenizer or FakeTokenizer()
        self.backend = FakeBackend()
        self.fingerprint = "fake" + (hashlib.sha256(source.encode()).hexdigest()[:60] if source else "")

    def new_cache(self) -> FakeCache:
        return FakeCache(self.max_context, identity={"model": self.fingerprint, "device": self.device})

    def prefill(self, ids: list[int], cache: FakeCache, on_progress: Callable[[int, int], None] | None = None) -> FakeStats:
        if len(ids) > cache.capacity:
            raise FakeOverflow(f"{len(ids)} tokens do not fit {cache.capacity}")
        cached = next((n for n, (a, b) in enumerate(zip(ids, cache.tokens, strict=False)) if a != b), min(len(ids), len(cache.tokens)))
        cache.tokens = list(ids)
        if on_progress:
            on_progress(len(ids) - cached, len(ids) - cached)
        return FakeStats(len(ids), cached)

    def warm(self, cache: FakeCache) -> None:
        """There is nothing to prepare."""

    def pass_tokens(self, tokens: int, cache: FakeCache) -> int:
        return min(tokens, self.prefill_sizes[0])

    def score(self, ids: list[int], cache: FakeCache) -> Iterator[Any]:
        """There are no logits."""
        return iter(())

    def hidden(self, ids: list[int], cache: FakeCache) -> Iterator[Any]:
        """Nor hidden states."""
        return iter(())

    def generate(
        self,
        ids: list[int],
        max_tokens: int,
        sampling: Any = None,
        cache: FakeCache | None = None,
        stop_ids: frozenset[int] | None = None,
    ) -> FakeGeneration:
        if len(ids) > self.max_context:
            raise FakeOverflow(f"{len(ids)} tokens do not fit {self.max_context}")
        line = self.script(self.tokenizer.show(ids))
        return self.generation(self, list(ids), line, max_tokens, cache or self.new_cache(), stop_ids or self.tokenizer.stop_ids)


def open_fake(model: Path | str, max_context: int = 1024) -> FakeModel:
    """The double that `fake:echo` or `fake:script=FILE` names; ModelError says what is wrong with it."""
    kind, _, path = str(model).removeprefix(PREFIX).partition("=")
    if kind == "echo" and not path:
        return FakeModel(echo, max_context, source="echo")
    if kind == "script" and path:
        lines = read_script(Path(path).expanduser())
        return FakeModel(recite(lines), max_context, source=repr([(line.text, line.tokens) for line in lines]))
    raise ModelError(f"--model {model} names no double; pass fake:echo or fake:script=FILE, a YAML file with a list of replies")


def echo(prompt: str) -> ScriptedReply:
    """The last thing that the user said, or the last line of a raw prompt."""
    alpaca = re.search(r"### Input:\n[^:\n]+: ((?:(?!\n### ).)*)\n### Response:\n[^:\n]+:$", prompt, re.DOTALL)
    turns = (
        [alpaca[1]]
        if alpaca
        else re.findall(r"<\|im_start\|>user\n(.*?)<\|im_end\|>", prompt, re.DOTALL)
        or re.findall(r"(?:<CHAT LOG>|\[EOS\])\n[^:\n]+: ((?:(?!\[EOS\]\n).)*)\n[^:\n]+:$", prompt, re.DOTALL)
    )
    return ScriptedReply(turns[-1] if turns else prompt.removeprefix("<s>").splitlines()[-1] if prompt.removeprefix("<s>") else "")


def recite(lines: list[ScriptedReply]) -> Callable[[str], ScriptedReply]:
    """One line for each prompt; after the last the first comes again."""
    at = -1

    def say(prompt: str) -> ScriptedReply:
        nonlocal at
        at += 1
        return lines[at % len(lines)]

    return say


def read_script(path: Path) -> list[ScriptedReply]:
    """The replies of a YAML file; ModelError names the file, the line and the fault.

    `replies` is a list of texts, or of mappings with `text` or `tokens` and a `pause` and `prefill` of their own; `pause` is seconds
    before each token, `prefill` seconds before the first one.
    """
    return YamlFile("script", path, ModelError).load(_lines, _KNOWN, empty="it needs a list of replies")


def _lines(fields: Fields) -> list[ScriptedReply]:
    pause, prefill = fields.number("pause", LONGEST_PAUSE), fields.number("prefill", LONGEST_PAUSE)
    lines = []
    for node in fields.items("replies", MOST_REPLIES):
        if isinstance(node, yaml.MappingNode):
            reply = Fields(fields.file, fields.loader, node, "a reply", _REPLY)
            if ("text" in reply.values) == ("tokens" in reply.values):
                raise reply.fault("text", "a reply needs 'text' or 'tokens', one of them")
            tokens = reply.strings("tokens", MOST_REPLIES) if "tokens" in reply.values else None
            text, own = reply.verbatim("text") if tokens is None else "", reply
        else:
            tokens, text, own = None, fields.string(node, "replies"), None
        lines.append(
            ScriptedReply(
                text,
                tokens,
                own.number("pause", LONGEST_PAUSE, pause) if own else pause,
                own.number("prefill", LONGEST_PAUSE, prefill) if own else prefill,
            )
        )
    if not lines:
        raise fields.fault("replies", "'replies' must be a list of at least one text")
    return lines
