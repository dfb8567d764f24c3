"""From what was said to a prompt that fits: which exchanges stay in the window, and the ids that make."""

from townhall.context.strategy import ContextStrategy, Window, WindowPlan, refusal
from townhall.errors import ContextError
from townhall.message import Message
from townhall.persona import Persona
from townhall.prompt import Prompt

LONGEST_TOKEN = 256  # characters; vocabularies hold runs of 128 spaces
HELP = "shorten it or raise --max-context"


def open_window(prompt: Prompt, capacity: int, max_tokens: int) -> Window:
    """The space there is beside a persona's head, a part of it kept for the answer."""
    return Window(capacity, pinned=len(prompt.head_ids), reserve=max(1, min(max_tokens, capacity // 4)))


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


def fit(prompt: Prompt, strategy: ContextStrategy, window: Window, current: WindowPlan, turn: Message) -> tuple[WindowPlan, list[int]]:
    """What of `current` the prompt for `turn` keeps, and its ids; ContextError where it cannot be made to fit."""
    if (needed := window.pinned + len(turn.ids)) > window.capacity - window.reserve:
        raise ContextError(refusal(needed, window, HELP), needed, window.capacity)
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
        raise ContextError(refusal(len(ids), window, HELP), len(ids), window.capacity)
    return plan, ids
