"""The texts of the page: every key that is used is there, in both languages, with the same values to fill in."""

import re
from pathlib import Path

ASSETS = Path(__file__).parents[3] / "townhall/web/assets/js"
TEXT = r'"((?:[^"\\]|\\.)*)"'
ENTRY = re.compile(rf'"?([\w.-]+)"?:\s*\[\s*{TEXT},\s*{TEXT},?\s*\]')
SOURCE = (ASSETS / "strings.js").read_text()
STRINGS = {key: (english, german) for key, english, german in ENTRY.findall(SOURCE)}


def test_every_entry_is_a_pair() -> None:
    body = SOURCE[SOURCE.index("export const STRINGS") : SOURCE.index("\n};\n")]
    assert len(STRINGS) == len(re.findall(r'(?:^|, ) *"?[\w.-]+"?: \[', body, re.MULTILINE)) > 150
    assert all(english.strip() and german.strip() for english, german in STRINGS.values())


def test_both_languages_have_the_same_values_and_forms() -> None:
    for key, pair in STRINGS.items():
        assert len({tuple(sorted(re.findall(r"\{\w+\}", text.split("|")[0]))) for text in pair}) == 1, key
        assert len({text.count("|") for text in pair}) == 1, key


def test_every_key_that_is_used_is_there() -> None:
    used = {
        key for path in ASSETS.glob("*.js") if path.name != "strings.js" for key in re.findall(r'\bt\(\s*"([\w.-]+)"', path.read_text())
    }
    used |= {key for path in ASSETS.glob("*.js") for key in re.findall(r'title: "([\w.-]+)"', path.read_text())}
    assert used and not used - STRINGS.keys()


def test_every_setting_that_the_server_declares_has_its_name_in_both_languages() -> None:
    from app.sampler_settings import DECLARED
    from townhall.context.strategies import STRATEGIES

    for name, declared in DECLARED.items():
        assert STRINGS[f"sampler.{name}"][0] == declared.label
        assert not declared.info or STRINGS[f"sampler.{name}.info"][0] == declared.info
    for name, strategy in STRATEGIES.items():
        assert STRINGS[f"strategy.{name}"][0] == strategy.label
