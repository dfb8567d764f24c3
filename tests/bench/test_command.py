"""`townhall bench` and `townhall warm` at the command line."""

import json

import pytest

from bench import measure, plot
from townhall.cli.main import main


def test_threads_must_be_numbers(capsys, tmp_path):
    model = tmp_path / "model.gguf"
    model.write_bytes(b"")
    assert main(["bench", "--model", str(model), "--threads", "two"]) == 2
    assert "write 1,2" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["bench", "warm"])
def test_a_model_that_is_not_there_is_named(command, capsys, tmp_path):
    assert main([command, "--model", str(tmp_path / "none.gguf")]) == 2
    assert "none.gguf does not exist" in capsys.readouterr().err


def test_flags_become_a_plan_and_json_goes_to_stdout(capsys, tmp_path, monkeypatch):
    model = tmp_path / "model.gguf"
    model.write_bytes(b"x")
    plans = []
    monkeypatch.setattr(measure, "run", lambda plan, say: plans.append(plan) or {"machine": {"cpu": "A CPU"}, "date": "2026-01-02 03:04"})
    out = tmp_path / "results"
    flags = ["--threads", "1,2", "--quick", "--against", "nobody", "--json", "--out", str(out)]
    assert main(["bench", "--model", str(model), *flags]) == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out)["machine"] == {"cpu": "A CPU"}
    assert plans[0].threads == (2, 1) and not plans[0].against and plans[0].seconds <= 120
    assert [file.name for file in out.iterdir()] == ["2026-01-02-a-cpu.json"]


@pytest.mark.parametrize(
    ("flag", "place", "told"),
    [
        ("--out", "a_file/results", "Not a directory"),
        ("--plot", "nowhere/plot.png", "there is no folder"),
        ("--plot", "plot.png", "matplotlib"),
    ],
)
def test_places_that_cannot_be_written_are_refused_before_anything_is_measured(flag, place, told, capsys, tmp_path, monkeypatch):
    (tmp_path / "model.gguf").write_bytes(b"x")
    (tmp_path / "a_file").write_bytes(b"")
    monkeypatch.setattr(measure, "run", lambda plan, say: pytest.fail("measured"))
    monkeypatch.setattr(plot, "available", lambda: told != "matplotlib")
    assert main(["bench", "--model", str(tmp_path / "model.gguf"), flag, str(tmp_path / place)]) == 2
    error = capsys.readouterr().err
    assert told in error and error.count("\n") == 1
