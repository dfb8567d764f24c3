"""`townhall fit`: the picture, its figures, and what a server really takes."""

import json
import re
from pathlib import Path

import httpx
import pytest

from app.models.llama.memory_plan import ModelDemand
from ext.tinygrad.backend import Backend
from tests.reference.tiny import make_tiny_gguf
from tests.townhall.server.processes import Child
from townhall import device_rooms
from townhall.cli.main import main


@pytest.fixture
def fit(capfd):
    """Run `townhall fit …`; gives (exit code, stdout, stderr)."""

    def run(*args):
        code = main(["fit", *map(str, args)])
        return (code, *capfd.readouterr())

    return run


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return make_tiny_gguf(tmp_path_factory.mktemp("fit") / "small.gguf", type="Q8_0", dim=256, hidden_dim=512, context_length=2048)


def test_the_picture_shows_what_goes_where_to_scale(fit, model):
    args = (model, model, "--memory", "CPU=400MB", "--memory", "20MB", "--reserve", "2MB", "--slots", "2")
    code, out, err = fit(*args)
    assert code == 0 and not err
    lines = out.splitlines()
    bars = [line for line in lines if line.startswith("[")]
    assert len(bars[0]) == 74 and len(bars[1]) == 10  # never shorter than a few characters
    assert {"A", "B"} <= set("".join(bars)) and bars[0].endswith("/]") and lines[-1] == "  / reserve 2 MB"
    host = json.loads(fit(*args, "--json")[1])["devices"][0]
    for sign, part in (("·", "process"), ("▒", "cache")):
        assert (
            abs(bars[0].count(sign) / 72 * 400e6 - sum(one[part] for one in host["models"])) < 4 * 400e6 / 72
        )  # small parts have a character as well


def test_json_has_the_same_figures(fit, model):
    code, out, _ = fit(model, "--memory", "CUDA=1GiB", "--context", "512", "--slots", "3", "--json")
    found, demand = json.loads(out), ModelDemand.of(model, 512, 3)
    assert code == 0 and found["devices"][0]["memory"] == 1 << 30 and found["devices"][0]["reserve"] == (1 << 30) // 10
    assert found["devices"][0]["models"][0]["nbytes"] == demand.nbytes(False) == found["devices"][0]["used"] and found["unplaced"] == []


def test_contexts_of_8_bit_blocks_are_planned_where_they_can_be(fit, model, tmp_path):
    sizes = [
        [one["models"][0]["cache"] for one in json.loads(fit(model, "--memory", memory, "--kv", kv, "--json")[1])["devices"]]
        for memory, kv in (("CPU=1GB", "f16"), ("CPU=1GB", "q8_0"), ("CUDA=1GB", "q8_0"))
    ]
    assert sizes[1][0] * 32 == sizes[2][0] * 32 == sizes[0][0] * 17
    narrow = make_tiny_gguf(tmp_path / "narrow.gguf", type="Q8_0")
    code, _, err = fit(narrow, "--kv", "q8_0")
    assert code == 2 and "--kv q8_0 keeps blocks of 32 values, and this model's heads of 16" in err


def test_what_does_not_fit_is_named_with_what_would(fit, model):
    code, out, err = fit(model, "--memory", "18MB", "--reserve", "0MB", "--context", "2048", "--slots", "4")
    assert code == 0 and "- small does not fit: it needs " in out
    slots = int(re.search(r"what would fit: --slots (\d+)", out)[1])
    assert "does not fit" not in fit(model, "--memory", "18MB", "--reserve", "0MB", "--context", "2048", "--slots", slots)[1]


def test_a_window_beyond_the_models_is_said(fit, model):
    _, out, err = fit(model, "--context", "9000", "--memory", "1GB")
    assert "caches of 2,048 tokens" in out and err == "small was trained for 2048 tokens, so that is its context window instead of 9000\n"


@pytest.mark.parametrize(
    "args, fault",
    [
        (["none.gguf"], "none.gguf does not exist"),
        ([__file__], "is not a GGUF file"),
        (["--memory", "24XB"], "is no size; pass one such as 24GB"),
        (["--slots", "0"], "--slots"),
    ],
)
def test_what_cannot_be_planned_is_said_in_one_sentence(fit, args, fault):
    code, out, err = fit(*args, "--memory", "1GB")
    assert code == 2 and not out and fault in err and len(err.splitlines()) == 1


@pytest.mark.slow
def test_without_memory_the_devices_here_are_planned_for(fit, model):
    code, out, _ = fit(model, "--json")
    host = json.loads(out)["devices"][-1]
    assert code == 0 and host["name"] == "CPU" and host["memory"] == device_rooms.host_memory() and host["about"].startswith("CPU: ")


def test_a_card_that_two_drivers_lead_to_counts_once():
    def backend(device: str, name: str, kind: str, memory: int = 8 << 30) -> tuple[str, Backend]:
        return device, Backend(device, "driver", name, kind, "", memory=memory)

    found = [
        backend("CUDA", "A card", "gpu"),
        ("AMD", "no driver is loaded"),
        backend("CL", "A card", "gpu"),
        backend("CL:1", "A card", "gpu"),
        backend("CL:2", "Another", "gpu"),
        backend("CL:3", "the processor", "cpu"),
        backend("CPU", "the processor", "cpu"),
    ]
    rooms = device_rooms.device_rooms(found)
    assert [room.name for room in rooms] == ["CL", "CL:1", "CL:2", "CPU"] and [room.host for room in rooms] == [False] * 3 + [True]
    assert [room.name for room in device_rooms.device_rooms([found[0], found[2], found[6]])] == ["CUDA", "CPU"]


def resident(child: Child) -> int:
    lines = Path(f"/proc/{child.process.pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith("VmRSS"))


def filled(child: Child, context: int, slots: int) -> int:
    """Resident memory once every slot, and the background lane's, has held a full window, and a reply was held to a grammar."""
    for number in range(slots + 2):
        ids = [20 + (number * 37 + n) % 200 for n in range(context - 8)]
        lane = {"townhall": {"lane": "background" if number > slots else "chat"}}
        response = httpx.post(f"{child.url}/completions", json={"prompt": ids, "max_tokens": 4, **lane}, timeout=800)
        assert response.status_code == 200, response.text
    shaped = {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 4, "response_format": {"type": "json_object"}}
    response = httpx.post(f"{child.url}/chat/completions", json=shaped, timeout=800)
    assert response.status_code == 200, response.text
    return resident(child)


@pytest.mark.slow
@pytest.mark.weights
@pytest.mark.timeout(900)  # windows are filled to the last token, which takes minutes on cores that others keep busy
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read from /proc")
@pytest.mark.parametrize("context, slots", [(1024, 2), (1024, 1)])
def test_a_server_takes_what_was_planned_within_five_percent(default_model, tmp_path, monkeypatch, context, slots):
    monkeypatch.setenv("DEV", "CPU")
    child = Child(tmp_path, "--model", default_model, "--max-context", str(context), "--slots", str(slots), "--persona", "gary")
    try:
        taken, planned = filled(child, context, slots), ModelDemand.of(default_model, context, slots).nbytes(True)
        assert abs(taken / planned - 1) < 0.05, (taken, planned)
    finally:
        child.process.kill()
        child.process.wait()
