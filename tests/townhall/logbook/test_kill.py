"""kill -9 at any moment: no log is lost or unreadable, and only the reply in flight may be missing."""

import os
import random
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from townhall.logbook.log_index import Index
from townhall.logbook.log_reader import read_log

pytestmark = pytest.mark.slow

TURNS = 30
SCRIPT = "pause: 0.0004\nreplies:\n" + "".join(f"- Reply {n} of many, in a few words – käse, and a heading.\\n\n" for n in range(TURNS))


def chat_state(folder: Path, script: Path, kill: random.Random) -> tuple[int, int]:
    """One session, killed at a random moment; (answers that were seen to end, answers that are in the log, whole)."""
    command = [
        sys.executable,
        "-m",
        "townhall",
        "chat",
        "--model",
        f"fake:script={script}",
        "--format",
        "chat_log",
        "--log-to",
        str(folder),
    ]
    program = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    program.stdin.write(b"".join(f"Question {n}?\n".encode() for n in range(TURNS)))
    program.stdin.flush()
    shown = os.read(program.stdout.fileno(), 1)  # it runs: from here on every moment is as good as any
    time.sleep(kill.random() * 0.5)
    program.send_signal(signal.SIGKILL)
    shown += program.communicate()[0]
    seen = shown.count(b"\n")
    (path,) = folder.glob("*.md")
    log = read_log(path)
    assert log.head["persona"] == "Stacy" and not log.damages, log.damages
    whole = [turn for turn in log.turns if turn.facts]
    assert log.turns[: len(whole)] == whole and len(log.turns) - len(whole) <= 1  # only the last may be torn
    for n, turn in enumerate(whole):
        assert turn.text == (f"Reply {n // 2} of many, in a few words – käse, and a heading.\\n" if n % 2 else f"Question {n // 2}?")
    return seen, len(whole) // 2


@pytest.mark.parametrize("kills", [8, pytest.param(100, marks=pytest.mark.exhaustive)])
def test_no_kill_loses_more_than_the_reply_in_flight(tmp_path, kills):
    script = tmp_path / "script.yaml"
    script.write_text(SCRIPT)
    folders = [tmp_path / "logs" / str(n) for n in range(kills)]
    for folder in folders:
        folder.mkdir(parents=True)
    with ThreadPoolExecutor(os.cpu_count() or 2) as pool:
        counts = list(pool.map(chat_state, folders, [script] * kills, [random.Random(n) for n in range(kills)]))
    assert all(seen <= kept <= seen + 1 for seen, kept in counts)
    kept = [kept for _, kept in counts]
    assert kills < 100 or (len(set(kept)) > 8 and min(kept) < 10), kept  # the moments were really spread over the session
    whole = tmp_path / "all"
    whole.mkdir()
    for folder in folders:  # the index follows while logs come in, and is the same when it is made anew
        (path,) = folder.glob("*.md")
        path.rename(whole / path.name)
        if len(list(whole.iterdir())) % 40 == 0:
            Index(whole).close()
    followed = Index(whole).rows()
    assert followed == Index(whole, anew=True).rows() and sum(isinstance(row[1], int) for row in followed) >= kills
