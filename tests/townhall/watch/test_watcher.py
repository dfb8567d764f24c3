"""A file that answers: whoever saves it however and whenever, what they wrote stands, and the reply is to that."""

import os
import shutil
import threading
import time

import pytest

from tests.townhall.watch.room import SAVES, TALE, Room, by_rename, by_truncating, eventually, in_place, slow_echo, watched
from townhall.fake.fake_model import ScriptedReply
from townhall.watch import document, watched_file, watcher
from townhall.watch.lock import Lock, WatchError

pytestmark = pytest.mark.slow


@pytest.fixture
def path(tmp_path):
    return tmp_path / "talk.chat"


def reads(path, text):
    """Does exactly this come to stand in the file?"""
    data = text if isinstance(text, bytes) else text.encode()

    def there():
        try:
            return path.read_bytes()
        except FileNotFoundError:
            return b""

    eventually(lambda: there() == data, lambda: f"there is {there()[-400:]!r}, not {data[-400:]!r}")


@pytest.mark.parametrize("save", SAVES)
def test_a_saved_turn_is_answered_and_the_next_cue_put_below(path, save):
    path.write_text("User: One")
    with watched(path) as room:
        reads(path, "User: One\n\nStacy: One\n\nUser: ")
        save(path, path.read_bytes() + b"Two\n")
        reads(path, "User: One\n\nStacy: One\n\nUser: Two\n\nStacy: Two\n\nUser: ")
    assert len(room.replies) == 2 and not room.faults


@pytest.mark.parametrize("save", SAVES)
def test_a_change_made_while_a_reply_streams_stands_and_is_answered_anew(path, save):
    path.write_text("User: One\n")
    with watched(path, slow_echo) as room:
        eventually(lambda: b"Stacy: One and" in path.read_bytes())
        save(path, b"User: Two, and a longer one\n")
        answer = f"Two, and a longer one {TALE}the end."
        reads(path, f"User: Two, and a longer one\n\nStacy: {answer}\n\nUser: ")
    assert room.begun == 2 and [reply.text for reply in room.replies] == [answer] and not room.faults


@pytest.mark.parametrize("save", SAVES)
def test_a_question_changed_above_its_half_written_answer_gets_an_answer_of_its_own(path, save):
    """The editor had loaded what there was of the reply: those words are ours, and go."""
    path.write_text("User: One\n")
    with watched(path, slow_echo):
        begun = eventually(lambda: path.read_bytes() if b"Stacy: One and so on" in path.read_bytes() else None)
        save(path, begun.replace(b"User: One", b"User: Two") + b"\n")
        reads(path, f"User: Two\n\nStacy: Two {TALE}the end.\n\nUser: ")


def test_a_half_written_answer_that_somebody_rewrites_is_carried_on(path):
    said = []

    def script(prompt):
        said.append(prompt)
        return slow_echo(prompt)

    path.write_text("User: One\n")
    with watched(path, script):
        eventually(lambda: b"Stacy: One and so on" in path.read_bytes())
        path.write_text("User: One\n\nStacy: My own words\n")
        reads(path, f"User: One\n\nStacy: My own wordsOne {TALE}the end.\n\nUser: ")
    assert len(said) == 2 and said[1].endswith("My own words")


def test_a_save_without_a_change_costs_the_reply_nothing(path):
    path.write_text("User: One\n")
    with watched(path, slow_echo) as room:
        for save in SAVES:
            begun = eventually(lambda: path.read_bytes() if b"Stacy: One and" in path.read_bytes() else None)
            save(path, begun)
        eventually(lambda: b"the end" in path.read_bytes())
        reads(path, f"User: One\n\nStacy: One {TALE}the end.\n\nUser: ")
    assert not room.faults


def test_a_turn_taken_back_while_it_is_answered_stays_unanswered(path):
    path.write_text("User: One\n")
    with watched(path, slow_echo) as room:
        eventually(lambda: b"Stacy: One and" in path.read_bytes())
        path.write_text("User: ")
        eventually(lambda: room.watcher._attended[path]._interrupted is None)
        path.write_text("User: Two")
        reads(path, f"User: Two\n\nStacy: Two {TALE}the end.\n\nUser: ")
    assert len(room.replies) == 1


