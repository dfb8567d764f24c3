"""Several models in one server, over doubles whose files are real: what is loaded, what leaves, and who waits for whom."""

import gc
import json
import threading
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.models.llama.memory_plan import PROCESS, ModelDemand
from tests.reference.tiny import make_tiny_gguf
from tests.townhall.fake import FakeBackend, FakeLlama
from tests.townhall.server.running import OPTIONS, Opened, Running, ask
from townhall.conversation import default_sampling
from townhall.errors import ModelError
from townhall.fake.fake_model import ScriptedReply
from townhall.server.engine_turns import EngineTurns
from townhall.server.model_facts import ModelFacts
from townhall.server.model_pool import ModelPool
from townhall.server.model_rooms import FIRST, ModelRooms
from townhall.server.service import Service

pytestmark = pytest.mark.slow

IDS = ("one", "two", "three")
CONTEXT, SLOTS = 1024, 2


class PathOpened(Opened):
    """With the path that it was loaded from."""

    path: Path


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("pool")
    for seed, name in enumerate(IDS):
        make_tiny_gguf(folder / f"{name}.gguf", context_length=CONTEXT, seed=seed)
    (folder / "notes.txt").write_text("no model")
    return folder


class Pool:
    """A server over `folder` with room for so many models, whose doubles say their model's name."""

    def __init__(self, folder: Path, room: float, pinned: tuple[str, ...] = (), **options: Any):
        self.folder, self.loads = folder, list[str]()
        self.doubles: dict[str, weakref.ref[FakeLlama]] = {}
        self.before_load: Callable[[str, Callable[[int, int], None]], object] = lambda name, progress: None
        self.said: Callable[[str], str | ScriptedReply] = lambda name: f"I am {name}."
        budget = PROCESS + int(room * (self.planned + 1))
        rooms = ModelRooms({FIRST: budget}, CONTEXT, SLOTS)

        def pooled(service: Service) -> None:
            ModelPool(service, folder / "one.gguf", (folder,), self.open, rooms, pinned)

        settings = replace(OPTIONS, model_id="one", slots=SLOTS, model_folders=(folder,), **options)
        self.server = Running(lambda: self.open(folder / "one.gguf", None, lambda done, total: None), settings, prepare=pooled)
        self.client = httpx.Client(base_url=self.server.root, timeout=60)

    @property
    def planned(self) -> int:
        return ModelDemand.of(self.folder / "one.gguf", CONTEXT, SLOTS).nbytes(True) - PROCESS

    def open(self, path: Path, device: str | None, progress: Callable[[int, int], None]) -> PathOpened:
        name = path.stem
        self.loads.append(name)
        self.before_load(name, progress)
        said = self.said(name)
        llama = FakeLlama([said] if isinstance(said, str) else ["unused"], CONTEXT)
        if not isinstance(said, str):
            llama.script = lambda prompt: said
        self.doubles[name] = weakref.ref(llama)
        opened = PathOpened(llama, default_sampling(), FakeBackend())
        opened.path = path
        return opened

    def say(self, model: str, **fields: Any) -> str:
        response = ask(self.server, model=model, **fields)
        assert response.status_code == 200, response.text
        return response.json()["choices"][0]["message"]["content"]

    def states(self) -> dict[str, str]:
        return {one["id"]: one["state"] for one in self.client.get("/townhall/models").json()["models"]}

    def until(self, **states: str) -> None:
        self.server.wait(lambda: states.items() <= self.states().items())

    def post(self, what: str, model: str, **more: Any) -> httpx.Response:
        return self.client.post(f"/townhall/models/{what}", json={"model": model, **more})


@pytest.fixture
def pool(folder) -> Iterator[Callable[..., Pool]]:
    running: list[Pool] = []

    def start(room: float = 1.5, *args: Any, **options: Any) -> Pool:
        running.append(Pool(folder, room, *args, **options))
        return running[-1]

    yield start
    for one in running:
        one.client.close()
        one.server.stop()


