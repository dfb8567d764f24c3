"""Lorebooks of three spellings, and which entries fire: what SillyTavern's code and the specification of V3 say, case by case.

`python -m bench.lorebooks` compares thousands of random books with SillyTavern's own code.
"""

import json
import random

import pytest

from townhall.characters.errors import LorebookError
from townhall.characters.lore_state import LoreState
from townhall.characters.lorebook import Logic, Lorebook, Place, Spot
from townhall.characters.lorebook_scan import LoreScanner, ScanSettings
from townhall.characters.macros import Macros


def entry(keys=(), content="said", extensions=None, **fields):
    return {"keys": list(keys), "content": content, "enabled": True, "insertion_order": 100, "extensions": extensions or {}, **fields}


def book(*entries, **fields):
    numbered = [{"id": at, **one} for at, one in enumerate(entries)]
    return Lorebook.from_values({"name": "book", "entries": numbered, "extensions": {}, **fields}, "x", "card x")


def words(text):
    return len(text.split())


def chat(*texts):
    return [("user" if at % 2 == 0 else "assistant", text) for at, text in enumerate(texts)]


def scan(lore, *texts, state=None, seed=0, macros=None, **settings):
    books = lore if isinstance(lore, list) else [lore]
    return LoreScanner(books, macros, ScanSettings(**settings)).scan(chat(*texts), state or LoreState(), words, random.Random(seed))


def fired(lore, *texts, **options):
    return sorted(one.entry.uid for one in scan(lore, *texts, **options).fired)


WORLD_INFO = {
    "entries": {
        "0": {
            "uid": 0,
            "key": ["moon", "/lun(a|e)/i"],
            "keysecondary": ["sea"],
            "comment": "Moon",
            "content": "It is far.",
            "constant": False,
            "selective": True,
            "selectiveLogic": 3,
            "order": 7,
            "position": 4,
            "depth": 2,
            "role": 1,
            "disable": False,
            "excludeRecursion": True,
            "preventRecursion": True,
            "delayUntilRecursion": 2,
            "probability": 40,
            "useProbability": True,
            "group": "sky, night",
            "groupOverride": True,
            "groupWeight": 30,
            "scanDepth": 3,
            "caseSensitive": True,
            "matchWholeWords": True,
            "useGroupScoring": True,
            "sticky": 1,
            "cooldown": 2,
            "delay": 3,
        },
        "1": {"uid": 1, "key": ["off"], "keysecondary": [], "content": "", "disable": True, "position": 0},
    }
}


def test_world_info_and_a_book_with_its_extensions_say_the_same():
    native = Lorebook.from_values(WORLD_INFO, "book", "x")
    moon, off = native.entries
    assert (moon.uid, moon.title, moon.keys, moon.secondary_keys, moon.logic) == (
        "0",
        "Moon",
        ("moon", "/lun(a|e)/i"),
        ("sea",),
        Logic.AND_ALL,
    )
    assert moon.place == Place(Spot.AT_DEPTH, 2, "user") and moon.groups == ("sky", "night") and moon.delay_until_recursion == 2
    assert not off.enabled and off.place == Place(Spot.BEFORE_CHARACTER)
    raw = WORLD_INFO["entries"]["0"]
    names = {"excludeRecursion": "exclude_recursion", "preventRecursion": "prevent_recursion", "scanDepth": "scan_depth"}
    names |= {"delayUntilRecursion": "delay_until_recursion", "groupOverride": "group_override", "groupWeight": "group_weight"}
    names |= {"caseSensitive": "case_sensitive", "matchWholeWords": "match_whole_words", "useGroupScoring": "use_group_scoring"}
    same = ("position", "depth", "role", "selectiveLogic", "probability", "useProbability", "group", "sticky", "cooldown", "delay")
    extensions = {names[key]: raw[key] for key in names} | {key: raw[key] for key in same} | {"display_index": 0}
    spelled = entry(raw["key"], raw["content"], extensions, id=0, comment="Moon", secondary_keys=["sea"], selective=True, use_regex=True)
    assert book(spelled | {"insertion_order": 7}).entries[0] == moon


