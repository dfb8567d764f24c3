"""Small YAML files that people write: read within bounds, never executed, every complaint with file and line."""

import difflib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import yaml

from ext.tinygrad.errors import TownhallError

T = TypeVar("T")
MAX_BYTES = 64 * 1024  # a page or two of text; more is a mistake or an attack


@dataclass(frozen=True)
class YamlFile:
    """`what` it is ("persona"), where it lies, and the error that its faults are raised as."""

    what: str
    path: Path
    error: type[TownhallError]

    def load(self, build: Callable[["Fields"], T], known: Iterable[str], noun: str = "", empty: str = "", text: str | None = None) -> T:
        """What `build` makes of the file's mapping; `empty` completes the sentence about a file that may not lack content.

        `noun` is what a sentence calls the mapping ("a persona"). `text` is the YAML where it is only a part of the file: lines are
        counted from its first.
        """
        noun = noun or f"a {self.what}"
        text = self._read() if text is None else text
        try:
            loader = yaml.SafeLoader(text)
        except yaml.reader.ReaderError as error:
            line = text[: error.position].count("\n") + 1
            raise self.fault("it holds a control character; save it as plain text", line) from error
        try:
            # the nodes of safe_load's own loader, because they know their lines
            node = loader.get_single_node()
            if node is None:
                if not empty:
                    node = yaml.MappingNode("tag:yaml.org,2002:map", [], yaml.Mark(str(self.path), 0, 0, 0, None, 0))
                else:
                    raise self.error(f"{self.what} {self.path} is empty; {empty}")
            return build(Fields(self, loader, node, noun, tuple(known)))
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            raise self.fault(error.problem or error.context or "not valid YAML", mark.line + 1 if mark else None) from error
        except (yaml.YAMLError, ValueError) as error:  # ValueError: 2001-99-99 looks like a date to YAML
            raise self.fault(f"{str(error).splitlines()[0]}; put it in quotes") from error
        except RecursionError as error:
            raise self.fault(f"nested too deeply to be {noun}") from error
        finally:
            loader.dispose()

    def fault(self, fault: str, line: int | None = None) -> TownhallError:
        """The error to raise about the file."""
        where = f", line {line}" if line else ""
        return self.error(f"{self.what} {self.path}{where}: {fault}")

    def _read(self) -> str:
        try:
            if self.path.exists() and not self.path.is_file():  # a pipe would be waited for
                raise self.error(f"{self.what} {self.path} is not a file")
            with self.path.open("rb") as file:
                data = file.read(MAX_BYTES + 1)
        except OSError as error:
            raise self.error(f"{self.what} {self.path} cannot be read: {error.strerror or error}") from error
        if len(data) > MAX_BYTES:
            raise self.error(f"{self.what} {self.path} is larger than {MAX_BYTES // 1024} KB; {self.what} files are a page of text")
        try:
            return data.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            line = data[: error.start].count(b"\n") + 1
            raise self.fault("not UTF-8 text; save it as UTF-8", line) from error


class Fields:
    """A YAML mapping whose values are asked for by key and type."""

    def __init__(self, file: YamlFile, loader: yaml.SafeLoader, node: yaml.Node, what: str, known: tuple[str, ...]):
        self.file, self.loader, self.node, self.what = file, loader, node, what
        self.values: dict[str, yaml.Node] = {}
        if not isinstance(node, yaml.MappingNode):
            raise self._error(node, f"{what} must be a mapping with the keys {', '.join(known)}")
        for key_node, value in node.value:
            key = self._construct(key_node)
            if key not in known:
                raise self._error(key_node, f"unknown key {str(key)[:40]!r}; {nearest(str(key), known, f'{what} knows')}")
            if key in self.values:
                raise self._error(key_node, f"{key!r} is given twice")
            self.values[key] = value

    def text(self, key: str, required: bool = False) -> str:
        """A string, stripped; "" when absent and not required."""
        node = self.values.get(key)
        if node is None:
            if required:
                raise self._error(self.node, f"{self.what} needs {key!r}")
            return ""
        text = self.string(node, key).strip()
        if required and not text:
            raise self._error(node, f"{key!r} is empty")
        return text

    def verbatim(self, key: str) -> str:
        """A string as it was written."""
        return self.string(self.values[key], key)

    def label(self, key: str, default: str | None = None) -> str:
        """A name that can stand before a colon in a log."""
        text = self.text(key, required=default is None) or default or ""
        if len(text) > 40 or ":" in text or not text.isprintable():
            raise self.fault(key, f"{key!r} must be one line of at most 40 characters without a colon")
        return text

    def number(self, key: str, most: float, default: float = 0.0) -> float:
        """A number from 0 to `most`."""
        node = self.values.get(key)
        if node is None:
            return default
        value = self._construct(node) if isinstance(node, yaml.ScalarNode) else None
        if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value <= most:
            raise self._error(node, f"{key!r} must be a number from 0 to {most:g}")
        return float(value)

    def strings(self, key: str, limit: int) -> tuple[str, ...]:
        """A list of non-empty strings, kept as written."""
        strings = tuple(self.string(item, key) for item in self.items(key, limit))
        if "" in strings:
            raise self.fault(key, f"{key!r} holds an empty string")
        return strings

    def mappings(self, key: str, what: str, known: tuple[str, ...], limit: int) -> "list[Fields]":
        """A list of mappings."""
        return [Fields(self.file, self.loader, item, what, known) for item in self.items(key, limit)]

    def plain(self, key: str) -> Any:
        """The value as safe_load would build it."""
        return self._construct(self.values[key], deep=True)

    def line(self, key: str) -> int:
        """Where the key's value stands, from 1."""
        return self.values[key].start_mark.line + 1

    def fault(self, key: str, fault: str) -> TownhallError:
        """The error to raise about `key`."""
        return self._error(self.values.get(key, self.node), fault)

    def items(self, key: str, limit: int) -> list[yaml.Node]:
        """The nodes of a list; none where the key is absent."""
        node = self.values.get(key)
        if node is None:
            return []
        if not isinstance(node, yaml.SequenceNode):
            raise self._error(node, f"{key!r} must be a list")
        if len(node.value) > limit:
            raise self._error(node, f"{key!r} has {len(node.value)} entries, more than {limit}")
        return node.value

    def string(self, node: yaml.Node, key: str) -> str:
        """A scalar that YAML reads as text; `key` is where it stands."""
        value = self._construct(node) if isinstance(node, yaml.ScalarNode) else node
        if not isinstance(value, str):
            kind = {"sequence": "a list", "mapping": "a mapping"}.get(getattr(node, "id", ""), type(value).__name__)
            raise self._error(node, f"{key!r} must be text, not {kind}; put it in quotes")
        return value

    def _construct(self, node: yaml.Node, deep: bool = False) -> Any:
        construct: Callable[..., Any] = self.loader.construct_object
        return construct(node, deep=deep)

    def _error(self, node: yaml.Node, fault: str) -> TownhallError:
        return self.file.fault(fault, node.start_mark.line + 1)


def nearest(word: str, known: Iterable[str], otherwise: str) -> str:
    """A hint for a word that is not known: the one that was probably meant, or all of them after `otherwise`."""
    known = list(known)
    close = difflib.get_close_matches(word, known, n=1)
    return f"did you mean {close[0]!r}?" if close else f"{otherwise} {', '.join(known)}"
