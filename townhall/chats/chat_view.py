"""Chats and messages as JSON, and what of a path changed between two looks at it."""

from collections.abc import Mapping, Sequence
from typing import Any

from townhall.logbook.chat_tree import ChatTree, TreeNode
from townhall.logbook.log_reader import printable

JSON = dict[str, Any]
MOST_AT_ONCE = 100  # messages in a Change
FIRST, EXCERPT = 120, 80  # characters

Glance = tuple[object, ...]  # of a message: whatever differs where it looks different


def message(tree: ChatTree, node: TreeNode, index: int | None, whole: bool = False) -> JSON:
    """A Message. `whole`: with all that its receipt says."""
    facts, swipes = node.facts, tree.swipes(node)
    receipt, sampler = facts.get("receipt"), facts.get("sampler")
    return {
        "id": node.id,
        "parent": max(node.parent, 0),
        "index": index,
        "role": node.turn.role,
        "name": node.turn.name,
        "text": node.turn.text,
        "at": facts.get("at"),
        "reasoning": str(facts.get("reasoning") or ""),
        "swipe": swipes.index(node) if node in swipes else 0,
        "swipe_ids": [other.id for other in swipes],
        "branches": len(tree.below(node.id)),
        "edited": node.edited,
        "greeting": "greeting" in facts,
        "rating": node.rating,
        "enriched": enriched(facts),
        "finish_reason": facts.get("finish_reason"),
        "seed": sampler.get("seed") if isinstance(sampler, dict) else None,
        "sampler": sampler if isinstance(sampler, dict) else None,
        "usage": usage(facts),
        "receipt": receipt if whole else lean_receipt(receipt),
    }


def messages(tree: ChatTree, path: Sequence[TreeNode], start: int, most: int) -> list[JSON]:
    """A stretch of the path."""
    return [message(tree, node, index) for index, node in enumerate(path[start : start + most], start)]


def enriched(facts: Mapping[str, Any]) -> JSON | None:
    """The words that a person typed and those that were offered in their place, where a question was rewritten."""
    words = facts.get("enriched")
    if not isinstance(words, dict) or not all(isinstance(words.get(name), str) for name in ("own", "offered")):
        return None
    return {"own": words["own"], "offered": words["offered"]}


def usage(facts: Mapping[str, Any]) -> JSON | None:
    """Tokens of prompt and reply, where they are known."""
    prompt, tokens = facts.get("prompt_tokens"), facts.get("tokens")
    completion = facts.get("completion_tokens", len(tokens) if isinstance(tokens, list) else None)
    return None if prompt is None else {"prompt_tokens": prompt, "completion_tokens": completion}


def lean_receipt(receipt: object) -> JSON | None:
    """A receipt without the lists that grow with the chat."""
    if not isinstance(receipt, dict):
        return None
    dropped = receipt.get("dropped_messages", receipt.get("dropped"))
    lean = {key: value for key, value in receipt.items() if key not in ("dropped", "dropped_messages", "memory_of")}
    return {**lean, "dropped": len(dropped) if isinstance(dropped, list) else dropped or 0}


def glances(tree: ChatTree, path: Sequence[TreeNode]) -> list[Glance]:
    """To be compared with those of another moment."""
    return [
        (node.id, node.turn.text, node.edited, node.rating, tuple(other.id for other in tree.swipes(node)), len(tree.below(node.id)))
        for node in path
    ]


def difference(before: Sequence[Glance], now: Sequence[Glance]) -> int:
    """Where two paths begin to differ."""
    return next((at for at, (old, new) in enumerate(zip(before, now, strict=False)) if old != new), min(len(before), len(now)))


def nodes(tree: ChatTree) -> list[JSON]:
    """The whole tree, lean."""
    on_path = {node.id for node in tree.path()}
    return [
        {
            "id": node.id,
            "parent": max(node.parent, 0),
            "role": node.turn.role,
            "name": node.turn.name,
            "excerpt": line(node.turn.text, EXCERPT),
            "at": node.facts.get("at"),
            "on_path": node.id in on_path,
            "chosen": tree.is_chosen(node),
        }
        for node in tree
    ]


def line(text: str, most: int) -> str:
    """Its beginning, in one line."""
    text = " ".join(printable(text[: most * 4]).split())
    return text if len(text) <= most else f"{text[: most - 1]}…"


def excerpt(text: str, word: str, width: int = 160) -> str:
    """The part of `text` around the first `word`, in one line."""
    text = " ".join(printable(text).split())
    at = max(0, text.casefold().find(word.casefold()) - width // 3)
    return f"{'…' if at else ''}{text[at : at + width]}{'…' if len(text) > at + width else ''}"
