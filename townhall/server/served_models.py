"""The models that clients see: each persona by its name, and the bare model."""

import json
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ext.tinygrad.errors import TownhallError
from townhall.adapter_spec import AdapterSpec, parse_all, scaled
from townhall.context.source import PromptSources
from townhall.errors import ContextError, ModelError, PersonaError
from townhall.persona import Persona, load_persona
from townhall.persona_sources import open_sources
from townhall.prompt import Prompt
from townhall.prompt_builder import open_window, refuse_oversized_head
from townhall.server.errors import APIError
from townhall.server.model_facts import ModelFacts
from townhall.server.open_libraries import OpenLibraries
from townhall.server.slots import Adapters
from townhall.template import call_syntax, open_format

REMEMBERED_HEADS = 64  # system messages whose layout is kept
REMEMBERED_ANSWERS = 1024

BARE_MODEL = Persona("Assistant", "")


@dataclass(frozen=True)
class ServedModel:
    """A model id and who speaks under it."""

    id: str
    persona: Persona
    sources: PromptSources
    adapters: Adapters = ()  # that the model answers through
    elsewhere: bool = False  # another server's model answers

    @property
    def bare(self) -> bool:
        return self.persona is BARE_MODEL

    def persona_with(self, system: str) -> Persona:
        """The persona with more in its description."""
        return replace(self.persona, style="\n\n".join(filter(None, (self.persona.style, system)))) if system else self.persona


