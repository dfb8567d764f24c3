"""POST /v1/responses: OpenAI's Responses API without its memory. Each request brings the whole conversation, and nothing is kept."""

import json
import secrets
import time
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Annotated, Any

from pydantic import Field
from starlette.requests import Request
from starlette.responses import Response

from townhall.server.api_access import ApiAccess
from townhall.server.endpoints import TEXT, Endpoint, EndpointGroup, event, listed, schema
from townhall.server.errors import APIError, as_api_error
from townhall.server.event_stream import Events, EventStream, arriving, whole
from townhall.server.guard import json_response
from townhall.server.job import AnswerEnd, JobDone, JobFailed, RequestFigures, TextEvent
from townhall.server.planned_request import WARNING, PlannedRequest
from townhall.server.request_model import RequestModel
from townhall.server.requests import ChatRequest, parse
from townhall.server.tools import CallDelta, CallReader

JSON = dict[str, Any]
NOT_KEPT = "responses are not kept here, so store: true has no effect"
MOST_ITEMS = 1 << 14
# what says how ids are drawn, and what else both APIs call the same
SAME = ("model", "temperature", "top_p", "parallel_tool_calls", "user", "stream", "townhall", "context", "chat_template_kwargs")


class ResponsesRequest(RequestModel):
    """Sampler settings are understood beside these, as in chat completions."""

    model_config = {**RequestModel.model_config, "extra": "allow"}

    input: str | Annotated[list[dict[str, Any]], Field(min_length=1, max_length=MOST_ITEMS)]
    model: Annotated[str, Field(max_length=256)] | None = None
    instructions: str | None = None
    tools: Annotated[list[dict[str, Any]], Field(max_length=128)] | None = None
    tool_choice: Any = None
    text: dict[str, Any] | None = None
    max_output_tokens: int | None = None
    stream: bool | None = None
    store: bool | None = None
    previous_response_id: str | None = None
    conversation: Any = None
    background: bool | None = None
    prompt: Any = None

    def chat(self) -> ChatRequest:
        """The same as a chat completion; APIError 400 for what this server does not do."""
        for name, fault in (
            ("previous_response_id", "this server keeps no responses; send the whole conversation in input"),
            ("conversation", "this server keeps no conversations; send the whole conversation in input"),
            ("background", "responses are made while their client waits; leave it out"),
            ("prompt", "this server keeps no prompts; send instructions and input"),
        ):
            if getattr(self, name):
                raise APIError(400, f"{name}: {fault}", name, "unsupported_parameter")
        body: JSON = {**(self.model_extra or {})}
        own = self.model_dump(exclude_none=True)
        body |= {name: own[name] for name in SAME if name in own}
        body["messages"] = [*_instructions(self.instructions), *messages_of(self.input)]
        if self.max_output_tokens is not None:
            body["max_completion_tokens"] = self.max_output_tokens
        if self.tools:
            body["tools"] = [_tool(tool) for tool in self.tools]
        if self.tool_choice is not None:
            body["tool_choice"] = self.tool_choice
        if form := (self.text or {}).get("format"):
            body["response_format"] = _form(form)
        return parse(ChatRequest, json.dumps(body).encode())


def _instructions(text: str | None) -> list[JSON]:
    return [{"role": "system", "content": text}] if text else []


def _tool(tool: JSON) -> JSON:
    if tool.get("type") != "function":
        return tool  # is refused by name
    return {"type": "function", "function": {name: tool[name] for name in ("name", "description", "parameters", "strict") if name in tool}}


def _form(form: Any) -> Any:
    if not isinstance(form, dict) or form.get("type") != "json_schema":
        return form
    return {"type": "json_schema", "json_schema": {name: form[name] for name in ("name", "schema", "strict") if name in form}}


def messages_of(given: str | Sequence[JSON]) -> list[JSON]:
    """Input items as messages of chat completions; APIError 400 for kinds that this server does not read."""
    if isinstance(given, str):
        return [{"role": "user", "content": given}]
    messages: list[JSON] = []
    thoughts = ""

    def assistant() -> JSON:
        """The message that an assistant's next item belongs to."""
        nonlocal thoughts
        if not messages or messages[-1]["role"] != "assistant" or messages[-1].get("closed") or thoughts:
            messages.append({"role": "assistant", "content": None, **({"reasoning_content": thoughts} if thoughts else {})})
            thoughts = ""
        return messages[-1]

    for at, item in enumerate(given):
        kind = item.get("type", "message" if "role" in item else None)
        if kind == "message" and item.get("role") == "assistant":
            message = assistant()
            if message["content"] is not None or message.get("tool_calls"):
                messages.append(message := {"role": "assistant", "content": None})
            message["content"] = item.get("content")
        elif kind == "message":
            messages.append({"role": item.get("role"), "content": item.get("content")})
        elif kind == "function_call":
            function = {"name": item.get("name"), "arguments": item.get("arguments")}
            assistant().setdefault("tool_calls", []).append({"id": item.get("call_id"), "type": "function", "function": function})
        elif kind == "function_call_output":
            output = item.get("output")
            messages.append({"role": "tool", "tool_call_id": item.get("call_id"), "content": output})
        elif kind == "reasoning":
            parts = [*_listed(item.get("content")), *_listed(item.get("summary"))]
            thoughts = "\n\n".join(part["text"] for part in parts if isinstance(part, dict) and isinstance(part.get("text"), str))
        else:
            raise APIError(400, f"input.{at}: an item of type {str(kind)[:40]!r} cannot be read here", "input")
    return messages


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


