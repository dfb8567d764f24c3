"""HTML, source code, chats, PDF and DOCX into blocks."""

import json

import pytest

from tests.townhall.library.office_files import docx, pdf
from tests.townhall.logbook.test_log_syntax import TALK, spell
from townhall.library.chat_reader import chat_blocks
from townhall.library.code_reader import code_blocks
from townhall.library.errors import UnreadableFile
from townhall.library.html_reader import html_blocks
from townhall.library.office_reader import docx_blocks, pdf_blocks
from townhall.library.readers import blocks_of, checked

PAGE = """<!DOCTYPE html>
<html><head><title>Bread &amp; more</title><style>p { color: red }</style>
<script>var hidden = "<p>no</p>";</script></head>
<body><nav>Home | About</nav>
<h1>Sourdough</h1>
<p>Flour, <b>water</b>
and salt.</p>
<h2 id="rest">Resting</h2>
<ul><li>an hour</li><li>a night</li></ul>
<pre>
knead()
  fold()
</pre>
<table><tr><th>flour</th><th>grams</th></tr><tr><td>rye</td><td>200</td></tr></table>
<h1>Rolls</h1>Text without an element<br>second line
</body></html>"""


def test_a_page_gives_its_text_by_heading_and_line():
    found = [(block.text, block.first, block.heading) for block in html_blocks(PAGE)]
    top = "Bread & more"
    assert found == [
        ("Flour, water and salt.", 6, (top, "Sourdough")),
        ("- an hour\n- a night", 9, (top, "Sourdough", "Resting")),
        ("knead()\n  fold()", 11, (top, "Sourdough", "Resting")),
        ("flour | grams\nrye | 200", 14, (top, "Sourdough", "Resting")),
        ("Text without an element\nsecond line", 15, (top, "Rolls")),
    ]
    assert [block.code for block in html_blocks(PAGE)] == [False, False, True, False, False]


@pytest.mark.parametrize(
    "text", ["<p>a<p>b", "<div><b>a</div>b", "a<script>x", "<h1>a", "<!-- x", "<p", "&#x110000; a", "<pre>a</p></pre></pre>b", "</nav>a"]
)
def test_broken_pages_are_read_as_far_as_they_go(text):
    assert all(block.text.strip() for block in html_blocks(text))


def test_code_lies_below_the_definitions_that_hold_it():
    text = 'import os\n\n\nclass Oven:\n    """Bakes."""\n\n    def heat(self, to):\n        return to\n\n'
    text += "    @property\n    def cold(self):\n        return 20\n\n\nLIMIT = 3\n"
    found = [(block.heading, block.first, block.last) for block in code_blocks(text)]
    assert found == [((), 1, 1), (("Oven",), 4, 5), (("Oven", "heat"), 7, 8), (("Oven", "cold"), 10, 12), ((), 15, 15)]


@pytest.mark.parametrize(
    "line, name",
    [
        ("fn main() {", "main"),
        ("pub(crate) struct Dough<T> {", "Dough"),
        ("func (o *Oven) Heat() {", None),
        ("export default function bake(x) {", "bake"),
        ("public static class Main {", "Main"),
        ("static inline int knead(int n) {", "knead"),
        ("[section.one]", "section.one"),
        ("Events are specified by tuples (time, action)", None),
        ("    class for reading things quickly", None),
        ("if (x) {", None),
    ],
)
def test_definitions_of_many_languages_are_known(line, name):
    assert [block.heading for block in code_blocks(f"{line}\n  body\n")] == [(name,) if name else ()]


def test_a_log_gives_its_turns():
    blocks = blocks_of(spell(*TALK), "markdown")
    assert (
        blocks and all(": " in block.text and block.heading for block in blocks) and "<!--" not in " ".join(block.text for block in blocks)
    )
    lines = spell(*TALK).decode().split("\n")
    assert all(lines[block.first - 1] == f"## {block.text.split(':')[0]}" for block in blocks)


def test_a_watched_chat_gives_its_turns():
    blocks = chat_blocks("User: How far\nis it?\n\nStacy: Far.\n\nUser: \n")
    assert [(block.text, block.first, block.last) for block in blocks] == [("User: How far\nis it?", 1, 2), ("Stacy: Far.", 4, 4)]


def test_chats_of_json_lines_give_their_turns():
    lines = [
        {"user_name": "Ann"},
        {"name": "Ann", "mes": "Hi"},
        {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]},
    ]
    text = "\n".join(map(json.dumps, lines))
    assert [(block.text, block.first) for block in chat_blocks(text)] == [("Ann: Hi", 2), ("user: a", 3), ("assistant: b", 3)]
    with pytest.raises(UnreadableFile, match="line 2 is not JSON"):
        chat_blocks('{"name": "Ann", "mes": "Hi"}\n{')


def test_a_pdf_gives_pages_below_their_bookmarks():
    blocks = pdf_blocks(pdf(["First exam-", "ple here."], ["Second."], ["Third."], bookmarks={"Start": 1, "Two": 3, "Three": 3}))
    assert [(block.text, block.page, block.heading) for block in blocks] == [
        ("First example here.", 1, ("Start",)),
        ("Second.", 2, ("Start",)),
        ("Third.", 3, ("Two",)),
    ]
    with pytest.raises(UnreadableFile, match="no text, perhaps pictures"):
        pdf_blocks(pdf([]))


def test_a_docx_gives_paragraphs_below_headings():
    blocks = docx_blocks(docx(("H1", "Bread"), ("", "Flour &amp; water."), ("H2", "Rest"), ("", "An hour.")))
    assert [(block.text, block.heading, block.first) for block in blocks] == [
        ("Flour & water.", ("Bread",), 2),
        ("An hour.", ("Bread", "Rest"), 4),
    ]
    with pytest.raises(UnreadableFile, match="not a DOCX"):
        docx_blocks(b"PK\x03\x04 nothing")


def test_text_is_stored_without_what_cannot_be():
    blocks = checked(blocks_of(b"a\0b\n", "text"))
    assert [block.text for block in blocks] == ["ab"]
    with pytest.raises(UnreadableFile, match="more than"):
        checked(blocks, most=1)
