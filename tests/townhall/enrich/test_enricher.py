"""The local model rewrites; what it writes is offered only where it passes, and the own question stays otherwise."""

import pytest

from tests.townhall.fake import FakeLlama
from townhall.enrich.enricher import Enricher, EnrichmentRequest

SAID = [("user", "Who discovered penicillin?"), ("assistant", "Fleming discovered penicillin in London.")]


def enrich(question, writes="", said=SAID, **fields):
    llama = FakeLlama([writes or "never"], max_context=fields.pop("max_context", 1024))
    return Enricher(llama).enrich(EnrichmentRequest(question, said, **fields)), llama


def test_what_the_model_resolves_is_offered_with_the_wanted_form():
    found, llama = enrich("When did he discover it?", "When did Fleming discover penicillin?")
    assert found.changed and found.text == "When did Fleming discover penicillin? Answer with a date."
    assert found.form == "Answer with a date."
    assert found.question == "When did Fleming discover penicillin?" and found.tokens > 0
    shown = llama.tokenizer.show(llama.prompts[0])
    assert "A: Who discovered penicillin?\nB: Fleming discovered penicillin in London.\nA: When did he discover it?" in shown


@pytest.mark.parametrize("writes", ["When did Einstein sing?", "Nothing.", "When did he discover it?"])
def test_what_the_model_writes_badly_is_left_and_the_reason_said(writes):
    found, _ = enrich("When did he do that again?", writes)
    assert not found.changed and found.text == found.own == "When did he do that again?" and found.reason
    assert found.to_json()["changed"] is False


def test_rules_need_no_model():
    found, llama = enrich("and of Italy?", said=[("user", "What is the capital of Spain?"), ("assistant", "Madrid.")])
    assert found.text == "What is the capital of Italy?" and llama.prompts == []
    found, llama = enrich("How long is the second one?", said=[("user", "Two rivers?"), ("assistant", "The Nile and the Amazon.")])
    assert found.question == "How long is the Amazon?" and llama.prompts == []
    found, llama = enrich("What is the capital of Spain?")
    assert not found.changed and llama.prompts == []


def test_facts_of_memory_talk_and_documents_are_added():
    said = [("user", "I have a dog called Rex."), ("assistant", "How nice!")]
    found, _ = enrich("What should my dog eat?", said=said, notes=["My dog cannot eat chicken."])
    assert set(found.facts) == {"I said: I have a dog called Rex.", "I said: My dog cannot eat chicken."}
    assert all(fact in found.text for fact in found.facts) and found.text.startswith("What should my dog eat? (")
    asked = []

    def search(question):
        asked.append(question)
        return ["Rye dough rests overnight in the fridge. The oven is hot."]

    found, _ = enrich("Where does rye dough rest?", said=[], search=search)
    assert found.facts == ("My documents say: Rye dough rests overnight in the fridge.",) and asked == ["Where does rye dough rest?"]


def test_it_can_be_stopped_and_a_long_talk_is_cut_to_what_the_model_reads():
    llama = FakeLlama(["When did Fleming discover penicillin?"])
    found = Enricher(llama).enrich(EnrichmentRequest("When did he discover it?", SAID), lambda: True)
    assert not found.changed and found.reason == "it was stopped"
    long = [("user", "word " * 200), ("assistant", "word " * 200)] * 4 + SAID
    found, llama = enrich("When did he discover it?", "When did Fleming discover penicillin?", long, max_context=360)
    assert found.changed and all(len(ids) <= 360 for ids in llama.prompts)
