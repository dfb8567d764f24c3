"""`townhall web` as people start it: a real process, a model without weights."""

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
PATIENCE = 300.0  # seconds for a process to answer on two cores that others share
_DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


class Outside:
    """Stands where a proxy would: whoever asks for a host that is not this machine is written down and turned away."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with connection:
                connection.settimeout(5)
                try:
                    self.asked.append(connection.recv(4096).decode(errors="replace").partition("\r\n")[0])
                    connection.sendall(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
                except OSError:
                    continue

    def close(self) -> None:
        self._listener.close()


class Process:
    """One `townhall` command with all its words kept; `path` is what answers with 200 when it is ready."""

    def __init__(self, arguments: Sequence[str], port: int, path: str, environment: dict[str, str], folder: Path):
        self.arguments, self.port, self._path = [*arguments, "--port", str(port)], port, path
        self._environment, self._folder = environment, folder
        self.said: list[str] = []
        self.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Begin, and come back when it answers."""
        self._process = subprocess.Popen(
            [sys.executable, "-m", "townhall", *self.arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            env=self._environment,
            cwd=self._folder,
        )
        threading.Thread(target=self.said.extend, args=(self._process.stdout,), daemon=True).start()
        deadline = time.monotonic() + PATIENCE
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.kill()
                raise RuntimeError(f"townhall {' '.join(self.arguments)} is not there:\n{''.join(self.said)}")
            time.sleep(0.05)

    def get(self, path: str) -> str:
        with _DIRECT.open(self.url + path, timeout=10) as response:
            text: str = response.read().decode()
            return text

    def _answers(self) -> bool:
        try:
            self.get(self._path)
        except (urllib.error.URLError, OSError):
            return False
        return True

    def kill(self) -> None:
        """At once, as a crash or a lost power line would."""
        self._process.kill()
        self._process.wait()

    def end(self) -> int:
        """As Ctrl-C does."""
        self._process.send_signal(signal.SIGINT)
        try:
            return self._process.wait(20)
        except subprocess.TimeoutExpired:
            self.kill()
            return -signal.SIGKILL


@dataclass(frozen=True)
class Plan:
    """What a house is to be: equal plans may share one."""

    model: str = "echo"  # or the text of a script
    flags: tuple[str, ...] = ()
    files: tuple[tuple[str, str], ...] = ()  # names and texts, in the folder in which it is started


class House:
    """A server with its page, with a home folder of its own."""

    def __init__(
        self, outside: Outside, plan: Plan, make: Callable[[Path], Path] | None = None, before: Callable[[Path], object] | None = None
    ):
        """`make` writes a model's file into the home folder, instead of the plan's scripted one; `before` whatever else is to be there."""
        self._folder = tempfile.TemporaryDirectory(prefix="townhall-web-", ignore_cleanup_errors=True)
        self.home = home = Path(self._folder.name)
        model = "fake:echo"
        if make:
            model = str(make(home))
        elif plan.model != "echo":
            (home / "script.yaml").write_text(plan.model, encoding="utf-8")
            model = "fake:script=script.yaml"
        if before:
            before(home)
        for name, text in plan.files:
            (home / name).write_text(text, encoding="utf-8")
        environment = os.environ | {
            "PYTHONPATH": str(ROOT),
            # compiled once for all houses, whatever the environment says
            "PYTHONDONTWRITEBYTECODE": "",
            "PYTHONPYCACHEPREFIX": str(ROOT / "build" / "pycache"),
            "HOME": str(home),
            **{f"XDG_{kind}_HOME": str(home / kind.lower()) for kind in ("DATA", "CONFIG", "CACHE", "STATE")},
            **dict.fromkeys(("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"), outside.url),
            **dict.fromkeys(("no_proxy", "NO_PROXY"), "127.0.0.1,localhost"),
        }
        self.page = Process(["web", "--no-open", "--model", model, *plan.flags], free_port(), "/health", environment, home)

    @property
    def logs(self) -> Path:
        """Where chats are kept."""
        return self.home / "data" / "townhall" / "logs"

    def asked(self, path: str) -> Any:
        """What the server answers to a GET, parsed."""
        return json.loads(self.page.get(path))

    def running(self) -> int:
        """Replies that the server is writing just now."""
        active: int = self.asked("/health")["slots"]["active"]
        return active

    def words(self) -> str:
        """All that the process printed."""
        return "".join(self.page.said)

    def close(self) -> None:
        self.page.end()
        self._folder.cleanup()
