"""A model behind an OpenAI-compatible API, asked through the openai package; an answer arrives in a thread of its own.

So Ctrl-C is heard while the server says nothing, and closing an answer closes its connection at once.
"""

import asyncio
import queue
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from importlib import import_module
from typing import Any

from townhall.answer import EdgeTrim, StopFilter
from townhall.thoughts import ThoughtFilter
from townhall.via.answering import MOST_STOPS, AnswerQuestion, SentFigures
from townhall.via.cost_total import CostTotal
from townhall.via.endpoint import RemoteEndpoint
from townhall.via.errors import RemoteError
from townhall.via.remote_faults import as_remote_error, broken_off, garbage

TICK = 0.1  # seconds between two looks at what the person wants
LEAVING = 5.0  # seconds that a connection may take to close
RETRIES = 2  # by the openai package, after a pause or what Retry-After says
CONNECT = 10.0  # seconds
BYTES_PER_TOKEN, BYTES_BESIDE = 4096, 1 << 20  # of a response, at most: an event takes some 300


class RemoteModel:
    """Asks `endpoint`; what answers come to is added to `costs`."""

    def __init__(self, endpoint: RemoteEndpoint, costs: CostTotal | None = None):
        self.endpoint, self.costs = endpoint, costs or CostTotal()
        # the package takes a second to import, which the first answer need not wait for
        threading.Thread(target=import_module, args=("openai",), name="via", daemon=True).start()

    def answer(self, question: AnswerQuestion) -> "RemoteAnswer":
        """On its way once it is iterated."""
        return RemoteAnswer(self.endpoint, question, self.costs)


class RemoteAnswer:
    """An `ArrivingAnswer`. RemoteError, while it is iterated, where the server gives none or breaks off."""

    def __init__(self, endpoint: RemoteEndpoint, question: AnswerQuestion, costs: CostTotal | None = None):
        self._costs = costs
        self._total: float | None = None  # of all answers until this one
        self.text, self.reasoning = "", ""
        self.finish_reason: str | None = None
        self.first_seconds = self.seconds = 0.0
        self._endpoint, self._question = endpoint, question
        self._queue: queue.Queue[tuple[str, str] | RemoteError | None] = queue.Queue()
        self._thread = threading.Thread(target=self._work, name="via", daemon=True)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[Any] | None = None
        self._closed = False
        self._usage: tuple[int, int] | None = None
        self._pieces = self._shown_reasoning = 0

    @property
    def place(self) -> str:
        return self._endpoint.host

    @property
    def tokens(self) -> int:
        """As the server counted; where it does not say, the pieces that it sent."""
        return self._usage[1] if self._usage else self._pieces

    @property
    def figures(self) -> SentFigures:
        """What was sent, and its price."""
        question, price = self._question, self._endpoint.price
        sent, whole = question.sent_tokens, question.whole_tokens
        counted = self._usage[0] if self._usage else sent
        more = counted * whole / sent if sent else counted
        return SentFigures(
            host=self._endpoint.host,
            model=self._endpoint.model,
            sent_tokens=sent,
            whole_tokens=whole,
            server_tokens=self._usage[0] if self._usage else None,
            tokens=self.tokens,
            cost=price.of(counted, self.tokens) if price else None,
            whole_cost=price.of(more, self.tokens) if price else None,
            currency=price.currency if price else "",
            total_cost=self._total,
        )

    def new_reasoning(self) -> str:
        """The thoughts since this was called last."""
        news = self.reasoning[self._shown_reasoning :]
        self._shown_reasoning = len(self.reasoning)
        return news

    def __iter__(self) -> Iterator[str]:
        started = time.perf_counter()
        self._thread.start()
        thoughts, stops, trim = ThoughtFilter(), StopFilter(self._question.stop), EdgeTrim()
        while (event := self._next()) is not None:
            if isinstance(event, RemoteError):
                if self.text and not event.away:
                    raise broken_off(self._endpoint) from event
                raise event
            kind, piece = event
            if not kind:
                yield ""
                continue
            if not self._pieces:
                self.first_seconds = time.perf_counter() - started
            self._pieces += 1
            self.seconds = time.perf_counter() - started - self.first_seconds
            thought, said = thoughts.push(piece) if kind == "text" else (piece, "")
            self.reasoning += thought
            yield self._shown(trim.push(stops.push(said)))
            if stops.stopped is not None:
                self.finish_reason = "stop"
                return
        thought, said = thoughts.flush()
        self.reasoning += thought
        if rest := self._shown(trim.push(stops.push(said) + stops.flush())):
            yield rest
        if self.finish_reason is None:
            raise broken_off(self._endpoint) if self.text else garbage(self._endpoint)

    def close(self) -> None:
        """End it, wherever it is; the connection closes."""
        self._closed = True
        if self._costs and (self._usage or self._pieces):  # of an answer that never came nothing is known
            costs, self._costs = self._costs, None
            self._total = costs.add(self.figures)
        if self._loop and self._task:
            with suppress(RuntimeError):  # it has come to its end
                self._loop.call_soon_threadsafe(self._task.cancel)
        if self._thread.ident is not None:
            self._thread.join(LEAVING)

    def _shown(self, text: str) -> str:
        if text and not self.text and (carried := self._question.carried):
            text = f"{carried}{' ' if text[0].isalnum() and not carried[-1:].isspace() else ''}{text}"
        self.text += text
        return text

    def _next(self) -> tuple[str, str] | RemoteError | None:
        try:
            return self._queue.get(timeout=TICK)
        except queue.Empty:
            return "", ""

    def _work(self) -> None:
        """The thread."""
        try:
            asyncio.run(self._ask())
        except RemoteError as error:
            self._queue.put(error)
        except asyncio.CancelledError:
            pass
        except BaseException as error:  # whatever it was, who waits for the answer must hear of it
            self._queue.put(as_remote_error(error, self._endpoint) if isinstance(error, Exception) else garbage(self._endpoint))
        finally:
            self._queue.put(None)

    async def _ask(self) -> None:
        self._loop, self._task = asyncio.get_running_loop(), asyncio.current_task()
        if self._closed:
            return
        import openai

        endpoint, most = self._endpoint, BYTES_BESIDE + BYTES_PER_TOKEN * self._question.max_tokens
        wait = openai.Timeout(endpoint.timeout, connect=min(CONNECT, endpoint.timeout))
        http = openai.DefaultAsyncHttpxClient(
            trust_env=not endpoint.loopback, timeout=wait, event_hooks={"response": [_bounded(most, endpoint)]}
        )
        # what the environment says of OpenAI's own organisations is for OpenAI alone
        headers: dict[str, Any] = {"OpenAI-Organization": openai.Omit(), "OpenAI-Project": openai.Omit(), "Accept-Encoding": "identity"}
        async with openai.AsyncOpenAI(
            api_key=endpoint.key or "none",
            base_url=endpoint.url,
            timeout=wait,
            max_retries=RETRIES,
            http_client=http,
            default_headers=headers,
        ) as client:
            await self._stream(client)

    async def _stream(self, client: Any) -> None:
        """Ask, leaving out or renaming what the server says it does not know, each once."""
        import openai

        asked = request_fields(self._question)
        while True:
            try:
                stream = await client.chat.completions.create(
                    model=self._endpoint.model,
                    messages=list(self._question.messages),
                    stream=True,
                    extra_headers=None if self._endpoint.key else {"Authorization": openai.Omit()},
                    **asked,
                )
                break
            except openai.BadRequestError as error:
                if (fewer := without(asked, error.param)) is None:
                    raise
                asked = fewer
        try:
            async for chunk in stream:
                self._take(chunk)
        finally:
            await stream.close()

    def _take(self, chunk: Any) -> None:
        """An event of the stream. AttributeError or TypeError for what is none."""
        if (usage := getattr(chunk, "usage", None)) is not None:
            counts = usage.prompt_tokens, usage.completion_tokens
            self._usage = counts if all(type(count) is int and 0 <= count < 1 << 40 for count in counts) else None
        for choice in chunk.choices[:1]:
            delta = choice.delta
            for name in ("reasoning_content", "reasoning"):
                if isinstance(thought := getattr(delta, name, None), str) and thought:
                    self._queue.put(("reasoning", thought))
                    break
            if delta is not None and isinstance(delta.content, str) and delta.content:
                self._queue.put(("text", delta.content))
            if choice.finish_reason:
                self.finish_reason = "length" if choice.finish_reason == "length" else "stop"


