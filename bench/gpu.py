"""A card, on each way to it, beside llama.cpp: python -m bench.gpu [--llama-bench PATH] [--json]

The operations' tests on the card; then, for LLaMA shapes in several weight formats (random weights, written to a temporary folder),
decode at 32 and 512 and a prefill of 512, 1, 8 and 32 conversations of 1.1B side by side, decode of 1.1B at 512 and 8,000 over contexts
in float16 and in 8-bit blocks (--kv q8_0), the share of the bandwidth that the canary measures there, the time a load takes, and where a
decode step and a prefill pass spend theirs. Cases run in the order given until
--seconds are over; what was left out is said.

Needs no network and no compiler beside what is there; 16 GB of disk for 7B in F16. Exit code 2 where no card can be used.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from bench import machine
from bench.shapes import SHAPES, write
from bench.worker import ROOT, BenchError, Worker

CAPACITY, CONTEXTS, TOKENS, PROMPT = 1024, (32, 512), 64, 512
CONVERSATIONS, SHARED_SHAPE = (1, 8, 32), "1.1b"  # side by side, and of which shape: 32 caches of 7B are for large cards alone
LONG, WINDOW, KVS = 8000, 8192, ("f16", "q8_0")  # a long context, and what contexts are kept as: of that shape, in the first format
TARGETS = {"decode 32": 1.2, "decode 512": 1.2, "prefill": 0.7}  # times llama.cpp's rate
UNITS = {"gb_per_second": "GB/s", "gmac_per_second": "GMAC/s"}
OPERATIONS = "tests/ext/tinygrad/kernels/gpu/test_operations.py"


def cards() -> list[dict[str, Any]]:
    """Every way to a GPU that works here, as `townhall devices` lists them."""
    from ext.tinygrad.backend import Backend
    from ext.tinygrad.device_selection import list_devices

    return [found.to_json() for _, found in list_devices() if isinstance(found, Backend) and found.is_gpu]


def operations(device: str) -> dict[str, Any]:
    """The operations' tests on a card."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", OPERATIONS]
    started = time.perf_counter()
    done = subprocess.run(command, cwd=ROOT, env={**os.environ, "TEST_GPU": device}, capture_output=True, text=True)
    lines = done.stdout.strip().splitlines()
    failed = [line for line in lines if line.startswith(("FAILED", "ERROR"))]
    return {"passed": done.returncode == 0, "said": lines[-1:], "failed": failed, "seconds": time.perf_counter() - started}


def measure(model: Path, device: str, samples: int, conversations: tuple[int, ...] = ()) -> dict[str, Any]:
    """Medians of tokens a second on one way to the card; of so many `conversations` side by side, in all."""
    worker = Worker("townhall", model, CAPACITY, {"DEV": device, "CPU": "", "GPU": "", "WEIGHT_CACHE": "0"})
    try:
        for _ in range(2):  # what is compiled and captured at a first use is no part of it; large passes are taken once speed is known
            worker("prefill", PROMPT)
        for context in CONTEXTS:
            worker("decode", context, 4)
        rates = {f"decode {context}": [TOKENS / worker("decode", context, TOKENS) for _ in range(samples)] for context in CONTEXTS}
        rates["prefill"] = [PROMPT / worker("prefill", PROMPT) for _ in range(samples)]
        for n in conversations:
            worker("together", n, CONTEXTS[0], 4)
            rates[f"together {n}"] = [n * TOKENS / worker("together", n, CONTEXTS[0], TOKENS) for _ in range(samples)]
        bandwidth = worker("weight_bandwidth")
        about = worker.about
        return {
            "backend": about["backend"],
            "kernels": about["kernels"],
            "load_seconds": about["load_seconds"],
            "bandwidth": bandwidth,
            "share": statistics.median(rates["decode 32"]) * about["decode_weight_bytes"] / bandwidth if bandwidth else None,
            "profile": {"decode": worker("breakdown", 1, PROMPT), "prefill": worker("breakdown", 512, 0)},
            "samples": rates,
            **{name: statistics.median(values) for name, values in rates.items()},
        }
    finally:
        worker.close()


