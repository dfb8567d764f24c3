"""Does a persona stay who it is, and does it say things once? Over seeded chats, the twenty questions, and 80 turns with questions aside.

python -m bench.persona [--quick] [--with reply_ngram_penalty=0]... [--against llama-server] [--json FILE] [--resume FILE --minutes M]

Chats of plain questions (12 turns) and of the hard kind (24 turns: insults, emoji, other languages, "why?", "explain it", requests for
instructions), with the four shipped personas at the default settings, 160 tokens a reply at most. A reply says again what an earlier one of
its chat said where more than half of its five-word sequences stand in it. Each `--with` is another column: sampler settings, `reminder=1`
for a reminder in front of every message, `examples=0` without example exchanges, `lora=PATH[:SCALE]` through an adapter (not llama.cpp's).
Drift: at turns 1, 10, 20, 40, 80 five probes are asked aside; how much likelier, in nats a token, history and persona make the
persona's own answers than no persona does, beside what they do for the other personas' answers (after arXiv 2402.10962).

With `--resume` each chat is kept in FILE when it is over; run again, the command holds those that are missing. With `--minutes` no chat is
begun after that; exit code 3 says that some are missing, and the figures are those of what there is.
"""

import argparse
import json
import random
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from app.models.llama import Llama, SamplingParams
from app.sampler_settings import DECLARED
from bench import persona_figures
from bench.persona_drift import PersonaDrift
from bench.persona_figures import SaidReply
from bench.persona_prompts import HARD, KNOWN, PLAIN, TWENTY
from bench.persona_store import HeldChats, Key
from bench.side_by_side import SeatedModel, SideBySide
from townhall import Conversation, Persona, load_persona
from townhall.adapter_spec import parse_all, scaled
from townhall.cli.chat_options import ChatOptions
from townhall.language_model import LanguageModel
from townhall.persona_sources import open_sources

TOKENS, CONTEXT, SEATS = 160, 1024, 16
KINDS = {"plain": (PLAIN, 12), "hard": (HARD, 24)}  # what is asked, and in how many turns


@dataclass(frozen=True)
class Setup:
    """A column of the table: sampler settings other than the default, and what of the persona is another."""

    name: str
    settings: dict[str, Any]

    @classmethod
    def parse(cls, text: str) -> "Setup":
        """`name=value,name=value`; ValueError for what is no setting."""
        pairs = dict(part.split("=", 1) for part in filter(None, text.split(",")))
        if unknown := pairs.keys() - DECLARED.keys() - {"reminder", "examples", "lora"}:
            raise ValueError(f"--with knows no {', '.join(sorted(unknown))}")
        return cls(text, {key: value if key == "lora" else json.loads(value) for key, value in pairs.items()})

    def adapters(self) -> list[tuple[Path, float]]:
        """As Llama.adapted takes them."""
        return scaled(parse_all([self.settings["lora"]])) if "lora" in self.settings else []

    def of_peer(self) -> "Setup":
        """For a column of llama.cpp's: without what it does not know."""
        known = {key: value for key, value in self.settings.items() if not key.startswith("reply_ngram") and key != "lora"}
        name = ",".join(f"{key}={json.dumps(value)}" for key, value in known.items())
        return Setup(f"llama.cpp {name}".strip(), known)

    def __hash__(self) -> int:
        return hash(self.name)

    def persona(self, name: str) -> Persona:
        """As it ships, but for these settings."""
        persona = load_persona(name)
        if "reminder" in self.settings:
            persona = replace(persona, reminder=KNOWN[name].reminder if self.settings["reminder"] else "")
        return persona if self.settings.get("examples", 1) else replace(persona, examples=persona.examples[1:])

    def sampling(self) -> SamplingParams:
        """The default but for these settings."""
        given = {key: value for key, value in self.settings.items() if key in DECLARED}
        return replace(ChatOptions().sampling(), **given)

    def conversation(self, llama: LanguageModel, name: str) -> Conversation:
        """As `townhall chat` has it."""
        persona = self.persona(name)
        return Conversation(llama, persona, sampling=self.sampling(), max_tokens=TOKENS, sources=open_sources(persona, llama.tokenizer))


@dataclass(frozen=True)
class Talk:
    """A chat to be held: questions one after another, each reply with its own seed."""

    persona: str
    chat: int
    questions: Sequence[str]
    seed: int
    alone: bool = False  # each question begins anew

    def hold(self, conversation: Conversation) -> list[SaidReply]:
        """All replies."""
        replies = []
        for turn, question in enumerate(self.questions):
            if self.alone:
                conversation.reset()
            conversation.sampling = replace(conversation.sampling, seed=1000 * self.seed + turn)
            for _ in conversation.reply(question):
                pass
            last = conversation.last
            assert last
            replies.append(SaidReply(self.persona, self.chat, turn, question, last.text, last.tokens, last.finish_reason))
        return replies


