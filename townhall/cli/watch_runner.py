"""`townhall watch` after its flags are parsed: a watcher, its answerers, its messages."""

import json
import sys
from collections.abc import Hashable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

from app.sampler_settings import DECLARED
from ext.tinygrad.errors import TownhallError
from townhall.cli import reply_report, terminal
from townhall.cli.chat_options import ChatOptions
from townhall.cli.chat_setup import open_conversation, prepare, with_adapters
from townhall.cli.model_loading import Loaded, open_models
from townhall.cli.settings_files import read_front_matter, resolve
from townhall.persona import load_persona
from townhall.watch.answerers import Answerer, ConversationAnswerer, ConversationPool, TextAnswerer
from townhall.watch.document import Document
from townhall.watch.lock import FileGone, WatchError
from townhall.watch.tasks import DELIM, ChatSyntax, ChatTurns, FreeForm, TaskParser, delimiter, front_matter, refuse_open_front_matter
from townhall.watch.watcher import Watcher, create

PATIENCE = 1.0  # seconds in which a second Ctrl-C is the same one, typed by quick fingers
# what a file may say of itself; the rest is the watcher's
FRONT = (
    *("personality", "model", "size", "gen", "quantize", "lora", "eos", "count", *DECLARED, "seed"),
    *("max_context", "kv", "context", "format"),
)


@dataclass(frozen=True)
class WatchOptions:
    """The command line, `flags` being those of a conversation that were given."""

    target: Path
    once: bool
    raw: bool
    trim: bool
    delim: str | None
    slots: int
    config: tuple[str, ...]
    flags: Mapping[str, Any]


def run_watch(options: WatchOptions) -> int:
    """Watch until a signal; the exit code is 2 where --once had to leave something unanswered."""
    if not options.target.exists():
        if options.once:
            raise WatchError(f"{options.target} does not exist; name a file or a folder")
        create(options.target)
    session = Watching(options)
    watcher = Watcher(options.target, session.read, session.pool, session, session.stopped)
    try:
        session.prepare()
        with terminal.ctrl_c_stops(PATIENCE) as session.interrupted:
            if options.once:
                return _answer_once(watcher, session)
            watcher.run()
            session.interrupted.leave()
    finally:
        watcher.close()
    return 0


def _answer_once(watcher: Watcher, session: "Watching") -> int:
    replies = watcher.once()
    session.interrupted.leave()
    if session.interrupted:
        raise KeyboardInterrupt
    if not replies and not watcher.failed:
        terminal.note(f"{watcher.target}: there is nothing to answer")
    return 2 if watcher.failed else 0


class Watching:
    """Reads files as flags and their own front matter say, opens who answers them, and reports."""

    def __init__(self, options: WatchOptions):
        self.options = options
        self.chat = self._options({})
        self.interrupted = terminal.Interrupt()
        self.pool = ConversationPool(self.open, options.slots)
        self._models = open_models()
        self._loaded: WeakKeyDictionary[Answerer, Loaded] = WeakKeyDictionary()
        self._prepared: tuple[Hashable, Answerer] | None = None

    def prepare(self) -> None:
        """Load the model and let it read the persona before the first save: those that the file names, where it is one and can be read."""
        chat = self.chat
        if self.options.target.is_file():
            with suppress(TownhallError, FileGone):
                document = Document(self.options.target)
                document.look()
                chat, _ = self.read(document.path, document.text)
        self._prepared = chat, self.open(chat)

    def stopped(self) -> bool:
        """Was the end asked for?"""
        return bool(self.interrupted)

    def read(self, path: Path, text: str) -> tuple[ChatOptions, TaskParser]:
        """How a file's text is to be read, and what its answerer depends on."""
        if self.options.raw:
            return self.chat, FreeForm((self.options.delim or "").strip())
        refuse_open_front_matter(text, path)
        front, _ = front_matter(text)
        chat = self._options(read_front_matter(path, front, ChatOptions.defaults(), FRONT)) if front.strip() else self.chat
        persona = load_persona(chat.personality)
        chat = with_adapters(chat, persona)
        return chat, ChatTurns(
            ChatSyntax(persona.user, persona.name, DELIM if self.options.delim is None else delimiter(self.options.delim))
        )

    def open(self, chat: ChatOptions) -> Answerer:
        """A prepared answerer."""
        prepared, self._prepared = self._prepared, None
        if prepared and prepared[0] == chat:
            return prepared[1]
        if chat not in self._models:
            self.pool.clear()  # caches of other models would keep those in memory
        loaded = self._models.open(chat)
        self._models.settle()
        answerer = self._continuation(chat, loaded) if self.options.raw else self._chat_answerer(chat, loaded)
        self._loaded[answerer] = loaded
        return answerer

    def _continuation(self, chat: ChatOptions, loaded: Loaded) -> Answerer:
        return TextAnswerer(loaded.llama, loaded.sampling, chat.count, chat.context, self.options.trim)

    def _chat_answerer(self, chat: ChatOptions, loaded: Loaded) -> Answerer:
        conversation = open_conversation(loaded.llama, loaded.sampling, chat, load_persona(chat.personality), self.options.trim)
        prepare(conversation)
        return ConversationAnswerer(conversation)

    def note(self, text: str) -> None:
        terminal.note(text)

    def complain(self, text: str) -> None:
        terminal.complain(text)

    def begins(self, path: Path) -> None:
        terminal.progress(f"{path} is being answered")

    def answered(self, path: Path, answerer: Answerer, stopped: bool) -> None:
        reply, loaded = answerer.last, self._loaded[answerer]
        if reply is None:
            return
        if self.chat.json:
            info = {"file": str(path)} | json.loads(reply_report.as_json(reply, loaded))
            terminal.say(terminal.harmless(json.dumps(info, ensure_ascii=False), sys.stdout) + "\n")
        tokens = reply_report.counted(reply.tokens, "token")
        how = " (stopped)" if stopped else f" (cut off after {tokens})" if reply.finish_reason == "length" else ""
        read = f"{reply.cached_tokens} cached, {reply.prompt_tokens - reply.cached_tokens} read"
        terminal.note(f"{path}: {tokens} to a prompt of {reply.prompt_tokens}: {read}{how}")
        if line := reply.receipt.describe():
            terminal.note(line)
        if self.chat.timing:
            terminal.note(reply_report.as_timing(reply, loaded))

    def _options(self, document: Mapping[str, Any]) -> ChatOptions:
        resolved = resolve(ChatOptions.defaults(), self.options.config, self.options.flags, document)
        chat = ChatOptions(**{name: setting.value for name, setting in resolved.items()})
        return replace(chat, prompt="") if self.options.raw else chat  # raw text is drawn as --prompt's is
