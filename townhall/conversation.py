"""A conversation with a persona: messages in, text out, of any length at constant memory."""

import os
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from townhall.answer import Answer
from townhall.answer_loop import AnswerLoop, common_prefix
from townhall.context.source import GatheredSources, PromptSources, SourceRole, SourceState
from townhall.context.strategies import open_strategy
from townhall.context.strategy import Usage, Window, WindowPlan, describe_history, fold_ahead
from townhall.context.summarizer import Fold, Summarizer
from townhall.earlier_replies import beside_earlier
from townhall.language_model import LanguageModel, Progress, TokenStream
from townhall.message import Exchange, Message, Note
from townhall.persona import Persona
from townhall.prefix_cache import PrefixCache
from townhall.prompt import Prompt
from townhall.prompt_builder import (
    BuiltPrompt,
    build,
    memory_tokens,
    open_window,
    refuse_oversized_head,
    refuse_oversized_text,
    settle_cache,
)
from townhall.reply import Reply
from townhall.template import open_format
from townhall.transcript import exchange_of
from townhall.turn import ConversationState, OngoingTurn, settled, states
from townhall.via.answering import AnsweringModel, Hearing, laid_reply, question_for

if TYPE_CHECKING:
    from app.models.llama import SamplingParams

__all__ = ["MAX_REPLY", "REPEAT_PENALTY", "REPLY_NGRAM_PENALTY", "TEMPERATURE", "Conversation", "Reply", "default_sampling"]

MAX_REPLY = 512  # tokens; a persona that has not come to an end by then will not
# cooler than usual and with a penalty: small models ramble at 0.7 and, without the penalty, say one sentence for ever
TEMPERATURE, REPEAT_PENALTY = 0.3, 1.1
REPLY_NGRAM_PENALTY = 2.0  # and this one, or they say one reply for ever (docs/characters.md)


@dataclass(frozen=True)
class Prepared:
    """What reading the persona took."""

    prompt_tokens: int
    cached_tokens: int  # of them already in the KV cache
    seconds: float
    restore_seconds: float | None = None  # of them for the stored entries; None where the model had to read


