"""The page as an application: Gradio behind its shield, beside it the few files that are ours."""

import asyncio
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from pathlib import Path

from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from ext.tinygrad.errors import TownhallError
from townhall.web.avatars import portrait
from townhall.web.chat_store import ChatStore
from townhall.web.gradio_offline import gr
from townhall.web.page import build
from townhall.web.request_filter import RequestFilter
from townhall.web.sampling_controls import PLAIN, SamplingControls

STATIC = Path(__file__).parent / "static"
KINDS = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml", ".md": "text/markdown", ".json": "application/json"}
HEAD = (
    '<meta name="color-scheme" content="light dark"><link rel="icon" type="image/svg+xml" href="./own/favicon.svg">'
    '<link rel="stylesheet" href="./own/page.css"><script src="./own/box.js"></script><script src="./own/page.js"></script>'
)
BODY = '<a class="skip" href="#message">Skip to your message</a><p id="state" class="unseen" role="status"></p>'


def application(chat_store: ChatStore, first: str, names: Collection[str], plain: SamplingControls = PLAIN) -> ASGIApp:
    """`first` is the model id that a new chat begins with, `names` are hosts under which the page may be asked for; none: any."""

    @asynccontextmanager
    async def living(app: FastAPI) -> AsyncIterator[None]:
        yield
        await chat_store.close()

    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None, lifespan=living)
    ours = {path.name: path.read_bytes() for path in STATIC.iterdir()}

    async def own(request: Request) -> Response:
        name = request.path_params["name"]
        return _file(name, ours[name]) if name in ours else _nothing()

    async def face(request: Request) -> Response:
        return _file("face.svg", portrait(request.path_params["id"]).encode(errors="replace"))

    async def chat(request: Request) -> Response:
        id, form = request.path_params["id"], request.path_params["form"]
        if form not in ("md", "json"):
            return _nothing()
        try:
            text = await asyncio.to_thread(chat_store.exported, id, form)
        except TownhallError as error:
            return PlainTextResponse(str(error), 404)
        response = _file(f"chat.{form}", text.encode())
        response.headers["Content-Disposition"] = f'attachment; filename="{id}.{form}"'
        return response

    app.router.routes += [Route("/own/{name}", own), Route("/portraits/{id}.svg", face), Route("/chats/{id}.{form}", chat)]
    theme = gr.themes.Base(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"])
    off = {"ssr_mode": False, "mcp_server": False, "pwa": False, "enable_monitoring": False, "run_history": False}
    gr.mount_gradio_app(app, build(chat_store, first, plain), path="/", footer_links=[], theme=theme, blocked_paths=["/"], **off)
    return RequestFilter(app, names, HEAD.encode(), BODY.encode())


def _file(name: str, data: bytes) -> Response:
    return Response(data, media_type=KINDS[Path(name).suffix], headers={"Cache-Control": "no-cache"})


def _nothing() -> Response:
    return PlainTextResponse("there is nothing here", 404)
