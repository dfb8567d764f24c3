"""`townhall replay`: does this machine still say what the log says?"""

import json
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from townhall.cli.flags import some_flags
from townhall.cli.log import LOG, complete_logs, folder_option, open_index

if TYPE_CHECKING:
    from townhall.cli.chat_options import ChatOptions
    from townhall.logbook.log_reader import Log
    from townhall.logbook.replayer import Difference

EPILOG = """\b
Exit code 0 when every reply is the same, 1 when one differs.
\b
Examples:
  townhall replay last
  CPU=1 townhall replay 20261122 --json
"""


@click.command(help=f"Repeat a kept conversation with its seeds, and name the first token that differs. {LOG}", epilog=EPILOG)
@click.argument("name", metavar="LOG", shell_complete=complete_logs)
@folder_option
@click.option("--model", type=click.Path(path_type=Path), help="another model, or the same one in another place  [default: the log's]")
@click.option("--kv", type=click.Choice(["f16", "q8_0"]), help="what the context is kept as  [default: as in the log]")
@some_flags("lora")
@click.option("--json", "as_json", is_flag=True, help="print one JSON object instead of a sentence")
def replay(name: str, folder: Path | None, model: Path | None, kv: str | None, lora: tuple[str, ...], as_json: bool) -> int:
    from townhall.cli import terminal
    from townhall.cli.chat_setup import with_adapters
    from townhall.cli.model_loading import load
    from townhall.cli.reply_report import counted
    from townhall.conversation import Conversation
    from townhall.logbook import replayer as replaying
    from townhall.logbook.log_reader import read_log
    from townhall.logbook.logged_chat import COMPLETION
    from townhall.persona import load_persona
    from townhall.server.served_models import BARE_MODEL

    log = read_log(open_index(folder).find(name))
    options = options_of(log, model)
    options = replace(options, lora=lora or options.lora, kv=kv or options.kv)
    persona = BARE_MODEL if log.head.get("bare") is True else load_persona(options.personality)
    total = replaying.total(log)
    loaded = load(with_adapters(options, persona), fit=True)  # the window was asked for when the log was written, not now
    rehearsed = replaying.RehearsedModel(loaded.llama)
    for key, now in (("weights", "model"), ("adapters", "adapters"), ("device", "device")):
        if (before := log.head.get(key)) != (current := loaded.llama.new_cache().identity.get(now)):
            terminal.note(f"the log's {key}: {before}; here: {current}")
    if log.head.get("kind") == COMPLETION:
        outcome = replaying.replay_completion(log, rehearsed, options.count, options.context)
    else:

        def make(settings: dict[str, Any]) -> Conversation:
            """As the chat is set: another character, system prompt, context strategy."""
            speaker = load_persona(str(settings["model"])) if settings.get("model") else persona
            if settings.get("system"):
                speaker = replace(speaker, description=str(settings["system"]), style="")
            conversation = Conversation(
                rehearsed,
                speaker,
                format=options.format,
                context=str(settings.get("context") or options.strategy),
                max_tokens=options.count,
                think=settings["think"] if isinstance(settings.get("think"), bool) else options.think,
                think_tokens=options.think_tokens,
                history=options.compress,
            )
            conversation.prepare()
            return conversation

        outcome = replaying.replay(
            log,
            rehearsed,
            make({}),
            lambda so_far: terminal.progress(f"{so_far.replies} of {counted(total, 'reply')}, {counted(so_far.tokens, 'token')}: the same"),
            make,
        )
        terminal.progress("")
    if as_json:
        figures = {key: value for key, value in asdict(outcome).items() if key != "kept" or value}
        terminal.say(json.dumps({"id": log.id, "of": total} | figures, ensure_ascii=False) + "\n")
    elif found := outcome.difference:
        terminal.say(describe(found, loaded.llama.tokenizer) + "\n")
    else:
        terminal.say(f"{counted(outcome.replies, 'reply')}, {counted(outcome.tokens, 'token')}: all the same\n")
    if outcome.kept:
        what = f"{counted(outcome.kept, 'reply')} of another server's model"
        terminal.note(f"{what}: what was said elsewhere cannot be repeated here, so the kept text was taken as it is")
    return 1 if outcome.difference else 0


def describe(found: "Difference", tokenizer: Any) -> str:
    """A sentence for a person."""
    where = f"reply {found.reply} (line {found.line} of the log)"
    if found.position is None:
        return f"{where}: its prompt is another one; the persona, the words above it or the model's template have changed"

    def described(token: int | None) -> str:
        if token is None:
            return "the end"
        try:
            text = tokenizer.decode([token])
        except (LookupError, ValueError, OverflowError):  # a log may hold any number
            text = ""
        return f"{text!r} (id {token})" if text else f"id {token}"

    return f"{where} differs at token {found.position + 1}: the log has {described(found.expected)}, this run {described(found.got)}"


def options_of(log: "Log", model: Path | None) -> "ChatOptions":
    """The flags that the conversation was held with. LogError where the front matter does not say."""
    from app.sampler_settings import RARE_DEFAULTS
    from townhall.cli.chat_options import ChatOptions
    from townhall.cli.settings_schema import fault
    from townhall.errors import LogError

    said = log.head.get("settings")
    if not isinstance(said, dict):
        raise LogError(f"log {log.path}: its front matter does not say how the talk was held (settings), so it cannot be repeated")
    if "server" in said:  # a page of an earlier version, which knew the model ids of a server and nothing else
        raise LogError(
            f"log {log.path} is of a page that kept words alone, no tokens and no seeds, so it cannot be repeated; "
            "chats that the server keeps now can"
        )
    known = {field.name for field in fields(ChatOptions)} - {
        "prompt",
        "json",
        "log",
        "log_to",
        "resume",
        "timing",
        "profile",
        "require",
        "cache",
    }
    settings = {key: value for key, value in said.items() if key in known and value is not None}
    if found := fault(settings):
        raise LogError(f"log {log.path}, front matter: {found[1]}")
    if model is not None:
        settings = {key: value for key, value in settings.items() if key not in ("size", "gen")} | {"model": model}
    values: dict[str, Any] = {
        key: Path(value) if key == "model" else tuple(value) if isinstance(value, list) else value for key, value in settings.items()
    }
    unsaid = {key: value for key, value in RARE_DEFAULTS.items() if key not in said and not isinstance(value, list)}
    return ChatOptions(**{**unsaid, **values})
