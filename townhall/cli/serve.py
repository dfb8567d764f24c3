"""`townhall serve`: flags in, a server until it is told to stop."""

from pathlib import Path

import click

from townhall.cli import terminal
from townhall.cli.options import ChatOptions
from townhall.conversation import MAX_REPLY
from townhall.errors import ModelError
from townhall.template import FORMATS

EPILOG = """\b
Examples:
  townhall serve
  townhall serve --persona gary --port 8080
  townhall serve --host 0.0.0.0 --api-key-file key.txt
"""


@click.command(help="Serve the personas through OpenAI's API.", epilog=EPILOG)
@click.option("--model", type=click.Path(path_type=Path), help="model file  [default: the one that pull_llama.sh fetches]")
@click.option("--persona", "personas", multiple=True, metavar="NAME", help="whom to serve, or a YAML file; may be repeated  [default: all]")
@click.option("--host", default="127.0.0.1", show_default=True, help="address to listen on")
@click.option("--port", type=click.IntRange(0, 65535), default=8000, show_default=True, help="0: any that is free")
@click.option("--api-key", metavar="KEY", help="ask every client for this key; others see it in the process list, so a file is better")
@click.option("--api-key-file", type=click.Path(path_type=Path), help="file with a key on each line")
@click.option("--no-auth", is_flag=True, help="let anybody in who can reach --host")
@click.option("--cors", multiple=True, metavar="ORIGIN", help="origin whose pages may ask, such as http://localhost:3000; may be repeated")
@click.option("--slots", type=click.IntRange(1, 256), help="conversations kept at a time  [default: as memory allows, at most 16]")
@click.option("--max-queue", type=click.IntRange(min=0), default=64, show_default=True, help="requests that may wait for a slot")
@click.option("--max-context", type=int, default=1024, show_default=True, metavar="N", help="context window in tokens")
@click.option(
    "--max-tokens", type=click.IntRange(min=1), default=MAX_REPLY, show_default=True, help="in an answer, where a request does not say"
)
@click.option(
    "--context", type=click.Choice(["slide", "shift", "stop"]), default="slide", show_default=True, help="how a long talk is made to fit"
)
@click.option(
    "--format", type=click.Choice(["auto", *FORMATS]), default="auto", show_default=True, help="prompt format; auto follows the model"
)
@click.option("--timeout", type=click.FloatRange(min=1), default=600.0, show_default=True, metavar="S", help="seconds a request may take")
@click.option(
    "--grace", type=click.FloatRange(min=1), default=10.0, show_default=True, metavar="S", help="seconds to finish in after SIGTERM"
)
@click.option("--background-agent", multiple=True, metavar="TEXT", help="requests whose User-Agent contains this wait for the others")
@click.option(
    "--quantize", type=click.Choice(["int8"]), is_flag=False, flag_value="int8", metavar="[int8]", help="make float weights 8-bit integers"
)
@click.option("--device", metavar="NAME", help="CPU, CL, CL:1, CUDA, … or part of a name that townhall devices lists; wins over DEV")
@click.option("--require", type=click.Choice(["gpu", "cpu"]), help="end with an error unless the weights sit on such a device")
@click.option("--cache/--no-cache", default=True, show_default=True, help="store what the model read of a persona, and restore it")
def serve(
    model: Path | None,
    personas: tuple[str, ...],
    host: str,
    port: int,
    api_key: str | None,
    api_key_file: Path | None,
    no_auth: bool,
    cors: tuple[str, ...],
    slots: int | None,
    max_queue: int,
    max_context: int,
    max_tokens: int,
    context: str,
    format: str,
    timeout: float,
    grace: float,
    background_agent: tuple[str, ...],
    quantize: str | None,
    device: str | None,
    require: str | None,
    cache: bool,
) -> int:
    chat = ChatOptions(model=model, max_context=max_context, quantize=quantize, device=device, require=require)
    model_id = str(model).partition("=")[0] if chat.fake else chat.model_path().name.removesuffix(".gguf")
    try:
        from townhall.server import serve as server
        from townhall.server.options import Limits, ServeOptions
        from townhall.server.service import Service
    except ModuleNotFoundError as error:
        raise ModelError(f"the server needs the package {error.name}: pip install 'townhall[server]'") from error
    from townhall.cli.loading import load
    from townhall.head_cache import HeadCache
    from townhall.persona import list_personas, load_persona

    for name in personas:
        load_persona(name)  # a persona that is broken ends this here
    keys = _keys(api_key, api_key_file)
    local = server.is_loopback(host)
    if not local and not keys and not no_auth:
        raise server.ServeError(
            f"--host {host} can be reached by others: pass --api-key-file FILE, or --no-auth to let anybody in who can reach it"
        )
    options = ServeOptions(
        model_id=model_id,
        personas=personas or tuple(list_personas()),
        format=format,
        context=context,
        max_tokens=max_tokens,
        slots=slots,
        keys=keys,
        cors=cors,
        hosts=(*server.LOOPBACK, host) if local and not keys and not no_auth else (),
        background_agents=background_agent,
        grace=grace,
        limits=Limits(queue=max_queue, request=timeout),
    )
    listener = server.bind(host, port)
    service = Service(options, lambda: load(chat), HeadCache.of_user(terminal.note) if cache and not chat.fake else None)

    def ready() -> None:
        terminal.note(f"serving {', '.join(voice.id for voice in service.voices)} at {server.url(listener)}; Ctrl-C ends it")

    server.run(service, listener, ready)
    return 0


def _keys(key: str | None, file: Path | None) -> tuple[str, ...]:
    """The keys that were given; ModelError where a file holds none."""
    keys = [key] if key is not None else []
    if file is not None:
        try:
            keys += file.read_text(encoding="utf-8").split()
        except (OSError, UnicodeDecodeError) as error:
            raise ModelError(f"--api-key-file {file} cannot be read: {getattr(error, 'strerror', None) or error}") from error
        if not keys:
            raise ModelError(f"--api-key-file {file} holds no key; put one on a line of its own")
    if "" in keys:
        raise ModelError("--api-key is empty; pass a key, or --no-auth")
    return tuple(keys)
