"""Slash commands: one entry each, from which /help, completion and the manual are made.

/settings shows and changes the settings of a running session, checked like those of a settings file.
"""

import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from app.sampler_settings import worth_noting
from townhall.adapter_spec import NONE, AdapterSpec, parse_all
from townhall.cli import chat_commands, terminal
from townhall.cli.chat_options import ChatOptions, as_word, in_one_line
from townhall.cli.chat_setup import with_adapters
from townhall.cli.chat_state import ChatState
from townhall.cli.reply_report import counted
from townhall.errors import CommandError
from townhall.persona import list_personas
from townhall.yaml_file import nearest

# what cannot change while a session runs, and what to do instead; everything else can
FIXED = {
    "model": "use /model PATH",
    "size": "use /model PATH",
    "gen": "use /model PATH",
    "personality": "use /persona NAME",
    "log_to": "use /branch, or /save PATH",
}
AT_START = (
    "greeting",
    "max_context",
    "kv",
    "quantize",
    "speculate",
    "draft",
    "eos",
    "device",
    "require",
    "cache",
    "log",
    "profile",
    "via",
    "via_model",
    "via_key",
    "via_timeout",
    "via_price",
    "compress",
)
NEW_LOG = ("context", "format", "lora", "lorebook", "knowledge")  # how prompts are laid out, and who answers: a log says that once


def show(options: ChatOptions, key: str = "") -> str:
    """One setting, or all but those that few people change, where they are as they always were."""
    from townhall.cli.settings_schema import Settings

    values = {name: getattr(options, name) for name in Settings.model_fields if hasattr(options, name)}
    if not key:
        values = {name: values[name] for name in worth_noting(values)}
        width = max(map(len, values))
        return "\n".join(f"{name:<{width}}  {_spelled(value)}" for name, value in values.items())
    _known(key, list(values))
    return f"{key} is {_spelled(values[key])}; it takes {Settings.model_fields[key].description}"


def change(chat_state: ChatState, key: str, value: str) -> str:
    """Set one, and say so. CommandError names the fault and the mend; other TownhallErrors come from what the setting is for."""
    from townhall.cli.settings_schema import Settings, fault

    _known(key, [name for name in Settings.model_fields if hasattr(chat_state.options, name)])
    if key in FIXED:
        raise CommandError(f"{key} cannot be set in a session; {FIXED[key]}")
    if key in AT_START:
        flag = f"--{key.replace('_', '-')}"
        raise CommandError(f"{key} cannot change while the session runs; leave, and start it again with {flag}")
    parsed = as_word(key, parse(value))
    if found := fault({key: parsed}):
        raise CommandError(found[1])
    in_new_log = chat_state.set(key, tuple(parsed) if isinstance(parsed, list) else parsed)
    where = f"; the talk goes on in {chat_state.keeper.path}" if in_new_log and chat_state.keeper else ""
    return f"{key} is {_spelled(getattr(chat_state.options, key))} for this session{where}"


def parse(value: str) -> Any:
    """As a settings file would take it."""
    try:
        return yaml.safe_load(value)
    except (yaml.YAMLError, ValueError, RecursionError):
        return value


def _known(key: str, keys: list[str]) -> None:
    if key not in keys:
        raise CommandError(f"there is no setting {key[:40]!r}; {nearest(key, keys, '/settings takes')}")


def _spelled(value: Any) -> str:
    if value is None or value == ():
        return "not set"
    return str(value).lower() if isinstance(value, bool) else in_one_line(value) if isinstance(value, tuple) else str(value)


@dataclass(frozen=True)
class CommandResult:
    """What the session is to do next. `say` is a message in the place of the last `instead` exchanges; `line` one to be edited first.

    With `carry_on` no message is said: the last answer goes on, with the words `say` in between.
    """

    leave: bool = False
    greet: bool = False
    say: str | None = None
    line: str = ""
    instead: int = 0
    carry_on: bool = False


@dataclass(frozen=True)
class Command:
    """`run` takes the talk and what stands after the name."""

    name: str
    usage: str
    help: str
    run: Callable[[ChatState, str], CommandResult | None]


