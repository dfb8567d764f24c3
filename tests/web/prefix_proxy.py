"""A reverse proxy that has the page under a prefix, as nginx would with `location /talk/ { proxy_pass http://…/; }`."""

import re
import socket
import threading

PREFIX = "/talk/"
_REQUEST = re.compile(rb"^([A-Z]+) " + PREFIX.encode() + rb"(\S*) HTTP/1\.1\r\n")


class PrefixProxy:
    """Listens at `url`; what does not begin with the prefix is answered with 404. One request a connection."""

    def __init__(self, port: int):
        self._to = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}{PREFIX}"
        threading.Thread(target=self._serve, daemon=True).start()

    def close(self) -> None:
        self._listener.close()

    def _serve(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._pass_on, args=(client,), daemon=True).start()

    def _pass_on(self, client: socket.socket) -> None:
        head = b""
        try:
            while b"\r\n\r\n" not in head and (data := client.recv(65536)):
                head += data
            if not (found := _REQUEST.match(head)):
                client.sendall(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
                return client.close()
            fields = re.sub(rb"(?i)connection: [^\r]*\r\n", b"", head[found.end() :])
            head = b"%s /%s HTTP/1.1\r\nConnection: close\r\n%s" % (found[1], found[2], fields)
            server = socket.create_connection(("127.0.0.1", self._to))
            server.sendall(head)
            threading.Thread(target=self._copy, args=(client, server), daemon=True).start()
            self._copy(server, client)
        except OSError:
            client.close()

    @staticmethod
    def _copy(source: socket.socket, sink: socket.socket) -> None:
        try:
            while data := source.recv(65536):
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)
        except OSError:
            source.close()
            sink.close()
