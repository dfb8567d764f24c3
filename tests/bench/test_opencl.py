"""bench.opencl compares like with like: which instructions a driver compiles for, and pair by pair."""

import json
import os
import subprocess
import sys

import pytest

from bench import opencl


def rates(decode: list[float], prefill: list[float]) -> dict[str, object]:
    return {"decode": 0.0, "prefill": 0.0, "samples": {"decode": decode, "prefill": prefill}}


def test_ratios_are_medians_of_pairs_and_not_ratios_of_medians():
    compared = {
        "OpenCL": rates([10, 1, 10], [4, 4, 4]),
        "CPU": rates([20, 2, 5], [4, 2, 8]),
        "twins on OpenCL": rates([5, 1, 2], [1, 1, 1]),
    }
    assert opencl.ratios_of(compared) == {
        "decode / CPU": 0.5,  # medians 10 and 5 would make 2
        "prefill / CPU": 1,
        "decode / twins": 2,
        "prefill / twins": 4,
    }


def test_a_driver_is_judged_by_our_path_for_its_instructions():
    subjects = opencl.judged({"OpenCL": "AVX2", "CPU": "AVX-512 VNNI"})
    assert subjects == {"CPU, AVX2": {"CPU": "", "GPU": "0", "DEV": "CPU:CLANG:x86_64,haswell"}}
    goals = opencl.goals_of(["OpenCL", "CPU", *subjects, "twins on OpenCL"])
    assert goals == {"decode / CPU, AVX2": 0.5, "prefill / CPU, AVX2": 1.0, "decode / twins": 2.5}


@pytest.mark.parametrize("theirs", ["AVX2", "other"])  # the same as ours, or a card's
def test_otherwise_by_our_path_as_it_is(theirs):
    assert opencl.judged({"OpenCL": theirs, "CPU": "AVX2"}) == {"CPU": opencl.SUBJECTS["CPU"]}
    assert opencl.goals_of(["OpenCL", "CPU"]) == opencl.GOALS


@pytest.mark.slow
def test_the_driver_is_asked_and_our_compiler_too(opencl):
    environment = {**os.environ, "DEV": "CL"}
    done = subprocess.run([sys.executable, "-m", "bench.opencl", "--sets"], env=environment, capture_output=True, text=True, check=True)
    sets = json.loads(done.stdout.splitlines()[-1])
    assert set(sets) == {"OpenCL", "CPU"} and sets["CPU"] in ("AVX-512 VNNI", "AVX-VNNI", "AVX2", "other")
    assert sets["OpenCL"] in ("AVX-512 VNNI", "AVX-VNNI", "AVX2", "other")
