"""Slash commands that work on the chat's tree: swipes, branches, edits, deletions, the author's note, search."""

import sys
from contextlib import suppress

from townhall.cli import terminal
from townhall.cli.chat_state import ChatState
from townhall.cli.reply_report import counted
from townhall.errors import CommandError
from townhall.logbook.chat_tree import RATINGS, TreeNode
from townhall.logbook.log_reader import printable

SHOWN = 20  # messages
DEPTH = 4  # of a note


def numbered(text: str) -> bool:
    """Is it the number of a message, as #7 or 7?"""
    digits = text.removeprefix("#")
    return digits.isascii() and digits.isdigit() and len(digits) < 10


def number(text: str, command: str) -> int:
    """CommandError where it is none."""
    if not numbered(text):
        raise CommandError(f"{command} takes the number of a message, as /messages shows it, not {text[:40]!r}")
    return int(text.removeprefix("#"))


def swipe(chat_state: ChatState, rest: str) -> None:
    """/swipe [N]."""
    path = chat_state.chat.tree.path()
    if not path or path[-1].turn.role != "assistant":
        raise CommandError("the last message has no reply yet; /retry makes one")
    swipes = chat_state.chat.tree.swipes(path[-1])
    if not rest:
        for at, node in enumerate(swipes, 1):
            terminal.note(f"{'*' if node is path[-1] else ' '} {at} {_line(node)}{_rated(node)}")
        return
    if not numbered(rest) or not 1 <= int(rest.removeprefix("#")) <= len(swipes):
        raise CommandError(f"/swipe takes a number from 1 to {len(swipes)}, not {rest[:40]!r}; /retry makes another reply")
    chosen = swipes[int(rest.removeprefix("#")) - 1]
    chat_state.change(lambda record: record.choose(record.tree.nodes[chosen.id]))
    terminal.note(f"{chosen.turn.name}: {printable(chosen.turn.text)}")


def messages(chat_state: ChatState, rest: str) -> None:
    """/messages [N]."""
    path = chat_state.chat.tree.path()
    for node in path[-(number(rest, "/messages") or 1) if rest else -SHOWN :]:
        swipes = chat_state.chat.tree.swipes(node)
        place = f" ({swipes.index(node) + 1} of {len(swipes)})" if len(swipes) > 1 else ""
        terminal.note(f"#{node.id} {node.turn.name}{place}: {_line(node)}{' (edited)' if node.edited else ''}{_rated(node)}")
    if not path:
        terminal.note("nothing has been said yet")


def edit(chat_state: ChatState, rest: str) -> str:
    """/edit #N [TEXT]: in place, of either side; a line to be edited where there is no text yet."""
    name, _, text = rest.partition(" ")
    node = chat_state.node(number(name, "/edit"))
    if not text.strip():
        if not sys.stdin.isatty():
            raise CommandError("in a pipe /edit takes the new text: /edit #3 How far is the sun?")
        return f"/edit #{node.id} {node.turn.text}"
    chat_state.change(lambda record: record.edit(record.tree.nodes[node.id], text))
    terminal.note(f"message #{node.id} reads {_line(node)!r} now; what follows it stays")
    return ""


def rate(chat_state: ChatState, rest: str) -> None:
    """/rate good|bad|off [#N]."""
    word, _, at = rest.partition(" ")
    if word not in (*RATINGS, "off"):
        raise CommandError(f"/rate takes good, bad or off, and perhaps the number of a reply, not {rest[:40]!r}: /rate good #4")
    if at:
        node = chat_state.node(number(at.strip(), "/rate"))
        if node.turn.role == "user":
            raise CommandError(f"message #{node.id} is no reply, and only replies are rated; /messages names both")
    elif not (replies := [node for node in chat_state.chat.tree.path() if node.turn.role != "user"]):
        raise CommandError("there is no reply to rate yet")
    else:
        node = replies[-1]
    chat_state.chat.record.rate(node, next((rating for rating in RATINGS if rating == word), None))
    terminal.note(f"reply #{node.id}, {_line(node)!r}, {f'is rated {node.rating}' if node.rating else 'has no rating'} now")


