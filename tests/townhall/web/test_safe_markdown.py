"""Words are shown as words: nothing that is said becomes a tag, a picture, or anything that is fetched."""

import pytest

from townhall.web.safe_markdown import spoken, written


@pytest.mark.parametrize(
    "text, shown",
    [
        ("**bold** and `a < b`", "**bold** and `a < b`"),
        ("<script>x</script>", "&lt;script>x&lt;/script>"),
        ("![x](http://far.away/p.png)", "!\\[x](http://far.away/p.png)"),
        ("<img src='http://far.away'>", "&lt;img src='http://far.away'>"),
        ("```html\n<b>kept</b>\n```\n<b>", "```html\n<b>kept</b>\n```\n&lt;b>"),
        ("```\n<b>still open", "```\n<b>still open"),
        ("a ` b <i>", "a ` b &lt;i>"),
    ],
)
def test_a_models_markdown_counts_and_its_html_is_shown(text, shown):
    assert spoken(text) == shown


def test_what_a_person_typed_is_shown_as_it_was_typed():
    assert written("2 * 3 * 4 <b>\n  # no heading") == "2 \\* 3 \\* 4 \\<b\\>\n\N{NO-BREAK SPACE}\N{NO-BREAK SPACE}\\# no heading"


def test_a_persons_fenced_code_is_code():
    assert written("look:\n```\n<b>\n```") == "look:\n```\n<b>\n```"


def test_many_backticks_take_no_time():
    text = "`" * 20_000 + "x" + "~" * 20_000
    assert spoken(text).count("`") == 20_000
    assert spoken("`a " * 20_000).count("`") == 20_000
