"""From messages to a prompt that fits: which exchanges stay in the window, the ids of the prompt, and what leaves the KV cache for it.

Conversations, API transcripts and watched files build their prompts here; raw texts are cut to the window by `cut_raw`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from townhall.answer_loop import common_prefix
from townhall.context.source import GatheredSources, PromptPart, PromptSources, SourceItem, SourceSpot, SourceText
from townhall.context.strategy import ContextStrategy, Window, WindowPlan, refusal
from townhall.errors import ContextError
from townhall.language_model import Cache
from townhall.message import Exchange, Memory, Message
from townhall.persona import Persona
from townhall.prompt import Prompt

LONGEST_TOKEN = 256  # characters; vocabularies hold runs of 128 spaces
HELP = "shorten it or raise --max-context"


NOTHING = GatheredSources()


def open_window(prompt: Prompt, capacity: int, max_tokens: int, sources: PromptSources | None = None) -> Window:
    """The space there is beside a persona's head, parts of it kept for the answer and for what sources put into a turn's prompt."""
    window = Window(capacity, pinned=len(prompt.head_ids), reserve=max(1, min(max_tokens, capacity // 4)))
    return replace(window, beside=sources.beside(capacity, window.budget)) if sources else window


def refuse_oversized_text(text: str, capacity: int) -> None:
    """ContextError for what is not worth tokenising."""
    if len(text) > capacity * LONGEST_TOKEN:
        raise ContextError(
            f"this message has {len(text):,} characters, far more than a window of {capacity} tokens holds; {HELP}",
            len(text) // LONGEST_TOKEN,
            capacity,
        )


def refuse_oversized_head(persona: Persona, prompt: Prompt, window: Window, max_tokens: int) -> None:
    """ContextError, with the window that would do, for a persona that leaves no room to talk."""
    least = window.pinned + len(prompt.turn_ids(""))
    if (needed := least + window.reserve) > window.capacity:
        enough = min(least + max_tokens, (4 * least - 1) // 3)  # the reserve grows with the window, up to max_tokens
        raise ContextError(
            f"{persona.name}'s persona takes {window.pinned} tokens of a window of {window.capacity}, "
            f"which leaves no room to talk; pass --max-context {enough} or more, or shorten the persona",
            needed,
            window.capacity,
        )


@dataclass(frozen=True)
class BuiltPrompt:
    """A prompt for one turn. `ids` ends in `opening`, what the answer is to begin with.

    `turn` and `plan` are as they go into the history; in `ids` the sources' texts stand beside their words.
    """

    turn: Message
    plan: WindowPlan
    ids: list[int]
    opening: list[int]
    parts: tuple[PromptPart, ...]  # of `ids`: their tokens add up to all of them
    turn_tokens: int  # of `ids`, what no other prompt has: the turn's words and the sources' texts
    gathered: GatheredSources = NOTHING  # the texts that found room, and what was passed over
    removed: tuple[int, int] | None = None  # positions [start, stop) that leave a cache which holds `before`
    before: tuple[int, ...] = ()  # what a prompt would begin with if nothing left

    @property
    def prompt(self) -> list[int]:
        """Up to where the answer begins."""
        return self.ids[: len(self.ids) - len(self.opening)]


def build(
    prompt: Prompt,
    strategy: ContextStrategy,
    window: Window,
    current: WindowPlan,
    turn: Message,
    opening: Sequence[int] = (),
    gathered: GatheredSources = NOTHING,
) -> BuiltPrompt:
    """The prompt for `turn` after what `current` holds. ContextError where it cannot be made to fit.

    `opening` is a part of the answer: it is read like the prompt, and the answer keeps as much room beside it. What of the `gathered` texts
    does not fit beside the turn is left out.
    """
    window = replace(window, reserve=window.reserve + len(opening))
    plan, ids = _fit(prompt, strategy, window, current, turn)
    removed = None
    before: tuple[int, ...] = ()
    if plan.dropped and prompt.format.turn_by_turn:
        start = window.pinned + memory_tokens(plan.memory)
        stop = window.pinned + memory_tokens(current.memory) + sum(exchange.tokens for exchange in plan.dropped)
        removed, before = (start, stop), tuple(prompt.before(WindowPlan(current.kept, (), current.memory)))
    head, memory = prompt.head_parts(), [_memory_part(plan.memory)] if plan.memory else []
    history = len(ids) - sum(part.tokens for part in (*head, *memory)) - len(turn.ids)
    said = [PromptPart("history", "kept exchanges", history), PromptPart("turn", "newest turn", len(turn.ids))]
    parts = [*head, *memory, *said]
    ids, placed, gathered = _with_texts(prompt, plan, turn, ids, gathered, window.capacity - window.reserve)
    parts += [*placed, *([PromptPart("opening", "answer", len(opening))] if opening else [])]
    own = len(turn.ids) + sum(part.tokens for part in placed)
    return BuiltPrompt(turn, plan, [*ids, *opening], list(opening), tuple(parts), own, gathered, removed, before)


def _memory_part(memory: Memory) -> PromptPart:
    notes = tuple(SourceItem(note.text, "noted of " + ", ".join(f"#{source}" for source in note.sources)) for note in memory.notes)
    return PromptPart("memory", "behind the head", len(memory.ids), notes)


def _with_texts(
    prompt: Prompt, plan: WindowPlan, turn: Message, ids: list[int], gathered: GatheredSources, most: int
) -> tuple[list[int], list[PromptPart], GatheredSources]:
    """`ids`, of at most `most` tokens, with the sources' texts laid into the messages of the user's; a line of the receipt for each."""
    parts: list[PromptPart] = []
    texts: list[SourceText] = []
    missing: list[SourceItem] = []
    for text in gathered.texts:
        longer = prompt.ids(*laid_in(prompt, plan, turn, [*texts, text]))
        if len(longer) > most:
            missing.append(SourceItem(text.source, f"no room beside this turn: a prompt has {most} tokens at most", len(longer) - len(ids)))
            continue
        parts.append(PromptPart(text.source, text.place.describe(), len(longer) - len(ids), text.items))
        texts.append(text)
        ids = longer
    return ids, parts, replace(gathered, texts=tuple(texts), passed_over=(*gathered.passed_over, *missing))


def laid_in(prompt: Prompt, plan: WindowPlan, turn: Message, texts: Sequence[SourceText]) -> tuple[WindowPlan, Message]:
    """What a prompt holds, with `texts` in front of the words of the user's messages or behind them."""
    first = plan.kept[0].user.id if plan.kept else turn.id
    before: dict[int, list[str]] = {}
    behind: dict[int, list[str]] = {}
    for text in sorted(texts, key=lambda text: text.place.spot is SourceSpot.NEWEST):
        place = text.place
        at = turn.id if place.spot is SourceSpot.NEWEST else place.depth if place.from_start else turn.id + 1 - place.depth
        at = min(max(at, first), turn.id + 1)
        # what would stand in front of an answer stands behind its question
        (behind if at % 2 else before).setdefault(at - at % 2, []).append(text.text)

    def laid(message: Message) -> Message:
        if message.id not in before and message.id not in behind:
            return message
        own = message.turns[0].text if message.turns else message.text
        words = "\n\n".join([*before.get(message.id, ()), own, *behind.get(message.id, ())])
        ids = (*prompt.turn_ids(words), *message.ids[len(prompt.turn_ids(own)) :])
        turns = (replace(message.turns[0], text=words), *message.turns[1:]) if message.turns else ()
        return replace(message, text=message.text if turns else words, ids=ids, turns=turns)

    kept = tuple(Exchange(laid(exchange.user), exchange.reply) for exchange in plan.kept)
    return replace(plan, kept=kept), laid(turn)


