"""Macros as Character Card V3 and SillyTavern define them."""

import random
from datetime import datetime

import pytest

from townhall.characters.errors import CardError
from townhall.characters.macros import MAX_TEXT, Macros, unknown

NOON = datetime(1986, 9, 4, 20, 30)


def expand(text, **options):
    return Macros("Ada", "Bob", now=NOON, **options).expand(text)


@pytest.mark.parametrize(
    "text, expected",
    [
        ("{{char}} and {{user}}", "Ada and Bob"),
        ("{{CHAR}} {{User}} {{ char }}", "Ada Bob Ada"),
        ("<USER> <user> <BOT> <char> <START>", "Bob Bob Ada Ada <START>"),
        ("a{{// {{char}} is } not said }}b{{//}}", "ab"),
        ("{{comment: seen by people}}{{hidden_key:moon}}", ""),
        ("{{reverse:Hello}} {{reverse:{{char}}}}", "olleH adA"),
        ("{{date}}, {{time}}, {{weekday}}, {{isodate}} {{isotime}}", "September 4, 1986, 8:30 PM, Thursday, 1986-09-04 20:30"),
        ("a{{newline}}b{{noop}}", "a\nb"),
        ("a\n\n{{trim}}\n\nb", "ab"),
        ("{{random:one}} {{pick::one}}", "one one"),
        ("{{random:a\\,b}}", "a,b"),
        ("{{random:{{user}}}}", "Bob"),
        ("{{roll:1}} {{roll:d1}} {{roll:3D1+2}} {{roll 2d1-1}}", "1 1 5 1"),
        ("{{roll:x}}{{roll:0}}{{roll:999d6}}", ""),
        ("{{unknown}} {{getvar::{{char}}}}", "{{unknown}} {{getvar::Ada}}"),
        ("{{ {{char}} }} {{char", "{{ Ada }} {{char"),
        ("}} {{}} {{user}}", "}} {{}} Bob"),
        ("{{original}}|", "|"),
    ],
)
def test_macros_become_what_they_stand_for(text, expected):
    assert expand(text) == expected


def test_what_a_macro_puts_in_is_not_read_again():
    assert Macros("{{user}}", "<BOT>").expand("{{char}} {{user}}") == "{{user}} <BOT>"
    assert expand("{{original}}", values={"original": "{{char}}"}) == "{{char}}"


def test_random_draws_by_the_seed_and_takes_every_choice():
    texts = {Macros("A", rng=random.Random(seed)).expand("{{random::a::b, c::d}}") for seed in range(50)}
    assert texts == {"a", "b, c", "d"}
    assert {expand("{{random: a, b ,c}}", rng=random.Random(seed)) for seed in range(50)} == {"a", "b", "c"}
    assert expand("{{random:a,b,c}}", rng=random.Random(7)) == expand("{{random:a,b,c}}", rng=random.Random(7))


def test_pick_is_the_same_in_a_chat_and_drawn_for_each_place():
    text = "{{pick:a,b,c,d,e,f}}" * 8
    assert expand(text, chat="1", rng=random.Random(1)) == expand(text, chat="1", rng=random.Random(2))
    assert len({expand(text, chat=str(chat)) for chat in range(20)}) > 15
    assert len(set(expand(text, chat="1"))) > 1


def test_rolls_are_within_their_dice():
    rolls = {int(expand("{{roll:d6}}", rng=random.Random(seed))) for seed in range(200)}
    assert rolls == {1, 2, 3, 4, 5, 6}
    assert all(2 <= int(expand("{{roll:2d6}}", rng=random.Random(seed))) <= 12 for seed in range(50))


def test_hidden_keys_show_where_entries_are_scanned():
    macros = Macros("Ada")
    assert macros.expand("a{{hidden_key:moon}}{{//sun}}", hidden_keys=True) == "amoon"


def test_unknown_macros_are_named_once():
    text = "{{char}} {{getvar::x}} {{idle_duration}} {{random:{{foo}},b}} {{getvar::x}} {{//{{bar}}}} {{user:x}}"
    assert unknown(text) == ["getvar::x", "idle_duration", "foo", "user:x"]
    assert unknown("{{description}}", ["description"]) == []


@pytest.mark.parametrize(
    "text", ["{{" * 200_000, "{{random:" * 50_000 + "}}" * 50_000, "{{trim}}\n" * 50_000, "{{a" * 100_000, "}}" * 100_000]
)
def test_many_braces_are_read_in_one_go(text):
    try:
        expand(text)
    except CardError as error:
        assert "take some out" in str(error)


def test_a_text_that_grows_too_long_is_refused():
    with pytest.raises(CardError, match="make more than 1,000,000 characters"):
        Macros("A" * 200).expand("{{char}}" * 6_000)
    with pytest.raises(CardError, match="more than 10,000 choices"):
        expand("{{random:" + "a," * 20_000 + "}}")
    with pytest.raises(CardError, match="has 1,000,002 characters"):
        expand("{{" + "a" * MAX_TEXT)