def test_a_request_brings_the_model_that_it_names(pool):
    several = pool(5)
    assert several.states() == {"one": "loaded", "two": "disk", "three": "disk"} and several.loads == ["one"]
    assert several.say("two") == "I am two." and several.say("stacy") == several.say("one") == "I am one."
    assert several.loads == ["one", "two"] and several.states()["two"] == "loaded"
    response = ask(several.server, model="two")
    assert response.json()["model"] == "two" and "x-townhall-warning" not in response.headers
    listed = {one["id"]: one["townhall"] for one in several.client.get("/v1/models").json()["data"]}
    assert listed["two"]["bare"] and (listed["two"]["state"], listed["three"]["state"]) == ("loaded", "disk") and "stacy" in listed
    assert {one["id"]: one["state"] for one in several.client.get("/health").json()["models"]} == {"one": "loaded", "two": "loaded"}


def test_a_persona_speaks_through_any_of_them(pool):
    several = pool(5)
    response = ask(several.server, model="stacy@two").json()
    assert (response["model"], response["townhall"]["persona"]) == ("stacy@two", "Stacy")
    assert response["choices"][0]["message"]["content"] == "I am two."
    double = several.doubles["two"]()
    assert "rapper" in double.tokenizer.show(double.prompts[-1])
    assert several.client.get("/v1/models/stacy@two").json()["townhall"]["name"] == "Stacy"
    for stranger in ("stacy@", "stacy@nowhere", "nobody@two", "@two", "../../secrets@two", "stacy@../two"):
        answer = ask(several.server, model=stranger)
        assert answer.json()["model"] == "one" and "there is no model" in answer.headers["x-townhall-warning"]


def test_the_least_recently_used_leaves_and_comes_back(pool):
    several = pool(2.5)
    for model in ("one", "two", "one", "three"):
        assert several.say(model) == f"I am {model}."
    assert several.states() == {"one": "loaded", "two": "disk", "three": "loaded"}
    assert several.say("stacy@two") == "I am two."
    assert several.states() == {"one": "disk", "two": "loaded", "three": "loaded"}
    gc.collect()
    assert several.doubles["one"]() is None, "what left the memory is still referred to"
    assert "stacy" in {one["id"] for one in several.client.get("/v1/models").json()["data"]}
    assert several.client.get("/health").json()["status"] == "ok"
    assert several.say("gary") == "I am one." and several.loads == ["one", "two", "three", "two", "one"]
    metrics = several.client.get("/metrics").text
    assert "townhall_model_loads_total 4.0" in metrics and "townhall_model_unloads_total 3.0" in metrics
    assert "townhall_models_loaded 2.0" in metrics


def test_a_server_is_well_while_its_first_model_leaves_and_comes_back(pool, monkeypatch):
    several, seen, of = pool(1.5), list[str](), ModelFacts.of

    def looked_at(llama: Any) -> ModelFacts:
        seen.append(several.client.get("/health").json()["status"])
        return of(llama)

    several.say("one")
    monkeypatch.setattr(ModelFacts, "of", looked_at)
    assert several.say("two") == "I am two." and several.say("one") == "I am one."
    assert len(seen) >= 3 and set(seen) == {"ok"}


WORDS = " ".join(["so"] * 60)
LONG = ScriptedReply(WORDS, pause=0.01)


def streamed(lines: Iterator[str]) -> str:
    """The text of the rest of a stream; it has to end as it should."""
    text, ended = "", False
    for line in lines:
        assert "error" not in line
        ended |= line == "data: [DONE]"
        if line.startswith("data: {") and (choices := json.loads(line.removeprefix("data: "))["choices"]):
            text += choices[0]["delta"].get("content") or ""
    assert ended
    return text


def test_nothing_leaves_under_a_running_reply(pool):
    several = pool(1.5)
    several.said = lambda name: LONG if name == "two" else "Short."
    body = {"model": "two", "stream": True, "max_tokens": 500, "messages": [{"role": "user", "content": "Go on."}]}
    with several.client.stream("POST", "/v1/chat/completions", json=body) as stream:
        lines = stream.iter_lines()
        next(line for line in lines if '"so"' in line)
        with ThreadPoolExecutor(1) as executor:
            other = executor.submit(several.say, "three")
            assert "so" + streamed(lines) == WORDS
            assert other.result(60) == "Short."
    assert several.states() == {"one": "disk", "two": "disk", "three": "loaded"}