def run(chat_state: ChatState, line: str) -> CommandResult:
    """Do as a line says. TownhallError, in one sentence, for what cannot be done: then all is as before."""
    name, _, argument = line.partition(" ") if " " in line.split("\n")[0] else line.partition("\n")
    name = ALIASES.get(name, name)
    if name not in COMMANDS:
        raise CommandError(f"there is no {name[:40]}; {nearest(name, list(COMMANDS), 'there is')}; /help tells more")
    return COMMANDS[name].run(chat_state, argument.strip()) or CommandResult()


def is_command(text: str) -> bool:
    """In a pipe these lines are commands, and any other is said, whatever it begins with."""
    return bool(text.strip()) and text.split()[0] in COMMANDS | ALIASES


def completions() -> dict[str, str]:
    """Every command with a line of help."""
    return {command.name: command.help for command in COMMANDS.values()}


def manual() -> str:
    """All commands, for people."""
    names = [f"{command.name} {command.usage}".strip() for command in COMMANDS.values()]
    width = max(map(len, names))
    return "\n".join(f"{name:<{width}}  {command.help}" for name, command in zip(names, COMMANDS.values(), strict=True))


def _edit(chat_state: ChatState, text: str) -> CommandResult:
    if text.startswith("#"):
        return CommandResult(line=chat_commands.edit(chat_state, text))
    instead = 0 if chat_state.unanswered is not None else 1
    last = chat_state.last_question
    if text:
        return CommandResult(say=text, instead=instead)
    if not sys.stdin.isatty():
        raise CommandError("in a pipe /edit takes the new text: /edit How far is the sun?")
    return CommandResult(line=last, instead=instead)  # Ctrl-C on it leaves the turn as it is


def _retry(chat_state: ChatState, rest: str) -> CommandResult:
    _nothing("/retry", rest)
    if chat_state.options.temperature == 0 and not chat_state.prefill and chat_state.unanswered is None:
        terminal.note("at temperature 0 a retry says the same again; /settings temperature 0.7 lets it vary")
    return CommandResult(say=chat_state.last_question, instead=0 if chat_state.unanswered is not None else 1)


def _continue(chat_state: ChatState, words: str) -> CommandResult:
    return CommandResult(say=words, carry_on=True)


def _impersonate(chat_state: ChatState, words: str) -> CommandResult | None:
    line = chat_commands.impersonated(chat_state, words)
    if sys.stdin.isatty():
        return CommandResult(line=line)  # to be edited and sent
    terminal.say(f"{line}\n")
    return None


def _greeting(chat_state: ChatState, number: str) -> CommandResult | None:
    if not number:
        for at, text in enumerate(chat_state.persona.greetings, 1):
            terminal.note(f"{'*' if text == chat_state.persona.greeting else ' '} {at} {_short(text)}")
        return None
    chat_state.greet(chat_commands.number(number, "/greeting"))
    return CommandResult(greet=True)


def _prefill(chat_state: ChatState, text: str) -> None:
    if not text and not chat_state.prefill:
        raise CommandError("/prefill takes the words that the next answer is to begin with: /prefill The moon is")
    chat_state.conversation.prompt.opening_ids(text)  # refuses what would end it
    chat_state.prefill = text
    terminal.note(f"the next answer begins with {text!r}; /retry begins the last one so" if text else "the next answer begins as it likes")


def _persona(chat_state: ChatState, name: str) -> CommandResult | None:
    if not name:
        for known in list_personas():
            terminal.note(f"{'*' if known == chat_state.options.personality.lower() else ' '} {known}")
        terminal.note("/persona NAME, or the path of a YAML file, begins a talk with another")
        return None
    chat_state.meet(name)
    terminal.note(f"{chat_state.persona.name} is here, and the talk begins anew; the model is the one that was loaded")
    return CommandResult(greet=True)


def _model(chat_state: ChatState, path: str) -> None:
    if not path:
        for loaded in chat_state.models:
            mark = "*" if loaded.llama is chat_state.loaded.llama else " "
            terminal.note(f"{mark} {loaded.path}, window of {loaded.llama.max_context}")
        terminal.note("/model PATH goes on with another; these need not be loaded again")
        return
    known = [loaded.path for loaded in chat_state.models if loaded.path and path in (str(loaded.path), loaded.path.name, loaded.path.stem)]
    fresh = chat_state.move(known[0] if known else Path(path).expanduser())
    loaded_already = "" if fresh else ", which was loaded already"
    terminal.note(f"{chat_state.persona.name} speaks through {chat_state.loaded.path} now{loaded_already}; {_kept(chat_state)}")


