"""Stored personas: found again, never trusted blindly, and never in anybody's way."""

import os
import stat
import subprocess
import sys

import pytest

from tests.townhall.fake import FakeCache, FakeLlama
from tests.townhall.test_conversation import chat_state
from townhall.prefix_cache import PrefixCache

pytestmark = pytest.mark.slow


@pytest.fixture
def heads(tmp_path):
    said = []
    cache = PrefixCache(tmp_path / "heads", say=said.append)
    cache.said = said
    return cache


def start(heads, **settings):
    """A program that starts: (tokens that the model had to read, how the conversation was prepared)."""
    llama = FakeLlama(**settings)
    prepared = chat_state(llama, heads=heads).prepare()
    return llama.computed, prepared


def test_the_second_start_restores_what_the_first_one_read(heads):
    read, first = start(heads)
    assert first.restore_seconds is None and read == first.prompt_tokens
    read, second = start(heads)
    # the last token is read again: that sets decoding up
    assert second.restore_seconds is not None and read == 1 and second.cached_tokens == first.prompt_tokens - 1
    assert not heads.said and stat.S_IMODE(heads.folder.stat().st_mode) == 0o700


def test_another_window_or_another_model_has_a_file_of_its_own(heads):
    start(heads)
    assert start(heads, max_context=2048)[1].restore_seconds is None
    cache = FakeCache(1024, identity={"model": "another"})
    assert not heads.restore(cache, [0])
    assert len(list(heads.folder.iterdir())) == 2


@pytest.mark.parametrize("damage", [b"", b"[1, 2", b"[1, 2, 3]"])
def test_a_damaged_or_foreign_file_is_said_in_one_line_and_made_anew(heads, damage):
    start(heads)
    (path,) = heads.folder.iterdir()
    path.write_bytes(damage)
    assert start(heads)[1].restore_seconds is None
    assert len(heads.said) == 1 and "read anew" in heads.said[0] and "\n" not in heads.said[0]
    assert start(heads)[1].restore_seconds is not None and len(heads.said) == 1


def test_a_full_disk_costs_the_snapshot_only(heads, monkeypatch):
    def full(self, path):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(FakeCache, "snapshot", full)
    llama = FakeLlama()
    conversation = chat_state(llama, heads=heads)
    conversation.prepare()
    assert "".join(conversation.reply("Hi")) == "Fine, thanks."
    assert len(heads.said) == 1 and "No space left on device" in heads.said[0]


def test_a_folder_that_cannot_be_made_is_said_once(tmp_path):
    (tmp_path / "file").write_text("in the way")
    said = []
    conversation = chat_state(FakeLlama(), heads=PrefixCache(tmp_path / "file" / "heads", say=said.append))
    assert conversation.prepare().prompt_tokens and "".join(conversation.reply("Hi"))
    assert len(said) == 1 and "could not be stored" in said[0]


def fill(heads, *ages):
    """Files of 100 bytes, last used so many seconds ago."""
    heads.folder.mkdir(parents=True)
    for n, age in enumerate(ages):
        path = heads.folder / f"{n}.safetensors"
        path.write_bytes(b"x" * 100)
        os.utime(path, times=(1e9 - age, 1e9 - age))


def test_the_least_recently_used_go_first(heads):
    fill(heads, 10, 30, 20)
    heads.limit = 300
    cache = FakeCache(8, tokens=[1, 2, 3])
    heads.keep(cache)
    assert sorted(path.stem for path in heads.folder.iterdir() if len(path.stem) == 1) == ["0", "2"]
    os.utime(heads.folder / "0.safetensors", times=(1e8, 1e8))
    assert heads.restore(cache, [1, 2, 3])  # touches its own
    heads.limit = 50
    heads._evict(heads._path(cache, [1, 2, 3]))
    assert list(heads.folder.iterdir()) == [heads._path(cache, [1, 2, 3])]


def test_use_is_what_keeps_a_file(heads):
    cache = FakeCache(8, tokens=[1, 2, 3])
    heads.keep(cache)
    path = heads._path(cache, [1, 2, 3])
    os.utime(path, times=(1e8, 1e8))
    assert heads.restore(cache, [1, 2, 3]) and path.stat().st_mtime > 1e9


def test_a_head_larger_than_the_limit_is_not_kept(heads):
    heads.limit = 2
    heads.keep(FakeCache(8, tokens=[1, 2, 3]))
    assert list(heads.folder.iterdir()) == [] and not heads.said


def test_files_that_vanish_under_an_eviction_do_not_matter(heads, monkeypatch):
    fill(heads, 10, 20)
    heads.limit = 0
    unlink = type(heads.folder).unlink

    def race(path, missing_ok=False):
        unlink(path)
        unlink(path, missing_ok=missing_ok)  # the other process was faster

    monkeypatch.setattr(type(heads.folder), "unlink", race)
    heads._evict(heads.folder / "new.safetensors")
    assert not heads.said and list(heads.folder.iterdir()) == []


def test_a_head_that_another_process_lets_go_while_it_is_read_leaves_nothing(heads, monkeypatch):
    start(heads)
    restore = FakeCache.restore

    def race(cache, path):
        restore(cache, path)
        path.unlink()

    monkeypatch.setattr(FakeCache, "restore", race)
    assert start(heads)[1].restore_seconds is not None
    assert not heads.said and list(heads.folder.iterdir()) == []


def test_what_a_killed_writer_left_is_cleared_away_later(heads):
    fill(heads)
    old, new = heads.folder / "a.part", heads.folder / "b.part"
    old.touch()
    new.touch()
    os.utime(old, times=(1e9, 1e9))
    heads._evict(heads.folder / "new.safetensors")
    assert list(heads.folder.iterdir()) == [new]


WRITER = """
import sys
from pathlib import Path
from tests.townhall.fake import FakeLlama
from tests.townhall.test_conversation import chat_state
from townhall.prefix_cache import PrefixCache
said = []
for n in range(60):
    heads = PrefixCache(Path(sys.argv[1]), limit=4000, say=said.append)
    chat_state(FakeLlama(max_context=1000 + n % 5), heads=heads).prepare()
assert not said, said
"""


def test_processes_may_share_the_folder(tmp_path):
    writers = [subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path / "heads")], stderr=subprocess.PIPE) for _ in range(3)]
    for writer in writers:
        _, err = writer.communicate(timeout=60)
        assert writer.returncode == 0, err.decode()
    assert all(path.suffix == ".safetensors" for path in (tmp_path / "heads").iterdir())
