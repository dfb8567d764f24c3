"""Options of a server."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from townhall.adapter_spec import AdapterSpec
from townhall.conversation import MAX_REPLY
from townhall.via.endpoint import RemoteEndpoint


@dataclass(frozen=True)
class Limits:
    """What one client may ask of everybody's server; sizes in bytes, times in seconds."""

    body: int = 1 << 20
    header: int = 16 << 10  # request line and headers together
    messages: int = 2048
    queue: int = 64  # requests that wait for a slot
    request: float = 600.0  # from the request's arrival to its end
    arrival: float = 60.0  # for the body
    keep_alive: float = 10.0  # between two comments while a stream has nothing to say


@dataclass(frozen=True)
class ServeOptions:
    """The flags of `townhall serve`, checked."""

    model_id: str
    personas: tuple[str, ...]
    first: str = ""  # model id that a new chat of the page begins with
    leave_out: bool = False  # personas that cannot be used or leave no room to talk, instead of an error
    lorebooks: tuple[Path, ...] = ()  # of all personas, beside their own
    knowledge: tuple[str, ...] = ()  # libraries and paths, likewise
    strict_model: bool = False  # a model's name that is not served is an error
    format: str = "auto"
    context: str = "slide"
    max_tokens: int = MAX_REPLY  # where a request does not say
    plain_penalty: float = 1.0  # on repetition, in texts that are carried on
    think: bool | None = None  # whether models think first, where a request does not say; None: as the template has it
    think_tokens: int | None = None  # of thoughts, at most
    enrich: str = "off"  # whether clients are to have questions rewritten: off, ask, always
    via: RemoteEndpoint | None = None  # whose model answers for the personas
    history: int | None = None  # tokens of memory and exchanges that it is sent, at most
    speculate: bool = False  # are tokens guessed
    slots: int | None = None  # None: as many as a quarter of the free memory holds, at most 16
    keys: tuple[str, ...] = ()
    cors: tuple[str, ...] = ()
    hosts: tuple[str, ...] = ()  # names under which the server may be spoken to; none: any
    background_agents: tuple[str, ...] = ()  # parts of user agents whose requests wait for the others
    grace: float = 10.0  # seconds to finish in after SIGTERM
    adapters: tuple[AdapterSpec, ...] = ()  # that requests may name; each is a model of its own as well
    page: bool = False  # the page in the browser, at /
    model_folders: tuple[Path, ...] = ()  # where /townhall/models looks for others than the one that is loaded
    persona_suffix: str = ""  # of personas' model ids, where the model is not the first of its process
    limits: Limits = Limits()
    chats: Path | None = None  # where chats are kept and offered from; None: there are none
    log_settings: Mapping[str, Any] = field(default_factory=dict)  # of the flags, as the logs of chats have them


def here(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of a log without those of another server: the local model answers."""
    return {name: value for name, value in settings.items() if name not in ("via", "via_model", "compress")}
