"""A program at a pseudo-terminal, and the screen that a person would see."""

import fcntl
import os
import pty
import select
import struct
import subprocess
import sys
import termios
import time

import pyte

PATIENCE = 60.0  # seconds; a wait ends as soon as the text is there
ENTER, ALT_ENTER, CTRL_C, CTRL_D, CTRL_J, CTRL_R, CTRL_U, CTRL_Z = "\r", "\x1b\r", "\x03", "\x04", "\n", "\x12", "\x15", "\x1a"
UP, DOWN, LEFT, HOME, END, BACKSPACE, TAB = "\x1b[A", "\x1b[B", "\x1b[D", "\x01", "\x05", "\x7f", "\t"


class Terminal:
    """Types as a person does, and waits for what the screen shows; `raw` is every byte that the program sent."""

    def __init__(self, command, stdout=None, columns=80, lines=50, **env):
        self.master, slave = pty.openpty()
        self.screen = pyte.Screen(columns, lines)
        self._stream = pyte.ByteStream(self.screen)
        self.raw = b""
        self._set_size(columns, lines)

        def take_terminal():
            os.setsid()
            fcntl.ioctl(slave, termios.TIOCSCTTY, 0)

        outside = ("NO_COLOR", "FORCE_COLOR", "CLICOLOR", "CLICOLOR_FORCE", "COLUMNS", "LINES")
        inherited = {name: value for name, value in os.environ.items() if name not in outside}
        self.program = subprocess.Popen(
            command,
            stdin=slave,
            stdout=slave if stdout is None else stdout,
            stderr=slave,
            env={**inherited, "TERM": "xterm-256color", **env},
            preexec_fn=take_terminal,
        )
        self.slave = slave  # kept open: a Mac forgets what a closed one was sent

    @classmethod
    def chat(cls, *args, **options):
        """`townhall chat`."""
        return cls([sys.executable, "-m", "townhall", "chat", *map(str, args)], **options)

    def text(self):
        """The rows of the screen, without the empty ones below."""
        return "\n".join(row.rstrip() for row in self.screen.display).rstrip()

    def row(self):
        """The row with the cursor."""
        return self.screen.display[self.screen.cursor.y].rstrip()

    def type(self, *keys):
        for key in keys:
            os.write(self.master, key.encode())

    def paste(self, text):
        """As terminals paste: line breaks are sent as Enter, and marks go around it where the program asked for them."""
        assert self.wait(lambda: b"\x1b[?2004h" in self.raw[self.raw.rfind(b"\x1b[?2004l") + 1 :])
        self.type("\x1b[200~", text.replace("\n", "\r"), "\x1b[201~")

    def resize(self, columns, lines):
        self.screen.resize(lines, columns)
        self._set_size(columns, lines)

    def wait(self, seen, seconds=PATIENCE):
        """Read until `seen()`."""
        deadline = time.monotonic() + seconds
        while not seen():
            assert time.monotonic() < deadline, f"the screen shows:\n{self.text()}"
            self._read(0.2)
        return True

    def wait_for(self, *texts):
        """Until all of them are on the screen."""
        self.wait(lambda: all(text in self.text() for text in texts))

    def prompt(self, user="User"):
        """Until the program waits for a line."""
        self.wait(lambda: self.row() in (f"{user}:", f"{user}: say something, or /help") and self.screen.cursor.x == len(user) + 2)

    def say(self, text, *then):
        """Type a line when it is waited for, send it, and wait for what comes of it."""
        self.prompt()
        self.type(text)
        self.wait(lambda: "".join(text.split()) in "".join(self.text().split()))  # long ones are wrapped
        self.type(ENTER)
        self.wait_for(*then)

    def leave(self):
        """Wait for the end; the exit code."""
        self.wait(lambda: self.program.poll() is not None)
        while self._read(0.05):
            pass
        return self.program.returncode

    def hang_up(self):
        """The window is closed."""
        os.close(self.slave)
        os.close(self.master)
        self.slave = self.master = None

    def close(self):
        if self.program.poll() is None:
            self.program.kill()
        self.program.wait()
        for fd in {self.slave, self.master} - {None}:
            os.close(fd)

    def _read(self, seconds):
        if not select.select([self.master], [], [], seconds)[0]:
            return False
        try:
            data = os.read(self.master, 65536)
        except OSError:  # the program has left
            time.sleep(0.02)
            return False
        self.raw += data
        self._stream.feed(data)
        return bool(data)

    def _set_size(self, columns, lines):
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
