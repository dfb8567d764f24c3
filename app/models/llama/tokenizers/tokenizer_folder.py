"""The tokenizer of a checkpoint folder: which files speak, what each says, and what follows from all of them."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import reduce
from operator import or_
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from app.models.llama.checkpoint.files import (
    MAX_CONFIG_BYTES,
    MAX_INDEX_BYTES,
    MAX_TOKENIZER_BYTES,
    read_bytes,
    read_json,
    read_optional_json,
)
from app.models.llama.checkpoint.ggml import TokenType
from app.models.llama.sanitize import quoted
from app.models.llama.tokenizers.added_tokens import Match, written_matches
from app.models.llama.tokenizers.byte_bpe import looks_like_tiktoken, read_tiktoken
from app.models.llama.tokenizers.sentencepiece_model import looks_like_sentencepiece, read_sentencepiece
from app.models.llama.tokenizers.tokenizer_json import MAX_TOKENS, read_tokenizer_json
from app.models.llama.tokenizers.vocabulary import ADDED_ONLY, SPACE_AT_START_ONLY, TokenizerError

ROLES = ("bos", "eos", "pad")
# whose word on BOS and EOS counts first; all of them are heard for the stop tokens
PRECEDENCE = ("tokenizer_config.json", "special_tokens_map.json", "tokenizer.model", "generation_config.json", "config.json")


@dataclass(frozen=True)
class TokenizerFiles:
    """`metadata` as a GGUF would carry it; `said` is what each source gives for bos, eos and pad; `added` tokens by id."""

    metadata: dict[str, Any]
    stop_ids: frozenset[int]
    said: dict[str, dict[str, list[int]]] = field(default_factory=dict)
    added: dict[int, str] = field(default_factory=dict)


def read_tokenizer_folder(folder: Path) -> TokenizerFiles:
    """TokenizerError or CheckpointError, in a sentence, for a folder without a tokenizer or with one that cannot be used."""
    model, fast = folder / "tokenizer.model", folder / "tokenizer.json"
    fast_content = read_json(fast, MAX_TOKENIZER_BYTES) if fast.exists() else {}
    settings = read_optional_json(folder / "tokenizer_config.json", MAX_INDEX_BYTES)
    if model.exists():
        data = read_bytes(model, MAX_TOKENIZER_BYTES)
        if looks_like_sentencepiece(data[:16]):
            metadata = read_sentencepiece(data, model) | _space(settings)
        elif looks_like_tiktoken(data[:1024]):
            metadata = read_tiktoken(data, model)
        else:
            raise TokenizerError(f"{model} is neither SentencePiece's nor tiktoken's; download it again")
    elif fast_content:
        metadata = read_tokenizer_json(fast_content, fast, _content(settings.get("unk_token")))
    else:
        raise TokenizerError(f"{folder} holds neither tokenizer.model nor tokenizer.json; put the model's own tokenizer there")
    added = {token.id: token for token in _added_tokens(folder, fast_content, settings)}
    _add(metadata, added, folder)
    # SentencePiece's own library knows no normal form of an added token
    known = ~Match.NORMALIZED if model.exists() else ~Match(0)
    metadata |= written_matches({n: token.matches & known for n, token in added.items()})
    said = _what_each_says(folder, metadata, settings)
    types = metadata["tokenizer.ggml.token_type"]
    for n in (n for source in PRECEDENCE[:2] for role in ("bos", "eos") for n in said.get(source, {}).get(role, [])):
        types[n] = TokenType.CONTROL if types[n] == TokenType.NORMAL else types[n]  # these are special to transformers
    for role in ("bos", "eos"):
        for source in PRECEDENCE:
            if given := said.get(source, {}).get(role):
                if source.endswith("config.json") and source != PRECEDENCE[0] and types[given[0]] in (TokenType.NORMAL, TokenType.BYTE):
                    continue  # a default that fits another vocabulary
                metadata[f"tokenizer.ggml.{role}_token_id"] = given[0]
                break
    if isinstance(settings.get("add_bos_token"), bool):
        metadata["tokenizer.ggml.add_bos_token"] = settings["add_bos_token"]
    if template := _chat_template(folder, settings):
        metadata["tokenizer.chat_template"] = template
    stops = frozenset(n for roles in said.values() for n in roles.get("eos", []))
    return TokenizerFiles(metadata, stops, said, {n: token.text for n, token in added.items()})


def _space(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Where tokenizer_config.json moves the space that SentencePiece begins with; a tokenizer.json says that by itself."""
    moved: dict[str, Any] = {SPACE_AT_START_ONLY: True} if settings.get("legacy") is False else {}
    if isinstance(settings.get("add_prefix_space"), bool):
        moved["tokenizer.ggml.add_space_prefix"] = settings["add_prefix_space"]
    return moved


class Added(NamedTuple):
    id: int
    text: str
    special: bool
    matches: Match