class ResponseWriter:
    """One response in the making: its output items, and the events that tell of them in order."""

    def __init__(self, asked: ResponsesRequest, planned: PlannedRequest, limit: int | None):
        self._reader: CallReader = planned.calls.reader() if planned.calls else CallReader()
        self._output: list[JSON] = []
        self._open: JSON | None = None
        self._sequence = 0
        self._planned = planned
        self._thoughts = 0
        self._frame: JSON = {
            "id": f"resp_{secrets.token_hex(24)}",
            "object": "response",
            "created_at": int(time.time()),
            "background": False,
            "error": None,
            "incomplete_details": None,
            "instructions": asked.instructions,
            "max_output_tokens": limit,
            "model": planned.model,
            "parallel_tool_calls": asked.model_extra is None or asked.model_extra.get("parallel_tool_calls") is not False,
            "previous_response_id": None,
            "reasoning": {"effort": None, "summary": None},
            "store": False,
            "temperature": (asked.model_extra or {}).get("temperature"),
            "text": asked.text or {"format": {"type": "text"}},
            "tool_choice": asked.tool_choice or "auto",
            "tools": asked.tools or [],
            "top_p": (asked.model_extra or {}).get("top_p"),
            "truncation": "disabled",
            "usage": None,
            "user": (asked.model_extra or {}).get("user"),
            "metadata": (asked.model_extra or {}).get("metadata") or {},
        }

    def response(self, status: str, **fields: Any) -> JSON:
        """The response object as it stands."""
        return {**self._frame, "status": status, "output": [dict(item) for item in self._output], **fields}

    def begin(self) -> list[JSON]:
        """The first events."""
        started = self.response("in_progress", townhall=self._planned.begun)
        return [self._event("response.created", response=started), self._event("response.in_progress", response=started)]

    def text(self, said: TextEvent) -> list[JSON]:
        """More of the answer."""
        found = self._think(said.reasoning) if said.reasoning else []
        return [*found, *self._parts(self._reader.push(said.text))]

    def end(self, ended: AnswerEnd) -> list[JSON]:
        """The answer is complete."""
        found = [*self._parts(self._reader.flush()), *self._close("completed" if ended.finish_reason == "stop" else "incomplete")]
        if not any(item["type"] != "reasoning" for item in self._output):  # an answer of no words is one all the same
            found += [*self._start_message(), *self._close("completed")]
        self._frame["incomplete_details"] = None if ended.finish_reason == "stop" else {"reason": "max_output_tokens"}
        return found

    def done(self, figures: RequestFigures) -> tuple[JSON, JSON]:
        """(the response, the event that ends the stream)."""
        usage = {
            "input_tokens": figures.prompt_tokens,
            "input_tokens_details": {"cached_tokens": figures.cached_tokens},
            "output_tokens": figures.completion_tokens,
            "output_tokens_details": {"reasoning_tokens": 0},  # thoughts are counted among the output's, and not by themselves
            "total_tokens": figures.prompt_tokens + figures.completion_tokens,
        }
        status = "incomplete" if self._frame["incomplete_details"] else "completed"
        receipt = self._planned.receipt(figures, self._reader.content)
        response = self.response(status, usage=usage, townhall=receipt)
        return response, self._event(f"response.{status}", response=response)

    def failed(self, error: Exception) -> JSON:
        """The event of a response that fails in mid-stream."""
        info = as_api_error(error)
        code = "rate_limit_exceeded" if info.status == 429 else "server_error" if info.status >= 500 else info.code or "invalid_prompt"
        return self._event("response.failed", response=self.response("failed", error={"code": code, "message": info.message}))

    def _event(self, type: str, **fields: Any) -> JSON:
        self._sequence += 1
        return {"type": type, "sequence_number": self._sequence - 1, **fields}

    def _of_item(self, type: str, **fields: Any) -> JSON:
        """An event of the open item."""
        assert self._open
        return self._event(type, item_id=self._open["id"], output_index=len(self._output) - 1, **fields)

    def _start(self, item: JSON) -> JSON:
        self._output.append(item)
        self._open = item
        shown = {**item, "content": []} if "content" in item else dict(item)
        return self._event("response.output_item.added", output_index=len(self._output) - 1, item=shown)

    def _start_message(self) -> list[JSON]:
        part: JSON = {"type": "output_text", "text": "", "annotations": [], "logprobs": []}
        item = {"id": _id("msg"), "type": "message", "role": "assistant", "status": "in_progress", "content": [part]}
        added = self._start(item)
        return [added, self._of_item("response.content_part.added", content_index=0, part=dict(part))]

    def _think(self, text: str) -> list[JSON]:
        found: list[JSON] = []
        if not self._open or self._open["type"] != "reasoning":
            part = {"type": "reasoning_text", "text": ""}
            item = {"id": _id("rs"), "type": "reasoning", "status": "in_progress", "summary": [], "content": [part]}
            found = [*self._close(), self._start(item)]
            found.append(self._of_item("response.content_part.added", content_index=0, part=dict(part)))
        assert self._open
        self._open["content"][0]["text"] += text
        return [*found, self._of_item("response.reasoning_text.delta", content_index=0, delta=text)]

    def _parts(self, parts: Sequence[str | CallDelta]) -> list[JSON]:
        found: list[JSON] = []
        for part in parts:
            if isinstance(part, str):
                if not self._open or self._open["type"] != "message":
                    found += [*self._close(), *self._start_message()]
                assert self._open
                self._open["content"][0]["text"] += part
                found.append(self._of_item("response.output_text.delta", content_index=0, delta=part, logprobs=[]))
            elif part.name:
                found += self._close()
                call = {"call_id": part.id, "name": part.name, "arguments": ""}
                found.append(self._start({"id": _id("fc"), "type": "function_call", "status": "in_progress", **call}))
            else:
                assert self._open
                self._open["arguments"] += part.arguments
                found.append(self._of_item("response.function_call_arguments.delta", delta=part.arguments))
        return found

    def _close(self, status: str = "completed") -> list[JSON]:
        """The open item is complete."""
        if (item := self._open) is None:
            return []
        item["status"] = status
        if item["type"] == "function_call":
            found = [self._of_item("response.function_call_arguments.done", name=item["name"], arguments=item["arguments"])]
        else:
            part = dict(item["content"][0])
            name = "response.output_text.done" if item["type"] == "message" else "response.reasoning_text.done"
            extra: JSON = {"logprobs": []} if item["type"] == "message" else {}
            found = [
                self._of_item(name, content_index=0, text=part["text"], **extra),
                self._of_item("response.content_part.done", content_index=0, part=part),
            ]
        found.append(self._event("response.output_item.done", output_index=len(self._output) - 1, item=dict(item)))
        self._open = None
        return found