class ServedModels:
    """Everybody who can be asked, and how their prompts begin."""

    def __init__(
        self,
        llama: ModelFacts,
        model_id: str,
        personas: Sequence[str],
        format: str,
        think: bool | None = None,
        adapters: Sequence[AdapterSpec] = (),
        lorebooks: Sequence[Path] = (),
        knowledge: Sequence[str] = (),
        leave_out: Callable[[str], object] | None = None,
        suffix: str = "",
        via: str | None = None,
    ):
        """Each persona has its own sources, and these lorebooks and libraries. Each of `adapters` is a model, too: the bare one with it.

        With `via`, another server's model of that name answers for the personas, and is served by its name as well.

        TownhallError for what cannot be used; a persona is not served instead where there is `leave_out`, which gets a sentence.
        ModelError where two models have one name. `suffix` follows the personas' names in their model ids.
        """
        self._suffix, self._names, self._via = suffix, dict[str, str](), via
        self._llama, self._format, self._think, self._lorebooks, self._knowledge = llama, format, think, lorebooks, knowledge
        self._served_models: dict[str, ServedModel] = {}
        for name in personas:
            try:
                self._served_models[self._id(name)] = self._open(name)
            except TownhallError as error:
                if leave_out is None:
                    raise
                leave_out(f"{persona_id(name)} is not served: {error}")
        nothing = PromptSources((), llama.tokenizer)
        self.bare = self._served_models.setdefault(model_id, ServedModel(model_id, BARE_MODEL, nothing))
        if via is not None:
            if via in self._served_models and via != model_id:
                raise ModelError(f"--via-model {via} is a persona's name, too; serve others with --persona")
            self._served_models[via] = ServedModel(via, BARE_MODEL, nothing, elsewhere=True)
            self.bare = self._served_models[model_id]
        self.adapters = tuple(adapters)
        self.libraries = OpenLibraries()
        for spec in adapters:
            if spec.name in self._served_models:
                raise ModelError(f"--lora {spec.path}: {spec.name} is served already; give it another name, as in NAME={spec.path}")
            self._served_models[spec.name] = ServedModel(spec.name, BARE_MODEL, nothing, ((spec.path, spec.scale),))
        self._prompts: OrderedDict[tuple[ServedModel, str, bool | None, str], Prompt] = OrderedDict()
        self.call_syntax = call_syntax(format, llama.tokenizer)  # how the model writes calls of functions

    def _open(self, name: str) -> ServedModel:
        persona = load_persona(name)
        sources = open_sources(persona, self._llama.tokenizer, self._lorebooks, self._knowledge)
        self._names[self._id(name)] = name
        return ServedModel(self._id(name), persona, sources, tuple(scaled(parse_all(persona.lora))), self._via is not None)

    def _id(self, persona: str) -> str:
        return persona_id(persona) + self._suffix

    def name_of(self, id: str) -> str:
        """What `load_persona` takes for the persona of that id."""
        return self._names[id]

    def __iter__(self) -> Iterator[ServedModel]:
        return iter(self._served_models.values())

    def find(self, model: str) -> ServedModel:
        """APIError 404 where there is none."""
        if (served_model := self._served_models.get(model)) is None:
            raise APIError(404, f"there is no model {model[:100]!r}; /v1/models lists what there is", "model", "model_not_found")
        return served_model

    def choose(self, model: str | None, strict: bool) -> tuple[ServedModel, str]:
        """(who answers a request for `model`, what its client should be warned of): a name that is not here means the bare model.

        With `strict` APIError for such a name, and for none.
        """
        if strict and model is None:
            raise APIError(400, "model: Field required; /v1/models lists what there is", "model")
        if strict or model in self._served_models:
            return self.find(model or ""), ""
        return self.bare, "" if model is None else f"there is no model {ascii(model[:100])}; {ascii(self.bare.id)} answers"

    def adapters_of(self, served_model: ServedModel, wanted: Sequence[tuple[str | int, float]] | None) -> Adapters:
        """The model's own adapters, or those that a request wants by name or number. APIError for one that is not served."""
        if wanted is None:
            return served_model.adapters
        found: dict[Path, float] = {}
        for id, scale in wanted:
            spec = next((spec for at, spec in enumerate(self.adapters) if id in (at, spec.name)), None)
            if spec is None:
                names = ", ".join(spec.name for spec in self.adapters) or "none; start the server with --lora NAME=PATH"
                raise APIError(400, f"there is no adapter {str(id)[:100]!r}; those that are served: {names}", "lora", "adapter_not_found")
            if spec.path in found:
                raise APIError(400, f"lora names {spec.name} twice; name each adapter once", "lora")
            found[spec.path] = scale
        return tuple((path, scale) for path, scale in found.items() if scale)

    def put(self, persona: str, capacity: int, max_tokens: int) -> None:
        """Serve a persona or character as its file is now, one that is served already as well.

        ContextError where it leaves no room to talk, PersonaError where it is broken or has the bare model's id: then it is not served.
        To be called on the thread that plans.
        """
        id = self._id(persona)
        if id == self.bare.id:
            raise PersonaError(f"{id} is the id of the model itself; give the character another name")
        self.withdraw(id)
        served_model = self._open(persona)
        prompt = self.prompt(served_model)
        window = open_window(prompt, capacity, max_tokens, served_model.sources)
        refuse_oversized_head(served_model.persona, prompt, window, max_tokens)
        self._served_models = {**self._served_models, id: served_model}  # who walks over them meanwhile has the former ones

    def withdraw(self, id: str) -> None:
        """Serve a persona no longer; requests that are under way are finished. On the thread that plans."""
        if id != self.bare.id:
            self._served_models = {name: one for name, one in self._served_models.items() if name != id}
        for key in [key for key in self._prompts if key[0].id == id]:
            del self._prompts[key]

    def prompt(
        self, served_model: ServedModel, system: str = "", think: bool | None = None, tools: Sequence[Mapping[str, Any]] = ()
    ) -> Prompt:
        """How prompts of a voice begin, `system` following the persona's own description; `think` and `tools` as `open_format` has them."""
        think = self._think if think is None else think
        key = (served_model, system, think, json.dumps(tools) if tools else "")
        if (prompt := self._prompts.get(key)) is None:
            persona = served_model.sources.persona(served_model.persona_with(system))
            format = open_format(self._format, persona, self._llama.tokenizer, think, tools, self.call_syntax)
            prompt = self._prompts[key] = Prompt(format, self._llama.tokenizer, served_model.sources.head)
            if len(self._prompts) > REMEMBERED_HEADS:
                self._prompts.popitem(last=False)
        self._prompts.move_to_end(key)
        return prompt

    def heads(self, capacity: int, max_tokens: int, leave_out: Callable[[str], object] | None = None) -> list[tuple[list[int], Adapters]]:
        """The ids that each persona's conversations begin with, and its adapters.

        ContextError for a persona that leaves no room to talk; with `leave_out`, which gets a sentence, it is not served instead.
        """
        heads = []
        for served_model in list(self):
            prompt = self.prompt(served_model)
            window = open_window(prompt, capacity, max_tokens, served_model.sources)
            try:
                refuse_oversized_head(served_model.persona, prompt, window, max_tokens)
            except ContextError:
                if leave_out is None or served_model.bare:
                    raise
                leave_out(f"{served_model.id} is not served: the persona leaves no room to talk in a window of {capacity} tokens")
                del self._served_models[served_model.id]
                continue
            if not served_model.bare:
                heads.append((list(prompt.head_ids), served_model.adapters))
        return heads


def persona_id(name_or_path: str) -> str:
    """The model id of a persona: its file's name."""
    return name_or_path.replace("\\", "/").rsplit("/", 1)[-1].rsplit(".y", 1)[0].lower()


class SampledAnswers:
    """The ids of answers as they were sampled, by their text: a client sends only the text back, and tokenising it anew may differ."""

    def __init__(self) -> None:
        self._ids: OrderedDict[str, tuple[int, ...]] = OrderedDict()
        self._lock = threading.Lock()

    def remember(self, text: str, ids: Sequence[int]) -> None:
        """The newest sampling of a text counts."""
        if not text:
            return
        with self._lock:
            self._ids[text] = tuple(ids)
            self._ids.move_to_end(text)
            if len(self._ids) > REMEMBERED_ANSWERS:
                self._ids.popitem(last=False)

    def spoken(self, text: str) -> tuple[int, ...] | None:
        """The ids of an answer; None where it is not known."""
        with self._lock:
            return self._ids.get(text)