def request_fields(question: AnswerQuestion) -> dict[str, Any]:
    """How the answer is to be made, in OpenAI's fields: those of our samplers that every server knows."""
    sampling = question.sampling
    fields: dict[str, Any] = {"max_tokens": question.max_tokens, "stream_options": {"include_usage": True}}
    if stop := list(question.stop[:MOST_STOPS]):
        fields["stop"] = stop
    if sampling is not None:
        fields["temperature"] = sampling.temperature
        fields |= {"top_p": sampling.top_p} if sampling.top_p < 1 else {}
        fields |= {name: value for name in ("frequency_penalty", "presence_penalty") if (value := getattr(sampling, name, 0.0))}
        fields |= {"seed": sampling.seed} if sampling.seed is not None else {}
    return fields


def without(fields: Mapping[str, Any], refused: str | None) -> dict[str, Any] | None:
    """The fields for a server that refuses one of them by name; None where that is none of them."""
    name = (refused or "").split(".")[0]
    if name not in fields:
        return None
    rest = {key: value for key, value in fields.items() if key != name}
    return rest | ({"max_completion_tokens": fields[name]} if name == "max_tokens" else {})


def _bounded(most: int, endpoint: RemoteEndpoint) -> Any:
    """A hook of the HTTP client: responses beyond `most` bytes, and packed ones, which were not asked for, are no answers."""

    async def hook(response: Any) -> None:
        if response.headers.get("content-encoding", "identity").lower() != "identity":
            raise garbage(endpoint)
        response.stream = _BoundedStream(response.stream, most, endpoint)

    import httpx2

    class _BoundedStream(httpx2.AsyncByteStream):
        def __init__(self, stream: Any, most: int, endpoint: RemoteEndpoint):
            self._stream, self._left, self._endpoint = stream, most, endpoint

        async def __aiter__(self) -> Any:
            async for part in self._stream:
                self._left -= len(part)
                if self._left < 0:
                    raise garbage(self._endpoint)
                yield part

        async def aclose(self) -> None:
            await self._stream.aclose()

    return hook


__all__: Sequence[str] = ("RemoteAnswer", "RemoteModel", "request_fields", "without")