def test_a_hundred_saves_in_quick_succession_lose_nothing(path):
    path.write_text("User: ")
    with watched(path, slow_echo) as room:
        eventually(lambda: not room.watcher._attended[path]._new if path in room.watcher._attended else False)
        for n in range(100):
            SAVES[n % len(SAVES)](path, f"User: Number {n}\n".encode())
        reads(path, f"User: Number 99\n\nStacy: Number 99 {TALE}the end.\n\nUser: ")
    assert len(room.replies) == 1 and not room.faults


def test_an_appended_turn_reads_only_itself_and_an_edit_above_what_follows_it(path):
    path.write_text("User: One\n")
    with watched(path) as room:
        for said in ("Two", "Three"):
            eventually(lambda: path.read_text().endswith("User: "))
            path.write_text(path.read_text() + said)
            eventually(lambda said=said: f"Stacy: {said}" in path.read_text())
        eventually(lambda: len(room.replies) == 3)
        first, second, third = room.replies
        assert third.cached_tokens >= second.prompt_tokens > second.cached_tokens >= first.prompt_tokens
        path.write_text(path.read_text().replace("Stacy: Two", "Stacy: Two, too") + "Four")
        eventually(lambda: len(room.replies) == 4)
    # the head, the first exchange and the second question are as they were
    assert second.prompt_tokens <= room.replies[3].cached_tokens < third.prompt_tokens
    assert "User: Two\n\nStacy: Two, too\n\nUser: Three\n\nStacy: Three\n\nUser: Four\n\nStacy: Four" in path.read_text()


@pytest.mark.parametrize(
    "before, after",
    [
        (b"User: One\r\n", b"User: One\r\n\r\nStacy: One\r\n\r\nUser: "),
        (b"\xef\xbb\xbfUser: One\n", b"\xef\xbb\xbfUser: One\n\nStacy: One\n\nUser: "),
        (b"\xef\xbb\xbf\r\nUser: One", b"\xef\xbb\xbf\r\nUser: One\r\n\r\nStacy: One\r\n\r\nUser: "),
        (b"User: One", b"User: One\n\nStacy: One\n\nUser: "),
        (b"User: One\n\n\n\n", b"User: One\n\n\n\nStacy: One\n\nUser: "),
        (b"A note\n\nUser: One", b"A note\n\nUser: One\n\nStacy: One\n\nUser: "),
        (b"---\nseed: 7\n---\nUser: One", b"---\nseed: 7\n---\nUser: One\n\nStacy: One\n\nUser: "),
        (b"---\npersonality: gary\n---\nUser: One", b"---\npersonality: gary\n---\nUser: One\n\nGary: One\n\nUser: "),
        ("User: Grüße, 你好 🙂".encode(), "User: Grüße, 你好 🙂\n\nStacy: Grüße, 你好 🙂\n\nUser: ".encode()),
    ],
)
def test_a_file_keeps_its_own_ways(path, before, after):
    path.write_bytes(before)
    with watched(path):
        reads(path, after)


@pytest.mark.parametrize("newline", [b"\n", b"\r\n"])
def test_a_change_above_is_told_from_the_same_words_in_files_of_any_line_end(path, newline):
    path.write_bytes(b"User: One\n".replace(b"\n", newline))
    with watched(path, slow_echo):
        begun = eventually(lambda: path.read_bytes() if b"Stacy: One and so on" in path.read_bytes() else None)
        path.write_bytes(begun.replace(b"User: One", b"User: Two"))
        reads(path, f"User: Two\n\nStacy: Two {TALE}the end.\n\nUser: ".encode().replace(b"\n", newline))