def test_a_file_is_world_info_or_a_lorebook_of_v3(tmp_path):
    (tmp_path / "sky.json").write_text(json.dumps(WORLD_INFO))
    assert Lorebook.from_file(tmp_path / "sky.json").name == "sky"
    (tmp_path / "v3.json").write_text(
        json.dumps({"spec": "lorebook_v3", "data": {"name": "N", "scan_depth": 2, "entries": [entry(["a"])]}})
    )
    read = Lorebook.from_file(tmp_path / "v3.json")
    assert (read.name, read.scan_depth, read.token_budget, read.recursive, len(read.entries)) == ("N", 2, None, None, 1)


@pytest.mark.parametrize(
    "values, fault",
    [
        ([], "holds no lorebook"),
        ({"entries": 3}, "holds no lorebook"),
        ({"entries": [7]}, "entry 0 of the lorebook must be an object"),
        ({"entries": {"\u200bseven\n" * 99: 7}}, "entry seven seven seven"),
        ({"entries": [{"keys": [1]}]}, "entry 0 of the lorebook: 'keys' must be a list of texts"),
        ({"entries": {"a": {"content": 5}}}, "entry a of the lorebook: 'content' must be text"),
        ({"entries": [{"insertion_order": "first"}]}, "'insertion_order' must be a number"),
        ({"entries": [{"constant": "yes"}]}, "'constant' must be true or false"),
        ({"entries": [{}] * 10_001}, "has 10,001 lorebook entries"),
        ({"entries": [{"keys": ["k"] * 10_001}] * 10}, "more than 100,000 keys"),
        ({"entries": [{"content": "x" * 100_001}]}, "has 100,001 characters"),
    ],
)
def test_what_is_no_lorebook_is_refused_in_one_sentence(values, fault):
    with pytest.raises(LorebookError) as caught:
        Lorebook.from_values(values, "x", "card x")
    said = str(caught.value)
    assert fault in said and said.startswith("card x") and said.isprintable() and len(said) < 200


def test_a_key_is_found_anywhere_and_in_any_case_unless_it_says_otherwise():
    lore = book(
        entry(["Dragon"]),
        entry(["Dragon"], case_sensitive=True),
        entry(["drag"], extensions={"match_whole_words": True}),
        entry(["the red"], extensions={"match_whole_words": True}),
        entry(["é"], extensions={"match_whole_words": True}),
        entry(["ab"]),
        entry(["STRASSE"]),
        entry([]),
        entry(["dragon"], enabled=False),
    )
    assert fired(lore, "I saw dragons") == ["0"]
    assert fired(lore, "The Dragon is here") == ["0", "1"]
    assert fired(lore, "a drag, I say; café") == ["2"]
    assert fired(lore, "bathe redly") == ["3"]  # several words are looked for as they are, as in SillyTavern
    assert fired(lore, "é.") == ["4"] and fired(lore, "xaby") == ["5"] and fired(lore, "Straße") == ["6"]
    assert fired(book(entry(["Key"]), entry(["ey"])), "my keys", case_sensitive=True, whole_words=True) == []


@pytest.mark.parametrize(
    "logic, expected",
    [(0, {"one", "both"}), (1, {"none", "one"}), (2, {"none"}), (3, {"both"})],
    ids=["and any", "not all", "not any", "and all"],
)
def test_secondary_keys_and_their_four_logics(logic, expected):
    lore = book(entry(["moon"], secondary_keys=["sea", "tide"], selective=True, extensions={"selectiveLogic": logic}))
    texts = {"none": "moon", "one": "moon, sea", "both": "moon, sea and tide", "no key": "sea and tide"}
    assert {name for name, text in texts.items() if fired(lore, text)} == expected
    assert fired(book(entry(["moon"], secondary_keys=["sea"], selective=False)), "moon") == ["0"]