def chats(kind: str, personas: Sequence[str], each: int, seed: int) -> list[Talk]:
    """`each` chats of a kind with every persona, always the same for one seed."""
    asked, turns = KINDS[kind]
    return [
        Talk(name, chat, random.Random(f"{seed} {kind} {name} {chat}").sample(asked, turns), seed + chat)
        for chat in range(each)
        for name in personas
    ]


def twenty(personas: Sequence[str], seed: int, times: int) -> list[Talk]:
    """The twenty questions, each alone and then all in one chat; `times` over, with other seeds."""
    asked = [question for question, _ in TWENTY]
    return [
        Talk(name, 2 * at + int(not alone), asked, seed + at, alone) for at in range(times) for alone in (True, False) for name in personas
    ]


Hold = Callable[[Setup, Sequence[Talk], Callable[[Talk, list[SaidReply]], None]], None]  # hands over each chat when it is over


def held(beside: SideBySide, begin: Callable[[], bool], setup: Setup, talks: Sequence[Talk], over: Callable[..., None]) -> None:
    """Hold these chats side by side."""

    def one(talk: Talk) -> Callable[[SeatedModel], None]:
        return lambda model: over(talk, talk.hold(setup.conversation(model, talk.persona))) if begin() else None

    beside.run([one(talk) for talk in talks])


@dataclass
class Column:
    """A column of the table in the making; `missing` counts chats for which there was no time."""

    setup: Setup
    store: HeldChats
    hold: Hold
    missing: int = 0

    def replies(self, kind: str, talks: Sequence[Talk]) -> list[SaidReply]:
        """All replies of these chats, those that were held before as they were."""

        def key(talk: Talk) -> Key:
            return self.setup.name, kind, talk.persona, talk.chat

        def over(talk: Talk, replies: list[SaidReply]) -> None:
            self.store.put(key(talk), [reply.to_json() for reply in replies])

        if left := [talk for talk in talks if self.store.get(key(talk)) is None]:
            self.hold(self.setup, left, over)
        found = [self.store.get(key(talk)) for talk in talks]
        self.missing += sum(one is None for one in found)
        return [SaidReply(**reply) for one in found for reply in one or ()]


def measure(column: Column, options: argparse.Namespace) -> dict[str, Any]:
    """All figures of a column, with the replies themselves."""
    found: dict[str, Any] = {"settings": column.setup.settings}
    for kind in KINDS:
        if (each := getattr(options, kind)) and (replies := column.replies(kind, chats(kind, options.personas, each, options.seed))):
            found[kind] = persona_figures.count(replies) | {"said": [reply.to_json() for reply in replies]}
    if options.twenty and (replies := column.replies("twenty", twenty(options.personas, options.seed, options.times))):
        parts = {name: [reply for reply in replies if reply.chat % 2 == chat] for chat, name in enumerate(("alone", "in one chat"))}
        found["twenty"] = {name: {**persona_figures.answers(part), "asked": len(part)} for name, part in parts.items()}
        found["twenty"]["said"] = [reply.to_json() for reply in replies]
    return found


ROWS = {
    "said again": "say again what an earlier reply said",
    "introductions": "later replies that begin by saying who it is",
    "markers": "leaked markers",
    "user's turns": "speak for the user",
    "in circles": "go in circles",
    "empty": "empty",
    "cut off": "cut off at 160 tokens",
}


def table(columns: dict[str, dict[str, Any]]) -> str:
    """Markdown."""
    lines = ["| | " + " | ".join(columns) + " |", "|---|" + "--:|" * len(columns)]
    for kind in KINDS:
        if all(kind in column for column in columns.values()):
            lines.append(_row(f"{kind}: replies", [str(column[kind]["replies"]) for column in columns.values()]))
            for key, name in ROWS.items():
                of = "later replies" if key == "introductions" else "replies"
                lines.append(_row(f"{kind}: {name}", [_share(column[kind][key], column[kind][of]) for column in columns.values()]))
    if all("twenty" in column for column in columns.values()):
        for name in ("alone", "in one chat"):
            parts = [column["twenty"][name] for column in columns.values()]
            lines.append(_row(f"twenty questions {name}: to the point", [_share(part["relevant"], part["asked"]) for part in parts]))
            lines.append(
                _row(f"twenty questions {name}: with what was not asked", [_share(part["stained"], part["asked"]) for part in parts])
            )
    return "\n".join([*lines, *_drift_lines(columns)])


