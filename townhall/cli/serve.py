"""`townhall serve`: flags in, a server until Ctrl-C."""

import os
import stat
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from ext.tinygrad.errors import TownhallError
from townhall.adapter_spec import parse_all
from townhall.cli import terminal
from townhall.cli.chat_options import WEIGHTS, ChatOptions
from townhall.cli.fit import Size
from townhall.cli.flags import SAMPLER_KEYS, chat_options, some_flags
from townhall.conversation import MAX_REPLY
from townhall.errors import ModelError

if TYPE_CHECKING:
    from townhall.language_model import Progress
    from townhall.prefix_cache import PrefixCache
    from townhall.server.serve_options import ServeOptions
    from townhall.server.service import Service

MAX_KEYS = 64 << 10  # bytes
SEVERAL_SLOTS = 4  # of each of several models, where --slots does not say: what they take is planned before they are loaded
EPILOG = """\b
Examples:
  townhall serve
  townhall serve --persona gary --port 8080
  townhall serve -c experiment --max-context 2048
  townhall serve --lora pirate=pirate-lora
  townhall serve --via https://llm.example.com/v1 --via-model big-one
  townhall serve --host 0.0.0.0 --api-key-file key.txt
"""


# what `run` takes itself; the other flags are the conversation's
SERVING = (
    *("personas", "host", "port", "api_key", "api_key_file", "no_auth", "strict_model", "cors", "slots", "max_queue", "timeout", "grace"),
    *("background_agent", "models_dir", "memory", "pinned"),
)
# what a conversation's flags and settings files say of the model, of how it draws, and of what it sees
SHARED = (
    *("config", "model", "size", "gen", "quantize", "lora", "speculate", "draft", "eos", "device", "require", "cache"),
    *("lorebook", "knowledge", *SAMPLER_KEYS, "max_context", "kv", "context", "format", "think", "think_tokens", "enrich"),
    *("via", "via_model", "via_key", "via_timeout", "via_price", "compress"),
)


F = TypeVar("F", bound=Callable[..., Any])
Opener = Callable[[str], object]


max_tokens = click.option(
    "--max-tokens",
    "count",
    type=click.IntRange(min=1),
    default=MAX_REPLY,
    show_default=True,
    metavar="N",
    help="in an answer (a file's count)",
)


def served(port: int) -> Callable[[F], F]:
    """The options of a command that serves; `port` is where it listens by default."""
    options = [
        some_flags(*SHARED),
        click.option(
            "--persona", "personas", multiple=True, metavar="NAME", help="persona to serve, or a YAML file; may be repeated  [default: all]"
        ),
        max_tokens,
        click.option("--host", default="127.0.0.1", show_default=True, help="address to listen on"),
        click.option("--port", type=click.IntRange(0, 65535), default=port, show_default=True, help="0: any that is free"),
        click.option(
            "--api-key", metavar="KEY", help="ask every client for this key; others see it in the process list, so a file is better"
        ),
        click.option("--api-key-file", type=click.Path(path_type=Path), help="file with a key on each line"),
        click.option("--no-auth", is_flag=True, help="let anybody in who can reach --host"),
        click.option(
            "--strict-model/--no-strict-model",
            default=False,
            show_default=True,
            help="refuse a model's name that is not served; without, the bare model answers and a header (X-Townhall-Warning) says so",
        ),
        click.option(
            "--cors", multiple=True, metavar="ORIGIN", help="origin whose pages may ask, such as http://localhost:3000; may be repeated"
        ),
        click.option("--slots", type=click.IntRange(1, 256), help="conversations kept at a time  [default: as memory allows, at most 16]"),
        click.option("--max-queue", type=click.IntRange(min=0), default=64, show_default=True, help="requests that may wait for a slot"),
        click.option(
            "--timeout", type=click.FloatRange(min=1), default=600.0, show_default=True, metavar="S", help="seconds a request may take"
        ),
        click.option(
            "--grace", type=click.FloatRange(min=1), default=10.0, show_default=True, metavar="S", help="seconds to finish in after SIGTERM"
        ),
        click.option(
            "--background-agent", multiple=True, metavar="TEXT", help="requests whose User-Agent contains this wait for the others"
        ),
        click.option(
            "--models-dir",
            multiple=True,
            type=click.Path(path_type=Path),
            metavar="FOLDER",
            help="serve the models of this folder, too: each is loaded when a request names it, and leaves when another needs its room; "
            "may be repeated",
        ),
        click.option(
            "--memory",
            type=Size(),
            multiple=True,
            metavar="SIZE",
            help="that models may take with --models-dir (8GB, or CUDA:1=24GB for one more device); may be repeated  [default: what the "
            "first model's device has, less a reserve]",
        ),
        click.option(
            "--pin",
            "pinned",
            multiple=True,
            metavar="NAME",
            help="model of --models-dir to load at the start and to keep in memory; may be repeated",
        ),
    ]

    def add(command: F) -> F:
        for option in reversed(options):
            command = option(command)
        return command

    return add


