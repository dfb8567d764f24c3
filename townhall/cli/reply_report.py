"""Figures of a reply: JSON for scripts, a line for people."""

import json

from townhall.cli.model_loading import Loaded
from townhall.reply import Reply


def as_json(reply: Reply, loaded: Loaded) -> str:
    """One object, one line."""
    return json.dumps(reply.to_json() | {"backend": loaded.backend.to_json()}, ensure_ascii=False)


def counted(number: int, thing: str) -> str:
    """1 token, 2 tokens."""
    return f"{number} {thing}" if number == 1 else f"{number} {thing[:-1]}ies" if thing.endswith("y") else f"{number} {thing}s"


def as_timing(reply: Reply, loaded: Loaded) -> str:
    """Tokens and seconds, and the device by its driver's own name."""
    if reply.receipt.sent:
        return (
            f"{counted(reply.tokens, 'token')} in {reply.decode_seconds:.2f} s, the first after {reply.prefill_seconds:.2f} s; "
            f"{reply.receipt.sent.describe()}"
        )
    read = reply.prompt_tokens - reply.cached_tokens
    # the first id comes out of the prefill
    rate = f", {(reply.tokens - 1) / reply.decode_seconds:.1f} tokens/s" if reply.tokens > 1 and reply.decode_seconds > 0 else ""
    speculated = getattr(loaded.llama, "speculated", None)
    guesses = f"; since the start {speculated}" if speculated and speculated.passes else ""
    return (
        f"{counted(reply.tokens, 'token')} in {reply.decode_seconds:.2f} s{rate}; prompt of {reply.prompt_tokens}: "
        f"{reply.cached_tokens} cached, {read} read in {reply.prefill_seconds:.2f} s; on {loaded.backend.describe()}{guesses}"
    )


def account(reply: Reply, loaded: Loaded) -> None:
    """Count an answer's seconds for --profile."""
    if reply.receipt.sent:
        loaded.watch.add("wait for another server", reply.prefill_seconds + reply.decode_seconds)
        return
    loaded.watch.add("read prompts", reply.prefill_seconds)
    loaded.watch.add("write answers", reply.decode_seconds)


def error_as_json(error: Exception) -> str:
    """A refused line's place in a stream of answers."""
    return json.dumps({"error": str(error)}, ensure_ascii=False)