def settle_cache(strategy: ContextStrategy, cache: Cache, removed: tuple[int, int] | None, before: Sequence[int]) -> None:
    """Let the strategy make a cache ready for a prompt, where it still holds what that removes."""
    in_place = removed is not None and common_prefix(cache.tokens, before) >= removed[1]
    strategy.settle(cache, removed if in_place else None)


def cut_raw(
    ids: Sequence[int], start: Sequence[int], capacity: int, max_tokens: int, strategy: str, most: int | None = None
) -> tuple[list[int], int]:
    """A raw prompt that leaves room for an answer, and how many of its ids went; `start` (BOS) stays in front of the newest.

    Up to `most` ids are left alone, by default as many as leave that room. ContextError under `stop`, which lets nothing go.
    """
    room = capacity - max(1, min(max_tokens, capacity // 4))
    most = room if most is None else most
    if len(ids) <= most:
        return list(ids), 0
    if strategy == "stop":
        beside = " beside the answer" if most < capacity else ""
        raise ContextError(
            f"the prompt has {len(ids)} tokens and the window holds {most}{beside}, {len(ids) - most} fewer; "
            "shorten it, raise --max-context, or let its beginning go with --context slide",
            len(ids),
            capacity,
        )
    return [*start, *ids[len(ids) - room + len(start) :]], len(ids) - room


def memory_tokens(memory: Memory | None) -> int:
    """What a memory takes of a prompt."""
    return len(memory.ids) if memory else 0


def _fit(prompt: Prompt, strategy: ContextStrategy, window: Window, current: WindowPlan, turn: Message) -> tuple[WindowPlan, list[int]]:
    """What of `current` the prompt for `turn` keeps, and its ids; ContextError where it cannot be made to fit."""
    alone = replace(window, beside=0)  # sources give way to the user's words
    if (needed := window.pinned + len(turn.ids)) > window.capacity - window.reserve:
        raise ContextError(refusal(needed, alone, HELP), needed, window.capacity)
    plan = strategy.choose(window, WindowPlan(current.kept, (), current.memory), len(turn.ids))
    ids = prompt.ids(plan, turn)
    while len(ids) > window.capacity - window.reserve and plan.kept:
        # only where turns depend on each other, so that their counts add up to an estimate
        plan = WindowPlan(plan.kept[1:], (*plan.dropped, plan.kept[0]), plan.memory)
        ids = prompt.ids(plan, turn)
    if len(ids) > window.capacity - window.reserve and plan.memory:
        plan = WindowPlan(plan.kept, plan.dropped)
        ids = prompt.ids(plan, turn)
    if len(ids) > window.capacity - window.reserve:
        raise ContextError(refusal(len(ids), alone, HELP), len(ids), window.capacity)
    return plan, ids