def _id(prefix: str) -> str:
    return f"{prefix}_{secrets.token_hex(24)}"


class ResponsesRoutes(ApiAccess):
    """The endpoint."""

    def group(self) -> EndpointGroup:
        replies = {"Response": schema({"id": TEXT, "object": {"const": "response"}, "status": TEXT, "output": listed({"type": "object"})})}
        endpoint = Endpoint(
            "POST",
            "/v1/responses",
            self.respond,
            "An answer, as the Responses API has it.",
            "Response",
            ResponsesRequest,
            errors=(404, 422, 429, 502),
            streams="text/event-stream",
        )
        return EndpointGroup([endpoint], replies)

    async def respond(self, request: Request) -> Response:
        """POST /v1/responses."""
        arrived = time.monotonic()
        asked: ResponsesRequest = await self.read(request, ResponsesRequest)
        chat = asked.chat()
        with await self.service.hold(chat.model) as service:
            planned = await self.planned(service, request, chat)
            events, cancel = self.queued(service, request, chat, planned, arrived)
            return await self._answered(request, asked, chat, planned, events, cancel)

    async def _answered(
        self,
        request: Request,
        asked: ResponsesRequest,
        chat: ChatRequest,
        planned: PlannedRequest,
        events: Events,
        cancel: Callable[[], None],
    ) -> Response:
        writer = ResponseWriter(asked, planned, chat.limit)
        headers = planned.headers
        if asked.store:
            headers = {**headers, WARNING: "; ".join(filter(None, (headers.get(WARNING), NOT_KEPT)))}
        if chat.stream:
            keep_alive = self.service.options.limits.keep_alive

            def last(error: APIError) -> bytes:
                return event(failed := writer.failed(error), failed["type"])

            return EventStream(_streamed(events, writer, keep_alive), headers, cancel, last)
        try:
            figures = await whole(request, events, lambda one: writer.text(one) if isinstance(one, TextEvent) else writer.end(one))
            return json_response(writer.done(figures)[0], headers=headers)
        finally:
            cancel()


async def _streamed(events: Events, writer: ResponseWriter, keep_alive: float) -> AsyncIterator[bytes]:
    """Typed server-sent events, numbered."""
    for one in writer.begin():
        yield event(one, one["type"])
    async for came in arriving(events, keep_alive):
        if came is None:
            yield b": keep-alive\n\n"
            continue
        if isinstance(came, TextEvent):
            found = writer.text(came)
        elif isinstance(came, AnswerEnd):
            found = writer.end(came)
        elif isinstance(came, JobDone):
            found = [writer.done(came.figures)[1]]
        else:
            assert isinstance(came, JobFailed)
            found = [writer.failed(came.error)]
        for one in found:
            yield event(one, one["type"])
