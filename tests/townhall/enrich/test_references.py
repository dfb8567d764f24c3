"""Words that point back, what rules make of them, and what a rewritten question must keep."""

import pytest

from townhall.enrich.known_facts import about_me, matching, sentences, statements, wanted_form
from townhall.enrich.references import carried_over, members, pointing, refers, with_members, with_salient
from townhall.enrich.rewrite_guard import fault_of


@pytest.mark.parametrize(
    "question, needs",
    [
        ("And the second one?", True),
        ("Why?", True),
        ("How tall is it?", True),
        ("What about Italy?", True),
        ("How many people live there?", True),
        ("What is the capital of Spain?", False),
        ("What time is it?", False),
        ("Is there life on Mars?", False),
        ("Who won the second world war?", False),
        ("Did Anna say that Oslo is cold?", False),
        ("Where does the Nile end, and how long is it?", False),  # the name stands in the question itself
    ],
)
def test_a_question_that_points_back_is_told_from_others(question, needs):
    assert refers(question) == needs


@pytest.mark.parametrize(
    "text, found",
    [
        ("1. Jupiter\n2. Saturn - with rings\n3. Uranus", ["Jupiter", "Saturn", "Uranus"]),
        ("- **copper**\n- nickel", ["copper", "nickel"]),
        ("The two longest rivers are the Nile and the Amazon.", ["the Nile", "the Amazon"]),
        ("Two violins, a viola and a cello.", ["Two violins", "a viola", "a cello"]),
        ("I would come and listen.", []),
        ("Is it red or blue?", []),
        ("Nothing to list here.", []),
    ],
)
def test_a_list_is_taken_apart(text, found):
    assert members(text) == found


@pytest.mark.parametrize(
    "question, becomes",
    [
        ("How long is the second one?", "How long is b?"),
        ("Is the last of them good?", "Is c good?"),
        ("The former or the latter?", "a or c?"),
        ("What about the 3rd one?", "What about c?"),
        ("And the seventh one?", "And the seventh one?"),
        ("Who won the second world war?", "Who won the second world war?"),
    ],
)
def test_a_member_is_named(question, becomes):
    assert with_members(question, ["a, b and c.", "Nice."]) == becomes


def test_the_same_is_asked_of_another():
    before = "What is the capital of Spain?"
    assert carried_over("and of Italy?", before) == "What is the capital of Italy?"
    assert carried_over("What about of Italy", before) == "What is the capital of Italy?"
    assert carried_over("and in Italy?", before) is None and carried_over("How big is it?", before) is None


def test_a_name_takes_a_pronouns_place():
    said = ["Who discovered penicillin?", "Alexander Fleming discovered penicillin in London.", "I see.", "Good."]
    assert with_salient("Where was he born?", said) == "Where was Alexander Fleming born?"
    assert with_salient("Who lives there?", said) == "Who lives in London?"
    assert with_salient("When did he do it?", said) == "When did he do it?"  # a deed is no thing
    assert with_salient("What are they?", said) == "What are they?"
    assert pointing("When was she born, and where did Anna live?") == ["she"]


@pytest.mark.parametrize(
    "own, offered, fault",
    [
        ("When was he born?", "When was Fleming born?", ""),
        ("When was he born?", "When was he born?", "resolved nothing"),
        ("When was he born?", "", "wrote nothing"),
        ("When was he born?", "When did Fleming die?", "lost 'born'"),
        ("When was he born?", "When was Einstein born?", "brought in"),
        ("Did he find 3 of them?", "Did Fleming find 4 of the penicillin?", "lost '3'"),
        ('What does "mould" have to do with it?', "What does Fleming have to do with penicillin?", "lost"),
        ("Who found it?", "Who discovered penicillin?", "lost 'found'"),
        ("Who discovered it?", "Who discovered penicillin?", "asked again"),
        ("Where did he see it?", "Where did Fleming see it?", "still points"),
        ("When was he born?", "When was Fleming born?\nIn Scotland.", "no single question"),
        ("When was he born?", "When was Fleming born in 1929?", "brought in"),
    ],
)
def test_what_is_offered_keeps_the_question_and_invents_nothing(own, offered, fault):
    found = fault_of(own, offered, ["Who discovered penicillin?", "Fleming discovered penicillin in 1928."])
    assert fault in found and bool(fault) == bool(found)


def test_facts_that_matter_are_the_users_own_and_those_of_documents():
    told = statements(["My dog is called Rex. How are you?", "It rains.", "I live in Ghent with my dog and a cat."])
    assert told == ["My dog is called Rex.", "I live in Ghent with my dog and a cat."]
    assert matching("What should my dog eat?", told) == list(reversed(told)) and matching("How far is the moon?", told) == []
    assert matching("My dog is called Rex, is it?", [told[0]]) == []  # it says so already
    assert about_me("What do I own?") and not about_me("What does an owl eat?")
    assert sentences(["Short. The dough rests overnight in the fridge."]) == ["The dough rests overnight in the fridge."]


@pytest.mark.parametrize(
    "question, form",
    [
        ("How many moons has Mars?", "Answer with a number."),
        ("When was it?", "Answer with a date."),
        ("Who was it?", "Answer with a name."),
        ("Where is Oslo?", "Answer with a place."),
        ("Can I eat nuts?", "Answer with yes or no, and say why."),
        ("Why is the sky blue?", ""),
        ("How many moons has Mars, in one word?", ""),
    ],
)
def test_the_wanted_form_is_stated_where_the_question_leaves_it_open(question, form):
    assert wanted_form(question) == form
