"""Calls of functions on their way through a request: earlier ones into turns of the prompt, and how those of the answer are read."""

import json
import secrets
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from townhall.formats.call_parser import CallParser, CallPart
from townhall.formats.call_syntax import GENERAL, CallSyntax, result
from townhall.formats.prompt_pieces import PromptTurn, ToolCall
from townhall.server.errors import APIError
from townhall.server.requests import ChatMessage
from townhall.server.tool_requests import MessageCall


class CallHistory:
    """Turns of the prompt from messages that call functions or say what those returned, in the order of the messages."""

    def __init__(self, syntax: CallSyntax):
        self._syntax = syntax
        self._names: dict[str, str] = {}  # of the functions by the ids of their calls

    def turn(self, message: ChatMessage) -> PromptTurn:
        """An assistant's, a user's or a tool's message."""
        if message.role == "assistant":
            return self._assistant(message)
        if message.role not in ("tool", "function"):
            return PromptTurn("user", message.text)
        id = message.tool_call_id or ""
        name = message.name or self._names.get(id, "")
        if self._syntax.template and (id in self._names or name in self._names.values()):
            return PromptTurn("tool", message.text, call_id=id, name=name, result=True)
        return PromptTurn("user", result(message.text), result=True)

    def _assistant(self, message: ChatMessage) -> PromptTurn:
        calls = tuple(_call(call) for call in message.calls)
        self._names |= {call.id: call.name for call in calls}
        reasoning = message.reasoning_content or ""
        if self._syntax.template:
            return PromptTurn("assistant", message.text, reasoning, calls)
        # as the model wrote it, to the letter, so that the ids it sampled are found again
        return PromptTurn("assistant", "\n".join(filter(None, (message.text, GENERAL.write(calls)))), reasoning)


def _call(call: MessageCall) -> ToolCall:
    arguments = call.function.arguments
    if isinstance(arguments, str) and arguments.strip():
        try:
            json.loads(arguments)
        except (ValueError, RecursionError):
            arguments = json.dumps(arguments, ensure_ascii=False)  # a text that is no JSON, as one that is
        return ToolCall(call.id or "", call.function.name, arguments)
    return ToolCall(call.id or "", call.function.name, json.dumps(arguments or {}, ensure_ascii=False))


def refuse_open_calls(messages: Sequence[ChatMessage]) -> None:
    """APIError 400 where the last message calls functions: there is nothing to answer before their results."""
    if messages[-1].calls and messages[-1].role == "assistant":
        raise APIError(400, "messages: the last one calls functions; send what they returned as messages of the role tool", "messages")


@dataclass(frozen=True)
class CallReading:
    """How calls are read out of an answer; `tags` are control tokens of the syntax, as they are spelled."""

    syntax: CallSyntax
    names: Collection[str]
    legacy: bool = False
    tags: Mapping[int, str] = field(default_factory=dict)

    def reader(self) -> "CallReader":
        """For one answer."""
        return CallReader(CallParser(self.syntax, self.names))


@dataclass(frozen=True)
class CallDelta:
    """More of a call: at first its id and name, then pieces of its arguments."""

    index: int
    id: str
    name: str = ""
    arguments: str = ""


class CallReader:
    """Text of one answer in, what is said and what is called out. Without a parser all of it is said."""

    def __init__(self, parser: CallParser | None = None):
        self._parser = parser
        self.calls: list[ToolCall] = []  # those so far
        self.content = ""

    def push(self, text: str) -> list[str | CallDelta]:
        """Take the next piece."""
        return self._parts(self._parser.push(text)) if self._parser else self._parts([text] if text else [])

    def flush(self) -> list[str | CallDelta]:
        """The answer has ended."""
        return self._parts(self._parser.flush()) if self._parser else []

    def _parts(self, parts: Sequence[str | CallPart]) -> list[str | CallDelta]:
        found: list[str | CallDelta] = []
        for part in parts:
            if isinstance(part, str):
                self.content += part
                found.append(part)
            elif part.name:
                self.calls.append(ToolCall(f"call_{secrets.token_hex(12)}", part.name, ""))
                found.append(CallDelta(part.index, self.calls[-1].id, part.name))
            else:
                call = self.calls[part.index]
                self.calls[part.index] = ToolCall(call.id, call.name, call.arguments + part.arguments)
                found.append(CallDelta(part.index, call.id, arguments=part.arguments))
        return found

    def finish(self, reason: str | None) -> str | None:
        """`reason`, or "tool_calls" for an answer that ended by itself and called functions."""
        return "tool_calls" if self.calls and reason == "stop" else reason


def call_tags(syntax: CallSyntax, special_ids: Mapping[str, int]) -> dict[int, str]:
    """The control tokens that the syntax has: decoders pass them over, and they have to be seen."""
    whole = "".join(filter(None, (syntax.opening, syntax.middle, syntax.closing, syntax.joint)))
    return {id: token for token, id in special_ids.items() if token in whole}
