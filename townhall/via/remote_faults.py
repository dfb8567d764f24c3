"""From what the openai package raises to one sentence: who failed, how, and what to do. Nothing of a key gets into one."""

from typing import Any

from townhall.via.endpoint import RemoteEndpoint
from townhall.via.errors import RemoteError

SAID = 200  # characters of a server's own words
IS_IT = "is --via the address of an OpenAI-compatible API? It usually ends in /v1"


def as_remote_error(error: Exception, endpoint: RemoteEndpoint) -> RemoteError:
    """For whatever a request to `endpoint` raised."""
    import openai

    host, cause = endpoint.host, error.__cause__
    while cause is not None:
        if isinstance(cause, RemoteError):  # of our own, raised while a response came in
            return cause
        cause = cause.__cause__
    if isinstance(error, openai.APITimeoutError):
        return RemoteError(f"{host} was silent for {endpoint.timeout:g} s; try again, or allow more with --via-timeout", away=True)
    if isinstance(error, openai.APIConnectionError):
        return RemoteError(f"{host} cannot be reached{_cause(error, endpoint)}; is the server running, and --via its address?", away=True)
    if isinstance(error, openai.APIStatusError):
        return _of_status(error, endpoint)
    if isinstance(error, openai.APIError) and error.body is not None:  # an error in the middle of a stream
        return RemoteError(f"{host} ended the answer with an error{said(error, endpoint)}", away=True)
    return garbage(endpoint)


def garbage(endpoint: RemoteEndpoint) -> RemoteError:
    """For an answer that is none."""
    return RemoteError(f"{endpoint.host} sent something that is no answer of a chat model; {IS_IT}")


def broken_off(endpoint: RemoteEndpoint) -> RemoteError:
    """For an answer that has no end."""
    return RemoteError(
        f"{endpoint.host} broke off in the middle of the answer; what came of it is kept, and it can be answered anew", away=True
    )


def _of_status(error: Any, endpoint: RemoteEndpoint) -> RemoteError:
    host, status, detail = endpoint.host, error.status_code, said(error, endpoint)
    if status in (401, 403):
        # what servers say here quotes the key, or parts of it
        if endpoint.key is None:
            return RemoteError(f"{host} wants a key ({status}); export it as {endpoint.key_name}, or name another variable with --via-key")
        return RemoteError(f"{host} refused the key of {endpoint.key_name} ({status}); set it anew")
    if status == 404:
        return RemoteError(f"{host} has no model {endpoint.model!r}, or no API at {endpoint.url} (404){detail}; check both flags")
    if status == 429:
        return RemoteError(f"{host} takes no more requests now, or the account is used up (429){detail}", away=True)
    if status >= 500 or status in (408, 409):
        return RemoteError(f"{host} failed ({status}){detail}; try again later", away=True)
    return RemoteError(f"{host} refused the request ({status}){detail or f'; {IS_IT}'}")


def said(error: Any, endpoint: RemoteEndpoint) -> str:
    """What the server says of it, in brackets; without the key, should it stand there."""
    body = error.body
    body = body.get("error", body) if isinstance(body, dict) else body
    text = body.get("message") if isinstance(body, dict) else None
    return f" ({_plain(text, endpoint)})" if isinstance(text, str) and text.strip() else ""


def _cause(error: Exception, endpoint: RemoteEndpoint) -> str:
    cause: BaseException | None = error.__cause__
    while cause is not None and cause.__cause__ is not None:
        cause = cause.__cause__
    text = str(cause or "")
    return f" ({_plain(text, endpoint)})" if text.strip() else ""


def _plain(text: str, endpoint: RemoteEndpoint) -> str:
    text = text.replace(endpoint.key, "…") if endpoint.key else text
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split()).rstrip(".")
    return line if len(line) <= SAID else f"{line[: SAID - 1]}…"
