"""The measurement as a picture: tokens per second of both runtimes, whiskers from the least to the most."""

import re
from pathlib import Path
from typing import Any

# what decides the speed of integer products, best first
VECTORS = (("avx512_vnni", ", AVX-512 VNNI"), ("avx_vnni", ", AVX-VNNI"), ("avx2", ", AVX2"), ("asimddp", ", NEON with dot products"))
OURS_COLOR, PEER_COLOR, INK = "#2f6f9f", "#c9c9c9", "#333333"


def available() -> bool:
    """Is matplotlib installed?"""
    import importlib.util

    return importlib.util.find_spec("matplotlib") is not None


def plot(results: dict[str, Any], path: Path) -> None:
    """Write a PNG: prefill beside decode, each on its own scale."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    cases = results["cases"]
    parts = [(kind, [case for case in cases if case["kind"] == kind]) for kind in ("decode", "prefill")]
    parts = [(kind, of_kind) for kind, of_kind in parts if of_kind]
    heights = [len(of_kind) for _, of_kind in parts]
    figure, axes = pyplot.subplots(len(parts), 1, figsize=(8.4, 1.6 + 0.46 * sum(heights)), height_ratios=heights, squeeze=False)
    for (kind, of_kind), axis in zip(parts, axes[:, 0]):
        _draw(axis, kind, of_kind)
    handles, labels = axes[0, 0].get_legend_handles_labels()
    machine, model = results["machine"], results["model"]
    height = figure.get_figheight()
    figure.text(0.02, 1 - 0.12 / height, "Tokens per second", fontsize=13, color=INK, weight="bold", va="top")
    vectors = next((name for feature, name in VECTORS if feature in machine.get("features", [])), "")
    cpu = re.sub(r"\(R\)|\(TM\)", "", machine["cpu"])
    where = f"{model['file']} on {cpu}, {machine['cores']} cores{vectors}, {results['date'][:10]}"
    subtitle = f"{where}\nmedians of alternating runs; whiskers: least and most"
    figure.text(0.02, 1 - 0.4 / height, subtitle, fontsize=8, color="#666666", va="top", linespacing=1.5)
    if len(labels) > 1:
        figure.legend(handles, labels, loc="upper right", ncols=2, frameon=False, fontsize=9, bbox_to_anchor=(0.99, 1 - 0.05 / height))
    figure.tight_layout(rect=(0, 0, 1, 1 - 0.78 / height))
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)
    pyplot.close(figure)


def _draw(axis: Any, kind: str, cases: list[dict[str, Any]]) -> None:
    subjects = list(cases[0]["tokens_per_second"])
    height = 0.8 / len(subjects)
    most = max(rate["max"] for case in cases for rate in case["tokens_per_second"].values())
    for i, (name, color) in enumerate(zip(subjects, (OURS_COLOR, PEER_COLOR))):
        rates = [case["tokens_per_second"][name] for case in cases]
        at = [row + (i - (len(subjects) - 1) / 2) * height for row in range(len(cases))]
        medians = [rate["median"] for rate in rates]
        spread = [[r["median"] - r["min"] for r in rates], [r["max"] - r["median"] for r in rates]]
        whiskers = {"ecolor": "#777777", "elinewidth": 0.8, "capsize": 2}
        label = "Townhall" if name == "townhall" else name
        axis.barh(at, medians, height * 0.92, label=label, color=color, xerr=spread, error_kw=whiskers)
        for y, case, rate in zip(at, cases, rates):
            axis.text(rate["max"] + most * 0.012, y, f"{rate['median']:.0f}", va="center", fontsize=8, color=INK)
            if i == 0 and "ratio" in case:
                # within the bar, for that is the news
                ratio = f"{case['ratio']['median']:.1f} ×"
                axis.text(most * 0.008, y, ratio, va="center", fontsize=8, color="white", weight="bold")
    axis.set_yticks(range(len(cases)), [_label(case) for case in cases], fontsize=8)
    axis.invert_yaxis()
    axis.set_xlim(0, most * 1.08)
    axis.margins(y=0.02)
    axis.set_title(kind, loc="left", fontsize=10, color=INK)
    axis.tick_params(axis="x", labelsize=8, colors="#666666")
    axis.tick_params(axis="y", length=0)
    axis.spines[["top", "right", "left"]].set_visible(False)


def _label(case: dict[str, Any]) -> str:
    what = f"{case['tokens']} tokens" if case["kind"] == "prefill" else f"context {case['context']}"
    threads = f"{case['threads']} thread{'s' if case['threads'] > 1 else ''}"
    return f"{what}, {threads}{', a core busy' if case['busy'] else ''}"
