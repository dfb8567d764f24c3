"""A conversation with a persona: messages in, text out, of any length at constant memory."""

import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from townhall.answer import Answer
from townhall.context.receipt import Receipt
from townhall.context.registry import open_strategy
from townhall.context.scribe import Fold, Scribe
from townhall.context.strategy import Plan, fold_ahead
from townhall.context.usage import Usage, describe_history
from townhall.facade import LanguageModel, Progress
from townhall.fitting import fit, open_window, refuse_oversized_head, refuse_oversized_text
from townhall.head_cache import HeadCache
from townhall.message import Exchange, Memory, Message, messages_of
from townhall.persona import Persona
from townhall.prompt import Prompt
from townhall.reply import Reply
from townhall.template import open_format

if TYPE_CHECKING:
    from app.models.llama import Sampling

__all__ = ["MAX_REPLY", "REPEAT_PENALTY", "TEMPERATURE", "Conversation", "Reply"]

MAX_REPLY = 512  # tokens; a persona that has not come to an end by then will not
# cooler than usual and with a penalty: small models ramble at 0.7 and, without the penalty, say one sentence for ever
TEMPERATURE, REPEAT_PENALTY = 0.3, 1.1


@dataclass(frozen=True)
class Prepared:
    """What reading the persona took."""

    prompt_tokens: int
    cached_tokens: int  # of them already in the KV cache
    seconds: float
    restore_seconds: float | None = None  # of them for the stored entries; None where the model had to read


