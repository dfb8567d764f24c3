"""From a request to the answers that are to be made: who speaks, what of the conversation fits, how ids are drawn."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from app.models.llama.logits_processors import Grammar, LogitsProcessors
from app.models.llama.sampling_params import SamplingParams
from app.models.llama.sequence_breakers import breakers_for
from app.sampler_settings import DECLARED, sampler_values
from townhall.chats.chat_turn import ChatTurn
from townhall.context.source import PromptSources
from townhall.context.strategies import open_strategy
from townhall.context.strategy import Window
from townhall.earlier_replies import beside_earlier
from townhall.errors import ContextError
from townhall.formats.call_syntax import CallSyntax, instructions
from townhall.formats.prompt_pieces import PromptTurn
from townhall.logbook.recording_model import prompt_hash
from townhall.prompt import Prompt
from townhall.prompt_builder import cut_raw, open_window, refuse_oversized_head, refuse_oversized_text
from townhall.server.errors import APIError
from townhall.server.grammar import CallGrammar, Grammars
from townhall.server.job import AnswerRequest
from townhall.server.model_facts import ModelFacts
from townhall.server.planned_request import PlannedRequest
from townhall.server.remote_question import refuse_unsent, with_question
from townhall.server.requests import ChatRequest, CompletionRequest, Generate
from townhall.server.serve_options import ServeOptions
from townhall.server.served_models import SampledAnswers, ServedModel, ServedModels
from townhall.server.slots import Adapters
from townhall.server.summaries import SummaryStore
from townhall.server.tool_requests import ToolUse, tool_use
from townhall.server.tools import CallHistory, CallReading, call_tags, refuse_open_calls
from townhall.transcript import lay_out

SEEDS = 1 << 63  # numpy takes seeds from 0 on, clients send any 64 bits
# what the server's own settings come to where an answer must have a shape: a shape repeats itself, which is no fault
UNPENALIZED = {"repeat_penalty": 1.0, "frequency_penalty": 0.0, "presence_penalty": 0.0, "dry_multiplier": 0.0, "reply_ngram_penalty": 0.0}
UNTOUCHED = {"reply_ngram_penalty": 0.0}  # where no persona talks: who asks a program for a text again wants that text
ANY_SEED = -1  # as other local servers have it, and SillyTavern says it


class Planner:
    """Works on one thread of its own: layouts and templates are shared between requests, and tokenising may take its time."""

    def __init__(
        self,
        llama: ModelFacts,
        served_models: ServedModels,
        answers: SampledAnswers,
        summaries: SummaryStore,
        options: ServeOptions,
        sampling: SamplingParams,
        capacity: int,
    ):
        self._llama, self._served_models, self._answers, self._summary_store, self._options = (
            llama,
            served_models,
            answers,
            summaries,
            options,
        )
        self._sampling, self._capacity = sampling, capacity
        self._grammars = Grammars(llama.tokenizer)

    def chat(self, request: ChatRequest) -> PlannedRequest:
        """APIError or ContextError for what cannot be done."""
        served_model, warning = self._served_models.choose(request.model, self._options.strict_model)
        if len(request.messages) > self._options.limits.messages:
            most = self._options.limits.messages
            raise APIError(
                422, f"messages has {len(request.messages)} entries, more than the {most} that are read", "messages", "too_many_messages"
            )
        syntax, use = self._served_models.call_syntax, tool_use(request)
        if served_model.elsewhere:
            refuse_unsent(request, use)
        refuse_open_calls(request.messages)
        system, turns, indices = _split(request, syntax)
        refuse_oversized_text(system, self._capacity)
        # a shape is an answer from its first character on
        shaped = request.shape is not None or bool(use and use.must)
        think = False if shaped and request.think is None else request.think
        tools = [function.described() for function in use.functions] if use else []
        if use and not syntax.template:
            described = "\n\n".join(filter(None, (system, instructions(tools))))
            prompt = self._served_models.prompt(served_model, described, think)
        else:
            prompt = self._served_models.prompt(served_model, system, think, tools)
        reading = CallReading(syntax, [f.name for f in use.callable], use.legacy, self._tags(syntax)) if use else None
        grammar = self._calls(request, use, reading, prompt, bool(think)) if use and reading else self._grammar(request)
        limit = self._longest(request.limit, self._options.max_tokens)
        sources = served_model.sources
        window = self._window(served_model, prompt, limit, sources)
        if window.budget < 1:
            raise ContextError(
                f"the system message takes {window.pinned} tokens of a window of {window.capacity}; shorten it or raise --max-context",
                window.pinned,
                window.capacity,
            )
        name = request.strategy or self._options.context
        strategy = open_strategy(name)
        summaries = self._summary_store
        prompt_plan = lay_out(
            prompt,
            strategy,
            window,
            turns,
            self._answers.spoken,
            lambda said: summaries.summary_checkpoints.recall(prompt.head_ids, said),
            sources,
            request.seed or 0,
            may_begin=not grammar and not use and not request.logprobs,
        )
        drawn = self._drawn(request, UNPENALIZED if shaped or use else UNTOUCHED if served_model.bare else {})
        sampling = beside_earlier(drawn, prompt, served_model.persona, prompt_plan.exchanges, prompt_plan.question, prompt_plan.answer_at)
        run = AnswerRequest(
            index=0,
            prompt=prompt,
            ids=prompt_plan.ids,
            sampling=sampling,
            max_tokens=limit,
            # a shape is no conversation: nothing in it is a cue
            stop=request.stops if shaped else (*prompt.stop, *request.stops),
            stop_ids=self._llama.tokenizer.stop_ids if shaped else prompt.stop_ids,
            logits_processors=self._logits_processors(request),
            breakers=breakers_for(self._llama.tokenizer, sampling),
            grammar=grammar,
            top=(request.top_logprobs or 0) if request.logprobs else None,
            trim=not prompt_plan.opening,
            separate=not prompt_plan.opening and (not shaped or bool(use and think)),
            think_tokens=self._options.think_tokens,
            tags=reading.tags if reading else {},
            opening=prompt_plan.opening,
            begun=prompt_plan.begun,
            strategy=strategy,
            pinned=window.pinned,
            removed=prompt_plan.removed,
            before=prompt_plan.before,
            # Open WebUI asks for titles and tags like this: one message that holds the conversation, and no stream
            once=len(turns) == 1 and not request.stream and not use,
            adapters=self._adapters(request, served_model),
            # of several answers it is unknown which one the client continues
            after=summaries.after(served_model.persona_with(system), prompt, strategy, window, prompt_plan)
            if strategy.memory and (request.n or 1) == 1
            else None,
        )
        dropped = [indices[at] for at in prompt_plan.dropped]
        info = self._info(served_model, name, window.pinned, dropped, prompt_plan.dropped_tokens)
        info |= {"prompt_tokens": len(prompt_plan.ids), "reserve_tokens": window.reserve, "prompt_sha256": prompt_hash(prompt_plan.ids)}
        info |= prompt_plan.contents()
        if memory := prompt_plan.memory:
            info |= {"memory": memory.text, "memory_tokens": len(memory.ids), "memory_of": list(prompt_plan.memory_of)}
        info["tools"] = None if not use else "template" if syntax.template else "text"
        planned = PlannedRequest(_repeated(run, request.n or 1), info, served_model.id, warning, calls=reading)
        speaker = sources.persona(served_model.persona_with(system))
        return with_question(planned, self._options.via, served_model, prompt, speaker, prompt_plan, prompt_plan.opening, request.stops)

    def turn(self, asked: ChatTurn) -> PlannedRequest:
        """The reply to a chat's last message, or the user's next one. APIError, ContextError or PrefillError for what cannot be done."""
        served_model = self._served_models.find(asked.model)
        speaker = replace(served_model, persona=replace(served_model.persona, description=asked.system, style="")) if asked.system else None
        prompt = self._served_models.prompt(speaker or served_model, think=asked.think)
        limit = self._options.max_tokens if asked.max_tokens is None else asked.max_tokens
        sources = self._served_models.libraries.instead(served_model.sources, asked.libraries)
        sources = sources.adding(asked.sources(served_model.persona.name))
        window = self._window(served_model, prompt, limit, sources)
        refuse_oversized_head(served_model.persona, prompt, window, limit)
        strategy, summaries = open_strategy(name := asked.context or self._options.context), self._summary_store
        carried = self._carried(asked, prompt)
        given = prompt.continued_ids(carried) if carried else prompt.opening_ids(asked.prefill)
        plan = lay_out(
            prompt,
            strategy,
            window,
            asked.turns(),
            recall=lambda said: summaries.summary_checkpoints.recall(prompt.head_ids, said),
            sampled=[asked.known.of(self._llama, prompt, answer) for _, answer in asked.said],
            opening=() if asked.impersonate else given,
            sources=sources,
            may_begin=not given and not asked.impersonate and asked.score is None,
        )
        given = given or list(plan.begun)
        ids, stop = plan.ids, (*prompt.stop, *asked.stop)
        if asked.impersonate:
            given = prompt.words(asked.prefill.rstrip(" "))
            ids, stop = (*prompt.user_cue_ids(plan.window), *given), (*stop, f"\n{served_model.persona.name}:")
        own = self._sampling.seed
        seed = own if asked.seed is None else None if asked.seed == ANY_SEED else asked.seed
        otherwise = UNTOUCHED if served_model.bare else {}
        sampling = SamplingParams(**{**sampler_values(self._sampling), **otherwise, **asked.sampler}, seed=seed)
        if not asked.impersonate:
            sampling = beside_earlier(sampling, prompt, served_model.persona, plan.exchanges, asked.question, plan.answer_at)
        run = AnswerRequest(
            index=0,
            prompt=prompt,
            ids=ids,
            sampling=sampling,
            max_tokens=limit,
            stop=stop,
            stop_ids=prompt.stop_ids,
            breakers=breakers_for(self._llama.tokenizer, sampling),
            separate=not asked.impersonate,
            think_tokens=self._options.think_tokens,
            begun=given,
            strategy=strategy,
            pinned=window.pinned,
            removed=plan.removed,
            before=plan.before,
            adapters=self._served_models.adapters_of(served_model, asked.adapters),
            after=summaries.after(speaker.persona if speaker else served_model.persona, prompt, strategy, window, plan)
            if strategy.memory and not asked.impersonate
            else None,
        )
        if asked.score is not None:
            run = replace(run, max_tokens=0, top=asked.score, echo=True, once=True, after=None)
        info = self._info(served_model, name, window.pinned, list(plan.dropped), plan.dropped_tokens)
        info |= {"prompt_tokens": len(ids), "reserve_tokens": window.reserve, "prompt_sha256": prompt_hash(ids)}
        if memory := plan.memory:
            info |= {"memory": memory.text, "memory_tokens": len(memory.ids), "memory_of": list(plan.memory_of)}
        info |= plan.contents()
        planned = PlannedRequest([run], info, served_model.id, given=carried, gathered=plan.gathered, sources=sources.note(self._capacity))
        if asked.impersonate or asked.score is not None or asked.upto is not None:  # these are the local model's
            return planned
        persona = sources.persona((speaker or served_model).persona)
        begun = "" if plan.gathered.opening and plan.begun else self._llama.tokenizer.decode(given)
        return with_question(planned, self._options.via, served_model, prompt, persona, plan, begun, asked.stop)

    def _window(self, served_model: ServedModel, prompt: Prompt, limit: int, sources: PromptSources) -> Window:
        """Of what another server's model is sent, memory and exchanges may be bounded."""
        window = open_window(prompt, self._capacity, limit, sources)
        return replace(window, history=self._options.history) if served_model.elsewhere else window

    def _carried(self, asked: ChatTurn, prompt: Prompt) -> list[int]:
        """The ids that a chat's reply begins with, where it carries on another one."""
        if asked.carried is None:
            return []
        ids = asked.known.of(self._llama, prompt, asked.carried)
        ids = prompt.words(asked.carried.text) if ids is None else ids
        if asked.upto is not None:
            if asked.upto >= len(ids):
                raise APIError(400, f"that message has {len(ids)} tokens, so none at position {asked.upto}", "position")
            if asked.token >= self._llama.tokenizer.vocab_size or asked.token in prompt.stop_ids:
                raise APIError(400, f"a reply cannot go on with token {asked.token}", "token")
            ids = [*ids[: asked.upto], asked.token]
        return [*ids, *prompt.words(asked.prefill)]

    def count(self, text: str) -> int:
        """Tokens of words within a conversation."""
        return len(self._llama.tokenizer.encode(text, bos=False, special=False)) if text else 0

    def completion(self, request: CompletionRequest) -> PlannedRequest:
        """APIError or ContextError for what cannot be done."""
        served_model, warning = self._served_models.choose(request.model, self._options.strict_model)
        name = request.strategy or self._options.context
        limit, n = self._longest(request.max_tokens, 16), request.n or 1  # 16 is OpenAI's default here
        echo = bool(request.echo)
        grammar = self._grammar(request)
        runs: list[AnswerRequest] = []
        gone = 0
        for at, given in enumerate(request.prompts):
            ids, cut = self._raw(given, limit, name, echo)
            gone += cut
            run = AnswerRequest(
                index=at * n,
                prompt=self._served_models.prompt(served_model),
                ids=ids,
                sampling=(sampling := self._drawn(request, UNPENALIZED if grammar else {"repeat_penalty": self._options.plain_penalty})),
                max_tokens=limit,
                stop=request.stops,
                stop_ids=self._llama.tokenizer.stop_ids,
                logits_processors=self._logits_processors(request),
                breakers=breakers_for(self._llama.tokenizer, sampling),
                grammar=grammar,
                top=request.logprobs,
                trim=False,
                once=echo and request.logprobs is not None,
                text=given if isinstance(given, str) else self._llama.tokenizer.decode(given),
                echo=echo,
                adapters=self._adapters(request, served_model),
            )
            runs += _repeated(run, n)
        return PlannedRequest(runs, self._info(served_model, name, 0, [], gone), served_model.id, warning)

    def _adapters(self, request: Generate, served_model: ServedModel) -> Adapters:
        wanted = None if request.lora is None else [(entry.id, entry.scale) for entry in request.lora]
        return self._served_models.adapters_of(served_model, wanted)

    def _longest(self, asked: int | None, default: int) -> int:
        """Tokens in an answer, at most; below 0 the window is the only limit."""
        return default if asked is None else asked if asked >= 0 else self._capacity

    def _raw(self, given: str | list[int], limit: int, strategy: str, whole: bool) -> tuple[list[int], int]:
        """Ids of a raw prompt, and how many tokens of its beginning went so that there is room for an answer; of a `whole` one, none."""
        tokenizer, capacity = self._llama.tokenizer, self._capacity
        if isinstance(given, str):
            refuse_oversized_text(given, capacity)
            ids = tokenizer.encode(given)
        else:
            known = tokenizer.vocab_size
            if wrong := [n for n in given if not 0 <= n < known]:
                raise APIError(400, f"{wrong[0]} is no token of this model, which has {known}", "prompt")
            ids = list(given)
        ids = ids or [next(iter(tokenizer.stop_ids))]  # a text of nothing follows the end of another
        if whole and len(ids) > capacity:
            raise ContextError(
                f"the prompt has {len(ids)} tokens and the window holds {capacity}; one that is echoed is not cut: "
                "shorten it or raise --max-context",
                len(ids),
                capacity,
            )
        if whole:
            return ids, 0
        return cut_raw(ids, tokenizer.encode(""), capacity, limit, strategy)

    def _drawn(self, request: Generate, otherwise: Mapping[str, Any]) -> SamplingParams:
        """The server's own way to draw ids, but for settings that are `otherwise`, and for what the request says."""
        own = self._sampling
        seed = own.seed if request.seed is None else None if request.seed == ANY_SEED else request.seed % SEEDS
        values = {**sampler_values(own), **otherwise}
        for name, declared in DECLARED.items():
            if (given := getattr(request, name)) is not None:
                values[name] = tuple(given) if declared.kind is tuple else given if declared.least is None else max(given, declared.least)
        if request.repeat_last_n is None:  # OpenAI's penalties, which `_logits_processors` has
            values |= {name: 0.0 for name in ("frequency_penalty", "presence_penalty") if getattr(request, name) is not None}
        return SamplingParams(**values, seed=seed)

    def _logits_processors(self, request: Generate) -> LogitsProcessors:
        bias = {int(n): value for n, value in (request.logit_bias or {}).items()}
        known = self._llama.tokenizer.vocab_size
        if wrong := [n for n in bias if n >= known]:
            raise APIError(400, f"logit_bias names {wrong[0]}, which is no token of this model", "logit_bias")
        if request.repeat_last_n is not None:  # then they are llama.cpp's, over that range
            return LogitsProcessors(bias)
        return LogitsProcessors(bias, request.frequency_penalty or 0.0, request.presence_penalty or 0.0)

    def _grammar(self, request: Generate) -> Callable[[], Grammar] | None:
        return None if request.shape is None else self._grammars.of_schema(request.shape)

    def _tags(self, syntax: CallSyntax) -> dict[int, str]:
        return call_tags(syntax, self._llama.tokenizer.special_ids)

    def _calls(self, request: ChatRequest, use: ToolUse, reading: CallReading, prompt: Prompt, think: bool) -> Callable[[], Grammar] | None:
        """What calls are held to; None where the model has no vocabulary, and need not call."""
        if not use.must and request.shape is None and not self._grammars.possible:
            return None
        calls = self._grammars.of_calls(reading.syntax, use.callable, use.parallel, None if use.must else request.shape)
        if (use.must or request.shape is not None) and not think:
            return calls
        must = use.must or request.shape is not None
        return lambda: CallGrammar(calls, reading, self._llama.tokenizer, prompt, must)

    def _info(self, served_model: ServedModel, strategy: str, pinned: int, dropped: list[int], dropped_tokens: int) -> dict[str, Any]:
        return {
            "persona": None if served_model.bare else served_model.persona.name,
            "strategy": strategy,
            "window": self._capacity,
            "pinned_tokens": pinned,
            "reserve_tokens": 0,
            "dropped": dropped,
            "dropped_tokens": dropped_tokens,
            "memory": None,
            "memory_tokens": 0,
            "memory_of": [],
            "device": self._llama.device,
        }


def _repeated(run: AnswerRequest, n: int) -> list[AnswerRequest]:
    """`n` answers to one prompt; the first has the seed that was given, the others follow it."""
    sampling, seed = run.sampling, run.sampling.seed
    seeds = [None if seed is None else (seed + at) % SEEDS for at in range(n)]
    return [replace(run, index=run.index + at, sampling=replace(sampling, seed=seeds[at])) for at in range(n)]


def _split(request: ChatRequest, syntax: CallSyntax) -> tuple[str, list[PromptTurn], list[int]]:
    """(what the system says, what is said then, the latter's places in the list).

    A system message amid the others is read where it stands, as the user's words: formats have no other place for it, and whoever ends
    with one ("[Sum up what happened.]" after an answer) wants it followed, not that answer carried on.
    """
    system: list[str] = []
    turns: list[PromptTurn] = []
    indices: list[int] = []
    history = CallHistory(syntax)
    for index, message in enumerate(request.messages):
        instructs = message.role in ("system", "developer")
        if instructs and not turns:
            system.append(message.text)
        elif message.text or not instructs:
            turns.append(history.turn(message))
            indices.append(index)
    return "\n\n".join(filter(None, system)), turns or [PromptTurn("user", "")], indices