def _lora(chat_state: ChatState, rest: str) -> None:
    options, persona = chat_state.options, chat_state.persona
    now = [str(spec) for spec in parse_all(with_adapters(options, persona).lora)]
    word, _, argument = rest.partition(" ")
    if not rest:
        for spec in parse_all(now):
            terminal.note(f"* {spec.path}, scale {spec.scale:g}")
        terminal.note(
            "/lora PATH[:SCALE] lays another over the model, or has one count otherwise; /lora off [PATH], /lora on" if now else _HOW
        )
        return
    if word == "on":
        wanted = chat_state.laid_off or list(persona.lora)
        if not wanted:
            raise CommandError("no adapter was taken off in this session; /lora PATH[:SCALE] lays one over the model")
    elif word == "off":
        gone = [str(spec) for spec in parse_all(now) if not argument or argument in (spec.name, str(spec.path), spec.path.name)]
        if not gone:
            raise CommandError(f"no adapter is called {argument[:60]}; /lora lists them" if now else "no adapter is in use")
        wanted, chat_state.laid_off = [text for text in now if text not in gone], gone
    else:
        new = AdapterSpec.parse(rest, "/lora")
        wanted = [*(str(spec) for spec in parse_all(now) if spec.path.absolute() != new.path.absolute()), str(new)]
    in_new_log = chat_state.set("lora", tuple(wanted) or (NONE,))
    shown = ", ".join(f"{spec.name} at {spec.scale:g}" for spec in parse_all(wanted)) or "no adapter"
    where = f"; the talk goes on in {chat_state.keeper.path}" if in_new_log and chat_state.keeper else ""
    terminal.note(f"{persona.name} speaks through {shown} now{where}")


_HOW = "no adapter is in use; /lora PATH[:SCALE] lays one over the model"


def _settings(chat_state: ChatState, rest: str) -> None:
    key, _, value = rest.partition(" ")
    options = replace(chat_state.options, max_context=chat_state.loaded.llama.max_context)
    terminal.note(change(chat_state, key, value.strip()) if value else show(options, key))


def _context(chat_state: ChatState, rest: str) -> None:
    if rest not in ("", "full"):
        raise CommandError(f"/context takes nothing, or the word full, not {rest[:40]!r}")
    terminal.note(chat_state.conversation.usage().describe())
    if last := chat_state.conversation.last:
        terminal.note(last.receipt.describe_parts())
    if rest:
        terminal.note(chat_state.conversation.history())


def _cost(chat_state: ChatState, rest: str) -> None:
    if rest:
        raise CommandError(f"/cost takes nothing, not {rest[:40]!r}")
    terminal.note(chat_state.costs.describe() or "no other server has answered in this session, so it cost nothing")


def _save(chat_state: ChatState, path: str) -> None:
    if path or not chat_state.keeper:
        terminal.note(f"saved in {chat_state.save(Path(path).expanduser() if path else None)}")
    else:
        terminal.note(f"this talk is kept in {chat_state.keeper.path}")


def _load(chat_state: ChatState, name: str) -> None:
    from townhall.logbook.log_index import Index
    from townhall.logbook.log_reader import read_log

    if not name:
        raise CommandError("/load takes a log: its path, its id or the beginning of that, or the word last")
    index = Index(chat_state.folder)
    # the newest is as a rule this very talk
    log = read_log(index.last(chat_state.takes) if name == "last" else index.find(str(Path(name).expanduser())))
    count = chat_state.take_up(log)
    terminal.note(
        f"{chat_state.persona.name} remembers {counted(count, 'exchange')} from {log.path}, which stays as it is; {_kept(chat_state)}"
    )


def _branch(chat_state: ChatState, title: str) -> None:
    if chat_commands.numbered(title):
        return chat_commands.branch(chat_state, title)
    before = chat_state.keeper.path if chat_state.keeper else None
    terminal.note(f"from here on this talk is kept in {chat_state.branch(title).path}; {before} stays as it is")


def _undo(chat_state: ChatState, rest: str) -> None:
    if rest and not (rest.isascii() and rest.isdigit() and 0 < int(rest[:9]) and len(rest) < 10):
        raise CommandError(f"/undo takes how many exchanges are to be taken back, a number from 1, not {rest[:40]!r}")
    if not (taken := chat_state.undo(int(rest or 1))):
        raise CommandError("there is nothing to take back")
    left = chat_state.conversation.exchanges
    now = f"the last thing you said is now {_short(left[-1].user.text)!r}" if left else "nothing has been said now"
    terminal.note(f"took back {counted(taken, 'exchange')}; {now}")


