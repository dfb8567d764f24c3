"""Cards that mean harm end in one sentence, within bounded memory; `python -m bench.hostile_cards` prints seconds and megabytes."""

import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from tests.townhall.characters.hostile import KINDS, TAKEN, write

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[3]
MEMORY = 300 << 20
# the peak of this program alone: getrusage would count what the process that started it held
CODE = """
import re, sys
from tests.townhall.characters.hostile import main
code = main(sys.argv[1])
with open("/proc/self/status") as status, open(sys.argv[2], "w") as peak:
    print(re.search(r"VmHWM:\\s+(\\d+) kB", status.read())[1], file=peak)
sys.exit(code)
"""


@pytest.mark.parametrize("kind", KINDS)
def test_a_card_that_means_harm_ends_in_one_sentence(kind, tmp_path):
    expected = write(kind, tmp_path / "card.bin")
    peak = tmp_path / "peak"
    command = [sys.executable, "-c", CODE, str(tmp_path / "card.bin"), str(peak)]
    limit = lambda: resource.setrlimit(resource.RLIMIT_AS, (4 * MEMORY, 4 * MEMORY))  # noqa: E731
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=os.environ | {"COLUMNS": "200"}, preexec_fn=limit)
    if expected is TAKEN:
        assert done.returncode == 0 and "is here: townhall chat --personality hostile" in done.stdout, done.stderr[-2000:]
    else:
        assert (done.returncode, done.stdout) == (2, ""), done.stderr[-2000:]
        assert expected in done.stderr and len(done.stderr.splitlines()) == 1 and done.stderr.startswith("townhall: ")
    assert not {"\x1b", "\x07", "\x00"} & set(done.stdout + done.stderr)
    assert int(peak.read_text()) * 1024 <= MEMORY
    assert not (ROOT / "owned").exists()


def test_there_are_more_than_thirty_kinds():
    assert len(KINDS) >= 30