def contexts(model: Path, device: str, samples: int) -> dict[str, dict[str, float]]:
    """Medians of tokens a second decoded at 512 and at LONG, by what contexts are kept as; samples of all in turn."""
    environment = {"DEV": device, "CPU": "", "GPU": "", "WEIGHT_CACHE": "0"}
    workers = dict[str, Worker]()
    try:
        for kv in KVS:
            workers[kv] = Worker("townhall", model, WINDOW, environment, kv=kv)
        rates = dict[str, dict[str, float]]()
        for context in (PROMPT, LONG):
            found = dict[str, list[float]]()
            for n in range(samples + 1):
                for kv, worker in workers.items():
                    seconds = worker("decode", context, TOKENS)
                    if n:  # what is read, compiled and captured at a first use is no part of it
                        found.setdefault(kv, []).append(TOKENS / seconds)
            rates[str(context)] = {kv: statistics.median(values) for kv, values in found.items()}
        return rates
    finally:
        for worker in workers.values():
            worker.close()


def llama_bench(program: Path, model: Path, samples: int) -> dict[str, float]:
    """Medians of llama.cpp's own tokens a second, all layers on the card."""
    rates: dict[str, float] = {}
    runs = {"prefill": ["-p", str(PROMPT), "-n", "0"]}
    runs |= {f"decode {context}": ["-p", "0", "-n", str(TOKENS), "-d", str(context)] for context in CONTEXTS}
    for name, arguments in runs.items():
        command = [str(program), "-m", str(model), "-ngl", "99", "-r", str(samples), "-o", "json", *arguments]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            raise BenchError(f"{program.name} ended with code {done.returncode}: {done.stderr.strip().splitlines()[-1:]}")
        rates[name] = statistics.median(json.loads(done.stdout)[-1]["samples_ts"])
    return rates


def case(shape: str, type: str, devices: list[str], options: argparse.Namespace) -> dict[str, Any]:
    """One model on every way to the card."""
    compared = shape == SHARED_SHAPE and type == options.types.split(",")[0]
    result: dict[str, Any] = {"shape": shape, "type": type, "ways": {}}
    with tempfile.TemporaryDirectory(prefix="townhall-bench-") as folder:
        path = Path(folder) / f"llama-{shape}-{type}.gguf"
        write(path, SHAPES[shape], type, WINDOW)
        for device in devices:
            try:
                result["ways"][device] = measure(path, device, options.samples, CONVERSATIONS if shape == SHARED_SHAPE else ())
            except BenchError as error:
                result["ways"][device] = {"error": str(error)}
                continue
            try:
                result["ways"][device]["contexts"] = contexts(path, device, options.samples) if compared else {}
            except BenchError as error:
                result["ways"][device]["contexts"] = {"refused": str(error)}
        if options.llama_bench:
            try:
                result["llama.cpp"] = llama_bench(options.llama_bench, path, options.samples)
            except (BenchError, OSError, ValueError, KeyError, IndexError) as error:
                result["llama.cpp"] = {"error": str(error)}
    return result


