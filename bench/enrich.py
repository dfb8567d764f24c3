"""Questions that point at what was said, rewritten by the local model: what can be answered alone, and the tokens that a server gets.

python -m bench.enrich [--model FILE] [--show]

A question can be answered alone where it holds what `bench/enrich.yaml` says that it needs, and nothing that would be another thing's:
strings, no model as a judge. Greedy, each conversation alone.
"""

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from townhall.cli.chat_options import ChatOptions
from townhall.cli.model_loading import load
from townhall.conversation import Conversation
from townhall.enrich.enricher import Enricher, Enrichment, EnrichmentRequest
from townhall.message import Message
from townhall.persona import load_persona

FILE = Path(__file__).with_suffix(".yaml")


@dataclass(frozen=True)
class Measured:
    """One conversation: tokens of history and own question, and of the rewritten question alone, without the persona's head."""

    half: str
    own_alone: bool
    alone: bool
    found: Enrichment
    whole_tokens: int
    sent_tokens: int


def alone(text: str, case: dict[str, Any]) -> bool:
    """Does the text say all that an answer needs?"""
    said = text.casefold()
    needs = [need if isinstance(need, list) else [need] for need in case["needs"]]
    return all(any(word.casefold() in said for word in need) for need in needs) and not any(word.casefold() in said for word in case["not"])


def measured(case: dict[str, Any], enricher: Enricher, conversation: Conversation) -> Measured:
    said, question = case["said"], case["question"]
    conversation.recall(list(zip(said[::2], said[1::2], strict=True)))
    found = enricher.enrich(EnrichmentRequest(question, [("user" if at % 2 == 0 else "assistant", text) for at, text in enumerate(said)]))
    prompt, head = conversation.prompt, len(conversation.prompt.head_ids)
    whole = prompt.ids(conversation.plan, Message(len(said), "user", question, prompt.turn_ids(question)))
    return Measured(
        case["half"], alone(question, case), alone(found.question, case), found, len(whole) - head, len(prompt.turn_ids(found.text))
    )


def report(title: str, cases: list[Measured]) -> str:
    offered = [case for case in cases if case.found.changed]
    whole, sent = sum(case.whole_tokens for case in cases), sum(case.sent_tokens for case in cases)
    return (
        f"{title}: {len(cases)} conversations; answered alone: own question {sum(case.own_alone for case in cases)}, rewritten "
        f"{sum(case.alone for case in cases)}; {len(offered)} rewritten, {sum(not case.alone for case in offered)} of them wrong; "
        f"tokens beside the persona: {whole} with the history, {sent} of the question alone ({1 - sent / whole:.0%} less)"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="as chat's")
    parser.add_argument("--show", action="store_true", help="every question")
    asked = parser.parse_args()
    llama = load(ChatOptions(model=asked.model)).llama
    enricher, conversation = Enricher(llama), Conversation(llama, load_persona("stacy"))
    cases = []
    for case in yaml.safe_load(FILE.read_text())["conversations"]:
        cases.append(one := measured(case, enricher, conversation))
        if asked.show:
            print(f"{'ok   ' if one.alone else 'not  '}{case['question']}  ->  {one.found.text if one.found.changed else one.found.reason}")
    for title, half in (("seen while the rules were written", "seen"), ("written afterwards", "new")):
        print(report(title, [case for case in cases if case.half == half]))
    print(report("all", cases))


if __name__ == "__main__":
    main()
