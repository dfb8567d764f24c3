"""A watcher at work in a thread, over a scripted model, and a person who saves files as editors do."""

import os
import threading
import time
from contextlib import contextmanager
from pathlib import Path

from townhall.cli.model_loading import Loaded
from townhall.cli.watch_runner import Watching, WatchOptions
from townhall.fake.fake_model import FakeBackend, FakeModel, ScriptedReply, echo
from townhall.watch.watcher import Watcher

PATIENCE = 60.0  # seconds: machines may be busy
TALE = "and so on " * 25


def eventually(holds, what="it"):
    """Wait until `holds()`, and return what it returned."""
    ends = time.monotonic() + PATIENCE
    while not (found := holds()):
        assert time.monotonic() < ends, what() if callable(what) else f"{what} never came"
        time.sleep(0.005)
    return found


def slow_echo(prompt):
    """The question, and a long tale, a word every few milliseconds."""
    return ScriptedReply(f"{echo(prompt).text} {TALE}the end.", pause=0.004)


class Room(Watching):
    """The command's own session, with a model of the test's and the reports kept."""

    def __init__(self, target, script=echo, slots=8, max_context=1024, raw=False, trim=True, delim=None, **flags):
        super().__init__(WatchOptions(Path(target), False, raw, trim, delim, slots, (), {"model": Path("fake:echo")} | flags))
        self.model = FakeModel(script, max_context)
        self.lines, self.faults, self.replies, self.begun = [], [], [], 0
        self._stop = threading.Event()
        self.watcher = Watcher(Path(target), self.read, self.pool, self, self._stop.is_set)

    def open(self, chat):
        loaded = Loaded(self.model, chat.sampling(), FakeBackend())
        return self._continuation(chat, loaded) if self.options.raw else self._chat_answerer(chat, loaded)

    def note(self, text):
        if not text.endswith("is watched; Ctrl-C ends that"):
            self.lines.append(text)

    def complain(self, text):
        self.faults.append(text)

    def begins(self, path):
        self.begun += 1

    def answered(self, path, answerer, stopped):
        self.replies.append(answerer.last)

    def leave(self):
        self._stop.set()


@contextmanager
def watched(target, *args, **settings):
    """A room whose watcher runs until the end of the block, and has not failed then."""
    room = Room(target, *args, **settings)
    failures = []

    def run():
        try:
            room.watcher.run()
        except BaseException as error:
            failures.append(error)
        finally:
            room.watcher.close()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield room
    finally:
        room.leave()
        thread.join(PATIENCE)
    assert not thread.is_alive() and not failures, failures


def by_rename(path, data):
    """As vim does with backupcopy=no: the old file moves away, a new one is written, the old one goes."""
    backup = path.with_name(path.name + "~")
    os.rename(path, backup)
    path.write_bytes(data)
    backup.unlink()


def by_replacing(path, data):
    """As most editors do: a new file takes the old one's name."""
    new = path.with_name(f".{path.name}.new")
    new.write_bytes(data)
    os.replace(new, path)


def by_truncating(path, data):
    """As vim does with backupcopy=yes, in two strokes: emptied, then written."""
    with path.open("wb", buffering=0) as file:
        file.write(data[: len(data) // 2])
        file.write(data[len(data) // 2 :])


def in_place(path, data):
    """As tools do that patch a file: written over, then cut to its length."""
    fd = os.open(path, os.O_WRONLY)
    os.pwrite(fd, data, 0)
    os.ftruncate(fd, len(data))
    os.close(fd)


SAVES = [by_rename, by_replacing, by_truncating, in_place]
