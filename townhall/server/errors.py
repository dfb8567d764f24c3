"""Error responses: a status and OpenAI's error object."""

from typing import Any

from ext.tinygrad.errors import TownhallError
from townhall.errors import ContextError
from townhall.via.errors import RemoteError

TYPES = {401: "authentication_error", 403: "permission_error", 408: "timeout_error", 429: "rate_limit_error"}


class APIError(TownhallError):
    """An answer that is an error; `retry_after` is in seconds."""

    def __init__(self, status: int, message: str, param: str | None = None, code: str | None = None, retry_after: int | None = None):
        super().__init__(message)
        self.status, self.message, self.param, self.code, self.retry_after = status, message, param, code, retry_after

    @property
    def type(self) -> str:
        return TYPES.get(self.status, "server_error" if self.status >= 500 else "invalid_request_error")

    def body(self) -> dict[str, Any]:
        """OpenAI's error object."""
        return {"error": {"message": self.message, "type": self.type, "param": self.param, "code": self.code}}

    @property
    def headers(self) -> dict[str, str]:
        headers = {"Retry-After": str(self.retry_after)} if self.retry_after else {}
        # clients made with OpenAI's generator ask again after any 5xx, which helps nothing where a key or a model's name is wrong
        headers |= {"X-Should-Retry": "false"} if self.code == "via_refused" else {}
        return headers | ({"WWW-Authenticate": "Bearer"} if self.status == 401 else {})


def shutting_down() -> APIError:
    """The server is about to end, and takes or finishes nothing more."""
    return APIError(503, "the server is shutting down", code="shutting_down", retry_after=5)


def as_api_error(error: BaseException) -> APIError:
    """What a client may know of any error: what it can mend, and of a fault of ours only that there was one."""
    if isinstance(error, APIError):
        return error
    if isinstance(error, ContextError) or hasattr(error, "needed"):  # an engine's own ContextOverflow knows what it needed, too
        # LangChain recognises the case by the first of these phrases in the message, litellm (aider), Roo Code and CrewAI by OpenAI's own
        most = f"this model's maximum context length is {capacity} tokens; " if (capacity := getattr(error, "capacity", None)) else ""
        return APIError(400, f"context_length_exceeded: {most}{error}", param="messages", code="context_length_exceeded")
    if isinstance(error, RemoteError):
        return APIError(502, str(error), code="via_away" if error.away else "via_refused")
    if isinstance(error, TownhallError):
        return APIError(400, str(error))
    return APIError(500, "the server failed at this request; its log says why", code="internal_error")