def delete(chat_state: ChatState, rest: str) -> None:
    """/delete N [below]."""
    name, _, below = rest.partition(" ")
    if below.strip() not in ("", "below"):
        raise CommandError(f"/delete takes the number of a message and perhaps the word below, not {below.strip()[:40]!r}")
    node = chat_state.node(number(name, "/delete"))
    chat_state.change(lambda record: record.delete(record.tree.nodes[node.id], bool(below.strip())))
    left = len(chat_state.chat.tree.path())
    terminal.note(f"message #{node.id} is taken back{', and all below it' if below.strip() else ''}; {counted(left, 'message')} stand")


def branch(chat_state: ChatState, rest: str) -> None:
    """/branch #N."""
    at = number(rest, "/branch")
    node = chat_state.node(at) if at else None
    chat_state.change(lambda record: record.branch(at))
    where = f"below #{at}, {_line(node)!r}" if node else "from the beginning"
    terminal.note(f"the talk goes on {where}; what came after it stays, and /branches leads back")


def branches(chat_state: ChatState, rest: str) -> None:
    """/branches [N]."""
    tree = chat_state.chat.tree
    if rest:
        node = chat_state.node(number(rest, "/branches"))
        chat_state.change(lambda record: record.choose(record.tree.nodes[node.id]))
        terminal.note(f"the talk leads through #{node.id} now, to {_line(tree.path()[-1])!r}")
        return
    path, ends = {node.id for node in tree.path()}, [node for node in tree if not tree.below(node.id)]
    for end in ends:
        way = tree.path_to(end.id)
        apart = next((node for node in way if node.id not in path), way[-1])
        mark = "*" if end.id in path else " "
        terminal.note(f"{mark} #{apart.id} {_line(apart)} … {counted(len(way), 'message')}")
    if not ends:
        terminal.note("nothing has been said yet")


def note(chat_state: ChatState, rest: str) -> None:
    """/note [DEPTH] [TEXT|off]."""
    held = chat_state.note
    if not rest:
        none = "there is no author's note; /note TEXT makes one"
        terminal.note(f"at depth {held.get('depth')}: {printable(str(held.get('text')))}" if held else none)
        return
    if rest == "off":
        chat_state.set_note(None)
        terminal.note("there is no author's note now")
        return
    first, _, text = rest.partition(" ")
    depth, text = (int(first), text.strip()) if first.isascii() and first.isdigit() and len(first) < 6 and text.strip() else (DEPTH, rest)
    chat_state.set_note({"text": text, "depth": depth, "role": "system"})
    terminal.note(f"the note stands {counted(depth, 'message')} before the end of every prompt")


def search(chat_state: ChatState, words: str) -> None:
    """/search WORDS."""
    from townhall.cli.log import excerpt
    from townhall.logbook.log_index import Index

    if not words.split():
        raise CommandError("/search takes the words to look for: /search moon far")
    index = Index(chat_state.folder)
    try:
        found, total = index.search(words, SHOWN), index.count(words)
    finally:
        index.close()
    for turn in found:
        text = " ".join(printable(turn.text).split())
        terminal.note(f"{turn.id} #{turn.message} {turn.speaker}: {excerpt(text, words.split()[0])}")
    more = f"; {total - len(found)} more: townhall log search {words}" if total > len(found) else ""
    terminal.note(f"{counted(total, 'message')}{more}; /load ID takes up a talk" if found else "no message holds all of these words")


def impersonated(chat_state: ChatState, words: str) -> str:
    """What the model writes for the user; as far as it came where Ctrl-C stopped it."""
    chat_state.conversation.sampling = chat_state.loaded.sampling
    said: list[str] = []
    pieces = chat_state.conversation.impersonate(words)
    with suppress(KeyboardInterrupt):
        for piece in pieces:
            said.append(piece)
            terminal.progress(f"{chat_state.persona.user}: {' '.join(''.join(said).split())[-60:]}")
    pieces.close()
    terminal.progress("")
    return "".join(said)


def _rated(node: TreeNode) -> str:
    return f" (rated {node.rating})" if node.rating else ""


def _line(node: TreeNode, width: int = 60) -> str:
    line = " ".join(printable(node.turn.text).split())
    return line if len(line) <= width else f"{line[: width - 1]}…"