def test_models_without_room_together_take_turns(pool):
    several = pool(1.5)

    def client(number: int) -> list[tuple[str, str]]:
        return [(model, several.say(model)) for turn in range(3) for model in (IDS[(number + turn) % 3],)]

    with ThreadPoolExecutor(4) as executor:
        said = [one for answers in executor.map(client, range(4)) for one in answers]
    assert len(said) == 12 and all(answer == f"I am {model}." for model, answer in said)
    assert sum(state == "loaded" for state in several.states().values()) == 1


def test_requests_for_a_model_on_its_way_wait_for_one_load(pool):
    several = pool(5)
    there, go = threading.Event(), threading.Event()

    def slowly(name: str, progress: Callable[[int, int], None]) -> None:
        progress(1, 2)
        there.set()
        assert go.wait(60)

    several.before_load = slowly
    with ThreadPoolExecutor(4) as executor:
        asked = [executor.submit(several.say, model) for model in ("two", "two", "stacy@two", "gary@two")]
        assert there.wait(60)
        several.server.wait(lambda: several.client.get("/townhall/models").json()["models"][2]["queued"] == 4)
        health = several.client.get("/health")
        assert health.status_code == 200 and {"id": "two", "state": "loading", "progress": 0.5} in health.json()["models"]
        go.set()
        assert [one.result(60) for one in asked] == ["I am two."] * 4
    assert several.loads == ["one", "two"]


def test_a_model_answers_while_another_is_loaded(pool):
    several = pool(5)
    there, answered = threading.Event(), threading.Event()

    def matrices(name: str, progress: Callable[[int, int], None]) -> None:
        there.set()
        while not answered.is_set():
            progress(1, 2)

    several.before_load = matrices
    with ThreadPoolExecutor(1) as executor:
        other = executor.submit(several.say, "two")
        assert there.wait(60)
        assert several.say("one") == "I am one."
        answered.set()
        assert other.result(60) == "I am two."


def test_what_can_never_fit_is_refused_with_what_would(pool):
    several = pool(0.8)
    answer = ask(several.server, model="two")
    assert answer.status_code == 503 and answer.json()["error"]["code"] == "does_not_fit"
    said = answer.json()["error"]["message"]
    assert said.startswith("two needs ") and "more than there is for models; what would fit: --slots 1" in said and "\n" not in said
    assert several.post("load", "two").status_code == 503
    assert several.say("one") == "I am one." and several.loads == ["one"]


def test_what_is_pinned_is_loaded_at_the_start_and_stays(pool):
    several = pool(2.5, ("two",))
    several.until(two="loaded")
    assert several.say("three") == "I am three."
    assert several.states() == {"one": "disk", "two": "loaded", "three": "loaded"}
    assert several.post("unload", "two").json()["error"]["code"] == "pinned"
    assert several.post("pin", "three", pinned=True).json()["pinned"]
    answer = ask(several.server, model="stacy")
    assert answer.status_code == 503 and "beside three, two" in answer.json()["error"]["message"]
    assert not several.post("pin", "two", pinned=False).json()["pinned"]
    assert several.say("stacy") == "I am one." and several.states()["two"] == "disk"


def test_a_name_to_pin_that_is_not_there(folder):
    with pytest.raises(ModelError, match="--pin four: there is no such model; the folders hold one, three, two"):
        Pool(folder, 5, ("four",))


def test_what_cannot_be_loaded_leaves_the_others_alone(pool):
    several = pool(2.5)

    def broken(name: str, progress: Callable[[int, int], None]) -> None:
        raise ModelError("two.gguf is cut short; pull it again")

    several.before_load = broken
    answer = ask(several.server, model="two")
    error = answer.json()["error"]
    assert answer.status_code == 503 and error["code"] == "load_failed" and "cut short" in error["message"]
    (two,) = [one for one in several.client.get("/townhall/models").json()["models"] if one["id"] == "two"]
    assert two["state"] == "disk" and "cut short" in two["error"] and several.say("one") == "I am one."
    several.before_load = lambda name, progress: None
    assert several.say("two") == "I am two."


