"""What people and models said, as Markdown that shows it and nothing else: no tags, no pictures from elsewhere."""

import re

_CODE = re.compile(
    r"(^(?P<fence>`{3,}|~{3,})[^\n]*\n.*?(?:^(?P=fence)[`~]*[ \t]*$|\Z)|(?P<ticks>`+)(?!`).+?(?<!`)(?P=ticks)(?!`))",
    re.MULTILINE | re.DOTALL,
)
_PUNCTUATION = re.compile(r"([\\`*_{}\[\]()#+\-.!|<>~$&:@/=])")
_INDENT = re.compile(r"^[ \t]+", re.MULTILINE)


def spoken(text: str) -> str:
    """A model's words: its Markdown counts, its HTML is shown as it stands, and a picture becomes a link that nobody follows by itself."""
    parts, at = [], 0
    for code in _CODE.finditer(text):
        parts += [_plain(text[at : code.start()]), code[0]]
        at = code.end()
    return "".join([*parts, _plain(text[at:])])


def written(text: str) -> str:
    """A person's words, character by character as they were typed, but for fenced code, which is shown as such."""
    if "```" in text:
        return spoken(text)
    kept = _INDENT.sub(lambda match: "\N{NO-BREAK SPACE}" * len(match[0].expandtabs(4)), text)
    return _PUNCTUATION.sub(r"\\\1", kept)


def _plain(text: str) -> str:
    return text.replace("<", "&lt;").replace("![", "!\\[")
