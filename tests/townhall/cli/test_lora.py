"""Adapters on the command line: talks through them, in a session and again in a replay; merged, extracted, inspected."""

import io
import json
import sys
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest

from app.models.llama.checkpoint import open_checkpoint
from app.models.llama.lora.adapter import Adapter, LowRank, adaptable_shapes
from app.models.llama.lora.peft_folder import write_peft
from tests.reference.tiny import make_tiny_gguf
from townhall.cli.main import cli, main
from townhall.logbook.log_reader import read_log

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_gguf(tmp_path_factory.mktemp("tiny") / "tiny.gguf", dim=128, context_length=512, type="Q8_0")


@pytest.fixture(scope="module")
def adapter(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    rng, config = np.random.default_rng(0), open_checkpoint(model).config
    matrices = {
        name: LowRank(rng.standard_normal((4, cols)).astype(np.float32), rng.standard_normal((rows, 4)).astype(np.float32), 0.1)
        for name, (rows, cols) in adaptable_shapes(config).items()
        if name.startswith("layers.")
    }
    return write_peft(Adapter(matrices, base="tiny"), tmp_path_factory.mktemp("loud") / "loud", config)


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Any:
    def call(*args: object, stdin: tuple[str, ...] = ()) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "stdin", io.StringIO("".join(f"{line}\n" for line in stdin)))
        code = main(list(map(str, args)))
        out, err = capfd.readouterr()
        return code, out, err

    return call


@pytest.fixture
def chat(run: Any, model: Path, tmp_path: Path) -> Any:
    (tmp_path / "ada.yaml").write_text("name: Ada\ndescription: Ada counts.\n")

    def call(*flags: object, stdin: tuple[str, ...], personality: Path | None = None) -> tuple[list[str], str]:
        own = (
            "--model",
            model,
            "--personality",
            personality or tmp_path / "ada.yaml",
            "--max-context",
            400,
            "--count",
            12,
            "--temperature",
            0,
        )
        code, out, err = run("chat", *own, "--log-to", tmp_path / "logs", "--json", *flags, stdin=stdin)
        assert code == 0, err
        return [json.loads(line)["text"] for line in out.splitlines()], err

    return call


def replays(run: Any, tmp_path: Path) -> list[Any]:
    for log in (tmp_path / "logs").glob("*.md"):
        code, out, err = run("replay", log)
        assert code == 0 and out.endswith("all the same\n"), (log.read_text(), out, err)
    return sorted(map(read_log, (tmp_path / "logs").glob("*.md")), key=lambda log: log.head["started"])


def test_a_talk_through_an_adapter_is_another_and_replays(chat: Any, run: Any, adapter: Path, tmp_path: Path) -> None:
    (plain,), _ = chat(stdin=("hello",))
    (loud,), _ = chat("--lora", adapter, stdin=("hello",))
    (half,), _ = chat("--lora", f"{adapter}:0.5", stdin=("hello",))
    (none,), _ = chat("--lora", f"{adapter}:0", stdin=("hello",))
    assert none == plain and len({plain, loud, half}) == 3
    logs = replays(run, tmp_path)
    assert ["adapters" in log.head for log in logs] == [False, True, True, False]
    assert logs[1].head["settings"]["lora"] == [f"{adapter}:1.0"]


def test_a_persona_speaks_through_its_own(chat: Any, run: Any, adapter: Path, tmp_path: Path) -> None:
    persona = tmp_path / "eve.yaml"
    persona.write_text(f"name: Ada\ndescription: Ada counts.\nlora: ['{adapter}']\n")
    (plain,), _ = chat(stdin=("hello",))
    (loud,), _ = chat("--lora", adapter, stdin=("hello",))
    assert chat(stdin=("hello",), personality=persona)[0] == [loud]
    assert chat("--lora", "none", stdin=("hello",), personality=persona)[0] == [plain]
    replays(run, tmp_path)


def test_a_session_lays_adapters_over_and_takes_them_off(chat: Any, run: Any, adapter: Path, tmp_path: Path) -> None:
    lines = (
        "/lora",
        "hello",
        f"/lora {adapter}",
        "/retry",
        f"/lora {adapter}:0.5",
        "/lora",
        "/retry",
        "/lora off",
        "/retry",
        "/lora on",
        "/retry",
    )
    (plain, loud, half, off, on), err = chat(stdin=lines)
    assert off == plain and on == half and len({plain, loud, half}) == 3
    assert "no adapter is in use" in err and "scale 0.5" in err and "Ada speaks through no adapter now" in err
    logs = replays(run, tmp_path)
    assert len(logs) == 5  # each change begins a new log, which carries what was said


def test_an_adapter_is_inspected(run: Any, model: Path, adapter: Path) -> None:
    code, out, _ = run("lora", "inspect", adapter, "--model", model, "--json")
    report = json.loads(out)
    assert code == 0 and report["ranks"] == [4] and report["matrices"] == 14 and report["format"] == "peft, safetensors"
    assert "targets" in run("lora", "inspect", adapter)[1]
    assert run("lora", "inspect", model)[0] == 2


