"""`townhall data`: conversations for training, made, converted, checked."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from townhall.cli import terminal
from townhall.cli.flags import some_flags
from townhall.via.errors import RemoteError

if TYPE_CHECKING:
    from townhall.data.training_chats import TrainingChat

KINDS = ("chat", "sharegpt", "alpaca", "completion", "preference", "text")
SHOWN = 10  # pairs that are named
EPILOG = """\b
Each file is JSON lines (or a JSON list), and each record may have a format of its own; docs/training.md shows them.
\b
Examples:
  townhall data from-logs stacy.jsonl --persona stacy
  townhall data from-persona draft.jsonl --personality gary --count 40
  townhall data convert alpaca.json chats.jsonl --test held-out.jsonl
  townhall data check chats.jsonl --test held-out.jsonl --personality stacy
"""

files_argument = click.argument("files", metavar="FILE...", nargs=-1, required=True, type=click.Path(path_type=Path))
out_argument = click.argument("out", metavar="OUT.jsonl", type=click.Path(path_type=Path))


@click.group(help="Make, convert and check conversations to train on.", epilog=EPILOG)
def data() -> None:
    pass


@data.command(
    "from-logs",
    help="Take conversations out of the logs. Replies are rated by /rate in a chat, and by the thumbs on the page.",
    epilog="Example: townhall data from-logs stacy.jsonl --persona stacy --min-replies 2",
)
@out_argument
@click.option("--persona", "personas", multiple=True, metavar="NAME", help="only of this one; several flags, several personas")
@click.option("--min-replies", type=click.IntRange(min=1), default=1, show_default=True, metavar="N", help="of a conversation")
@click.option("--max-characters", type=click.IntRange(min=1), metavar="N", help="a conversation ends before the first longer reply")
@click.option(
    "--rating",
    type=click.Choice(["good", "not-bad"]),
    help="not-bad: a conversation ends before its first reply rated bad; good: also with its last reply rated good, else it is left out",
)
@click.option("--preferences", is_flag=True, help="instead: replies rated bad, retried or taken back, beside the better one")
@click.option("--log-to", "folder", type=click.Path(path_type=Path), metavar="FOLDER", help="where the logs are  [default: as log's]")
def from_logs(
    out: Path,
    personas: tuple[str, ...],
    min_replies: int,
    max_characters: int | None,
    rating: Literal["good", "not-bad"] | None,
    preferences: bool,
    folder: Path | None,
) -> None:
    from townhall.cli.log import open_index
    from townhall.cli.reply_report import counted
    from townhall.data.data_checks import without_duplicates
    from townhall.data.log_chats import chats_of_logs, preferences_of_logs
    from townhall.data.training_chats import write_chats

    index = open_index(folder)
    paths = [index.folder / entry.name for entry in index.entries()]
    wanted = frozenset(name.lower() for name in personas)
    if preferences:
        chats = list(preferences_of_logs(paths, wanted, min_replies, max_characters or 0, rating))
    else:
        chats = without_duplicates(list(chats_of_logs(paths, wanted, min_replies, max_characters or 0, rating)))
    if not chats:
        refuse(f"no conversation in {index.folder} is as the flags ask; townhall log list names what is there")
    written = write_chats(chats, out, "preference" if preferences else "chat")
    replies = counted(sum(len(chat.replies) for chat in chats), "reply")
    terminal.note(f"{out}: {counted(written, 'pair' if preferences else 'conversation')} from {counted(len(paths), 'log')}, {replies}")


@data.command(
    "from-persona",
    help="Have the model ask questions and answer them in character; a draft, to be read before it is trained on.",
    epilog="Example: townhall data from-persona draft.jsonl --personality gary --count 40",
)
@out_argument
@click.option("--personality", default="stacy", show_default=True, metavar="NAME", help="who answers")
@click.option("--model", type=click.Path(path_type=Path), metavar="PATH", help="who writes  [default: as chat's]")
@some_flags("lora", "via", "via_model", "via_key", "via_timeout")
@click.option("--count", type=click.IntRange(1, 10_000), default=20, show_default=True, metavar="N", help="exchanges that are wanted")
@click.option("--topic", "topics", multiple=True, metavar="WORDS", help="what is asked about  [default: some sixty of every day]")
@click.option("--temperature", type=click.FloatRange(0, 2), default=0.7, show_default=True, metavar="X", help="of questions and answers")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, metavar="S", help="the same seed writes the same")
def from_persona(
    out: Path,
    personality: str,
    model: Path | None,
    lora: tuple[str, ...],
    count: int,
    topics: tuple[str, ...],
    temperature: float,
    seed: int,
    **via: Any,
) -> None:
    from townhall.cli.chat_options import ChatOptions
    from townhall.cli.chat_setup import check_via, endpoint_of, with_adapters
    from townhall.cli.model_loading import load
    from townhall.data.persona_writer import CHECKS, TOPICS, PersonaWriter, asks, asks_elsewhere
    from townhall.data.training_chats import write_chats
    from townhall.persona import load_persona

    persona = load_persona(personality)
    options = ChatOptions(model=model, personality=personality, lora=lora, **via)
    if options.via is not None and (model is not None or lora):
        refuse(f"{'--model' if model is not None else '--lora'} and --via both say who writes; pass one of them")
    check_via(options)
    chats: list[TrainingChat] = []
    failure: RemoteError | None = None
    with terminal.ctrl_c_stops() as interrupt:
        if options.via is None:
            ask = asks(load(with_adapters(options, persona)).llama, temperature, 100)
        else:
            ask = asks_elsewhere(endpoint_of(options), temperature, 100, lambda: bool(interrupt))
        writer = PersonaWriter.over(persona, ask)
        try:
            for chat in writer.write(count, seed, topics or TOPICS):
                chats.append(chat)
                terminal.progress(f"{len(chats)} of {count}: {chat.turns[0].text}")
                if interrupt:
                    break
        except RemoteError as error:
            failure = error  # what there is by now is kept
        except KeyboardInterrupt:
            if not interrupt:
                raise
    if failure and not chats:
        raise failure
    if not chats:
        refuse(f"none of the answers passed the checks: {report(writer.left_out, CHECKS)}; try a larger model or --topic")
    write_chats(chats, out)
    left = f"; left out: {report(writer.left_out, CHECKS)}" if writer.left_out else ""
    terminal.note(f"{out}: {len(chats)} exchanges{left}")
    terminal.note("read them before training: the checks find what is broken, not what is wrong")
    if failure:
        raise failure


@data.command(
    "convert",
    help="Turn conversations of any format into one file of another, and hold some of them out.",
    epilog="Example: townhall data convert alpaca.json sharegpt.jsonl chats.jsonl --to chat --test held-out.jsonl",
)
@files_argument
@out_argument
@click.option("--to", "kind", type=click.Choice(KINDS), default="chat", show_default=True, help="format that is written")
@click.option("--test", type=click.Path(path_type=Path), metavar="FILE", help="where some of them are held out")
@click.option("--share", type=click.FloatRange(0, 1), default=0.1, show_default=True, metavar="X", help="of them that are held out")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, metavar="S", help="which ones")
@click.option("--keep-duplicates", is_flag=True, help="write what says the same, word for word, more than once")
def convert(files: tuple[Path, ...], out: Path, kind: str, test: Path | None, share: float, seed: int, keep_duplicates: bool) -> None:
    from townhall.data.data_checks import split, without_duplicates
    from townhall.data.training_chats import read_chats, write_chats

    read = [chat for path in files for chat in read_chats(path)]
    chats = read if keep_duplicates else without_duplicates(read)
    kept, held_out = split(chats, share, seed) if test else (chats, [])
    if test and not (kept and held_out):
        refuse(f"{len(chats)} conversations cannot be split at --share {share}; pass another share, or more conversations")
    count = write_chats(kept, out, kind)
    aside = f", {write_chats(held_out, test, kind)} to {test}" if test else ""
    terminal.note(f"{out}: {count} records of {len(read)} conversations{aside}; {len(read) - len(chats)} said the same as another")


@data.command(
    "check",
    help="Say what is amiss with conversations: duplicates, leaks into a test, lengths; exit code 1 where something is.",
    epilog="Example: townhall data check chats.jsonl --test held-out.jsonl --personality stacy --max-length 512",
)
@files_argument
@click.option("--test", type=click.Path(path_type=Path), metavar="FILE", help="what must not be known from the others")
@click.option("--model", type=click.Path(path_type=Path), metavar="PATH", help="whose tokens are counted  [default: as chat's]")
@click.option("--personality", metavar="NAME", help="the persona that they will be trained with")
@click.option("--max-length", type=click.IntRange(min=1), default=256, show_default=True, metavar="N", help="tokens of a row, as train's")
@click.option("--json", "as_json", is_flag=True, help="print one JSON object")
def check(files: tuple[Path, ...], test: Path | None, model: Path | None, personality: str | None, max_length: int, as_json: bool) -> int:
    from dataclasses import asdict

    from townhall.cli.reply_report import counted
    from townhall.data.data_checks import Lengths, alike
    from townhall.data.training_chats import read_chats

    chats = [chat for path in files for chat in read_chats(path)]
    held_out = read_chats(test) if test else []
    samples = samples_of(chats, model, personality)
    lengths = Lengths.of([len(sample.ids) for sample in samples], [int((sample.targets >= 0).sum()) for sample in samples])
    pairs, leaks = alike(chats), alike(chats, held_out) if held_out else []
    long = [chat.source for chat, sample in zip(chats, samples, strict=True) if len(sample.ids) > max_length]
    mute = [chat.source for chat, sample in zip(chats, samples, strict=True) if not (sample.targets >= 0).any()]
    if as_json:
        found: dict[str, Any] = {
            "conversations": len(chats),
            "tokens": asdict(lengths),
            "longer_than_max_length": long,
            "without_target": mute,
        }
        found |= {"alike": [asdict(pair) for pair in pairs], "leaks": [asdict(pair) for pair in leaks]}
        terminal.say(json.dumps(found, ensure_ascii=False) + "\n")
        return int(bool(pairs or leaks or long or mute))
    replies = counted(sum(len(chat.replies) for chat in chats), "reply")
    terminal.say(
        f"{counted(len(chats), 'conversation')}, {replies}; {lengths.total:,} tokens, {lengths.learnt:,} of them learnt; "
        f"half of the conversations have up to {lengths.median}, nine in ten up to {lengths.ninetieth}, the longest {lengths.longest}\n"
    )
    for title, group in (("say the same or nearly", pairs), ("say the same or nearly, though one is held out", leaks)):
        for pair in group[:SHOWN]:
            terminal.say(f"{pair.first} and {pair.second} {title}: {'word for word' if pair.exact else f'{pair.share:.0%}'}\n")
        if len(group) > SHOWN:
            terminal.say(f"and {len(group) - SHOWN} more that {title}\n")
    for title, sources in ((f"longer than {max_length} tokens", long), ("without a reply to learn", mute)):
        if sources:
            terminal.say(f"{len(sources)} {title}: {', '.join(sources[:SHOWN])}{' …' if len(sources) > SHOWN else ''}\n")
    if not (pairs or leaks or long or mute):
        terminal.say("nothing is amiss\n")
    return int(bool(pairs or leaks or long or mute))


def samples_of(chats: "list[TrainingChat]", model: Path | None, personality: str | None) -> list[Any]:
    """As the model will read them; only its tokenizer is read."""
    from app.models.llama.checkpoint import open_checkpoint
    from townhall.cli.chat_options import ChatOptions
    from townhall.data.training_samples import SampleMaker
    from townhall.persona import load_persona

    tokenizer = open_checkpoint(ChatOptions(model=model).model_path()).tokenizer()
    return SampleMaker(tokenizer, load_persona(personality) if personality else None).samples(chats)


def report(counts: Any, words: dict[str, str]) -> str:
    return ", ".join(f"{count} × {words.get(name, name)}" for name, count in counts.most_common())


def refuse(fault: str) -> None:
    from townhall.data.errors import DataError

    raise DataError(fault)
