"""Source code into blocks: a definition with what it holds, by indentation, in whatever language."""

import re

from townhall.library.blocks import Outline, TextBlock

_DEFINITION = re.compile(
    r"\s*(?:(?:export|default|public|private|protected|internal|static|final|abstract|async|pub(?:\([^)]*\))?|unsafe|virtual|inline|open|"
    r"override|const|extern|sealed|data) )*"
    r"(?:def|class|fn|func|fun|function|struct|enum|trait|impl|interface|module|namespace|type|object|protocol|package|sub|macro_rules!)\s+"
    r"([A-Za-z_][\w.]*)(?=\s*(?:[(:{=<\[;]|$|extends\b|implements\b|where\b|for .*\{))"
)
_C_FUNCTION = re.compile(r"[A-Za-z_][\w\s*&<>:,]*?\b([A-Za-z_]\w*)\([^;]*$")  # at the beginning of a line, no declaration
_SECTION = re.compile(r"\[+([\w.\-:/\"]+)\]+\s*$")  # of TOML and INI files
_ATTRIBUTE = re.compile(r"__(?:attribute|declspec)\w*\s*\(\(.*?\)\)\s*")


def code_blocks(text: str) -> list[TextBlock]:
    """Stretches of lines between blank lines, each below the definitions that it stands in: `("class Engine", "def prefill")`."""
    outline, blocks, stretch = Outline(), [], list[str]()
    first = 1

    def close(end: int) -> None:
        if stretch:
            blocks.append(TextBlock("\n".join(stretch), end - len(stretch), end - 1, heading, code=True))
            stretch.clear()

    heading = outline.heading
    for number, line in enumerate(text.split("\n"), first):
        line = line.rstrip()
        if not line:
            close(number)
            continue
        name = _name(line)
        if name and not _decorators(stretch):
            close(number)
        if name:
            outline.enter(_indent(line) + 1, name)
            heading = outline.heading
        elif not stretch and _indent(line) == 0 and not line.startswith(("}", ")", "]", "#", "@", "/", "*")):
            outline.enter(1, "")
            heading = outline.heading
        stretch.append(line)
    close(number + 1)
    return blocks


def _name(line: str) -> str:
    """Of what the line defines; "" where it defines nothing."""
    if found := _DEFINITION.match(line) or _SECTION.match(line):
        return found[1]
    if (
        not line[0].isspace()
        and (function := _C_FUNCTION.match(_ATTRIBUTE.sub("", line)))
        and function[1] not in ("if", "for", "while", "switch", "return")
    ):
        return function[1]
    return ""


def _decorators(stretch: list[str]) -> bool:
    """Does all of it belong to the definition below it: decorators, attributes, comments?"""
    return all(line.lstrip().startswith(("@", "#", "//", "/*", "*", "--", ";")) for line in stretch)


def _indent(line: str) -> int:
    return len(line.expandtabs(4)) - len(line.expandtabs(4).lstrip())