def test_only_the_newest_messages_are_scanned():
    lore = book(entry(["moon"]), entry(["moon"], extensions={"scan_depth": 3}), entry(["moon"], "@@scan_depth 1\nsaid"), scan_depth=2)
    assert fired(lore, "moon") == ["0", "1", "2"] and fired(lore, "moon", "b") == ["0", "1"]
    assert fired(lore, "moon", "b", "c") == ["1"] and fired(lore, "moon", "b", "c", "d") == []
    assert fired(book(entry(["moon"]), scan_depth=0), "moon") == []
    assert fired(book(entry(["moon"])), "moon", *"abc", scan_depth=4) == ["0"]


def test_regex_keys_are_javascripts_and_see_where_messages_begin():
    lore = book(entry(["/dra(g|k)on/i"]), entry(["/^\\x01hail/m"]), entry(["/a\\/b/"]), entry(["/x/y"]), entry(["/(?<n>o)\\k<n>/"]))
    assert fired(lore, "A DRAKON") == ["0"] and fired(lore, "hail", "no hail") == ["1"]
    assert fired(lore, "a/b") == ["2"] and fired(lore, "/x/y") == ["3"] and fired(lore, "moon") == ["4"]
    bare = book(entry(["dra.on"], use_regex=True, constant=True), entry(["(broken"], use_regex=True))
    assert fired(bare, "a drakon") == ["0"] and fired(bare, "(broken") == []


@pytest.mark.parametrize(
    "key, text",
    [
        ("/(a|aa)+$/", "a" * 100 + "b"),
        ("/(x+x+)+y/", "x" * 5_000),
        ("/(\\w+\\s?)*$/", "word " * 500 + "!"),
        ("/(?:[a-z]+)*1?(?:[a-z]+)*2$/", "abcdef" * 500 + "12!2!"),
    ],
)
def test_a_regex_that_would_run_for_ages_counts_as_not_found(key, text):
    """Each would take longer than the universe is old; nothing here measures time."""
    done = scan(book(entry([key]), entry(["/b|x|w|a/"])), text)
    assert [one.entry.uid for one in done.fired] == ["1"]
    assert done.notes == (f"key {key!r} took longer than 0.05 s, and counts as not found",)


@pytest.mark.parametrize(
    "key, fault",
    [
        ("/(((a{100}){100}){100})/", "longer than 5,000 characters when its repetitions are written out"),
        ("/(?R)/", "not JavaScript's"),
        ("/(?i)a/", "not JavaScript's"),
        ("/x{e<=3}/", "not JavaScript's"),
        ("/\\L<x>/", "not JavaScript's"),
        ("/" + "a" * 501 + "/", "longer than 500 characters"),
        ("/" + "(" * 33 + "a" + ")" * 33 + "/", "more than 32 groups"),
        ("/a)/", "closes a group"),
        ("/[b-a]/", "no valid regular expression"),
        ("/(a/", "no valid regular expression"),
    ],
)
def test_a_regex_that_is_not_usable_is_no_match_and_named(key, fault):
    done = scan(book(entry([key])), "aaaa")
    assert not done.fired and len(done.notes) == 1 and fault in done.notes[0]


def test_all_regexes_of_a_scan_share_one_time():
    slow = [entry([f"/(a|aa)+${'|x' * at}/"]) for at in range(200)]
    done = scan(book(*slow), "a" * 100 + "b")
    assert not done.fired and any("the time for regular expressions was up" in note for note in done.notes)


def test_constant_entries_fire_always_and_are_stable_where_nothing_changes_them():
    lore = book(
        entry(content="a", constant=True),
        entry(content="{{random:a,b}}", constant=True),
        entry(content="c", constant=True, extensions={"position": 4}),
        entry(["x"], content="d"),
        entry(content="e", constant=True, extensions={"sticky": 2}),
    )
    assert [(one.entry.uid, one.stable, one.why) for one in scan(lore, "x").fired] == [
        *[("0", True, "constant"), ("1", False, "constant"), ("2", False, "constant"), ("3", False, "key 'x'"), ("4", False, "constant")]
    ]


