"""The worker process, over a tiny model: it measures, and says why when it cannot."""

from pathlib import Path

import numpy as np
import pytest

from app.models.llama.checkpoint import open_checkpoint
from app.models.llama.lora.adapter import Adapter, LowRank
from app.models.llama.lora.peft_folder import write_peft
from bench import peer, process_start
from bench.worker import BenchError, Worker
from tests.reference.tiny import make_tiny_gguf

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_gguf(tmp_path_factory.mktemp("bench") / "tiny.gguf", dim=128, type="Q8_0", context_length=1200)


def test_townhall_measures_itself(model):
    worker = Worker("townhall", model, 200, {"DEV": "CPU"})
    try:
        assert worker.about["default_threads"] >= 1 and worker.about["decode_weight_bytes"] > 0
        worker("threads", 1)
        assert worker("prefill", 40) > 0 and worker("decode", 20, 4) > 0
        assert worker("plain_read") > 0 and worker("peak_memory") > 10_000_000
        assert worker("together", 1, 20, 3) > 0 and worker("together", 5, 20, 3) > 0
        chosen = worker("sampling", 20, 4)
        assert chosen["step"] > 0 and chosen["greedy"] > 0 and chosen["default"] > 0
        for tokens, unit in ((1, "gb_per_second"), (128, "gmac_per_second")):
            rows = {row["kernel"]: row for row in worker("breakdown", tokens, 10)}
            assert rows["qkv"]["count"] == 2 and rows["qkv"]["microseconds"] > 0 and rows["gated"][unit] >= 0
    finally:
        worker.close()


def test_townhall_measures_itself_through_an_adapter(model, tmp_path):
    config = open_checkpoint(model).config
    change = LowRank(np.ones((4, config.dim), np.float32), np.ones((config.dim, 4), np.float32), 0.1)
    adapter = write_peft(Adapter({"layers.0.attention.wo.weight": change}), tmp_path / "adapter", config)
    weights = []
    for adapters in ([], [(adapter, 0.5)]):
        worker = Worker("townhall", model, 200, {"DEV": "CPU"}, adapters)
        try:
            weights.append(worker.about["decode_weight_bytes"])
            assert worker("decode", 20, 4) > 0
        finally:
            worker.close()
    assert weights[1] - weights[0] == 2 * 4 * 2 * config.dim  # A and B as halves
    assert process_start.first_token("townhall", model, {"DEV": "CPU"}, [(adapter, 0.5)])["first token"] > 0


def test_a_worker_that_cannot_load_says_why(tmp_path):
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(b"GGUF and nothing else")
    with pytest.raises(BenchError, match="broken.gguf"):
        Worker("townhall", broken, 200, {"DEV": "CPU"})


@pytest.mark.skipif(peer.available(), reason="llama-cpp-python is installed")
def test_without_llama_cpp_the_comparison_names_the_package(model):
    with pytest.raises(BenchError, match="llama-cpp-python"):
        Worker("llama.cpp", model, 200)


def test_a_start_is_timed_phase_by_phase(model):
    with process_start.empty_caches() as environment:
        marks = process_start.first_token("townhall", model, {**environment, "DEV": "CPU"}, kv="q8_0")
        assert any(Path(environment["XDG_CACHE_HOME"]).iterdir()), "the caches that were filled were the empty ones"
    assert list(marks) == ["interpreter", "imports", "device", "weights and tokenizer", "first token"]
    assert list(marks.values()) == sorted(marks.values()) and marks["interpreter"] > 0


def test_a_start_that_fails_is_an_error_not_a_time(tmp_path):
    with pytest.raises(BenchError, match="before its first token"):
        process_start.first_token("townhall", tmp_path / "nothing.gguf", {"DEV": "CPU"})


def test_a_start_keeps_its_context_as_it_is_asked_to(model):
    with pytest.raises(BenchError, match="--kv q3 is no type"):
        process_start.first_token("townhall", model, {"DEV": "CPU"}, kv="q3")
