"""Files that are cut short while a command has them mapped: its last words, and nothing half-written."""

import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from app.models.llama.deltas.xor import CHUNK
from tests.reference.tiny import make_tiny_gguf

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not hasattr(signal, "SIGBUS") or sys.platform == "win32", reason="no such signal")]
ROOT = Path(__file__).parents[4]

DELTA = """
import os, sys
from pathlib import Path
from app.models.llama.deltas import delta_file as delta
command, cut, base, file, out = sys.argv[1:]
seen = 0
def on_bytes(n):
    global seen
    seen += n
    if seen >= 2 << 19:
        os.truncate(cut, 100)
getattr(delta, command)(Path(base), [Path(file)], Path(out), on_bytes)
"""
CONVERT = """
import os, sys
from pathlib import Path
from app.models.llama.checkpoint import open_checkpoint
from app.models.llama.checkpoint.conversion import convert
source, target = map(Path, sys.argv[1:])
checkpoint = open_checkpoint(source)
convert(checkpoint, target, "q8_0", lambda n: os.truncate(source, 8192))
"""


def ended(program: str, *arguments: object) -> str:
    done = subprocess.run([sys.executable, "-c", program, *map(str, arguments)], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 2, done.stderr
    return done.stderr


@pytest.mark.parametrize("command", ["make", "apply"])
@pytest.mark.parametrize("which", ["base", "file"])
def test_a_delta_names_the_file_that_was_cut_short(command: str, which: str, tmp_path: Path) -> None:
    from app.models.llama.deltas import delta_file

    base, plain = tmp_path / "base", tmp_path / "plain"
    for seed, path in enumerate((base, plain)):
        path.write_bytes(np.random.default_rng(seed).bytes(16 * CHUNK))
    file = plain if command == "make" else delta_file.make(base, [plain], tmp_path / "enc")[0]
    cut = base if which == "base" else file
    said = ended(DELTA, command, cut, base, file, tmp_path / "out")
    assert said == f"\ntownhall: {cut} was cut short while it was in use; copy it again, then run the command again\n"
    assert all(path.suffix == ".part" for path in (tmp_path / "out").iterdir())


def test_a_conversion_names_the_file_that_was_cut_short_and_leaves_nothing(tmp_path: Path) -> None:
    source = make_tiny_gguf(tmp_path / "a.gguf", dim=256, hidden_dim=512)
    said = ended(CONVERT, source, tmp_path / "b.gguf")
    assert said == f"\ntownhall: {source} was cut short while it was in use; copy it again, then run the command again\n"
    assert [path.name for path in tmp_path.iterdir()] == ["a.gguf"]
