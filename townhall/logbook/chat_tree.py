"""A log's turns as a tree: replies beside each other (swipes), branches, and the path that the talk goes now."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

from townhall.logbook.log_syntax import LogTurn, Mark

BEGINNING = 0  # the parent of a talk's first turns; talks that began anew after a reset have -1, -2 …
Rating = Literal["good", "bad"]
RATINGS: tuple[Rating, ...] = get_args(Rating)
BESIDE = ("edits", "continues")  # facts of a turn that changes an earlier one and is none of its own


@dataclass(eq=False)
class TreeNode:
    """A turn as it reads now, with what was edited or carried on; `taken`: undone or deleted, and only in the file."""

    id: int
    parent: int
    turn: LogTurn
    edited: bool = False
    taken: bool = False
    rating: Rating | None = None

    @property
    def facts(self) -> dict[str, Any]:
        return self.turn.facts or {}


class ChatTree:
    """Events go in as they stand in the log, each in constant time or in that of its path; a mark that names no turn changes nothing.

    A turn is put below the end of the path. `undo` takes the last exchanges of the path, `branch` ends the path at a turn, `choose` leads
    it through another and on to where it went last from there, `delete` takes a turn and leaves those below it, `set` has settings,
    `rate` says whether a reply is a good one.
    """

    def __init__(self, events: Iterable[LogTurn | Mark] = ()):
        self.nodes: dict[int, TreeNode] = {}
        self.settings: dict[str, Any] = {}  # of `set` comments, the last value of each key
        self.title = ""
        self.sources: dict[str, Any] = {}  # the note of the last `sources` comment
        self._below: dict[int, list[int]] = {BEGINNING: []}
        self._chosen: dict[int, int] = {}  # where the path went last from a turn
        self._taken: list[TreeNode] = []
        self._root = BEGINNING
        self._end: int | None = None  # the turn that the path ends at, though it went further once
        self._last: int | None = BEGINNING  # the path's last turn, where that is known
        self._highest = 0
        events = list(events)
        self._spelled = {id for event in events if isinstance(event, LogTurn) and (id := _id(event.facts, "id"))}
        self._highest_spelled = max(self._spelled, default=0)
        for event in events:
            self.apply(event)

    def apply(self, event: LogTurn | Mark) -> TreeNode | None:
        """Take the next event; the turn that came of it or was changed by it."""
        if isinstance(event, LogTurn):
            return self._turn(event)
        kind, facts = event
        self._last = None
        if kind == "undo":
            self._undo(facts.get("turns", 1))
        elif kind == "reset":
            self._root -= 1
            self._below[self._root], self._end = [], None
        elif kind == "title":
            self.title = str(facts.get("title") or "")
        elif kind == "sources":
            self.sources = dict(facts)
        elif kind == "set":
            self.settings = merged(self.settings, facts)
        elif node := self.nodes.get(_id(facts, "turn")):
            if kind == "delete":
                self._delete(node, bool(facts.get("below")))
            elif kind == "rate" and "rating" in facts:
                self._rate(node, facts["rating"])
            elif not node.taken and kind in ("branch", "choose"):
                self._lead(node.id)
                self._end = node.id if kind == "branch" else None
        elif kind == "branch" and facts.get("turn") == BEGINNING:
            self._end = self._root
        return None

    @property
    def next_id(self) -> int:
        """Of the turn that comes next."""
        return max(self._highest, self._highest_spelled) + 1

    @property
    def end(self) -> int:
        """The last turn of the path, or the talk's beginning where it has none."""
        if self._last is None:
            at = self._root
            while at != self._end and at in self._chosen:
                at = self._chosen[at]
            self._last = at
        return self._last

    def path(self) -> list[TreeNode]:
        """The turns of the talk as it stands."""
        found, at = [], self._root
        while at != self._end and at in self._chosen:
            at = self._chosen[at]
            found.append(self.nodes[at])
        return found

    def path_to(self, id: int) -> list[TreeNode]:
        """From the beginning to a turn."""
        found = []
        while id in self.nodes:
            found.append(self.nodes[id])
            id = self.nodes[id].parent
        return found[::-1]

    def turns(self) -> list[LogTurn]:
        """Every talk's path, the present one last; its first turn says where a talk began anew."""
        roots = [root for root in range(BEGINNING, min(self._below) - 1, -1) if root != self._root]
        talks = []
        for root in roots:
            at, talk = root, []
            while at in self._chosen:
                at = self._chosen[at]
                talk.append(self.nodes[at].turn)
            talks.append((root, talk))
        found: list[LogTurn] = []
        for root, talk in [*talks, (self._root, [node.turn for node in self.path()])]:
            found += [replace(turn, after_reset=root != BEGINNING and at == 0) for at, turn in enumerate(talk)]
        return found

    def taken(self) -> list[LogTurn]:
        """Those that were taken back, as they went."""
        return [node.turn for node in self._taken]

    def below(self, id: int) -> list[TreeNode]:
        """The turns that follow a turn, in the order in which they came."""
        return [node for at in self._below.get(id, ()) if not (node := self.nodes[at]).taken]

    def swipes(self, node: TreeNode) -> list[TreeNode]:
        """The turns that stand in each other's place, this one among them."""
        return [other for other in self.below(node.parent) if other.turn.role == node.turn.role]

    def is_chosen(self, node: TreeNode) -> bool:
        """Did the path go there last from the turn above it?"""
        return self._chosen.get(node.parent) == node.id

    def __iter__(self) -> Iterator[TreeNode]:
        """All turns that can be led to."""
        return (node for node in self.nodes.values() if not node.taken)

    def _turn(self, turn: LogTurn) -> TreeNode | None:
        facts = turn.facts or {}
        for key in BESIDE:
            if old := self.nodes.get(_id(facts, key)):
                kept = old.facts if key == "edits" else {"id": old.id}
                now = {name: value for name, value in facts.items() if name not in (*BESIDE, "id")}
                if turn.text != old.turn.text:
                    old.rating = None  # it was of other words
                old.turn, old.edited = replace(old.turn, text=turn.text, facts={**kept, **now}), old.edited or key == "edits"
                return old
        id = _id(turn.facts, "id")
        if not id or id in self.nodes:
            id = self._highest + 1
            while id in self._spelled or id in self.nodes:
                id += 1
        parent = self.end
        node = self.nodes[id] = TreeNode(id, parent, replace(turn, id=id))
        self._rate(node, facts.get("rating"))
        self._below[parent].append(id)
        self._below[id] = []
        self._highest, self._end = max(self._highest, id), None
        self._chosen[parent] = self._last = id
        return node

    def _undo(self, wanted: object) -> None:
        path, taken = self.path(), list[TreeNode]()
        for _ in range(wanted if type(wanted) is int and 0 < wanted <= len(path) else 1):
            while path:
                node = path.pop()
                taken += self._take(node)
                if node.turn.role == "user":
                    break
        self._end = None
        self._taken += sorted(taken, key=lambda node: node.id)

    def _delete(self, node: TreeNode, below: bool) -> None:
        if node.taken:
            return
        brothers, led = self._below[node.parent], self.is_chosen(node)
        moved = [] if below else self._below[node.id]
        follower = None if below else self._chosen.get(node.id)
        swipes = [other.id for other in self.swipes(node)]
        at = swipes.index(node.id)
        self._end = node.parent if self._end == node.id else self._end
        if moved:
            brothers[brothers.index(node.id) : brothers.index(node.id)] = moved
            for id in moved:
                self.nodes[id].parent = node.parent
            self._below[node.id], _ = [], self._chosen.pop(node.id, None)
        self._taken += self._take(node)
        if led:
            beside = next(iter([*swipes[:at][::-1], *swipes[at + 1 :]]), None)
            if (now := follower if follower is not None else beside) is not None:
                self._chosen[node.parent] = now

    def _rate(self, node: TreeNode, rating: Any) -> None:
        """What is no rating, and what is rated but no reply that stands, changes nothing."""
        if node.turn.role == "assistant" and not node.taken and rating in (None, *RATINGS):
            node.rating = rating

    def _take(self, node: TreeNode) -> list[TreeNode]:
        """With all below it."""
        if self.is_chosen(node):
            del self._chosen[node.parent]
        waiting, taken = [node.id], list[TreeNode]()
        while waiting:
            at = self.nodes[waiting.pop()]
            waiting += self._below[at.id]
            self._end = None if self._end == at.id else self._end
            if not at.taken:
                at.taken = True
                taken.append(at)
        return taken

    def _lead(self, id: int) -> None:
        """Lead the path through a turn."""
        while id in self.nodes:
            self._chosen[self.nodes[id].parent] = id
            id = self.nodes[id].parent
        self._root = id


def merged(old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    """Settings with changes: mappings key by key, None takes a key away."""
    result = dict(old)
    for key, value in new.items():
        if value is None:
            result.pop(key, None)
        elif isinstance(value, dict) and isinstance(before := result.get(key), dict):
            result[key] = merged(before, value)
        else:
            result[key] = {name: one for name, one in value.items() if one is not None} if isinstance(value, dict) else value
    return result


def _id(facts: dict[str, Any] | None, key: str) -> int:
    """The number of a turn that facts name; 0 where they name none."""
    value = (facts or {}).get(key)
    return value if type(value) is int and 0 < value < 1 << 53 else 0