def table(result: dict[str, Any]) -> str:
    """For people."""
    lines = [card["description"] for card in result["cards"]]
    for device, info in result["operations"].items():
        lines += [f"operations on {device}: {' '.join(info['said'])}", *info["failed"]]
    lines.append(f"{'':14}{'':12}{'decode 32':>11}{'decode 512':>11}{'prefill 512':>12}{'load':>8}{'of bandwidth':>14}")
    for info in result["cases"]:
        peer = info.get("llama.cpp", {})
        for device, way in info["ways"].items():
            name = f"{info['shape']} {info['type']}"
            if "error" in way:
                lines.append(f"{name:14}{device:12}{way['error']}")
                continue
            share = f"{way['share']:.0%}" if way["share"] else "?"
            lines.append(
                f"{name:14}{device:12}{way['decode 32']:11.1f}{way['decode 512']:11.1f}{way['prefill']:12.1f}{way['load_seconds']:7.1f}s"
                f"{share:>9} of {way['bandwidth'] / 1e9:.0f} GB/s, {way['kernels']} kernels"
            )
            if rates := [f"{n}: {way[key]:.0f}, {way[key] / n:.0f} each" for n in CONVERSATIONS if (key := f"together {n}") in way]:
                lines.append(f"{'':14}{'together':12}{'; '.join(rates)}")
            for context, kept in way.get("contexts", {}).items():
                said = kept if isinstance(kept, str) else ", ".join(f"{kv} {rate:.1f}" for kv, rate in kept.items())
                lines.append(f"{'':14}{'--kv':12}decode {context}: {said}")
            if "prefill" in peer:
                ratios = {key: way[key] / peer[key] for key in TARGETS}
                marks = [f"{ratios[key]:.2f}{'' if ratios[key] >= TARGETS[key] else '!'}" for key in TARGETS]
                lines.append(f"{'':14}{'x llama.cpp':12}{marks[0]:>11}{marks[1]:>11}{marks[2]:>12}")
        if "error" in peer:
            lines.append(f"{'':14}llama.cpp   {peer['error']}")
    if result["left_out"]:
        lines.append(f"left out, the time was over: {', '.join(result['left_out'])}")
    for info in result["cases"]:
        for device, way in info["ways"].items():
            for kind, kernels in way.get("profile", {}).items():
                lines.append(f"\n{info['shape']} {info['type']} on {device}, {kind}:")
                lines += [f"  {row}" for row in summed(kernels)]
    return "\n".join(lines)


def summed(kernels: list[dict[str, Any]]) -> list[str]:
    """Kernels of a pass, the most expensive first."""
    total = sum(kernel["microseconds"] for kernel in kernels) or 1.0
    lines = []
    for kernel in sorted(kernels, key=lambda kernel: -kernel["microseconds"]):
        rate = next((f"{kernel[unit]:10.1f} {name}" for unit, name in UNITS.items() if unit in kernel), "")
        time_, share = kernel["microseconds"], kernel["microseconds"] / total
        lines.append(f"{kernel['kernel'][:24]:24}{kernel['count']:4} x{time_:10.1f} µs{share:7.1%}{rate}")
    return lines


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", default="7b,1.1b")
    parser.add_argument("--types", default="Q4_0,Q8_0,Q4_K,F16")
    parser.add_argument("--devices", default="", help="tinygrad's names (CUDA,CL); default: every way to a GPU")
    parser.add_argument("--llama-bench", type=Path, metavar="PATH", help="llama.cpp's llama-bench, to measure beside")
    parser.add_argument("--samples", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=280, help="after which no further case begins")
    parser.add_argument("--operations", action=argparse.BooleanOptionalAction, default=True, help="run the operations' tests first")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    unknown = [name for name in options.shapes.split(",") if name not in SHAPES]
    if unknown:
        parser.error(f"--shapes {unknown[0]} is none of {', '.join(SHAPES)}")
    if options.llama_bench and not os.access(options.llama_bench, os.X_OK):
        parser.error(f"--llama-bench {options.llama_bench} is no program; build llama.cpp's llama-bench, or leave the flag out")

    started, found = time.perf_counter(), cards()
    devices = [name for name in options.devices.split(",") if name] or [card["device"] for card in found]
    if not devices:
        print("no GPU can be used here: `townhall devices` says why; bench.opencl measures OpenCL on the processor", file=sys.stderr)
        return 2
    result: dict[str, Any] = {
        "machine": machine.describe(),
        "cards": found,
        "operations": {device: operations(device) for device in devices} if options.operations else {},
        "cases": [],
        "left_out": [],
    }
    for type in options.types.split(","):
        for shape in options.shapes.split(","):
            if time.perf_counter() - started > options.seconds:
                result["left_out"].append(f"{shape} {type}")
                continue
            print(f"{time.perf_counter() - started:4.0f} s: {shape} {type}", file=sys.stderr)
            result["cases"].append(case(shape, type, devices, options))
    result["seconds"] = time.perf_counter() - started
    print(json.dumps(result, ensure_ascii=False) if options.json else table(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