def test_lower_order_comes_first_and_places_are_put_together():
    lore = book(
        entry(["x"], "second", insertion_order=20, position="before_char"),
        entry(["x"], "first", insertion_order=10, position="before_char"),
        entry(["x"], "after", position="after_char"),
        entry(["x"], "deep", {"position": 4, "depth": 1, "role": 2}, insertion_order=1),
        entry(["x"], "", position="before_char"),
    )
    texts = scan(lore, "x").texts()
    assert [(text.place, text.text) for text in texts] == [
        (Place(Spot.AT_DEPTH, 1, "assistant"), "deep"),
        (Place(Spot.BEFORE_CHARACTER), "first\nsecond"),
        (Place(Spot.AFTER_CHARACTER), "after"),
    ]
    assert sum(one.tokens for text in texts for one in text.entries) == scan(lore, "x").tokens == 4


def test_over_the_budget_the_lowest_priority_goes_first():
    lore = book(
        entry(["x"], "one two three", priority=1, insertion_order=900),
        entry(["x"], "four five", priority=3, insertion_order=1),
        entry(["x"], "six seven", priority=2, insertion_order=2),
        token_budget=4,
    )
    done = scan(lore, "x")
    assert [one.entry.uid for one in done.fired] == ["1", "2"] and done.tokens == 4
    assert [(one.uid, why) for one, why in done.passed_over] == [("0", "over the book's budget of 4 tokens")]
    assert fired(book(*[entry(["x"], "a b", insertion_order=order) for order in (1, 3, 2)]), "x", budget=4) == ["1", "2"]
    rest = book(entry(["x"], "a b c"), entry(["x"], "d", extensions={"ignore_budget": True}))
    assert fired(rest, "x", budget=1) == ["1"]


def test_the_budget_of_all_books_gives_the_first_book_precedence():
    first, second = (book(entry(["x"], "a b", insertion_order=order), name=name) for order, name in ((1, "first"), (900, "second")))
    assert [one.entry.book for one in scan([first, second], "x", budget=3).fired] == ["first"]
    twins = scan([first, first], "x")
    assert [one.entry.id for one in twins.fired] == ["first.0", "first#1.0"]


def test_what_entries_say_fires_others_within_limits():
    lore = [entry(["a"], "b"), entry(["b"], "c"), entry(["c"], "d")]
    assert fired(book(*lore), "a") == ["0"] and fired(book(*lore, recursive_scanning=True), "a") == ["0", "1", "2"]
    assert fired(book(*lore), "a", recursive=True, max_passes=2) == ["0", "1"]
    assert fired(book(*lore, recursive_scanning=False), "a", recursive=True) == ["0"]
    done = scan(book(*lore, recursive_scanning=True), "a")
    assert [one.why for one in done.fired] == [
        "key 'a'",
        *(f"key {key!r}, in pass {n} with what entries say" for key, n in (("b", 2), ("c", 3))),
    ]


def test_entries_may_take_no_part_in_recursion():
    excluded = book(entry(["a"], "b"), entry(["b"], "z", {"exclude_recursion": True}), recursive_scanning=True)
    assert fired(excluded, "a") == ["0"] and fired(excluded, "b") == ["1"]
    assert fired(book(entry(["a"], "b", {"prevent_recursion": True}), entry(["b"]), recursive_scanning=True), "a") == ["0"]
    late = book(entry(["a"], "b"), entry(["a"], extensions={"delay_until_recursion": True}), recursive_scanning=True)
    assert fired(late, "a") == ["0", "1"] and fired(book(late_entry := entry(["a"], extensions={"delay_until_recursion": True})), "a") == []
    levels = book(entry(["a"], "b"), late_entry | {"keys": ["b"]}, entry(["b"], "c", {"delay_until_recursion": 2}), recursive_scanning=True)
    assert fired(levels, "a") == ["0", "1", "2"]


