"""Tab completion after a slash: the commands with their help, then their arguments."""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import fields

from prompt_toolkit.completion import CompleteEvent, Completer, Completion
from prompt_toolkit.document import Document

from townhall.cli.chat_options import ChatOptions
from townhall.context.strategies import STRATEGIES
from townhall.persona import list_personas
from townhall.template import FORMATS

VALUES = {"context": list(STRATEGIES), "format": ["auto", *FORMATS]} | {
    field.name: ["true", "false"] for field in fields(ChatOptions) if field.type is bool
}
MODELS = (".gguf", ".safetensors", ".bin", ".pth", ".json")


class SlashCompleter(Completer):
    """Completes a line that begins with a slash; `commands` are names and one line of help each."""

    def __init__(self, commands: Mapping[str, str]):
        self._commands = commands
        self._arguments: Mapping[str, Callable[[Document], Iterable[Completion]]] = {
            "/persona": _persona,
            "/model": lambda rest: _files(rest, *MODELS),
            "/save": _files,
            "/load": lambda rest: [*_of(["last"], rest.text), *_files(rest)],
            "/settings": _setting,
            "/context": lambda rest: _of(["full"], rest.text),
            "/rate": lambda rest: _of(["good", "bad", "off"], rest.text),
            "/help": lambda rest: _of(commands, rest.text),
        }

    def get_completions(self, document: Document, complete_event: CompleteEvent) -> Iterator[Completion]:
        """Nothing in a message, nor in the rows below the first."""
        text = document.text_before_cursor
        if not text.startswith("/") or "\n" in text:
            return
        name, space, rest = text.partition(" ")
        if not space:
            for command, help in self._commands.items():
                if command.startswith(name):
                    yield Completion(command, start_position=-len(name), display_meta=help)
        elif name in self._commands and name in self._arguments:
            yield from self._arguments[name](Document(rest.lstrip()))


def _of(words: Iterable[str], begun: str) -> Iterator[Completion]:
    return (Completion(word, start_position=-len(begun)) for word in words if word.startswith(begun) and word != begun)


def _files(begun: Document, *suffixes: str) -> Iterator[Completion]:
    """What lies in the folder that is begun: folders, and files that end so; hidden ones where a dot asks for them."""
    folder, name = os.path.split(begun.text)
    try:
        entries = sorted(os.scandir(os.path.expanduser(folder) or "."), key=lambda entry: entry.name)
        for entry in entries:
            if entry.name.startswith(name) and (name or not entry.name.startswith(".")):
                if entry.is_dir():
                    yield Completion(f"{entry.name}/", start_position=-len(name))
                elif not suffixes or entry.name.endswith(suffixes):
                    yield Completion(entry.name, start_position=-len(name))
    except OSError:
        return  # no such folder, or not ours to read


def _persona(begun: Document) -> Iterator[Completion]:
    """Names, and paths where one is begun."""
    if begun.text.startswith((".", "~")) or "/" in begun.text:
        return _files(begun, ".yaml", ".yml")
    return _of(list_personas(), begun.text)


def _setting(begun: Document) -> Iterator[Completion]:
    key, space, value = begun.text.partition(" ")
    if not space:
        return _of((field.name for field in fields(ChatOptions) if field.name not in ("prompt", "json")), key)
    return _of(VALUES.get(key, []), value.lstrip())
