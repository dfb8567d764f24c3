"""What cards that mean harm cost: seconds, megabytes, and what is said of each.

python -m bench.hostile_cards
"""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.townhall.characters.hostile import KINDS

SECONDS, MEGABYTES = 2.0, 300


def main() -> int:
    over = 0
    with tempfile.TemporaryDirectory() as folder:
        env = os.environ | {"XDG_DATA_HOME": folder}
        for kind in KINDS:
            path = Path(folder, "card.bin")
            path.unlink(missing_ok=True)
            command = [sys.executable, "-m", "tests.townhall.characters.hostile", str(path)]
            subprocess.run([*command, kind], check=True)  # in a process of its own, whose memory does not count
            begun = time.perf_counter()
            child = subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace")
            assert child.stdout is not None
            said = child.stdout.read()
            _, _, usage = os.wait4(child.pid, 0)
            seconds, megabytes = time.perf_counter() - begun, usage.ru_maxrss >> 10
            cpu = usage.ru_utime + usage.ru_stime  # is what counts: the rest is what else the machine does
            over += cpu > SECONDS or megabytes > MEGABYTES
            line = " ".join(said.replace(str(path), "FILE").split())
            print(f"{kind:<32}{seconds:>6.2f} s{cpu:>6.2f} s CPU{megabytes:>5} MB  {ascii(line[:120])}", flush=True)
            for written in Path(folder, "townhall", "characters").glob("*/*"):
                written.unlink()
    print(f"{len(KINDS)} kinds, {over} of them over {SECONDS:g} s of CPU or {MEGABYTES} MB")
    return int(bool(over))


if __name__ == "__main__":
    sys.exit(main())
