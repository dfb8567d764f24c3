"""One watched file: looked at when something happened to it, and written to when it asks for a reply."""

import os
import time
from collections.abc import Callable, Hashable
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from ext.tinygrad.errors import TownhallError
from townhall.watch.answerers import Answerer, ConversationPool
from townhall.watch.document import Document, ReplyWriter
from townhall.watch.lock import FileChanged, FileGone, Lock, WatchError
from townhall.watch.tasks import InterruptedReply, Task, TaskParser

GRACE = 1.0  # seconds for which a file may be missing or empty before that means anything: editors replace and truncate when they save

Read = Callable[[Path, str], tuple[Hashable, TaskParser]]  # how a file's text is read, and what its answerer is opened with


class Reporter(Protocol):
    """Receives events of watched files."""

    def note(self, text: str) -> None: ...
    def complain(self, text: str) -> None: ...
    def begins(self, path: Path) -> None: ...
    def answered(self, path: Path, answerer: Answerer, stopped: bool) -> None: ...


class WatchedFile:
    """`named`: the file itself was asked for, not the folder that it is in, so that it is helped along and spoken of in any case.

    Its own lock is taken with the first reply, where the watcher has none for it.
    """

    def __init__(self, path: Path, read: Read, pool: ConversationPool, reporter: Reporter, stopped: Callable[[], bool], named: bool):
        self.path, self.named, self.failed = path, named, False
        self._place = Path(os.path.abspath(path))
        self._read, self._pool, self._reporter, self._stopped = read, pool, reporter, stopped
        self._document = Document(path)
        self._lock: Lock | None = None
        self._interrupted: InterruptedReply | None = None
        self._reader: TaskParser | None = None  # of the reply that was begun last
        self._new, self._known, self._hinted = True, named, False  # known: a conversation, as far as was reported
        self._unheard = False  # it stands otherwise than it was left, and nothing has come of that yet
        self._blank: float | None = None  # since when the file is missing or empty
        self.gone = False  # and that was reported
        self._info = ""  # the last fault

    def due(self, changed: set[Path]) -> bool:
        """Is there a reason to look?"""
        waits = self._new or self._blank is not None or self._unheard
        if waits or self._place in changed or self._document.touched():
            return True
        return bool(changed) and Path(os.path.realpath(self._place)) in changed

    def attend(self, once: bool = False) -> int:
        """Write what the file asks for, anew whenever it is changed meanwhile; how many replies came to their end: none or one.

        `once`: nothing is written that is no reply.
        """
        while not self._stopped():
            try:
                if not self._changed():
                    return 0
                text = self._document.text
                key, reader = self._read(self.path, text)
                task = reader.task(text, self._interrupted)
                if task is None or (self._new and not (self.named or once or reader.unmistakable)):
                    self._interrupted = None
                    self._help(reader, text, once)
                    self._new = self._unheard = False
                    return 0
                self._new = False
                self._own()
                self._answer(reader, task, key)
                self._unheard = False
                return 1
            except FileGone:
                self._absent()
                return 0
            except FileChanged:
                continue
            except TownhallError as error:
                self._interrupted, self._new, self._unheard = None, False, False
                self._complain(str(error))
                return 0
        return 0

    def release(self) -> None:
        """Let others watch it, and forget what was computed."""
        self._document.close()
        self._pool.leave(self.path)
        if self._lock:
            self._lock.release()
        self._lock = None

    def _changed(self) -> bool:
        """Read the file: does it stand otherwise than it was left, and not just between two strokes of an editor?"""
        changed = self._document.look()
        self._info = ""
        if not self._document.data and not self._new and not self._overdue():
            return False
        if self.gone:
            self._reporter.note(f"{self.path} is there again")
        overdue, self._blank, self.gone = self._blank is not None, None, False
        self._unheard = self._unheard or changed or self._new or self._interrupted is not None or (overdue and not self._document.data)
        return self._unheard

    def _overdue(self) -> bool:
        self._blank = self._blank or time.monotonic()
        return time.monotonic() - self._blank >= GRACE

    def _absent(self) -> None:
        """There is no such file; where that lasts it is reported once."""
        if self._overdue() and not self.gone:
            if self._interrupted and self._reader:
                self._document.leave(self._reader.tail(self._interrupted.said))
            self._interrupted = None
            self.release()
            if self._known:
                self._reporter.complain(f"{self.path} is gone{'; it is watched for' if self.named else ''}")
            self.gone, self._new = True, False

    def _answer(self, reader: TaskParser, task: Task, key: Hashable) -> None:
        """Stream the reply into the file; Changed, with what was said so far in mind, where a save puts an end to it."""
        document, reply_writer = self._document, ReplyWriter(self._document, task.lead)
        answerer = self._pool.seat(self.path, key)
        self._reader, self._interrupted = reader, InterruptedReply(task.history, task.said)
        pieces = answerer.begin(task)
        self._known = True
        self._reporter.begins(self.path)
        try:
            if document.text != task.base and not document.cut(task.base):
                raise WatchError(f"{self.path} has line ends of several kinds at its end; make them one kind")
            for piece in pieces:
                reply_writer.write(piece)
                if self._stopped():
                    break
            pieces.close()
            if reply_writer.said or not self._stopped():
                reply_writer.end(reader.tail(reply_writer.said))
        except FileChanged:
            self._interrupted = InterruptedReply(task.history, task.said + reply_writer.said)
            raise
        except KeyboardInterrupt:  # the second Ctrl-C: the model did not come back from its first token
            with suppress(FileChanged, TownhallError):
                reply_writer.end(reader.tail(reply_writer.said) if reply_writer.said else "")
            raise
        finally:
            pieces.close()
        document.close()
        self._interrupted, self._hinted = None, False
        self._conclude(answerer)

    def _conclude(self, answerer: Answerer) -> None:
        self._reporter.answered(self.path, answerer, self._stopped())
        if not self._stopped():
            answerer.rest(lambda: self._stopped() or self._document.touched())

    def _own(self) -> None:
        """The file can be written, and is not locked by another watcher."""
        self._document.refuse_unwritable()
        if not self.named and not self._lock:
            self._lock = Lock(self.path)

    def _help(self, reader: TaskParser, text: str, once: bool) -> None:
        """Nobody asks anything: put the cue of a turn where one is missing, and say once what is expected."""
        empty = not text.strip()
        wanted = (empty and (self.named or self.path.suffix == ".chat")) or (self._new and self.named)
        if wanted and not once and (opening := reader.opening(text)):
            self._own()
            self._document.append(opening)
            self._document.close()
        elif (self._known or reader.speaks(text)) and not self._hinted and (hint := reader.hint(text)):
            self._reporter.note(f"{self.path}: {hint}")
            self._hinted = True

    def _complain(self, fault: str) -> None:
        """Once, as long as the file cannot be read for that reason; once for each of its contents otherwise."""
        if self._info != fault:
            self._reporter.complain(fault if str(self.path) in fault else f"{self.path}: {fault}")
        self._info, self.failed = fault, True
