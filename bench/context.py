"""What each context strategy costs and what it still knows, on a real model: python -m bench.context [--quick] [--soak [TOKENS]] [--json]

Three tables. Cost: turns of one length, so many that the window overflows again and again. Recall: facts told k turns ago are asked
for; "evicted" says that nothing of it was in the prompt any more, and 0 is then the honest result. Drift: logits of a conversation whose
cache was moved (`shift`) against a fresh prefill of the same tokens; `slide`, which computes again, shows what rounding alone makes.

--soak talks on for TOKENS generated tokens (5000) under each strategy instead, and ends with 1 where memory grew, the pinned head
changed or turns became slower.
"""

import argparse
import json
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from app.models.llama import Llama, SamplingParams
from bench.context_turns import TIMED_TURNS, Drift, Progress, cost, soak
from townhall import Conversation, Persona
from townhall.cli import terminal
from townhall.cli.chat_options import ChatOptions
from townhall.context.strategies import STRATEGIES
from townhall.errors import ContextError
from townhall.message import Exchange
from townhall.persona import Example, load_persona


@dataclass(frozen=True)
class Fact:
    """Told in one turn, asked for in another; recalled is an answer that has `word`, as a word of its own."""

    tell: str
    ask: str
    word: str

    def recalled(self, answer: str) -> bool:
        return bool(re.search(rf"\b{re.escape(self.word)}\b", answer, re.IGNORECASE))


# of those tried, the ones that the default model knows in the turn after: recall is to fall with what leaves the window, not with the model
FACTS = (
    Fact("The password of the garage is marigold.", "What is the password of the garage?", "marigold"),
    Fact("The name of my dog is Rufus.", "What is the name of my dog?", "Rufus"),
    Fact("The key of the house is under the flowerpot.", "Where is the key of the house?", "flowerpot"),
    Fact("The train to Rome leaves from platform 17.", "From which platform does the train to Rome leave?", "17"),
    Fact("The code of the safe is 4719.", "What is the code of the safe?", "4719"),
    Fact("The teacher of the piano class is Mrs Winter.", "Who is the teacher of the piano class?", "Winter"),
    Fact("The cake is in the blue cupboard.", "In which cupboard is the cake?", "blue"),
    Fact("The colour of my car is orange.", "What is the colour of my car?", "orange"),
)
# turns about something else
FILLERS = (
    "What do bees make?", "Name a fruit.", "Why is the sky so high?", "Tell me about the sea.", "How do I make tea?", "What is a poem?",
    "Who was Newton?", "What is bread made of?", "How many legs has a spider?", "Say something about the moon.", "What do cows eat?",
)  # fmt: skip
# it shows how a fact is told and asked for: without that, a model of 135M parameters recalls few of them even in the next turn
PERSONA = Persona(
    "Ada",
    "Ada is a friendly assistant who remembers what she is told and explains things in two or three sentences.",
    examples=(
        Example("The password of the attic is lemon.", "Noted: the password of the attic is lemon."),
        Example("What is the password of the attic?", "The password of the attic is lemon."),
    ),
)
LAGS, ANSWER = (1, 5, 20, 80), 48
TAIL = 12  # turns after the last question, so that even --quick fills a window of 1024
COMPARED, EVERY = ("shift", "slide"), 2  # with a fresh prefill, in every so many turns once something has left the window
SOAK_TOKENS, SOAK_ANSWER = 5000, 40
GROWTH, SLOWER, DEARER = 0.02, 1.25, 1.5  # promised: of memory, of the last fifth's turns, of an overflow under shift


@contextmanager
def aside(conversation: Conversation, folder: Path) -> Iterator[None]:
    """What is said inside has never been said afterwards."""
    before, path = {**vars(conversation), "exchanges": list(conversation.exchanges)}, folder / "aside.safetensors"
    conversation.cache.snapshot(path)
    yield
    vars(conversation).update(before)
    conversation.cache.restore(path)


