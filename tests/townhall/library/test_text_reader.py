"""Plain text, reStructuredText and Markdown into blocks; headings and lines against markdown-it-py, which knows CommonMark."""

from collections import Counter
from pathlib import Path

import pytest
from markdown_it import MarkdownIt

from townhall.library.text_reader import decoded, markdown_blocks, plain_blocks

ROOT = Path(__file__).parents[3]
TRICKY = """# One #
Text
two lines
---
below
## Two ##
below

#no heading
    # nor this

```python
# a comment
```
~~~
## code
```
~~~

Setext
======
* item
---
"""


@pytest.mark.parametrize(
    "text", [TRICKY, *((ROOT / name).read_text() for name in ("README.md", "docs/watch.md", "docs/notes.md", "docs/cli.md"))]
)
def test_headings_are_those_that_commonmark_sees(text):
    wanted, stack = [()], []
    tokens = MarkdownIt("commonmark").parse(text)
    for token, following in zip(tokens, [*tokens[1:], tokens[0]]):
        if token.type == "heading_open":
            stack = [entry for entry in stack if entry[0] < int(token.tag[1])] + [(int(token.tag[1]), " ".join(following.content.split()))]
            wanted.append(tuple(title for _, title in stack))
        elif token.level == 0 and token.type in ("paragraph_open", "bullet_list_open", "fence", "html_block", "table_open", "code_block"):
            wanted.append(wanted[-1])  # something that stands below it
    below = [heading for heading, times in Counter(wanted).items() if times > 1]
    assert list(dict.fromkeys(block.heading for block in markdown_blocks(text))) == below


@pytest.mark.parametrize("name", ["README.md", "docs/watch.md", "CHANGELOG.md", "docs/notes.md"])
def test_a_block_stands_on_the_lines_that_it_names(name):
    text = (ROOT / name).read_text()
    lines, seen = text.split("\n"), set()
    for block in markdown_blocks(text):
        assert block.text == "\n".join(line.rstrip() for line in lines[block.first - 1 : block.last])
        seen |= set(range(block.first, block.last + 1))
    left = [line for number, line in enumerate(lines, 1) if number not in seen and line.strip()]
    assert all(line.startswith(("#", "```", "~~~", "---")) for line in left)  # nothing but headings and fences is left out


def test_front_matter_is_a_block_and_no_heading():
    blocks = markdown_blocks("---\ntitle: A\n---\nText\n")
    assert [(block.text, block.first, block.code, block.heading) for block in blocks] == [("title: A", 2, True, ()), ("Text", 4, False, ())]


def test_titles_of_plain_text_are_underlined_or_numbered():
    text = "=====\nTitle\n=====\n\nIntro\n\nPart\n----\nBody one\n\nSub\n~~~\nDeep\n\nNext\n----\nBody two\n\n"
    text += "1.2.  The Third Kind\n\nRules\n\n1. an item\n"
    found = [(block.heading, block.text, block.first) for block in plain_blocks(text)]
    assert found == [
        (("Title",), "Intro", 5),
        (("Title", "Part"), "Body one", 9),
        (("Title", "Part", "Sub"), "Deep", 13),
        (("Title", "Next"), "Body two", 17),
        (("Title", "Next", "1.2. The Third Kind"), "Rules", 21),
        (("Title", "Next", "1.2. The Third Kind"), "1. an item", 23),
    ]


def test_lines_that_only_look_like_underlines_are_none():
    text = "a table\n\n----\nrow\n----\n\nlong line that goes on\n---\nmore\n"
    assert {block.heading for block in plain_blocks(text)} <= {(), ("row",)}


@pytest.mark.parametrize(
    "data",
    [
        "käse\n".encode(),
        b"\xef\xbb\xbfk\xc3\xa4se\n",
        "käse\n".encode("utf-16"),
        b"\xfe\xff" + "käse\n".encode("utf-16-be"),
        b"k\xe4se\r\n",
        b"k\xe4se\r",
    ],
)
def test_encodings_are_recognised(data):
    assert decoded(data) == "käse\n"