def test_hidden_keys_fire_others_and_comments_do_not():
    lore = book(entry(["a"], "x{{hidden_key:moon}}{{//sun}}"), entry(["moon"]), entry(["sun"]), recursive_scanning=True)
    done = scan(lore, "a")
    assert [(one.entry.uid, one.text) for one in done.fired] == [("0", "x"), ("1", "said")]


def test_probability_draws_by_the_seed():
    lore = book(entry(["x"], extensions={"probability": 30, "useProbability": True}))
    hits = [seed for seed in range(300) if fired(lore, "x", seed=seed)]
    assert 60 < len(hits) < 120 and hits == [seed for seed in range(300) if fired(lore, "x", seed=seed)]
    assert not any(fired(book(entry(["x"], extensions={"probability": 0})), "x", seed=seed) for seed in range(50))
    assert fired(book(entry(["x"], extensions={"probability": 0, "useProbability": False})), "x") == ["0"]


def turns(lore, texts, **settings):
    """What fires as a chat grows by a message each time."""
    state, seen = LoreState(), []
    for count in range(1, len(texts) + 1):
        done = scan(lore, *texts[:count], state=state, **settings)
        state = LoreState.from_json(json.loads(json.dumps(done.state.to_json())))
        seen.append("".join(one.entry.uid for one in done.fired))
    return seen


def test_entries_stay_keep_silent_and_wait_for_messages():
    assert turns(book(entry(["x"], extensions={"sticky": 3}), scan_depth=1), "x...." + "x.") == ["0", "0", "0", "", "", "0", "0"]
    assert turns(book(entry(["x"], extensions={"cooldown": 2})), "xxxxx") == ["0", "", "0", "", "0"]
    both = book(entry(["x"], extensions={"sticky": 2, "cooldown": 2}), scan_depth=1)
    assert turns(both, "xxxxxx") == ["0", "0", "", "", "0", "0"]
    assert turns(book(entry(["x"], extensions={"delay": 3})), "xxxx") == ["", "", "0", "0"]
    passed = scan(book(entry(["x"], extensions={"delay": 3})), "x").passed_over
    assert [why for _, why in passed] == ["waits for 3 messages"]


def test_a_retry_finds_what_the_first_try_found():
    lore = book(entry(["x"], extensions={"cooldown": 4}), entry(["x"], "@@dont_activate_after_match\nonce"))
    first = scan(lore, "a", "x")
    assert [one.entry.uid for one in first.fired] == ["0", "1"] == [one.entry.uid for one in scan(lore, "a", "x", state=first.state).fired]
    assert fired(lore, "a", "x", "x", state=first.state) == []


def test_of_a_group_one_fires():
    heavy = [entry(["x"], extensions={"group": "g", "group_weight": weight}) for weight in (90, 10)]
    drawn = [fired(book(*heavy), "x", seed=seed) for seed in range(200)]
    assert all(len(uids) == 1 for uids in drawn) and 150 < sum(uids == ["0"] for uids in drawn) < 198
    first = [entry(["x"], extensions={"group": "g"}), entry(["x"], extensions={"group": "g", "group_override": True})]
    assert fired(book(*first), "x") == ["1"]
    scored = [entry(keys, extensions={"group": "g", "use_group_scoring": True}) for keys in (["x"], ["x", "y"])]
    assert {tuple(fired(book(*scored), "x y", seed=seed)) for seed in range(20)} == {("1",)}
    done = scan(book(*first), "x")
    assert [(one.uid, why) for one, why in done.passed_over] == [("0", "another of group 'g' comes first")]
    later = book(entry(["x"], "y", {"group": "g"}), entry(["y"], extensions={"group": "g"}), recursive_scanning=True)
    assert fired(later, "x") == ["0"]
    stays = book(entry(["x"], extensions={"group": "g", "sticky": 5}), entry(["y"], extensions={"group": "g", "group_override": True}))
    assert turns(stays, ["x", "y"]) == ["0", "0"]