@click.command(
    help="Serve the personas through OpenAI's API; what a request does not say is as flags and settings files say.", epilog=EPILOG
)
@served(8000)
@click.option(
    "--chats/--no-chats",
    default=False,
    show_default=True,
    help="keep chats as `townhall chat` does, and offer all of them under /townhall/chats",
)
@some_flags("log_to")
@click.pass_context
def serve(ctx: click.Context, /, config: tuple[str, ...], chats: bool, **flags: Any) -> int:
    return run(ctx, config, flags, chats=chats)


def run(
    ctx: click.Context,
    config: tuple[str, ...],
    flags: dict[str, Any],
    chats: bool = False,
    page: bool = False,
    opened: Opener | None = None,
) -> int:
    """Serve as the options of `served` say, until a signal; with `page` the page too, and `opened` gets its address when it is there."""
    given = {name: flags.pop(name) for name in SERVING}
    chat = chat_options(ctx, config, flags)
    try:
        from townhall.server import server as server
    except ModuleNotFoundError as error:
        raise ModelError(f"the server needs the package {error.name}: pip install 'townhall[server]'") from error

    folder = chat_folder(chat) if chats else None
    keys, host, open_to_all = read_keys(given["api_key"], given["api_key_file"]), given["host"], given["no_auth"]
    hosts = known_hosts(host, keys, open_to_all)
    service = open_service(chat, given, keys=keys, cors=given["cors"], hosts=hosts, grace=given["grace"], page=page, chats=folder)
    listener = server.bind(host, given["port"])

    def ready() -> None:
        address = server.url(listener)
        if page:
            terminal.note(f"the page is at {address.removesuffix('v1')} and chats are kept in {folder}; Ctrl-C ends it")
        else:
            terminal.note(f"serving {', '.join(served_model.id for served_model in service.served_models)} at {address}; Ctrl-C ends it")
        if opened:
            opened(address.removesuffix("v1"))

    server.run(service, listener, ready)
    return 0


def known_hosts(host: str, keys: tuple[str, ...], open_to_all: bool) -> tuple[str, ...]:
    """The names under which a server may be spoken to, none: any. ServeError where others could reach it without a key."""
    from townhall.server import server

    local = server.is_loopback(host)
    if not local and not keys and not open_to_all:
        raise server.ServeError(
            f"--host {host} can be reached by others: pass --api-key-file FILE, or --no-auth to let anybody in who can reach it"
        )
    return (*server.LOOPBACK, host) if local and not keys and not open_to_all else ()


def open_service(chat: ChatOptions, given: dict[str, Any], name: str | None = None, **others: Any) -> "Service":
    """The service that flags describe: `given` are those of SERVING, `others` go to its `ServeOptions`, `name` is the bare model's."""
    from townhall.cli.model_loading import load
    from townhall.prefix_cache import PrefixCache
    from townhall.server.serve_options import Limits
    from townhall.server.service import Service

    several = bool(given["models_dir"])
    if (given.get("memory") or given.get("pinned")) and not several:
        raise ModelError("--memory and --pin are for several models: pass --models-dir FOLDER, too")
    options = answering(
        chat,
        given["personas"],
        strict_model=given["strict_model"],
        slots=given["slots"] or (SEVERAL_SLOTS if several else None),
        background_agents=given["background_agent"],
        model_folders=(WEIGHTS, *given["models_dir"]),
        limits=Limits(queue=given["max_queue"], request=given["timeout"]),
        **others,
    )
    heads = PrefixCache.of_user(terminal.note) if chat.cache and not chat.fake else None
    options = replace(options, model_id=name) if name else options
    service = Service(options, lambda: load(unadapted(chat), serve=True, progress=service.advance), heads, terminal.note)
    if several:
        _pool(service, chat, heads, dict(given.get("memory", ())), given.get("pinned", ()))
    return service


def _pool(service: "Service", chat: ChatOptions, heads: "PrefixCache | None", memory: dict[str, int], pinned: Sequence[str]) -> None:
    """Have the service serve the models of its folders, too."""
    from townhall.cli.model_loading import Loaded, load
    from townhall.default_window import WINDOW
    from townhall.server.model_pool import ModelPool
    from townhall.server.model_rooms import ModelRooms

    def opened(path: Path, device: str | None, progress: "Progress") -> Loaded:
        # a draft model is of one vocabulary, and --size names the folder of the first
        return load(replace(unadapted(chat), model=path, size=None, gen=None, draft=None), True, True, device, progress)

    options = service.options
    rooms = ModelRooms(memory, chat.max_context or WINDOW, options.slots or SEVERAL_SLOTS, chat.kv)
    path = None if chat.fake else chat.model_path()
    ModelPool(service, path, options.model_folders, opened, rooms, pinned, heads, terminal.note)


