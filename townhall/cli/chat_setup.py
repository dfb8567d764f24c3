"""A loaded model, persona and conversation, ready to chat; and how a chat moves from one to another."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from townhall.cli import terminal
from townhall.cli.chat_options import ChatOptions
from townhall.cli.model_loading import Loaded
from townhall.conversation import Conversation, Prepared
from townhall.default_window import WINDOW
from townhall.errors import ContextError, ModelError, PersonaError
from townhall.language_model import LanguageModel
from townhall.logbook.log_reader import Log
from townhall.logbook.recording_model import RecordedModel
from townhall.model_cache import ModelCache
from townhall.persona import Persona, load_persona
from townhall.persona_sources import open_sources
from townhall.prefix_cache import PrefixCache
from townhall.via.cost_total import CostTotal
from townhall.via.endpoint import RemoteEndpoint

if TYPE_CHECKING:
    from app.models.llama import SamplingParams

Models = ModelCache[ChatOptions, Loaded]
Recall = Callable[[Conversation], None]  # gives a fresh conversation its history


@dataclass(frozen=True)
class ChatSetup:
    """`recorded` is the model where what it does is written down, `prepared` what reading the persona took."""

    options: ChatOptions
    persona: Persona
    loaded: Loaded
    conversation: Conversation
    recorded: RecordedModel
    prepared: Prepared


def nothing(fresh: Conversation) -> None:
    """No history."""


def open_chat_setup(options: ChatOptions, models: Models, recall: Recall = nothing, costs: CostTotal | None = None) -> ChatSetup:
    """What answers from elsewhere come to is added to `costs`.

    Raises what loading the persona and the model raises, and ContextError where they leave no room, or the history cannot stand.
    """
    persona = load_persona(options.personality).greeted(options.greeting)
    loaded = models.open(with_adapters(options, persona))
    recorded = RecordedModel(loaded.llama)
    conversation = open_conversation(recorded, loaded.sampling, options, persona)
    if options.via is not None:
        from townhall.via.remote_model import RemoteModel  # it brings asyncio, which no other chat needs

        conversation.elsewhere, conversation.away = RemoteModel(endpoint_of(options), costs), _note_away
    recall(conversation)
    with loaded.watch.lap("read the persona"):
        prepared = prepare(conversation)
    return ChatSetup(options, persona, loaded, conversation, recorded, prepared)


def endpoint_of(options: ChatOptions) -> RemoteEndpoint:
    """Who --via means. ModelError for what cannot be meant, before a model is loaded."""
    assert options.via is not None
    return RemoteEndpoint.opened(options.via, options.via_model, options.via_key, options.via_timeout, options.via_price)


def check_via(options: ChatOptions) -> None:
    """ModelError for settings that do not go together, or an address that cannot be meant."""
    if options.via is None:
        for name in ("via_model", "via_key", "compress"):
            if getattr(options, name) is not None:
                raise ModelError(
                    f"--{name.replace('_', '-')} is of use where another server answers: pass --via URL as well, or leave it out"
                )
        return
    endpoint = endpoint_of(options)
    if endpoint.exposed:
        terminal.note(f"the key of {endpoint.key_name} crosses the network in the clear: {endpoint.url} is not https")
    terminal.note(f"{endpoint.model} at {endpoint.host} answers; it gets the persona, the talk and what sources add")


def _note_away(reason: str) -> None:
    terminal.note(f"the local model answers: {reason}")


def with_adapters(options: ChatOptions, persona: Persona) -> ChatOptions:
    """Where flags and settings name no adapter, the persona's: a double has none."""
    return options if options.lora or not persona.lora or options.fake else replace(options, lora=persona.lora)


def open_conversation(
    llama: LanguageModel, sampling: "SamplingParams", options: ChatOptions, persona: Persona, trim: bool = True
) -> Conversation:
    """A conversation as the flags and settings say. ContextError where the persona leaves no room."""
    try:
        return Conversation(
            llama,
            persona,
            format=options.format,
            context=options.strategy,
            sampling=sampling,
            max_tokens=options.count,
            heads=None if options.fake or not options.cache else PrefixCache.of_user(terminal.note),
            trim=trim,
            think=options.think,
            think_tokens=options.think_tokens,
            history=options.compress,
            sources=open_sources(
                persona,
                llama.tokenizer,
                [Path(name).expanduser() for name in options.lorebook],
                options.knowledge,
                options.greeting,
                lambda done, total, path: terminal.progress("" if done == total else f"reading documents: {done} of {total}  {path}"),
            ),
        )
    except ContextError as error:
        if options.max_context is not None or llama.max_context >= WINDOW:
            raise
        # a larger window would be no remedy
        raise ContextError(
            f"{persona.name}'s persona leaves no room to talk in the {llama.max_context} tokens that the model was trained for; "
            "name a shorter one with --personality, or have a plain text carried on (chat --prompt, watch --raw)",
            error.needed,
            error.capacity,
        ) from error


def prepare(conversation: Conversation) -> Prepared:
    """Let the persona be read, with a line of progress."""
    name = conversation.persona.name
    return conversation.prepare(lambda done, total: terminal.progress(f"{name} is getting ready: {done} of {total} tokens"))


def turns_of(now: Conversation) -> Recall:
    """What brings a fresh conversation to where `now` stands; ids are kept where the model reads them in the same way."""
    close, turns = len(now.prompt.close_ids), [(exchange.user.text, exchange.reply.text) for exchange in now.exchanges]
    ids = [exchange.reply.ids[: len(exchange.reply.ids) - close] for exchange in now.exchanges]
    reasoning, states = [exchange.reply.reasoning for exchange in now.exchanges], now.source_states

    def recall(fresh: Conversation) -> None:
        same = fresh.cache.identity.get("model") == now.cache.identity.get("model") and fresh.prompt.format.name == now.prompt.format.name
        fresh.recall(turns, ids if same else (), reasoning, states)

    return recall


def speaker(log: Log) -> str | None:
    """The persona of a log, as --personality takes it; None where it is not to be had."""
    settings = log.head.get("settings")
    for name in (settings.get("personality") if isinstance(settings, dict) else None, log.head.get("persona")):
        if isinstance(name, str):
            try:
                load_persona(name)
            except PersonaError:
                continue
            return name
    return None
