"""Answers as they show: wrapped at words, harmless, Markdown as it is meant."""

import random
import sys

import pyte
import pytest

from tests.townhall.cli.screen import CTRL_C, CTRL_D, ENTER
from townhall.cli import terminal
from townhall.cli.render import Verbatim, open_view
from townhall.cli.word_wrap import Wrapped, width

pytestmark = pytest.mark.slow


@pytest.fixture
def size(monkeypatch):
    def set_size(columns, lines=24):
        monkeypatch.setenv("COLUMNS", str(columns))
        monkeypatch.setenv("LINES", str(lines))

    return set_size


def columns():
    return terminal.size(sys.stdout).columns


def wrapped(text, cut=lambda text: [text], cue=""):
    shown = []
    view = Wrapped(shown.append, columns, cue)
    for piece in cut(text):
        view.push(piece)
    view.close()
    return "".join(shown)


@pytest.mark.parametrize(
    "text, shown",
    [
        ("one two three four five", "one two\nthree four\nfive"),
        ("exact lines of 11", "exact lines\nof 11"),
        ("  indented\n\n\ntwice", "  indented\n\n\ntwice"),
        ("trailing   \nspaces   ", "trailing\nspaces"),
        ("a word-that-is-longer-than-a-line b long", "a\nword-that-is-longer-than-a-line b\nlong"),
        ("日本語のテキストです", "日本語のテ\nキストです"),
        ("und 日本 so", "und 日本 so"),
        ("two\r\nlines\r\n", "two\nlines\n"),
        ("```\nx = [1, 2, 3, 4, 5]\n```\nx x x x x x x", "```\nx = [1, 2, 3, 4, 5]\n```\nx x x x x x\nx"),
    ],
)
def test_lines_break_between_words(size, text, shown):
    size(12)
    assert wrapped(text) == f"{shown}\n"
    assert wrapped(text, cut=list) == f"{shown}\n"


def test_how_a_reply_was_cut_into_pieces_does_not_show(size):
    size(30)
    draw = random.Random(7)
    words = ["word", "grüße", "日本", "🎉", "a", "unbelievably-long-" * 3, "\n", "\r\n", "\t", "  ", "```\n", "e\u0301"]
    for _ in range(200):
        text = " ".join(draw.choices(words, k=40))

        def cut(text):
            while text:
                n = draw.randint(1, 9)
                yield text[:n]
                text = text[n:]

        assert wrapped(text, cut) == wrapped(text)


def test_the_cue_takes_its_room_and_no_word_waits_for_the_end(size):
    size(20)
    assert wrapped("ten letters each", cue="\x1b[1mStacy: \x1b[0m") == "\x1b[1mStacy: \x1b[0mten letters\neach\n"
    shown = []
    view = Wrapped(shown.append, columns)
    view.push("one two")
    assert "".join(shown) == "one"
    view.push(" ")
    assert "".join(shown) == "one two"


@pytest.mark.parametrize("text, columns", [("abc", 3), ("日本", 4), ("grüße", 5), ("e\u0301", 1), ("🎉", 2)])
def test_width_is_the_terminals(text, columns):
    assert width(text) == columns


HARMFUL = "\x1b[31mred \x1b]0;title\x07 \x9b2J \x00\x08\x7f \u202eback\u2066 \u2028 \ud800 tab\tline\nfeed"


def test_nothing_that_speaks_to_the_terminal_gets_through(size):
    size(200)
    shown = wrapped(HARMFUL, cut=list)
    assert not set(shown) & set("\x1b\x07\x9b\x00\x08\x7f\u202e\u2066\u2028\ud800")
    assert "red" in shown and "tab\tline\nfeed" in shown
    assert terminal.defused("👩\u200d👩\u200d👧 ❤\ufe0f") == "👩\u200d👩\u200d👧 ❤\ufe0f"


def test_a_pipe_gets_every_byte(capsys):
    text = "\x1b[31mred\r\n  and   spaces, " + "long " * 100
    view = open_view("", markdown=True)
    assert isinstance(view, Verbatim)
    for piece in text:
        view.push(piece)
    view.close()
    assert capsys.readouterr().out == text + "\n"


def test_json_at_a_terminal_is_harmless_too(chat):
    screen = chat("--json", replies=["one \x9b31m two"])
    screen.prompt()
    screen.type("Hi", ENTER)
    screen.wait_for('"text": "one')
    screen.prompt()
    screen.type(CTRL_D)
    screen.leave()
    assert "\x9b" not in screen.raw.decode()


MARKDOWN = """# Moons

Some **bold** text with `code` and a [link](https://example.org).
A second row, <b>HTML</b>.

1. first
2. second
   - nested

| planet | moons |
|--------|------:|
| Mars | 2 |

```python
def f(x):
    return x
```
Done."""

