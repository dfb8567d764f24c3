"""Decorators of lorebook entries (Character Card V3): lines that begin with @@, before the content."""

import re

MAX_DECORATORS = 64
_LINE = re.compile(r"(@@@?)([a-z_]+)(?:[ \t]+(.*))?", re.ASCII | re.IGNORECASE)
# those that mean something in a chat; the others (instruct_depth, is_user_icon, …) are passed over, as the specification says
NUMBERS = ("activate_only_after", "activate_only_every", "depth", "reverse_depth", "scan_depth", "is_greeting")
FLAGS = ("activate", "dont_activate", "keep_activate_after_match", "dont_activate_after_match", "ignore_on_max_context")
LISTS = ("additional_keys", "exclude_keys")  # may be given several times
CHOICES = {"role": ("assistant", "system", "user"), "position": ("after_desc", "before_desc", "personality", "scenario")}

Value = int | bool | str | list[list[str]]


def split(content: str) -> tuple[dict[str, Value], str]:
    """({decorator: value}, the content without them); of several of one name the first counts, @@@ where the one before it does not."""
    found: dict[str, Value] = {}
    if not content.lstrip().startswith("@@"):
        return found, content
    lines, fallback = content.lstrip().split("\n"), False
    for at, line in enumerate(lines):
        match = _LINE.fullmatch(line.strip())
        if match is None or at >= MAX_DECORATORS:
            return found, "\n".join(lines[at:]).strip("\n")
        if match[1] == "@@@" and not fallback:
            continue
        name, value = match[2].lower(), _value(match[2].lower(), (match[3] or "").strip())
        fallback = value is None
        if isinstance(value, list):
            listed = found.setdefault(name, [])
            assert isinstance(listed, list)
            listed += value
        elif value is not None:
            found.setdefault(name, value)
    return found, ""


def without_decorators(content: str) -> str:
    """For cards that are written as V2."""
    return split(content)[1]


def _value(name: str, text: str) -> Value | None:
    """None for what is not known or not valid."""
    if name in FLAGS:
        return True
    if name in NUMBERS:
        try:
            return max(0, min(int(float(text)), 1_000_000))
        except (ValueError, OverflowError):
            return None
    if name in LISTS:
        return [[key.strip() for key in text.split(",") if key.strip()]] if text.strip(", ") else None
    return text.lower() if text.lower() in CHOICES.get(name, ()) else None