def say(conversation: Conversation, text: str) -> str:
    """The answer; `stop` refuses a turn that no longer fits, and its user can but begin anew."""
    try:
        return "".join(conversation.reply(text))
    except ContextError:
        conversation.reset()
        return "".join(conversation.reply(text))


def recall(llama: Llama, context: str, lags: Sequence[int], drift: Drift, progress: Progress) -> list[dict[str, int]]:
    """For each lag: how many facts were recalled, and where they stood when they were asked for."""
    conversation = Conversation(llama, PERSONA, context=context, sampling=SamplingParams(temperature=0), max_tokens=ANSWER)
    conversation.prepare()
    cells = [{"k": lag, "asked": 0, "recalled": 0, "in_window": 0, "in_memory": 0, "evicted": 0} for lag in lags]
    info: list[Exchange] = []
    overflows = 0
    turns = len(FACTS) + max(lags) + TAIL
    with TemporaryDirectory(prefix="townhall-bench-") as folder:
        for at in range(turns):
            progress(f"{context}: recall, turn {at + 1} of {turns}")
            for cell in cells:
                if 0 <= (number := at - cell["k"]) < len(FACTS):
                    with aside(conversation, Path(folder)):
                        answer, plan = say(conversation, FACTS[number].ask), conversation.plan
                    remembered = plan.memory is not None and info[number].user.id in plan.memory.sources
                    where = "in_window" if info[number] in plan.kept else "in_memory" if remembered else "evicted"
                    for count in ("asked", where, *(["recalled"] if FACTS[number].recalled(answer) else [])):
                        cell[count] += 1
            say(conversation, FACTS[at].tell if at < len(FACTS) else FILLERS[at % len(FILLERS)])
            info.append(conversation.exchanges[-1])
            overflows += bool(conversation.last and conversation.last.receipt.dropped)
            if context in COMPARED and overflows and at % EVERY == 0:
                drift.measure(llama, conversation.cache, len(info[-1].reply.ids))
            conversation.after_reply()
    return cells


def describe_cost(rows: dict[str, dict[str, Any]]) -> str:
    """A line per strategy; seconds are medians of whole turns, in brackets to the first piece of text."""

    def seconds(of: dict[str, float | None]) -> str:
        return f"{of['whole']:.2f} ({of['first']:.2f})" if of["whole"] is not None else "-"

    lines = [
        f"{'strategy':<11}{'tokens':>7}{'prompt':>8}{'ordinary turn, s':>18}{'overflow, s':>15}{'of turns':>10}{'× ordinary':>12}"
        f"{'read again':>12}{'then writes, s':>16}"
    ]
    for name, row in rows.items():
        ratio = f"{row['ratio']:.2f}" if "ratio" in row else "-"
        after = f"{row['overflow']['after']:.2f}" if name == "summarize" and row["overflows"] else "-"
        lines.append(
            f"{name:<11}{row['tokens_per_turn']:>7.0f}{row['prompt_tokens']:>8.0f}{seconds(row['ordinary']):>18}{seconds(row['overflow']):>15}"
            f"{row['overflows']:>6}/{row['turns']}{ratio:>11}{row['recomputed_per_overflow'] or 0:>12.0f}{after:>16}"
        )
    if (shift := rows.get("shift", {})).get("ratio"):
        held = min(shift["ratio"], shift["ratio_processor"]) <= DEARER
        lines.append(f"an overflow under shift may cost {DEARER} × an ordinary turn: {'held' if held else 'NOT HELD'}")
    return "\n".join(lines)


def describe_recall(rows: dict[str, list[dict[str, Any]]]) -> str:
    """A line per strategy: recalled of asked, and where the facts stood if not in the window."""

    def cell(of: dict[str, Any]) -> str:
        gone = [f"{of[where]} {word}" for where, word in (("in_memory", "in memory"), ("evicted", "evicted")) if of[where]]
        return f"{of['recalled']}/{of['asked']}" + (f" ({', '.join(gone)})" if gone else "")

    lags = [f"k = {of['k']}" for of in next(iter(rows.values()))]
    return "\n".join(
        [f"{'strategy':<11}" + "".join(f"{lag:<28}" for lag in lags)]
        + [f"{name:<11}" + "".join(f"{cell(of):<28}" for of in cells).rstrip() for name, cells in rows.items()]
    )