def test_merging_says_how_far_it_is_from_the_unmerged(run: Any, model: Path, adapter: Path, tmp_path: Path) -> None:
    code, out, _ = run("lora", "merge", model, f"{adapter}:0.5", tmp_path / "merged.gguf", "--type", "f32")
    assert code == 0
    written, difference = out.splitlines()
    assert Path(written) == tmp_path / "merged.gguf"
    assert float(difference.split(": ")[1].split(" ")[0]) < 1e-3 and "the likeliest token" in difference
    code, out, err = run("lora", "merge", model, adapter, tmp_path / "small.gguf", "--type", "q4_0")
    assert code == 0 and "rounds in steps" in err
    code, _, err = run("lora", "merge", model, tmp_path / "nothing", tmp_path / "no.gguf")
    assert code == 2 and "does not exist" in err and not (tmp_path / "no.gguf").exists()


@pytest.mark.parametrize("name", ["out", "out.gguf"])
def test_what_was_merged_is_extracted_again(name: str, run: Any, model: Path, adapter: Path, tmp_path: Path) -> None:
    merged = tmp_path / "merged.gguf"
    assert run("lora", "merge", model, adapter, merged, "--type", "f32", "--no-check")[0] == 0
    code, out, _ = run("lora", "extract", model, merged, tmp_path / name, "--rank", 4, "--json")
    report = json.loads(out)
    assert code == 0 and len(report["matrices"]) == 14 and max(one["error"] for one in report["matrices"]) < 1e-2
    code, out, _ = run("lora", "merge", model, tmp_path / name, tmp_path / "again.gguf", "--type", "f32")
    assert code == 0
    before, after = (
        open_checkpoint(path).matrix("layers.1.feed_forward.w2.weight").dequantize() for path in (merged, tmp_path / "again.gguf")
    )
    np.testing.assert_allclose(after, before, atol=1e-3 * np.abs(before).max())
    code, _, err = run("lora", "extract", model, merged, tmp_path / name)
    assert code == 2 and "there already" in err


def test_faults_are_sentences(run: Any, model: Path, adapter: Path, tmp_path: Path) -> None:
    for flags, words in (
        (("--model", model, "--lora", tmp_path / "nothing"), "does not exist"),
        (("--model", model, "--lora", model), "no adapter but a model"),
        (("--model", "fake:echo", "--lora", adapter), "fake:echo has none"),
    ):
        code, _, err = run("chat", *flags, "--no-log", stdin=("hello",))
        assert code == 2 and words in err and "Traceback" not in err


def commands(command: click.Command, name: str = "townhall") -> dict[str, set[str]]:
    """Options of every command by its name."""
    if not isinstance(command, click.Group):
        return {name: {option for parameter in command.params for option in parameter.opts}}
    found: dict[str, set[str]] = {}
    for word in command.list_commands(click.Context(command)):
        if (inner := command.get_command(click.Context(command), word)) is not None:
            found |= commands(inner, f"{name} {word}")
    return found


def test_every_command_that_runs_a_model_takes_adapters() -> None:
    of_models = {name: options for name, options in commands(cli).items() if "--model" in options}
    # the one reads a tokenizer, the other an adapter
    assert {name for name, options in of_models.items() if "--lora" not in options} == {"townhall data check", "townhall lora inspect"}
    assert len(of_models) >= 13


def test_watch_replay_and_warm_run_through_adapters(chat: Any, run: Any, model: Path, adapter: Path, tmp_path: Path) -> None:
    (plain,), _ = chat(stdin=("hello",))
    (loud,), _ = chat("--lora", adapter, stdin=("hello",))
    flags = ("--model", model, "--personality", tmp_path / "ada.yaml", "--max-context", 400, "--count", 12, "--temperature", 0)
    answered = []
    for name, more, front in (("plain", (), ""), ("flag", ("--lora", adapter), ""), ("front", (), f"---\nlora: ['{adapter}']\n---\n")):
        (talk := tmp_path / f"{name}.chat").write_text(f"{front}User: hello\n")
        code, out, err = run("watch", talk, "--once", "--json", *flags, *more)
        assert code == 0, err
        answered.append(json.loads(out)["text"])
    assert answered == [plain, loud, loud]
    first, second = sorted((tmp_path / "logs").glob("*.md"), key=lambda path: "adapters" in read_log(path).head)
    assert run("replay", first, "--lora", adapter)[0] == 1 and run("replay", second, "--lora", "none")[0] == 1
    assert run("warm", "--model", model, "--max-context", 400, "--lora", adapter)[0] == 0
    for command in (("warm",), ("data", "from-persona", tmp_path / "draft.jsonl")):
        code, _, err = run(*command, "--model", model, "--lora", model)
        assert code == 2 and "no adapter but a model" in err
