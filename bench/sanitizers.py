"""The kernels' tests under AddressSanitizer: python -m bench.sanitizers [pytest's options]

Every kernel is compiled with a check before each of its loads and stores, and every buffer that it is given comes from the sanitizer, with
poisoned memory on both sides. First a kernel that reads one element too far shows that errors are found at all. Linux on x86_64.
"""

import os
import platform
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from ext.tinygrad.toolchain import find_compiler

ROOT = Path(__file__).resolve().parents[1]
TESTS = [f"tests/ext/tinygrad/kernels/cpu/test_{name}.py" for name in ("matmul", "attend", "quantised_cache", "experts")]
TARGET = "x86_64-unknown-linux-gnu"  # the sanitizer does not know tinygrad's, which has no operating system
# tinygrad loads objects itself: it knows calls to functions, and neither constructors nor tables of addresses
FLAGS = "-fvisibility=hidden -fsanitize=address -fsanitize-address-use-after-return=never" + "".join(
    f" -mllvm -asan-{option}" for option in ("globals=0", "instrumentation-with-call-threshold=0", "constructor-kind=none")
)
ERROR = "AddressSanitizer: heap-buffer-overflow"


def environment(folder: Path) -> dict[str, str]:
    """For a Python in which the CPU device's kernels are watched. SystemExit where there is no sanitizer."""
    compiler = find_compiler()
    if compiler is None or platform.machine() != "x86_64" or sys.platform != "linux":
        sys.exit("this needs clang, on Linux and x86_64")
    asked = subprocess.run([compiler, f"--target={TARGET}", "-print-file-name=libclang_rt.asan.so"], capture_output=True, text=True)
    runtime = asked.stdout.strip()
    if not Path(runtime).is_file():
        sys.exit(f"{compiler} comes without its AddressSanitizer library ({runtime or 'it names none'})")
    wrapper = folder / "clang-watching"
    wrapper.write_text(
        "#!/bin/sh\n"
        f'for option do shift; case "$option" in --target=x86_64*) option="--target={TARGET}" ;; esac; set -- "$@" "$option"; done\n'
        f'exec "{compiler}" "$@" {FLAGS}\n'
    )
    wrapper.chmod(0o755)
    return os.environ | {
        "CC": str(wrapper),
        "DEV": "CPU",
        "LD_PRELOAD": f"{runtime}:libstdc++.so.6",  # it is C++ without declaring it
        "M_PATH": runtime,  # where tinygrad looks for functions that kernels call
        "ASAN_OPTIONS": "detect_leaks=0:handle_segv=0:allocator_may_return_null=1",
        "CACHEDB": str(folder / "kernels.db"),
        "WEIGHT_CACHE": "0",
        "GRAPH_CACHE": "0",
        "PYTHONPATH": str(ROOT),
    }


def proves_itself(variables: dict[str, str]) -> bool:
    """Whether a kernel that reads one element beyond its input is stopped, and one that does not is let through."""
    results = [
        subprocess.run([sys.executable, "-m", "bench.watched", str(n)], cwd=ROOT, env=variables, capture_output=True, text=True)
        for n in (16, 17)
    ]
    if results[0].returncode == 0 and ERROR in results[1].stderr:
        return True
    print(results[0].stderr[-2000:], results[1].stderr[-2000:], file=sys.stderr)
    return False


def main() -> int:
    folder = Path(tempfile.mkdtemp(prefix="townhall-sanitizers-"))
    try:
        variables = environment(folder)
        if not proves_itself(variables):
            sys.exit("the sanitizer does not find a read beyond a buffer here: what it says of the kernels would mean nothing")
        print("a kernel that reads one element too far is found; now the tests", flush=True)
        # the sanitizer writes to the descriptor of stderr; the twins are tinygrad's own kernels, and thousands of them
        command = [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-p",
            "bench.watched",
            "-p",
            "no:cacheprovider",
            "--capture=sys",
            "-k",
            "not twin",
            *TESTS,
        ]
        return subprocess.run([*command, *sys.argv[1:]], cwd=ROOT, env=variables).returncode
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