def describe_drift(rows: dict[str, dict[str, Any]]) -> str:
    """A line per strategy that was compared."""
    return "\n".join(
        f"{name:<11}top-1 {row['top1']:.1%} of {row['tokens']} tokens; "
        f"KL {row['kl_mean']:.2g} on average, {row['kl_median']:.2g} median, {row['kl_max']:.2g} at worst"
        if row["tokens"]
        else f"{name:<11}nothing left the window"
        for name, row in rows.items()
    )


def describe_soak(rows: dict[str, dict[str, Any]]) -> str:
    """A line per strategy, with the word for each promise."""
    return "\n".join(
        f"{name:<11}{row['tokens']} tokens in {row['turns']} turns, {row['overflows']} overflows; "
        f"{row['resident_mb'][0]:.0f} to {row['resident_mb'][1]:.0f} MB; last fifth {row['last_fifth']:.2f} × the first "
        f"({row['last_fifth_processor']:.2f} in processor seconds); "
        f"pinned head {'identical' if row['head_identical'] else 'CHANGED'}: {'held' if holds(row) else 'NOT HELD'}"
        for name, row in rows.items()
    )


def holds(row: dict[str, Any]) -> bool:
    """Is a soak's row as promised? A turn that took longer without taking more of the processor waited for another program."""
    slower = min(row["last_fifth"], row["last_fifth_processor"])
    return row["head_identical"] and (row["resident_growth"] or 0) <= GROWTH and slower <= SLOWER


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="default: the one that pull_llama.sh fetches")
    parser.add_argument("--max-context", type=int, default=1024)
    parser.add_argument("--strategies", default=",".join(STRATEGIES), help="default: %(default)s")
    parser.add_argument("--persona", default="stacy", help="who talks where seconds are counted; default: %(default)s")
    parser.add_argument("--quick", action="store_true", help="fewer turns, and no k beyond 20")
    parser.add_argument("--soak", type=int, nargs="?", const=SOAK_TOKENS, metavar="TOKENS", help="generated tokens for each strategy")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    names = options.strategies.split(",")
    if unknown := [name for name in names if name not in STRATEGIES]:
        parser.error(f"--strategies {unknown[0]} is none of {', '.join(STRATEGIES)}")
    if options.soak is not None and options.soak < 1:
        parser.error(f"--soak {options.soak} generates nothing; pass 1 or more")

    llama = Llama.load(ChatOptions(model=options.model).model_path(), options.max_context)
    persona = load_persona(options.persona)
    results: dict[str, Any] = {"device": llama.backend.describe(), "window": options.max_context}
    parts = []
    if options.soak:
        rows = results["soak"] = {name: soak(llama, persona, name, options.soak, SOAK_ANSWER, terminal.progress) for name in names}
        parts.append(describe_soak(rows))
    else:
        turns, lags = (12, LAGS[:3]) if options.quick else (TIMED_TURNS, LAGS)
        drifts = {name: Drift() for name in names if name in COMPARED}
        results["cost"] = {name: cost(llama, persona, name, turns, terminal.progress) for name in names}
        results["recall"] = {name: recall(llama, name, lags, drifts.get(name, Drift()), terminal.progress) for name in names}
        results["drift"] = {name: drift.figures() for name, drift in drifts.items()}
        parts += [
            describe_cost(results["cost"]),
            f"facts told k turns ago: recalled of asked\n{describe_recall(results['recall'])}",
        ]
        if drifts:
            parts.append(f"logits against those of a fresh prefill of the same tokens\n{describe_drift(results['drift'])}")
    terminal.progress("")
    print(json.dumps(results) if options.json else "\n\n".join([f"{results['device']}, window {options.max_context}", *parts]))
    return 0 if all(holds(row) for row in results.get("soak", {}).values()) else 1


if __name__ == "__main__":
    sys.exit(main())
