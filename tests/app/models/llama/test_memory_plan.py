"""Plans: the parts are the loader's own figures, and every remedy that is named is one."""

from dataclasses import replace

import pytest
from tinygrad import dtypes

from app.models.llama.checkpoint import open_checkpoint
from app.models.llama.config import ConfigError
from app.models.llama.footprint import Footprint
from app.models.llama.memory_plan import CPU_CHUNKS, PER_ROW, PER_TOKEN, PROCESS, DeviceRoom, ModelDemand, plan
from app.models.llama.pass_sizes import CHUNKS
from tests.reference.tiny import make_tiny_gguf


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return make_tiny_gguf(tmp_path_factory.mktemp("plan") / "tiny.gguf", type="Q8_0", dim=256, hidden_dim=512, context_length=2048)


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    sizes = {"dim": 512, "hidden_dim": 1024, "n_layers": 3, "context_length": 2048}
    return make_tiny_gguf(tmp_path_factory.mktemp("plan") / "large.gguf", type="F16", **sizes)


def on_card(*memory: int) -> list[DeviceRoom]:
    return [DeviceRoom.of(f"CUDA:{number}", nbytes, 0) for number, nbytes in enumerate(memory)]


def test_the_parts_are_what_the_loader_counts(path):
    demand = ModelDemand.of(path, 1000, 3)
    checkpoint = open_checkpoint(path)
    found = Footprint.of(checkpoint, 1000, 1000 + max(CHUNKS), CPU_CHUNKS, dtypes.float16)
    process = PROCESS + PER_TOKEN * checkpoint.config.vocab_size
    assert demand.parts(True) == {
        "weights": found.weights,
        "cache": 6 * found.cache,
        "scratch": found.scratch + 4 * PER_ROW,
        "process": process,
    }
    card = demand.parts(False)
    assert card["process"] == 0 and card["cache"] == 6 * found.cache and card["scratch"] < found.scratch  # passes of fewer sizes
    assert ModelDemand.of(path, 10_000).context == 2048 and demand.name == "tiny"


def test_caches_of_8_bit_blocks_are_planned_with_less_and_named_as_a_remedy(tmp_path):
    path = make_tiny_gguf(tmp_path / "wide.gguf", type="Q8_0", dim=128, n_kv_heads=4, context_length=8192)
    halves, blocks = (ModelDemand.of(path, 8192, 4, kv) for kv in ("f16", "q8_0"))
    for host in (True, False):
        assert blocks.parts(host)["cache"] * 32 == halves.parts(host)["cache"] * 17
        between = (halves.nbytes(host) + blocks.nbytes(host)) // 2
        (unplaced,) = plan([halves], [device := DeviceRoom.of("one", between, 0, host=host)]).unplaced
        assert "--kv q8_0" in unplaced.remedies and not plan([blocks], [device]).unplaced
    with pytest.raises(ConfigError, match="--kv q8_0 keeps blocks of 32 values, and this model's heads of 16"):
        ModelDemand.of(make_tiny_gguf(tmp_path / "narrow.gguf", type="Q8_0"), 100, 1, "q8_0")


def test_what_fits_is_placed_and_the_figures_add_up(path, large):
    demands = [ModelDemand.of(path), ModelDemand.of(large)]
    sizes = [demand.nbytes(False) for demand in demands]
    found = plan(demands, [DeviceRoom.of("CUDA", 2 * sum(sizes), 1000), DeviceRoom.of("CPU", 1 << 30, 0, True)])
    assert found.devices[0].models == tuple(demands) and found.devices[1].models == () and not found.unplaced
    assert found.devices[0].used == sum(sizes) and found.devices[0].free == sum(sizes) - 1000
    written = found.to_json()
    assert [model["nbytes"] for model in written["devices"][0]["models"]] == sizes and written["devices"][1]["used"] == 0
    model = written["devices"][0]["models"][0]
    assert model["nbytes"] == model["weights"] + model["cache"] + model["scratch"] + model["process"]


def remedy_of(found) -> dict[str, object]:
    """The fields that the remedies name, each for itself."""
    names = {}
    for text in found.unplaced[0].remedies:
        if text.startswith("--slots "):
            names["slots"] = int(text.split()[1])
        elif text.startswith("--context "):
            names["context"] = int(text.split()[1])
        elif text.startswith("--kv "):
            names["kv"] = text.split()[1]
        else:
            names["type"] = text.split(" as ")[1].split(",")[0]
    return names


def test_every_remedy_makes_it_fit_and_the_next_larger_one_would_not(large):
    demand = ModelDemand.of(large, 2048, 8)
    room = on_card(demand.nbytes(False) - demand.parts(False)["weights"] // 3)
    found = plan([demand], room)
    (missing,) = found.unplaced
    assert missing.missing == demand.parts(False)["weights"] // 3 and missing.device == "CUDA:0"
    remedies = remedy_of(found)
    assert remedies.keys() == {"slots", "context", "kv", "type"}
    for name, value in remedies.items():
        assert not plan([replace(demand, **{name: value})], room).unplaced
    assert plan([replace(demand, slots=remedies["slots"] + 1)], room).unplaced
    assert plan([replace(demand, context=2 * remedies["context"])], room).unplaced


def test_a_smaller_type_is_as_large_as_a_file_of_that_type(tmp_path, large):
    smaller = make_tiny_gguf(tmp_path / "q8.gguf", type="Q8_0", dim=512, hidden_dim=1024, n_layers=3, context_length=2048)
    assert replace(ModelDemand.of(large), type="Q8_0").parts(True) == ModelDemand.of(smaller).parts(True)


def test_what_no_change_makes_fit_has_no_remedy(path):
    found = plan([ModelDemand.of(path)], on_card(1000))
    assert found.unplaced[0].remedies == () and found.unplaced[0].missing == ModelDemand.of(path).nbytes(False) - 1000


def test_the_reserve_is_a_tenth_and_at_most_four_gigabytes():
    assert DeviceRoom.of("a", 1000).reserve == 100 and DeviceRoom.of("a", 80 << 30).reserve == 4 << 30
    assert DeviceRoom.of("a", 1000, 0).room == 1000 and DeviceRoom.of("a", 10, 20).room == 0
