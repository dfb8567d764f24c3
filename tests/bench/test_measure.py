"""The run: what is measured in which order, and what is made of it."""

import json
from pathlib import Path
from typing import Any

import pytest

from bench import measure, plot, report
from bench.measure import BenchPlan, Case, Result

ABOUT = {"context_length": 8192, "decode_weight_bytes": 100_000_000, "kv_bytes_per_position": 20_000, "runtime": "scripted"}


class ScriptedWorker:
    """Answers at a fixed speed and writes down what it was asked for."""

    def __init__(self, name: str, speed: float, diary: list[tuple[Any, ...]]):
        self.name, self.speed, self.diary, self.about = name, speed, diary, ABOUT

    def __call__(self, method: str, *arguments: Any) -> Any:
        self.diary.append((self.name, method, *arguments))
        tokens = {"prefill": lambda n: n, "decode": lambda context, n: n}.get(method)
        if tokens:
            return tokens(*arguments) / self.speed
        chosen = {"step": 0.005, "greedy": 0.00001, "default": 0.00005}
        return {"plain_read": 40e9, "peak_memory": 1000, "breakdown": [], "sampling": chosen}.get(method)

    def close(self) -> None:
        self.diary.append((self.name, "close"))


@pytest.fixture
def diary(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    written: list[tuple[Any, ...]] = []
    speeds = {"townhall": 200.0, "llama.cpp": 100.0}
    monkeypatch.setattr(measure, "Worker", lambda name, model, capacity, adapters=(), kv="f16": ScriptedWorker(name, speeds[name], written))
    return written


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "model.gguf"
    path.write_bytes(b"x" * 1000)
    return path


def test_samples_of_both_alternate(diary):
    case = Case("decode", 2, 24, 32)
    workers = {name: measure.Worker(name, Path(), 0) for name in ("townhall", "llama.cpp")}
    result = measure.measure(case, workers, 3, 60)
    assert result.samples == {"townhall": [200.0] * 3, "llama.cpp": [100.0] * 3}
    assert result.ratios == [2.0] * 3
    full = [name for name, method, *arguments in diary if method == "decode" and arguments[1] == 24]
    assert full == ["townhall", "llama.cpp"] * 3


def test_a_case_that_runs_out_of_time_has_one_sample_of_each_at_least():
    diary: list[tuple[Any, ...]] = []
    workers = {name: ScriptedWorker(name, 100.0, diary) for name in ("townhall", "llama.cpp")}
    result = measure.measure(Case("prefill", 1, 512), workers, 7, 0.0)
    assert [len(samples) for samples in result.samples.values()] == [1, 1]


def test_contexts_beyond_the_model_are_left_out():
    cases = measure.cases_of(BenchPlan(Path(), True, (2, 1)), context_length=600)
    assert {case.context for case in cases if case.kind == "decode"} == {32, 512}
    assert [case.threads for case in cases if case.kind == "prefill"] == [2, 1]
    assert [case.context for case in cases if case.busy] == [32, 512]


def test_one_thread_has_no_crowded_case():
    assert not any(case.busy for case in measure.cases_of(BenchPlan(Path(), True, (1,)), 8192))


def test_bandwidth_counts_weights_and_the_cache_that_decode_reads():
    result = Result(Case("decode", 2, 24, 500), {"townhall": [200.0, 100.0, 300.0]}, plain_read=[40e9, 30e9, 50e9])
    found = measure.bandwidth(result, ABOUT)
    assert found is not None
    assert found["bytes_per_token"] == 100_000_000 + 20_000 * 512
    assert found["gb_per_second"] == round(110.24e6 * 200 / 1e9, 2)
    assert found["share"] == round(110.24e6 * 200 / 40e9, 3)  # the pairs' shares are 0.55, 0.37 and 0.66
    assert measure.bandwidth(Result(Case("prefill", 2, 512), {"townhall": [1.0]}), ABOUT) is None


def test_a_run_is_told_saved_and_drawn(diary, model, tmp_path):
    results = measure.run(BenchPlan(model, True, (2,), alternations=2, busy=False, starts=0), say=lambda text: None)
    assert [entry for entry in diary if entry[1] == "close"] == [("llama.cpp", "close"), ("townhall", "close")]
    text = report.table(results)
    assert "default 50 µs, 1.0%" in text
    assert "decode at 512, 2 threads" in text and "2.00 × (2.00–2.00)" in text and "200.0 (200–200)" in text
    first, second = report.save(results, tmp_path / "results"), report.save(results, tmp_path / "results")
    assert first != second and json.loads(first.read_text()) == json.loads(json.dumps(results))
    if plot.available():
        plot.plot(results, tmp_path / "bench.png")
        assert (tmp_path / "bench.png").read_bytes().startswith(b"\x89PNG")


def test_alone_there_is_no_ratio(diary, model):
    results = measure.run(BenchPlan(model, False, (1,), alternations=1, starts=0), say=lambda text: None)
    assert all("ratio" not in case for case in results["cases"])
    assert "llama.cpp" not in report.table(results)