class Conversation:
    """`exchanges` is the whole history, which no strategy edits; `plan` is what of it the window holds."""

    exchanges: list[Exchange]
    last: Reply | None
    _next_prompt: Sequence[int]  # as the next prompt will begin
    _as_read: Sequence[int]  # the same with what sources put into the last prompt, as the model read it

    def __init__(
        self,
        llama: LanguageModel,
        persona: Persona,
        *,
        format: str = "auto",
        context: str = "slide",
        sampling: "SamplingParams | None" = None,
        max_tokens: int = MAX_REPLY,
        heads: PrefixCache | None = None,
        trim: bool = True,
        think: bool | None = None,
        think_tokens: int | None = None,
        sources: PromptSources | None = None,
        history: int | None = None,
    ):
        """Lay out the persona; ContextError, with the numbers, where it leaves no room to talk. `heads` keeps personas for other starts.

        `sources` give what goes into prompts beside persona and conversation; of that, memory and exchanges take `history` tokens at most.

        Without `trim` answers are raw: white space at their ends stays, and no string but the model's own end token ends them. `think`
        tells a template that knows the switch whether the model thinks before it answers; thoughts end after `think_tokens`.
        """
        self.llama, self.persona, self.max_tokens = llama, persona, max_tokens
        self.stop: Sequence[str] = ()  # texts that end an answer, beside the format's own
        self.sampling = sampling if sampling is not None else default_sampling()
        self.strategy, self.heads, self.trim, self._format = open_strategy(context), heads, trim, format
        self.think, self.think_tokens, self._history = think, think_tokens, history
        self.elsewhere: AnsweringModel | None = None  # who answers in the local model's place
        self.away: Callable[[str], object] = lambda said: None  # is given the sentence why the local model answers after all
        self.cache = llama.new_cache()
        self._lay_out(sources or PromptSources((), llama.tokenizer))
        self._summarizer: Summarizer | None = None  # made when there is first something to write down
        self._fresh()

    def _lay_out(self, sources: PromptSources) -> None:
        """How prompts begin, and what room there is beside that. ContextError, and all is as before, where there is none to talk."""
        tokenizer = self.llama.tokenizer
        prompt = Prompt(open_format(self._format, sources.persona(self.persona), tokenizer, self.think), tokenizer, sources.head)
        self.window = self._opened(prompt, sources, self.max_tokens)
        self.sources, self.prompt = sources, prompt

    def _opened(self, prompt: Prompt, sources: PromptSources, max_tokens: int) -> Window:
        window = replace(open_window(prompt, self.cache.capacity, max_tokens, sources), history=self._history)
        refuse_oversized_head(self.persona, prompt, window, max_tokens)
        return window

    def use(self, sources: PromptSources) -> None:
        """From the next turn on, have these sources. ContextError, and all is as before, where their head leaves no room to talk."""
        self._lay_out(sources)
        self._next_prompt = self.prompt.before(self.plan)

    def _fresh(self) -> None:
        self.exchanges, self.last = [], None
        self._stand(ConversationState(), [])

    def _stand(self, now: ConversationState, before: list[ConversationState], known: bool = False) -> None:
        """`before` are the states that each exchange found; `known`: the model has read all that the next prompt begins with."""
        self._now, self._before, self._known = settled(now, self.exchanges, bool(self.strategy.memory)), before, known
        self._next_prompt = self._as_read = self.prompt.before(now.plan)

    @property
    def plan(self) -> WindowPlan:
        return self._now.plan

    @property
    def source_states(self) -> list[Mapping[str, SourceState]]:
        """What the sources remembered after each exchange."""
        return [state.sources for state in [*self._before, self._now][1:]]

    def prepare(self, on_progress: Progress | None = None) -> Prepared:
        """Restore or prefill the pinned head, so that the first turn costs its own tokens only."""
        head, started = list(self.prompt.head_ids), time.perf_counter()
        restored = self.heads.restore(self.cache, head) if self.heads else False
        restore_seconds = time.perf_counter() - started if restored else None
        most = self.llama.prefill(head[:-1], self.cache, on_progress)
        # a single token goes the way of decoding, so what that has to set up is done before the first answer is waited for
        self.llama.prefill(head, self.cache)
        self.strategy.prepare(self.cache)
        seconds = time.perf_counter() - started
        if self.heads and not restored:
            self.heads.keep(self.cache)
        return Prepared(len(head), most.cached_tokens, seconds, restore_seconds)

    def reset(self) -> None:
        """Begin anew with the same persona, whose head stays in the cache."""
        self._fresh()

    def renew(self) -> None:
        """Begin anew as another start of the program would: nothing but the persona's head is in the cache."""
        self.cache, self._summarizer = self.llama.new_cache(), None
        self._fresh()
        self.prepare()

    def limit(self, max_tokens: int) -> None:
        """From now on an answer has at most so many tokens. ContextError where the persona leaves no room for that."""
        self.window, self.max_tokens = self._opened(self.prompt, self.sources, max_tokens), max_tokens

    def undo(self, turns: int = 1) -> tuple[Exchange, ...]:
        """Take back the last `turns` exchanges, at most all, and say which: the window is again what the first of them found."""
        at = max(0, len(self.exchanges) - turns)
        taken = tuple(self.exchanges[at:])
        if taken:
            found, before = self._before[at], self._before[:at]
            del self.exchanges[at:]
            self._stand(found, before, known=not found.recalled)
        return taken

    def recall(
        self,
        turns: Sequence[tuple[str, str]],
        sampled: Sequence[Sequence[int] | None] = (),
        reasoning: Sequence[str] = (),
        sources: Sequence[Mapping[str, SourceState]] = (),
    ) -> None:
        """Replace the history by these (question, answer) pairs, as if they had been said here one after the other.

        The window holds of them what the strategy would have left in it, and the next receipt tells what that is not. Nothing is computed
        before the next reply, and then from the first changed token on: answers that stand where they stood keep their ids, others have
        them from `sampled` (one entry for each pair, None where they are not known), or are tokenised. `reasoning` is what was thought,
        `sources` what these remembered after each pair.

        Raises ContextError where the strategy lets nothing go, or a text is beyond all measure; the conversation stands as before.
        """
        exchanges = []
        for at, (question, answer) in enumerate(turns):
            refuse_oversized_text(question, self.window.capacity)
            refuse_oversized_text(answer, self.window.capacity)
            old = self.exchanges[at] if at < len(self.exchanges) else None
            if old and (old.user.text, old.reply.text) == (question, answer):
                exchanges.append(old)
            else:
                ids, thoughts = sampled[at] if at < len(sampled) else None, reasoning[at] if at < len(reasoning) else ""
                exchanges.append(exchange_of(self.prompt, at, question, answer, ids, thoughts))
        *before, now = states(self.strategy, self.window, exchanges, sources)
        self.exchanges, self.last = exchanges, None
        self._stand(now, before)

    def hold(self, left: int, memory: str) -> None:
        """The window has let go of the first `left` exchanges, and holds a memory of them in these words: as another program left it."""
        noted = self.prompt.memory([Note(memory, ())])
        self._now = ConversationState(WindowPlan(tuple(self.exchanges[left:]), (), noted), sources=self._now.sources)
        self._next_prompt = self._as_read = self.prompt.before(self.plan)

    def history(self) -> str:
        """All that was said, and where the model still sees it."""
        return describe_history(self.exchanges, self.plan, self.persona.user, self.persona.name)

    def usage(self) -> Usage:
        """How the window is filled now."""
        memory = memory_tokens(self.plan.memory)
        return Usage.of(self.window, memory, self.plan.tokens - memory)

    def after_reply(self, stopped: Callable[[], bool] = lambda: False, on_progress: Progress | None = None) -> Fold | None:
        """Summarise what the next turn would push out; to be called after an answer has been shown.

        None where there was nothing to do. `stopped` is asked between tokens, and true ends it without a memory.
        """
        bound = self.window.memory_bound(self.strategy.memory)
        leaving = fold_ahead(self.window, self.plan, bound) if bound else ()
        if not (self._now.unfolded or leaving) or (not self._now.unfolded and leaving[-1] in self._now.given_up):
            return None
        self._summarizer = self._summarizer or Summarizer(self.llama, self.persona, self._format, bound)
        fold = self._summarizer.fold(self.prompt, self.plan.memory, (*self._now.unfolded, *leaving), stopped, on_progress)
        if fold.memory is None:
            self._now = self._now.unmemorable(leaving)
            return fold
        moved = self.plan.kept[len(leaving) :] if self.prompt.format.turn_by_turn else ()
        self._now = self._now.folded(leaving, fold.memory, sum(exchange.tokens for exchange in moved))
        if self.prompt.format.turn_by_turn:
            self._next_prompt = self._as_read = self.prompt.before(self.plan)
            if self.elsewhere is None:
                self.llama.prefill(list(self._next_prompt), self.cache)
        return fold

    def reply(
        self,
        text: str,
        prefill: str = "",
        instead: int = 0,
        stopped: Callable[[], bool] = lambda: False,
        on_progress: Progress | None = None,
        on_reasoning: Callable[[str], None] = lambda thoughts: None,
        opening: Sequence[int] | None = None,
        gathered: GatheredSources | None = None,
    ) -> Generator[str, None, None]:
        """Answer `text`, piece by piece as it is sampled; `last` has the figures afterwards.

        The answer begins with `prefill`, or with the ids `opening` of an answer that is carried on, and takes the place of the last
        `instead` exchanges. While the prompt is read, `on_progress` counts its new tokens; what the model thinks goes to `on_reasoning`.
        In the meantime `stopped` is asked: true interrupts the answer before it begins. With `gathered` the sources are not asked:
        these are the texts they gave.

        Raises ContextError at once where the turn cannot fit, PrefillError where an answer cannot begin so, and the conversation stands
        as before. An answer that is cut short, by closing the iterator or by KeyboardInterrupt, is kept as far as it was shown.
        """
        refuse_oversized_text(text + prefill, self.window.capacity)
        at = max(0, len(self.exchanges) - instead)
        found = self._now if at == len(self.exchanges) else self._before[at]
        turn = Message(2 * at, "user", text, self.prompt.turn_ids(text))
        if gathered is None:
            gathered = self._gather(at, text, found.sources)
        if prefill or opening is not None:
            gathered = replace(gathered, opening="")
        begun = self.prompt.opening_ids(prefill or gathered.opening) if opening is None else self.prompt.continued_ids(opening)
        built = build(self.prompt, self.strategy, self.window, found.plan, turn, begun, gathered)
        self.undo(instead)
        if self.elsewhere is not None:
            return self._stream_elsewhere(self.elsewhere, built, stopped, on_progress, on_reasoning)
        return self._stream(built, stopped, on_progress, on_reasoning)

    def _gather(self, at: int, text: str, states: Mapping[str, SourceState]) -> GatheredSources:
        """What the sources give to `text`, said after the first `at` exchanges."""
        if not self.sources.sources:
            return GatheredSources(states=states)
        said: list[tuple[SourceRole, str]] = [(message.role, message.text) for one in self.exchanges[:at] for message in one.messages]
        seed = getattr(self.sampling, "seed", None)
        seed = int.from_bytes(os.urandom(4), "little") if seed is None else seed
        return self.sources.gather([*said, ("user", text)], states, seed, self.window.capacity, self.window.beside)

    def impersonate(self, prefill: str = "", stopped: Callable[[], bool] = lambda: False) -> Generator[str, None, None]:
        """What the user might say next, as the model would write it, beginning with `prefill`; the conversation stays as it is.

        ContextError at once where there is no room for it.
        """
        refuse_oversized_text(prefill, self.window.capacity)
        turn = Message(2 * len(self.exchanges), "user", "", self.prompt.turn_ids(""))
        built = build(self.prompt, self.strategy, self.window, self._now.plan, turn)
        begun = self.prompt.words(prefill.rstrip(" "))
        ids = [*self.prompt.user_cue_ids(built.plan), *begun]
        stop = (*self.prompt.stop, f"\n{self.persona.name}:")

        def written() -> Generator[str, None, None]:
            settle_cache(self.strategy, self.cache, built.removed, self._next_prompt)
            self._known = False
            answer = Answer(self.llama, self.prompt, stop, opening=begun, separate=False)

            def generate() -> TokenStream:
                return self.llama.generate(ids, self.max_tokens, self.sampling, cache=self.cache, stop_ids=self.prompt.stop_ids)

            for text in AnswerLoop(self.llama, ids, self.cache, generate, answer):
                if text:
                    yield text
                if stopped():
                    return

        return written()

    def _stream(
        self, built: BuiltPrompt, stopped: Callable[[], bool], on_progress: Progress | None, on_reasoning: Callable[[str], None]
    ) -> Generator[str, None, None]:
        uncomputed = 0 if self._known else len(self._as_read) - self.cache.reachable(common_prefix(self._as_read, self.cache.tokens))
        settle_cache(self.strategy, self.cache, built.removed, self._next_prompt)
        stop = (*self.prompt.stop, *self.stop) if self.trim else ()
        answer = Answer(self.llama, self.prompt, stop, self.trim, built.opening, think_tokens=self.think_tokens)

        sampling = beside_earlier(self.sampling, self.prompt, self.persona, self.exchanges, built.turn.text, len(built.prompt))

        def generate() -> TokenStream:
            return self.llama.generate(built.ids, self.max_tokens, sampling, cache=self.cache, stop_ids=self.prompt.stop_ids)

        loop = AnswerLoop(self.llama, built.ids, self.cache, generate, answer)
        steps, finish = loop.steps(), None
        try:
            for text in steps:
                if thoughts := answer.new_reasoning():
                    on_reasoning(thoughts)
                if text:
                    yield text
                elif loop.reading or answer.thinking:
                    if on_progress and loop.reading:
                        on_progress(len(self.cache.tokens) - loop.cached, len(built.ids) - 1 - loop.cached)
                    if stopped():
                        finish = "interrupted"
                        return
            finish = loop.finish
        except (GeneratorExit, KeyboardInterrupt):
            finish = "interrupted"
            raise
        finally:
            steps.close()
            if finish:
                turn = OngoingTurn(built, self._now, self.strategy.name, self.window, uncomputed)
                self.last = turn.reply(answer, loop, finish, self.llama.device)
                ids = (*answer.kept_ids(finish), *self.prompt.close_ids)
                reply = Message(built.turn.id + 1, "assistant", answer.shown, ids, sampled=True, reasoning=answer.reasoning)
                self._keep(built, reply, finish)

    def _stream_elsewhere(
        self,
        model: AnsweringModel,
        built: BuiltPrompt,
        stopped: Callable[[], bool],
        on_progress: Progress | None,
        on_reasoning: Callable[[str], None],
    ) -> Generator[str, None, None]:
        """The answer of another model; the local one's, where that is away before a word has come."""
        asked = question_for(self, built)
        settle_cache(self.strategy, self.cache, built.removed, self._next_prompt)
        hearing = Hearing(model.answer(asked), stopped, on_reasoning, self.away)
        try:
            yield from hearing.pieces()
        finally:
            if hearing.finish:
                turn = OngoingTurn(built, self._now, self.strategy.name, self.window, 0)
                self.last = turn.reply_elsewhere(hearing.answer, hearing.finish)
                self._keep(built, laid_reply(self.prompt, built, hearing.answer), hearing.finish, read=False)
        if not hearing.finish:
            yield from self._stream(built, stopped, on_progress, on_reasoning)

    def _keep(self, built: BuiltPrompt, reply: Message, finish: str, read: bool = True) -> None:
        """Put the exchange into the history; one interrupted before a word was shown never happened. `read`: by the local model."""
        remembers, self._known = bool(self.strategy.memory), False
        plain = read and not built.gathered.texts
        if finish == "interrupted" and not reply.text:
            self._now = self._now.said(built.plan, None, remembers)
            # what stands before the turn, where turns stand by themselves
            self._next_prompt = built.prompt[: len(built.prompt) - len(built.turn.ids)] if plain else self.prompt.before(built.plan)
            self._as_read = self._next_prompt
            return
        exchange = Exchange(built.turn, reply)
        self.exchanges.append(exchange)
        self._before.append(self._now)
        self._now = self._now.said(built.plan, exchange, remembers, built.gathered.states)
        self._next_prompt = self._as_read = [*built.prompt, *reply.ids] if read else self.prompt.before(self.plan)
        if not plain:
            self._next_prompt = self.prompt.before(self.plan)


def default_sampling() -> "SamplingParams":
    """How a persona's replies are drawn where nothing is said of that."""
    from app.models.llama import SamplingParams

    return SamplingParams(temperature=TEMPERATURE, repeat_penalty=REPEAT_PENALTY, reply_ngram_penalty=REPLY_NGRAM_PENALTY)
