"""`townhall train` and `townhall data` on a tiny model: files in, an adapter out; killed, stopped, resumed; faults in a sentence."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from app.models.llama.training import training_state
from tests.reference.tiny import make_tiny_gguf
from townhall.cli import training_plot
from townhall.cli.main import main
from townhall.cli.training_report import clock, sparkline

ROOT = Path(__file__).parents[3]
FLAGS = ["--rank", "2", "--lr", "0.01", "--steps", "8", "--batch", "2", "--max-length", "64", "--warmup", "1", "--save-every", "1"]
pytestmark = pytest.mark.slow  # processes, and every pass is captured anew


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A model and conversations."""
    folder = tmp_path_factory.mktemp("train")
    words = ["moon", "sun", "sea", "tea", "bee"]
    lines = [{"prompt": f"what is the {word}?", "completion": f"{word}!" * (n + 1)} for n, word in enumerate(words)]
    data = folder / "chats.jsonl"
    data.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return make_tiny_gguf(folder / "tiny.gguf", type="Q8_0"), data


def arguments(files: tuple[Path, Path], out: Path, *more: str) -> list[str]:
    model, data = files
    return ["train", "--model", str(model), "--data", str(data), "--out", str(out), *FLAGS, *more]


def weights(out: Path) -> bytes:
    return (out / "adapter_model.safetensors").read_bytes()


