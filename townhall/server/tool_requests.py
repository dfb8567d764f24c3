"""The fields of a request that have to do with functions: which there are, which may be called, and what was called earlier."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from townhall.server.request_model import RequestModel

FunctionName = Annotated[str, Field(pattern=r"^[a-zA-Z0-9_.\-]{1,64}$")]
MODES = ("none", "auto", "required", "any")  # "any" is what Mistral's clients call "required"


class FunctionDefinition(RequestModel):
    """`strict`: a schema that cannot be honoured to the letter is an error; else what cannot be is left out of it."""

    name: FunctionName
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None

    def described(self) -> dict[str, Any]:
        """As templates list it."""
        parameters = self.parameters or {"type": "object", "properties": {}}
        return {"type": "function", "function": {"name": self.name, "description": self.description or "", "parameters": parameters}}


class Tool(RequestModel):
    """A function; there are no other tools here."""

    type: str = "function"
    function: FunctionDefinition | None = None

    @model_validator(mode="after")
    def _is_function(self) -> "Tool":
        if self.type != "function":
            raise ValueError(f"a tool of type {self.type[:40]!r} cannot be called here; send functions")
        if self.function is None:
            raise PydanticCustomError("missing", "function: Field required")
        return self


class FunctionCall(RequestModel):
    """A call as an assistant's message has it; `arguments` are JSON as text, or the object itself."""

    name: str
    arguments: str | dict[str, Any] | None = None


class MessageCall(RequestModel):
    id: str | None = None
    function: FunctionCall


@dataclass(frozen=True)
class ToolUse:
    """The functions of a request. `callable` are those that this answer may call, `must`: it has to call one."""

    functions: Sequence[FunctionDefinition]
    callable: Sequence[FunctionDefinition]
    must: bool
    parallel: bool
    legacy: bool = False  # the request has them as they were sent before there were tools


def tool_use(request: Any) -> ToolUse | None:
    """Of a ChatRequest; None where the answer is to call nothing."""
    legacy = not request.tools and bool(request.functions)
    functions = list(request.functions or []) if legacy else [tool.function for tool in request.tools or []]
    mode, names = _choice(request.function_call if legacy else request.tool_choice)
    if not functions or mode == "none":
        return None
    callable = [function for function in functions if names is None or function.name in names]
    # who names one function wants one call of it
    parallel = request.parallel_tool_calls is not False and not legacy and not (mode == "required" and names and len(names) == 1)
    return ToolUse(functions, callable, mode == "required", parallel, legacy)


def check_choice(tools: Sequence[Tool] | None, choice: Any, functions: Sequence[FunctionDefinition] | None, legacy_choice: Any) -> None:
    """ValueError where a choice is none, or names what was not given."""
    given = [tool.function.name for tool in tools or [] if tool.function]
    for field, value, known in (
        ("tool_choice", choice, given),
        ("function_call", legacy_choice, [function.name for function in functions or []]),
    ):
        mode, names = _choice(value, field)
        if len(set(known)) < len(known):
            raise PydanticCustomError("twice", "two functions have the same name", {"name": "tools"})
        if wrong := [name for name in names or [] if name not in known]:
            raise _fault(field, f"there is no function {wrong[0][:64]!r} among those that were sent")
        if mode == "required" and not known:
            raise _fault(field, "it asks for a call, and no functions were sent")


def _choice(value: Any, field: str = "tool_choice") -> tuple[str, list[str] | None]:
    """("none", "auto" or "required", the names that may be called or None for all)."""
    if value is None:
        return "auto", None
    if isinstance(value, str) and value in MODES:
        return ("required" if value == "any" else value), None
    if isinstance(value, dict):
        if value.get("type") == "allowed_tools":
            own = value.get("allowed_tools")
            inner: dict[str, Any] = own if isinstance(own, dict) else value
            listed = inner.get("tools")
            named = [_named(one) for one in listed] if isinstance(listed, list) else []
            if named and all(named) and inner.get("mode", "auto") in ("auto", "required"):
                return str(inner.get("mode", "auto")), [name for name in named if name]
        elif value.get("type", "function") == "function" and (name := _named(value)):
            return "required", [name]
    raise _fault(field, f"pass one of {', '.join(MODES[:3])}, or a function as {{'type': 'function', 'function': {{'name': …}}}}")


def _named(value: Any) -> str | None:
    """The function that an entry names, as chat completions or the Responses API write it."""
    inner = value.get("function", value) if isinstance(value, dict) else None
    name = inner.get("name") if isinstance(inner, dict) else None
    return name if isinstance(name, str) else None


def _fault(field: str, message: str) -> PydanticCustomError:
    # the braces of a message are not to be taken for places to fill
    return PydanticCustomError("tool_choice", "{field}: {message}", {"field": field, "message": message, "name": field})
