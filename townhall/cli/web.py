"""`townhall web`: flags in, a page in the browser until Ctrl-C."""

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from app.sampler_settings import sampler_values
from townhall.cli import terminal
from townhall.cli.chat_options import ChatOptions
from townhall.cli.flags import SAMPLER_KEYS, chat_options, some_flags
from townhall.cli.serve import SHARED, answering, read_keys
from townhall.errors import ModelError

if TYPE_CHECKING:
    from townhall.server.service import Service

EPILOG = """\b
Examples:
  townhall web
  townhall web --persona gary --open
  townhall web --server http://127.0.0.1:8000
"""
DRAWN = {"config", *SAMPLER_KEYS, "context"}  # what a request says, to any server


@click.command(
    help="Talk to the personas on a page in the browser, over a server that runs already or one that is started with it.", epilog=EPILOG
)
@click.option("--server", metavar="URL", help="a running `townhall serve`  [default: one is started here, with the model flags below]")
@click.option("--api-key-file", type=click.Path(path_type=Path), help="file with the key that --server asks for")
@click.option("--api-key", metavar="KEY", help="the same in the open: others see it in the process list")
@click.option(
    "--persona",
    "personas",
    multiple=True,
    metavar="NAME",
    help="whom to offer, or a YAML file, the first one first; may be repeated  [default: all]",
)
@click.option("--host", default="127.0.0.1", show_default=True, help="address to listen on")
@click.option("--port", type=click.IntRange(0, 65535), default=7860, show_default=True, help="0: any that is free")
@click.option("--no-auth", is_flag=True, help="let anybody in who can reach --host, and read every chat")
@click.option("--open/--no-browser", "open_browser", default=False, help="open the page in your browser  [default: print its address]")
@some_flags(*SHARED, "log_to")
@click.pass_context
def web(
    ctx: click.Context,
    /,
    server: str | None,
    api_key_file: Path | None,
    api_key: str | None,
    personas: tuple[str, ...],
    host: str,
    port: int,
    no_auth: bool,
    open_browser: bool,
    config: tuple[str, ...],
    **flags: Any,
) -> int:
    chat = chat_options(ctx, config, flags)
    drawn = chat.sampling()  # what is out of range ends this here
    try:
        from townhall.server import server as serving
        from townhall.web import run

        missing = None if find_spec("gradio") else "gradio"  # it takes seconds to import, so not yet
    except ModuleNotFoundError as error:
        missing = error.name
    if missing:
        raise ModelError(f"the page needs the package {missing}: pip install 'townhall[server,web]'")
    from townhall.logbook.logged_chat import default_folder
    from townhall.server.served_models import persona_id
    from townhall.web.sampling_controls import SamplingControls

    plain = SamplingControls(**sampler_values(drawn), seed=chat.seed, max_tokens=chat.count, context=chat.context)
    local = serving.is_loopback(host)
    if not local and not no_auth:
        raise serving.ServeError(f"--host {host} can be reached by others: pass --no-auth to let anybody in who can reach it")
    if server is not None:
        _refuse_model_flags(ctx, server)
        if not server.startswith(("http://", "https://")):
            raise ModelError(f"--server {server} is no address of a server; pass one such as http://127.0.0.1:8000")
    folder = chat.log_to or default_folder()
    if folder.suffix:
        raise ModelError(f"--log-to {folder} names a file; the page keeps many chats, so name a folder")
    listener = serving.bind(host, port)  # before anything that takes its time
    terminal.note("starting …")
    within = None
    try:
        if server is None:
            within = run.LocalServer(lambda key: _service(chat, personas, key))
            within.start()
            root: str = within.root
            key: str | None = within.key
        else:
            root, key = server, next(iter(read_keys(api_key, api_key_file)), None)
        served_models = run.fetch_served_models(root, key)
        first = persona_id(personas[0] if personas else chat.personality)
        known = [served_model.id for served_model in served_models]
        if first not in known and personas:
            raise ModelError(f"--persona {personas[0]} is not among those of the server: {', '.join(known)}")
        address = serving.url(listener).removesuffix("/v1") + "/"

        def ready() -> None:
            terminal.note(f"the page is at {address} and chats are kept in {folder}; Ctrl-C ends it")
            if open_browser:
                click.launch(address)

        run.show(root, key, served_models, first if first in known else known[0], folder, listener, local, plain, ready)
    finally:
        if within:
            within.stop()
        listener.close()
    return 0


def _service(chat: ChatOptions, personas: tuple[str, ...], key: str) -> "Service":
    """As `townhall serve` makes it, for this page only."""
    from townhall.cli.model_loading import load
    from townhall.prefix_cache import PrefixCache
    from townhall.server.service import Service

    options = answering(chat, personas, keys=(key,), grace=1.0)
    heads = PrefixCache.of_user(terminal.note) if chat.cache and not chat.fake else None
    return Service(options, lambda: load(chat), heads, terminal.note)


def _refuse_model_flags(ctx: click.Context, server: str) -> None:
    for param in ctx.command.params:
        name = str(param.name)
        if name in set(SHARED) - DRAWN and ctx.get_parameter_source(name) is not ParameterSource.DEFAULT:
            raise ModelError(
                f"{param.opts[0]} is for a server that is started here, and --server {server} runs already; leave one of them out"
            )
