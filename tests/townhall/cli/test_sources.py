"""`townhall chat` with a lorebook and a library: flags, settings, receipts, logs, and what ends it with one sentence."""

import json
import os
import shutil
from pathlib import Path

import pytest

from tests.townhall.cli.screen import CTRL_D
from tests.townhall.cli.test_keeping import townhall
from tests.townhall.test_persona_sources import folder
from townhall.cli.main import main
from townhall.logbook.log_reader import read_log

__all__ = ["folder"]

ROOT = Path(__file__).parents[3]
pytestmark = pytest.mark.slow


def parts(answer):
    return {part["name"]: part for part in answer["receipt"]["parts"]}


def test_receipts_name_entries_and_passages(folder):
    done = townhall(
        *("--json", "--lorebook", folder / "world.json", "--knowledge", folder / "docs"),
        stdin="Which number has the house called Cedar?\nWhat of the tower?\n/context\n",
    )
    first, second = map(json.loads, done.stdout.splitlines())
    for answer in (first, second):
        assert sum(part["tokens"] for part in answer["receipt"]["parts"]) == answer["prompt_tokens"]
    (passage, *_) = parts(first)["library"]["items"]
    assert passage["file"] == str(folder / "docs" / "house2.txt") and (passage["first_line"], passage["last_line"]) == (1, 1)
    assert f"[1] {folder}/docs/house2.txt, line 1" in done.stderr
    newest = [part for part in second["receipt"]["parts"] if part["name"] == "lorebook" and part["place"] == "newest turn"]
    assert newest[0]["items"][0]["why"] == "key 'tower'"
    assert "Ulm: tower (key 'tower')" in done.stderr and "s kept for sources" in done.stderr and "read again" in done.stderr


def test_a_log_repeats_itself_when_lorebook_and_documents_are_gone(folder, capfd):
    script = folder / "script.yaml"
    script.write_text("replies:\n- The house is near the tower of Ulm.\n- I would not know that at all.\n")
    place = folder / "log.md"
    flags = ("--personality", folder / "guide.yaml", "--context", "summarize", "--max-context", "512", "--count", "40", "--log-to", place)
    lines = "".join(f"My number is {n}. Which number has the house called Elm?\nAnd the bell?\n" for n in range(8))
    assert townhall(*flags, stdin=lines, model=f"fake:script={script}").returncode == 0
    facts = [turn.facts for turn in read_log(place).turns if turn.role == "assistant"]
    assert any(any(text["source"] == "library" for text in one["inserted"]) for one in facts) and any(
        "source_states" in one for one in facts
    )
    assert townhall("--resume", place, stdin="And the tower?\n", model=f"fake:script={script}").returncode == 0
    shutil.rmtree(folder / "docs")
    (folder / "world.json").write_text("{}")
    assert main(["replay", str(place)]) == 0
    assert capfd.readouterr().out.startswith("17 replies")


def test_a_changed_text_in_a_log_is_another_prompt(folder, capfd):
    place = folder / "log.md"
    townhall("--lorebook", folder / "world.json", "--log-to", place, stdin="The tower?\n")
    place.write_text(place.read_text().replace("768", "769"))
    assert main(["replay", str(place)]) == 1
    assert "its prompt is another one" in capfd.readouterr().out


@pytest.mark.parametrize("wrong", ['"inserted": [{"place": "nowhere", "text": "x", "source": "y"}]', '"inserted": 3', '"inserted": [4]'])
def test_a_log_whose_texts_are_not_readable(folder, capfd, wrong):
    place = folder / "log.md"
    townhall("--lorebook", folder / "world.json", "--log-to", place, stdin="Hi\n")
    place.write_text(place.read_text().replace('"tokens": [', f'{wrong}, "tokens": ['))
    assert main(["replay", str(place)]) == 2
    assert "the receipt of this reply lacks what it takes" in capfd.readouterr().err


def test_what_stays_is_remembered_when_a_talk_is_resumed(folder):
    place, flags = folder / "log.md", ("--json", "--lorebook", folder / "world.json")
    townhall(*flags, "--log-to", place, stdin="The tower?\n")
    resumed = [json.loads(line) for line in townhall("--json", "--resume", place, stdin="Well\nWell\n").stdout.splitlines()]
    why = [[item["why"] for part in one["receipt"]["parts"] if part["place"] == "newest turn" for item in part["items"]] for one in resumed]
    assert why == [["stays until there are 4 messages"], []] or why == [["stays until there are 4 messages"], ["key 'tower'"]]


@pytest.mark.parametrize(
    "flags, fault",
    [
        (["--knowledge", "nothing"], "no library is called 'nothing'"),
        (["--knowledge", "./nothing"], "nothing cannot be read"),
        (["--lorebook", "nothing.json"], "lorebook nothing.json cannot be read"),
        (["--lorebook", "broken.json"], "lorebook broken.json"),
        (["--greeting", "7"], "--greeting 7: Stacy has one greeting"),
        (["--greeting", "0"], "--greeting"),
        (["--knowledge", "docs", "--prompt", "Once"], "without a persona to use --knowledge"),
    ],
)
def test_what_cannot_be_used_ends_it_with_one_sentence(folder, flags, fault):
    (folder / "broken.json").write_text('{"entries": [{"keys": 3}]}')
    done = townhall(*flags, "--no-log", stdin="Hi\n", cwd=folder, env=os.environ | {"PYTHONPATH": str(ROOT)})
    assert done.returncode == 2 and not done.stdout and "Traceback" not in done.stderr
    assert fault in done.stderr


def test_another_greeting_of_a_card(chat, folder):
    screen = chat("--personality", str(folder / "ada.json"), "--greeting", "3")
    screen.wait_for("Ada: You again, User?")
    screen.say("Hi", "Ada: Fine, thanks.")
    screen.say("/persona gary", "begins anew")
    screen.prompt()
    screen.type(CTRL_D)
    assert screen.leave() == 0
