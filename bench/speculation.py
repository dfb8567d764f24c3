"""What guesses gain: python -m bench.speculation [--model PATH] [--draft PATH] [--tokens 160] [--rounds 5] [--json]

Each task is answered by plain decoding and with guesses (prompt lookup, or --draft), in turn and in one process: texts must be the same,
and rates are of decoding alone. Tasks that repeat their prompt (a text to be edited, JSON to be copied) are listed apart from ordinary
chat. A small model wanders off at times, so how much of a prompt a reply really repeats is printed with it.
"""

import argparse
import json
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from app.models.llama import Llama, SamplingParams
from app.models.llama.speculation import MOST_GUESSES, PromptLookup, SpeculationCount
from bench import machine
from townhall.cli.chat_options import ChatOptions
from townhall.context.strategies import open_strategy
from townhall.formats.prompt_pieces import PromptTurn
from townhall.persona import Persona
from townhall.prompt import Prompt
from townhall.prompt_builder import open_window
from townhall.template import open_format
from townhall.transcript import lay_out

ROW = 4  # words in a row that stand in the prompt: repeated
LETTER = (
    "Dear neighbours, the old lighthouse on the northern cliff will be open to visitors on the first Sunday of May. The keeper, Mr. Alder, "
    "will show the lamp, the stairs and the small museum of ships that were lost in the storm of 1893. Children may climb the tower with "
    "their parents. Please bring warm clothes, since the wind is strong, and leave your dogs at home. Tea and cake will be served in the "
    "garden from three o'clock. All that is given goes to the repair of the roof, which the last winter has damaged badly."
)
SHIPS = [{"name": name, "built": 1880 + 3 * i, "crew": 12 + i, "home": "Northport"} for i, name in enumerate(["Ann", "Bee", "Cora", "Dot"])]
RECORDS = json.dumps({"ships": SHIPS}, indent=2)
REPEATING = {
    "edit a text": f"Repeat this letter word for word, but write October instead of May:\n\n{LETTER}",
    "copy JSON": f"Write this JSON again, exactly as it is:\n\n{RECORDS}",
    "quote": f"Read this letter.\n\n{LETTER}\n\nQuote the whole letter.",
}
CHAT = {
    "a story": "Tell me a story about a lighthouse keeper and a storm.",
    "advice": "What should I think of before I buy a used bicycle?",
    "explain": "Explain to a child why the sea is salt.",
    "opinion": "Is it better to live in a town or in the country? Give your reasons.",
}


def repeated(prompt: str, reply: str) -> float:
    """The share of a reply's stretches of ROW words that stand in its prompt as well."""

    def stretches(text: str) -> list[tuple[str, ...]]:
        words = text.split()
        return [tuple(words[i : i + ROW]) for i in range(len(words) - ROW + 1)]

    known, found = set(stretches(prompt)), stretches(reply)
    return sum(one in known for one in found) / max(1, len(found))


def open_both(path: Path, draft: Path | None) -> tuple[Llama, Llama]:
    """(plain, guessing) with caches of the same kind."""
    plain, guessing = Llama.load(path), Llama.load(path)
    if draft is None:
        guessing.speculate(PromptLookup)
    else:
        guessing.draft_with(Llama.load(draft))
    guessing.share_passes(2, MOST_GUESSES + 1)
    if not guessing.most_rows:
        sys.exit("bench.speculation: this device's kernels have no passes over several tokens of one conversation")
    return plain, guessing


def measure(plain: Llama, guessing: Llama, question: str, temperature: float, tokens: int, rounds: int) -> dict[str, Any]:
    """One task: medians of both rates and of their ratios, round by round."""
    prompt = Prompt(open_format("auto", Persona("Assistant", ""), plain.tokenizer), plain.tokenizer)
    ids = lay_out(prompt, open_strategy("stop"), open_window(prompt, plain.max_context, tokens), [PromptTurn("user", question)]).ids
    guessing.speculated = SpeculationCount()
    rates: dict[str, list[float]] = {"plain": [], "guessing": []}
    replies, reply = 0, ""
    for round in range(rounds + 1):  # the first one is no part of it: passes are measured in it
        texts = []
        for name, llama in (("plain", plain), ("guessing", guessing))[:: 1 if round % 2 else -1]:
            generation = llama.generate(list(ids), tokens, SamplingParams(temperature=temperature, seed=round))
            texts.append(list(generation))
            if round:
                rates[name].append(generation.tokens / generation.decode_seconds)
        if texts[0] != texts[1]:
            sys.exit(f"bench.speculation: guesses changed the reply to {question!r}")
        replies, reply = replies + len(texts[0]), plain.tokenizer.decode(texts[0])
    count = guessing.speculated
    return {
        "plain": statistics.median(rates["plain"]),
        "guessing": statistics.median(rates["guessing"]),
        "ratio": statistics.median(b / a for a, b in zip(rates["plain"], rates["guessing"], strict=True)),
        "tokens": replies,
        "repeated": repeated(question, reply),
        "guessed": count.guessed,
        "accepted": count.accepted,
    }


def table(results: dict[str, dict[str, dict[str, Any]]]) -> str:
    """For people."""
    lines = [f"{'':16}{'plain':>10}{'guessing':>10}{'ratio':>8}{'repeated':>10}{'accepted':>16}   tokens/s"]
    for kind, tasks in results.items():
        lines.append(kind)
        for name, one in tasks.items():
            accepted = f"{one['accepted']} of {one['guessed']}"
            lines.append(f"  {name:14}{one['plain']:10.1f}{one['guessing']:10.1f}{one['ratio']:8.2f}{one['repeated']:10.0%}{accepted:>16}")
        lines.append(f"  {'median':34}{statistics.median(one['ratio'] for one in tasks.values()):8.2f}")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="default: the one that pull_llama.sh fetches")
    parser.add_argument("--draft", type=Path, help="a smaller model of the same vocabulary that guesses, instead of prompt lookup")
    parser.add_argument("--tokens", type=int, default=160, help="of a reply, at most")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(arguments)
    path = ChatOptions(model=options.model).model_path()
    plain, guessing = open_both(path, options.draft)
    kinds = {"repeating, temperature 0": (REPEATING, 0.0), "chat, temperature 0.8": (CHAT, 0.8)}
    results = {
        kind: {name: measure(plain, guessing, text, heat, options.tokens, options.rounds) for name, text in tasks.items()}
        for kind, (tasks, heat) in kinds.items()
    }
    about = {"machine": machine.describe(), "device": plain.backend.describe(), "model": path.name, "results": results}
    print(json.dumps(about, ensure_ascii=False) if options.json else f"{path.name} on {about['device']}\n{table(results)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