def _drift_lines(columns: dict[str, dict[str, Any]]) -> Iterator[str]:
    for name, column in columns.items():
        if drift := column.get("drift"):
            yield f"\nDrift, {name}: nats a token gained by own answers, by those of others; probes where an own one gains most"
            for turn, figures in drift.items():
                yield f"- turn {turn}: {figures['own']:+.2f}, {figures['others']:+.2f}; {figures['first']} of {figures['probes']}"


def _row(name: str, cells: Sequence[str]) -> str:
    return f"| {name} | " + " | ".join(cells) + " |"


def _share(n: int, of: int) -> str:
    return f"{n} ({n / of:.1%})" if of else "0"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="model file  [default: the one that pull_llama.sh fetches]")
    parser.add_argument("--personas", nargs="+", default=list(KNOWN), choices=list(KNOWN))
    parser.add_argument("--plain", type=int, default=10, metavar="N", help="chats of plain questions with each persona, 12 turns each")
    parser.add_argument("--hard", type=int, default=6, metavar="N", help="chats of the hard kind with each, 24 turns each")
    parser.add_argument("--no-twenty", dest="twenty", action="store_false", help="leave the twenty questions out")
    parser.add_argument("--times", type=int, default=1, metavar="N", help="the twenty questions N times, with other seeds")
    parser.add_argument("--drift", type=int, default=80, metavar="TURNS", help="turns of the long chats; 0: none")
    parser.add_argument("--with", dest="others", action="append", default=[], type=Setup.parse, metavar="SETTINGS")
    parser.add_argument("--no-default", action="store_true", help="only what --with says")
    parser.add_argument(
        "--against", type=Path, metavar="PROGRAM", help="llama.cpp's llama-server: columns of the same prompts and settings through it"
    )
    parser.add_argument("--quick", action="store_true", help="one chat of each kind with each persona, 20 turns of drift")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--seats", type=int, default=SEATS, metavar="N", help="chats held side by side, at most")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write figures and replies there")
    parser.add_argument("--resume", type=Path, metavar="FILE", help="keep each chat there, and go on with what the file has")
    parser.add_argument("--minutes", type=float, metavar="M", help="begin no chat after so many")
    options = parser.parse_args()
    if options.quick:
        options.plain, options.hard, options.drift = 1, 1, min(20, options.drift)
    path = ChatOptions(model=options.model).model_path()
    run = {"model": path.name, "tokens": TOKENS, "window": CONTEXT, "seed": options.seed, "drift": options.drift}
    try:
        store = HeldChats(options.resume, run, None if options.minutes is None else 60 * options.minutes)
    except (OSError, ValueError) as error:
        parser.error(str(error))
    columns: dict[str, dict[str, Any]] = {}
    missing = 0
    setups = [*([] if options.no_default else [Setup("default", {})]), *options.others]
    llama = Llama.load(path, CONTEXT) if setups else None
    for setup in setups:
        assert llama
        beside = SideBySide(llama.adapted(setup.adapters()), options.seats)
        started = time.perf_counter()
        column = Column(setup, store, partial(held, beside, store.begin))
        figures = columns[setup.name] = measure(column, options)
        if options.drift:
            drift = PersonaDrift(beside, setup.conversation, options.personas, options.seed, setup.name, store)
            figures["drift"] = drift.over(options.drift)
            missing += len(options.personas) - drift.complete
        missing += column.missing
        print(f"{setup.name}: {time.perf_counter() - started:.0f} s", file=sys.stderr, flush=True)
        save(options.json, columns)
    for setup in dict.fromkeys(map(Setup.of_peer, setups)) if options.against else ():
        from bench.persona_peer import hold

        peer = Column(setup, store, partial(hold, path, options.against, store.begin))
        columns[setup.name] = measure(peer, options)
        missing += peer.missing
        save(options.json, columns)
    print(f"{path.name}, {TOKENS} tokens a reply, window {CONTEXT}, seed {options.seed}\n\n{table(columns)}")
    if missing:
        print(f"\n{missing} chats are missing: run the same command again", file=sys.stderr)
    return 3 if missing else 0


def save(path: Path | None, columns: dict[str, Any]) -> None:
    """Write what there is so far."""
    if path:
        part = path.with_name(path.name + ".part")
        part.write_text(json.dumps(columns, indent=1, ensure_ascii=False) + "\n")
        part.replace(path)


if __name__ == "__main__":
    sys.exit(main())
