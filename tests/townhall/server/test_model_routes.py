"""/townhall/models: what is there by its headers, what is loaded by its device's word, what it takes, how fast it answers."""

import json
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from app.models.llama.memory_plan import ModelDemand
from ext.tinygrad.backend import describe_device
from tests.reference.tiny import make_tiny_gguf
from tests.townhall.server.running import OPTIONS, Opened, Running, ask
from townhall.conversation import default_sampling
from townhall.server.model_listing import checkpoints

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    make_tiny_gguf(folder / "one.gguf", context_length=512)
    make_tiny_gguf(folder / "two.gguf", type="Q8_0", dim=256, hidden_dim=512, context_length=2048)
    (folder / "broken.gguf").write_bytes(b"GGUF\3\0\0\0")
    (folder / "notes.txt").write_text("no model")
    (folder / "deep/er").mkdir(parents=True)
    (folder / "deep/er/config.json").write_text("{}")
    return folder


class LoadedFrom(Opened):
    """With the path that it was loaded from, as a model's loader says it."""

    path: Path


@pytest.fixture(scope="module")
def api(folder):
    def load() -> Opened:
        from app.models.llama import Llama

        llama = Llama.load(folder / "one.gguf", 256)
        opened = LoadedFrom(llama, default_sampling(), llama.backend)
        opened.path = folder / "one.gguf"
        return opened

    server = Running(load, replace(OPTIONS, model_id="one", personas=(), slots=3, model_folders=(folder,)))
    with httpx.Client(base_url=f"{server.root}/townhall", timeout=60) as client:
        client.server = server
        yield client
    server.stop()


def test_models_are_listed_by_their_headers_with_the_loaded_one_first(api):
    found = api.get("/models").json()
    assert [(one["name"], one["loaded"]) for one in found["models"]] == [
        ("one.gguf", True), ("broken.gguf", False), ("deep/er", False), ("two.gguf", False),
    ]  # fmt: skip
    one, broken, folder, two = found["models"]
    assert one["architecture"] == "llama" and one["context_length"] == 512 and one["types"] == ["F32"] and one["fault"] == ""
    assert two["types"][0] == "Q8_0" and two["parameters"] > 0 and two["bytes"] > 0
    assert broken["fault"] and folder["fault"]
    assert not found["switchable"] and found["how"] == "townhall serve --model FILE"
    assert found["adapters"] == []


def test_the_loaded_one_is_told_with_its_device_as_the_driver_has_it(api):
    loaded, backend = api.get("/models").json()["loaded"], describe_device("CPU")
    assert (loaded["id"], loaded["name"], loaded["context"], loaded["slots"]) == ("one", "one.gguf", 256, 3)
    assert (loaded["device"], loaded["kind"], loaded["driver"]) == ("CPU", "cpu", backend.driver)
    assert backend.name in loaded["description"] and loaded["memory"] == backend.memory


def test_the_memory_picture_is_that_of_the_planner(api, folder):
    found = api.get("/models/fit").json()
    (device,) = found["devices"]
    (model,) = device["models"]
    assert model["name"] == "one" and model["nbytes"] == ModelDemand.of(folder / "one.gguf", 256, 3).nbytes(True) == device["used"]
    assert found["resident"] > 50_000_000 and str(folder) not in json.dumps(found)
    query = {"model": ["one.gguf", "two.gguf"], "context": "1024", "slots": "8"}
    models = api.get("/models/fit", params=query).json()["devices"][0]["models"]
    assert [(one["name"], one["context"], one["slots"]) for one in models] == [("one", 512, 8), ("two", 1024, 8)]


@pytest.mark.parametrize(
    "query, status", [({"model": "none.gguf"}, 404), ({"model": "../x"}, 404), ({"slots": "0"}, 400), ({"context": "x"}, 400)]
)
def test_what_cannot_be_planned(api, query, status):
    assert api.get("/models/fit", params=query).status_code == status


def test_a_broken_file_is_a_fault_of_the_request(api):
    assert api.get("/models/fit", params={"model": "broken.gguf"}).status_code == 400


def test_the_meter_counts_what_was_answered(serve):
    server = serve()
    meter = f"{server.root}/townhall/models/meter"
    before = httpx.get(meter).json()
    assert before["replies"] == 0 and before["tokens_per_second"] is None and before["active"] == 0
    assert before["prefix_cache"] == {"queries": 0, "hits": 0} and before["speculation"] is None
    usage = ask(server).json()["usage"]
    server.wait(lambda: httpx.get(meter).json()["replies"] == 1)
    after = httpx.get(meter).json()
    assert after["prefix_cache"] == {"queries": usage["prompt_tokens"], "hits": usage["prompt_tokens_details"]["cached_tokens"]}
    assert after["completion_tokens"] == usage["completion_tokens"] and after["prompt_tokens"] == usage["prompt_tokens"]
    assert after["tokens_per_second"] == pytest.approx(after["rate_sum"], abs=0.1) and after["rate_sum"] > 0


def test_a_double_has_no_file_and_takes_nothing(serve):
    root = f"{serve().root}/townhall/models"
    found = httpx.get(root).json()
    assert found["models"] == [] and found["loaded"]["id"] == "double" and found["loaded"]["name"] is None
    assert httpx.get(f"{root}/fit").json()["devices"][0]["models"] == []


def test_of_a_split_file_the_first_part_stands_for_all(tmp_path):
    for name in ("a-00001-of-00002.gguf", "a-00002-of-00002.gguf", "b-of-2.gguf", ".hidden/c.gguf"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert [path.name for path in checkpoints(tmp_path)] == ["a-00001-of-00002.gguf", "b-of-2.gguf"]
    assert list(checkpoints(tmp_path / "none")) == []
