"""A server that keeps chats, over a double, and a client that watches."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.townhall.fake import FakeLlama
from tests.townhall.server.conftest import serve  # noqa: F401  (a fixture)
from townhall.logbook.log_reader import Log, read_log


class Client:
    """One chat of a server's; `say` and the like wait for the reply's end."""

    def __init__(self, server: Any, folder: Path, llama: Any, model: str = "gary", **fields: Any):
        self.server, self.folder, self.llama = server, folder, llama
        self.http = httpx.Client(base_url=server.root, timeout=60)
        self.begun = self.http.post("/townhall/chats", json={"model": model, "greeting": None, **fields}).json()
        self.url = f"/townhall/chats/{self.begun['chat']['id']}"
        self.seen = self.begun["event"]

    @property
    def path(self) -> Path:
        return self.folder / f"{self.begun['chat']['id']}.md"

    def log(self) -> Log:
        return read_log(self.path)

    def call(self, method: str, path: str = "", status: int | None = None, **body: Any) -> Any:
        """The answer's JSON; of a status that is asked for, or none that is an error."""
        answer = self.http.request(method, self.url + path, **({"json": body} if method != "GET" and method != "DELETE" else {}))
        assert answer.status_code == status if status else answer.is_success, answer.text
        return answer.json()

    def watch(
        self, until: Callable[[str, Any], bool], after: str | None = None, headers: dict[str, str] | None = None
    ) -> list[tuple[str, Any]]:
        """Events after the one that was seen last, up to one that suits."""
        found: list[tuple[str, Any]] = []
        params = {} if headers else {"after": after or self.seen}
        with self.http.stream("GET", f"{self.url}/events", params=params, headers=headers) as stream:
            name, id = "", ""
            for line in stream.iter_lines():
                key, _, value = line.partition(": ")
                if key == "event":
                    name = value
                elif key == "id":
                    id = value
                elif key == "data":
                    found.append((name, json.loads(value)))
                    self.seen = id
                    if until(*found[-1]):
                        break
        return found

    def reply(self, path: str, **body: Any) -> Any:
        """What the event `end` says of the generation that this begins."""
        self.call("POST", path, 202, **body)
        return self.watch(lambda name, data: name == "end")[-1][1]

    def say(self, text: str, **body: Any) -> Any:
        return self.reply("/messages", text=text, **body)

    @property
    def texts(self) -> list[str]:
        return [message["text"] for message in self.call("GET")["messages"]]

    @property
    def ids(self) -> list[int]:
        return [message["id"] for message in self.call("GET")["messages"]]

    def prompt(self, at: int = -1) -> str:
        """What the model was shown behind the persona."""
        shown = self.llama.tokenizer.show(self.llama.prompts[at])
        persona = self.server.service.served_models.find(self.begun["chat"]["model"])
        head = self.llama.tokenizer.show(self.server.service.served_models.prompt(persona).head_ids)
        return shown.removeprefix(head)


@pytest.fixture
def chats(serve: Any, tmp_path: Path) -> Iterator[Callable[..., Client]]:  # noqa: F811
    """chats(*script, …): a fresh chat of a server over a double that says these."""
    clients: list[Client] = []

    def start(*script: Any, model: str = "gary", llama: Any = None, fields: dict[str, Any] | None = None, **options: Any) -> Client:
        llama = llama or FakeLlama(script or ["One.", "Two.", "Three.", "Four.", "Five.", "Six."])
        folder = tmp_path / "logs"
        clients.append(
            Client(serve(llama, chats=folder, log_settings={"model": "fake:echo"}, **options), folder, llama, model, **(fields or {}))
        )
        return clients[-1]

    yield start
    for client in clients:
        client.http.close()
