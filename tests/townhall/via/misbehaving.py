"""An OpenAI-compatible server on loopback that does as a list of behaviours says, one for each request; the last one is repeated."""

import json
import threading
from collections.abc import Callable, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Behaviour = Callable[["Handler"], None]


class Handler(BaseHTTPRequestHandler):
    """`server.asked` keeps what requests said: (headers, body)."""

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        server: Any = self.server
        with server.lock:
            behaviour = server.behaviours[min(len(server.asked), len(server.behaviours) - 1)]
            server.asked.append(({name.lower(): value for name, value in self.headers.items()}, body))
        behaviour(self)

    def log_message(self, *args: Any) -> None:
        """Quiet."""

    def begin(self, status: int = 200, kind: str = "text/event-stream", **headers: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()

    def event(self, data: Any) -> None:
        self.wfile.write(f"data: {data if isinstance(data, str) else json.dumps(data)}\n\n".encode())
        self.wfile.flush()

    def piece(self, text: str | None, finish: str | None = None, **more: Any) -> None:
        delta = {"content": text} if text is not None else {}
        self.event(
            {"id": "x", "object": "chat.completion.chunk", "choices": [{"index": 0, "delta": delta | more, "finish_reason": finish}]}
        )


class Misbehaving:
    """`with Misbehaving(a, b) as server`: the first request meets `a`, all others `b`."""

    def __init__(self, *behaviours: Behaviour):
        self._http: Any = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._http.behaviours, self._http.asked, self._http.lock = behaviours, [], threading.Lock()
        self._http.daemon_threads = True

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._http.server_address[1]}/v1"

    @property
    def asked(self) -> Sequence[tuple[dict[str, str], Any]]:
        return self._http.asked

    def __enter__(self) -> "Misbehaving":
        threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._http.shutdown()
        self._http.server_close()


def says(*words: str, finish: str | None = "stop", usage: bool = True) -> Behaviour:
    """A whole answer; without `finish` it breaks off."""

    def behave(handler: Handler) -> None:
        handler.begin()
        for word in words:
            handler.piece(word)
        if finish is None:
            return
        handler.piece(None, finish)
        if usage:
            handler.event({"id": "x", "choices": [], "usage": {"prompt_tokens": 50, "completion_tokens": len(words)}})
        handler.event("[DONE]")

    return behave


def fails(status: int, message: str = "", param: str | None = None, **headers: str) -> Behaviour:
    """An error as OpenAI spells it."""

    def behave(handler: Handler) -> None:
        handler.begin(status, "application/json", Retry_After="0", **headers)
        handler.wfile.write(json.dumps({"error": {"message": message, "type": "x", "param": param, "code": None}}).encode())

    return behave


def sends(body: bytes, kind: str = "text/html", **headers: str) -> Behaviour:
    """Whatever it is."""

    def behave(handler: Handler) -> None:
        handler.begin(200, kind, **headers)
        handler.wfile.write(body)

    return behave