@pytest.mark.parametrize(
    "content, fault",
    [
        (b"User: One\0\n", "line 1: a zero byte; this is no text"),
        (b"User: One\n\xe4\xf6\n", "line 2: byte 0xe4 is not UTF-8; save it as UTF-8 text"),
        ("User: One".encode("utf-16"), "is UTF-16 text; save it as UTF-8"),
        (b"User: One " + b"x" * 10_000_000, "is larger than 4 MB; go on in a new file"),
        (b"User: " + b"many words " * 30_000, "far more than a window of 1024 tokens holds"),
        (b"User: " + b"word " * 1000, "435 more than fit: the window holds 1024"),
        (b"---\ntemperature: -1\n---\nUser: One", "line 2: temperature must be a number from 0, not -1"),
        (b"---\nlog: true\n---\nUser: One", "line 2: unknown key 'log'"),
        (b"---\npersonality: stayc\n---\nUser: One", "did you mean stacy?"),
        (b"---\nseed: 1\nUser: One", "the settings on top have no end"),
        (b"---\nseed: 1\n#" + 70_000 * b"x" + b"\n---\nUser: One", "are larger than 64 KB; they are a few lines of text"),
        (b"---\na: &a [x, x]\nseed: [*a, *a]\n---\nUser: One", "line 2: unknown key 'a'"),
    ],
)
def test_what_cannot_be_answered_is_reported_and_left_as_it_is(path, content, fault):
    path.write_text("User: ")
    with watched(path) as room:
        path.write_bytes(content)
        eventually(lambda: room.faults)
        path.touch()  # and not told again
        time.sleep(0.1)
        assert path.read_bytes() == content
        path.write_text("User: Two")
        reads(path, "User: Two\n\nStacy: Two\n\nUser: ")
    (info,) = room.faults
    assert fault in info and str(path) in info and "\n" not in info and len(room.replies) == 1


def test_a_read_only_file_is_left_alone(path):
    path.write_text("User: One")
    path.chmod(0o444)
    with watched(path) as room:
        eventually(lambda: room.faults)
        assert room.faults[0] == f"{path} is read-only; make it writable (chmod u+w), and save it again"
        path.chmod(0o644)
        path.write_text("User: Two")
        reads(path, "User: Two\n\nStacy: Two\n\nUser: ")
    assert len(room.faults) == 1


@pytest.mark.parametrize("renamed", [False, True])
def test_a_file_that_vanishes_during_a_reply_is_answered_when_it_is_back(path, renamed):
    path.write_text("User: One\n")
    elsewhere = path.with_name("other.name")
    with watched(path, slow_echo) as room:
        eventually(lambda: b"Stacy: One and" in path.read_bytes())
        path.rename(elsewhere) if renamed else path.unlink()
        eventually(lambda: room.faults)
        assert not path.exists() and room.faults == [f"{path} is gone; it is watched for"]
        if renamed:  # wherever it is now, a person can go on in it
            assert elsewhere.read_text().startswith("User: One\n\nStacy: One and") and elsewhere.read_text().endswith("\n\nUser: ")
        path.write_text("User: Two")
        reads(path, f"User: Two\n\nStacy: Two {TALE}the end.\n\nUser: ")
    assert f"{path} is there again" in room.lines and len(room.faults) == 1


def test_an_empty_file_gets_its_first_cue(path, monkeypatch):
    path.touch()
    monkeypatch.setattr(watched_file, "GRACE", 0.3)
    with watched(path) as room:
        reads(path, "User: ")
        path.write_text("")
        reads(path, "User: ")
        path.write_text("User: One")
        reads(path, "User: One\n\nStacy: One\n\nUser: ")
    assert not room.faults


def test_a_cue_that_is_missing_at_the_start_is_put_there(path):
    """After a crash in the middle of a reply, say."""
    path.write_text("User: One\n\nStacy: Half a")
    with watched(path):
        reads(path, "User: One\n\nStacy: Half a\n\nUser: ")


def test_who_forgets_to_say_who_speaks_is_told_once(path):
    path.write_text("User: One\n\nStacy: Two\n\nUser: ")
    with watched(path) as room:
        eventually(lambda: path in room.watcher._attended and not room.watcher._attended[path]._new)
        for text in ("User: One\n\nStacy: Two\n\nThree", "User: One\n\nStacy: Two\n\nThree?", "Four"):
            path.write_text(text)
            eventually(lambda: room.lines)
            time.sleep(0.05)
    assert room.lines == [f"{path}: its last turn is Stacy's; begin yours with a line 'User: ...'"]


