"""Formats in and out: what is read is what was said; what cannot be read is named by file and line."""

import json
from pathlib import Path

import pytest

from townhall.data.errors import DataError
from townhall.data.training_chats import WRITERS, Said, TrainingChat, of_turns, read_chats, write_chats

FIRST = 'Far.\n\n"Very" far – käse 🧀.'
TWO = (Said("user", "How far is the moon?"), Said("assistant", FIRST), Said("user", "And the sun?"), Said("assistant", "Farther."))
PART, SYSTEM = {"type": "text", "text": "Hi"}, {"from": "system", "value": "S"}


def written(path: Path, *records: object) -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


@pytest.mark.parametrize("kind", ["chat", "sharegpt", "alpaca"])
def test_a_conversation_survives_a_round_trip(tmp_path: Path, kind: str) -> None:
    chat = TrainingChat(TWO, system="Be brief.")
    write_chats([chat], tmp_path / "out.jsonl", kind)
    (back,) = read_chats(tmp_path / "out.jsonl")
    assert (back.turns, back.system) == (chat.turns, chat.system)


def test_completions_are_one_record_a_reply(tmp_path: Path) -> None:
    assert write_chats([TrainingChat(TWO)], tmp_path / "out.jsonl", "completion") == 2
    assert [chat.turns for chat in read_chats(tmp_path / "out.jsonl")] == [TWO[:2], TWO[2:]]


def test_preferences_keep_what_was_rejected(tmp_path: Path) -> None:
    chats = [TrainingChat(TWO, rejected="Near."), TrainingChat(TWO)]
    assert write_chats(chats, tmp_path / "out.jsonl", "preference") == 1
    (back,) = read_chats(tmp_path / "out.jsonl")
    assert (back.turns, back.rejected) == (TWO, "Near.")


@pytest.mark.parametrize(
    "record, turns, system",
    [
        ({"instruction": "Add.", "input": "2 and 3", "output": "5"}, ["Add.\n\n2 and 3", "5"], ""),
        ({"instruction": "Hi", "input": "", "output": "Hello"}, ["Hi", "Hello"], ""),
        ({"prompt": "Hi", "completion": "Hello"}, ["Hi", "Hello"], ""),
        ({"prompt": "Hi", "chosen": "Hello", "rejected": "Go"}, ["Hi", "Hello"], ""),
        ({"messages": [{"role": "user", "content": [PART]}, {"role": "assistant", "content": "Yo"}]}, ["Hi", "Yo"], ""),
        ({"conversations": [SYSTEM, {"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Yo"}]}, ["Hi", "Yo"], "S"),
    ],
)  # fmt: skip
def test_what_others_write_is_read(tmp_path: Path, record: dict, turns: list[str], system: str) -> None:
    (chat,) = read_chats(written(tmp_path / "in.jsonl", record))
    assert [turn.text for turn in chat.turns] == turns and chat.system == system
    assert [turn.role for turn in chat.turns] == ["user", "assistant"]


def test_a_json_list_and_a_text_are_read(tmp_path: Path) -> None:
    path = tmp_path / "in.json"
    path.write_text("\ufeff" + json.dumps([{"text": "Once."}, {"prompt": "a", "completion": "b"}], indent=1))
    first, second = read_chats(path)
    assert first.text == "Once." and second.replies == ("b",)


def test_turns_are_brought_into_the_order_that_can_be_learnt() -> None:
    said = [("assistant", "Welcome!"), ("user", "a"), ("user", "b"), ("assistant", "1"), ("assistant", "2"), ("user", "c")]
    chat = of_turns(Said(role, text) for role, text in said)  # type: ignore[arg-type]
    assert chat is not None and [turn.text for turn in chat.turns] == ["a\n\nb", "1\n\n2"]
    assert of_turns([Said("user", "a")]) is None


@pytest.mark.parametrize(
    "line, fault",
    [
        ("{", "is no JSON"),
        ("[" * 100_000, "is no JSON"),
        ("7", "no record"),
        ('{"question": "a"}', "of which no format is made"),
        ('{"messages": [{"role": "tool", "content": "x"}]}', "only system, user and assistant"),
        ('{"messages": [{"role": "user", "content": "x"}]}', "holds no reply"),
        ('{"messages": 5}', "broken chat record"),
        ('{"prompt": "a", "completion": 5}', "broken completion record"),
        ('{"conversations": [{"from": "human"}]}', "broken sharegpt record"),
    ],
)
def test_what_cannot_be_read_is_named_by_its_line(tmp_path: Path, line: str, fault: str) -> None:
    path = tmp_path / "in.jsonl"
    path.write_text('{"prompt": "a", "completion": "b"}\n\n' + line + "\n")
    with pytest.raises(DataError, match=fault) as raised:
        read_chats(path)
    assert "line 3" in str(raised.value) and "\n" not in str(raised.value)


def test_files_that_are_not_there_or_no_text_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read"):
        read_chats(tmp_path / "none.jsonl")
    (tmp_path / "binary.jsonl").write_bytes(b'{"text": "\xff"}\n')
    with pytest.raises(DataError, match="UTF-8"):
        read_chats(tmp_path / "binary.jsonl")


@pytest.mark.parametrize("kind", ["sharegpt", "alpaca", "completion"])
def test_a_text_fits_no_format_of_conversations(tmp_path: Path, kind: str) -> None:
    with pytest.raises(DataError, match="plain text"):
        write_chats([TrainingChat(text="x", source="here")], tmp_path / "out.jsonl", kind)
    assert not list(tmp_path.iterdir()) and kind in WRITERS