@pytest.fixture(scope="module")
def whole(files: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What an uninterrupted training gives."""
    out = tmp_path_factory.mktemp("whole") / "adapter"
    assert main(arguments(files, out)) == 0
    return out


def test_an_adapter_a_plot_and_checkpoints_come_out(files: tuple[Path, Path], whole: Path, capfd: pytest.CaptureFixture[str]) -> None:
    from app.models.llama.checkpoint import open_checkpoint
    from app.models.llama.lora.peft_folder import read_peft

    adapter = read_peft(whole, open_checkpoint(files[0]).config)
    assert len(adapter.matrices) == 2 * 7 and all(np.abs(change.b).max() > 0 for change in adapter.matrices.values())
    assert (whole / "training.svg").read_text().startswith("<svg") and (whole / "training.png").read_bytes().startswith(b"\x89PNG")
    state = training_state.newest(whole)
    assert state is not None and state.step == 8 and state.history[-1]["loss"] < state.history[0]["loss"]
    assert not list(whole.rglob("*.part"))


@pytest.mark.timeout(900)  # three processes, each of which captures its passes
def test_killed_at_random_moments_it_resumes_to_the_same_adapter(files: tuple[Path, Path], whole: Path, tmp_path: Path) -> None:
    out, seed, kills = tmp_path / "adapter", random.Random(7), 0
    while True:
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        process = subprocess.Popen(
            [sys.executable, "-m", "townhall", *arguments(files, out, "--resume", "--json")],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd=ROOT,
            env=environment,
        )
        assert process.stdout is not None
        if kills < 2:
            process.stdout.readline()  # it is under way
            time.sleep(seed.random() / 50)  # any moment will do, in the middle of a write as well
            process.kill()
            kills += 1
        code = process.wait()
        state = training_state.newest(out)  # raises where no checkpoint is whole
        assert state is not None and state.step >= min(kills, 1)
        if code == 0:
            break
        assert code == -signal.SIGKILL
    assert weights(out) == weights(whole)


@pytest.mark.timeout(900)
def test_ctrl_c_saves(files: tuple[Path, Path], whole: Path, tmp_path: Path) -> None:
    out = tmp_path / "adapter"
    process = subprocess.Popen(
        [sys.executable, "-m", "townhall", *arguments(files, out, "--json")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        text=True,
    )
    assert process.stdout is not None
    process.stdout.readline()
    process.send_signal(signal.SIGINT)
    said = process.communicate()[1]
    if process.returncode == 0:  # it was done before the signal came
        assert weights(out) == weights(whole)
        return
    assert process.returncode == 130 and "--resume goes on" in said
    assert main(arguments(files, out, "--resume")) == 0
    assert weights(out) == weights(whole)


@pytest.mark.parametrize(
    "more, fault",
    [
        (["--data", "none.jsonl"], "none.jsonl cannot be read"),
        (["--max-length", "32"], "do not fit --max-length 32"),
        (["--personality", "nemo"], "no persona is called 'nemo'"),
        (["--lr", "0"], "--lr 0.0 is out of range"),
        (["--targets", "head"], "--targets 'head'"),
        (["--max-length", "4000"], "--max-length 4000 exceeds the 256 tokens that tiny.gguf"),
    ],
)
def test_faults_are_one_sentence(files, tmp_path, capfd, more: list[str], fault: str) -> None:
    assert main(arguments(files, tmp_path / "out", *more)) == 2
    said = capfd.readouterr().err.strip().splitlines()
    assert fault in said[-1] and not (tmp_path / "out").exists()


def test_checkpoints_are_not_overwritten(files, whole: Path, capfd) -> None:
    assert main(arguments(files, whole)) == 2
    assert "pass --resume" in capfd.readouterr().err


def test_data_is_checked_and_converted(files, tmp_path: Path, capfd) -> None:
    model, data = files
    assert main(["data", "convert", str(data), str(tmp_path / "out.jsonl"), "--test", str(tmp_path / "test.jsonl"), "--share", "0.2"]) == 0
    assert len((tmp_path / "out.jsonl").read_text().splitlines()) == 4 and len((tmp_path / "test.jsonl").read_text().splitlines()) == 1
    capfd.readouterr()
    assert main(["data", "check", str(tmp_path / "out.jsonl"), "--test", str(data), "--model", str(model), "--json"]) == 1
    found = json.loads(capfd.readouterr().out)
    assert found["conversations"] == 4 and len(found["leaks"]) == 4 and found["tokens"]["learnt"] > 4
    assert main(["data", "check", str(data), "--model", str(model)]) == 0 and "nothing is amiss" in capfd.readouterr().out


def test_logs_become_data(tmp_path: Path, capfd) -> None:
    from tests.townhall.logbook.test_log_syntax import HEAD, TALK, spell

    (tmp_path / "one.md").write_bytes(spell(*TALK, head=HEAD | {"id": "one"}))
    assert main(["data", "from-logs", str(tmp_path / "out.jsonl"), "--log-to", str(tmp_path), "--persona", "stacy"]) == 0
    (line,) = (tmp_path / "out.jsonl").read_text().splitlines()
    assert [message["content"] for message in json.loads(line)["messages"]] == [text for _, text in TALK]
    assert "out.jsonl: 1 conversation from 1 log, 2 replies" in capfd.readouterr().err
    assert main(["data", "from-logs", str(tmp_path / "none.jsonl"), "--log-to", str(tmp_path), "--persona", "gary"]) == 2
    assert "no conversation in" in capfd.readouterr().err and not (tmp_path / "none.jsonl").exists()


def test_logs_become_data_by_rating(tmp_path: Path, capfd) -> None:
    from tests.townhall.logbook.test_log_syntax import HEAD, TALK, spell
    from townhall.logbook.log_syntax import mark

    rated = mark("rate", {"turn": 2, "rating": "good"}) + mark("rate", {"turn": 4, "rating": "bad"})
    (tmp_path / "one.md").write_bytes(spell(*TALK, head=HEAD | {"id": "one"}) + rated.encode())
    command = ["data", "from-logs", str(tmp_path / "out.jsonl"), "--log-to", str(tmp_path)]
    for flags, turns in ([], 4), (["--rating", "not-bad"], 2), (["--rating", "good"], 2):
        assert main([*command, *flags]) == 0
        (line,) = (tmp_path / "out.jsonl").read_text().splitlines()
        assert [message["content"] for message in json.loads(line)["messages"]] == [text for _, text in TALK[:turns]]
    capfd.readouterr()
    assert main([*command, "--rating", "good", "--min-replies", "2"]) == 2 and "no conversation in" in capfd.readouterr().err
    assert main([*command, "--rating", "fine"]) == 2 and "'fine' is not one of 'good', 'not-bad'" in capfd.readouterr().err
    swiped = mark("branch", {"turn": 3}) + spell(("reply", "Close."))[len(spell()) :].decode() + mark("rate", {"turn": 5, "rating": "good"})
    with (tmp_path / "one.md").open("a") as file:
        file.write(swiped)
    assert main([*command, "--preferences", "--rating", "good"]) == 0
    (line,) = (tmp_path / "out.jsonl").read_text().splitlines()
    assert [json.loads(line)[key][-1]["content"] for key in ("prompt", "chosen", "rejected")] == [TALK[2][1], "Close.", TALK[3][1]]
    assert "out.jsonl: 1 pair from 1 log, 2 replies" in capfd.readouterr().err
    assert main([*command, "--preferences", "--min-replies", "3"]) == 2 and "no conversation in" in capfd.readouterr().err


def test_what_is_shown() -> None:
    assert (clock(61), clock(7322)) == ("1:01", "2:02:02")
    assert sparkline([4.0, 2.0, 1.0]) == "█▃▁" and sparkline([1.0]) == "▁"


HISTORY = [{"step": n, "loss": 4 / n, "rate": 0.01 * (11 - n)} for n in range(1, 11)]


def test_the_plot_is_drawn_as_svg(tmp_path: Path) -> None:
    training_plot.svg([*HISTORY[:-1], HISTORY[-1] | {"held_out": 1.5}], tmp_path / "plot")
    drawn = (tmp_path / "plot").read_text()
    assert drawn.count("<polyline") == 3 and "held out" in drawn


def test_the_plot_as_png_shows_a_loss_that_falls(tmp_path: Path) -> None:
    from matplotlib import image

    training_plot.png([*HISTORY[:-1], HISTORY[-1] | {"held_out": 3.9}], tmp_path / "plot")
    with (tmp_path / "plot").open("rb") as file:
        pixels = image.imread(file, format="png")[..., :3]

    def column(colour: str) -> np.ndarray:
        """The lowest of a line's pixels, by column of the picture, from the left: the legend stands above."""
        value = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
        found = np.abs(pixels - value).max(-1) < 0.02
        return np.array([np.nonzero(found[:, x])[0].max() for x in np.nonzero(found.any(0))[0]])

    loss, held_out = column(training_plot.LOSS), column(training_plot.HELD_OUT)
    assert pixels.shape == (450, 1080, 3) and len(loss) > 600
    assert loss[5] < loss[300] < loss[595] and loss[595] > held_out.mean()  # rows count from the top
    training_plot.png(HISTORY[:1], tmp_path / "one")  # a training of one step
    assert (tmp_path / "one").stat().st_size > 5000


def test_without_matplotlib_there_is_an_svg_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training_plot, "find_spec", lambda name: None)
    assert [file.name for file in training_plot.write(HISTORY, tmp_path)] == ["training.svg"] == [p.name for p in tmp_path.iterdir()]
