"""A measurement as a table for people, and as a file for later."""

import json
import re
from pathlib import Path
from typing import Any


def table(results: dict[str, Any]) -> str:
    """Markdown: tokens per second, bandwidth, starts, memory, kernels."""
    machine, model = results["machine"], results["model"]
    lines = [
        f"{model['file']} ({model['bytes'] / 1e6:.0f} MB) on {machine['cpu']}, {machine['cores']} cores, {results['date']}",
        *(f"{name}: {describe(about)}" for name, about in results["subjects"].items()),
        *_crowd(machine),
        "",
        "tokens per second, median (least–most)",
        "",
        *_grid(["", *results["subjects"], "ratio"], [_case(case) for case in results["cases"]]),
    ]
    if results.get("bandwidth"):
        rows = [
            [
                f"decode at {b['context']}, {_threads(b['threads'])}",
                f"{b['bytes_per_token'] / 1e6:.1f} MB",
                f"{b['gb_per_second']:.1f} GB/s",
                f"{b['plain_read_gb_per_second']:.1f} GB/s",
                f"{b['share']:.0%}",
            ]
            for b in results["bandwidth"]
        ]
        lines += ["", *_grid(["", "a token moves", "decode", "plain read", "share"], rows)]
    if "start" in results:
        lines += ["", *_starts(results["start"])]
    if results.get("peak_memory"):
        peaks = [f"{name} {nbytes / 1e6:.0f} MB" for name, nbytes in results["peak_memory"].items()]
        lines += ["", f"peak resident memory: {', '.join(peaks)} (file {model['bytes'] / 1e6:.0f} MB)"]
    if seconds := results.get("sampling"):
        shares = [f"{name} {seconds[name] * 1e6:.0f} µs, {seconds[name] / seconds['step']:.1%}" for name in ("greedy", "default")]
        lines += ["", f"choosing a token, beside the step that computes its logits: {'; '.join(shares)}"]
    lines += kernels(results.get("kernels", {}))
    return "\n".join(lines)


def _crowd(machine: dict[str, Any]) -> list[str]:
    """A word of warning where others were at work before we began."""
    load = machine["load"][:1]
    return [f"the load average was {load[0]:.1f} before this began: ratios may stand, figures do not"] if load and load[0] > 0.7 else []


def describe(about: dict[str, Any]) -> str:
    """A subject in a line."""
    return f"{about['runtime']}; {about.get('backend') or about.get('build', '')}"


def kernels(profile: dict[str, Any]) -> list[str]:
    """Where a pass's time goes."""
    lines = []
    for name in ("decode", "prefill of 128"):
        if rows := profile.get(name):
            total = sum(row["microseconds"] for row in rows)
            lines += ["", f"{name} at {profile['context']}, {_threads(profile['threads'])}: {total / 1000:.2f} ms", ""]
            lines += _grid(["kernel", "count", "µs", "share", "rate"], [_kernel(row, total) for row in rows])
    return lines


def _kernel(row: dict[str, Any], total: float) -> list[str]:
    rate = next((f"{row[key]:.1f} {unit}" for key, unit in (("gb_per_second", "GB/s"), ("gmac_per_second", "GMAC/s")) if key in row), "")
    return [row["kernel"], str(row["count"]), f"{row['microseconds']:.0f}", f"{row['microseconds'] / total:.1%}", rate]


def _case(case: dict[str, Any]) -> list[str]:
    cells = [f"{rate['median']:.1f} ({rate['min']:.0f}–{rate['max']:.0f})" for rate in case["tokens_per_second"].values()]
    ratio = case.get("ratio")
    return [case["name"], *cells, f"{ratio['median']:.2f} × ({ratio['min']:.2f}–{ratio['max']:.2f})" if ratio else "–"]


def _starts(start: dict[str, Any]) -> list[str]:
    """Each phase by its end, in seconds since the process was started."""
    named = [(name, start[name]) for name in ("first ever", "townhall", "llama.cpp") if name in start]
    phases = max((marks for _, marks in named), key=len)
    rows = [[name, *(f"{marks[phase]:.2f}" if phase in marks else "" for phase in phases)] for name, marks in named]
    title = f"seconds from process start to the end of each phase, prompt of {start['prompt_tokens']} tokens"
    return [title, "", *_grid(["start", *phases], rows)]


def _grid(head: list[str], rows: list[list[str]]) -> list[str]:
    widths = [max(len(row[i]) if i < len(row) else 0 for row in [head, *rows]) for i in range(len(head))]

    def show(row: list[str]) -> str:
        return (
            "| " + " | ".join(cell.ljust(width) if i == 0 else cell.rjust(width) for i, (cell, width) in enumerate(zip(row, widths))) + " |"
        )

    rule = "|" + "|".join("-" * (width + 2) if i == 0 else "-" * (width + 1) + ":" for i, width in enumerate(widths)) + "|"
    return [show(head), rule, *(show(row) for row in rows)]


def _threads(n: int) -> str:
    return f"{n} thread{'s' if n > 1 else ''}"


def save(results: dict[str, Any], folder: Path) -> Path:
    """Write <date>-<cpu>.json, numbered where that is there already."""
    folder.mkdir(parents=True, exist_ok=True)
    cpu = re.sub(r"[^a-z0-9]+", "-", re.sub(r"\([^)]*\)", "", results["machine"]["cpu"]).lower()).strip("-")
    stem = f"{results['date'][:10]}-{cpu}"
    names = (folder / f"{stem}{suffix}.json" for suffix in ["", *(f"-{i}" for i in range(2, 1000))])
    path = next(path for path in names if not path.exists())
    path.write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n")
    return path
