"""One conversation of the page's: the log on the disk is all there is of it, but for the reply that is being written."""

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from app.sampler_settings import worth_noting
from townhall.logbook import log_syntax
from townhall.logbook.log_reader import Log, parse, read_log
from townhall.logbook.log_syntax import LogTurn
from townhall.logbook.log_writer import LogWriter
from townhall.web.client import Client, Event, Finished, ModelChoice, PromptPreview, Text, WebError
from townhall.web.sampling_controls import SamplingControls

Stream = AsyncGenerator[Event, None]
BRIEF = 0.3  # seconds: a reply that is whole sooner needs no Stop
PACE = 0.04  # seconds between two looks at a reply: faster than reading
BUSY = "A reply is still being written in this chat, perhaps in another tab; stop it or wait for its end."


@dataclass
class ReplyInProgress:
    """A reply that is being written."""

    question: str
    stream: Stream
    text: str = ""
    info: Mapping[str, Any] = field(default_factory=dict)
    task: "asyncio.Task[None] | None" = None
    lasting: bool = False  # long enough to be worth stopping


class LiveChat:
    """`voice` answers. Every turn holds the log's lock while it is being made and no longer, so that others may write between turns."""

    def __init__(self, path: Path, served_model: ModelChoice, client: Client):
        self.path, self.served_model, self._client = path, served_model, client
        self.live: ReplyInProgress | None = None
        self.problem = ""  # what went wrong last
        self._count = 0
        self._read: tuple[tuple[int, int], Log] | None = None
        self._changed = asyncio.Event()
        self._writer: LogWriter | None = None
        self._unsaved = ""  # what a full disk did not take; it is written with the next turn
        self._failing = False

    @property
    def id(self) -> str:
        return self.path.stem

    @property
    def version(self) -> str:
        """Another one whenever there is something else to show."""
        return f"{self.id} {self._stamp()} {self._count}"

    def log(self) -> Log:
        """What is on the disk, read again when it changed; LogError where it cannot be."""
        stamp = self._stamp()
        if self._read is None or self._read[0] != stamp:
            self._read = stamp, read_log(self.path) if stamp != (0, 0) else Log(self.path, {})
        log = self._read[1]
        return Log(self.path, log.head, log.turns + parse(self._unsaved.encode(), self.path).turns) if self._unsaved else log

    def exchanges(self) -> list[tuple[LogTurn, LogTurn | None]]:
        """Questions and their answers; None where one never came."""
        found: list[tuple[LogTurn, LogTurn | None]] = []
        for turn in self.log().turns:
            if turn.role == "user":
                found.append((turn, None))
            elif found and found[-1][1] is None:
                found[-1] = (found[-1][0], turn)
        return found

    async def ask(self, text: str, controls: SamplingControls, instead: bool = False) -> None:
        """Begin to answer, `instead` of the last exchange; WebError or LogError where that cannot be, and then nothing has changed."""
        self._lock(controls)
        messages = [*self._messages(instead), {"role": "user", "content": text}]
        stream = self._client.stream({"model": self.served_model.id, "messages": messages, **controls.body()})
        self.live = live = ReplyInProgress(text, stream)  # nothing was awaited since: a second caller is refused above
        try:
            await anext(stream)
            if instead:
                self._append(log_syntax.comment("undo", {"turns": 1}) + "\n")
            self._append(log_syntax.turn(self._speaker("user"), text, "user", {"at": _now()}))
        except BaseException:
            await stream.aclose()
            self._drop()
            raise
        live.task = asyncio.create_task(self._answer(live, controls))
        asyncio.get_running_loop().call_later(BRIEF, self._last, live)
        self._notify()

    def undo(self) -> str:
        """Take the last exchange back and say what its question was; "" where there is none."""
        if not (exchanges := self.exchanges()):
            return ""
        self._lock(None)
        try:
            self._append(log_syntax.comment("undo", {"turns": 1}) + "\n")
        finally:
            self._drop()
        return exchanges[-1][0].text

    def rename(self, title: str) -> None:
        """Give it a name."""
        self._lock(None)
        try:
            self._append(log_syntax.comment("title", {"title": title}) + "\n")
        finally:
            self._drop()

    async def stop(self) -> None:
        """Hang up; what was said until now stays."""
        if (live := self.live) and live.task:
            live.task.cancel()
            with suppress(asyncio.CancelledError):
                await live.task
            if self.live is live:  # it was cancelled before it began
                await live.stream.aclose()
                self._drop()

    async def changes(self) -> AsyncIterator[None]:
        """Comes back whenever there is more to show, until the reply is whole."""
        while self.live:
            self._changed.clear()
            started = time.monotonic()
            yield
            took = time.monotonic() - started  # a long chat takes its time to be shown, and others want the loop as well
            with suppress(TimeoutError):
                await asyncio.wait_for(self._changed.wait(), 1.0)
            await asyncio.sleep(max(PACE, took))

    async def _answer(self, live: ReplyInProgress, controls: SamplingControls) -> None:
        finished: Finished | None = None
        try:
            async for event in live.stream:
                if isinstance(event, Finished):
                    finished = event
                elif isinstance(event, PromptPreview):
                    live.info = event.info
                elif isinstance(event, Text):
                    live.text += event.text
                    self._notify()
        except WebError as error:
            self.problem = str(error)
        except asyncio.CancelledError:
            pass  # Stop was pressed
        finally:
            await live.stream.aclose()
            if live.text or finished:
                self._append(
                    log_syntax.turn(self._speaker("persona"), live.text, "reply", _facts(finished, live.info, controls, self.served_model))
                )
            self._drop()

    def _last(self, live: ReplyInProgress) -> None:
        """It takes its time."""
        live.lasting = True
        if self.live is live:
            self._notify()

    def _messages(self, but_last: bool) -> list[dict[str, str]]:
        """The messages for the model: unanswered questions are left out."""
        exchanges = self.exchanges()[:-1] if but_last else self.exchanges()
        said = [turn for question, answer in exchanges if answer and answer.text for turn in (question, answer)]
        return [{"role": turn.role, "content": turn.text} for turn in said]

    def _speaker(self, role: str) -> str:
        """The names at the log's beginning: a heading with any other name would be no turn in it."""
        return str(self.log().head.get(role) or (self.served_model.user if role == "user" else self.served_model.name))

    def _head(self, controls: SamplingControls) -> dict[str, Any]:
        settings = {"model": self.served_model.id, "context": controls.context, "server": self._client.root}
        return {"id": self.id, "started": _now(), "user": self.served_model.user, "persona": self.served_model.name, "settings": settings}

    def _stamp(self) -> tuple[int, int]:
        try:
            stat = self.path.stat()
        except OSError:
            return 0, 0
        return stat.st_size, stat.st_mtime_ns

    def _lock(self, controls: SamplingControls | None) -> None:
        """Lock the log for writing; WebError or LogError where it is locked already."""
        if self.live:
            raise WebError(BUSY)
        if not self._unsaved:
            self._writer = LogWriter(self.path, self._head(controls or SamplingControls()), self._say)
        self.problem = ""

    def _append(self, text: str) -> None:
        assert self._writer
        self._unsaved += text  # unless the writer is content
        self._writer.append(text)
        if not self._failing:
            self._unsaved = ""

    def _say(self, line: str) -> None:
        """The writer begins to fail, or is over it."""
        self._failing = not self._failing
        self.problem = line[:1].upper() + line[1:]

    def _drop(self) -> None:
        if self._writer:
            self._writer.close()
        self.live = None
        self._notify()

    def _notify(self) -> None:
        self._count += 1
        self._changed.set()


def _facts(finished: Finished | None, info: Mapping[str, Any], controls: SamplingControls, served_model: ModelChoice) -> dict[str, Any]:
    """As `townhall chat` notes them, as far as a server tells; tokens of a stopped answer are not counted."""
    return {
        "at": _now(),
        "finish_reason": finished.reason if finished else "interrupted",
        "model": served_model.id,
        "asked": worth_noting(controls.body()),
        "prompt_tokens": info.get("prompt_tokens"),
        "completion_tokens": finished.usage.get("completion_tokens") if finished else None,
        "receipt": dict(info),
    }


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