def _reset(chat_state: ChatState, rest: str) -> None:
    _nothing("/reset", rest)
    chat_state.reset()
    terminal.note(f"{chat_state.persona.name} has forgotten everything you said")


def _help(chat_state: ChatState, name: str) -> None:
    if not name:
        terminal.note(f"{manual()}\nCtrl-C stops an answer, Ctrl-D leaves")
        return
    name = f"/{name.removeprefix('/')}"
    name = ALIASES.get(name, name)
    if name not in COMMANDS:
        raise CommandError(f"there is no {name}; {nearest(name, list(COMMANDS), 'there is')}")
    command = COMMANDS[name]
    terminal.note(f"{command.name} {command.usage}".strip() + f": {command.help}")


def _exit(chat_state: ChatState, rest: str) -> CommandResult:
    return CommandResult(leave=True)


def _nothing(name: str, rest: str) -> None:
    if rest:
        raise CommandError(f"{name} takes nothing after it, not {rest[:40]!r}")


def _kept(chat_state: ChatState) -> str:
    return f"from here on the talk is kept in {chat_state.keeper.path}" if chat_state.keeper else "nothing is kept (--no-log)"


def _short(text: str, width: int = 60) -> str:
    line = " ".join(text.split())
    return line if len(line) <= width else f"{line[: width - 1]}…"


COMMANDS = {
    command.name: command
    for command in [
        Command("/edit", "[#N] [TEXT]", "change what you said last, and have it answered anew; #N: change message N, nothing else", _edit),
        Command("/retry", "", "have the last message answered anew; the former reply is kept as a swipe", _retry),
        Command("/swipe", "[N]", "list the replies to the last message, or choose one", chat_commands.swipe),
        Command("/continue", "[WORDS]", "have the last reply carried on, with these words in between", _continue),
        Command("/impersonate", "[WORDS]", "have the model write what you might say next", _impersonate),
        Command("/messages", "[N]", "the last messages with their numbers, or the last N", chat_commands.messages),
        Command("/delete", "N [below]", "take message N back, or all below it as well", chat_commands.delete),
        Command("/rate", "good|bad|off [#N]", "rate the last reply, or reply N; townhall data from-logs chooses by it", chat_commands.rate),
        Command("/prefill", "TEXT", "words that the next answer begins with, or a retry", _prefill),
        Command("/undo", "[N]", "take back the last exchange, or the last N", _undo),
        Command("/persona", "[NAME]", "list the personas, or begin a talk with another one", _persona),
        Command("/model", "[PATH]", "list what is loaded, or go on with another model", _model),
        Command("/lora", "[PATH[:SCALE]|on|off]", "list the adapters in use, lay one over the model, or take it off", _lora),
        Command("/settings", "[KEY [VALUE]]", "show how answers are made, or change it for this session", _settings),
        Command("/context", "[full]", "how full the window is; full: all that was said, and what of it the model no longer sees", _context),
        Command("/cost", "", "what answers of another server came to in this session: tokens, and money by --via-price", _cost),
        Command("/save", "[PATH]", "say where this talk is kept, or write it to a log at PATH", _save),
        Command("/load", "PATH|ID", "take up a talk that was kept, in a new log", _load),
        Command("/branch", "[#N|NAME]", "go on below message N; or in a new log that begins with what was said", _branch),
        Command("/branches", "[N]", "where the talk parted, or go on along the branch that message N is on", chat_commands.branches),
        Command("/note", "[DEPTH] [TEXT|off]", "an author's note, DEPTH messages before the end of every prompt (4)", chat_commands.note),
        Command("/greeting", "[N]", "list the greetings, or begin anew with another", _greeting),
        Command("/search", "WORDS", "find messages that hold all the words, in all talks that were kept", chat_commands.search),
        Command("/reset", "", "begin anew", _reset),
        Command("/help", "[COMMAND]", "this list, or a line about one of them", _help),
        Command("/exit", "", "leave, as Ctrl-D does", _exit),
    ]
}
ALIASES = {"/quit": "/exit", "/bye": "/exit"}