@pytest.mark.parametrize(
    "decorators, texts, expected",
    [
        ("@@activate", ["no"], True),
        ("@@dont_activate", ["x"], False),
        ("@@dont_activate\n@@activate", ["x"], True),
        ("@@activate_only_after 1", ["x"], False),
        ("@@activate_only_after 1", ["x", "a", "x"], True),
        ("@@activate_only_every 2", ["x", "a", "x"], False),
        ("@@activate_only_every 2", ["x", "a", "b", "c", "x"], True),
        ("@@additional_keys sun,moon", ["x"], False),
        ("@@additional_keys sun,moon", ["x moon"], True),
        ("@@additional_keys sun\n@@additional_keys moon", ["x moon"], False),
        ("@@exclude_keys sun,moon", ["x moon"], False),
        ("@@exclude_keys sun,moon", ["x"], True),
        ("@@is_greeting 1", ["x"], False),
        ("@@is_greeting 0", ["x"], True),
        ("@@unheard_of 7\n@@@dont_activate", ["x"], False),
        ("@@depth 1\n@@@dont_activate", ["x"], True),
        ("@@unheard_of\n@@@nor_this 3\n@@@dont_activate", ["x"], False),
        ("@@scan_depth many", ["x"], True),
        ("@@instruct_depth 3", ["x"], True),
    ],
)
def test_decorators_of_v3(decorators, texts, expected):
    done = scan(book(entry(["x"], f"{decorators}\n\nsaid")), *texts)
    assert bool(done.fired) == expected and all(one.text == "said" for one in done.fired)


@pytest.mark.parametrize(
    "decorators, place",
    [
        ("@@depth 2\n@@role assistant", Place(Spot.AT_DEPTH, 2, "assistant")),
        ("@@reverse_depth 1", Place(Spot.AT_DEPTH, 1, from_start=True)),
        ("@@depth 2\n@@position before_desc", Place(Spot.BEFORE_CHARACTER)),
        ("@@position scenario", Place(Spot.SCENARIO)),
        ("@@position nowhere\n@@@depth 3", Place(Spot.AT_DEPTH, 3)),
        ("@@role wizard", Place(Spot.AFTER_CHARACTER)),
    ],
)
def test_decorators_say_where_a_text_goes(decorators, place):
    assert book(entry(["x"], f"{decorators}\nsaid")).entries[0].place == place


def test_decorators_remember_what_fired():
    keep = book(entry(["x"], "@@keep_activate_after_match\nsaid"), scan_depth=1)
    assert turns(keep, ".x..") == ["", "0", "0", "0"]
    once = book(entry(["x"], "@@dont_activate_after_match\nsaid"))
    assert turns(once, ".xxx") == ["", "0", "", ""]
    assert fired(book(entry(["x"], "@@ignore_on_max_context\nsaid")), "x", window_full=True) == []


def test_macros_stand_for_what_they_are_in_keys_and_contents():
    lore = book(entry(["{{char}}"], "{{char}} knows {{user}}; {{random:yes,no}}"))
    macros = Macros("Ada", "Bob")
    said = {scan(lore, "Hello Ada", macros=macros, seed=seed).fired[0].text for seed in range(20)}
    assert said == {"Ada knows Bob; yes", "Ada knows Bob; no"} and fired(lore, "Hello Eve", macros=macros) == []


def test_ten_thousand_entries_find_what_a_plain_search_finds():
    """Against `in`, over text and keys with many runs in common."""
    rng = random.Random(3)
    vocabulary = ["".join(rng.choices("abc", k=rng.randint(1, 7))) for _ in range(3_000)]
    keys = [rng.choice(vocabulary) for _ in range(10_000)]
    texts = [" ".join(rng.choices(vocabulary, k=30)) for _ in range(20)]
    lore = book(*[entry([key], "said") for key in keys], scan_depth=20)
    whole = "\n".join(texts)
    assert fired(lore, *texts) == sorted(str(at) for at, key in enumerate(keys) if key in whole)
