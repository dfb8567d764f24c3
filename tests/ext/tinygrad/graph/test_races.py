import platform
import shutil
import subprocess
from pathlib import Path

import pytest

from ext.tinygrad.graph.native import FUTEX_NUMBERS, SOURCE

pytestmark = pytest.mark.slow

HARNESS = Path(__file__).with_name("races.c")


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    """races.c built with ThreadSanitizer by the system's compiler; the one that tinygrad uses may come without a C library."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None or platform.system() != "Linux":
        pytest.skip("needs Linux and a C compiler with its library")
    target = tmp_path_factory.mktemp("races") / "races"
    futex = FUTEX_NUMBERS["arm64" if platform.machine() == "aarch64" else platform.machine()]
    build = subprocess.run(
        [compiler, "-g", "-O1", "-w", "-fsanitize=thread", f'-DREPLAY_C="{SOURCE}"', f"-DFUTEX_NUMBER={futex}",
         str(HARNESS), "-o", str(target), "-lpthread"], capture_output=True, text=True,
    )  # fmt: skip
    if build.returncode:
        pytest.skip(f"no ThreadSanitizer here: {build.stderr.splitlines()[-1]}")
    if "FATAL: ThreadSanitizer" in subprocess.run([str(target)], capture_output=True, text=True).stderr:
        pytest.skip("ThreadSanitizer does not run on this kernel")
    return target


@pytest.mark.parametrize(
    "threads, graphs, spin_ns, adaptive", [(2, 60, 1000, 0), (4, 60, 1000, 0), (2, 40, 500_000, 0), (3, 40, 20_000, 1), (5, 40, 0, 1)]
)
def test_threads_share_nothing_but_what_is_meant_to_be_shared(program, threads, graphs, spin_ns, adaptive):
    result = subprocess.run(
        [str(program), str(threads), str(graphs), str(spin_ns), str(adaptive)], capture_output=True, text=True, timeout=120
    )
    assert (result.stdout, result.stderr[:2000], result.returncode) == ("right\n", "", 0)
