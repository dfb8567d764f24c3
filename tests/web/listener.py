"""Passes bytes on between page and server, and remembers what the page asked."""

import re
import socket
import threading


class Listener:
    """Listens at `url`; `heard` are the requests' paths and bodies, in the order in which they came."""

    def __init__(self, port: int):
        self._to = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._streams: list[bytearray] = []
        threading.Thread(target=self._serve, daemon=True).start()

    @property
    def heard(self) -> list[tuple[str, bytes]]:
        """(path, body) of every POST."""
        requests = []
        for stream in self._streams:
            for head in re.finditer(rb"POST (\S+) HTTP/1\.1\r\n(.*?)\r\n\r\n", stream, re.DOTALL):
                length = re.search(rb"(?i)content-length: (\d+)", head[2])
                requests.append((head[1].decode(), bytes(stream[head.end() : head.end() + int(length[1] if length else 0)])))
        return requests

    def close(self) -> None:
        self._listener.close()

    def _serve(self) -> None:
        while True:
            try:
                ours, _ = self._listener.accept()
                theirs = socket.create_connection(("127.0.0.1", self._to))
            except OSError:
                return
            said = bytearray()
            self._streams.append(said)
            threading.Thread(target=self._pass, args=(ours, theirs, said), daemon=True).start()
            threading.Thread(target=self._pass, args=(theirs, ours, bytearray()), daemon=True).start()

    @staticmethod
    def _pass(source: socket.socket, sink: socket.socket, said: bytearray) -> None:
        try:
            while data := source.recv(65536):
                said += data
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)
        except OSError:
            source.close()
            sink.close()
