"""Who speaks: a persona is one YAML file with a name, a description, a few example exchanges, a greeting and stop strings."""

import difflib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from townhall.errors import PersonaError

PERSONAS = Path(__file__).parent / "personas"
MAX_BYTES = 64 * 1024  # a persona is a page of text; more is a mistake or an attack
MAX_EXAMPLES = 32
MAX_STOPS = 16


@dataclass(frozen=True)
class Example:
    """An exchange the model reads before the conversation, to catch the tone and the length of an answer."""

    user: str
    reply: str


@dataclass(frozen=True)
class Persona:
    """A character: what it is told about itself, how it answers, how it greets."""

    name: str
    description: str
    user: str = "User"
    style: str = ""
    examples: tuple[Example, ...] = ()
    greeting: str = ""
    stop: tuple[str, ...] = ()

    @property
    def instructions(self) -> str:
        """Description and style as one paragraph: what the model is told before anything else."""
        return f"{self.description} {self.style}".strip()


def list_personas() -> list[str]:
    """Names of the personas that ship with Townhall, as `--personality` takes them."""
    return sorted(path.stem for path in PERSONAS.glob("*.yaml"))


def load_persona(name_or_path: str | Path) -> Persona:
    """Read a shipped persona by name (any case) or any persona by path; PersonaError names the file, the line and the fault."""
    wanted = str(name_or_path)
    if wanted.lower() in list_personas():
        path = PERSONAS / f"{wanted.lower()}.yaml"
    elif Path(wanted).suffix in {".yaml", ".yml"} or len(Path(wanted).parts) > 1 or Path(wanted).is_file():
        path = Path(wanted)
    else:
        close = difflib.get_close_matches(wanted.lower(), list_personas(), n=1)
        hint = f"did you mean {close[0]}? " if close else ""
        raise PersonaError(f"no persona is called {wanted!r}: {hint}{_choices()}")
    return _parse(_read(path), path)


def _choices() -> str:
    return f"--personality takes {', '.join(list_personas())} or the path of a YAML file"


def _read(path: Path) -> str:
    try:
        if not path.is_file():
            raise PersonaError(f"persona {path} is not a file; {_choices()}")
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise PersonaError(f"persona {path} cannot be read: {error.strerror or error}") from error
    if len(data) > MAX_BYTES:
        raise PersonaError(f"persona {path} is larger than {MAX_BYTES // 1024} KB; a persona is a page of text")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise PersonaError(f"persona {path}, line {line}: not UTF-8 text; save it as UTF-8") from error


def _parse(text: str, path: Path) -> Persona:
    try:
        loader = yaml.SafeLoader(text)
    except yaml.reader.ReaderError as error:
        line = text[: error.position].count("\n") + 1
        raise PersonaError(f"persona {path}, line {line}: it holds a control character; save it as plain text") from error
    try:
        # the nodes of safe_load's own loader, because they know their lines
        node = loader.get_single_node()
        if node is None:
            raise PersonaError(f"persona {path} is empty; it needs at least a name and a description")
        return _persona(_Fields(path, loader, node, "a persona", _PERSONA_FIELDS))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f", line {mark.line + 1}" if mark else ""
        raise PersonaError(f"persona {path}{where}: {error.problem or error.context or 'not valid YAML'}") from error
    except (yaml.YAMLError, ValueError) as error:  # ValueError: 2001-99-99 looks like a date to YAML
        raise PersonaError(f"persona {path}: {str(error).splitlines()[0]}; put it in quotes") from error
    except RecursionError as error:
        raise PersonaError(f"persona {path}: nested too deeply to be a persona") from error
    finally:
        loader.dispose()


def _persona(fields: "_Fields") -> Persona:
    persona = Persona(
        name=fields.label("name"),
        description=fields.text("description", required=True),
        user=fields.label("user", default="User"),
        style=fields.text("style"),
        examples=tuple(
            Example(example.text("user", required=True), example.text("reply", required=True))
            for example in fields.mappings("examples", "an example", _EXAMPLE_FIELDS, MAX_EXAMPLES)
        ),
        greeting=fields.text("greeting"),
        stop=fields.strings("stop", MAX_STOPS),
    )
    if persona.name.lower() == persona.user.lower():
        raise fields.fault("user", f"{persona.user!r} is the persona's own name; the two must differ")
    return persona


_PERSONA_FIELDS = ("name", "user", "description", "style", "examples", "greeting", "stop")
_EXAMPLE_FIELDS = ("user", "reply")


class _Fields:
    """A YAML mapping whose values are asked for by key and type; every complaint carries file and line."""

    def __init__(self, path: Path, loader: yaml.SafeLoader, node: yaml.Node, what: str, known: tuple[str, ...]):
        self.path, self.loader, self.node, self.what = path, loader, node, what
        self.values: dict[str, yaml.Node] = {}
        if not isinstance(node, yaml.MappingNode):
            raise self._error(node, f"{what} must be a mapping with the keys {', '.join(known)}")
        for key_node, value in node.value:
            key = self._construct(key_node)
            if key not in known:
                close = difflib.get_close_matches(str(key), known, n=1)
                hint = f"did you mean {close[0]!r}?" if close else f"{what} knows {', '.join(known)}"
                raise self._error(key_node, f"unknown key {str(key)[:40]!r}; {hint}")
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
        text = self._string(node, key).strip()
        if required and not text:
            raise self._error(node, f"{key!r} is empty")
        return text

    def label(self, key: str, default: str | None = None) -> str:
        """A name that can stand before a colon in a log."""
        text = self.text(key, required=default is None) or default or ""
        if len(text) > 40 or ":" in text or not text.isprintable():
            raise self.fault(key, f"{key!r} must be one line of at most 40 characters without a colon")
        return text

    def strings(self, key: str, limit: int) -> tuple[str, ...]:
        """A list of non-empty strings, kept as written."""
        strings = tuple(self._string(item, key) for item in self._items(key, limit))
        if "" in strings:
            raise self.fault(key, f"{key!r} holds an empty string")
        return strings

    def mappings(self, key: str, what: str, known: tuple[str, ...], limit: int) -> "list[_Fields]":
        """A list of mappings."""
        return [_Fields(self.path, self.loader, item, what, known) for item in self._items(key, limit)]

    def fault(self, key: str, fault: str) -> PersonaError:
        """The error to raise about `key`."""
        return self._error(self.values.get(key, self.node), fault)

    def _items(self, key: str, limit: int) -> list[yaml.Node]:
        node = self.values.get(key)
        if node is None:
            return []
        if not isinstance(node, yaml.SequenceNode):
            raise self._error(node, f"{key!r} must be a list")
        if len(node.value) > limit:
            raise self._error(node, f"{key!r} has {len(node.value)} entries, more than {limit}")
        return node.value

    def _string(self, node: yaml.Node, key: str) -> str:
        value = self._construct(node) if isinstance(node, yaml.ScalarNode) else node
        if not isinstance(value, str):
            kind = {"sequence": "a list", "mapping": "a mapping"}.get(getattr(node, "id", ""), type(value).__name__)
            raise self._error(node, f"{key!r} must be text, not {kind}; put it in quotes")
        return value

    def _construct(self, node: yaml.Node) -> Any:
        construct: Callable[[yaml.Node], Any] = self.loader.construct_object
        return construct(node)

    def _error(self, node: yaml.Node, fault: str) -> PersonaError:
        return PersonaError(f"persona {self.path}, line {node.start_mark.line + 1}: {fault}")