class Conversation:
    """`exchanges` is the whole history, which no strategy edits; `plan` is what of it the window holds."""

    def __init__(
        self,
        llama: LanguageModel,
        persona: Persona,
        *,
        format: str = "auto",
        context: str = "slide",
        sampling: "Sampling | None" = None,
        max_tokens: int = MAX_REPLY,
        heads: HeadCache | None = None,
    ):
        """Lay out the persona; ContextError, with the numbers, where it leaves no room to talk. `heads` keeps personas for other starts."""
        self.llama, self.persona, self.max_tokens = llama, persona, max_tokens
        self.sampling = sampling if sampling is not None else _default_sampling()
        self.strategy, self.heads, self._format = open_strategy(context), heads, format
        self.prompt = Prompt(open_format(format, persona, llama.tokenizer), llama.tokenizer)
        self.cache = llama.new_cache()
        self.window = open_window(self.prompt, self.cache.capacity, max_tokens)
        refuse_oversized_head(persona, self.prompt, self.window, max_tokens)
        self.exchanges: list[Exchange]
        self.plan: Plan
        self.last: Reply | None
        self._next_id = 0
        self._scribe: Scribe | None = None  # made when there is first something to write down
        self._fresh()

    def _fresh(self) -> None:
        self.exchanges, self.plan, self.last = [], Plan(()), None
        # since the last prompt: what a fold took out of the window, and what it computed again for that
        self._left: tuple[Exchange, ...] = ()
        self._recomputed = 0
        self._unfolded: tuple[Exchange, ...] = ()  # dropped before a memory could be made of them
        self._given_up: tuple[Exchange, ...] = ()  # no memory came of them
        self._laid: Sequence[int] = self.prompt.head_ids  # all that the model was shown or said, as the next prompt would begin

    def prepare(self, on_progress: Progress | None = None) -> Prepared:
        """Restore or prefill the pinned head, so that the first turn costs its own tokens only."""
        head, started = list(self.prompt.head_ids), time.perf_counter()
        restored = self.heads.restore(self.cache, head) if self.heads else False
        restore_seconds = time.perf_counter() - started if restored else None
        most = self.llama.prefill(head[:-1], self.cache, on_progress)
        # a single token goes the way of decoding, so what that has to set up is done before anybody waits for an answer
        self.llama.prefill(head, self.cache)
        self.strategy.prepare(self.cache)
        seconds = time.perf_counter() - started
        if self.heads and not restored:
            self.heads.keep(self.cache)
        return Prepared(len(head), most.cached_tokens, seconds, restore_seconds)

    def reset(self) -> None:
        """Begin anew with the same persona, whose head stays in the cache."""
        self._fresh()

    def history(self) -> str:
        """All that was said, and where the model still sees it."""
        return describe_history(self.exchanges, self.plan, self.persona.user, self.persona.name)

    def usage(self) -> Usage:
        """How the window is filled now."""
        memory = _tokens(self.plan.memory)
        return Usage(self.window.capacity, self.window.pinned, memory, self.plan.tokens - memory, self.window.reserve)

    def after_reply(self, stopped: Callable[[], bool] = lambda: False, on_progress: Progress | None = None) -> Fold | None:
        """To be called when an answer has been shown, while nobody waits: write down what the next turn would push out.

        None where there was nothing to do. `stopped` is asked between tokens, and true ends it without a memory.
        """
        bound = min(self.strategy.memory, self.window.capacity // 8)
        leaving = fold_ahead(self.window, self.plan, bound) if bound else ()
        if not (self._unfolded or leaving) or (not self._unfolded and leaving[-1] in self._given_up):
            return None
        self._scribe = self._scribe or Scribe(self.llama, self.persona, self._format, bound)
        fold = self._scribe.fold(self.prompt, self.plan.memory, (*self._unfolded, *leaving), stopped, on_progress)
        self._unfolded = ()
        if fold.memory is None:
            self._given_up = leaving
            return fold
        kept = self.plan.kept[len(leaving) :]
        self._left, self.plan = (*self._left, *leaving), Plan(kept, (), fold.memory)
        if self.prompt.format.turn_by_turn:
            self._laid = self.prompt.before(self.plan)
            self._recomputed += sum(exchange.tokens for exchange in kept)
            self.llama.prefill(list(self._laid), self.cache)
        return fold

    def reply(self, text: str) -> Generator[str, None, None]:
        """Answer `text`, piece by piece as it is sampled; `last` has the figures afterwards.

        Raises ContextError at once where the turn cannot fit, and the conversation stands as before. An answer that is
        cut short, by closing the iterator or by KeyboardInterrupt, is kept as far as it was shown.
        """
        refuse_oversized_text(text, self.window.capacity)
        turn = Message(self._next_id, "user", text, self.prompt.turn_ids(text))
        plan, ids = fit(self.prompt, self.strategy, self.window, self.plan, turn)
        return self._stream(turn, plan, ids)

    def _stream(self, turn: Message, plan: Plan, ids: list[int]) -> Generator[str, None, None]:
        uncomputed = len(self._laid) - _common_prefix(self._laid, self.cache.tokens)
        self.strategy.settle(self.cache, self._removed(plan))
        answer = Answer(self.llama, self.prompt)
        generation = self.llama.generate(ids, self.max_tokens, self.sampling, cache=self.cache, stop_ids=self.prompt.stop_ids)
        finish: str | None = None
        try:
            for token in generation:
                if text := answer.push(token):
                    yield text
                if answer.stopped:
                    finish = "stop"
                    break
            else:
                finish = generation.finish_reason or "stop"
                if text := answer.flush():
                    yield text
        except (GeneratorExit, KeyboardInterrupt):
            finish = "interrupted"
            raise
        finally:
            generation.close()
            if finish:
                gone = (*self._left, *plan.dropped)
                dropped = messages_of(gone)
                forgotten = self.plan.memory if plan.memory is None else None
                receipt = Receipt(
                    strategy=self.strategy.name,
                    window=self.window.capacity,
                    prompt_tokens=len(ids),
                    pinned_tokens=self.window.pinned,
                    dropped=tuple(message.id for message in dropped),
                    dropped_tokens=sum(exchange.tokens for exchange in gone) + _tokens(forgotten),
                    recomputed_tokens=self._recomputed + max(0, len(ids) - len(turn.ids) - generation.cached_tokens - uncomputed),
                    memory_tokens=_tokens(plan.memory),
                    memory_of=plan.memory.sources if plan.memory else (),
                )
                self.last = Reply(
                    text=answer.shown,
                    tokens=len(answer.ids),
                    prompt_tokens=len(ids),
                    cached_tokens=generation.cached_tokens,
                    finish_reason=finish,
                    prefill_seconds=generation.prefill_seconds,
                    decode_seconds=generation.decode_seconds,
                    device=self.llama.device,
                    receipt=receipt,
                )
                self._keep(turn, plan, ids, answer, finish)

    def _keep(self, turn: Message, plan: Plan, ids: list[int], answer: Answer, finish: str) -> None:
        """Put the exchange into the history; one that was interrupted before a word was shown never happened."""
        self.plan, self._left, self._recomputed = plan, (), 0
        if self.strategy.memory:
            self._unfolded += tuple(exchange for exchange in plan.dropped if exchange not in self._given_up)
        if finish == "interrupted" and not answer.shown:
            self._laid = ids[: len(ids) - len(turn.ids)]
            return
        spoken = answer.ids if finish == "stop" and not answer.stopped else answer.shown_ids()
        reply = Message(turn.id + 1, "assistant", answer.shown, (*spoken, *self.prompt.close_ids))
        exchange = Exchange(turn, reply)
        self._next_id = reply.id + 1
        self.exchanges.append(exchange)
        self.plan = Plan((*plan.kept, exchange), plan.dropped, plan.memory)
        self._laid = [*ids, *reply.ids]

    def _removed(self, plan: Plan) -> tuple[int, int] | None:
        """The positions that the dropped exchanges take in the cache; None where nothing leaves or the cache is another's."""
        start = self.window.pinned + _tokens(plan.memory)
        stop = self.window.pinned + _tokens(self.plan.memory) + sum(exchange.tokens for exchange in plan.dropped)
        in_place = self.prompt.format.turn_by_turn and list(self.cache.tokens[:stop]) == list(self._laid[:stop])
        return (start, stop) if plan.dropped and in_place else None


def _tokens(memory: Memory | None) -> int:
    return len(memory.ids) if memory else 0


def _common_prefix(a: Sequence[int], b: Sequence[int]) -> int:
    return next((at for at, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


def _default_sampling() -> "Sampling":
    from app.models.llama import Sampling

    return Sampling(temperature=TEMPERATURE, repeat_penalty=REPEAT_PENALTY)