def test_a_symlink_is_answered_where_it_points(tmp_path):
    (tmp_path / "far").mkdir()
    real, link = tmp_path / "far" / "real.chat", tmp_path / "link.chat"
    real.write_text("User: One")
    link.symlink_to(real)
    with watched(link):
        reads(real, "User: One\n\nStacy: One\n\nUser: ")
        by_rename(real, real.read_bytes() + b"Two")
        reads(link, "User: One\n\nStacy: One\n\nUser: Two\n\nStacy: Two\n\nUser: ")
    assert link.is_symlink() and not real.is_symlink()


def test_a_folder_is_watched_for_its_chats_and_texts_and_nothing_else(tmp_path):
    (tmp_path / "sub").mkdir()
    for name in ("notes.md", ".hidden.chat", "a.chat~", "sub/deep.chat"):
        (tmp_path / name).write_text("User: One")
    (tmp_path / "plain.txt").write_text("A shopping list")
    (tmp_path / "empty.txt").touch()
    (tmp_path / "empty.chat").touch()
    (tmp_path / "old.chat").write_text("User: Old")
    with watched(tmp_path) as room:
        reads(tmp_path / "old.chat", "User: Old\n\nStacy: Old\n\nUser: ")
        reads(tmp_path / "empty.chat", "User: ")
        for name in ("new.chat", "new.txt"):
            (tmp_path / name).write_text(f"User: {name[:3]}")
            reads(tmp_path / name, "User: new\n\nStacy: new\n\nUser: ")
        (tmp_path / "old.chat").rename(tmp_path / "moved.chat")
        (tmp_path / "moved.chat").write_text((tmp_path / "moved.chat").read_text() + "More")
        reads(tmp_path / "moved.chat", "User: Old\n\nStacy: Old\n\nUser: More\n\nStacy: More\n\nUser: ")
        eventually(lambda: room.faults == [f"{tmp_path / 'old.chat'} is gone"])
    assert (tmp_path / "plain.txt").read_text() == "A shopping list" and not (tmp_path / "empty.txt").read_text()
    assert all((tmp_path / name).read_text() == "User: One" for name in ("notes.md", ".hidden.chat", "a.chat~", "sub/deep.chat"))


def test_a_folder_that_vanishes_is_watched_for(tmp_path):
    folder = tmp_path / "talks"
    folder.mkdir()
    (folder / "a.chat").write_text("User: One")
    with watched(folder) as room:
        reads(folder / "a.chat", "User: One\n\nStacy: One\n\nUser: ")
        shutil.rmtree(folder)
        eventually(lambda: len(room.faults) == 2)
        folder.mkdir()
        (folder / "b.chat").write_text("User: Two")
        reads(folder / "b.chat", "User: Two\n\nStacy: Two\n\nUser: ")
    assert room.faults == [f"{folder} cannot be read: No such file or directory; it is watched for", f"{folder / 'a.chat'} is gone"]


def test_conversations_of_a_folder_keep_their_caches_as_long_as_there_are_slots(tmp_path):
    files = [tmp_path / f"{name}.chat" for name in "abc"]
    with watched(tmp_path, slots=2) as room:

        def say(path, words):
            path.write_text((path.read_text() if path.exists() else "User: ") + words)
            count = len(room.replies)
            eventually(lambda: len(room.replies) > count)
            eventually(lambda: path.read_text().endswith("User: "))
            return room.replies[-1]

        first = [say(path, "Hello") for path in files[:2]]
        assert say(files[0], "And").cached_tokens >= first[0].prompt_tokens
        say(files[2], "Hello")  # takes the slot of b, which was quiet longest
        assert len(room.pool) == 2
        head = first[0].cached_tokens
        assert say(files[1], "And").cached_tokens == head and "Stacy: Hello\n\nUser: And\n\nStacy: And" in files[1].read_text()


def test_a_second_watcher_is_told(path, tmp_path):
    path.write_text("User: ")
    (tmp_path / "link.chat").symlink_to(path)
    with watched(path):
        for same in (path, tmp_path / "link.chat"):
            with pytest.raises(WatchError, match="already watched by another townhall; end that one first"):
                Room(same)
        by_rename(path, b"User: One")  # a lock on the file itself would have gone with it
        with pytest.raises(WatchError):
            Room(path)
    Room(path).watcher.close()