def chat_folder(chat: ChatOptions) -> Path:
    """Where a server keeps chats. ModelError where --log-to names a file."""
    from townhall.logbook.logged_chat import default_folder

    folder = chat.log_to or default_folder()
    if folder.suffix:
        raise ModelError(f"--log-to {folder} names a file; a server keeps many chats, so name a folder")
    return folder


def _usable(names: Sequence[str]) -> list[str]:
    """Those that load; of the others, which were not asked for, it is said why they are not served."""
    from townhall.persona import load_persona

    usable = []
    for name in names:
        try:
            load_persona(name)
            usable.append(name)
        except TownhallError as error:
            terminal.note(f"{name} is not served: {error}")
    return usable


def unadapted(chat: ChatOptions) -> ChatOptions:
    """Adapters are for requests to name: the model itself has none."""
    return replace(chat, lora=())


def answering(chat: ChatOptions, personas: tuple[str, ...], **others: Any) -> "ServeOptions":
    """Who answers and how, as files and flags say; what is out of range or broken ends it here, in one sentence."""
    from townhall.cli.chat_setup import check_via, endpoint_of
    from townhall.cli.model_loading import refuse_adapters
    from townhall.persona import list_personas, load_persona
    from townhall.persona_sources import check
    from townhall.server.serve_options import ServeOptions
    from townhall.server.served_models import persona_id

    if chat.fake:
        refuse_adapters(chat)
    check_via(chat)
    model_id = str(chat.model).partition("=")[0] if chat.fake else chat.model_path().name.removesuffix(".gguf")
    chat.sampling()
    lorebooks = tuple(Path(name).expanduser() for name in chat.lorebook)
    check(lorebooks, chat.knowledge)
    first = personas[0] if personas else chat.personality
    leave_out = not personas and chat.max_context is None  # neither was asked for, so one may give way to the other
    if personas:
        for name in personas:
            load_persona(name)
    else:
        personas = tuple(dict.fromkeys([*_usable(list_personas()), chat.personality]))  # a file's persona may be one of the user's own
        load_persona(chat.personality)
    return ServeOptions(
        model_id=model_id,
        personas=personas,
        first=persona_id(first),
        leave_out=leave_out,
        lorebooks=lorebooks,
        knowledge=chat.knowledge,
        format=chat.format,
        context=chat.strategy,
        via=endpoint_of(chat) if chat.via is not None else None,
        history=chat.compress,
        max_tokens=chat.count,
        plain_penalty=chat.repeat_penalty or 1.0,
        think=chat.think,
        think_tokens=chat.think_tokens,
        enrich=chat.enrich,
        speculate=bool(chat.speculate or chat.draft),
        log_settings=unadapted(chat).that_matter(),
        adapters=parse_all(chat.lora),
        **others,
    )


def read_keys(key: str | None, file: Path | None) -> tuple[str, ...]:
    """The keys that were given; ModelError where a file holds none."""
    keys = [key] if key is not None else []
    if file is not None:
        try:
            with file.open("rb") as opened:
                mode, listed = os.fstat(opened.fileno()).st_mode, opened.read(MAX_KEYS + 1)
        except OSError as error:
            raise ModelError(f"--api-key-file {file} cannot be read: {error.strerror or error}") from error
        if len(listed) > MAX_KEYS:
            raise ModelError(f"--api-key-file {file} is larger than {MAX_KEYS // 1024} KB; it should hold a key on each line")
        lines = [line.strip() for line in listed.splitlines() if line.strip()]
        if not lines:
            raise ModelError(f"--api-key-file {file} holds no key; put one on a line of its own")
        if os.name == "posix" and stat.S_ISREG(mode) and mode & (stat.S_IRGRP | stat.S_IROTH):
            terminal.note(f"--api-key-file {file} can be read by others on this machine: chmod 600 {file}")
        keys += [line.decode("utf-8", "replace") for line in lines]
    if "" in keys:
        raise ModelError("--api-key is empty; pass a key, or --no-auth")
    if not all(key.isascii() and key.isprintable() and " " not in key for key in keys):
        raise ModelError("an API key holds a space or a character that no header can carry; use ASCII letters, digits and signs")
    return tuple(keys)
