"""`townhall inspect`: what a checkpoint holds, before it is loaded."""

import json
from pathlib import Path
from typing import Any

import click


@click.command(help="Say what a checkpoint holds, before it is loaded.", epilog="Example: townhall inspect model.gguf")
@click.argument("path", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="print one JSON object instead of lines")
@click.option("--quick", is_flag=True, help="leave out the SHA-256, which reads every byte")
def inspect(path: Path, as_json: bool, quick: bool) -> None:
    from app.models.llama.checkpoint import inspection, open_checkpoint

    checkpoint = open_checkpoint(path)
    report = inspection.inspect(checkpoint)
    if not quick:
        from tqdm import tqdm

        total = sum(file["bytes"] for file in report["files"])
        with tqdm(desc="SHA-256", total=total, unit="B", unit_scale=True, unit_divisor=1024, leave=False, disable=None) as bar:
            for file, place in zip(report["files"], checkpoint.files, strict=True):
                file["sha256"] = inspection.sha256(place, bar.update)
    click.echo(json.dumps(report, indent=2) if as_json else describe(report))


def describe(r: dict[str, Any]) -> str:
    """The report for a person."""
    v, m = r["vocabulary"], r["memory"]
    heads = f"{r['heads']} heads" + (f" sharing {r['kv_heads']} key/value heads" if r["kv_heads"] != r["heads"] else "")
    notes = [f"sliding window {r['sliding_window']}"] if r["sliding_window"] else []
    notes += ["scaled RoPE"] if r["rope_scaled"] else []
    sizes = f"{r['layers']} layers, dim {r['dim']}, feed-forward {r['hidden_dim']}, {heads} of {r['head_dim']}"
    memory = f"{amount(m['total'])} at {m['context']:,} tokens"
    if r["context_length"] > m["context"]:
        memory += f", {amount(m['total_at_full_context'])} at all {r['context_length']:,}"
    rows = [
        ("path", r["path"]),
        ("format", r["format"]),
        ("name", r["name"] or "-"),
        ("architecture", f"{r['architecture']}: {sizes}"),
        ("parameters", f"{r['parameters']:,}" + (", embedding and output head are one" if r["tied"] else "")),
        (
            "types",
            ", ".join(f"{kind} {amount(e['bytes'])} in {e['tensors']} tensor{'s' * (e['tensors'] != 1)}" for kind, e in r["types"].items()),
        ),
        ("context", f"{r['context_length']:,} tokens" + "".join(f", {note}" for note in notes)),
        ("memory needed", memory),
        ("vocabulary", f"{v['kind']}, {v['tokens']:,} tokens; {v['embedding_rows']:,} embedding rows, {v['output_rows']:,} output rows"),
    ]
    if v["added_tokens"]:
        listed = [f"{n} {token}" for n, token in v["added_tokens"].items()]
        rows.append(("added tokens", ", ".join(listed[:8]) + (f" and {len(listed) - 8} more" if len(listed) > 8 else "")))
    for source, roles in v["sources"].items():
        rows.append((source, ", ".join(f"{role} {n} {token}" for role, ids in roles.items() for n, token in ids.items())))
    rows += [("stops at", ", ".join(f"{n} {token}" for n, token in v["stop"].items()) or "-")]
    rows += [("note", note) for note in v["disagreements"]]
    rows += [("note", f"{kind} is quantised again to Q8_0 while loading, which loses less than {kind} did") for kind in r["requantised"]]
    template = v["chat_template"]
    rows.append(("chat template", f"the model's own, {len(template):,} characters" if template else "none; the chat log is used"))
    rows.append(("licence", r["licence"] or "not declared"))
    rows += [("SHA-256", f"{file['sha256']}  {file['name']}") for file in r["files"] if "sha256" in file]
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"{name:<{width}}  {value}" for name, value in rows)


def amount(nbytes: float) -> str:
    """12.3 MB."""
    for unit in ("B", "KB", "MB", "GB"):
        if nbytes < 1000 or unit == "GB":
            return f"{nbytes:.0f} {unit}" if unit == "B" or nbytes >= 100 else f"{nbytes:.1f} {unit}"
        nbytes /= 1000
    raise AssertionError
