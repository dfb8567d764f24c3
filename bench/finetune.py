"""Stacy before and after training: python -m bench.finetune [ADAPTER[:SCALE]…]

Four figures for the base and each adapter: how many replies say unasked who she is, the loss on held-out lines (nats a token), how many of
the twenty questions of bench/answers.py are answered with the word that an answer needs, and how many replies do not end by themselves.
"""

import argparse
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from app.models.llama import Llama, SamplingParams
from bench.answers import MAX_TOKENS, QUESTIONS
from townhall import Conversation, load_persona
from townhall.adapter_spec import AdapterSpec, scaled
from townhall.data.training_chats import read_chats
from townhall.persona import Persona
from townhall.prompt import Prompt
from townhall.template import open_format

ROOT = Path(__file__).resolve().parents[1]
# what a right answer to each of QUESTIONS holds
FRUIT = r"\b(apples?|bananas?|oranges?|grapes?|pears?|peach(es)?|mango(es)?|cherr(y|ies)|kiwis?|straw\w+|lemons?|plums?)\b"
NEEDED = (
    r"stacy",
    r"paris",
    r"\bearth\b.*\b(bigger|larger)|bigger.*\bearth",
    r"1945",
    r"\b(8|eight)\b",
    r"blue",
    r"shakespeare",
    r"\b(4|four)\b",
    r"honey",
    r"cold",
    rf"({FRUIT}.*){{3}}",
    r"pacific",
    r"boil|hot water",
    r"chlorophyll|cold|winter|autumn|days|less (sun|light)|green",
    r"\?|why|what",
    r"sun|light",
    r"portuguese",
    r"\b(7|seven)\b",
    r"rain",
    r"coat|jacket|hat|gloves|scarf|sweater|layers|warm",
)
SAYS_WHO = re.compile(
    r"^\W*(?:(?:yo|hi|hey|hello|well)\W+)?(?:i'm|i am|my name is|this is)\s+(?:stacy|lil|a helpful|an? (?:ai )?assistant)"
    r"|(?:assistant|ai) named stacy|known as \W?lil stacy|name is stacy",
    re.IGNORECASE,
)
ABOUT_HER = re.compile(r"\byou(r)?\b", re.IGNORECASE)  # in a question that may be answered so


def reply(conversation: Conversation, question: str, sampling: SamplingParams) -> str:
    """To a question that is asked alone."""
    conversation.reset()
    conversation.sampling = sampling
    return "".join(conversation.reply(question))


def held_out_loss(llama: Llama, persona: Persona, exchanges: Sequence[tuple[str, str]]) -> float:
    """Mean of -log P over the tokens of the replies, each after the persona and its question."""
    prompt, cache, losses = Prompt(open_format("auto", persona, llama.tokenizer), llama.tokenizer), llama.new_cache(), []
    for question, answer in exchanges:
        before, said = [*prompt.head_ids, *prompt.turn_ids(question)], list(prompt.reply_ids(answer))
        end = next((at for at, token in enumerate(said) if token in prompt.stop_ids), len(said) - 1) + 1
        ids = [*before, *said[:end]]
        at = len(ids) - end - 1
        passes = [rows.copy() for rows in llama.score(ids, cache)]  # what it yields is valid until the next one
        rows = np.concatenate(passes)[at - len(ids) : -1].astype(np.float64)
        peak = rows.max(-1)
        losses += list(np.log(np.exp(rows - peak[:, None]).sum(-1)) + peak - rows[np.arange(end), ids[-end:]])
    return float(np.mean(losses))


def measure(llama: Llama, persona: Persona, exchanges: Sequence[tuple[str, str]], seeds: int, show: bool) -> str:
    """A row of the table."""
    conversation = Conversation(llama, persona, max_tokens=MAX_TOKENS)
    greedy = [reply(conversation, question, SamplingParams(temperature=0)) for question in QUESTIONS]
    right = [bool(re.search(needed, said, re.IGNORECASE | re.DOTALL)) for needed, said in zip(NEEDED, greedy, strict=True)]
    neutral = [q for q in (*QUESTIONS, *(question for question, _ in exchanges)) if not ABOUT_HER.search(q)]
    drawn = [reply(conversation, q, SamplingParams(temperature=0.7, seed=seed)) for seed in range(seeds) for q in neutral]
    who = sum(bool(SAYS_WHO.search(said)) for said in drawn)
    endless = sum(len(llama.tokenizer.encode(said, bos=False)) >= MAX_TOKENS - 2 for said in drawn)
    if show:
        for question, said, ok in zip(QUESTIONS, greedy, right, strict=True):
            print(f"  {'+' if ok else '-'} {question} {said!r}")
        for question, said in zip(neutral, drawn, strict=False):
            print(f"    {question} {said!r}")
    loss = held_out_loss(llama, persona, exchanges)
    return f"{who / len(drawn):.1%} of {len(drawn)} | {loss:.3f} | {sum(right)} of 20 | {endless / len(drawn):.1%}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("adapters", nargs="*", type=AdapterSpec.parse, metavar="ADAPTER[:SCALE]")
    parser.add_argument("--model", type=Path, default=Path("app/models/llama/weights/SmolLM2-135M-Instruct.Q4_1.gguf"))
    parser.add_argument("--persona", default="stacy")
    parser.add_argument("--held-out", type=Path, default=ROOT / "eg" / "finetune" / "held-out.jsonl")
    parser.add_argument("--seeds", type=int, default=3, help="of drawing, at temperature 0.7")
    parser.add_argument("--show", action="store_true", help="print the replies")
    args = parser.parse_args()
    persona, llama = load_persona(args.persona), Llama.load(args.model)
    chats = read_chats(args.held_out)
    exchanges = [(q.text, a.text) for chat in chats for q, a in zip(chat.turns[::2], chat.turns[1::2], strict=True)]
    print("| | says unasked who she is | held-out loss | twenty questions | does not end |\n|---|---|---|---|---|")
    print(f"| base | {measure(llama.adapted([]), persona, exchanges, args.seeds, args.show)} |", flush=True)
    for adapter in args.adapters:
        adapted = llama.adapted(scaled([adapter]))
        print(f"| {adapter.name}:{adapter.scale:g} | {measure(adapted, persona, exchanges, args.seeds, args.show)} |", flush=True)


if __name__ == "__main__":
    main()
