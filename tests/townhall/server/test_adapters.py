"""Adapters as models, and by name in a request, over a tiny model."""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from app.models.llama.lora.adapter import Adapter, LowRank, adaptable_shapes
from app.models.llama.lora.gguf_adapter import write_gguf_adapter
from tests.townhall.server.running import OPTIONS, Opened, Running
from townhall.adapter_spec import AdapterSpec
from townhall.conversation import default_sampling

pytestmark = pytest.mark.slow


@pytest.fixture(scope="session")
def adapted_server(tiny_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """Two adapters, `loud` and `odd`, and a persona that speaks through the first."""
    from app.models.llama.checkpoint import open_checkpoint

    folder = tmp_path_factory.mktemp("adapters")
    config = open_checkpoint(tiny_file).config
    specs = []
    for seed, name in enumerate(("loud", "odd")):
        rng = np.random.default_rng(seed)
        matrices = {
            key: LowRank(rng.standard_normal((4, shape[1])).astype(np.float32), rng.standard_normal((shape[0], 4)).astype(np.float32), 0.1)
            for key, shape in adaptable_shapes(config).items()
            if key.startswith("layers.")
        }
        specs.append(AdapterSpec(write_gguf_adapter(Adapter(matrices), folder / f"{name}.gguf", config), 1.0, name))
    (folder / "ann.yaml").write_text("name: Ann\ndescription: Ann is brief.\nlora: [loud.gguf]\n")

    def load() -> Opened:
        from app.models.llama import Llama

        llama = Llama.load(tiny_file, 1536)
        return Opened(llama, default_sampling(), llama.backend)

    server = Running(load, replace(OPTIONS, model_id="tiny", personas=(*OPTIONS.personas, str(folder / "ann.yaml")), adapters=tuple(specs)))
    yield server
    server.stop()


def ask(server: Running, model: str = "tiny", **fields: Any) -> Any:
    body = {"model": model, "prompt": "one two three", "max_tokens": 12, "temperature": 0, **fields}
    answer = httpx.post(f"{server.root}/v1/completions", json=body, timeout=120)
    return answer.json() if answer.status_code != 200 else answer.json()["choices"][0]["text"]


def test_adapters_are_models_and_may_be_named_by_a_request(adapted_server: Running) -> None:
    listed = httpx.get(f"{adapted_server.root}/v1/models", timeout=120).json()["data"]
    assert {"tiny", "loud", "odd", "ann"} <= {one["id"] for one in listed}
    plain, loud, odd = (ask(adapted_server, name) for name in ("tiny", "loud", "odd"))
    assert len({plain, loud, odd}) == 3
    assert ask(adapted_server, lora=[{"id": "loud"}]) == loud
    assert ask(adapted_server, lora=[{"id": 1, "scale": 1.0}]) == odd
    assert ask(adapted_server, "odd", lora=[]) == plain
    assert ask(adapted_server, "odd", lora=[{"id": "odd", "scale": 0}]) == plain
    both = ask(adapted_server, lora=[{"id": 0, "scale": 0.5}, {"id": 1, "scale": 0.5}])
    assert both not in (plain, loud, odd)
    # whichever was asked for before: nothing of another's cache is left
    assert [ask(adapted_server, name) for name in ("odd", "tiny", "loud")] == [odd, plain, loud]


def test_a_persona_speaks_through_its_adapter(adapted_server: Running) -> None:
    def say(**fields: Any) -> str:
        body = {"model": "ann", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 12, "temperature": 0, **fields}
        found: str = httpx.post(f"{adapted_server.root}/v1/chat/completions", json=body, timeout=120).json()["choices"][0]["message"][
            "content"
        ]
        return found

    assert say() == say(lora=[{"id": "loud"}]) != say(lora=[])


def test_texts_through_several_adapters_at_once_are_those_of_each_alone(adapted_server: Running) -> None:
    requests = [(name, {"max_tokens": 200, "temperature": 1.0, "seed": seed}) for seed in range(2) for name in ("tiny", "loud", "odd")]
    expected = [ask(adapted_server, name, **fields) for name, fields in requests]
    assert adapted_server.service.opened
    llama: Any = adapted_server.service.opened.llama
    sharing = llama.engine.sharing
    if not (sharing.most_rows and llama.model.kernels.changes_by_row):
        pytest.skip("no such passes here")
    run, models = sharing.run, list[int]()

    def counted(wanted: Any, capacity: int) -> Any:
        models.append(len({id(one.model) for one in wanted}))
        return run(wanted, capacity)

    sharing.run = counted
    try:
        together = adapted_server.at_once([partial(ask, adapted_server, name, **fields) for name, fields in requests])
    finally:
        sharing.run = run
    assert together == expected
    assert max(models) == 3 and len(set(expected)) == len(expected)


@pytest.mark.parametrize(
    "lora, words",
    [
        ([{"id": "quiet"}], "no adapter 'quiet'"),
        ([{"id": 7}], "no adapter '7'"),
        ([{"id": 0}, {"id": "loud"}], "twice"),
        ([{"id": 0, "scale": 1e9}], "scale"),
        ([{"scale": 1}], "id"),
        ([{"id": 0}] * 9, "lora"),
    ],
)
def test_faults_are_named(adapted_server: Running, lora: Any, words: str) -> None:
    error = ask(adapted_server, lora=lora)["error"]
    assert words in error["message"] + str(error.get("param"))