RENDERED = """Moons

Some bold text with code and a link
(https://example.org).
A second row, <b>HTML</b>.

 1 first
 2 second
    • nested

 planet  moons
 ─────────────
 Mars        2

 def f(x):
     return x

Done.
"""


def on_a_screen(capsys, text, cut, columns, lines):
    """What a person sees of it, what has rolled off at the top included."""
    from townhall.cli.markdown import Markdown

    screen = pyte.HistoryScreen(columns, lines, history=1000, ratio=1)
    stream = pyte.Stream(screen)
    view = Markdown("")
    for piece in cut(text):
        view.push(piece)
        stream.feed(capsys.readouterr().out.replace("\n", "\r\n"))
    view.close()
    stream.feed(capsys.readouterr().out.replace("\n", "\r\n"))
    above = ["".join(row[n].data for n in range(columns)) for row in screen.history.top]
    return "\n".join(row.rstrip() for row in [*above, *screen.display]).rstrip() + "\n"


@pytest.mark.parametrize("cut", [lambda text: [text], list, lambda text: text.splitlines(keepends=True)], ids=["whole", "letters", "rows"])
@pytest.mark.parametrize("lines", [40, 10])
def test_markdown_shows_as_it_is_meant_however_it_comes(size, capsys, cut, lines):
    size(40, lines)
    assert on_a_screen(capsys, MARKDOWN, cut, 40, lines) == RENDERED


def test_a_block_that_has_rolled_out_of_reach_stays_and_the_next_are_rendered(size, capsys):
    size(40, 10)
    code = "```\n" + "".join(f"row {n}\n" for n in range(30)) + "```\n"
    shown = on_a_screen(capsys, f"**before**\n\n{code}\n**after**", list, 40, 10)
    assert shown == f"before\n\n{code}\nafter\n"


def test_markdown_of_any_kind_loses_no_word_and_is_harmless(size, capsys):
    size(60, 20)
    draw = random.Random(3)
    marks = [
        "# ",
        "- ",
        "1. ",
        "> ",
        "```\n",
        "\n",
        "\n\n",
        "**",
        "`",
        "| a | b |\n|---|---|\n",
        "    ",
        "<b>",
        "---\n",
        "\x1b[2J",
        "[x](y)",
        "&amp;",
        "\\",
    ]
    for _ in range(150):
        pieces = [draw.choice(marks) if draw.random() < 0.6 else f"word{n} " for n in range(30)]
        shown = on_a_screen(capsys, "".join(pieces), lambda _, p=pieces: p, 60, 20)
        missing = [piece for piece in pieces if piece.startswith("word") and piece.strip() not in shown]
        assert not missing, (pieces, shown)


def test_markdown_in_a_session(chat):
    screen = chat("--markdown", replies=[MARKDOWN, "**One**" + " more" * 300], columns=40, pause=0.01)
    screen.say("Tell me", f"Stacy:\n{RENDERED.rstrip()}\nUser:")
    screen.say("Go on", "**One** more more more")
    screen.type(CTRL_C)
    screen.wait_for("Stacy:\nOne more more", "(stopped)")
    screen.say("/settings markdown false", "markdown is false")
    screen.say("Again", "Stacy: # Moons")
    screen.prompt()
    screen.type(CTRL_D)
    assert screen.leave() == 0


def test_a_narrow_window_and_wide_characters(chat):
    reply = "Grüße aus Köln, 日本語のテキストもここで折り返されるはずです 🎉🎉 end."
    screen = chat(replies=[reply], columns=40)
    screen.say("Erzähl mir etwas, das länger ist als vierzig Spalten 🎉 日本")
    screen.wait_for("end.")
    text = screen.text()  # before the help, which pushes it off the screen
    note = "\n/note [DEPTH] [TEXT|off]  an author's\nnote, DEPTH messages before the end of\nevery prompt (4)\n"
    screen.say("/help", note, "\n/reset  begin anew\n")
    screen.prompt()
    screen.type(CTRL_D)
    screen.leave()
    assert "Stacy: Grüße aus Köln, 日本語のテキスト\nもここで折り返されるはずです 🎉🎉 end." in text
    assert "".join("User: Erzähl mir etwas, das länger ist als vierzig Spalten 🎉 日本".split()) in "".join(text.split())


def test_a_table_keeps_its_columns_where_they_leave_room(chat):
    screen = chat(replies=["Fine."], columns=70)
    row, hung = f"{'/context [full]':<29}how full the window is; full: all that", f"{'':<29}was said, and what of it the model no"
    screen.say("/help", f"{row}\n{hung}")
    screen.prompt()
    screen.type(CTRL_D)
    assert screen.leave() == 0