def _added_tokens(folder: Path, fast: Mapping[str, Any], settings: Mapping[str, Any]) -> Iterator[Added]:
    """Weakest source first."""
    for token, n in read_optional_json(folder / "added_tokens.json", MAX_INDEX_BYTES).items():
        yield _checked(n, token, {"special": True}, folder / "added_tokens.json")
    for entry in _list(fast.get("added_tokens")):
        if isinstance(entry, Mapping):
            yield _checked(entry.get("id"), entry.get("content"), entry, folder / "tokenizer.json")
    decoder = settings.get("added_tokens_decoder")
    for key, entry in decoder.items() if isinstance(decoder, Mapping) else ():
        if isinstance(entry, Mapping):
            n = int(key) if key.isdecimal() and len(key) < 9 else key
            yield _checked(n, entry.get("content"), entry, folder / "tokenizer_config.json")


def _checked(n: Any, token: Any, entry: Mapping[str, Any], path: Path) -> Added:
    if type(n) is not int or not 0 <= n < MAX_TOKENS or not isinstance(token, str) or not token:
        raise TokenizerError(f"{path} adds the token {quoted(token)} as id {quoted(n)}, which is none; download it again")
    matches = [rule for rule in Match if entry.get(str(rule.name).lower()) is True]
    return Added(n, token, entry.get("special") is True, reduce(or_, matches, Match(0)))


def _add(metadata: dict[str, Any], added: Mapping[int, Added], folder: Path) -> None:
    """Put added tokens into the vocabulary, holes filled with ids that stand for nothing."""
    tokens: list[str] = metadata["tokenizer.ggml.tokens"]
    size, total = len(tokens), max([len(tokens), *(n + 1 for n in added)])
    if total - size > len(added) + 65_536:
        raise TokenizerError(f"{folder} adds tokens up to id {total - 1:,} to a vocabulary of {size:,}; download it again")
    tokens += [f"[UNUSED_{n}]" for n in range(size, total)]
    types = np.concatenate([metadata["tokenizer.ggml.token_type"], np.full(total - size, int(TokenType.UNUSED), np.int32)])
    alone = []
    for n, token, special, _ in added.values():
        same = tokens[n] == token
        alone += [n] if not same and not (special and len(token) > 1) else []
        tokens[n] = token
        if special and types[n] != TokenType.UNKNOWN:
            types[n] = TokenType.CONTROL
        elif not special and not (same and types[n] in (TokenType.BYTE, TokenType.UNKNOWN, TokenType.CONTROL)):
            types[n] = TokenType.USER_DEFINED
    metadata["tokenizer.ggml.token_type"] = types
    if alone:
        metadata[ADDED_ONLY] = np.array(alone, np.int32)
    if (scores := metadata.get("tokenizer.ggml.scores")) is not None:
        metadata["tokenizer.ggml.scores"] = np.concatenate([scores, np.zeros(total - size, np.float32)])


def _what_each_says(folder: Path, metadata: Mapping[str, Any], settings: Mapping[str, Any]) -> dict[str, dict[str, list[int]]]:
    """Source → role → ids, as far as they are ids of the vocabulary."""
    ids = {token: n for n, token in enumerate(metadata["tokenizer.ggml.tokens"])}
    own = {"bos": "bos", "eos": "eos", "pad": "padding"}
    said: dict[str, dict[str, Any]] = {}
    said["tokenizer.model"] = {role: metadata.get(f"tokenizer.ggml.{key}_token_id") for role, key in own.items()}
    for name in ("config.json", "generation_config.json"):
        content = read_optional_json(folder / name, MAX_CONFIG_BYTES)
        said[name] = {role: content.get(f"{role}_token_id") for role in ROLES}
    for name, content in (
        ("tokenizer_config.json", settings),
        ("special_tokens_map.json", read_optional_json(folder / "special_tokens_map.json", MAX_CONFIG_BYTES)),
    ):
        said[name] = {role: _spelled(content.get(f"{role}_token"), ids) for role in ROLES}
    found: dict[str, dict[str, list[int]]] = {}
    for name, roles in said.items():
        for role, value in roles.items():
            given = [n for n in _list(value) or [value] if type(n) is int and 0 <= n < len(ids)]
            if given:
                found.setdefault(name, {})[role] = given
    return found


def _spelled(token: Any, ids: Mapping[str, int]) -> int | None:
    return ids.get(text) if (text := _content(token)) is not None else None


def _content(token: Any) -> str | None:
    """A token written as text or as {"content": text}."""
    text = token.get("content") if isinstance(token, Mapping) else token
    return text if isinstance(text, str) else None


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _chat_template(folder: Path, settings: Mapping[str, Any]) -> str | None:
    """A file of its own, or the setting: one template, or several by name of which one is the default."""
    if (path := folder / "chat_template.jinja").exists():
        return read_bytes(path, MAX_CONFIG_BYTES).decode("utf-8", "replace")
    template = settings.get("chat_template")
    for entry in _list(template):
        if isinstance(entry, Mapping) and entry.get("name") == "default":
            template = entry.get("template")
    return template if isinstance(template, str) else None