def test_models_are_loaded_and_unloaded_by_hand(pool):
    several = pool(5)
    assert several.post("load", "two.gguf").status_code == 202
    several.until(two="loaded")
    described = {one["id"]: one for one in several.client.get("/townhall/models").json()["models"]}
    assert described["two"]["loaded"] and described["two"]["planned"] == several.planned and described["two"]["device"] == "FAKE"
    memory = several.client.get("/townhall/models").json()["memory"]
    assert [(one["name"], one["used"]) for one in memory] == [("FAKE", 2 * several.planned)]
    assert several.post("unload", "two").status_code == 202
    several.until(two="disk", one="loaded")
    for stranger in ("four", "../one", str(several.folder / "one.gguf"), ""):
        assert several.post("load", stranger).status_code in (400, 404)


def test_a_model_that_is_asked_to_leave_answers_first(pool):
    several = pool(5)
    several.said = lambda name: LONG
    body = {"model": "two", "stream": True, "max_tokens": 500, "messages": [{"role": "user", "content": "Go on."}]}
    with several.client.stream("POST", "/v1/chat/completions", json=body) as stream:
        lines = stream.iter_lines()
        next(line for line in lines if '"so"' in line)
        assert several.post("unload", "two").json()["state"] == "leaving"
        assert "so" + streamed(lines) == WORDS
    several.until(two="disk")


def test_files_that_come_and_go(pool, folder):
    several = pool(5)
    path = folder / "four.gguf"
    try:
        path.write_bytes((folder / "two.gguf").read_bytes())
        several.server.service.pool._looked = 0.0
        assert several.say("four") == "I am four."
        path.unlink()
        assert several.states()["four"] == "loaded" and several.say("four") == "I am four."
        assert several.post("unload", "four").status_code == 202
        several.server.wait(lambda: "four" not in several.states())
    finally:
        path.unlink(missing_ok=True)


def test_a_server_of_one_model_says_how_to_have_several(serve):
    server = serve()
    answer = httpx.post(f"{server.root}/townhall/models/load", json={"model": "two"})
    assert answer.status_code == 409 and "--models-dir" in answer.json()["error"]["message"]


def test_clients_of_ollama_see_what_is_in_memory(pool):
    several = pool(5)
    said = several.client.post("/api/chat", json={"model": "two:latest", "stream": False, "messages": [{"role": "user", "content": "Hi"}]})
    assert said.json()["message"]["content"] == "I am two."
    tags = {one["name"]: one["details"] for one in several.client.get("/api/tags").json()["models"]}
    assert {"stacy:latest", "one:latest", "two:latest", "three:latest"} <= tags.keys() and tags["two:latest"]["quantization_level"] == "F32"
    running = [one["name"] for one in several.client.get("/api/ps").json()["models"]]
    assert "two:latest" in running and "stacy:latest" in running and "three:latest" not in running
    assert several.client.post("/api/generate", json={"model": "three"}).json()["done_reason"] == "load"
    assert several.states()["three"] == "loaded"
    assert several.client.post("/api/generate", json={"model": "three", "keep_alive": 0}).json()["done_reason"] == "unload"
    several.until(three="disk")


def test_a_chat_of_the_page_can_be_with_another_model(pool, tmp_path):
    several = pool(1.5, chats=tmp_path)
    opened = several.client.post("/townhall/chats", json={"model": "stacy@two"})
    assert opened.status_code == 201, opened.text
    chat = opened.json()["chat"]["id"]
    said = several.client.post(f"/townhall/chats/{chat}/messages", json={"text": "Who is it?", "reply": True})
    assert said.status_code in (200, 201, 202), said.text
    several.server.wait(lambda: several.client.get(f"/townhall/chats/{chat}").json()["generation"] is None)
    shown = several.client.get(f"/townhall/chats/{chat}").json()
    assert shown["chat"]["model"] == "stacy@two" and shown["messages"][-1]["text"] == "I am two."
    assert "two.gguf" in next(tmp_path.glob("*.md")).read_text()


def test_turns_are_had_in_the_order_of_asking():
    turns, order, threads = EngineTurns(), list[int](), list[threading.Thread]()

    def turn(number: int) -> None:
        with turns:
            order.append(number)

    with turns:
        for number in range(5):
            threads.append(threading.Thread(target=turn, args=(number,)))
            threads[-1].start()
            while turns._tickets < number + 2:  # it waits
                pass
        turns.pass_on()
        assert order == [0, 1, 2, 3, 4]
    for thread in threads:
        thread.join(60)