def test_what_somebody_else_watches_is_left_to_them_by_the_watcher_of_the_folder(path, tmp_path):
    path.write_text("User: One")
    theirs = Lock(path)
    with watched(tmp_path) as room:
        eventually(lambda: room.faults)
        assert room.faults == [f"{path} is already watched by another townhall; end that one first"] and path.read_text() == "User: One"
        theirs.release()
        path.write_text("User: Two")
        reads(path, "User: Two\n\nStacy: Two\n\nUser: ")


def test_nobody_ever_sees_half_a_character_or_two_versions_mixed(path):
    """Somebody reads as fast as possible while long words of many bytes are written."""
    whole = "User: One\n\nStacy: " + "größe 你好🙂 " * 200 + "end\n\nUser: "
    seen, done = [], threading.Event()

    def look():
        while not done.is_set():
            seen.append(path.read_bytes())

    path.write_text("User: One")
    reader = threading.Thread(target=look)
    reader.start()
    with watched(path, lambda prompt: ScriptedReply("größe 你好🙂 " * 200 + "end", pause=0.0005), max_context=4096, count=2000):
        reads(path, whole)
    done.set()
    reader.join()
    versions = sorted(set(seen), key=len)
    assert len(versions) > 5 and all(whole.startswith(version.decode()) for version in versions)


def test_somebody_who_saves_between_our_look_and_our_write_keeps_their_version(path, monkeypatch):
    """The narrowest gap there is: the file was compared and is about to be appended to."""
    write, todo = os.write, [by_truncating, in_place, by_rename]

    def late(fd, data):
        if todo and b"Stacy" in data:
            todo.pop()(path, f"User: Version {len(todo)}, which is longer than the one before it\n".encode())
        return write(fd, data)

    path.write_text("User: One\n")
    monkeypatch.setattr(document.os, "write", late)
    with watched(path, slow_echo):
        version = "Version 0, which is longer than the one before it"
        reads(path, f"User: {version}\n\nStacy: {version} {TALE}the end.\n\nUser: ")
    assert not todo


def test_a_file_that_vanishes_before_a_reply_is_answered_when_it_is_back(path, monkeypatch):
    """Read, then moved away and back: its content is no news any more, and still unanswered."""
    refuse, away = document.Document.refuse_unwritable, [True]

    def once(self):
        if away and self.path.read_text() == "User: One":
            away.pop()
            path.rename(path.with_name("away"))
            threading.Timer(0.2, lambda: path.with_name("away").rename(path)).start()
        return refuse(self)

    path.write_text("User: ")
    monkeypatch.setattr(document.Document, "refuse_unwritable", once)
    with watched(path) as room:
        path.write_text("User: One")
        reads(path, "User: One\n\nStacy: One\n\nUser: ")
    assert not away and not room.faults


def test_a_full_disk_leaves_whole_characters_and_is_told(path, monkeypatch):
    write = os.write

    def full(fd, data):
        if path.stat().st_size > 100:
            raise OSError(28, "No space left on device")
        return write(fd, data[:7])

    path.write_text("User: größe\n")
    monkeypatch.setattr(document.os, "write", full)
    with watched(path, slow_echo) as room:
        eventually(lambda: room.faults)
        assert room.faults == [f"{path} cannot be written: No space left on device"]
        assert "größe\n\nStacy: größe and so".startswith(path.read_text()[6:31])
        monkeypatch.undo()
        path.write_text("User: Two")
        reads(path, f"User: Two\n\nStacy: Two {TALE}the end.\n\nUser: ")


def test_the_end_of_the_watch_leaves_the_file_in_order(path):
    path.write_text("User: One\n")
    with watched(path, slow_echo) as room:
        eventually(lambda: b"Stacy: One and" in path.read_bytes())
        room.leave()
    text = path.read_text()
    assert text.startswith("User: One\n\nStacy: One and") and text.endswith("\n\nUser: ") and "the end" not in text


@pytest.mark.parametrize("trim, tail", [(True, "Ho."), (False, " Ho. \nUser: And you?\n")])
def test_the_raw_continuation_may_speak_for_the_user(path, trim, tail):
    path.write_text("User: Hi")
    answer = " Ho. \nUser: And you?\n"
    with watched(path, lambda prompt: ScriptedReply(answer), trim=trim, format="chat_log") as room:
        reads(path, f"User: Hi\n\nStacy: {tail}{'' if trim else chr(10)}{chr(10) * 2 if trim else ''}User: ")
    assert len(room.replies) == 1


def test_free_form_text_goes_on_where_its_last_word_ends(tmp_path):
    path = tmp_path / "story.txt"
    path.write_text("Once upon a time there was\n")
    with watched(path, lambda prompt: ScriptedReply(" a king.\n\nHe was old. \n\n"), raw=True) as room:
        eventually(lambda: room.lines)
        assert room.lines == [f"{path}: save it with a blank line at its end to have it carried on"]
        path.write_text("Once upon a time there was\n\n")
        reads(path, "Once upon a time there was a king.\n\nHe was old.\n")
        path.write_text(path.read_text() + "And then\n\n\n")
        reads(path, "Once upon a time there was a king.\n\nHe was old.\nAnd then a king.\n\nHe was old.\n")
    assert room.replies[1].cached_tokens > 6 and not room.replies[0].cached_tokens


def test_a_marker_may_say_that_the_text_goes_on(tmp_path):
    path = tmp_path / "story.txt"
    path.write_text("Once upon a time\n\n")
    with watched(path, lambda prompt: ScriptedReply(" there was."), raw=True, delim="[...]"):
        path.write_text("Once upon a time\n\n[...]\n")
        reads(path, "Once upon a time there was.\n")


def test_of_a_folder_watched_in_free_form_only_what_is_saved_is_carried_on(tmp_path):
    """Many a text ends in a blank line."""
    old, new = tmp_path / "old.txt", tmp_path / "new.txt"
    for path in (old, new):
        path.write_text("It was\n\n")
    with watched(tmp_path, lambda prompt: ScriptedReply(" so."), raw=True) as room:
        eventually(lambda: len(room.watcher._attended) == 2 and not any(one._new for one in room.watcher._attended.values()))
        new.write_text("It was, again\n\n")
        reads(new, "It was, again so.\n")
    assert old.read_text() == "It was\n\n"


def test_what_looks_like_a_chat_and_is_none_harms_nobody(tmp_path):
    (tmp_path / "folder.chat").mkdir()
    (tmp_path / "loop.chat").symlink_to(tmp_path / "loop.chat")
    os.mkfifo(tmp_path / "pipe.chat")
    (tmp_path / "a.chat").write_text("User: One")
    with watched(tmp_path) as room:
        reads(tmp_path / "a.chat", "User: One\n\nStacy: One\n\nUser: ")
        eventually(lambda: len(room.faults) == 2)
    assert sorted(line.split("chat ")[1] for line in room.faults) == [
        "cannot be read: Too many levels of symbolic links",
        "is not a file; name a text file or a folder of them",
    ]


def test_where_the_system_tells_of_nothing_files_are_looked_at_all_the_same(path, monkeypatch):
    def none(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("watchfiles._rust_notify.RustNotify", none)
    monkeypatch.setattr(watcher, "PULSE", 50)
    path.write_text("User: One")
    with watched(path) as room:
        reads(path, "User: One\n\nStacy: One\n\nUser: ")
        by_rename(path, path.read_bytes() + b"Two")
        reads(path, "User: One\n\nStacy: One\n\nUser: Two\n\nStacy: Two\n\nUser: ")
    (info,) = room.lines
    assert info.startswith("the system does not tell what happens in ") and info.endswith("its files are looked at once a second")


def test_files_may_be_polled(path, monkeypatch):
    monkeypatch.setenv("WATCHFILES_FORCE_POLLING", "1")
    path.write_text("User: ")
    with watched(path):
        path.write_text("User: One")
        reads(path, "User: One\n\nStacy: One\n\nUser: ")
